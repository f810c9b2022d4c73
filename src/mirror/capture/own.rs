//! The capture's own tables: how far it is, and which tables are captured in what shape. Pure.

use crate::{
    mirror::{
        adopt::Loser,
        statement::{Param, Statement, repeat},
    },
    node::Stand,
};

/// The tables, by name.
pub(super) const TABLES: [(&str, &str); 4] = [
    (
        "_lastword_capture",
        "CREATE TABLE IF NOT EXISTS _lastword_capture (\
         id TINYINT UNSIGNED NOT NULL PRIMARY KEY COMMENT '1: there is one row', \
         epoch BIGINT UNSIGNED NOT NULL COMMENT 'counts the sessions: the newest may hand over', \
         handed BIGINT UNSIGNED NOT NULL COMMENT 'the newest hand-over whose entries are gone') \
         ENGINE=InnoDB",
    ),
    (
        "_lastword_captured",
        "CREATE TABLE IF NOT EXISTS _lastword_captured (\
         tbl VARBINARY(64) NOT NULL PRIMARY KEY, \
         state VARCHAR(16) CHARACTER SET ascii NOT NULL COMMENT 'touch: its rows are being taken \
         in; renew: those that the store has too; on; wait: rows are here and in the store; adopt: \
         they are being compared; altered, broken: wait for table refresh', \
         definition LONGTEXT CHARACTER SET utf8mb4 NOT NULL COMMENT 'the columns as captured', \
         touched MEDIUMBLOB NULL COMMENT 'up to which key its rows are taken in, or compared', \
         progress MEDIUMTEXT CHARACTER SET utf8mb4 NULL COMMENT 'how many rows that is; what was decided', \
         changed_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) \
         ON UPDATE CURRENT_TIMESTAMP(6)) ENGINE=InnoDB",
    ),
    super::guard::OWN_TABLE,
    (
        ADOPTED,
        "CREATE TABLE IF NOT EXISTS _lastword_adopted (\
         id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, \
         tbl VARBINARY(64) NOT NULL, k VARBINARY(512) NOT NULL, \
         stood_in VARCHAR(8) CHARACTER SET ascii NOT NULL COMMENT 'mysql or store: where the row \
         stood that lost', v LONGBLOB NOT NULL COMMENT 'the row, as JSON', \
         lost_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6), KEY (tbl, k)) ENGINE=InnoDB",
    ),
];

/// Rows that lost when tables were adopted.
pub(super) const ADOPTED: &str = "_lastword_adopted";

/// How a captured table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mirror) enum State {
    /// An entry is made of each of its rows: until then the mirror writes nothing there.
    Touch,
    /// As `Touch`, but of those rows alone that the store has as they were here when the table was altered:
    /// others died, or were written elsewhere, since.
    Renew,
    /// Captured and mirrored.
    On,
    /// Rows are there and in the store, and nobody has said which are right.
    Wait,
    /// Its columns are not those that are captured. Each write of an application is noted.
    Altered,
    /// A trigger or the outbox was gone: what was written meanwhile is not known.
    Broken,
    /// Rows are there and in the store, it was said which are right, and they are being compared.
    Adopt,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            State::Touch => "touch",
            State::Renew => "renew",
            State::On => "on",
            State::Wait => "wait",
            State::Altered => "altered",
            State::Broken => "broken",
            State::Adopt => "adopt",
        }
    }

    pub(super) fn of_word(word: &str) -> Option<State> {
        use State::{Adopt, Altered, Broken, On, Renew, Touch, Wait};
        let all = [Touch, Renew, On, Wait, Adopt, Altered, Broken];
        all.into_iter().find(|state| state.word() == word)
    }
}

/// The epoch and the newest hand-over that is done with; locked.
pub(super) const STANDING: &str =
    "SELECT epoch, handed FROM _lastword_capture WHERE id = 1 FOR UPDATE";

/// The first row.
pub(super) const FOUND: &str = "INSERT INTO _lastword_capture (id, epoch, handed) VALUES (1, 0, 0)";

