//! The rows of a scan, part by part.

use std::time::Duration;

use tokio::time::timeout;
use tonic::Streaming;

use crate::wire::proto;

use super::{
    Session,
    error::{ClientError, Failure},
};

/// A scan under way. It reads one snapshot; it does not go on at another node when it breaks.
#[derive(Debug)]
pub struct Scan<'a> {
    stream: Streaming<proto::ScanResponse>,
    session: &'a mut Session,
    server: String,
    part_timeout: Duration,
}

impl<'a> Scan<'a> {
    pub(super) fn new(
        stream: Streaming<proto::ScanResponse>,
        session: &'a mut Session,
        server: String,
        part_timeout: Duration,
    ) -> Scan<'a> {
        Scan { stream, session, server, part_timeout }
    }

    /// The next rows, in key order; `None`: there are no more.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: the scan is at its end; begin again after the last key seen.
    pub async fn next(&mut self) -> Result<Option<Vec<proto::Row>>, ClientError> {
        let server = || self.server.clone();
        let part = timeout(self.part_timeout, self.stream.message()).await;
        match part {
            Ok(Ok(Some(part))) => {
                self.session.follow(part.session);
                Ok(Some(part.rows))
            }
            Ok(Ok(None)) => Ok(None),
            Ok(Err(status)) => Err(match Failure::of(status) {
                Failure::Refused(status) | Failure::Unavailable(status) => {
                    ClientError::Refused { server: server(), status: Box::new(status) }
                }
                Failure::NotSent { reason } | Failure::Lost { reason } => {
                    ClientError::Lost { server: server(), reason }
                }
            }),
            Err(_) => Err(ClientError::TimedOut { server: server(), after: self.part_timeout }),
        }
    }
}
