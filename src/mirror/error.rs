//! Why the mirror does not go on, and what an operator does about it.
//!
//! One question decides over gaps: does MySQL refuse *this row*, or can it not write *now*? Only
//! the former sets a row aside; whatever is not known to be the former is tried again.

use super::Target;
use crate::{
    model::{Heads, Origin},
    store::StoreError,
};

/// The mirror cannot go on; nothing of the transaction under way stands in MySQL, or all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum MirrorError {
    /// MySQL answered with an error.
    #[error("mysql: {0}{advice}", advice = advice(.0.code))]
    Server(ServerError),
    /// No answer, or no connection.
    #[error("mysql: {0}")]
    Connection(String),
    /// The settings name no database.
    #[error(
        "mysql: the URL names no database: write mysql://USER@HOST:PORT/DATABASE; the database \
         must exist"
    )]
    NoDatabase,
    /// The database is not there.
    #[error(
        "mysql: there is no database {database} at {host}:{port}: run CREATE DATABASE \
         `{database}`, and grant the user SELECT, INSERT, UPDATE, DELETE and CREATE on it",
        database = .0.database, host = .0.host, port = .0.port
    )]
    UnknownDatabase(Target),
    /// A table cannot hold the mirror of the store's table.
    #[error("mysql: {0}")]
    Table(String),
    /// A trigger of an application's would fire for what lastword writes.
    #[error("its trigger {trigger} is not guarded yet")]
    Unguarded {
        /// Its name.
        trigger: String,
    },
    /// The database is another store's mirror.
    #[error(
        "mysql: this database mirrors the store {theirs}, not this node's {ours}: give this node \
         a database of its own; or, if that store is gone, DROP the mirrored tables and \
         _lastword_mirror, _lastword_tables, _lastword_rejected, and they are filled again"
    )]
    OtherStore {
        /// The origin that `_lastword_mirror` names.
        theirs: Origin,
        /// This node's.
        ours: Origin,
    },
    /// The store was set back, or its folder copied.
    #[error(
        "mysql: this database holds writes that this node's store does not have (it has {theirs}): \
         the data folder was set back or copied; start the node with an empty data folder, so \
         that it fetches everything from its peers, and give it an empty database"
    )]
    AheadOfStore {
        /// The heads in `_lastword_mirror`.
        theirs: Heads,
    },
    /// Written by a later release.
    #[error(
        "mysql: _lastword_mirror has format {0}, this release reads format 1: run the release \
         that wrote it, or a later one"
    )]
    Format(u64),
    /// An entry of lastword's own tables makes no sense.
    #[error(
        "mysql: {0} cannot be read: DROP _lastword_mirror, _lastword_tables, _lastword_rejected \
         and the mirrored tables, and they are filled again"
    )]
    Damaged(&'static str),
    /// Another mirror of this store has taken over.
    #[error(
        "mysql: another mirror has taken this database over: make sure that only one node uses it"
    )]
    Fenced,
    /// To go on would lose what somebody wrote.
    #[error("mysql: {found}: {why}; {mend}")]
    Unfit {
        /// What the doctor found.
        found: String,
        /// Why it matters.
        why: String,
        /// What mends it.
        mend: String,
    },
    /// An operator said so.
    #[error("the mirror is paused")]
    Paused,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl MirrorError {
    /// Whether the connection is sound, and only someone's action helps.
    pub(super) fn waits_for_operator(&self) -> bool {
        matches!(
            self,
            MirrorError::Table(_)
                | MirrorError::Unfit { .. }
                | MirrorError::OtherStore { .. }
                | MirrorError::AheadOfStore { .. }
                | MirrorError::Format(_)
                | MirrorError::Damaged(_)
        )
    }

    /// Whether another session was in the way, and may be through with it.
    pub(super) fn may_pass_at_once(&self) -> bool {
        matches!(self, MirrorError::Server(error) if matches!(error.code, LOCK_WAIT | DEADLOCK))
            || self.is_taken_key()
    }

    /// Whether a row with this primary key stands there.
    pub(super) fn is_taken_key(&self) -> bool {
        // MySQL 8 names the table before it.
        let names_primary = |text: &str| text.ends_with("'PRIMARY'") || text.ends_with(".PRIMARY'");
        matches!(self, MirrorError::Server(error)
            if error.code == DUPLICATE && names_primary(&error.message))
    }

    /// Whether this is not there: [`NO_TABLE`], [`NO_COLUMN`].
    pub(super) fn lacks(&self, what: u16) -> bool {
        matches!(self, MirrorError::Server(error) if error.code == what)
    }

    /// Whether it is about one table, and not about the server or a row.
    pub(super) fn concerns_table(&self) -> bool {
        match self {
            MirrorError::Server(error) => error.concerns_table(),
            MirrorError::Unguarded { .. } => true,
            _ => false,
        }
    }

    /// MySQL's reason, where it refused the row itself and would refuse it again.
    pub(super) fn refused_row(&self) -> Option<String> {
        match self {
            MirrorError::Server(error) if error.refuses_row() => Some(error.to_string()),
            _ => None,
        }
    }
}

/// What MySQL said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (error {code})")]
pub(super) struct ServerError {
    /// MySQL's number.
    pub(super) code: u16,
    /// SQLSTATE: five characters, the first two are its class.
    pub(super) state: String,
    /// In English, or whatever the server is set to.
    pub(super) message: String,
}

impl ServerError {
    /// A table or a column that is not there, a privilege on it, a definition that makes no sense.
    fn concerns_table(&self) -> bool {
        self.state.starts_with("42") && !self.refuses_row() && !SESSION_CODES.contains(&self.code)
    }

