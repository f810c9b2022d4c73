//! The Rust client: every call of the API, a session that reads its own writes, and failover.
//!
//! ```text
//! Client --call--> node in use --unavailable--> next node --...--> each node once, then an error
//!    |                                            `-- is now the node in use
//!    `-- Session: the token of the last answer, sent with every read
//! ```
//!
//! Nodes are given in order of preference. A call goes to the node that worked last; after
//! [`Options::prefer_again_after`] the preferred ones are tried again. A call is sent to another
//! node only where it cannot be done twice by that, or where doing it twice leaves the same rows.
//!
//! A clone shares the connections, and goes on with a session of its own.

mod admin;
mod bulk;
mod error;
mod nodes;
mod scan;
mod session;
mod verify;

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Response;

use crate::wire::proto;

pub use admin::Parts;
pub use bulk::{BulkAnswers, BulkRequests};
pub use error::ClientError;
pub use scan::Scan;
pub use session::Session;
pub use verify::{Verify, VerifyMirror};

use nodes::{Nodes, Repeat};

/// The most nodes that a client may be given.
pub const NODES_MAX: usize = 32;
/// The largest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// How long a client waits for what.
#[derive(Clone, Debug)]
pub struct Options {
    /// For a connection to a node. Default 2 s.
    pub connect_timeout: Duration,
    /// For an answer of one node; of a scan, for each part. Default 10 s.
    pub request_timeout: Duration,
    /// How long after a failover the preferred nodes are tried again. Default 30 s.
    pub prefer_again_after: Duration,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            connect_timeout: Duration::from_secs(2),
            request_timeout: Duration::from_secs(10),
            prefer_again_after: Duration::from_secs(30),
        }
    }
}

/// A client of the nodes of one cluster.
#[derive(Clone, Debug)]
pub struct Client {
    nodes: Nodes,
    session: Session,
}

/// What a delete did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The version of the tombstone.
    pub version: proto::Version,
    /// Whether a live row was there.
    pub existed: bool,
}

/// What an insert did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inserted {
    /// The key that the node made.
    pub key: Bytes,
    /// The version written.
    pub version: proto::Version,
}

