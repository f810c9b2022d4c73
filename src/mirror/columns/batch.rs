//! What is to be done in one column table: written, deleted, set aside.

use std::collections::BTreeMap;

use super::{codec::RowParams, schema::Columns, sql::size_bytes};
use crate::{
    mirror::{mapping::Refused, statement::Param},
    model::{Body, Key, Version},
};

/// What is to be done in one table, each key once and in the order of the keys.
#[derive(Debug, Default)]
pub(in crate::mirror) struct ColumnBatch {
    /// Rows to write.
    pub(in crate::mirror) records: Vec<ColumnRecord>,
    /// Rows that are deleted or expired.
    pub(in crate::mirror) dead: Vec<Place>,
    /// Rows that MySQL would not keep as they are; where their keys are keys of the table.
    pub(in crate::mirror) refused: Vec<(Refused, Option<Place>)>,
    /// Dead rows whose keys no row of the table can have.
    pub(in crate::mirror) nowhere: Vec<Key>,
}

/// A row to write.
#[derive(Clone, Debug)]
pub(in crate::mirror) struct ColumnRecord {
    pub(in crate::mirror) place: Place,
    pub(in crate::mirror) row: RowParams,
    pub(in crate::mirror) value_bytes: usize,
    /// Milliseconds since the Unix epoch, UTC.
    pub(in crate::mirror) expires_at_ms: Option<u64>,
}

/// Where a row stands, or would, and which version of it this is.
#[derive(Clone, Debug)]
pub(in crate::mirror) struct Place {
    pub(in crate::mirror) key: Key,
    pub(in crate::mirror) params: Vec<Param>,
    pub(in crate::mirror) version: Version,
}

impl ColumnBatch {
    /// Sorts rows by what becomes of them at the time `now_ms` (since the Unix epoch, UTC), where a
    /// statement takes at most `statement_bytes_max`.
    pub(in crate::mirror) fn new(
        rows: BTreeMap<Key, Body>,
        columns: &Columns,
        now_ms: u64,
        statement_bytes_max: usize,
    ) -> ColumnBatch {
        let mut batch = ColumnBatch::default();
        for (key, body) in rows {
            let version = body.version();
            let place =
                columns.key_params(&key).map(|params| Place { key: key.clone(), params, version });
            let Some(value) = body.value().filter(|_| body.is_live(now_ms)) else {
                match place {
                    Ok(place) => batch.dead.push(place),
                    Err(_) => batch.nowhere.push(key),
                }
                continue;
            };
            let value_bytes = value.len();
            // A key that will not do is why the row will not, too.
            let place = match place {
                Ok(place) => place,
                Err(reason) => {
                    batch.refused.push((Refused { key, version, value_bytes, reason }, None));
                    continue;
                }
            };
            let row = columns.row_params_at(&place.params, &value).and_then(|row| {
                let size = size_bytes(&row);
                match size > statement_bytes_max {
                    true => Err(format!(
                        "the row needs {size} bytes in a statement, MySQL takes \
                         {statement_bytes_max}: raise max_allowed_packet"
                    )),
                    false => Ok(row),
                }
            });
            match row {
                Ok(row) => {
                    let expires_at_ms = body.expires_at_ms();
                    batch.records.push(ColumnRecord { place, row, value_bytes, expires_at_ms });
                }
                Err(reason) => {
                    let refused = Refused { key, version, value_bytes, reason };
                    batch.refused.push((refused, Some(place)));
                }
            }
        }
        batch
    }

    /// Where any of them stands, or would.
    pub(in crate::mirror) fn places(&self) -> impl Iterator<Item = &Place> {
        let refused = self.refused.iter().filter_map(|(_, place)| place.as_ref());
        self.records.iter().map(|record| &record.place).chain(&self.dead).chain(refused)
    }

    /// The keys of all of them.
    pub(in crate::mirror) fn keys(&self) -> impl Iterator<Item = &Key> {
        let refused = self.refused.iter().map(|(refused, _)| &refused.key);
        let records = self.records.iter().map(|record| &record.place.key);
        let dead = self.dead.iter().map(|place| &place.key);
        records.chain(dead).chain(refused).chain(&self.nowhere)
    }
}

impl ColumnRecord {
    /// Set aside for `reason`.
    pub(in crate::mirror) fn refused(&self, reason: String) -> Refused {
        let Place { key, version, .. } = &self.place;
        Refused { key: key.clone(), version: *version, value_bytes: self.value_bytes, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mirror::{columns::schema::tests::facts, table_setting::TableSetting},
        model::{BodyParts, Context, Hlc, Origin},
    };

    #[test]
    fn rows_are_written_deleted_or_set_aside() {
        let columns = [("id", "int(11)"), ("v", "varchar(2)")];
        let columns =
            Columns::of("t", &facts(&columns, &["id"]), &TableSetting::default()).unwrap();
        let body = |value: Option<&str>, expires_at_ms| {
            Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(5), origin: Origin::from_bytes([1; 16]) },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms,
                value: value.map(str::as_bytes),
            })
        };
        let rows = [
            ("1", body(Some(r#"{"v":"x"}"#), None)),
            ("2", body(None, None)),
            ("3", body(Some(r#"{"v":"x"}"#), Some(100))),
            ("4", body(Some(r#"{"v":"x"}"#), Some(101))),
            ("5", body(Some(r#"{"v":"xxx"}"#), None)),
            ("x", body(Some(r#"{"v":"x"}"#), None)),
            ("y", body(None, None)),
        ];
        let rows = rows.map(|(key, body)| (Key::new(key.to_owned()).unwrap(), body)).into();
        let batch = ColumnBatch::new(rows, &columns, 100, 1_000);
        let expiries: Vec<_> = batch.records.iter().map(|record| record.expires_at_ms).collect();
        assert_eq!(expiries, [None, Some(101)]);
        assert_eq!((batch.dead.len(), batch.nowhere.len(), batch.keys().count()), (2, 1, 7));
        let refused: Vec<_> = batch
            .refused
            .iter()
            .map(|(refused, place)| (&*refused.reason, place.is_some()))
            .collect();
        assert_eq!(refused[0], ("v: 3 characters, the column takes 2", true));
        assert_eq!(refused[1], ("id: the key \"x\" is no number", false));
    }
}
