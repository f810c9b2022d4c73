//! Reads of one moment: a row, a range of keys, everything above some heads.

use std::{ops::Bound, sync::Arc};

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable, ReadableTableMetadata};

use super::{Published, StoreError, codec, tables};
use crate::model::{Body, Heads, Hlc, Key, Origin, Row, TableName, Version};

/// The rows of one moment. Holding one keeps the space of what is replaced meanwhile: let it go.
#[derive(Debug)]
pub struct Snapshot {
    published: Published,
    read: ReadTransaction,
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
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
    pub(super) fn new(read: ReadTransaction, published: Published) -> Result<Snapshot, StoreError> {
        let rows = read.open_table(tables::ROWS)?;
        Ok(Snapshot { published, read, rows })
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
        match self.rows.get(codec::place(id, key.as_slice()).as_slice())? {
            Some(entry) => codec::body(entry.value()).map(Some),
            None => Ok(None),
        }
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
        let rows = if start < end {
            Some(self.rows.range::<&[u8]>(start.as_slice()..end.as_slice())?)
        } else {
            None
        };
        Ok(Scan { rows, table: table.clone(), reverse: range.reverse })
    }

    /// All rows above `above`, dead ones included: origin by origin, in the order of their stamps.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn changes(&self, above: &Heads) -> Result<Changes, StoreError> {
        Ok(Changes {
            published: self.published.clone(),
            rows: self.read.open_table(tables::ROWS)?,
            index: self.read.open_table(tables::CHANGES)?,
            names: self.read.open_table(tables::TABLES)?,
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
        Ok(self.rows.len()?)
    }

    /// The conflict journal, oldest loser first: the winner's version and the losing row.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn conflicts(&self) -> Result<Vec<(Version, Row)>, StoreError> {
        let journal = self.read.open_table(tables::CONFLICTS)?;
        journal.iter()?.map(|entry| codec::split_conflict_value(entry?.1.value())).collect()
    }
}

/// The rows of a range, in key order.
pub struct Scan {
    rows: Option<redb::Range<'static, &'static [u8], &'static [u8]>>,
    table: TableName,
    reverse: bool,
}

impl Iterator for Scan {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Result<Row, StoreError>> {
        let rows = self.rows.as_mut()?;
        let entry = if self.reverse { rows.next_back() } else { rows.next() }?;
        let table = self.table.clone();
        Some(entry.map_err(StoreError::from).and_then(|(place, body)| {
            let (_, key) = codec::split_place(place.value())?;
            Ok(Row { table, key, body: codec::body(body.value())? })
        }))
    }
}

/// The rows above some heads: origin by origin, in the order of their stamps.
pub struct Changes {
    published: Published,
    rows: ReadOnlyTable<&'static [u8], &'static [u8]>,
    index: ReadOnlyTable<&'static [u8; 24], &'static [u8]>,
    names: ReadOnlyTable<u32, &'static str>,
    above: Heads,
    range: Option<redb::Range<'static, &'static [u8; 24], &'static [u8]>>,
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
    fn next_entry(&mut self) -> Result<Option<(Version, Vec<u8>)>, StoreError> {
        loop {
            if let Some(range) = &mut self.range {
                if let Some(entry) = range.next() {
                    let (key, place) = entry?;
                    let version = codec::split_change_key(key.value());
                    return Ok(Some((version, place.value().to_vec())));
                }
                self.range = None;
            }
            let Some(from) = self.next_origin else { return Ok(None) };
            let start = codec::change_key(Version { hlc: Hlc::ZERO, origin: from });
            let Some(first) = self.index.range::<&[u8; 24]>(&start..)?.next() else {
                self.next_origin = None;
                return Ok(None);
            };
            let origin = codec::split_change_key(first?.0.value()).origin;
            self.next_origin = successor(origin);
            let after = codec::change_key(Version { hlc: self.above.get(origin), origin });
            let end = codec::change_key(Version { hlc: Hlc::MAX, origin });
            let bounds = (Bound::Excluded(&after), Bound::Included(&end));
            if after < end {
                self.range = Some(self.index.range::<&[u8; 24]>(bounds)?);
            }
        }
    }

    /// The table's name; one created since the heads were published stands in the snapshot only.
    fn name(&self, id: codec::TableId) -> Result<TableName, StoreError> {
        if let Some(name) = self.published.tables.name(id) {
            return Ok(name.clone());
        }
        let entry = self.names.get(id.0)?.ok_or(StoreError::Damaged("the table of a row"))?;
        TableName::of_any(entry.value()).map_err(|_| StoreError::Damaged("a table name"))
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
            let table = self.name(table)?;
            let body = self.rows.get(place.as_slice())?.ok_or(MISSING)?;
            Ok(Row { table, key, body: codec::body(body.value())? })
        }))
    }
}

/// The origin after this one, in the order that sorts.
fn successor(origin: Origin) -> Option<Origin> {
    let number = u128::from_be_bytes(*origin.as_bytes()).checked_add(1)?;
    Some(Origin::from_bytes(number.to_be_bytes()))
}

/// The greatest stamp of any row.
pub(super) fn greatest_stamp(read: &ReadTransaction) -> Result<Hlc, StoreError> {
    let index = read.open_table(tables::CHANGES)?;
    let mut greatest = Hlc::ZERO;
    let mut from = Some(Origin::from_bytes([0; 16]));
    while let Some(origin) = from {
        let start = codec::change_key(Version { hlc: Hlc::ZERO, origin });
        let Some(first) = index.range::<&[u8; 24]>(&start..)?.next() else { break };
        let origin = codec::split_change_key(first?.0.value()).origin;
        let start = codec::change_key(Version { hlc: Hlc::ZERO, origin });
        let end = codec::change_key(Version { hlc: Hlc::MAX, origin });
        if let Some(last) = index.range::<&[u8; 24]>(&start..=&end)?.next_back() {
            greatest = greatest.max(codec::split_change_key(last?.0.value()).hlc);
        }
        from = successor(origin);
    }
    Ok(greatest)
}
