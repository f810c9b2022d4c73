//! Rows into a column table, within a transaction.
//!
//! ```text
//! SELECT key ... FOR UPDATE                 which of them stand; they stay so until the commit
//! what the application has in hand          is passed over: it comes back as a newer write
//! DELETE ...                                tombstones, expired rows, what is set aside
//! INSERT ... ON DUPLICATE KEY UPDATE ...    those that stand
//! INSERT ...                                those that do not
//! ```
//!
//! The table has no column that tells a row's version. None is needed: transactions of a mirror follow each
//! other in one line, which the fence keeps, and each brings rows of a later moment of the store.
//!
//! Rows are told apart by their whole key, byte by byte: under a collation that folds, a row that stands for
//! another key of the same letters is neither changed nor deleted.

use std::collections::HashSet;

use super::{
    apply::{Totals, in_powers_of_two},
    columns::{ColumnBatch, ColumnRecord, Columns, Place, own, rows_that_fit},
    error::MirrorError,
    mapping::Refused,
    session::{Expiry, Session},
    statement,
};
use crate::model::{Key, TableName};

impl Session<'_> {
    /// Writes the rows of one table. `is_last_try`: what another session was faster with is set aside, and
    /// not an error after which the transaction is tried again.
    pub(super) async fn write_columns(
        &mut self,
        table: &TableName,
        columns: &Columns,
        batch: &ColumnBatch,
        is_last_try: bool,
        totals: &mut Totals,
    ) -> Result<(), MirrorError> {
        let places: Vec<_> = batch.places().collect();
        let standing = self.lock(columns, &places).await?;
        let passed_over = self.passed_over(table, columns, &places).await?;
        let is_ours = |place: &Place| !passed_over.contains(&place.key);
        let stands = |place: &Place| standing.contains(&place.key);

        let of_refused = batch.refused.iter().filter_map(|(_, place)| place.as_ref());
        let gone: Vec<_> = batch
            .dead
            .iter()
            .chain(of_refused)
            .filter(|place| is_ours(place) && stands(place))
            .collect();
        self.delete_places(columns, &gone).await?;

        let records = || batch.records.iter().filter(|record| is_ours(&record.place));
        let (there, new): (Vec<_>, Vec<_>) = records().partition(|record| stands(&record.place));
        let mut write = Write { is_last_try, set_aside: Vec::new() };
        self.write_records(columns, Statements::Update, &there, &mut write).await?;
        // Nothing older stays for them, and they may only have been in each other's way.
        let out: Vec<_> = write.set_aside.iter().map(|(record, _)| &record.place).collect();
        self.delete_places(columns, &out).await?;
        self.write_records(columns, Statements::Insert, &new, &mut write).await?;
        if !columns.unique.is_empty() && !write.set_aside.is_empty() {
            let again: Vec<_> = write.set_aside.drain(..).map(|(record, _)| record).collect();
            self.write_records(columns, Statements::Insert, &again, &mut write).await?;
        }

        let refused = batch
            .refused
            .iter()
            .filter(|(_, place)| place.as_ref().is_none_or(is_ours))
            .map(|(refused, _)| refused.clone());
        let mut refused: Vec<Refused> = refused.collect();
        refused.extend(write.set_aside.into_iter().map(|(record, reason)| record.refused(reason)));
        let keys: Vec<_> = batch.keys().filter(|key| !passed_over.contains(*key)).collect();
        self.set_aside(table, &keys, &refused, totals).await?;

        let out: HashSet<_> = refused.iter().map(|refused| &refused.key).collect();
        let expiring: Vec<_> = records()
            .filter(|record| !out.contains(&record.place.key))
            .filter_map(|record| Some((&record.place.key, record.expires_at_ms?)))
            .collect();
        self.note_expiries(table, &keys, &expiring).await?;
        totals.count(keys.len(), refused);
        Ok(())
    }

    /// Deletes rows, those aside that an application has in hand; gives how many stood there.
    pub(super) async fn delete_columns(
        &mut self,
        table: &TableName,
        columns: &Columns,
        places: &[Place],
    ) -> Result<u64, MirrorError> {
        let places: Vec<_> = places.iter().collect();
        let standing = self.lock(columns, &places).await?;
        let passed_over = self.passed_over(table, columns, &places).await?;
        let gone: Vec<_> = places
            .into_iter()
            .filter(|place| standing.contains(&place.key) && !passed_over.contains(&place.key))
            .collect();
        self.delete_places(columns, &gone).await
    }

    /// Locks these rows, as far as they stand; gives the keys of those.
    async fn lock(
        &mut self,
        columns: &Columns,
        places: &[&Place],
    ) -> Result<HashSet<Key>, MirrorError> {
        let mut standing = HashSet::new();
        for some in in_powers_of_two(places) {
            let keys: Vec<_> = some.iter().map(|place| &place.params[..]).collect();
            let rows = self.mysql.rows(columns.lock(&keys)).await?;
            standing.extend(rows.iter().filter_map(|row| columns.key_of(row).ok()));
        }
        Ok(standing)
    }

    /// The keys among these, whose rows are locked, of which an application's write is not in the store yet.
    async fn passed_over(
        &mut self,
        _table: &TableName,
        _columns: &Columns,
        _places: &[&Place],
    ) -> Result<HashSet<Key>, MirrorError> {
        Ok(HashSet::new())
    }

    async fn delete_places(
        &mut self,
        columns: &Columns,
        places: &[&Place],
    ) -> Result<u64, MirrorError> {
        let mut rows = 0;
        for some in in_powers_of_two(places) {
            let keys: Vec<_> = some.iter().map(|place| &place.params[..]).collect();
            rows += self.mysql.execute(columns.delete(&keys)).await?;
        }
        Ok(rows)
    }

    /// Writes rows, halved where one is refused, down to that row.
    async fn write_records<'b>(
        &mut self,
        columns: &Columns,
        statements: Statements,
        records: &[&'b ColumnRecord],
        write: &mut Write<'b>,
    ) -> Result<(), MirrorError> {
        let bytes_max = self.mysql.statement_bytes_max();
        let mut waiting = vec![records];
        while let Some(records) = waiting.pop() {
            if records.is_empty() {
                continue;
            }
            let (now, later) = records.split_at(rows_that_fit(records, bytes_max));
            waiting.push(later);
            let statement = match statements {
                Statements::Update => columns.update(now),
                Statements::Insert => columns.insert(now),
            };
            let Err(error) = self.mysql.execute(statement).await else { continue };
            let Some(reason) = error.refused_row() else { return Err(error) };
            match now {
                [_] if error.is_taken_key() && !write.is_last_try => return Err(error),
                [record] => write.set_aside.push((record, reason)),
                _ => {
                    let (first, second) = now.split_at(now.len() / 2);
                    waiting.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    /// Notes which rows of the table expire now, and that the others of `keys` do not.
    async fn note_expiries(
        &mut self,
        table: &TableName,
        keys: &[&Key],
        expiring: &[(&Key, u64)],
    ) -> Result<(), MirrorError> {
        let Some(of_table) = self.columns.get_mut(table) else { return Ok(()) };
        let some_were_noted = of_table.expiry != Expiry::Never;
        for &(_, ms) in expiring {
            of_table.expiry.note(ms);
        }
        if some_were_noted {
            for some in in_powers_of_two(keys) {
                self.mysql.execute(own::forget_expiries(table, some)).await?;
            }
        }
        for some in in_powers_of_two(expiring) {
            self.mysql.execute(own::note_expiries(table, some)).await?;
        }
        Ok(())
    }

    /// Of `keys` these are set aside, and none of the others.
    async fn set_aside(
        &mut self,
        table: &TableName,
        keys: &[&Key],
        refused: &[Refused],
        totals: &mut Totals,
    ) -> Result<(), MirrorError> {
        if self.rejected_rows > 0 {
            for some in in_powers_of_two(keys) {
                totals.unrejected += self.mysql.execute(statement::unreject(table, some)).await?;
            }
        }
        let now_ms = self.node.now_ms();
        for some in in_powers_of_two(refused) {
            self.mysql.execute(statement::reject(table, some, now_ms)).await?;
        }
        for Refused { key, reason, .. } in refused {
            tracing::debug!(%table, ?key, reason, "set a row aside");
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Statements {
    /// The rows stand.
    Update,
    /// They do not.
    Insert,
}

/// What became of rows so far.
struct Write<'b> {
    is_last_try: bool,
    set_aside: Vec<(&'b ColumnRecord, String)>,
}
