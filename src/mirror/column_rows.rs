//! Rows into a column table, within a transaction. Where nobody else writes there, and each row can collide
//! with none but that of its own key:
//!
//! ```text
//! DELETE ...                                tombstones, expired rows, what is set aside
//! INSERT ... ON DUPLICATE KEY UPDATE ...    all others
//! ```
//!
//! In any other:
//!
//! ```text
//! SELECT key ... FOR UPDATE                 which of them stand; they stay so until the commit
//! what an application has in hand           is passed over: it comes back as a newer write (in_hand.rs)
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

use tokio::join;

use super::{
    apply::Totals,
    columns::{ColumnBatch, ColumnRecord, Columns, Place, own, rows_that_fit},
    error::MirrorError,
    mapping::Refused,
    mysql::text,
    parts::Parts,
    session::{Expiry, Session},
    statement::{self, in_powers_of_two},
    table_setting::Triggers,
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
        let is_captured = self.columns.get(table).is_some_and(|of_table| of_table.is_captured);
        if !is_captured && columns.is_told_by_key() {
            // One of them, so that the table is in use.
            self.lock(columns, &places[..places.len().min(1)]).await?;
            self.no_trigger_fires(table, &places).await?;
            return self.write_over(table, columns, batch, totals).await;
        }
        let standing = self.lock(columns, &places).await?;
        self.no_trigger_fires(table, &places).await?;
        // A row of another key stands there that is the same key to MySQL.
        let asked: HashSet<_> = places.iter().map(|place| &place.key).collect();
        let folds = standing.iter().any(|key| !asked.contains(key));
        let now;
        let batch = match self.of_application(table, columns, batch, &standing).await? {
            Some(as_it_stands) => {
                now = as_it_stands;
                &now
            }
            None => batch,
        };
        let stands = |place: &Place| standing.contains(&place.key);

        let of_refused = batch.refused.iter().filter_map(|(_, place)| place.as_ref());
        let gone: Vec<_> =
            batch.dead.iter().chain(of_refused).filter(|place| stands(place)).collect();
        self.delete_places(columns, &gone).await?;

        let (there, new): (Vec<_>, Vec<_>) =
            batch.records.iter().partition(|record| stands(&record.place));
        let mut write = Write { is_last_try: is_last_try || folds, set_aside: Vec::new() };
        self.write_records(columns, Statements::Update, &there, &mut write).await?;
        // Nothing older stays for them, and they may only have been in each other's way.
        let out: Vec<_> = write.set_aside.iter().map(|(record, _)| &record.place).collect();
        self.delete_places(columns, &out).await?;
        self.write_records(columns, Statements::Insert, &new, &mut write).await?;
        if !columns.unique.is_empty() && !write.set_aside.is_empty() {
            let again: Vec<_> = write.set_aside.drain(..).map(|(record, _)| record).collect();
            self.write_records(columns, Statements::Insert, &again, &mut write).await?;
        }

        let mut refused: Vec<Refused> =
            batch.refused.iter().map(|(refused, _)| refused.clone()).collect();
        let losers = self.contest(table, columns, write.set_aside, &mut refused).await?;
        let keys: Vec<_> = batch.keys().chain(&losers).collect();
        self.account(table, batch, &keys, refused, totals).await
    }

    /// Writes rows whatever stands under their keys.
    async fn write_over(
        &mut self,
        table: &TableName,
        columns: &Columns,
        batch: &ColumnBatch,
        totals: &mut Totals,
    ) -> Result<(), MirrorError> {
        let of_refused = batch.refused.iter().filter_map(|(_, place)| place.as_ref());
        let gone: Vec<_> = batch.dead.iter().chain(of_refused).collect();
        self.delete_places(columns, &gone).await?;
        let records: Vec<_> = batch.records.iter().collect();
        let mut write = Write { is_last_try: true, set_aside: Vec::new() };
        self.write_records(columns, Statements::Update, &records, &mut write).await?;
        // Nothing older stays for them.
        let out: Vec<_> = write.set_aside.iter().map(|(record, _)| &record.place).collect();
        self.delete_places(columns, &out).await?;

        let of_batch = batch.refused.iter().map(|(refused, _)| refused.clone());
        let of_mysql = write.set_aside.into_iter().map(|(record, reason)| record.refused(reason));
        let refused = of_batch.chain(of_mysql).collect();
        let keys: Vec<_> = batch.keys().collect();
        self.account(table, batch, &keys, refused, totals).await
    }

    /// Takes note of what became of `keys`: rows set aside, rows that expire.
    async fn account(
        &mut self,
        table: &TableName,
        batch: &ColumnBatch,
        keys: &[&Key],
        refused: Vec<Refused>,
        totals: &mut Totals,
    ) -> Result<(), MirrorError> {
        self.set_aside(table, keys, &refused, totals).await?;
        let out: HashSet<_> = refused.iter().map(|refused| &refused.key).collect();
        let expiring: Vec<_> = batch
            .records
            .iter()
            .filter(|record| !out.contains(&record.place.key))
            .filter_map(|record| Some((&record.place.key, record.expires_at_ms?)))
            .collect();
        self.note_expiries(table, keys, &expiring).await?;
        totals.count(keys.len(), refused);
        Ok(())
    }

    /// Deletes rows that are dead, those aside that an application has in hand; gives how many stood there.
    pub(super) async fn delete_columns(
        &mut self,
        table: &TableName,
        columns: &Columns,
        places: Vec<Place>,
    ) -> Result<u64, MirrorError> {
        let batch = ColumnBatch { dead: places, ..ColumnBatch::default() };
        let places: Vec<_> = batch.dead.iter().collect();
        let standing = self.lock(columns, &places).await?;
        self.no_trigger_fires(table, &places).await?;
        let as_it_stands = self.of_application(table, columns, &batch, &standing).await?;
        let dead = as_it_stands.as_ref().unwrap_or(&batch).dead.iter();
        let gone: Vec<_> = dead.filter(|place| standing.contains(&place.key)).collect();
        self.delete_places(columns, &gone).await
    }

    /// Nothing of an application's fires for what is written next. Whoever would make a trigger waits for this
    /// transaction, as it has the table in use.
    async fn no_trigger_fires(
        &mut self,
        table: &TableName,
        places: &[&Place],
    ) -> Result<(), MirrorError> {
        let setting = self.config.columns_of(table);
        if places.is_empty() || setting.is_none_or(|set| set.triggers == Triggers::Accept) {
            return Ok(());
        }
        let found = self.mysql.rows(own::unguarded(table.as_str())).await?;
        match found.first().and_then(|row| row.first()) {
            None => Ok(()),
            Some(name) => Err(MirrorError::Unguarded { trigger: text(name) }),
        }
    }

    /// Locks these rows, as far as they stand; gives the keys of those.
    pub(super) async fn lock(
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

    pub(super) async fn delete_places(
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
        let fit = |records: &[&ColumnRecord]| rows_that_fit(records, bytes_max);
        let call = |records: &[&ColumnRecord]| match statements {
            Statements::Update => columns.update(records).into(),
            Statements::Insert => columns.insert(records).into(),
        };
        let mut parts = Parts::new(records, fit, call);
        while let Some((now, call)) = parts.next() {
            let (executed, ()) = join!(biased; self.mysql.execute(call), parts.make_next());
            let Err(error) = executed else { continue };
            let Some(reason) = error.refused_row() else { return Err(error) };
            match now {
                [_] if error.is_taken_key() && !write.is_last_try => return Err(error),
                [record] => write.set_aside.push((record, reason)),
                _ => parts.halve(now),
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
