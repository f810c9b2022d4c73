//! What an application has in hand is the application's: rows of captured tables that it wrote, and that the
//! store does not have yet, are passed over.
//!
//! ```text
//! rows locked --> their entries in the outbox --> waiting?  passed over; the entry notes what it missed
//!                                            `--> handed?   done with, once the row is written
//!             --> the store, as it stands now --> written
//! ```
//!
//! **Invariant.** A row that an application wrote is overwritten by such a version only as the store held
//! after it had taken that write over. The locks keep new writes out; the entries tell of those that are
//! committed; and what was taken over before stands in the store, which is read after that. What was read
//! before may be older: so it is read again.
//!
//! An entry whose row missed a version after it was read by the capture is marked `handed`: whether that
//! version stands above the application's the store knows, and the mirror *owes* the row.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    capture::Outbox,
    column_tables::Filling,
    columns::{ColumnBatch, Columns, Place},
    error::MirrorError,
    mysql::number,
    session::{Session, read},
    statement::{Param, in_powers_of_two},
    upkeep::gone,
};
use crate::model::{Body, Key, Row, TableName, Version};

/// Between two looks for rows that are owed, while some may be.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two looks otherwise.
const LOOK_EVERY_QUIET: Duration = Duration::from_secs(1);
/// How long after a version was missed its row may be owed soon.
const SOON: Duration = Duration::from_secs(5);
/// How many rows are brought at once.
const OWED_MAX: usize = 1_000;

/// When to look for rows that are owed.
pub(super) struct Owed {
    look_at: Instant,
    soon_until: Instant,
}

impl Owed {
    pub(super) fn new() -> Owed {
        let now = Instant::now();
        Owed { look_at: now, soon_until: now }
    }

    /// A version was missed.
    fn note(&mut self) {
        let now = Instant::now();
        self.soon_until = now + SOON;
        self.look_at = self.look_at.min(now + LOOK_EVERY);
    }

    /// When the next look is due.
    pub(super) fn at(&self) -> Instant {
        self.look_at
    }

    fn looked(&mut self) {
        let now = Instant::now();
        self.look_at = now + if now < self.soon_until { LOOK_EVERY } else { LOOK_EVERY_QUIET };
    }
}

/// What an application has in hand.
pub(super) struct InHand {
    /// The rows of which a write of its own is not in the store yet.
    pub(super) waiting: HashSet<Key>,
    /// Entries of other rows that are done with once these are written.
    done: Vec<u64>,
}

