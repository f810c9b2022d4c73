//! How this store stands to the cluster: who belongs to it, what may be gone here, whether it is still
//! being admitted. Published with each commit that changes it.

use std::{collections::BTreeSet, ops::Bound};

use super::{
    RefusedError, StoreError, TableIds, codec,
    tables::{self, Space},
    view::{View, number_in},
};
use crate::{
    model::{Heads, Hlc, Origin, Version},
    protocol::{Joining, MEMBER_TABLES, Member, Membership, Standing},
};

/// Rows of an origin that nobody else takes as they are, because their stamps count as known: those of
/// a store from before it was admitted; and where it comes back, those of origins which were closed
/// without them, its own earlier one first. They are written anew, as new writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Renew {
    pub(super) origin: Origin,
    /// Not included.
    pub(super) above: Hlc,
    /// Included.
    pub(super) up_to: Hlc,
}

impl Renew {
    pub(super) fn includes(&self, version: Version) -> bool {
        version.origin == self.origin && version.hlc > self.above && version.hlc <= self.up_to
    }

    const BYTES: usize = 32;

    /// 16 bytes of origin, 8 of either stamp.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let stamps = [self.above, self.up_to].map(|hlc| hlc.bits().to_be_bytes());
        [&self.origin.as_bytes()[..], &stamps[0], &stamps[1]].concat()
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Renew {
        let part = |at: usize| {
            let bytes = bytes[at..].first_chunk::<8>().expect("8 of 32 bytes");
            Hlc::from_bits(u64::from_be_bytes(*bytes))
        };
        let origin = bytes.first_chunk::<16>().expect("16 of 32 bytes");
        Renew { origin: Origin::from_bytes(*origin), above: part(16), up_to: part(24) }
    }
}

/// How this store stands to the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub(super) members: Membership,
    /// Up to where dead rows may be gone here.
    pub(super) floor: Heads,
    pub(super) joining: Option<Joining>,
    /// A sealed cluster was asked to take this store in: perhaps it has, and that was not heard.
    pub(super) asked: bool,
    /// Rows that are written anew.
    pub(super) renew: Vec<Renew>,
    /// The origin that this store had before it came back as a new member.
    pub(super) earlier: Option<Origin>,
    /// It came back from a sealed cluster: it is nobody there before it is admitted.
    pub(super) must_be_admitted: bool,
    /// Configured peers that were never met: nobody knows what they may have written.
    pub(super) unmet: BTreeSet<String>,
}

impl Cluster {
    pub(super) fn load(
        view: &View,
        names: &TableIds,
        peers: &[String],
    ) -> Result<Cluster, StoreError> {
        let mut cluster = Cluster::default();
        for table in MEMBER_TABLES.all() {
            let Some(id) = names.id(table) else { continue };
            let (from, to) = (codec::place(id, &[]), codec::place(codec::TableId(id.0 + 1), &[]));
            let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
            let mut rows = view.range(Space::Rows, from, to)?;
            while let Some((place, body)) = rows.next()? {
                cluster.members.learn(&codec::row(table.clone(), &place, body)?);
            }
        }
        let mut entries = view.range(Space::Floor, Bound::Unbounded, Bound::Unbounded)?;
        while let Some((origin, hlc)) = entries.next()? {
            let origin = origin[..].try_into().map_err(|_| StoreError::Damaged("the floor"))?;
            cluster.floor.raise(Origin::from_bytes(origin), Hlc::from_bits(number_in(&hlc)?));
        }
        if let Some(bytes) = view.get(Space::State, tables::STATE_JOINING)? {
            let joining = Joining::from_bytes(&bytes);
            cluster.joining = Some(joining.ok_or(StoreError::Damaged("the state of joining"))?);
        }
        cluster.asked = view.number(tables::STATE_ASKED)? != 0;
        if let Some(bytes) = view.get(Space::State, tables::STATE_RENEW)? {
            let (entries, rest) = bytes.as_chunks::<{ Renew::BYTES }>();
            if !rest.is_empty() {
                return Err(StoreError::Damaged("what is to be renewed"));
            }
            cluster.renew = entries.iter().map(Renew::from_bytes).collect();
        }
        if let Some(bytes) = view.get(Space::State, tables::STATE_EARLIER)? {
            let (origin, _) =
                bytes.split_first_chunk::<16>().ok_or(StoreError::Damaged("an origin"))?;
            cluster.earlier = Some(Origin::from_bytes(*origin));
            cluster.must_be_admitted = bytes.last() == Some(&1);
        }
        for peer in peers {
            if view.get(Space::State, &met_key(peer))?.is_none() {
                cluster.unmet.insert(peer.clone());
            }
        }
        Ok(cluster)
    }

    /// Up to where a store with these heads has incorporated every write; zero where that cannot be
    /// told.
    pub(super) fn horizon(&self, heads: &Heads) -> Hlc {
        if self.joining.is_some() || !self.renew.is_empty() || !self.unmet.is_empty() {
            return Hlc::ZERO;
        }
        self.members.horizon(heads)
    }

    /// Whether the store `own` waits to be admitted, and has nothing to say to the cluster before.
    pub(super) fn waits_for_admission(&self, own: Origin) -> bool {
        self.must_be_admitted && !self.members.has_acknowledged(own)
    }

    /// Whether a write of ours was outside of what members mean by "every write up to here", while this
    /// store is being admitted: made before the admission, or not spread before its origin was closed.
    pub(super) fn is_from_outside(&self, own: Origin, version: Version) -> bool {
        let Some(joining) = self.joining else { return false };
        if version.origin == own {
            return version.hlc <= joining.admission;
        }
        // Of a store that comes back: of any origin, what the others closed without it.
        let member = self.earlier.and_then(|_| self.members.get(version.origin));
        member.is_some_and(|member| {
            !member.removal_acks.is_empty() && version.hlc > member.spread_up_to()
        })
    }

    /// Which rows are to be written anew once this store is a member, as far as can be told by these
    /// heads: what the others have closed without them, or had before the admission.
    pub(super) fn to_renew(&self, own: Origin, heads: &Heads) -> Vec<Renew> {
        let mut renew = Vec::new();
        if let Some(joining) = self.joining {
            renew.push(Renew { origin: own, above: Hlc::ZERO, up_to: joining.admission });
        }
        if self.earlier.is_some() {
            let is_closed = |(origin, _): &(Origin, &Member)| heads.get(*origin).is_closed();
            renew.extend(self.members.iter().filter(is_closed).map(|(origin, member)| Renew {
                origin,
                above: member.spread_up_to(),
                up_to: Hlc::MAX,
            }));
        }
        renew
    }

    /// Whether this store may stamp writes of its own, and let its head follow the clock: not between
    /// asking to be admitted and being known to everybody.
    pub(super) fn may_stamp(&self) -> bool {
        self.joining.is_none() && !self.asked
    }

    /// Why clients' writes are refused, where they are.
    pub(super) fn refuses_writes(&self, own: Origin, heads: &Heads) -> Option<RefusedError> {
        if !self.may_stamp() {
            return Some(RefusedError::Joining);
        }
        match self.members.standing(own, heads) {
            Standing::Removed | Standing::Closed => Some(RefusedError::Removed),
            Standing::Unknown | Standing::Member => None,
        }
    }
}

/// Under which a configured peer's origin is noted.
pub(super) fn met_key(address: &str) -> Vec<u8> {
    [tables::STATE_MET, address.as_bytes()].concat()
}
