//! Two versions of one row meet: which one stands, and whether a write was lost by it.
//!
//! The greater [`Version`](super::Version) stands, everywhere. Whether the other one was *followed*
//! (its writer's world was known to the winner's writer) or *overtaken* unseen is read off the
//! winner's `seen` and `context`: only the latter is a conflict, and is recorded.
//!
//! What a store knows of a key can be more than the winner knew: the losers it has met. That
//! [`Knowledge`] is kept beside the row, does not travel with it, and goes into
//! the context of the next write made here.

use super::{Body, Context, Hlc};

/// How two versions of one row stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// The same write.
    Same,
    /// The incoming write's writer had seen the local one.
    IncomingFollows,
    /// The local write's writer had seen the incoming one.
    LocalFollows,
    /// Neither had seen the other.
    Concurrent,
}

/// Which version stands after a merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Winner {
    /// The one that was here.
    Local,
    /// The one that came in.
    Incoming,
}

/// What is known of one key's versions, the standing one aside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Knowledge {
    /// Every version stamped up to here.
    pub seen: Hlc,
    /// Of each origin, every version up to this stamp.
    pub context: Context,
}

impl Knowledge {
    /// What the writer of `body` knew.
    #[must_use]
    pub fn of(body: &Body) -> Knowledge {
        Knowledge { seen: body.seen(), context: body.context().clone() }
    }
}

/// The result of a merge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    /// Which version stands.
    pub winner: Winner,
    /// The other one was lost without having been seen, and its value differs: record it.
    pub conflict: bool,
    /// What this store now knows of the key. Where it equals what the winner's writer knew,
    /// nothing need be kept.
    pub known: Knowledge,
}

/// How `incoming` and `local` stand to each other.
#[must_use]
pub fn relation(local: &Body, incoming: &Body) -> Relation {
    if local.version() == incoming.version() {
        Relation::Same
    } else if follows(incoming, local) {
        Relation::IncomingFollows
    } else if follows(local, incoming) {
        Relation::LocalFollows
    } else {
        Relation::Concurrent
    }
}

/// Whether the writer of `younger` had seen `older`, or is the same and wrote later.
fn follows(younger: &Body, older: &Body) -> bool {
    let (young, old) = (younger.version(), older.version());
    (young.origin == old.origin && young.hlc > old.hlc)
        || old.hlc <= younger.seen()
        || younger.context().includes(old)
}

