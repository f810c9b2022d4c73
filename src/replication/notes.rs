//! What the receiving half of a link leaves for the sending half: the newest of each kind.
//!
//! Notes are overwritten, never queued, so leaving one never waits.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::{
    model::{Heads, Origin},
    protocol::{Frame, Want},
    store::Snapshot,
};

/// Between the two halves of one link.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Mutex<Kept>,
    rung: Notify,
    /// What the peer reconciles with: the sending half took it, the receiving half answers from it.
    reconciled_with: Mutex<Option<Snapshot>>,
    /// The newest Want that was answered with "below floor".
    refused: AtomicU64,
}

/// What was left since the notes were taken last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The peer has this.
    pub(super) peer_heads: Option<Heads>,
    /// The peer wants rows from here on.
    pub(super) peer_want: Option<Want>,
    /// The peer is linked with these.
    pub(super) peer_linked: Option<Vec<Origin>>,
    /// The peer is to know what we have.
    pub(super) ack_due: bool,
    /// The token of a Ping that is to be answered.
    pub(super) pong_due: Option<u64>,
    /// We want rows from here on.
    pub(super) own_want: Option<Want>,
    /// A question of ours in a reconciliation, or the answer to one of the peer's.
    pub(super) comparison: Option<Frame>,
}

impl Notes {
    /// The peer has this much.
    pub(super) fn peer_has(&self, more: &Heads) {
        self.leave(|kept| match &mut kept.peer_heads {
            Some(heads) => {
                heads.join(more);
            }
            None => kept.peer_heads = Some(more.clone()),
        });
    }

    /// Leaves a note, and wakes who waits for one.
    pub(super) fn leave(&self, note: impl FnOnce(&mut Kept)) {
        note(&mut self.kept.lock().expect("no holder of this lock panics"));
        self.rung.notify_one();
    }

    /// Takes all notes.
    pub(super) fn take(&self) -> Kept {
        std::mem::take(&mut *self.kept.lock().expect("no holder of this lock panics"))
    }

    /// Takes what the peer has, and leaves the rest.
    pub(super) fn take_peer_heads(&self) -> Option<Heads> {
        self.kept.lock().expect("no holder of this lock panics").peer_heads.take()
    }

    /// Keeps the snapshot that the peer reconciles with; `None`: it is through.
    pub(super) fn keep_snapshot(&self, snapshot: Option<Snapshot>) {
        *self.reconciled_with.lock().expect("no holder of this lock panics") = snapshot;
    }

    /// The snapshot that the peer reconciles with.
    pub(super) fn kept_snapshot(&self) -> Option<Snapshot> {
        self.reconciled_with.lock().expect("no holder of this lock panics").clone()
    }

    /// Notes that a Want stands below the floor; says whether that is news.
    pub(super) fn is_first_refusal(&self, want_number: u64) -> bool {
        self.refused.swap(want_number, Ordering::Relaxed) != want_number
    }

    /// Waits until something was left.
    pub(super) async fn left(&self) {
        self.rung.notified().await;
    }
}
