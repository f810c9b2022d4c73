//! The one write transaction: clients' writes and peers' rows come in by the same door.
//!
//! ```text
//! requests of many callers --> [ stamp or merge | rows, known, heads, conflicts ] --> one batch
//! ```
//!
//! What is written once more, to put right what differs between two stores, is in `apply/rewrite.rs`; what
//! applications wrote in this site's database in `apply/hand_over.rs`.
//!
//! Stamps are given here, inside the transaction; a row, what is known of it and the record of a
//! conflict stand or fall together.

mod context;
mod hand_over;
mod rewrite;

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use bytes::Bytes;

use context::context_of_a_write;

use super::{
    Cluster, JournalLimits, LocalBatch, LocalWrite, MergeReport, Operation, Published,
    RefusedError, RemoteBatch, StoreError, TABLES_MAX, TableIds, Written,
    batch::Batch,
    codec::{self, TableId},
    journal::Additions,
    memory::Spot,
    tables::{self, Space},
};
use crate::{
    model::{
        Body, BodyParts, Heads, Hlc, Key, Knowledge, Origin, Row, TableName, Version, Winner, merge,
    },
    protocol::{Clock, Standing, admission_in},
};

/// What a transaction leaves to be made durable and published.
pub(super) struct Finished {
    pub(super) batch: Batch,
    pub(super) heads: Heads,
    pub(super) names: Option<TableIds>,
    pub(super) cluster: Option<Cluster>,
    /// Rows that were taken away, without a tombstone.
    pub(super) rows_removed: u64,
}

/// What stands in a place.
pub(super) enum Stands {
    Nothing,
    Row(Body),
    /// Bytes that are no row, but still tell which write it was: a greater one puts the place right.
    Damaged(Version),
}

impl Stands {
    fn is_nothing(&self) -> bool {
        matches!(self, Stands::Nothing)
    }

    pub(super) fn into_body(self) -> Option<Body> {
        match self {
            Stands::Row(body) => Some(body),
            Stands::Nothing | Stands::Damaged(_) => None,
        }
    }

    fn body(&self) -> Option<&Body> {
        match self {
            Stands::Row(body) => Some(body),
            Stands::Nothing | Stands::Damaged(_) => None,
        }
    }

    pub(super) fn version(&self) -> Option<Version> {
        match self {
            Stands::Nothing => None,
            Stands::Row(body) => Some(body.version()),
            Stands::Damaged(version) => Some(*version),
        }
    }
}

/// One commit under way, and what it has done so far.
pub(super) struct Transaction<'t> {
    pub(super) origin: Origin,
    pub(super) clock: &'t mut Clock,
    pub(super) now_ms: u64,
    pub(super) names: Cow<'t, TableIds>,
    pub(super) heads: Heads,
    pub(super) cluster: Cow<'t, Cluster>,
    pub(super) published: &'t Published,
    /// Up to where whoever writes here had seen every write when the transaction began.
    seen: Hlc,
    /// The table that was looked up last: mostly it is the next one too.
    last_table: Option<(TableName, TableId)>,
    /// Where the place of the row under way is put together.
    place: Vec<u8>,
    pub(super) journal: Additions,
    rows_added: u64,
    pub(super) rows_removed: u64,
    /// How far rows of others came that lie above the heads.
    pub(super) reached: Heads,
    pub(super) batch: Batch,
}

