//! Two nodes, or a node and its MySQL, being compared: how far they have come, and at last the result.

use std::time::Duration;

use tonic::Streaming;

use crate::wire::proto::{
    self, verify_mirror_response::Event as MirrorEvent, verify_response::Event,
};

use super::error::{ClientError, next_message};

/// A comparison under way; dropping it ends it.
#[derive(Debug)]
pub struct Verify {
    stream: Streaming<proto::VerifyResponse>,
    server: String,
    part_timeout: Duration,
}

impl Verify {
    pub(super) fn new(
        stream: Streaming<proto::VerifyResponse>,
        server: String,
        part_timeout: Duration,
    ) -> Verify {
        Verify { stream, server, part_timeout }
    }

    /// Waits for the result; `progress` hears about once a second how far it has come.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: there is no result. What was put right until then stays so.
    pub async fn result(
        mut self,
        mut progress: impl FnMut(&proto::VerifyProgress),
    ) -> Result<proto::VerifyResult, ClientError> {
        loop {
            match next_message(&mut self.stream, &self.server, self.part_timeout).await? {
                Some(proto::VerifyResponse { event: Some(Event::Result(result)) }) => {
                    return Ok(result);
                }
                Some(proto::VerifyResponse { event: Some(Event::Progress(news)) }) => {
                    progress(&news);
                }
                // An event of a later release.
                Some(proto::VerifyResponse { event: None }) => {}
                None => return Err(ClientError::Incomplete("result")),
            }
        }
    }
}

/// A comparison with MySQL under way; dropping it ends it.
#[derive(Debug)]
pub struct VerifyMirror {
    stream: Streaming<proto::VerifyMirrorResponse>,
    server: String,
    part_timeout: Duration,
}

impl VerifyMirror {
    pub(super) fn new(
        stream: Streaming<proto::VerifyMirrorResponse>,
        server: String,
        part_timeout: Duration,
    ) -> VerifyMirror {
        VerifyMirror { stream, server, part_timeout }
    }

    /// Waits for the result; `progress` hears about once a second how far it has come.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: there is no result. What was put right until then stays so.
    pub async fn result(
        mut self,
        mut progress: impl FnMut(&proto::VerifyMirrorProgress),
    ) -> Result<proto::VerifyMirrorResult, ClientError> {
        loop {
            match next_message(&mut self.stream, &self.server, self.part_timeout).await? {
                Some(proto::VerifyMirrorResponse { event: Some(MirrorEvent::Result(result)) }) => {
                    return Ok(result);
                }
                Some(proto::VerifyMirrorResponse { event: Some(MirrorEvent::Progress(news)) }) => {
                    progress(&news);
                }
                // An event of a later release.
                Some(proto::VerifyMirrorResponse { event: None }) => {}
                None => return Err(ClientError::Incomplete("result")),
            }
        }
    }
}
