//! A node that is none: the client's services over a map in memory, on a free loopback port.
//!
//! It stamps writes 1, 2, 3 ..., answers with the session `SITE/COUNT`, and can be told to
//! misbehave. What the real node promises is tested elsewhere; here it is the client that is.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use futures_util::Stream;
use lastword::wire::proto::{
    self,
    admin_service_server::{AdminService, AdminServiceServer},
    key_value_service_server::{KeyValueService, KeyValueServiceServer},
};
use tokio_stream::{StreamExt, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// 2026-01-02T03:04:05.678Z, in seconds and nanoseconds.
pub(crate) const EXPIRY: prost_types::Timestamp =
    prost_types::Timestamp { seconds: 1_767_323_045, nanos: 678_000_000 };
/// The text form of [`ORIGIN`].
pub(crate) const ORIGIN_TEXT: &str = "00112233-4455-6677-8899-aabbccddeeff";
const ORIGIN: [u8; 16] = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";

/// How the node answers.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mood {
    /// As it should.
    #[default]
    Well,
    /// `UNAVAILABLE` to everything.
    Unavailable,
    /// Never.
    Silent,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) mood: Mood,
    /// How many calls came in.
    pub(crate) calls: usize,
    /// The session token of each read.
    pub(crate) sessions: Vec<Bytes>,
    /// The time to live of each write, where one was given.
    pub(crate) ttls: Vec<prost_types::Duration>,
    /// What Status answers.
    pub(crate) status: proto::StatusResponse,
    /// What Verify answers.
    pub(crate) verify: Vec<Result<proto::VerifyResponse, Status>>,
    rows: BTreeMap<(String, Bytes), proto::Row>,
    writes: u64,
}

impl State {
    /// How many rows were written.
    pub(crate) fn writes(&self) -> u64 {
        self.writes
    }
}

#[derive(Clone)]
pub(crate) struct FakeNode {
    pub(crate) url: String,
    site: &'static str,
    state: Arc<Mutex<State>>,
}