/// Merges `incoming` with the version that stands here.
///
/// `known` is what is kept beside the local row, `None` where that is what its writer knew. The
/// winner is the same whatever the order of merges; so is what is known once all versions have
/// met. Total: it never fails on a body that decoded.
#[must_use]
pub fn merge(local: &Body, known: Option<&Knowledge>, incoming: &Body) -> Merged {
    let (winner, loser, standing) = if incoming.version() > local.version() {
        (Winner::Incoming, local, incoming)
    } else {
        (Winner::Local, incoming, local)
    };
    let conflict = relation(local, incoming) == Relation::Concurrent && !local.same_value(incoming);
    let mut joined = known.cloned().unwrap_or_else(|| Knowledge::of(local));
    joined.seen = joined.seen.max(local.seen()).max(incoming.seen());
    joined.context.join(local.context());
    joined.context.join(incoming.context());
    if loser.version() != standing.version() {
        joined.context.raise(loser.version().origin, loser.version().hlc);
    }
    // The winner's own stamp says as much of its origin as any context could.
    joined.context.remove(standing.version().origin);
    Merged { winner, conflict, known: joined }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{BodyParts, Hlc, Origin, Version};

    fn origin(byte: u8) -> Origin {
        Origin::from_bytes([byte; 16])
    }

    fn body(o: u8, hlc: u64, context: &[(u8, u64)], value: u8) -> Body {
        let context =
            context.iter().map(|&(o, h)| (origin(o), Hlc::from_bits(h))).collect::<Context>();
        Body::new(&BodyParts {
            version: Version { hlc: Hlc::from_bits(hlc), origin: origin(o) },
            seen: Hlc::ZERO,
            context: &context,
            expires_at_ms: None,
            value: (value > 0).then_some(&[value]),
        })
    }

    /// A store's view of one key: the row and what is known beyond its context.
    #[derive(Clone, Debug, Default, PartialEq)]
    struct Place {
        row: Option<Body>,
        known: Knowledge,
        lost: std::collections::BTreeSet<Version>,
    }

    impl Place {
        fn merge(&mut self, incoming: &Body) {
            let Some(local) = &self.row else {
                self.known = Knowledge::of(incoming);
                self.row = Some(incoming.clone());
                return;
            };
            let merged = merge(local, Some(&self.known), incoming);
            if merged.conflict {
                self.lost.insert(local.version().min(incoming.version()));
            }
            self.known = merged.known;
            if merged.winner == Winner::Incoming {
                self.row = Some(incoming.clone());
            }
        }

        fn write(&mut self, o: u8, hlc: u64, value: u8) -> Body {
            let mut context = self.known.context.clone();
            if let Some(row) = &self.row {
                context.raise(row.version().origin, row.version().hlc);
            }
            context.remove(origin(o));
            let written = Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(hlc), origin: origin(o) },
                seen: Hlc::ZERO,
                context: &context,
                expires_at_ms: None,
                value: (value > 0).then_some(&[value]),
            });
            self.known = Knowledge::of(&written);
            self.row = Some(written.clone());
            written
        }
    }

    #[test]
    fn a_tie_goes_to_the_greater_origin_at_both_sites() {
        let (a, b) = (body(1, 5, &[], 1), body(2, 5, &[], 2));
        assert_eq!(merge(&a, None, &b).winner, Winner::Incoming);
        assert_eq!(merge(&b, None, &a).winner, Winner::Local);
        assert!(merge(&a, None, &b).conflict && merge(&b, None, &a).conflict);
    }

    #[test]
    fn a_write_that_saw_the_other_is_no_conflict() {
        let first = body(1, 5, &[], 1);
        let second = body(2, 9, &[(1, 5)], 2);
        assert_eq!(relation(&first, &second), Relation::IncomingFollows);
        assert_eq!(relation(&second, &first), Relation::LocalFollows);
        assert!(!merge(&first, None, &second).conflict);
    }

    #[test]
    fn seen_covers_what_the_context_no_longer_names() {
        let first = body(1, 5, &[], 1);
        let second = Body::new(&BodyParts {
            version: Version { hlc: Hlc::from_bits(9), origin: origin(2) },
            seen: Hlc::from_bits(5),
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(b"x"),
        });
        assert_eq!(relation(&first, &second), Relation::IncomingFollows);
        let third = body(3, 6, &[], 3);
        assert_eq!(relation(&third, &second), Relation::Concurrent);
    }

    #[test]
    fn equal_values_are_merged_without_a_record() {
        assert!(!merge(&body(1, 5, &[], 7), None, &body(2, 6, &[], 7)).conflict);
        assert!(!merge(&body(1, 5, &[], 0), None, &body(2, 6, &[], 0)).conflict);
        assert!(merge(&body(1, 5, &[], 0), None, &body(2, 6, &[], 7)).conflict);
    }

    /// Without the losers in what is known, the next local write would look concurrent with them.
    #[test]
    fn a_write_made_after_a_conflict_follows_its_loser_too() {
        let (loser, winner) = (body(1, 5, &[], 1), body(2, 6, &[], 2));
        let mut place = Place::default();
        place.merge(&winner);
        place.merge(&loser);
        let next = place.write(3, 9, 3);
        assert_eq!(relation(&loser, &next), Relation::IncomingFollows);
        assert_eq!(relation(&winner, &next), Relation::IncomingFollows);
    }

    /// Writes at three sites over their own views, exchanged at random: a history with its true
    /// causal order.
    fn histories() -> impl Strategy<Value = Vec<(u8, u8, u8)>> {
        proptest::collection::vec((0u8..3, 0u8..5, 0u8..4), 1..40)
    }

    proptest! {
        #[test]
        fn merging_is_idempotent_commutative_and_associative(
            writes in proptest::collection::vec((1u8..4, 1u64..6, 0u8..3), 1..6),
            order in any::<proptest::sample::Index>(),
        ) {
            // One body for each version: a version is unique for every write.
            let mut bodies: Vec<Body> = Vec::new();
            for (o, hlc, value) in writes {
                let new = body(o, hlc, &[], value);
                if bodies.iter().all(|old| old.version() != new.version()) {
                    bodies.push(new);
                }
            }
            let mut forward = Place::default();
            for one in &bodies {
                forward.merge(one);
                forward.merge(one);
            }
            let mut rotated = Place::default();
            let at = order.index(bodies.len());
            for one in bodies[at..].iter().chain(&bodies[..at]).rev() {
                rotated.merge(one);
            }
            prop_assert_eq!(forward.row, rotated.row);
            prop_assert_eq!(forward.known, rotated.known);
        }

        /// Promise 5, on one key: at every site the record holds no causally ordered pair, and in
        /// the end every write that is neither the winner nor followed is recorded somewhere.
        #[test]
        fn exactly_the_unseen_losers_are_recorded(history in histories()) {
            let mut sites = vec![(Place::default(), std::collections::BTreeSet::new()); 3];
            let mut writes: Vec<(Body, std::collections::BTreeSet<Version>)> = Vec::new();
            for (clock, (site, action, value)) in history.into_iter().enumerate() {
                let site_at = usize::from(site);
                if action < 2 {
                    // Values differ, so that each conflict counts.
                    let value = 1 + (clock as u8) * 4 + value;
                    let (place, causes) = &mut sites[site_at];
                    let written = place.write(site + 1, clock as u64 + 1, value);
                    writes.push((written.clone(), causes.clone()));
                    causes.insert(written.version());
                } else {
                    let from = sites[usize::from((site + 1 + action % 2) % 3)].clone();
                    if let Some(row) = &from.0.row {
                        let known = writes
                            .iter()
                            .find(|(body, _)| body.version() == row.version())
                            .map(|(_, causes)| causes.clone())
                            .unwrap();
                        let (place, causes) = &mut sites[site_at];
                        place.merge(row);
                        causes.insert(row.version());
                        causes.extend(known);
                    }
                }
            }
            // Everything meets everywhere.
            for (body, causes) in &writes {
                for (place, known) in &mut sites {
                    place.merge(body);
                    known.insert(body.version());
                    known.extend(causes);
                }
            }
            let lost: std::collections::BTreeSet<Version> =
                sites.iter().flat_map(|(place, _)| place.lost.iter().copied()).collect();
            for (body, _) in &writes {
                let v = body.version();
                let followed = writes.iter().any(|(_, causes)| causes.contains(&v));
                let wins = sites[0].0.row.as_ref().unwrap().version() == v;
                if !followed && !wins {
                    prop_assert!(lost.contains(&v), "{v} was lost without a record");
                }
            }
            prop_assert!(sites.iter().all(|(place, _)| place.row == sites[0].0.row));
        }

        #[test]
        fn no_ordered_pair_is_judged_concurrent(history in histories()) {
            let mut sites = vec![Place::default(); 3];
            let mut writes: Vec<(Body, Vec<Version>)> = Vec::new();
            let mut seen = vec![Vec::<Version>::new(); 3];
            for (clock, (site, action, value)) in history.into_iter().enumerate() {
                let at = usize::from(site);
                if action < 2 {
                    let written = sites[at].write(site + 1, clock as u64 + 1, value + 1);
                    writes.push((written.clone(), seen[at].clone()));
                    seen[at].push(written.version());
                } else {
                    let from = usize::from((site + 1 + action % 2) % 3);
                    if let Some(row) = sites[from].row.clone() {
                        sites[at].merge(&row);
                        let known = writes.iter().find(|w| w.0.version() == row.version()).unwrap();
                        let known = known.1.clone();
                        seen[at].extend(known);
                        seen[at].push(row.version());
                    }
                }
            }
            for (younger, causes) in &writes {
                for (older, _) in &writes {
                    let ordered = causes.contains(&older.version());
                    let judged = relation(older, younger);
                    if ordered {
                        prop_assert_eq!(judged, Relation::IncomingFollows);
                    } else if judged == Relation::IncomingFollows {
                        // Same origin, later: its own earlier write was seen by definition.
                        prop_assert_eq!(older.version().origin, younger.version().origin);
                    }
                }
            }
        }
    }
}
