//! The writer: many waiting requests share one durable commit.
//!
//! ```text
//! callers --> bounded queue --> thread: [ take all that wait | one commit | answer each ] --> bell
//! a caller who is alone ------------->  [ one commit, where it stands                  ] --> bell
//! ```
//!
//! While one commit is on its way to the disk the next group gathers; so one caller waits for one
//! commit, and a thousand callers wait for two. An answer is sent only after the commit.
//!
//! A caller who is alone commits by itself: the way to the thread and back takes half as long as
//! a sync. It does so only where syncs are short, since it keeps one of the runtime's threads waiting,
//! and where there are others.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, TryLockError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::{Shared, WriteError};
use crate::store::{Outcome, Request, Writer};

/// How many requests may wait: beyond, callers wait to enqueue.
const QUEUE_REQUESTS_MAX: usize = 4_096;
/// How many bytes of rows one commit takes, roughly, so that none waits for a giant.
const GROUP_BYTES_MAX: usize = 16 << 20;
/// A caller commits by itself where the last commit took at most so long, in microseconds.
const ALONE_COMMIT_US_MAX: u64 = 1_000;
/// And where its rows are few: they keep no other task waiting.
const ALONE_ROWS_MAX: usize = 64;

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

/// The way into the store, for all callers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Door {
    queue: mpsc::Sender<Job>,
    /// `None`: the node has stopped.
    writer: Arc<Mutex<Option<Writer>>>,
    /// Callers who wait for a commit of their own.
    waiting: Arc<AtomicUsize>,
    /// What the newest commit took, in microseconds.
    commit_us: Arc<AtomicU64>,
    /// Whether others can go on while one of the runtime's threads waits for the disk.
    has_threads: bool,
}

/// A caller who waits for a commit of its own.
#[derive(Debug)]
pub(super) struct Waits {
    waiting: Arc<AtomicUsize>,
    alone: bool,
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn has_threads() -> bool {
    tokio::runtime::Handle::try_current().is_ok_and(|runtime| runtime.metrics().num_workers() > 1)
}

/// Starts the writer thread; it ends with [`Job::stop`], or when the store fails.
pub(super) fn start(
    writer: Writer,
    shared: Arc<Shared>,
) -> std::io::Result<(Door, thread::JoinHandle<()>)> {
    let (sender, mut queue) = mpsc::channel(QUEUE_REQUESTS_MAX);
    let door = Door {
        queue: sender,
        writer: Arc::new(Mutex::new(Some(writer))),
        waiting: Arc::default(),
        commit_us: Arc::default(),
        has_threads: has_threads(),
    };
    // Not the queue's sender: the queue ends with its last caller.
    let (writer, commit_us) = (Arc::clone(&door.writer), Arc::clone(&door.commit_us));
    let thread = thread::Builder::new().name("lastword-writer".into()).spawn(move || {
        let ended = Ended(shared);
        let shared = &ended.0;
        let mut stop = false;
        while !stop {
            let Some(first) = queue.blocking_recv() else { break };
            let mut open = lock(&writer);
            let Some(writer) = open.as_mut() else { break };
            let group;
            (group, stop) = gather(first, &mut queue);
            if !group.is_empty() && !commit_group(writer, shared, &commit_us, group) {
                break;
            }
        }
        // The store is closed before anyone is told that the node has stopped.
        drop(lock(&writer).take());
        drop(queue);
    })?;
    Ok((door, thread))
}

fn lock(writer: &Mutex<Option<Writer>>) -> MutexGuard<'_, Option<Writer>> {
    writer.lock().expect("a caller panicked in a commit: this is a bug in lastword")
}

/// Ends the writer's thread where a caller panics in a commit: the thread says so.
struct StopOnPanic<'d>(&'d Door);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = self.0.queue.try_send(Job::stop());
        }
    }
}

impl Door {
    /// Puts a request into the queue; waits for room in it. `None`: the node has stopped.
    pub(super) async fn enqueue(&self, request: Request) -> Option<Answer> {
        let (job, answer) = Job::new(request);
        self.queue.send(job).await.ok()?;
        Some(answer)
    }

    /// Ends the writer, after all that waits before.
    pub(super) async fn stop(&self) {
        // Where the queue is closed already, the writer has ended.
        let _ = self.queue.send(Job::stop()).await;
    }

    /// Notes that somebody waits for a commit, until that is dropped.
    pub(super) fn wait(&self) -> Waits {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        Waits { waiting: Arc::clone(&self.waiting), alone: before == 0 }
    }

    /// Commits the request here and now, where nobody else wants to and it will not take long; else
    /// gives it back.
    pub(super) fn commit_alone(
        &self,
        shared: &Shared,
        waits: &Waits,
        request: Request,
    ) -> Result<Result<Outcome, WriteError>, Request> {
        let is_quick = self.commit_us.load(Ordering::Relaxed) <= ALONE_COMMIT_US_MAX
            && request.rows() <= ALONE_ROWS_MAX;
        let queue_is_empty = self.queue.capacity() == self.queue.max_capacity();
        if !(waits.alone && is_quick && queue_is_empty && self.has_threads) {
            return Err(request);
        }
        let mut open = match self.writer.try_lock() {
            Ok(open) => open,
            // The writer thread tells of a panic.
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return Err(request),
        };
        let Some(writer) = open.as_mut() else { return Err(request) };
        if !writer.has_room(request.size_bytes()) {
            return Err(request);
        }
        let stop = StopOnPanic(self);
        let committed = commit(writer, shared, &self.commit_us, &[request]);
        drop(stop);
        drop(open);
        Ok(match committed {
            Ok(mut outcomes) => Ok(outcomes.pop().expect("one for each request")),
            Err(error) => {
                // The queue was empty; where it is full now, its next job finds that the store failed.
                let _ = self.queue.try_send(Job::stop());
                Err(error)
            }
        })
    }
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
fn commit_group(
    writer: &mut Writer,
    shared: &Shared,
    commit_us: &AtomicU64,
    group: Vec<Waiting>,
) -> bool {
    let (requests, answers): (Vec<_>, Vec<_>) = group.into_iter().unzip();
    match commit(writer, shared, commit_us, &requests) {
        Ok(outcomes) => {
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // A caller that went away does not want to know.
                let _ = answer.send(Ok(outcome));
            }
            true
        }
        Err(error) => {
            for answer in answers {
                let _ = answer.send(Err(error.clone()));
            }
            false
        }
    }
}

/// Commits requests and rings the bell; one outcome for each.
fn commit(
    writer: &mut Writer,
    shared: &Shared,
    commit_us: &AtomicU64,
    requests: &[Request],
) -> Result<Vec<Outcome>, WriteError> {
    let began = Instant::now();
    match writer.apply(shared.clock.now_ms(), requests) {
        Ok(applied) => {
            let took_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
            if applied.committed {
                commit_us.store(took_us, Ordering::Relaxed);
            }
            Ok(shared.announce(applied))
        }
        Err(error) => {
            let error = error.to_string();
            tracing::error!(%error, "the store failed: the node stops");
            shared.fail(&error);
            Err(WriteError::StoreFailed(error))
        }
    }
}
