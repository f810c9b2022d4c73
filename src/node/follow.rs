//! Following the store: what a link or a mirror reads to pass on every change.
//!
//! A [`Follower`] stands at heads. Each delta it begins holds every row above them in one durable
//! moment of the store, and ends with that moment's heads, where it stands next. Who keeps up gets
//! the newest commits from memory; who does not, reads the change index of a snapshot. After a
//! commit a bell rings; a missed bell costs latency, never data.
//!
//! ```text
//! changed() --> begin() --> page, page, ... --> heads of that moment --> finish()
//! ```
//!
//! Rows above the heads (a delta which a peer has not ended yet) are passed on as well. From memory
//! each is passed on once: what this follower was given before, it is not given again.
//!
//! Who stands below the floor of that moment cannot be told by a delta what died: it gets none, and must
//! be reconciled, from one snapshot that is kept until it has been compared with; or, a mirror, take
//! away by itself what the store has not.
//!
//! **Invariant.** From memory or from the index, a delta goes origin by origin, each in the order
//! of its stamps. Who gets a part of it takes an origin that another follows as through, and goes
//! on behind it when the delta breaks off: rows in the order of the commits would be lost.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Node, Pulse,
    page::{Rows, Run},
    recent::as_they_stand,
};
use crate::{
    model::{Heads, Origin, Version},
    protocol::{Sender, Want},
    store::{Changes, Snapshot, StoreError},
};

/// Up to how many rows are counted to say what remains; beyond, "at least".
const COUNT_ROWS_MAX: u64 = 1_000_000;

/// A consumer of all changes, at its own pace.
#[derive(Debug)]
pub struct Follower {
    node: Node,
    bell: watch::Receiver<Pulse>,
    /// Where whoever is followed for stands.
    sender: Sender,
    /// The newest commit passed on; `None`: begin with a scan.
    sequence: Option<u64>,
    reconciling: Reconciling,
    /// Up to where whoever is followed for holds nothing that died.
    taken_away: Heads,
    /// There is something to begin with, whether the bell rang or not.
    due: bool,
}

/// Whether whoever is followed for asked for a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reconciling {
    No,
    /// The next delta is the first half of it.
    Asked,
    /// That went out; nothing else does before the next Want.
    FirstHalfSent,
}

impl Follower {
    /// Follows `node` from `above` on.
    #[must_use]
    pub fn new(node: &Node, above: Heads) -> Follower {
        Follower {
            node: node.clone(),
            bell: node.bell(),
            sender: Sender::new(above.clone(), above),
            sequence: None,
            reconciling: Reconciling::No,
            taken_away: Heads::new(),
            due: true,
        }
    }

    /// Where the follower stands.
    #[must_use]
    pub fn above(&self) -> &Heads {
        self.sender.cursor()
    }

    /// For [`Delta::want_number`](crate::protocol::Delta::want_number).
    #[must_use]
    pub fn want_number(&self) -> u64 {
        self.sender.want_number()
    }

    /// Waits until something was committed, or the heads moved, since the last delta began.
    /// Returns at once where the first delta after a Want has not begun. `false`: the node has stopped.
    pub async fn changed(&mut self) -> bool {
        if self.due {
            return true;
        }
        // The bell outlives the writer: whoever holds the node holds it.
        tokio::select! {
            biased;
            rung = self.bell.changed() => rung.is_ok(),
            () = self.node.stopped() => false,
        }
    }

