//! Gives a stopped store a new origin: it comes back into its cluster as a new member.
//!
//! For a store that was removed, or that was set back to an older state. Its rows, heads and floor stay:
//! they are as true as they were, so that coming back costs what changed, not what is stored. What it
//! had not spread is spread as it is while the earlier origin is still open, and else written anew.
//!
//! But for the head of a store of which nothing came here since its admission: where this store gave that admission
//! while it was removed, nobody heard of it, and the other one stamps from an earlier one on. That head is forgotten,
//! and so is how far deltas came that had begun there.

use std::path::Path;

use redb::StorageBackend;

use super::{
    Moving, OpenError, STORE_FILE, Store, StoreConfig, Writer,
    cluster::{Earlier, Returns},
    tables,
    tables::Space,
};
use crate::model::Origin;

impl Store {
    /// Gives the store in the folder `data`, which no process may have open, the fresh origin of
    /// `config`; gives the earlier one.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: there is no store, it is in use, or a disk failed. Whatever it is, the store is
    /// as it was.
    pub fn rejoin(data: &Path, config: &StoreConfig) -> Result<Origin, OpenError> {
        let path = data.join(STORE_FILE);
        if !path.exists() {
            return Err(OpenError::NoStore { path });
        }
        let config = StoreConfig { moving: Moving::Inline, ..config.clone() };
        let (store, writer) = Store::open(data, &config)?;
        renamed(&store, writer, config.fresh_origin)
    }

    /// The same, on storages of the caller's.
    ///
    /// # Errors
    ///
    /// [`OpenError`], as [`Store::rejoin`].
    pub fn rejoin_on(
        backend: impl StorageBackend,
        log: impl StorageBackend,
        config: &StoreConfig,
    ) -> Result<Origin, OpenError> {
        let config = StoreConfig { moving: Moving::Inline, ..config.clone() };
        let (store, writer) = Store::open_on(backend, log, &config)?;
        renamed(&store, writer, config.fresh_origin)
    }
}

fn renamed(store: &Store, mut writer: Writer, fresh: Origin) -> Result<Origin, OpenError> {
    // What the log has must not come back over what is changed here. The earlier origin's head stays as
    // it was committed last: a store that was set back had not told more.
    writer.move_all()?;
    drop(writer);
    let earlier = store.origin();
    let write = tables::begin_write(&store.shared.database)?;
    tables::set_origin(&write, fresh)?;
    {
        let mut state = write.open_table(Space::State.table()).map_err(super::StoreError::from)?;
        let snapshot = store.snapshot();
        let sealed = snapshot.members().has_seal();
        let returns = if sealed { Returns::ByAdmission } else { Returns::Freely };
        let came_from = Earlier { origin: earlier, returns, horizon: snapshot.seen() };
        state.insert(tables::STATE_EARLIER, &came_from.to_bytes()[..])?;
        for name in [tables::STATE_JOINING, tables::STATE_ASKED] {
            state.remove(name)?;
        }
        let mut heads = write.open_table(Space::Heads.table()).map_err(super::StoreError::from)?;
        let claimed = store.heads();
        for (origin, member) in snapshot.members().iter() {
            if member.begins_at(claimed.get(origin)) {
                heads.remove(&origin.as_bytes()[..])?;
            }
        }
        let mut tentative =
            write.open_table(Space::Tentative.table()).map_err(super::StoreError::from)?;
        tentative.retain(|_, _| false)?;
    }
    write.commit().map_err(super::StoreError::from)?;
    Ok(earlier)
}
