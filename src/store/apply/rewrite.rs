//! Rows that are written once more: the right values, where two stores were found to differ.
//!
//! Each is an ordinary write with a stamp of its own, so it spreads to every site and mirror. It is only
//! made where the very body still stands that was compared: whatever came meanwhile is newer, and stays.

use super::{Transaction, codec};
use crate::store::{RefusedError, Rewrite, RewriteBatch, RewriteReport, StoreError, tables::Space};

impl Transaction<'_> {
    pub(in crate::store) fn rewrite_all(
        &mut self,
        batch: &RewriteBatch,
    ) -> Result<Result<RewriteReport, RefusedError>, StoreError> {
        if let Err(refused) = self.check_writes(batch.drift_bound_ms) {
            return Ok(Err(refused));
        }
        let mut report = RewriteReport::default();
        for row in &batch.rows {
            if self.rewrite_row(row)? {
                report.written += 1;
            } else {
                report.changed += 1;
            }
        }
        Ok(Ok(report))
    }

    /// Whether the row was written.
    fn rewrite_row(&mut self, row: &Rewrite) -> Result<bool, StoreError> {
        let standing = match self.names.id(&row.table) {
            Some(id) => self.batch.get(Space::Rows, &codec::place(id, row.key.as_slice()))?,
            None => None,
        };
        if standing != row.standing {
            return Ok(false);
        }
        let id = self.table_id(&row.table);
        self.write_row(id, &row.table, &row.key, row.value.as_deref(), row.expires_at_ms)?;
        Ok(true)
    }
}
