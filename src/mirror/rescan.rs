//! The rescan: rows that died without MySQL being told are taken away there.
//!
//! Where MySQL stands below the store's floor, tombstones that it was never given may be gone. So all
//! its keys are looked up in the store, some thousand at a time: while one lot is looked up, the next
//! is read. What the store has not, or has dead, is deleted. Then the session goes on from where MySQL
//! stands, as ever: rows that live are above, or there.
//!
//! ```text
//! floor --> keys of a table, in MySQL's order --> Snapshot::get --> DELETE, fenced --> next keys ...
//! ```
//!
//! **Invariant.** The position stays where it is, below the floor, until the last table is through: a
//! session that breaks leaves the next one to begin with the rescan again.
//!
//! Each lot has a snapshot of its own, so that none is held for long. A key that is missing there and
//! written later comes with the changes; one that is there and goes later, without a tombstone, lifts
//! the floor, and the follower asks for another rescan.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{
    columns::{Columns, Place},
    error::MirrorError,
    mapping::Dead,
    mysql::{Cell, number},
    session::{Session, read},
    statement::{self, Param},
};
use crate::{
    model::{Heads, Hlc, Key, Origin, TableName, Version},
    node::Node,
    store::StoreError,
};

impl Session<'_> {
    /// Deletes the rows of every mirrored table that the store has not, or has dead. Gives up to where
    /// MySQL holds nothing that died.
    pub(super) async fn rescan(&mut self) -> Result<Heads, MirrorError> {
        // A purge under way may go by a place where MySQL stood before: from here on none does.
        drop(self.node.reconcile_turn().await);
        let floor = self.node.snapshot().floor().clone();
        let mut tables: Vec<_> = self.known.iter().cloned().collect();
        tables.sort_unstable();
        self.ensure_tables(&tables).await?;
        let (mut rows, mut rows_deleted) = (0, 0);
        for table in &tables {
            let (looked_at, deleted) = self.rescan_table(table).await?;
            rows += looked_at;
            rows_deleted += deleted;
        }
        let mut tables: Vec<_> = self.columns.keys().cloned().collect();
        tables.sort_unstable();
        for table in &tables {
            let (looked_at, deleted) = self.rescan_columns(table).await?;
            rows += looked_at;
            rows_deleted += deleted;
        }
        self.report.rescans(None);
        if rows > 0 {
            tracing::info!(
                rows,
                rows_deleted,
                "rescanned the MySQL tables: rows may have died of which nobody could tell"
            );
        }
        // Rows set aside may have died, too.
        self.upkeep.retry_now();
        Ok(floor)
    }

    /// Gives how many rows the table had, and how many of them were deleted.
    async fn rescan_table(&mut self, table: &TableName) -> Result<(u64, u64), MirrorError> {
        let (mut rows, mut deleted) = (0, 0);
        let mut next = self.standing_after(table, None).await?;
        while let Some(last) = next.last {
            let (node, name) = (self.node.clone(), table.clone());
            rows += next.rows;
            let gone = spawn_blocking(move || gone(&node, &name, next.standing));
            next = self.standing_after(table, Some(&last)).await?;
            let gone = gone.await.expect("reading the store does not panic")?;
            deleted += self.delete_in_one(table, &gone).await?;
            self.report.rescans(Some((table, rows)));
            self.keep_up(None).await?;
            self.check_orders()?;
        }
        Ok((rows, deleted))
    }

    /// Deletes those of these rows that the store has not, or has dead; gives how many.
    pub(super) async fn delete_gone(
        &mut self,
        table: &TableName,
        standing: Vec<Dead>,
    ) -> Result<u64, MirrorError> {
        let (node, name) = (self.node.clone(), table.clone());
        let gone = read(move || gone(&node, &name, standing)).await?;
        self.delete_in_one(table, &gone).await
    }

    /// Deletes rows in one transaction; gives how many stood there.
    async fn delete_in_one(
        &mut self,
        table: &TableName,
        gone: &[Dead],
    ) -> Result<u64, MirrorError> {
        if gone.is_empty() {
            return Ok(0);
        }
        self.begin(&self.position.clone()).await?;
        let exact = self.tables[table].shape.key().is_exact;
        let deleted = self.delete(table, exact, gone).await?;
        self.commit(self.position.clone()).await?;
        Ok(deleted)
    }

    /// The same of a column table.
    pub(super) async fn rescan_columns(
        &mut self,
        table: &TableName,
    ) -> Result<(u64, u64), MirrorError> {
        let (mut rows, mut deleted) = (0, 0);
        let mut last: Option<Vec<Param>> = None;
        while let Some(of_table) = self.columns.get(table) {
            let (columns, is_captured) = (Arc::clone(&of_table.columns), of_table.is_captured);
            let page = columns.keys_after(last.as_deref(), self.config.rescan_rows_max);
            let page = self.mysql.rows(page).await?;
            rows += page.len() as u64;
            // What no store could have written is someone else's.
            let places: Vec<_> = page.iter().filter_map(|row| place_of(&columns, row)).collect();
            match page.last().map(|row| columns.params_of(row)) {
                None => break,
                Some(params) => last = Some(params),
            }
            let (node, name) = (self.node.clone(), table.clone());
            let gone = read(move || gone_places(&node, &name, places)).await?;
            if !gone.is_empty() && is_captured && !self.notes_writes(table, &columns).await? {
                let reason = "a trigger of lastword's is gone: rows that the store has not may be \
                              an application's";
                self.pause(table, format!("table {table}: {reason}")).await?;
                break;
            }
            if !gone.is_empty() {
                self.begin(&self.position.clone()).await?;
                deleted += self.delete_columns(table, &columns, gone).await?;
                self.commit(self.position.clone()).await?;
            }
            self.report.rescans(Some((table, rows)));
            self.keep_up(None).await?;
            self.check_orders()?;
        }
        Ok((rows, deleted))
    }

    pub(super) async fn standing_after(
        &mut self,
        table: &TableName,
        after: Option<&[u8]>,
    ) -> Result<Lot, MirrorError> {
        let keys = statement::keys_after(table, after, self.config.rescan_rows_max);
        let rows = self.mysql.rows(keys).await?;
        Ok(Lot {
            rows: rows.len() as u64,
            last: rows.last().and_then(|row| row.first().cloned().flatten()),
            // What no store could have written is someone else's.
            standing: rows.iter().filter_map(|row| standing(row)).collect(),
        })
    }
}

