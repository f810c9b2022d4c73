//! Column tables that lack rows are filled from the store, a page at a time, between the changes.
//!
//! ```text
//! rows behind a key, of this moment --> one transaction, the position as it is --> the next page ...
//!   --> what the store has not is deleted --> filled = 1
//! ```
//!
//! Changes of the table are applied meanwhile as ever. A page is read and written with nothing between, and
//! each delta of changes is of a later moment than the page before it, so no row comes over a newer one.

use super::{
    column_tables::Filling,
    columns::own,
    error::MirrorError,
    session::{Session, read},
};
use crate::{
    model::{Key, Row, TableName},
    store::ScanRange,
};

/// How many pages are written before changes have their turn.
const PAGES_MAX: usize = 4;

impl Session<'_> {
    /// Whether a table lacks rows.
    pub(super) fn has_to_fill(&self) -> bool {
        self.columns.values().any(|table| table.filling != Filling::Done)
    }

    /// Fills some of what is missing.
    pub(super) async fn fill(&mut self) -> Result<(), MirrorError> {
        for _ in 0..PAGES_MAX {
            let next = self.columns.iter().find_map(|(name, table)| match &table.filling {
                Filling::Behind(key) => Some((name.clone(), key.clone())),
                Filling::Done => None,
            });
            let Some((table, behind)) = next else { return Ok(()) };
            self.fill_page(&table, behind).await?;
            self.keep_up(None).await?;
        }
        Ok(())
    }

    async fn fill_page(
        &mut self,
        table: &TableName,
        behind: Option<Key>,
    ) -> Result<(), MirrorError> {
        let (rows_max, bytes_max) = (self.config.batch_rows_max, self.config.batch_bytes_max);
        let (node, name) = (self.node.clone(), table.clone());
        let rows = read(move || {
            let start = behind.map(|key| [key.as_slice(), &[0]].concat());
            let range = ScanRange { start, ..ScanRange::default() };
            let (mut rows, mut bytes): (Vec<Row>, usize) = (Vec::new(), 0);
            for row in node.snapshot().scan(&name, &range)? {
                let row = row?;
                bytes += row.key.as_slice().len() + row.body.value().map_or(0, |v| v.len());
                rows.push(row);
                if rows.len() >= rows_max || bytes >= bytes_max {
                    break;
                }
            }
            Ok(rows)
        })
        .await?;
        if let Some(last) = rows.last().map(|row| row.key.clone()) {
            let written = rows.len() as u64;
            self.apply(rows, self.position.clone()).await?;
            self.report.rescans(Some((table, written)));
            // The table may have been found not to do.
            if let Some(of_table) = self.columns.get_mut(table) {
                of_table.filling = Filling::Behind(Some(last));
            }
            return Ok(());
        }
        self.rescan_columns(table).await?;
        let Some(of_table) = self.columns.get_mut(table) else { return Ok(()) };
        let definition = of_table.columns.definition();
        of_table.filling = Filling::Done;
        self.begin(&self.position.clone()).await?;
        self.mysql.execute(own::remember(table, true, &definition, &self.position)).await?;
        self.commit(self.position.clone()).await?;
        self.report.rescans(None);
        tracing::info!(%table, "the table is filled");
        Ok(())
    }
}
