//! What is asked of the writer, and what became of it.

use std::sync::Arc;

use bytes::Bytes;

use super::TABLES_MAX;
use crate::{
    model::{Heads, Hlc, Key, Origin, Role, Row, TableName, Version},
    protocol::{HelloMembership, SequenceIds},
};

/// What is asked of the writer.
#[derive(Clone, Debug)]
pub enum Request {
    /// A client's writes: all or none.
    Local(LocalBatch),
    /// A peer's rows, and what may be claimed with them.
    Remote(RemoteBatch),
    /// Rows to be written once more, where nothing has changed them meanwhile.
    Rewrite(RewriteBatch),
    /// What applications wrote in this node's database.
    HandOver(HandOver),
    /// The store `origin` is known to have `heads`: a file of its says so.
    Carried {
        /// The store.
        origin: Origin,
        /// What it has.
        heads: Heads,
    },
    /// Let the own head follow the clock, and do what is due for the cluster.
    Advance,
    /// Another store is met.
    Meet(Box<Meeting>),
    /// A newcomer asks this member of a sealed cluster to be taken in.
    Admit {
        /// Its store.
        newcomer: Origin,
        /// Its site.
        site: String,
        /// What it is for.
        role: Role,
        /// The origin that it had before it came back.
        earlier: Option<Origin>,
        /// Its own head: it stamped nothing above.
        head: Hlc,
        /// Its wall clock, in milliseconds since the Unix epoch, UTC.
        wall_ms: u64,
        /// Refused where the two clocks are further apart, in milliseconds: it would hold back what
        /// admits it.
        drift_bound_ms: u64,
    },
    /// A sponsor has taken this store in: the rows that say so.
    Join {
        /// The sponsor.
        sponsor: Origin,
        /// This store's rows of the member tables.
        rows: Vec<Row>,
        /// Refused where they lie further ahead of the wall clock, in milliseconds.
        drift_bound_ms: u64,
    },
    /// Every member has heard of the admission of this store.
    Activate,
    /// Take dead rows away that every member has.
    Purge {
        /// Of each origin, what every remaining member is known to have incorporated.
        stable: Heads,
        /// How far heads may lead the wall clocks, in milliseconds: an expiry counts so much later.
        drift_bound_ms: u64,
    },
    /// A reconciliation has ended.
    Reconcile(Box<Reconciled>),
}

/// Another store, as its hello tells.
#[derive(Clone, Debug)]
pub struct Meeting {
    /// Its origin.
    pub peer: Origin,
    /// Where it was dialled, as configured; `None`: it dialled us.
    pub address: Option<String>,
    /// How it stands to the cluster.
    pub membership: HelloMembership,
    /// What it has, by its hello.
    pub heads: Heads,
    /// Refused where its rows lie further ahead of the wall clock, in milliseconds.
    pub drift_bound_ms: u64,
}

/// As what another store was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// A member: exchange.
    Known,
    /// It belongs to a sealed cluster, and we do not: ask it to take us in.
    Stranger,
    /// We belong to a sealed cluster, and it does not: it will ask to be taken in.
    Newcomer,
}

/// Why two stores do not exchange, by the rules of membership. The text is for the operator of the
/// store that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeetError {
    /// The peer was removed.
    #[error(
        "the store was removed from the cluster: stop its node, run `lastword rejoin --data DIR` \
         there, and start it again; it comes back as a new member, and what it had not spread is \
         written anew"
    )]
    Removed,
    /// This store was removed.
    #[error(
        "this node's store was removed from the cluster: stop the node, run `lastword rejoin \
         --data DIR`, and start it again"
    )]
    OwnRemoved,
    /// The peer's rows were written outside of the sealed cluster.
    #[error(
        "this cluster is sealed, and the store, which has met others already, is unknown to it: \
         if it was admitted elsewhere, it will be let in as soon as that is known here; else stop \
         its node and run `lastword rejoin --data DIR` there"
    )]
    Sealed,
    /// The same, the other way round.
    #[error(
        "the peer's cluster is sealed and does not know this node's store, which has met others \
         already: stop the node, run `lastword rejoin --data DIR`, and start it again"
    )]
    SealedThere,
    /// Two clusters.
    #[error(
        "both sites belong to sealed clusters that do not know each other: they cannot become one; \
         `lastword rejoin --data DIR` moves a stopped node's store into the other cluster"
    )]
    BothSealed,
    /// One of the two is being admitted by another member.
    #[error("a store that is being admitted exchanges with its sponsor alone: wait until it is in")]
    Joining,
    /// One of the two is being admitted, and was where a removed store wrote on.
    #[error(
        "a store that is being admitted has rows of a removed site that nobody else takes: stop its node, \
         run `lastword rejoin --data DIR` there, and start it again; they are written anew then"
    )]
    BroughtByRemoved,
    /// Stamps are too far ahead.
    #[error(
        "one of the two clocks is too far ahead of the other: check the time synchronisation of \
         both machines; the link comes up by itself when time allows"
    )]
    ClockSkew,
}

/// The end of a reconciliation with another store.
#[derive(Clone, Debug)]
pub struct Reconciled {
    /// That store.
    pub sender: Origin,
    /// Rows that died there; each goes only where this version still stands.
    pub dead: Vec<(TableName, Key, Version)>,
    /// Rows that may have died there: they go likewise, into the conflict journal.
    pub doubtful: Vec<(TableName, Key, Version)>,
    /// Rows that nobody there takes as they are: they are written anew.
    pub renew: Vec<(TableName, Key, Version)>,
    /// Its heads.
    pub claim: Heads,
    /// Its floor.
    pub floor: Heads,
}