    /// As [`changed`](Self::changed), but at most for `limit`; `true` also when the time is up.
    pub async fn changed_within(&mut self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.changed()).await.unwrap_or(true)
    }

    /// Whoever is followed for says that it has this already.
    pub fn known(&mut self, heads: &Heads) {
        self.sender.on_peer_heads(heads);
    }

    /// A peer wants rows above `heads`; see [`Sender::on_want`]. The next delta is read from the
    /// change index; one under way must be dropped.
    pub fn on_want(&mut self, want: Want) {
        let reconcile = want.reconcile;
        self.reconciling = if reconcile { Reconciling::Asked } else { Reconciling::No };
        self.sender.on_want(want.heads, want.number);
        self.sequence = None;
        self.due = true;
    }

    /// Nothing is begun now: waits for the bell.
    pub fn pass(&mut self) {
        self.due = false;
        self.bell.mark_unchanged();
    }

    /// Begins the delta of this moment. Who is far behind waits for the disk: call it where blocking
    /// is allowed.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn begin(&mut self) -> Result<Begun, StoreError> {
        let pulse = self.bell.borrow_and_update().clone();
        self.due = false;
        match self.reconciling {
            Reconciling::No => {}
            Reconciling::Asked => return self.begin_reconciliation().map(Begun::Delta),
            Reconciling::FirstHalfSent => return Ok(Begun::Waiting),
        }
        let recent = self.sequence.and_then(|sequence| self.node.commits_after(sequence));
        // The pulse was read first: the snapshot holds all of its commits, and its floor is that of
        // rows which are gone from it.
        let snapshot = self.node.snapshot();
        if !self.holds_nothing_dead(snapshot.floor()) {
            return Ok(Begun::BelowFloor);
        }
        if let Some(mut commits) = recent {
            // Only up to the pulse: later commits may lie above its heads, and come next time.
            commits.retain(|commit| commit.sequence <= pulse.sequence);
            let runs = as_they_stand(&commits, |row| self.sender.lacks(row));
            let rows_total = runs.iter().map(Run::len).sum::<usize>() as u64;
            let source = Source::Memory(runs.into());
            let delta = FollowDelta::new(pulse.heads, pulse.sequence, source);
            return Ok(Begun::Delta(FollowDelta { rows_total, ..delta }));
        }
        let delta = FollowDelta::of_snapshot(&snapshot, self.above())?;
        // The heads of the pulse: those of the snapshot may claim what comes after it.
        let (heads, sequence) = (pulse.heads, pulse.sequence);
        Ok(Begun::Delta(FollowDelta { heads, sequence, ..delta }))
    }

    /// The first half of a reconciliation: all of one snapshot that lies above.
    fn begin_reconciliation(&self) -> Result<FollowDelta, StoreError> {
        let snapshot = self.node.snapshot();
        let delta = FollowDelta::of_snapshot(&snapshot, self.above())?;
        Ok(FollowDelta { reconciled_with: Some(snapshot), ..delta })
    }

    /// Whoever is followed for has taken away by itself what the store has not, or has dead: up to
    /// `floor`, the store's floor before that began, it need not be told what died.
    pub fn taken_away(&mut self, floor: Heads) {
        self.taken_away = floor;
        self.due = true;
    }

    /// Whether what may be gone below `floor` is told by a delta, or need not be.
    fn holds_nothing_dead(&self, floor: &Heads) -> bool {
        let told = |origin| self.above().get(origin).max(self.taken_away.get(origin));
        floor.iter().all(|(origin, hlc)| hlc <= told(origin))
    }

    /// Whether rows were committed since the last delta, whoever has them.
    #[must_use]
    pub fn is_behind(&self, delta: &FollowDelta) -> bool {
        self.sequence != Some(delta.sequence)
    }

    /// The delta was passed on whole: the follower stands at its heads.
    pub fn finish(&mut self, delta: &FollowDelta) {
        if delta.reconciled_with.is_some() {
            self.reconciling = Reconciling::FirstHalfSent;
            return;
        }
        self.sender.on_sent(&delta.heads);
        self.sequence = Some(delta.sequence);
    }

    /// The delta was left off after some pages: the next one begins behind them.
    pub fn leave_off(&mut self, delta: &FollowDelta) -> Heads {
        self.sender.on_broken_off(&delta.passed);
        self.sequence = None;
        self.due = true;
        delta.passed.clone()
    }
}

/// What a follower can pass on at this moment.
pub enum Begun {
    /// These rows, and with the last of them the heads of the moment.
    Delta(FollowDelta),
    /// Nothing: rows may have died of which a delta would not tell. Reconcile.
    BelowFloor,
    /// Nothing, before a reconciliation has ended.
    Waiting,
}

impl Begun {
    /// The rows, where there is something to pass on.
    #[must_use]
    pub fn delta(self) -> Option<FollowDelta> {
        match self {
            Begun::Delta(delta) => Some(delta),
            Begun::BelowFloor | Begun::Waiting => None,
        }
    }
}

/// The rows of one moment that a follower lacks.
pub struct FollowDelta {
    heads: Arc<Heads>,
    sequence: u64,
    source: Source,
    /// The rows of a scan, until they are counted with its first page.
    uncounted: Option<Box<Changes>>,
    rows_total: u64,
    /// How far the pages came, capped by the heads.
    passed: Heads,
    /// The last row.
    current: Option<Version>,
    bytes_passed: u64,
    rows_passed: u64,
    /// Of the first half of a reconciliation: the snapshot to compare with.
    reconciled_with: Option<Snapshot>,
}

enum Source {
    Memory(VecDeque<Run>),
    Store(Box<Changes>),
}

/// Some rows of a delta.
#[derive(Debug, Default)]
pub struct Page {
    /// The rows.
    pub rows: Rows,
    /// Nothing comes after it.
    pub last: bool,
    /// Rows left, as far as they were counted.
    pub remaining_rows: u64,
    /// An estimate of their bytes.
    pub remaining_bytes: u64,
}

