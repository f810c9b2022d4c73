//! How long after its acknowledgement at one site a write can be read at the other.

use std::{future::Future, time::Duration};

use ::lastword::client::Client;
use anyhow::{Context, ensure};
use bytes::Bytes;
use mysql_async::{Conn, Statement, prelude::Queryable};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{Bench, Case, LASTWORD, MARIADB_PAIR, Outcome};
use crate::{
    load::{OPERATION_MAX, Source, Tally, WARM_UP, all, key},
    measure::{Bound, Goal, P50, P99, Sample, interleave},
    process::settle,
    systems::{
        lastword::{self, TABLE},
        mariadb::{self, REPLACE, SELECT},
    },
};

/// Writes a second, of all writers together.
const RATE: u64 = 1_000;
/// So many that none is late while another waits for its sync.
const WRITERS: u64 = 32;
/// One write in so many is looked for at the other site.
const PROBED: u64 = 10;
/// More than are written in the longest round.
const KEYS_A_ROUND: u64 = 1_000_000;
/// Acknowledged writes of one writer that wait to be looked for.
const WAITING_MAX: usize = 1_024;

/// Replication lag.
pub(super) const LAG: Case = Case {
    name: "lag",
    title: "Replication lag at 1,000 writes a second",
    about: "An open loop of 1,000 single-row writes a second at one site, at fixed times. Each \
            tenth one is looked for at the other site, read after read without a pause, from its \
            acknowledgement until it is there: lastword Get, MariaDB SELECT by primary key.",
    figures: &[P50, P99],
    contenders: &[LASTWORD, MARIADB_PAIR],
    goals: &[
        Goal { figure: P50, ours: LASTWORD, peers: &[MARIADB_PAIR], bound: Bound::AtMost(0.8) },
        Goal { figure: P99, ours: LASTWORD, peers: &[MARIADB_PAIR], bound: Bound::AtMost(0.8) },
    ],
    run: |bench| Box::pin(run(bench)),
};

async fn run(bench: &Bench) -> anyhow::Result<Outcome> {
    let place = &bench.place;
    let nodes = lastword::start_pair(place, [None, None]).await?;
    let masters = mariadb::start_pair(place, &[]).await?;
    let mut first = 0;

    let runs = interleave(bench.rounds, LAG.contenders, async |contender| {
        // Every write has a key of its own: it is there as soon as its key is.
        first += KEYS_A_ROUND;
        let sources = Source::many(WRITERS as usize);
        if contender == LASTWORD {
            let mut pairs = Vec::new();
            for source in sources {
                let [writer, probe] = [nodes[0].client()?, nodes[1].client()?].map(LastwordSite);
                pairs.push((writer, probe, source));
            }
            let sample = measure(pairs, first, bench.seconds).await?;
            settle(&[nodes[0].cpu()?, nodes[1].cpu()?]).await?;
            Ok(sample)
        } else {
            let mut pairs = Vec::new();
            for source in sources {
                let writer = MariaDbSite::at(masters[0].conn().await?).await?;
                let probe = MariaDbSite::at(masters[1].conn().await?).await?;
                pairs.push((writer, probe, source));
            }
            let sample = measure(pairs, first, bench.seconds).await?;
            settle(&[masters[0].cpu()?, masters[1].cpu()?]).await?;
            Ok(sample)
        }
    })
    .await?;
    Ok(Outcome { runs, notes: Vec::new() })
}

/// A connection to one site.
trait Site: Send + 'static {
    fn write(
        &mut self,
        key: Bytes,
        value: Bytes,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
    fn has(&mut self, key: Bytes) -> impl Future<Output = anyhow::Result<bool>> + Send;
}

struct LastwordSite(Client);

impl Site for LastwordSite {
    async fn write(&mut self, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        self.0.put(TABLE, key, value, None).await?;
        Ok(())
    }

    async fn has(&mut self, key: Bytes) -> anyhow::Result<bool> {
        Ok(self.0.get(TABLE, key).await?.is_some())
    }
}

struct MariaDbSite {
    conn: Conn,
    replace: Statement,
    select: Statement,
}

impl MariaDbSite {
    async fn at(mut conn: Conn) -> anyhow::Result<MariaDbSite> {
        let (replace, select) = (conn.prep(REPLACE).await?, conn.prep(SELECT).await?);
        Ok(MariaDbSite { conn, replace, select })
    }
}

impl Site for MariaDbSite {
    async fn write(&mut self, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        Ok(self.conn.exec_drop(&self.replace, (&key[..], &value[..])).await?)
    }

    async fn has(&mut self, key: Bytes) -> anyhow::Result<bool> {
        let value: Option<Vec<u8>> = self.conn.exec_first(&self.select, (&key[..],)).await?;
        Ok(value.is_some())
    }
}

/// Runs all writers with their probes; latencies are lags.
async fn measure<S: Site>(
    pairs: Vec<(S, S, Source)>,
    first: u64,
    seconds: f64,
) -> anyhow::Result<Sample> {
    let start = Instant::now() + WARM_UP;
    let end = start + Duration::from_secs_f64(seconds);
    let every = Duration::from_secs(WRITERS) / u32::try_from(RATE)?;
    let limit = WARM_UP + Duration::from_secs_f64(seconds) + OPERATION_MAX;
    let pairs = (0..).zip(pairs).map(|(number, (mut writer, mut probe, mut source))| async move {
        let (acknowledged, mut waiting) = mpsc::channel(WAITING_MAX);
        let write = async move {
            // Writers are due one after another, not all at once.
            let mut due =
                start - WARM_UP + every * u32::try_from(number)? / u32::try_from(WRITERS)?;
            for n in 0.. {
                if due >= end {
                    break;
                }
                sleep_until(due).await;
                due += every;
                let key = key(first + number + n * WRITERS);
                timeout(OPERATION_MAX, writer.write(key.clone(), source.value())).await??;
                let at = Instant::now();
                if n % PROBED == 0 && at >= start {
                    acknowledged.send((key, at)).await.context("the probe has ended")?;
                }
            }
            anyhow::Ok(())
        };
        let look = async move {
            let mut lags = Tally::new(seconds);
            while let Some((key, at)) = waiting.recv().await {
                while !probe.has(key.clone()).await? {
                    ensure!(at.elapsed() < OPERATION_MAX, "a write does not get across");
                }
                lags.record(1, at.elapsed());
            }
            anyhow::Ok(lags)
        };
        let ((), lags) = tokio::try_join!(write, look)?;
        Ok(lags)
    });
    let mut lags = Tally::new(seconds);
    for of_one in all(pairs, limit).await? {
        lags.add(&of_one);
    }
    ensure!(lags.rows > 0, "nothing was probed");
    Ok(lags.sample())
}
