//! What the receiving half of a link leaves for the sending half: the newest of each kind.
//!
//! Notes are overwritten, never queued, so leaving one never waits.

use std::sync::Mutex;

use tokio::sync::Notify;

use crate::model::{Heads, Origin};

/// Between the two halves of one link.
#[derive(Debug, Default)]
pub(super) struct Notes {
    kept: Mutex<Kept>,
    rung: Notify,
}

/// What was left since the notes were taken last.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The peer has this.
    pub(super) peer_heads: Option<Heads>,
    /// The peer wants rows from here on.
    pub(super) peer_want: Option<(Heads, u64)>,
    /// The peer is linked with these.
    pub(super) peer_linked: Option<Vec<Origin>>,
    /// The peer is to know what we have.
    pub(super) ack_due: bool,
    /// We want rows from here on.
    pub(super) own_want: Option<(Heads, u64)>,
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

    /// Waits until something was left.
    pub(super) async fn left(&self) {
        self.rung.notified().await;
    }
}
