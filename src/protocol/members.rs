//! The members of the cluster, as the replicated system tables tell them; and what follows: the
//! horizon, what this store owes the others, which origins are closed.
//!
//! Rows of these tables are never purged. Whether a row *counts* is a matter of the heads: what a member
//! has written is known to be all here only up to its head.
//!
//! **Why a seal.** The horizon says "every write stamped up to here is here": true only once it is known
//! who may write. Until a cluster is sealed, stores that never met merge freely, and the horizon is
//! zero. A member acknowledges the seal with a row that is stamped after every member row it knew, and
//! from then on takes in nobody it does not know. So whoever has claimed the acknowledgements of all
//! members it knows, knows all.
//!
//! **Why acknowledgements of a removal.** A removed store's rows may still be on their way between the
//! others. Each remaining member refuses its links and says so; who has claimed what all of them said
//! has all that they had, and closes the origin: nothing of it will ever come again.

use std::{collections::BTreeMap, sync::Arc};

use super::member_rows::{
    MEMBER_TABLES, MemberValue, RemovalAckValue, SystemRow, admission_in, removal_ack_row,
    seal_ack_row,
};
use crate::model::{Heads, Hlc, Origin, Role, Row, Version};

/// What a store knows of one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// The name of its site; empty while only its admission came in.
    pub site: Arc<str>,
    /// What it is for.
    pub role: Role,
    /// The row that admitted it; `None`: it is a founder.
    pub admission: Option<Version>,
    /// Its stamps lie above this; `None`: it is a founder, or the row that says so was written anew.
    admitted_at: Option<Hlc>,
    /// The row that removed it.
    pub removal: Option<Version>,
    /// Who acknowledged the removal, and what each had of it.
    pub removal_acks: BTreeMap<Origin, RemovalAck>,
    seal_ack: Option<Version>,
    /// The row that names it.
    row: Option<Version>,
}

impl Member {
    /// Whether whoever has claimed `heads` knows all that this member knew when it began to take in
    /// nobody any more.
    fn has_said_all(&self, heads: &Heads) -> bool {
        self.admission.is_some() || self.seal_ack.is_some_and(|ack| heads.includes(ack))
    }

    /// Whether it was admitted at a stamp above this one.
    #[must_use]
    pub fn is_admitted_above(&self, hlc: Hlc) -> bool {
        self.admitted_at.is_some_and(|admitted_at| admitted_at > hlc)
    }

    /// Whether it was admitted at this very stamp: a head that stands there claims nothing of it yet.
    #[must_use]
    pub fn begins_at(&self, hlc: Hlc) -> bool {
        self.admitted_at == Some(hlc)
    }

    /// Whether the others had a write of this member when it was removed, as far as they have said so.
    fn had_spread(&self, write: Version) -> bool {
        let mut acks = self.removal_acks.values().peekable();
        self.removal.is_none()
            || acks.peek().is_none()
            || acks.any(|ack| ack.head.max(ack.reached) >= write.hlc)
    }

    /// Since when it has had its present name, or has been admitted.
    #[must_use]
    pub fn known_since(&self) -> Option<Hlc> {
        self.row.max(self.admission).map(|version| version.hlc)
    }
}

/// A member takes nothing from a removed store any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemovalAck {
    /// The row that says so.
    pub row: Version,
    /// It has everything of the removed store up to here.
    pub head: Hlc,
    /// And nothing above this, where that is more.
    pub reached: Hlc,
}

/// How a store stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Never heard of.
    Unknown,
    /// One of the cluster.
    Member,
    /// It was removed; the others have not all acknowledged it yet.
    Removed,
    /// Its removal is complete.
    Closed,
}

/// The members, as far as the rows that are here tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    members: BTreeMap<Origin, Member>,
    /// Removals and acknowledgements that came before their member's row are kept here, too.
    early: BTreeMap<Origin, Member>,
    seal: Option<Version>,
}

