//! The rows above some heads: the change index, over memory and redb.
//!
//! redb holds exactly one entry for each row that it holds. Memory holds one for every version that
//! was written into it, those that were replaced since as well; and an entry of redb is out of date
//! while a newer version of its row is still in memory. So an entry counts where the row that it leads
//! to, as the view sees it, has that very version:
//!
//! ```text
//! of memory   the newest version of the row in memory is this one
//! of redb     memory knows nothing of the row
//! ```

use std::{collections::VecDeque, ops::Bound};

use bytes::Bytes;

use super::{
    Published, StoreError, codec,
    memory::{Memory, Spot},
    tables::Space,
    view::{BaseRange, View},
};
use crate::model::{Heads, Hlc, Origin, Row, Version};

/// How many entries are taken from a memory at a time: to find where they begin costs as much as dozens
/// that follow.
const TAKEN_ENTRIES: usize = 64;

/// The rows above some heads: origin by origin, in the order of their stamps.
pub struct Changes {
    published: Published,
    above: Heads,
    current: Option<OfOrigin>,
    /// Where to look for the next origin; `None`: all are through.
    next_origin: Option<Origin>,
    /// Every entry counts.
    counts_writes: bool,
}

/// An entry that counts.
struct Entry {
    hlc: Hlc,
    place: Bytes,
    /// The row, where it is in memory.
    body: Option<Bytes>,
}

impl Changes {
    pub(super) fn new(published: Published, above: Heads) -> Changes {
        let first = Origin::from_bytes([0; 16]);
        let next_origin = Some(first);
        Changes { published, above, current: None, next_origin, counts_writes: false }
    }

    /// The rows of one origin that are stamped above `above` and up to `up_to`, in that order.
    pub(super) fn of_origin(
        published: Published,
        origin: Origin,
        above: Hlc,
        up_to: Hlc,
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>>, StoreError> {
        let current = Some(OfOrigin::above(&published.view, origin, above)?);
        let above = Heads::new();
        let changes =
            Changes { published, above, current, next_origin: None, counts_writes: false };
        let is_within = move |row: &Result<Row, StoreError>| {
            row.as_ref().map_or(true, |row| row.body.version().hlc <= up_to)
        };
        Ok(changes.take_while(is_within))
    }

    /// How many rows are left, counting to `max` at most; they are passed by.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn count_up_to(&mut self, max: u64) -> Result<u64, StoreError> {
        let mut count = 0;
        while count < max && self.next_entry()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// The same, but a row that was written over since memory last moved into redb counts each time: a
    /// look at each row is what counting costs otherwise.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn count_writes_up_to(&mut self, max: u64) -> Result<u64, StoreError> {
        self.counts_writes = true;
        self.count_up_to(max)
    }

    /// The stamp of the next row, which is passed by.
    pub(super) fn next_stamp(&mut self) -> Result<Option<Hlc>, StoreError> {
        Ok(self.next_entry()?.map(|entry| entry.hlc))
    }

    /// Leaves the rest of the present origin out.
    pub(super) fn skip_origin(&mut self) {
        self.current = None;
    }

    fn next_entry(&mut self) -> Result<Option<Entry>, StoreError> {
        let view = &self.published.view;
        loop {
            if let Some(current) = &mut self.current {
                if let Some(entry) = current.next(view, self.counts_writes)? {
                    return Ok(Some(entry));
                }
                self.current = None;
            }
            let Some(from) = self.next_origin else { return Ok(None) };
            let Some(origin) = next_origin(view, from)? else {
                self.next_origin = None;
                return Ok(None);
            };
            self.next_origin = successor(origin);
            self.current = Some(OfOrigin::above(view, origin, self.above.get(origin))?);
        }
    }
}

impl Iterator for Changes {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Result<Row, StoreError>> {
        const MISSING: StoreError = StoreError::Damaged("the change index: a row it names");
        let entry = self.next_entry().transpose()?;
        Some(entry.and_then(|Entry { place, body, .. }| {
            let (table, key) = codec::split_place(&place)?;
            let table = self.published.tables.name(table).ok_or(MISSING)?.clone();
            let body = match body {
                Some(body) => body,
                None => self.published.view.get(Space::Rows, &place)?.ok_or(MISSING)?,
            };
            Ok(Row { table, key, body: codec::body(body)? })
        }))
    }
}

/// The entries of one origin, in the order of their stamps.
struct OfOrigin {
    origin: Origin,
    /// What was passed.
    after: Hlc,
    base: Option<BaseRange>,
    /// The next entry of redb, where it was looked at and not taken.
    peeked: Option<(Hlc, Bytes)>,
    /// The next entries of the memories, likewise.
    taken: [Taken; 2],
}

/// Entries of a memory that were taken out of it. What it is given later the view does not see.
#[derive(Default)]
struct Taken {
    entries: VecDeque<(Hlc, Bytes)>,
    /// Nothing comes behind them.
    is_end: bool,
}

