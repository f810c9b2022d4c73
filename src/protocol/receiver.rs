//! The receiving half of a link: what of a delta is merged, and what may be claimed from it.
//!
//! Only the end of a delta, its checkpoint, raises heads, in the transaction of its last rows. Till
//! then the rows are merged one by one, and the *tentative* vector remembers how far they came, so
//! that a delta which breaks off goes on there. It is used with the same sender only, is capped by
//! that sender's snapshot heads, and is never a claim.
//!
//! ```text
//! part, part, ... --> rows merged, tentative kept      break --> resume from tentative
//! last part       --> rows merged, heads := snapshot's
//! a row stamped beyond now + bound: held back. Nothing is claimed from this stream until the
//! sender has followed a Want, which asks for the delta again from our heads.
//! ```

use crate::model::{Heads, Hlc, Origin, Row};

use super::{Delta, Refusal, handshake::check_own_claim};

/// How far a stamp may lead the wall clock before it is held back, in milliseconds.
pub const DRIFT_BOUND_MS_DEFAULT: u64 = 10_000;

/// What to do with a part of a delta.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Received {
    /// Rows to merge.
    pub rows: Vec<Row>,
    /// Heads to raise in the same transaction.
    pub claim: Option<Heads>,
    /// The tentative vector to keep, in the same transaction; `None`: as it is. A claim ends it.
    pub tentative: Option<Heads>,
    /// Rows held back.
    pub held_rows: u64,
    /// By how much the furthest held row leads the bound, in milliseconds: no use asking earlier.
    pub held_ahead_ms: u64,
    /// The first half of a reconciliation is here: once these rows are merged, compare.
    pub compare: Option<Compare>,
}

/// The moment of the sender that a reconciliation is with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compare {
    /// Its heads: to claim at the end; a row that only this store has is dead where they cover it.
    pub heads: Heads,
    /// Its floor: to take over at the end.
    pub floor: Heads,
}

/// Why a stream must end: the other side breaks the rules of the exchange.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViolationError {
    /// A part without a beginning.
    #[error("the peer sent a delta without its first part")]
    NotBegun,
    /// See [`Refusal::SetBack`].
    #[error(transparent)]
    Refused(#[from] Refusal),
}

/// The receiving half of one link.
#[derive(Debug)]
pub struct Receiver {
    own: Origin,
    drift_bound_ms: u64,
    delta: Option<Open>,
    /// How far the rows of the present and earlier broken deltas came.
    tentative: Heads,
    want_number: u64,
    /// A delta that follows an earlier Want than this has a gap, or builds on one that has.
    want_number_sound: u64,
    /// The Want that asked for a reconciliation which has not ended.
    reconciling: Option<u64>,
}

#[derive(Debug)]
struct Open {
    snapshot_heads: Heads,
    floor: Heads,
    /// The last row of the delta.
    current: Option<(Origin, Hlc)>,
    /// Had a row held back, or builds on a delta that had: claim nothing.
    tainted: bool,
    /// Rows out of order: of no use to resume from.
    unordered: bool,
    /// The tentative vector as the delta found it.
    tentative_before: Heads,
}

impl Receiver {
    /// For the store `own`, which asked for a delta from `want` on.
    #[must_use]
    pub fn new(own: Origin, want: Heads, drift_bound_ms: u64) -> Receiver {
        Receiver {
            own,
            drift_bound_ms,
            delta: None,
            tentative: want,
            want_number: 0,
            want_number_sound: 0,
            reconciling: None,
        }
    }

