//! Moves what is in memory into redb, in one large sorted transaction, and gives the log its
//! segments back.
//!
//! ```text
//! writer: memory full --> a fresh memory, a fresh segment --> job --> mover
//! mover:  sorted entries + number of the newest commit --> redb, durable --> new base --> segments
//! ```
//!
//! A key that was written a thousand times in between reaches redb once. Readers go on: their views
//! keep the memory and the redb that they were taken with.

use std::{
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
};

use super::{Shared, StoreError, log::Returned, memory::Memory, tables, tables::Space, view::Base};

/// Who moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moving {
    /// A thread of its own; the writer goes on meanwhile.
    Background,
    /// The writer itself, before it goes on: a simulation has one thread.
    Inline,
}

/// A memory that is full, and the segments that hold its commits.
pub(super) struct Job {
    pub(super) memory: Arc<Memory>,
    /// The newest commit in it.
    pub(super) sequence: u64,
    pub(super) segments: Vec<u32>,
}

/// Takes jobs, one at a time.
#[derive(Debug)]
pub(super) struct Mover {
    jobs: Option<mpsc::SyncSender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    busy: bool,
    failure: Option<String>,
}

impl Mover {
    /// Starts the mover.
    pub(super) fn start(shared: Arc<Shared>, returned: Returned) -> std::io::Result<Mover> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
        let state = Arc::new(State::default());
        let of_thread = Arc::clone(&state);
        let thread = thread::Builder::new().name("lastword-mover".into()).spawn(move || {
            for job in queue {
                let moved = run(&shared, &returned, job);
                let mut progress = of_thread.lock();
                progress.busy = false;
                progress.failure = moved.err().map(|error| error.to_string());
                of_thread.changed.notify_all();
            }
        })?;
        Ok(Mover { jobs: Some(jobs), thread: Some(thread), state })
    }

    /// Whether a job may be given.
    pub(super) fn is_idle(&self) -> Result<bool, StoreError> {
        let progress = self.state.lock();
        match &progress.failure {
            Some(failure) => Err(StoreError::Moving(failure.clone())),
            None => Ok(!progress.busy),
        }
    }

    /// Waits until a job may be given.
    pub(super) fn wait_idle(&self) -> Result<(), StoreError> {
        let mut progress = self.state.lock();
        while progress.busy {
            progress = self.state.changed.wait(progress).expect("no holder of this lock panics");
        }
        drop(progress);
        self.is_idle().map(|_| ())
    }

    /// Gives a job; the mover must be idle.
    pub(super) fn give(&self, job: Job) {
        self.state.lock().busy = true;
        let jobs = self.jobs.as_ref().expect("open until it is dropped");
        // The thread ends after the sender only.
        let _ = jobs.send(job);
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().expect("no holder of this lock panics")
    }
}

impl Drop for Mover {
    /// Ends what was begun.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type SpaceWriter<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// Does one job.
pub(super) fn run(shared: &Shared, returned: &Returned, job: Job) -> Result<(), StoreError> {
    let Job { memory, sequence, segments } = job;
    let write = tables::begin_write(&shared.database)?;
    {
        let mut open: Option<(Space, SpaceWriter<'_>)> = None;
        for (space, key, value) in memory.newest() {
            if open.as_ref().is_none_or(|(current, _)| *current != space) {
                // One at a time: the entries come sorted by space.
                drop(open.take());
                open = Some((space, write.open_table(space.table())?));
            }
            let (_, table) = open.as_mut().expect("opened just now");
            match value {
                Some(value) => table.insert(&key[..], &value[..]).map(drop)?,
                None => table.remove(&key[..]).map(drop)?,
            }
        }
    }
    tables::set_flushed(&write, sequence)?;
    write.commit()?;
    let base = Arc::new(Base::of(&shared.database)?);
    shared.change_published(|published| {
        published.view.base = base;
        published.view.memories.retain(|other| !Arc::ptr_eq(other, &memory));
    });
    returned.lock().expect("no holder of this lock panics").extend(segments);
    Ok(())
}
