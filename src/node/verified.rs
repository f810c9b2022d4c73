//! What comes of comparing this node's rows with a peer's: how far it is, the result, why there is none.

use std::time::Duration;

use super::WriteError;
use crate::{
    model::{Body, Hlc, Key, TableName, Version},
    protocol::{
        ranges::{CompareError, ComparisonError},
        verdict::{Side, Standing, Wrong},
    },
    store::StoreError,
};

/// What to compare, and what to do about differences.
#[derive(Clone, Debug)]
pub struct VerifyOptions {
    /// The peer's site.
    pub peer: String,
    /// Whether differences are put right.
    pub repair: bool,
    /// Whose row is right where one write has two values.
    pub prefer: Option<Side>,
}

/// How far it has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// What is being done.
    pub stage: VerifyStage,
    /// Rows of this node that were compared.
    pub rows: u64,
    /// Places where the two were seen to differ, those on their way included.
    pub differing: u64,
    /// Rows written once more so far.
    pub repaired: u64,
    /// Bytes exchanged so far, both ways.
    pub bytes: u64,
}

/// What is being done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyStage {
    /// The peer takes its snapshot.
    #[default]
    Beginning,
    /// Ranges are compared.
    Comparing,
    /// What differs is looked into.
    Judging,
    /// Differences are put right.
    Repairing,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Every write stamped up to here was in both snapshots.
    pub through: Hlc,
    /// This node's rows in its snapshot, tombstones aside.
    pub rows: u64,
    /// Bytes exchanged in all, both ways.
    pub bytes: u64,
    /// Places that differ because a write is on its way.
    pub in_flux: u64,
    /// Places that differ and should not.
    pub differing: u64,
    /// Places that differ and were not looked into, because there are so many. Where these are 0 as well
    /// as those that should not differ, the two are equal.
    pub unjudged: u64,
    /// The first of them.
    pub differences: Vec<PlaceDiffers>,
    /// Rows written once more to put them right.
    pub repaired: u64,
}

/// A place where the two differ and should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceDiffers {
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Key,
    /// How they differ.
    pub wrong: Wrong,
    /// What this node has; `None`: nothing.
    pub here: Option<RowState>,
    /// What the peer has; `None`: nothing.
    pub there: Option<RowState>,
    /// Why it was not put right, where that was asked for.
    pub undecided: Option<String>,
}

/// What stands in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowState {
    /// Which write it is, as far as that can be read.
    pub version: Option<Version>,
    /// Its bytes do not make a row.
    pub damaged: bool,
    /// It is a delete.
    pub deleted: bool,
    /// When it expires, in milliseconds since the Unix epoch, UTC.
    pub expires_at_ms: Option<u64>,
    /// The length of the value.
    pub value_bytes: u64,
}

impl From<&Standing> for RowState {
    fn from(standing: &Standing) -> RowState {
        let body = standing.body();
        RowState {
            version: standing.version(),
            damaged: body.is_none(),
            deleted: body.is_some_and(Body::is_tombstone),
            expires_at_ms: body.and_then(Body::expires_at_ms),
            value_bytes: body.and_then(Body::value).map_or(0, |value| value.len() as u64),
        }
    }
}

/// Why two nodes were not compared to the end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No peer has this name.
    #[error("peer: no site {site:?} is a peer of this node; its peers are: {known}")]
    UnknownPeer {
        /// As asked.
        site: String,
        /// Those there are.
        known: String,
    },
    /// A node is not its own peer.
    #[error("peer: {0:?} is this node's own site: name the other one")]
    Itself(String),
    /// No link to the peer is up.
    #[error("peer: {site} is not connected{}: see lastword status", reason_of(.reason))]
    NotConnected {
        /// The peer's site.
        site: String,
        /// The link's last error.
        reason: String,
    },
    /// One comparison with a peer at a time.
    #[error("peer: a comparison with {0} is under way: try again when it has ended")]
    Busy(String),
    /// The link broke.
    #[error("peer: the link to {0} ended during the comparison: try again")]
    LinkLost(String),
    /// No answer came.
    #[error(
        "peer: {site} did not answer within {} s: does it run this release? is it overloaded?",
        .after.as_secs()
    )]
    Silent {
        /// The peer's site.
        site: String,
        /// The wait that was in vain.
        after: Duration,
    },
    /// This node's rows are not those of a member yet.
    #[error("this site, {site}, cannot be compared: {reason}")]
    CannotBegin {
        /// This node's site.
        site: String,
        /// Why.
        reason: String,
    },
    /// The peer could not answer.
    #[error("peer: {site} could not go on: {reason}")]
    RefusedByPeer {
        /// The peer's site.
        site: String,
        /// As it said.
        reason: String,
    },
    /// The peer breaks the rules.
    #[error("peer: {0}")]
    Violation(#[from] ComparisonError),
    /// This node's rows cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This node's rows cannot be put right.
    #[error("repair: {0}")]
    Write(#[from] WriteError),
}

fn reason_of(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({reason})") }
}

impl From<CompareError<StoreError>> for VerifyError {
    fn from(error: CompareError<StoreError>) -> VerifyError {
        match error {
            CompareError::Source(error) => error.into(),
            CompareError::Message(error) => error.into(),
        }
    }
}
