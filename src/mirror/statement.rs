//! The text of every statement, and its parameters. Pure.
//!
//! Keys and values never stand in the text: they are parameters of prepared statements, which
//! MySQL takes about twice as fast as the same rows as literals (1,000 rows with values of 100
//! bytes, commit included: 5 to 9 ms against 12 to 16; with 1,000 bytes: 27 against 50). A
//! statement has 1, 2, 4 ... [`ROWS_MAX`] rows, so that a few texts, prepared once, serve all
//! batches.
//!
//! MariaDB takes many rows for a statement of one, too: a [`Bulk`]. Rows of keys and values cost node and
//! MariaDB an eighth less so. Rows of columns were no faster, and slower where they were written over.

use std::time::Duration;

use bytes::Bytes;
use jiff::civil::DateTime;

use super::mapping::{Dead, Refused, datetime};
use crate::model::{Heads, Key, Origin, TableName};

/// The most rows in one statement: more is not faster, and costs MySQL memory.
pub(super) const ROWS_MAX: usize = 256;
/// The most rows in a [`Bulk`]: while MariaDB has one, the next is made.
pub(super) const BULK_ROWS_MAX: usize = 1_000;
/// The longest reason that `_lastword_rejected` keeps, in characters.
const REASON_CHARS_MAX: usize = 500;

/// A statement and its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) params: Vec<Param>,
}

/// A statement of one row that is run for many at once. Of each parameter all that are not NULL have one type;
/// and to run it twice for a row does what it does once, for a proxy in between may have it run row by row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bulk {
    pub(super) sql: String,
    /// Each row's parameters.
    pub(super) rows: Vec<Vec<Param>>,
}

/// What stands for a `?`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Param {
    Null,
    Number(u64),
    Integer(i64),
    Double(f64),
    Bytes(Bytes),
    DateTime(DateTime),
}

impl Statement {
    pub(super) fn new(sql: impl Into<String>, params: impl Into<Vec<Param>>) -> Statement {
        Statement { sql: sql.into(), params: params.into() }
    }
}

impl From<&Key> for Param {
    fn from(key: &Key) -> Param {
        Param::Bytes(key.bytes().clone())
    }
}

impl From<&TableName> for Param {
    fn from(table: &TableName) -> Param {
        Param::Bytes(Bytes::copy_from_slice(table.as_str().as_bytes()))
    }
}

impl From<Origin> for Param {
    fn from(origin: Origin) -> Param {
        Param::Bytes(Bytes::copy_from_slice(origin.as_bytes()))
    }
}

impl From<&Heads> for Param {
    fn from(heads: &Heads) -> Param {
        Param::Bytes(heads.to_bytes().into())
    }
}

/// How much longer than the mirror waits for it a statement may run in MySQL.
const STATEMENT_GRACE: Duration = Duration::from_secs(5);

/// The mode of every session.
pub(super) const SQL_MODE: &str = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO";

/// What every session begins with. A row that does not fit is an error, never cut; text is UTF-8;
/// locks and idle connections end before anyone has to look for them. So does, in MariaDB, a statement
/// for which nobody waits any more, after `statement_max`. A key of 0 is 0, and no new number; rows of
/// column tables come in any order, so none waits for a parent and none takes children along; and triggers
/// can tell whose writes these are.
pub(super) fn session(statement_max: Duration) -> Statement {
    let seconds = (statement_max + STATEMENT_GRACE).as_secs();
    Statement::new(
        format!(
            "SET NAMES utf8mb4, sql_mode = '{SQL_MODE}', \
             time_zone = '+00:00', autocommit = 1, foreign_key_checks = 0, @lastword_applying = 1, \
             innodb_lock_wait_timeout = 10, lock_wait_timeout = 10, wait_timeout = 60 \
             /*M!100101 , max_statement_time = {seconds} */"
        ),
        [],
    )
}

/// Rows that are not there are not locked, so that no application waits to add others beside them; and
/// each statement sees what was committed before it.
pub(super) const ISOLATION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

/// What the server tells of itself: the largest packet it takes; and whether it takes a [`Bulk`], which
/// MariaDB does, as long as its binary log may tell rows.
pub(super) const TAKES: &str =
    "SELECT @@max_allowed_packet, 0 /*M!100200 + (@@binlog_format <> 'STATEMENT') */";

