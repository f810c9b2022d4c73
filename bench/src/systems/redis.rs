//! Redis with an append-only file that is synced before each acknowledgement, driven by the redis
//! crate and by redis-benchmark, its own load generator in C.
//!
//! Two clients, so that lastword is compared with the better of both.

use std::{net::SocketAddr, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use bytes::Bytes;
use redis::aio::MultiplexedConnection;
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

use super::{Place, START_MAX};
use crate::{
    load::{self, Done, Operation, Source, VALUE_BYTES, key, spread},
    measure::{CPU, P50, P99, RATE, Sample},
    process::{Cpu, Server, first_line, free_address, program, settle},
};

/// Rows in one write of a first load.
const FILL_PIPELINE: usize = 512;
const BENCHMARK_MAX: Duration = Duration::from_secs(120);

/// Requests a second to reckon with until the first measurement is there.
pub(crate) const RATE_GUESS: f64 = 5_000.0;

/// A running Redis.
pub(crate) struct Redis {
    server: Server,
    address: SocketAddr,
}

/// The command that redis-benchmark sends.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Set,
    Get,
}

impl Redis {
    pub(crate) async fn start(place: &Place) -> anyhow::Result<Redis> {
        let folder = place.make("redis")?;
        let address = free_address()?;
        let args = [
            ["--bind", "127.0.0.1"],
            ["--port", &address.port().to_string()],
            ["--dir", &folder.display().to_string()],
            ["--appendonly", "yes"],
            ["--appendfsync", "always"],
            // No snapshots beside the append-only file: they would only cost it time.
            ["--save", ""],
        ];
        let args: Vec<String> = args.concat().into_iter().map(Into::into).collect();
        let mut server = Server::start("Redis", &redis_program()?, &args, &folder.join("log"))?;
        server.listens(address, START_MAX).await?;
        Ok(Redis { server, address })
    }

    pub(crate) fn version() -> anyhow::Result<String> {
        first_line(&redis_program()?, &["--version"])
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.server.cpu()
    }

    async fn connection(&self) -> anyhow::Result<MultiplexedConnection> {
        let client = redis::Client::open(format!("redis://{}", self.address))?;
        Ok(client.get_multiplexed_async_connection().await?)
    }

    /// A connection for each source.
    pub(crate) async fn workers<W>(
        &self,
        sources: Vec<Source>,
        make: impl Fn(MultiplexedConnection, Source) -> W,
    ) -> anyhow::Result<Vec<W>> {
        let mut workers = Vec::new();
        for source in sources {
            workers.push(make(self.connection().await?, source));
        }
        Ok(workers)
    }

    /// Writes the rows 0 to `rows` once each; it is quiet again when this returns.
    pub(crate) async fn fill(&self, rows: u64, limit: Duration) -> anyhow::Result<()> {
        let mut connection = self.connection().await?;
        let mut source = Source::over(rows);
        let share = async move {
            let mut numbers = spread(0..rows).peekable();
            while numbers.peek().is_some() {
                let mut pipeline = redis::pipe();
                for n in numbers.by_ref().take(FILL_PIPELINE) {
                    pipeline.set(&key(n)[..], &source.value()[..]).ignore();
                }
                pipeline.query_async::<()>(&mut connection).await?;
            }
            Ok(())
        };
        load::all([share], limit).await?;
        settle(&[self.cpu()]).await
    }

    /// What redis-benchmark measures with so many requests. It is asked for a number of them, not a
    /// time: callers reckon with the rate that they have seen.
    pub(crate) async fn benchmark(
        &self,
        command: Kind,
        clients: usize,
        pipeline: usize,
        keys: u64,
        requests: f64,
    ) -> anyhow::Result<Sample> {
        let requests = requests.max(1_000.0) as u64;
        let before = self.cpu().spent()?;
        let output = Command::new(program("redis-benchmark")?)
            .args(["-h", "127.0.0.1", "-p", &self.address.port().to_string(), "--csv"])
            .args(["-c", &clients.to_string(), "-P", &pipeline.to_string()])
            .args(["-n", &requests.to_string(), "-r", &keys.to_string()])
            // Its keys are "key:" and 12 digits: 16 bytes, as everywhere here.
            .args(["-d", &VALUE_BYTES.to_string(), "-t"])
            .arg(match command {
                Kind::Set => "set",
                Kind::Get => "get",
            })
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = timeout(BENCHMARK_MAX, output).await.context("redis-benchmark hangs")??;
        ensure!(output.status.success(), "redis-benchmark failed ({})", output.status);
        let cpu = self.cpu().spent()?.saturating_sub(before);
        settle(&[self.cpu()]).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let (rate, p50_ms, p99_ms) =
            read_csv(&text).with_context(|| format!("redis-benchmark printed {text:?}"))?;
        Ok(Sample::default()
            .with(RATE, rate)
            .with(P50, p50_ms)
            .with(P99, p99_ms)
            .with(CPU, cpu.as_secs_f64() * 1e6 / requests as f64))
    }
}

fn redis_program() -> anyhow::Result<PathBuf> {
    program("redis-server")
}

/// Requests per second, p50 and p99 in ms, by the names of the columns.
fn read_csv(text: &str) -> Option<(f64, f64, f64)> {
    let mut lines = text.lines().filter(|line| line.starts_with('"'));
    let cells = |line: &str| -> Vec<String> {
        line.split(',').map(|cell| cell.trim().trim_matches('"').to_owned()).collect()
    };
    let (names, values) = (cells(lines.next()?), cells(lines.next()?));
    let value = |name: &str| {
        let column = names.iter().position(|found| found == name)?;
        values.get(column)?.parse().ok()
    };
    Some((value("rps")?, value("p50_latency_ms")?, value("p99_latency_ms")?))
}

/// SET after SET, as many at a time as `pipeline` says.
pub(crate) struct Set {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) source: Source,
    pub(crate) pipeline: usize,
}

impl Operation for Set {
    async fn next(&mut self) -> anyhow::Result<Done> {
        let mut pipeline = redis::pipe();
        for _ in 0..self.pipeline {
            let (key, value): (Bytes, Bytes) = (self.source.key(), self.source.value());
            pipeline.set(&key[..], &value[..]).ignore();
        }
        let began = Instant::now();
        pipeline.query_async::<()>(&mut self.connection).await?;
        Ok(Done { rows: self.pipeline as u64, began })
    }
}

/// GET after GET, of rows that are there.
pub(crate) struct Get {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) source: Source,
}

impl Operation for Get {
    async fn next(&mut self) -> anyhow::Result<Done> {
        let key = self.source.key();
        let began = Instant::now();
        let mut get = redis::cmd("GET");
        let value: Option<Vec<u8>> = get.arg(&key[..]).query_async(&mut self.connection).await?;
        value.context("a row is missing")?;
        Ok(Done { rows: 1, began })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_redis_benchmark_is_read_by_its_columns_names() {
        let text = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\
                    \"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\"\n\
                    \"SET\",\"12345.67\",\"0.5\",\"0.1\",\"0.415\",\"0.9\",\"1.231\",\"4.0\"\n";
        assert_eq!(read_csv(text), Some((12_345.67, 0.415, 1.231)));
        assert_eq!(read_csv(""), None);
        assert_eq!(read_csv("\"test\",\"rps\"\n\"SET\",\"1\"\n"), None);
    }
}
