//! How a part of the node asks a peer something: the link to it carries question and answer.
//!
//! ```text
//! PeerLine::ask --> Call --> the link's LineEnd --> frames --> the peer
//!               <-- Answered <--
//! ```
//!
//! Edges do not know one another: whoever asks finds the link's line here, by the peer's origin.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{
    model::Origin,
    protocol::compare::{Answer, Ask},
};

/// How many passes over rows for peers run at once; others wait.
const PASSES_MAX: usize = 2;

/// A question on its way to a peer.
#[derive(Debug)]
pub struct Call {
    /// The number of its comparison.
    pub id: u64,
    /// The question.
    pub ask: Ask,
    /// Where the answer goes; `None`: there is none to come.
    pub answer: Option<oneshot::Sender<Answered>>,
}

/// What came back.
#[derive(Debug)]
pub struct Answered {
    /// The answer.
    pub answer: Answer,
    /// What question and answer took on the wire, in bytes.
    pub bytes: u64,
}

/// The lines to all peers whose link is up.
#[derive(Debug)]
pub struct Calls {
    lines: Mutex<Lines>,
    /// For passes over the rows that peers ask for.
    pub(super) passes: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Lines {
    up: HashMap<Origin, Line>,
    next_id: u64,
}

#[derive(Debug)]
struct Line {
    id: u64,
    calls: mpsc::Sender<Call>,
    /// One at a time may ask.
    free: Arc<Semaphore>,
}

/// The link's end of a line; the line ends when this is dropped.
#[derive(Debug)]
pub struct LineEnd {
    lines: Arc<Calls>,
    peer: Origin,
    id: u64,
    calls: mpsc::Receiver<Call>,
}

/// A line to a peer, for one who asks alone.
#[derive(Debug)]
pub(super) struct PeerLine {
    calls: mpsc::Sender<Call>,
    _alone: OwnedSemaphorePermit,
}

/// Why a peer cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoLine {
    /// No link to it is up.
    Down,
    /// Somebody asks already.
    Busy,
}

impl Default for Calls {
    fn default() -> Calls {
        Calls { lines: Mutex::default(), passes: Arc::new(Semaphore::new(PASSES_MAX)) }
    }
}

impl Calls {
    /// A link to `peer` is up; its line replaces that of an older link.
    pub fn open(self: &Arc<Calls>, peer: Origin) -> LineEnd {
        let (sender, calls) = mpsc::channel(1);
        let mut lines = self.lock();
        lines.next_id += 1;
        let id = lines.next_id;
        let free = Arc::new(Semaphore::new(1));
        lines.up.insert(peer, Line { id, calls: sender, free });
        LineEnd { lines: Arc::clone(self), peer, id, calls }
    }

    pub(super) fn line(&self, peer: Origin) -> Result<PeerLine, NoLine> {
        let lines = self.lock();
        let line = lines.up.get(&peer).ok_or(NoLine::Down)?;
        let alone = Arc::clone(&line.free).try_acquire_owned().map_err(|_| NoLine::Busy)?;
        Ok(PeerLine { calls: line.calls.clone(), _alone: alone })
    }

    fn lock(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().expect("no holder of this lock panics")
    }
}

impl PeerLine {
    /// Asks, and waits for the answer; `None`: the link has ended.
    pub(super) async fn ask(&self, id: u64, ask: Ask) -> Option<Answered> {
        let (sender, answer) = oneshot::channel();
        self.calls.send(Call { id, ask, answer: Some(sender) }).await.ok()?;
        answer.await.ok()
    }

    /// Tells the peer something to which there is no answer.
    pub(super) fn tell(&self, id: u64, ask: Ask) {
        // Where the link has ended there is nobody to tell; where it is busy the peer finds out by time.
        let _ = self.calls.try_send(Call { id, ask, answer: None });
    }
}

impl LineEnd {
    /// The next question to send; waits for ever where another link of the pair has taken over.
    pub async fn next(&mut self) -> Call {
        match self.calls.recv().await {
            Some(call) => call,
            None => std::future::pending().await,
        }
    }
}

impl Drop for LineEnd {
    fn drop(&mut self) {
        let mut lines = self.lines.lock();
        if lines.up.get(&self.peer).is_some_and(|line| line.id == self.id) {
            lines.up.remove(&self.peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> Origin {
        Origin::from_bytes([7; 16])
    }

    #[tokio::test]
    async fn one_asks_at_a_time_and_a_link_that_ends_says_so() {
        let calls = Arc::new(Calls::default());
        assert_eq!(calls.line(peer()).unwrap_err(), NoLine::Down);
        let mut end = calls.open(peer());
        let line = calls.line(peer()).unwrap();
        assert_eq!(calls.line(peer()).unwrap_err(), NoLine::Busy);
        let answering = async {
            let call = end.next().await;
            let answer = Answer::Refused("no".into());
            call.answer.unwrap().send(Answered { answer, bytes: 3 }).unwrap();
            // The next question is never answered.
            drop(end.next().await);
            drop(end);
        };
        let asking = async {
            assert_eq!(line.ask(1, Ask::End).await.unwrap().bytes, 3);
            assert!(line.ask(1, Ask::End).await.is_none());
            assert!(line.ask(1, Ask::End).await.is_none());
        };
        tokio::join!(asking, answering);
        assert_eq!(calls.line(peer()).unwrap_err(), NoLine::Down);
    }

    #[tokio::test]
    async fn the_line_of_a_link_that_is_replaced_does_not_take_the_new_one_along() {
        let calls = Arc::new(Calls::default());
        let old = calls.open(peer());
        let _new = calls.open(peer());
        drop(old);
        assert!(calls.line(peer()).is_ok());
    }
}
