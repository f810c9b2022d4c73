//! The receiving side of a reconciliation, from the moment on at which the other side's rows are merged:
//! which of ours died there.
//!
//! ```text
//! begin --> question --> the other side's snapshot --> answer --> on_answer --> question ... end
//! ```
//!
//! A live row that only we have is dead where the other's heads cover it: it had the row, or what
//! superseded it, and has purged that since.

use super::{Reconciled, Snapshot, StoreError};
use crate::{
    model::{Key, Origin, TableName, Version},
    protocol::{
        Compare,
        ranges::{CompareError, Comparer, Comparison, Difference},
    },
};

/// The most rows that one reconciliation takes away: they go in one commit.
const DEAD_ROWS_MAX: usize = 1_000_000;

/// A comparison of our rows with those of another store's snapshot.
pub struct Reconciliation {
    own: Origin,
    sender: Origin,
    with: Compare,
    snapshot: Snapshot,
    comparer: Comparer,
    dead: Vec<(TableName, Key, Version)>,
}

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// To be answered from the other side's snapshot.
    Ask(Comparison),
    /// To be applied.
    End(Reconciled),
}

/// Why a reconciliation cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Rows cannot be read, or an answer breaks the rules.
    #[error(transparent)]
    Compare(#[from] CompareError<StoreError>),
    /// A row cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The bound.
    #[error(
        "more than {DEAD_ROWS_MAX} rows died at the peer while this site was away: stop the node, run \
         `lastword rejoin --data DIR`, and start it again as a new member"
    )]
    TooManyDead,
}

impl Reconciliation {
    /// Of the store `own`, as it is in `snapshot`, with the moment `with` of the store `sender`, all of
    /// whose rows above our heads are in the snapshot. A question has at most `message_bytes`. Costs
    /// a pass over all rows.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`]: rows cannot be read.
    pub fn begin(
        own: Origin,
        sender: Origin,
        with: Compare,
        snapshot: Snapshot,
        message_bytes: usize,
    ) -> Result<(Reconciliation, Comparison), ReconcileError> {
        let mut comparer = Comparer::new(message_bytes);
        let question = comparer.begin(&snapshot.positions(false))?;
        let dead = Vec::new();
        Ok((Reconciliation { own, sender, with, snapshot, comparer, dead }, question))
    }

    /// Takes the answer to the newest question.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`]: the reconciliation is over, and nothing was changed.
    pub fn on_answer(&mut self, answer: &Comparison) -> Result<Step, ReconcileError> {
        let source = self.snapshot.positions(false);
        let mut only_here = Vec::new();
        let question = self.comparer.on_answer(&source, answer, |difference| {
            if let Difference::OnlyHere(position) = difference {
                only_here.extend(position.row());
            }
        })?;
        for (table, key) in only_here {
            let Some(body) = self.snapshot.get(&table, &key)? else { continue };
            let version = body.version();
            let is_new = self.snapshot.is_renewed(self.own, &self.with.heads, version);
            if self.with.heads.includes(version) && !is_new {
                self.dead.push((table, key, version));
            }
        }
        if self.dead.len() > DEAD_ROWS_MAX {
            return Err(ReconcileError::TooManyDead);
        }
        Ok(match question {
            Some(question) => Step::Ask(question),
            None => Step::End(Reconciled {
                sender: self.sender,
                dead: std::mem::take(&mut self.dead),
                claim: self.with.heads.clone(),
                floor: self.with.floor.clone(),
            }),
        })
    }
}