impl Membership {
    /// Takes note of a row that stands now; rows of other tables are passed over. Says whether it was
    /// one of membership.
    pub fn learn(&mut self, row: &Row) -> bool {
        let tables = &*MEMBER_TABLES;
        if !row.table.is_system() {
            return false;
        }
        let version = row.body.version();
        let key = row.key.as_slice();
        let origin_at = |at: usize| key.get(at..).and_then(|rest| rest.first_chunk::<16>());
        let Some(value) = row.body.value() else { return false };
        if row.table == tables.seals {
            self.seal = Some(version);
            return true;
        }
        let Some(origin) = origin_at(0).copied().map(Origin::from_bytes) else { return false };
        if row.table == tables.members || row.table == tables.admissions {
            let early = self.early.remove(&origin).unwrap_or_default();
            let member = self.members.entry(origin).or_insert(early);
            if row.table == tables.admissions {
                member.admission = Some(version);
                member.admitted_at = admission_in(row).map(|(_, hlc)| hlc);
                return true;
            }
            member.row = Some(version);
            if let Ok(MemberValue { site, role }) = serde_json::from_slice(&value) {
                member.site = site.into();
                member.role = role;
            }
            return true;
        }
        let member = match self.members.get_mut(&origin) {
            Some(member) => member,
            None => self.early.entry(origin).or_default(),
        };
        if row.table == tables.removals {
            member.removal = Some(version);
        } else if row.table == tables.seal_acks {
            member.seal_ack = Some(version);
        } else if row.table == tables.removal_acks {
            let Some(by) = origin_at(16).copied().map(Origin::from_bytes) else { return false };
            // What a store that is gone had is not what the others have, whoever writes it anew.
            if by != version.origin {
                return true;
            }
            let ack = serde_json::from_slice::<RemovalAckValue>(&value).ok();
            let hlc = |text: fn(&RemovalAckValue) -> &str| {
                ack.as_ref().and_then(|ack| text(ack).parse().ok()).unwrap_or_default()
            };
            let (head, reached) = (hlc(|ack| &ack.head), hlc(|ack| &ack.reached));
            member.removal_acks.insert(by, RemovalAck { row: version, head, reached });
        } else {
            return false;
        }
        true
    }

