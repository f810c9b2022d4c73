//! The cases: what is done, by whom, and what lastword is to reach.
//!
//! ```text
//! puts.rs     put-1, put-64, stream-64   single rows, each acknowledged on its own
//! streams.rs  stream-4096                loads
//! gets.rs     get-64                     reads, also beside a server that does nothing
//! ```

mod gets;
mod puts;
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
pub(crate) const ALL: [&Case; 5] =
    [&puts::PUT_1, &puts::PUT_64, &puts::STREAM_64, &streams::STREAM_4096, &gets::GET_64];