impl Client {
    /// A client of `servers` (`http://HOST:PORT`), in order of preference. Connects at the first
    /// call.
    ///
    /// # Errors
    ///
    /// [`ClientError::Address`]: one that is no URL, none at all, or more than [`NODES_MAX`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn new<S: AsRef<str>>(
        servers: impl IntoIterator<Item = S>,
        options: Options,
    ) -> Result<Client, ClientError> {
        Ok(Client { nodes: Nodes::new(servers, options)?, session: Session::default() })
    }

    /// The session so far, to go on with it elsewhere.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Goes on with a session from elsewhere.
    pub fn set_session(&mut self, session: Session) {
        self.session = session;
    }

    /// Reads one row; `None` where it is absent, deleted or expired.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn get(
        &mut self,
        table: &str,
        key: impl Into<Bytes>,
    ) -> Result<Option<proto::Row>, ClientError> {
        let request = proto::GetRequest {
            table: table.to_owned(),
            key: key.into(),
            session: self.session.token(),
        };
        let answer = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.key_values.get(request).await
            })
            .await?;
        self.session.follow(answer.session);
        Ok(answer.row)
    }

    /// Reads many rows of one table from one snapshot, answered in the order asked.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn get_many(
        &mut self,
        table: &str,
        keys: Vec<Bytes>,
    ) -> Result<Vec<proto::FoundRow>, ClientError> {
        let request =
            proto::GetManyRequest { table: table.to_owned(), keys, session: self.session.token() };
        let answer = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.key_values.get_many(request).await
            })
            .await?;
        self.session.follow(answer.session);
        Ok(answer.rows)
    }

    /// Replaces the whole row. `ttl`: how long it lives; `None`: for ever.
    ///
    /// # Errors
    ///
    /// [`ClientError`]. After [`ClientError::Lost`] and [`ClientError::TimedOut`] the row may have
    /// been written.
    pub async fn put(
        &mut self,
        table: &str,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
    ) -> Result<proto::Version, ClientError> {
        let request = proto::PutRequest {
            table: table.to_owned(),
            key: key.into(),
            value: value.into(),
            ttl: ttl.map(to_proto),
            session: self.session.token(),
        };
        let answer = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.key_values.put(request).await
            })
            .await?;
        self.session.follow(answer.session);
        answer.version.ok_or(ClientError::Incomplete("version"))
    }

    /// Deletes a row; deleting what is absent succeeds.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn delete(
        &mut self,
        table: &str,
        key: impl Into<Bytes>,
    ) -> Result<Deleted, ClientError> {
        let request = proto::DeleteRequest {
            table: table.to_owned(),
            key: key.into(),
            session: self.session.token(),
        };
        let answer = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.key_values.delete(request).await
            })
            .await?;
        self.session.follow(answer.session);
        let version = answer.version.ok_or(ClientError::Incomplete("version"))?;
        Ok(Deleted { version, existed: answer.existed })
    }

    /// Writes a row under a new key that the node makes. Never sent twice where the first node may
    /// have written it.
    ///
    /// # Errors
    ///
    /// As [`Client::put`].
    pub async fn insert(
        &mut self,
        table: &str,
        value: impl Into<Bytes>,
        ttl: Option<Duration>,
        id_kind: proto::IdKind,
    ) -> Result<Inserted, ClientError> {
        let request = proto::InsertRequest {
            table: table.to_owned(),
            value: value.into(),
            ttl: ttl.map(to_proto),
            id_kind: id_kind.into(),
            session: self.session.token(),
        };
        let answer = self
            .nodes
            .call(Repeat::Harmful, request, |mut node, request| async move {
                node.key_values.insert(request).await
            })
            .await?;
        self.session.follow(answer.session);
        let version = answer.version.ok_or(ClientError::Incomplete("version"))?;
        Ok(Inserted { key: answer.key, version })
    }

    /// Applies many mutations in one atomic local commit.
    ///
    /// # Errors
    ///
    /// As [`Client::put`], for all of them.
    pub async fn batch(
        &mut self,
        mutations: Vec<proto::Mutation>,
    ) -> Result<Vec<proto::MutationResult>, ClientError> {
        let inserts = mutations
            .iter()
            .any(|m| matches!(m.mutation, Some(proto::mutation::Mutation::Insert(_))));
        let repeat = if inserts { Repeat::Harmful } else { Repeat::Harmless };
        let request = proto::BatchRequest { mutations, session: self.session.token() };
        let answer = self
            .nodes
            .call(repeat, request, |mut node, request| async move {
                node.key_values.batch(request).await
            })
            .await?;
        self.session.follow(answer.session);
        Ok(answer.results)
    }

    /// Begins a load: batches go in at one end and answers come out at the other, many under way at
    /// once. Who does not read the answers is slowed down.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn bulk_write(&mut self) -> Result<(BulkRequests, BulkAnswers), ClientError> {
        let (requests, answers) = self
            .nodes
            .call(Repeat::Harmless, (), |mut node, ()| async move {
                let (requests, queue) = mpsc::channel(bulk::QUEUED_MAX);
                let answers = node.key_values.bulk_write(ReceiverStream::new(queue)).await?;
                Ok(Response::new((requests, answers.into_inner())))
            })
            .await?;
        let timeout = self.nodes.request_timeout();
        Ok(bulk::handles(requests, answers, self.nodes.in_use(), timeout))
    }

    /// Begins to read a key range in key order, from one snapshot. The request's `session` is
    /// filled in here.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub async fn scan(&mut self, request: proto::ScanRequest) -> Result<Scan<'_>, ClientError> {
        let request = proto::ScanRequest { session: self.session.token(), ..request };
        let stream = self
            .nodes
            .call(Repeat::Harmless, request, |mut node, request| async move {
                node.key_values.scan(request).await
            })
            .await?;
        Ok(Scan::new(
            stream,
            &mut self.session,
            self.nodes.in_use().to_owned(),
            self.nodes.request_timeout(),
        ))
    }
}

/// A duration longer than the proto can say becomes the longest that it can.
fn to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration::try_from(duration)
        .unwrap_or(prost_types::Duration { seconds: i64::MAX, nanos: 0 })
}
