//! Deltas as files: what other sites are known to have, from where on a file for one of them begins.
//!
//! A peer says on its link what it has; a file that was imported says what its sender had when it wrote
//! it. The latter is kept in the store: sites without a line meet by files alone.

use std::collections::BTreeMap;

use super::{FollowDelta, Node, WriteError};
use crate::{
    model::{Heads, Origin},
    protocol::CarriedHeader,
    store::{Request, StoreError},
};

/// Why there is no delta for a file.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The site never said what it has.
    #[error(
        "since: what site {site:?} has is not known here; known: {}; give --since HEADS, as lastword \
         status shows them at {site}, or --since nothing", listed(.known)
    )]
    Unknown {
        /// The site.
        site: String,
        /// The sites of which it is known.
        known: Vec<String>,
    },
    /// Two stores of that name.
    #[error(
        "since: {stores} stores of site {site:?} are known here, an earlier one of it, say: give --since \
         HEADS, as lastword status shows them there"
    )]
    Ambiguous {
        /// The site.
        site: String,
        /// How many.
        stores: usize,
    },
    /// What is here must not be told yet.
    #[error(
        "export: this site is being admitted to the cluster, and what it had before is not written anew \
         yet: export once it takes writes, see lastword status"
    )]
    BeingAdmitted,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn listed(sites: &[String]) -> String {
    if sites.is_empty() { "no site".to_owned() } else { sites.join(", ") }
}

impl Node {
    /// What the site of this name is known to have. May wait for the disk.
    ///
    /// # Errors
    ///
    /// [`CarryError`].
    pub fn heads_of_site(&self, site: &str) -> Result<Heads, CarryError> {
        let mut known: BTreeMap<Origin, (String, Heads)> = BTreeMap::new();
        for peer in self.reports().peers() {
            if let Some(origin) = peer.origin {
                known.insert(origin, (peer.site, peer.acked));
            }
        }
        for (origin, carried) in self.shared.store.carried()? {
            let (_, heads) = known.entry(origin).or_insert_with(|| {
                let site = self.site_of(origin).map_or_else(String::new, |site| site.to_string());
                (site, Heads::new())
            });
            heads.join(&carried);
        }
        known.remove(&self.origin());
        let mut of_site = known.values().filter(|(name, _)| name == site);
        match (of_site.next(), of_site.count()) {
            (Some((_, heads)), 0) => Ok(heads.clone()),
            (Some(_), others) => {
                Err(CarryError::Ambiguous { site: site.to_owned(), stores: others + 1 })
            }
            (None, _) => {
                let mut known: Vec<String> =
                    known.into_values().map(|(name, _)| name).filter(|n| !n.is_empty()).collect();
                known.sort();
                known.dedup();
                Err(CarryError::Unknown { site: site.to_owned(), known })
            }
        }
    }

    /// All rows above `since` in one durable moment of this node, and what stands before them in a file.
    /// May wait for the disk.
    ///
    /// # Errors
    ///
    /// [`CarryError`].
    pub fn carry(&self, since: Heads) -> Result<(CarriedHeader, FollowDelta), CarryError> {
        let snapshot = self.snapshot();
        if !snapshot.may_be_told() {
            return Err(CarryError::BeingAdmitted);
        }
        let delta = FollowDelta::of_snapshot(&snapshot, &since)?;
        let header = CarriedHeader {
            cluster: self.cluster().to_owned(),
            site: self.site().to_owned(),
            origin: self.origin(),
            since,
            heads: (**snapshot.heads()).clone(),
            floor: snapshot.floor().clone(),
            sealed: snapshot.members().has_acknowledged(self.origin()),
            created_ms: self.now_ms(),
        };
        Ok((header, delta))
    }

    /// Keeps in mind, durably, that the store `origin` has `heads`, as a file of its says.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn note_carried(&self, origin: Origin, heads: Heads) -> Result<(), WriteError> {
        self.request(Request::Carried { origin, heads }).await.map(drop)
    }
}
