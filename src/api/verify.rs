//! Whether this node and a peer have the same rows: the work, and how far it has come.
//!
//! ```text
//! node.verify --> progress, about once a second --> the caller's stream
//!             --> result, or why there is none
//! ```
//!
//! A caller who goes away ends the work.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    node::{Node, VerifyOptions, VerifyProgress},
    wire::proto::VerifyResponse,
};

/// How often the caller hears how far it has come.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(1);
/// What waits to be sent: progress is left out for a caller who does not read.
pub(super) const EVENTS_WAITING_MAX: usize = 2;

/// Progress, and at last the result or an error.
pub(super) type VerifyStream = ReceiverStream<Result<VerifyResponse, Status>>;

/// Starts the work.
pub(super) fn start(node: Node, options: VerifyOptions) -> VerifyStream {
    let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        let (progress, told) = watch::channel(VerifyProgress::default());
        let mut working = std::pin::pin!(node.verify(&options, &progress));
        let mut tell = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                verified = &mut working => {
                    let event = verified.map(VerifyResponse::from).map_err(Status::from);
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
