//! The statements of one column table, and their parameters.
//!
//! Rows are written by their place only. `INSERT ... ON DUPLICATE KEY UPDATE` finds one that stands by its
//! primary key. With a second unique index, or where the primary key's collation folds, it would change a row of
//! another key: there it is for rows that stand, and the others are a plain `INSERT`.

use std::fmt::Write;

use super::{
    batch::ColumnRecord,
    codec::RowParams,
    kind::Kind,
    schema::{Column, Columns},
};
use crate::mirror::{
    statement::{Param, ROWS_MAX, Statement, repeat},
    table_setting::TableSetting,
};

/// How many parameters a statement can have.
const PARAMS_MAX: usize = 65_535;
/// What a parameter takes besides its bytes, roughly, in bytes.
const PARAM_BYTES: usize = 12;

impl Columns {
    /// All columns, each behind `prefix` (such as `t.`), as [`Columns::value_of`] reads them.
    pub(in crate::mirror) fn select_list(&self, prefix: &str) -> String {
        list(&self.columns, prefix)
    }

    /// The key's columns, as [`Columns::key_of`] reads them.
    pub(in crate::mirror) fn key_list(&self, prefix: &str) -> String {
        list(self.key_columns(), prefix)
    }

    /// The keys of these that stand, and their rows locked.
    pub(in crate::mirror) fn lock(&self, keys: &[&[Param]]) -> Statement {
        let mut statement = self.at(&format!("SELECT {} FROM", self.key_list("")), keys);
        statement.sql.push_str(" FOR UPDATE");
        statement
    }

    /// All columns of these rows, as far as they stand.
    pub(in crate::mirror) fn rows(&self, keys: &[&[Param]]) -> Statement {
        self.at(&format!("SELECT {} FROM", self.select_list("")), keys)
    }

    /// The keys of the rows, locked, that collide with this one: in the primary key as its collation sees it,
    /// or in another unique index. Its own is among them if it stands.
    pub(in crate::mirror) fn rivals(&self, record: &ColumnRecord) -> Statement {
        let mut sql = format!("SELECT {} FROM `{}` WHERE ", self.key_list(""), self.name);
        let mut params = Vec::new();
        let primary = self.key_columns().map(|column| column.name.as_str()).collect();
        let others = self.unique.iter().map(|unique| unique.columns.iter());
        let indexes =
            std::iter::once(primary).chain(others.map(|i| i.map(String::as_str).collect()));
        for index in indexes {
            let index: Vec<&str> = index;
            let values: Vec<_> = index
                .iter()
                .filter_map(|name| self.columns.iter().position(|column| column.name == *name))
                .map(|at| (&self.columns[at], record.row.get(at).cloned().flatten()))
                .collect();
            // What is NULL collides with nothing.
            if values.iter().any(|(_, value)| matches!(value, Some(Param::Null))) {
                continue;
            }
            sql.push_str(if params.is_empty() { "(" } else { " OR (" });
            for (at, (column, value)) in values.into_iter().enumerate() {
                let (and, name) = (if at == 0 { "" } else { " AND " }, name_of(column));
                let _ = match value {
                    Some(value) => {
                        params.push(value);
                        write!(sql, "{and}{name}={}", placeholder(column))
                    }
                    None => write!(sql, "{and}{name}=DEFAULT({name})"),
                };
            }
            sql.push(')');
        }
        sql.push_str(" FOR UPDATE");
        Statement::new(sql, params)
    }

    /// Deletes these rows.
    pub(in crate::mirror) fn delete(&self, keys: &[&[Param]]) -> Statement {
        self.at("DELETE FROM", keys)
    }

    /// Adds rows, none of which stands.
    pub(in crate::mirror) fn insert(&self, records: &[&ColumnRecord]) -> Statement {
        let names: Vec<_> = self.columns.iter().map(name_of).collect();
        let mut sql = format!("INSERT INTO `{}` ({}) VALUES ", self.name, names.join(","));
        let rows = || records.iter().map(|record| &record.row);
        for (at, row) in rows().enumerate() {
            sql.push_str(if at == 0 { "(" } else { ",(" });
            for (at, param) in row.iter().enumerate() {
                sql.push_str(if at == 0 { "" } else { "," });
                sql.push_str(if param.is_some() { "?" } else { "DEFAULT" });
            }
            sql.push(')');
        }
        let params: Vec<_> = rows().flat_map(|row| row.iter().flatten().cloned()).collect();
        Statement::new(sql, params)
    }

    /// Writes rows over those with the same keys. Where a row could collide with one of another key, that
    /// one would change: then each of these has to stand.
    pub(in crate::mirror) fn update(&self, records: &[&ColumnRecord]) -> Statement {
        let mut statement = self.insert(records);
        statement.sql.push_str(" ON DUPLICATE KEY UPDATE ");
        for (at, column) in self.columns.iter().enumerate() {
            let (comma, name) = (if at == 0 { "" } else { "," }, name_of(column));
            let _ = write!(statement.sql, "{comma}{name}=VALUES({name})");
        }
        statement
    }

