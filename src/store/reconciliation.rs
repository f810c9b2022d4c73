//! The receiving side of a reconciliation, from the moment on at which the other side's rows are merged:
//! which of ours died there.
//!
//! ```text
//! begin --> question --> the other side's snapshot --> answer --> on_answer --> question ... end
//! ```
//!
//! A live row that only we have is dead where the other's heads cover it: it had the row, or what
//! superseded it, and has purged that since.
//!
//! Unless the others never could have it: what a store wrote before it was admitted counts as known to
//! them; so does what came to none of them before its origin was closed. Such rows are *renewed*, written
//! anew, once this store is a member. Of rows that came to some of the others without a claim nobody can
//! tell whether they died there, where anything younger is purged: they go into the conflict journal, for an operator to
//! look at.

use super::{Reconciled, Snapshot, StoreError};
use crate::{
    model::{Hlc, Key, Origin, Row, TableName, Version},
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
    dead: Vec<Found>,
    doubtful: Vec<Found>,
    renew: Vec<Found>,
}

/// A row of ours, and its version.
type Found = (TableName, Key, Version);

/// What becomes of a row that the others cannot have as it is.
enum Fate {
    /// It is written anew.
    Renewed,
    /// Perhaps it had come to one of the others, and died there.
    Doubtful,
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
        let [dead, doubtful, renew] = [const { Vec::new() }; 3];
        let of = Reconciliation { own, sender, with, snapshot, comparer, dead, doubtful, renew };
        Ok((of, question))
    }

    /// Takes the answer to the newest question.
    ///
    /// # Errors
    ///
    /// [`ReconcileError`]: the reconciliation is over, and nothing was changed.
    pub fn on_answer(&mut self, answer: &Comparison) -> Result<Step, ReconcileError> {
        let source = self.snapshot.positions(false);
        let mut differences = Vec::new();
        let question =
            self.comparer.on_answer(&source, answer, |difference| differences.push(difference))?;
        for difference in differences {
            let Some((table, key)) = difference.position().row() else { continue };
            let Some(body) = self.snapshot.get(&table, &key)? else { continue };
            let version = body.version();
            let only_here = matches!(difference, Difference::OnlyHere(_));
            match self.fate(version) {
                // It is found in the change index.
                Some(Fate::Renewed) => {}
                // It was to be written anew in an earlier life, and still is.
                _ if self.snapshot.is_to_be_renewed(&table, &key, version)? => {}
                Some(Fate::Doubtful) if only_here && self.may_have_died(version) => {
                    self.doubtful.push((table, key, version));
                }
                // Else the other never had it: what that has instead came in before, and did not win.
                Some(Fate::Doubtful) => self.renew.push((table, key, version)),
                None if only_here && self.with.heads.includes(version) => {
                    self.dead.push((table, key, version));
                }
                None => {}
            }
        }
        if question.is_none() {
            self.find_renewed()?;
        }
        if self.dead.len() + self.doubtful.len() + self.renew.len() > DEAD_ROWS_MAX {
            return Err(ReconcileError::TooManyDead);
        }
        Ok(match question {
            Some(question) => Step::Ask(question),
            None => Step::End(Reconciled {
                sender: self.sender,
                dead: std::mem::take(&mut self.dead),
                doubtful: std::mem::take(&mut self.doubtful),
                renew: std::mem::take(&mut self.renew),
                claim: self.with.heads.clone(),
                floor: self.with.floor.clone(),
            }),
        })
    }

    /// What the others cannot have as it is, tombstones with it: an older row that comes in later would
    /// be lost against them here alone. A tombstone written anew brings nothing back, nor does a row of the system,
    /// which is not compared.
    fn find_renewed(&mut self) -> Result<(), StoreError> {
        let Some(joining) = self.snapshot.joining() else { return Ok(()) };
        let mut ranges = vec![(self.own, Hlc::ZERO, joining.admission)];
        if self.snapshot.earlier().is_some() {
            let closed = |origin: &Origin| self.with.heads.get(*origin).is_closed();
            let members = self.snapshot.members().iter().filter(|(origin, _)| closed(origin));
            ranges.extend(members.map(|(origin, _)| {
                (origin, self.snapshot.members().spread_up_to(origin), Hlc::MAX)
            }));
        }
        for (origin, above, up_to) in ranges {
            for row in self.snapshot.changes_of(origin, above, up_to)? {
                let Row { table, key, body } = row?;
                let version = body.version();
                let renewed = match self.fate(version) {
                    Some(Fate::Renewed) => true,
                    // Rows of the system do not die.
                    Some(Fate::Doubtful) => body.is_tombstone() || table.is_system(),
                    None => false,
                };
                if renewed {
                    self.renew.push((table, key, version));
                }
            }
        }
        Ok(())
    }

    /// Whether the other side has purged anything that may have come after this version. What deletes it and is there
    /// still came in before.
    fn may_have_died(&self, version: Version) -> bool {
        self.with.floor.greatest_open() >= version.hlc
    }

    /// Where a version is one that the others do not take as it is, what becomes of it.
    fn fate(&self, version: Version) -> Option<Fate> {
        let joining = self.snapshot.joining()?;
        if version.origin == self.own {
            return (version.hlc <= joining.admission).then_some(Fate::Renewed);
        }
        self.snapshot.earlier()?;
        if !self.with.heads.get(version.origin).is_closed() {
            return None;
        }
        let members = self.snapshot.members();
        members.get(version.origin)?;
        if version.hlc <= members.spread_up_to(version.origin) {
            None
        } else if version.hlc <= members.reached_up_to(version.origin) {
            Some(Fate::Doubtful)
        } else {
            Some(Fate::Renewed)
        }
    }
}
