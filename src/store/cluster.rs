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
    protocol::{Joining, MEMBER_TABLES, Membership, Standing},
};

/// What a store was before it came back under a new origin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Earlier {
    /// That it had then.
    pub(super) origin: Origin,
    pub(super) returns: Returns,
    /// Its horizon then. What it had incorporated it still has, and whoever it has not heard of since stamps above
    /// an admission that lies above.
    pub(super) horizon: Hlc,
}

/// How a store that comes back may meet others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    /// It knew of no seal: it meets whoever meets freely, or is admitted.
    Freely = 0,
    /// It knew of one: it is nobody before it is admitted.
    ByAdmission = 1,
    /// It has met others freely since: it is a founder like them.
    AsFounder = 2,
}

impl Earlier {
    /// 16 bytes of origin, 1 of how it returns, 8 of horizon.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let horizon = self.horizon.bits().to_be_bytes();
        [&self.origin.as_bytes()[..], &[self.returns as u8], &horizon].concat()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Earlier> {
        let (origin, rest) = bytes.split_first_chunk::<16>()?;
        let (returns, horizon) = rest.split_first()?;
        let returns = match returns {
            0 => Returns::Freely,
            1 => Returns::ByAdmission,
            2 => Returns::AsFounder,
            _ => return None,
        };
        let horizon = Hlc::from_bits(u64::from_be_bytes(horizon.try_into().ok()?));
        Some(Earlier { origin: Origin::from_bytes(*origin), returns, horizon })
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
    /// There are rows that nobody else takes as they are, because their stamps count as known: they are
    /// written anew.
    pub(super) renewing: bool,
    /// What this store was before it came back as a new member.
    pub(super) earlier: Option<Earlier>,
    /// While a store comes back: origins that were closed without it, and above which stamp none of the
    /// others ever had anything of them.
    pub(super) outside: Heads,
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
        let mut renew = view.range(Space::Renew, Bound::Unbounded, Bound::Unbounded)?;
        cluster.renewing = renew.next()?.is_some();
        if let Some(bytes) = view.get(Space::State, tables::STATE_EARLIER)? {
            let earlier = Earlier::from_bytes(&bytes);
            cluster.earlier = Some(earlier.ok_or(StoreError::Damaged("the earlier origin"))?);
        }
        if let Some(bytes) = view.get(Space::State, tables::STATE_OUTSIDE)? {
            let outside = Heads::from_bytes(&bytes);
            cluster.outside = outside.ok_or(StoreError::Damaged("what came to nobody"))?;
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
        if self.joining.is_some() || self.renewing || !self.unmet.is_empty() {
            return Hlc::ZERO;
        }
        self.members.horizon(heads)
    }

    /// Up to where whoever writes here has seen everything: also before a store that comes back has a horizon
    /// again.
    pub(super) fn seen(&self, heads: &Heads) -> Hlc {
        let earlier = self.earlier.map(|earlier| earlier.horizon).unwrap_or_default();
        self.horizon(heads).max(earlier)
    }

    /// Whether the store `own` asked a sealed cluster to take it in, or has to, and has nothing to say before.
    pub(super) fn waits_for_admission(&self, own: Origin) -> bool {
        let must_ask = self.returns() == Some(Returns::ByAdmission);
        (self.asked || must_ask) && !self.members.has_acknowledged(own)
    }

    fn returns(&self) -> Option<Returns> {
        self.earlier.map(|earlier| earlier.returns)
    }

    /// Whether the store `own` comes back, and a sealed cluster of which `is_founder` is not true has to take it
    /// in.
    pub(super) fn comes_back(&self, own: Origin, is_founder: bool) -> bool {
        let may_ask = match self.returns() {
            None | Some(Returns::AsFounder) => false,
            Some(Returns::Freely) => !is_founder,
            Some(Returns::ByAdmission) => true,
        };
        may_ask && self.joining.is_none() && !self.members.has_acknowledged(own)
    }

    /// Whether the store `own`, which has these heads, may be taken in by a sealed cluster: it never met another
    /// one, or comes back from there.
    pub(super) fn may_join(&self, own: Origin, heads: &Heads) -> bool {
        match self.returns() {
            None => {
                heads.iter().all(|(origin, _)| origin == own)
                    && self.members.iter().all(|(origin, _)| origin == own)
            }
            Some(Returns::AsFounder) => false,
            Some(Returns::Freely | Returns::ByAdmission) => {
                self.members.get(own).is_none_or(|member| member.admission.is_none())
            }
        }
    }

    /// Whether a write that this store has is outside of what members mean by "every write up to here",
    /// while it is being admitted: it was made before the admission, or came to nobody else before its
    /// origin was closed.
    pub(super) fn is_from_outside(&self, own: Origin, version: Version) -> bool {
        let Some(joining) = self.joining else { return false };
        if version.origin == own {
            return version.hlc <= joining.admission;
        }
        let is_outside = |(origin, reached)| origin == version.origin && version.hlc > reached;
        self.outside.iter().any(is_outside)
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
