//! What applications wrote in this site's database becomes this site's writes.
//!
//! Whoever captures it reads the newest receipt first, and hands over under the next number: a hand-over
//! that was asked for and abandoned may still be made, and is then found by its number.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

use super::{AdoptCounts, AdoptOptions, Adopted, Node, WriteError};
use crate::{
    model::{Heads, TableName, Version},
    store::{
        HandOver, HandOverError, HandOverReport, HandedRow, Outcome, Receipt, Request, StoreError,
    },
};

/// Nothing was handed over, unless said otherwise.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CaptureError {
    /// Its number was not the next one: read the receipt again.
    #[error("hand-over: another one was made under the number {0}")]
    OutOfTurn(u64),
    /// As for any write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// What the capture is asked to do.
#[derive(Debug)]
pub enum CaptureCommand {
    /// Take the new columns of a table in, and compare every row of it.
    Refresh {
        /// The table.
        table: TableName,
        /// Where the answer goes: the reason, where it was not done.
        answer: oneshot::Sender<Result<(), String>>,
    },
    /// Compare the rows of a table that stand in MySQL and in the store.
    Adopt {
        /// Which, and what comes of it.
        options: AdoptOptions,
        /// Hears of each step.
        progress: watch::Sender<AdoptCounts>,
        /// Where the answer goes: the reason, where it was not done.
        answer: oneshot::Sender<Result<Adopted, String>>,
    },
}

/// Why the capture did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// There is none, or it has no connection.
    #[error(
        "capture: it does not run: set mysql, and capture = true in a [[table]]; lastword status \
         says whether it has a connection"
    )]
    NotRunning,
    /// It would not.
    #[error("{0}")]
    Refused(String),
    /// It ended, or lost its connection.
    #[error(
        "capture: it was interrupted; what was applied stays, and it goes on by itself: run the \
         command again; lastword status says whether it has a connection"
    )]
    Interrupted,
}

/// How many commands may wait.
const COMMANDS_MAX: usize = 4;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(30);

impl Node {
    /// The commands for the capture, of which there is one: the newest to call this.
    #[must_use]
    pub fn take_capture_commands(&self) -> mpsc::Receiver<CaptureCommand> {
        let (sender, receiver) = mpsc::channel(COMMANDS_MAX);
        *self.shared.capture_commands.lock().expect("no holder of this lock panics") = Some(sender);
        receiver
    }

    /// Has the capture take in what became of a table that was altered.
    ///
    /// # Errors
    ///
    /// [`CommandError`].
    pub async fn refresh_table(&self, table: TableName) -> Result<(), CommandError> {
        let (answer, answered) = oneshot::channel();
        self.command(CaptureCommand::Refresh { table, answer })?;
        match tokio::time::timeout(ANSWER_MAX, answered).await {
            Ok(Ok(done)) => done.map_err(CommandError::Refused),
            Ok(Err(_)) | Err(_) => Err(CommandError::NotRunning),
        }
    }

    pub(super) fn command(&self, command: CaptureCommand) -> Result<(), CommandError> {
        let commands = self.shared.capture_commands.lock();
        let commands = commands.expect("no holder of this lock panics").clone();
        let commands = commands.ok_or(CommandError::NotRunning)?;
        commands.try_send(command).map_err(|_| CommandError::NotRunning)
    }

    /// The newest hand-over from this site's database.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn receipt(&self) -> Result<Receipt, StoreError> {
        self.snapshot().receipt()
    }

    /// Whether this write came from this site's database, which therefore has it, though the heads of
    /// its checkpoint may not say so yet.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn is_captured(&self, version: Version) -> Result<bool, StoreError> {
        self.snapshot().is_handed_over(self.origin(), version)
    }

    /// Writes rows as applications left them in this site's database, which had `seen` of this store
    /// when they were read, and keeps `entries` as the receipt, in one durable commit. Where each row
    /// stands like that already, nothing is written and no receipt kept.
    ///
    /// # Errors
    ///
    /// [`CaptureError`].
    pub async fn hand_over(
        &self,
        number: u64,
        rows: Vec<HandedRow>,
        seen: Heads,
        entries: Bytes,
    ) -> Result<HandOverReport, CaptureError> {
        self.check_role()?;
        let drift_bound_ms = self.drift_bound_ms();
        let batch = HandOver { number, rows, seen, entries, drift_bound_ms };
        match self.request(Request::HandOver(batch)).await? {
            Outcome::HandedOver(Ok(report)) => Ok(report),
            Outcome::HandedOver(Err(HandOverError::OutOfTurn { number, .. })) => {
                Err(CaptureError::OutOfTurn(number))
            }
            Outcome::HandedOver(Err(HandOverError::Refused(refused))) => {
                Err(WriteError::from(refused).into())
            }
            _ => unreachable!("a hand-over has an outcome of its own"),
        }
    }
}
