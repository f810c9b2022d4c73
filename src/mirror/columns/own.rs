//! What lastword keeps in MySQL of its column tables: how far each is filled, and when rows expire.
//!
//! A column table has no column of lastword's. So the times at which its rows expire stand in a table of
//! their own, which is written in the same transactions.

use bytes::Bytes;

use crate::{
    mirror::{
        mapping::datetime,
        statement::{Param, Statement, repeat},
    },
    model::{Heads, Key, TableName},
};

/// The tables, by name.
pub(in crate::mirror) const OWN_TABLES: [(&str, &str); 2] = [
    (
        "_lastword_columns",
        "CREATE TABLE IF NOT EXISTS _lastword_columns (\
         tbl VARBINARY(64) NOT NULL PRIMARY KEY, \
         filled TINYINT UNSIGNED NOT NULL COMMENT '0: rows may be missing, it is filled anew', \
         heads MEDIUMBLOB NULL COMMENT 'where filled is 0: up to where it is not behind; NULL: it \
         may lack any row', \
         definition MEDIUMTEXT CHARACTER SET utf8mb4 NOT NULL COMMENT 'its columns when it was \
         filled') ENGINE=InnoDB",
    ),
    (
        "_lastword_expiry",
        "CREATE TABLE IF NOT EXISTS _lastword_expiry (\
         tbl VARBINARY(64) NOT NULL, k VARBINARY(512) NOT NULL, \
         expires_at DATETIME(6) NOT NULL COMMENT 'UTC', \
         PRIMARY KEY (tbl, k), KEY (tbl, expires_at)) ENGINE=InnoDB",
    ),
];

/// The application's triggers of a table that are not guarded: name.
pub(in crate::mirror) fn unguarded(table: &str) -> Statement {
    Statement::new(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() \
         AND EVENT_OBJECT_TABLE = ? AND LEFT(TRIGGER_NAME, 10) <> '_lastword_' \
         AND LOCATE('@lastword_applying', LOWER(ACTION_STATEMENT)) = 0 LIMIT 1",
        [text(table)],
    )
}

/// The tables of the database that are no views: name.
pub(in crate::mirror) fn base_tables() -> Statement {
    Statement::new(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
         AND TABLE_TYPE = 'BASE TABLE' AND LEFT(TABLE_NAME, 10) <> '_lastword_'",
        [],
    )
}

/// What is remembered of column tables: name, filled, definition.
pub(in crate::mirror) fn remembered() -> Statement {
    Statement::new("SELECT tbl, filled, definition FROM _lastword_columns", [])
}

/// Remembers a table with these columns. One that was filled, and is not any more, has every row of the
/// store up to `heads`.
pub(in crate::mirror) fn remember(
    table: &TableName,
    is_filled: bool,
    definition: &str,
    heads: &Heads,
) -> Statement {
    Statement::new(
        "INSERT INTO _lastword_columns (tbl, filled, definition) VALUES (?, ?, ?) \
         ON DUPLICATE KEY UPDATE heads = IF(filled = 1, ?, heads), filled = VALUES(filled), \
         definition = VALUES(definition)",
        [
            table.into(),
            Param::Number(is_filled.into()),
            text(definition),
            Param::Bytes(heads.to_bytes().into()),
        ],
    )
}

/// Takes note that a table is to be filled anew, if it is remembered. Where it was filled it has every row
/// of the store up to `heads`.
pub(in crate::mirror) fn unfill(table: &TableName, heads: &Heads) -> Statement {
    Statement::new(
        "UPDATE _lastword_columns SET heads = IF(filled = 1, ?, heads), filled = 0 WHERE tbl = ?",
        [Param::Bytes(heads.to_bytes().into()), table.into()],
    )
}

/// Forgets a table.
pub(in crate::mirror) fn forget(table: &TableName) -> Statement {
    Statement::new("DELETE FROM _lastword_columns WHERE tbl = ?", [table.into()])
}

/// Notes when rows expire, in milliseconds since the Unix epoch, UTC.
pub(in crate::mirror) fn note_expiries(table: &TableName, rows: &[(&Key, u64)]) -> Statement {
    let mut sql = "INSERT INTO _lastword_expiry (tbl, k, expires_at) VALUES ".to_owned();
    repeat(&mut sql, "(?,?,?)", ",", rows.len());
    sql.push_str(" ON DUPLICATE KEY UPDATE expires_at = VALUES(expires_at)");
    let params = rows
        .iter()
        .flat_map(|&(key, ms)| [table.into(), key.into(), Param::DateTime(datetime(ms))])
        .collect::<Vec<_>>();
    Statement::new(sql, params)
}

/// Takes out what was noted of these rows.
pub(in crate::mirror) fn forget_expiries(table: &TableName, keys: &[&Key]) -> Statement {
    let mut sql = "DELETE FROM _lastword_expiry WHERE tbl = ? AND k IN (".to_owned();
    repeat(&mut sql, "?", ",", keys.len());
    sql.push(')');
    let mut params = vec![Param::from(table)];
    params.extend(keys.iter().map(|&key| Param::from(key)));
    Statement::new(sql, params)
}

/// When the next row of the table expires, in milliseconds since the Unix epoch, UTC.
pub(in crate::mirror) fn next_expiry(table: &TableName) -> Statement {
    Statement::new(
        "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', MIN(expires_at)) DIV 1000 \
         FROM _lastword_expiry WHERE tbl = ?",
        [table.into()],
    )
}

/// The rows that have expired, the oldest first: key.
pub(in crate::mirror) fn expired(table: &TableName, now_ms: u64, rows_max: usize) -> Statement {
    Statement::new(
        format!(
            "SELECT k FROM _lastword_expiry WHERE tbl = ? AND expires_at <= ? \
             ORDER BY expires_at LIMIT {rows_max}"
        ),
        [table.into(), Param::DateTime(datetime(now_ms))],
    )
}

/// What is remembered of a table: filled, definition.
pub(in crate::mirror) fn remembered_of(table: &TableName) -> Statement {
    Statement::new("SELECT filled, definition FROM _lastword_columns WHERE tbl = ?", [table.into()])
}

/// Which of these rows have expired: key.
pub(in crate::mirror) fn expired_among(
    table: &TableName,
    now_ms: u64,
    keys: &[Vec<u8>],
) -> Statement {
    let mut sql =
        "SELECT k FROM _lastword_expiry WHERE tbl = ? AND expires_at <= ? AND k IN (".to_owned();
    repeat(&mut sql, "?", ",", keys.len());
    sql.push(')');
    let mut params = vec![table.into(), Param::DateTime(datetime(now_ms))];
    params.extend(keys.iter().map(|key| Param::Bytes(Bytes::copy_from_slice(key))));
    Statement::new(sql, params)
}

fn text(text: &str) -> Param {
    Param::Bytes(Bytes::copy_from_slice(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_placeholder_has_its_parameter() {
        let table = TableName::of_any("film").unwrap();
        let key = Key::new("k").unwrap();
        for statement in [
            base_tables(),
            unguarded("t"),
            remembered(),
            remember(&table, true, "x", &Heads::new()),
            unfill(&table, &Heads::new()),
            forget(&table),
            note_expiries(&table, &[(&key, 1), (&key, 2)]),
            forget_expiries(&table, &[&key, &key]),
            next_expiry(&table),
            expired(&table, 1, 10),
            remembered_of(&table),
            expired_among(&table, 1, &[b"a".to_vec(), b"b".to_vec()]),
        ] {
            let placeholders = statement.sql.matches('?').count();
            assert_eq!(placeholders, statement.params.len(), "{}", statement.sql);
        }
    }
}
