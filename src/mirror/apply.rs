//! One transaction: the fence, rows of many tables, what MySQL refuses of them, the checkpoint.
//!
//! ```text
//! UPDATE _lastword_mirror ... WHERE epoch, heads   nobody else writes; heads go on with the rows
//! DELETE ...                                       tombstones, expired rows
//! INSERT ... ON DUPLICATE KEY UPDATE ...           halved where a row is refused, down to that row
//! DELETE ..., INSERT INTO _lastword_rejected       no older version stays for a row set aside
//! COMMIT
//! ```
//!
//! A statement that MySQL refuses changes nothing, and the transaction goes on: the tables are
//! InnoDB's. Any other error ends the session, and the transaction with it.

use std::{collections::HashSet, sync::Arc};

use tokio::{join, time::Instant};

use super::{
    columns::Columns,
    error::MirrorError,
    mapping::{Dead, Record, Refused, RowsByTable, TableBatch, by_table},
    mysql::{number, text},
    page::{OfColumns, ReadyPage, Sorter},
    parts::Parts,
    session::Session,
    statement::{self, Statement, in_powers_of_two},
    upsert::{Upsert, rows_that_fit},
};
use crate::model::{Heads, Row, TableName};

/// How often a transaction is tried before the session gives way.
const TRIES_MAX: usize = 4;