impl Session<'_> {
    /// What is to be done instead of `batch`, whose rows are locked, in a captured table: without the rows that
    /// an application has in hand, and the others as the store has them now. `None`: it is not captured.
    pub(super) async fn of_application(
        &mut self,
        table: &TableName,
        columns: &Columns,
        batch: &ColumnBatch,
        standing: &HashSet<Key>,
    ) -> Result<Option<ColumnBatch>, MirrorError> {
        let Some(of_table) = self.columns.get(table).filter(|of_table| of_table.is_captured) else {
            return Ok(None);
        };
        let is_filled = of_table.filling == Filling::Done && !self.overwrites;
        let outbox = Outbox::of(columns);
        let places: Vec<_> = batch.places().collect();
        let InHand { waiting: in_hand, done } = self.in_hand(&outbox, columns, &places).await?;
        for some in in_powers_of_two(&done) {
            self.mysql.execute(outbox.settle(some)).await?;
        }
        let versions: HashMap<_, _> =
            places.iter().map(|place| (&place.key, place.version)).collect();
        let keys: Vec<(Key, Version, bool)> = batch
            .keys()
            .filter(|key| !in_hand.contains(*key))
            .map(|key| {
                let version = versions.get(key).copied().unwrap_or_default();
                // Else it is written, whoever it is by.
                (key.clone(), version, is_filled && standing.contains(key))
            })
            .collect();
        let (node, name) = (self.node.clone(), table.clone());
        let (rows, there) = read(move || {
            let snapshot = node.snapshot();
            let mut rows: BTreeMap<Key, Body> = BTreeMap::new();
            let mut there = Vec::new();
            for (key, version, may_be_there) in keys {
                let body = snapshot.get(&name, &key)?.unwrap_or_else(|| gone(version));
                if may_be_there && snapshot.is_handed_over(node.origin(), body.version())? {
                    there.push(key);
                } else {
                    rows.insert(key, body);
                }
            }
            Ok((rows, there))
        })
        .await?;
        let bytes_max = self.mysql.statement_bytes_max();
        let mut now = ColumnBatch::new(rows, columns, self.node.now_ms(), bytes_max);
        now.nowhere.extend(there);
        Ok(Some(now))
    }

    /// What an application has in hand of these, whose rows are locked; the entries come to tell what is missed.
    pub(super) async fn in_hand(
        &mut self,
        outbox: &Outbox,
        columns: &Columns,
        places: &[&Place],
    ) -> Result<InHand, MirrorError> {
        let mut waiting: HashMap<Key, Vec<u64>> = HashMap::new();
        let mut handed: Vec<(Key, u64)> = Vec::new();
        for some in in_powers_of_two(places) {
            let keys: Vec<_> = some.iter().map(|place| &place.params[..]).collect();
            for row in self.mysql.rows(outbox.of_keys(&keys)).await? {
                let [seq, is_handed, key @ ..] = &row[..] else { continue };
                let (Some(seq), Ok(key)) = (number(seq), columns.key_of(key)) else { continue };
                match number(is_handed) {
                    Some(0) => waiting.entry(key).or_default().push(seq),
                    _ => handed.push((key, seq)),
                }
            }
        }
        for place in places {
            let Some(entries) = waiting.get(&place.key) else { continue };
            // That a row is not there was missed by nobody.
            if place.version != Version::default() {
                let Version { hlc, origin } = place.version;
                let origin = Param::Bytes(origin.as_bytes().to_vec().into());
                self.mysql.execute(outbox.miss(entries, hlc.bits(), origin)).await?;
                self.owed.note();
            }
        }
        let done: Vec<u64> = handed
            .into_iter()
            .filter(|(key, _)| !waiting.contains_key(key))
            .map(|(_, seq)| seq)
            .collect();
        Ok(InHand { waiting: waiting.into_keys().collect(), done })
    }

    /// Whether all triggers are there that note an application's writes.
    pub(super) async fn notes_writes(
        &mut self,
        table: &TableName,
        columns: &Columns,
    ) -> Result<bool, MirrorError> {
        let facts = self.facts(std::slice::from_ref(table)).await?;
        let there = |name: &String| {
            let of_table = facts.get(table.as_str());
            of_table.is_some_and(|facts| facts.triggers.iter().any(|own| own.name == *name))
        };
        Ok(Outbox::of(columns).triggers().iter().all(|(name, ..)| there(name)))
    }

    /// Brings the rows that are owed.
    pub(super) async fn bring_owed(&mut self) -> Result<(), MirrorError> {
        if Instant::now() < self.owed.at() {
            return Ok(());
        }
        let captured: Vec<_> = self
            .columns
            .iter()
            .filter(|(_, of_table)| of_table.is_captured)
            .map(|(table, of_table)| (table.clone(), of_table.columns.clone()))
            .collect();
        for (table, columns) in captured {
            let listed = self.mysql.rows(Outbox::of(&columns).owed(OWED_MAX)).await?;
            let keys: HashSet<Key> =
                listed.iter().filter_map(|row| columns.key_of(row).ok()).collect();
            if keys.is_empty() {
                continue;
            }
            let (node, name) = (self.node.clone(), table.clone());
            let rows = read(move || {
                let snapshot = node.snapshot();
                keys.into_iter()
                    .map(|key| {
                        let body = snapshot.get(&name, &key)?;
                        let body = body.unwrap_or_else(|| gone(Version::default()));
                        Ok(Row { table: name.clone(), key, body })
                    })
                    .collect::<Result<Vec<_>, _>>()
            })
            .await?;
            self.apply(rows, self.position.clone()).await?;
        }
        self.owed.looked();
        Ok(())
    }
}
