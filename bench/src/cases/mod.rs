//! The cases: what is done, by whom, and what lastword is to reach.
//!
//! ```text
//! puts.rs        put-1, put-64, stream-64   single rows, each acknowledged on its own
//! streams.rs     stream-4096                loads
//! replicated.rs  put-64-replicated          writes at one of two sites
//! pages.rs       page-80ms                  a web page at its own site, or 80 ms away
//! gets.rs        get-64                     reads, also beside a server that does nothing
//! lag.rs         lag                        from an acknowledgement here to a read there
//! catch_up.rs    catch-up                   a site that was down gets what it missed
//! mirrors.rs     mirror                     the first fill of an empty database
//! column_mirrors.rs  mirror-columns, mirror-columns-steady   both, into a table of ordinary columns
//! steady.rs      mirror-steady, mirror-verify   the mirror under writes, and compared
//! big.rs         big-store                  ten million rows: writes, memory, disk, restart
//! contested.rs   contested                  the same keys at both sites at once
//! ```
//!
//! A case starts its own servers, fresh, and they end with it.

mod big;
mod catch_up;
mod column_mirrors;
mod contested;
mod gets;
mod lag;
mod mirrors;
mod pages;
mod puts;
mod replicated;
mod steady;
mod streams;

use std::{future::Future, pin::Pin};

use crate::{
    measure::{Figure, Goal, Runs},
    systems::Place,
};

/// The names of the contenders that appear in several cases. Those of ours begin with `lastword`.
pub(crate) const LASTWORD: &str = "lastword";
const ETCD: &str = "etcd";
const REDIS: &str = "Redis";
const REDIS_BENCHMARK: &str = "Redis (redis-benchmark)";
const MARIADB: &str = "MariaDB";
const MARIADB_PAIR: &str = "MariaDB, master and master";

/// How much is done.
#[derive(Clone, Debug)]
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) rounds: usize,
    /// Measured, for each case, contender and round.
    pub(crate) seconds: f64,
    /// Smaller stores and shorter backlogs.
    pub(crate) quick: bool,
}

impl Bench {
    /// A number of rows, or a tenth of it in a hurry.
    fn rows(&self, rows: u64) -> u64 {
        if self.quick { rows / 10 } else { rows }
    }
}

/// What a case gives.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) runs: Runs,
    /// Sentences for the report, made of figures.
    pub(crate) notes: Vec<String>,
}

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Outcome>> + 'a>>;

/// A case.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// One line.
    pub(crate) title: &'static str,
    /// What each contender does.
    pub(crate) about: &'static str,
    /// In the order of the report; the first one is drawn.
    pub(crate) figures: &'static [Figure],
    /// In the order of the report.
    pub(crate) contenders: &'static [&'static str],
    pub(crate) goals: &'static [Goal],
    pub(crate) run: fn(&Bench) -> Running<'_>,
}

/// All cases, in the order of the report.
pub(crate) const ALL: [&Case; 16] = [
    &puts::PUT_1,
    &puts::PUT_64,
    &puts::STREAM_64,
    &streams::STREAM_4096,
    &replicated::PUT_64_REPLICATED,
    &pages::PAGE_80MS,
    &gets::GET_64,
    &lag::LAG,
    &catch_up::CATCH_UP,
    &mirrors::MIRROR,
    &steady::MIRROR_STEADY,
    &column_mirrors::MIRROR_COLUMNS,
    &column_mirrors::MIRROR_COLUMNS_STEADY,
    &steady::MIRROR_VERIFY,
    &big::BIG_STORE,
    &contested::CONTESTED,
];
