//! The rows of a scan, part by part.

use std::time::Duration;

use tonic::Streaming;

use crate::wire::proto;

use super::{
    Session,
    error::{ClientError, next_message},
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
        let part = next_message(&mut self.stream, &self.server, self.part_timeout).await?;
        Ok(part.map(|part| {
            self.session.follow(part.session);
            part.rows
        }))
    }
}
