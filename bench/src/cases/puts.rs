//! Single rows, each acknowledged on its own: by one client, by 64, and by 64 under way at once.

use super::{Bench, Case, ETCD, LASTWORD, MARIADB, Outcome, REDIS, REDIS_BENCHMARK};
use crate::{
    load::{KEYS, Source, closed},
    measure::{Bound, CPU, Figure, Goal, P50, P99, RATE, interleave},
    systems::{
        etcd::{self, Etcd},
        lastword::{self, Node},
        mariadb::{self, MariaDb, REPLACE},
        redis::{Kind, RATE_GUESS, Redis, Set},
    },
};

const FIGURES: &[Figure] = &[RATE, P50, P99, CPU];
const CONTENDERS: &[&str] = &[LASTWORD, ETCD, REDIS, REDIS_BENCHMARK, MARIADB];

/// One client.
pub(super) const PUT_1: Case = Case {
    name: "put-1",
    title: "One client writes one row after another",
    about: "lastword Put, etcd Put, Redis SET, MariaDB REPLACE (a transaction each). The client \
            waits for each answer: this is the latency of a durable write.",
    figures: FIGURES,
    contenders: CONTENDERS,
    goals: &[Goal { figure: RATE, ours: LASTWORD, peers: &[ETCD], bound: Bound::AtLeast(1.3) }],
    run: |bench| Box::pin(run(bench, 1, Ours::Unary)),
};

/// 64 clients.
pub(super) const PUT_64: Case = Case {
    name: "put-64",
    title: "64 clients write one row after another each",
    about: "As put-1, with 64 clients at once: every system shares its syncs among them.",
    figures: FIGURES,
    contenders: CONTENDERS,
    goals: &[
        Goal { figure: RATE, ours: LASTWORD, peers: &[ETCD], bound: Bound::AtLeast(1.4) },
        Goal { figure: RATE, ours: LASTWORD, peers: &[MARIADB], bound: Bound::AtLeast(1.3) },
        Goal { figure: CPU, ours: LASTWORD, peers: &[ETCD], bound: Bound::AtMost(0.7) },
    ],
    run: |bench| Box::pin(run(bench, 64, Ours::Unary)),
};

/// 64 writes under way.
pub(super) const STREAM_64: Case = Case {
    name: "stream-64",
    title: "64 single-row writes under way at once",
    about: "lastword: one BulkWrite stream with 64 requests of one row under way. etcd: 64 Puts \
            under way. Redis: SET on 64 connections, without pipelining. MariaDB: REPLACE on 64 \
            connections. Each row is acknowledged on its own, after its sync.",
    figures: FIGURES,
    contenders: CONTENDERS,
    goals: &[
        Goal { figure: RATE, ours: LASTWORD, peers: &[ETCD], bound: Bound::AtLeast(3.0) },
        Goal { figure: RATE, ours: LASTWORD, peers: &[MARIADB], bound: Bound::AtLeast(3.0) },
        Goal {
            figure: RATE,
            ours: LASTWORD,
            peers: &[REDIS, REDIS_BENCHMARK],
            bound: Bound::AtLeast(1.0),
        },
    ],
    run: |bench| Box::pin(run(bench, 64, Ours::Stream)),
};

/// How lastword is written to.
#[derive(Clone, Copy)]
enum Ours {
    Unary,
    Stream,
}

async fn run(bench: &Bench, clients: usize, ours: Ours) -> anyhow::Result<Outcome> {
    let (place, seconds) = (&bench.place, bench.seconds);
    let node = Node::alone(place).await?;
    let etcd = Etcd::start(place).await?;
    let redis = Redis::start(place).await?;
    let mariadb = MariaDb::alone(place).await?;

    let mut redis_rate = RATE_GUESS;
    let runs = interleave(bench.rounds, CONTENDERS, async |contender| {
        let sources = Source::many(clients);
        match (contender, ours) {
            (LASTWORD, Ours::Unary) => {
                let workers =
                    node.workers(sources, |client, source| lastword::Put { client, source })?;
                closed(workers, seconds, &[node.cpu()?]).await
            }
            (LASTWORD, Ours::Stream) => {
                closed(node.streams(1, clients, 1).await?, seconds, &[node.cpu()?]).await
            }
            (ETCD, _) => {
                let workers =
                    etcd.workers(sources, |client, source| etcd::Put { client, source })?;
                closed(workers, seconds, &[etcd.cpu()]).await
            }
            (REDIS, _) => {
                let make = |connection, source| Set { connection, source, pipeline: 1 };
                let workers = redis.workers(sources, make).await?;
                let sample = closed(workers, seconds, &[redis.cpu()]).await?;
                redis_rate = sample.get(RATE).unwrap_or(redis_rate);
                Ok(sample)
            }
            (REDIS_BENCHMARK, _) => {
                redis.benchmark(Kind::Set, clients, 1, KEYS, redis_rate * seconds).await
            }
            _ => {
                let make = |conn, statement, source| mariadb::Replace { conn, statement, source };
                let workers = mariadb.workers(sources, REPLACE, make).await?;
                closed(workers, seconds, &[mariadb.cpu()?]).await
            }
        }
    })
    .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}
