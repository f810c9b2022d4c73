//! The column tables of the database: found, judged, watched.
//!
//! One that will not do waits alone, with the reason in the status, and everything else goes on. Its rows
//! are passed over meanwhile, so once it does it is filled anew from the store. The same goes for one that
//! was altered or dropped. All of them are looked at once in a while.
//!
//! ```text
//! never seen --> empty? --> not filled --> filled <--> changes are applied
//!                  `--> waits     ^----------' altered, dropped, does not do
//! ```
//!
//! **Invariant.** `filled` in `_lastword_columns` is 1 only where MySQL holds, of every row of the store at or
//! below the checkpoint, that version or a later one: it becomes 0 before rows are passed over.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    capture::{State, guard_triggers},
    columns::{self, Columns, own},
    doctor::Wanted,
    error::MirrorError,
    mysql::{number, text},
    session::{Expiry, Session},
    shape::TableFacts,
    table_setting::{Form, TableSetting},
    tables::TABLES_ASKED_MAX,
};
use crate::model::{Key, TableName};

/// A column table that does.
#[derive(Clone, Debug)]
pub(super) struct ColumnTable {
    pub(super) columns: Arc<Columns>,
    pub(super) expiry: Expiry,
    pub(super) filling: Filling,
    /// How many rows of the store this filling has written.
    pub(super) rows_filled: u64,
    /// Applications write there, too.
    pub(super) is_captured: bool,
}

impl ColumnTable {
    /// All its rows are written anew.
    pub(super) fn lacks_rows(&mut self) {
        self.filling = Filling::Behind(None);
        self.rows_filled = 0;
    }
}

/// Whether a table lacks rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Filling {
    /// Rows of the store behind this key; `None`: all.
    Behind(Option<Key>),
    /// None.
    Done,
}

/// What `_lastword_columns` says of a table.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    is_filled: bool,
    definition: String,
}

