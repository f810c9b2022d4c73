//! The one write transaction: clients' writes and peers' rows come in by the same door.
//!
//! ```text
//! requests of many callers --> [ stamp or merge | rows, changes, known, heads, conflicts ] --> commit
//! ```
//!
//! A group of requests shares one durable commit: one record of the log, synced. Stamps are given here, by the one [`Writer`],
//! inside the transaction; a row, its change-index entry, what is known of it and the record of a
//! conflict stand or fall together.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Applied, CONFLICTS_KEPT_MAX, LocalBatch, LocalWrite, MergeReport, Operation, Outcome,
    Published, RefusedError, RemoteBatch, Request, Store, StoreError, TABLES_MAX, TableIds,
    Written,
    batch::{Batch, number_at},
    codec,
    flush::{self, Job, Mover},
    log::Log,
    memory::Memory,
    tables::{self, Space},
};
use crate::{
    model::{
        Body, BodyParts, CONTEXT_ORIGINS_MAX, Context, Heads, Hlc, Key, Knowledge, Origin, Row,
        TableName, Version, Winner, merge,
    },
    protocol::Clock,
};

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
        let published = self.store.published();
        if requests.iter().all(|request| matches!(request, Request::Advance)) {
            let head = self.clock.advance(now_ms);
            if head <= self.ceiling {
                let mut heads = (*published.heads).clone();
                heads.raise(self.store.origin(), head);
                self.store.publish(heads, None, None);
                return Ok(Applied {
                    outcomes: vec![Outcome::Advanced; requests.len()],
                    rows: Vec::new(),
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
        if self.failed {
            return Err(StoreError::Failed);
        }
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
        let sequence = self.log.next();
        let batch = Batch::begin(published.view.clone(), sequence);
        let mut transaction =
            Transaction::begin(batch, published, self.store.origin(), &mut self.clock, now_ms);
        let mut outcomes = Vec::with_capacity(requests.len());
        for request in requests {
            outcomes.push(match request {
                Request::Local(batch) => Outcome::Local(transaction.write_all(batch)?),
                Request::Remote(batch) => Outcome::Remote(transaction.merge_all(batch)?),
                Request::Advance => Outcome::Advanced,
            });
        }
        // A commit of peers' rows alone says nothing new of this origin. Were its head to follow the
        // clock then, two idle peers would answer each other's checkpoints for ever.
        let speaks =
            |outcome: &Outcome| matches!(outcome, Outcome::Local(Ok(_)) | Outcome::Advanced);
        let Finished { mut batch, heads, names, changed } =
            transaction.finish(outcomes.iter().any(speaks))?;
        if batch.is_empty() {
            // What came by another way already is not worth a wait for the disk.
            let heads = self.store.heads();
            return Ok(Applied { outcomes, rows: Vec::new(), heads, committed: false });
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
        let mut record = batch.into_record();
        self.log.append(&mut record)?;

        self.ceiling = ceiling;
        published.view.memories[0].add_log_bytes(record.len());
        self.store.publish(heads, names, Some(sequence));
        // This commit stands, whatever becomes of that.
        self.moved = self.move_where_due(sequence);
        let mut rows: Vec<Row> = changed.into_values().collect();
        rows.sort_unstable_by_key(|row| {
            let version = row.body.version();
            (version.origin, version.hlc)
        });
        Ok(Applied { outcomes, rows, heads: self.store.heads(), committed: true })
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

/// What a transaction leaves to be made durable and published.
struct Finished {
    batch: Batch,
    heads: Heads,
    names: Option<TableIds>,
    changed: HashMap<Bytes, Row>,
}

/// One commit under way, and what it has done so far.
struct Transaction<'t> {
    origin: Origin,
    clock: &'t mut Clock,
    now_ms: u64,
    names: Cow<'t, TableIds>,
    heads: Heads,
    durable_heads: &'t Heads,
    changed: HashMap<Bytes, Row>,
    conflicts_recorded: u64,
    rows_added: u64,
    batch: Batch,
}

impl<'t> Transaction<'t> {
    fn begin(
        batch: Batch,
        published: &'t Published,
        origin: Origin,
        clock: &'t mut Clock,
        now_ms: u64,
    ) -> Transaction<'t> {
        clock.advance(now_ms);
        Transaction {
            origin,
            clock,
            now_ms,
            names: Cow::Borrowed(&published.tables),
            heads: (*published.heads).clone(),
            durable_heads: &published.heads,
            changed: HashMap::new(),
            conflicts_recorded: 0,
            rows_added: 0,
            batch,
        }
    }

    /// Writes the heads, the own one with them where this origin `speaks`, and the counts.
    fn finish(mut self, speaks: bool) -> Result<Finished, StoreError> {
        if speaks {
            self.heads.raise(self.origin, self.clock.last());
        }
        for (origin, hlc) in self.heads.iter() {
            if hlc > self.durable_heads.get(origin) {
                self.batch.put_number(Space::Heads, origin.as_bytes(), hlc.bits());
            }
        }
        if self.rows_added > 0 {
            let rows = self.batch.number(tables::STATE_ROWS)? + self.rows_added;
            self.batch.put_number(Space::State, tables::STATE_ROWS, rows);
        }
        if self.conflicts_recorded > 0 {
            self.trim_journal()?;
        }
        let names = match self.names {
            Cow::Owned(names) => Some(names),
            Cow::Borrowed(_) => None,
        };
        Ok(Finished { batch: self.batch, heads: self.heads, names, changed: self.changed })
    }

    /// Counts the conflicts, and lets the oldest go that are too many.
    fn trim_journal(&mut self) -> Result<(), StoreError> {
        let total = self.batch.number(tables::STATE_CONFLICTS_TOTAL)? + self.conflicts_recorded;
        self.batch.put_number(Space::State, tables::STATE_CONFLICTS_TOTAL, total);
        let mut kept = self.batch.number(tables::STATE_CONFLICTS_KEPT)? + self.conflicts_recorded;
        if kept > CONFLICTS_KEPT_MAX {
            let (from, to) = (Bound::Unbounded, Bound::Unbounded);
            let mut oldest = self.batch.view().range(Space::Conflicts, from, to)?;
            while kept > CONFLICTS_KEPT_MAX
                && let Some((key, _)) = oldest.next()?
            {
                self.batch.remove(Space::Conflicts, key);
                kept -= 1;
            }
        }
        self.batch.put_number(Space::State, tables::STATE_CONFLICTS_KEPT, kept);
        Ok(())
    }

    fn write_all(
        &mut self,
        batch: &LocalBatch,
    ) -> Result<Result<Vec<Written>, RefusedError>, StoreError> {
        let mut ids = match self.check(batch)? {
            Ok(ids) => ids.into_iter(),
            Err(refused) => return Ok(Err(refused)),
        };
        let mut results = Vec::with_capacity(batch.writes.len());
        for write in &batch.writes {
            let table = self.table_id(&write.table);
            let (key, value, expires_at_ms) = match &write.operation {
                Operation::Put { key, value, expires_at_ms } => {
                    (key.clone(), Some(value), *expires_at_ms)
                }
                Operation::Delete { key } => (key.clone(), None, None),
                Operation::InsertSequence { value, expires_at_ms } => {
                    let id = ids.next().expect("one for each such insert");
                    self.batch.put_number(Space::Sequences, &table.0.to_be_bytes(), id);
                    (key_of_id(id), Some(value), *expires_at_ms)
                }
            };
            let place = codec::place(table, key.as_slice());
            let value = value.map(Bytes::as_ref);
            let (version, existed) =
                self.write_row(place, &write.table, &key, value, expires_at_ms)?;
            results.push(Written { key, version, existed });
        }
        Ok(Ok(results))
    }

    /// Whether the batch may be written at all: afterwards nothing refuses a part of it. Gives the
    /// ids of its sequence inserts, in order.
    fn check(&self, batch: &LocalBatch) -> Result<Result<Vec<u64>, RefusedError>, StoreError> {
        let ahead_ms = self.clock.last().ms().saturating_sub(self.now_ms);
        if ahead_ms > batch.drift_bound_ms {
            let bound_ms = batch.drift_bound_ms;
            return Ok(Err(RefusedError::ClockAhead { ahead_ms, bound_ms }));
        }
        let mut new_tables = Vec::new();
        for LocalWrite { table, .. } in &batch.writes {
            if self.names.id(table).is_none() && !new_tables.contains(&table) {
                if !batch.create_tables {
                    return Ok(Err(RefusedError::NoTable(table.clone())));
                }
                new_tables.push(table);
                if self.names.names.len() + new_tables.len() > TABLES_MAX {
                    return Ok(Err(RefusedError::TooManyTables(table.clone())));
                }
            }
        }
        self.next_ids(batch)
    }

    /// For each sequence insert the next id of its table whose place was never used, nor is named
    /// by this batch: a client may put a row there by hand.
    fn next_ids(&self, batch: &LocalBatch) -> Result<Result<Vec<u64>, RefusedError>, StoreError> {
        let mut ids = Vec::new();
        if batch.writes.iter().all(|write| write.operation.key().is_some()) {
            return Ok(Ok(ids));
        }
        let mut last_ids: HashMap<&TableName, u64> = HashMap::new();
        let named: HashSet<(&TableName, &Key)> =
            batch.writes.iter().filter_map(|w| Some((&w.table, w.operation.key()?))).collect();
        for LocalWrite { table, operation } in &batch.writes {
            if operation.key().is_some() {
                continue;
            }
            let Some(sequence) = batch.sequence else { return Ok(Err(RefusedError::NoSequence)) };
            let mut id = match last_ids.get(table).copied() {
                Some(id) => id,
                None => self.last_id(table)?,
            };
            loop {
                let Some(next) = sequence.after(id) else {
                    return Ok(Err(RefusedError::SequenceExhausted(table.clone())));
                };
                id = next;
                let key = key_of_id(id);
                if !named.contains(&(table, &key)) && !self.is_used(table, &key)? {
                    break;
                }
            }
            last_ids.insert(table, id);
            ids.push(id);
        }
        Ok(Ok(ids))
    }

    /// Whether a row, dead or not, stands there.
    fn is_used(&self, table: &TableName, key: &Key) -> Result<bool, StoreError> {
        let Some(id) = self.names.id(table) else { return Ok(false) };
        Ok(self.batch.get(Space::Rows, &codec::place(id, key.as_slice()))?.is_some())
    }

    fn last_id(&self, table: &TableName) -> Result<u64, StoreError> {
        let Some(id) = self.names.id(table) else { return Ok(0) };
        number_at(self.batch.view(), Space::Sequences, &id.0.to_be_bytes())
    }

    fn write_row(
        &mut self,
        place: Bytes,
        table: &TableName,
        key: &Key,
        value: Option<&[u8]>,
        expires_at_ms: Option<u64>,
    ) -> Result<(Version, bool), StoreError> {
        let local = self.standing(&place)?;
        let known = match &local {
            None => Knowledge::default(),
            Some(local) => {
                let kept = self.kept_knowledge(&place)?;
                if kept.is_some() {
                    self.batch.remove(Space::Known, place.clone());
                }
                let mut known = kept.unwrap_or_else(|| Knowledge::of(local));
                let version = local.version();
                known.context.raise(version.origin, version.hlc);
                known
            }
        };
        let context = context_of_a_write(&known, self.origin);
        let version = Version { hlc: self.clock.tick(self.now_ms), origin: self.origin };
        let body = Body::new(&BodyParts {
            version,
            seen: known.seen,
            context: &context,
            expires_at_ms,
            value,
        });
        debug_assert!(local.as_ref().is_none_or(|local| local.version() < version));
        let existed = local.as_ref().is_some_and(|local| local.is_live(self.now_ms));
        let key = Key::new(Bytes::copy_from_slice(key.as_slice())).expect("the length of a key");
        self.put(place, Row { table: table.clone(), key, body }, local.as_ref());
        Ok((version, existed))
    }

    fn merge_all(&mut self, batch: &RemoteBatch) -> Result<MergeReport, StoreError> {
        let mut report = MergeReport::default();
        for row in &batch.rows {
            self.merge_row(row, &mut report)?;
        }
        if let Some(claim) = &batch.claim {
            for (origin, hlc) in claim.iter() {
                self.heads.raise(origin, hlc);
                self.clock.observe(hlc);
            }
        }
        let sender = Bytes::copy_from_slice(batch.sender.as_bytes());
        match (&batch.claim, &batch.tentative) {
            (Some(_), _) => {
                if self.batch.get(Space::Tentative, &sender)?.is_some() {
                    self.batch.remove(Space::Tentative, sender);
                }
            }
            (None, Some(heads)) => {
                self.batch.put(Space::Tentative, sender, heads.to_bytes().into());
            }
            (None, None) => {}
        }
        Ok(report)
    }

    fn merge_row(&mut self, row: &Row, report: &mut MergeReport) -> Result<(), StoreError> {
        let version = row.body.version();
        self.clock.observe(version.hlc);
        // What is claimed and not here was superseded, or died and is purged.
        if self.heads.includes(version) {
            report.passed_over += 1;
            return Ok(());
        }
        let table = self.table_id(&row.table);
        let place = codec::place(table, row.key.as_slice());
        let Some(local) = self.standing(&place)? else {
            self.put(place, row.detached(), None);
            report.stored += 1;
            return Ok(());
        };
        if local.version() == version {
            report.passed_over += 1;
            return Ok(());
        }
        let kept = self.kept_knowledge(&place)?;
        let merged = merge(&local, kept.as_ref(), &row.body);
        let (standing, loser) = match merged.winner {
            Winner::Incoming => (&row.body, &local),
            Winner::Local => (&local, &row.body),
        };
        if merged.conflict && !row.table.is_system() {
            self.record(standing.version(), &Row { body: loser.clone(), ..row.clone() })?;
            report.conflicts += 1;
        }
        if merged.known != Knowledge::of(standing) {
            self.batch.put(Space::Known, place.clone(), codec::known_value(&merged.known).into());
        } else if kept.is_some() {
            self.batch.remove(Space::Known, place.clone());
        }
        match merged.winner {
            Winner::Incoming => {
                self.put(place, row.detached(), Some(&local));
                report.stored += 1;
            }
            Winner::Local => report.passed_over += 1,
        }
        Ok(())
    }

    /// Keeps the losing row of a conflict. The same pair met again finds its entry there.
    fn record(&mut self, winner: Version, loser: &Row) -> Result<(), StoreError> {
        let key = Bytes::copy_from_slice(&codec::conflict_key(loser.body.version()));
        if self.batch.get(Space::Conflicts, &key)?.is_none() {
            self.conflicts_recorded += 1;
        }
        let value = codec::conflict_value(winner, loser);
        self.batch.put(Space::Conflicts, key, value.into());
        Ok(())
    }

    fn standing(&self, place: &[u8]) -> Result<Option<Body>, StoreError> {
        self.batch.get(Space::Rows, place)?.map(codec::body).transpose()
    }

    /// What is kept beside the row, where that is more than its writer knew.
    fn kept_knowledge(&self, place: &[u8]) -> Result<Option<Knowledge>, StoreError> {
        let kept = self.batch.get(Space::Known, place)?;
        kept.map(|value| codec::split_known_value(&value)).transpose()
    }

    /// Puts a row in its place, in that of `before` where one stood there.
    fn put(&mut self, place: Bytes, row: Row, before: Option<&Body>) {
        self.rows_added += u64::from(before.is_none());
        self.batch.put_row(place.clone(), &row.body);
        self.changed.insert(place, row);
    }

    fn table_id(&mut self, table: &TableName) -> codec::TableId {
        if let Some(id) = self.names.id(table) {
            return id;
        }
        let id = self.names.to_mut().add(table);
        let name = Bytes::copy_from_slice(table.as_str().as_bytes());
        self.batch.put(Space::Tables, Bytes::copy_from_slice(&id.0.to_be_bytes()), name);
        id
    }
}

fn key_of_id(id: u64) -> Key {
    Key::new(id.to_string()).expect("at most 20 digits")
}

/// What a new write by `own` says it has seen: what is known, but for what `seen` says already and
/// the writer's own versions.
fn context_of_a_write(known: &Knowledge, own: Origin) -> Context {
    let mut entries: Vec<(Origin, Hlc)> =
        known.context.iter().filter(|&(origin, hlc)| origin != own && hlc > known.seen).collect();
    if entries.len() > CONTEXT_ORIGINS_MAX {
        // Beyond any real cluster. The oldest go: at worst a conflict is recorded that was none.
        entries.sort_unstable_by_key(|&(_, hlc)| std::cmp::Reverse(hlc));
        entries.truncate(CONTEXT_ORIGINS_MAX);
    }
    entries.into_iter().collect()
}