    /// The keys in the order of the primary key: `rows_max` of them, behind `after` where given.
    pub(in crate::mirror) fn keys_after(
        &self,
        after: Option<&[Param]>,
        rows_max: usize,
    ) -> Statement {
        let order: Vec<_> = self.key_columns().map(ordered).collect();
        let mut place = String::new();
        let mut params = Vec::new();
        for (at, param) in after.unwrap_or_default().iter().enumerate() {
            place.push_str(if at == 0 { " WHERE (" } else { " OR (" });
            for (before, equal) in order[..at].iter().zip(after.unwrap_or_default()) {
                let _ = write!(place, "{}={} AND ", before.0, before.1);
                params.push(equal.clone());
            }
            let _ = write!(place, "{}>{})", order[at].0, order[at].1);
            params.push(param.clone());
        }
        let by: Vec<_> = order.iter().map(|(name, _)| name.as_str()).collect();
        let (keys, table) = (self.key_list(""), &self.name);
        Statement::new(
            format!(
                "SELECT {keys} FROM `{table}`{place} ORDER BY {} LIMIT {rows_max}",
                by.join(",")
            ),
            params,
        )
    }

    /// Whether the table has any row.
    pub(in crate::mirror) fn any_row(&self) -> Statement {
        Statement::new(format!("SELECT 1 FROM `{}` LIMIT 1", self.name), [])
    }

    /// `what`, of the rows with these keys.
    pub(super) fn at(&self, what: &str, keys: &[&[Param]]) -> Statement {
        let mut one = String::new();
        for (at, column) in self.key_columns().enumerate() {
            let and = if at == 0 { "" } else { " AND " };
            let _ = write!(one, "{and}{}={}", name_of(column), placeholder(column));
        }
        let mut sql = format!("{what} `{}` WHERE ", self.name);
        if self.key.len() == 1 {
            let column = &self.columns[self.key[0]];
            let _ = write!(sql, "{} IN (", name_of(column));
            repeat(&mut sql, &placeholder(column), ",", keys.len());
            sql.push(')');
        } else {
            // Not (a, b) IN (...): MariaDB would read the whole table, and lock it.
            repeat(&mut sql, &format!("({one})"), " OR ", keys.len());
        }
        Statement::new(sql, keys.iter().flat_map(|key| key.iter().cloned()).collect::<Vec<_>>())
    }
}

/// How many of these rows one statement takes: a power of two, at least one.
pub(in crate::mirror) fn rows_that_fit(rows: &[&ColumnRecord], bytes_max: usize) -> usize {
    let (mut bytes, mut params) = (0, 0);
    let fit = rows.iter().take(ROWS_MAX).take_while(|record| {
        bytes += size_bytes(&record.row);
        params += record.row.len();
        bytes <= bytes_max && params <= PARAMS_MAX
    });
    crate::mirror::statement::power_of_two(fit.count().max(1))
}

/// A row's share of a statement, roughly, in bytes.
pub(super) fn size_bytes(row: &RowParams) -> usize {
    let of = |param: &Option<Param>| match param {
        Some(Param::Bytes(bytes)) => bytes.len() + PARAM_BYTES,
        _ => PARAM_BYTES,
    };
    row.iter().map(of).sum()
}

/// Makes a table of the columns that the setting declares.
pub(in crate::mirror) fn create(table: &str, setting: &TableSetting) -> Statement {
    let mut sql = format!("CREATE TABLE IF NOT EXISTS `{table}` (");
    for column in &setting.columns {
        let _ = write!(sql, "{} {}, ", quoted(&column.name), column.definition);
    }
    let key: Vec<_> = setting.primary_key.iter().map(|name| quoted(name)).collect();
    let _ = write!(sql, "PRIMARY KEY ({})) ENGINE=InnoDB", key.join(","));
    sql.push_str(" DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin");
    Statement::new(sql, [])
}

fn list<'c>(columns: impl IntoIterator<Item = &'c Column>, prefix: &str) -> String {
    let mut list = String::new();
    for column in columns {
        let comma = if list.is_empty() { "" } else { "," };
        let name = name_of(column);
        let _ = match column.kind {
            // As text a FLOAT is told with six digits.
            Kind::Float { is_double: false, .. } => {
                write!(list, "{comma}CAST({prefix}{name} AS DOUBLE)")
            }
            _ => write!(list, "{comma}{prefix}{name}"),
        };
    }
    list
}

/// What to order a key's column by, and what to compare it with.
pub(super) fn ordered(column: &Column) -> (String, String) {
    let name = name_of(column);
    match column.kind {
        // They are ordered by their number, and compared by their name.
        Kind::Enum(_) | Kind::Set(_) => {
            (format!("CAST(CONVERT({name} USING utf8mb4) AS BINARY)"), "CAST(? AS BINARY)".into())
        }
        _ => (name, placeholder(column)),
    }
}

