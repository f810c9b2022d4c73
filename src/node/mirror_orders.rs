//! What an operator told the mirror: to pause, to go on, to fill tables anew.
//!
//! The orders are this node's own, about the MySQL beside it: no other site has a use for them. They are a
//! small file in the data folder and not a row in MySQL, for they are given when MySQL is away, too; and a
//! mirror that was told to keep off must not write once more to find out. They hold until they are
//! withdrawn, or carried out, over every restart of either side.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::Node;
use crate::model::TableName;

/// The orders, in the data folder; no such file: none.
const FILE: &str = "mirror.json";
/// How much of the name of who gave an order is kept, in characters.
const BY_CHARS_MAX: usize = 100;

/// What holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorOrders {
    /// Write nothing.
    pub paused: Option<MirrorPause>,
    /// Fill these tables anew.
    pub rebuild: Option<MirrorRebuild>,
}

/// The mirror is to write nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorPause {
    /// Milliseconds since the Unix epoch, UTC.
    pub since_ms: u64,
    /// Who said so, as they called themselves.
    pub by: String,
}

/// Tables are to be filled anew from the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MirrorRebuild {
    /// Grows with each order: one that comes while another is carried out begins it again.
    pub number: u64,
    /// Their names; `None`: all.
    pub tables: Option<BTreeSet<String>>,
}

/// An order that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum MirrorOrderError {
    /// There is nobody to take it.
    #[error("mirror: this node has none: start it with --mysql URL")]
    NoMirror,
    /// There is nothing to fill it from.
    #[error("table: this node has no table {0}: lastword scan shows what it has")]
    NoTable(TableName),
    /// It could not be made to last; nothing has changed.
    #[error("mirror: the order cannot be written to {path}: {source}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where orders are given, and looked up.
#[derive(Debug)]
pub(super) struct OrderBook {
    path: PathBuf,
    orders: watch::Sender<MirrorOrders>,
    /// The mirror has seen that it is paused, and touches MySQL no more.
    at_rest: watch::Sender<bool>,
    writing: Mutex<()>,
}

impl OrderBook {
    /// Reads what held before.
    pub(super) fn open(data: &Path) -> io::Result<OrderBook> {
        let path = data.join(FILE);
        let orders = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                let reason =
                    format!("{FILE} cannot be read ({error}): remove it, and give the order again");
                io::Error::new(io::ErrorKind::InvalidData, reason)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => MirrorOrders::default(),
            Err(error) => return Err(error),
        };
        Ok(OrderBook {
            path,
            orders: watch::Sender::new(orders),
            at_rest: watch::Sender::new(false),
            writing: Mutex::new(()),
        })
    }

    /// Makes it last, then lets everybody know.
    fn change(&self, change: impl FnOnce(&mut MirrorOrders)) -> Result<(), MirrorOrderError> {
        let _one_at_a_time = self.writing.lock().expect("no holder of this lock panics");
        let mut orders = self.orders.borrow().clone();
        change(&mut orders);
        self.write(&orders)
            .map_err(|source| MirrorOrderError::File { path: self.path.clone(), source })?;
        self.orders.send_replace(orders);
        Ok(())
    }

    fn write(&self, orders: &MirrorOrders) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer(&mut file, orders)?;
        file.write_all(b"\n")?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        File::open(folder)?.sync_all()
    }
}

impl Node {
    /// The orders, now and as they change.
    #[must_use]
    pub fn mirror_orders(&self) -> watch::Receiver<MirrorOrders> {
        self.shared.orders.orders.subscribe()
    }

    /// For the mirror: it has stopped as it was told to, or not.
    pub fn mirror_is_at_rest(&self, at_rest: bool) {
        self.shared.orders.at_rest.send_replace(at_rest);
    }

    /// Waits until the mirror has stopped as it was told to, but at most for `limit`; whether it has.
    pub async fn mirror_at_rest(&self, limit: Duration) -> bool {
        let mut at_rest = self.shared.orders.at_rest.subscribe();
        let rested = tokio::time::timeout(limit, at_rest.wait_for(|at_rest| *at_rest)).await;
        matches!(rested, Ok(Ok(_)))
    }

