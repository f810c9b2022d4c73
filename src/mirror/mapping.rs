//! Rows to columns: what becomes of each row in its MySQL table.
//!
//! ```text
//! rows --> by_table: the newest of each key --> TableBatch: written | deleted | set aside
//! ```
//!
//! Pure. Whatever MySQL would store as other bytes than the row has, without an error, is found
//! here and set aside: MySQL itself says the rest.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::{SignedDuration, civil::DateTime};

use super::shape::{Column, Shape};
use crate::model::{Body, Key, Row, TableName, Version};

/// What a row's columns take besides its key and value, roughly, in bytes.
const COLUMNS_BYTES: usize = 64;

/// What is to be done in one table, each key once and in the order of the keys.
#[derive(Debug, Default)]
pub(super) struct TableBatch {
    /// Rows to write.
    pub(super) records: Vec<Record>,
    /// Rows that are deleted or expired.
    pub(super) dead: Vec<Dead>,
    /// Rows that MySQL would not keep as they are.
    pub(super) refused: Vec<Refused>,
}

/// A row to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Key,
    pub(super) value: Bytes,
    pub(super) version: Version,
    /// Milliseconds since the Unix epoch, UTC.
    pub(super) expires_at_ms: Option<u64>,
}

/// A row that must not stand: this version and every older one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) key: Key,
    pub(super) version: Version,
}

/// A row to set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) key: Key,
    pub(super) version: Version,
    pub(super) value_bytes: usize,
    /// In one line, for people.
    pub(super) reason: String,
}

/// The rows of some tables.
pub(super) type RowsByTable = BTreeMap<TableName, BTreeMap<Key, Body>>;

/// The rows of each user table, the newest version of each key. System tables are left out.
pub(super) fn by_table(rows: Vec<Row>) -> RowsByTable {
    let mut tables = RowsByTable::new();
    for Row { table, key, body } in rows.into_iter().filter(|row| !row.table.is_system()) {
        let rows = tables.entry(table).or_default();
        if rows.get(&key).is_none_or(|other| other.version() < body.version()) {
            rows.insert(key, body);
        }
    }
    tables
}

impl TableBatch {
    /// Sorts rows by what becomes of them at the time `now_ms` (since the Unix epoch, UTC), where
    /// a statement takes at most `statement_bytes_max`.
    pub(super) fn new(
        rows: BTreeMap<Key, Body>,
        shape: &Shape,
        now_ms: u64,
        statement_bytes_max: usize,
    ) -> TableBatch {
        let mut batch = TableBatch::default();
        for (key, body) in rows {
            let version = body.version();
            let Some(value) = body.value().filter(|_| body.is_live(now_ms)) else {
                batch.dead.push(Dead { key, version });
                continue;
            };
            let record = Record { key, value, version, expires_at_ms: body.expires_at_ms() };
            match refusal(&record, shape, statement_bytes_max) {
                Some(reason) => batch.refused.push(record.refused(reason)),
                None => batch.records.push(record),
            }
        }
        batch
    }
}

impl Record {
    /// Its share of a statement, roughly, in bytes.
    pub(super) fn size_bytes(&self) -> usize {
        self.key.as_slice().len() + self.value.len() + COLUMNS_BYTES
    }

    /// Set aside for `reason`.
    pub(super) fn refused(&self, reason: String) -> Refused {
        Refused {
            key: self.key.clone(),
            version: self.version,
            value_bytes: self.value.len(),
            reason,
        }
    }
}

impl Refused {
    /// What must not stand in its place.
    pub(super) fn dead(&self) -> Dead {
        Dead { key: self.key.clone(), version: self.version }
    }
}

fn refusal(record: &Record, shape: &Shape, statement_bytes_max: usize) -> Option<String> {
    if record.size_bytes() > statement_bytes_max {
        return Some(format!(
            "the row needs {} bytes in a statement, MySQL takes {statement_bytes_max}: raise \
             max_allowed_packet",
            record.size_bytes()
        ));
    }
    misfit("k", shape.key(), record.key.as_slice())
        .or_else(|| misfit("v", shape.value(), &record.value))
}

/// Why these bytes would not be stored as they are.
fn misfit(name: &str, column: &Column, bytes: &[u8]) -> Option<String> {
    let length_max = column.length_max;
    match column.is_text {
        false if bytes.len() as u64 > length_max => {
            Some(format!("{name} has {} bytes, the column takes {length_max}", bytes.len()))
        }
        // BINARY(n) would fill it up with zeros.
        false if column.is_fixed && (bytes.len() as u64) < length_max => Some(format!(
            "{name} has {} bytes, the column stores {length_max}: make it VARBINARY",
            bytes.len()
        )),
        false => None,
        true => {
            let Ok(text) = str::from_utf8(bytes) else {
                return Some(format!("{name} is not UTF-8 text, the column is: make it VARBINARY"));
            };
            let chars = text.chars().count() as u64;
            if chars > length_max {
                // MySQL would cut off spaces at the end without an error.
                Some(format!("{name} has {chars} characters, the column takes {length_max}"))
            } else if column.is_fixed && text.ends_with(' ') {
                Some(format!("{name} ends with a space, CHAR would drop it: make it VARCHAR"))
            } else {
                None
            }
        }
    }
}