impl<'t> Transaction<'t> {
    pub(super) fn begin(
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
            seen: published.cluster.seen(&published.heads),
            cluster: Cow::Borrowed(&published.cluster),
            published,
            last_table: None,
            place: Vec::new(),
            journal: Additions::default(),
            rows_added: 0,
            rows_removed: 0,
            reached: Heads::new(),
            batch,
        }
    }

    /// Writes the heads, the own one with them where this origin `speaks`, and the counts.
    pub(super) fn finish(
        mut self,
        speaks: bool,
        journal_limits: &JournalLimits,
    ) -> Result<Finished, StoreError> {
        // Who is being admitted has nothing to say yet.
        if speaks && self.cluster.may_stamp() {
            self.heads.raise(self.origin, self.clock.last());
        }
        for (origin, hlc) in self.heads.iter() {
            if hlc > self.published.heads.get(origin) {
                self.batch.put_number(Space::Heads, origin.as_bytes(), hlc.bits());
            }
        }
        for (origin, hlc) in self.reached.iter().filter(|(o, hlc)| self.heads.get(*o) < *hlc) {
            if self.batch.number(Space::Reached, origin.as_bytes())? < hlc.bits() {
                self.batch.put_number(Space::Reached, origin.as_bytes(), hlc.bits());
            }
        }
        if self.rows_added != self.rows_removed {
            let rows = self.batch.number(Space::State, tables::STATE_ROWS)? + self.rows_added;
            let rows = rows.saturating_sub(self.rows_removed);
            self.batch.put_number(Space::State, tables::STATE_ROWS, rows);
        }
        self.journal.settle(&mut self.batch, journal_limits, self.now_ms)?;
        let names = match self.names {
            Cow::Owned(names) => Some(names),
            Cow::Borrowed(_) => None,
        };
        let cluster = match self.cluster {
            Cow::Owned(cluster) => Some(cluster),
            Cow::Borrowed(_) => None,
        };
        let rows_removed = self.rows_removed;
        Ok(Finished { batch: self.batch, heads: self.heads, names, cluster, rows_removed })
    }

    pub(super) fn write_all(
        &mut self,
        batch: &LocalBatch,
    ) -> Result<Result<Vec<Written>, RefusedError>, StoreError> {
        let mut ids = match self.check(batch)? {
            Ok(ids) => ids.into_iter(),
            Err(refused) => return Ok(Err(refused)),
        };
        let mut results = Vec::with_capacity(batch.writes.len());
        for write in &batch.writes {
            let id = self.table_id(&write.table);
            let (key, value, expires_at_ms) = match &write.operation {
                Operation::Put { key, value, expires_at_ms } => {
                    (key.clone(), Some(value), *expires_at_ms)
                }
                Operation::Delete { key } => (key.clone(), None, None),
                Operation::InsertSequence { value, expires_at_ms } => {
                    let sequence = ids.next().expect("one for each such insert");
                    self.batch.put_number(Space::Sequences, &id.0.to_be_bytes(), sequence);
                    (key_of_id(sequence), Some(value), *expires_at_ms)
                }
            };
            let value = value.map(Bytes::as_ref);
            let (version, existed) =
                self.write_row(id, &write.table, &key, value, expires_at_ms)?;
            results.push(Written { key, version, existed });
        }
        Ok(Ok(results))
    }

    /// Whether the batch may be written at all: afterwards nothing refuses a part of it. Gives the
    /// ids of its sequence inserts, in order.
    fn check(&self, batch: &LocalBatch) -> Result<Result<Vec<u64>, RefusedError>, StoreError> {
        if let Err(refused) = self.check_writes(batch.drift_bound_ms) {
            return Ok(Err(refused));
        }
        if !batch.create_tables
            && let Some(table) = batch.writes.iter().find_map(|write| self.lacks(&write.table))
        {
            return Ok(Err(RefusedError::NoTable(table.clone())));
        }
        if let Some(refused) = self.check_tables(batch.writes.iter().map(|write| &write.table)) {
            return Ok(Err(refused));
        }
        self.next_ids(batch)
    }

    /// The table, where it is not there.
    fn lacks<'n>(&self, table: &'n TableName) -> Option<&'n TableName> {
        let is_known = self.last_table.as_ref().is_some_and(|(last, _)| last == table);
        (!is_known && self.names.id(table).is_none()).then_some(table)
    }

    /// Why these tables cannot all be there, where that is so.
    fn check_tables<'n>(
        &self,
        tables: impl Iterator<Item = &'n TableName>,
    ) -> Option<RefusedError> {
        let mut new_tables = Vec::new();
        for table in tables.filter_map(|table| self.lacks(table)) {
            if !new_tables.contains(&table) {
                new_tables.push(table);
                if self.names.names.len() + new_tables.len() > TABLES_MAX {
                    return Some(RefusedError::TooManyTables(table.clone()));
                }
            }
        }
        None
    }

    /// No write of this origin is stamped too far ahead of the wall clock, nor while it is no member.
    fn check_writes(&self, bound_ms: u64) -> Result<(), RefusedError> {
        let ahead_ms = self.clock.last().ms().saturating_sub(self.now_ms);
        if ahead_ms > bound_ms {
            return Err(RefusedError::ClockAhead { ahead_ms, bound_ms });
        }
        self.cluster.refuses_writes(self.origin, &self.heads).map_or(Ok(()), Err)
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
        self.batch.number(Space::Sequences, &id.0.to_be_bytes())
    }

    pub(super) fn write_row(
        &mut self,
        id: TableId,
        table: &TableName,
        key: &Key,
        value: Option<&[u8]>,
        expires_at_ms: Option<u64>,
    ) -> Result<(Version, bool), StoreError> {
        let (place, spot) = self.locate(id, key);
        let local = self.standing(spot, &place)?;
        let mut known = self.known_of(&place, &local)?;
        known.seen = known.seen.max(self.seen);
        let write = (key, value, expires_at_ms);
        Ok(self.put_own((place, spot), table, write, &local, &known))
    }

    /// Puts a new write of this origin, by somebody who knew `known`, in place of `local`.
    fn put_own(
        &mut self,
        (place, spot): (Vec<u8>, Spot),
        table: &TableName,
        (key, value, expires_at_ms): (&Key, Option<&[u8]>, Option<u64>),
        local: &Stands,
        known: &Knowledge,
    ) -> (Version, bool) {
        let version = Version { hlc: self.clock.tick(self.now_ms), origin: self.origin };
        debug_assert!(local.version().is_none_or(|local| local < version));
        let came_late = |origin, hlc| self.cluster.members.came_late(origin, hlc);
        let context = context_of_a_write(known, self.origin, came_late);
        let parts =
            BodyParts { version, seen: known.seen, context: &context, expires_at_ms, value };
        self.rows_added += u64::from(local.is_nothing());
        self.batch.put_row(spot, &place, table, |record| {
            parts.encode(record);
        });
        if value.is_none() || expires_at_ms.is_some() || local.body().is_some_and(may_die) {
            self.note_death(&place, local.body(), &Body::new(&parts));
        }
        if table.is_system() {
            let body = Body::new(&parts);
            self.learn(&Row { table: table.clone(), key: key.clone(), body });
        }
        self.place = place;
        let existed = local.body().is_some_and(|local| local.is_live(self.now_ms));
        (version, existed)
    }

    /// A row's place, to be given back in `self.place`, and its spot.
    pub(super) fn locate(&mut self, table: TableId, key: &Key) -> (Vec<u8>, Spot) {
        let mut place = std::mem::take(&mut self.place);
        codec::set_place(&mut place, table, key.as_slice());
        let spot = Spot::of(Space::Rows, &place);
        (place, spot)
    }

    pub(super) fn merge_all(&mut self, batch: &RemoteBatch) -> Result<MergeReport, StoreError> {
        let mut report = MergeReport::default();
        if self.was_removed(batch.sender) {
            return Ok(MergeReport { refused: true, ..report });
        }
        for row in &batch.rows {
            self.merge_row(row, &mut report)?;
        }
        if let Some(claim) = &batch.claim {
            self.claim(claim);
        }
        let sender = batch.sender.as_bytes();
        match (&batch.claim, &batch.tentative) {
            (Some(_), _) => {
                if self.batch.get(Space::Tentative, sender)?.is_some() {
                    self.batch.remove(Space::Tentative, sender);
                }
            }
            (None, Some(heads)) => {
                self.batch.put(Space::Tentative, sender, &heads.to_bytes());
            }
            (None, None) => {}
        }
        Ok(report)
    }

    /// Whether nothing may come from this store any more: what we had of it when we said so counts.
    pub(super) fn was_removed(&self, sender: Origin) -> bool {
        let standing = self.cluster.members.standing(sender, &self.heads);
        matches!(standing, Standing::Removed | Standing::Closed)
    }

    /// Keeps what another store is known to have: never less than was known before.
    pub(super) fn note_carried(&mut self, origin: Origin, heads: &Heads) -> Result<(), StoreError> {
        let key = codec::carried_key(origin);
        let known = self.batch.get(Space::State, &key)?;
        let mut known = known.map_or(Ok(Heads::new()), |known| codec::carried_value(&known))?;
        if known.join(heads) {
            self.batch.put(Space::State, &key, &known.to_bytes());
        }
        Ok(())
    }

    /// Raises the heads: all of it is here.
    pub(super) fn claim(&mut self, claim: &Heads) {
        for (origin, hlc) in claim.iter() {
            if !hlc.is_closed() {
                self.heads.raise(origin, hlc);
                self.clock.observe(hlc);
            } else if self.cluster.members.get(origin).is_some_and(|m| m.removal.is_some())
                && !self.is_closed_without_us(origin)
            {
                self.heads.raise(origin, hlc);
            }
        }
    }

    /// Whether this store is being let in, and those who closed an origin did so without what is here of it.
    fn is_closed_without_us(&self, origin: Origin) -> bool {
        let is_pulled = self.cluster.joining.is_some_and(|joining| joining.pulled);
        let has = (origin, self.heads.get(origin));
        is_pulled && self.cluster.members.is_late(self.origin, has, true)
    }

    pub(super) fn merge_row(
        &mut self,
        row: &Row,
        report: &mut MergeReport,
    ) -> Result<(), StoreError> {
        let version = row.body.version();
        self.clock.observe(version.hlc);
        // What is claimed and not here was superseded, or died and is purged.
        if self.heads.includes(version) {
            report.passed_over += 1;
            return Ok(());
        }
        self.reached.raise(version.origin, version.hlc);
        let id = self.table_id(&row.table);
        let (place, spot) = self.locate(id, &row.key);
        self.merge_at(&place, spot, row, report)?;
        self.place = place;
        Ok(())
    }

    fn merge_at(
        &mut self,
        place: &[u8],
        spot: Spot,
        row: &Row,
        report: &mut MergeReport,
    ) -> Result<(), StoreError> {
        let local = match self.standing(spot, place)? {
            Stands::Row(local) => local,
            Stands::Damaged(version) if version >= row.body.version() => {
                report.passed_over += 1;
                return Ok(());
            }
            stands => {
                self.rows_added += u64::from(stands.is_nothing());
                self.put_peers(place, spot, None, row, report);
                return Ok(());
            }
        };
        if local.version() == row.body.version() {
            report.passed_over += 1;
            return Ok(());
        }
        let kept = self.kept_knowledge(place)?;
        let mut merged = merge(&local, kept.as_ref(), &row.body);
        if merged.winner == Winner::Incoming && self.is_from_outside(place, &local)? {
            // Its writer says to have seen everything up to some stamp: not this.
            let (ours, theirs) = (local.version(), row.body.version());
            merged.conflict = ours.origin != theirs.origin
                && !row.body.context().includes(ours)
                && !local.same_value(&row.body);
        }
        let (standing, loser) = match merged.winner {
            Winner::Incoming => (&row.body, &local),
            Winner::Local => (&local, &row.body),
        };
        if merged.conflict && !row.table.is_system() {
            let loser = Row { body: loser.clone(), ..row.clone() };
            self.journal.record(&mut self.batch, standing.version(), &loser)?;
            report.conflicts += 1;
        }
        if merged.known != Knowledge::of(standing) {
            self.batch.put(Space::Known, place, &codec::known_value(&merged.known));
        } else if kept.is_some() {
            self.batch.remove(Space::Known, place);
        }
        match merged.winner {
            Winner::Incoming => self.put_peers(place, spot, Some(&local), row, report),
            Winner::Local => report.passed_over += 1,
        }
        Ok(())
    }

    /// Whether a row that stands here is none that others can have seen: it comes from before this store was
    /// let in, and has not been written anew yet.
    fn is_from_outside(&self, place: &[u8], local: &Body) -> Result<bool, StoreError> {
        let version = local.version();
        if self.cluster.is_from_outside(self.origin, version) {
            return Ok(true);
        }
        if !self.cluster.renewing {
            return Ok(false);
        }
        // Tombstones that came to the others without a claim are written anew, too: those they have seen.
        let members = &self.cluster.members;
        if local.is_tombstone() && version.hlc <= members.reached_up_to(version.origin) {
            return Ok(false);
        }
        let awaited = self.batch.get(Space::Renew, place)?;
        Ok(awaited.is_some_and(|awaited| awaited[..] == codec::change_key(version)))
    }

    fn put_peers(
        &mut self,
        place: &[u8],
        spot: Spot,
        local: Option<&Body>,
        row: &Row,
        report: &mut MergeReport,
    ) {
        let bytes = row.body.bytes();
        self.batch.put_row(spot, place, &row.table, |record| record.extend_from_slice(bytes));
        if may_die(&row.body) || local.is_some_and(may_die) {
            self.note_death(place, local, &row.body);
        }
        if row.table.is_system() {
            self.learn(row);
        }
        report.stored += 1;
    }

    /// Keeps the index of dead rows: `new` stands where `old` stood.
    pub(super) fn note_death(&mut self, place: &[u8], old: Option<&Body>, new: &Body) {
        if let Some(from) = old.and_then(codec::dead_from) {
            self.batch.remove(Space::Dead, &codec::dead_key(from, place));
        }
        if let Some(from) = codec::dead_from(new) {
            self.batch.put(Space::Dead, &codec::dead_key(from, place), &[]);
        }
    }

    /// Takes note of a row of a system table that stands now.
    fn learn(&mut self, row: &Row) {
        let own = self.origin;
        let is_admitted = self.cluster.members.get(own).is_some_and(|own| own.admission.is_some());
        if !self.cluster.to_mut().members.learn(row) {
            return;
        }
        // An admitted store stamps above its admission only: what it wrote before comes anew.
        if let Some((origin, admission)) = admission_in(row) {
            if origin == own && !is_admitted && self.cluster.joining.is_none() {
                self.hear_of_own_admission(row.body.version().origin, admission);
            }
            self.heads.raise(origin, admission);
        }
    }

    pub(super) fn standing(&self, spot: Spot, place: &[u8]) -> Result<Stands, StoreError> {
        Ok(match self.batch.get_at(spot, Space::Rows, place)? {
            None => Stands::Nothing,
            Some(bytes) => {
                let version = codec::version_of_body(&bytes)?;
                codec::body(bytes).map_or(Stands::Damaged(version), Stands::Row)
            }
        })
    }

    pub(super) fn table_id(&mut self, table: &TableName) -> TableId {
        if let Some((last, id)) = &self.last_table
            && last == table
        {
            return *id;
        }
        let id = match self.names.id(table) {
            Some(id) => id,
            None => {
                let id = self.names.to_mut().add(table);
                let name = table.as_str().as_bytes();
                self.batch.put(Space::Tables, &id.0.to_be_bytes(), name);
                id
            }
        };
        self.last_table = Some((table.clone(), id));
        id
    }
}

fn may_die(body: &Body) -> bool {
    body.is_tombstone() || body.expires_at_ms().is_some()
}

fn key_of_id(id: u64) -> Key {
    Key::new(id.to_string()).expect("at most 20 digits")
}
