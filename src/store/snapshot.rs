//! Reads of one moment: a row, a range of keys, everything above some heads.

use std::{ops::Bound, sync::Arc};

use bytes::Bytes;

use super::{
    Published, StoreError, codec,
    tables::Space,
    view::{Range, View},
};
use crate::model::{Body, Heads, Hlc, Key, Origin, Row, TableName, Version};

/// The rows of one moment. Holding one keeps the space of what is replaced meanwhile: let it go.
#[derive(Clone, Debug)]
pub struct Snapshot {
    published: Published,
}

/// Which keys a scan visits.
#[derive(Clone, Debug, Default)]
pub struct ScanRange {
    /// The first key, included; `None`: from the beginning.
    pub start: Option<Vec<u8>>,
    /// The end, not included; `None`: to the end.
    pub end: Option<Vec<u8>>,
    /// From the greatest key downwards.
    pub reverse: bool,
}

impl Snapshot {
    pub(super) fn new(published: Published) -> Snapshot {
        Snapshot { published }
    }

    /// What these rows have incorporated.
    #[must_use]
    pub fn heads(&self) -> &Arc<Heads> {
        &self.published.heads
    }

    /// Whether the table is known here.
    #[must_use]
    pub fn has_table(&self, table: &TableName) -> bool {
        self.published.tables.id(table).is_some()
    }

    /// The row, a tombstone or an expired one included.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn get(&self, table: &TableName, key: &Key) -> Result<Option<Body>, StoreError> {
        let Some(id) = self.published.tables.id(table) else { return Ok(None) };
        let found = self.view().get(Space::Rows, &codec::place(id, key.as_slice()))?;
        found.map(codec::body).transpose()
    }

    /// The rows of a range of keys, dead ones included, in key order.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn scan(&self, table: &TableName, range: &ScanRange) -> Result<Scan, StoreError> {
        let Some(id) = self.published.tables.id(table) else {
            return Ok(Scan { rows: None, table: table.clone(), reverse: range.reverse });
        };
        let start = codec::place(id, range.start.as_deref().unwrap_or_default());
        let end = match &range.end {
            Some(end) => codec::place(id, end),
            None => codec::place(codec::TableId(id.0 + 1), &[]),
        };
        let (from, to) = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let rows = self.view().range(Space::Rows, from, to)?;
        Ok(Scan { rows: Some(rows), table: table.clone(), reverse: range.reverse })
    }

    /// All rows above `above`, dead ones included: origin by origin, in the order of their stamps.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn changes(&self, above: &Heads) -> Result<Changes, StoreError> {
        Ok(Changes {
            published: self.published.clone(),
            above: above.clone(),
            range: None,
            next_origin: Some(Origin::from_bytes([0; 16])),
        })
    }

    /// How many rows lie above `above`, counting to `max` at most.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn count_changes(&self, above: &Heads, max: u64) -> Result<u64, StoreError> {
        self.changes(above)?.count_up_to(max)
    }

    /// The oldest stamp above `above`; `None`: nothing lies there. Costs a look-up an origin.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn oldest_change(&self, above: &Heads) -> Result<Option<Hlc>, StoreError> {
        let mut changes = self.changes(above)?;
        let mut oldest: Option<Hlc> = None;
        while let Some((version, _)) = changes.next_entry()? {
            oldest = Some(oldest.map_or(version.hlc, |least| least.min(version.hlc)));
            changes.skip_origin();
        }
        Ok(oldest)
    }

    /// How many rows there are, dead ones included.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn rows(&self) -> Result<u64, StoreError> {
        self.view().number(super::tables::STATE_ROWS)
    }

    /// The conflict journal, oldest loser first: the winner's version and the losing row.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn conflicts(&self) -> Result<Vec<(Version, Row)>, StoreError> {
        let all = (Bound::Unbounded, Bound::Unbounded);
        let mut journal = self.view().range(Space::Conflicts, all.0, all.1)?;
        let mut conflicts = Vec::new();
        while let Some((_, value)) = journal.next()? {
            conflicts.push(codec::split_conflict_value(value)?);
        }
        Ok(conflicts)
    }

    fn view(&self) -> &View {
        &self.published.view
    }
}

