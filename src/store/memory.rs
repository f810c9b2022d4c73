//! The newest changes, in memory, until they are moved into redb.
//!
//! A [`Memory`] keeps every version of an entry that was written into it, under the sequence number
//! of the commit that wrote it. So a snapshot costs nothing: it is a number, and whoever reads with
//! it passes over what is newer. One writer adds; any number of readers look, without a lock.
//!
//! ```text
//! entries: (space, key, sequence) --> value, or None: the entry is gone     newest first
//! changes: (origin, hlc) --> place and body, of every version of a row in it, those since replaced too;
//!          by which commit was it written, and by which replaced?
//! filter:  is anything known of this key? mostly answers no, at the cost of two bits
//! ```
//!
//! The beginning of each key lies beside it, so that a search seldom has to follow a pointer.

use std::{
    borrow::Borrow,
    cmp::{Ordering, Reverse},
    collections::VecDeque,
    fmt,
    hash::Hasher,
    ops::Bound,
    sync::{
        Arc,
        atomic::{self, AtomicU64, AtomicUsize},
    },
};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use super::tables::Space;
use crate::model::{Hlc, KEY_BYTES_MAX, Origin, Version};

/// Longer than any key, and behind each of them.
const BEHIND_ALL_KEYS: [u8; KEY_BYTES_MAX + 8] = [0xff; KEY_BYTES_MAX + 8];
/// A filter has a bit for so many bytes of log: some eight bits for a small row.
const LOG_BYTES_PER_FILTER_BIT: usize = 16;

/// Entries of all spaces, by key, then newest first.
pub(super) struct Memory {
    entries: SkipMap<Stored, Kept>,
    changes: SkipMap<(Origin, Hlc), Written>,
    filter: Filter,
    /// What the entries took in the log, in bytes.
    log_bytes: AtomicUsize,
}

/// An entry as it is found: its key and its value, `None` where it is gone.
pub(super) type Found = (Bytes, Option<Bytes>);

/// The value of an entry, `None` where it is gone.
struct Kept {
    value: Option<Bytes>,
    /// Of a version of a row.
    replaced: Option<Replaced>,
}

/// The commit that replaced a version of a row in the same memory; greater than any, where none did.
#[derive(Clone)]
struct Replaced(Arc<AtomicU64>);

/// A version of a row.
struct Written {
    place: Bytes,
    body: Bytes,
    sequence: u64,
    replaced: Replaced,
}

/// A change, as a reader finds it.
pub(super) struct Change {
    pub(super) hlc: Hlc,
    /// Where its row stands.
    pub(super) place: Bytes,
    pub(super) version: AsOf,
}

/// What a memory knows, at a reader's moment, of a version that was written into it.
pub(super) enum AsOf {
    /// It is the newest of its row here: this body.
    Newest(Bytes),
    /// A newer one is here.
    Replaced,
    /// It was written once more after that moment: ask for the row.
    Unknown,
}

impl Kept {
    fn is_replaced_by(&self, sequence: u64) {
        if let Some(Replaced(by)) = &self.replaced {
            by.store(sequence, atomic::Ordering::Relaxed);
        }
    }
}

impl Written {
    fn as_of(&self, sequence: u64) -> AsOf {
        if self.sequence > sequence {
            AsOf::Unknown
        } else if self.replaced.0.load(atomic::Ordering::Relaxed) > sequence {
            AsOf::Newest(self.body.clone())
        } else {
            AsOf::Replaced
        }
    }
}

impl Memory {
    /// For so many bytes of log; it takes more, but then finds things more slowly.
    pub(super) fn new(log_bytes_planned: usize) -> Memory {
        Memory {
            entries: SkipMap::new(),
            changes: SkipMap::new(),
            filter: Filter::new(log_bytes_planned / LOG_BYTES_PER_FILTER_BIT),
            log_bytes: AtomicUsize::new(0),
        }
    }

    /// Adds what commit `sequence` did to an entry; a later addition by the same commit replaces it.
    pub(super) fn add(&self, spot: Spot, key: Bytes, sequence: u64, value: Option<Bytes>) {
        self.keep(spot, key, sequence, Kept { value, replaced: None });
    }

