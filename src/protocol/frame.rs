//! What two nodes say to each other, as values; `wire` turns them into proto and back.

use super::{
    Capabilities, Joining,
    compare::{Answer, Ask},
    ranges::Comparison,
};
use crate::model::{Heads, Origin, Row};

/// One message of the exchange.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// The first of each side.
    Hello(Hello),
    /// A part of a delta.
    Delta(Delta),
    /// What the sender of this frame has durably incorporated.
    Ack(Heads),
    /// Send your delta from here on; numbered 1, 2, 3 ... on one stream.
    Want(Want),
    /// A newcomer asks to be taken into the sealed cluster.
    Join,
    /// The answer: the rows that take it in.
    Welcome(Vec<Row>),
    /// What members have durably incorporated, as far as the sender of this frame knows.
    Known(Vec<(Origin, Heads)>),
    /// The receiver stands below the sender's floor: no delta can tell it what died. It should ask for
    /// a reconciliation.
    BelowFloor,
    /// The second half of a reconciliation: a question to the snapshot of its first half.
    ReconcileQuestion(Comparison),
    /// The answer from there.
    ReconcileAnswer(Comparison),
    /// A question of the comparison `id`.
    Compare {
        /// Tells the comparisons of one stream apart.
        id: u64,
        /// The question.
        ask: Ask,
    },
    /// The answer to one.
    Compared {
        /// As asked.
        id: u64,
        /// The answer.
        answer: Answer,
    },
    /// With whom the sender of this frame has a link.
    Linked(Vec<Origin>),
    /// To be answered at once, with this token.
    Ping(u64),
    /// The answer.
    Pong {
        /// As in the Ping.
        token: u64,
        /// The wall clock of who answers, in milliseconds since the Unix epoch, UTC.
        wall_ms: u64,
    },
    /// The stream ends.
    Goodbye(Goodbye),
    /// Of a kind that this node does not know; ignored.
    Unknown,
}

/// Who speaks, and what it has.
#[derive(Clone, Debug, PartialEq)]
pub struct Hello {
    /// [`PROTOCOL_VERSION`](super::PROTOCOL_VERSION) of the speaker.
    pub protocol_version: u32,
    /// The cluster it belongs to.
    pub cluster: String,
    /// The name of its site.
    pub site: String,
    /// Its store.
    pub origin: Origin,
    /// How often that store was started.
    pub boot: u64,
    /// Drawn at this start.
    pub nonce: u64,
    /// What it has durably incorporated.
    pub heads: Heads,
    /// Its sequence ids, where configured.
    pub sequence: Option<SequenceIds>,
    /// Its wall clock, in milliseconds since the Unix epoch, UTC.
    pub wall_ms: u64,
    /// What it can do beyond the protocol.
    pub capabilities: Capabilities,
    /// How it stands to the cluster.
    pub membership: HelloMembership,
}

/// How the store that says hello stands to the cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HelloMembership {
    /// It takes in nobody it does not know.
    pub has_acknowledged: bool,
    /// A sealed cluster may take it in: it never met anyone, or comes back after it was removed.
    pub may_join: bool,
    /// It comes back from a sealed cluster, and is nobody there before it is admitted.
    pub waits_for_admission: bool,
    /// The origin that it had before it came back.
    pub earlier: Option<Origin>,
    /// It is being admitted.
    pub joining: Option<Joining>,
    /// Its own rows of the member tables: who it is, and who admitted it.
    pub rows: Vec<Row>,
    /// The members it knows, those that were removed aside; each with whether it was admitted.
    pub members: Vec<(Origin, bool)>,
}

/// Asks for the other side's delta.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Want {
    /// From where on.
    pub heads: Heads,
    /// This frame's number on its stream, from 1.
    pub number: u64,
    /// Not to go on from there: the delta is the first half of a reconciliation, and the sender keeps
    /// its snapshot to be compared with.
    pub reconcile: bool,
}

/// The sequence ids of a site: `offset`, `offset + increment`, and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceIds {
    /// The site's own, 1 to `increment`.
    pub offset: u64,
    /// The same for all sites of a cluster.
    pub increment: u64,
}

impl SequenceIds {
    /// The least id of the site above `last`; `None` where there is none below 2^64.
    #[must_use]
    pub fn after(self, last: u64) -> Option<u64> {
        let residue = self.offset % self.increment;
        let from = last % self.increment;
        let step = if residue > from { residue - from } else { self.increment - from + residue };
        last.checked_add(step)
    }
}

/// A part of a delta: rows of one durable snapshot of the sender. Who sends may keep its rows in another
/// form than who merges them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta<R = Vec<Row>> {
    /// In the first part, the heads of the snapshot.
    pub snapshot_heads: Option<Heads>,
    /// In the first part of a reconciliation, the floor of the snapshot.
    pub floor: Heads,
    /// Rows, origin by origin, each origin's in the order of their stamps.
    pub rows: R,
    /// With this part the receiver has the whole delta.
    pub last: bool,
    /// Rows left after this part.
    pub remaining_rows: u64,
    /// An estimate of their bytes.
    pub remaining_bytes: u64,
    /// The newest [`Frame::Want`] that the sender follows.
    pub want_number: u64,
}

/// Why a stream ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The kind of reason.
    pub reason: GoodbyeReason,
    /// For people: what happened and what to do.
    pub message: String,
}

/// The kinds of reasons to end a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GoodbyeReason {
    /// The speaker shuts down, or gives no reason this node knows.
    Shutdown,
    /// Another stream of the same pair goes on.
    Duplicate,
    /// The two must not exchange.
    Refused,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_begin_at_the_offset_and_go_on_by_the_increment() {
        let ids = SequenceIds { offset: 3, increment: 10 };
        assert_eq!([0, 2, 3, 12].map(|last| ids.after(last)), [3, 3, 13, 13].map(Some));
        let last = SequenceIds { offset: 10, increment: 10 };
        assert_eq!([0, 9, 10].map(|id| last.after(id)), [10, 10, 20].map(Some));
        let only = SequenceIds { offset: 1, increment: 1 };
        assert_eq!([0, 1].map(|id| only.after(id)), [1, 2].map(Some));
        assert_eq!(only.after(u64::MAX), None);
    }

    proptest! {
        #[test]
        fn the_next_id_is_the_sites_own_and_the_least(
            increment in prop_oneof![1u64..20, Just(u64::MAX), Just(u64::MAX / 2 + 1)],
            offset: u64,
            last: u64,
        ) {
            let ids = SequenceIds { offset: 1 + offset % increment, increment };
            match ids.after(last) {
                Some(id) => {
                    prop_assert!(id > last && id - last <= increment);
                    prop_assert_eq!(id % increment, ids.offset % increment);
                }
                None => prop_assert!(u64::MAX - last < increment),
            }
        }
    }
}
