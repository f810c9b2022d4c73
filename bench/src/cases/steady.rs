//! The mirror while writes come in, and the comparison of what it holds with the store.

use std::time::Duration;

use anyhow::{Context, ensure};
use lastword::wire::proto::VerifyMirrorRequest;
use mysql_async::{Value, prelude::Queryable};
use tokio::time::{Instant, sleep};

use super::{Bench, Case, LASTWORD, Outcome, mirrors::cells};
use crate::{
    load::{Source, all, spread},
    measure::{Bound, CPU, Figure, Goal, RATE, Sample, interleave},
    process::{Cpu, settle, wait_until},
    systems::{
        lastword::{Node, TABLE},
        mariadb::MariaDb,
    },
};

const INSERT: &str = "client, 1,000 rows a statement";
const INSERT_2: &str = "client, 1,000 rows a statement, 2 connections";
const VERIFY: &str = "lastword verify --mirror";
const CHECKSUM: &str = "CHECKSUM TABLE";

const ROWS: u64 = 300_000;
const VERIFY_ROWS: u64 = 1_000_000;
const BATCH: usize = 128;
const STATEMENT_ROWS: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(300);
/// What MySQL sent for it.
const BYTES: Figure =
    Figure { key: "bytes_per_row", label: "bytes/row read from MySQL", more_is_better: false };

/// Writes over rows that are there, as they come.
pub(super) const MIRROR_STEADY: Case = Case {
    name: "mirror-steady",
    title: "Every row is written over, and MariaDB has it",
    about: "lastword: clients write 300,000 rows (a tenth in a quick run) that are there already, \
            over 4 streams in batches of 128, to a node with a mirror; the time is from the first \
            write until the mirror has them all, and server CPU is that of node and MariaDB. The \
            client writes as many rows over, in the same order, into a table of the same shape in \
            the same server: prepared INSERT ... ON DUPLICATE KEY UPDATE of 1,000 rows, the plain \
            way, each statement a transaction.",
    figures: &[RATE, CPU],
    contenders: &[LASTWORD, INSERT, INSERT_2],
    goals: &[Goal {
        figure: RATE,
        ours: LASTWORD,
        peers: &[INSERT, INSERT_2],
        bound: Bound::AtLeast(0.5),
    }],
    run: |bench| Box::pin(steady(bench)),
};

/// Whether MySQL has the store's rows.
pub(super) const MIRROR_VERIFY: Case = Case {
    name: "mirror-verify",
    title: "A million mirrored rows are compared",
    about: "lastword: verify --mirror of a table of 1,000,000 rows (a tenth in a quick run): sums \
            of SHA-256 over chunks of 2,000 rows, computed in MariaDB and beside it from the \
            store. CHECKSUM TABLE: MariaDB's own sum of the same table, which needs another table \
            to be compared with and says nothing of where they differ.",
    figures: &[RATE, BYTES],
    contenders: &[VERIFY, CHECKSUM],
    goals: &[],
    run: |bench| Box::pin(verify(bench)),
};

/// A node whose mirror has so many rows.
async fn mirrored_node(
    bench: &Bench,
    mariadb: &MariaDb,
    database: &str,
    rows: u64,
) -> anyhow::Result<Node> {
    mariadb.conn().await?.query_drop(format!("CREATE DATABASE {database}")).await?;
    let mut node = Node::new(&bench.place, "fra")?;
    node.flag("--mysql", &mariadb.url_of(database));
    node.start().await?;
    node.fill(0..rows, BATCH, LIMIT).await?;
    caught_up(&node).await?;
    settle(&[node.cpu()?, mariadb.cpu()?]).await?;
    Ok(node)
}

/// Waits until the mirror has all. A status counts the rows that it has not, which costs the node time of
/// the same machine: so one is asked for only after ten times as long as the last one took.
pub(super) async fn caught_up(node: &Node) -> anyhow::Result<()> {
    wait_until("the mirror to have all rows", LIMIT, async || {
        let asked = Instant::now();
        let mirror = node.status().await?.mirror.context("no mirror")?;
        if mirror.applying && mirror.behind_rows == 0 {
            return Ok(true);
        }
        sleep(asked.elapsed() * 10).await;
        Ok(false)
    })
    .await
}

