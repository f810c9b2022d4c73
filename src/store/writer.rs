//! The writing half of a store: groups of requests, each made durable by one record of the log.
//!
//! ```text
//! requests --> transaction --> record --> log, synced --> memory --> published --> mover, where due
//! ```

use std::sync::{Arc, atomic::Ordering};

use super::{
    Applied, MeetError, Outcome, Published, Request, Store, StoreError,
    apply::{Finished, Transaction},
    batch::Batch,
    flush::{self, Job, Mover},
    log::Log,
    membership,
    memory::Memory,
    tables::{self, Space},
};
use crate::{model::Hlc, protocol::Clock};

/// How far ahead of the wall clock a ceiling is reserved, in milliseconds: an idle store commits
/// once in that time, and a restarted one goes on at most so far ahead of the wall clock, however
/// often it was restarted.
const CEILING_RESERVE_MS: u64 = 3_000;

/// The writing half of a store: there is one.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    clock: Clock,
    /// Durable: no stamp or head above it was sent anywhere.
    ceiling: Hlc,
    log: Log,
    /// `None`: the writer moves memory into redb itself.
    mover: Option<Mover>,
    /// A memory with so many bytes of log is moved into redb.
    memory_bytes: usize,
    /// A commit failed half-way: what it left in memory must never be seen.
    failed: bool,
    /// Whether memory could be moved into redb after the last commit.
    moved: Result<(), StoreError>,
}

/// What a commit of a few rows takes besides them, at most: heads, contexts, a conflict or two.
const SLACK_BYTES: usize = 64 << 10;
/// How far memory grows beyond its size while the one before it moves into redb, in its sizes.
const MEMORY_GROWTH_MAX: f64 = 0.5;

impl Writer {
    pub(super) fn new(
        store: Store,
        clock: Clock,
        ceiling: Hlc,
        log: Log,
        mover: Option<Mover>,
        memory_bytes: usize,
    ) -> Writer {
        Writer { store, clock, ceiling, log, mover, memory_bytes, failed: false, moved: Ok(()) }
    }

    /// By how much stamps lead the wall clock, in milliseconds.
    #[must_use]
    pub fn ahead_ms(&self, now_ms: u64) -> u64 {
        self.clock.last().ms().saturating_sub(now_ms)
    }

    /// Whether a commit of a few rows, of about so many bytes, leaves memory where it is: it will
    /// wait for the disk alone.
    #[must_use]
    pub fn has_room(&self, bytes: usize) -> bool {
        let log_bytes = self.store.published().view.memories[0].log_bytes();
        log_bytes + bytes + SLACK_BYTES < self.memory_bytes
    }

    /// Applies a group of requests in one durable transaction.
    ///
    /// `now_ms` is wall time in milliseconds since the Unix epoch, UTC; it may go backwards.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: no reader sees anything of the group, but where the disk failed late, the
    /// whole group may be found there at the next start. Whether the store can go on is doubtful:
    /// stop the node.
    pub fn apply(&mut self, now_ms: u64, requests: &[Request]) -> Result<Applied, StoreError> {
        // Not even a head: it would claim the write that is in doubt.
        if self.failed {
            return Err(StoreError::Failed);
        }
        let published = self.store.published();
        let advances_only = requests.iter().all(|request| matches!(request, Request::Advance));
        if advances_only && !published.cluster.may_stamp() {
            self.clock.advance(now_ms);
        }
        if advances_only && !membership::is_due(&published, self.store.origin()) {
            if !published.cluster.may_stamp() {
                return Ok(Applied {
                    outcomes: vec![Outcome::Advanced; requests.len()],
                    rows: Vec::new(),
                    rows_removed: 0,
                    heads: self.store.heads(),
                    committed: false,
                });
            }
            let head = self.clock.advance(now_ms);
            if head <= self.ceiling {
                let mut heads = (*published.heads).clone();
                heads.raise(self.store.origin(), head);
                self.store.publish(heads, None, None, None);
                return Ok(Applied {
                    outcomes: vec![Outcome::Advanced; requests.len()],
                    rows: Vec::new(),
                    rows_removed: 0,
                    heads: self.store.heads(),
                    committed: false,
                });
            }
        }
        self.commit(&published, now_ms, requests)
    }

    fn commit(
        &mut self,
        published: &Published,
        now_ms: u64,
        requests: &[Request],
    ) -> Result<Applied, StoreError> {
        self.failed = true;
        std::mem::replace(&mut self.moved, Ok(()))?;
        let applied = self.try_commit(published, now_ms, requests)?;
        self.failed = false;
        Ok(applied)
    }

