//! Whether MySQL has the rows of the store: how an operator's question reaches the mirror, and what comes back.
//!
//! ```text
//! Node::verify_mirror --> MirrorLine --> the mirror's own task --> MirrorVerified
//! ```
//!
//! Edges do not know one another: the API finds the mirror here, as it finds links in `calls.rs`.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{mpsc, oneshot, watch};

use super::Node;
use crate::{
    model::{TableName, Version},
    store::StoreError,
};

/// How many differences are named one by one.
pub const MIRROR_DIFFERENCES_MAX: usize = 1_000;

/// What to compare, and what to do about differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorVerifyOptions {
    /// Only this table; `None`: all.
    pub table: Option<TableName>,
    /// Whether the store's rows are written over what differs.
    pub repair: bool,
}

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorVerifyProgress {
    /// The table that it is at; `None`: at none yet.
    pub table: Option<TableName>,
    /// Rows of the store that were compared.
    pub rows: u64,
    /// Rows that differ and should not, so far.
    pub differing: u64,
    /// Rows written once more so far.
    pub repaired: u64,
    /// Bytes of results that MySQL sent.
    pub bytes: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorVerified {
    /// Each table that was looked at.
    pub tables: Vec<MirrorTableVerified>,
    /// The first rows that differ and should not, those put right included.
    pub differences: Vec<MirrorDifference>,
    /// Bytes of results that MySQL sent.
    pub bytes: u64,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorTableVerified {
    /// Its name.
    pub table: TableName,
    /// Live rows of the store that were compared.
    pub rows: u64,
    /// Rows that stand in MySQL with other columns than the store's.
    pub changed: u64,
    /// Rows that MySQL has not.
    pub missing: u64,
    /// Rows that only MySQL has.
    pub extra: u64,
    /// How many of these were put right.
    pub repaired: u64,
    /// Rows that change too often, or are on their way for too long, to tell.
    pub in_flux: u64,
    /// Rows that MySQL refused: they stand in `_lastword_rejected`.
    pub set_aside: u64,
    /// Why the table could not be compared.
    pub problem: Option<String>,
}

impl MirrorTableVerified {
    /// Nothing is known of it yet.
    #[must_use]
    pub fn new(table: TableName) -> MirrorTableVerified {
        MirrorTableVerified {
            table,
            rows: 0,
            changed: 0,
            missing: 0,
            extra: 0,
            repaired: 0,
            in_flux: 0,
            set_aside: 0,
            problem: None,
        }
    }

    /// Rows that differed and should not have.
    #[must_use]
    pub fn differing(&self) -> u64 {
        self.changed + self.missing + self.extra
    }
}

/// A row that differs and should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorDifference {
    /// Its table.
    pub table: TableName,
    /// Its key, as it stands in MySQL: what somebody else wrote need not be a key of the store.
    pub key: Vec<u8>,
    /// How.
    pub wrong: MirrorWrong,
    /// The store's version, where it has one.
    pub version: Option<Version>,
    /// The store's row was written over it.
    pub repaired: bool,
}

/// How MySQL differs from the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirrorWrong {
    /// Both have it, with other columns.
    Changed,
    /// MySQL has it not.
    Missing,
    /// Only MySQL has it.
    Extra,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum MirrorVerifyError {
    /// There is nothing to compare with.
    #[error("mirror: this node has none: start it with --mysql")]
    NoMirror,
    /// One at a time.
    #[error("mirror: a comparison is under way: try again when it has ended")]
    Busy,
    /// No such table.
    #[error("table: neither the store nor MySQL has a mirrored table {0}")]
    UnknownTable(TableName),
    /// MySQL cannot be asked.
    #[error("{0}")]
    Mysql(String),
    /// The mirror ended during the comparison.
    #[error("mirror: it ended during the comparison")]
    Ended,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A question, on its way to the mirror.
#[derive(Debug)]
pub struct MirrorAsk {
    /// What is asked.
    pub options: MirrorVerifyOptions,
    /// Where it says how far it is.
    pub progress: watch::Sender<MirrorVerifyProgress>,
    /// Where the answer goes; closed where nobody waits any more.
    pub answer: oneshot::Sender<Result<MirrorVerified, MirrorVerifyError>>,
}

/// The line to the mirror, where one runs.
#[derive(Debug, Default)]
pub struct MirrorLine {
    asks: Mutex<Option<mpsc::Sender<MirrorAsk>>>,
}

/// The mirror's end of the line.
#[derive(Debug)]
pub struct MirrorLineEnd {
    asks: mpsc::Receiver<MirrorAsk>,
}

impl MirrorLine {
    /// A mirror runs from here on; it is asked in place of an earlier one.
    #[must_use]
    pub fn open(&self) -> MirrorLineEnd {
        let (sender, asks) = mpsc::channel(1);
        *self.lock() = Some(sender);
        MirrorLineEnd { asks }
    }

    fn lock(&self) -> MutexGuard<'_, Option<mpsc::Sender<MirrorAsk>>> {
        self.asks.lock().expect("no holder of this lock panics")
    }
}

impl MirrorLineEnd {
    /// The next question; waits for ever where another mirror has taken over.
    pub async fn next(&mut self) -> MirrorAsk {
        match self.asks.recv().await {
            Some(ask) => ask,
            None => std::future::pending().await,
        }
    }
}

impl Node {
    /// Whether the mirror's MySQL has the rows of this store. Dropping the future ends the work.
    ///
    /// # Errors
    ///
    /// [`MirrorVerifyError`]: there is no result. What was put right until then stays so.
    pub async fn verify_mirror(
        &self,
        options: MirrorVerifyOptions,
        progress: watch::Sender<MirrorVerifyProgress>,
    ) -> Result<MirrorVerified, MirrorVerifyError> {
        let line = self.mirror_line().lock().clone().ok_or(MirrorVerifyError::NoMirror)?;
        let (answer, answered) = oneshot::channel();
        line.try_send(MirrorAsk { options, progress, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => MirrorVerifyError::Busy,
            mpsc::error::TrySendError::Closed(_) => MirrorVerifyError::NoMirror,
        })?;
        answered.await.unwrap_or(Err(MirrorVerifyError::Ended))
    }

    /// Where the mirror is asked.
    #[must_use]
    pub fn mirror_line(&self) -> &Arc<MirrorLine> {
        &self.shared.mirror_line
    }
}
