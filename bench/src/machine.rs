//! What the figures were measured on: hardware, kernel, disk, and the versions of all systems.

use std::{fs, io::Write, path::Path};

use anyhow::Context;
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    measure::Spread,
    process::first_line,
    systems::{Place, etcd::Etcd, mariadb::MariaDb, redis::Redis},
};

/// Syncs that are timed.
const SYNCS: usize = 200;
/// What each of them writes: as much as a small commit.
const SYNC_BYTES: usize = 512;

/// A machine and what is installed on it, each fact with its name.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Machine(pub(crate) Vec<(&'static str, String)>);

impl Machine {
    /// Looks around; fails where a system is missing, before anything was measured.
    pub(crate) fn look(place: &Place) -> anyhow::Result<Machine> {
        let file = place.folder.join("sync");
        let appended = sync_us(fs::File::create(&file)?)?;
        let overwritten = sync_us(fs::File::options().write(true).open(&file)?)?;
        Ok(Machine(vec![
            ("Measured", jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string()),
            ("CPU", cpu().context("/proc/cpuinfo is not as expected")?),
            ("Memory", memory().context("/proc/meminfo is not as expected")?),
            ("Kernel", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned()),
            ("File system", file_system(&place.folder)?),
            ("fdatasync of 512 bytes appended to a file, median", format!("{appended:.0} µs")),
            ("the same over bytes written before, median", format!("{overwritten:.0} µs")),
            ("lastword", first_line(&place.lastword, &["--version"])?),
            ("etcd", Etcd::version()?),
            ("Redis", Redis::version()?),
            ("MariaDB", MariaDb::version()?),
        ]))
    }
}

fn cpu() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let model = text.lines().find_map(|line| line.strip_prefix("model name"))?;
    let cores = std::thread::available_parallelism().ok()?;
    Some(format!("{}, {cores} cores", model.trim_start_matches([' ', '\t', ':'])))
}

fn memory() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(format!("{:.0} GiB", kib as f64 / f64::from(1 << 20)))
}

/// The type of the file system that holds a folder.
fn file_system(folder: &Path) -> anyhow::Result<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (at, kind) = (Path::new(fields.next()?), fields.next()?);
        folder.starts_with(at).then(|| (at.components().count(), kind.to_owned()))
    });
    // Of two mounts in the same place the later one is seen.
    let (_, kind) = found.max_by_key(|(depth, _)| *depth).context("no file system found")?;
    Ok(kind)
}

/// How long the disk takes to make a small write durable: the floor under every latency here. It
/// takes longer where the file grows, as its length has to be made durable as well.
fn sync_us(mut file: fs::File) -> anyhow::Result<f64> {
    let mut times = Vec::new();
    for _ in 0..SYNCS {
        let began = Instant::now();
        file.write_all(&[0x5a; SYNC_BYTES])?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(&times).context("nothing was synced")?.median)
}
