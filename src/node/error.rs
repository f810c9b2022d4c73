//! Why the node did not do what it was asked.

use crate::store::{RefusedError, StoreError};

/// A write failed; unless said otherwise, nothing was written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WriteError {
    /// The batch breaks a rule.
    #[error(transparent)]
    Refused(#[from] RefusedError),
    /// This node only serves reads.
    #[error("node: {site} is a read-only replica: write at {write_at}")]
    Replica {
        /// Its site.
        site: String,
        /// Where clients may write.
        write_at: String,
    },
    /// The node is shutting down, or has shut down.
    #[error("node: shutting down: retry at another node")]
    ShuttingDown,
    /// The store failed; the node stops. Whether the write stands is not known.
    #[error("{0}: whether the write stands is not known; the node stops: retry at another node")]
    StoreFailed(String),
}

/// A read failed.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The site has not incorporated what the session has seen.
    #[error(
        "session: this site is {behind_ms} ms behind what the session has seen, after waiting \
         {waited_ms} ms: retry, or read at the site that wrote"
    )]
    NotThereYet {
        /// Of the origin that is furthest behind.
        behind_ms: u64,
        /// The wait that was in vain.
        waited_ms: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
