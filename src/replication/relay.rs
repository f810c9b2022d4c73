//! When to pass on what another site wrote.
//!
//! In a mesh a node hears of a write from its writer. If each passed it on at once, it would cross most
//! links twice, for nothing. So nodes tell each other with whom they are linked; and a delta that
//! holds nothing but writes of sites with which the peer is linked waits for the next heartbeat.
//! Meanwhile the peer is told that they are here, and mostly says that it has them, too.
//!
//! ```text
//! A writes --> B and C hear of it --> B to C: "I have it" --> nothing is left to send
//!                                     C to B: "I have it"
//! ```
//!
//! It is a matter of time alone: what a delta holds and what is claimed with it is as ever. In a chain or
//! a star nothing waits. Where a peer's link is up and brings nothing, rows are up to a beat late.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    model::{Heads, Origin},
    node::FollowDelta,
};

/// What a link's sending half knows of the peer's other links.
#[derive(Debug)]
pub(super) struct Relay {
    own: Origin,
    /// The peer's links, but that to this node.
    linked: BTreeSet<Origin>,
    told: Arc<Heads>,
}

impl Relay {
    /// For a link of the store `own`.
    pub(super) fn new(own: Origin) -> Relay {
        Relay { own, linked: BTreeSet::new(), told: Arc::default() }
    }

    /// The peer says with whom it is linked.
    pub(super) fn peer_is_linked(&mut self, origins: Vec<Origin>) {
        self.linked = origins.into_iter().filter(|origin| *origin != self.own).collect();
    }

    /// Whether the peer hears of all that is in the delta from its writers.
    pub(super) fn may_wait(&self, delta: &FollowDelta) -> bool {
        !self.linked.is_empty() && delta.is_only(|origin| self.linked.contains(&origin))
    }

    /// Whether the peer may wait to hear that these are here, as this node waits for it: where it has
    /// other links, `rows` came with them, and it was not told yet. Counts as told then.
    pub(super) fn is_awaited(&mut self, rows: bool, heads: &Arc<Heads>) -> bool {
        let is_awaited = rows && !self.linked.is_empty() && !self.told.covers(heads);
        if is_awaited {
            self.has_told(heads);
        }
        is_awaited
    }

    /// The peer was told that these are here.
    pub(super) fn has_told(&mut self, heads: &Arc<Heads>) {
        self.told = Arc::clone(heads);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Hlc;

    fn heads(bits: u64) -> Arc<Heads> {
        Arc::new([(Origin::from_bytes([2; 16]), Hlc::from_bits(bits))].into_iter().collect())
    }

    #[test]
    fn a_peer_with_other_links_is_told_once_what_it_may_wait_for() {
        let own = Origin::from_bytes([1; 16]);
        let mut relay = Relay::new(own);
        assert!(!relay.is_awaited(true, &heads(5)), "no other link is known of");
        relay.peer_is_linked(vec![own]);
        assert!(!relay.is_awaited(true, &heads(5)), "it has no other link");
        relay.peer_is_linked(vec![own, Origin::from_bytes([2; 16])]);
        assert!(!relay.is_awaited(false, &heads(5)), "no rows came");
        assert!(relay.is_awaited(true, &heads(5)));
        assert!(!relay.is_awaited(true, &heads(5)), "it was told");
        relay.has_told(&heads(7));
        assert!(!relay.is_awaited(true, &heads(6)));
        assert!(relay.is_awaited(true, &heads(8)));
        relay.peer_is_linked(vec![own]);
        assert!(!relay.is_awaited(true, &heads(9)), "the other link is gone");
    }
}
