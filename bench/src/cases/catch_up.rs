//! A site that was down comes back and gets what it missed.

use std::time::Duration;

use tokio::time::Instant;

use super::{Bench, Case, LASTWORD, Outcome};
use crate::{
    measure::{Bound, Goal, RATE, Sample, interleave},
    process::{settle, wait_until},
    systems::{
        lastword::{self, Node},
        mariadb::{self, MariaDb},
    },
};

const BULK: &str = "lastword, bulk load for comparison";
const ONE_THREAD: &str = "MariaDB, replica as it comes";
const FOUR_THREADS: &str = "MariaDB, replica with 4 threads, optimistic";

const ROWS: u64 = 1_000_000;
/// One transaction each: enough to see the pace, which a million would only draw out.
const MARIADB_ROWS: u64 = 50_000;
const LIMIT: Duration = Duration::from_secs(600);
const BATCH: usize = 128;
/// The rounds take minutes each.
const ROUNDS_MAX: usize = 3;

/// Catching up.
pub(super) const CATCH_UP: Case = Case {
    name: "catch-up",
    title: "A site that was down gets what it missed",
    about: "While one site is down, the other takes single-row writes, each acknowledged on its \
            own: 1,000,000 for lastword, 50,000 for MariaDB (a tenth of both in a quick run). \
            Then the site is started; the rate is the missed rows over the time from the start of \
            its process until it has the last row. The bulk load is BulkWrite with 128 rows a \
            request into a node alone: what a store of this kind takes in at best.",
    figures: &[RATE],
    contenders: &[LASTWORD, BULK, ONE_THREAD, FOUR_THREADS],
    goals: &[
        Goal { figure: RATE, ours: LASTWORD, peers: &[ONE_THREAD], bound: Bound::AtLeast(20.0) },
        Goal { figure: RATE, ours: LASTWORD, peers: &[BULK], bound: Bound::AtLeast(0.5) },
    ],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let place = &bench.place;
    let (rows, mariadb_rows) = (bench.rows(ROWS), bench.rows(MARIADB_ROWS));
    let mut nodes = lastword::start_pair(place, [None, None]).await?;
    let mut one = mariadb::start_pair(place, &[]).await?;
    let parallel = ["--slave-parallel-threads=4", "--slave-parallel-mode=optimistic"];
    let mut four = mariadb::start_pair(place, &parallel).await?;
    let mut round = 0;

    let contenders = CATCH_UP.contenders;
    let runs = interleave(bench.rounds.min(ROUNDS_MAX), contenders, async |contender| {
        // Rows that were never written before.
        round += 1;
        let first = round * rows;
        match contender {
            LASTWORD => {
                let seconds = lastword_missed(&mut nodes, first, rows).await?;
                Ok(Sample::default().with(RATE, rows as f64 / seconds))
            }
            BULK => {
                let node = Node::alone(place).await?;
                let began = Instant::now();
                node.fill_unsettled(first..first + rows, BATCH, LIMIT).await?;
                Ok(Sample::default().with(RATE, rows as f64 / began.elapsed().as_secs_f64()))
            }
            _ => {
                let pair = if contender == ONE_THREAD { &mut one } else { &mut four };
                let seconds = mariadb_missed(pair, first, mariadb_rows).await?;
                Ok(Sample::default().with(RATE, mariadb_rows as f64 / seconds))
            }
        }
    })
    .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}

async fn lastword_missed(pair: &mut [Node; 2], first: u64, rows: u64) -> anyhow::Result<f64> {
    let [up, down] = pair;
    down.stop().await?;
    up.fill(first..first + rows, 1, LIMIT).await?;
    let all = up.status().await?.node.unwrap_or_default().rows;
    let began = Instant::now();
    down.spawn()?;
    down.answers().await?;
    wait_until("the node to have all rows", LIMIT, async || {
        Ok(down.status().await?.node.unwrap_or_default().rows == all)
    })
    .await?;
    let seconds = began.elapsed().as_secs_f64();
    settle(&[up.cpu()?, down.cpu()?]).await?;
    Ok(seconds)
}

async fn mariadb_missed(pair: &mut [MariaDb; 2], first: u64, rows: u64) -> anyhow::Result<f64> {
    let [up, down] = pair;
    down.stop().await?;
    up.fill_singly(first..first + rows, LIMIT).await?;
    let began = Instant::now();
    down.spawn()?;
    down.answers().await?;
    down.has_all_of(up, LIMIT).await?;
    let seconds = began.elapsed().as_secs_f64();
    settle(&[up.cpu()?, down.cpu()?]).await?;
    Ok(seconds)
}