impl Session<'_> {
    /// Writes rows, and that MySQL stands at `position` with them.
    pub(super) async fn apply(
        &mut self,
        rows: Vec<Row>,
        position: Heads,
    ) -> Result<(), MirrorError> {
        self.apply_after(None, by_table(rows), position).await
    }

    /// The same, after a statement in the same transaction.
    pub(super) async fn apply_after(
        &mut self,
        first: Option<Statement>,
        rows: RowsByTable,
        position: Heads,
    ) -> Result<(), MirrorError> {
        self.apply_page(first, ReadyPage::of(rows), position).await
    }

    /// The same, of rows some of which are sorted already.
    pub(super) async fn apply_page(
        &mut self,
        first: Option<Statement>,
        page: ReadyPage,
        position: Heads,
    ) -> Result<(), MirrorError> {
        let (of_columns, of_keys): (Vec<_>, Vec<_>) =
            page.tables().cloned().partition(|table| self.config.columns_of(table).is_some());
        self.ensure_tables(&of_keys).await?;
        self.ensure_columns(&of_columns).await?;
        let mut batches = Batches { first, ..Batches::default() };
        (batches.of_keys, batches.of_columns) = page.sorted(&self.sorter());
        batches.of_keys.retain(|(table, _)| self.tables.contains_key(table));
        // One that waits is filled anew.
        batches.of_columns.retain(|(table, ..)| self.columns.contains_key(table));

        let totals = self.write(&mut batches, &position).await?;
        self.position = position;
        self.last_used = Instant::now();
        self.report.stands_at(&self.position);
        self.report.applied(totals.applied);
        if totals.rejected > 0 {
            self.upkeep.put_retry_off();
        }
        let freed = |(_, columns, _): &(_, Arc<Columns>, _)| !columns.unique.is_empty();
        if self.rejected_rows > 0 && batches.of_columns.iter().any(freed) {
            self.upkeep.retry_soon();
        }
        if totals.rejected + totals.unrejected > 0 {
            let standing = self.rejected_rows + totals.rejected;
            self.rejected_rows = standing.saturating_sub(totals.unrejected);
            self.report.rejected(self.rejected_rows, totals.last_reason);
        }
        Ok(())
    }

    /// One transaction; tried again where another session was in its way, and without a table that turns
    /// out not to do.
    async fn write(
        &mut self,
        batches: &mut Batches,
        position: &Heads,
    ) -> Result<Totals, MirrorError> {
        let mut tries_left = TRIES_MAX;
        loop {
            let (table, error) = match self.try_write(batches, position, tries_left == 1).await {
                Ok(totals) => return Ok(totals),
                Err(failed) => failed,
            };
            let waits = table.filter(|_| error.concerns_table());
            if waits.is_none() && (tries_left == 1 || !error.may_pass_at_once()) {
                return Err(error);
            }
            self.mysql.execute("ROLLBACK").await?;
            match waits {
                Some(table) => {
                    batches.of_columns.retain(|(name, ..)| *name != table);
                    self.pause(&table, format!("table {table}: {error}")).await?;
                }
                None => tries_left -= 1,
            }
        }
    }

    /// Gives with an error at which column table it was.
    async fn try_write(
        &mut self,
        batches: &Batches,
        position: &Heads,
        is_last_try: bool,
    ) -> Result<Totals, (Option<TableName>, MirrorError)> {
        let nowhere = |error| (None, error);
        self.begin(position).await.map_err(nowhere)?;
        if let Some(first) = &batches.first {
            self.mysql.execute(first.clone()).await.map_err(nowhere)?;
        }
        let mut totals = Totals::default();
        for (table, batch) in &batches.of_keys {
            self.write_table(table, batch, &mut totals).await.map_err(nowhere)?;
        }
        for (table, columns, batch) in &batches.of_columns {
            self.write_columns(table, columns, batch, is_last_try, &mut totals)
                .await
                .map_err(|error| (Some(table.clone()), error))?;
        }
        self.mysql.execute("COMMIT").await.map_err(nowhere)?;
        Ok(totals)
    }

    /// Begins a transaction that takes MySQL from where it stands to `position`.
    pub(super) async fn begin(&mut self, position: &Heads) -> Result<(), MirrorError> {
        self.mysql.execute("START TRANSACTION").await?;
        let now_ms = self.node.now_ms();
        let fence = statement::fence(self.epoch, &self.position, position, now_ms);
        match self.mysql.execute(fence).await? {
            1 => Ok(()),
            _ => Err(MirrorError::Fenced),
        }
    }

    /// Ends it.
    pub(super) async fn commit(&mut self, position: Heads) -> Result<(), MirrorError> {
        self.mysql.execute("COMMIT").await?;
        self.position = position;
        self.last_used = Instant::now();
        self.report.stands_at(&self.position);
        Ok(())
    }

    /// What sorts rows for the tables as they are known now.
    pub(super) fn sorter(&self) -> Sorter {
        let shapes = self.tables.iter().map(|(name, table)| (name.clone(), table.shape));
        let columns = self.columns.iter();
        Sorter {
            shapes: shapes.collect(),
            columns: columns.map(|(name, table)| (name.clone(), table.columns.clone())).collect(),
            now_ms: self.node.now_ms(),
            statement_bytes_max: self.mysql.statement_bytes_max(),
        }
    }

    async fn write_table(
        &mut self,
        table: &TableName,
        batch: &TableBatch,
        totals: &mut Totals,
    ) -> Result<(), MirrorError> {
        let exact = self.tables[table].shape.key().is_exact;
        let TableBatch { records, dead, refused } = batch;
        let rows = records.len() + dead.len() + refused.len();
        let mut refused = refused.clone();
        self.delete(table, exact, dead).await?;
        self.insert(table, exact, records, &mut refused).await?;
        if !exact {
            self.find_collisions(table, records, &mut refused).await?;
        }
        let superseded: Vec<_> = refused.iter().map(Refused::dead).collect();
        self.delete(table, exact, &superseded).await?;

        if self.rejected_rows > 0 {
            // Those that were refused once more are added again below.
            let written = records.iter().map(|record| &record.key);
            let keys: Vec<_> = written
                .chain(dead.iter().map(|dead| &dead.key))
                .chain(refused.iter().map(|refused| &refused.key))
                .collect::<HashSet<_>>()
                .into_iter()
                .collect();
            for some in in_powers_of_two(&keys) {
                totals.unrejected += self.mysql.execute(statement::unreject(table, some)).await?;
            }
        }
        let now_ms = self.node.now_ms();
        for some in in_powers_of_two(&refused) {
            self.mysql.execute(statement::reject(table, some, now_ms)).await?;
        }
        for Refused { key, reason, .. } in &refused {
            tracing::debug!(%table, ?key, reason, "set a row aside");
        }

        let expiry = &mut self.tables.get_mut(table).expect("it was ensured").expiry;
        for ms in records.iter().filter_map(|record| record.expires_at_ms) {
            expiry.note(ms);
        }
        totals.count(rows, refused);
        Ok(())
    }

    /// Deletes what is dead; gives how many rows stood there.
    pub(super) async fn delete(
        &mut self,
        table: &TableName,
        exact: bool,
        dead: &[Dead],
    ) -> Result<u64, MirrorError> {
        let mut rows = 0;
        for some in in_powers_of_two(dead) {
            rows += self.mysql.execute(statement::delete(table, exact, some)).await?;
        }
        Ok(rows)
    }

    /// Inserts or updates rows; those that MySQL refuses one by one are added to `refused`.
    async fn insert(
        &mut self,
        table: &TableName,
        exact: bool,
        records: &[Record],
        refused: &mut Vec<Refused>,
    ) -> Result<(), MirrorError> {
        let (in_bulk, bytes_max) = (self.mysql.takes_bulk(), self.mysql.statement_bytes_max());
        let upsert = Upsert { table, exact, overwrites: self.overwrites };
        let fit = |records: &[Record]| rows_that_fit(records, in_bulk, bytes_max);
        let call = |records: &[Record]| match in_bulk && records.len() > 1 {
            true => upsert.bulk(records).into(),
            false => upsert.all(records).into(),
        };
        let mut parts = Parts::new(records, fit, call);
        while let Some((now, call)) = parts.next() {
            let (executed, ()) = join!(biased; self.mysql.execute(call), parts.make_next());
            let Err(error) = executed else { continue };
            let Some(reason) = error.refused_row() else { return Err(error) };
            match now {
                [record] => refused.push(record.refused(reason)),
                _ => parts.halve(now),
            }
        }
        Ok(())
    }

    /// In a column where different keys may be equal to MySQL, one key's row stands for both.
    async fn find_collisions(
        &mut self,
        table: &TableName,
        records: &[Record],
        refused: &mut Vec<Refused>,
    ) -> Result<(), MirrorError> {
        let done: HashSet<_> = refused.iter().map(|refused| refused.key.clone()).collect();
        let records: Vec<_> = records.iter().filter(|record| !done.contains(&record.key)).collect();
        for some in in_powers_of_two(&records) {
            let keys: Vec<_> = some.iter().map(|record| &record.key).collect();
            let rows = self.mysql.rows(statement::standing(table, &keys)).await?;
            let standing: HashSet<_> =
                rows.iter().filter_map(|row| row.first()?.as_deref()).collect();
            for record in some.iter().filter(|r| !standing.contains(r.key.as_slice())) {
                refused.push(
                    record.refused(
                        "k is equal to another key under the column's collation: make it VARBINARY"
                            .to_owned(),
                    ),
                );
            }
        }
        Ok(())
    }

    /// How many rows are set aside, as MySQL says.
    pub(super) async fn count_rejected(&mut self) -> Result<(), MirrorError> {
        let rows = self.mysql.rows(statement::rejected_summary()).await?;
        let (count, reason) = match rows.first().map(Vec::as_slice) {
            Some([count, reason]) => (number(count).unwrap_or_default(), text(reason)),
            _ => (0, String::new()),
        };
        self.rejected_rows = count;
        self.report.rejected(count, Some(reason));
        Ok(())
    }
}

