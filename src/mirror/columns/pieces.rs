//! A large table in pieces, each of the rows between two of its keys, in the order of the primary key.

use std::fmt::Write;

use super::{schema::Columns, sql::ordered};
use crate::mirror::statement::{Param, Statement};

impl Columns {
    /// The key at which a piece of `rows` rows behind `after` ends; nothing where there are not so many.
    pub(in crate::mirror) fn piece_end(&self, after: Option<&[Param]>, rows: usize) -> Statement {
        let mut statement = self.keys_after(after, 1);
        let _ = write!(statement.sql, " OFFSET {}", rows.saturating_sub(1));
        statement
    }

    /// The keys of the rows behind `after`, up to `end`.
    pub(in crate::mirror) fn keys_within(
        &self,
        after: Option<&[Param]>,
        end: Option<&[Param]>,
    ) -> Statement {
        let Statement { sql: within, params } = self.within(after, end);
        Statement::new(format!("SELECT {} FROM `{}`{within}", self.key_list(""), self.name), params)
    }

    /// The condition that holds for the rows behind `after`, up to `end`: beginning with `WHERE`, or empty.
    pub(in crate::mirror) fn within(
        &self,
        after: Option<&[Param]>,
        end: Option<&[Param]>,
    ) -> Statement {
        let mut sql = String::new();
        let mut params = Vec::new();
        for (bound, is_end) in [(after, false), (end, true)] {
            let Some(bound) = bound else { continue };
            sql.push_str(if sql.is_empty() { " WHERE (" } else { " AND (" });
            self.beyond(bound, is_end, &mut sql, &mut params);
            sql.push(')');
        }
        Statement::new(sql, params)
    }

    /// The keys that are greater than `bound`; or, as an end, those that are not.
    fn beyond(&self, bound: &[Param], is_end: bool, sql: &mut String, params: &mut Vec<Param>) {
        let order: Vec<_> = self.key_columns().map(ordered).collect();
        for (at, param) in bound.iter().enumerate() {
            sql.push_str(if at == 0 { "(" } else { " OR (" });
            for (before, equal) in order[..at].iter().zip(bound) {
                let _ = write!(sql, "{}={} AND ", before.0, before.1);
                params.push(equal.clone());
            }
            let compared = match (is_end, at + 1 == order.len()) {
                (false, _) => ">",
                (true, false) => "<",
                (true, true) => "<=",
            };
            let _ = write!(sql, "{}{compared}{})", order[at].0, order[at].1);
            params.push(param.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::columns::test_columns;

    #[test]
    fn a_piece_has_the_rows_behind_one_key_up_to_another() {
        let of = [("a", "int(11)"), ("b", "int(11)")];
        let one = test_columns("t", &of, &["a"]);
        let two = test_columns("t", &of, &["a", "b"]);
        let key = [Param::Number(1), Param::Number(2)];
        assert_eq!(one.within(None, None), Statement::new("", []));
        assert_eq!(
            one.within(Some(&key[..1]), Some(&key[1..])).sql,
            " WHERE ((`a`>?)) AND ((`a`<=?))"
        );
        let within = two.within(Some(&key), Some(&key));
        assert_eq!(
            within.sql,
            " WHERE ((`a`>?) OR (`a`=? AND `b`>?)) AND ((`a`<?) OR (`a`=? AND `b`<=?))"
        );
        assert_eq!(within.params.len(), 6);
        let end = one.piece_end(Some(&key[..1]), 500);
        assert_eq!(end.sql, "SELECT `a` FROM `t` WHERE (`a`>?) ORDER BY `a` LIMIT 1 OFFSET 499");
    }
}
