//! The file: this user's alone, and begun again where its creation was cut short.
//!
//! redb writes its magic number last, once the rest of a new file is durable. A file that is not
//! empty and has none never held a row; redb refuses it, for ever.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use redb::{StorageBackend, backends::FileBackend};

use super::OpenError;

/// The length of redb's magic number.
const MAGIC_BYTES: usize = 9;

/// Rows are nobody's business but this user's.
pub(super) fn create_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Empties the file where its creation was cut short, by a loss of power say.
pub(super) fn begin_again_where_unfinished(path: &Path) -> Result<(), OpenError> {
    let error = |source| OpenError::Folder { path: path.to_owned(), source };
    let file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(error(source)),
    };
    // Whoever creates it at this moment holds the lock, and so does a running store.
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
        // A file system without locks: redb says what it can do there.
        Err(TryLockError::Error(_)) => return Ok(()),
    }
    let file = FileBackend::new(file).map_err(|source| OpenError::of_database(path, source))?;
    empty_where_unfinished(&file).map_err(error)
}

/// The log's file, created where it is missing.
pub(super) fn open_log(path: &Path) -> io::Result<FileBackend> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    // Its name must survive a loss of power that the store's first commit survives.
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    FileBackend::new(file).map_err(io::Error::other)
}

/// Removes a file that an earlier try may have left.
pub(super) fn remove_where_present(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Gives a file the owner and the permissions of another.
pub(super) fn give_to_owner_of(original: &Path, file: &Path) -> io::Result<()> {
    let like = std::fs::metadata(original)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::{MetadataExt, chown};
        chown(file, Some(like.uid()), Some(like.gid()))?;
    }
    std::fs::set_permissions(file, like.permissions())
}

/// What a file takes of the disk, in bytes; 0 where there is none. Less than its length where redb
/// made it longer than it needs yet.
pub(super) fn disk_bytes(path: &Path) -> u64 {
    #[cfg(unix)]
    let bytes = |meta: std::fs::Metadata| std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
    #[cfg(not(unix))]
    let bytes = |meta: std::fs::Metadata| meta.len();
    std::fs::metadata(path).map_or(0, bytes)
}

/// The same for any storage that nobody else has open.
pub(super) fn empty_where_unfinished(storage: &impl StorageBackend) -> io::Result<()> {
    let length = storage.len()?;
    let mut magic = [0; MAGIC_BYTES];
    if length >= MAGIC_BYTES as u64 {
        storage.read(0, &mut magic)?;
    }
    if length > 0 && magic == [0; MAGIC_BYTES] {
        storage.set_len(0)?;
    }
    Ok(())
}
