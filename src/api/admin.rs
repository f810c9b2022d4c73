//! What an operator asks a node.

use tonic::{Request, Response, Status};

use crate::{
    node::Node,
    wire::{
        error::AnswerError,
        proto::{StatusRequest, StatusResponse, admin_service_server::AdminService},
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
}