    /// Tells the mirror to write nothing. Where it is told already, the first order stays. Writes a
    /// file: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`MirrorOrderError`]: nothing has changed.
    pub fn pause_mirror(&self, by: &str) -> Result<MirrorPause, MirrorOrderError> {
        self.check_mirror()?;
        let by = by.chars().filter(|c| !c.is_control()).take(BY_CHARS_MAX).collect();
        let pause = MirrorPause { since_ms: self.now_ms(), by };
        let mut standing = pause.clone();
        self.shared.orders.change(|orders| {
            standing = orders.paused.get_or_insert(pause).clone();
        })?;
        tracing::warn!(by = standing.by, "the mirror is paused");
        Ok(standing)
    }

    /// Tells the mirror to go on; gives since when it was paused. As [`pause_mirror`](Self::pause_mirror).
    ///
    /// # Errors
    ///
    /// [`MirrorOrderError`]: nothing has changed.
    pub fn resume_mirror(&self) -> Result<Option<MirrorPause>, MirrorOrderError> {
        self.check_mirror()?;
        let mut was = None;
        self.shared.orders.change(|orders| was = orders.paused.take())?;
        if was.is_some() {
            tracing::info!("the mirror goes on");
        }
        Ok(was)
    }

    /// Tells the mirror to fill a table, or all, anew from the store. As
    /// [`pause_mirror`](Self::pause_mirror).
    ///
    /// # Errors
    ///
    /// [`MirrorOrderError`]: nothing has changed.
    pub fn rebuild_mirror(&self, table: Option<&TableName>) -> Result<(), MirrorOrderError> {
        self.check_mirror()?;
        if let Some(table) = table.filter(|table| !self.snapshot().has_table(table)) {
            return Err(MirrorOrderError::NoTable(table.clone()));
        }
        self.shared.orders.change(|orders| {
            let standing = orders.rebuild.take();
            let number = standing.as_ref().map_or(self.now_ms(), |standing| standing.number + 1);
            let tables = match (standing.map(|standing| standing.tables), table) {
                (Some(None), _) | (_, None) => None,
                (before, Some(table)) => {
                    let mut tables = before.flatten().unwrap_or_default();
                    tables.insert(table.to_string());
                    Some(tables)
                }
            };
            orders.rebuild = Some(MirrorRebuild { number, tables });
        })
    }

    /// For the mirror: the order of this number is carried out. As
    /// [`pause_mirror`](Self::pause_mirror).
    ///
    /// # Errors
    ///
    /// [`MirrorOrderError`]: nothing has changed.
    pub fn mirror_rebuilt(&self, number: u64) -> Result<(), MirrorOrderError> {
        self.shared.orders.change(|orders| {
            orders.rebuild.take_if(|order| order.number == number);
        })
    }

    fn check_mirror(&self) -> Result<(), MirrorOrderError> {
        self.reports().mirror().map(|_| ()).ok_or(MirrorOrderError::NoMirror)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_last_and_a_damaged_file_is_told() {
        let data = tempfile::tempdir().unwrap();
        let book = OrderBook::open(data.path()).unwrap();
        assert_eq!(*book.orders.borrow(), MirrorOrders::default());
        let pause = MirrorPause { since_ms: 5, by: "ann@fra".into() };
        book.change(|orders| orders.paused = Some(pause.clone())).unwrap();
        let tables = Some(["t".to_owned()].into());
        let rebuild = MirrorRebuild { number: 7, tables };
        book.change(|orders| orders.rebuild = Some(rebuild.clone())).unwrap();
        let expected = MirrorOrders { paused: Some(pause), rebuild: Some(rebuild) };
        assert_eq!(*book.orders.borrow(), expected);
        assert_eq!(*OrderBook::open(data.path()).unwrap().orders.borrow(), expected);

        fs::write(data.path().join(FILE), "{").unwrap();
        let error = OrderBook::open(data.path()).unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
    }

    #[test]
    fn an_order_that_cannot_last_is_none() {
        let data = tempfile::tempdir().unwrap();
        let book = OrderBook::open(&data.path().join("gone")).unwrap();
        let pause = MirrorPause { since_ms: 5, by: String::new() };
        let error = book.change(|orders| orders.paused = Some(pause)).unwrap_err();
        assert!(error.to_string().contains("mirror.json"), "{error}");
        assert_eq!(book.orders.borrow().paused, None);
    }
}