impl Session<'_> {
    /// Finds the column tables that the settings name and MySQL has, and judges them.
    pub(super) async fn find_column_tables(&mut self) -> Result<(), MirrorError> {
        self.columns_looked_at = Instant::now();
        self.columns_due = false;
        self.capture.mark_unchanged();
        let settings = &self.config.tables;
        let mut tables: BTreeSet<TableName> = settings
            .iter()
            .filter(|setting| setting.form == Form::Columns)
            .filter_map(|setting| TableName::of_client(&setting.name).ok())
            .collect();
        let mut misnamed = Vec::new();
        let all = |setting: &TableSetting| {
            setting.name == TableSetting::ALL && setting.form == Form::Columns
        };
        if settings.iter().any(all) {
            for row in self.mysql.rows(own::base_tables()).await? {
                let name = row.first().map(text).unwrap_or_default();
                match TableName::of_client(&name) {
                    Ok(table) if self.config.columns_of(&table).is_some() => {
                        tables.insert(table);
                    }
                    Ok(_) => {}
                    Err(error) => misnamed.push((name, error.to_string())),
                }
            }
        }
        tables.extend(self.columns.keys().cloned());
        let waiting = self.waiting.keys().filter_map(|name| TableName::of_client(name).ok());
        tables.extend(waiting.filter(|table| self.config.columns_of(table).is_some()));
        let tables: Vec<_> = tables.into_iter().collect();
        self.judge(&tables).await?;
        self.waiting.retain(|name, _| TableName::of_client(name).is_ok());
        for (name, reason) in misnamed {
            self.waiting.insert(name, reason);
        }
        self.report.waits_for(&self.waiting);
        if Wanted::of(self.config).captures() {
            // A table may be numbered that was not there before, and a variable set anew.
            self.check_fitness().await?;
        }
        Ok(())
    }

    /// Looks at those among these tables that nobody looked at in this session.
    pub(super) async fn ensure_columns(&mut self, tables: &[TableName]) -> Result<(), MirrorError> {
        let new: Vec<_> = tables
            .iter()
            .filter(|table| !self.columns.contains_key(*table))
            .filter(|table| !self.waiting.contains_key(table.as_str()))
            .cloned()
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        self.judge(&new).await?;
        self.report.waits_for(&self.waiting);
        Ok(())
    }

    /// A table will not do from here on, until it is judged again. Not within a transaction.
    pub(super) async fn pause(
        &mut self,
        table: &TableName,
        reason: String,
    ) -> Result<(), MirrorError> {
        self.mysql.execute(own::unfill(table, &self.position)).await?;
        self.columns.remove(table);
        let before = self.waiting.insert(table.to_string(), reason.clone());
        if before.as_ref() != Some(&reason) {
            tracing::warn!(%table, reason, "the table waits, the others go on");
        }
        self.report.waits_for(&self.waiting);
        Ok(())
    }

    async fn judge(&mut self, tables: &[TableName]) -> Result<(), MirrorError> {
        let remembered = self.remembered().await?;
        for some in tables.chunks(TABLES_ASKED_MAX) {
            let mut facts = self.facts(some).await?;
            for table in some {
                let facts = facts.remove(table.as_str());
                let remembered = remembered.get(table);
                match self.judge_one(table, facts, remembered).await? {
                    Ok(found) => {
                        if self.waiting.remove(table.as_str()).is_some() {
                            tracing::info!(%table, "the table will do, and is filled");
                        }
                        self.columns.insert(table.clone(), found);
                    }
                    Err(reason) => self.pause(table, reason).await?,
                }
            }
        }
        Ok(())
    }

    async fn judge_one(
        &mut self,
        table: &TableName,
        facts: Option<TableFacts>,
        remembered: Option<&Remembered>,
    ) -> Result<Result<ColumnTable, String>, MirrorError> {
        let config = self.config;
        let Some(setting) = config.columns_of(table) else {
            return Ok(Err(format!("table {table}: it has no [[table]] any more")));
        };
        if self.known.contains(table) {
            return Ok(Err(format!(
                "table {table}: it is one of keys and values that lastword made: DROP it, and it \
                 is made of columns; or give it a [[table]] with mirror = \"kv\""
            )));
        }
        let is_new = facts.is_none();
        let facts = match facts {
            Some(facts) => facts,
            None => match self.make(table, setting).await? {
                Ok(facts) => facts,
                Err(reason) => return Ok(Err(reason)),
            },
        };
        let mut columns = match Columns::of(table.as_str(), &facts, setting) {
            Ok(columns) => columns,
            Err(reason) => return Ok(Err(reason)),
        };
        if let Some(trigger) = columns.unguarded.first() {
            // Those of a captured table the capture guards: of two at once, one would change their order.
            if setting.capture {
                return Ok(Err(format!("table {table}: its trigger {trigger} is being guarded")));
            }
            guard_triggers(&mut self.mysql, table, &columns.unguarded).await?;
            columns.unguarded.clear();
        }
        if setting.capture
            && let Some(reason) = self.capture_lacks(table)
        {
            return Ok(Err(reason));
        }
        let known = self.columns.get(table);
        if let Some(known) = known.filter(|known| !is_new && *known.columns == columns) {
            return Ok(Ok(known.clone()));
        }
        let definition = columns.definition();
        let is_filled = match remembered {
            Some(remembered) if remembered.is_filled && !is_new => {
                let is_same = remembered.definition == definition;
                if !is_same {
                    tracing::info!(%table, "the table was altered: it is filled anew");
                }
                is_same
            }
            Some(_) => false,
            None => {
                if let Some(reason) = self.first_sight(table, &columns, setting).await? {
                    return Ok(Err(reason));
                }
                // From there on all rows come as changes.
                self.position.is_empty() && self.mysql.rows(columns.any_row()).await?.is_empty()
            }
        };
        if is_new {
            // The one that was remembered is gone, with its rows.
            self.mysql.execute(own::forget(table)).await?;
        }
        let remember = own::remember(table, is_filled, &definition, &self.position);
        self.mysql.execute(remember).await?;
        let filling = if is_filled { Filling::Done } else { Filling::Behind(None) };
        Ok(Ok(ColumnTable {
            columns: Arc::new(columns),
            expiry: Expiry::Unknown,
            filling,
            rows_filled: 0,
            is_captured: setting.capture,
        }))
    }

    /// Makes the table, where its columns are declared.
    async fn make(
        &mut self,
        table: &TableName,
        setting: &TableSetting,
    ) -> Result<Result<TableFacts, String>, MirrorError> {
        if setting.columns.is_empty() {
            return Ok(Err(columns::is_missing(table.as_str())));
        }
        match self.mysql.execute(columns::create(table.as_str(), setting)).await {
            Ok(_) => {}
            Err(error) if error.concerns_table() => {
                return Ok(Err(format!("table {table}: it cannot be made: {error}")));
            }
            Err(error) => return Err(error),
        }
        tracing::info!(%table, "made the MySQL table");
        let mut facts = self.facts(std::slice::from_ref(table)).await?;
        Ok(Ok(facts.remove(table.as_str()).unwrap_or_default()))
    }

    /// Why a table that lastword never saw will not do: rows of someone else's would stand among those of
    /// the store, and be taken for them.
    async fn first_sight(
        &mut self,
        table: &TableName,
        columns: &Columns,
        setting: &TableSetting,
    ) -> Result<Option<String>, MirrorError> {
        if self.mysql.rows(columns.any_row()).await?.is_empty() {
            return Ok(None);
        }
        // What they are the capture has judged.
        if setting.capture {
            return Ok(None);
        }
        Ok(Some(format!(
            "table {table}: it holds rows that lastword did not write: set capture = true in its \
             [[table]] to make them this site's, or move them away with RENAME TABLE"
        )))
    }

    /// Why nothing is written into a captured table yet.
    fn capture_lacks(&self, table: &TableName) -> Option<String> {
        let states = self.capture.borrow();
        let what = match states.get(table) {
            Some(State::On) => return None,
            None => "its capture begins",
            Some(State::Touch | State::Renew) => "the rows that are there are being taken in",
            Some(State::Wait) => {
                "rows of it are in MySQL and in the store, and nobody has said which are right: \
                 lastword adopt compares them"
            }
            Some(State::Adopt) => "the rows that are there are being compared with the store's",
            Some(State::Altered | State::Broken) => {
                "it was altered: lastword table refresh takes it as it is now"
            }
        };
        Some(format!("table {table}: {what}"))
    }

    pub(super) async fn remembered(
        &mut self,
    ) -> Result<HashMap<TableName, Remembered>, MirrorError> {
        let rows = self.mysql.rows(own::remembered()).await?;
        rows.iter()
            .map(|row| {
                let [name, filled, definition] = &row[..] else { return None };
                let table = TableName::of_client(&text(name)).ok()?;
                let is_filled = number(filled)? == 1;
                Some((table, Remembered { is_filled, definition: text(definition) }))
            })
            .collect::<Option<_>>()
            .ok_or(MirrorError::Damaged("_lastword_columns"))
    }
}