    /// Takes a part of a delta. `own_head` is the head of this store's own origin, read after the
    /// part came in: the peer may have learnt of newer writes by another way meanwhile.
    ///
    /// # Errors
    ///
    /// [`ViolationError`]: end the stream; nothing of this part is to be merged.
    pub fn on_delta(
        &mut self,
        delta: Delta,
        own_head: Hlc,
        now_ms: u64,
    ) -> Result<Received, ViolationError> {
        if self.reconciling.is_some_and(|number| delta.want_number < number) {
            // It began before the reconciliation, which will bring its rows again.
            self.delta = None;
            return Ok(Received::default());
        }
        if let Some(snapshot_heads) = delta.snapshot_heads {
            check_own_claim(self.own, own_head, &snapshot_heads)?;
            self.delta = Some(Open {
                snapshot_heads,
                floor: delta.floor,
                current: None,
                tainted: delta.want_number < self.want_number_sound,
                unordered: false,
                tentative_before: self.tentative.clone(),
            });
        }
        let open = self.delta.as_mut().ok_or(ViolationError::NotBegun)?;
        for row in &delta.rows {
            let version = row.body.version();
            if version.origin == self.own && version.hlc > own_head {
                return Err(Refusal::SetBack { ours: own_head, theirs: version.hlc }.into());
            }
        }
        let limit = Hlc::at_ms(now_ms.saturating_add(self.drift_bound_ms).saturating_add(1));

        let mut received = Received { rows: delta.rows, ..Received::default() };
        received.rows.retain(|row| {
            let hlc = row.body.version().hlc;
            if hlc < limit {
                return true;
            }
            received.held_rows += 1;
            received.held_ahead_ms = received.held_ahead_ms.max(hlc.ms() - limit.ms() + 1);
            false
        });
        let gone = open.floor.greatest_open();
        if delta.last && self.reconciling.is_some() && gone >= limit {
            // A row that is gone there lies beyond the bound: as if it were held back.
            received.held_rows += 1;
            received.held_ahead_ms = received.held_ahead_ms.max(gone.ms() - limit.ms() + 1);
        }
        if received.held_rows > 0 {
            open.tainted = true;
            self.want_number_sound = self.want_number + 1;
        }
        if self.reconciling.is_some() {
            // Nothing to resume from and nothing to claim, before all has been compared.
            if delta.last {
                // What a row that is gone there had superseded lies below it, and must be known here, too.
                let heads = open.snapshot_heads.clipped(limit, Hlc::at_ms(now_ms).max(gone));
                let compare = Compare { heads, floor: open.floor.clone() };
                received.compare = (!open.tainted).then_some(compare);
                self.delta = None;
                self.reconciling = None;
            }
            return Ok(received);
        }
        let was_unordered = open.unordered;
        for row in &received.rows {
            open.passed(row, &mut self.tentative);
        }
        if delta.last {
            if !open.tainted {
                // To now, not to the bound: an idle peer whose clock is far ahead would keep ours
                // at the bound, where this store's writes are refused, or held back elsewhere.
                let claim = open.snapshot_heads.clipped(limit, Hlc::at_ms(now_ms));
                self.tentative.join(&claim);
                received.claim = Some(claim);
            }
            self.delta = None;
        } else {
            let moved = if open.unordered {
                !was_unordered
            } else {
                !open.tainted && !received.rows.is_empty()
            };
            received.tentative = moved.then(|| self.tentative.clone());
        }
        Ok(received)
    }

    /// Begins to ask for the delta again from `heads`, which this store claims; gives the number
    /// for [`Want`](super::Want).
    pub fn want_again(&mut self, heads: Heads) -> u64 {
        self.want_number += 1;
        self.tentative = heads;
        self.want_number
    }

    /// Deltas that are on their way are of no use any more: the next Want will ask for a reconciliation.
    pub fn expect_reconciliation(&mut self) {
        self.reconciling = Some(self.want_number + 1);
    }

    /// Begins to ask for a reconciliation, from `heads`, which this store claims; gives the number for
    /// [`Want`](super::Want).
    pub fn want_reconciliation(&mut self, heads: Heads) -> u64 {
        let number = self.want_again(heads);
        self.reconciling = Some(number);
        number
    }

    /// Whether rows were held back, so that a Want is due.
    #[must_use]
    pub fn is_tainted(&self) -> bool {
        self.want_number < self.want_number_sound
    }
}

