//! A load: batch after batch on one stream, many under way at once.
//!
//! ```text
//! requests --> checked --> writer's queue --+   at most UNDER_WAY_MAX wait for their commit
//! answers  <-- in the same order <----------+
//! ```
//!
//! A client that reads its answers late is read late itself: nothing piles up here.

use std::{pin::Pin, sync::Arc};

use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Status, Streaming};

use crate::{
    node::{Node, Writing},
    wire::{limits::Limits, proto, rows},
};

/// How many requests of one stream may wait for their commit.
const UNDER_WAY_MAX: usize = 1_024;
/// And how many KiB they may come to.
const UNDER_WAY_KIB_MAX: usize = 32 << 10;

/// The answers, in the order of the requests.
pub(super) type BulkStream =
    Pin<Box<dyn Stream<Item = Result<proto::BulkWriteResponse, Status>> + Send>>;

/// A request that is in the writer's queue, or was wrong, and its share of the stream's bytes.
struct UnderWay {
    writing: Result<Writing, Status>,
    _room: OwnedSemaphorePermit,
}

/// Takes up a load; it ends with the client's stream, or when the node stops.
pub(super) fn start(
    node: Node,
    limits: Arc<Limits>,
    requests: Streaming<proto::BulkWriteRequest>,
) -> BulkStream {
    let (under_way, queue) = mpsc::channel(UNDER_WAY_MAX);
    tokio::spawn(take(node, limits, requests, under_way));
    let answers = ReceiverStream::new(queue).then(async |request: Result<UnderWay, Status>| {
        let committed = match request?.writing {
            Ok(writing) => writing.written().await.map_err(Status::from),
            Err(status) => Err(status),
        };
        Ok(rows::bulk_out(committed))
    });
    Box::pin(answers)
}

/// Reads requests until the stream ends or nobody wants the answers.
async fn take(
    node: Node,
    limits: Arc<Limits>,
    mut requests: Streaming<proto::BulkWriteRequest>,
    under_way: mpsc::Sender<Result<UnderWay, Status>>,
) {
    let room = Arc::new(Semaphore::new(UNDER_WAY_KIB_MAX));
    loop {
        let request = match requests.message().await {
            Ok(Some(request)) => {
                // A request larger than all of the room waits until it is alone.
                let kib = (request.encoded_len() / 1_024 + 1).min(UNDER_WAY_KIB_MAX);
                let kib = u32::try_from(kib).expect("at most the room");
                let share = Arc::clone(&room).acquire_many_owned(kib).await;
                let _room = share.expect("it is never closed");
                UnderWay { writing: begin(&node, &limits, request).await, _room }
            }
            Ok(None) => return,
            // The stream is broken: what is under way is still answered, where anybody listens.
            Err(status) => {
                let _ = under_way.send(Err(status)).await;
                return;
            }
        };
        if under_way.send(Ok(request)).await.is_err() {
            return;
        }
    }
}

async fn begin(
    node: &Node,
    limits: &Limits,
    request: proto::BulkWriteRequest,
) -> Result<Writing, Status> {
    let request =
        proto::BatchRequest { mutations: request.mutations, ..proto::BatchRequest::default() };
    let mutations = rows::batch_in(request, limits, node.now_ms())?;
    Ok(node.begin_write(mutations).await?)
}
