//! lastword: the release binary, run as a user runs it, and the project's own Rust client.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, bail};
use bytes::Bytes;
use lastword::{
    client::{BulkAnswers, BulkRequests, Client, Options},
    wire::proto::{Mutation, PutRequest, ScanRequest, StatusResponse, mutation},
};
use tokio::time::Instant;

use super::{Place, REQUEST_MAX, START_MAX, line::Line, shared};
use crate::{
    load::{self, Done, Operation, Source, key, spread},
    process::{Cpu, Server, free_address, settle, wait_until},
};

/// The table that everything is written to.
pub(crate) const TABLE: &str = "bench";
/// Requests under way on one stream of a load; a node takes no more of one stream at once.
const IN_FLIGHT_MAX: usize = 1_024;

/// A node: its folder and address stay the same over every start.
pub(crate) struct Node {
    site: String,
    binary: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    flags: BTreeMap<String, String>,
    server: Option<Server>,
}

impl Node {
    /// A node that does not run yet.
    pub(crate) fn new(place: &Place, site: &str) -> anyhow::Result<Node> {
        Ok(Node {
            site: site.to_owned(),
            binary: place.lastword.clone(),
            folder: place.make(&format!("lastword-{site}"))?,
            address: free_address()?,
            flags: BTreeMap::new(),
            server: None,
        })
    }

    /// A node alone, running.
    pub(crate) async fn alone(place: &Place) -> anyhow::Result<Node> {
        let mut node = Node::new(place, "fra")?;
        node.start().await?;
        Ok(node)
    }

    /// With a flag of `lastword serve`, from its next start on.
    pub(crate) fn flag(&mut self, name: &str, value: &str) {
        self.flags.insert(name.to_owned(), value.to_owned());
    }

    /// With a settings file of this text, from its next start on.
    pub(crate) fn settings(&mut self, text: &str) -> anyhow::Result<()> {
        let file = self.folder.join("lastword.toml");
        std::fs::write(&file, text)?;
        self.flag("--config", &file.display().to_string());
        Ok(())
    }