/// Version and user.
pub(super) const WHO: &str = "SELECT @@version, CURRENT_USER()";
/// MySQL's wall clock, in milliseconds since the Unix epoch, UTC.
pub(super) const CLOCK: &str =
    "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) DIV 1000";
/// How this connection is encrypted: a name, and empty where it is not.
pub(super) const CIPHER: &str = "SHOW SESSION STATUS LIKE 'Ssl_cipher'";
/// What the user may, a line each.
pub(super) const GRANTS: &str = "SHOW GRANTS";

/// The variables on which the mirror and capture depend, as new sessions find them.
const VARIABLES: [&str; 19] = [
    "auto_increment_increment",
    "auto_increment_offset",
    "server_id",
    "sql_mode",
    "binlog_format",
    "log_bin",
    "log_bin_trust_function_creators",
    "max_allowed_packet",
    "wait_timeout",
    "innodb_flush_log_at_trx_commit",
    "innodb_lock_wait_timeout",
    "default_storage_engine",
    "time_zone",
    "system_time_zone",
    "read_only",
    "super_read_only",
    "innodb_read_only",
    "log_slave_updates",
    "gtid_domain_id",
];

/// Their names and values; those that the server does not know are left out.
pub(super) fn global_variables() -> Statement {
    let names = VARIABLES.join("','");
    Statement::new(format!("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('{names}')"), [])
}

/// The columns of this database that MySQL fills by itself: table, column, how.
pub(super) fn numbered_columns() -> Statement {
    Statement::new(
        "SELECT TABLE_NAME, COLUMN_NAME, EXTRA FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = DATABASE() AND EXTRA <> '' \
         AND TABLE_NAME NOT LIKE '\\_lastword\\_%' ORDER BY TABLE_NAME",
        [],
    )
}

/// The columns of primary keys that hold text: table, column, collation.
pub(super) fn text_keys() -> Statement {
    Statement::new(
        "SELECT TABLE_NAME, COLUMN_NAME, COLLATION_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = DATABASE() AND COLUMN_KEY = 'PRI' AND COLLATION_NAME IS NOT NULL \
         AND TABLE_NAME NOT LIKE '\\_lastword\\_%' ORDER BY TABLE_NAME, ORDINAL_POSITION",
        [],
    )
}

/// The tables of the mirror's own, by name.
pub(super) const OWN_TABLES: [(&str, &str); 3] = [
    (
        "_lastword_mirror",
        "CREATE TABLE IF NOT EXISTS _lastword_mirror (\
         id TINYINT UNSIGNED NOT NULL PRIMARY KEY COMMENT '1: there is one row', \
         format TINYINT UNSIGNED NOT NULL, \
         origin BINARY(16) NOT NULL COMMENT 'the store that this database mirrors', \
         epoch BIGINT UNSIGNED NOT NULL COMMENT 'counts the sessions: the newest may write', \
         heads MEDIUMBLOB NOT NULL COMMENT 'what is here: origin and hlc, 24 bytes each', \
         updated_at DATETIME(6) NOT NULL) ENGINE=InnoDB",
    ),
    (
        "_lastword_tables",
        "CREATE TABLE IF NOT EXISTS _lastword_tables (\
         tbl VARBINARY(64) NOT NULL PRIMARY KEY) ENGINE=InnoDB",
    ),
    (
        "_lastword_rejected",
        "CREATE TABLE IF NOT EXISTS _lastword_rejected (\
         tbl VARBINARY(64) NOT NULL, k VARBINARY(512) NOT NULL, \
         hlc BIGINT UNSIGNED NOT NULL, origin BINARY(16) NOT NULL, \
         reason VARCHAR(500) CHARACTER SET utf8mb4 NOT NULL, \
         value_bytes BIGINT UNSIGNED NOT NULL, rejected_at DATETIME(6) NOT NULL, \
         PRIMARY KEY (tbl, k)) ENGINE=InnoDB",
    ),
];

/// The table that mirrors `table`.
pub(super) fn create(table: &TableName) -> Statement {
    let sql = format!(
        "CREATE TABLE IF NOT EXISTS `{table}` (k VARBINARY(512) NOT NULL PRIMARY KEY, \
         v MEDIUMBLOB NOT NULL, hlc BIGINT UNSIGNED NOT NULL, origin BINARY(16) NOT NULL, \
         updated_at DATETIME(6) NOT NULL, expires_at DATETIME(6) NULL, KEY expires_at \
         (expires_at)) ENGINE=InnoDB"
    );
    Statement::new(sql, [])
}