impl FakeNode {
    /// Serves until the runtime ends.
    pub(crate) async fn start(site: &'static str) -> FakeNode {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let node = FakeNode { url, site, state: Arc::default() };
        let serve = Server::builder()
            .add_service(KeyValueServiceServer::new(node.clone()))
            .add_service(AdminServiceServer::new(node.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(serve);
        node
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    async fn answer(&self) -> Result<(), Status> {
        let mood = {
            let mut state = self.state();
            state.calls += 1;
            state.mood.clone()
        };
        match mood {
            Mood::Well => Ok(()),
            Mood::Unavailable => Err(Status::unavailable("the node is starting: try again")),
            Mood::Silent => std::future::pending().await,
        }
    }

    fn session(&self) -> Bytes {
        format!("{}/{}", self.site, self.state().writes).into()
    }

    fn version(hlc: u64) -> proto::Version {
        proto::Version { hlc, origin: Bytes::from_static(&ORIGIN) }
    }

    fn write(
        &self,
        table: String,
        key: Bytes,
        value: Bytes,
        ttl: Option<prost_types::Duration>,
    ) -> proto::Version {
        let mut state = self.state();
        state.writes += 1;
        let version = FakeNode::version(state.writes);
        state.ttls.extend(ttl);
        let row = proto::Row {
            table: table.clone(),
            key: key.clone(),
            value,
            version: Some(version.clone()),
            expire_time: ttl.map(|_| EXPIRY),
            site: self.site.to_owned(),
        };
        state.rows.insert((table, key), row);
        version
    }

    fn apply(&self, mutations: Vec<proto::Mutation>) -> Vec<proto::MutationResult> {
        use proto::mutation::Mutation;

        let apply = |mutation: proto::Mutation| match mutation.mutation {
            Some(Mutation::Put(put)) => {
                let version = self.write(put.table, put.key.clone(), put.value, put.ttl);
                proto::MutationResult { key: put.key, version: Some(version), existed: false }
            }
            Some(Mutation::Delete(delete)) => {
                let (version, existed) = self.remove(delete.table, delete.key.clone());
                proto::MutationResult { key: delete.key, version: Some(version), existed }
            }
            _ => proto::MutationResult::default(),
        };
        mutations.into_iter().map(apply).collect()
    }

    fn remove(&self, table: String, key: Bytes) -> (proto::Version, bool) {
        let mut state = self.state();
        state.writes += 1;
        let existed = state.rows.remove(&(table, key)).is_some();
        (FakeNode::version(state.writes), existed)
    }
}

fn check_table(table: &str) -> Result<(), Status> {
    match table.starts_with('_') {
        true => Err(Status::invalid_argument(format!(
            "table: {table:?} begins with _: choose\nanother"
        ))),
        false => Ok(()),
    }
}

#[tonic::async_trait]
impl KeyValueService for FakeNode {
    async fn get(
        &self,
        request: Request<proto::GetRequest>,
    ) -> Result<Response<proto::GetResponse>, Status> {
        self.answer().await?;
        let request = request.into_inner();
        check_table(&request.table)?;
        self.state().sessions.push(request.session);
        let row = self.state().rows.get(&(request.table, request.key)).cloned();
        Ok(Response::new(proto::GetResponse { row, session: self.session() }))
    }

    async fn get_many(
        &self,
        request: Request<proto::GetManyRequest>,
    ) -> Result<Response<proto::GetManyResponse>, Status> {
        self.answer().await?;
        let request = request.into_inner();
        let found = |key: Bytes| {
            let row = self.state().rows.get(&(request.table.clone(), key.clone())).cloned();
            proto::FoundRow { key, row }
        };
        let rows = request.keys.into_iter().map(found).collect();
        Ok(Response::new(proto::GetManyResponse { rows, session: self.session() }))
    }

    async fn put(
        &self,
        request: Request<proto::PutRequest>,
    ) -> Result<Response<proto::PutResponse>, Status> {
        self.answer().await?;
        let request = request.into_inner();
        check_table(&request.table)?;
        let version = self.write(request.table, request.key, request.value, request.ttl);
        Ok(Response::new(proto::PutResponse { version: Some(version), session: self.session() }))
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        self.answer().await?;
        let request = request.into_inner();
        let (version, existed) = self.remove(request.table, request.key);
        let session = self.session();
        Ok(Response::new(proto::DeleteResponse { version: Some(version), existed, session }))
    }

    async fn insert(
        &self,
        request: Request<proto::InsertRequest>,
    ) -> Result<Response<proto::InsertResponse>, Status> {
        self.answer().await?;
        let request = request.into_inner();
        let key: Bytes = match request.id_kind() {
            proto::IdKind::Sequence => "4711".into(),
            _ => "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        };
        let version = self.write(request.table, key.clone(), request.value, request.ttl);
        let session = self.session();
        Ok(Response::new(proto::InsertResponse { key, version: Some(version), session }))
    }

    async fn batch(
        &self,
        request: Request<proto::BatchRequest>,
    ) -> Result<Response<proto::BatchResponse>, Status> {
        self.answer().await?;
        let results = self.apply(request.into_inner().mutations);
        Ok(Response::new(proto::BatchResponse { results, session: self.session() }))
    }

    type BulkWriteStream =
        Pin<Box<dyn Stream<Item = Result<proto::BulkWriteResponse, Status>> + Send>>;

    async fn bulk_write(
        &self,
        request: Request<Streaming<proto::BulkWriteRequest>>,
    ) -> Result<Response<Self::BulkWriteStream>, Status> {
        self.answer().await?;
        let node = self.clone();
        let answers = request.into_inner().map(move |request| {
            let results = node.apply(request?.mutations);
            let session = node.session();
            Ok(proto::BulkWriteResponse { results, session, error: None })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    type ScanStream = Pin<Box<dyn Stream<Item = Result<proto::ScanResponse, Status>> + Send>>;

    async fn scan(
        &self,
        request: Request<proto::ScanRequest>,
    ) -> Result<Response<Self::ScanStream>, Status> {
        self.answer().await?;
        let scan = request.into_inner();
        self.state().sessions.push(scan.session.clone());
        let fits = |key: &Bytes| {
            key.starts_with(&scan.prefix)
                && *key >= scan.start
                && (scan.end.is_empty() || *key < scan.end)
        };
        let mut rows: Vec<proto::Row> = self
            .state()
            .rows
            .values()
            .filter(|row| row.table == scan.table && fits(&row.key))
            .cloned()
            .collect();
        if scan.reverse {
            rows.reverse();
        }
        if scan.limit > 0 {
            rows.truncate(scan.limit as usize);
        }
        if scan.keys_only {
            rows.iter_mut().for_each(|row| row.value.clear());
        }
        let session = self.session();
        let parts: Vec<_> = rows
            .chunks(2)
            .map(|rows| Ok(proto::ScanResponse { rows: rows.to_vec(), session: session.clone() }))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }
}

#[tonic::async_trait]
impl AdminService for FakeNode {
    type VerifyMirrorStream =
        Pin<Box<dyn Stream<Item = Result<proto::VerifyMirrorResponse, Status>> + Send>>;

    async fn verify_mirror(
        &self,
        _: Request<proto::VerifyMirrorRequest>,
    ) -> Result<Response<Self::VerifyMirrorStream>, Status> {
        Err(Status::unimplemented("not played here"))
    }

    type VerifyStream = Pin<Box<dyn Stream<Item = Result<proto::VerifyResponse, Status>> + Send>>;

    async fn verify(
        &self,
        _: Request<proto::VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        self.answer().await?;
        let events = self.state().verify.clone();
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }

    type TakeTableInStream =
        Pin<Box<dyn Stream<Item = Result<proto::TakeTableInResponse, Status>> + Send>>;

    async fn take_table_in(
        &self,
        _: Request<proto::TakeTableInRequest>,
    ) -> Result<Response<Self::TakeTableInStream>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    type AdoptTableStream =
        Pin<Box<dyn Stream<Item = Result<proto::AdoptTableResponse, Status>> + Send>>;

    async fn adopt_table(
        &self,
        _: Request<proto::AdoptTableRequest>,
    ) -> Result<Response<Self::AdoptTableStream>, Status> {
        Err(Status::unimplemented("no test asks for it"))
    }

    async fn status(
        &self,
        _: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        self.answer().await?;
        Ok(Response::new(self.state().status.clone()))
    }

    async fn remove_member(
        &self,
        _: Request<proto::RemoveMemberRequest>,
    ) -> Result<Response<proto::RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("remove_member"))
    }

    async fn seal_cluster(
        &self,
        _: Request<proto::SealClusterRequest>,
    ) -> Result<Response<proto::SealClusterResponse>, Status> {
        Err(Status::unimplemented("seal_cluster"))
    }

    async fn pause_mirror(
        &self,
        _: Request<proto::PauseMirrorRequest>,
    ) -> Result<Response<proto::PauseMirrorResponse>, Status> {
        Err(Status::unimplemented("pause_mirror"))
    }

    async fn resume_mirror(
        &self,
        _: Request<proto::ResumeMirrorRequest>,
    ) -> Result<Response<proto::ResumeMirrorResponse>, Status> {
        Err(Status::unimplemented("resume_mirror"))
    }

    async fn rebuild_mirror(
        &self,
        _: Request<proto::RebuildMirrorRequest>,
    ) -> Result<Response<proto::RebuildMirrorResponse>, Status> {
        Err(Status::unimplemented("rebuild_mirror"))
    }

    async fn refresh_table(
        &self,
        _: Request<proto::RefreshTableRequest>,
    ) -> Result<Response<proto::RefreshTableResponse>, Status> {
        Err(Status::unimplemented("refresh_table"))
    }

    type ExportStream = Pin<Box<dyn Stream<Item = Result<proto::ExportResponse, Status>> + Send>>;

    async fn export(
        &self,
        _: Request<proto::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::unimplemented("files are tested with real nodes"))
    }

    async fn import(
        &self,
        _: Request<Streaming<proto::ImportRequest>>,
    ) -> Result<Response<proto::ImportResponse>, Status> {
        Err(Status::unimplemented("files are tested with real nodes"))
    }

    type ListConflictsStream =
        Pin<Box<dyn Stream<Item = Result<proto::ListConflictsResponse, Status>> + Send>>;

    async fn list_conflicts(
        &self,
        _: Request<proto::ListConflictsRequest>,
    ) -> Result<Response<Self::ListConflictsStream>, Status> {
        Err(Status::unimplemented("conflicts are tested with real nodes"))
    }

    async fn get_conflict(
        &self,
        _: Request<proto::GetConflictRequest>,
    ) -> Result<Response<proto::GetConflictResponse>, Status> {
        Err(Status::unimplemented("conflicts are tested with real nodes"))
    }

    async fn restore_conflict(
        &self,
        _: Request<proto::RestoreConflictRequest>,
    ) -> Result<Response<proto::RestoreConflictResponse>, Status> {
        Err(Status::unimplemented("conflicts are tested with real nodes"))
    }
}
