//! The conflict journal: writes that were overtaken unseen, oldest loser first.
//!
//! ```text
//! merge --> record() --> settle(): counts and bytes into the state; the oldest go that are too much
//! ```
//!
//! It is bounded by entries, by bytes and by age, and trimmed by the commits that add to it. Each entry
//! leaves once, so what trimming costs is paid for by what was added: entries and bytes are exact after every
//! commit, and of what is merely too old a commit takes a few more than it adds. No commit looks through
//! the journal: the state says below which key nothing is left.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use super::{
    Snapshot, Store, StoreError,
    batch::Batch,
    codec,
    tables::{self, Space},
    view::Range,
};
use crate::model::{Hlc, Row, Version};

/// Of entries that are merely too old a commit takes so many, and twice as many as it adds.
const AGED_PER_COMMIT: u64 = 64;

/// What of the journal is kept; beyond, the oldest losers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// So many entries. Default 10,000.
    pub entries_max: u64,
    /// So many bytes of entries. Default 64 MiB.
    pub bytes_max: u64,
    /// How long ago the loser may have been stamped, in milliseconds. Default 30 days.
    pub age_max_ms: u64,
}

impl Default for JournalLimits {
    fn default() -> JournalLimits {
        JournalLimits {
            entries_max: 10_000,
            bytes_max: 64 << 20,
            age_max_ms: 30 * 24 * 3_600 * 1_000,
        }
    }
}

/// Two concurrent writes of one key met here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The write that had the last word over the loser.
    pub winner: Version,
    /// The row that was overtaken unseen; its version names the conflict.
    pub loser: Row,
}

/// The journal in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalTotals {
    /// Conflicts ever recorded here.
    pub recorded: u64,
    /// Those that the journal holds now.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// The stamp of the oldest loser held.
    pub oldest: Option<Hlc>,
}

/// What one commit adds to the journal.
#[derive(Debug, Default)]
pub(super) struct Additions {
    recorded: u64,
    bytes: i64,
    /// The least key that was put; `None`: nothing was.
    least: Option<[u8; 24]>,
}

impl Additions {
    /// Keeps the losing row of a conflict. The same pair met again finds its entry there.
    pub(super) fn record(
        &mut self,
        batch: &mut Batch,
        winner: Version,
        loser: &Row,
    ) -> Result<(), StoreError> {
        let key = codec::conflict_key(loser.body.version());
        let value = codec::conflict_value(winner, loser);
        match batch.get(Space::Conflicts, &key)? {
            None => {
                self.recorded += 1;
                self.bytes += signed(entry_bytes(&key, value.len()));
            }
            Some(before) if before == value => return Ok(()),
            Some(before) => self.bytes += signed(value.len()) - signed(before.len()),
        }
        self.least = Some(self.least.map_or(key, |least| least.min(key)));
        batch.put(Space::Conflicts, &key, &value);
        Ok(())
    }

    /// Counts what was added and lets the oldest go that are too many, too large or too old.
    pub(super) fn settle(
        self,
        batch: &mut Batch,
        limits: &JournalLimits,
        now_ms: u64,
    ) -> Result<(), StoreError> {
        let Some(least) = self.least else { return Ok(()) };
        let mut from = Bytes::copy_from_slice(&least);
        if let Some(before) = batch.get(Space::State, tables::STATE_CONFLICTS_FROM)? {
            from = from.min(before);
        }
        let number = |name| batch.number(Space::State, name);
        let total = number(tables::STATE_CONFLICTS_TOTAL)? + self.recorded;
        let mut trim = Trim {
            limits,
            cutoff: Hlc::at_ms(now_ms.saturating_sub(limits.age_max_ms)),
            kept: number(tables::STATE_CONFLICTS_KEPT)? + self.recorded,
            bytes: number(tables::STATE_CONFLICTS_BYTES)?.saturating_add_signed(self.bytes),
            from,
            aged_left: AGED_PER_COMMIT + 2 * self.recorded,
        };
        if trim.must_go(&trim.from)? {
            trim.run(batch)?;
        }
        batch.put_number(Space::State, tables::STATE_CONFLICTS_TOTAL, total);
        batch.put_number(Space::State, tables::STATE_CONFLICTS_KEPT, trim.kept);
        batch.put_number(Space::State, tables::STATE_CONFLICTS_BYTES, trim.bytes);
        batch.put(Space::State, tables::STATE_CONFLICTS_FROM, &trim.from);
        Ok(())
    }
}

/// Lets the oldest entries go.
struct Trim<'l> {
    limits: &'l JournalLimits,
    /// Losers stamped earlier are too old.
    cutoff: Hlc,
    kept: u64,
    bytes: u64,
    /// Nothing is left below this key.
    from: Bytes,
    /// So many more may go for their age alone.
    aged_left: u64,
}

