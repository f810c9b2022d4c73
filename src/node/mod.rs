//! The node: the handle that every edge holds.
//!
//! ```text
//! writer.rs   many requests, one durable commit, then the bell
//! pending.rs  what a caller waits on
//! recent.rs   the newest commits, in memory
//! cluster.rs  the cluster as this node sees it
//! membership.rs  the node as one of a cluster, and what it does by itself
//! follow.rs   how links and mirrors read every change
//! report.rs   what links and mirrors say of themselves, for status
//! status.rs   the state of the whole node at one moment
//! time.rs     the wall clock
//! ```
//!
//! A client's write and a peer's delta enter through the same door: [`Node::write`] and
//! [`Node::submit`] both end in the writer's queue. Reads take a snapshot and never wait for it.

mod cluster;
mod error;
mod follow;
mod membership;
mod mutation;
mod pending;
mod recent;
mod report;
mod status;
mod time;
mod writer;

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{sync::watch, task::coop::consume_budget};
use tokio_util::sync::CancellationToken;

pub use cluster::{ClusterStatus, MemberError, MemberStatus};
pub use error::{ReadError, WriteError};
pub use follow::{Begun, FollowDelta, Follower, Page};
pub use membership::UpkeepConfig;
pub use mutation::{Change, IdKind, Mutation};
pub use pending::{Merging, Writing};
pub use recent::Commit;
pub use report::{
    Direction, LastError, MirrorHandle, MirrorReport, PeerHandle, PeerReport, Reports, Rescan,
};
pub use status::{Backlog, HeadStatus, MirrorStatus, NodeStatus, PeerStatus};
pub use time::{SystemClock, WallClock};

use crate::{
    model::{Heads, Hlc, Origin},
    protocol::{SequenceIds, SystemRow, member_row},
    store::{
        Applied, LocalBatch, LocalWrite, OpenError, Operation, Outcome, RemoteBatch, Request,
        Snapshot, Store, StoreConfig, StoreError, Writer, Written,
    },
};
use membership::Others;
use recent::Recent;
use writer::{Answer, Door};

/// How a node is opened.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The folder of its store.
    pub data: PathBuf,
    /// The cluster it belongs to.
    pub cluster: String,
    /// The name of its site.
    pub site: String,
    /// The site's sequence ids, where configured.
    pub sequence: Option<SequenceIds>,
    /// Whether a client's write creates a table that is not there.
    pub create_tables: bool,
    /// How far a stamp may lead the wall clock, in milliseconds.
    pub drift_bound_ms: u64,
    /// Memory for the newest commits, in bytes.
    pub recent_bytes_max: usize,
    /// Memory for the store's page cache, in bytes.
    pub cache_bytes: usize,
    /// The wall clock.
    pub clock: Arc<dyn WallClock>,
    /// Peers as configured: until each was met once, nothing is purged.
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
            sequence: None,
            create_tables: true,
            drift_bound_ms: crate::protocol::DRIFT_BOUND_MS_DEFAULT,
            recent_bytes_max: 32 << 20,
            cache_bytes: 256 << 20,
            clock: Arc::new(SystemClock),
            peers: Vec::new(),
        }
    }
}

/// A client's writes, durable.
#[derive(Clone, Debug)]
pub struct Committed {
    /// One for each mutation, in order.
    pub results: Vec<Written>,
    /// What a read must have incorporated to see them.
    pub session: Heads,
}

/// The bell: what the store holds now.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// The newest commit; see [`Node::commits_after`].
    pub sequence: u64,
    /// What the store has incorporated with it.
    pub heads: Arc<Heads>,
}

/// A running node. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Node {
    shared: Arc<Shared>,
    door: Door,
    thread: Arc<Mutex<Option<thread::JoinHandle<()>>>>,
    ask_to_stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    site: String,
    cluster: String,
    sequence: Option<SequenceIds>,
    create_tables: bool,
    drift_bound_ms: u64,
    clock: Arc<dyn WallClock>,
    nonce: u64,
    started_ms: u64,
    recent: RwLock<Recent>,
    bell: watch::Sender<Pulse>,
    others: Others,
    /// Merging is shared, reconciling is exclusive.
    turns: Arc<tokio::sync::RwLock<()>>,
    reports: Reports,
    counters: Counters,
    failure: OnceLock<String>,
    stopped: CancellationToken,
}

