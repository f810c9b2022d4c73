//! Why a call failed, and whether it may have been done.

use std::{error::Error as _, time::Duration};

use tokio::time::timeout;
use tonic::{Code, ConnectError, Status, Streaming};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The addresses given are of no use. Nothing was sent.
    #[error("server {address:?}: {reason}")]
    Address {
        /// The one that is wrong.
        address: String,
        /// Why.
        reason: String,
    },
    /// No node could be reached. Nothing was done.
    #[error("cannot connect to {}", listed(.0))]
    Unreachable(
        /// Each address tried, and why it failed.
        Vec<(String, String)>,
    ),
    /// The node answered with an error, or every node with `UNAVAILABLE`. Nothing was done.
    #[error("{}", said(.status))]
    Refused {
        /// The last node asked.
        server: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The connection broke during the call. A write may have been done.
    #[error(
        "{server}: the connection broke during the call ({reason}); a write may have been done"
    )]
    Lost {
        /// The node.
        server: String,
        /// Why.
        reason: String,
    },
    /// No answer in time. A write may have been done.
    #[error("{server}: no answer within {}; a write may have been done", humantime::format_duration(*after))]
    TimedOut {
        /// The node.
        server: String,
        /// How long was waited.
        after: Duration,
    },
    /// The answer lacks what every node of this version sends. A write has been done.
    #[error("the answer has no {0}: do client and node run the same release?")]
    Incomplete(&'static str),
}

fn listed(tried: &[(String, String)]) -> String {
    let each: Vec<String> =
        tried.iter().map(|(server, reason)| format!("{server} ({reason})")).collect();
    each.join(", nor to ")
}

fn said(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_owned(),
        message => message.to_owned(),
    }
}

/// What a failed attempt says about the call.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was never sent.
    NotSent { reason: String },
    /// The node refused it, and may do it later.
    Unavailable(Status),
    /// The node refused it.
    Refused(Status),
    /// It was sent, and what became of it is not known.
    Lost { reason: String },
}

impl Failure {
    pub(super) fn of(status: Status) -> Failure {
        // A status that came from the node has no source; one made here has.
        let Some(source) = status.source() else {
            return match status.code() {
                Code::Unavailable => Failure::Unavailable(status),
                _ => Failure::Refused(status),
            };
        };
        let mut not_sent = false;
        let mut innermost = source;
        // The chain is as deep as the layers of the transport; the bound is for bad luck.
        for _ in 0..16 {
            not_sent |= innermost.is::<ConnectError>();
            match innermost.source() {
                Some(next) => innermost = next,
                None => break,
            }
        }
        let reason = innermost.to_string();
        if not_sent { Failure::NotSent { reason } } else { Failure::Lost { reason } }
    }

    /// The error of a call that is not tried at another node.
    pub(super) fn into_error(self, server: String) -> ClientError {
        match self {
            Failure::Refused(status) | Failure::Unavailable(status) => {
                ClientError::Refused { server, status: Box::new(status) }
            }
            Failure::NotSent { reason } => ClientError::Unreachable(vec![(server, reason)]),
            Failure::Lost { reason } => ClientError::Lost { server, reason },
        }
    }
}

/// The next message of an answer that is a stream; `None`: it is at its end.
pub(super) async fn next_message<T>(
    stream: &mut Streaming<T>,
    server: &str,
    after: Duration,
) -> Result<Option<T>, ClientError> {
    let server = server.to_owned();
    match timeout(after, stream.message()).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(status)) => Err(match Failure::of(status) {
            // The stream was open already.
            Failure::NotSent { reason } => ClientError::Lost { server, reason },
            failure => failure.into_error(server),
        }),
        Err(_) => Err(ClientError::TimedOut { server, after }),
    }
}
