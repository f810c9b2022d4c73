//! The answering side of a comparison: one snapshot, kept for some minutes at most.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::Node;
use crate::{
    model::Heads,
    protocol::{
        compare::{Answer, Ask},
        ranges::{self, MESSAGE_BYTES_MAX, Position},
    },
    store::{Positions, StoreError},
};

/// A snapshot keeps the space of what is replaced meanwhile: how long it is kept at most.
pub(super) const SNAPSHOT_AGE_MAX: Duration = Duration::from_secs(600);
/// How long to wait for what the other side's snapshot has, so that few rows are on their way.
pub(super) const CATCH_UP_MAX: Duration = Duration::from_secs(5);

/// Rows of a store from before its admission count as known everywhere, and are nowhere else.
pub(super) const BEING_ADMITTED: &str =
    "it is being admitted to the cluster: compare once it is a member; see lastword status there";

/// How long a peer is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// How long its snapshot is kept at most.
    pub snapshot_age_max: Duration,
    /// How long to wait for what its own snapshot has.
    pub catch_up_max: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { snapshot_age_max: SNAPSHOT_AGE_MAX, catch_up_max: CATCH_UP_MAX }
    }
}

/// Answers the questions of one peer, one after the other.
#[derive(Debug)]
pub struct Answering {
    node: Node,
    patience: Patience,
    open: Option<Open>,
}

/// The snapshot of the comparison that is under way.
#[derive(Debug)]
struct Open {
    id: u64,
    rows: Arc<Positions>,
    until: Instant,
}

impl Answering {
    /// From the rows of `node`.
    #[must_use]
    pub fn new(node: &Node, patience: Patience) -> Answering {
        Answering { node: node.clone(), patience, open: None }
    }

    /// The answer to a question of the comparison `id`; `None`: there is none to give. May take as long
    /// as a pass over all rows, which does not block the caller's thread.
    pub async fn answer(&mut self, id: u64, ask: Ask) -> Option<Answer> {
        match ask {
            Ask::Begin(heads) => Some(self.begin(id, &heads).await),
            Ask::End => {
                self.open.take_if(|open| open.id == id);
                None
            }
            ask => Some(match self.open.as_ref().filter(|open| open.id == id) {
                None => Answer::Refused("the snapshot of this comparison is gone".to_owned()),
                Some(open) => self.pass(Arc::clone(&open.rows), ask).await,
            }),
        }
    }

    /// Lets the snapshot go when its time is up; waits for ever where there is none.
    pub async fn expire(&mut self) {
        match &self.open {
            None => std::future::pending().await,
            Some(open) => {
                tokio::time::sleep_until(open.until).await;
                self.open = None;
            }
        }
    }

    async fn begin(&mut self, id: u64, heads: &Heads) -> Answer {
        self.open = None;
        // Who is not there yet compares all the same: what is on its way is told apart.
        let snapshot = self.node.snapshot_at(heads, self.patience.catch_up_max).await;
        let snapshot = snapshot.unwrap_or_else(|_| self.node.snapshot());
        if !snapshot.may_be_told() {
            return Answer::Refused(BEING_ADMITTED.to_owned());
        }
        let (heads, floor) = ((**snapshot.heads()).clone(), snapshot.floor().clone());
        let rows = Arc::new(snapshot.positions(true));
        let until = Instant::now() + self.patience.snapshot_age_max;
        self.open = Some(Open { id, rows, until });
        Answer::Begun { heads, floor }
    }

    async fn pass(&self, rows: Arc<Positions>, ask: Ask) -> Answer {
        let passes = Arc::clone(&self.node.shared.calls.passes);
        let place = passes.acquire_owned().await.expect("it is never closed");
        let answered = tokio::task::spawn_blocking(move || {
            let _place = place;
            match ask {
                Ask::Ranges(question) => {
                    match ranges::answer(&*rows, &question, MESSAGE_BYTES_MAX) {
                        Ok(answer) => Answer::Ranges(answer),
                        Err(error) => Answer::Refused(error.to_string()),
                    }
                }
                Ask::Rows(positions) => match bodies(&rows, &positions) {
                    Ok(bodies) => Answer::Bodies(bodies),
                    Err(error) => Answer::Refused(error.to_string()),
                },
                Ask::Begin(_) | Ask::End => Answer::Refused("not a question for rows".to_owned()),
            }
        });
        answered.await.unwrap_or_else(|_| Answer::Refused("a fault while it read".to_owned()))
    }
}

/// The bodies at the positions, as far as they fit a message, at least one.
fn bodies(rows: &Positions, positions: &[Position]) -> Result<Vec<Option<Bytes>>, StoreError> {
    let mut bodies = Vec::with_capacity(positions.len());
    let mut bytes = 0;
    for position in positions {
        let body = rows.body_at(position)?;
        bytes += body.as_ref().map_or(0, Bytes::len);
        if bytes > MESSAGE_BYTES_MAX && !bodies.is_empty() {
            break;
        }
        bodies.push(body);
    }
    Ok(bodies)
}