/// The time as MySQL's DATETIME; what lies beyond the year 9999 becomes its last moment.
pub(super) fn datetime(ms: u64) -> DateTime {
    let since = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
    DateTime::constant(1970, 1, 1, 0, 0, 0, 0).saturating_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mirror::shape::tests::{bytes_column, shape_of, text_column},
        model::{BodyParts, Context, Hlc, Origin},
    };

    fn body(hlc: u64, value: Option<&[u8]>, expires_at_ms: Option<u64>) -> Body {
        Body::new(&BodyParts {
            version: Version { hlc: Hlc::from_bits(hlc), origin: Origin::from_bytes([1; 16]) },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms,
            value,
        })
    }

    fn row(table: &str, key: &str, body: Body) -> Row {
        Row {
            table: TableName::of_any(table).unwrap(),
            key: Key::new(key.as_bytes().to_vec()).unwrap(),
            body,
        }
    }

    fn refusals(shape: &Shape, key: &[u8], value: &[u8]) -> Vec<String> {
        let key = Key::new(key.to_vec()).unwrap();
        let rows = BTreeMap::from([(key, body(5, Some(value), None))]);
        let batch = TableBatch::new(rows, shape, 100, 1_000);
        batch.refused.into_iter().map(|refused| refused.reason).collect()
    }

    #[test]
    fn the_newest_of_each_key_is_kept_and_system_tables_are_left_out() {
        let tables = by_table(vec![
            row("t", "b", body(7, Some(b"new"), None)),
            row("t", "b", body(5, Some(b"old"), None)),
            row("t", "a", body(6, Some(b"x"), None)),
            row("_members", "m", body(9, Some(b"y"), None)),
            row("u", "b", body(8, None, None)),
        ]);
        assert_eq!(tables.len(), 2);
        let t = &tables[&TableName::of_any("t").unwrap()];
        let keys: Vec<_> = t.keys().map(Key::as_slice).collect();
        assert_eq!(keys, [b"a", b"b"]);
        assert_eq!(t.values().last().unwrap().value().unwrap(), "new");
    }

    #[test]
    fn dead_rows_are_deleted_whether_tombstone_or_expired() {
        let shape = shape_of(bytes_column(512), bytes_column(1_000));
        let rows = ["gone", "expired", "expiring", "lasting"].map(|k| Key::new(k).unwrap());
        let bodies = [
            body(1, None, None),
            body(2, Some(b"v"), Some(100)),
            body(3, Some(b"v"), Some(101)),
            body(4, Some(b"v"), None),
        ];
        let rows = rows.into_iter().zip(bodies).collect();
        let batch = TableBatch::new(rows, &shape, 100, 1_000);
        let dead: Vec<_> = batch.dead.iter().map(|dead| dead.key.as_slice()).collect();
        assert_eq!(dead, [&b"expired"[..], b"gone"]);
        let expiries: Vec<_> = batch.records.iter().map(|record| record.expires_at_ms).collect();
        assert_eq!(expiries, [Some(101), None]);
        assert!(batch.refused.is_empty());
    }

    #[test]
    fn what_a_column_would_change_silently_is_set_aside() {
        let bytes = shape_of(bytes_column(4), bytes_column(4));
        assert!(refusals(&bytes, b"\xff\x00k ", b"\xff\x00v ").is_empty());
        assert!(refusals(&bytes, b"12345", b"")[0].starts_with("k has 5 bytes"));
        assert!(refusals(&bytes, b"1234", b"12345")[0].starts_with("v has 5 bytes"));

        let fixed = Column { is_fixed: true, ..bytes_column(4) };
        assert!(refusals(&shape_of(fixed, bytes_column(4)), b"1234", b"").is_empty());
        assert!(refusals(&shape_of(fixed, bytes_column(4)), b"123", b"")[0].contains("VARBINARY"));

        let text = shape_of(text_column(4), text_column(4));
        assert!(refusals(&text, "käse".as_bytes(), b"a  ").is_empty());
        assert!(refusals(&text, b"\xff", b"")[0].starts_with("k is not UTF-8"));
        assert!(refusals(&text, b"k", b"abcd ")[0].starts_with("v has 5 characters"));
        let padded = Column { is_fixed: true, ..text_column(4) };
        assert!(refusals(&shape_of(padded, padded), b"a ", b"")[0].contains("VARCHAR"));
    }

    #[test]
    fn a_row_that_no_statement_can_carry_is_set_aside() {
        let shape = shape_of(bytes_column(512), bytes_column(1 << 24));
        assert!(refusals(&shape, b"k", &[0; 900]).is_empty());
        assert!(refusals(&shape, b"k", &[0; 1_000])[0].contains("max_allowed_packet"));
    }

    #[test]
    fn times_are_utc_and_end_with_the_year_9999() {
        assert_eq!(datetime(0).to_string(), "1970-01-01T00:00:00");
        assert_eq!(datetime(1_709_210_096_789).to_string(), "2024-02-29T12:34:56.789");
        assert_eq!(datetime(253_402_300_799_999).to_string(), "9999-12-31T23:59:59.999");
        assert_eq!(datetime(u64::MAX), DateTime::MAX);
    }
}