/// What became of [`Request::Purge`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Rows that are gone now.
    pub rows: u64,
    /// Rows looked at.
    pub looked_at: u64,
    /// There was more to look at.
    pub more: bool,
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
            Request::Rewrite(batch) => batch.rows.len(),
            Request::HandOver(batch) => batch.rows.len(),
            Request::Reconcile(end) => end.dead.len(),
            _ => 0,
        }
    }

    /// What its rows take in a commit, roughly, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let bytes: usize = match self {
            Request::Local(batch) => batch.writes.iter().map(LocalWrite::size_bytes).sum(),
            Request::Remote(batch) => batch.rows.iter().map(Row::size_bytes).sum(),
            Request::Rewrite(batch) => batch.rows.iter().map(Rewrite::size_bytes).sum(),
            Request::HandOver(batch) => {
                batch.entries.len() + batch.rows.iter().map(HandedRow::size_bytes).sum::<usize>()
            }
            _ => 0,
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
    /// This store is on its way into a sealed cluster.
    #[error(
        "this site is being admitted to the cluster and takes no writes yet: write at another \
         site, or wait; `lastword status` names who is missing"
    )]
    Joining,
    /// This store is no member any more.
    #[error(
        "this site was removed from the cluster: write at another site; to bring this one back, \
         stop the node and run `lastword rejoin --data DIR`"
    )]
    Removed,
    /// All up to 2^64 are used.
    #[error("id_kind: table {0} has used up its sequence ids; use ID_KIND_UUID_V7")]
    SequenceExhausted(TableName),
}

/// Rows to be written once more: the right values of rows that differ between two stores. Each becomes an
/// ordinary write of this store.
#[derive(Clone, Debug)]
pub struct RewriteBatch {
    /// The rows.
    pub rows: Vec<Rewrite>,
    /// As in [`LocalBatch`].
    pub drift_bound_ms: u64,
}

/// One row that is written once more.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// The table.
    pub table: TableName,
    /// The row's key.
    pub key: Key,
    /// The body that must still stand there, byte for byte; `None`: none must. Else nothing is written:
    /// what changed it meanwhile is newer than what was to be put right.
    pub standing: Option<Bytes>,
    /// The right value; `None`: the row is deleted.
    pub value: Option<Bytes>,
    /// When it expires, in milliseconds since the Unix epoch, UTC.
    pub expires_at_ms: Option<u64>,
}

impl Rewrite {
    fn size_bytes(&self) -> usize {
        self.key.as_slice().len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// What became of rows that were to be written once more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RewriteReport {
    /// Rows written.
    pub written: u64,
    /// Rows left alone, for they had changed.
    pub changed: u64,
}

/// Rows as applications left them in this node's database, to become this store's own writes.
#[derive(Clone, Debug)]
pub struct HandOver {
    /// One more than that of the hand-over before, so that none is made twice. It is used up only where
    /// something is written.
    pub number: u64,
    /// The rows, each key once.
    pub rows: Vec<HandedRow>,
    /// What the database had of this store when they were read.
    pub seen: Heads,
    /// What is handed over, in the words of whoever does it: kept as the [`Receipt`](super::Receipt).
    pub entries: Bytes,
    /// As in [`LocalBatch`].
    pub drift_bound_ms: u64,
}

/// One of them.
#[derive(Clone, Debug)]
pub struct HandedRow {
    /// The table.
    pub table: TableName,
    /// The row's key.
    pub key: Key,
    /// Its value; `None`: no row is there.
    pub value: Option<Bytes>,
    /// Versions at or below the heads that the database was told of and did not take, because the
    /// application had written this row.
    pub missed: Vec<Version>,
}

impl HandedRow {
    fn size_bytes(&self) -> usize {
        self.key.as_slice().len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// What became of a hand-over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandOverReport {
    /// Rows written. 0: nothing was, and no receipt is kept.
    pub written: u64,
    /// Rows that stood like that already.
    pub unchanged: u64,
    /// Rows that were overwritten unseen, and recorded.
    pub conflicts: u64,
}

/// Why a hand-over was refused. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandOverError {
    /// It was made already, or another one was.
    #[error("hand-over: number {number} is not the next after {newest}: read the receipt again")]
    OutOfTurn {
        /// Its number.
        number: u64,
        /// That of the newest.
        newest: u64,
    },
    /// As for any write.
    #[error(transparent)]
    Refused(#[from] RefusedError),
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
    /// Nothing was merged: the sender was removed.
    pub refused: bool,
}

/// What became of a request, once it is durable.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of [`Request::Local`].
    Local(Result<Vec<Written>, RefusedError>),
    /// Of [`Request::Remote`].
    Remote(MergeReport),
    /// Of [`Request::Rewrite`].
    Rewritten(Result<RewriteReport, RefusedError>),
    /// Of [`Request::HandOver`].
    HandedOver(Result<HandOverReport, HandOverError>),
    /// Of [`Request::Carried`].
    Noted,
    /// Of [`Request::Advance`], and of what has no other answer.
    Advanced,
    /// Of [`Request::Meet`].
    Met(Result<Met, MeetError>),
    /// Of [`Request::Admit`]: the rows that admit the newcomer.
    Admitted(Result<Vec<Row>, MeetError>),
    /// Of [`Request::Join`].
    Joined(Result<(), MeetError>),
    /// Of [`Request::Purge`].
    Purged(Purged),
    /// Of [`Request::Reconcile`]: so many rows are gone; `None`: nothing was done, for the sender was
    /// removed.
    Reconciled(Option<u64>),
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
    /// Rows that are gone, without a tombstone: whoever passes changes on from memory must look at
    /// the store again.
    pub rows_removed: u64,
    /// Whether a transaction was committed: there was something to write.
    pub committed: bool,
}
