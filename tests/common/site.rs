//! A node within the test's own process, with its links and its API on a port of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use lastword::{
    api,
    model::{Body, Key, TableName},
    node::{Change, Mutation, Node, NodeConfig},
    protocol::Compression,
    replication::{Config, PeerConfig, Replication},
    store::ScanRange,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(30);

fn peer_config(address: &SocketAddr) -> PeerConfig {
    PeerConfig { address: format!("http://{address}"), compression: Compression::default() }
}

/// A node with its links.
pub(crate) struct Site {
    pub(crate) node: Node,
    pub(crate) address: SocketAddr,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    replication: Arc<Replication>,
    data: Arc<TempDir>,
}

impl Site {
    /// A new one, that dials `peers`.
    pub(crate) async fn start(name: &str, peers: &[SocketAddr]) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Site::start_on(name, listener, peers, Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// One whose folder is there.
    pub(crate) async fn start_on(
        name: &str,
        listener: TcpListener,
        peers: &[SocketAddr],
        data: Arc<TempDir>,
    ) -> Site {
        let node = Node::open(NodeConfig::new(data.path(), name)).await.unwrap();
        let shutdown = CancellationToken::new();
        let links = Config {
            peers: peers.iter().map(peer_config).collect(),
            heartbeat: Duration::from_millis(100),
            silence_max: Duration::from_millis(1_000),
            backoff_min: Duration::from_millis(10),
            backoff_max: Duration::from_millis(100),
            ..Config::default()
        };
        let replication = Arc::new(Replication::start(node.clone(), links, shutdown.clone()));
        let address = listener.local_addr().unwrap();
        let serving = api::serve(
            node.clone(),
            api::Config::default(),
            listener,
            replication.service(),
            shutdown.clone(),
        );
        let server = tokio::spawn(async move { serving.await.unwrap() });
        Site { node, address, shutdown, server, replication, data }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        self.node.write(vec![put(key, value)]).await.unwrap();
    }

    pub(crate) fn get(&self, key: &str) -> Option<String> {
        let row = self.node.snapshot().get(&table(), &Key::new(key.to_owned()).unwrap());
        let value = row.unwrap()?.value()?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    /// Every row, byte for byte.
    pub(crate) fn rows(&self) -> Vec<(Key, Body)> {
        let snapshot = self.node.snapshot();
        let rows = snapshot.scan(&table(), &ScanRange::default()).unwrap();
        rows.map(|row| row.unwrap()).map(|row| (row.key, row.body)).collect()
    }

    /// How many links are up.
    pub(crate) fn links(&self) -> usize {
        let peers = self.node.reports().peers();
        peers.iter().filter(|peer| peer.direction.is_some()).count()
    }

    /// Ends it; gives its folder.
    pub(crate) async fn stop(self) -> Arc<TempDir> {
        self.shutdown.cancel();
        self.replication.ended().await;
        self.server.await.unwrap();
        self.node.shutdown().await;
        self.data
    }
}

/// The table of all rows.
pub(crate) fn table() -> TableName {
    TableName::of_client("t").unwrap()
}

pub(crate) fn put(key: &str, value: &str) -> Mutation {
    let (key, value) = (Key::new(key.to_owned()).unwrap(), value.to_owned().into());
    Mutation { table: table(), change: Change::Put { key, value, ttl: None } }
}

/// Waits for a condition; fails with `what` when the time is up.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
