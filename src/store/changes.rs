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

use std::{collections::VecDeque, ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    Published, StoreError, codec,
    memory::{AsOf, Change, Memory, Spot},
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
        Changes { published, above, current: None, next_origin: Some(first) }
    }

    /// The rows of one origin that are stamped above `above` and up to `up_to`, in that order.
    pub(super) fn of_origin(
        published: Published,
        origin: Origin,
        above: Hlc,
        up_to: Hlc,
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>>, StoreError> {
        let current = Some(OfOrigin::above(&published.view, origin, above)?);
        let changes = Changes { published, above: Heads::new(), current, next_origin: None };
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
                if let Some(entry) = current.next(view)? {
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
    entries: VecDeque<Change>,
    /// Nothing comes behind them.
    is_end: bool,
}

impl Taken {
    /// Sees to it that the first of them, if any is left, is the next one above `after`.
    fn look_above(&mut self, memory: &Memory, origin: Origin, after: Hlc, sequence: u64) {
        // An entry at or below `after` was that of another layer, too.
        while self.entries.pop_front_if(|change| change.hlc <= after).is_some() {}
        if self.entries.is_empty() && !self.is_end {
            self.entries = memory.changes_after(origin, after, sequence, TAKEN_ENTRIES);
            self.is_end = self.entries.len() < TAKEN_ENTRIES;
        }
    }
}

impl OfOrigin {
    fn above(view: &View, origin: Origin, after: Hlc) -> Result<OfOrigin, StoreError> {
        let base = base_range(view, origin, Bound::Excluded(after))?;
        Ok(OfOrigin { origin, after, base: Some(base), peeked: None, taken: Default::default() })
    }

    fn next(&mut self, view: &View) -> Result<Option<Entry>, StoreError> {
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
                taken.look_above(memory, self.origin, self.after, view.sequence);
            }
            let of_memories = self.taken.iter().filter_map(|taken| taken.entries.front());
            let of_memories = of_memories.map(|change| change.hlc);
            let Some(hlc) = of_memories.chain(self.peeked.iter().map(|(hlc, _)| *hlc)).min() else {
                return Ok(None);
            };
            self.after = hlc;
            let of_base = self.peeked.take_if(|(next, _)| *next == hlc);
            let mut of_memories = self.taken.iter_mut().enumerate();
            let of_memory = of_memories.find_map(|(layer, taken)| {
                Some((layer, taken.entries.pop_front_if(|change| change.hlc == hlc)?))
            });
            let entry = match (of_memory, of_base) {
                (Some((layer, change)), _) => self.of_memory(view, layer, change)?,
                (None, Some((_, place))) => {
                    let is_newer = view.in_memory(Spot::of(Space::Rows, &place), &place).is_some();
                    (!is_newer).then_some(Entry { hlc, place, body: None })
                }
                (None, None) => unreachable!("one of them has the least stamp"),
            };
            if entry.is_some() {
                return Ok(entry);
            }
        }
    }

    /// The entry for a change in memory number `layer`, where it counts.
    fn of_memory(
        &self,
        view: &View,
        layer: usize,
        change: Change,
    ) -> Result<Option<Entry>, StoreError> {
        let Change { hlc, place, version } = change;
        let body = match version {
            AsOf::Replaced => return Ok(None),
            AsOf::Newest(body) if layer == 0 => Some(body),
            AsOf::Newest(body) => {
                let spot = Spot::of(Space::Rows, &place);
                let newer = &view.memories[..layer];
                let is_newest =
                    |memory: &Arc<Memory>| memory.get(spot, &place, view.sequence).is_none();
                newer.iter().all(is_newest).then_some(body)
            }
            AsOf::Unknown => {
                let newest = view.in_memory(Spot::of(Space::Rows, &place), &place).flatten();
                let version = Version { hlc, origin: self.origin };
                match newest {
                    Some(body) if codec::version_of_body(&body)? == version => Some(body),
                    _ => None,
                }
            }
        };
        Ok(body.map(|body| Entry { hlc, place, body: Some(body) }))
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
