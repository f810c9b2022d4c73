//! Loads: as many rows under way as each system does best with.

use super::{Bench, Case, Outcome};
use crate::{
    load::{KEYS, Source, closed},
    measure::{Bound, CPU, Goal, P50, P99, RATE, interleave},
    systems::{
        etcd::{self, Etcd},
        lastword::Node,
        redis::{Kind, RATE_GUESS, Redis, Set},
    },
};

const SINGLE: &str = "lastword, 1 row a request";
const BATCHES: &str = "lastword, 128 rows a request";
const TRANSACTIONS_8: &str = "etcd, 8 transactions of 128 rows";
const TRANSACTIONS_32: &str = "etcd, 32 transactions of 128 rows";
const PIPELINE: &str = "Redis, pipeline of 16";
const PIPELINE_BENCHMARK: &str = "Redis (redis-benchmark), pipeline of 16";

/// The better of both counts.
const ETCD: &[&str] = &[TRANSACTIONS_8, TRANSACTIONS_32];

/// Rows under way on lastword's streams.
const IN_FLIGHT: usize = 4_096;
const STREAMS: usize = 4;
const BATCH: usize = 128;
const CONNECTIONS: usize = 64;
const PIPELINED: usize = 16;

/// 4,096 writes under way.
pub(super) const STREAM_4096: Case = Case {
    name: "stream-4096",
    title: "Loads: thousands of rows under way at once",
    about: "lastword: BulkWrite with 4,096 rows under way on 4 streams, one row a request, and \
            128 rows a request. etcd: 8 and 32 transactions of 128 Puts under way (it allows no \
            larger ones); the better of both counts. Redis: SET on 64 connections, 16 pipelined on each. A latency is that of a \
            request, whatever it holds.",
    figures: &[RATE, P50, P99, CPU],
    contenders: &[SINGLE, BATCHES, TRANSACTIONS_8, TRANSACTIONS_32, PIPELINE, PIPELINE_BENCHMARK],
    goals: &[
        Goal { figure: RATE, ours: SINGLE, peers: ETCD, bound: Bound::AtLeast(2.0) },
        Goal { figure: RATE, ours: BATCHES, peers: ETCD, bound: Bound::AtLeast(2.0) },
    ],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let (place, seconds) = (&bench.place, bench.seconds);
    let node = Node::alone(place).await?;
    let etcd = Etcd::start(place).await?;
    let redis = Redis::start(place).await?;

    let mut redis_rate = RATE_GUESS;
    let runs =
        interleave(bench.rounds, STREAM_4096.contenders, async |contender| match contender {
            SINGLE | BATCHES => {
                let batch = if contender == BATCHES { BATCH } else { 1 };
                let workers = node.streams(STREAMS, IN_FLIGHT / STREAMS / batch, batch).await?;
                closed(workers, seconds, &[node.cpu()?]).await
            }
            TRANSACTIONS_8 | TRANSACTIONS_32 => {
                let under_way = if contender == TRANSACTIONS_8 { 8 } else { 32 };
                let make = |client, source| etcd::Transaction { client, source };
                let workers = etcd.workers(Source::many(under_way), make)?;
                closed(workers, seconds, &[etcd.cpu()]).await
            }
            PIPELINE => {
                let make = |connection, source| Set { connection, source, pipeline: PIPELINED };
                let workers = redis.workers(Source::many(CONNECTIONS), make).await?;
                let sample = closed(workers, seconds, &[redis.cpu()]).await?;
                redis_rate = sample.get(RATE).unwrap_or(redis_rate);
                Ok(sample)
            }
            _ => {
                redis.benchmark(Kind::Set, CONNECTIONS, PIPELINED, KEYS, redis_rate * seconds).await
            }
        })
        .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}
