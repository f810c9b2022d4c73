//! What can go wrong with the store, by operation.

use std::{
    io,
    path::{Path, PathBuf},
};

/// The store could not be opened. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data folder cannot be created or entered.
    #[error("data: cannot use the folder {path}: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No store was ever created there.
    #[error("data: there is no store in this folder: {path} is missing")]
    NoStore {
        /// The store's file.
        path: PathBuf,
    },
    /// Two nodes with one store would be two writers with one origin.
    #[error(
        "data: {path} is open in another process: stop that lastword first, or give this one a \
         folder of its own with --data"
    )]
    InUse {
        /// The store's file.
        path: PathBuf,
    },
    /// The newest commits are in the log: without it the store would silently be an older one.
    #[error(
        "data: {path} is missing, and the newest writes with it: put it back beside the store, or \
         give the node an empty data folder and let it catch up from its peers"
    )]
    LogMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A layout that this release does not know.
    #[error(
        "data: the store has format {found}, this release reads format {expected}: run the \
         release that wrote it",
        expected = super::FORMAT_VERSION
    )]
    Format {
        /// What the file says.
        found: u64,
    },
    /// The file cannot be read as a store.
    #[error("data: cannot open {path}: {source}")]
    Database {
        /// The store's file.
        path: PathBuf,
        /// Why.
        source: redb::DatabaseError,
    },
    /// The store can be read, but takes no write.
    #[error("data: the first write failed: {0}")]
    FirstWrite(String),
    /// Reading or writing failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    pub(super) fn of_database(path: &Path, source: redb::DatabaseError) -> OpenError {
        match source {
            redb::DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.to_owned() },
            source => OpenError::Database { path: path.to_owned(), source },
        }
    }
}

impl From<redb::StorageError> for OpenError {
    fn from(error: redb::StorageError) -> OpenError {
        OpenError::Store(error.into())
    }
}

/// The store could not be read or written. A write that fails so is not seen by any reader; but
/// where the disk failed late, it may be found there at the next start.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// From redb: the disk, or the file's contents.
    #[error("store: {0}")]
    Redb(Box<redb::Error>),
    /// An entry that this release did not write so.
    #[error(
        "store: {0} cannot be read: the file is damaged; restore it from a backup, or give the \
         node an empty data folder and let it catch up from its peers"
    )]
    Damaged(&'static str),
    /// The log of the newest commits.
    #[error("store: {0}")]
    Log(String),
    /// What is in memory could not be moved into the file.
    #[error("store: cannot move the newest rows into the file: {0}")]
    Moving(String),
    /// An earlier commit failed; the writer takes no more.
    #[error("store: an earlier write failed")]
    Failed,
}

impl From<super::log::LogError> for StoreError {
    fn from(error: super::log::LogError) -> StoreError {
        StoreError::Log(error.to_string())
    }
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> StoreError {
        StoreError::Redb(Box::new(error.into()))
    }
}