    /// All members ever, closed ones too, in the order of their origins.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, &Member)> {
        self.members.iter().map(|(origin, member)| (*origin, member))
    }

    /// What is known of the store `origin`.
    #[must_use]
    pub fn get(&self, origin: Origin) -> Option<&Member> {
        self.members.get(&origin)
    }

    /// Up to where the remaining members had everything of a removed store.
    #[must_use]
    pub fn spread_up_to(&self, removed: Origin) -> Hlc {
        self.acks_of(removed).map(|ack| ack.head).max().unwrap_or_default()
    }

    /// Above this none of them ever had anything of it. In between they had some, which came without a
    /// claim.
    #[must_use]
    pub fn reached_up_to(&self, removed: Origin) -> Hlc {
        self.acks_of(removed).map(|ack| ack.head.max(ack.reached)).max().unwrap_or_default()
    }

    /// What the remaining members said they had of a removed store. Who was removed itself said so to them, or was none
    /// of them any more.
    fn acks_of(&self, removed: Origin) -> impl Iterator<Item = &RemovalAck> {
        let acks = self.members.get(&removed).into_iter().flat_map(|member| &member.removal_acks);
        acks.filter(|(by, ack)| self.members.get(by).is_none_or(|by| by.had_spread(ack.row)))
            .map(|(_, ack)| ack)
    }

    /// Whether a write of a removed store is none that the remaining members had when they said what they had:
    /// it came to them later, with a store that came back.
    #[must_use]
    pub fn came_late(&self, origin: Origin, hlc: Hlc) -> bool {
        let member = self.members.get(&origin);
        member.is_some_and(|m| m.removal.is_some() && hlc > self.reached_up_to(origin))
    }

    /// Whether a newcomer that has `theirs` has more of a removed store than the remaining members had when they said
    /// so, which close it without the newcomer's word: nobody takes that as it is. Judged by a store with `own` heads.
    #[must_use]
    pub fn brings_late(&self, newcomer: Origin, theirs: &Heads, own: &Heads) -> bool {
        theirs.iter().any(|(origin, hlc)| {
            !hlc.is_closed() && self.is_late(newcomer, (origin, hlc), own.get(origin).is_closed())
        })
    }

    /// The same, of one removed store, which `is_closed` or will be.
    #[must_use]
    pub fn is_late(&self, newcomer: Origin, has: (Origin, Hlc), is_closed: bool) -> bool {
        let (removed, hlc) = has;
        if !self.came_late(removed, hlc) {
            return false;
        }
        let by = self.members.get(&newcomer).and_then(|member| member.admission);
        let Some(by) = by.filter(|by| by.origin != removed) else { return false };
        // Who acknowledges the removal after the admission knows of it: then the newcomer's word is waited for, too.
        let remains = self.members.get(&by.origin).is_some_and(|m| m.removal.is_none());
        let ack = self.members.get(&removed).and_then(|m| m.removal_acks.get(&by.origin));
        !remains || ack.map_or(is_closed, |ack| ack.row.hlc < by.hlc)
    }

    /// Whether a store that has `theirs` has more of a store whose removal is under way than anybody has said so far;
    /// but for its `earlier` self. Judged by a store with `own` heads.
    #[must_use]
    pub fn has_more_than_said(&self, theirs: &Heads, earlier: Option<Origin>, own: &Heads) -> bool {
        let counts = |origin| !own.get(origin).is_closed() && Some(origin) != earlier;
        theirs.iter().any(|(origin, hlc)| counts(origin) && self.came_late(origin, hlc))
    }

    /// The members that were not removed.
    pub fn remaining(&self) -> impl Iterator<Item = Origin> {
        self.iter().filter(|(_, member)| member.removal.is_none()).map(|(origin, _)| origin)
    }

    /// How `origin` stands to the cluster, for a store with these heads.
    #[must_use]
    pub fn standing(&self, origin: Origin, heads: &Heads) -> Standing {
        if heads.get(origin).is_closed() {
            return Standing::Closed;
        }
        match self.members.get(&origin).or_else(|| self.early.get(&origin)) {
            Some(member) if member.removal.is_some() => Standing::Removed,
            Some(_) if self.members.contains_key(&origin) => Standing::Member,
            _ => Standing::Unknown,
        }
    }

    /// Whether someone has begun to seal the cluster.
    #[must_use]
    pub fn has_seal(&self) -> bool {
        self.seal.is_some()
    }

    /// Whether nobody has sealed the cluster who could still tell a store with these heads: one that was removed since
    /// has perhaps told its seal, and not all that it had written before.
    #[must_use]
    pub fn wants_seal(&self, heads: &Heads) -> bool {
        let was_removed = |by| self.members.get(&by).is_some_and(|by| by.removal.is_some());
        self.seal.is_none_or(|seal| !heads.includes(seal) && was_removed(seal.origin))
    }

    /// Whether `origin` has acknowledged the seal, or was admitted behind it.
    #[must_use]
    pub fn has_acknowledged(&self, origin: Origin) -> bool {
        let member = self.members.get(&origin);
        member.is_some_and(|member| member.seal_ack.is_some() || member.admission.is_some())
    }

    /// Whether a store with these heads has claimed the acknowledgements of all members it knows:
    /// from then on it knows everyone who may write.
    #[must_use]
    pub fn is_sealed(&self, heads: &Heads) -> bool {
        self.has_seal()
            && self
                .iter()
                .all(|(origin, member)| heads.get(origin).is_closed() || member.has_said_all(heads))
    }

    /// Up to where a store with these heads has incorporated *every* write; zero while that cannot
    /// be told.
    #[must_use]
    pub fn horizon(&self, heads: &Heads) -> Hlc {
        if !self.is_sealed(heads) {
            return Hlc::ZERO;
        }
        let least = self.iter().map(|(origin, _)| heads.get(origin)).min().unwrap_or_default();
        if least.is_closed() { Hlc::ZERO } else { least }
    }

    /// The rows that the member `own`, with these heads, owes the others now. `reached` tells of an origin
    /// how far its rows have come here.
    #[must_use]
    pub fn owed(
        &self,
        own: Origin,
        heads: &Heads,
        reached: impl Fn(Origin) -> Hlc,
    ) -> Vec<SystemRow> {
        let mut owed = Vec::new();
        if self.standing(own, heads) != Standing::Member {
            return owed;
        }
        if self.seal.is_some_and(|seal| heads.includes(seal)) && !self.has_acknowledged(own) {
            owed.push(seal_ack_row(own));
        }
        for (origin, member) in self.iter() {
            // Once; and again where more came since than anybody has said, by way of a member that had not heard of
            // the removal, and may be removed itself before it says what it had.
            let (head, reached) = (heads.get(origin), reached(origin));
            let is_news = !member.removal_acks.contains_key(&own)
                || head.max(reached) > self.reached_up_to(origin);
            let due = member.removal.is_some_and(|removal| heads.includes(removal))
                && !head.is_closed()
                && is_news;
            if due {
                owed.push(removal_ack_row(origin, own, head, reached));
            }
        }
        owed
    }

    /// The origins that a store with these heads may close: it has claimed what every remaining
    /// member said of every removal under way, and of the seal: so it knows who remains.
    #[must_use]
    pub fn closable(&self, heads: &Heads) -> Vec<Origin> {
        let removed: Vec<(Origin, &Member)> = self
            .iter()
            .filter(|(origin, member)| member.removal.is_some() && !heads.get(*origin).is_closed())
            .collect();
        let claimed = |member: &Member, by: Origin| {
            member.removal_acks.get(&by).is_some_and(|ack| heads.includes(ack.row))
        };
        let all_said =
            removed.iter().all(|(_, member)| self.remaining().all(|by| claimed(member, by)));
        let remain: Vec<&Member> =
            self.members.values().filter(|member| member.removal.is_none()).collect();
        let knows_all = self.has_seal() && remain.iter().all(|member| member.has_said_all(heads));
        if !all_said || !knows_all || remain.is_empty() {
            return Vec::new();
        }
        removed.iter().map(|(origin, _)| *origin).collect()
    }

    /// What every remaining member is known to have incorporated: `own` heads, and of each other
    /// member what it is `known` to have.
    #[must_use]
    pub fn stable<'h>(
        &self,
        own: Origin,
        heads: &Heads,
        known: impl Fn(Origin) -> Option<&'h Heads>,
    ) -> Heads {
        let mut stable = heads.clone();
        for origin in self.remaining().filter(|origin| *origin != own) {
            stable = known(origin).map(|theirs| stable.meet(theirs)).unwrap_or_default();
        }
        stable
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, BodyParts, Context};
    use crate::protocol::member_rows::{admission_row, member_row, removal_row, role_in, seal_row};

    fn origin(byte: u8) -> Origin {
        Origin::from_bytes([byte; 16])
    }

    fn hlc(bits: u64) -> Hlc {
        Hlc::from_bits(bits)
    }

    fn heads(entries: &[(u8, u64)]) -> Heads {
        entries.iter().map(|&(o, h)| (origin(o), hlc(h))).collect()
    }

    /// A cluster's rows, each written by a member at a stamp.
    fn membership(rows: &[(u8, u64, SystemRow)]) -> Membership {
        let mut membership = Membership::default();
        for (by, at, row) in rows {
            assert!(membership.learn(&standing(*by, *at, row)));
        }
        membership
    }

    fn standing(by: u8, at: u64, SystemRow { table, key, value }: &SystemRow) -> Row {
        let body = Body::new(&BodyParts {
            version: Version { hlc: hlc(at), origin: origin(by) },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(value),
        });
        Row { table: table.clone(), key: key.clone(), body }
    }

    fn two_founders() -> Vec<(u8, u64, SystemRow)> {
        let site = |byte, name| member_row(origin(byte), name, Role::Site);
        vec![(1, 1, site(1, "fra")), (2, 2, site(2, "nyc"))]
    }

    /// A site's row is as it was before there were roles.
    #[test]
    fn the_member_list_says_what_is_no_site() {
        let role = |role| member_row(origin(1), "fra", role);
        assert_eq!(role(Role::Site).value, br#"{"site":"fra"}"#);
        assert_eq!(role(Role::Replica).value, br#"{"site":"fra","role":"replica"}"#);
        let known = membership(&[(1, 1, role(Role::Replica)), (2, 2, two_founders().remove(1).2)]);
        let of = |byte| known.get(origin(byte)).unwrap().role;
        assert_eq!([of(1), of(2)], [Role::Replica, Role::Site]);
        let row = standing(1, 1, &role(Role::Replica));
        assert_eq!(role_in(std::slice::from_ref(&row), origin(1)), Role::Replica);
        assert_eq!(role_in(&[row], origin(2)), Role::Site, "not its own");
    }

    #[test]
    fn there_is_no_horizon_before_all_have_acknowledged_the_seal() {
        let mut rows = two_founders();
        let everything = heads(&[(1, 90), (2, 80)]);
        assert_eq!(membership(&rows).horizon(&everything), Hlc::ZERO);
        rows.push((1, 10, seal_row()));
        rows.push((1, 11, seal_ack_row(origin(1))));
        assert_eq!(membership(&rows).horizon(&everything), Hlc::ZERO);
        assert_eq!(membership(&rows).owed(origin(1), &everything, |_| hlc(27)), []);
        let owed = membership(&rows).owed(origin(2), &everything, |_| hlc(27));
        assert_eq!(owed, [seal_ack_row(origin(2))]);
        // Not before the seal itself is claimed.
        assert_eq!(membership(&rows).owed(origin(2), &heads(&[(1, 9), (2, 80)]), |_| hlc(27)), []);
        rows.push((2, 20, seal_ack_row(origin(2))));
        assert_eq!(membership(&rows).horizon(&everything), hlc(80));
        // An acknowledgement that is here, but not claimed: rows that it knew of may be missing.
        assert_eq!(membership(&rows).horizon(&heads(&[(1, 90), (2, 19)])), Hlc::ZERO);
        // A third founder, whom the second knew.
        rows.push((3, 15, member_row(origin(3), "tyo", Role::Site)));
        assert_eq!(membership(&rows).horizon(&heads(&[(1, 90), (2, 80), (3, 85)])), Hlc::ZERO);
    }

    #[test]
    fn who_is_admitted_owes_no_acknowledgement_and_holds_the_horizon() {
        let mut rows = two_founders();
        rows.push((1, 10, seal_row()));
        rows.push((1, 11, seal_ack_row(origin(1))));
        rows.push((2, 20, seal_ack_row(origin(2))));
        rows.push((1, 30, admission_row(origin(3), origin(1))));
        let membership = membership(&rows);
        assert!(membership.has_acknowledged(origin(3)));
        assert_eq!(membership.horizon(&heads(&[(1, 90), (2, 80), (3, 30)])), hlc(30));
        assert_eq!(membership.owed(origin(3), &heads(&[(1, 90), (3, 30)]), |_| hlc(27)), []);
        assert!(membership.get(origin(3)).unwrap().is_admitted_above(hlc(29)));
    }

    #[test]
    fn what_others_wrote_anew_neither_moves_an_admission_nor_acknowledges() {
        let mut rows = two_founders();
        rows.push((2, 30, admission_row(origin(3), origin(1))));
        rows.push((4, 4, member_row(origin(4), "tyo", Role::Site)));
        rows.push((2, 31, removal_row(origin(4), "fra")));
        rows.push((2, 32, removal_ack_row(origin(4), origin(5), hlc(25), hlc(27))));
        let membership = membership(&rows);
        assert!(membership.has_acknowledged(origin(3)));
        assert!(!membership.get(origin(3)).unwrap().is_admitted_above(hlc(1)));
        assert_eq!(admission_in(&standing(2, 30, &rows[2].2)), None);
        assert_eq!(admission_in(&standing(1, 30, &rows[2].2)), Some((origin(3), hlc(30))));
        assert_eq!(membership.get(origin(4)).unwrap().removal_acks.len(), 0);
    }

    #[test]
    fn a_removed_member_is_closed_once_all_others_acknowledgements_are_claimed() {
        let mut rows = two_founders();
        rows.push((3, 3, member_row(origin(3), "tyo", Role::Site)));
        rows.push((1, 30, removal_row(origin(3), "fra")));
        let all = heads(&[(1, 90), (2, 80), (3, 25)]);
        assert_eq!(membership(&rows).standing(origin(3), &all), Standing::Removed);
        let owed = membership(&rows).owed(origin(2), &all, |_| hlc(27));
        assert_eq!(owed[..], [removal_ack_row(origin(3), origin(2), hlc(25), hlc(27))]);
        assert_eq!(membership(&rows).owed(origin(2), &heads(&[(1, 29), (2, 80)]), |_| hlc(27)), []);
        assert_eq!(
            membership(&rows).owed(origin(3), &all, |_| hlc(27)),
            [],
            "who is removed owes nothing"
        );
        rows.push((1, 31, removal_ack_row(origin(3), origin(1), hlc(20), hlc(22))));
        assert_eq!(membership(&rows).closable(&all), []);
        rows.push((2, 40, removal_ack_row(origin(3), origin(2), hlc(25), hlc(27))));
        let claimed = membership(&rows);
        assert_eq!(claimed.closable(&all), [], "who else remains may not be known");
        rows.push((1, 50, seal_row()));
        rows.push((1, 51, seal_ack_row(origin(1))));
        rows.push((2, 60, seal_ack_row(origin(2))));
        let claimed = membership(&rows);
        assert_eq!(claimed.closable(&heads(&[(1, 90), (2, 59), (3, 25)])), []);
        assert_eq!(claimed.closable(&heads(&[(1, 30), (2, 80), (3, 25)])), []);
        assert_eq!(claimed.closable(&all), [origin(3)], "not even if it has not said anything");
        let had =
            |known: &Membership| (known.spread_up_to(origin(3)), known.reached_up_to(origin(3)));
        assert_eq!(had(&claimed), (hlc(25), hlc(27)));
        // What one of them said after it was removed itself counts where the others have it.
        rows.push((1, 70, removal_row(origin(2), "fra")));
        assert_eq!(had(&membership(&rows)), (hlc(25), hlc(27)));
        rows.push((1, 71, removal_ack_row(origin(2), origin(1), hlc(39), hlc(0))));
        assert_eq!(had(&membership(&rows)), (hlc(20), hlc(22)));
        rows.push((1, 72, removal_ack_row(origin(2), origin(1), hlc(39), hlc(40))));
        assert_eq!(had(&membership(&rows)), (hlc(25), hlc(27)));
        let closed = heads(&[(1, 90), (2, 80), (3, u64::MAX)]);
        assert_eq!(claimed.standing(origin(3), &closed), Standing::Closed);
        assert_eq!(claimed.closable(&closed), []);
        assert_eq!(claimed.owed(origin(2), &closed, |_| hlc(27)), []);
    }

    #[test]
    fn a_removal_that_comes_before_its_member_counts() {
        let rows = [
            (1, 30, removal_row(origin(3), "fra")),
            (3, 3, member_row(origin(3), "tyo", Role::Site)),
        ];
        for order in [[0, 1], [1, 0]] {
            let membership = membership(&order.map(|at: usize| rows[at].clone()));
            assert_eq!(membership.standing(origin(3), &Heads::new()), Standing::Removed);
        }
        let only = membership(&rows[..1]);
        assert_eq!(only.standing(origin(3), &Heads::new()), Standing::Removed);
        assert_eq!(only.standing(origin(4), &Heads::new()), Standing::Unknown);
    }

    #[test]
    fn closed_origins_do_not_hold_the_horizon() {
        let mut rows = two_founders();
        rows.push((1, 10, seal_row()));
        rows.push((1, 11, seal_ack_row(origin(1))));
        let membership = membership(&rows);
        assert_eq!(membership.horizon(&heads(&[(1, 90), (2, 50)])), Hlc::ZERO);
        assert_eq!(membership.horizon(&heads(&[(1, 90), (2, u64::MAX)])), hlc(90));
    }

    #[test]
    fn stable_is_what_every_remaining_member_has() {
        let membership = membership(&two_founders());
        let own = heads(&[(1, 90), (2, 80)]);
        let theirs = heads(&[(1, 70), (2, 85)]);
        let known = |origin_| (origin_ == origin(2)).then_some(&theirs);
        assert_eq!(membership.stable(origin(1), &own, known), heads(&[(1, 70), (2, 80)]));
        assert_eq!(membership.stable(origin(1), &own, |_| None), Heads::new());
    }
}
