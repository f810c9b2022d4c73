//! Whether the mirror's MySQL has the rows of this node: the work, and how far it has come.
//!
//! As for a peer (`verify.rs`): progress about once a second, then the result, or why there is none. A caller
//! who goes away ends the work.

use super::verify::{EVENTS_WAITING_MAX, TELL_EVERY};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    node::{MirrorVerifyOptions, MirrorVerifyProgress, Node},
    wire::proto::VerifyMirrorResponse,
};

/// Progress, and at last the result or an error.
pub(super) type VerifyMirrorStream = ReceiverStream<Result<VerifyMirrorResponse, Status>>;

/// Starts the work.
pub(super) fn start(node: Node, options: MirrorVerifyOptions) -> VerifyMirrorStream {
    let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        let (progress, told) = watch::channel(MirrorVerifyProgress::default());
        let mut working = std::pin::pin!(node.verify_mirror(options, progress));
        let mut tell = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                verified = &mut working => {
                    let event = verified.map(VerifyMirrorResponse::from).map_err(Status::from);
                    // Who has gone does not want to know.
                    let _ = events.send(event).await;
                    return;
                }
                _ = tell.tick() => {
                    let _ = events.try_send(Ok(told.borrow().clone().into()));
                }
                () = events.closed() => return,
            }
        }
    });
    ReceiverStream::new(receiver)
}
