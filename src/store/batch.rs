//! What one commit changes: into memory at once, and into the record that makes it durable.
//!
//! Readers do not see it: their views end at an earlier commit, until this one is published.
//!
//! ```text
//! payload: change, change, ...
//! change:  space 1, kind 1 (0 gone, 1 value), key length 2, [value length 4], key, [value]
//! ```
//!
//! The change index is in no record: a row's body says which entry it has.

use bytes::{Buf, BufMut, Bytes};

use super::{
    StoreError, codec,
    log::HEADER_BYTES,
    memory::Memory,
    tables::Space,
    view::{View, number_in},
};
use crate::model::Body;

const GONE: u8 = 0;
const VALUE: u8 = 1;

/// A commit under way; it reads what it has written.
pub(super) struct Batch {
    view: View,
    record: Vec<u8>,
}

impl Batch {
    /// Begins commit number `sequence` on top of what `view` sees.
    pub(super) fn begin(mut view: View, sequence: u64) -> Batch {
        view.sequence = sequence;
        Batch { view, record: vec![0; HEADER_BYTES] }
    }

    pub(super) fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.view.get(space, key)
    }

    pub(super) fn number(&self, name: &[u8]) -> Result<u64, StoreError> {
        self.view.number(name)
    }

    pub(super) fn view(&self) -> &View {
        &self.view
    }

    pub(super) fn put(&mut self, space: Space, key: Bytes, value: Bytes) {
        self.record_value(space, &key, &value);
        self.memory().add(space, key, self.view.sequence, Some(value));
    }

    /// Puts a row in its place, and the place in the change index.
    pub(super) fn put_row(&mut self, place: Bytes, body: &Body) {
        self.record_value(Space::Rows, &place, body.bytes());
        let (sequence, bytes) = (self.view.sequence, body.bytes().clone());
        self.memory().add_row(place, sequence, body.version(), bytes);
    }

    fn record_value(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.record.reserve(8 + key.len() + value.len());
        self.record.put_u8(space as u8);
        self.record.put_u8(VALUE);
        self.record.put_u16(u16::try_from(key.len()).expect("a place of at most 516 bytes"));
        self.record.put_u32(u32::try_from(value.len()).expect("far less than 4 GiB"));
        self.record.put_slice(key);
        self.record.put_slice(value);
    }

    pub(super) fn put_number(&mut self, space: Space, key: &[u8], number: u64) {
        let value = Bytes::copy_from_slice(&number.to_be_bytes());
        self.put(space, Bytes::copy_from_slice(key), value);
    }

    pub(super) fn remove(&mut self, space: Space, key: Bytes) {
        self.record.put_u8(space as u8);
        self.record.put_u8(GONE);
        self.record.put_u16(u16::try_from(key.len()).expect("a place of at most 516 bytes"));
        self.record.put_slice(&key);
        self.memory().add(space, key, self.view.sequence, None);
    }

    /// Whether nothing was changed.
    pub(super) fn is_empty(&self) -> bool {
        self.record.len() == HEADER_BYTES
    }

    /// The record, with room for its header.
    pub(super) fn into_record(self) -> Vec<u8> {
        self.record
    }

    fn memory(&self) -> &Memory {
        &self.view.memories[0]
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
                memory.add(space, take(key_bytes)?, sequence, None);
                continue;
            }
            VALUE => take(4)?.get_u32() as usize,
            _ => return Err(DAMAGED),
        };
        left = left.checked_sub(4 + value).ok_or(DAMAGED)?;
        let (key, value) = (take(key_bytes)?, take(value)?);
        if space == Space::Rows {
            memory.add_row(key, sequence, codec::version_of_body(&value)?, value);
        } else {
            memory.add(space, key, sequence, Some(value));
        }
    }
    Ok(())
}

/// A number that stands under a key of any space.
pub(super) fn number_at(view: &View, space: Space, key: &[u8]) -> Result<u64, StoreError> {
    match view.get(space, key)? {
        Some(value) => number_in(&value),
        None => Ok(0),
    }
}
