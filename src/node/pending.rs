//! Requests that are in the writer's queue: what a caller waits on for their commit.

use super::{Committed, Node, WriteError, writer::Answer};
use crate::{
    model::Heads,
    store::{MergeReport, Outcome},
};

/// A client's writes on their way into a durable commit.
#[derive(Debug)]
pub struct Writing {
    answer: Answer,
    node: Node,
}

impl Writing {
    pub(super) fn new(answer: Answer, node: Node) -> Writing {
        Writing { answer, node }
    }

    /// Waits for the commit.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: refused as a whole, or the node stops.
    pub async fn written(mut self) -> Result<Committed, WriteError> {
        let results = match self.node.answered(&mut self.answer).await? {
            Outcome::Local(result) => result?,
            _ => unreachable!("a local batch has a local outcome"),
        };
        let mut session = Heads::new();
        for written in &results {
            session.raise(written.version.origin, written.version.hlc);
        }
        Ok(Committed { results, session })
    }
}

/// A peer's rows on their way into a durable commit.
#[derive(Debug)]
pub struct Merging {
    answer: Answer,
    node: Node,
}

impl Merging {
    pub(super) fn new(answer: Answer, node: Node) -> Merging {
        Merging { answer, node }
    }

    /// Waits for the commit. May be called again where it was not awaited to its end.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn merged(&mut self) -> Result<MergeReport, WriteError> {
        match self.node.answered(&mut self.answer).await? {
            Outcome::Remote(report) => Ok(report),
            _ => unreachable!("a remote batch has a remote outcome"),
        }
    }
}