    /// Starts it; it answers when this returns.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        self.spawn()?;
        self.answers().await
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let mut args: Vec<String> =
            ["serve", "--site", &self.site, "--listen"].map(Into::into).into();
        args.push(self.address.to_string());
        args.extend(["--http", "127.0.0.1:0", "--data"].map(Into::into));
        args.push(self.data().display().to_string());
        args.extend(self.flags.iter().flat_map(|(name, value)| [name.clone(), value.clone()]));
        let name = format!("lastword at {}", self.site);
        self.server = Some(Server::start(&name, &self.binary, &args, &self.folder.join("log"))?);
        Ok(())
    }

    /// Waits until it answers.
    pub(crate) async fn answers(&mut self) -> anyhow::Result<()> {
        let mut client = self.client()?;
        let what = format!("lastword at {} to answer", self.site);
        wait_until(&what, START_MAX, async || {
            self.server.as_mut().context("not started")?.check()?;
            Ok(client.status().await.is_ok())
        })
        .await
    }

    /// Ends it in order; what it has is in its folder.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.server.take().context("not started")?.stop().await
    }

    /// Ends it as power loss would.
    pub(crate) fn kill9(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill9();
        }
    }

    /// Writes its file anew; it must be stopped.
    pub(crate) async fn compact(&self, limit: Duration) -> anyhow::Result<()> {
        let mut compact = tokio::process::Command::new(&self.binary);
        compact.arg("compact").arg("--data").arg(self.data()).kill_on_drop(true);
        let output =
            tokio::time::timeout(limit, compact.output()).await.context("compacting")??;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "lastword compact: {error}");
        Ok(())
    }

    pub(crate) fn server(&self) -> anyhow::Result<&Server> {
        self.server.as_ref().context("not started")
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        Ok(self.server()?.cpu())
    }

    /// The folder of its store.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Where clients and peers reach it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client with a connection of its own.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let options = Options { request_timeout: REQUEST_MAX, ..Options::default() };
        Ok(Client::new([self.url()], options)?)
    }

    /// A client for each source; 32 of them share a connection.
    pub(crate) fn workers<W>(
        &self,
        sources: Vec<Source>,
        make: impl Fn(Client, Source) -> W,
    ) -> anyhow::Result<Vec<W>> {
        let clients = shared(sources.len(), || self.client())?;
        let client = |n: usize| clients[n % clients.len()].clone();
        Ok(sources.into_iter().enumerate().map(|(n, source)| make(client(n), source)).collect())
    }

    /// Streams with a connection each, each with `in_flight` requests of `batch` rows under way.
    pub(crate) async fn streams(
        &self,
        streams: usize,
        in_flight: usize,
        batch: usize,
    ) -> anyhow::Result<Vec<Stream>> {
        let mut opened = Vec::new();
        for source in Source::many(streams) {
            opened.push(Stream::open(self.client()?, source, in_flight, batch).await?);
        }
        Ok(opened)
    }

    /// Writes these rows once each, over several streams; it is quiet again when this returns.
    pub(crate) async fn fill(
        &self,
        rows: Range<u64>,
        batch: usize,
        limit: Duration,
    ) -> anyhow::Result<()> {
        self.fill_unsettled(rows, batch, limit).await?;
        settle(&[self.cpu()?]).await
    }

    /// The same, and returns with the last acknowledgement.
    pub(crate) async fn fill_unsettled(
        &self,
        rows: Range<u64>,
        batch: usize,
        limit: Duration,
    ) -> anyhow::Result<()> {
        self.fill_rows(rows, batch, limit, |n, source| (key(n), source.value())).await
    }

    /// The same with keys and values that `row` makes.
    pub(crate) async fn fill_rows(
        &self,
        rows: Range<u64>,
        batch: usize,
        limit: Duration,
        row: impl Fn(u64, &mut Source) -> (Bytes, Bytes) + Copy + Send + 'static,
    ) -> anyhow::Result<()> {
        const STREAMS: usize = 4;
        let mut shares = Vec::new();
        for (share, source) in Source::many(STREAMS).into_iter().enumerate() {
            let mut client = self.client()?;
            let numbers = spread(rows.clone()).skip(share).step_by(STREAMS);
            shares.push(async move { fill_share(&mut client, numbers, source, batch, row).await });
        }
        load::all(shares, limit).await?;
        Ok(())
    }

    /// The rows of the table. (Those of the status are of all tables, the system's own as well.)
    pub(crate) async fn count(&self) -> anyhow::Result<u64> {
        let mut client = self.client()?;
        let request =
            ScanRequest { table: TABLE.to_owned(), keys_only: true, ..ScanRequest::default() };
        let mut scan = client.scan(request).await?;
        let mut rows = 0;
        while let Some(part) = scan.next().await? {
            rows += part.len() as u64;
        }
        Ok(rows)
    }

    pub(crate) async fn status(&self) -> anyhow::Result<StatusResponse> {
        Ok(self.client()?.status().await?)
    }
}

/// Two nodes that are each other's peer, running, each with a mirror where it is given a database.
pub(crate) async fn start_pair(
    place: &Place,
    mysql: [Option<String>; 2],
) -> anyhow::Result<[Node; 2]> {
    let mut pair = [Node::new(place, "fra")?, Node::new(place, "nyc")?];
    let urls = [pair[1].url(), pair[0].url()];
    for ((node, peer), mysql) in pair.iter_mut().zip(&urls).zip(&mysql) {
        node.flag("--peer", peer);
        if let Some(mysql) = mysql {
            node.flag("--mysql", mysql);
        }
    }
    run_pair(&mut pair).await?;
    Ok(pair)
}

/// Two nodes at the ends of a line on which each direction takes `delay`.
pub(crate) async fn start_pair_over(
    place: &Place,
    delay: Duration,
) -> anyhow::Result<([Node; 2], Line)> {
    let mut pair = [Node::new(place, "fra")?, Node::new(place, "nyc")?];
    let line = Line::open(pair[1].address, delay).await?;
    pair[0].flag("--peer", &format!("http://{}", line.address));
    run_pair(&mut pair).await?;
    Ok((pair, line))
}

async fn run_pair(pair: &mut [Node; 2]) -> anyhow::Result<()> {
    for node in pair.iter_mut() {
        node.spawn()?;
    }
    for node in pair.iter_mut() {
        node.answers().await?;
    }
    linked(pair).await
}

