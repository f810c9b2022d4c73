//! A web page's 30 updates and 30 reads: at the own site, or at the one master 80 ms away.

use std::time::Duration;

use ::lastword::client::Client;
use anyhow::{Context, ensure};
use bytes::Bytes;
use mysql_async::{Conn, Value, prelude::Queryable};
use tokio::time::Instant;

use super::{Bench, Case, Outcome};
use crate::{
    load::{Done, KEYS, Operation, Source, closed},
    measure::{Bound, Goal, P50, P99, interleave},
    systems::{
        lastword::{self, TABLE, put},
        line::Line,
        mariadb::{self, MariaDb, REPLACE, SELECT},
    },
};

const BATCHED: &str = "lastword, one Batch and one GetMany";
const SINGLE: &str = "lastword, 60 calls";
const REMOTE_BATCHED: &str = "remote MariaDB, 2 statements";
const REMOTE_SINGLE: &str = "remote MariaDB, 60 statements";

const ROWS: usize = 30;
const ONE_WAY: Duration = Duration::from_millis(40);
/// A page of 60 round trips takes 5 s: with less time there would be none.
const SINGLE_SECONDS_MIN: f64 = 10.0;

/// A page at the own site.
pub(super) const PAGE_80MS: Case = Case {
    name: "page-80ms",
    title: "A page of 30 updates and 30 reads, with the other site 80 ms away",
    about: "lastword: two nodes that are peers over a line with 40 ms each way; the page talks to \
            the node of its own site. MariaDB: the one master is at the other end of such a line. \
            Both with all rows in few requests, and row by row. One page after another.",
    figures: &[P50, P99],
    contenders: &[BATCHED, SINGLE, REMOTE_BATCHED, REMOTE_SINGLE],
    goals: &[
        Goal { figure: P50, ours: BATCHED, peers: &[], bound: Bound::AtMost(5.0) },
        Goal { figure: P99, ours: BATCHED, peers: &[], bound: Bound::AtMost(5.0) },
    ],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let (place, seconds) = (&bench.place, bench.seconds);
    let (nodes, _sites) = lastword::start_pair_over(place, ONE_WAY).await?;
    let master = MariaDb::alone(place).await?;
    let line = Line::open(master.address(), ONE_WAY).await?;
    let our_cpu = [nodes[0].cpu()?, nodes[1].cpu()?];

    let runs = interleave(bench.rounds, PAGE_80MS.contenders, async |contender| {
        let source = Source::over(KEYS);
        match contender {
            BATCHED | SINGLE => {
                let (client, batched) = (nodes[0].client()?, contender == BATCHED);
                closed(vec![LocalPage { client, source, batched }], seconds, &our_cpu).await
            }
            _ => {
                let conn = mariadb::connect(line.address).await?;
                let batched = contender == REMOTE_BATCHED;
                let seconds = if batched { seconds } else { seconds.max(SINGLE_SECONDS_MIN) };
                let page = RemotePage { conn, source, batched };
                closed(vec![page], seconds, &[master.cpu()?]).await
            }
        }
    })
    .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}

/// Different rows: what is read is what was written.
fn rows(source: &mut Source) -> Vec<(Bytes, Bytes)> {
    let mut rows = std::collections::BTreeMap::new();
    while rows.len() < ROWS {
        rows.insert(source.key(), source.value());
    }
    rows.into_iter().collect()
}

struct LocalPage {
    client: Client,
    source: Source,
    batched: bool,
}

impl Operation for LocalPage {
    async fn next(&mut self) -> anyhow::Result<Done> {
        let rows = rows(&mut self.source);
        let began = Instant::now();
        if self.batched {
            let keys = rows.iter().map(|(key, _)| key.clone()).collect();
            self.client
                .batch(rows.into_iter().map(|(key, value)| put(key, value)).collect())
                .await?;
            let found = self.client.get_many(TABLE, keys).await?;
            ensure!(found.iter().all(|row| row.row.is_some()), "a row is missing");
        } else {
            for (key, value) in &rows {
                self.client.put(TABLE, key.clone(), value.clone(), None).await?;
            }
            for (key, _) in &rows {
                self.client.get(TABLE, key.clone()).await?.context("a row is missing")?;
            }
        }
        Ok(Done { rows: 1, began })
    }
}

struct RemotePage {
    conn: Conn,
    source: Source,
    batched: bool,
}

impl Operation for RemotePage {
    async fn next(&mut self) -> anyhow::Result<Done> {
        let rows = rows(&mut self.source);
        let conn = &mut self.conn;
        // Statements are prepared at the first page and kept by the connection.
        let began = Instant::now();
        if self.batched {
            let places = |one: &str| vec![one; ROWS].join(",");
            let keys: Vec<Value> = rows.iter().map(|(key, _)| Value::from(&key[..])).collect();
            let cells = rows.iter().flat_map(|(key, value)| [&key[..], &value[..]]);
            let cells: Vec<Value> = cells.map(Value::from).collect();
            conn.exec_drop(format!("REPLACE INTO kv VALUES {}", places("(?,?)")), cells).await?;
            let select = format!("SELECT v FROM kv WHERE k IN ({})", places("?"));
            let found: Vec<Vec<u8>> = conn.exec(select, keys).await?;
            ensure!(found.len() == ROWS, "a row is missing");
        } else {
            for (key, value) in &rows {
                conn.exec_drop(REPLACE, (&key[..], &value[..])).await?;
            }
            for (key, _) in &rows {
                let value: Option<Vec<u8>> = conn.exec_first(SELECT, (&key[..],)).await?;
                value.context("a row is missing")?;
            }
        }
        Ok(Done { rows: 1, began })
    }
}
