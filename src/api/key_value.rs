//! Reads and writes of rows.
//!
//! A write is checked whole, then handed to the node; its answer comes after the durable commit. A
//! read takes a snapshot that has incorporated the client's session. Short reads are made where the
//! request runs; long ones where blocking is allowed, so that they keep nobody else waiting.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use super::{
    Config,
    bulk::{self, BulkStream},
    scan::{self, ScanStream},
};
use crate::{
    model::{Body, Key, Origin, TableName},
    node::{Committed, Mutation, Node},
    store::{RefusedError, Snapshot, StoreError},
    wire::{
        error::AnswerError,
        proto::{self, key_value_service_server::KeyValueService},
        rows,
        session::{Seen, Session},
    },
};

/// Up to so many keys are read where the request runs.
const KEYS_INLINE_MAX: usize = 8;

/// Answers clients.
#[derive(Debug)]
pub(super) struct KeyValue {
    node: Node,
    config: Config,
    scans: Arc<Semaphore>,
}

impl KeyValue {
    pub(super) fn new(node: Node, config: Config) -> KeyValue {
        let scans = Arc::new(Semaphore::new(config.scans_max));
        KeyValue { node, config, scans }
    }

    /// The view of a read that may see `table`.
    async fn view(&self, table: TableName, session: &Session) -> Result<View, Status> {
        let origin = self.node.origin();
        let required = session.required_at(origin);
        let snapshot = self.node.snapshot_at(&required, self.config.limits.read_wait_max).await?;
        if !snapshot.has_table(&table) && !self.node.creates_tables() {
            return Err(RefusedError::NoTable(table).into());
        }
        Ok(View {
            seen: Seen::new(session, origin, snapshot.session_heads()),
            snapshot,
            rows: RowsOut::new(&self.node, table),
        })
    }

    async fn write(&self, mutation: Mutation) -> Result<Committed, Status> {
        Ok(self.node.write(vec![mutation]).await?)
    }
}

/// One moment of a table, and what was seen of it.
pub(super) struct View {
    pub(super) snapshot: Snapshot,
    pub(super) seen: Seen,
    pub(super) rows: RowsOut,
}

impl View {
    fn get(&mut self, key: &Key) -> Result<Option<proto::Row>, StoreError> {
        let Some(body) = self.snapshot.get(&self.rows.table, key)? else { return Ok(None) };
        // A dead row was seen as well: no other site may show this client what it replaced.
        self.seen.note(body.version());
        Ok(self.rows.row(key, &body, false))
    }

    /// The rows under `keys`; `None` where they come to more than `bytes_max`.
    fn get_many(
        &mut self,
        keys: &[Key],
        bytes_max: usize,
    ) -> Result<Option<Vec<proto::FoundRow>>, StoreError> {
        let mut bytes = 0;
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let row = self.get(key)?;
            let row_bytes = row.as_ref().map_or(0, rows::size_out);
            bytes += key.as_slice().len() + row_bytes;
            if bytes > bytes_max {
                return Ok(None);
            }
            found.push(proto::FoundRow { key: key.bytes().clone(), row });
        }
        Ok(Some(found))
    }
}

/// Makes the rows of one answer: all judged by one moment of the wall clock.
pub(super) struct RowsOut {
    node: Node,
    pub(super) table: TableName,
    now_ms: u64,
    /// The last origin met and its site: rows of one site often stand together.
    site: Option<(Origin, Arc<str>)>,
}

impl RowsOut {
    fn new(node: &Node, table: TableName) -> RowsOut {
        RowsOut { now_ms: node.now_ms(), node: node.clone(), table, site: None }
    }

    /// The row for the client; `None` where it is deleted or has expired.
    pub(super) fn row(&mut self, key: &Key, body: &Body, keys_only: bool) -> Option<proto::Row> {
        if !body.is_live(self.now_ms) {
            return None;
        }
        let origin = body.version().origin;
        let site = match &self.site {
            Some((known, site)) if *known == origin => Arc::clone(site),
            _ => {
                let site = self.node.site_of(origin).unwrap_or_default();
                self.site = Some((origin, Arc::clone(&site)));
                site
            }
        };
        rows::row_out(&self.table, key, body, &site, keys_only)
    }
}

