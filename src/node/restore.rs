//! A write that lost a conflict, written again: an ordinary new write of this site.

use super::{Node, WriteError};
use crate::{
    model::Version,
    store::{Conflict, LocalWrite, Operation, StoreError, Written},
};

/// Why a losing write was not written again. Unless said otherwise, nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The journal does not hold it: never, or no longer.
    #[error(
        "conflict: there is none with the id {0} here: lastword conflicts list shows those that this \
         node keeps"
    )]
    Unknown(Version),
    /// The losing row would have expired by now.
    #[error(
        "conflict: the losing row of {id} expired {ago_ms} ms ago: put its value with a new time to \
         live, lastword conflicts show {id} --json has it"
    )]
    Expired {
        /// The conflict.
        id: Version,
        /// How long ago.
        ago_ms: u64,
    },
    /// The journal could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// As for any write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Node {
    /// Writes the losing row of a conflict again, as a new write of this site that has seen all that
    /// stands here: its value with the expiry it had, or, where it was a delete, a delete.
    ///
    /// # Errors
    ///
    /// [`RestoreError`].
    pub async fn restore(&self, loser: Version) -> Result<(Conflict, Written), RestoreError> {
        self.check_role()?;
        let conflict = self.snapshot().conflict(loser)?.ok_or(RestoreError::Unknown(loser))?;
        let (body, key) = (&conflict.loser.body, conflict.loser.key.clone());
        let now_ms = self.now_ms();
        if let Some(ago_ms) = body.expires_at_ms().and_then(|ms| now_ms.checked_sub(ms)) {
            return Err(RestoreError::Expired { id: loser, ago_ms });
        }
        let operation = match body.value() {
            Some(value) => Operation::Put { key, value, expires_at_ms: body.expires_at_ms() },
            None => Operation::Delete { key },
        };
        let write = LocalWrite { table: conflict.loser.table.clone(), operation };
        let mut committed = self.commit_local(vec![write], self.creates_tables()).await?;
        let written = committed.results.pop().expect("one for each write");
        Ok((conflict, written))
    }
}
