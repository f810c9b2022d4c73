//! What an operator asks a node.

use tonic::{Request, Response, Status};

use crate::{
    node::Node,
    wire::{
        error::AnswerError,
        proto::{StatusRequest, StatusResponse, VerifyRequest, admin_service_server::AdminService},
    },
};

use super::verify::{self, VerifyStream};

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
    type VerifyStream = VerifyStream;

    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyStream>, Status> {
        Ok(Response::new(verify::start(self.node.clone(), request.into_inner().into())))
    }

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