impl Taken {
    /// Sees to it that the first of them, if any is left, is the next one above `after`.
    fn look_above(&mut self, memory: &Memory, origin: Origin, after: Hlc) {
        // An entry at or below `after` was that of another layer, too.
        while self.entries.pop_front_if(|(hlc, _)| *hlc <= after).is_some() {}
        if self.entries.is_empty() && !self.is_end {
            self.entries = memory.changes_after(origin, after, TAKEN_ENTRIES);
            self.is_end = self.entries.len() < TAKEN_ENTRIES;
        }
    }
}

impl OfOrigin {
    fn above(view: &View, origin: Origin, after: Hlc) -> Result<OfOrigin, StoreError> {
        let base = base_range(view, origin, Bound::Excluded(after))?;
        Ok(OfOrigin { origin, after, base: Some(base), peeked: None, taken: Default::default() })
    }

    fn next(&mut self, view: &View, counts_writes: bool) -> Result<Option<Entry>, StoreError> {
        loop {
            if self.peeked.is_none()
                && let Some(base) = &mut self.base
            {
                match base.next().transpose()? {
                    Some((key, place)) => {
                        let hlc = codec::split_change_key(key.value())?.hlc;
                        self.peeked = Some((hlc, Bytes::copy_from_slice(place.value())));
                    }
                    None => self.base = None,
                }
            }
            for (memory, taken) in view.memories.iter().zip(&mut self.taken) {
                taken.look_above(memory, self.origin, self.after);
            }
            let of_memories = self.taken.iter().filter_map(|taken| taken.entries.front());
            let stamps = of_memories.chain(&self.peeked).map(|(hlc, _)| *hlc);
            let Some(hlc) = stamps.min() else { return Ok(None) };
            self.after = hlc;
            let of_base = self.peeked.take_if(|(next, _)| *next == hlc);
            let mut of_memories = self.taken.iter_mut().map(|taken| &mut taken.entries);
            let of_memory =
                of_memories.find_map(|entries| entries.pop_front_if(|(next, _)| *next == hlc));
            let is_in_memory = of_memory.is_some();
            let (_, place) = of_memory.or(of_base).expect("one of them has the least stamp");
            if counts_writes {
                return Ok(Some(Entry { hlc, place, body: None }));
            }
            match view.in_memory(Spot::of(Space::Rows, &place), &place) {
                Some(Some(body)) => {
                    let version = Version { hlc, origin: self.origin };
                    if codec::version_of_body(&body)? == version {
                        return Ok(Some(Entry { hlc, place, body: Some(body) }));
                    }
                }
                Some(None) => {}
                None if is_in_memory => {}
                None => return Ok(Some(Entry { hlc, place, body: None })),
            }
        }
    }
}

fn base_range(view: &View, origin: Origin, from: Bound<Hlc>) -> Result<BaseRange, StoreError> {
    let key = |hlc| codec::change_key(Version { hlc, origin });
    let (from, end) = (from.map(key), key(Hlc::MAX));
    let from = from.as_ref().map(|key| &key[..]);
    Ok(view.base.table(Space::Changes).range::<&[u8]>((from, Bound::Included(&end[..])))?)
}

/// The first origin at or after `from` that has a row, or had one.
fn next_origin(view: &View, from: Origin) -> Result<Option<Origin>, StoreError> {
    let start = codec::change_key(Version { hlc: Hlc::ZERO, origin: from });
    let mut base = view.base.table(Space::Changes).range::<&[u8]>(&start[..]..)?;
    let of_base = match base.next().transpose()? {
        Some((key, _)) => Some(codec::split_change_key(key.value())?.origin),
        None => None,
    };
    let of_memory = view.memories.iter().filter_map(|memory| memory.next_origin(from));
    Ok(of_memory.chain(of_base).min())
}

/// The origin after this one, in the order that sorts.
fn successor(origin: Origin) -> Option<Origin> {
    let number = u128::from_be_bytes(*origin.as_bytes()).checked_add(1)?;
    Some(Origin::from_bytes(number.to_be_bytes()))
}

/// The greatest stamp of any row; of one that was replaced, perhaps, or of a commit that the view
/// does not see: it was issued all the same.
pub(super) fn greatest_stamp(view: &View) -> Result<Hlc, StoreError> {
    let mut greatest = Hlc::ZERO;
    let mut from = Some(Origin::from_bytes([0; 16]));
    while let Some(start) = from {
        let Some(origin) = next_origin(view, start)? else { break };
        let mut base = base_range(view, origin, Bound::Included(Hlc::ZERO))?;
        if let Some((key, _)) = base.next_back().transpose()? {
            greatest = greatest.max(codec::split_change_key(key.value())?.hlc);
        }
        let of_memory = view.memories.iter().filter_map(|memory| memory.last_change(origin));
        greatest = of_memory.fold(greatest, Hlc::max);
        from = successor(origin);
    }
    Ok(greatest)
}