/// What one transaction writes.
#[derive(Default)]
struct Batches {
    /// Comes before all rows.
    first: Option<Statement>,
    of_keys: Vec<(TableName, TableBatch)>,
    of_columns: Vec<OfColumns>,
}

/// What became of the rows of one transaction.
#[derive(Default)]
pub(super) struct Totals {
    applied: u64,
    rejected: u64,
    /// Rows that were set aside before, and are no longer.
    pub(super) unrejected: u64,
    last_reason: Option<String>,
}

impl Totals {
    /// So many rows were dealt with, these of them set aside.
    pub(super) fn count(&mut self, rows: usize, mut refused: Vec<Refused>) {
        self.applied += (rows - refused.len()) as u64;
        self.rejected += refused.len() as u64;
        if let Some(last) = refused.pop() {
            self.last_reason = Some(last.reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_powers_of_two_and_lose_nothing() {
        let all: Vec<_> = (0..700).collect();
        let sizes: Vec<_> = in_powers_of_two(&all).map(<[i32]>::len).collect();
        assert_eq!(sizes, [256, 256, 128, 32, 16, 8, 4]);
        assert_eq!(in_powers_of_two(&all).flatten().count(), 700);
        assert_eq!(in_powers_of_two::<u8>(&[]).count(), 0);
    }
}
