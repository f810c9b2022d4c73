//! The node: the handle that every edge holds.
//!
//! ```text
//! opening.rs     the store, its writer, the site's own row of the member list
//! writes.rs      what clients, links and the node itself hand to the writer
//! hand_over.rs   what applications wrote in the site's database
//! adoption.rs    what stood there before
//! writer.rs      many requests, one durable commit, then the bell
//! pending.rs     what a caller waits on
//! role.rs        a replica takes no writes of clients
//! restore.rs     a write that lost a conflict, written again
//! reads.rs       the rows of one moment
//! recent.rs      the newest commits, in memory
//! cluster.rs     the cluster as this node sees it
//! membership.rs  the node as one of a cluster, and what it does by itself
//! follow.rs      how links and mirrors read every change
//! page.rs        some rows of what they read
//! verify.rs      whether a peer has the same rows: verified.rs says, repair.rs puts right what differs
//! answering.rs   the other side of that
//! calls.rs       how a peer is asked: links carry the questions
//! ready.rs       a new site is ready once it has what a peer has
//! mirror_verify.rs whether MySQL has the same rows: the line to the mirror
//! report.rs      what links and mirrors say of themselves, for status
//! mirror_orders.rs  what an operator told the mirror
//! carried.rs     what other sites are known to have, of which files tell
//! status.rs      the state of the whole node at one moment
//! time.rs        the wall clock
//! ```
//!
//! A client's write and a peer's delta enter through the same door: [`Node::write`] and
//! [`Node::submit`] both end in the writer's queue. Reads take a snapshot and never wait for it.

mod adoption;
mod answering;
mod calls;
mod carried;
mod cluster;
mod error;
mod follow;
mod hand_over;
mod membership;
mod mirror_orders;
mod mirror_verify;
mod mutation;
mod opening;
mod page;
mod pending;
mod reads;
mod ready;
mod recent;
mod repair;
mod report;
mod restore;
mod role;
mod status;
mod time;
mod verified;
mod verify;
mod writer;
mod writes;

use std::{
    sync::{
        Arc, Mutex, OnceLock, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

pub use adoption::{
    AdoptCounts, AdoptExample, AdoptKind, AdoptOptions, Adopted, Decision, Stand, TakingIn,
};
pub use answering::{Answering, Patience};
pub use calls::{Answered, Call, Calls, LineEnd};
pub use carried::CarryError;
pub use cluster::{ClusterStatus, MemberError, MemberStatus};
pub use error::{ReadError, WriteError};
pub use follow::{Begun, FollowDelta, Follower, Page};
pub use hand_over::{CaptureCommand, CaptureError, CommandError};
pub use membership::UpkeepConfig;
pub use mirror_orders::{MirrorOrderError, MirrorOrders, MirrorPause, MirrorRebuild};
pub use mirror_verify::{
    MIRROR_DIFFERENCES_MAX, MirrorAsk, MirrorDifference, MirrorLine, MirrorLineEnd,
    MirrorTableVerified, MirrorVerified, MirrorVerifyError, MirrorVerifyOptions,
    MirrorVerifyProgress, MirrorWrong,
};
pub use mutation::{Change, IdKind, Mutation};
pub use opening::NodeConfig;
pub use page::{Part, Rows, Run};
pub use pending::{Merging, Writing};
pub use ready::CatchingUp;
pub use recent::Commit;
pub use report::{
    CaptureHandle, CaptureReport, CaptureState, CapturedTable, Direction, LastError, MirrorHandle,
    MirrorReport, PeerHandle, PeerReport, Reports, Rescan, WaitingTable,
};
pub use restore::RestoreError;
pub use status::{
    Backlog, ConflictsStatus, HeadStatus, MirrorStatus, NodeStatus, OpenHead, PeerStatus,
};
pub use time::{SystemClock, WallClock};
pub use verified::{
    PlaceDiffers, RowState, Verified, VerifyError, VerifyOptions, VerifyProgress, VerifyStage,
};
pub use writes::Committed;

use crate::{
    model::{Heads, Hlc, Origin, Role},
    protocol::SequenceIds,
    store::{Applied, Outcome, Store},
};
use membership::Others;
use mirror_orders::OrderBook;
use recent::Recent;
use writer::Door;

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
    role: Role,
    cluster: String,
    sequence: Option<SequenceIds>,
    expects_peers: bool,
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
    orders: OrderBook,
    calls: Arc<Calls>,
    mirror_line: Arc<MirrorLine>,
    capture_commands: Mutex<Option<mpsc::Sender<CaptureCommand>>>,
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

    /// Where links take the questions for their peers.
    #[must_use]
    pub fn calls(&self) -> &Arc<Calls> {
        &self.shared.calls
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
                Outcome::HandedOver(Ok(report)) => {
                    self.counters.rows_written.fetch_add(report.written, Ordering::Relaxed);
                }
                Outcome::Rewritten(Ok(report)) => {
                    self.counters.rows_written.fetch_add(report.written, Ordering::Relaxed);
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
