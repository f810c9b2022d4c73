//! Moves what is in memory into redb, sorted, and gives the log its segments back.
//!
//! ```text
//! writer: memory full --> a fresh memory, a fresh segment --> job --> mover
//! mover:  some thousand rows --> redb, durable --> new base                     again and again
//!         change index, all else, number of the newest commit --> redb --> new base --> segments
//! ```
//!
//! A key that was written a thousand times in between reaches redb once. Readers go on: their views
//! keep the memory and the redb that they were taken with.
//!
//! Rows move a part at a time, because redb needs room for every page that a transaction touches, in
//! memory and in the file. A part holds nothing that the memory above it does not show as well, so
//! a view is the same with it and without; and a crash between two parts costs the move, not the
//! rows: until the number of the newest commit is in redb, the log has them all. What a part
//! replaces goes from the change index with it, for nobody knows of it afterwards; what it adds
//! there can wait for the end, where all of it is one run.

use std::{
    ops::Bound,
    sync::{Arc, Condvar, Mutex, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;

use super::{
    Shared, StoreError, codec,
    log::Returned,
    memory::Memory,
    tables,
    tables::Space,
    view::{Base, View},
};
use crate::model::Version;

/// How often the mover looks whether readers have let go of a memory that has moved.
const RELEASE_EVERY: Duration = Duration::from_millis(100);

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
    /// How much of the job is done, from 0 to 1.
    done: f64,
    failure: Option<String>,
}

impl Mover {
    /// Starts the mover.
    pub(super) fn start(shared: Arc<Shared>, returned: Returned) -> std::io::Result<Mover> {
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
        let state = Arc::new(State::default());
        let of_thread = Ends(Arc::clone(&state));
        let thread = thread::Builder::new().name("lastword-mover".into()).spawn(move || {
            // A memory takes a while to free: it is done here, not by the reader who saw it last.
            let mut moved: Vec<Arc<Memory>> = Vec::new();
            let Ends(state) = &of_thread;
            loop {
                moved.retain(|memory| Arc::strong_count(memory) > 1);
                let job = match queue.recv_timeout(RELEASE_EVERY) {
                    Ok(job) => job,
                    Err(mpsc::RecvTimeoutError::Timeout) => continue,
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                };
                moved.push(Arc::clone(&job.memory));
                let outcome = run(&shared, &returned, job, |done| state.set(|p| p.done = done));
                state.set(|progress| {
                    progress.busy = false;
                    progress.failure = outcome.err().map(|error| error.to_string());
                });
            }
        })?;
        Ok(Mover { jobs: Some(jobs), thread: Some(thread), state })
    }

    /// Waits until a job may be given, or until the share `done` of the present one is done.
    /// Gives whether a job may be given.
    pub(super) fn wait(&self, done: f64) -> Result<bool, StoreError> {
        let mut progress = self.state.lock();
        while progress.busy && progress.done < done {
            progress = self.state.changed.wait(progress).expect("no holder of this lock panics");
        }
        match &progress.failure {
            Some(failure) => Err(StoreError::Moving(failure.clone())),
            None => Ok(!progress.busy),
        }
    }

    /// Gives a job; the mover must be idle.
    pub(super) fn give(&self, job: Job) {
        self.state.set(|progress| {
            progress.busy = true;
            progress.done = 0.0;
        });
        let jobs = self.jobs.as_ref().expect("open until it is dropped");
        // The thread ends after the sender only.
        let _ = jobs.send(job);
    }
}

/// Lets nobody wait for a mover that has ended.
struct Ends(Arc<State>);

impl Drop for Ends {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.set(|progress| {
                progress.busy = false;
                progress.failure = Some("the mover panicked: this is a bug in lastword".into());
            });
        }
    }
}

impl State {
    fn lock(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().expect("no holder of this lock panics")
    }

