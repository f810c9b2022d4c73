//! The load: the same workers for every system, which differ in one operation only.
//!
//! ```text
//! |-- warm up --|-- measured --------------|   each worker sends its next operation at once
//!               ^ server's CPU time        ^   what ends in between counts
//! ```
//!
//! All workers are tasks of this one process; so is the client library that they call, and both
//! share the machine with the server, whichever it is.

use std::{
    future::Future,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use crate::{
    measure::{CPU, P50, P99, RATE, Sample},
    process::{Cpu, settle},
};

/// The keys are the numbers below this, as 16 characters.
pub(crate) const KEYS: u64 = 1_000_000;
/// Bytes of a value: noise, which nobody can compress.
pub(crate) const VALUE_BYTES: usize = 100;

/// Where values are cut from, so that making one costs no system more than another.
const NOISE_BYTES: usize = 1 << 20;
/// An operation that takes longer fails the case.
pub(crate) const OPERATION_MAX: Duration = Duration::from_secs(60);
pub(crate) const WARM_UP: Duration = Duration::from_secs(1);

/// What one call of a worker did.
pub(crate) struct Done {
    pub(crate) rows: u64,
    pub(crate) began: Instant,
}

/// What a worker does over and over.
pub(crate) trait Operation: Send + 'static {
    /// The next one, until it is acknowledged.
    fn next(&mut self) -> impl Future<Output = anyhow::Result<Done>> + Send;
}

/// Random keys and values.
#[derive(Clone)]
pub(crate) struct Source {
    random: SmallRng,
    noise: Bytes,
    keys: u64,
}

impl Source {
    /// A source with so many keys; no two of this process make the same choices.
    pub(crate) fn over(keys: u64) -> Source {
        static SEED: AtomicU64 = AtomicU64::new(0);
        let mut random = SmallRng::seed_from_u64(SEED.fetch_add(1, Ordering::Relaxed));
        let mut noise = vec![0; NOISE_BYTES];
        random.fill(&mut noise[..]);
        Source { random, noise: noise.into(), keys }
    }

    /// One for each of so many workers, over the usual keys.
    pub(crate) fn many(workers: usize) -> Vec<Source> {
        let mut first = Source::over(KEYS);
        let mut forked =
            || Source { random: SmallRng::from_rng(&mut first.random), ..first.clone() };
        (0..workers).map(|_| forked()).collect()
    }

    /// The same with another number of keys.
    pub(crate) fn with_keys(self, keys: u64) -> Source {
        Source { keys, ..self }
    }

    pub(crate) fn key(&mut self) -> Bytes {
        key(self.random.random_range(0..self.keys))
    }

    pub(crate) fn value(&mut self) -> Bytes {
        let at = self.random.random_range(0..NOISE_BYTES - VALUE_BYTES);
        self.noise.slice(at..at + VALUE_BYTES)
    }
}

/// A key by its number: 16 bytes, written as redis-benchmark writes it, so that it finds our rows.
pub(crate) fn key(number: u64) -> Bytes {
    format!("key:{number:012}").into()
}

/// These numbers, each once, in an order that jumps about: a load that is not sorted. Their count
/// is made of twos and fives only.
pub(crate) fn spread(rows: Range<u64>) -> impl Iterator<Item = u64> + Send {
    // Odd and no multiple of 5, so that it has no factor in common with the count.
    const STEP: u64 = 618_033_989;
    let count = rows.end - rows.start;
    (0..count).map(move |n| rows.start + n * (STEP % count) % count)
}

/// What all workers did within the measured time.
pub(crate) struct Tally {
    pub(crate) rows: u64,
    latencies_us: Histogram<u64>,
    seconds: f64,
}

impl Tally {
    pub(crate) fn new(seconds: f64) -> Tally {
        let latencies_us = Histogram::new_with_bounds(1, 120_000_000, 3).expect("sound bounds");
        Tally { rows: 0, latencies_us, seconds }
    }

    pub(crate) fn record(&mut self, rows: u64, latency: Duration) {
        self.rows += rows;
        let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.latencies_us.saturating_record(us.max(1));
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.rows += other.rows;
        self.latencies_us.add(&other.latencies_us).expect("the same bounds");
    }