    fn try_commit(
        &mut self,
        published: &Published,
        now_ms: u64,
        requests: &[Request],
    ) -> Result<Applied, StoreError> {
        let rows = requests.iter().map(Request::rows).sum();
        let bytes = requests.iter().map(Request::size_bytes).sum();
        let batch = Batch::begin(published.view.clone(), rows, bytes);
        let mut transaction =
            Transaction::begin(batch, published, self.store.origin(), &mut self.clock, now_ms);
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            outcomes.push(match request {
                Request::Local(batch) => Outcome::Local(transaction.write_all(batch)?),
                Request::Remote(batch) => Outcome::Remote(transaction.merge_all(batch)?),
                Request::Rewrite(batch) => Outcome::Rewritten(transaction.rewrite_all(batch)?),
                Request::HandOver(batch) => Outcome::HandedOver(transaction.hand_over(batch)?),
                Request::Carried { origin, heads } => {
                    transaction.note_carried(*origin, heads)?;
                    Outcome::Noted
                }
                Request::Advance => {
                    transaction.upkeep()?;
                    Outcome::Advanced
                }
                Request::Meet(meeting) => Outcome::Met(transaction.meet(meeting)?),
                Request::Admit { newcomer, site, role, earlier, head, wall_ms, drift_bound_ms } => {
                    let far = wall_ms.abs_diff(now_ms) > *drift_bound_ms
                        || head.is_beyond(now_ms, *drift_bound_ms);
                    Outcome::Admitted(if far {
                        Err(MeetError::ClockSkew)
                    } else {
                        transaction.admit(*newcomer, (site, *role), *earlier, *head)?
                    })
                }
                Request::Join { sponsor, rows, drift_bound_ms } => {
                    Outcome::Joined(transaction.join(*sponsor, rows, *drift_bound_ms)?)
                }
                Request::Activate => {
                    transaction.activate();
                    Outcome::Advanced
                }
                Request::Purge { stable, drift_bound_ms } => {
                    Outcome::Purged(transaction.purge(stable, *drift_bound_ms)?)
                }
                Request::Reconcile(end) => Outcome::Reconciled(transaction.reconcile(end)?),
            });
        }
        // A commit of peers' rows alone says nothing new of this origin. Were its head to follow the
        // clock then, two idle peers would answer each other's checkpoints for ever.
        let speaks = |outcome: &Outcome| {
            use Outcome::{Admitted, Advanced, HandedOver, Local, Rewritten};
            match outcome {
                HandedOver(Ok(report)) => report.written > 0,
                Local(Ok(_)) | Rewritten(Ok(_)) | Advanced | Admitted(Ok(_)) => true,
                _ => false,
            }
        };
        let Finished { mut batch, heads, names, cluster, rows_removed } =
            transaction.finish(outcomes.iter().any(speaks), &self.store.shared.journal)?;
        let brings_all = |request: &Request| match request {
            Request::Remote(batch) => batch.claim.is_some(),
            Request::Reconcile(_) => true,
            _ => false,
        };
        let is_first_delta = self.store.awaits_first_delta() && requests.iter().any(brings_all);
        if is_first_delta {
            batch.put_number(Space::State, tables::STATE_FIRST_DELTA, 1);
        }
        if batch.is_empty() {
            // What came by another way already is not worth a wait for the disk.
            let heads = self.store.heads();
            return Ok(Applied {
                outcomes,
                rows: Vec::new(),
                rows_removed: 0,
                heads,
                committed: false,
            });
        }

        // What was issued lies below the ceiling. The reserve is measured from the wall clock: from
        // the last stamp, which after a restart is the ceiling itself, it would grow at each start.
        let ahead_of_now = |ms| Hlc::at_ms(now_ms.saturating_add(ms));
        let last = self.clock.last();
        let mut ceiling = self.ceiling;
        if last > ceiling || ahead_of_now(CEILING_RESERVE_MS / 2) > ceiling {
            ceiling = last.max(ahead_of_now(CEILING_RESERVE_MS));
            batch.put_number(Space::State, tables::STATE_CEILING, ceiling.bits());
        }
        let sequence = self.log.next();
        self.log.append(batch.record())?;

        self.ceiling = ceiling;
        let rows = batch.into_memory(&published.view.memories[0], sequence)?;
        self.store.publish(heads, names, cluster, Some(sequence));
        if is_first_delta {
            // Whoever is told that this store is ready finds the rows.
            self.store.shared.awaits_first_delta.store(false, Ordering::Release);
        }
        // This commit stands, whatever becomes of that.
        self.moved = self.move_where_due(sequence);
        Ok(Applied { outcomes, rows, rows_removed, heads: self.store.heads(), committed: true })
    }

    /// Moves what is in memory into redb. The writer must be one that moves it itself.
    pub(super) fn move_all(&mut self) -> Result<(), StoreError> {
        let full = std::mem::replace(&mut self.memory_bytes, 0);
        let moved = self.move_where_due(self.log.next() - 1);
        self.memory_bytes = full;
        moved
    }

    /// Gives a full memory to the mover, or waits for it where memory has grown too far.
    fn move_where_due(&mut self, sequence: u64) -> Result<(), StoreError> {
        let memory = Arc::clone(&self.store.published().view.memories[0]);
        let bytes = memory.log_bytes();
        if bytes < self.memory_bytes {
            return Ok(());
        }
        if let Some(mover) = &self.mover {
            // So much of the move must be done before memory may grow on: the writer slows down to
            // the mover's pace, a part at a time, and does not stand still until it is through.
            #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 bytes")]
            let grown = (bytes - self.memory_bytes) as f64 / self.memory_bytes.max(1) as f64;
            if !mover.wait(grown / MEMORY_GROWTH_MAX)? {
                return Ok(());
            }
        }
        let segments = self.log.rotate();
        let memory_bytes = self.memory_bytes;
        self.store.shared.change_published(|published| {
            published.view.memories.insert(0, Arc::new(Memory::new(memory_bytes)));
        });
        let job = Job { memory, sequence, segments };
        match &self.mover {
            Some(mover) => mover.give(job),
            None => flush::run(&self.store.shared, self.log.returned(), job, |_| ())?,
        }
        Ok(())
    }
}
