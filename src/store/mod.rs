//! The store: every row this node has, in one redb file.
//!
//! ```text
//! file.rs      the file: this user's alone, begun again where its creation was cut short
//! tables.rs    the redb tables: what each key and value is
//! codec.rs     their bytes
//! request.rs   what is asked of the writer, and what became of it
//! apply.rs     the one write transaction, for clients' writes and peers' rows alike
//! snapshot.rs  reads: one row, a range, everything above some heads
//! ```
//!
//! What the layers above see is narrow: [`Store::open`] gives a [`Writer`], of which there is one,
//! and the store itself, which gives any number of [`Snapshot`]s. A snapshot never waits for the
//! writer, and the writer never for a snapshot.
//!
//! **Invariant.** The heads of a snapshot claim nothing that its rows do not hold: they are
//! published after the commit that made them true, and read before the snapshot is taken.

mod apply;
mod codec;
mod error;
mod file;
mod request;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, RwLock},
};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend};

pub use apply::Writer;
pub use error::{OpenError, StoreError};
pub use request::{
    Applied, LocalBatch, LocalWrite, MergeReport, Operation, Outcome, RefusedError, RemoteBatch,
    Request, Written,
};
pub use snapshot::{Changes, Scan, ScanRange, Snapshot};

use crate::{
    model::{Heads, Hlc, Origin, TableName},
    protocol::Clock,
};
use codec::TableId;

/// The file's name within the data folder.
pub const STORE_FILE: &str = "lastword.redb";
/// The layout of the redb tables that this release reads and writes.
pub const FORMAT_VERSION: u64 = 1;
/// How many tables clients may create.
pub const TABLES_MAX: usize = 10_000;
/// How many entries the conflict journal keeps: the oldest go first.
pub const CONFLICTS_KEPT_MAX: u64 = 10_000;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The origin that a store gets which is created now.
    pub fresh_origin: Origin,
    /// The memory for redb's page cache, in bytes.
    pub cache_bytes: usize,
}

/// The rows of one node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    origin: Origin,
    boot: u64,
    path: Option<std::path::PathBuf>,
    published: RwLock<Published>,
}

/// What readers may rely on; replaced after each commit.
#[derive(Clone, Debug)]
struct Published {
    heads: Arc<Heads>,
    tables: Arc<TableIds>,
}

/// Table names and the numbers that stand for them within this store.
#[derive(Clone, Debug, Default)]
struct TableIds {
    ids: HashMap<TableName, TableId>,
    names: Vec<TableName>,
}

impl TableIds {
    fn id(&self, table: &TableName) -> Option<TableId> {
        self.ids.get(table).copied()
    }

    fn name(&self, id: TableId) -> Option<&TableName> {
        self.names.get(id.0 as usize)
    }

    fn add(&mut self, table: &TableName) -> TableId {
        let id = TableId(u32::try_from(self.names.len()).expect("fewer than 2^32 tables"));
        self.names.push(table.clone());
        self.ids.insert(table.clone(), id);
        id
    }
}

impl Store {
    /// Opens the store in the folder `data`, creating both where they are missing.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: another process has it open, it is damaged or of a newer format.
    pub fn open(data: &Path, config: &StoreConfig) -> Result<(Store, Writer), OpenError> {
        let folder_error = |source| OpenError::Folder { path: data.to_owned(), source };
        file::create_private_folder(data).map_err(folder_error)?;
        let path = data.join(STORE_FILE);
        file::begin_again_where_unfinished(&path)?;
        let database = Database::builder()
            .set_cache_size(config.cache_bytes)
            .create(&path)
            .map_err(|source| OpenError::of_database(&path, source))?;
        Store::from_database(database, Some(path), config)
    }

    /// Opens a store on a storage of the caller's: memory, or a disk that misbehaves.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as [`Store::open`].
    pub fn open_on(
        backend: impl StorageBackend,
        config: &StoreConfig,
    ) -> Result<(Store, Writer), OpenError> {
        file::empty_where_unfinished(&backend).map_err(StoreError::from)?;
        let database = Database::builder()
            .set_cache_size(config.cache_bytes)
            .create_with_backend(backend)
            .map_err(|source| OpenError::of_database(Path::new("memory"), source))?;
        Store::from_database(database, None, config)
    }

