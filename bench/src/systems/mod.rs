//! The systems compared: how each is started for equal durability, and driven by its own client.
//!
//! ```text
//! lastword.rs  lastword serve, by the project's own client
//! etcd.rs      etcd, by tonic with etcd's messages
//! redis.rs     Redis, by the redis crate and by its own redis-benchmark
//! mariadb.rs   MariaDB alone or as master and master, by mysql_async
//! echo.rs      a gRPC server that does nothing but answer
//! line.rs      the line between two sites, with its delay
//! ```
//!
//! Every write is acknowledged after an fdatasync, everywhere. Folders are made beneath one place,
//! so that all use the same disk.

pub(crate) mod echo;
pub(crate) mod etcd;
pub(crate) mod lastword;
pub(crate) mod line;
pub(crate) mod mariadb;
pub(crate) mod redis;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;

/// A server that was started answers within this time, also after a crash with much to read back.
pub(crate) const START_MAX: Duration = Duration::from_secs(120);
/// For one request of a client library.
pub(crate) const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Workers that share a connection, where a connection carries many requests at once.
const WORKERS_PER_CONNECTION: usize = 32;

/// Where the servers' folders are, and the binary under test.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) folder: PathBuf,
    pub(crate) lastword: PathBuf,
}

impl Place {
    /// A folder of its own for a server.
    fn make(&self, name: &str) -> anyhow::Result<PathBuf> {
        let taken = |n: &u32| self.folder.join(format!("{name}-{n}")).exists();
        let number = (1..).find(|n| !taken(n)).expect("fewer servers than numbers");
        let folder = self.folder.join(format!("{name}-{number}"));
        fs::create_dir(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// Connections for so many workers, to be handed out in turn.
fn shared<T>(
    workers: usize,
    mut connect: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<T>> {
    (0..workers.div_ceil(WORKERS_PER_CONNECTION)).map(|_| connect()).collect()
}

/// All bytes in the files beneath a folder, as the disk holds them.
pub(crate) fn disk_bytes(folder: &Path) -> anyhow::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        // A file may be longer than what it holds.
        bytes +=
            if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
