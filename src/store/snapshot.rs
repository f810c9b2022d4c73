//! Reads of one moment: a row, a range of keys; and where the changes above some heads begin.

use std::{ops::Bound, sync::Arc};

use super::{
    Changes, Published, StoreError, codec,
    tables::Space,
    view::{Range, View},
};
use crate::model::{Body, Heads, Hlc, Key, Row, TableName};

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
        Ok(Changes::new(self.published.clone(), above.clone()))
    }

    /// How many rows lie above `above`, counting to `max` at most.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn count_changes(&self, above: &Heads, max: u64) -> Result<u64, StoreError> {
        self.changes(above)?.count_up_to(max)
    }

    /// The oldest stamp above `above`; `None`: nothing lies there. Costs a look-up an origin, and one
    /// for each row that lay there and was replaced since memory last moved into redb.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn oldest_change(&self, above: &Heads) -> Result<Option<Hlc>, StoreError> {
        let mut changes = self.changes(above)?;
        let mut oldest: Option<Hlc> = None;
        while let Some(hlc) = changes.next_stamp()? {
            oldest = Some(oldest.map_or(hlc, |least| least.min(hlc)));
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

    pub(super) fn view(&self) -> &View {
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
        Some(entry.and_then(|(place, body)| codec::row(table, &place, body)))
    }
}