    /// Adds a version of a row, and where it stands in the order of changes.
    pub(super) fn add_row(
        &self,
        spot: Spot,
        place: Bytes,
        sequence: u64,
        version: Version,
        body: Bytes,
    ) {
        let replaced = Replaced(Arc::new(AtomicU64::new(u64::MAX)));
        let kept = Kept { value: Some(body.clone()), replaced: Some(replaced.clone()) };
        let written = Written { place: place.clone(), body, sequence, replaced };
        self.changes.insert(version.in_index(), written);
        self.keep(spot, place, sequence, kept);
    }

    fn keep(&self, spot: Spot, key: Bytes, sequence: u64, kept: Kept) {
        // First, so that who sees the entry's commit finds the bits set.
        self.filter.set(spot.hash);
        let stored = Stored { start: spot.start, key, sequence: Reverse(sequence) };
        let replaces = |same: &Kept| {
            same.is_replaced_by(sequence);
            true
        };
        let entry = self.entries.compare_insert(stored, kept, replaces);
        // The newest come first: behind it stands what it replaces.
        if let Some(older) = entry.next()
            && (older.key().start, &older.key().key) == (spot.start, &entry.key().key)
        {
            older.value().is_replaced_by(sequence);
        }
    }

    /// What the entry was after commit `sequence`; outer `None`: nothing is known of it here.
    pub(super) fn get(&self, spot: Spot, key: &[u8], sequence: u64) -> Option<Option<Bytes>> {
        if !self.filter.may_hold(spot.hash) {
            return None;
        }
        let from = Probe { start: spot.start, key, sequence: Reverse(sequence) };
        let entry =
            self.entries.range::<dyn Place, _>((included(&from), Bound::Unbounded)).next()?;
        let found = entry.key();
        (found.start == spot.start && found.key == key).then(|| entry.value().value.clone())
    }

    /// The first entry above `after` (or at it, where it is included) as it was after `sequence`.
    pub(super) fn next(&self, space: Space, after: Bound<&[u8]>, sequence: u64) -> Option<Found> {
        let first = match after {
            Bound::Unbounded => Probe::new(space, &[], u64::MAX),
            Bound::Included(key) => Probe::new(space, key, u64::MAX),
            // Behind the oldest version there can be.
            Bound::Excluded(key) => Probe::new(space, key, 0),
        };
        let bound: Bound<&dyn Place> = match after {
            Bound::Excluded(_) => Bound::Excluded(&first),
            _ => Bound::Included(&first),
        };
        let newer = |entry: &Stored| entry.sequence.0 > sequence;
        self.entries
            .range::<dyn Place, _>((bound, Bound::Unbounded))
            .take_while(|entry| entry.key().is_of(space))
            .find(|entry| !newer(entry.key()))
            .map(|entry| (entry.key().key.clone(), entry.value().value.clone()))
    }

    /// The last entry below `before`, as it was after `sequence`.
    pub(super) fn previous(
        &self,
        space: Space,
        before: Bound<&[u8]>,
        sequence: u64,
    ) -> Option<Found> {
        let mut upper: Option<Bytes> = None;
        loop {
            let key = match (&upper, before) {
                (Some(key), _) => Some(&key[..]),
                (None, Bound::Included(key) | Bound::Excluded(key)) => Some(key),
                (None, Bound::Unbounded) => None,
            };
            // Before the newest version of the key, so that the key itself is passed over; behind
            // its oldest, where it is included.
            let includes = upper.is_none() && matches!(before, Bound::Included(_));
            let sequence_bound = if includes { 0 } else { u64::MAX };
            let entry = match key {
                Some(key) => {
                    let probe = Probe::new(space, key, sequence_bound);
                    let bound: Bound<&dyn Place> =
                        if includes { Bound::Included(&probe) } else { Bound::Excluded(&probe) };
                    self.entries.range::<dyn Place, _>((Bound::Unbounded, bound)).next_back()
                }
                None => {
                    let probe = Probe::new(space, &BEHIND_ALL_KEYS, 0);
                    let bound: Bound<&dyn Place> = Bound::Excluded(&probe);
                    self.entries.range::<dyn Place, _>((Bound::Unbounded, bound)).next_back()
                }
            }?;
            if !entry.key().is_of(space) {
                return None;
            }
            let key = entry.key().key.clone();
            if let Some(value) = self.get(Spot::of(space, &key), &key, sequence) {
                return Some((key, value));
            }
            upper = Some(key);
        }
    }

