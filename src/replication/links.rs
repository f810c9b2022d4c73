//! Which links are up, and which of two links of one pair stays.
//!
//! Where both nodes dial each other, both see two links. Both keep the one that the smaller origin
//! dialled, so that exactly one stays. A link dialled anew by the same side replaces the older one,
//! which is dead and has not noticed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    model::Origin,
    node::{Direction, LastError, Node, PeerHandle, PeerReport},
    protocol::Compression,
};

/// The links of this node.
#[derive(Debug)]
pub(super) struct Links {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    up: HashMap<Origin, Up>,
    handles: HashMap<Origin, Arc<PeerHandle>>,
    next_id: u64,
}

#[derive(Debug)]
struct Up {
    id: u64,
    dialled_by: Origin,
    superseded: CancellationToken,
}

/// What the dialler knows of its peer.
pub(super) struct Peer {
    pub(super) handle: Arc<PeerHandle>,
    pub(super) origin: Option<Origin>,
}

impl Peer {
    /// An error came up before the link did.
    pub(super) fn note(&self, message: String, at_ms: u64) {
        self.handle.update(|report| report.last_error = Some(LastError { message, at_ms }));
    }
}

/// A link that is up; it is taken from the list when this is dropped.
#[derive(Debug)]
pub(super) struct Admitted<'l> {
    links: &'l Links,
    peer: Origin,
    id: u64,
    /// Cancelled when another link of the pair takes over.
    pub(super) superseded: CancellationToken,
}

impl Default for Links {
    fn default() -> Links {
        Links { state: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

impl Links {
    /// Takes up a link to `peer`, opened by `dialled_by`; `None`: another link of the pair stays.
    pub(super) fn admit(&self, peer: Origin, dialled_by: Origin) -> Option<Admitted<'_>> {
        let mut state = self.lock();
        if let Some(up) = state.up.get(&peer) {
            if up.dialled_by < dialled_by {
                return None;
            }
            up.superseded.cancel();
        }
        state.next_id += 1;
        let (id, superseded) = (state.next_id, CancellationToken::new());
        state.up.insert(peer, Up { id, dialled_by, superseded: superseded.clone() });
        drop(state);
        self.changed.send_replace(());
        Some(Admitted { links: self, peer, id, superseded })
    }

    /// The stores to which a link is up.
    pub(super) fn up(&self) -> Vec<Origin> {
        self.lock().up.keys().copied().collect()
    }

    /// Rings when a link came up or ended; the first time at once.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        let mut changes = self.changed.subscribe();
        changes.mark_changed();
        changes
    }

    /// Waits until no link to `peer` is up.
    pub(super) async fn gone(&self, peer: Origin) {
        let mut changed = self.changed.subscribe();
        while self.lock().up.contains_key(&peer) {
            // The sender lives as long as `self`.
            let _ = changed.changed().await;
        }
    }

    /// The report of `peer`: one for each, whoever dialled. `own` is the dialler's, which is
    /// given up where the peer has one already. `compression` is for a peer that only dials us.
    pub(super) fn report_of(
        &self,
        node: &Node,
        peer: Origin,
        own: Option<&Arc<PeerHandle>>,
        compression: Compression,
    ) -> Arc<PeerHandle> {
        let mut state = self.lock();
        match (state.handles.get(&peer), own) {
            (Some(handle), None) => Arc::clone(handle),
            (Some(handle), Some(own)) => {
                if !Arc::ptr_eq(handle, own) {
                    let (address, compression) =
                        own.update(|report| (report.address.clone(), report.compression));
                    handle.update(|report| {
                        report.address = address;
                        report.compression = compression;
                    });
                }
                Arc::clone(handle)
            }
            (None, Some(own)) => {
                // An address that led to another store before: that one is no peer of ours now.
                state.handles.retain(|_, handle| !Arc::ptr_eq(handle, own));
                state.handles.insert(peer, Arc::clone(own));
                Arc::clone(own)
            }
            (None, None) => {
                let report = PeerReport { compression, ..PeerReport::default() };
                let handle = Arc::new(node.reports().add_peer(report));
                state.handles.insert(peer, Arc::clone(&handle));
                handle
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        let mut state = self.links.lock();
        if state.up.get(&self.peer).is_some_and(|up| up.id == self.id) {
            state.up.remove(&self.peer);
            if let Some(handle) = state.handles.get(&self.peer) {
                handle.update(|report| {
                    report.direction = None;
                    report.compressing = false;
                });
            }
        }
        drop(state);
        self.links.changed.send_replace(());
    }
}

/// Who opened a link, as the origins see it.
pub(super) fn dialler(direction: Direction, own: Origin, peer: Origin) -> Origin {
    match direction {
        Direction::Dialled => own,
        Direction::Accepted => peer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(byte: u8) -> Origin {
        Origin::from_bytes([byte; 16])
    }

    /// Both nodes see both links, in either order; they must keep the same one.
    #[test]
    fn of_two_links_both_nodes_keep_the_one_that_the_smaller_origin_dialled() {
        let (small, great) = (origin(1), origin(2));
        for order in [[small, great], [great, small]] {
            for peer in [small, great] {
                let links = Links::default();
                let admitted: Vec<_> = order.iter().map(|by| links.admit(peer, *by)).collect();
                for (by, link) in order.iter().zip(&admitted) {
                    let stays = link.as_ref().is_some_and(|link| !link.superseded.is_cancelled());
                    assert_eq!(stays, *by == small, "{order:?}");
                }
            }
        }
    }

    #[test]
    fn a_link_dialled_anew_replaces_the_dead_one() {
        let links = Links::default();
        let old = links.admit(origin(2), origin(1)).unwrap();
        let new = links.admit(origin(2), origin(1)).unwrap();
        assert!(old.superseded.is_cancelled() && !new.superseded.is_cancelled());
        drop(old);
        assert!(links.lock().up.contains_key(&origin(2)), "the new link is still up");
        drop(new);
        assert!(links.lock().up.is_empty());
    }

    #[tokio::test]
    async fn one_can_wait_for_a_link_to_end() {
        let links = Links::default();
        let link = links.admit(origin(2), origin(1)).unwrap();
        let gone = links.gone(origin(2));
        tokio::pin!(gone);
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(link);
        gone.await;
    }
}
