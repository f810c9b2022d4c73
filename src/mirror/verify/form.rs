//! How the rows of a table stand in MySQL, as far as a comparison has to know: keys and values, or columns.
//!
//! Both are lists of keys with a number for each row, which MySQL computes as this side does ([`kv`], and
//! `columns/number.rs`). Of a column table that is seldom not so; then the row itself tells.

use std::{collections::BTreeMap, sync::Arc};

use super::kv::{self, Kv};
use crate::{
    mirror::{
        capture::Outbox,
        columns::{Columns, RowParams},
        mysql::{Cell, number},
        statement::{self, Param, Statement},
    },
    model::{Body, Key, TableName},
};

/// Rows by their keys, as numbers.
pub(super) type Numbers = BTreeMap<Vec<u8>, u64>;

/// How the rows of a table are compared.
#[derive(Clone, Debug)]
pub(super) enum Form {
    Kv(Kv),
    Columns {
        columns: Arc<Columns>,
        /// Where it is captured.
        outbox: Option<Arc<Outbox>>,
        /// What absent members stand for, where MySQL could be asked.
        defaults: Option<Arc<RowParams>>,
    },
}

impl Form {
    /// Where MySQL's order of the keys is that of their bytes.
    pub(super) fn ordered(&self) -> Option<&Kv> {
        match self {
            Form::Kv(kv) if kv.is_ordered() => Some(kv),
            _ => None,
        }
    }

    pub(super) fn columns(&self) -> Option<&Arc<Columns>> {
        match self {
            Form::Kv(_) => None,
            Form::Columns { columns, .. } => Some(columns),
        }
    }

    /// Whether MySQL can look for this key at all.
    pub(super) fn may_hold(&self, key: &[u8]) -> bool {
        match self {
            Form::Kv(kv) => kv.may_hold(key),
            Form::Columns { columns, .. } => params(columns, key).is_some(),
        }
    }

    /// The number of a row of the store; `None`: it is a tombstone.
    pub(super) fn number(&self, key: &Key, body: &Body) -> Option<u64> {
        match self {
            Form::Kv(_) => kv::number(key.as_slice(), body),
            Form::Columns { columns, defaults, .. } => {
                let none = RowParams::new();
                let defaults = defaults.as_deref().unwrap_or(&none);
                Some(columns.number(key, &body.value()?, defaults))
            }
        }
    }

    /// Count and sum of the rows with these keys that live at `now_ms`.
    pub(super) fn sum_of_keys(&self, keys: &[Vec<u8>], now_ms: u64) -> Statement {
        match self {
            Form::Kv(kv) => kv.sum_of_keys(keys, now_ms),
            Form::Columns { columns, .. } => columns.sum_of(&slices(&all_params(columns, keys))),
        }
    }

    /// Of the rows with these keys what [`Form::numbers`] reads.
    pub(super) fn numbers_of_keys(&self, keys: &[Vec<u8>], now_ms: u64) -> Statement {
        match self {
            Form::Kv(kv) => kv.rows_of_keys(keys, now_ms),
            Form::Columns { columns, .. } => {
                columns.numbers_of(&slices(&all_params(columns, keys)))
            }
        }
    }

    /// The rows of such a result that live. A row without a number differs from every other.
    pub(super) fn numbers(&self, rows: Vec<Vec<Cell>>) -> Numbers {
        let row = |row: Vec<Cell>| match self {
            Form::Kv(_) => {
                let lives = row.get(2).and_then(number) == Some(1);
                let of = row.get(1).and_then(number).unwrap_or_default();
                Some((row.into_iter().next()??, of)).filter(|_| lives)
            }
            Form::Columns { columns, .. } => {
                let (of, key) = row.split_first()?;
                let key = columns.key_of(key).ok()?;
                Some((key.as_slice().to_vec(), number(of).unwrap_or_default()))
            }
        };
        rows.into_iter().filter_map(row).collect()
    }

    /// The keys in MySQL's order, behind those of the row `after` of an earlier result.
    pub(super) fn keys_after(
        &self,
        table: &TableName,
        after: Option<&[Cell]>,
        rows_max: usize,
    ) -> Statement {
        match self {
            Form::Kv(_) => {
                let after = after.and_then(|row| row.first()?.as_deref());
                statement::keys_after(table, after, rows_max)
            }
            Form::Columns { columns, .. } => {
                let after = after.map(|row| columns.params_of(row));
                columns.keys_after(after.as_deref(), rows_max)
            }
        }
    }

    /// The key of a row of such a result; `None`: no store could have it.
    pub(super) fn key_of(&self, row: &[Cell]) -> Option<Vec<u8>> {
        match self {
            Form::Kv(_) => row.first().cloned().flatten(),
            Form::Columns { columns, .. } => {
                columns.key_of(row).ok().map(|key| key.as_slice().to_vec())
            }
        }
    }

    /// How many rows are looked at with one statement.
    pub(super) fn look_rows_max(&self, keys_max: usize) -> usize {
        match self {
            Form::Kv(_) => keys_max,
            Form::Columns { columns, .. } => columns.fetch_rows_max().min(keys_max),
        }
    }

    /// Which of these keys' rows an application has in hand: number and mark of each entry, then as
    /// [`Form::key_of`] reads it. `None`: nothing is captured.
    pub(super) fn in_hand(&self, keys: &[Vec<u8>]) -> Option<Statement> {
        match self {
            Form::Columns { columns, outbox: Some(outbox), .. } => {
                Some(outbox.noted(&slices(&all_params(columns, keys))))
            }
            _ => None,
        }
    }

    /// The rows with these keys, for [`Form::found`].
    pub(super) fn look_at(&self, keys: &[Vec<u8>], now_ms: u64) -> Statement {
        match self {
            Form::Kv(kv) => kv.rows_of_keys(keys, now_ms),
            Form::Columns { columns, .. } => columns.rows(&slices(&all_params(columns, keys))),
        }
    }

    /// Key and number of a row of such a result, as far as MySQL could tell it; and whether it has expired, which
    /// a column table's row does not say.
    pub(super) fn found(&self, row: &[Cell]) -> Option<(Vec<u8>, Option<u64>, bool)> {
        match self {
            Form::Kv(_) => {
                let [Some(key), of, lives] = row else { return None };
                Some((key.clone(), number(of), number(lives) == Some(0)))
            }
            Form::Columns { columns, .. } => {
                let key = columns.key_of_row(row).ok()?;
                let of = columns.number(&key, &columns.value_of(row), &RowParams::new());
                Some((key.as_slice().to_vec(), Some(of), false))
            }
        }
    }
}

/// The parameters for a key; `None`: no row can have it.
fn params(columns: &Columns, key: &[u8]) -> Option<Vec<Param>> {
    columns.key_params(&Key::new(key.to_vec()).ok()?).ok()
}

fn all_params(columns: &Columns, keys: &[Vec<u8>]) -> Vec<Vec<Param>> {
    keys.iter().filter_map(|key| params(columns, key)).collect()
}

fn slices(keys: &[Vec<Param>]) -> Vec<&[Param]> {
    keys.iter().map(Vec::as_slice).collect()
}
