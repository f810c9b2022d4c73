//! What links and mirrors say of themselves, for status.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    model::{Heads, Origin, TableName},
    protocol::Compression,
};

/// Where links and mirrors leave their reports.
#[derive(Debug, Default)]
pub struct Reports {
    peers: Mutex<Vec<Arc<Mutex<PeerReport>>>>,
    mirror: Mutex<Option<Arc<Mutex<MirrorReport>>>>,
    capture: Mutex<Option<Arc<Mutex<CaptureReport>>>>,
}

/// An error and when it came up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// In one line.
    pub message: String,
    /// Milliseconds since the Unix epoch, UTC.
    pub at_ms: u64,
}

/// Who opened a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// This node.
    Dialled,
    /// The peer.
    Accepted,
}

/// How a peer is.
#[derive(Clone, Debug, Default)]
pub struct PeerReport {
    /// As configured; empty for a peer that only dials us.
    pub address: String,
    /// The peer's site, once met.
    pub site: String,
    /// The peer's store, once met.
    pub origin: Option<Origin>,
    /// The link that is up.
    pub direction: Option<Direction>,
    /// What the peer has durably incorporated, as it said itself.
    pub acked: Heads,
    /// What the peer still had to send of its present delta.
    pub remaining_rows: u64,
    /// An estimate of their bytes.
    pub remaining_bytes: u64,
    /// Rows held back because their stamps are too far ahead.
    pub held_rows: u64,
    /// Rows that came in.
    pub rows_received: u64,
    /// Rows that went out.
    pub rows_sent: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// What they took in frames.
    pub wire_bytes_received: u64,
    /// What they took in frames.
    pub wire_bytes_sent: u64,
    /// Whether what goes out is to be compressed, as configured.
    pub compression: Compression,
    /// Whether it is.
    pub compressing: bool,
    /// From our hello to the peer's answer, when the link came up.
    pub round_trip: Option<Duration>,
    /// How often a link came up.
    pub connects: u64,
    /// The peer's wall clock less ours, in milliseconds.
    pub clock_offset_ms: Option<i64>,
    /// The newest error.
    pub last_error: Option<LastError>,
}

/// A rescan of MySQL under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescan {
    /// The table that it is at.
    pub table: TableName,
    /// Rows of that table that were looked at.
    pub rows: u64,
}

/// A MySQL table that will not do, while others go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingTable {
    /// Its name, which may be none of a table of the store.
    pub table: String,
    /// Why, and what to do.
    pub reason: String,
}

/// How the mirror is.
#[derive(Clone, Debug, Default)]
pub struct MirrorReport {
    /// Host, port and database; never a password.
    pub target: String,
    /// A connection is up.
    pub connected: bool,
    /// Rows are being applied, or there is none to apply.
    pub applying: bool,
    /// What MySQL has, as MySQL says; `None`: not heard yet.
    pub position: Option<Heads>,
    /// MySQL's rows are compared with the store's: some may have died without MySQL being told.
    pub rescan: Option<Rescan>,
    /// A table is filled anew from the store, as an operator said.
    pub rebuild: Option<Rescan>,
    /// Column tables that wait for someone to mend them.
    pub waiting_tables: Vec<WaitingTable>,
    /// Rows written to MySQL since the start.
    pub rows_applied: u64,
    /// Rows that stand in `_lastword_rejected`.
    pub rows_rejected: u64,
    /// Why the newest of them was refused.
    pub last_rejected_reason: String,
    /// How often a connection came up.
    pub connects: u64,
    /// The newest error.
    pub last_error: Option<LastError>,
}

/// How the capture of what applications write into MySQL is.
#[derive(Clone, Debug, Default)]
pub struct CaptureReport {
    /// A connection is up.
    pub connected: bool,
    /// Rows that became this site's writes since the start.
    pub rows_captured: u64,
    /// Rows that applications wrote, and that stood in the store like that already.
    pub rows_unchanged: u64,
    /// Of those captured, so many overwrote a row that had not come to MySQL yet.
    pub conflicts: u64,
    /// The tables, in the order of their names.
    pub tables: Vec<CapturedTable>,
    /// The newest error.
    pub last_error: Option<LastError>,
}

/// How a captured table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapturedTable {
    /// Its name.
    pub table: TableName,
    /// Whether its rows flow.
    pub state: CaptureState,
    /// Why they do not; empty: they do.
    pub reason: String,
    /// Rows handed over since the connection came up.
    pub rows: u64,
    /// Entries that wait, 100,000 at most.
    pub pending: u64,
    /// Rows that were there before, so many of which have had an entry made.
    pub taken_in: u64,
    /// About how many there are, while they are being taken in.
    pub rows_about: u64,
}

/// Whether what applications write into a table flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureState {
    /// It does.
    On,
    /// So do the rows that were there before.
    TakingIn,
    /// It waits in its outbox until somebody has acted.
    Waiting,
}

/// A link's own report; it leaves with this handle.
#[derive(Debug)]
pub struct PeerHandle {
    report: Arc<Mutex<PeerReport>>,
}

/// The mirror's own report.
#[derive(Debug)]
pub struct MirrorHandle {
    report: Arc<Mutex<MirrorReport>>,
}

/// The capture's own report.
#[derive(Debug)]
pub struct CaptureHandle {
    report: Arc<Mutex<CaptureReport>>,
}

impl CaptureHandle {
    /// Changes the report.
    pub fn update<T>(&self, change: impl FnOnce(&mut CaptureReport) -> T) -> T {
        change(&mut lock(&self.report))
    }
}

impl Reports {
    /// A place for the capture.
    pub fn add_capture(&self, report: CaptureReport) -> CaptureHandle {
        let report = Arc::new(Mutex::new(report));
        *lock(&self.capture) = Some(Arc::clone(&report));
        CaptureHandle { report }
    }

    /// The capture, where there is one.
    #[must_use]
    pub fn capture(&self) -> Option<CaptureReport> {
        lock(&self.capture).as_ref().map(|report| lock(report).clone())
    }

    /// A place for a new peer.
    pub fn add_peer(&self, report: PeerReport) -> PeerHandle {
        let report = Arc::new(Mutex::new(report));
        lock(&self.peers).push(Arc::clone(&report));
        PeerHandle { report }
    }

    /// A place for the mirror.
    pub fn add_mirror(&self, report: MirrorReport) -> MirrorHandle {
        let report = Arc::new(Mutex::new(report));
        *lock(&self.mirror) = Some(Arc::clone(&report));
        MirrorHandle { report }
    }

    /// All peers, in the order in which they were added; those whose handle is gone left with it.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerReport> {
        let mut peers = lock(&self.peers);
        peers.retain(|report| Arc::strong_count(report) > 1);
        peers.iter().map(|report| lock(report).clone()).collect()
    }

    /// The mirror, where there is one.
    #[must_use]
    pub fn mirror(&self) -> Option<MirrorReport> {
        lock(&self.mirror).as_ref().map(|report| lock(report).clone())
    }
}

impl PeerHandle {
    /// Changes the report.
    pub fn update<T>(&self, change: impl FnOnce(&mut PeerReport) -> T) -> T {
        change(&mut lock(&self.report))
    }
}

impl MirrorHandle {
    /// Changes the report.
    pub fn update<T>(&self, change: impl FnOnce(&mut MirrorReport) -> T) -> T {
        change(&mut lock(&self.report))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}
