//! A node in a temporary folder, served, with a clock that the test sets.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use lastword::{
    api,
    model::{Body, BodyParts, Context, Heads, Hlc, Key, Origin, Row, TableName, Version},
    node::{Node, NodeConfig, WallClock},
    store::RemoteBatch,
    wire::proto::{
        self,
        admin_service_client::AdminServiceClient,
        key_value_service_client::KeyValueServiceClient,
        replication_service_server::{ReplicationService, ReplicationServiceServer},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Channel, Endpoint},
};

/// 2025-10-09T08:53:20Z
pub(crate) const START_MS: u64 = 1_760_000_000_000;
/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Stands still unless it is set.
#[derive(Debug)]
pub(crate) struct TestClock(AtomicU64);

impl TestClock {
    pub(crate) fn set(&self, now_ms: u64) {
        self.0.store(now_ms, Ordering::Relaxed);
    }
}

impl WallClock for TestClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a test may change of the node and its server.
pub(crate) struct Settings {
    pub(crate) node: NodeConfig,
    pub(crate) api: api::Config,
}

/// A served node; its folder goes with it.
pub(crate) struct Served {
    pub(crate) node: Node,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) address: SocketAddr,
    pub(crate) client: KeyValueServiceClient<Channel>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) serving: JoinHandle<Result<(), api::ServeError>>,
    _folder: tempfile::TempDir,
}

impl Served {
    pub(crate) async fn new() -> Served {
        Served::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock(AtomicU64::new(START_MS)));
        let mut settings = Settings {
            node: NodeConfig {
                clock: Arc::clone(&clock) as Arc<dyn WallClock>,
                cache_bytes: 16 << 20,
                ..NodeConfig::new(folder.path().join("data"), "fra")
            },
            api: api::Config::default(),
        };
        change(&mut settings);
        let node = Node::open(settings.node).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(api::serve(
            node.clone(),
            settings.api,
            listener,
            ReplicationServiceServer::new(NoPeers),
            shutdown.clone(),
        ));
        let client = KeyValueServiceClient::new(channel(address));
        Served { node, clock, address, client, shutdown, serving, _folder: folder }
    }

    pub(crate) fn admin(&self) -> AdminServiceClient<Channel> {
        AdminServiceClient::new(channel(self.address))
    }

    /// A client that takes in little before it has read it.
    pub(crate) fn narrow_client(&self) -> KeyValueServiceClient<Channel> {
        let endpoint = endpoint(self.address)
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(64 << 10);
        KeyValueServiceClient::new(endpoint.connect_lazy())
    }

    /// A client that takes in little of a stream before it has read it, however small the frames are.
    pub(crate) fn patient_client(&self) -> KeyValueServiceClient<Channel> {
        let endpoint = endpoint(self.address)
            .initial_stream_window_size(64 << 10)
            .initial_connection_window_size(64 << 20);
        KeyValueServiceClient::new(endpoint.connect_lazy())
    }

    pub(crate) async fn put(&self, table: &str, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.client.clone().put(put(table, key, value)).await.unwrap();
    }

    pub(crate) async fn get(&self, table: &str, key: impl Into<Bytes>) -> Option<proto::Row> {
        let request = proto::GetRequest { table: table.into(), key: key.into(), ..<_>::default() };
        self.client.clone().get(request).await.unwrap().into_inner().row
    }

    pub(crate) async fn batch(
        &self,
        mutations: impl IntoIterator<Item = proto::mutation::Mutation>,
    ) -> Result<proto::BatchResponse, Status> {
        let mutations = mutations
            .into_iter()
            .map(|mutation| proto::Mutation { mutation: Some(mutation) })
            .collect();
        let answer = self
            .client
            .clone()
            .batch(proto::BatchRequest { mutations, ..Default::default() })
            .await?;
        Ok(answer.into_inner())
    }

    /// What a peer's link would bring: `rows`, and then a claim of `heads`.
    pub(crate) async fn merge(&self, rows: Vec<Row>, heads: Option<Heads>) {
        let batch = RemoteBatch { sender: peer(), rows, claim: heads, tentative: None };
        self.node.submit(batch).await.unwrap().merged().await.unwrap();
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).unwrap()
}

pub(crate) fn channel(address: SocketAddr) -> Channel {
    endpoint(address).connect_lazy()
}

/// The store of another site.
pub(crate) fn peer() -> Origin {
    Origin::from_bytes([0xbb; 16])
}

/// A row that the peer wrote `ms` after the start.
pub(crate) fn peer_row(key: &'static str, value: Option<&str>, ms: u64) -> Row {
    Row {
        table: TableName::of_client("t").unwrap(),
        key: Key::new(key).unwrap(),
        body: Body::new(&BodyParts {
            version: Version { hlc: Hlc::at_ms(START_MS + ms), origin: peer() },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: value.map(str::as_bytes),
        }),
    }
}

/// The peer's heads `ms` after the start.
pub(crate) fn peer_heads(ms: u64) -> Heads {
    [(peer(), Hlc::at_ms(START_MS + ms))].into_iter().collect()
}

pub(crate) fn put(
    table: &str,
    key: impl Into<Bytes>,
    value: impl Into<Bytes>,
) -> proto::PutRequest {
    proto::PutRequest {
        table: table.into(),
        key: key.into(),
        value: value.into(),
        ..Default::default()
    }
}

pub(crate) fn delete(table: &str, key: impl Into<Bytes>) -> proto::DeleteRequest {
    proto::DeleteRequest { table: table.into(), key: key.into(), ..Default::default() }
}

pub(crate) fn insert(table: &str, id_kind: proto::IdKind) -> proto::InsertRequest {
    proto::InsertRequest {
        table: table.into(),
        value: "v".into(),
        id_kind: id_kind as i32,
        ..Default::default()
    }
}

pub(crate) fn ttl_ms(ms: i64) -> Option<prost_types::Duration> {
    let nanos = i32::try_from(ms % 1_000 * 1_000_000).unwrap();
    Some(prost_types::Duration { seconds: ms / 1_000, nanos })
}

/// Refused with this code and a message that begins so.
#[track_caller]
pub(crate) fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, begins: &str) {
    let status = answer.expect_err("it must be refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().starts_with(begins), "{begins} begins {:?}", status.message());
}

/// Tries until it is true, for a bounded time.
pub(crate) async fn until(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let tried = async {
        while !check().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, tried).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

/// The service of peers is another edge's.
struct NoPeers;

#[tonic::async_trait]
impl ReplicationService for NoPeers {
    type ExchangeStream = tokio_stream::Empty<Result<proto::ExchangeResponse, Status>>;

    async fn exchange(
        &self,
        _: Request<Streaming<proto::ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        Err(Status::unimplemented("no peers here"))
    }
}
