//! What an operator asks of the node in use.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::wire::proto;

use super::{
    Client, Verify, VerifyMirror,
    error::{ClientError, Failure, next_message},
    nodes::Repeat,
};

/// A long answer, part by part.
#[derive(Debug)]
pub struct Parts<T> {
    stream: Streaming<T>,
    server: String,
    part_timeout: Duration,
}

impl<T> Parts<T> {
    /// The next part; `None`: there are no more.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: the answer is at its end.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        next_message(&mut self.stream, &self.server, self.part_timeout).await
    }
}

impl Client {
    /// Begins to compare the rows of the node in use with those of one of its peers.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn verify(&mut self, request: proto::VerifyRequest) -> Result<Verify, ClientError> {
        let stream = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.admin.verify(request).await
            })
            .await?;
        Ok(Verify::new(stream, self.nodes.in_use().to_owned(), self.nodes.request_timeout()))
    }

    /// Begins to compare the rows of the node in use with those of its MySQL.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn verify_mirror(
        &mut self,
        request: proto::VerifyMirrorRequest,
    ) -> Result<VerifyMirror, ClientError> {
        let stream = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.admin.verify_mirror(request).await
            })
            .await?;
        Ok(VerifyMirror::new(stream, self.nodes.in_use().to_owned(), self.nodes.request_timeout()))
    }

    /// The state of the node in use, its links and its mirror.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn status(&mut self) -> Result<proto::StatusResponse, ClientError> {
        self.nodes
            .call(Repeat::Harmless, proto::StatusRequest {}, |mut node, request| async move {
                node.admin.status(request).await
            })
            .await
    }

    /// Removes a member, named by its site or its origin; gives the origin as text.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn remove_member(
        &mut self,
        member: &str,
        force: bool,
    ) -> Result<String, ClientError> {
        let request = proto::RemoveMemberRequest { member: member.to_owned(), force };
        let response = self
            .nodes
            .call(Repeat::Harmful, request, |mut node, request| async move {
                node.admin.remove_member(request).await
            })
            .await?;
        Ok(response.origin)
    }

    /// Seals the cluster.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn seal_cluster(&mut self) -> Result<(), ClientError> {
        let request = proto::SealClusterRequest {};
        self.nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.admin.seal_cluster(request).await
            })
            .await?;
        Ok(())
    }

    /// The mirror writes nothing more into MySQL; `by`: who says so.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn pause_mirror(
        &mut self,
        by: &str,
    ) -> Result<proto::PauseMirrorResponse, ClientError> {
        let request = proto::PauseMirrorRequest { by: by.to_owned() };
        self.nodes
            .call(Repeat::Harmful, request, |mut node, request| async move {
                node.admin.pause_mirror(request).await
            })
            .await
    }

    /// The mirror goes on.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn resume_mirror(&mut self) -> Result<proto::ResumeMirrorResponse, ClientError> {
        self.nodes
            .call(Repeat::Harmful, proto::ResumeMirrorRequest {}, |mut node, request| async move {
                node.admin.resume_mirror(request).await
            })
            .await
    }

    /// The mirror fills a table, or all (`""`), anew from the store.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn rebuild_mirror(&mut self, table: &str) -> Result<(), ClientError> {
        let request = proto::RebuildMirrorRequest { table: table.to_owned() };
        self.nodes
            .call(Repeat::Harmful, request, |mut node, request| async move {
                node.admin.rebuild_mirror(request).await
            })
            .await?;
        Ok(())
    }

    /// Takes in what became of a captured MySQL table that was altered.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn refresh_table(&mut self, table: &str) -> Result<(), ClientError> {
        let request = proto::RefreshTableRequest { table: table.to_owned() };
        self.nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.admin.refresh_table(request).await
            })
            .await?;
        Ok(())
    }

    /// The conflicts that the node in use keeps.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn list_conflicts(
        &mut self,
        request: proto::ListConflictsRequest,
    ) -> Result<Parts<proto::ListConflictsResponse>, ClientError> {
        let stream = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.admin.list_conflicts(request).await
            })
            .await?;
        Ok(self.parts(stream))
    }

    /// One conflict, and what stands in its place now.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn get_conflict(
        &mut self,
        id: &str,
    ) -> Result<proto::GetConflictResponse, ClientError> {
        let request = proto::GetConflictRequest { id: id.to_owned() };
        self.nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.admin.get_conflict(request).await
            })
            .await
    }

    /// Writes the losing row of a conflict again. Never sent twice where the first node may have
    /// written it: another one need not know of the conflict.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. After [`ClientError::Lost`] and [`ClientError::TimedOut`] the row may have
    /// been written.
    pub async fn restore_conflict(
        &mut self,
        id: &str,
    ) -> Result<proto::RestoreConflictResponse, ClientError> {
        let request = proto::RestoreConflictRequest { id: id.to_owned() };
        self.nodes
            .call(Repeat::Harmful, request, |mut node, request| async move {
                node.admin.restore_conflict(request).await
            })
            .await
    }

    /// How far the rows that a MySQL table had before are taken in, until they are.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn take_table_in(
        &mut self,
        table: &str,
    ) -> Result<Parts<proto::TakeTableInResponse>, ClientError> {
        let request = proto::TakeTableInRequest { table: table.to_owned() };
        let stream = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.admin.take_table_in(request).await
            })
            .await?;
        Ok(self.parts(stream))
    }

    /// Compares a MySQL table that was there before with the store, and makes them one where told so.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn adopt_table(
        &mut self,
        request: proto::AdoptTableRequest,
    ) -> Result<Parts<proto::AdoptTableResponse>, ClientError> {
        let stream = self
            .nodes
            .call(Repeat::Harmful, request, |mut node, request| async move {
                node.admin.adopt_table(request).await
            })
            .await?;
        Ok(self.parts(stream))
    }

    /// A delta for a site to which there is no line, part by part.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn export(
        &mut self,
        since: proto::export_request::Since,
    ) -> Result<Parts<proto::ExportResponse>, ClientError> {
        let request = proto::ExportRequest { since: Some(since) };
        let stream = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.admin.export(request).await
            })
            .await?;
        Ok(self.parts(stream))
    }

    /// Gives such a delta to the node in use, and to no other. It takes as long as it takes; who
    /// fills `parts` is slowed down to the node's pace, and finds the channel closed where it
    /// fails.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: nothing was claimed; rows may have been merged.
    pub async fn import(
        &mut self,
        parts: mpsc::Receiver<proto::ImportRequest>,
    ) -> Result<proto::ImportResponse, ClientError> {
        let server = self.nodes.in_use().to_owned();
        let mut admin = self.nodes.node_in_use().admin.clone();
        let answer = admin.import(ReceiverStream::new(parts)).await;
        Ok(answer.map_err(|status| Failure::of(status).into_error(server))?.into_inner())
    }

    fn parts<T>(&self, stream: Streaming<T>) -> Parts<T> {
        Parts {
            stream,
            server: self.nodes.in_use().to_owned(),
            part_timeout: self.nodes.request_timeout(),
        }
    }
}
