//! Many rows: what each comes to.

use serde::{Deserialize, Serialize};

use super::{
    compare::{differing, object},
    newer::is_mysql_newer,
};
use crate::{
    mirror::columns::Columns,
    model::Key,
    node::{AdoptCounts, AdoptExample, AdoptKind, Decision, Stand},
};

/// How many rows of each kind are shown.
const EXAMPLES_MAX: usize = 5;

/// What is kept in MySQL of an adoption under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::mirror) struct Progress {
    pub(in crate::mirror) decision: Decision,
    pub(in crate::mirror) counts: AdoptCounts,
}

/// A row of MySQL, and the store's of the same key.
#[derive(Clone, Debug)]
pub(in crate::mirror) struct Standing {
    pub(in crate::mirror) key: Key,
    pub(in crate::mirror) mysql: Vec<u8>,
    /// `None`: it has none that lives.
    pub(in crate::mirror) store: Option<Vec<u8>>,
    /// An application has written it since the capture began.
    pub(in crate::mirror) is_written: bool,
}

/// A row that lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mirror) struct Loser {
    pub(in crate::mirror) key: Key,
    pub(in crate::mirror) stood_in: Stand,
    pub(in crate::mirror) row: Vec<u8>,
}

/// What comes of some rows.
#[derive(Clone, Debug, Default)]
pub(in crate::mirror) struct Judged {
    pub(in crate::mirror) counts: AdoptCounts,
    pub(in crate::mirror) examples: Vec<AdoptExample>,
    /// They are to become writes of this site.
    pub(in crate::mirror) touched: Vec<Key>,
    pub(in crate::mirror) losers: Vec<Loser>,
}

impl Judged {
    /// Shows a row, if few of its kind are shown so far.
    pub(in crate::mirror) fn show(
        &mut self,
        kind: AdoptKind,
        key: &Key,
        columns: Vec<String>,
        winner: Option<Stand>,
    ) {
        if self.examples.iter().filter(|example| example.kind == kind).count() < EXAMPLES_MAX {
            let key = key.bytes().clone();
            self.examples.push(AdoptExample { kind, key, columns, winner });
        }
    }
}

/// Judges rows, on from what is counted in `judged`. Without a decision nothing is touched and nothing loses.
pub(in crate::mirror) fn judge(
    columns: &Columns,
    rows: Vec<Standing>,
    decision: Option<&Decision>,
    judged: &mut Judged,
) {
    for Standing { key, mysql, store, is_written } in rows {
        let Some(store) = store else {
            judged.counts.only_mysql += 1;
            judged.show(AdoptKind::OnlyMySql, &key, Vec::new(), None);
            judged.touched.push(key);
            continue;
        };
        let differing = differing(columns, &key, &mysql, &store);
        if differing.is_empty() {
            judged.counts.equal += 1;
            continue;
        }
        judged.counts.different += 1;
        let winner = match decision {
            _ if is_written => Some(Stand::MySql),
            None => None,
            Some(Decision::Keep(stand)) => Some(*stand),
            Some(Decision::NewerBy(column)) => {
                match is_mysql_newer(column, &object(&mysql), &object(&store)) {
                    true => Some(Stand::MySql),
                    false => Some(Stand::Store),
                }
            }
        };
        judged.show(AdoptKind::Different, &key, differing, winner);
        match winner {
            None => {}
            Some(Stand::MySql) => {
                judged.losers.push(Loser { key: key.clone(), stood_in: Stand::Store, row: store });
                if is_written {
                    // Its entry is there.
                    judged.counts.written_since += 1;
                } else {
                    judged.counts.mysql_wins += 1;
                    judged.touched.push(key);
                }
            }
            Some(Stand::Store) => {
                judged.counts.store_wins += 1;
                judged.losers.push(Loser { key, stood_in: Stand::MySql, row: mysql });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::columns::test_columns;

    fn key(text: &str) -> Key {
        Key::new(text.to_owned()).unwrap()
    }

    fn rows() -> Vec<Standing> {
        let row = |id: u8, at: u8| format!(r#"{{"id":{id},"at":{at}}}"#).into_bytes();
        let standing = |id: u8, mysql: u8, store: Option<u8>, is_written| Standing {
            key: key(&id.to_string()),
            mysql: row(id, mysql),
            store: store.map(|at| row(id, at)),
            is_written,
        };
        vec![
            standing(1, 5, None, false),
            standing(2, 5, Some(5), false),
            standing(3, 5, Some(4), false),
            standing(4, 5, Some(6), false),
            standing(5, 5, Some(6), true),
            standing(6, 5, None, true),
        ]
    }

    fn judged(decision: Option<Decision>) -> Judged {
        let columns = [("id", "int(11)"), ("at", "int(11)")];
        let columns = test_columns("t", &columns, &["id"]);
        let mut judged = Judged::default();
        judge(&columns, rows(), decision.as_ref(), &mut judged);
        judged
    }

    fn losers(judged: &Judged) -> Vec<(&[u8], Stand)> {
        judged.losers.iter().map(|loser| (loser.key.as_slice(), loser.stood_in)).collect()
    }

    const COUNTS: AdoptCounts = AdoptCounts {
        only_mysql: 2,
        only_store: 0,
        equal: 1,
        different: 3,
        mysql_wins: 0,
        store_wins: 0,
        written_since: 1,
    };

    #[test]
    fn the_later_row_wins_and_the_other_is_kept() {
        let judged = judged(Some(Decision::NewerBy("at".into())));
        assert_eq!(judged.counts, AdoptCounts { mysql_wins: 1, store_wins: 1, ..COUNTS });
        assert_eq!(judged.touched, [key("1"), key("3"), key("6")]);
        let (here, there) = (Stand::MySql, Stand::Store);
        assert_eq!(losers(&judged), [(&b"3"[..], there), (b"4", here), (b"5", there)]);
        let different = &judged.examples[1];
        assert_eq!((&different.columns[..], different.winner), (&["at".into()][..], Some(here)));
    }

    #[test]
    fn one_side_is_kept_but_for_what_was_written_since() {
        let of = |stand| judged(Some(Decision::Keep(stand)));
        let (mysql, store) = (of(Stand::MySql), of(Stand::Store));
        assert_eq!(mysql.counts, AdoptCounts { mysql_wins: 2, ..COUNTS });
        assert_eq!(store.counts, AdoptCounts { store_wins: 2, ..COUNTS });
        assert_eq!(store.touched, [key("1"), key("6")]);
        assert_eq!(losers(&store)[2], (&b"5"[..], Stand::Store));
    }

    #[test]
    fn without_a_decision_they_are_counted() {
        let judged = judged(None);
        assert_eq!(judged.counts, COUNTS);
        assert_eq!(losers(&judged), [(&b"5"[..], Stand::Store)]);
    }

    #[test]
    fn few_are_shown_of_each_kind() {
        let mut judged = Judged::default();
        for n in 0..20 {
            judged.show(AdoptKind::OnlyStore, &key(&n.to_string()), Vec::new(), None);
            judged.show(AdoptKind::OnlyMySql, &key(&n.to_string()), Vec::new(), None);
        }
        assert_eq!(judged.examples.len(), 2 * EXAMPLES_MAX);
    }
}
