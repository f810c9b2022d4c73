//! Writes a store's file anew, without the room that replaced pages left in it.
//!
//! ```text
//! log --> redb --> sorted copy beside it, pages full --> in place of the old file --> log emptied
//! ```
//!
//! A tree that grew in random order has pages that are two thirds full, and a file has room for
//! the greatest move it ever saw. A copy in the order of the keys has neither. The old file is whole until
//! the new one is durable and takes its name.

use std::{fs::File, path::Path};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    LOG_FILE, Moving, OpenError, STORE_FILE, Store, StoreConfig, StoreError, file, tables,
};

/// The copy's name within the data folder, while it is made.
pub(super) const COPY_FILE: &str = "lastword.redb.compact";
/// So many entries are copied in one transaction.
const COPY_ENTRIES: u64 = 200_000;

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// How many rows it holds, dead ones included.
    pub rows: u64,
    /// The size of the store's files before, in bytes.
    pub before_bytes: u64,
    /// And after.
    pub after_bytes: u64,
}

impl Store {
    /// Compacts the store in the folder `data`, which no process may have open. `progress` is told
    /// how many entries of how many are copied, now and then.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: there is no store, it is in use, or a disk failed. Whatever it is, the store is
    /// as it was.
    pub fn compact(
        data: &Path,
        config: &StoreConfig,
        progress: impl Fn(u64, u64),
    ) -> Result<Compacted, OpenError> {
        let path = data.join(STORE_FILE);
        if !path.exists() {
            return Err(OpenError::NoStore { path });
        }
        let config = StoreConfig { moving: Moving::Inline, ..config.clone() };
        let (store, mut writer) = Store::open(data, &config)?;
        let before_bytes = store.file_bytes();
        writer.move_all()?;
        drop(writer);

        let copy = data.join(COPY_FILE);
        let written = write_copy(&store, &copy, &config, &progress).and_then(|()| {
            // Both files have all that the log has; while the old one is locked nobody adds to it.
            let emptied = File::options().write(true).open(data.join(LOG_FILE));
            let replaced = emptied.and_then(|log| {
                log.set_len(0)?;
                log.sync_all()?;
                std::fs::rename(&copy, &path)?;
                File::open(data)?.sync_all()
            });
            replaced.map_err(|source| OpenError::Folder { path: data.to_owned(), source })
        });
        if let Err(error) = written {
            // Its room may be what the node needs to start.
            let _ = file::remove_where_present(&copy);
            return Err(error);
        }
        let rows = store.snapshot().rows()?;
        Ok(Compacted { rows, before_bytes, after_bytes: store.file_bytes() })
    }
}

/// Makes the copy, durable, for whoever owns the file that it replaces.
fn write_copy(
    store: &Store,
    path: &Path,
    config: &StoreConfig,
    progress: &impl Fn(u64, u64),
) -> Result<(), OpenError> {
    let folder_error = |source| OpenError::Folder { path: path.to_owned(), source };
    file::remove_where_present(path).map_err(folder_error)?;
    let mut copy = Database::builder()
        .set_cache_size(config.cache_bytes)
        .create(path)
        .map_err(|source| OpenError::of_database(path, source))?;
    if let Some(original) = &store.shared.path {
        file::give_to_owner_of(original, path).map_err(folder_error)?;
    }
    copy_tables(&store.shared.database, &copy, progress)?;
    // What the last transactions let go of lies at the end.
    copy.compact().map_err(StoreError::from)?;
    Ok(())
}

/// Copies every table, each in the order of its keys.
fn copy_tables(
    from: &Database,
    to: &Database,
    progress: &impl Fn(u64, u64),
) -> Result<(), StoreError> {
    let read = from.begin_read()?;
    let mut total = 0;
    for space in tables::Space::ALL {
        total += redb::ReadableTableMetadata::len(&read.open_table(space.table())?)?;
    }
    let mut done = 0;
    for space in tables::Space::ALL {
        let table = read.open_table(space.table())?;
        let mut entries = table.iter()?;
        loop {
            let write = to.begin_write()?;
            let mut copied = 0;
            {
                let mut table = write.open_table(space.table())?;
                for entry in entries.by_ref().take(COPY_ENTRIES as usize) {
                    let (key, value) = entry?;
                    table.insert(key.value(), value.value())?;
                    copied += 1;
                }
            }
            write.commit()?;
            done += copied;
            progress(done, total);
            if copied < COPY_ENTRIES {
                break;
            }
        }
    }
    // Last, and with them all that makes a file a store: one that was cut short is none.
    let write = tables::begin_write(to)?;
    copy_table(&read, &write, tables::META)?;
    copy_table(&read, &write, tables::IDENTITY)?;
    write.commit()?;
    Ok(())
}

fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    read: &redb::ReadTransaction,
    write: &redb::WriteTransaction,
    definition: TableDefinition<'_, K, V>,
) -> Result<(), StoreError> {
    let mut table = write.open_table(definition)?;
    for entry in read.open_table(definition)?.iter()? {
        let (key, value) = entry?;
        table.insert(key.value(), value.value())?;
    }
    Ok(())
}
