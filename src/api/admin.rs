//! What an operator asks a node.

use tonic::{Request, Response, Status};

use crate::{
    node::Node,
    wire::{
        error::AnswerError,
        proto::{
            RemoveMemberRequest, RemoveMemberResponse, SealClusterRequest, SealClusterResponse,
            StatusRequest, StatusResponse, admin_service_server::AdminService,
        },
    },
};

/// Answers operators.
#[derive(Debug)]
pub(super) struct Admin {
    node: Node,
}

impl Admin {
    pub(super) fn new(node: Node) -> Admin {
        Admin { node }
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn status(
        &self,
        _request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let node = self.node.clone();
        let status = tokio::task::spawn_blocking(move || node.status())
            .await
            .map_err(|_| AnswerError::Fault)??;
        Ok(Response::new(status.into()))
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<RemoveMemberResponse>, Status> {
        let RemoveMemberRequest { member, force } = request.into_inner();
        let origin = self.node.member_to_remove(&member, force)?;
        self.node.remove_member(origin).await?;
        Ok(Response::new(RemoveMemberResponse { origin: origin.to_string() }))
    }

    async fn seal_cluster(
        &self,
        _request: Request<SealClusterRequest>,
    ) -> Result<Response<SealClusterResponse>, Status> {
        self.node.seal().await?;
        Ok(Response::new(SealClusterResponse {}))
    }
}
