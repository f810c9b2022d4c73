//! Tables that were there before: the work, and how far it has come.
//!
//! ```text
//! the node --> progress, about once a second --> the caller's stream
//!          --> result, or why there is none
//! ```
//!
//! A caller who goes away ends a mere comparison, and nothing else: what is to be applied goes on.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{
    model::TableName,
    node::{AdoptCounts, AdoptOptions, Node},
    wire::proto::{AdoptTableResponse, TakeTableInResponse},
};

/// How often the caller hears how far it has come.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// What waits to be sent: progress is left out for a caller who does not read.
const EVENTS_WAITING_MAX: usize = 2;

/// Progress, and at last the result or an error.
pub(super) type AdoptStream = ReceiverStream<Result<AdoptTableResponse, Status>>;
/// Progress, until it is done or an error.
pub(super) type TakeInStream = ReceiverStream<Result<TakeTableInResponse, Status>>;

/// Compares a table.
pub(super) fn adopt(node: Node, options: AdoptOptions) -> AdoptStream {
    let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        let (progress, told) = watch::channel(AdoptCounts::default());
        let mut working = std::pin::pin!(node.adopt_table(options, progress));
        let mut tell = tokio::time::interval(TELL_EVERY);
        loop {
            tokio::select! {
                adopted = &mut working => {
                    let event = adopted.map(AdoptTableResponse::from).map_err(Status::from);
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

/// Waits for a table's rows.
pub(super) fn take_in(node: Node, table: TableName) -> TakeInStream {
    let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        let mut told_at: Option<tokio::time::Instant> = None;
        let telling = events.clone();
        let tell = move |news: &crate::node::TakingIn| {
            if told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) && !news.is_done {
                told_at = Some(tokio::time::Instant::now());
                let _ = telling.try_send(Ok(news.clone().into()));
            }
        };
        tokio::select! {
            done = node.take_table_in(&table, tell) => {
                let event = done.map(TakeTableInResponse::from).map_err(Status::from);
                let _ = events.send(event).await;
            }
            () = events.closed() => {}
        }
    });
    ReceiverStream::new(receiver)
}
