//! Opening a node: the store, its writer, and the site's own row of the member list.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, RwLock},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{
    Counters, Node, Pulse, Shared, SystemClock, WallClock, WriteError, membership::Others,
    mirror_orders::OrderBook, recent::Recent, report::Reports, writer,
};
use crate::{
    model::{Origin, Role},
    protocol::{SequenceIds, member_row},
    store::{JournalLimits, OpenError, Store, StoreConfig, Writer},
};

/// How a node is opened.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The folder of its store.
    pub data: PathBuf,
    /// The cluster it belongs to.
    pub cluster: String,
    /// The name of its site.
    pub site: String,
    /// What it is for.
    pub role: Role,
    /// The site's sequence ids, where configured.
    pub sequence: Option<SequenceIds>,
    /// Whether a client's write creates a table that is not there.
    pub create_tables: bool,
    /// How far a stamp may lead the wall clock, in milliseconds.
    pub drift_bound_ms: u64,
    /// Memory for the newest commits and what links make of them, in bytes.
    pub recent_bytes_max: usize,
    /// Memory for the store's page cache, in bytes.
    pub cache_bytes: usize,
    /// What of the conflict journal is kept.
    pub journal: JournalLimits,
    /// The wall clock.
    pub clock: Arc<dyn WallClock>,
    /// Peers as configured: until each was met once, nothing is purged; and a store that is created
    /// now is not ready before it has the rows of one of them.
    pub peers: Vec<String>,
}

impl NodeConfig {
    /// With the defaults, for `site` and the folder `data`.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>, site: &str) -> NodeConfig {
        NodeConfig {
            data: data.into(),
            cluster: "lastword".into(),
            site: site.into(),
            role: Role::Site,
            sequence: None,
            create_tables: true,
            drift_bound_ms: crate::protocol::DRIFT_BOUND_MS_DEFAULT,
            recent_bytes_max: 32 << 20,
            cache_bytes: 256 << 20,
            journal: JournalLimits::default(),
            clock: Arc::new(SystemClock),
            peers: Vec::new(),
        }
    }
}

impl Node {
    /// Opens the store and starts the writer.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the folder, another process, or the file; the text says which and what to do.
    pub async fn open(config: NodeConfig) -> Result<Node, OpenError> {
        let fresh_origin = Origin::from_bytes(*uuid::Uuid::new_v4().as_bytes());
        let store_config = StoreConfig {
            cache_bytes: config.cache_bytes,
            peers: config.peers.clone(),
            journal: config.journal,
            ..StoreConfig::new(fresh_origin, rand::random())
        };
        let data = config.data.clone();
        let opened = tokio::task::spawn_blocking(move || Store::open(&data, &store_config))
            .await
            .expect("opening a store does not panic")?;
        Node::start(config, opened).await
    }

    /// Starts the writer of a store that is open already: on a disk that misbehaves, say.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as [`Node::open`].
    pub async fn start(
        config: NodeConfig,
        (store, writer): (Store, Writer),
    ) -> Result<Node, OpenError> {
        let orders = OrderBook::open(&config.data)
            .map_err(|source| OpenError::Folder { path: config.data.clone(), source })?;
        let pulse = Pulse { sequence: 0, heads: store.heads() };
        let shared = Arc::new(Shared {
            site: config.site,
            role: config.role,
            cluster: config.cluster,
            sequence: config.sequence,
            expects_peers: !config.peers.is_empty(),
            create_tables: config.create_tables,
            drift_bound_ms: config.drift_bound_ms,
            nonce: rand::random(),
            started_ms: config.clock.now_ms(),
            clock: config.clock,
            recent: RwLock::new(Recent::new(config.recent_bytes_max)),
            bell: watch::Sender::new(pulse),
            others: Others::default(),
            turns: Arc::default(),
            reports: Reports::default(),
            orders,
            calls: Arc::default(),
            mirror_line: Arc::default(),
            capture_commands: std::sync::Mutex::default(),
            counters: Counters::default(),
            failure: OnceLock::new(),
            stopped: CancellationToken::new(),
            store,
        });
        let (door, thread) = writer::start(writer, Arc::clone(&shared))
            .map_err(|source| OpenError::Folder { path: config.data, source })?;
        let node = Node {
            shared,
            door,
            thread: Arc::new(Mutex::new(Some(thread))),
            ask_to_stop: CancellationToken::new(),
        };
        node.announce_itself().await?;
        Ok(node)
    }

    /// Writes this site's name and role into the member list, where they do not stand yet.
    async fn announce_itself(&self) -> Result<(), OpenError> {
        let origin = self.origin();
        let role = self.shared.store.role_of(origin);
        if self.site_of(origin).as_deref() == Some(self.site()) && role == Some(self.role()) {
            return Ok(());
        }
        match self.write_system(member_row(origin, self.site(), self.role())).await {
            Ok(_) => Ok(()),
            // The clock leads: the name comes with a later start; nothing depends on it.
            Err(WriteError::Refused(reason)) => {
                tracing::warn!(%reason, "the member list does not show this site's name yet");
                Ok(())
            }
            Err(error) => Err(OpenError::FirstWrite(error.to_string())),
        }
    }
}
