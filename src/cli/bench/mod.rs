//! `lastword bench`: a load as production caches have it, on one node or on several at once.
//!
//! ```text
//! profile.rs  the workloads, with their source
//! source.rs   which key, which value, in which order
//! load.rs     the workers: closed loop, or a fixed rate
//! report.rs   counts and latencies, for people and as JSON
//! ```
//!
//! With `--rate` an operation's latency counts from the moment at which it was due, so that a node
//! which stalls is not spared the operations that it kept from being sent.

mod load;
mod profile;
mod report;
mod source;

use std::time::Duration;

use super::{output, servers::ServerArgs};
use crate::client::{Client, Options};
use load::Load;
use profile::Profile;

/// The most workers for one node.
const WORKERS_MAX: u64 = 4_096;
/// Workers that share one connection.
const WORKERS_PER_CONNECTION: u64 = 32;

/// Put a load on one or more nodes, as production caches have it, and measure it
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  lastword bench --workload cluster12 --duration 60s
  lastword bench --server http://127.0.0.1:7400 --server http://127.0.0.1:7410 --rate 2000

Every --server gets the load, all at once. The workloads are those of production caches: Yang, Yue,
Vinayak, \"A large scale analysis of hundreds of in-memory cache clusters at Twitter\", OSDI 2020.
Rows are written to the table given and stay there until their time to live is over.")]
pub(super) struct Args {
    /// The workload: cluster4, cluster12, cluster14, cluster19 or cluster40
    #[arg(long, value_name = "NAME", default_value = "cluster12")]
    workload: Profile,
    /// How long, such as 30s or 5m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Operations under way at once at each node
    #[arg(long, value_name = "N", default_value_t = 16,
          value_parser = clap::value_parser!(u64).range(1..=WORKERS_MAX))]
    workers: u64,
    /// Operations each second at each node; without it, each worker sends the next at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Send only the writes, each worker on a stream of its own with so many of them under way
    #[arg(long, value_name = "N", conflicts_with = "rate",
          value_parser = clap::value_parser!(u64).range(1..=WORKERS_MAX))]
    in_flight: Option<u64>,
    /// How many different keys there are
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// The table to write to
    #[arg(long, default_value = "bench")]
    table: String,
    /// How long rows live, instead of the workload's own time
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    ttl: Option<Duration>,
    /// Where the random choices start; the same seed gives the same operations
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Print the result as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut profile = self.workload;
        profile.ttl = self.ttl.unwrap_or(profile.ttl);
        let mut nodes = Vec::new();
        for url in self.server.urls()? {
            let connections = self.workers.div_ceil(WORKERS_PER_CONNECTION);
            let clients: Result<Vec<_>, _> =
                (0..connections).map(|_| Client::new([url.as_str()], Options::default())).collect();
            let mut clients = clients?;
            // A node that does not answer is better told before the load than after it.
            clients[0].status().await?;
            nodes.push((url.as_str().to_owned(), clients));
        }
        let load = Load {
            profile,
            table: self.table.clone(),
            keys: self.keys,
            workers: self.workers,
            rate: self.rate,
            in_flight: self.in_flight,
            duration: self.duration,
            seed: self.seed,
        };
        let results = load::run(load, nodes).await;
        let text = if self.json {
            report::json(&profile, &self.table, self.duration, &results)
        } else {
            report::text(&profile, self.duration, &results)
        };
        output::print(text.as_bytes())?;
        let failed: u64 = results.iter().map(|node| node.failed).sum();
        anyhow::ensure!(failed == 0, "{failed} operations failed: {}", report::an_error(&results));
        Ok(())
    }
}
