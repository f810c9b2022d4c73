//! The one write transaction: clients' writes and peers' rows come in by the same door.
//!
//! ```text
//! requests of many callers --> [ stamp or merge | rows, changes, known, heads, conflicts ] --> commit
//! ```
//!
//! A group of requests shares one durable commit. Stamps are given here, by the one [`Writer`],
//! inside the transaction; a row, its change-index entry, what is known of it and the record of a
//! conflict stand or fall together.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;
use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    CONFLICTS_KEPT_MAX, Published, Store, StoreError, TABLES_MAX, TableIds, codec, tables,
};
use crate::{
    model::{
        Body, BodyParts, CONTEXT_ORIGINS_MAX, Context, Heads, Hlc, Key, Knowledge, Origin, Row,
        TableName, Version, Winner, merge,
    },
    protocol::{Clock, SequenceIds},
};

/// How far ahead of the wall clock a ceiling is reserved, in milliseconds: an idle store commits
/// once in that time, and a restarted one goes on at most so far ahead of the wall clock, however
/// often it was restarted.
const CEILING_RESERVE_MS: u64 = 3_000;

/// What is asked of the writer.
#[derive(Clone, Debug)]
pub enum Request {
    /// A client's writes: all or none.
    Local(LocalBatch),
    /// A peer's rows, and what may be claimed with them.
    Remote(RemoteBatch),
    /// Nothing to write: let the own head follow the clock.
    Advance,
}

/// A client's writes, in order.
#[derive(Clone, Debug)]
pub struct LocalBatch {
    /// The writes; a later one of the same key wins.
    pub writes: Vec<LocalWrite>,
    /// Whether a table that is not there is created.
    pub create_tables: bool,
    /// The site's sequence ids, where configured.
    pub sequence: Option<SequenceIds>,
    /// The write is refused where the hybrid clock leads the wall clock by more, in milliseconds.
    pub drift_bound_ms: u64,
}

/// One write of a client.
#[derive(Clone, Debug)]
pub struct LocalWrite {
    /// The table.
    pub table: TableName,
    /// What is done there.
    pub operation: Operation,
}

/// What a client does to a row. Times are milliseconds since the Unix epoch, UTC.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Replaces the whole row.
    Put {
        /// The row's key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// When it expires.
        expires_at_ms: Option<u64>,
    },
    /// Leaves a tombstone, whether or not a row is there: an older write may be on its way.
    Delete {
        /// The row's key.
        key: Key,
    },
    /// Writes a row under the next free sequence id.
    InsertSequence {
        /// Its value.
        value: Bytes,
        /// When it expires.
        expires_at_ms: Option<u64>,
    },
}

impl Operation {
    /// The key, where the client names it.
    fn key(&self) -> Option<&Key> {
        match self {
            Operation::Put { key, .. } | Operation::Delete { key } => Some(key),
            Operation::InsertSequence { .. } => None,
        }
    }
}

/// What became of one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The row's key.
    pub key: Key,
    /// The write's version.
    pub version: Version,
    /// Whether a live row was there before.
    pub existed: bool,
}

/// Why a client's batch was refused. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedError {
    /// Tables are not created by writing to them here.
    #[error("table: {0} does not exist, and tables.auto_create is off")]
    NoTable(TableName),
    /// The bound on tables.
    #[error("table: {0} would be more than the {TABLES_MAX} tables a store may have")]
    TooManyTables(TableName),
    /// The hybrid clock leads the wall clock.
    #[error(
        "clock: this node's stamps lead its wall clock by {ahead_ms} ms, more than the bound of \
         {bound_ms} ms: writes are refused until the wall clock has caught up; check the time \
         synchronisation of this machine and its peers"
    )]
    ClockAhead {
        /// By how much.
        ahead_ms: u64,
        /// What is allowed.
        bound_ms: u64,
    },
    /// No sequence ids were configured.
    #[error(
        "id_kind: this site has no sequence ids: set sequence.offset and sequence.increment, or \
         use ID_KIND_UUID_V7"
    )]
    NoSequence,
    /// All up to 2^64 are used.
    #[error("id_kind: table {0} has used up its sequence ids; use ID_KIND_UUID_V7")]
    SequenceExhausted(TableName),
}

/// A peer's rows.
#[derive(Clone, Debug)]
pub struct RemoteBatch {
    /// The store that sent them.
    pub sender: Origin,
    /// The rows.
    pub rows: Vec<Row>,
    /// Heads to raise: the end of a delta.
    pub claim: Option<Heads>,
    /// The tentative vector to keep for this sender.
    pub tentative: Option<Heads>,
}

/// What became of a peer's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeReport {
    /// Rows that stand here now.
    pub stored: u64,
    /// Rows that were here already, or lost against the row that stands here.
    pub passed_over: u64,
    /// Conflicts recorded.
    pub conflicts: u64,
}