impl Trim<'_> {
    /// Whether the oldest entry has to go, which has this key.
    fn must_go(&self, oldest: &[u8]) -> Result<bool, StoreError> {
        let too_old =
            || Ok(self.aged_left > 0 && codec::split_conflict_key(oldest)?.hlc < self.cutoff);
        if self.is_over() { Ok(true) } else { too_old() }
    }

    fn is_over(&self) -> bool {
        self.kept > self.limits.entries_max || self.bytes > self.limits.bytes_max
    }

    fn run(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        // What this commit puts stands before what it found.
        let mut put: BTreeMap<Bytes, usize> = batch
            .puts(Space::Conflicts)
            .map(|(key, value)| (Bytes::copy_from_slice(key), value.len()))
            .collect();
        let view = batch.view().clone();
        let mut found =
            view.range(Space::Conflicts, Bound::Included(&self.from), Bound::Unbounded)?;
        let mut next = found.next()?;
        loop {
            while next.as_ref().is_some_and(|(key, _)| put.contains_key(key)) {
                next = found.next()?;
            }
            let of_put = put.first_key_value().map(|(key, length)| (key.clone(), *length));
            let of_found = next.as_ref().map(|(key, value)| (key.clone(), value.len()));
            let Some((key, length)) = of_put.into_iter().chain(of_found).min() else { break };
            self.from = key.clone();
            if !self.must_go(&key)? {
                break;
            }
            if !self.is_over() {
                self.aged_left -= 1;
            }
            batch.remove(Space::Conflicts, &key);
            self.kept = self.kept.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(entry_bytes(&key, length) as u64);
            if put.remove(&key).is_none() {
                next = found.next()?;
            }
        }
        Ok(())
    }
}

/// What an entry counts.
fn entry_bytes(key: &[u8], value_bytes: usize) -> usize {
    key.len() + value_bytes
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).expect("far less than 2^63 bytes")
}

impl Store {
    /// The journal in numbers. Looks at one entry of it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn journal_totals(&self) -> Result<JournalTotals, StoreError> {
        let snapshot = self.snapshot();
        let view = snapshot.view();
        let oldest = snapshot.journal(Hlc::ZERO, false)?.next().transpose()?;
        Ok(JournalTotals {
            recorded: view.number(tables::STATE_CONFLICTS_TOTAL)?,
            kept: view.number(tables::STATE_CONFLICTS_KEPT)?,
            kept_bytes: view.number(tables::STATE_CONFLICTS_BYTES)?,
            oldest: oldest.map(|conflict| conflict.loser.body.version().hlc),
        })
    }
}

impl Snapshot {
    /// The conflicts whose loser was stamped at `since` or later: oldest first, or newest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn journal(&self, since: Hlc, newest_first: bool) -> Result<Journal, StoreError> {
        let least = codec::conflict_key(Version { hlc: since, ..Version::default() });
        let mut from = Bytes::copy_from_slice(&least);
        if let Some(kept) = self.view().get(Space::State, tables::STATE_CONFLICTS_FROM)? {
            from = from.max(kept);
        }
        let range =
            self.view().range(Space::Conflicts, Bound::Included(&from), Bound::Unbounded)?;
        Ok(Journal { range, newest_first })
    }

    /// The conflict whose loser has this version, where the journal holds it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn conflict(&self, loser: Version) -> Result<Option<Conflict>, StoreError> {
        let found = self.view().get(Space::Conflicts, &codec::conflict_key(loser))?;
        found.map(conflict_of).transpose()
    }

    /// The whole conflict journal at once, oldest loser first: the winner's version and the losing
    /// row.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn conflicts(&self) -> Result<Vec<(Version, Row)>, StoreError> {
        let pair = |conflict: Result<Conflict, _>| conflict.map(|c| (c.winner, c.loser));
        self.journal(Hlc::ZERO, false)?.map(pair).collect()
    }
}

/// Conflicts, one after the other.
pub struct Journal {
    range: Range,
    newest_first: bool,
}

impl Iterator for Journal {
    type Item = Result<Conflict, StoreError>;

    fn next(&mut self) -> Option<Result<Conflict, StoreError>> {
        let entry = if self.newest_first { self.range.next_back() } else { self.range.next() };
        entry.transpose().map(|entry| entry.and_then(|(_, value)| conflict_of(value)))
    }
}

fn conflict_of(value: Bytes) -> Result<Conflict, StoreError> {
    let (winner, loser) = codec::split_conflict_value(value)?;
    Ok(Conflict { winner, loser })
}