/// Waits until both nodes exchange.
async fn linked(pair: &[Node; 2]) -> anyhow::Result<()> {
    wait_until("the two nodes to exchange", START_MAX, async || {
        for node in pair {
            let status = node.status().await?;
            if !status.peers.iter().any(|peer| peer.receiving && peer.applying) {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// Writes one more row at one node and waits until the other one has it. Rows of one node get
/// across in the order in which they were written, so the other one then has all. Gives the row's
/// key.
pub(crate) async fn all_across(from: &Node, to: &Node, limit: Duration) -> anyhow::Result<Bytes> {
    static MARKS: AtomicU64 = AtomicU64::new(0);
    let mark = Bytes::from(format!("mark:{:011}", MARKS.fetch_add(1, Ordering::Relaxed)));
    from.client()?.put(TABLE, mark.clone(), Bytes::from_static(b"all"), None).await?;
    // A client of its own: with the writer's session it would wait for what it has seen.
    let mut reader = to.client()?;
    wait_until("a node to have all rows of the other", limit, async || {
        Ok(reader.get(TABLE, mark.clone()).await?.is_some())
    })
    .await?;
    Ok(mark)
}

/// A write of one row.
pub(crate) fn put(key: Bytes, value: Bytes) -> Mutation {
    let put = PutRequest { table: TABLE.to_owned(), key, value, ..PutRequest::default() };
    Mutation { mutation: Some(mutation::Mutation::Put(put)) }
}

/// Put after Put.
pub(crate) struct Put {
    pub(crate) client: Client,
    pub(crate) source: Source,
}

impl Operation for Put {
    async fn next(&mut self) -> anyhow::Result<Done> {
        let (key, value) = (self.source.key(), self.source.value());
        let began = Instant::now();
        self.client.put(TABLE, key, value, None).await?;
        Ok(Done { rows: 1, began })
    }
}

/// Get after Get, of rows that are there.
pub(crate) struct Get {
    pub(crate) client: Client,
    pub(crate) source: Source,
}

impl Operation for Get {
    async fn next(&mut self) -> anyhow::Result<Done> {
        let key = self.source.key();
        let began = Instant::now();
        let row = self.client.get(TABLE, key).await?;
        row.context("a row is missing")?;
        Ok(Done { rows: 1, began })
    }
}

/// A load over one stream, with a number of requests always under way.
pub(crate) struct Stream {
    requests: BulkRequests,
    answers: BulkAnswers,
    source: Source,
    in_flight: usize,
    batch: usize,
    sent: VecDeque<Instant>,
}

impl Stream {
    async fn open(
        mut client: Client,
        source: Source,
        in_flight: usize,
        batch: usize,
    ) -> anyhow::Result<Stream> {
        let (requests, answers) = client.bulk_write().await?;
        Ok(Stream { requests, answers, source, in_flight, batch, sent: VecDeque::new() })
    }
}

impl Operation for Stream {
    async fn next(&mut self) -> anyhow::Result<Done> {
        while self.sent.len() < self.in_flight {
            let rows = (0..self.batch).map(|_| put(self.source.key(), self.source.value()));
            let rows = rows.collect();
            self.sent.push_back(Instant::now());
            self.requests.send(rows).await?;
        }
        let answer = self.answers.next().await?.context("the stream has ended")?;
        if let Some(error) = answer.error {
            bail!("a write was refused: {}", error.message);
        }
        let began = self.sent.pop_front().context("an answer to nothing")?;
        Ok(Done { rows: self.batch as u64, began })
    }
}

/// Writes these rows over one stream and waits for the last answer.
async fn fill_share(
    client: &mut Client,
    mut numbers: impl Iterator<Item = u64>,
    mut source: Source,
    batch: usize,
    row: impl Fn(u64, &mut Source) -> (Bytes, Bytes),
) -> anyhow::Result<()> {
    let (requests, mut answers) = client.bulk_write().await?;
    let mut requests = Some(requests);
    let mut under_way = 0;
    loop {
        if let Some(open) = &requests
            && under_way < IN_FLIGHT_MAX
        {
            let made = numbers.by_ref().take(batch).map(|n| row(n, &mut source));
            let rows: Vec<_> = made.map(|(key, value)| put(key, value)).collect();
            if rows.is_empty() {
                requests = None;
            } else {
                open.send(rows).await?;
                under_way += 1;
            }
            continue;
        }
        let Some(answer) = answers.next().await? else { return Ok(()) };
        under_way -= 1;
        if let Some(error) = answer.error {
            bail!("a write was refused: {}", error.message);
        }
    }
}
