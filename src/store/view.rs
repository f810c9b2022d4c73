//! One consistent moment of the store: memory over redb.
//!
//! ```text
//! the memory that is written now   newest
//! the memory that moves into redb
//! redb, as it was when the view was taken   oldest
//! ```
//!
//! The newest layer that knows of an entry says what it is. A view is a few shared pointers and the
//! number of the newest commit that it sees.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase};

use super::{
    StoreError,
    memory::{Found, Memory, Spot},
    tables::Space,
};

type BaseTable = ReadOnlyTable<&'static [u8], &'static [u8]>;
pub(super) type BaseRange = redb::Range<'static, &'static [u8], &'static [u8]>;

/// redb as it was at one moment.
pub(super) struct Base {
    tables: [BaseTable; Space::ALL.len()],
}

impl Base {
    pub(super) fn of(database: &Database) -> Result<Base, StoreError> {
        let read = database.begin_read()?;
        let mut tables = Vec::with_capacity(Space::ALL.len());
        for space in Space::ALL {
            tables.push(read.open_table(space.table())?);
        }
        let tables = tables.try_into().map_err(|_| StoreError::Damaged("the list of spaces"))?;
        Ok(Base { tables })
    }

    pub(super) fn table(&self, space: Space) -> &BaseTable {
        &self.tables[space as usize]
    }
}

impl std::fmt::Debug for Base {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Base")
    }
}

/// A consistent moment.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Newest first; one, or two while the older one moves into redb.
    pub(super) memories: Vec<Arc<Memory>>,
    pub(super) base: Arc<Base>,
    /// The newest commit that is seen.
    pub(super) sequence: u64,
}

impl View {
    /// The value of an entry.
    pub(super) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.get_at(Spot::of(space, key), space, key)
    }

    /// The same, where the key's spot is known.
    pub(super) fn get_at(
        &self,
        spot: Spot,
        space: Space,
        key: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        if let Some(value) = self.in_memory(spot, key) {
            return Ok(value);
        }
        let found = self.base.table(space).get(key)?;
        Ok(found.map(|entry| Bytes::copy_from_slice(entry.value())))
    }

    /// The value of an entry, `None` where it is gone, that has not moved into redb yet; outer `None`:
    /// redb knows.
    pub(super) fn in_memory(&self, spot: Spot, key: &[u8]) -> Option<Option<Bytes>> {
        self.memories.iter().find_map(|memory| memory.get(spot, key, self.sequence))
    }

    /// A number of the state; 0 where it was never written.
    pub(super) fn number(&self, name: &[u8]) -> Result<u64, StoreError> {
        match self.get(Space::State, name)? {
            Some(value) => number_in(&value),
            None => Ok(0),
        }
    }

    /// The entries between two keys, in their order.
    pub(super) fn range(
        &self,
        space: Space,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Range, StoreError> {
        let base = if is_empty(from, to) {
            None
        } else {
            Some(self.base.table(space).range::<&[u8]>((from, to))?)
        };
        Ok(Range {
            memories: self.memories.clone(),
            sequence: self.sequence,
            space,
            from: from.map(Bytes::copy_from_slice),
            to: to.map(Bytes::copy_from_slice),
            base,
            peeked: None,
            ends: [None, None],
        })
    }
}

/// A number as it stands in the state, the heads and the sequences.
pub(super) fn number_in(bytes: &[u8]) -> Result<u64, StoreError> {
    let bytes = bytes.try_into().map_err(|_| StoreError::Damaged("a number"))?;
    Ok(u64::from_be_bytes(bytes))
}

fn is_empty(from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    match (from, to) {
        (Bound::Included(from), Bound::Included(to)) => from > to,
        (
            Bound::Included(from) | Bound::Excluded(from),
            Bound::Included(to) | Bound::Excluded(to),
        ) => from >= to,
        _ => false,
    }
}

/// The entries between two keys; taken from the front, or from the back, not both.
pub(super) struct Range {
    memories: Vec<Arc<Memory>>,
    sequence: u64,
    space: Space,
    /// What is left.
    from: Bound<Bytes>,
    to: Bound<Bytes>,
    base: Option<BaseRange>,
    /// The next entry of redb, where it was looked at and not taken.
    peeked: Option<(Bytes, Bytes)>,
    /// The next entries of the memories, likewise.
    ends: [Option<Found>; 2],
}

impl Range {
    /// The next entry from the front.
    pub(super) fn next(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.step(false)
    }

    /// The next entry from the back.
    pub(super) fn next_back(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        self.step(true)
    }

    fn step(&mut self, back: bool) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        loop {
            if self.peeked.is_none()
                && let Some(base) = &mut self.base
            {
                let entry = if back { base.next_back() } else { base.next() };
                self.peeked = match entry.transpose()? {
                    None => {
                        self.base = None;
                        None
                    }
                    Some((key, value)) => Some((
                        Bytes::copy_from_slice(key.value()),
                        Bytes::copy_from_slice(value.value()),
                    )),
                };
            }
            for (memory, end) in self.memories.iter().zip(&mut self.ends) {
                if end.is_none() {
                    let (from, to) =
                        (self.from.as_ref().map(|b| &b[..]), self.to.as_ref().map(|b| &b[..]));
                    *end = if back {
                        memory.previous(self.space, to, self.sequence)
                    } else {
                        memory.next(self.space, from, self.sequence)
                    };
                    if end.as_ref().is_some_and(|(key, _)| !is_within(key, from, to)) {
                        *end = None;
                    }
                }
            }
            let keys = self.ends.iter().flatten().map(|(key, _)| key);
            let keys = keys.chain(self.peeked.iter().map(|(key, _)| key));
            let Some(key) = (if back { keys.max() } else { keys.min() }).cloned() else {
                return Ok(None);
            };
            // The newest layer that has the key says what it is; the others' entries are passed.
            let mut value: Option<Option<Bytes>> = None;
            for end in &mut self.ends {
                if end.as_ref().is_some_and(|(found, _)| *found == key) {
                    let found = end.take().expect("looked at just now");
                    value = value.or(Some(found.1));
                }
            }
            if self.peeked.as_ref().is_some_and(|(found, _)| *found == key) {
                let found = self.peeked.take().expect("looked at just now");
                value = value.or(Some(Some(found.1)));
            }
            let bound = Bound::Excluded(key.clone());
            if back {
                self.to = bound;
            } else {
                self.from = bound;
            }
            if let Some(Some(value)) = value {
                return Ok(Some((key, value)));
            }
        }
    }
}

fn is_within(key: &[u8], from: Bound<&[u8]>, to: Bound<&[u8]>) -> bool {
    let above = match from {
        Bound::Unbounded => true,
        Bound::Included(from) => key >= from,
        Bound::Excluded(from) => key > from,
    };
    let below = match to {
        Bound::Unbounded => true,
        Bound::Included(to) => key <= to,
        Bound::Excluded(to) => key < to,
    };
    above && below
}
