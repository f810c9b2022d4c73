//! Rows that somebody changed behind the mirror's back: the store's are written over them.
//!
//! ```text
//! fence --> DELETE, whatever version stands there --> the store's rows, as ever --> COMMIT
//! ```
//!
//! A row of a column table has no version that could stand in the way: there the store's rows are written as ever, and
//! what it does not have is deleted as if it had died.
//!
//! It is asked for by a comparison ([`super::verify`]) and done by the session, between two of its own
//! transactions, so that only one writes. The rows are read after the last of those, so none is older
//! than what the session wrote; the checkpoint stays where it is.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    error::MirrorError,
    mapping::by_table,
    session::{Session, read},
    statement::{Param, Statement, repeat},
    upkeep::gone,
};
use crate::model::{Key, Row, TableName, Version};

/// How many rows one transaction writes anew.
const ROWS_MAX: usize = 500;

/// Rows to write anew.
#[derive(Debug)]
pub(super) struct Repair {
    pub(super) table: TableName,
    /// As they stand in MySQL: not all need be keys of the store.
    pub(super) keys: Vec<Vec<u8>>,
    /// Hears that it is done; where it is dropped, it is not, or not to the end.
    pub(super) done: oneshot::Sender<()>,
}

impl Session<'_> {
    /// Does what was asked for meanwhile.
    pub(super) async fn repair_asked(&mut self) -> Result<(), MirrorError> {
        while let Ok(repair) = self.repairs.try_recv() {
            self.repair(repair).await?;
        }
        Ok(())
    }

    /// Writes rows anew.
    pub(super) async fn repair(&mut self, repair: Repair) -> Result<(), MirrorError> {
        let Repair { table, mut keys, done } = repair;
        let is_columns = self.config.columns_of(&table).is_some();
        match is_columns {
            true => self.ensure_columns(std::slice::from_ref(&table)).await?,
            false => self.ensure_tables(std::slice::from_ref(&table)).await?,
        }
        while !keys.is_empty() {
            let (node, name, bytes_max) =
                (self.node.clone(), table.clone(), self.config.batch_bytes_max);
            let (portion, rows, rest) = read(move || {
                let (snapshot, mut rows, mut bytes) = (node.snapshot(), Vec::new(), 0);
                let mut taken = 0;
                while taken < keys.len().min(ROWS_MAX) && bytes < bytes_max {
                    let key = Key::new(keys[taken].clone());
                    taken += 1;
                    let Ok(key) = key else { continue };
                    let body = snapshot.get(&name, &key)?;
                    let body = body.or_else(|| is_columns.then(|| gone(Version::default())));
                    if let Some(body) = body {
                        bytes += body.value().map_or(0, |value| value.len());
                        rows.push(Row { table: name.clone(), key, body });
                    }
                }
                let rest = keys.split_off(taken);
                Ok((keys, rows, rest))
            })
            .await?;
            match is_columns {
                true => {
                    // What applications wrote stands otherwise as they did.
                    self.overwrites = true;
                    let applied = self.apply(rows, self.position.clone()).await;
                    self.overwrites = false;
                    applied?;
                }
                false => self.write_anew(&table, &portion, rows).await?,
            }
            keys = rest;
        }
        tracing::info!(%table, "wrote rows anew that differed in MySQL");
        // Who asked may have gone.
        let _ = done.send(());
        Ok(())
    }

    async fn write_anew(
        &mut self,
        table: &TableName,
        keys: &[Vec<u8>],
        rows: Vec<Row>,
    ) -> Result<(), MirrorError> {
        let exact = self.tables[table].shape.key().is_exact;
        let is_text = self.tables[table].shape.key().is_text;
        // MySQL refuses to look for bytes that are no text; no such row stands there.
        let keys: Vec<_> =
            keys.iter().filter(|key| !is_text || str::from_utf8(key).is_ok()).collect();
        let removal = (!keys.is_empty()).then(|| remove(table, exact, &keys));
        let position = self.position.clone();
        self.apply_after(removal, by_table(rows), position).await
    }
}

/// Deletes rows, whatever stands there.
fn remove(table: &TableName, exact: bool, keys: &[&Vec<u8>]) -> Statement {
    let one =
        if exact { "k = ?" } else { "(k = ? AND CAST(CONVERT(k USING utf8mb4) AS BINARY) = ?)" };
    let mut sql = format!("DELETE FROM `{table}` WHERE ");
    repeat(&mut sql, one, " OR ", keys.len());
    let bytes = |key: &[u8]| Param::Bytes(Bytes::copy_from_slice(key));
    let times = if exact { 1 } else { 2 };
    let params = keys.iter().flat_map(|key| std::iter::repeat_n(bytes(key), times));
    Statement::new(sql, params.collect::<Vec<_>>())
}
