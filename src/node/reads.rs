//! Reading: the rows of one moment, and what followers are told by.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{Commit, Node, Pulse, ReadError};
use crate::{
    model::{Heads, Origin},
    store::{Snapshot, StoreError},
};

impl Node {
    /// The rows as they are now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.store.snapshot()
    }

    /// The rows once they have incorporated `session`, waiting up to `wait_max` for that.
    ///
    /// # Errors
    ///
    /// [`ReadError::NotThereYet`]: this site is still behind.
    pub async fn snapshot_at(
        &self,
        session: &Heads,
        wait_max: Duration,
    ) -> Result<Snapshot, ReadError> {
        if !self.heads().covers(session) {
            let mut bell = self.bell();
            let there = bell.wait_for(|pulse| pulse.heads.covers(session));
            if !matches!(tokio::time::timeout(wait_max, there).await, Ok(Ok(_))) {
                let heads = self.heads();
                let behind_ms = session
                    .iter()
                    .filter(|(_, hlc)| !hlc.is_closed())
                    .map(|(origin, hlc)| hlc.ms().saturating_sub(heads.get(origin).ms()))
                    .max();
                return Err(ReadError::NotThereYet {
                    behind_ms: behind_ms.unwrap_or_default(),
                    waited_ms: u64::try_from(wait_max.as_millis()).unwrap_or(u64::MAX),
                });
            }
        }
        Ok(self.snapshot())
    }

    /// What this node has durably incorporated.
    #[must_use]
    pub fn heads(&self) -> Arc<Heads> {
        self.shared.store.heads()
    }

    /// Rings after each commit, and when the heads move.
    #[must_use]
    pub fn bell(&self) -> watch::Receiver<Pulse> {
        self.shared.bell.subscribe()
    }

    /// The commits after number `sequence`, from memory; `None` where some are gone from it.
    #[must_use]
    pub fn commits_after(&self, sequence: u64) -> Option<Vec<Arc<Commit>>> {
        self.shared.recent.read().expect("no holder of this lock panics").after(sequence)
    }

    /// How far the rows of `sender` came when its last delta broke off.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn tentative(&self, sender: Origin) -> Result<Heads, StoreError> {
        self.shared.store.tentative(sender)
    }
}