    /// Rate and latencies.
    pub(crate) fn sample(&self) -> Sample {
        let ms = |quantile| self.latencies_us.value_at_quantile(quantile) as f64 / 1_000.0;
        Sample::default()
            .with(RATE, self.rows as f64 / self.seconds)
            .with(P50, ms(0.5))
            .with(P99, ms(0.99))
    }
}

/// Runs a closed loop on every worker and gives its figures; `cpu` is that of the servers, which
/// are quiet again when this returns.
pub(crate) async fn closed<O: Operation>(
    workers: Vec<O>,
    seconds: f64,
    cpu: &[Cpu],
) -> anyhow::Result<Sample> {
    let sample = closed_unsettled(workers, seconds, cpu).await?;
    settle(cpu).await?;
    Ok(sample)
}

/// The same, and returns at once.
pub(crate) async fn closed_unsettled<O: Operation>(
    workers: Vec<O>,
    seconds: f64,
    cpu: &[Cpu],
) -> anyhow::Result<Sample> {
    let start = Instant::now() + WARM_UP;
    let end = start + Duration::from_secs_f64(seconds);
    let mut tasks = JoinSet::new();
    for worker in workers {
        tasks.spawn(work(worker, start, end));
    }
    sleep_until(start).await;
    let before = total(cpu)?;
    sleep_until(end).await;
    let spent = total(cpu)?.saturating_sub(before);

    let mut tally = Tally::new(seconds);
    let limit = end + OPERATION_MAX;
    while let Some(joined) = timeout_at(limit, tasks.join_next()).await.context("a worker hangs")? {
        tally.add(&joined??);
    }
    ensure!(tally.rows > 0, "nothing was done in {seconds} s");
    Ok(tally.sample().with(CPU, spent.as_secs_f64() * 1e6 / tally.rows as f64))
}

fn total(cpu: &[Cpu]) -> anyhow::Result<Duration> {
    cpu.iter().map(|cpu| cpu.spent()).sum()
}

async fn work<O: Operation>(mut worker: O, start: Instant, end: Instant) -> anyhow::Result<Tally> {
    let mut tally = Tally::new((end - start).as_secs_f64());
    loop {
        let next = timeout(OPERATION_MAX, worker.next()).await;
        let done = next.context("an operation takes too long")??;
        let now = Instant::now();
        if now >= end {
            return Ok(tally);
        }
        if now >= start {
            tally.record(done.rows, now - done.began);
        }
    }
}

/// Does the same work once on every worker, such as its share of a first load.
pub(crate) async fn all<T, F>(
    work: impl IntoIterator<Item = F>,
    limit: Duration,
) -> anyhow::Result<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let mut tasks: JoinSet<_> = work.into_iter().collect();
    let mut done = Vec::new();
    let until = Instant::now() + limit;
    while let Some(joined) = timeout_at(until, tasks.join_next())
        .await
        .with_context(|| format!("not done within {} s", limit.as_secs()))?
    {
        done.push(joined??);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn keys_have_16_bytes_and_values_100() {
        let mut source = Source::over(KEYS);
        assert_eq!(source.key().len(), 16);
        assert_eq!(source.value().len(), VALUE_BYTES);
        assert_eq!(key(9_999_999).len(), 16);
    }

    #[test]
    fn a_spread_load_has_every_number_once() {
        for rows in [0..10, 50..1_050, 0..200_000] {
            let expected: HashSet<_> = rows.clone().collect();
            assert_eq!(spread(rows.clone()).count(), expected.len());
            assert_eq!(spread(rows).collect::<HashSet<_>>(), expected);
        }
    }

    #[test]
    fn latencies_are_reported_in_milliseconds() {
        let mut tally = Tally::new(2.0);
        for ms in 1..=100 {
            tally.record(1, Duration::from_millis(ms));
        }
        let sample = tally.sample();
        assert_eq!(sample.get(RATE), Some(50.0));
        assert!((sample.get(P50).expect("measured") - 50.0).abs() < 0.1);
        assert!((sample.get(P99).expect("measured") - 99.0).abs() < 0.1);
    }
}