impl Open {
    /// Notes how far a row brings its origin. A new origin says that the one before is through.
    fn passed(&mut self, row: &Row, tentative: &mut Heads) {
        let version = row.body.version();
        if self.tainted || self.unordered {
            return;
        }
        if let Some((origin, hlc)) = self.current {
            if (origin, hlc) >= version.in_index() {
                // The peer breaks the rules: no telling what is through, nor what was.
                self.unordered = true;
                tentative.clone_from(&self.tentative_before);
                return;
            }
            if origin != version.origin {
                tentative.raise(origin, self.snapshot_heads.get(origin));
            }
        }
        self.current = Some(version.in_index());
        let capped = version.hlc.min(self.snapshot_heads.get(version.origin));
        tentative.raise(version.origin, capped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, BodyParts, Context, Key, TableName, Version};

    const NOW_MS: u64 = 1_000_000;

    fn origin(byte: u8) -> Origin {
        Origin::from_bytes([byte; 16])
    }

    fn row(o: u8, hlc: Hlc) -> Row {
        Row {
            table: TableName::of_any("t").unwrap(),
            key: Key::new(hlc.bits().to_be_bytes().to_vec()).unwrap(),
            body: Body::new(&BodyParts {
                version: Version { hlc, origin: origin(o) },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(b"v"),
            }),
        }
    }

    fn heads(entries: &[(u8, u64)]) -> Heads {
        entries.iter().map(|&(o, h)| (origin(o), Hlc::from_bits(h))).collect()
    }

    fn bits(bits: u64) -> Hlc {
        Hlc::from_bits(bits)
    }

    fn receiver() -> Receiver {
        Receiver::new(origin(9), Heads::new(), 1_000)
    }

    fn first(snapshot: Heads, rows: Vec<Row>, last: bool) -> Delta {
        Delta { snapshot_heads: Some(snapshot), rows, last, ..Delta::default() }
    }

    #[test]
    fn only_the_end_of_a_delta_claims() {
        let mut receiver = receiver();
        let part = first(heads(&[(1, 10), (2, 20)]), vec![row(1, bits(4))], false);
        let got = receiver.on_delta(part, Hlc::ZERO, NOW_MS).unwrap();
        assert_eq!((got.rows.len(), got.claim), (1, None));
        assert_eq!(got.tentative, Some(heads(&[(1, 4)])));
        let rest = Delta { rows: vec![row(2, bits(7))], last: true, ..Delta::default() };
        let got = receiver.on_delta(rest, Hlc::ZERO, NOW_MS).unwrap();
        assert_eq!(got.claim, Some(heads(&[(1, 10), (2, 20)])));
    }

    #[test]
    fn a_finished_origin_is_tentatively_through_and_rows_above_the_snapshot_are_capped() {
        let mut receiver = receiver();
        let rows = vec![row(1, bits(4)), row(2, bits(30))];
        let got =
            receiver.on_delta(first(heads(&[(1, 10), (2, 20)]), rows, false), Hlc::ZERO, NOW_MS);
        assert_eq!(got.unwrap().tentative, Some(heads(&[(1, 10), (2, 20)])));
    }

    #[test]
    fn rows_out_of_order_leave_nothing_to_resume_from() {
        for rows in [vec![row(1, bits(4)), row(1, bits(3))], vec![row(2, bits(4)), row(1, bits(5))]]
        {
            let mut receiver = receiver();
            let got = receiver.on_delta(
                first(heads(&[(1, 10), (2, 20)]), rows, false),
                Hlc::ZERO,
                NOW_MS,
            );
            let got = got.unwrap();
            assert_eq!((got.rows.len(), got.tentative), (2, Some(Heads::new())));
        }
    }

    #[test]
    fn disorder_takes_back_what_earlier_parts_allowed_to_skip() {
        let mut receiver = receiver();
        let part = first(heads(&[(1, 10), (2, 20)]), vec![row(1, bits(4)), row(2, bits(6))], false);
        let got = receiver.on_delta(part, Hlc::ZERO, NOW_MS).unwrap();
        assert_eq!(got.tentative, Some(heads(&[(1, 10), (2, 6)])));
        let late = Delta { rows: vec![row(1, bits(5))], ..Delta::default() };
        let got = receiver.on_delta(late, Hlc::ZERO, NOW_MS).unwrap();
        assert_eq!((got.rows.len(), got.tentative), (1, Some(Heads::new())));
        let rest = Delta { rows: vec![row(2, bits(9))], ..Delta::default() };
        assert_eq!(receiver.on_delta(rest, Hlc::ZERO, NOW_MS).unwrap().tentative, None);
        let end = Delta { last: true, ..Delta::default() };
        let claim = receiver.on_delta(end, Hlc::ZERO, NOW_MS).unwrap().claim;
        assert_eq!(claim, Some(heads(&[(1, 10), (2, 20)])));
    }

    #[test]
    fn a_part_without_a_beginning_ends_the_stream() {
        let part = Delta { last: true, ..Delta::default() };
        assert_eq!(receiver().on_delta(part, Hlc::ZERO, NOW_MS), Err(ViolationError::NotBegun));
    }

    #[test]
    fn a_row_beyond_the_bound_is_held_and_nothing_is_claimed_until_it_comes_again() {
        let mut receiver = receiver();
        let far = Hlc::at_ms(NOW_MS + 5_000);
        let early = first(heads(&[(1, 10), (2, 20)]), vec![row(1, far), row(2, bits(7))], true);
        let got = receiver.on_delta(early, Hlc::ZERO, NOW_MS).unwrap();
        assert_eq!((got.rows.len(), got.held_rows, got.claim.clone()), (1, 1, None));
        assert!(got.held_ahead_ms >= 4_000 && got.held_ahead_ms <= 4_001, "{got:?}");

        // Later deltas of the same stream build on the one with the gap.
        let later = first(heads(&[(1, 11), (2, 21)]), vec![], true);
        assert_eq!(receiver.on_delta(later.clone(), Hlc::ZERO, NOW_MS).unwrap().claim, None);
        let number = receiver.want_again(Heads::new());
        // Sent before the Want arrived.
        assert_eq!(receiver.on_delta(later, Hlc::ZERO, NOW_MS).unwrap().claim, None);
        let again = Delta {
            want_number: number,
            ..first(heads(&[(1, 12), (2, 22)]), vec![row(1, far)], true)
        };
        let got = receiver.on_delta(again, Hlc::ZERO, NOW_MS + 5_000).unwrap();
        assert_eq!(got.claim, Some(heads(&[(1, 12), (2, 22)])));
        assert!(!receiver.is_tainted());
    }

    #[test]
    fn behind_a_held_row_nothing_may_be_skipped() {
        let mut receiver = receiver();
        let far = Hlc::at_ms(NOW_MS + 5_000);
        let snapshot = [(origin(1), far), (origin(2), bits(20))].into_iter().collect();
        let part = first(snapshot, vec![row(1, bits(4))], false);
        let before = receiver.on_delta(part, Hlc::ZERO, NOW_MS).unwrap().tentative;
        assert_eq!(before, Some(heads(&[(1, 4)])));
        for rows in [vec![row(1, far), row(2, bits(7))], vec![row(2, bits(9))]] {
            let part = Delta { rows, ..Delta::default() };
            assert_eq!(receiver.on_delta(part, Hlc::ZERO, NOW_MS).unwrap().tentative, None);
        }
        // Nor by a delta that goes on behind this one.
        let next = first(heads(&[(2, 21)]), vec![row(2, bits(21))], false);
        assert_eq!(receiver.on_delta(next, Hlc::ZERO, NOW_MS).unwrap().tentative, None);
    }

    #[test]
    fn rows_held_twice_need_a_second_want() {
        let mut receiver = receiver();
        let far = Hlc::at_ms(NOW_MS + 5_000);
        let early = first(heads(&[(1, 10)]), vec![row(1, far)], true);
        receiver.on_delta(early.clone(), Hlc::ZERO, NOW_MS).unwrap();
        let want_number = receiver.want_again(Heads::new());
        receiver.on_delta(Delta { want_number, ..early }, Hlc::ZERO, NOW_MS).unwrap();
        assert!(receiver.is_tainted());
        let next = Delta { want_number, ..first(heads(&[(1, 11)]), vec![], true) };
        assert_eq!(receiver.on_delta(next, Hlc::ZERO, NOW_MS).unwrap().claim, None);
    }

    #[test]
    fn claims_beyond_the_bound_are_clipped() {
        let mut receiver = receiver();
        let within = Hlc::at_ms(NOW_MS + 1_000);
        let far = bits(Hlc::MAX.bits() - 1);
        let snapshot = [(origin(1), far), (origin(2), within), (origin(3), Hlc::MAX)];
        let snapshot = snapshot.into_iter().collect();
        let far = first(snapshot, vec![], true);
        let claim = receiver.on_delta(far, Hlc::ZERO, NOW_MS).unwrap().claim.unwrap();
        // Not to the bound: the clock that follows a claim must not come to stand there.
        assert_eq!(claim.get(origin(1)), Hlc::at_ms(NOW_MS));
        assert_eq!(claim.get(origin(2)), within);
        assert_eq!(claim.get(origin(3)), Hlc::MAX, "what is closed stays closed");
    }

    #[test]
    fn a_peer_that_knows_more_of_us_than_we_do_is_an_alarm() {
        let delta = first(heads(&[(9, 5)]), vec![], true);
        assert_eq!(receiver().on_delta(delta.clone(), bits(5), NOW_MS).unwrap().held_rows, 0);
        assert!(matches!(
            receiver().on_delta(delta, bits(4), NOW_MS),
            Err(ViolationError::Refused(Refusal::SetBack { .. }))
        ));
        let of_ours = first(heads(&[]), vec![row(9, bits(5))], false);
        assert!(matches!(
            receiver().on_delta(of_ours, bits(4), NOW_MS),
            Err(ViolationError::Refused(Refusal::SetBack { .. }))
        ));
    }
}
