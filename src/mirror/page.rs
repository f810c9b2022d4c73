//! A page of changes, sorted by what becomes of each row: the next page is, while MySQL has one.

use std::{collections::HashMap, sync::Arc};

use super::{
    columns::{ColumnBatch, Columns},
    mapping::{RowsByTable, TableBatch},
    shape::Shape,
};
use crate::model::TableName;

/// Rows of a column table.
pub(super) type OfColumns = (TableName, Arc<Columns>, ColumnBatch);

/// What is known of the tables at one moment.
pub(super) struct Sorter {
    pub(super) shapes: HashMap<TableName, Shape>,
    pub(super) columns: HashMap<TableName, Arc<Columns>>,
    /// Milliseconds since the Unix epoch, UTC.
    pub(super) now_ms: u64,
    /// How many bytes of parameters MySQL takes in one statement.
    pub(super) statement_bytes_max: usize,
}

/// The rows of some tables.
#[derive(Default)]
pub(super) struct ReadyPage {
    of_keys: Vec<(TableName, TableBatch)>,
    of_columns: Vec<OfColumns>,
    /// Those of which too little was known.
    others: RowsByTable,
}

impl ReadyPage {
    /// Nothing is sorted yet.
    pub(super) fn of(rows: RowsByTable) -> ReadyPage {
        ReadyPage { others: rows, ..ReadyPage::default() }
    }

    /// Sorts those of the tables that are known.
    pub(super) fn sort(&mut self, by: &Sorter) {
        let Sorter { shapes, columns, now_ms, statement_bytes_max } = by;
        for (table, rows) in std::mem::take(&mut self.others) {
            if let Some(columns) = columns.get(&table) {
                let batch = ColumnBatch::new(rows, columns, *now_ms, *statement_bytes_max);
                self.of_columns.push((table, Arc::clone(columns), batch));
            } else if let Some(shape) = shapes.get(&table) {
                let batch = TableBatch::new(rows, shape, *now_ms, *statement_bytes_max);
                self.of_keys.push((table, batch));
            } else {
                self.others.insert(table, rows);
            }
        }
    }

    /// The tables.
    pub(super) fn tables(&self) -> impl Iterator<Item = &TableName> {
        let of_keys = self.of_keys.iter().map(|(table, _)| table);
        let of_columns = self.of_columns.iter().map(|(table, ..)| table);
        of_keys.chain(of_columns).chain(self.others.keys())
    }

    /// All rows of known tables, those with keys and values and those with columns; the others are left out.
    pub(super) fn sorted(mut self, by: &Sorter) -> (Vec<(TableName, TableBatch)>, Vec<OfColumns>) {
        self.sort(by);
        (self.of_keys, self.of_columns)
    }
}