    fn from_database(
        database: Database,
        path: Option<std::path::PathBuf>,
        config: &StoreConfig,
    ) -> Result<(Store, Writer), OpenError> {
        let identity = tables::found(&database, config.fresh_origin)?;
        let read = database.begin_read().map_err(StoreError::from)?;

        let mut heads = Heads::new();
        for entry in read.open_table(tables::HEADS).map_err(StoreError::from)?.iter()? {
            let (origin, hlc) = entry?;
            heads.raise(Origin::from_bytes(*origin.value()), Hlc::from_bits(hlc.value()));
        }
        let mut names = TableIds::default();
        for entry in read.open_table(tables::TABLES).map_err(StoreError::from)?.iter()? {
            let (id, name) = entry?;
            let table =
                TableName::of_any(name.value()).map_err(|_| StoreError::Damaged("a table name"))?;
            if names.add(&table).0 != id.value() {
                return Err(StoreError::Damaged("the list of tables").into());
            }
        }
        // Stamps of every row count, those above the heads as well: a row that a delta brought
        // before it broke off has been observed.
        let greatest_stamp = snapshot::greatest_stamp(&read)?;
        let ceiling =
            identity.ceiling.max(heads.iter().map(|(_, hlc)| hlc).max().unwrap_or_default());
        let clock = Clock::new(ceiling.max(greatest_stamp));
        // Nothing will be stamped at or below the clock's reading: the own head may stand there,
        // and it must stand no lower than any that was sent.
        heads.raise(identity.origin, ceiling);
        drop(read);

        let shared = Arc::new(Shared {
            database,
            origin: identity.origin,
            boot: identity.boot,
            path,
            published: RwLock::new(Published { heads: Arc::new(heads), tables: Arc::new(names) }),
        });
        let store = Store { shared };
        let writer = Writer::new(store.clone(), clock, ceiling)?;
        Ok((store, writer))
    }

    /// The UUID of this store.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.shared.origin
    }

    /// How often this store was opened, this time included.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.shared.boot
    }

    /// What this store has incorporated; every stamp is durable, or below a durable ceiling.
    #[must_use]
    pub fn heads(&self) -> Arc<Heads> {
        self.published().heads
    }

    /// The size of the store's file, in bytes; 0 for one in memory.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let path = self.shared.path.as_ref();
        path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |meta| meta.len())
    }

    /// The rows as they are now.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        // In this order: the rows may hold more than the heads claim, never less.
        let published = self.published();
        let read = self.shared.database.begin_read()?;
        Snapshot::new(read, published)
    }

    /// How far the rows of the store `sender` came when its last delta broke off; see
    /// [`Receiver`](crate::protocol::Receiver). Empty where there is nothing to resume.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn tentative(&self, sender: Origin) -> Result<Heads, StoreError> {
        let read = self.shared.database.begin_read()?;
        let table = read.open_table(tables::TENTATIVE)?;
        let Some(entry) = table.get(sender.as_bytes())? else {
            return Ok(Heads::new());
        };
        Heads::from_bytes(entry.value()).ok_or(StoreError::Damaged("a tentative vector"))
    }

    /// How many conflicts were ever recorded here.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn conflicts_recorded(&self) -> Result<u64, StoreError> {
        let read = self.shared.database.begin_read()?;
        let meta = read.open_table(tables::META)?;
        Ok(meta.get(tables::META_CONFLICTS_TOTAL)?.map_or(0, |entry| entry.value()))
    }

    /// How many conflicts the journal holds now.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn conflicts_kept(&self) -> Result<u64, StoreError> {
        let read = self.shared.database.begin_read()?;
        Ok(read.open_table(tables::CONFLICTS)?.len()?)
    }

    fn published(&self) -> Published {
        self.shared.published.read().expect("no holder of this lock panics").clone()
    }

    fn publish(&self, heads: Heads, tables: Option<TableIds>) {
        let mut published = self.shared.published.write().expect("no holder of this lock panics");
        published.heads = Arc::new(heads);
        if let Some(tables) = tables {
            published.tables = Arc::new(tables);
        }
    }
}
