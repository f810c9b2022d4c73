//! What an operator asks a node.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Request, Response, Status, Streaming};

use super::{
    adoption,
    conflicts::{self, ConflictStream},
    export::{self, ExportStream},
    import,
    telling::{Telling, tell},
};
use crate::{
    node::Node,
    wire::{
        adoption::{adopt_in, take_in_in},
        carried, conflicts as conflicts_wire,
        error::AnswerError,
        mirror_verify,
        proto::{
            self, RemoveMemberRequest, RemoveMemberResponse, SealClusterRequest,
            SealClusterResponse, StatusRequest, StatusResponse, VerifyRequest,
            admin_service_server::AdminService,
        },
        rows::{self, timestamp_out},
    },
};

/// The most long answers under way at once.
const STREAMS_MAX: usize = 4;
/// The most imports: each follows the disk's pace.
const IMPORTS_MAX: usize = 1;
/// The path of the request that takes as long as it takes.
pub(super) const IMPORT_PATH: &str = "/lastword.v1.AdminService/Import";

/// A pause waits so long for the mirror to end its transaction.
const PAUSE_WAIT_MAX: Duration = Duration::from_secs(8);

/// Runs what reads or writes files.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, AnswerError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| AnswerError::Fault)
}

/// Answers operators.
#[derive(Debug)]
pub(super) struct Admin {
    node: Node,
    streams: Arc<Semaphore>,
    imports: Arc<Semaphore>,
}

impl Admin {
    pub(super) fn new(node: Node) -> Admin {
        let places = |max| Arc::new(Semaphore::new(max));
        Admin { node, streams: places(STREAMS_MAX), imports: places(IMPORTS_MAX) }
    }

    /// A place for a long answer.
    fn place(&self, what: &'static str) -> Result<OwnedSemaphorePermit, AnswerError> {
        let place = Arc::clone(&self.streams).try_acquire_owned();
        place.map_err(|_| AnswerError::TooManyStreams { what, streams_max: STREAMS_MAX })
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    type VerifyStream = Telling<proto::VerifyResponse>;

    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        let (node, options) = (self.node.clone(), request.into_inner().into());
        Ok(Response::new(tell(|progress| async move { node.verify(&options, &progress).await })))
    }

    type VerifyMirrorStream = Telling<proto::VerifyMirrorResponse>;

    async fn verify_mirror(
        &self,
        request: Request<proto::VerifyMirrorRequest>,
    ) -> Result<Response<Self::VerifyMirrorStream>, Status> {
        let options = mirror_verify::options_in(&request.into_inner())?;
        let node = self.node.clone();
        let work = |progress| async move { node.verify_mirror(options, progress).await };
        Ok(Response::new(tell(work)))
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

    async fn pause_mirror(
        &self,
        request: Request<proto::PauseMirrorRequest>,
    ) -> Result<Response<proto::PauseMirrorResponse>, Status> {
        let (node, by) = (self.node.clone(), request.into_inner().by);
        let pause = blocking(move || node.pause_mirror(&by)).await??;
        Ok(Response::new(proto::PauseMirrorResponse {
            stopped: self.node.mirror_at_rest(PAUSE_WAIT_MAX).await,
            since_time: Some(timestamp_out(pause.since_ms)),
            by: pause.by,
        }))
    }

    async fn resume_mirror(
        &self,
        _request: Request<proto::ResumeMirrorRequest>,
    ) -> Result<Response<proto::ResumeMirrorResponse>, Status> {
        let node = self.node.clone();
        let was = blocking(move || node.resume_mirror()).await??;
        let since_time = was.map(|pause| timestamp_out(pause.since_ms));
        Ok(Response::new(proto::ResumeMirrorResponse { since_time }))
    }

    async fn rebuild_mirror(
        &self,
        request: Request<proto::RebuildMirrorRequest>,
    ) -> Result<Response<proto::RebuildMirrorResponse>, Status> {
        let table = match request.into_inner().table.as_str() {
            "" => None,
            name => Some(rows::table_in(name)?),
        };
        let node = self.node.clone();
        blocking(move || node.rebuild_mirror(table.as_ref())).await??;
        Ok(Response::new(proto::RebuildMirrorResponse {}))
    }

    async fn refresh_table(
        &self,
        request: Request<proto::RefreshTableRequest>,
    ) -> Result<Response<proto::RefreshTableResponse>, Status> {
        let table = rows::table_in(&request.into_inner().table)?;
        self.node.refresh_table(table).await?;
        Ok(Response::new(proto::RefreshTableResponse {}))
    }

    type ListConflictsStream = ConflictStream;

    async fn list_conflicts(
        &self,
        request: Request<proto::ListConflictsRequest>,
    ) -> Result<Response<ConflictStream>, Status> {
        let filter = conflicts_wire::list_in(request.into_inner())?;
        let place = self.place("conflicts")?;
        Ok(Response::new(conflicts::list(self.node.clone(), filter, place)?))
    }

    async fn get_conflict(
        &self,
        request: Request<proto::GetConflictRequest>,
    ) -> Result<Response<proto::GetConflictResponse>, Status> {
        let id = conflicts_wire::id_in(&request.into_inner().id)?;
        let node = self.node.clone();
        let found = tokio::task::spawn_blocking(move || conflicts::get(&node, id))
            .await
            .map_err(|_| AnswerError::Fault)??;
        Ok(Response::new(found))
    }

    async fn restore_conflict(
        &self,
        request: Request<proto::RestoreConflictRequest>,
    ) -> Result<Response<proto::RestoreConflictResponse>, Status> {
        let id = conflicts_wire::id_in(&request.into_inner().id)?;
        let (conflict, written) = self.node.restore(id).await?;
        Ok(Response::new(proto::RestoreConflictResponse {
            version: Some(written.version.into()),
            table: conflict.loser.table.as_str().to_owned(),
            key: written.key.bytes().clone(),
        }))
    }

    type TakeTableInStream = Telling<proto::TakeTableInResponse>;

    async fn take_table_in(
        &self,
        request: Request<proto::TakeTableInRequest>,
    ) -> Result<Response<Self::TakeTableInStream>, Status> {
        let table = take_in_in(&request.into_inner())?;
        Ok(Response::new(adoption::take_in(self.node.clone(), table)))
    }

    type AdoptTableStream = Telling<proto::AdoptTableResponse>;

    async fn adopt_table(
        &self,
        request: Request<proto::AdoptTableRequest>,
    ) -> Result<Response<Self::AdoptTableStream>, Status> {
        let options = adopt_in(request.into_inner())?;
        // Who goes away ends a mere comparison: what is to be applied goes on.
        let node = self.node.clone();
        let work = |progress| async move { node.adopt_table(options, progress).await };
        Ok(Response::new(tell(work)))
    }

    type ExportStream = ExportStream;

    async fn export(
        &self,
        request: Request<proto::ExportRequest>,
    ) -> Result<Response<ExportStream>, Status> {
        let since = carried::since_in(request.into_inner())?;
        let place = self.place("export")?;
        Ok(Response::new(export::start(self.node.clone(), since, place).await?))
    }

    async fn import(
        &self,
        request: Request<Streaming<proto::ImportRequest>>,
    ) -> Result<Response<proto::ImportResponse>, Status> {
        let _place = self.imports.try_acquire().map_err(|_| AnswerError::TooManyStreams {
            what: "import",
            streams_max: IMPORTS_MAX,
        })?;
        let imported = import::run(self.node.clone(), request.into_inner()).await?;
        Ok(Response::new(imported))
    }
}
