//! Tables that were there before: how an operator has their rows taken in, or compared with the store's.
//!
//! The capture does the work, and goes on with what it was told to apply when the one who asked has gone.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use super::{CaptureCommand, CaptureState, CommandError, Node};
use crate::model::TableName;

/// How long a capture that has no connection yet is waited for.
const BEGINNING_MAX: Duration = Duration::from_secs(10);
/// Between two looks at the reports.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One of the two places in which rows stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stand {
    /// The site's own MySQL.
    MySql,
    /// The store, which the sites share.
    Store,
}

/// Which row is right where MySQL and the store have different ones of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The one with the later time in this column; the store's where both are the same.
    NewerBy(String),
    /// Always that one's.
    Keep(Stand),
}

/// What is to be compared.
#[derive(Clone, Debug)]
pub struct AdoptOptions {
    /// The table.
    pub table: TableName,
    /// Which rows are right; `None`: they are only counted.
    pub decision: Option<Decision>,
    /// Make it so; else nothing is changed.
    pub applies: bool,
}

/// How MySQL's rows and the store's compare.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptCounts {
    /// Rows that only MySQL has: they become writes of this site.
    pub only_mysql: u64,
    /// Rows that only the store has: they are filled into MySQL.
    pub only_store: u64,
    /// Rows that both have, and alike.
    pub equal: u64,
    /// Rows that both have, and not alike.
    pub different: u64,
    /// Of the different ones, those that are decided for MySQL.
    pub mysql_wins: u64,
    /// And those that are decided for the store.
    pub store_wins: u64,
    /// And those that an application has written since the capture began: they are writes of this site,
    /// whatever is decided.
    pub written_since: u64,
}

impl AdoptCounts {
    /// How many rows of MySQL were compared.
    #[must_use]
    pub fn rows_of_mysql(&self) -> u64 {
        self.only_mysql + self.equal + self.different
    }
}

/// In what a row is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptKind {
    /// Only MySQL has it.
    OnlyMySql,
    /// Only the store has it.
    OnlyStore,
    /// Both have it, and not alike.
    Different,
}

/// One of the first rows of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdoptExample {
    /// In what it is one.
    pub kind: AdoptKind,
    /// Its key.
    pub key: Bytes,
    /// The columns that differ.
    pub columns: Vec<String>,
    /// Whose row is right, where that is decided.
    pub winner: Option<Stand>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// How the rows compare.
    pub counts: AdoptCounts,
    /// Some of them.
    pub examples: Vec<AdoptExample>,
    /// It was made so before this was asked.
    pub was_done: bool,
    /// The table in MySQL that keeps the rows that lost.
    pub losers_in: String,
}

/// How far the rows of a table are taken in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TakingIn {
    /// Rows that are in the store.
    pub rows: u64,
    /// About how many there are.
    pub rows_about: u64,
    /// Nothing more waits.
    pub is_done: bool,
}

impl Node {
    /// Compares a table's rows in MySQL with the store's, and makes them one where told so. `progress`
    /// hears of each step.
    ///
    /// # Errors
    ///
    /// [`CommandError`]. What was applied until then stays, and the capture goes on with it.
    pub async fn adopt_table(
        &self,
        options: AdoptOptions,
        progress: watch::Sender<AdoptCounts>,
    ) -> Result<Adopted, CommandError> {
        self.until_captured(&options.table).await?;
        let (answer, answered) = oneshot::channel();
        self.command(CaptureCommand::Adopt { options, progress, answer })?;
        match answered.await {
            Ok(done) => done.map_err(CommandError::Refused),
            Err(_) => Err(CommandError::Interrupted),
        }
    }

    /// Waits until the rows that a captured table had are in the store; `told` hears how far that is.
    ///
    /// # Errors
    ///
    /// [`CommandError`]. What is in the store stays there, and the capture goes on.
    pub async fn take_table_in(
        &self,
        table: &TableName,
        mut told: impl FnMut(&TakingIn),
    ) -> Result<TakingIn, CommandError> {
        self.until_captured(table).await?;
        loop {
            let report = self.reports().capture().ok_or(CommandError::NotRunning)?;
            let captured = report.tables.into_iter().find(|captured| captured.table == *table);
            let captured = captured.ok_or_else(|| not_captured(table))?;
            if captured.state == CaptureState::Waiting {
                return Err(CommandError::Refused(captured.reason));
            }
            let taken_in = TakingIn {
                rows: captured.taken_in.saturating_sub(captured.pending),
                rows_about: captured.rows_about.max(captured.taken_in),
                is_done: captured.state == CaptureState::On && captured.pending == 0,
            };
            told(&taken_in);
            if taken_in.is_done {
                return Ok(taken_in);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the capture has looked at its tables; an error where this is none of them.
    async fn until_captured(&self, table: &TableName) -> Result<(), CommandError> {
        let mut waited = Duration::ZERO;
        loop {
            let report = self.reports().capture().ok_or(CommandError::NotRunning)?;
            match report.last_error {
                _ if report.connected => {
                    let is_known = report.tables.iter().any(|captured| captured.table == *table);
                    return if is_known { Ok(()) } else { Err(not_captured(table)) };
                }
                Some(error) if waited >= BEGINNING_MAX => {
                    return Err(CommandError::Refused(format!("capture: {}", error.message)));
                }
                None if waited >= BEGINNING_MAX => return Err(CommandError::NotRunning),
                _ => {}
            }
            tokio::time::sleep(LOOK_EVERY).await;
            waited += LOOK_EVERY;
        }
    }
}

fn not_captured(table: &TableName) -> CommandError {
    CommandError::Refused(format!(
        "table {table}: it is not captured: set [[table]] name = \"{table}\", mirror = \"columns\", \
         capture = true in the node's settings, and start it again"
    ))
}