/// Whether a table holds any row.
pub(super) fn any_row(table: &TableName) -> Statement {
    Statement::new(format!("SELECT 1 FROM `{table}` LIMIT 1"), [])
}

/// The tables that lastword knows as its own.
pub(super) fn known_tables() -> Statement {
    Statement::new("SELECT tbl FROM _lastword_tables", [])
}

/// Takes note that a table is lastword's own.
pub(super) fn know_table(table: &TableName) -> Statement {
    Statement::new("INSERT INTO _lastword_tables (tbl) VALUES (?)", [table.into()])
}

/// Takes note that a table is gone.
pub(super) fn forget_table(table: &TableName) -> Statement {
    Statement::new("DELETE FROM _lastword_tables WHERE tbl = ?", [table.into()])
}

/// What the checkpoint says; locked, so that no other session writes meanwhile.
pub(super) fn checkpoint() -> Statement {
    Statement::new(
        "SELECT format, origin, epoch, heads FROM _lastword_mirror WHERE id = 1 FOR UPDATE",
        [],
    )
}

/// The first checkpoint of a database.
pub(super) fn found(origin: Origin, now_ms: u64) -> Statement {
    Statement::new(
        "INSERT INTO _lastword_mirror (id, format, origin, epoch, heads, updated_at) \
         VALUES (1, 1, ?, 0, '', ?)",
        [origin.into(), Param::DateTime(datetime(now_ms))],
    )
}

/// Makes this session the one that may write, from `heads` on.
pub(super) fn take_over(epoch: u64, heads: &Heads, now_ms: u64) -> Statement {
    Statement::new(
        "UPDATE _lastword_mirror SET epoch = ?, heads = ?, updated_at = ? WHERE id = 1",
        [Param::Number(epoch), heads.into(), Param::DateTime(datetime(now_ms))],
    )
}

/// Every transaction's first statement. It finds no row where another session has taken over, or
/// where MySQL stands elsewhere than this session believes.
pub(super) fn fence(epoch: u64, before: &Heads, after: &Heads, now_ms: u64) -> Statement {
    Statement::new(
        "UPDATE _lastword_mirror SET heads = ?, updated_at = ? \
         WHERE id = 1 AND epoch = ? AND heads = ?",
        [after.into(), Param::DateTime(datetime(now_ms)), Param::Number(epoch), before.into()],
    )
}

/// Parts of 256, 128, 64 ... so that few statement texts serve all.
pub(super) fn in_powers_of_two<T>(mut all: &[T]) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        if all.is_empty() {
            return None;
        }
        let (some, rest) = all.split_at(power_of_two(all.len()));
        all = rest;
        Some(some)
    })
}

/// The greatest power of two that is not above `count`, nor above [`ROWS_MAX`].
pub(super) fn power_of_two(count: usize) -> usize {
    1 << count.clamp(1, ROWS_MAX).ilog2()
}

/// Deletes rows, as far as they are no younger than what is dead.
pub(super) fn delete(table: &TableName, exact: bool, dead: &[Dead]) -> Statement {
    let place =
        if exact { "k = ?" } else { "k = ? AND CAST(CONVERT(k USING utf8mb4) AS BINARY) = ?" };
    let one = format!("({place} AND (hlc < ? OR (hlc = ? AND origin <= ?)))");
    let mut sql = format!("DELETE FROM `{table}` WHERE ");
    repeat(&mut sql, &one, " OR ", dead.len());
    let mut params = Vec::with_capacity(dead.len() * 5);
    for Dead { key, version } in dead {
        params.push(key.into());
        if !exact {
            params.push(key.into());
        }
        let hlc = Param::Number(version.hlc.bits());
        params.extend([hlc.clone(), hlc, version.origin.into()]);
    }
    Statement::new(sql, params)
}

/// Which keys stand in the table, or others that MySQL takes for equal.
pub(super) fn standing(table: &TableName, keys: &[&Key]) -> Statement {
    let mut sql = format!("SELECT k FROM `{table}` WHERE k IN (");
    repeat(&mut sql, "?", ",", keys.len());
    sql.push(')');
    Statement::new(sql, keys.iter().map(|&key| key.into()).collect::<Vec<_>>())
}