impl FollowDelta {
    fn new(heads: Arc<Heads>, sequence: u64, source: Source) -> FollowDelta {
        FollowDelta {
            heads,
            sequence,
            source,
            uncounted: None,
            rows_total: 0,
            passed: Heads::new(),
            current: None,
            bytes_passed: 0,
            rows_passed: 0,
            reconciled_with: None,
        }
    }

    /// All rows above `above` in this snapshot, from the change index.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn of_snapshot(snapshot: &Snapshot, above: &Heads) -> Result<FollowDelta, StoreError> {
        let source = Source::Store(Box::new(snapshot.changes(above)?));
        let count = snapshot.changes(above)?;
        let delta = FollowDelta::new(Arc::clone(snapshot.heads()), 0, source);
        Ok(FollowDelta { uncounted: Some(Box::new(count)), ..delta })
    }

    /// The same, whose pages do not say what remains: of a scan all rows would be counted for that.
    #[must_use]
    pub fn uncounted(self) -> FollowDelta {
        FollowDelta { uncounted: None, ..self }
    }

    /// Where this is the first half of a reconciliation, the snapshot to compare with.
    #[must_use]
    pub fn reconciled_with(&self) -> Option<&Snapshot> {
        self.reconciled_with.as_ref()
    }

    /// The heads of the moment: what whoever gets the whole delta has incorporated.
    #[must_use]
    pub fn heads(&self) -> &Arc<Heads> {
        &self.heads
    }

    /// How far the pages came, capped by the heads: whoever holds every page so far may go on from
    /// here later, with the same store only.
    #[must_use]
    pub fn passed(&self) -> &Heads {
        &self.passed
    }

    /// Whether the rows come from the change index: many, and read from the disk.
    #[must_use]
    pub fn is_scan(&self) -> bool {
        matches!(self.source, Source::Store(..))
    }

    /// Whether there are rows, all of them in memory and none but of origins for which `of` holds.
    #[must_use]
    pub fn is_only(&self, mut of: impl FnMut(Origin) -> bool) -> bool {
        match &self.source {
            Source::Memory(runs) => {
                let mut rows = runs.iter().flat_map(Run::rows);
                !runs.is_empty() && rows.all(|row| of(row.body.version().origin))
            }
            Source::Store(_) => false,
        }
    }

    /// The next rows, up to about `bytes_max` bytes, at least one where any is left, and at most
    /// `rows_max`. May read the disk: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn page(&mut self, rows_max: usize, bytes_max: usize) -> Result<Page, StoreError> {
        if let Some(mut uncounted) = self.uncounted.take() {
            self.rows_total = uncounted.count_up_to(COUNT_ROWS_MAX)?;
        }
        let rows_max = rows_max.max(1);
        let mut page = match &mut self.source {
            Source::Memory(runs) => page_of_memory(runs, rows_max, bytes_max),
            Source::Store(changes) => page_of_store(changes, rows_max, bytes_max)?,
        };
        self.rows_passed += page.rows.len() as u64;
        self.bytes_passed += page.rows.size_bytes() as u64;
        self.note_passed(&page.rows);
        page.remaining_rows = self.rows_total.saturating_sub(self.rows_passed);
        let row_bytes = self.bytes_passed / self.rows_passed.max(1);
        page.remaining_bytes = page.remaining_rows * row_bytes;
        Ok(page)
    }

    /// A delta goes origin by origin: one that another follows is through.
    fn note_passed(&mut self, rows: &Rows) {
        for row in rows.iter() {
            let version = row.body.version();
            if let Some(before) = self.current.replace(version)
                && before.origin != version.origin
            {
                self.passed.raise(before.origin, self.heads.get(before.origin));
            }
        }
        if let Some(last) = self.current {
            self.passed.raise(last.origin, last.hlc.min(self.heads.get(last.origin)));
        }
    }
}

fn page_of_memory(runs: &mut VecDeque<Run>, rows_max: usize, bytes_max: usize) -> Page {
    let mut rows = Rows::default();
    while rows.len() < rows_max && (rows.is_empty() || rows.size_bytes() < bytes_max) {
        let Some(run) = runs.front_mut() else { break };
        rows.take(run, rows_max, bytes_max);
        if run.is_empty() {
            runs.pop_front();
        }
    }
    Page { rows, last: runs.is_empty(), ..Page::default() }
}

fn page_of_store(
    changes: &mut Changes,
    rows_max: usize,
    bytes_max: usize,
) -> Result<Page, StoreError> {
    let (mut rows, mut bytes, mut last) = (Vec::new(), 0, false);
    while rows.len() < rows_max && (rows.is_empty() || bytes < bytes_max) {
        let Some(row) = changes.next().transpose()? else {
            last = true;
            break;
        };
        bytes += row.size_bytes();
        rows.push(row);
    }
    Ok(Page { rows: rows.into(), last, ..Page::default() })
}