/// Raises the epoch.
pub(super) fn take_over(epoch: u64, handed: u64) -> Statement {
    Statement::new(
        "UPDATE _lastword_capture SET epoch = ?, handed = ? WHERE id = 1",
        [Param::Number(epoch), Param::Number(handed)],
    )
}

/// Every transaction's first statement. It finds no row where another session has taken over.
pub(super) fn fence(epoch: u64, handed: u64) -> Statement {
    Statement::new(
        "UPDATE _lastword_capture SET handed = ? WHERE id = 1 AND epoch = ?",
        [Param::Number(handed), Param::Number(epoch)],
    )
}

/// What MySQL has of the store, and whose mirror it is.
pub(super) const CHECKPOINT: &str = "SELECT origin, heads FROM _lastword_mirror WHERE id = 1";

/// The captured tables: name, state, definition, up to where it is touched, how far that is.
pub(super) const CAPTURED: &str =
    "SELECT tbl, state, definition, touched, progress FROM _lastword_captured";

/// Notes a table, in place of what was noted of it.
pub(super) fn note(table: &str, state: State, definition: &str) -> Statement {
    let text = |text: &str| Param::Bytes(text.to_owned().into());
    Statement::new(
        "REPLACE INTO _lastword_captured (tbl, state, definition) VALUES (?, ?, ?)",
        [text(table), text(state.word()), text(definition)],
    )
}

/// Changes a table's state.
pub(super) fn set_state(table: &str, state: State) -> Statement {
    let text = |text: &str| Param::Bytes(text.to_owned().into());
    Statement::new(
        "UPDATE _lastword_captured SET state = ? WHERE tbl = ?",
        [text(state.word()), text(table)],
    )
}

/// Notes up to which key a table's rows are touched or compared, and how far that is.
pub(super) fn set_progress(table: &str, key: Option<&[u8]>, progress: &str) -> Statement {
    let bytes = |bytes: &[u8]| Param::Bytes(bytes.to_vec().into());
    Statement::new(
        "UPDATE _lastword_captured SET touched = ?, progress = ? WHERE tbl = ?",
        [key.map_or(Param::Null, bytes), bytes(progress.as_bytes()), bytes(table.as_bytes())],
    )
}

/// Keeps rows that lost: key, where it stood, the row.
pub(super) fn keep_losers(table: &str, losers: &[Loser]) -> Statement {
    let bytes = |bytes: &[u8]| Param::Bytes(bytes.to_vec().into());
    let mut sql = format!("INSERT INTO {ADOPTED} (tbl, k, stood_in, v) VALUES ");
    repeat(&mut sql, "(?,?,?,?)", ",", losers.len());
    let params: Vec<_> = losers
        .iter()
        .flat_map(|Loser { key, stood_in, row }| {
            let stood_in: &[u8] = match stood_in {
                Stand::MySql => b"mysql",
                Stand::Store => b"store",
            };
            [bytes(table.as_bytes()), bytes(key.as_slice()), bytes(stood_in), bytes(row)]
        })
        .collect();
    Statement::new(sql, params)
}

/// About how many rows a table has.
pub(super) fn rows_about(table: &str) -> Statement {
    Statement::new(
        "SELECT TABLE_ROWS FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() \
         AND TABLE_NAME = ?",
        [Param::Bytes(table.to_owned().into())],
    )
}

/// Whether lastword fills a table.
pub(super) fn is_known(table: &str) -> Statement {
    Statement::new(
        "SELECT 1 FROM _lastword_columns WHERE tbl = ?",
        [Param::Bytes(table.to_owned().into())],
    )
}

/// Up to where MySQL is not behind, in general, and in those of these tables that were ever filled: heads, then
/// name, filled, heads of the table.
pub(super) fn heads_of(tables: &[&str]) -> Statement {
    let mut sql = "SELECT m.heads, c.tbl, c.filled, c.heads FROM _lastword_mirror m \
                   LEFT JOIN _lastword_columns c ON c.tbl IN ("
        .to_owned();
    repeat(&mut sql, "?", ",", tables.len());
    sql.push_str(") WHERE m.id = 1");
    let params: Vec<_> =
        tables.iter().map(|table| Param::Bytes((*table).to_owned().into())).collect();
    Statement::new(sql, params)
}
