//! The rows of a snapshot in the order of positions, for comparing two stores.
//!
//! Tables come in the order of their names, whatever their numbers here. Tombstones are left out: where
//! one store has a tombstone and the other nothing, both have no row. Rows that have expired are kept
//! in: when that is, each clock judges for itself. Bodies are hashed as they stand, without being
//! understood, so that a damaged one is found as a difference.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    Snapshot, StoreError,
    codec::{self, TableId},
    tables::Space,
    view::Range,
};
use crate::{
    model::{Body, Heads, TableName},
    protocol::ranges::{HashedRow, Position, RowHasher, RowSource, Span},
};

/// The rows of a snapshot, each with its position and its hash.
#[derive(Clone, Debug)]
pub struct Positions {
    snapshot: Snapshot,
    /// In the order of their names.
    tables: Vec<(TableName, TableId)>,
}

impl Snapshot {
    /// The rows as another store compares them, those of the system's own tables only where
    /// `with_system`.
    #[must_use]
    pub fn positions(&self, with_system: bool) -> Positions {
        let names = self.published.tables.names.iter().zip(0..);
        let mut tables: Vec<_> = names
            .filter(|(name, _)| with_system || !name.is_system())
            .map(|(name, id)| (name.clone(), TableId(id)))
            .collect();
        tables.sort_unstable();
        Positions { snapshot: self.clone(), tables }
    }
}

impl Positions {
    /// What the rows have incorporated.
    #[must_use]
    pub fn heads(&self) -> &Arc<Heads> {
        self.snapshot.heads()
    }

    /// Up to where dead rows may be gone.
    #[must_use]
    pub fn floor(&self) -> &Heads {
        self.snapshot.floor()
    }

    /// The bytes of the body at a position, a tombstone's included, as they stand; `None`: there is none.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn body_at(&self, position: &Position) -> Result<Option<Bytes>, StoreError> {
        let Some((table, key)) = position.row() else { return Ok(None) };
        let found = self.tables.binary_search_by(|(name, _)| name.cmp(&table));
        let Ok(found) = found else { return Ok(None) };
        let place = codec::place(self.tables[found].1, key.as_slice());
        self.snapshot.view().get(Space::Rows, &place)
    }
}

impl RowSource for Positions {
    type Error = StoreError;

    fn rows(
        &self,
        span: &Span,
    ) -> Result<impl Iterator<Item = Result<HashedRow, StoreError>>, StoreError> {
        let mut rows = Rows {
            snapshot: &self.snapshot,
            tables: self.tables.iter(),
            span: span.clone(),
            open: None,
            hasher: RowHasher::new(),
        };
        Ok(std::iter::from_fn(move || rows.next().transpose()))
    }
}

/// The rows of a span that are left.
struct Rows<'a> {
    snapshot: &'a Snapshot,
    tables: std::slice::Iter<'a, (TableName, TableId)>,
    span: Span,
    /// The table whose rows are being read.
    open: Option<(&'a TableName, Range)>,
    hasher: RowHasher,
}

impl Rows<'_> {
    fn next(&mut self) -> Result<Option<HashedRow>, StoreError> {
        loop {
            let Some((table, range)) = &mut self.open else {
                let Some((table, id)) = self.tables.next() else { return Ok(None) };
                if let Some((start, end)) = keys_of(table, &self.span) {
                    let from = codec::place(*id, start);
                    let to = match end {
                        Some(end) => codec::place(*id, end),
                        None => codec::place(TableId(id.0 + 1), &[]),
                    };
                    let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
                    let range = self.snapshot.view().range(Space::Rows, from, to)?;
                    self.open = Some((table, range));
                }
                continue;
            };
            match range.next()? {
                None => self.open = None,
                Some((_, body)) if Body::is_tombstone_in(&body) => {}
                Some((place, body)) => {
                    let key = key_of(&place)?;
                    let hash = self.hasher.hash(table.as_str(), key, &body);
                    return Ok(Some((Position::of_row(table, key), hash)));
                }
            }
        }
    }
}

fn key_of(place: &Bytes) -> Result<&[u8], StoreError> {
    place.get(4..).filter(|key| !key.is_empty()).ok_or(StoreError::Damaged("the place of a row"))
}

/// The keys of `table` that lie in `span`: from where on, and up to where (`None`: to its end); outer
/// `None`: no key does.
fn keys_of<'a>(table: &TableName, span: &'a Span) -> Option<(&'a [u8], Option<&'a [u8]>)> {
    let prefix = Position::of_row(table, &[]);
    let start = match span.start.as_slice().strip_prefix(prefix.as_slice()) {
        Some(key) => key,
        // Behind all positions of the table, or before them.
        None if span.start > prefix => return None,
        None => &[],
    };
    let Some(end) = &span.end else { return Some((start, None)) };
    match end.as_slice().strip_prefix(prefix.as_slice()) {
        Some(key) => Some((start, Some(key))),
        None if *end > prefix => Some((start, None)),
        None => None,
    }
}
