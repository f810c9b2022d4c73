//! A server that does nothing: it answers every Get with the same row, over the same gRPC.
//!
//! It speaks lastword's proto and is called by lastword's client, with an answer that was taken
//! from a real node: what a Get costs more than this is what the node itself does. It runs in a
//! process of its own, this program's hidden command `echo`.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context;
use lastword::{
    client::{Client, Options},
    wire::proto::{
        BatchRequest, BatchResponse, BulkWriteRequest, BulkWriteResponse, DeleteRequest,
        DeleteResponse, GetManyRequest, GetManyResponse, GetRequest, GetResponse, InsertRequest,
        InsertResponse, PutRequest, PutResponse, ScanRequest, ScanResponse,
        key_value_service_server::{KeyValueService, KeyValueServiceServer},
    },
};
use prost::Message;
use tonic::{Request, Response, Status, Streaming, transport::Server as GrpcServer};

use super::{Place, START_MAX, shared};
use crate::{
    load::Source,
    process::{Cpu, Server, free_address},
};

/// A running echo.
pub(crate) struct Echo {
    server: Server,
    address: SocketAddr,
}

impl Echo {
    /// Starts one that answers with `answer`.
    pub(crate) async fn start(place: &Place, answer: &GetResponse) -> anyhow::Result<Echo> {
        let folder = place.make("echo")?;
        let file = folder.join("answer");
        std::fs::write(&file, answer.encode_to_vec())?;
        let address = free_address()?;
        let args = ["echo".into(), address.to_string(), file.display().to_string()];
        let program = std::env::current_exe()?;
        let mut server = Server::start("the echo", &program, &args, &folder.join("log"))?;
        server.listens(address, START_MAX).await?;
        Ok(Echo { server, address })
    }

    pub(crate) fn cpu(&self) -> Cpu {
        self.server.cpu()
    }

    /// A client for each source; 32 of them share a connection.
    pub(crate) fn workers<W>(
        &self,
        sources: Vec<Source>,
        make: impl Fn(Client, Source) -> W,
    ) -> anyhow::Result<Vec<W>> {
        let url = format!("http://{}", self.address);
        let connect = || Ok(Client::new([&url], Options::default())?);
        let clients = shared(sources.len(), connect)?;
        let client = |n: usize| clients[n % clients.len()].clone();
        Ok(sources.into_iter().enumerate().map(|(n, source)| make(client(n), source)).collect())
    }
}

/// The hidden command: serves until it is ended.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    address: SocketAddr,
    /// An encoded GetResponse
    answer: PathBuf,
}

impl Args {
    pub(crate) async fn serve(self) -> anyhow::Result<()> {
        let answer = std::fs::read(&self.answer)?;
        let answer = GetResponse::decode(&answer[..]).context("not an answer")?;
        let service = KeyValueServiceServer::new(Answering(answer));
        GrpcServer::builder().tcp_nodelay(true).add_service(service).serve(self.address).await?;
        Ok(())
    }
}

struct Answering(GetResponse);

type Answer<T> = Result<Response<T>, Status>;

fn nothing<T>() -> Answer<T> {
    Err(Status::unimplemented("only Get is answered"))
}

#[tonic::async_trait]
impl KeyValueService for Answering {
    type BulkWriteStream = tokio_stream::Empty<Result<BulkWriteResponse, Status>>;
    type ScanStream = tokio_stream::Empty<Result<ScanResponse, Status>>;

    async fn get(&self, request: Request<GetRequest>) -> Answer<GetResponse> {
        let mut answer = self.0.clone();
        if let Some(row) = &mut answer.row {
            row.key = request.into_inner().key;
        }
        Ok(Response::new(answer))
    }

    async fn get_many(&self, _: Request<GetManyRequest>) -> Answer<GetManyResponse> {
        nothing()
    }

    async fn put(&self, _: Request<PutRequest>) -> Answer<PutResponse> {
        nothing()
    }

    async fn delete(&self, _: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        nothing()
    }

    async fn insert(&self, _: Request<InsertRequest>) -> Answer<InsertResponse> {
        nothing()
    }

    async fn batch(&self, _: Request<BatchRequest>) -> Answer<BatchResponse> {
        nothing()
    }

    async fn bulk_write(
        &self,
        _: Request<Streaming<BulkWriteRequest>>,
    ) -> Answer<Self::BulkWriteStream> {
        nothing()
    }

    async fn scan(&self, _: Request<ScanRequest>) -> Answer<Self::ScanStream> {
        nothing()
    }
}
