//! The nodes of a client: which one is in use, and which is asked next.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, timeout};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use crate::wire::{
    proto::{
        admin_service_client::AdminServiceClient, key_value_service_client::KeyValueServiceClient,
    },
    windows,
};

use super::{
    ANSWER_BYTES_MAX, NODES_MAX, Options,
    error::{ClientError, Failure},
};

/// A connection that is idle this long is asked for a sign of life.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// And counts as broken when none comes in this time.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);

/// What it does to send a call to a second node where the first may have done it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// It leaves the same rows.
    Harmless,
    /// It makes another row.
    Harmful,
}

/// One node's services, over one connection that is made when needed.
#[derive(Clone, Debug)]
pub(super) struct Node {
    url: String,
    pub(super) key_values: KeyValueServiceClient<Channel>,
    pub(super) admin: AdminServiceClient<Channel>,
}

#[derive(Clone, Debug)]
pub(super) struct Nodes {
    /// In order of preference; never empty.
    nodes: Vec<Node>,
    in_use: usize,
    /// When a less preferred node was taken into use.
    away_since: Option<Instant>,
    options: Options,
}

impl Nodes {
    pub(super) fn new<S: AsRef<str>>(
        servers: impl IntoIterator<Item = S>,
        options: Options,
    ) -> Result<Nodes, ClientError> {
        let wrong = |address: &str, reason: String| ClientError::Address {
            address: address.to_owned(),
            reason,
        };
        let mut nodes = Vec::new();
        for server in servers {
            let url = server.as_ref();
            if nodes.len() == NODES_MAX {
                return Err(wrong(url, format!("is one too many: give at most {NODES_MAX}")));
            }
            let endpoint = Endpoint::from_shared(url.to_owned())
                .map_err(|_| wrong(url, "is not a URL: write http://HOST:PORT".to_owned()))?;
            let endpoint = windows::of_endpoint(endpoint)
                .connect_timeout(options.connect_timeout)
                .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .tcp_nodelay(true);
            let channel = endpoint.connect_lazy();
            nodes.push(Node {
                url: url.to_owned(),
                key_values: KeyValueServiceClient::new(channel.clone())
                    .max_decoding_message_size(ANSWER_BYTES_MAX),
                admin: AdminServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            });
        }
        if nodes.is_empty() {
            return Err(wrong("", "give at least one server".to_owned()));
        }
        Ok(Nodes { nodes, in_use: 0, away_since: None, options })
    }

    /// The address of the node in use.
    pub(super) fn in_use(&self) -> &str {
        &self.nodes[self.in_use].url
    }

    /// The node in use.
    pub(super) fn node_in_use(&self) -> &Node {
        &self.nodes[self.in_use]
    }

    pub(super) fn request_timeout(&self) -> Duration {
        self.options.request_timeout
    }

    /// Calls the node in use; where that cannot do it, each other node once, in order.
    pub(super) async fn call<Q, A, F>(
        &mut self,
        repeat: Repeat,
        request: Q,
        send: impl Fn(Node, Q) -> F,
    ) -> Result<A, ClientError>
    where
        Q: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        if self.away_since.is_some_and(|at| at.elapsed() >= self.options.prefer_again_after) {
            self.take_into_use(0);
        }
        let after = self.options.request_timeout;
        let mut unreachable = Vec::new();
        let mut unavailable = None;
        let mut lost = None;
        for _ in 0..self.nodes.len() {
            let node = self.nodes[self.in_use].clone();
            let server = node.url.clone();
            let answer = timeout(after, send(node, request.clone())).await;
            let failure = match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) => Failure::of(status),
                Err(_) => {
                    // The next call need not wait for this node again.
                    self.take_next_into_use();
                    return Err(ClientError::TimedOut { server, after });
                }
            };
            match failure {
                Failure::Refused(status) => {
                    return Err(ClientError::Refused { server, status: Box::new(status) });
                }
                Failure::NotSent { reason } => unreachable.push((server, reason)),
                Failure::Unavailable(status) => {
                    unavailable = Some(ClientError::Refused { server, status: Box::new(status) });
                }
                Failure::Lost { reason } => {
                    let error = ClientError::Lost { server, reason };
                    if repeat == Repeat::Harmful {
                        self.take_next_into_use();
                        return Err(error);
                    }
                    lost = Some(error);
                }
            }
            self.take_next_into_use();
        }
        // What may have been done weighs most.
        Err(lost.or(unavailable).unwrap_or(ClientError::Unreachable(unreachable)))
    }

    fn take_next_into_use(&mut self) {
        self.take_into_use((self.in_use + 1) % self.nodes.len());
    }

    fn take_into_use(&mut self, index: usize) {
        self.in_use = index;
        self.away_since = match index {
            0 => None,
            _ => self.away_since.or_else(|| Some(Instant::now())),
        };
    }
}