/// What became of a request, once it is durable.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Of [`Request::Local`].
    Local(Result<Vec<Written>, RefusedError>),
    /// Of [`Request::Remote`].
    Remote(MergeReport),
    /// Of [`Request::Advance`].
    Advanced,
}

/// A group of requests, applied and durable.
#[derive(Debug)]
pub struct Applied {
    /// One for each request, in order.
    pub outcomes: Vec<Outcome>,
    /// The rows that this group changed, as they stand after it: origin by origin, in the order of
    /// their stamps, and in memory of their own.
    pub rows: Vec<Row>,
    /// What the store has incorporated with them.
    pub heads: Arc<Heads>,
    /// Whether a transaction was committed: there was something to write.
    pub committed: bool,
}

/// The writing half of a store: there is one.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    clock: Clock,
    /// Durable: no stamp or head above it was sent anywhere.
    ceiling: Hlc,
}

impl Writer {
    pub(super) fn new(store: Store, clock: Clock, ceiling: Hlc) -> Result<Writer, StoreError> {
        Ok(Writer { store, clock, ceiling })
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
                self.store.publish(heads, None);
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
        let mut write = self.store.shared.database.begin_write()?;
        write.set_two_phase_commit(true);
        let mut transaction =
            Transaction::begin(&write, published, self.store.origin(), &mut self.clock, now_ms)?;
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
        let Finished { heads, names, changed, wrote } =
            transaction.finish(outcomes.iter().any(speaks))?;
        if !wrote {
            // What came by another way already is not worth a wait for the disk.
            write.abort()?;
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
            write.open_table(tables::META)?.insert(tables::META_CEILING, ceiling.bits())?;
        }
        write.commit()?;

        self.ceiling = ceiling;
        self.store.publish(heads, names);
        let mut rows: Vec<Row> = changed.into_values().collect();
        rows.sort_unstable_by_key(|row| {
            let version = row.body.version();
            (version.origin, version.hlc)
        });
        Ok(Applied { outcomes, rows, heads: self.store.heads(), committed: true })
    }
}

/// The tables of one transaction, open, and what it has done so far.
struct Transaction<'t> {
    origin: Origin,
    clock: &'t mut Clock,
    now_ms: u64,
    names: Cow<'t, TableIds>,
    heads: Heads,
    durable_heads: &'t Heads,
    changed: HashMap<Vec<u8>, Row>,
    conflicts_recorded: u64,
    /// Something changed besides the heads.
    wrote: bool,
    write: &'t WriteTransaction,
    tables: Table<'t, u32, &'static str>,
    rows: Table<'t, &'static [u8], &'static [u8]>,
    changes: Table<'t, &'static [u8; 24], &'static [u8]>,
    known: Table<'t, &'static [u8], &'static [u8]>,
}

/// What a transaction did.
struct Finished {
    heads: Heads,
    /// Where a table was added.
    names: Option<TableIds>,
    changed: HashMap<Vec<u8>, Row>,
    /// Whether there is anything to commit.
    wrote: bool,
}

