//! One connection's life: take the database over, then follow the node from where MySQL stands.
//!
//! ```text
//! connect --> what _lastword_mirror says, epoch + 1 --> a page of changes --> one transaction
//!                                                    ^------------------------'
//! ```
//!
//! Where MySQL stands below the store's floor, a [rescan](super::rescan) comes before the changes.
//!
//! **Invariant.** `position` is what the checkpoint in MySQL says, and MySQL holds, of every row
//! of the store at or below it, that version or a later one. It goes from page to page: within a
//! scan of the store to how far the scan came, at its end to the heads of its moment.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::{
    Config, Report,
    capture::CaptureStates,
    column_tables::ColumnTable,
    columns::own,
    doctor,
    error::MirrorError,
    in_hand::Owed,
    mapping::by_table,
    mysql::{Cell, Connection, number, text},
    page::{ReadyPage, Sorter},
    rebuild::Rebuild,
    repair::Repair,
    shape::Shape,
    statement,
    tables::TABLES_ASKED_MAX,
    upkeep::Upkeep,
};
use crate::{
    model::{Heads, Origin, TableName},
    node::{FollowDelta, Follower, MirrorOrders, Node, Page},
    store::StoreError,
};

/// Under load, when a delta has so many rows and still less than a transaction takes, the next one is given
/// some time to grow: a large transaction costs MySQL less a row than many small ones.
const GATHER_ROWS_MIN: usize = 32;
const GATHER: Duration = Duration::from_millis(10);
/// The format of the mirror's own tables.
const FORMAT: u64 = 1;

/// A connection, and what is known of the database behind it.
pub(super) struct Session<'m> {
    pub(super) node: &'m Node,
    pub(super) config: &'m Config,
    pub(super) report: &'m Report,
    pub(super) mysql: Connection,
    /// This session may write as long as MySQL names this epoch.
    pub(super) epoch: u64,
    /// What MySQL has.
    pub(super) position: Heads,
    /// The tables that were looked at in this session.
    pub(super) tables: HashMap<TableName, Table>,
    /// The tables that lastword knows as its own.
    pub(super) known: HashSet<TableName>,
    /// The column tables that do.
    pub(super) columns: HashMap<TableName, ColumnTable>,
    /// Those that do not, and why.
    pub(super) waiting: BTreeMap<String, String>,
    pub(super) columns_looked_at: Instant,
    /// They are to be looked at again now.
    pub(super) columns_due: bool,
    /// How the captured tables are, as the capture says.
    pub(super) capture: watch::Receiver<CaptureStates>,
    pub(super) owed: Owed,
    /// How many rows are set aside.
    pub(super) rejected_rows: u64,
    pub(super) upkeep: Upkeep,
    /// What an operator said.
    pub(super) orders: watch::Receiver<MirrorOrders>,
    /// Rows go over whatever stands there, whatever version that bears.
    pub(super) overwrites: bool,
    pub(super) last_used: Instant,
    /// What a comparison asks for.
    pub(super) repairs: &'m mut mpsc::Receiver<Repair>,
}

/// A mirrored table.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) shape: Shape,
    pub(super) expiry: Expiry,
}

/// When a row of the table expires next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expiry {
    /// MySQL was not asked yet.
    Unknown,
    /// No row does.
    Never,
    /// Milliseconds since the Unix epoch, UTC.
    At(u64),
}

impl Expiry {
    /// A row was written that expires then.
    pub(super) fn note(&mut self, ms: u64) {
        *self = match *self {
            Expiry::Unknown => Expiry::Unknown,
            Expiry::Never => Expiry::At(ms),
            Expiry::At(first) => Expiry::At(first.min(ms)),
        }
    }
}

