//! The mirror into a table of ordinary columns: its first fill, and every row written over; beside a client that
//! writes the same rows the fastest way it knows.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use mysql_async::{Value, prelude::Queryable};
use tokio::time::Instant;

use super::{
    Bench, Case, LASTWORD, Outcome,
    mirrors::seconds_to_fill,
    steady::{caught_up, spent},
};
use crate::{
    load::{Source, all, spread},
    measure::{Bound, CPU, Goal, RATE, Sample, interleave},
    process::settle,
    systems::{
        lastword::{Node, TABLE},
        mariadb::MariaDb,
    },
};

const INSERT: &str = "client, 1,000 rows a statement";
const INSERT_2: &str = "client, 1,000 rows a statement, 2 connections";

const ROWS: u64 = 200_000;
const BATCH: usize = 128;
const STATEMENT_ROWS: usize = 1_000;
const LIMIT: Duration = Duration::from_secs(300);
const NAMES: [&str; 7] = ["id", "name", "email", "amount", "at", "active", "note"];
const SHAPE: &str = "id BIGINT UNSIGNED NOT NULL PRIMARY KEY, name VARCHAR(60) NOT NULL, \
                     email VARCHAR(100) NOT NULL, amount DECIMAL(12,2) NOT NULL, \
                     at DATETIME(6) NOT NULL, active TINYINT NOT NULL, note VARCHAR(100)";
const SETTINGS: &str = "[[table]]\nname = \"bench\"\nmirror = \"columns\"\n";

/// Into an empty table.
pub(super) const MIRROR_COLUMNS: Case = Case {
    name: "mirror-columns",
    title: "The first fill of an empty table of ordinary columns",
    about: "lastword: a node with 200,000 rows (a tenth in a quick run), JSON objects of 7 members, is \
            started with a database that has an empty table of 7 columns (BIGINT key, VARCHAR, \
            DECIMAL, DATETIME(6), TINYINT); the time is from the start of its process until all rows \
            are there. The client loads as many rows of the same columns: prepared INSERTs of 1,000 rows.",
    figures: &[RATE],
    contenders: &[LASTWORD, INSERT, INSERT_2],
    goals: &[AT_LEAST_HALF],
    run: |bench| Box::pin(fill(bench)),
};

/// Writes over rows that are there, as they come.
pub(super) const MIRROR_COLUMNS_STEADY: Case = Case {
    name: "mirror-columns-steady",
    title: "Every row of a table of ordinary columns is written over",
    about: "The same rows and columns, all of them there already. lastword: clients write them over, over 4 \
            streams in batches of 128; the time is from the first write until MariaDB has them \
            all, and server CPU is that of node and MariaDB. The client: prepared INSERT ... ON \
            DUPLICATE KEY UPDATE of 1,000 rows, each statement a transaction.",
    figures: &[RATE, CPU],
    contenders: &[LASTWORD, INSERT, INSERT_2],
    goals: &[AT_LEAST_HALF],
    run: |bench| Box::pin(steady(bench)),
};

const AT_LEAST_HALF: Goal =
    Goal { figure: RATE, ours: LASTWORD, peers: &[INSERT, INSERT_2], bound: Bound::AtLeast(0.5) };

async fn fill(bench: &Bench) -> anyhow::Result<Outcome> {
    let rows = bench.rows(ROWS);
    let mariadb = MariaDb::alone(&bench.place).await?;
    let mut node = Node::new(&bench.place, "fra")?;
    node.start().await?;
    node.fill_rows(0..rows, BATCH, LIMIT, |n, source| (id(n), object(n, source))).await?;
    settle(&[node.cpu()?]).await?;
    // Not measured: makes both sides warm.
    filled(&mut node, &mariadb, "warm", rows).await?;

    let mut number = 0;
    let runs = interleave(bench.rounds, MIRROR_COLUMNS.contenders, async |contender| {
        number += 1;
        let database = format!("fill_{number}");
        let seconds = if contender == LASTWORD {
            filled(&mut node, &mariadb, &database, rows).await?
        } else {
            make(&mariadb, &database).await?;
            let connections = if contender == INSERT { 1 } else { 2 };
            let began = Instant::now();
            write(&mariadb, &database, rows, connections, "").await?;
            began.elapsed().as_secs_f64()
        };
        let count = mariadb.count(&format!("{database}.{TABLE}")).await?;
        ensure!(count == rows, "{count} rows are there instead of {rows}");
        mariadb.conn().await?.query_drop(format!("DROP DATABASE {database}")).await?;
        settle(&[mariadb.cpu()?]).await?;
        Ok(Sample::default().with(RATE, rows as f64 / seconds))
    })
    .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}