/// A text would be compared with a decimal as floating numbers.
pub(in crate::mirror) fn placeholder(column: &Column) -> String {
    match column.kind {
        Kind::Decimal { digits, scale, .. } => format!("CAST(? AS DECIMAL({digits},{scale}))"),
        _ => "?".to_owned(),
    }
}

/// Its name, quoted.
pub(super) fn name_of(column: &Column) -> String {
    quoted(&column.name)
}

/// A name, quoted.
pub(in crate::mirror) fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mirror::{
            columns::{Place, schema::tests::facts},
            table_setting::DeclaredColumn,
        },
        model::{Key, Version},
    };

    fn columns(key: &[&str]) -> Columns {
        let of = [("a", "decimal(5,2)"), ("b", "enum('x','y')"), ("c`", "float"), ("d", "int(11)")];
        Columns::of("t", &facts(&of, key), &TableSetting::default()).unwrap()
    }

    fn record(row: RowParams) -> ColumnRecord {
        let (key, version) = (Key::new("k").unwrap(), Version::default());
        let place = Place { key, params: Vec::new(), version };
        ColumnRecord { place, row, value_bytes: 0, expires_at_ms: None }
    }

    #[test]
    fn each_placeholder_has_its_parameter() {
        let columns = columns(&["a", "b"]);
        let key = [Param::Number(1), Param::Number(2)];
        let row = record(vec![Some(Param::Null), None, Some(Param::Null), Some(Param::Null)]);
        for statement in [
            columns.lock(&[&key, &key]),
            columns.rows(&[&key]),
            columns.delete(&[&key, &key, &key]),
            columns.insert(&[&row, &row]),
            columns.update(&[&row]),
            columns.rivals(&row),
            columns.keys_after(None, 10),
            columns.keys_after(Some(&key), 10),
            columns.any_row(),
        ] {
            let placeholders = statement.sql.matches('?').count();
            assert_eq!(placeholders, statement.params.len(), "{}", statement.sql);
        }
    }

    #[test]
    fn statements_name_every_column() {
        let several = columns(&["a", "b"]);
        assert_eq!(several.select_list("t."), "t.`a`,t.`b`,CAST(t.`c``` AS DOUBLE),t.`d`");
        let key = [Param::Number(1), Param::Number(2)];
        assert_eq!(
            several.lock(&[&key, &key]).sql,
            "SELECT `a`,`b` FROM `t` WHERE (`a`=CAST(? AS DECIMAL(5,2)) AND `b`=?) OR \
             (`a`=CAST(? AS DECIMAL(5,2)) AND `b`=?) FOR UPDATE"
        );
        assert_eq!(
            several.keys_after(Some(&key), 10).sql,
            "SELECT `a`,`b` FROM `t` WHERE (`a`>CAST(? AS DECIMAL(5,2))) OR \
             (`a`=CAST(? AS DECIMAL(5,2)) AND CAST(CONVERT(`b` USING utf8mb4) AS BINARY)\
             >CAST(? AS BINARY)) ORDER BY `a`,CAST(CONVERT(`b` USING utf8mb4) AS BINARY) LIMIT 10"
        );
        let one = columns(&["d"]);
        assert_eq!(one.delete(&[&key[..1], &key[1..]]).sql, "DELETE FROM `t` WHERE `d` IN (?,?)");
        let row = record(vec![Some(Param::Null), None, Some(Param::Null), Some(Param::Null)]);
        assert_eq!(
            one.update(&[&row]).sql,
            "INSERT INTO `t` (`a`,`b`,`c```,`d`) VALUES (?,DEFAULT,?,?) ON DUPLICATE KEY UPDATE \
             `a`=VALUES(`a`),`b`=VALUES(`b`),`c```=VALUES(`c```),`d`=VALUES(`d`)"
        );
    }

    #[test]
    fn a_declared_table_is_made() {
        let setting = TableSetting {
            columns: vec![DeclaredColumn { name: "id".into(), definition: "INT NOT NULL".into() }],
            primary_key: vec!["id".into()],
            ..TableSetting::default()
        };
        assert_eq!(
            create("t", &setting).sql,
            "CREATE TABLE IF NOT EXISTS `t` (`id` INT NOT NULL, PRIMARY KEY (`id`)) ENGINE=InnoDB \
             DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_nopad_bin"
        );
    }

    #[test]
    fn statements_have_no_more_parameters_than_mysql_takes() {
        let wide = record(vec![Some(Param::Null); 1_000]);
        let rows: Vec<_> = (0..300).map(|_| &wide).collect();
        assert_eq!(rows_that_fit(&rows, usize::MAX), 64);
        assert_eq!(rows_that_fit(&rows, 1), 1);
    }
}
