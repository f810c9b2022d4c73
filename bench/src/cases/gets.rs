//! Reads of single rows from a store of a million, beside a server that does nothing.

use std::time::Duration;

use ::lastword::wire::proto::{GetRequest, key_value_service_client::KeyValueServiceClient};
use anyhow::Context;

use super::{Bench, Case, ETCD, LASTWORD, MARIADB, Outcome, REDIS, REDIS_BENCHMARK};
use crate::{
    load::{KEYS, Source, closed, key},
    measure::{Bound, CPU, Goal, P50, P99, RATE, interleave},
    systems::{
        echo::Echo,
        etcd::{self, Etcd},
        lastword::{self, Node, TABLE},
        mariadb::{self, MariaDb, SELECT},
        redis::{self, Kind, RATE_GUESS, Redis},
    },
};

const ECHO: &str = "gRPC echo";
const CLIENTS: usize = 64;
const FILL_BATCH: usize = 128;
const FILL_MAX: Duration = Duration::from_secs(300);

/// 64 clients that read.
pub(super) const GET_64: Case = Case {
    name: "get-64",
    title: "64 clients read one row after another each",
    about: "Random rows of a million (a tenth in a quick run), all there: lastword Get, etcd Range of one key, Redis GET, \
            MariaDB SELECT by primary key. The echo is a tonic server with lastword's proto that \
            answers each Get with a row made in advance, called by the same client: what there is \
            to win is between it and lastword.",
    figures: &[RATE, P50, P99, CPU],
    contenders: &[LASTWORD, ECHO, ETCD, REDIS, REDIS_BENCHMARK, MARIADB],
    goals: &[Goal { figure: RATE, ours: LASTWORD, peers: &[ECHO], bound: Bound::AtLeast(0.85) }],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let (place, seconds) = (&bench.place, bench.seconds);
    let node = Node::alone(place).await?;
    let etcd = Etcd::start(place).await?;
    let redis = Redis::start(place).await?;
    let mariadb = MariaDb::alone(place).await?;
    let rows = bench.rows(KEYS);
    node.fill(0..rows, FILL_BATCH, FILL_MAX).await.context("filling lastword")?;
    etcd.fill(rows, FILL_MAX).await.context("filling etcd")?;
    // Else the buffer of that load is copied for each read, and it reads 20 times slower.
    let etcd = etcd.restart().await?;
    redis.fill(rows, FILL_MAX).await.context("filling Redis")?;
    mariadb.fill(rows, FILL_MAX).await.context("filling MariaDB")?;
    let request = GetRequest { table: TABLE.to_owned(), key: key(1), ..GetRequest::default() };
    let mut client = KeyValueServiceClient::connect(node.url()).await?;
    let echo = Echo::start(place, &client.get(request).await?.into_inner()).await?;

    let mut redis_rate = RATE_GUESS;
    let runs = interleave(bench.rounds, GET_64.contenders, async |contender| {
        let sources = Source::many(CLIENTS);
        let sources = sources.into_iter().map(|source| source.with_keys(rows)).collect();
        match contender {
            LASTWORD => {
                let workers =
                    node.workers(sources, |client, source| lastword::Get { client, source })?;
                closed(workers, seconds, &[node.cpu()?]).await
            }
            ECHO => {
                let workers =
                    echo.workers(sources, |client, source| lastword::Get { client, source })?;
                closed(workers, seconds, &[echo.cpu()]).await
            }
            ETCD => {
                let workers =
                    etcd.workers(sources, |client, source| etcd::Get { client, source })?;
                closed(workers, seconds, &[etcd.cpu()]).await
            }
            REDIS => {
                let make = |connection, source| redis::Get { connection, source };
                let workers = redis.workers(sources, make).await?;
                let sample = closed(workers, seconds, &[redis.cpu()]).await?;
                redis_rate = sample.get(RATE).unwrap_or(redis_rate);
                Ok(sample)
            }
            REDIS_BENCHMARK => {
                redis.benchmark(Kind::Get, CLIENTS, 1, rows, redis_rate * seconds).await
            }
            _ => {
                let make = |conn, statement, source| mariadb::Select { conn, statement, source };
                let workers = mariadb.workers(sources, SELECT, make).await?;
                closed(workers, seconds, &[mariadb.cpu()?]).await
            }
        }
    })
    .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}
