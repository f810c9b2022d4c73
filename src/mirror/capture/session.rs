//! One connection's life: take the capture over, finish what was handed over, then look again and again.
//!
//! ```text
//! connect --> epoch + 1 --> the receipt's entries go --> tables --> [ look | touch | check ] ...
//! ```
//!
//! **Invariant.** `handed` is the newest hand-over, and its entries are gone or marked: nothing that is
//! read from now on was handed over before.

use std::{collections::HashMap, convert::Infallible, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use super::{
    Report,
    adopting::{Adoption, Asking},
    outbox::{self, Outbox},
    own::{self, State},
    receipt::Entries,
};
use crate::{
    mirror::{
        Config, TableSetting,
        adopt::Progress,
        columns::{self, Columns},
        doctor,
        error::{MirrorError, NO_TABLE},
        mysql::{Connection, number, text},
        statement::in_powers_of_two,
    },
    model::{Origin, TableName},
    node::{CaptureCommand, Node},
};

/// Between two looks while applications write.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Between two looks after a second of quiet.
const LOOK_EVERY_QUIET: Duration = Duration::from_millis(15);
const QUIET_AFTER: Duration = Duration::from_secs(1);
/// Between two checks of the tables themselves.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// After a look that found so many rows the next one follows at once.
const FOUND_MANY: usize = 100;
/// Entries whose deletion fails for locks are tried again so often.
const DONE_TRIES_MAX: usize = 20;

/// A connection, and what is known of the database behind it.
pub(super) struct Session<'c> {
    pub(super) node: &'c Node,
    pub(super) config: &'c Config,
    pub(super) report: &'c Report,
    pub(super) mysql: Connection,
    /// This session may hand over as long as MySQL names this epoch.
    pub(super) epoch: u64,
    /// The newest hand-over.
    pub(super) handed: u64,
    /// The tables, each with what becomes of it.
    pub(super) tables: Vec<Table>,
    /// Which of those that are due comes first.
    turn: usize,
    fitness_checked: Instant,
    /// The last look left nothing behind.
    pub(super) is_drained: bool,
    /// A comparison under way.
    pub(super) adoption: Option<Adoption>,
}

/// A table that is to be captured.
pub(super) struct Table {
    pub(super) name: TableName,
    pub(super) setting: TableSetting,
    /// What MySQL says of it; or why it cannot be captured now.
    pub(super) found: Result<Found, String>,
    /// Why what waits could not be read the last time.
    pub(super) held_up: Option<String>,
    /// Rows handed over in this session.
    pub(super) rows: u64,
    /// Entries that wait.
    pub(super) pending: u64,
    /// About how many rows it has, while they are taken in.
    pub(super) rows_about: u64,
}

/// A table that is captured, or waits for somebody.
pub(super) struct Found {
    pub(super) columns: Columns,
    pub(super) outbox: Outbox,
    pub(super) state: State,
    /// Why it waits.
    pub(super) reason: String,
    /// Up to which key its rows are touched, or compared.
    pub(super) touched: Option<Vec<u8>>,
    /// How many rows are touched.
    pub(super) taken_in: u64,
    /// How they are compared, or were.
    pub(super) adopt: Option<Progress>,
}

impl Table {
    /// Whether its entries are handed over.
    pub(super) fn is_captured(&self) -> bool {
        let flows = |found: &Found| matches!(found.state, State::On | State::Touch | State::Renew);
        self.found.as_ref().is_ok_and(flows)
    }
}

