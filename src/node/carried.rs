//! What other sites are known to have: from where on a file for one of them begins.
//!
//! A peer says on its link what it has; a file that was imported says what its sender had when it wrote
//! it. The latter is kept in the store: sites without a line meet by files alone.

use std::collections::BTreeMap;

use super::{Node, WriteError};
use crate::{
    model::{Heads, Origin},
    store::{Request, StoreError},
};

/// Why it is not known what a site has.
#[derive(Debug, thiserror::Error)]
pub enum SinceError {
    /// It never said so.
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
    /// [`SinceError`].
    pub fn heads_of_site(&self, site: &str) -> Result<Heads, SinceError> {
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
                Err(SinceError::Ambiguous { site: site.to_owned(), stores: others + 1 })
            }
            (None, _) => {
                let mut known: Vec<String> =
                    known.into_values().map(|(name, _)| name).filter(|n| !n.is_empty()).collect();
                known.sort();
                known.dedup();
                Err(SinceError::Unknown { site: site.to_owned(), known })
            }
        }
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
