//! What one commit changes: gathered in the bytes of the record that makes it durable.
//!
//! ```text
//! put, remove --> record, and where each entry stands in it --> log --> memory: slices of the record
//! ```
//!
//! So a row is written down once, and nothing of a commit is in memory before it is durable. What a
//! commit has done so far is read from its record.
//!
//! ```text
//! payload: change, change, ...
//! change:  space 1, kind 1 (0 gone, 1 value), key length 2, [value length 4], key, [value]
//! ```
//!
//! The change index is in no record: a row's body says which entry it has.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    ops::Range,
};

use bytes::{Buf, BufMut, Bytes};

use super::{
    StoreError, codec,
    log::HEADER_BYTES,
    memory::{Memory, Spot},
    tables::Space,
    view::{View, number_in},
};
use crate::model::{Row, TableName};

const GONE: u8 = 0;
const VALUE: u8 = 1;
/// What a commit changes besides rows: heads, counts.
const OTHER_CHANGES: usize = 4;
const OTHER_BYTES: usize = 256;

/// A commit under way; it reads what it has written.
pub(super) struct Batch {
    view: View,
    record: Vec<u8>,
    entries: Vec<Entry>,
    /// The newest entry of each hash.
    newest: HashMap<u64, usize, BuildHasherDefault<AsItIs>>,
}

/// One entry, as ranges of the record.
struct Entry {
    space: Space,
    spot: Spot,
    key: Range<usize>,
    /// `None`: gone.
    value: Option<Range<usize>>,
    /// Of a row.
    table: Option<TableName>,
    /// An earlier entry with the same hash.
    earlier: Option<usize>,
    /// The same key was changed once more.
    replaced: bool,
}

