//! The gRPC service that other nodes dial.

use std::{pin::Pin, sync::Arc};

use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::{
    FRAMES_QUEUED_MAX, Shared,
    exchange::{self, Link},
};
use crate::{
    node::Direction,
    wire::proto::{
        ExchangeRequest, ExchangeResponse, replication_service_server::ReplicationService,
    },
};

/// How many links may be accepted at once: far more than any cluster has members.
const LINKS_ACCEPTED_MAX: usize = 1_000;

/// Takes up the links that others dial.
#[derive(Debug)]
pub struct Acceptor {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    permits: Arc<tokio::sync::Semaphore>,
}

impl Acceptor {
    pub(super) fn new(shared: Arc<Shared>, tasks: TaskTracker) -> Acceptor {
        let permits = Arc::new(tokio::sync::Semaphore::new(LINKS_ACCEPTED_MAX));
        Acceptor { shared, tasks, permits }
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<ExchangeResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ReplicationService for Acceptor {
    type ExchangeStream = Frames;

    async fn exchange(
        &self,
        request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Frames>, Status> {
        if self.shared.shutdown.is_cancelled() {
            return Err(Status::unavailable("node: shutting down"));
        }
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("links: more than {LINKS_ACCEPTED_MAX} at once"))
        })?;
        let from = request.remote_addr();
        let (out, queue) = mpsc::channel(FRAMES_QUEUED_MAX);
        let incoming = request.into_inner().map(|request| request.map(|r| r.frame));
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let link = Link { direction: Direction::Accepted, out, incoming };
            // The dialler shows the error in its status; a peer we know shows it in ours.
            if let Err((error, _)) = exchange::drive(&shared, link, None).await {
                tracing::warn!(?from, %error, "accepted link");
            }
            drop(permit);
        });
        let frames =
            ReceiverStream::new(queue).map(|frame| Ok(ExchangeResponse { frame: Some(frame) }));
        Ok(Response::new(Box::pin(frames)))
    }
}
