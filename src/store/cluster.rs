//! How this store stands to the cluster: who belongs to it, what may be gone here, whether it is still
//! being admitted. Published with each commit that changes it.

use std::{collections::BTreeSet, ops::Bound};

use super::{
    RefusedError, StoreError, TableIds, codec,
    tables::{self, Space},
    view::{View, number_in},
};
use crate::{
    model::{Heads, Hlc, Origin},
    protocol::{Joining, MEMBER_TABLES, Membership, Standing},
};

/// How this store stands to the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    pub(super) members: Membership,
    /// Up to where dead rows may be gone here.
    pub(super) floor: Heads,
    pub(super) joining: Option<Joining>,
    /// A sealed cluster was asked to take this store in: perhaps it has, and that was not heard.
    pub(super) asked: bool,
    /// Own rows stamped up to here are written anew: they are from before the admission.
    pub(super) renew_up_to: Hlc,
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
        cluster.renew_up_to = Hlc::from_bits(view.number(tables::STATE_RENEW)?);
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
        if self.joining.is_some() || self.renew_up_to > Hlc::ZERO || !self.unmet.is_empty() {
            return Hlc::ZERO;
        }
        self.members.horizon(heads)
    }

    /// Why clients' writes are refused, where they are.
    pub(super) fn refuses_writes(&self, own: Origin, heads: &Heads) -> Option<RefusedError> {
        if self.joining.is_some() {
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
