//! The state of the whole node at one moment; `api` sends it, the status page shows it.

use std::sync::atomic::Ordering;

use super::{CatchingUp, ClusterStatus, MirrorOrders, MirrorReport, Node, PeerReport, age_ms};
use crate::{
    model::{Heads, Hlc, Origin, Role},
    store::{Snapshot, StoreError},
};

/// Up to how many rows are counted for a backlog; beyond, "at least so many".
const BACKLOG_ROWS_MAX: u64 = 1_000_000;
/// Of so many rows the bytes are added up; the rest is estimated from them.
const BACKLOG_ROWS_MEASURED: usize = 1_000;

/// The node itself.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its cluster.
    pub cluster: String,
    /// Its site.
    pub site: String,
    /// What it is for.
    pub role: Role,
    /// Its store.
    pub origin: Origin,
    /// When it was started, in milliseconds since the Unix epoch, UTC.
    pub started_ms: u64,
    /// Wall time now, likewise.
    pub now_ms: u64,
    /// Why it is not ready yet, where it is new.
    pub catching_up: Option<CatchingUp>,
    /// Rows held, dead ones included.
    pub rows: u64,
    /// The size of the store's file.
    pub store_bytes: u64,
    /// What it has incorporated.
    pub heads: Vec<HeadStatus>,
    /// The same as one word.
    pub heads_text: String,
    /// The conflict journal.
    pub conflicts: ConflictsStatus,
    /// Rows merged from peers since the start.
    pub rows_merged: u64,
    /// Rows of clients since the start.
    pub rows_written: u64,
    /// Durable commits since the start.
    pub commits: u64,
    /// Rows held back now because their stamps are too far ahead.
    pub rows_held_back: u64,
    /// Why clients' writes are refused; empty: they are not.
    pub writes_refused_reason: String,
    /// The links, and the peers that should have one.
    pub peers: Vec<PeerStatus>,
    /// The mirror, where there is one.
    pub mirror: Option<MirrorStatus>,
    /// The members, and for whom dead rows wait.
    pub membership: ClusterStatus,
}

/// The conflict journal in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ConflictsStatus {
    /// Conflicts ever recorded here.
    pub recorded: u64,
    /// Those that the journal holds now.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Wall time less the stamp of the oldest loser held.
    pub oldest_age_seconds: Option<f64>,
}

/// Up to where one origin's writes are here.
#[derive(Clone, Debug)]
pub struct HeadStatus {
    /// The origin.
    pub origin: Origin,
    /// Its site, once heard of.
    pub site: String,
    /// Up to here; `None`: it is closed, a removed store of whose writes none is missing.
    pub head: Option<OpenHead>,
}

/// The head of an origin that may go on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenHead {
    /// Up to here.
    pub hlc: Hlc,
    /// Wall time less the head's.
    pub age_seconds: f64,
}

impl OpenHead {
    /// `None`: the origin is closed.
    fn of(hlc: Hlc, now_ms: u64) -> Option<OpenHead> {
        let head = OpenHead { hlc, age_seconds: seconds(age_ms(hlc, now_ms)) };
        (!hlc.is_closed()).then_some(head)
    }
}

/// What someone has not got yet.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    /// The age of the oldest of it.
    pub seconds: f64,
    /// So many rows, a million at most.
    pub rows: u64,
    /// So many bytes, an estimate.
    pub bytes: u64,
}

/// A peer: what its link says of it, and what follows from the store.
#[derive(Clone, Debug)]
pub struct PeerStatus {
    /// As the link left it.
    pub report: PeerReport,
    /// Nothing received is held back.
    pub applying: bool,
    /// Wall time less our head of the peer's store; `None`: never met, or closed.
    pub behind_seconds: Option<f64>,
    /// What we hold that the peer has not acknowledged.
    pub peer_behind: Backlog,
}

/// The mirror: what it says of itself, and what follows from the store.
#[derive(Clone, Debug)]
pub struct MirrorStatus {
    /// As the mirror left it.
    pub report: MirrorReport,
    /// What MySQL has not got yet.
    pub behind: Backlog,
    /// What an operator told it.
    pub orders: MirrorOrders,
}