#[tonic::async_trait]
impl KeyValueService for KeyValue {
    async fn get(
        &self,
        request: Request<proto::GetRequest>,
    ) -> Result<Response<proto::GetResponse>, Status> {
        let query = rows::get_in(request.into_inner())?;
        let mut view = self.view(query.table, &query.session).await?;
        let row = view.get(&query.key)?;
        Ok(Response::new(proto::GetResponse { row, session: view.seen.token() }))
    }

    async fn get_many(
        &self,
        request: Request<proto::GetManyRequest>,
    ) -> Result<Response<proto::GetManyResponse>, Status> {
        let query = rows::get_many_in(request.into_inner(), &self.config.limits)?;
        let mut view = self.view(query.table, &query.session).await?;
        let bytes_max = self.config.limits.answer_bytes_max;
        let keys = query.keys;
        let is_short = keys.len() <= KEYS_INLINE_MAX;
        let read = move || (view.get_many(&keys, bytes_max), view.seen);
        let (found, seen) = if is_short {
            read()
        } else {
            tokio::task::spawn_blocking(read).await.map_err(|_| AnswerError::Fault)?
        };
        let rows = found?.ok_or(AnswerError::AnswerTooLarge { bytes_max })?;
        Ok(Response::new(proto::GetManyResponse { rows, session: seen.token() }))
    }

    async fn put(
        &self,
        request: Request<proto::PutRequest>,
    ) -> Result<Response<proto::PutResponse>, Status> {
        let now_ms = self.node.now_ms();
        let request = request.into_inner();
        let session = Session::from_token(&request.session)?;
        let mutation = rows::put_in(request, &self.config.limits, now_ms)?;
        Ok(Response::new(rows::put_out(self.write(mutation).await?, session)))
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::DeleteResponse>, Status> {
        let request = request.into_inner();
        let session = Session::from_token(&request.session)?;
        let mutation = rows::delete_in(request)?;
        Ok(Response::new(rows::delete_out(self.write(mutation).await?, session)))
    }

    async fn insert(
        &self,
        request: Request<proto::InsertRequest>,
    ) -> Result<Response<proto::InsertResponse>, Status> {
        let now_ms = self.node.now_ms();
        let request = request.into_inner();
        let session = Session::from_token(&request.session)?;
        let mutation = rows::insert_in(request, &self.config.limits, now_ms)?;
        Ok(Response::new(rows::insert_out(self.write(mutation).await?, session)))
    }

    async fn batch(
        &self,
        request: Request<proto::BatchRequest>,
    ) -> Result<Response<proto::BatchResponse>, Status> {
        let now_ms = self.node.now_ms();
        let request = request.into_inner();
        let session = Session::from_token(&request.session)?;
        let mutations = rows::batch_in(request, &self.config.limits, now_ms)?;
        Ok(Response::new(rows::batch_out(self.node.write(mutations).await?, session)))
    }

    type BulkWriteStream = BulkStream;

    async fn bulk_write(
        &self,
        request: Request<Streaming<proto::BulkWriteRequest>>,
    ) -> Result<Response<BulkStream>, Status> {
        let limits = Arc::new(self.config.limits.clone());
        Ok(Response::new(bulk::start(self.node.clone(), limits, request.into_inner())))
    }

    type ScanStream = ScanStream;

    async fn scan(
        &self,
        request: Request<proto::ScanRequest>,
    ) -> Result<Response<ScanStream>, Status> {
        let query = rows::scan_in(request.into_inner())?;
        let scans_max = self.config.scans_max;
        let place = Arc::clone(&self.scans)
            .try_acquire_owned()
            .map_err(|_| AnswerError::TooManyScans { scans_max })?;
        let view = self.view(query.table.clone(), &query.session).await?;
        Ok(Response::new(scan::start(view, &query, &self.config, place)?))
    }
}
