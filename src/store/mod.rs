//! The store: every row this node has, in a log, in memory and in one redb file.
//!
//! ```text
//! request.rs   what is asked of the writer, and what became of it
//! writer.rs    a group of requests becomes one durable commit
//! apply.rs     the one write transaction, for clients' writes and peers' rows alike
//! membership.rs  what it does for the cluster: meeting, admitting, what is owed
//! purge.rs     how it takes dead rows away
//! reconciliation.rs  which rows died elsewhere
//! handover.rs  what is remembered of writes that came from this node's database
//! cluster.rs   how this store stands to the cluster
//! batch.rs     what a commit changes: its record, and the slices of it that go into memory
//! log.rs       what makes it durable: one sequential write, one sync
//! memory.rs    the newest changes, until they are moved
//! flush.rs     moves them into redb, many commits at once, sorted
//! view.rs      memory over redb, one consistent moment
//! snapshot.rs  reads of it: one row, a range
//! positions.rs the order in which two stores are compared
//! changes.rs   everything above some heads
//! journal.rs   the conflicts that were recorded, and what of them is kept
//! compact.rs   the file written anew, as small as it can be
//! rejoin.rs    a new origin for a store that comes back
//! tables.rs    the redb tables: what each key and value is
//! codec.rs     their bytes
//! file.rs      the files: this user's alone, begun again where their creation was cut short
//! ```
//!
//! What the layers above see is narrow: [`Store::open`] gives a [`Writer`], of which there is one,
//! and the store itself, which gives any number of [`Snapshot`]s. A snapshot never waits for the
//! writer, and the writer never for a snapshot.
//!
//! **Why a log.** redb rewrites whole paths of its trees for a small random commit, and the more so
//! the larger the store. A commit is one append instead; redb gets large sorted transactions later.
//!
//! **Invariant.** The heads of a snapshot claim nothing that its rows do not hold: both are published
//! together, after the commit that made them true is durable.

mod apply;
mod batch;
mod changes;
mod cluster;
mod codec;
mod compact;
mod error;
mod file;
mod flush;
mod handover;
mod journal;
mod log;
mod membership;
mod memory;
mod positions;
mod purge;
mod reconciliation;
mod rejoin;
mod request;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;
mod view;
mod writer;

use std::{
    collections::HashMap,
    ops::Bound,
    path::Path,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::{Database, StorageBackend};

pub use changes::Changes;
pub use compact::Compacted;
pub use error::{OpenError, StoreError};
pub use flush::Moving;
pub use handover::Receipt;
pub use journal::{Conflict, Journal, JournalLimits, JournalTotals};
pub use positions::Positions;
pub use reconciliation::{ReconcileError, Reconciliation, Step};
pub use request::{
    Applied, HandOver, HandOverError, HandOverReport, HandedRow, LocalBatch, LocalWrite, MeetError,
    Meeting, MergeReport, Met, Operation, Outcome, Purged, Reconciled, RefusedError, RemoteBatch,
    Request, Rewrite, RewriteBatch, RewriteReport, Written,
};
pub use snapshot::{Scan, ScanRange, Snapshot};
pub use writer::Writer;

use crate::{
    model::{Heads, Hlc, Origin, Role, TableName},
    protocol::Clock,
};
use cluster::Cluster;
use codec::TableId;
use flush::Mover;
use log::{Log, LogConfig};
use memory::Memory;
use tables::Space;
use view::{Base, View};

/// The file's name within the data folder.
pub const STORE_FILE: &str = "lastword.redb";
/// The log's name within the data folder.
pub const LOG_FILE: &str = "lastword.log";
/// The layout of the redb tables that this release reads and writes.
pub const FORMAT_VERSION: u64 = 3;
/// How many tables clients may create.
pub const TABLES_MAX: usize = 10_000;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// The origin that a store gets which is created now.
    pub fresh_origin: Origin,
    /// Starts the checksums of a log that is created now: nobody can guess a sound record.
    pub fresh_log_salt: u32,
    /// The memory for redb's page cache, in bytes.
    pub cache_bytes: usize,
    /// With so many bytes of log the newest changes are moved from memory into redb.
    pub memory_bytes: usize,
    /// The size of a segment of the log, in bytes.
    pub segment_bytes: usize,
    /// So many rows move in one transaction.
    pub move_rows: usize,
    /// Who moves them.
    pub moving: Moving,
    /// Peers as configured: until each was met once, nobody knows what they may have written, and
    /// nothing is purged. A store that is created where there are any is to get what they have: see
    /// [`Store::awaits_first_delta`].
    pub peers: Vec<String>,
    /// What of the conflict journal is kept.
    pub journal: JournalLimits,
}