impl Batch {
    /// Begins a commit of about so many rows and bytes of them, on top of what `view` sees.
    pub(super) fn begin(view: View, rows: usize, bytes: usize) -> Batch {
        // Memory keeps the record as it is: one that has to grow would leave room that nobody uses.
        let mut record = Vec::with_capacity(HEADER_BYTES + OTHER_BYTES + bytes);
        record.resize(HEADER_BYTES, 0);
        let changes = rows + OTHER_CHANGES;
        let newest = HashMap::with_capacity_and_hasher(changes, BuildHasherDefault::default());
        Batch { view, record, entries: Vec::with_capacity(changes), newest }
    }

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
        match self.find(spot, space, key) {
            Some(at) => {
                let value = self.entries[at].value.clone();
                Ok(value.map(|value| Bytes::copy_from_slice(&self.record[value])))
            }
            None => self.view.get_at(spot, space, key),
        }
    }

    /// A number under a key of any space; 0 where it was never written.
    pub(super) fn number(&self, space: Space, key: &[u8]) -> Result<u64, StoreError> {
        self.get(space, key)?.map_or(Ok(0), |value| number_in(&value))
    }

    /// What was there before this commit.
    pub(super) fn view(&self) -> &View {
        &self.view
    }

    /// The entries of a space that this commit gave a value.
    pub(super) fn puts(&self, space: Space) -> impl Iterator<Item = (&[u8], &[u8])> {
        let stands = move |entry: &&Entry| entry.space == space && !entry.replaced;
        self.entries.iter().filter(stands).filter_map(|entry| {
            let value = entry.value.clone()?;
            Some((&self.record[entry.key.clone()], &self.record[value]))
        })
    }

    pub(super) fn put(&mut self, space: Space, key: &[u8], value: &[u8]) {
        let spot = Spot::of(space, key);
        self.put_with(spot, space, key, None, |record| record.put_slice(value));
    }

    pub(super) fn put_number(&mut self, space: Space, key: &[u8], number: u64) {
        self.put(space, key, &number.to_be_bytes());
    }

    /// Puts a row in its place; `body` writes its bytes.
    pub(super) fn put_row(
        &mut self,
        spot: Spot,
        place: &[u8],
        table: &TableName,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.put_with(spot, Space::Rows, place, Some(table.clone()), body);
    }

    fn put_with(
        &mut self,
        spot: Spot,
        space: Space,
        key: &[u8],
        table: Option<TableName>,
        value: impl FnOnce(&mut Vec<u8>),
    ) {
        let key_at = self.record.len() + 8;
        let value_at = key_at + key.len();
        self.record.put_u8(space as u8);
        self.record.put_u8(VALUE);
        self.record.put_u16(u16::try_from(key.len()).expect("a place of at most 516 bytes"));
        self.record.put_u32(0);
        self.record.put_slice(key);
        value(&mut self.record);
        let value_bytes = self.record.len() - value_at;
        let value_bytes = u32::try_from(value_bytes).expect("far less than 4 GiB");
        self.record[key_at - 4..key_at].copy_from_slice(&value_bytes.to_be_bytes());
        let value = Some(value_at..self.record.len());
        self.add(spot, space, key_at..value_at, value, table);
    }

    pub(super) fn remove(&mut self, space: Space, key: &[u8]) {
        self.record.put_u8(space as u8);
        self.record.put_u8(GONE);
        self.record.put_u16(u16::try_from(key.len()).expect("a place of at most 516 bytes"));
        let at = self.record.len();
        self.record.put_slice(key);
        self.add(Spot::of(space, key), space, at..at + key.len(), None, None);
    }

    fn add(
        &mut self,
        spot: Spot,
        space: Space,
        key: Range<usize>,
        value: Option<Range<usize>>,
        table: Option<TableName>,
    ) {
        if let Some(before) = self.find(spot, space, &self.record[key.clone()]) {
            self.entries[before].replaced = true;
        }
        let earlier = self.newest.insert(spot.hash, self.entries.len());
        self.entries.push(Entry { space, spot, key, value, table, earlier, replaced: false });
    }

    /// The newest entry of a key.
    fn find(&self, spot: Spot, space: Space, key: &[u8]) -> Option<usize> {
        let mut next = self.newest.get(&spot.hash).copied();
        while let Some(at) = next {
            let entry = &self.entries[at];
            if entry.space == space && self.record[entry.key.clone()] == *key {
                return Some(at);
            }
            next = entry.earlier;
        }
        None
    }

    /// Whether nothing was changed.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The record, with room for its header.
    pub(super) fn record(&mut self) -> &mut [u8] {
        &mut self.record
    }

    /// Adds what was changed to memory, as commit number `sequence`; gives the rows, as they stand
    /// now: origin by origin, in the order of their stamps.
    ///
    /// Whoever keeps one of them keeps the record, unless most of it is something else: a key that
    /// many callers wrote at once leaves one row, and it alone.
    pub(super) fn into_memory(
        mut self,
        memory: &Memory,
        sequence: u64,
    ) -> Result<Vec<Row>, StoreError> {
        memory.add_log_bytes(self.record.len());
        if self.record.capacity() > self.record.len() / 2 * 3 {
            self.record.shrink_to_fit();
        }
        let record = Bytes::from(self.record);
        let standing = |entry: &&Entry| !entry.replaced && entry.table.is_some();
        let length = |entry: &Entry| entry.value.as_ref().map_or(0, Range::len) + entry.key.len();
        let row_bytes: usize = self.entries.iter().filter(standing).map(length).sum();
        let alone = row_bytes < record.len() / 2;
        let mut rows = Vec::with_capacity(self.entries.len());
        for Entry { spot, key, value, table, .. } in
            self.entries.into_iter().filter(|entry| !entry.replaced)
        {
            let key = record.slice(key);
            let value = value.map(|value| record.slice(value));
            match (table, value) {
                (Some(table), Some(value)) => {
                    let row = if alone {
                        codec::row(table, &detached(&key), detached(&value))?
                    } else {
                        codec::row(table, &key, value.clone())?
                    };
                    memory.add_row(spot, key, sequence, row.body.version(), value);
                    rows.push(row);
                }
                (_, value) => memory.add(spot, key, sequence, value),
            }
        }
        let order = |row: &Row| row.body.version().in_index();
        if !rows.is_sorted_by_key(order) {
            rows.sort_unstable_by_key(order);
        }
        Ok(rows)
    }
}

