//! A peer that is no node: it dials one and says what a test wants, frame by frame.

use std::{net::SocketAddr, time::Duration};

use lastword::wire::{
    delta::Delta,
    proto::{
        ExchangeRequest, ExchangeResponse, Frame, Hello, Ping, Pong, Want, frame::Kind,
        replication_service_client::ReplicationServiceClient,
    },
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::LIMIT;

/// An open stream to a node.
pub(crate) struct RawPeer {
    out: mpsc::Sender<ExchangeRequest>,
    incoming: Streaming<ExchangeResponse>,
}

impl RawPeer {
    /// Dials; says nothing yet. The node's hello comes first.
    pub(crate) async fn dial(address: SocketAddr) -> RawPeer {
        let mut client =
            ReplicationServiceClient::connect(format!("http://{address}")).await.unwrap();
        let (out, queue) = mpsc::channel(4);
        let incoming = client.exchange(ReceiverStream::new(queue)).await.unwrap().into_inner();
        RawPeer { out, incoming }
    }

    /// Says hello as site `sin`, naming these capabilities, takes `pause` to answer the first Ping, and wants
    /// all rows.
    pub(crate) async fn introduce(&mut self, capabilities: &[&str], pause: Duration) {
        self.send(Kind::Hello(Hello {
            protocol_version: 1,
            cluster: "lastword".into(),
            site: "sin".into(),
            origin: vec![9; 16].into(),
            boot: 1,
            nonce: 1,
            capabilities: capabilities.iter().map(|&name| name.to_owned()).collect(),
            ..Hello::default()
        }))
        .await;
        let token = loop {
            if let Kind::Ping(Ping { token }) = self.next().await.expect("the stream goes on") {
                break token;
            }
        };
        tokio::time::sleep(pause).await;
        self.send(Kind::Pong(Pong { token, wall_ms: 0 })).await;
        self.send(Kind::Want(Want { heads: Vec::new(), number: 1, reconcile: false })).await;
    }

    pub(crate) async fn send(&mut self, kind: Kind) {
        self.out.send(ExchangeRequest { frame: Some(Frame { kind: Some(kind) }) }).await.unwrap();
    }

    /// The node's next frame; `None`: it ended the stream.
    pub(crate) async fn next(&mut self) -> Option<Kind> {
        let next = timeout(LIMIT, self.incoming.message()).await.expect("a frame in time");
        next.ok().flatten().map(|response| response.frame.unwrap().kind.unwrap())
    }

    /// The next delta with rows.
    pub(crate) async fn next_rows(&mut self) -> Delta {
        loop {
            match self.next().await.expect("the stream goes on") {
                Kind::Delta(delta) if delta.row_bytes > 0 => return delta,
                _ => {}
            }
        }
    }
}
