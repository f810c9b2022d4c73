//! The sending half of a link: what the other side lacks.
//!
//! The cursor stands at heads: what the peer asked from, then each checkpoint sent on this stream,
//! and whatever the peer itself says it has. It never moves to the highest row sent.

use crate::model::{Heads, Row};

/// The sending half of one link.
#[derive(Clone, Debug)]
pub struct Sender {
    cursor: Heads,
    acked: Heads,
    want_number: u64,
}

impl Sender {
    /// For a peer that has `heads` and wants rows above `want`.
    #[must_use]
    pub fn new(heads: Heads, mut want: Heads) -> Sender {
        want.join(&heads);
        Sender { cursor: want, acked: heads, want_number: 0 }
    }

    /// Where the peer stands: it lacks nothing at or below.
    #[must_use]
    pub fn cursor(&self) -> &Heads {
        &self.cursor
    }

    /// What the peer durably has, as it said itself.
    #[must_use]
    pub fn acked(&self) -> &Heads {
        &self.acked
    }

    /// For [`Delta::want_number`](super::Delta::want_number).
    #[must_use]
    pub fn want_number(&self) -> u64 {
        self.want_number
    }

    /// Whether the peer may lack this row.
    #[must_use]
    pub fn lacks(&self, row: &Row) -> bool {
        !self.cursor.includes(row.body.version())
    }

    /// The checkpoint of a delta went out.
    pub fn on_sent(&mut self, snapshot_heads: &Heads) {
        self.cursor.join(snapshot_heads);
    }

    /// A delta broke off; rows up to `tentative` went out, in order, on this stream.
    pub fn on_broken_off(&mut self, tentative: &Heads) {
        self.cursor.join(tentative);
    }

    /// The peer says what it durably has: an acknowledgement, or the checkpoint of its own delta.
    pub fn on_peer_heads(&mut self, heads: &Heads) {
        self.cursor.join(heads);
        self.acked.join(heads);
    }

    /// The peer wants rows above `heads`, which is not a claim: it may stand where an earlier delta
    /// broke off, or before rows that it held back. A delta under way must be dropped.
    pub fn on_want(&mut self, heads: Heads, number: u64) {
        self.cursor = heads;
        self.want_number = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, BodyParts, Context, Hlc, Key, Origin, TableName, Version};

    fn heads(entries: &[(u8, u64)]) -> Heads {
        entries.iter().map(|&(o, h)| (Origin::from_bytes([o; 16]), Hlc::from_bits(h))).collect()
    }

    fn row(o: u8, hlc: u64) -> Row {
        Row {
            table: TableName::of_any("t").unwrap(),
            key: Key::new("k").unwrap(),
            body: Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(hlc), origin: Origin::from_bytes([o; 16]) },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(b"v"),
            }),
        }
    }

    #[test]
    fn what_the_peer_says_it_has_is_not_sent_back() {
        let mut sender = Sender::new(heads(&[(1, 5)]), heads(&[]));
        assert!(!sender.lacks(&row(1, 5)) && sender.lacks(&row(1, 6)) && sender.lacks(&row(2, 1)));
        sender.on_peer_heads(&heads(&[(2, 3)]));
        assert!(!sender.lacks(&row(2, 3)));
        assert_eq!(sender.acked(), &heads(&[(1, 5), (2, 3)]));
    }

    #[test]
    fn sending_moves_the_cursor_but_acknowledges_nothing() {
        let mut sender = Sender::new(heads(&[]), heads(&[(1, 2)]));
        sender.on_sent(&heads(&[(1, 9)]));
        assert_eq!((sender.cursor(), sender.acked()), (&heads(&[(1, 9)]), &heads(&[])));
    }

    #[test]
    fn a_want_sets_the_cursor_back() {
        let mut sender = Sender::new(heads(&[]), heads(&[]));
        sender.on_sent(&heads(&[(1, 9)]));
        sender.on_want(heads(&[(1, 3)]), 1);
        assert!(sender.lacks(&row(1, 4)) && !sender.lacks(&row(1, 3)));
        assert_eq!(sender.want_number(), 1);
    }
}