impl<'m> Session<'m> {
    /// Connects; nothing is read or written yet.
    pub(super) async fn connect(
        node: &'m Node,
        config: &'m Config,
        report: &'m Report,
        capture: watch::Receiver<CaptureStates>,
        repairs: &'m mut mpsc::Receiver<Repair>,
    ) -> Result<Session<'m>, MirrorError> {
        Ok(Session {
            node,
            config,
            report,
            mysql: Connection::open(config).await?,
            epoch: 0,
            position: Heads::new(),
            tables: HashMap::new(),
            known: HashSet::new(),
            columns: HashMap::new(),
            waiting: BTreeMap::new(),
            columns_looked_at: Instant::now(),
            columns_due: false,
            capture,
            owed: Owed::new(),
            rejected_rows: 0,
            upkeep: Upkeep::new(config),
            orders: node.mirror_orders(),
            overwrites: false,
            last_used: Instant::now(),
            repairs,
        })
    }

    /// Takes the database over and follows the node. Ends with an error, or with the node.
    pub(super) async fn run(&mut self) -> Result<(), MirrorError> {
        self.check_fitness().await?;
        self.own_tables().await?;
        self.take_over().await?;
        self.count_rejected().await?;
        let known: Vec<_> = self.known.iter().cloned().collect();
        self.ensure_tables(&known).await?;
        self.find_column_tables().await?;
        self.report.follows(&self.position);

        let mut follower = Follower::new(self.node, self.position.clone());
        let mut rebuild = Rebuild::default();
        loop {
            let idle = self.nothing_due_for(&rebuild);
            let mut repair = None;
            tokio::select! {
                lives = follower.changed_within(idle) => if !lives { return Ok(()) },
                // They come from the node: while it lives there may be others.
                _ = self.orders.changed() => {}
                Ok(()) = self.capture.changed() => self.columns_due = true,
                asked = self.repairs.recv() => repair = asked,
            }
            self.check_orders()?;
            if let Some(repair) = repair {
                self.repair(repair).await?;
            }
            let rows;
            (follower, rows) = self.catch_up(follower).await?;
            self.keep_up(Some(follower.above())).await?;
            self.go_on_rebuilding(&mut rebuild).await?;
            if self.has_to_fill() {
                self.fill().await?;
            } else if gathers(rows, self.config) && !rebuild.is_under_way() {
                sleep(GATHER).await;
            }
        }
    }

    /// How long to wait for changes before [`Session::keep_up`] is called again.
    fn nothing_due_for(&self, rebuild: &Rebuild) -> Duration {
        if self.has_to_fill() || rebuild.is_under_way() {
            return Duration::ZERO;
        }
        let due = self.upkeep.nothing_due_for();
        let is_captured = self.columns.values().any(|table| table.is_captured);
        let owed = self.owed.at().saturating_duration_since(Instant::now());
        if is_captured { due.min(owed) } else { due }
    }

    /// An operator may have told the mirror to write nothing: between two transactions is the time.
    pub(super) fn check_orders(&self) -> Result<(), MirrorError> {
        match self.orders.borrow().paused {
            Some(_) => Err(MirrorError::Paused),
            None => Ok(()),
        }
    }

    /// Asks the doctor. What would lose data keeps the mirror from going on; the rest is logged once.
    pub(super) async fn check_fitness(&mut self) -> Result<(), MirrorError> {
        let now_ms = || self.node.now_ms();
        let findings = doctor::findings(&mut self.mysql, self.config, now_ms).await?;
        self.report.warns_of(&findings);
        doctor::refuse(findings)
    }

    /// Makes the mirror's own tables where they are missing.
    async fn own_tables(&mut self) -> Result<(), MirrorError> {
        let tables: Vec<_> = statement::OWN_TABLES.into_iter().chain(own::OWN_TABLES).collect();
        let names: Vec<_> = tables.iter().map(|(name, _)| *name).collect();
        let there = self.mysql.rows(statement::table_facts(&names)).await?;
        for (name, create) in tables {
            if !there.iter().any(|row| row.first().is_some_and(|cell| text(cell) == name)) {
                self.mysql.execute(create).await?;
            }
        }
        Ok(())
    }

    /// Raises the epoch, so that whatever else is writing here stops, and learns where MySQL
    /// stands. Waits for a transaction that is under way.
    async fn take_over(&mut self) -> Result<(), MirrorError> {
        self.mysql.execute("START TRANSACTION").await?;
        match self.take_over_locked().await {
            Ok(()) => self.mysql.execute("COMMIT").await.map(|_| ()),
            Err(error) => {
                // The connection may be kept until an operator has acted; its locks may not.
                let _ = self.mysql.execute("ROLLBACK").await;
                Err(error)
            }
        }
    }

    async fn take_over_locked(&mut self) -> Result<(), MirrorError> {
        let now_ms = self.node.now_ms();
        let ours = self.node.origin();
        let mut rows = self.mysql.rows(statement::checkpoint()).await?;
        if rows.is_empty() {
            self.mysql.execute(statement::found(ours, now_ms)).await?;
            rows = self.mysql.rows(statement::checkpoint()).await?;
        }
        let Checkpoint { format, origin, epoch, heads } = rows
            .first()
            .and_then(|row| Checkpoint::of(row))
            .ok_or(MirrorError::Damaged("_lastword_mirror"))?;
        if format != FORMAT {
            return Err(MirrorError::Format(format));
        }
        if origin != ours {
            return Err(MirrorError::OtherStore { theirs: origin, ours });
        }
        if !self.node.heads().covers(&heads) {
            return Err(MirrorError::AheadOfStore { theirs: heads });
        }
        self.position = heads;
        self.epoch = epoch + 1;
        self.known = self.known_tables().await?;
        for table in self.dropped_tables().await? {
            tracing::warn!(%table, "a mirrored table was dropped: everything is filled again");
            self.mysql.execute(statement::forget_table(&table)).await?;
            self.known.remove(&table);
            self.position = Heads::new();
        }
        for table in self.remembered().await?.into_keys() {
            if self.config.columns_of(&table).is_none() {
                tracing::warn!(%table, "it is no column table any more: everything is filled again");
                self.mysql.execute(own::forget(&table)).await?;
                self.position = Heads::new();
            }
        }
        let take_over = statement::take_over(self.epoch, &self.position, now_ms);
        self.mysql.execute(take_over).await?;
        Ok(())
    }

    async fn known_tables(&mut self) -> Result<HashSet<TableName>, MirrorError> {
        let rows = self.mysql.rows(statement::known_tables()).await?;
        rows.iter()
            .map(|row| {
                let name = row.first().map(text).unwrap_or_default();
                TableName::of_client(&name).map_err(|_| MirrorError::Damaged("_lastword_tables"))
            })
            .collect()
    }

    /// The tables that are known and not there: what is above the position does not fill them.
    async fn dropped_tables(&mut self) -> Result<Vec<TableName>, MirrorError> {
        let known: Vec<_> = self.known.iter().cloned().collect();
        let mut there = HashSet::new();
        for some in known.chunks(TABLES_ASKED_MAX) {
            let names: Vec<_> = some.iter().map(TableName::as_str).collect();
            let rows = self.mysql.rows(statement::table_facts(&names)).await?;
            there.extend(rows.iter().filter_map(|row| row.first().map(text)));
        }
        Ok(known.into_iter().filter(|table| !there.contains(table.as_str())).collect())
    }

    /// Passes the delta of this moment on to MySQL, page by page: while one is written there, the next
    /// is read from the store and sorted. Gives how many rows there were.
    async fn catch_up(&mut self, mut follower: Follower) -> Result<(Follower, usize), MirrorError> {
        let bounds = (self.config.batch_rows_max, self.config.batch_bytes_max);
        let began = Instant::now();
        let mut passed = 0;
        let mut next: NextPage = loop {
            let sorter = self.sorter();
            let begun;
            (follower, begun) = read(move || {
                let begun = match follower.begin()?.delta() {
                    Some(delta) => Some(NextPage::read(delta.uncounted(), bounds, &sorter)?),
                    // Below the floor: a mirror asks for no reconciliation.
                    None => None,
                };
                Ok((follower, begun))
            })
            .await?;
            match begun {
                Some(begun) => break begun,
                None => follower.taken_away(self.rescan().await?),
            }
        };
        loop {
            let NextPage { delta, page, rows, last } = next;
            let mut position = self.position.clone();
            position.join(if last { delta.heads() } else { delta.passed() });
            passed += rows;
            // The end of a scan is worth a checkpoint; heads that move while nothing is written
            // are written down once in a while.
            let due = rows > 0 || (last && delta.is_scan());
            let enough = delta.is_scan() && began.elapsed() >= self.config.scan_max;
            if last || enough {
                if due {
                    self.apply_page(None, page, position).await?;
                }
                if last {
                    follower.finish(&delta);
                } else {
                    follower.leave_off(&delta);
                }
                return Ok((follower, passed));
            }
            let sorter = self.sorter();
            let read = spawn_blocking(move || NextPage::read(delta, bounds, &sorter));
            if due {
                self.apply_page(None, page, position).await?;
            }
            self.keep_up(None).await?;
            self.check_orders()?;
            next = read.await.expect("reading the store does not panic")?;
        }
    }
}