impl StoreConfig {
    /// With the defaults; what is drawn at random is handed in.
    #[must_use]
    pub fn new(fresh_origin: Origin, fresh_log_salt: u32) -> StoreConfig {
        StoreConfig {
            fresh_origin,
            fresh_log_salt,
            cache_bytes: 256 << 20,
            memory_bytes: 64 << 20,
            segment_bytes: log::SEGMENT_BYTES_DEFAULT,
            move_rows: 8_192,
            moving: Moving::Background,
            peers: Vec::new(),
            journal: JournalLimits::default(),
        }
    }
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
    move_rows: usize,
    journal: JournalLimits,
    awaits_first_delta: AtomicBool,
    published: RwLock<Published>,
}

/// What readers may rely on; replaced after each commit.
#[derive(Clone, Debug)]
struct Published {
    heads: Arc<Heads>,
    tables: Arc<TableIds>,
    cluster: Arc<Cluster>,
    view: View,
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
        // redb holds the lock: whoever has the one file has the others.
        file::remove_where_present(&data.join(compact::COPY_FILE)).map_err(folder_error)?;
        let log_path = data.join(LOG_FILE);
        if !log_path.exists() && !tables::is_new(&database)? {
            return Err(OpenError::LogMissing { path: log_path });
        }
        let log = file::open_log(&log_path).map_err(folder_error)?;
        Store::from_parts(database, Box::new(log), Some(path), config)
    }

    /// Opens a store on storages of the caller's, one for redb and one for the log: memory, or disks
    /// that misbehave.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as [`Store::open`].
    pub fn open_on(
        backend: impl StorageBackend,
        log: impl StorageBackend,
        config: &StoreConfig,
    ) -> Result<(Store, Writer), OpenError> {
        file::empty_where_unfinished(&backend).map_err(StoreError::from)?;
        let database = Database::builder()
            .set_cache_size(config.cache_bytes)
            .create_with_backend(backend)
            .map_err(|source| OpenError::of_database(Path::new("memory"), source))?;
        Store::from_parts(database, Box::new(log), None, config)
    }

    fn from_parts(
        database: Database,
        log: Box<dyn StorageBackend>,
        path: Option<std::path::PathBuf>,
        config: &StoreConfig,
    ) -> Result<(Store, Writer), OpenError> {
        let identity = tables::found(&database, config)?;
        let log_config = LogConfig {
            segment_bytes: config.segment_bytes,
            salt: identity.log_salt,
            boot: identity.boot,
            flushed: identity.flushed,
        };
        let (log, commits) = Log::open(log, &log_config).map_err(StoreError::from)?;
        let memory = Arc::new(Memory::new(config.memory_bytes));
        for (sequence, payload) in &commits {
            batch::replay(&memory, *sequence, payload)?;
        }
        let view = View {
            memories: vec![memory],
            base: Arc::new(Base::of(&database)?),
            sequence: log.next() - 1,
        };

        let mut heads = Heads::new();
        let mut entries = view.range(Space::Heads, Bound::Unbounded, Bound::Unbounded)?;
        while let Some((origin, hlc)) = entries.next()? {
            let origin = origin[..].try_into().map_err(|_| StoreError::Damaged("a head"))?;
            heads.raise(Origin::from_bytes(origin), Hlc::from_bits(view::number_in(&hlc)?));
        }
        let mut names = TableIds::default();
        let mut entries = view.range(Space::Tables, Bound::Unbounded, Bound::Unbounded)?;
        while let Some((id, name)) = entries.next()? {
            let damaged = || StoreError::Damaged("the list of tables");
            let name = std::str::from_utf8(&name).map_err(|_| damaged())?;
            let table = TableName::of_any(name).map_err(|_| damaged())?;
            if names.add(&table).0.to_be_bytes() != id[..] {
                return Err(damaged().into());
            }
        }
        // Stamps of every row count, those above the heads as well: a row that a delta brought
        // before it broke off has been observed.
        let greatest_stamp = changes::greatest_stamp(&view)?;
        let reserved = Hlc::from_bits(view.number(tables::STATE_CEILING)?);
        let ceiling = reserved.max(heads.greatest_open());
        let clock = Clock::new(ceiling.max(greatest_stamp));
        // Nothing will be stamped at or below the clock's reading: the own head may stand there,
        // and it must stand no lower than any that was sent.
        heads.raise(identity.origin, ceiling);

        let awaits_first_delta =
            identity.first_delta_due && view.number(tables::STATE_FIRST_DELTA)? == 0;
        let shared = Arc::new(Shared {
            database,
            origin: identity.origin,
            boot: identity.boot,
            path,
            move_rows: config.move_rows.max(1),
            journal: config.journal,
            awaits_first_delta: AtomicBool::new(awaits_first_delta),
            published: RwLock::new(Published {
                heads: Arc::new(heads),
                cluster: Arc::new(Cluster::load(&view, &names, &config.peers)?),
                tables: Arc::new(names),
                view,
            }),
        });
        let mover = match config.moving {
            Moving::Background => Some(
                Mover::start(Arc::clone(&shared), Arc::clone(log.returned()))
                    .map_err(StoreError::from)?,
            ),
            Moving::Inline => None,
        };
        let store = Store { shared };
        let writer = Writer::new(store.clone(), clock, ceiling, log, mover, config.memory_bytes);
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

    /// Whether this store was created where peers are expected, and has not claimed a delta of
    /// anyone since: it may lack nearly all.
    #[must_use]
    pub fn awaits_first_delta(&self) -> bool {
        self.shared.awaits_first_delta.load(Ordering::Acquire)
    }

    /// What this store has incorporated; every stamp is durable, or below a durable ceiling.
    #[must_use]
    pub fn heads(&self) -> Arc<Heads> {
        self.published().heads
    }

    /// What the store's files take of the disk, in bytes; 0 for one in memory.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        let Some(path) = &self.shared.path else { return 0 };
        file::disk_bytes(path) + file::disk_bytes(&path.with_file_name(LOG_FILE))
    }

    /// The rows as they are now. Costs a few shared pointers; never waits for the disk.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::new(self.published())
    }

    /// How far the rows of the store `sender` came when its last delta broke off; see
    /// [`Receiver`](crate::protocol::Receiver). Empty where there is nothing to resume.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn tentative(&self, sender: Origin) -> Result<Heads, StoreError> {
        match self.published().view.get(Space::Tentative, sender.as_bytes())? {
            None => Ok(Heads::new()),
            Some(value) => {
                Heads::from_bytes(&value).ok_or(StoreError::Damaged("a tentative vector"))
            }
        }
    }

    /// What other stores are known to have, of which files tell.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn carried(&self) -> Result<Vec<(Origin, Heads)>, StoreError> {
        let end = codec::carried_key(Origin::from_bytes([0xff; 16]));
        let (from, to) = (Bound::Included(codec::CARRIED), Bound::Included(&end[..]));
        let mut entries = self.published().view.range(Space::State, from, to)?;
        let mut carried = Vec::new();
        while let Some((key, heads)) = entries.next()? {
            carried.push((codec::split_carried_key(&key)?, codec::carried_value(&heads)?));
        }
        Ok(carried)
    }

    /// The name of the site whose store `origin` is, once it is known here.
    #[must_use]
    pub fn site_of(&self, origin: Origin) -> Option<Arc<str>> {
        let published = self.shared.published.read().expect("no holder of this lock panics");
        let site = &published.cluster.members.get(origin)?.site;
        (!site.is_empty()).then(|| Arc::clone(site))
    }

    /// What the store `origin` is for, once it is known here.
    #[must_use]
    pub fn role_of(&self, origin: Origin) -> Option<Role> {
        let published = self.shared.published.read().expect("no holder of this lock panics");
        published.cluster.members.get(origin).map(|member| member.role)
    }

    fn published(&self) -> Published {
        self.shared.published.read().expect("no holder of this lock panics").clone()
    }

    fn publish(
        &self,
        heads: Heads,
        tables: Option<TableIds>,
        cluster: Option<Cluster>,
        sequence: Option<u64>,
    ) {
        self.shared.change_published(|published| {
            published.heads = Arc::new(heads);
            if let Some(tables) = tables {
                published.tables = Arc::new(tables);
            }
            if let Some(cluster) = cluster {
                published.cluster = Arc::new(cluster);
            }
            if let Some(sequence) = sequence {
                published.view.sequence = sequence;
            }
        });
    }
}

impl Shared {
    fn change_published(&self, change: impl FnOnce(&mut Published)) {
        change(&mut self.published.write().expect("no holder of this lock panics"));
    }
}