    fn set(&self, change: impl FnOnce(&mut Progress)) {
        change(&mut self.lock());
        self.changed.notify_all();
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

/// Does one job; says after each part how much is done, from 0 to 1.
pub(super) fn run(
    shared: &Shared,
    returned: &Returned,
    job: Job,
    progress: impl Fn(f64),
) -> Result<(), StoreError> {
    let Job { memory, sequence, segments } = job;
    let mut rows = memory.newest(Space::Rows).peekable();
    let mut index: Vec<(Version, Bytes)> = Vec::new();
    while rows.peek().is_some() {
        move_rows(shared, rows.by_ref().take(shared.move_rows), &mut index)?;
        publish(shared, |_| ())?;
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 entries")]
        progress(index.len() as f64 / memory.len().max(1) as f64);
    }
    drop(rows);
    move_rest(shared, &memory, index, sequence)?;
    publish(shared, |view| view.memories.retain(|other| !Arc::ptr_eq(other, &memory)))?;
    returned.lock().expect("no holder of this lock panics").extend(segments);
    Ok(())
}

/// Lets readers see redb as it is now, and the view changed with it.
fn publish(shared: &Shared, change: impl FnOnce(&mut View)) -> Result<(), StoreError> {
    let base = Arc::new(Base::of(&shared.database)?);
    shared.change_published(|published| {
        published.view.base = base;
        change(&mut published.view);
    });
    Ok(())
}

/// Moves some rows, and takes the entries of those that stood there out of the change index. The
/// entries of the new ones are added to `index`.
fn move_rows(
    shared: &Shared,
    rows: impl Iterator<Item = (Bytes, Option<Bytes>)>,
    index: &mut Vec<(Version, Bytes)>,
) -> Result<(), StoreError> {
    let write = tables::begin_write(&shared.database)?;
    let mut replaced: Vec<Version> = Vec::new();
    {
        let mut table = write.open_table(Space::Rows.table())?;
        for (place, body) in rows {
            let before = match &body {
                Some(body) => table.insert(&place[..], &body[..])?,
                None => table.remove(&place[..])?,
            };
            let before = before.map(|before| codec::version_of_body(before.value())).transpose()?;
            let version = body.map(|body| codec::version_of_body(&body)).transpose()?;
            // A move that a crash cut short may have brought it here already.
            replaced.extend(before.filter(|before| version != Some(*before)));
            index.extend(version.map(|version| (version, place)));
        }
    }
    replaced.sort_unstable_by_key(|version| version.in_index());
    {
        let mut table = write.open_table(Space::Changes.table())?;
        for version in replaced {
            table.remove(&codec::change_key(version)[..])?;
        }
    }
    write.commit()?;
    Ok(())
}

/// Moves all that is not a row, together with the number of the newest commit.
fn move_rest(
    shared: &Shared,
    memory: &Memory,
    mut index: Vec<(Version, Bytes)>,
    sequence: u64,
) -> Result<(), StoreError> {
    index.sort_unstable_by_key(|(version, _)| version.in_index());
    let write = tables::begin_write(&shared.database)?;
    add_to_index(&mut write.open_table(Space::Changes.table())?, &index)?;
    for space in Space::ALL {
        if matches!(space, Space::Rows | Space::Changes) {
            continue;
        }
        let mut table = write.open_table(space.table())?;
        for (key, value) in memory.newest(space) {
            match value {
                Some(value) => table.insert(&key[..], &value[..]).map(drop)?,
                None => table.remove(&key[..]).map(drop)?,
            }
        }
    }
    tables::set_flushed(&write, sequence)?;
    write.commit()?;
    Ok(())
}

/// Adds entries to the change index, which come sorted. Most stand behind all that is there: pages
/// are filled one after the other, without a search for each entry.
fn add_to_index(
    table: &mut redb::Table<'_, &'static [u8], &'static [u8]>,
    entries: &[(Version, Bytes)],
) -> Result<(), StoreError> {
    let mut entries = entries.iter().peekable();
    while let Some((version, _)) = entries.peek() {
        let first = codec::change_key(*version);
        let mut cursor = table.lower_bound_mut(Bound::Included(&first[..]))?;
        // A move that a crash cut short may have brought some here already.
        if cursor.peek_next()?.is_some_and(|(key, _)| key.value() == first) {
            entries.next();
            continue;
        }
        while let Some((version, place)) = entries.peek() {
            match cursor.insert_before(&codec::change_key(*version)[..], &place[..]) {
                Ok(()) => entries.next(),
                // Another entry stands between this one and the last.
                Err(redb::CursorError::UnorderedKey) => break,
                Err(error) => return Err(error.into()),
            };
        }
        cursor.close()?;
    }
    Ok(())
}