async fn steady(bench: &Bench) -> anyhow::Result<Outcome> {
    let rows = bench.rows(ROWS);
    let mariadb = MariaDb::alone(&bench.place).await?;
    let node = mirrored_node(bench, &mariadb, "mirrored", rows).await?;
    let mut conn = mariadb.conn().await?;
    conn.query_drop("CREATE DATABASE plain").await?;
    conn.query_drop(format!("CREATE TABLE plain.{TABLE} LIKE mirrored.{TABLE}")).await?;
    write_over(&mariadb, rows, 1).await?;
    let all_cpu = [node.cpu()?, mariadb.cpu()?];
    let runs = interleave(bench.rounds, MIRROR_STEADY.contenders, async |contender| {
        let (began, before) = (Instant::now(), spent(&all_cpu)?);
        match contender {
            LASTWORD => {
                node.fill_unsettled(0..rows, BATCH, LIMIT).await?;
                caught_up(&node).await?;
            }
            INSERT => write_over(&mariadb, rows, 1).await?,
            _ => write_over(&mariadb, rows, 2).await?,
        }
        let seconds = began.elapsed().as_secs_f64();
        let cpu = (spent(&all_cpu)? - before).as_secs_f64() * 1e6 / rows as f64;
        settle(&all_cpu).await?;
        Ok(Sample::default().with(RATE, rows as f64 / seconds).with(CPU, cpu))
    })
    .await?;
    let counts = [mariadb.count("mirrored.bench").await?, mariadb.count("plain.bench").await?];
    ensure!(counts == [rows, rows], "{counts:?} rows are there instead of {rows}");
    Ok(Outcome { runs, notes: Vec::new() })
}

pub(super) fn spent(cpu: &[Cpu]) -> anyhow::Result<Duration> {
    cpu.iter().map(|cpu| cpu.spent()).sum()
}

async fn write_over(mariadb: &MariaDb, rows: u64, connections: usize) -> anyhow::Result<()> {
    let mut shares = Vec::new();
    for (share, mut source) in Source::many(connections).into_iter().enumerate() {
        let mut conn = mariadb.conn().await?;
        conn.query_drop("USE plain").await?;
        shares.push(async move {
            let mut numbers = spread(0..rows).skip(share).step_by(connections).peekable();
            while numbers.peek().is_some() {
                let chunk: Vec<u64> = numbers.by_ref().take(STATEMENT_ROWS).collect();
                let places = vec!["(?,?,?,?,?,?)"; chunk.len()].join(",");
                let columns = ["k", "v", "hlc", "origin", "updated_at", "expires_at"];
                let updates: Vec<_> =
                    columns[1..].iter().map(|name| format!("{name} = VALUES({name})")).collect();
                let statement = format!(
                    "INSERT INTO {TABLE} ({}) VALUES {places} ON DUPLICATE KEY UPDATE {}",
                    columns.join(", "),
                    updates.join(", ")
                );
                let values: Vec<Value> =
                    chunk.iter().flat_map(|n| cells(*n, &source.value())).collect();
                conn.exec_drop(statement, values).await?;
            }
            Ok(())
        });
    }
    all(shares, LIMIT).await?;
    Ok(())
}

async fn verify(bench: &Bench) -> anyhow::Result<Outcome> {
    let rows = bench.rows(VERIFY_ROWS);
    let mariadb = MariaDb::alone(&bench.place).await?;
    let node = mirrored_node(bench, &mariadb, "mirrored", rows).await?;
    let runs = interleave(bench.rounds, MIRROR_VERIFY.contenders, async |contender| {
        let began = Instant::now();
        let mut bytes = 0;
        if contender == VERIFY {
            let asked = node.client()?.verify_mirror(VerifyMirrorRequest::default()).await?;
            let result = asked.result(|_| {}).await?;
            let table = result.tables.first().context("no table")?;
            let differ = table.changed + table.missing + table.extra + table.in_flux;
            ensure!(table.rows == rows && differ == 0, "{table:?}");
            bytes = result.bytes;
        } else {
            let sum: Option<(String, u64)> = mariadb
                .conn()
                .await?
                .query_first(format!("CHECKSUM TABLE mirrored.{TABLE}"))
                .await?;
            sum.context("no sum")?;
        }
        let sample = Sample::default().with(RATE, rows as f64 / began.elapsed().as_secs_f64());
        Ok(if bytes > 0 { sample.with(BYTES, bytes as f64 / rows as f64) } else { sample })
    })
    .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}
