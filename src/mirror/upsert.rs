//! Rows of keys and values, as statements that write them.

use std::fmt::Write;

use super::{
    mapping::{Record, datetime},
    statement::{BULK_ROWS_MAX, Bulk, Param, ROWS_MAX, Statement, power_of_two, repeat},
};
use crate::model::TableName;

/// How rows are written into a table: one that stands there stays where it is as young, or younger.
#[derive(Clone, Copy)]
pub(super) struct Upsert<'t> {
    pub(super) table: &'t TableName,
    /// MySQL takes two keys for equal only where they are the same bytes. Otherwise a row that stands
    /// under another key is left alone too.
    pub(super) exact: bool,
    /// A row goes over whatever stands under its key.
    pub(super) overwrites: bool,
}

impl Upsert<'_> {
    /// One statement of so many rows.
    pub(super) fn all(self, records: &[Record]) -> Statement {
        let mut params = Vec::with_capacity(records.len() * 6);
        params.extend(records.iter().flat_map(params_of));
        Statement::new(self.sql(records.len()), params)
    }

    /// The same as a statement of one row.
    pub(super) fn bulk(self, records: &[Record]) -> Bulk {
        let rows = records.iter().map(|record| params_of(record).into()).collect();
        Bulk { sql: self.sql(1), rows }
    }

    fn sql(self, rows: usize) -> String {
        let Upsert { table, exact, overwrites } = self;
        let mut newer = match overwrites {
            true => "TRUE".to_owned(),
            false => {
                "(VALUES(hlc) > hlc OR (VALUES(hlc) = hlc AND VALUES(origin) > origin))".to_owned()
            }
        };
        if !exact {
            newer.push_str(" AND CAST(k AS BINARY) = CAST(VALUES(k) AS BINARY)");
        }
        let mut sql =
            format!("INSERT INTO `{table}` (k, v, hlc, origin, updated_at, expires_at) VALUES ");
        repeat(&mut sql, "(?,?,?,?,?,?)", ",", rows);
        // Assignments take effect from left to right: what the condition reads is assigned last, and
        // of the two the origin first: with it in place the condition still tells which hlc is new.
        sql.push_str(" ON DUPLICATE KEY UPDATE ");
        for (at, column) in ["v", "expires_at", "updated_at", "origin", "hlc"].iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = write!(sql, "{comma}{column} = IF({newer}, VALUES({column}), {column})");
        }
        sql
    }
}

fn params_of(record: &Record) -> [Param; 6] {
    let hlc = record.version.hlc;
    [
        Param::from(&record.key),
        Param::Bytes(record.value.clone()),
        Param::Number(hlc.bits()),
        record.version.origin.into(),
        Param::DateTime(datetime(hlc.ms())),
        record.expires_at_ms.map_or(Param::Null, |ms| Param::DateTime(datetime(ms))),
    ]
}

/// How many of these rows one statement takes, at least one: a power of two, or as many as a bulk has.
pub(super) fn rows_that_fit(records: &[Record], in_bulk: bool, bytes_max: usize) -> usize {
    let rows_max = if in_bulk { BULK_ROWS_MAX } else { ROWS_MAX };
    let mut bytes = 0;
    let fit = records.iter().take(rows_max).take_while(|record| {
        bytes += record.size_bytes();
        bytes <= bytes_max
    });
    let rows = fit.count().max(1);
    if in_bulk { rows } else { power_of_two(rows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hlc, Key, Origin, Version};

    fn upsert(exact: bool, overwrites: bool, records: &[Record]) -> Statement {
        let table = TableName::of_any("shop").unwrap();
        let upsert = Upsert { table: &table, exact, overwrites };
        let (all, bulk) = (upsert.all(records), upsert.bulk(records));
        assert_eq!(all.params, bulk.rows.concat());
        assert_eq!(upsert.all(&records[..1]).sql, bulk.sql);
        all
    }

    fn record(key: &str) -> Record {
        let version = Version { hlc: Hlc::from_bits(5 << 16), origin: Origin::from_bytes([7; 16]) };
        let key = Key::new(key.as_bytes().to_vec()).unwrap();
        Record { key, value: vec![b'v'; 100].into(), version, expires_at_ms: None }
    }

    #[test]
    fn each_placeholder_has_its_parameter() {
        let records: Vec<_> = (0..4).map(|n| record(&format!("k{n}"))).collect();
        for statement in [upsert(true, false, &records), upsert(false, true, &records)] {
            assert_eq!(statement.sql.matches('?').count(), statement.params.len());
        }
    }

    #[test]
    fn what_the_condition_reads_is_assigned_last() {
        let sql = upsert(true, false, &[record("k")]).sql;
        let at = |column: &str| sql.find(&format!(" {column} = IF(")).unwrap();
        assert!(at("v") < at("origin") && at("expires_at") < at("origin"));
        assert!(at("updated_at") < at("origin") && at("origin") < at("hlc"), "{sql}");
    }

    #[test]
    fn updated_at_is_the_time_of_the_write_itself() {
        let statement = upsert(true, false, &[record("k")]);
        assert_eq!(statement.params[4], Param::DateTime(datetime(5)));
        assert_eq!(statement.params[5], Param::Null);
    }

    #[test]
    fn statements_take_rows_that_fit() {
        let records: Vec<_> = (0..1_200).map(|n| record(&format!("{n:04}"))).collect();
        let one = records[0].size_bytes();
        let rows = |rows: usize, bytes_max| {
            [false, true].map(|in_bulk| rows_that_fit(&records[..rows], in_bulk, bytes_max))
        };
        assert_eq!(rows(1_200, usize::MAX), [ROWS_MAX, BULK_ROWS_MAX]);
        assert_eq!(rows(1_200, one * 100), [64, 100]);
        assert_eq!(rows(7, usize::MAX), [4, 7]);
        assert_eq!(rows(1_200, 1), [1, 1]);
        assert_eq!((power_of_two(0), power_of_two(255), power_of_two(9_999)), (1, 128, ROWS_MAX));
    }
}
