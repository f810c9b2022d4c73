//! Writing: clients' batches, peers' rows and the node's own requests, on their way to the writer and back.

use tokio::task::coop::consume_budget;

use super::{Merging, Mutation, Node, WriteError, Writing, pending, writer::Answer};
use crate::{
    model::Heads,
    protocol::SystemRow,
    store::{LocalBatch, LocalWrite, Operation, Outcome, RemoteBatch, Request, Written},
};

/// A client's writes, durable.
#[derive(Clone, Debug)]
pub struct Committed {
    /// One for each mutation, in order.
    pub results: Vec<Written>,
    /// What a read must have incorporated to see them.
    pub session: Heads,
}

impl Node {
    /// Writes a row of a system table, as this site's own write.
    pub(super) async fn write_system(&self, row: SystemRow) -> Result<Committed, WriteError> {
        let SystemRow { table, key, value } = row;
        let operation = Operation::Put { key, value: value.into(), expires_at_ms: None };
        self.commit_local(vec![LocalWrite { table, operation }], true).await
    }

    /// Writes a client's mutations in one atomic, durable commit.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: refused as a whole, or the node stops.
    pub async fn write(&self, mutations: Vec<Mutation>) -> Result<Committed, WriteError> {
        self.check_role()?;
        let writes = self.writes_of(mutations);
        self.commit_local(writes, self.shared.create_tables).await
    }

    /// Puts a client's mutations into the writer's queue, in the order of the calls, and gives what
    /// to wait on for their commit: a load need not wait for one commit to begin the next.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn begin_write(&self, mutations: Vec<Mutation>) -> Result<Writing, WriteError> {
        self.check_role()?;
        let writes = self.writes_of(mutations);
        let request = self.local_request(writes, self.shared.create_tables);
        let waits = self.door.wait();
        let answer = self.enqueue(request).await?;
        Ok(Writing::new(answer, self.clone(), waits))
    }

    fn writes_of(&self, mutations: Vec<Mutation>) -> Vec<LocalWrite> {
        let now_ms = self.now_ms();
        let write = |Mutation { table, change }: Mutation| LocalWrite {
            table,
            operation: change.into_operation(now_ms),
        };
        mutations.into_iter().map(write).collect()
    }

    pub(super) async fn commit_local(
        &self,
        writes: Vec<LocalWrite>,
        create_tables: bool,
    ) -> Result<Committed, WriteError> {
        let request = self.local_request(writes, create_tables);
        let waits = self.door.wait();
        if self.ask_to_stop.is_cancelled() {
            return Err(self.stopped_error());
        }
        match self.door.commit_alone(&self.shared, &waits, request) {
            Ok(outcome) => {
                // Who writes in a loop lets others have the thread now and then.
                consume_budget().await;
                pending::committed(outcome?)
            }
            Err(request) => {
                let answer = self.enqueue(request).await?;
                Writing::new(answer, self.clone(), waits).written().await
            }
        }
    }

    fn local_request(&self, writes: Vec<LocalWrite>, create_tables: bool) -> Request {
        Request::Local(LocalBatch {
            writes,
            create_tables,
            sequence: self.shared.sequence,
            drift_bound_ms: self.shared.drift_bound_ms,
        })
    }

    /// Puts a peer's rows into the writer's queue, in the order of the calls, and gives what to wait
    /// on for their durable commit: a link need not wait for one commit to submit to the next.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn submit(&self, batch: RemoteBatch) -> Result<Merging, WriteError> {
        let waits = self.door.wait();
        if self.ask_to_stop.is_cancelled() {
            return Err(self.stopped_error());
        }
        match self.door.commit_alone(&self.shared, &waits, Request::Remote(batch)) {
            Ok(outcome) => {
                consume_budget().await;
                Ok(Merging::done(outcome?, self.clone(), waits))
            }
            Err(request) => {
                let answer = self.enqueue(request).await?;
                Ok(Merging::waiting(answer, self.clone(), waits))
            }
        }
    }

    /// Lets the own head follow the clock, so that peers can tell "nothing new" from "not heard".
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn advance(&self) -> Result<(), WriteError> {
        self.request(Request::Advance).await.map(|_| ())
    }

    pub(super) async fn request(&self, request: Request) -> Result<Outcome, WriteError> {
        let _waits = self.door.wait();
        let mut answer = self.enqueue(request).await?;
        self.answered(&mut answer).await
    }

    pub(super) async fn answered(&self, answer: &mut Answer) -> Result<Outcome, WriteError> {
        match answer.await {
            Ok(answer) => answer,
            Err(_) => {
                // Dropped unanswered: the writer ends, and says why when it has.
                self.stopped().await;
                Err(self.stopped_error())
            }
        }
    }

    async fn enqueue(&self, request: Request) -> Result<Answer, WriteError> {
        if self.ask_to_stop.is_cancelled() {
            return Err(self.stopped_error());
        }
        self.door.enqueue(request).await.ok_or_else(|| self.stopped_error())
    }

    fn stopped_error(&self) -> WriteError {
        match self.shared.failure.get() {
            Some(failure) => WriteError::StoreFailed(failure.clone()),
            None => WriteError::ShuttingDown,
        }
    }
}
