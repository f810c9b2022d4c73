//! The rebuild: tables filled anew from the store, while writes go on.
//!
//! ```text
//! order --> rows of a table, as the store has them now --> written over whatever stands there
//!             `-- at its end: keys of the table in MySQL that the store has not --> DELETE --> next table
//! ```
//!
//! Part by part, and after each the changes that came meanwhile: MySQL falls no further behind than by one
//! part. No row that is current is away at any instant: rows are written over, and only what the store has
//! not, or has dead, is deleted.
//!
//! **Invariant.** A part is read from a snapshot that is taken after everything that MySQL was given. So
//! it may go over what stands there whatever version that bears, somebody's own included, and no older
//! version comes over a newer one.
//!
//! A [column table](super::column_tables) is declared to lack rows, in `_lastword_columns` too, and filled
//! as such: rows bear no version there, so filling goes over whatever stands anyway.
//!
//! The order stands until its last table is through: a session that breaks leaves the next one to begin
//! again.

use std::collections::VecDeque;

use super::{
    column_tables::Filling,
    columns::own,
    error::MirrorError,
    session::{Session, read},
};
use crate::{
    model::{Row, TableName},
    node::Rescan,
    store::ScanRange,
};

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    /// The order that is carried out; `None`: there is none.
    number: Option<u64>,
    tables: VecDeque<TableName>,
    stage: Stage,
    /// Rows of the first table that were written or looked at.
    rows: u64,
    rows_deleted: u64,
}

/// What is done with the first table.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    /// The store's rows are written, from this key on.
    Writing(Vec<u8>),
    /// MySQL's rows behind this key are looked up in the store.
    Clearing(Option<Vec<u8>>),
    /// It is a column table, which is [filled](super::fill) as one that lacks rows.
    Filling,
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Writing(Vec::new())
    }
}

impl Rebuild {
    /// Whether there is a part to do at once.
    pub(super) fn is_under_way(&self) -> bool {
        self.number.is_some()
    }

    fn next_table(&mut self) -> Stage {
        self.tables.pop_front();
        self.rows = 0;
        Stage::default()
    }
}

impl Session<'_> {
    /// Does one part of what was ordered, if anything was. MySQL stands where the node stood a moment ago.
    pub(super) async fn go_on_rebuilding(
        &mut self,
        rebuild: &mut Rebuild,
    ) -> Result<(), MirrorError> {
        let order = self.orders.borrow().rebuild.clone();
        let Some(order) = order else {
            if rebuild.is_under_way() {
                *rebuild = Rebuild::default();
                self.report.rebuilds(None);
            }
            return Ok(());
        };
        if rebuild.number != Some(order.number) {
            let node = self.node.clone();
            let mut tables: Vec<_> = match &order.tables {
                None => {
                    let mut all = read(move || Ok(node.snapshot().table_names())).await?;
                    all.extend(self.known.iter().chain(self.columns.keys()).cloned());
                    all
                }
                Some(names) => {
                    names.iter().filter_map(|name| TableName::of_client(name).ok()).collect()
                }
            };
            tables.retain(|table| !table.is_system());
            tables.sort_unstable();
            tables.dedup();
            *rebuild =
                Rebuild { number: Some(order.number), tables: tables.into(), ..Rebuild::default() };
        }
        let Some(table) = rebuild.tables.front().cloned() else {
            let node = self.node.clone();
            let done = tokio::task::spawn_blocking(move || node.mirror_rebuilt(order.number)).await;
            let done = done.expect("writing the order book does not panic");
            // It is carried out, and not noted down: the next start does it once more.
            if let Err(error) = done {
                tracing::warn!(%error, "cannot note that the tables are filled anew");
            }
            tracing::info!(rows_deleted = rebuild.rows_deleted, "filled the tables anew");
            *rebuild = Rebuild::default();
            self.report.rebuilds(None);
            return Ok(());
        };
        rebuild.stage = match std::mem::take(&mut rebuild.stage) {
            Stage::Writing(_) if self.config.columns_of(&table).is_some() => {
                self.unfill(&table).await?;
                Stage::Filling
            }
            Stage::Filling => match self.columns.get(&table) {
                Some(of_table) if of_table.filling != Filling::Done => {
                    rebuild.rows = of_table.rows_filled;
                    Stage::Filling
                }
                Some(_) => rebuild.next_table(),
                None => {
                    tracing::warn!(%table, "the table waits: it is filled anew once it will do");
                    rebuild.next_table()
                }
            },
            Stage::Writing(from) => match self.write_part(&table, from, &mut rebuild.rows).await? {
                Some(next) => Stage::Writing(next),
                None => Stage::Clearing(None),
            },
            Stage::Clearing(after) => {
                let (last, deleted) = self.clear_part(&table, after.as_deref()).await?;
                rebuild.rows_deleted += deleted;
                match last {
                    Some(last) => Stage::Clearing(Some(last)),
                    None => rebuild.next_table(),
                }
            }
        };
        self.report.rebuilds(Some(Rescan { table, rows: rebuild.rows }));
        Ok(())
    }

    /// A column table is filled anew from here on, and MySQL knows that it is.
    async fn unfill(&mut self, table: &TableName) -> Result<(), MirrorError> {
        self.ensure_columns(std::slice::from_ref(table)).await?;
        self.mysql.execute(own::unfill(table, &self.position)).await?;
        if let Some(of_table) = self.columns.get_mut(table) {
            of_table.lacks_rows();
        }
        Ok(())
    }

    /// Writes some rows of the store, whatever stands there; gives the key to go on from.
    async fn write_part(
        &mut self,
        table: &TableName,
        from: Vec<u8>,
        rows_passed: &mut u64,
    ) -> Result<Option<Vec<u8>>, MirrorError> {
        let (node, name) = (self.node.clone(), table.clone());
        let (rows_max, bytes_max) = (self.config.batch_rows_max, self.config.batch_bytes_max);
        let (rows, next) = read(move || {
            let range = ScanRange { start: Some(from), ..ScanRange::default() };
            let (mut rows, mut bytes): (Vec<Row>, _) = (Vec::new(), 0);
            for row in node.snapshot().scan(&name, &range)? {
                let row = row?;
                if rows.len() == rows_max || (bytes >= bytes_max && !rows.is_empty()) {
                    return Ok((rows, Some(row.key.as_slice().to_vec())));
                }
                bytes += row.size_bytes();
                rows.push(row);
            }
            Ok((rows, None))
        })
        .await?;
        *rows_passed += rows.len() as u64;
        self.overwrites = true;
        let written = self.apply(rows, self.position.clone()).await;
        self.overwrites = false;
        written.map(|()| next)
    }

    /// Deletes some rows that the store has not; gives the key to go on behind.
    async fn clear_part(
        &mut self,
        table: &TableName,
        after: Option<&[u8]>,
    ) -> Result<(Option<Vec<u8>>, u64), MirrorError> {
        self.ensure_tables(std::slice::from_ref(table)).await?;
        let lot = self.standing_after(table, after).await?;
        let Some(last) = lot.last else { return Ok((None, 0)) };
        let deleted = self.delete_gone(table, lot.standing).await?;
        Ok((Some(last), deleted))
    }
}
