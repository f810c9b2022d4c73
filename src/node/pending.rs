//! Requests that are in the writer's queue: what a caller waits on for their commit.

use super::{
    Committed, Node, WriteError,
    writer::{Answer, Waits},
};
use crate::{
    model::Heads,
    store::{MergeReport, Outcome},
};

/// A client's writes on their way into a durable commit.
#[derive(Debug)]
pub struct Writing {
    answer: Answer,
    node: Node,
    /// Later callers are not alone.
    _waits: Waits,
}

impl Writing {
    pub(super) fn new(answer: Answer, node: Node, waits: Waits) -> Writing {
        Writing { answer, node, _waits: waits }
    }

    /// Waits for the commit.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: refused as a whole, or the node stops.
    pub async fn written(mut self) -> Result<Committed, WriteError> {
        committed(self.node.answered(&mut self.answer).await?)
    }
}

/// What a client is told of its batch.
pub(super) fn committed(outcome: Outcome) -> Result<Committed, WriteError> {
    let results = match outcome {
        Outcome::Local(result) => result?,
        _ => unreachable!("a local batch has a local outcome"),
    };
    let mut session = Heads::new();
    for written in &results {
        session.raise(written.version.origin, written.version.hlc);
    }
    Ok(Committed { results, session })
}

/// A peer's rows on their way into a durable commit.
#[derive(Debug)]
pub struct Merging {
    state: MergeState,
    node: Node,
    /// As long as these rows are on their way, later ones of the same peer go to the queue behind
    /// them: a claim must not be committed before the rows that it is made for.
    _waits: Waits,
}

#[derive(Debug)]
enum MergeState {
    Waiting(Answer),
    Done(MergeReport),
}

impl Merging {
    pub(super) fn waiting(answer: Answer, node: Node, waits: Waits) -> Merging {
        Merging { state: MergeState::Waiting(answer), node, _waits: waits }
    }

    pub(super) fn done(outcome: Outcome, node: Node, waits: Waits) -> Merging {
        Merging { state: MergeState::Done(report_of(outcome)), node, _waits: waits }
    }

    /// Waits for the commit. May be called again where it was not awaited to its end.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn merged(&mut self) -> Result<MergeReport, WriteError> {
        match &mut self.state {
            MergeState::Waiting(answer) => self.node.answered(answer).await.map(report_of),
            MergeState::Done(report) => Ok(*report),
        }
    }
}

fn report_of(outcome: Outcome) -> MergeReport {
    match outcome {
        Outcome::Remote(report) => report,
        _ => unreachable!("a remote batch has a remote outcome"),
    }
}
