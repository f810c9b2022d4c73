//! The first fill of an empty database: by lastword's mirror, and by a client that loads the same
//! rows the fastest way it knows.

use std::{fmt::Write as _, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use mysql_async::{Conn, Value, prelude::Queryable};
use tokio::time::{Instant, timeout};

use super::{Bench, Case, LASTWORD, Outcome, steady::caught_up};
use crate::{
    load::{Source, all, key, spread},
    measure::{Bound, Goal, RATE, Sample, interleave},
    process::settle,
    systems::{
        lastword::{Node, TABLE},
        mariadb::MariaDb,
    },
};

const INSERT: &str = "client, INSERT of 1,000 rows";
const INSERT_2: &str = "client, INSERT of 1,000 rows, 2 connections";
const LOAD_DATA: &str = "client, LOAD DATA LOCAL INFILE";

const ROWS: u64 = 500_000;
const FILL_BATCH: usize = 128;
const INSERT_ROWS: usize = 1_000;
/// Rows in one LOAD DATA, which is one transaction.
const LOAD_ROWS: usize = 50_000;
const LIMIT: Duration = Duration::from_secs(300);
/// Stands for the moment and the store of a write: of the same size and type as the mirror's.
const UPDATED_AT: &str = "2026-01-01 12:34:56.789012";
const ORIGIN: [u8; 16] = [0xa5; 16];

/// The mirror's first fill.
pub(super) const MIRROR: Case = Case {
    name: "mirror",
    title: "The first fill of an empty MariaDB",
    about: "lastword: a node with 500,000 rows (a tenth in a quick run) is started with an empty \
            database to mirror into; the time is from the start of its process until its status \
            says that all rows are there, exactly once and with their checkpoint. The client \
            loads as many rows of the same size, in the same order, into a table of the same \
            shape in the same server: prepared multi-row INSERTs, or LOAD DATA.",
    figures: &[RATE],
    contenders: &[LASTWORD, INSERT, INSERT_2, LOAD_DATA],
    goals: &[Goal {
        figure: RATE,
        ours: LASTWORD,
        peers: &[INSERT, INSERT_2, LOAD_DATA],
        bound: Bound::AtLeast(0.8),
    }],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let rows = bench.rows(ROWS);
    let mariadb = MariaDb::alone(&bench.place).await?;
    let mut node = Node::alone(&bench.place).await?;
    node.fill(0..rows, FILL_BATCH, LIMIT).await?;
    // Not measured: makes the shape, and both sides warm.
    mirrored(&mut node, &mariadb, "shape", rows).await?;

    let mut number = 0;
    let runs = interleave(bench.rounds, MIRROR.contenders, async |contender| {
        number += 1;
        let database = format!("fill_{number}");
        let seconds = if contender == LASTWORD {
            mirrored(&mut node, &mariadb, &database, rows).await?
        } else {
            let mut conn = mariadb.conn().await?;
            conn.query_drop(format!("CREATE DATABASE {database}")).await?;
            conn.query_drop(format!("USE {database}")).await?;
            conn.query_drop(format!("CREATE TABLE {TABLE} LIKE shape.{TABLE}")).await?;
            let began = Instant::now();
            match contender {
                INSERT => insert(&mariadb, &database, rows, 1).await?,
                INSERT_2 => insert(&mariadb, &database, rows, 2).await?,
                _ => timeout(LIMIT, load_data(&mut conn, rows)).await.context("it hangs")??,
            }
            began.elapsed().as_secs_f64()
        };
        let count = mariadb.count(&format!("{database}.{TABLE}")).await?;
        ensure!(count == rows, "{count} rows are there instead of {rows}");
        let mut conn = mariadb.conn().await?;
        conn.query_drop(format!("DROP DATABASE {database}")).await?;
        settle(&[mariadb.cpu()?]).await?;
        Ok(Sample::default().with(RATE, rows as f64 / seconds))
    })
    .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}

/// Seconds from the start of the node until its mirror has all; the node is stopped afterwards.
async fn mirrored(
    node: &mut Node,
    mariadb: &MariaDb,
    database: &str,
    rows: u64,
) -> anyhow::Result<f64> {
    mariadb.conn().await?.query_drop(format!("CREATE DATABASE {database}")).await?;
    if node.cpu().is_ok() {
        node.stop().await?;
    }
    node.flag("--mysql", &mariadb.url_of(database));
    seconds_to_fill(node, rows).await
}

/// Seconds from the start of a node until the database that it mirrors into has all; then it is stopped.
pub(super) async fn seconds_to_fill(node: &mut Node, rows: u64) -> anyhow::Result<f64> {
    let began = Instant::now();
    node.start().await?;
    caught_up(node).await?;
    let seconds = began.elapsed().as_secs_f64();
    let mirror = node.status().await?.mirror.context("no mirror")?;
    ensure!(mirror.rows_applied >= rows, "{} rows are there of {rows}", mirror.rows_applied);
    node.stop().await?;
    Ok(seconds)
}

async fn insert(
    mariadb: &MariaDb,
    database: &str,
    rows: u64,
    connections: usize,
) -> anyhow::Result<()> {
    let mut shares = Vec::new();
    for (share, mut source) in Source::many(connections).into_iter().enumerate() {
        let mut conn = mariadb.conn().await?;
        conn.query_drop(format!("USE {database}")).await?;
        shares.push(async move {
            let mut numbers = spread(0..rows).skip(share).step_by(connections).peekable();
            while numbers.peek().is_some() {
                let chunk: Vec<u64> = numbers.by_ref().take(INSERT_ROWS).collect();
                let places = vec!["(?,?,?,?,?,?)"; chunk.len()].join(",");
                let columns = "k, v, hlc, origin, updated_at, expires_at";
                let statement = format!("INSERT INTO {TABLE} ({columns}) VALUES {places}");
                let cells = chunk.iter().flat_map(|n| cells(*n, &source.value()));
                conn.exec_drop(statement, cells.collect::<Vec<_>>()).await?;
            }
            Ok(())
        });
    }
    all(shares, LIMIT).await?;
    Ok(())
}

pub(super) fn cells(number: u64, value: &[u8]) -> [Value; 6] {
    let key = key(number);
    [
        Value::from(&key[..]),
        Value::from(value),
        Value::from(number),
        Value::from(&ORIGIN[..]),
        Value::from(UPDATED_AT),
        Value::NULL,
    ]
}

async fn load_data(conn: &mut Conn, rows: u64) -> anyhow::Result<()> {
    let mut source = Source::over(rows);
    let mut numbers = spread(0..rows).peekable();
    while numbers.peek().is_some() {
        // Made before it is sent, piece by piece.
        let chunk: Vec<u64> = numbers.by_ref().take(LOAD_ROWS).collect();
        let pieces: Vec<_> =
            chunk.chunks(INSERT_ROWS).map(|piece| Ok(lines(piece, &mut source))).collect();
        conn.set_infile_handler(async move { Ok(stream::iter(pieces).boxed()) });
        conn.query_drop(format!(
            "LOAD DATA LOCAL INFILE 'rows' INTO TABLE {TABLE} CHARACTER SET binary \
             FIELDS TERMINATED BY ',' (k, @v, hlc, @origin, updated_at) \
             SET v = UNHEX(@v), origin = UNHEX(@origin)"
        ))
        .await?;
    }
    Ok(())
}

/// Rows as text; what is binary in hexadecimal.
fn lines(numbers: &[u64], source: &mut Source) -> Bytes {
    let hex = |text: &mut String, bytes: &[u8]| {
        bytes.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a String takes all"));
    };
    let mut text = String::new();
    for number in numbers {
        write!(text, "key:{number:012},").expect("a String takes all");
        hex(&mut text, &source.value());
        write!(text, ",{number},").expect("a String takes all");
        hex(&mut text, &ORIGIN);
        writeln!(text, ",{UPDATED_AT}").expect("a String takes all");
    }
    text.into()
}
