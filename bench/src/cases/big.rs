//! A store of ten million rows: what a write costs there, its memory and disk, and its restart.

use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use super::{Bench, Case, Outcome};
use crate::{
    load::{KEYS, Operation, Source, VALUE_BYTES, closed, key},
    measure::{Bound, CPU, Figure, Goal, P50, P99, RATE, Runs, Sample, interleave},
    process::wait_until,
    systems::{
        START_MAX, disk_bytes,
        lastword::{self, Node, TABLE},
    },
};

const EMPTY: &str = "lastword, empty store";
const BIG: &str = "lastword, large store";

const ROWS: u64 = 10_000_000;
const CLIENTS: usize = 64;
const FILL_BATCH: usize = 128;
const FILL_MAX: Duration = Duration::from_secs(900);
const COMPACT_MAX: Duration = Duration::from_secs(300);
const KEY_BYTES: usize = 16;
/// The node is killed after so much time under load.
const LOADED: Duration = Duration::from_secs(2);
const RESTARTS: usize = 3;

const MEMORY: Figure =
    Figure { key: "resident_gib", label: "resident memory GiB", more_is_better: false };
const DISK: Figure =
    Figure { key: "disk_per_payload", label: "disk over keys and values", more_is_better: false };
const COMPACT: Figure = Figure {
    key: "compact_disk_per_payload",
    label: "disk over keys and values, compacted",
    more_is_better: false,
};
const RESTART: Figure = Figure {
    key: "restart_seconds",
    label: "s from kill -9 and start to the first Get",
    more_is_better: false,
};

/// A large store.
pub(super) const BIG_STORE: Case = Case {
    name: "big-store",
    title: "64 clients write into a large store",
    about: "As put-64, into a store that is empty at first, and into one that was loaded with \
            10,000,000 rows before (1,000,000 in a quick run). Memory (VmRSS) and disk (all files \
            of the store, against the bytes of keys and values) are read after each round. In the \
            end the large one is killed with `kill -9` under that load and started again: the \
            time is from the start of its process until it has answered a Get. Last it is stopped, \
            and `lastword compact` writes its file anew.",
    figures: &[RATE, P50, P99, CPU, MEMORY, DISK, COMPACT, RESTART],
    contenders: &[EMPTY, BIG],
    goals: &[
        Goal { figure: RATE, ours: BIG, peers: &[EMPTY], bound: Bound::AtLeast(0.8) },
        Goal { figure: MEMORY, ours: BIG, peers: &[], bound: Bound::AtMost(1.0) },
        Goal { figure: COMPACT, ours: BIG, peers: &[], bound: Bound::AtMost(2.0) },
        Goal { figure: RESTART, ours: BIG, peers: &[], bound: Bound::AtMost(2.0) },
    ],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let rows = bench.rows(ROWS);
    let empty = Node::alone(&bench.place).await?;
    let mut big = Node::alone(&bench.place).await?;
    let began = Instant::now();
    big.fill(0..rows, FILL_BATCH, FILL_MAX).await.context("loading")?;
    let loaded = began.elapsed().as_secs_f64();

    let payload = rows as f64 * (KEY_BYTES + VALUE_BYTES) as f64;
    let mut runs = interleave(bench.rounds, BIG_STORE.contenders, async |contender| {
        let (node, keys) = if contender == BIG { (&big, rows) } else { (&empty, KEYS) };
        let workers = puts(node, keys)?;
        let sample = closed(workers, bench.seconds, &[node.cpu()?]).await?;
        let resident = node.server()?.resident_bytes()? as f64 / f64::from(1 << 30);
        let sample = sample.with(MEMORY, resident);
        if contender == EMPTY {
            return Ok(sample);
        }
        Ok(sample.with(DISK, disk_bytes(&node.data())? as f64 / payload))
    })
    .await?;
    for _ in 0..RESTARTS {
        restart(&mut big, rows, &mut runs).await?;
    }
    big.stop().await?;
    let began = Instant::now();
    big.compact(COMPACT_MAX).await?;
    let compacted = began.elapsed().as_secs_f64();
    let sample = Sample::default().with(COMPACT, disk_bytes(&big.data())? as f64 / payload);
    runs.push(BIG, sample);
    let rate = crate::report::number(rows as f64 / loaded);
    let notes = vec![format!(
        "The load went in at {rate} rows/s, until the node was quiet again. Compacting took \
         {compacted:.0} s."
    )];
    Ok(Outcome { runs, notes })
}

fn puts(node: &Node, keys: u64) -> anyhow::Result<Vec<lastword::Put>> {
    let sources = Source::many(CLIENTS).into_iter().map(|source| source.with_keys(keys)).collect();
    node.workers(sources, |client, source| lastword::Put { client, source })
}

async fn restart(node: &mut Node, rows: u64, runs: &mut Runs) -> anyhow::Result<()> {
    let load = puts(node, rows)?.into_iter().map(|mut worker| {
        tokio::spawn(async move {
            // Until the node is gone.
            while worker.next().await.is_ok() {}
        })
    });
    let load: Vec<_> = load.collect();
    sleep(LOADED).await;
    node.kill9();
    for worker in load {
        worker.abort();
    }
    let began = Instant::now();
    node.spawn()?;
    let mut client = node.client()?;
    wait_until("the first Get", START_MAX, async || {
        Ok(client.get(TABLE, key(1)).await.is_ok_and(|row| row.is_some()))
    })
    .await?;
    runs.push(BIG, Sample::default().with(RESTART, began.elapsed().as_secs_f64()));
    Ok(())
}