impl<'c> Session<'c> {
    pub(super) async fn connect(
        node: &'c Node,
        config: &'c Config,
        report: &'c Report,
    ) -> Result<Session<'c>, MirrorError> {
        let mut mysql = Connection::open(config).await?;
        // What is deleted must be what stands there now, not what a snapshot shows.
        mysql.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
        Ok(Session {
            node,
            config,
            report,
            mysql,
            epoch: 0,
            handed: 0,
            tables: Vec::new(),
            turn: 0,
            fitness_checked: Instant::now(),
            is_drained: true,
            adoption: None,
        })
    }

    /// Takes the capture over and goes on with it. Ends with an error.
    pub(super) async fn run(
        &mut self,
        commands: &mut mpsc::Receiver<CaptureCommand>,
    ) -> Result<Infallible, MirrorError> {
        self.check_fitness().await?;
        self.own_tables().await?;
        self.take_over().await?;
        self.check_tables().await?;
        self.report.runs(&self.tables);
        let mut checked = Instant::now();
        let mut last_found = Instant::now();
        let orders = self.node.mirror_orders();
        loop {
            if orders.borrow().paused.is_some() {
                return Err(MirrorError::Paused);
            }
            if self.fitness_checked.elapsed() >= self.config.columns_check {
                self.check_fitness().await?;
            }
            if checked.elapsed() >= CHECK_EVERY {
                self.check_tables().await?;
                self.report.runs(&self.tables);
                checked = Instant::now();
            }
            // So that the outbox never holds much more than applications write.
            let touched =
                self.is_drained && (self.touch_some().await? || self.adopt_some().await?);
            let found = self.look().await?;
            if touched || found > 0 {
                self.report.runs(&self.tables);
            }
            if found > 0 || touched {
                last_found = Instant::now();
            }
            // More waits, surely.
            if (touched || !self.is_drained || found >= FOUND_MANY) && commands.is_empty() {
                continue;
            }
            let quiet = last_found.elapsed() >= QUIET_AFTER;
            tokio::select! {
                () = sleep(if quiet { LOOK_EVERY_QUIET } else { LOOK_EVERY }) => {}
                Some(command) = commands.recv() => {
                    match command {
                        CaptureCommand::Refresh { table, answer } => {
                            let done = self.refresh(&table).await?;
                            // Who asked may have gone.
                            let _ = answer.send(done);
                        }
                        CaptureCommand::Adopt { options, progress, answer } => {
                            self.begin_adoption(options, Asking { progress, answer }).await?;
                        }
                    }
                    self.report.runs(&self.tables);
                }
            }
        }
    }

    /// What would lose what somebody wrote is not captured: it would be lost at every site.
    async fn check_fitness(&mut self) -> Result<(), MirrorError> {
        let now_ms = || self.node.now_ms();
        let findings = doctor::findings(&mut self.mysql, self.config, now_ms).await?;
        self.fitness_checked = Instant::now();
        // The mirror logs the others.
        doctor::refuse(findings)
    }

    async fn own_tables(&mut self) -> Result<(), MirrorError> {
        for (_, create) in own::TABLES {
            self.mysql.execute(create).await?;
        }
        Ok(())
    }

    /// Raises the epoch and finishes the newest hand-over, where it was not.
    async fn take_over(&mut self) -> Result<(), MirrorError> {
        self.is_ours().await?;
        let receipt = self.node.receipt()?;
        let entries = Entries::from_bytes(&receipt.entries)
            .ok_or(MirrorError::Damaged("_lastword_capture"))?;
        self.mysql.execute("START TRANSACTION").await?;
        let mut rows = self.mysql.rows(own::STANDING).await?;
        if rows.is_empty() {
            self.mysql.execute(own::FOUND).await?;
            rows = self.mysql.rows(own::STANDING).await?;
        }
        let standing = rows.first().and_then(|row| match &row[..] {
            [epoch, handed] => Some((number(epoch)?, number(handed)?)),
            _ => None,
        });
        let (epoch, handed) = standing.ok_or(MirrorError::Damaged("_lastword_capture"))?;
        self.epoch = epoch + 1;
        // Of any other number it is another history's: this database was set back, or is a new one.
        let is_due = handed + 1 == receipt.number;
        let before = if is_due { handed } else { receipt.number };
        self.mysql.execute(own::take_over(self.epoch, before)).await?;
        self.mysql.execute("COMMIT").await?;
        self.handed = before;
        if is_due {
            self.done(&entries, true).await?;
        }
        Ok(())
    }

    /// Captured rows are judged by what the mirror says that MySQL has: it must be this store's.
    async fn is_ours(&mut self) -> Result<(), MirrorError> {
        let rows = self.mysql.rows(own::CHECKPOINT).await?;
        let origin = rows
            .first()
            .and_then(|row| Some(Origin::from_bytes(row.first()?.as_deref()?.try_into().ok()?)));
        match origin {
            Some(origin) if origin == self.node.origin() => Ok(()),
            Some(origin) => {
                Err(MirrorError::OtherStore { theirs: origin, ours: self.node.origin() })
            }
            None => Err(MirrorError::Table(
                "capture: the mirror has not written its checkpoint yet".to_owned(),
            )),
        }
    }

    /// The entries of a hand-over are done with: `is_new`, where it used up a number.
    pub(super) async fn done(
        &mut self,
        entries: &Entries,
        is_new: bool,
    ) -> Result<(), MirrorError> {
        let handed = self.handed + u64::from(is_new);
        let mut tries = 0;
        loop {
            match self.try_done(entries, handed).await {
                Ok(()) => break,
                Err(error) if error.may_pass_at_once() && tries < DONE_TRIES_MAX => {
                    tries += 1;
                    self.mysql.execute("ROLLBACK").await?;
                }
                Err(error) => return Err(error),
            }
        }
        self.handed = handed;
        Ok(())
    }

    async fn try_done(&mut self, entries: &Entries, handed: u64) -> Result<(), MirrorError> {
        self.mysql.execute("START TRANSACTION").await?;
        if self.mysql.execute(own::fence(self.epoch, handed)).await? != 1 {
            return Err(MirrorError::Fenced);
        }
        for (name, entries) in entries.iter() {
            for some in in_powers_of_two(entries) {
                let deleted = match self.mysql.execute(outbox::delete(name, some)).await {
                    // The outbox of a table that was taken out of the settings, and dropped.
                    Err(error) if error.lacks(NO_TABLE) => break,
                    other => other?,
                };
                if deleted < some.len() as u64 {
                    self.mysql.execute(outbox::hand(name, some)).await?;
                }
            }
        }
        self.mysql.execute("COMMIT").await?;
        Ok(())
    }

    /// What applications wrote since the last look goes to the store; gives how many rows that was.
    async fn look(&mut self) -> Result<usize, MirrorError> {
        let captured: Vec<usize> =
            (0..self.tables.len()).filter(|&at| self.tables[at].is_captured()).collect();
        let outboxes: Vec<&Outbox> = captured
            .iter()
            .filter_map(|&at| self.tables[at].found.as_ref().ok())
            .map(|found| &found.outbox)
            .collect();
        let Some(look) = outbox::look(&outboxes) else {
            self.is_drained = true;
            return Ok(0);
        };
        let mut due: Vec<usize> = self
            .mysql
            .rows(look)
            .await?
            .iter()
            .filter_map(|row| captured.get(usize::try_from(number(row.first()?)?).ok()?).copied())
            .collect();
        self.is_drained = true;
        if due.is_empty() {
            return Ok(0);
        }
        // Each is the first in its turn.
        self.turn = (self.turn + 1) % due.len();
        due.rotate_left(self.turn);
        self.hand_over(&due).await
    }

    /// The tables that are to be captured, by their settings.
    pub(super) async fn settings(
        &mut self,
    ) -> Result<HashMap<TableName, TableSetting>, MirrorError> {
        let mut settings = HashMap::new();
        if let Some(all) = self.config.tables.iter().find(|set| set.name == TableSetting::ALL) {
            for row in self.mysql.rows(columns::own::base_tables()).await? {
                let name = row.first().map(text).unwrap_or_default();
                // The mirror names those that are no table's name to the store.
                if let Ok(table) = TableName::of_client(&name) {
                    settings.insert(table, all.clone());
                }
            }
        }
        for setting in &self.config.tables {
            if let Ok(table) = TableName::of_client(&setting.name) {
                settings.insert(table, setting.clone());
            }
        }
        settings.retain(|_, setting| setting.capture);
        Ok(settings)
    }
}