/// The rows of a range, in key order.
pub struct Scan {
    rows: Option<Range>,
    table: TableName,
    reverse: bool,
}

impl Iterator for Scan {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Result<Row, StoreError>> {
        let rows = self.rows.as_mut()?;
        let entry = if self.reverse { rows.next_back() } else { rows.next() }.transpose()?;
        let table = self.table.clone();
        Some(entry.and_then(|(place, body)| {
            let (_, key) = codec::split_place(&place)?;
            Ok(Row { table, key, body: codec::body(body)? })
        }))
    }
}

/// The rows above some heads: origin by origin, in the order of their stamps.
pub struct Changes {
    published: Published,
    above: Heads,
    range: Option<Range>,
    /// Where to look for the next origin; `None`: all are through.
    next_origin: Option<Origin>,
}

impl Changes {
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

    /// The next entry of the change index: a version and its row's place.
    fn next_entry(&mut self) -> Result<Option<(Version, Bytes)>, StoreError> {
        loop {
            if let Some(range) = &mut self.range {
                if let Some((key, place)) = range.next()? {
                    return Ok(Some((codec::split_change_key(&key)?, place)));
                }
                self.range = None;
            }
            let Some(from) = self.next_origin else { return Ok(None) };
            let Some(origin) = next_origin(&self.published.view, from)? else {
                self.next_origin = None;
                return Ok(None);
            };
            self.next_origin = successor(origin);
            let after = codec::change_key(Version { hlc: self.above.get(origin), origin });
            let end = codec::change_key(Version { hlc: Hlc::MAX, origin });
            let (after, end) = (Bound::Excluded(&after[..]), Bound::Included(&end[..]));
            self.range = Some(self.published.view.range(Space::Changes, after, end)?);
        }
    }

    /// Leaves the rest of the present origin out.
    fn skip_origin(&mut self) {
        self.range = None;
    }
}

impl Iterator for Changes {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Result<Row, StoreError>> {
        const MISSING: StoreError = StoreError::Damaged("the change index: a row it names");
        let entry = self.next_entry().transpose()?;
        Some(entry.and_then(|(_, place)| {
            let (table, key) = codec::split_place(&place)?;
            let table = self.published.tables.name(table).ok_or(MISSING)?.clone();
            let body = self.published.view.get(Space::Rows, &place)?.ok_or(MISSING)?;
            Ok(Row { table, key, body: codec::body(body)? })
        }))
    }
}

/// The first origin at or after `from` that has a row.
fn next_origin(view: &View, from: Origin) -> Result<Option<Origin>, StoreError> {
    let start = codec::change_key(Version { hlc: Hlc::ZERO, origin: from });
    let mut rest = view.range(Space::Changes, Bound::Included(&start), Bound::Unbounded)?;
    match rest.next()? {
        Some((key, _)) => Ok(Some(codec::split_change_key(&key)?.origin)),
        None => Ok(None),
    }
}

/// The origin after this one, in the order that sorts.
fn successor(origin: Origin) -> Option<Origin> {
    let number = u128::from_be_bytes(*origin.as_bytes()).checked_add(1)?;
    Some(Origin::from_bytes(number.to_be_bytes()))
}

/// The greatest stamp of any row.
pub(super) fn greatest_stamp(view: &View) -> Result<Hlc, StoreError> {
    let mut greatest = Hlc::ZERO;
    let mut from = Some(Origin::from_bytes([0; 16]));
    while let Some(start) = from {
        let Some(origin) = next_origin(view, start)? else { break };
        let start = codec::change_key(Version { hlc: Hlc::ZERO, origin });
        let end = codec::change_key(Version { hlc: Hlc::MAX, origin });
        let (start, end) = (Bound::Included(&start[..]), Bound::Included(&end[..]));
        if let Some((key, _)) = view.range(Space::Changes, start, end)?.next_back()? {
            greatest = greatest.max(codec::split_change_key(&key)?.hlc);
        }
        from = successor(origin);
    }
    Ok(greatest)
}