/// Counts since the start.
#[derive(Debug, Default)]
struct Counters {
    commits: AtomicU64,
    rows_written: AtomicU64,
    rows_merged: AtomicU64,
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
        let pulse = Pulse { sequence: 0, heads: store.heads() };
        let shared = Arc::new(Shared {
            site: config.site,
            cluster: config.cluster,
            sequence: config.sequence,
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

    /// Writes this site's name into the member list, where it does not stand yet.
    async fn announce_itself(&self) -> Result<(), OpenError> {
        let origin = self.origin();
        if self.site_of(origin).as_deref() == Some(self.site()) {
            return Ok(());
        }
        match self.write_system(member_row(origin, self.site())).await {
            Ok(_) => Ok(()),
            // The clock leads: the name comes with a later start; nothing depends on it.
            Err(WriteError::Refused(reason)) => {
                tracing::warn!(%reason, "the member list does not show this site's name yet");
                Ok(())
            }
            Err(error) => Err(OpenError::FirstWrite(error.to_string())),
        }
    }

    /// Writes a row of a system table, as this site's own write.
    async fn write_system(&self, row: SystemRow) -> Result<Committed, WriteError> {
        let SystemRow { table, key, value } = row;
        let operation = Operation::Put { key, value: value.into(), expires_at_ms: None };
        self.commit_local(vec![LocalWrite { table, operation }], true).await
    }

    /// Writes a client's mutations in one atomic, durable commit.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: refused as a whole, or the node stops.
    pub async fn write(&self, mutations: Vec<Mutation>) -> Result<Committed, WriteError> {
        let writes = self.writes_of(mutations);
        self.commit_local(writes, self.shared.create_tables).await
    }

    /// Puts a client's mutations into the writer's queue, in the order of the calls, and gives what
    /// to wait on for their commit: a load need not wait for one commit to begin the next.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn begin_write(&self, mutations: Vec<Mutation>) -> Result<Writing, WriteError> {
        let writes = self.writes_of(mutations);
        let request = self.local_request(writes, self.shared.create_tables);
        let waits = self.door.wait();
        let answer = self.enqueue(request).await?;
        Ok(Writing::new(answer, self.clone(), waits))
    }

    fn writes_of(&self, mutations: Vec<Mutation>) -> Vec<LocalWrite> {
        let now_ms = self.now_ms();
        let write = |Mutation { table, change }: Mutation| LocalWrite {
            table,
            operation: change.into_operation(now_ms),
        };
        mutations.into_iter().map(write).collect()
    }

    async fn commit_local(
        &self,
        writes: Vec<LocalWrite>,
        create_tables: bool,
    ) -> Result<Committed, WriteError> {
        let request = self.local_request(writes, create_tables);
        let waits = self.door.wait();
        if self.ask_to_stop.is_cancelled() {
            return Err(self.stopped_error());
        }
        match self.door.commit_alone(&self.shared, &waits, request) {
            Ok(outcome) => {
                // Who writes in a loop lets others have the thread now and then.
                consume_budget().await;
                pending::committed(outcome?)
            }
            Err(request) => {
                let answer = self.enqueue(request).await?;
                Writing::new(answer, self.clone(), waits).written().await
            }
        }
    }

    fn local_request(&self, writes: Vec<LocalWrite>, create_tables: bool) -> Request {
        Request::Local(LocalBatch {
            writes,
            create_tables,
            sequence: self.shared.sequence,
            drift_bound_ms: self.shared.drift_bound_ms,
        })
    }

    /// Puts a peer's rows into the writer's queue, in the order of the calls, and gives what to wait
    /// on for their durable commit: a link need not wait for one commit to submit to the next.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn submit(&self, batch: RemoteBatch) -> Result<Merging, WriteError> {
        let waits = self.door.wait();
        if self.ask_to_stop.is_cancelled() {
            return Err(self.stopped_error());
        }
        match self.door.commit_alone(&self.shared, &waits, Request::Remote(batch)) {
            Ok(outcome) => {
                consume_budget().await;
                Ok(Merging::done(outcome?, self.clone(), waits))
            }
            Err(request) => {
                let answer = self.enqueue(request).await?;
                Ok(Merging::waiting(answer, self.clone(), waits))
            }
        }
    }

    /// Lets the own head follow the clock, so that peers can tell "nothing new" from "not heard".
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn advance(&self) -> Result<(), WriteError> {
        self.request(Request::Advance).await.map(|_| ())
    }

    async fn request(&self, request: Request) -> Result<Outcome, WriteError> {
        let _waits = self.door.wait();
        let mut answer = self.enqueue(request).await?;
        self.answered(&mut answer).await
    }

    async fn answered(&self, answer: &mut Answer) -> Result<Outcome, WriteError> {
        match answer.await {
            Ok(answer) => answer,
            Err(_) => {
                // Dropped unanswered: the writer ends, and says why when it has.
                self.stopped().await;
                Err(self.stopped_error())
            }
        }
    }

    async fn enqueue(&self, request: Request) -> Result<Answer, WriteError> {
        if self.ask_to_stop.is_cancelled() {
            return Err(self.stopped_error());
        }
        self.door.enqueue(request).await.ok_or_else(|| self.stopped_error())
    }

    fn stopped_error(&self) -> WriteError {
        match self.shared.failure.get() {
            Some(failure) => WriteError::StoreFailed(failure.clone()),
            None => WriteError::ShuttingDown,
        }
    }

