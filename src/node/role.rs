//! What the node is for: a replica takes no writes of clients, and says where to write.

use super::{Node, WriteError};
use crate::model::Role;

impl Node {
    /// What this node is for.
    #[must_use]
    pub fn role(&self) -> Role {
        self.shared.role
    }

    /// Whether clients may write here.
    ///
    /// # Errors
    ///
    /// [`WriteError::Replica`].
    pub(super) fn check_role(&self) -> Result<(), WriteError> {
        if self.role().takes_writes() {
            return Ok(());
        }
        Err(WriteError::Replica { site: self.site().to_owned(), write_at: self.write_at() })
    }

    /// The peers that take writes, as far as they were met: `fra (http://...), nyc`.
    fn write_at(&self) -> String {
        let takes_writes =
            |origin| self.shared.store.role_of(origin).is_none_or(|role| role.takes_writes());
        let sites: Vec<String> = self
            .reports()
            .peers()
            .into_iter()
            .filter(|peer| peer.origin.is_some_and(takes_writes))
            .map(|peer| match peer.address.as_str() {
                "" => peer.site,
                address => format!("{} ({address})", peer.site),
            })
            .collect();
        if sites.is_empty() { "one of its peers".to_owned() } else { sites.join(" or ") }
    }
}