/// Some rows of a MySQL table.
pub(super) struct Lot {
    rows: u64,
    /// The key behind which the next lot begins; `None`: this one is empty.
    pub(super) last: Option<Vec<u8>>,
    /// What stands there: this goes where it is dead, and nothing that is younger.
    pub(super) standing: Vec<Dead>,
}

fn standing(row: &[Cell]) -> Option<Dead> {
    let [key, hlc, origin] = row else { return None };
    Some(Dead {
        key: Key::new(key.clone()?).ok()?,
        version: Version {
            hlc: Hlc::from_bits(number(hlc)?),
            origin: Origin::from_bytes(origin.as_deref()?.try_into().ok()?),
        },
    })
}

fn place_of(columns: &Columns, row: &[Cell]) -> Option<Place> {
    let key = columns.key_of(row).ok()?;
    let params = columns.key_params(&key).ok()?;
    Some(Place { key, params, version: Version::default() })
}

fn gone_places(
    node: &Node,
    table: &TableName,
    places: Vec<Place>,
) -> Result<Vec<Place>, StoreError> {
    let (snapshot, now_ms) = (node.snapshot(), node.now_ms());
    let mut gone = Vec::new();
    for place in places {
        if snapshot.get(table, &place.key)?.is_none_or(|body| !body.is_live(now_ms)) {
            gone.push(place);
        }
    }
    Ok(gone)
}

/// Those that the store has not, or has dead. They come in the order of MySQL's collation, which need
/// not be the store's: each is looked up by itself.
fn gone(node: &Node, table: &TableName, standing: Vec<Dead>) -> Result<Vec<Dead>, StoreError> {
    let (snapshot, now_ms) = (node.snapshot(), node.now_ms());
    let mut gone = Vec::new();
    for one in standing {
        if snapshot.get(table, &one.key)?.is_none_or(|body| !body.is_live(now_ms)) {
            gone.push(one);
        }
    }
    Ok(gone)
}
