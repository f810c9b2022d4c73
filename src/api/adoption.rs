//! The rows that a table had before it was captured: how many are in the store, until all are.
//!
//! It is the node's own work, which goes on without the caller.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::telling::{EVENTS_WAITING_MAX, TELL_EVERY, Telling};
use crate::{model::TableName, node::Node, wire::proto::TakeTableInResponse};

/// Waits for a table's rows.
pub(super) fn take_in(node: Node, table: TableName) -> Telling<TakeTableInResponse> {
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
