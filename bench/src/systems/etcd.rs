//! etcd: one member, as its package brings it. It syncs its log before it acknowledges.
//!
//! Its client here is tonic with the few messages of etcd's API that are needed, so that lastword
//! and etcd are driven by the same library in the same way. (The crate `etcd-client` is tonic as
//! well, but cannot be built without a system `protoc`.)

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use tokio::time::Instant;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{Place, REQUEST_MAX, START_MAX, shared};
use crate::{
    load::{self, Done, Operation, Source, key, spread},
    process::{Cpu, Server, first_line, free_address, program, settle, wait_until},
};

/// Operations that a transaction may hold, unless etcd is told otherwise.
const TRANSACTION_MAX: usize = 128;

/// etcd's messages, as far as they are used: etcd/api/etcdserverpb/rpc.proto.
mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PutRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
        #[prost(bytes = "bytes", tag = "2")]
        pub(super) value: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RangeRequest {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RangeResponse {
        #[prost(message, repeated, tag = "2")]
        pub(super) kvs: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KeyValue {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) key: Bytes,
        #[prost(bytes = "bytes", tag = "5")]
        pub(super) value: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct TxnRequest {
        #[prost(message, repeated, tag = "2")]
        pub(super) success: Vec<RequestOp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct RequestOp {
        #[prost(message, optional, tag = "2")]
        pub(super) put: Option<PutRequest>,
    }

    /// An answer of which nothing is used: its fields are passed over.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Acknowledged {}
}

/// A running etcd.
pub(crate) struct Etcd {
    server: Server,
    address: SocketAddr,
    args: Vec<String>,
    log: PathBuf,
}

impl Etcd {
    pub(crate) async fn start(place: &Place) -> anyhow::Result<Etcd> {
        let folder = place.make("etcd")?;
        let (address, peer) = (free_address()?, free_address()?);
        let args = vec![
            format!("--data-dir={}", folder.join("data").display()),
            format!("--listen-client-urls=http://{address}"),
            format!("--advertise-client-urls=http://{address}"),
            format!("--listen-peer-urls=http://{peer}"),
            format!("--initial-advertise-peer-urls=http://{peer}"),
            format!("--initial-cluster=default=http://{peer}"),
            // Room for all rounds; it would refuse to write at 2 GiB.
            "--quota-backend-bytes=8589934592".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let log = folder.join("log");
        let server = Server::start("etcd", &etcd_program()?, &args, &log)?;
        let mut etcd = Etcd { server, address, args, log };
        etcd.answers().await?;
        Ok(etcd)
    }

    /// Ends it in order and starts it on the same files.
    pub(crate) async fn restart(self) -> anyhow::Result<Etcd> {
        let Etcd { server, address, args, log } = self;
        server.stop().await?;
        let server = Server::start("etcd", &etcd_program()?, &args, &log)?;
        let mut etcd = Etcd { server, address, args, log };
        etcd.answers().await?;
        settle(&[etcd.cpu()]).await?;
        Ok(etcd)
    }

    async fn answers(&mut self) -> anyhow::Result<()> {
        self.server.listens(self.address, START_MAX).await?;
        let mut client = self.client()?;
        wait_until("etcd to answer", START_MAX, async || Ok(client.get(key(0)).await.is_ok())).await
    }

    pub(crate) fn version() -> anyhow::Result<String> {
        first_line(&etcd_program()?, &["--version"])
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.server.cpu()
    }

    fn client(&self) -> anyhow::Result<Client> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address))?;
        let channel = endpoint.tcp_nodelay(true).timeout(REQUEST_MAX).connect_lazy();
        Ok(Client { grpc: Grpc::new(channel) })
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

    /// Writes the rows 0 to `rows` once each; it is quiet again when this returns.
    pub(crate) async fn fill(&self, rows: u64, limit: Duration) -> anyhow::Result<()> {
        const SHARES: usize = 8;
        let workers = self.workers(Source::many(SHARES), |client, source| (client, source))?;
        let shares = (0..).zip(workers).map(|(share, (mut client, mut source))| async move {
            let mut numbers = spread(0..rows).skip(share).step_by(SHARES).peekable();
            while numbers.peek().is_some() {
                let batch = numbers.by_ref().take(TRANSACTION_MAX);
                client.put_all(batch.map(|n| (key(n), source.value())).collect()).await?;
            }
            Ok(())
        });
        load::all(shares, limit).await?;
        settle(&[self.cpu()]).await
    }
}

fn etcd_program() -> anyhow::Result<PathBuf> {
    program("etcd")
}

/// The calls that are used.
#[derive(Clone)]
pub(crate) struct Client {
    grpc: Grpc<Channel>,
}

impl Client {
    async fn call<Q, A>(&mut self, path: &'static str, request: Q) -> anyhow::Result<A>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        self.grpc.ready().await?;
        let path = PathAndQuery::from_static(path);
        let codec: ProstCodec<Q, A> = ProstCodec::default();
        Ok(self.grpc.unary(Request::new(request), path, codec).await?.into_inner())
    }

    async fn put(&mut self, key: Bytes, value: Bytes) -> anyhow::Result<()> {
        let request = proto::PutRequest { key, value };
        let _: proto::Acknowledged = self.call("/etcdserverpb.KV/Put", request).await?;
        Ok(())
    }

    async fn get(&mut self, key: Bytes) -> anyhow::Result<Option<Bytes>> {
        let request = proto::RangeRequest { key };
        let answer: proto::RangeResponse = self.call("/etcdserverpb.KV/Range", request).await?;
        Ok(answer.kvs.into_iter().next().map(|row| row.value))
    }

    /// All in one transaction.
    async fn put_all(&mut self, rows: Vec<(Bytes, Bytes)>) -> anyhow::Result<()> {
        let put = |(key, value)| proto::RequestOp { put: Some(proto::PutRequest { key, value }) };
        let request = proto::TxnRequest { success: rows.into_iter().map(put).collect() };
        let _: proto::Acknowledged = self.call("/etcdserverpb.KV/Txn", request).await?;
        Ok(())
    }
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
        self.client.put(key, value).await?;
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
        self.client.get(key).await?.context("a row is missing")?;
        Ok(Done { rows: 1, began })
    }
}

/// Transaction after transaction, each of as many rows as etcd allows.
pub(crate) struct Transaction {
    pub(crate) client: Client,
    pub(crate) source: Source,
}

impl Operation for Transaction {
    async fn next(&mut self) -> anyhow::Result<Done> {
        // etcd refuses a transaction that writes a key twice.
        let mut rows = std::collections::BTreeMap::new();
        while rows.len() < TRANSACTION_MAX {
            rows.insert(self.source.key(), self.source.value());
        }
        let began = Instant::now();
        self.client.put_all(rows.into_iter().collect()).await?;
        Ok(Done { rows: TRANSACTION_MAX as u64, began })
    }
}