/// Which keys stand in the table, with their versions, in the order of its index: `rows_max` of them
/// behind `after`, where given.
pub(super) fn keys_after(table: &TableName, after: Option<&[u8]>, rows_max: usize) -> Statement {
    let place = if after.is_some() { "WHERE k > ? " } else { "" };
    let after = after.map(|key| Param::Bytes(Bytes::copy_from_slice(key)));
    Statement::new(
        format!("SELECT k, hlc, origin FROM `{table}` {place}ORDER BY k LIMIT {rows_max}"),
        Vec::from_iter(after),
    )
}

/// When the next row of the table expires, in milliseconds since the Unix epoch, UTC.
pub(super) fn next_expiry(table: &TableName) -> Statement {
    Statement::new(
        format!(
            "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', MIN(expires_at)) DIV 1000 \
             FROM `{table}`"
        ),
        [],
    )
}

/// Deletes rows that have expired, the oldest first, up to `rows_max`.
pub(super) fn sweep(table: &TableName, now_ms: u64, rows_max: usize) -> Statement {
    Statement::new(
        format!("DELETE FROM `{table}` WHERE expires_at <= ? ORDER BY expires_at LIMIT {rows_max}"),
        [Param::DateTime(datetime(now_ms))],
    )
}

/// Sets rows aside whose keys are not there yet.
pub(super) fn reject(table: &TableName, refused: &[Refused], now_ms: u64) -> Statement {
    let mut sql = "INSERT INTO _lastword_rejected \
                   (tbl, k, hlc, origin, reason, value_bytes, rejected_at) VALUES "
        .to_owned();
    repeat(&mut sql, "(?,?,?,?,?,?,?)", ",", refused.len());
    let mut params = Vec::with_capacity(refused.len() * 7);
    for one in refused {
        let reason: String = one.reason.chars().take(REASON_CHARS_MAX).collect();
        params.extend([
            Param::from(table),
            Param::from(&one.key),
            Param::Number(one.version.hlc.bits()),
            one.version.origin.into(),
            Param::Bytes(reason.into()),
            Param::Number(one.value_bytes as u64),
            Param::DateTime(datetime(now_ms)),
        ]);
    }
    Statement::new(sql, params)
}

/// Takes out what was set aside under these keys.
pub(super) fn unreject(table: &TableName, keys: &[&Key]) -> Statement {
    let mut sql = "DELETE FROM _lastword_rejected WHERE tbl = ? AND k IN (".to_owned();
    repeat(&mut sql, "?", ",", keys.len());
    sql.push(')');
    let mut params = vec![Param::from(table)];
    params.extend(keys.iter().map(|&key| Param::from(key)));
    Statement::new(sql, params)
}

/// How many rows are set aside, and why the newest of them.
pub(super) fn rejected_summary() -> Statement {
    Statement::new(
        "SELECT COUNT(*), (SELECT reason FROM _lastword_rejected ORDER BY rejected_at DESC, hlc \
         DESC LIMIT 1) FROM _lastword_rejected",
        [],
    )
}

/// The rows set aside, in order, behind the given place.
pub(super) fn rejected_after(table: &[u8], key: &[u8], rows_max: usize) -> Statement {
    let (table, key) =
        (Param::Bytes(Bytes::copy_from_slice(table)), Param::Bytes(Bytes::copy_from_slice(key)));
    Statement::new(
        format!(
            "SELECT tbl, k, hlc, origin FROM _lastword_rejected \
             WHERE tbl > ? OR (tbl = ? AND k > ?) ORDER BY tbl, k LIMIT {rows_max}"
        ),
        [table.clone(), table, key],
    )
}

/// Of tables with these names: name, engine, type.
pub(super) fn table_facts(tables: &[&str]) -> Statement {
    of_tables("SELECT TABLE_NAME, ENGINE, TABLE_TYPE FROM information_schema.TABLES", "", tables)
}

/// Of their columns: table, name, data type, column type, nullable, default, extra, length,
/// collation, character set, digits, those behind the point, those behind the seconds.
pub(super) fn column_facts(tables: &[&str]) -> Statement {
    of_tables(
        "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, COLUMN_DEFAULT, \
         EXTRA, CHARACTER_MAXIMUM_LENGTH, COLLATION_NAME, CHARACTER_SET_NAME, NUMERIC_PRECISION, \
         NUMERIC_SCALE, DATETIME_PRECISION FROM information_schema.COLUMNS",
        " ORDER BY TABLE_NAME, ORDINAL_POSITION",
        tables,
    )
}