/// A page of a delta, sorted.
struct NextPage {
    delta: FollowDelta,
    page: ReadyPage,
    rows: usize,
    /// Nothing comes after it.
    last: bool,
}

impl NextPage {
    fn read(
        mut delta: FollowDelta,
        (rows_max, bytes_max): (usize, usize),
        sorter: &Sorter,
    ) -> Result<NextPage, StoreError> {
        let Page { rows, last, .. } = delta.page(rows_max, bytes_max)?;
        let count = rows.len();
        let mut page = ReadyPage::of(by_table(rows.into_vec()));
        page.sort(sorter);
        Ok(NextPage { delta, page, rows: count, last })
    }
}

/// The row of `_lastword_mirror`.
struct Checkpoint {
    format: u64,
    origin: Origin,
    epoch: u64,
    heads: Heads,
}

impl Checkpoint {
    fn of(row: &[Cell]) -> Option<Checkpoint> {
        let [format, origin, epoch, heads] = row else { return None };
        Some(Checkpoint {
            format: number(format)?,
            origin: Origin::from_bytes(origin.as_deref()?.try_into().ok()?),
            epoch: number(epoch)?,
            heads: Heads::from_bytes(heads.as_deref()?)?,
        })
    }
}

/// Whether the delta after one of so many rows is given some time.
fn gathers(rows: usize, config: &Config) -> bool {
    (GATHER_ROWS_MIN..config.batch_rows_max).contains(&rows)
}

/// Reads the store where blocking is allowed.
pub(super) async fn read<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, MirrorError> {
    Ok(spawn_blocking(work).await.expect("reading the store does not panic")?)
}