    /// The first `max` changes of `origin` stamped above `after`, as they are after commit `sequence`.
    pub(super) fn changes_after(
        &self,
        origin: Origin,
        after: Hlc,
        sequence: u64,
        max: usize,
    ) -> VecDeque<Change> {
        let (after, end) = ((origin, after), (origin, Hlc::MAX));
        let range = self.changes.range((Bound::Excluded(after), Bound::Included(end)));
        let changes = range.take(max).map(|entry| {
            let (hlc, written) = (entry.key().1, entry.value());
            Change { hlc, place: written.place.clone(), version: written.as_of(sequence) }
        });
        changes.collect()
    }

    /// The greatest stamp of a change of `origin`.
    pub(super) fn last_change(&self, origin: Origin) -> Option<Hlc> {
        let range = self.changes.range((origin, Hlc::ZERO)..=(origin, Hlc::MAX));
        range.into_iter().next_back().map(|entry| entry.key().1)
    }

    /// The first origin at or after `from` that has a change.
    pub(super) fn next_origin(&self, from: Origin) -> Option<Origin> {
        self.changes.lower_bound(Bound::Included(&(from, Hlc::ZERO))).map(|entry| entry.key().0)
    }

    /// Every entry of a space as it is now, in their order.
    pub(super) fn newest(&self, space: Space) -> impl Iterator<Item = Found> + '_ {
        let first =
            Stored { start: start_of(space, &[]), key: Bytes::new(), sequence: Reverse(u64::MAX) };
        let mut before: Option<Bytes> = None;
        let of_space =
            self.entries.range(first..).take_while(move |entry| entry.key().is_of(space));
        of_space.filter_map(move |entry| {
            let key = &entry.key().key;
            if before.as_ref() == Some(key) {
                return None;
            }
            before = Some(key.clone());
            Some((key.clone(), entry.value().value.clone()))
        })
    }

    /// How many entries there are, every version counted.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn add_log_bytes(&self, bytes: usize) {
        self.log_bytes.fetch_add(bytes, atomic::Ordering::Relaxed);
    }

    pub(super) fn log_bytes(&self) -> usize {
        self.log_bytes.load(atomic::Ordering::Relaxed)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory of {} bytes of log", self.log_bytes())
    }
}

/// What finds an entry quickly, worked out once from its space and key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot {
    start: Start,
    pub(super) hash: u64,
}

impl Spot {
    pub(super) fn of(space: Space, key: &[u8]) -> Spot {
        // Always the same keys: whoever crafts rows that collide makes look-ups slower, never wrong.
        let mut hasher = std::hash::DefaultHasher::new();
        hasher.write_u8(space as u8);
        hasher.write(key);
        Spot { start: start_of(space, key), hash: hasher.finish() }
    }
}

/// Bits of which two stand for each entry that was added.
struct Filter {
    words: Box<[AtomicU64]>,
}

impl Filter {
    /// At least `bits`, rounded up to a power of two.
    fn new(bits: usize) -> Filter {
        let words = (bits / 64).next_power_of_two();
        Filter { words: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    fn set(&self, hash: u64) {
        for half in halves(hash) {
            let (word, bit) = self.bit(half);
            if word.load(atomic::Ordering::Relaxed) & bit == 0 {
                word.fetch_or(bit, atomic::Ordering::Release);
            }
        }
    }

    fn may_hold(&self, hash: u64) -> bool {
        halves(hash).into_iter().all(|half| {
            let (word, bit) = self.bit(half);
            word.load(atomic::Ordering::Acquire) & bit != 0
        })
    }

    fn bit(&self, half: usize) -> (&AtomicU64, u64) {
        (&self.words[(half / 64) & (self.words.len() - 1)], 1 << (half % 64))
    }
}

fn halves(hash: u64) -> [usize; 2] {
    [hash as u32 as usize, (hash >> 32) as usize]
}

/// The space and the first 23 bytes of a key, zeros where it is shorter; sorts as they do.
type Start = [u64; 3];

fn start_of(space: Space, key: &[u8]) -> Start {
    let mut bytes = [0; 24];
    bytes[0] = space as u8;
    let length = key.len().min(23);
    bytes[1..=length].copy_from_slice(&key[..length]);
    let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
    [word(0), word(8), word(16)]
}

fn included<'a>(probe: &'a Probe<'a>) -> Bound<&'a (dyn Place + 'a)> {
    Bound::Included(probe)
}

/// Where an entry stands; the order of the parts is the order of the entries.
trait Place {
    fn parts(&self) -> (&Start, &[u8], Reverse<u64>);
}

struct Stored {
    start: Start,
    key: Bytes,
    sequence: Reverse<u64>,
}

impl Stored {
    fn is_of(&self, space: Space) -> bool {
        self.start[0] >> 56 == space as u64
    }
}

/// A place to look for, without a copy of its key.
struct Probe<'a> {
    start: Start,
    key: &'a [u8],
    sequence: Reverse<u64>,
}

impl Probe<'_> {
    fn new(space: Space, key: &[u8], sequence: u64) -> Probe<'_> {
        Probe { start: start_of(space, key), key, sequence: Reverse(sequence) }
    }
}