impl<'t> Transaction<'t> {
    fn begin(
        write: &'t WriteTransaction,
        published: &'t Published,
        origin: Origin,
        clock: &'t mut Clock,
        now_ms: u64,
    ) -> Result<Transaction<'t>, StoreError> {
        clock.advance(now_ms);
        Ok(Transaction {
            origin,
            clock,
            now_ms,
            names: Cow::Borrowed(&published.tables),
            heads: (*published.heads).clone(),
            durable_heads: &published.heads,
            changed: HashMap::new(),
            conflicts_recorded: 0,
            wrote: false,
            write,
            tables: write.open_table(tables::TABLES)?,
            rows: write.open_table(tables::ROWS)?,
            changes: write.open_table(tables::CHANGES)?,
            known: write.open_table(tables::KNOWN)?,
        })
    }

    /// Writes the heads, the own one with them where this origin `speaks`.
    fn finish(mut self, speaks: bool) -> Result<Finished, StoreError> {
        if speaks {
            self.heads.raise(self.origin, self.clock.last());
        }
        let mut table = self.write.open_table(tables::HEADS)?;
        for (origin, hlc) in self.heads.iter() {
            if hlc > self.durable_heads.get(origin) {
                table.insert(origin.as_bytes(), hlc.bits())?;
            }
        }
        if self.conflicts_recorded > 0 {
            let mut meta = self.write.open_table(tables::META)?;
            let before = meta.get(tables::META_CONFLICTS_TOTAL)?.map_or(0, |entry| entry.value());
            meta.insert(tables::META_CONFLICTS_TOTAL, before + self.conflicts_recorded)?;
            let mut journal = self.write.open_table(tables::CONFLICTS)?;
            for _ in CONFLICTS_KEPT_MAX..journal.len()? {
                journal.pop_first()?;
            }
        }
        let names = match self.names {
            Cow::Owned(names) => Some(names),
            Cow::Borrowed(_) => None,
        };
        let wrote = self.wrote || self.heads != *self.durable_heads;
        Ok(Finished { heads: self.heads, names, changed: self.changed, wrote })
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
            let table = self.table_id(&write.table)?;
            let (key, value, expires_at_ms) = match &write.operation {
                Operation::Put { key, value, expires_at_ms } => {
                    (key.clone(), Some(value), *expires_at_ms)
                }
                Operation::Delete { key } => (key.clone(), None, None),
                Operation::InsertSequence { value, expires_at_ms } => {
                    let id = ids.next().expect("one for each such insert");
                    self.write.open_table(tables::SEQUENCES)?.insert(table.0, id)?;
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
        Ok(self.rows.get(codec::place(id, key.as_slice()).as_slice())?.is_some())
    }

    fn last_id(&self, table: &TableName) -> Result<u64, StoreError> {
        let Some(id) = self.names.id(table) else { return Ok(0) };
        let sequences = self.write.open_table(tables::SEQUENCES)?;
        let last = sequences.get(id.0)?.map_or(0, |entry| entry.value());
        Ok(last)
    }

    fn write_row(
        &mut self,
        place: Vec<u8>,
        table: &TableName,
        key: &Key,
        value: Option<&[u8]>,
        expires_at_ms: Option<u64>,
    ) -> Result<(Version, bool), StoreError> {
        let local = self.standing(&place)?;
        let known = match &local {
            None => Knowledge::default(),
            Some(local) => {
                let kept = self.known.remove(place.as_slice())?;
                let kept = kept.map(|entry| codec::split_known_value(entry.value())).transpose()?;
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
        self.put(place, Row { table: table.clone(), key, body }, local.as_ref())?;
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
        match (&batch.claim, &batch.tentative) {
            (Some(_), _) => {
                let mut tentative = self.write.open_table(tables::TENTATIVE)?;
                if tentative.get(batch.sender.as_bytes())?.is_some() {
                    tentative.remove(batch.sender.as_bytes())?;
                    self.wrote = true;
                }
            }
            (None, Some(heads)) => {
                let mut tentative = self.write.open_table(tables::TENTATIVE)?;
                tentative.insert(batch.sender.as_bytes(), heads.to_bytes().as_slice())?;
                self.wrote = true;
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
        let table = self.table_id(&row.table)?;
        let place = codec::place(table, row.key.as_slice());
        let Some(local) = self.standing(&place)? else {
            self.put(place, row.detached(), None)?;
            report.stored += 1;
            return Ok(());
        };
        if local.version() == version {
            report.passed_over += 1;
            return Ok(());
        }
        let kept = match self.known.get(place.as_slice())? {
            Some(entry) => Some(codec::split_known_value(entry.value())?),
            None => None,
        };
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
            let value = codec::known_value(&merged.known);
            self.known.insert(place.as_slice(), value.as_slice())?;
            self.wrote = true;
        } else if kept.is_some() {
            self.known.remove(place.as_slice())?;
            self.wrote = true;
        }
        match merged.winner {
            Winner::Incoming => {
                self.put(place, row.detached(), Some(&local))?;
                report.stored += 1;
            }
            Winner::Local => report.passed_over += 1,
        }
        Ok(())
    }

    /// Keeps the losing row of a conflict. The same pair met again finds its entry there.
    fn record(&mut self, winner: Version, loser: &Row) -> Result<(), StoreError> {
        let mut journal = self.write.open_table(tables::CONFLICTS)?;
        let value = codec::conflict_value(winner, loser);
        let key = codec::conflict_key(loser.body.version());
        if journal.insert(&key, value.as_slice())?.is_none() {
            self.conflicts_recorded += 1;
        }
        self.wrote = true;
        Ok(())
    }

    fn standing(&self, place: &[u8]) -> Result<Option<Body>, StoreError> {
        match self.rows.get(place)? {
            Some(entry) => codec::body(entry.value()).map(Some),
            None => Ok(None),
        }
    }

    /// Puts a row in its place: one entry in the change index, whatever stood there before.
    fn put(&mut self, place: Vec<u8>, row: Row, before: Option<&Body>) -> Result<(), StoreError> {
        if let Some(before) = before {
            self.changes.remove(&codec::change_key(before.version()))?;
        }
        self.changes.insert(&codec::change_key(row.body.version()), place.as_slice())?;
        self.rows.insert(place.as_slice(), row.body.bytes().as_ref())?;
        self.changed.insert(place, row);
        self.wrote = true;
        Ok(())
    }

    fn table_id(&mut self, table: &TableName) -> Result<codec::TableId, StoreError> {
        if let Some(id) = self.names.id(table) {
            return Ok(id);
        }
        let id = self.names.to_mut().add(table);
        self.tables.insert(id.0, table.as_str())?;
        self.wrote = true;
        Ok(id)
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