/// Of their indexes, a row for each column: table, index, not unique, column, prefix length.
pub(super) fn index_facts(tables: &[&str]) -> Statement {
    of_tables(
        "SELECT TABLE_NAME, INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART \
         FROM information_schema.STATISTICS",
        " ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
        tables,
    )
}

/// Of foreign keys of theirs, or that name them: name, child, parent, on update, on delete.
pub(super) fn foreign_key_facts(tables: &[&str]) -> Statement {
    let names = tables.join("','");
    Statement::new(
        format!(
            "SELECT CONSTRAINT_NAME, TABLE_NAME, REFERENCED_TABLE_NAME, UPDATE_RULE, DELETE_RULE \
             FROM information_schema.REFERENTIAL_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE() \
             AND (TABLE_NAME IN ('{names}') OR REFERENCED_TABLE_NAME IN ('{names}')) \
             ORDER BY TABLE_NAME, CONSTRAINT_NAME"
        ),
        [],
    )
}

/// Of their triggers: table, name, body.
pub(super) fn trigger_facts(tables: &[&str]) -> Statement {
    let names = tables.join("','");
    Statement::new(
        format!(
            "SELECT EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_STATEMENT \
             FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE() \
             AND EVENT_OBJECT_TABLE IN ('{names}') ORDER BY EVENT_OBJECT_TABLE, TRIGGER_NAME"
        ),
        [],
    )
}

/// Table names are plain: they may stand in the text.
fn of_tables(select: &str, order: &str, tables: &[&str]) -> Statement {
    let names = tables.join("','");
    let place = "TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN";
    Statement::new(format!("{select} WHERE {place} ('{names}'){order}"), [])
}

/// `what`, so many times.
pub(super) fn repeat(sql: &mut String, what: &str, between: &str, times: usize) {
    for at in 0..times {
        if at > 0 {
            sql.push_str(between);
        }
        sql.push_str(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mirror::mapping::Record,
        model::{Hlc, Version},
    };

    fn table() -> TableName {
        TableName::of_any("shop").unwrap()
    }

    fn version(hlc: u64) -> Version {
        Version { hlc: Hlc::from_bits(hlc), origin: Origin::from_bytes([7; 16]) }
    }

    fn record(key: &str, value_bytes: usize) -> Record {
        Record {
            key: Key::new(key.as_bytes().to_vec()).unwrap(),
            value: vec![b'v'; value_bytes].into(),
            version: version(5 << 16),
            expires_at_ms: None,
        }
    }

    fn placeholders(statement: &Statement) -> usize {
        statement.sql.matches('?').count()
    }

    #[test]
    fn each_placeholder_has_its_parameter() {
        let records: Vec<_> = (0..4).map(|n| record(&format!("k{n}"), 3)).collect();
        let dead: Vec<_> =
            records.iter().map(|r| Dead { key: r.key.clone(), version: r.version }).collect();
        let refused: Vec<_> = records.iter().map(|r| r.refused("why".into())).collect();
        let keys: Vec<_> = records.iter().map(|r| &r.key).collect();
        let heads = Heads::new();
        for statement in [
            delete(&table(), true, &dead),
            delete(&table(), false, &dead),
            standing(&table(), &keys),
            keys_after(&table(), None, 10),
            keys_after(&table(), Some(b"k"), 10),
            reject(&table(), &refused, 1),
            unreject(&table(), &keys),
            fence(1, &heads, &heads, 1),
            take_over(1, &heads, 1),
            found(Origin::default(), 1),
            sweep(&table(), 1, 10),
            know_table(&table()),
            forget_table(&table()),
            rejected_after(b"t", b"k", 10),
            checkpoint(),
            create(&table()),
        ] {
            assert_eq!(placeholders(&statement), statement.params.len(), "{}", statement.sql);
        }
    }

    #[test]
    fn a_reason_is_cut_at_a_character() {
        let mut refused = record("k", 1).refused("é".repeat(600));
        let statement = reject(&table(), std::slice::from_ref(&refused), 1);
        assert_eq!(statement.params[4], Param::Bytes("é".repeat(500).into()));
        refused.reason = "short".into();
        assert_eq!(reject(&table(), &[refused], 1).params[4], Param::Bytes("short".into()));
    }
}