impl Place for Stored {
    fn parts(&self) -> (&Start, &[u8], Reverse<u64>) {
        (&self.start, &self.key, self.sequence)
    }
}

impl Place for Probe<'_> {
    fn parts(&self) -> (&Start, &[u8], Reverse<u64>) {
        (&self.start, self.key, self.sequence)
    }
}

impl<'a> Borrow<dyn Place + 'a> for Stored {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for dyn Place + '_ {}

impl Ord for Stored {
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts())
    }
}

impl PartialOrd for Stored {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Self) -> bool {
        self.parts() == other.parts()
    }
}

impl Eq for Stored {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    type Model = BTreeMap<Vec<u8>, BTreeMap<u64, Option<u8>>>;

    fn bound(key: &Option<(bool, Vec<u8>)>) -> Bound<&[u8]> {
        match key {
            None => Bound::Unbounded,
            Some((true, key)) => Bound::Included(key),
            Some((false, key)) => Bound::Excluded(key),
        }
    }

    fn as_of(model: &Model, sequence: u64) -> Vec<(Vec<u8>, Option<u8>)> {
        let newest = |versions: &BTreeMap<u64, Option<u8>>| {
            versions.range(..=sequence).next_back().map(|(_, value)| *value)
        };
        model.iter().filter_map(|(key, vs)| Some((key.clone(), newest(vs)?))).collect()
    }

    fn shown(found: Option<Found>) -> Option<(Vec<u8>, Option<u8>)> {
        found.map(|(key, value)| (key.to_vec(), value.map(|value| value[0])))
    }

    proptest! {
        /// Keys that begin alike, are empty, or hold any byte; any reader sees its own moment.
        #[test]
        fn any_moment_is_seen_as_it_was(
            writes in proptest::collection::vec(
                (proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..3),
                 any::<Option<u8>>()), 0..40),
            sequence in 0u64..45,
            from in any::<Option<(bool, Vec<u8>)>>(),
            near in proptest::option::of((any::<bool>(),
                proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255)], 0..3))),
        ) {
            let memory = Memory::new(0);
            let mut model = Model::new();
            // Other spaces lie on both sides and must not be seen.
            for space in [Space::Tables, Space::Known] {
                let spot = Spot::of(space, &[1]);
                memory.add(spot, Bytes::from_static(&[1]), 1, Some(Bytes::from_static(b"x")));
            }
            for (n, (key, value)) in writes.into_iter().enumerate() {
                let at = n as u64 + 1;
                let bytes = value.map(|value| Bytes::copy_from_slice(&[value]));
                memory.add(Spot::of(Space::Rows, &key), key.clone().into(), at, bytes);
                model.entry(key).or_default().insert(at, value);
            }
            let expected = as_of(&model, sequence);
            for (key, value) in &expected {
                let got = memory.get(Spot::of(Space::Rows, key), key, sequence).unwrap();
                prop_assert_eq!(got.map(|v| v[0]), *value);
            }
            for limit in [from, near] {
                let limit = bound(&limit);
                let next = expected.iter().find(|(key, _)| match limit {
                    Bound::Unbounded => true,
                    Bound::Included(from) => &key[..] >= from,
                    Bound::Excluded(from) => &key[..] > from,
                });
                prop_assert_eq!(shown(memory.next(Space::Rows, limit, sequence)), next.cloned());
                let previous = expected.iter().rev().find(|(key, _)| match limit {
                    Bound::Unbounded => true,
                    Bound::Included(to) => &key[..] <= to,
                    Bound::Excluded(to) => &key[..] < to,
                });
                prop_assert_eq!(
                    shown(memory.previous(Space::Rows, limit, sequence)), previous.cloned());
            }
            let newest: Vec<_> = memory
                .newest(Space::Rows)
                .map(|(key, value)| (key.to_vec(), value.map(|v| v[0])))
                .collect();
            prop_assert_eq!(newest, as_of(&model, u64::MAX));
        }
    }
}