fn detached(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A hash is one already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are hashes");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Does again what a commit did.
pub(super) fn replay(memory: &Memory, sequence: u64, payload: &Bytes) -> Result<(), StoreError> {
    const DAMAGED: StoreError = StoreError::Damaged("a commit in the log");
    let mut rest = payload.clone();
    let mut take =
        |length: usize| (rest.len() >= length).then(|| rest.split_to(length)).ok_or(DAMAGED);
    memory.add_log_bytes(HEADER_BYTES + payload.len());
    let mut left = payload.len();
    while left > 0 {
        let mut head = take(4)?;
        let space = Space::of_number(head.get_u8()).ok_or(DAMAGED)?;
        let kind = head.get_u8();
        let key_bytes = usize::from(head.get_u16());
        left = left.checked_sub(4 + key_bytes).ok_or(DAMAGED)?;
        let value = match kind {
            GONE => {
                let key = take(key_bytes)?;
                memory.add(Spot::of(space, &key), key, sequence, None);
                continue;
            }
            VALUE => take(4)?.get_u32() as usize,
            _ => return Err(DAMAGED),
        };
        left = left.checked_sub(4 + value).ok_or(DAMAGED)?;
        let (key, value) = (take(key_bytes)?, take(value)?);
        let spot = Spot::of(space, &key);
        if space == Space::Rows {
            memory.add_row(spot, key, sequence, codec::version_of_body(&value)?, value);
        } else {
            memory.add(spot, key, sequence, Some(value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;
    use redb::{Database, backends::InMemoryBackend};

    use super::*;
    use crate::store::{StoreConfig, tables, view::Base};

    fn view() -> View {
        let backend = InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend).unwrap();
        let config = StoreConfig::new(crate::model::Origin::from_bytes([1; 16]), 7);
        assert!(tables::found(&database, &config).is_ok());
        let base = Arc::new(Base::of(&database).unwrap());
        View { memories: vec![Arc::new(Memory::new(0))], base, sequence: 0 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// A commit reads what it wrote; memory and a replay of its record hold the same, the last
        /// word on each key.
        #[test]
        fn the_last_word_of_a_commit_is_read_kept_and_replayed(
            changes in proptest::collection::vec(
                (0u8..3, 0u8..6, any::<Option<u8>>()), 0..40),
        ) {
            let view = view();
            let mut batch = Batch::begin(view.clone(), 1, 10);
            let mut model: BTreeMap<(u8, u8), Option<u8>> = BTreeMap::new();
            let space = |number: u8| [Space::State, Space::Heads, Space::Known][usize::from(number)];
            for (number, key, value) in changes {
                match value {
                    Some(value) => batch.put(space(number), &[key], &[value]),
                    None => batch.remove(space(number), &[key]),
                }
                model.insert((number, key), value);
            }
            let put: usize = [0, 1, 2].map(|n| batch.puts(space(n)).count()).iter().sum();
            prop_assert_eq!(put, model.values().flatten().count());
            for number in 0..3 {
                for key in 0..6 {
                    let expected = model.get(&(number, key)).copied().flatten();
                    let got = batch.get(space(number), &[key]).unwrap().map(|value| value[0]);
                    prop_assert_eq!(got, expected);
                }
            }
            prop_assert_eq!(batch.is_empty(), model.is_empty());
            let payload = Bytes::copy_from_slice(&batch.record()[HEADER_BYTES..]);
            let (once, again) = (&view.memories[0], Memory::new(0));
            prop_assert!(batch.into_memory(once, 1).unwrap().is_empty());
            replay(&again, 1, &payload).unwrap();
            for number in 0..3 {
                let expected: Vec<_> = model
                    .iter()
                    .filter(|((n, _), _)| *n == number)
                    .map(|((_, key), value)| (vec![*key], *value))
                    .collect();
                for memory in [&**once, &again] {
                    let all = memory.newest(space(number));
                    let all: Vec<_> =
                        all.map(|(key, value)| (key.to_vec(), value.map(|v| v[0]))).collect();
                    prop_assert_eq!(&all, &expected);
                }
            }
        }
    }
}
