//! 64 clients write at one of two sites, the other one replicates.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use mysql_async::prelude::Queryable;
use tokio::time::Instant;

use super::{Bench, Case, LASTWORD, MARIADB_PAIR, Outcome};
use crate::{
    load::{Source, closed_unsettled},
    measure::{Bound, CPU, Figure, Goal, P50, P99, RATE, Sample, interleave},
    process::{settle, wait_until},
    systems::{
        lastword::{self, TABLE, all_across},
        mariadb::{self, MariaDb, REPLACE},
    },
};

/// How long the other site needs after the load.
const BEHIND: Figure = Figure {
    key: "seconds_until_even",
    label: "s after the load until both sites (and mirrors) have all",
    more_is_better: false,
};
/// What a site keeps up with: rows of the load over its time and the time until both sites have them.
const EVEN_RATE: Figure = Figure {
    key: "rows_per_second_at_both",
    label: "rows/s until both have all",
    more_is_better: true,
};
const CLIENTS: usize = 64;
const EVEN_MAX: Duration = Duration::from_secs(300);

/// Writes at one of two sites.
pub(super) const PUT_64_REPLICATED: Case = Case {
    name: "put-64-replicated",
    title: "64 clients write at one of two sites",
    about: "lastword: two nodes that are peers, each with a mirror into a MariaDB of its own. \
            MariaDB: two masters that replicate each other. All of it runs on this one machine; \
            server CPU is that of both sites, the mirrors' MariaDB included. Clients wait for \
            their own site only, so a site that falls behind does not slow them down: the second \
            rate counts the time until both sites (and mirrors) have all as well.",
    figures: &[RATE, EVEN_RATE, P50, P99, CPU, BEHIND],
    contenders: &[LASTWORD, MARIADB_PAIR],
    goals: &[
        Goal { figure: RATE, ours: LASTWORD, peers: &[MARIADB_PAIR], bound: Bound::AtLeast(1.5) },
        Goal {
            figure: EVEN_RATE,
            ours: LASTWORD,
            peers: &[MARIADB_PAIR],
            bound: Bound::AtLeast(1.5),
        },
    ],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let (place, seconds) = (&bench.place, bench.seconds);
    let mirrors = [MariaDb::alone(place).await?, MariaDb::alone(place).await?];
    let nodes =
        lastword::start_pair(place, [Some(mirrors[0].url()), Some(mirrors[1].url())]).await?;
    let masters = mariadb::start_pair(place, &[]).await?;
    let our_cpu = [nodes[0].cpu()?, nodes[1].cpu()?, mirrors[0].cpu()?, mirrors[1].cpu()?];
    let their_cpu = [masters[0].cpu()?, masters[1].cpu()?];

    let runs = interleave(bench.rounds, PUT_64_REPLICATED.contenders, async |contender| {
        let sources = Source::many(CLIENTS);
        if contender == LASTWORD {
            let workers =
                nodes[0].workers(sources, |client, source| lastword::Put { client, source })?;
            let sample = closed_unsettled(workers, seconds, &our_cpu).await?;
            let ended = Instant::now();
            let mark = all_across(&nodes[0], &nodes[1], EVEN_MAX).await?;
            for mirror in &mirrors {
                mirrored(mirror, &mark).await?;
            }
            let sample = even(sample, seconds, ended.elapsed());
            settle(&our_cpu).await?;
            Ok(sample)
        } else {
            let make = |conn, statement, source| mariadb::Replace { conn, statement, source };
            let workers = masters[0].workers(sources, REPLACE, make).await?;
            let sample = closed_unsettled(workers, seconds, &their_cpu).await?;
            let ended = Instant::now();
            masters[1].has_all_of(&masters[0], EVEN_MAX).await?;
            let sample = even(sample, seconds, ended.elapsed());
            settle(&their_cpu).await?;
            Ok(sample)
        }
    })
    .await?;
    // What was taken for all is all.
    let rows = [nodes[0].count().await?, nodes[1].count().await?];
    ensure!(rows[0] == rows[1], "{rows:?} rows at the two nodes");
    let mirrored = [mirrors[0].count(TABLE).await?, mirrors[1].count(TABLE).await?];
    ensure!(rows == mirrored, "{rows:?} rows at the nodes, {mirrored:?} in their mirrors");
    let counts = [masters[0].count("kv").await?, masters[1].count("kv").await?];
    ensure!(counts[0] == counts[1], "{counts:?} rows in the two MariaDB");
    Ok(Outcome { runs, notes: Vec::new() })
}

/// Both sites were even so long after the load.
fn even(sample: Sample, load_seconds: f64, behind: Duration) -> Sample {
    let rate = sample.get(RATE).expect("every load has a rate");
    let behind_seconds = behind.as_secs_f64();
    let even = rate * load_seconds / (load_seconds + behind_seconds);
    sample.with(BEHIND, behind_seconds).with(EVEN_RATE, even)
}

/// Waits until a mirror holds the row written last.
async fn mirrored(mirror: &MariaDb, mark: &Bytes) -> anyhow::Result<()> {
    let mut conn = mirror.conn().await?;
    wait_until("a mirror to hold all rows", EVEN_MAX, async || {
        let select = format!("SELECT hlc FROM {TABLE} WHERE k = ?");
        let row: Option<u64> = conn.exec_first(select, (&mark[..],)).await?;
        Ok(row.is_some())
    })
    .await
}
