//! The writer thread: many waiting requests share one durable commit.
//!
//! ```text
//! callers --> bounded queue --> [ take all that wait | one commit | answer each ] --> bell
//! ```
//!
//! While one commit is on its way to the disk the next group gathers; so one caller waits for one
//! commit, and a thousand callers wait for two. An answer is sent only after the commit.

use std::{sync::Arc, thread};

use tokio::sync::{mpsc, oneshot};

use super::{Shared, WriteError};
use crate::store::{Outcome, Request, Writer};

/// How many requests may wait: beyond, callers wait to enqueue.
const QUEUE_REQUESTS_MAX: usize = 4_096;
/// How many bytes of rows one commit takes, roughly, so that none waits for a giant.
const GROUP_BYTES_MAX: usize = 16 << 20;

/// A request and where its answer goes.
pub(super) struct Job {
    /// `None`: end the writer.
    request: Option<Request>,
    answer: oneshot::Sender<Result<Outcome, WriteError>>,
}

/// A request under way.
type Waiting = (Request, oneshot::Sender<Result<Outcome, WriteError>>);
/// Where a caller waits.
pub(super) type Answer = oneshot::Receiver<Result<Outcome, WriteError>>;

impl Job {
    pub(super) fn new(request: Request) -> (Job, Answer) {
        let (answer, receiver) = oneshot::channel();
        (Job { request: Some(request), answer }, receiver)
    }

    /// Ends the writer, after all that waits before it.
    pub(super) fn stop() -> Job {
        Job { request: None, answer: oneshot::channel().0 }
    }
}

/// Starts the writer thread; it ends with [`Job::stop`], or when the store fails.
pub(super) fn start(
    mut writer: Writer,
    shared: Arc<Shared>,
) -> std::io::Result<(mpsc::Sender<Job>, thread::JoinHandle<()>)> {
    let (sender, mut queue) = mpsc::channel(QUEUE_REQUESTS_MAX);
    let thread = thread::Builder::new().name("lastword-writer".into()).spawn(move || {
        let ended = Ended(shared);
        let shared = &ended.0;
        let mut stop = false;
        while !stop {
            let Some(first) = queue.blocking_recv() else { break };
            let group;
            (group, stop) = gather(first, &mut queue);
            if !group.is_empty() && !commit(&mut writer, shared, group) {
                break;
            }
        }
        drop(queue);
    })?;
    Ok((sender, thread))
}

/// Says that the writer has ended, however it did.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.stopped();
    }
}

/// The first job and whatever else waits, up to the bound on bytes; and whether to stop then.
fn gather(first: Job, queue: &mut mpsc::Receiver<Job>) -> (Vec<Waiting>, bool) {
    let mut bytes = 0;
    let mut group = Vec::new();
    let mut next = Some(first);
    while let Some(Job { request, answer }) = next {
        let Some(request) = request else { return (group, true) };
        bytes += request.size_bytes();
        group.push((request, answer));
        let full = bytes >= GROUP_BYTES_MAX || group.len() >= QUEUE_REQUESTS_MAX;
        next = if full { None } else { queue.try_recv().ok() };
    }
    (group, false)
}

/// Commits a group and answers it; `false` where the store failed and the node must stop.
fn commit(writer: &mut Writer, shared: &Shared, group: Vec<Waiting>) -> bool {
    let (requests, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    let now_ms = shared.clock.now_ms();
    match writer.apply(now_ms, &requests) {
        Ok(applied) => {
            shared.announce(&applied.outcomes, applied.rows, &applied.heads, applied.committed);
            for (answer, outcome) in answers.into_iter().zip(applied.outcomes) {
                // A caller that went away does not want to know.
                let _ = answer.send(Ok(outcome));
            }
            true
        }
        Err(error) => {
            let error = error.to_string();
            tracing::error!(%error, "the store failed: the node stops");
            shared.fail(&error);
            for answer in answers {
                let _ = answer.send(Err(WriteError::StoreFailed(error.clone())));
            }
            false
        }
    }
}