impl Node {
    /// Why clients' writes are refused now; `None`: they are not. Takes no time.
    #[must_use]
    pub fn writes_refused_reason(&self) -> Option<String> {
        if let Some(failure) = self.failure() {
            return Some(failure.to_owned());
        }
        if self.ask_to_stop.is_cancelled() {
            return Some("the node is shutting down".to_owned());
        }
        if let Err(replica) = self.check_role() {
            return Some(replica.to_string());
        }
        if let Some(refused) = self.snapshot().refuses_writes(self.origin()) {
            return Some(refused.to_string());
        }
        let bound_ms = self.drift_bound_ms();
        let ahead_ms = self.heads().get(self.origin()).ms().saturating_sub(self.now_ms());
        (ahead_ms > bound_ms).then(|| {
            format!(
                "this node's stamps lead its wall clock by {ahead_ms} ms, more than the bound of \
                 {bound_ms} ms"
            )
        })
    }

    /// The state at this moment. Reads the disk: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn status(&self) -> Result<NodeStatus, StoreError> {
        let shared = &self.shared;
        let now_ms = self.now_ms();
        let snapshot = self.snapshot();
        let heads = snapshot.heads();
        let site_of = |origin| self.site_of(origin).map_or_else(String::new, |s| s.to_string());
        let reports = self.reports();

        let mut peers = Vec::new();
        let mut rows_held_back = 0;
        for peer in reports.peers() {
            rows_held_back += peer.held_rows;
            let head = peer.origin.map(|origin| heads.get(origin)).filter(|hlc| *hlc > Hlc::ZERO);
            let head = head.and_then(|hlc| OpenHead::of(hlc, now_ms));
            let peer_behind = match peer.origin {
                Some(_) => backlog(&snapshot, &peer.acked, now_ms)?,
                None => Backlog::default(),
            };
            peers.push(PeerStatus {
                applying: peer.direction.is_some() && peer.held_rows == 0,
                behind_seconds: head.map(|head| head.age_seconds),
                peer_behind,
                report: peer,
            });
        }

        let mirror = match reports.mirror() {
            None => None,
            Some(report) => {
                let position = report.position.clone().unwrap_or_default();
                let orders = self.mirror_orders().borrow().clone();
                Some(MirrorStatus {
                    behind: backlog(&snapshot, &position, now_ms)?,
                    orders,
                    report,
                })
            }
        };

        Ok(NodeStatus {
            cluster: shared.cluster.clone(),
            site: shared.site.clone(),
            role: self.role(),
            origin: self.origin(),
            started_ms: shared.started_ms,
            now_ms,
            catching_up: self.catching_up(),
            rows: snapshot.rows()?,
            store_bytes: shared.store.file_bytes(),
            heads: heads
                .iter()
                .map(|(origin, hlc)| HeadStatus {
                    origin,
                    site: site_of(origin),
                    head: OpenHead::of(hlc, now_ms),
                })
                .collect(),
            heads_text: heads.to_text(),
            conflicts: self.conflicts_status(now_ms)?,
            rows_merged: shared.counters.rows_merged.load(Ordering::Relaxed),
            rows_written: shared.counters.rows_written.load(Ordering::Relaxed),
            commits: shared.counters.commits.load(Ordering::Relaxed),
            rows_held_back,
            writes_refused_reason: self.writes_refused_reason().unwrap_or_default(),
            peers,
            mirror,
            membership: self.cluster_status()?,
        })
    }

    fn conflicts_status(&self, now_ms: u64) -> Result<ConflictsStatus, StoreError> {
        let totals = self.shared.store.journal_totals()?;
        Ok(ConflictsStatus {
            recorded: totals.recorded,
            kept: totals.kept,
            kept_bytes: totals.kept_bytes,
            oldest_age_seconds: totals.oldest.map(|hlc| seconds(age_ms(hlc, now_ms))),
        })
    }
}

/// The rows above `above`: how many, how large, how old.
fn backlog(snapshot: &Snapshot, above: &Heads, now_ms: u64) -> Result<Backlog, StoreError> {
    let Some(oldest) = snapshot.oldest_change(above)? else {
        return Ok(Backlog::default());
    };
    let rows = snapshot.count_changes(above, BACKLOG_ROWS_MAX)?;
    let (mut measured, mut bytes) = (0u64, 0u64);
    for row in snapshot.changes(above)?.take(BACKLOG_ROWS_MEASURED) {
        measured += 1;
        bytes += row?.size_bytes() as u64;
    }
    Ok(Backlog {
        seconds: seconds(age_ms(oldest, now_ms)),
        rows,
        bytes: bytes * rows / measured.max(1),
    })
}

#[expect(clippy::cast_precision_loss, reason = "an age for people")]
pub(super) fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}