    /// The rows as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.store.snapshot()
    }

    /// The rows once they have incorporated `session`, waiting up to `wait_max` for that.
    ///
    /// # Errors
    ///
    /// [`ReadError::NotThereYet`]: this site is still behind.
    pub async fn snapshot_at(
        &self,
        session: &Heads,
        wait_max: Duration,
    ) -> Result<Snapshot, ReadError> {
        if !self.heads().covers(session) {
            let mut bell = self.bell();
            let there = bell.wait_for(|pulse| pulse.heads.covers(session));
            if !matches!(tokio::time::timeout(wait_max, there).await, Ok(Ok(_))) {
                let heads = self.heads();
                let behind_ms = session
                    .iter()
                    .map(|(origin, hlc)| hlc.ms().saturating_sub(heads.get(origin).ms()))
                    .max();
                return Err(ReadError::NotThereYet {
                    behind_ms: behind_ms.unwrap_or_default(),
                    waited_ms: u64::try_from(wait_max.as_millis()).unwrap_or(u64::MAX),
                });
            }
        }
        Ok(self.snapshot())
    }

    /// What this node has durably incorporated.
    #[must_use]
    pub fn heads(&self) -> Arc<Heads> {
        self.shared.store.heads()
    }

    /// Rings after each commit, and when the heads move.
    #[must_use]
    pub fn bell(&self) -> watch::Receiver<Pulse> {
        self.shared.bell.subscribe()
    }

    /// The commits after number `sequence`, from memory; `None` where some are gone from it.
    #[must_use]
    pub fn commits_after(&self, sequence: u64) -> Option<Vec<Arc<Commit>>> {
        self.shared.recent.read().expect("no holder of this lock panics").after(sequence)
    }

    /// How far the rows of `sender` came when its last delta broke off.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn tentative(&self, sender: Origin) -> Result<Heads, StoreError> {
        self.shared.store.tentative(sender)
    }

    /// The UUID of this node's store.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.shared.store.origin()
    }

    /// How often the store was opened.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.shared.store.boot()
    }

    /// Drawn at this start.
    #[must_use]
    pub fn nonce(&self) -> u64 {
        self.shared.nonce
    }

    /// The name of this node's site.
    #[must_use]
    pub fn site(&self) -> &str {
        &self.shared.site
    }

    /// The cluster this node belongs to.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.shared.cluster
    }

    /// The site's sequence ids, where configured.
    #[must_use]
    pub fn sequence(&self) -> Option<SequenceIds> {
        self.shared.sequence
    }

    /// Whether a client's write creates a table that is not there.
    #[must_use]
    pub fn creates_tables(&self) -> bool {
        self.shared.create_tables
    }

    /// How far a stamp may lead the wall clock, in milliseconds.
    #[must_use]
    pub fn drift_bound_ms(&self) -> u64 {
        self.shared.drift_bound_ms
    }

    /// Wall time, in milliseconds since the Unix epoch, UTC.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.shared.clock.now_ms()
    }

    /// The name of the site whose store this is, once this node has heard of it.
    #[must_use]
    pub fn site_of(&self, origin: Origin) -> Option<Arc<str>> {
        self.shared.store.site_of(origin)
    }

    /// Where links and mirrors say how they are.
    #[must_use]
    pub fn reports(&self) -> &Reports {
        &self.shared.reports
    }

    /// Why the node stopped by itself, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.shared.failure.get().map(String::as_str)
    }

    /// Completes once the writer has ended: after [`shutdown`](Self::shutdown) or a failure.
    pub async fn stopped(&self) {
        self.shared.stopped.cancelled().await;
    }

    /// Takes no more writes, commits those that wait, and ends the writer.
    pub async fn shutdown(&self) {
        self.ask_to_stop.cancel();
        self.door.stop().await;
        self.stopped().await;
        let thread = self.thread.lock().expect("no holder of this lock panics").take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Shared {
    /// After a commit: counts it, keeps it for followers, rings the bell where there is news.
    fn announce(&self, applied: Applied) -> Vec<Outcome> {
        let Applied { outcomes, rows, rows_removed, heads, committed } = applied;
        for outcome in &outcomes {
            match outcome {
                Outcome::Local(Ok(written)) => {
                    self.counters.rows_written.fetch_add(written.len() as u64, Ordering::Relaxed);
                }
                Outcome::Remote(report) => {
                    self.counters.rows_merged.fetch_add(report.stored, Ordering::Relaxed);
                }
                _ => {}
            }
        }
        if committed {
            self.counters.commits.fetch_add(1, Ordering::Relaxed);
        }
        let mut recent = self.recent.write().expect("no holder of this lock panics");
        if rows_removed > 0 {
            recent.forget();
        }
        let sequence = if rows.is_empty() && rows_removed == 0 {
            self.bell.borrow().sequence
        } else {
            recent.push(rows, Arc::clone(&heads))
        };
        drop(recent);
        self.bell.send_if_modified(|pulse| {
            let news = pulse.sequence != sequence || pulse.heads != heads;
            *pulse = Pulse { sequence, heads };
            news
        });
        outcomes
    }

    fn fail(&self, error: &str) {
        let _ = self.failure.set(error.to_owned());
    }

    /// The writer has ended, by itself or because its thread panicked.
    fn stopped(&self) {
        if thread::panicking() {
            self.fail("the writer thread panicked: this is a bug in lastword");
        }
        self.stopped.cancel();
    }
}

/// The stamp that a wait of a mirror or peer is measured from.
fn age_ms(hlc: Hlc, now_ms: u64) -> u64 {
    now_ms.saturating_sub(hlc.ms())
}
