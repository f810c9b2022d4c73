//! What is asked of the writer, and what became of it.

use std::sync::Arc;

use bytes::Bytes;

use super::TABLES_MAX;
use crate::{
    model::{Heads, Key, Origin, Row, TableName, Version},
    protocol::SequenceIds,
};

/// What is asked of the writer.
#[derive(Clone, Debug)]
pub enum Request {
    /// A client's writes: all or none.
    Local(LocalBatch),
    /// A peer's rows, and what may be claimed with them.
    Remote(RemoteBatch),
    /// The store `origin` is known to have `heads`: a file of its says so.
    Carried {
        /// The store.
        origin: Origin,
        /// What it has.
        heads: Heads,
    },
    /// Nothing to write: let the own head follow the clock.
    Advance,
}

/// What a row takes in a commit besides its key and value: its place's table, and two headers.
const ROW_OVERHEAD_BYTES: usize = 48;
/// The key of a sequence insert, at most.
const SEQUENCE_KEY_BYTES: usize = 20;

impl Request {
    /// How many rows it writes, at most.
    #[must_use]
    pub fn rows(&self) -> usize {
        match self {
            Request::Local(batch) => batch.writes.len(),
            Request::Remote(batch) => batch.rows.len(),
            Request::Carried { .. } | Request::Advance => 0,
        }
    }

    /// What its rows take in a commit, roughly, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let bytes: usize = match self {
            Request::Local(batch) => batch.writes.iter().map(LocalWrite::size_bytes).sum(),
            Request::Remote(batch) => batch.rows.iter().map(Row::size_bytes).sum(),
            Request::Carried { .. } | Request::Advance => 0,
        };
        bytes + self.rows() * ROW_OVERHEAD_BYTES
    }
}

/// A client's writes, in order.
#[derive(Clone, Debug)]
pub struct LocalBatch {
    /// The writes; a later one of the same key wins.
    pub writes: Vec<LocalWrite>,
    /// Whether a table that is not there is created.
    pub create_tables: bool,
    /// The site's sequence ids, where configured.
    pub sequence: Option<SequenceIds>,
    /// The write is refused where the hybrid clock leads the wall clock by more, in milliseconds.
    pub drift_bound_ms: u64,
}

/// One write of a client.
#[derive(Clone, Debug)]
pub struct LocalWrite {
    /// The table.
    pub table: TableName,
    /// What is done there.
    pub operation: Operation,
}

impl LocalWrite {
    fn size_bytes(&self) -> usize {
        match &self.operation {
            Operation::Put { key, value, .. } => key.as_slice().len() + value.len(),
            Operation::Delete { key } => key.as_slice().len(),
            Operation::InsertSequence { value, .. } => SEQUENCE_KEY_BYTES + value.len(),
        }
    }
}

/// What a client does to a row. Times are milliseconds since the Unix epoch, UTC.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Replaces the whole row.
    Put {
        /// The row's key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// When it expires.
        expires_at_ms: Option<u64>,
    },
    /// Leaves a tombstone, whether or not a row is there: an older write may be on its way.
    Delete {
        /// The row's key.
        key: Key,
    },
    /// Writes a row under the next free sequence id.
    InsertSequence {
        /// Its value.
        value: Bytes,
        /// When it expires.
        expires_at_ms: Option<u64>,
    },
}

impl Operation {
    /// The key, where the client names it.
    pub(super) fn key(&self) -> Option<&Key> {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => Some(key),
            Operation::InsertSequence { .. } => None,
        }
    }
}

/// What became of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The row's key.
    pub key: Key,
    /// The write's version.
    pub version: Version,
    /// Whether a live row was there before.
    pub existed: bool,
}

/// Why a client's batch was refused. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedError {
    /// Tables are not created by writing to them here.
    #[error("table: {0} does not exist, and tables.auto_create is off")]
    NoTable(TableName),
    /// The bound on tables.
    #[error("table: {0} would be more than the {TABLES_MAX} tables a store may have")]
    TooManyTables(TableName),
    /// The hybrid clock leads the wall clock.
    #[error(
        "clock: this node's stamps lead its wall clock by {ahead_ms} ms, more than the bound of \
         {bound_ms} ms: writes are refused until the wall clock has caught up; check the time \
         synchronisation of this machine and its peers"
    )]
    ClockAhead {
        /// By how much.
        ahead_ms: u64,
        /// What is allowed.
        bound_ms: u64,
    },
    /// No sequence ids were configured.
    #[error(
        "id_kind: this site has no sequence ids: set sequence.offset and sequence.increment, or \
         use ID_KIND_UUID_V7"
    )]
    NoSequence,
    /// All up to 2^64 are used.
    #[error("id_kind: table {0} has used up its sequence ids; use ID_KIND_UUID_V7")]
    SequenceExhausted(TableName),
}

/// A peer's rows.
#[derive(Clone, Debug)]
pub struct RemoteBatch {
    /// The store that sent them.
    pub sender: Origin,
    /// The rows.
    pub rows: Vec<Row>,
    /// Heads to raise: the end of a delta.
    pub claim: Option<Heads>,
    /// The tentative vector to keep for this sender.
    pub tentative: Option<Heads>,
}

/// What became of a peer's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Rows that stand here now.
    pub stored: u64,
    /// Rows that were here already, or lost against the row that stands here.
    pub passed_over: u64,
    /// Conflicts recorded.
    pub conflicts: u64,
}

/// What became of a request, once it is durable.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of [`Request::Local`].
    Local(Result<Vec<Written>, RefusedError>),
    /// Of [`Request::Remote`].
    Remote(MergeReport),
    /// Of [`Request::Carried`].
    Noted,
    /// Of [`Request::Advance`].
    Advanced,
}

/// A group of requests, applied and durable.
#[derive(Debug)]
pub struct Applied {
    /// One for each request, in order.
    pub outcomes: Vec<Outcome>,
    /// The rows that this group changed, as they stand after it: origin by origin, in the order of
    /// their stamps. They share memory, of which they are at least about half.
    pub rows: Vec<Row>,
    /// What the store has incorporated with them.
    pub heads: Arc<Heads>,
    /// Whether a transaction was committed: there was something to write.
    pub committed: bool,
}
