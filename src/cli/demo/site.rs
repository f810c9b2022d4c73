//! One site of the demo: a MariaDB, a node and a client.

use std::{
    net::SocketAddr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use tokio::time::Instant;

use super::{
    mariadb::{MariaDb, free_port},
    process::{Process, wait_until},
};
use crate::{
    client::{Client, Options},
    wire::proto::{self, IdKind, PutRequest, ScanRequest, mutation::Mutation},
};

/// The table that most of the story writes.
pub(super) const SESSIONS: &str = "sessions";
const ORDERS: &str = "orders";
/// The table that an application writes by SQL.
pub(super) const ARTICLES: &str = "articles";
/// What the nodes are told of it.
const SETTINGS: &str = "[[table]]\nname = \"articles\"\nmirror = \"columns\"\ncapture = true\n";
const START_MAX: Duration = Duration::from_secs(30);
/// How many sequence ids the two sites share out.
const SITES: u64 = 2;

/// A site.
pub(super) struct Site {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    pub(super) http_port: u16,
    pub(super) mariadb: MariaDb,
    sequence_offset: u64,
    folder: PathBuf,
    node: Process,
    client: Client,
    pages: usize,
}

/// A table of a MariaDB.
#[derive(Debug, PartialEq)]
pub(super) struct Table {
    pub(super) rows: usize,
    checksum: String,
    /// Every row, every column of it.
    dump: String,
}

impl Site {
    /// Starts a node that mirrors into `mariadb`.
    pub(super) async fn start(
        name: &'static str,
        sequence_offset: u64,
        mariadb: MariaDb,
        peer: Option<SocketAddr>,
        folder: &Path,
    ) -> anyhow::Result<Site> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        let http_port = free_port()?;
        let client = Client::new([format!("http://{address}")], Options::default())?;
        let node = spawn(name, sequence_offset, address, http_port, &mariadb, peer, folder)?;
        let mut site = Site {
            name,
            address,
            http_port,
            mariadb,
            sequence_offset,
            folder: folder.to_owned(),
            node,
            client,
            pages: 0,
        };
        site.wait_ready().await?;
        Ok(site)
    }

    /// Ends the node and starts it again with another peer.
    pub(super) async fn restart(&mut self, peer: Option<SocketAddr>) -> anyhow::Result<()> {
        self.node.stop().await;
        let (name, offset) = (self.name, self.sequence_offset);
        self.node =
            spawn(name, offset, self.address, self.http_port, &self.mariadb, peer, &self.folder)?;
        self.wait_ready().await
    }

    async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let what = format!("the node at {} to answer", self.name);
        wait_until(&what, START_MAX, async || {
            self.node.check()?;
            Ok(self.client.status().await.is_ok())
        })
        .await?;
        Ok(())
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes pages of updates, each in one batch; gives the mean time of one.
    pub(super) async fn write_pages(
        &mut self,
        pages: usize,
        updates: usize,
    ) -> anyhow::Result<Duration> {
        let start = Instant::now();
        for _ in 0..pages {
            self.pages += 1;
            let page = self.pages;
            let mutations = (0..updates).map(|n| proto::Mutation {
                mutation: Some(Mutation::Put(PutRequest {
                    table: SESSIONS.into(),
                    key: format!("{}-page-{page:04}-{n:02}", self.name).into(),
                    value: format!("{{\"site\":\"{}\",\"page\":{page},\"n\":{n}}}", self.name)
                        .into(),
                    ttl: None,
                    session: Bytes::new(),
                })),
            });
            self.client.batch(mutations.collect()).await?;
        }
        let pages = u32::try_from(pages).context("a few pages")?;
        Ok(start.elapsed() / pages.max(1))
    }

    pub(super) async fn put(&mut self, key: &str, value: &str) -> anyhow::Result<()> {
        self.client.put(SESSIONS, key.to_owned(), value.to_owned(), None).await?;
        Ok(())
    }

    pub(super) async fn delete(&mut self, key: &str) -> anyhow::Result<()> {
        self.client.delete(SESSIONS, key.to_owned()).await?;
        Ok(())
    }

    pub(super) async fn get(&mut self, key: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let row = self.client.get(SESSIONS, key.to_owned()).await?;
        Ok(row.map(|row| row.value.to_vec()))
    }

    /// Inserts an order under a sequence id, which is returned.
    pub(super) async fn insert(&mut self, value: &str) -> anyhow::Result<String> {
        let inserted = self.client.insert(ORDERS, value.to_owned(), None, IdKind::Sequence).await?;
        Ok(String::from_utf8_lossy(&inserted.key).into_owned())
    }

    /// Keys and values of the sessions whose key begins so.
    pub(super) async fn rows_with_prefix(
        &mut self,
        prefix: &str,
    ) -> anyhow::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let request = ScanRequest { prefix: prefix.to_owned().into(), ..scan(SESSIONS) };
        let rows = self.scan(request).await?;
        Ok(rows.into_iter().map(|row| (row.key.to_vec(), row.value.to_vec())).collect())
    }

    /// Every row with its version.
    pub(super) async fn all_rows(&mut self) -> anyhow::Result<Vec<proto::Row>> {
        let mut rows = self.scan(scan(SESSIONS)).await?;
        rows.extend(self.scan(scan(ORDERS)).await?);
        Ok(rows)
    }

    async fn scan(&mut self, request: ScanRequest) -> anyhow::Result<Vec<proto::Row>> {
        let mut rows = Vec::new();
        let mut scan = self.client.scan(request).await?;
        while let Some(part) = scan.next().await? {
            rows.extend(part);
        }
        Ok(rows)
    }

    pub(super) async fn connected(&mut self) -> anyhow::Result<bool> {
        Ok(self.client.status().await?.peers.iter().any(|peer| peer.connected))
    }

    pub(super) async fn conflicts(&mut self) -> anyhow::Result<u64> {
        let status = self.client.status().await?;
        Ok(status.node.map_or(0, |node| node.conflicts_recorded))
    }

    /// One line on the other site.
    pub(super) async fn peer_line(&mut self) -> anyhow::Result<String> {
        let status = self.client.status().await?;
        let peer = status.peers.first().context("no peer yet")?;
        let yes_no = |yes| if yes { "Yes" } else { "No" };
        Ok(format!(
            "receiving {}, applying {}, {:.1} s behind {}; {} rows wait for {}",
            yes_no(peer.receiving),
            yes_no(peer.applying),
            peer.behind_seconds.unwrap_or_default(),
            peer.site,
            peer.peer_behind_rows,
            peer.site,
        ))
    }

    /// Whether MariaDB holds just what the node holds.
    pub(super) async fn mirrored(&mut self) -> anyhow::Result<bool> {
        for table in [SESSIONS, ORDERS] {
            let rows = self.scan(scan(table)).await?;
            let wanted: String = rows
                .iter()
                .map(|row| {
                    let hlc = row.version.as_ref().map_or(0, |version| version.hlc);
                    format!("{}\t{}\t{hlc}\n", hex(&row.key), hex(&row.value))
                })
                .collect();
            let statement = format!("SELECT HEX(k), HEX(v), hlc FROM {table} ORDER BY k");
            if self.mariadb.query(&statement).await.ok() != Some(wanted) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether what applications write is captured, and nothing waits.
    pub(super) async fn articles_captured(&self) -> anyhow::Result<bool> {
        let mut client = self.client.clone();
        let mirror = client.status().await?.mirror.unwrap_or_default();
        let tables = mirror.capture.unwrap_or_default().tables;
        let idle = |table: &proto::CapturedTable| {
            table.state() == proto::CaptureState::On && table.pending == 0
        };
        let waits = mirror.waiting_tables.len() + mirror.behind_rows as usize;
        Ok(tables.iter().any(idle) && waits == 0)
    }

    /// What MariaDB holds.
    pub(super) async fn table(&self, table: &str) -> anyhow::Result<Table> {
        let dump = match table {
            ARTICLES => "SELECT * FROM articles ORDER BY id".to_owned(),
            _ => format!(
                "SELECT HEX(k), HEX(v), hlc, HEX(origin), updated_at, expires_at FROM {table} \
                 ORDER BY k"
            ),
        };
        let dump = self.mariadb.query(&dump).await?;
        let checksum = self.mariadb.query(&format!("CHECKSUM TABLE {table}")).await?;
        let checksum = checksum.split_whitespace().last().unwrap_or_default().to_owned();
        Ok(Table { rows: dump.lines().count(), checksum, dump })
    }

    pub(super) async fn stop(&self) {
        self.node.stop().await;
        self.mariadb.process.stop().await;
    }

    /// Lets both processes run on; gives their ids, the node's first.
    pub(super) fn leave(&self) -> Vec<u32> {
        let ids = [self.node.id(), self.mariadb.process.id()];
        self.node.leave();
        self.mariadb.process.leave();
        ids.into_iter().flatten().collect()
    }
}

impl Table {
    pub(super) fn summary(&self) -> String {
        format!("{} rows, checksum {}", self.rows, self.checksum)
    }
}

fn scan(table: &str) -> ScanRequest {
    ScanRequest { table: table.to_owned(), ..ScanRequest::default() }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

fn spawn(
    name: &str,
    sequence_offset: u64,
    address: SocketAddr,
    http_port: u16,
    mariadb: &MariaDb,
    peer: Option<SocketAddr>,
    folder: &Path,
) -> anyhow::Result<Process> {
    let own = std::env::current_exe().context("cannot find the lastword program itself")?;
    let settings = folder.join("lastword.toml");
    std::fs::write(&settings, SETTINGS).context("cannot write lastword.toml")?;
    let mut command = std::process::Command::new(own);
    command
        .args(["serve", "--site", name])
        .arg("--data")
        .arg(folder.join(format!("lastword-{name}")))
        .args(["--listen", &address.to_string()])
        .args(["--http", &format!("127.0.0.1:{http_port}")])
        .args(["--mysql", &mariadb.url()])
        .arg("--config")
        .arg(settings)
        .args(["--sequence-offset", &sequence_offset.to_string()])
        .args(["--sequence-increment", &SITES.to_string()])
        // Ctrl-C is the demo's to handle.
        .process_group(0);
    if let Some(peer) = peer {
        command.args(["--peer", &format!("http://{peer}")]);
    }
    let log = folder.join(format!("lastword-{name}.log"));
    Process::spawn(&format!("lastword at {name}"), command, &log)
}
