//! What each member is known to have incorporated: told by itself, or by others who heard of it.
//!
//! It only rises, so it may come late, twice, in any order, over any way. It decides when everybody has
//! a dead row, and when a newcomer is known to everybody.

use std::collections::BTreeMap;

use super::{Joining, Membership};
use crate::model::{Heads, Hlc, Origin, Version};

/// What members are known to have incorporated.
#[derive(Clone, Debug, Default)]
pub struct Known {
    heads: BTreeMap<Origin, Heads>,
    /// For a store that is being admitted: what it must have of a member that has claimed the
    /// admission, noted when that became known.
    targets: BTreeMap<Origin, Hlc>,
}

impl Known {
    /// `member` has incorporated `heads`. Says whether that is news.
    pub fn learn(&mut self, member: Origin, heads: &Heads) -> bool {
        self.heads.entry(member).or_default().join(heads)
    }

    /// What `member` is known to have incorporated.
    #[must_use]
    pub fn of(&self, member: Origin) -> Option<&Heads> {
        self.heads.get(&member)
    }

    /// What members are known to have, for a peer: the `own` store's heads among it.
    #[must_use]
    pub fn to_tell(
        &self,
        own: Origin,
        heads: &Heads,
        members: &Membership,
    ) -> Vec<(Origin, Heads)> {
        let others = members.remaining().filter(|origin| *origin != own);
        let of_others = others.filter_map(|origin| Some((origin, self.of(origin)?.clone())));
        of_others.chain([(own, heads.clone())]).collect()
    }

    /// What every remaining member has, as far as this store, with these `heads`, knows.
    #[must_use]
    pub fn stable(&self, own: Origin, heads: &Heads, members: &Membership) -> Heads {
        members.stable(own, heads, |origin| self.of(origin))
    }

    /// Which members a store that is being admitted still waits for: each must have heard of the admission,
    /// which is where its head of this store begins then, and this store must have claimed all that the member
    /// had stamped by then. So it has met every admission of itself that any of them wrote, and will stamp above
    /// all. Its `earlier` self says nothing any more. And removed ones of which it has more than the others take: these
    /// it waits for in vain.
    pub fn missing(
        &mut self,
        own: Origin,
        heads: &Heads,
        members: &Membership,
        joining: Joining,
        earlier: Option<Origin>,
    ) -> Vec<Origin> {
        let mut missing = Vec::new();
        // Who was admitted by a removed store, which told nobody but this one, is no member to the others.
        let is_known = |member: &Origin| {
            let admission = members.get(*member).and_then(|member| member.admission);
            admission.is_none_or(|Version { hlc, origin }| {
                !heads.get(origin).is_closed() || !members.came_late(origin, hlc)
            })
        };
        let is_other =
            |member: &Origin| *member != own && Some(*member) != earlier && is_known(member);
        for member in members.remaining().filter(is_other) {
            let theirs = self.heads.get(&member);
            let has_heard = theirs.filter(|theirs| theirs.get(own) >= joining.admission);
            let target =
                has_heard.map(|theirs| *self.targets.entry(member).or_insert(theirs.get(member)));
            if target.is_none_or(|target| heads.get(member) < target) {
                missing.push(member);
            }
        }
        let is_late = |has: &(Origin, Hlc)| !has.1.is_closed() && members.is_late(own, *has, false);
        missing.extend(heads.iter().filter(is_late).map(|(origin, _)| origin));
        missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, BodyParts, Context, Role, Row, Version},
        protocol::{SystemRow, member_row},
    };

    fn origin(byte: u8) -> Origin {
        Origin::from_bytes([byte; 16])
    }

    fn heads(entries: &[(u8, u64)]) -> Heads {
        entries.iter().map(|&(o, h)| (origin(o), Hlc::from_bits(h))).collect()
    }

    fn three() -> Membership {
        let mut members = Membership::default();
        for byte in 1..=3 {
            let SystemRow { table, key, value } = member_row(origin(byte), "site", Role::Site);
            let body = Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(1), origin: origin(byte) },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(&value),
            });
            members.learn(&Row { table, key, body });
        }
        members
    }

    #[test]
    fn it_only_rises() {
        let mut known = Known::default();
        assert!(known.learn(origin(2), &heads(&[(1, 5), (2, 9)])));
        assert!(!known.learn(origin(2), &heads(&[(1, 4)])));
        assert_eq!(known.of(origin(2)), Some(&heads(&[(1, 5), (2, 9)])));
        let own = heads(&[(1, 7), (2, 8)]);
        let told = known.to_tell(origin(1), &own, &three());
        assert_eq!(told, [(origin(2), heads(&[(1, 5), (2, 9)])), (origin(1), own.clone())]);
        assert_eq!(known.stable(origin(1), &own, &three()), Heads::new(), "3 was never heard of");
        known.learn(origin(3), &heads(&[(1, 6), (2, 2)]));
        assert_eq!(known.stable(origin(1), &own, &three()), heads(&[(1, 5), (2, 2)]));
    }

    /// A member that hears of the admission may have written another one before; that must be here.
    #[test]
    fn a_newcomer_waits_for_each_members_word_and_for_what_it_had_written_by_then() {
        let (mut known, members) = (Known::default(), three());
        let joining = Joining { sponsor: origin(2), admission: Hlc::from_bits(50), pulled: true };
        let missing = |known: &mut Known, ours: &[(u8, u64)]| {
            known.missing(origin(1), &heads(ours), &members, joining, None)
        };
        assert_eq!(missing(&mut known, &[(2, 60)]), [origin(2), origin(3)]);
        known.learn(origin(2), &heads(&[(1, 50), (2, 60)]));
        known.learn(origin(3), &heads(&[(1, 49), (3, 70)]));
        assert_eq!(missing(&mut known, &[(2, 60), (3, 70)]), [origin(3)]);
        known.learn(origin(3), &heads(&[(1, 50), (3, 90)]));
        assert_eq!(missing(&mut known, &[(2, 60), (3, 70)]), [origin(3)]);
        // What it stamps later is of no concern.
        known.learn(origin(3), &heads(&[(3, 200)]));
        assert_eq!(missing(&mut known, &[(2, 60), (3, 90)]), []);
    }
}
