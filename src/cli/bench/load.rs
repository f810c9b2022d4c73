//! The workers of a load.

use std::{collections::VecDeque, time::Duration};

use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use super::{
    profile::Profile,
    source::{Operation, Source},
};
use crate::{
    client::{Client, ClientError},
    wire::proto::{Mutation, PutRequest, mutation},
};

/// Latencies from a microsecond to a minute, to three digits.
const LATENCY_US_MAX: u64 = 60_000_000;
const SHOW_EVERY: Duration = Duration::from_millis(200);

/// What is put on each node.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub(super) profile: Profile,
    pub(super) table: String,
    pub(super) keys: u64,
    pub(super) workers: u64,
    /// Operations each second at each node.
    pub(super) rate: Option<u64>,
    /// Writes under way on each worker's stream; `None`: one call after another.
    pub(super) in_flight: Option<u64>,
    pub(super) duration: Duration,
    pub(super) seed: u64,
}

/// What one node did.
#[derive(Debug)]
pub(super) struct NodeResult {
    pub(super) server: String,
    /// Latencies in microseconds.
    pub(super) gets: Histogram<u64>,
    pub(super) hits: u64,
    pub(super) writes: Histogram<u64>,
    pub(super) failed: u64,
    pub(super) last_error: Option<String>,
}

impl NodeResult {
    fn new(server: &str) -> NodeResult {
        let histogram = || Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("sound bounds");
        NodeResult {
            server: server.to_owned(),
            gets: histogram(),
            hits: 0,
            writes: histogram(),
            failed: 0,
            last_error: None,
        }
    }

    fn add(&mut self, other: &NodeResult) {
        self.gets.add(&other.gets).expect("the same bounds");
        self.writes.add(&other.writes).expect("the same bounds");
        self.hits += other.hits;
        self.failed += other.failed;
        if other.last_error.is_some() {
            self.last_error.clone_from(&other.last_error);
        }
    }
}

/// Puts the load on all nodes at once; one result for each, in their order.
pub(super) async fn run(load: Load, nodes: Vec<(String, Vec<Client>)>) -> Vec<NodeResult> {
    let start = Instant::now();
    let end = start + load.duration;
    let mut results: Vec<_> = nodes.iter().map(|(server, _)| NodeResult::new(server)).collect();
    let mut workers = JoinSet::new();
    for (node, (server, clients)) in nodes.into_iter().enumerate() {
        for worker in 0..load.workers {
            let client = clients[worker as usize % clients.len()].clone();
            let number = node as u64 * load.workers + worker;
            let source = Source::new(load.profile, load.keys, number, load.seed);
            let (load, server) = (load.clone(), server.clone());
            workers.spawn(async move {
                let result = match load.in_flight {
                    Some(in_flight) => stream(load, in_flight, source, client, &server, end).await,
                    None => work(load, worker, source, client, &server, start, end).await,
                };
                (node, result)
            });
        }
    }
    let bar = progress(load.duration);
    let mut tick = interval(SHOW_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            done = workers.join_next() => match done {
                Some(Ok((node, result))) => results[node].add(&result),
                Some(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
                None => break,
            },
            _ = tick.tick() => bar.set_position(start.elapsed().as_millis() as u64),
        }
    }
    bar.finish_and_clear();
    results
}

fn progress(duration: Duration) -> ProgressBar {
    let bar = ProgressBar::new(duration.as_millis() as u64);
    let style = ProgressStyle::with_template("{bar:40} {percent}% {elapsed} of the load");
    bar.set_style(style.expect("a sound template"));
    bar
}

async fn work(
    load: Load,
    worker: u64,
    mut source: Source,
    mut client: Client,
    server: &str,
    start: Instant,
    end: Instant,
) -> NodeResult {
    let mut result = NodeResult::new(server);
    // With a rate, operation n of this worker is due at a time that does not depend on the others.
    let every = load.rate.map(|rate| Duration::from_secs_f64(load.workers as f64 / rate as f64));
    let offset =
        every.map_or(Duration::ZERO, |every| every.mul_f64(worker as f64 / load.workers as f64));
    let mut due = start + offset;
    loop {
        match every {
            Some(every) => {
                if due >= end {
                    return result;
                }
                sleep_until(due).await;
                operate(&load, &mut client, source.next(), due, &mut result).await;
                due += every;
            }
            None => {
                let now = Instant::now();
                if now >= end {
                    return result;
                }
                operate(&load, &mut client, source.next(), now, &mut result).await;
            }
        }
    }
}

/// Writes on one stream, up to `in_flight` at once.
async fn stream(
    load: Load,
    in_flight: u64,
    mut source: Source,
    mut client: Client,
    server: &str,
    end: Instant,
) -> NodeResult {
    let mut result = NodeResult::new(server);
    if let Err(error) =
        try_stream(&load, in_flight, &mut source, &mut client, end, &mut result).await
    {
        result.failed += 1;
        result.last_error = Some(error.to_string());
    }
    result
}

async fn try_stream(
    load: &Load,
    in_flight: u64,
    source: &mut Source,
    client: &mut Client,
    end: Instant,
    result: &mut NodeResult,
) -> Result<(), ClientError> {
    let (requests, mut answers) = client.bulk_write().await?;
    let mut requests = Some(requests);
    let ttl = prost_types::Duration::try_from(load.profile.ttl).ok();
    let mut sent = VecDeque::new();
    loop {
        if Instant::now() >= end {
            requests = None;
        }
        if let Some(requests) = &requests
            && (sent.len() as u64) < in_flight
        {
            let (key, value) = source.next_put();
            let put = PutRequest { table: load.table.clone(), key, value, ttl, ..<_>::default() };
            let mutation = Mutation { mutation: Some(mutation::Mutation::Put(put)) };
            sent.push_back(Instant::now());
            requests.send(vec![mutation]).await?;
            continue;
        }
        let Some(answer) = answers.next().await? else { return Ok(()) };
        let at = sent.pop_front().expect("an answer for each request");
        match answer.error {
            None => result.writes.record(latency_us(at)).expect("within the bounds"),
            Some(error) => {
                result.failed += 1;
                result.last_error = Some(error.message);
            }
        }
    }
}

fn latency_us(since: Instant) -> u64 {
    since.elapsed().as_micros().clamp(1, u128::from(LATENCY_US_MAX)) as u64
}

async fn operate(
    load: &Load,
    client: &mut Client,
    operation: Operation,
    due: Instant,
    result: &mut NodeResult,
) {
    let (is_get, outcome): (bool, Result<bool, ClientError>) = match operation {
        Operation::Get(key) => (true, client.get(&load.table, key).await.map(|row| row.is_some())),
        Operation::Put(key, value) => {
            let ttl = Some(load.profile.ttl);
            (false, client.put(&load.table, key, value, ttl).await.map(|_| false))
        }
        Operation::Delete(key) => (false, client.delete(&load.table, key).await.map(|_| false)),
    };
    match outcome {
        Ok(hit) => {
            let histogram = if is_get { &mut result.gets } else { &mut result.writes };
            histogram.record(latency_us(due)).expect("within the bounds");
            result.hits += u64::from(hit);
        }
        Err(error) => {
            result.failed += 1;
            result.last_error = Some(error.to_string());
        }
    }
}