    /// Whether it is about the values of a row: sent again, it would be refused again.
    fn refuses_row(&self) -> bool {
        let class = self.state.get(..2).unwrap_or_default();
        // Data exceptions, integrity constraints, and what a trigger says with SIGNAL.
        matches!(class, "22" | "23" | "45") || ROW_CODES.contains(&self.code)
    }
}

/// A table that is not there.
pub(super) const NO_TABLE: u16 = 1146;
/// A column that is not there.
pub(super) const NO_COLUMN: u16 = 1054;
const DUPLICATE: u16 = 1062;
const LOCK_WAIT: u16 = 1205;
const DEADLOCK: u16 = 1213;

/// Errors of the class 42 that are about the session or the whole database.
const SESSION_CODES: [u16; 5] = [
    1044, // no privilege on the database
    1049, // no such database
    1203, // too many connections of the user
    1226, // a limit of the user
    1227, // a privilege of the server is needed
];

/// Errors about a row's values that have no SQLSTATE class of their own.
const ROW_CODES: [u16; 15] = [
    1118, // row size too large
    1264, // out of range
    1265, // data truncated
    1292, // truncated incorrect value
    1300, // invalid character string
    1364, // no default value
    1366, // incorrect string or integer value
    1406, // data too long
    1526, // no partition for the value
    1644, // SIGNAL of a trigger
    1713, // undo record too big
    1748, // not in the given partitions
    1977, // character cannot be converted
    3819, // check constraint
    3988, // conversion of a string between character sets is impossible
];

/// What to do about an error of MySQL, beginning with a separator; empty where that is plain.
fn advice(code: u16) -> &'static str {
    match code {
        1045 | 1698 | 2061 => ": check the user and the password of the mysql setting",
        1044 | 1142 | 1143 => {
            ": grant the user SELECT, INSERT, UPDATE, DELETE and CREATE on the database"
        }
        1290 | 1836 => ": MySQL is read-only; the mirror goes on once it may write",
        1040 | 1203 | 1226 => ": raise max_connections, or the user's own limit",
        1205 | 1213 => ": another session holds locks on the mirrored tables; tried again",
        3 | 28 | 1021 | 1030 | 1114 => ": look after the disk of the MySQL server",
        1053 | 1079 | 1927 => ": MySQL shuts down; tried again",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, state: &str) -> MirrorError {
        MirrorError::Server(ServerError { code, state: state.into(), message: "as it says".into() })
    }

    #[test]
    fn what_concerns_the_row_is_refused() {
        // As MariaDB 10.11 and MySQL 8.4 number and class them.
        for (code, state) in [
            (1406, "22001"),
            (1366, "22007"),
            (1366, "HY000"),
            (1264, "22003"),
            (1265, "01000"),
            (1292, "22007"),
            (1300, "HY000"),
            (1048, "23000"),
            (1062, "23000"),
            (1452, "23000"),
            (4025, "23000"),
            (3819, "HY000"),
            (1644, "45000"),
            (1118, "42000"),
            (1526, "HY000"),
            (1364, "HY000"),
            (3140, "22032"),
            (3988, "HY000"),
        ] {
            assert!(error(code, state).refused_row().is_some(), "{code} {state}");
        }
    }

    #[test]
    fn whatever_else_goes_wrong_is_tried_again() {
        for (code, state) in [
            (1205, "HY000"), // lock wait
            (1213, "40001"), // deadlock
            (1053, "08S01"), // shutdown
            (1153, "08S01"), // packet too large: sizes are checked before
            (1290, "HY000"), // read-only
            (1836, "HY000"),
            (1021, "HY000"), // disk full
            (1114, "HY000"), // table full
            (1030, "HY000"), // storage engine
            (1040, "08004"), // too many connections
            (1927, "70100"), // killed
            (1317, "70100"), // interrupted
            (1969, "70100"), // statement time-out
            (1142, "42000"), // no privilege
            (1054, "42S22"), // no such column: the table was altered
            (1146, "42S02"), // no such table: it was dropped
            (1615, "HY000"), // prepare again
            (1105, "HY000"), // unknown error
        ] {
            assert!(error(code, state).refused_row().is_none(), "{code} {state}");
        }
        assert!(MirrorError::Connection("lost".into()).refused_row().is_none());
        let taken = |message: &str| {
            let (code, state) = (1062, "23000".to_owned());
            MirrorError::Server(ServerError { code, state, message: message.into() })
        };
        assert!(taken("Duplicate entry '1' for key 'PRIMARY'").may_pass_at_once());
        assert!(taken("Duplicate entry '1' for key 'film.PRIMARY'").is_taken_key());
        assert!(!taken("Duplicate entry '1' for key 'by_title'").is_taken_key());
        assert!(error(1146, "42S02").concerns_table() && error(1142, "42000").concerns_table());
        assert!(!error(1118, "42000").concerns_table() && !error(1226, "42000").concerns_table());
    }

    #[test]
    fn errors_are_one_line_and_say_what_to_do() {
        let target = Target {
            host: "db".into(),
            port: 3306,
            user: "u".into(),
            password: Some("hunter2".into()),
            database: "shop".into(),
        };
        let text = MirrorError::UnknownDatabase(target).to_string();
        assert!(text.contains("CREATE DATABASE `shop`") && !text.contains("hunter2"), "{text}");
        let denied = error(1142, "42000").to_string();
        assert!(denied.contains("grant the user SELECT, INSERT"), "{denied}");
        for error in [
            MirrorError::NoDatabase,
            MirrorError::OtherStore { theirs: Origin::default(), ours: Origin::default() },
            MirrorError::AheadOfStore { theirs: Heads::new() },
            MirrorError::Fenced,
            MirrorError::Format(2),
        ] {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}