async fn steady(bench: &Bench) -> anyhow::Result<Outcome> {
    let rows = bench.rows(ROWS);
    let mariadb = MariaDb::alone(&bench.place).await?;
    make(&mariadb, "mirrored").await?;
    make(&mariadb, "plain").await?;
    let mut node = Node::new(&bench.place, "fra")?;
    mirror(&mut node, &mariadb, "mirrored")?;
    node.start().await?;
    let row = |n, source: &mut Source| (id(n), object(n, source));
    node.fill_rows(0..rows, BATCH, LIMIT, row).await?;
    caught_up(&node).await?;
    write(&mariadb, "plain", rows, 1, "").await?;
    let all_cpu = [node.cpu()?, mariadb.cpu()?];
    settle(&all_cpu).await?;
    let updates: Vec<_> = NAMES[1..].iter().map(|name| format!("{name}=VALUES({name})")).collect();
    let over = format!(" ON DUPLICATE KEY UPDATE {}", updates.join(","));
    let runs = interleave(bench.rounds, MIRROR_COLUMNS_STEADY.contenders, async |contender| {
        let (began, before) = (Instant::now(), spent(&all_cpu)?);
        match contender {
            LASTWORD => {
                node.fill_rows(0..rows, BATCH, LIMIT, row).await?;
                caught_up(&node).await?;
            }
            INSERT => write(&mariadb, "plain", rows, 1, &over).await?,
            _ => write(&mariadb, "plain", rows, 2, &over).await?,
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

/// From its next start on the node mirrors into this database, into a table of columns.
fn mirror(node: &mut Node, mariadb: &MariaDb, database: &str) -> anyhow::Result<()> {
    node.flag("--mysql", &mariadb.url_of(database));
    node.settings(SETTINGS)
}

async fn make(mariadb: &MariaDb, database: &str) -> anyhow::Result<()> {
    let mut conn = mariadb.conn().await?;
    conn.query_drop(format!("CREATE DATABASE {database}")).await?;
    conn.query_drop(format!("CREATE TABLE {database}.{TABLE} ({SHAPE}) ENGINE=InnoDB")).await?;
    Ok(())
}

/// Seconds from the start of the node until MySQL has all; the node is stopped before and afterwards.
async fn filled(
    node: &mut Node,
    mariadb: &MariaDb,
    database: &str,
    rows: u64,
) -> anyhow::Result<f64> {
    make(mariadb, database).await?;
    if node.cpu().is_ok() {
        node.stop().await?;
    }
    mirror(node, mariadb, database)?;
    seconds_to_fill(node, rows).await
}

/// Writes all rows; `after` ends each statement.
async fn write(
    mariadb: &MariaDb,
    database: &str,
    rows: u64,
    connections: usize,
    after: &str,
) -> anyhow::Result<()> {
    let mut shares = Vec::new();
    for (share, mut source) in Source::many(connections).into_iter().enumerate() {
        let mut conn = mariadb.conn().await?;
        conn.query_drop(format!("USE {database}")).await?;
        let after = after.to_owned();
        shares.push(async move {
            let mut numbers = spread(0..rows).skip(share).step_by(connections).peekable();
            while numbers.peek().is_some() {
                let chunk: Vec<u64> = numbers.by_ref().take(STATEMENT_ROWS).collect();
                let places = vec!["(?,?,?,?,?,?,?)"; chunk.len()].join(",");
                let names = NAMES.join(",");
                let statement = format!("INSERT INTO {TABLE} ({names}) VALUES {places}{after}");
                let cells = chunk.iter().flat_map(|n| cells(*n, &mut source));
                conn.exec_drop(statement, cells.collect::<Vec<_>>()).await?;
            }
            Ok(())
        });
    }
    all(shares, LIMIT).await?;
    Ok(())
}

fn id(n: u64) -> Bytes {
    n.to_string().into()
}

/// The columns of a row but for its key: name, email, amount, at, active, note.
fn texts(n: u64, source: &mut Source) -> (String, String, String, String, u64, String) {
    let note: String = source.value()[..30].iter().map(|byte| format!("{byte:02x}")).collect();
    let (name, email) = (format!("Customer {n:09}"), format!("customer-{n}@example.com"));
    let amount = format!("{}.{:02}", n % 100_000, n % 100);
    (name, email, amount, format!("2026-01-01 12:34:56.{:06}", n % 1_000_000), n % 2, note)
}

fn object(n: u64, source: &mut Source) -> Bytes {
    let (name, email, amount, at, active, note) = texts(n, source);
    format!(
        "{{\"id\":{n},\"name\":\"{name}\",\"email\":\"{email}\",\"amount\":\"{amount}\",\"at\":\"{at}\",\
         \"active\":{active},\"note\":\"{note}\"}}"
    )
    .into()
}

fn cells(n: u64, source: &mut Source) -> [Value; 7] {
    let (name, email, amount, at, active, note) = texts(n, source);
    [n.into(), name.into(), email.into(), amount.into(), at.into(), active.into(), note.into()]
}
