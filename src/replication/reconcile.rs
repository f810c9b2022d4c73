//! Where this store stands below the peer's floor: drives [`Reconciliation`] beside a link.
//!
//! ```text
//! below floor --> wait for the turn: nobody else merges --> Want, to reconcile
//! first half: the peer's rows above our heads, merged, nothing claimed
//! second half: questions and answers --> rows that only we have, and that the peer's heads cover
//! one transaction: those rows go, heads and floor rise --> Want, as ever; the turn is given up
//! ```
//!
//! Local writes go on all the while; a row that was written anew stays. A link that breaks leaves
//! nothing behind.

use tokio::{sync::OwnedRwLockWriteGuard, task::spawn_blocking};

use super::exchange::LinkError;
use crate::{
    model::Origin,
    node::Node,
    protocol::{
        Compare,
        ranges::{self, Comparison, MESSAGE_BYTES_MAX},
    },
    store::{ReconcileError, Reconciliation, Snapshot, Step},
};

/// A reconciliation under way, from the turn on.
pub(super) struct Reconciling {
    peer: Origin,
    /// Given up when this is dropped.
    _turn: OwnedRwLockWriteGuard<()>,
    /// Its second half.
    comparing: Option<Reconciliation>,
}

impl Reconciling {
    pub(super) fn new(peer: Origin, turn: OwnedRwLockWriteGuard<()>) -> Reconciling {
        Reconciling { peer, _turn: turn, comparing: None }
    }

    /// The first half is merged: begins to compare.
    pub(super) async fn begin(&mut self, node: &Node, with: Compare) -> Result<Step, LinkError> {
        let (own, peer, snapshot) = (node.origin(), self.peer, node.snapshot());
        let begun =
            blocking(move || Reconciliation::begin(own, peer, with, snapshot, MESSAGE_BYTES_MAX));
        let (comparing, question) = begun.await?;
        self.comparing = Some(comparing);
        Ok(Step::Ask(question))
    }

    /// Takes the answer to the newest question; `None`: none was asked.
    pub(super) async fn on_answer(
        &mut self,
        answer: Comparison,
    ) -> Result<Option<Step>, LinkError> {
        let Some(mut comparing) = self.comparing.take() else { return Ok(None) };
        let (comparing, step) = blocking(move || {
            let step = comparing.on_answer(&answer);
            (comparing, step)
        })
        .await;
        let step = step?;
        if matches!(step, Step::Ask(_)) {
            self.comparing = Some(comparing);
        }
        Ok(Some(step))
    }
}

/// Answers a peer's question from the snapshot that it reconciles with.
pub(super) async fn answer(
    snapshot: Snapshot,
    question: Comparison,
) -> Result<Comparison, LinkError> {
    let answer =
        blocking(move || ranges::answer(&snapshot.positions(false), &question, MESSAGE_BYTES_MAX));
    Ok(answer.await.map_err(ReconcileError::from)?)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("comparing does not panic")
}
