//! The newest changes, in memory, until they are moved into redb.
//!
//! A [`Memory`] keeps every version of an entry that was written into it, under the sequence number
//! of the commit that wrote it. So a snapshot costs nothing: it is a number, and whoever reads with
//! it passes over what is newer. One writer adds; any number of readers look, without a lock.
//!
//! ```text
//! (space, key, sequence) --> value, or None: the entry is gone     newest first
//! ```

use std::{
    borrow::Borrow,
    cmp::{Ordering, Reverse},
    fmt,
    ops::Bound,
    sync::atomic::{self, AtomicUsize},
};

use bytes::Bytes;
use crossbeam_skiplist::SkipMap;

use super::tables::Space;
use crate::model::KEY_BYTES_MAX;

/// Longer than any key, and behind each of them.
const BEHIND_ALL_KEYS: [u8; KEY_BYTES_MAX + 8] = [0xff; KEY_BYTES_MAX + 8];

/// Entries of all spaces, by key, then newest first.
pub(super) struct Memory {
    entries: SkipMap<Stored, Option<Bytes>>,
    /// What the entries took in the log, in bytes.
    log_bytes: AtomicUsize,
}

/// An entry as it is found: its key and its value, `None` where it is gone.
pub(super) type Found = (Bytes, Option<Bytes>);

impl Memory {
    pub(super) fn new() -> Memory {
        Memory { entries: SkipMap::new(), log_bytes: AtomicUsize::new(0) }
    }

    /// Adds what commit `sequence` did to an entry; a later addition by the same commit replaces it.
    pub(super) fn add(&self, space: Space, key: Bytes, sequence: u64, value: Option<Bytes>) {
        self.entries.insert(Stored { space, key, sequence: Reverse(sequence) }, value);
    }

    /// What the entry was after commit `sequence`; outer `None`: nothing is known of it here.
    pub(super) fn get(&self, space: Space, key: &[u8], sequence: u64) -> Option<Option<Bytes>> {
        let from = Probe { space, key, sequence: Reverse(sequence) };
        let entry =
            self.entries.range::<dyn Place, _>((included(&from), Bound::Unbounded)).next()?;
        let found = entry.key();
        (found.space == space && found.key == key).then(|| entry.value().clone())
    }

    /// The first entry above `after` (or at it, where it is included) as it was after `sequence`.
    pub(super) fn next(&self, space: Space, after: Bound<&[u8]>, sequence: u64) -> Option<Found> {
        let first = match after {
            Bound::Unbounded => Probe { space, key: &[], sequence: Reverse(u64::MAX) },
            Bound::Included(key) => Probe { space, key, sequence: Reverse(u64::MAX) },
            // Behind the oldest version there can be.
            Bound::Excluded(key) => Probe { space, key, sequence: Reverse(0) },
        };
        let bound: Bound<&dyn Place> = match after {
            Bound::Excluded(_) => Bound::Excluded(&first),
            _ => Bound::Included(&first),
        };
        let newer = |entry: &Stored| entry.sequence.0 > sequence;
        self.entries
            .range::<dyn Place, _>((bound, Bound::Unbounded))
            .take_while(|entry| entry.key().space == space)
            .find(|entry| !newer(entry.key()))
            .map(|entry| (entry.key().key.clone(), entry.value().clone()))
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
            let sequence_bound = Reverse(if includes { 0 } else { u64::MAX });
            let entry = match key {
                Some(key) => {
                    let probe = Probe { space, key, sequence: sequence_bound };
                    let bound: Bound<&dyn Place> =
                        if includes { Bound::Included(&probe) } else { Bound::Excluded(&probe) };
                    self.entries.range::<dyn Place, _>((Bound::Unbounded, bound)).next_back()
                }
                None => {
                    let probe = Probe { space, key: &BEHIND_ALL_KEYS, sequence: Reverse(0) };
                    let bound: Bound<&dyn Place> = Bound::Excluded(&probe);
                    self.entries.range::<dyn Place, _>((Bound::Unbounded, bound)).next_back()
                }
            }?;
            if entry.key().space != space {
                return None;
            }
            let key = entry.key().key.clone();
            if let Some(value) = self.get(space, &key, sequence) {
                return Some((key, value));
            }
            upper = Some(key);
        }
    }

    /// Every entry as it is now, in order of space and key.
    pub(super) fn newest(&self) -> impl Iterator<Item = (Space, Bytes, Option<Bytes>)> + '_ {
        let mut before: Option<(Space, Bytes)> = None;
        self.entries.iter().filter_map(move |entry| {
            let Stored { space, key, .. } = entry.key();
            if before.as_ref().is_some_and(|(s, k)| s == space && k == key) {
                return None;
            }
            before = Some((*space, key.clone()));
            Some((*space, key.clone(), entry.value().clone()))
        })
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

fn included<'a>(probe: &'a Probe<'a>) -> Bound<&'a (dyn Place + 'a)> {
    Bound::Included(probe)
}

/// Where an entry stands; the order of the parts is the order of the entries.
trait Place {
    fn parts(&self) -> (Space, &[u8], Reverse<u64>);
}

struct Stored {
    space: Space,
    key: Bytes,
    sequence: Reverse<u64>,
}

/// A place to look for, without a copy of its key.
struct Probe<'a> {
    space: Space,
    key: &'a [u8],
    sequence: Reverse<u64>,
}

impl Place for Stored {
    fn parts(&self) -> (Space, &[u8], Reverse<u64>) {
        (self.space, &self.key, self.sequence)
    }
}

impl Place for Probe<'_> {
    fn parts(&self) -> (Space, &[u8], Reverse<u64>) {
        (self.space, self.key, self.sequence)
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
            let memory = Memory::new();
            let mut model = Model::new();
            // Other spaces lie on both sides and must not be seen.
            for space in [Space::Tables, Space::Known] {
                memory.add(space, Bytes::from_static(&[1]), 1, Some(Bytes::from_static(b"x")));
            }
            for (n, (key, value)) in writes.into_iter().enumerate() {
                let at = n as u64 + 1;
                let bytes = value.map(|value| Bytes::copy_from_slice(&[value]));
                memory.add(Space::Rows, key.clone().into(), at, bytes);
                model.entry(key).or_default().insert(at, value);
            }
            let expected = as_of(&model, sequence);
            for (key, value) in &expected {
                let got = memory.get(Space::Rows, key, sequence).unwrap();
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
                .newest()
                .filter(|(space, ..)| *space == Space::Rows)
                .map(|(_, key, value)| (key.to_vec(), value.map(|v| v[0])))
                .collect();
            prop_assert_eq!(newest, as_of(&model, u64::MAX));
        }
    }
}
