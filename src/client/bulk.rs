//! A load: batch after batch on one stream, many under way at once.

use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Streaming;

use crate::wire::proto;

use super::error::{ClientError, next_message};

/// Requests that wait to be sent.
pub(super) const QUEUED_MAX: usize = 64;

/// Where the batches of a load go in; the load ends when this is dropped.
#[derive(Debug)]
pub struct BulkRequests {
    requests: mpsc::Sender<proto::BulkWriteRequest>,
    server: String,
}

/// Where the answers come out, one for each batch, in the same order.
#[derive(Debug)]
pub struct BulkAnswers {
    answers: Streaming<proto::BulkWriteResponse>,
    server: String,
    answer_timeout: Duration,
}

pub(super) fn handles(
    requests: mpsc::Sender<proto::BulkWriteRequest>,
    answers: Streaming<proto::BulkWriteResponse>,
    server: &str,
    answer_timeout: Duration,
) -> (BulkRequests, BulkAnswers) {
    let server = server.to_owned();
    (
        BulkRequests { requests, server: server.clone() },
        BulkAnswers { answers, server, answer_timeout },
    )
}

impl BulkRequests {
    /// Sends a batch: one atomic commit. Waits where the node is slower than this client.
    ///
    /// # Errors
    ///
    /// [`ClientError::Lost`]: the stream is broken; what was not answered may have been written.
    pub async fn send(&self, mutations: Vec<proto::Mutation>) -> Result<(), ClientError> {
        let request = proto::BulkWriteRequest { mutations };
        self.requests.send(request).await.map_err(|_| ClientError::Lost {
            server: self.server.clone(),
            reason: "the stream has ended".to_owned(),
        })
    }
}

impl BulkAnswers {
    /// The next answer; `None`: all are there. A batch that was wrong has its error in its answer.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: the stream is broken; what was not answered may have been written.
    pub async fn next(&mut self) -> Result<Option<proto::BulkWriteResponse>, ClientError> {
        next_message(&mut self.answers, &self.server, self.answer_timeout).await
    }
}
