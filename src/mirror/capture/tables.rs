//! The captured tables: outboxes and triggers made where they are missing, rows that were there before taken
//! in, tables that were altered held up until somebody has looked.
//!
//! ```text
//! first sight:  MySQL empty ------------> on         the mirror fills it
//!               the store empty --------> touch      an entry is made of each row, then: on
//!               rows here and there ----> wait       somebody must say which are right
//!               it was said ------------> adopt      they are compared, then: on
//! later:        other columns --------> altered --refresh--> renew --> on
//!               a trigger is gone ----> broken  --refresh--> touch --> on
//! ```
//!
//! Entries are made in every state, so nothing that applications write meanwhile is lost.

use std::collections::HashMap;

use super::{
    guard::{self, Trigger},
    outbox::Outbox,
    own::{self, State},
    session::{Found, Session, Table},
};
use crate::{
    mirror::{
        TableSetting,
        adopt::Progress,
        columns::Columns,
        error::{MirrorError, NO_COLUMN, NO_TABLE},
        mysql::{Cell, Connection, number, text},
        session::read,
        shape::TableFacts,
        tables::{TABLES_ASKED_MAX, facts_of},
    },
    model::{Heads, TableName},
    store::ScanRange,
};

/// Up to so many entries are counted.
const PENDING_MAX: usize = 100_000;

/// What is noted of a table.
struct Noted {
    state: State,
    definition: String,
    touched: Option<Vec<u8>>,
    progress: String,
}

impl Session<'_> {
    /// Looks at all tables that are to be captured.
    pub(super) async fn check_tables(&mut self) -> Result<(), MirrorError> {
        let settings = self.settings().await?;
        let mut noted = self.noted().await?;
        let mut names: Vec<TableName> = settings.keys().cloned().collect();
        names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        let mut facts = HashMap::new();
        for some in names.chunks(TABLES_ASKED_MAX) {
            facts.extend(facts_of(&mut self.mysql, some).await?);
        }
        let mut tables = Vec::with_capacity(names.len());
        for name in names {
            let setting = settings[&name].clone();
            let facts = facts.remove(name.as_str());
            let noted = noted.remove(name.as_str());
            let found = self.judge(&name, &setting, facts, noted).await?;
            let before = self.tables.iter().find(|table| table.name == name);
            let rows = before.map_or(0, |table| table.rows);
            let held_up = before.and_then(|table| table.held_up.clone());
            if let Err(reason) = &found
                && before.is_none_or(|before| before.found.is_ok())
            {
                tracing::warn!(table = %name, reason, "capture: the table waits");
            }
            let pending = match &found {
                Ok(found) => self.pending(&found.outbox).await?,
                Err(_) => 0,
            };
            let takes_in = |found: &Found| matches!(found.state, State::Touch | State::Adopt);
            let rows_about = match found.as_ref().is_ok_and(takes_in) {
                true => self.rows_about(&name).await?,
                false => 0,
            };
            tables.push(Table { name, setting, found, held_up, rows, pending, rows_about });
        }
        self.tables = tables;
        Ok(())
    }

    async fn noted(&mut self) -> Result<HashMap<String, Noted>, MirrorError> {
        let rows = self.mysql.rows(own::CAPTURED).await?;
        let noted = rows.iter().filter_map(|row| {
            let [table, state, definition, touched, progress] = &row[..] else { return None };
            let state = State::of_word(&text(state))?;
            let (definition, touched) = (text(definition), touched.clone());
            let progress = text(progress);
            Some((text(table), Noted { state, definition, touched, progress }))
        });
        Ok(noted.collect())
    }

    async fn pending(&mut self, outbox: &Outbox) -> Result<u64, MirrorError> {
        let rows = self.mysql.rows(outbox.pending(PENDING_MAX)).await?;
        Ok(rows.first().and_then(|row| number(row.first()?)).unwrap_or_default())
    }

    async fn rows_about(&mut self, name: &TableName) -> Result<u64, MirrorError> {
        let rows = self.mysql.rows(own::rows_about(name.as_str())).await?;
        Ok(rows.first().and_then(|row| number(row.first()?)).unwrap_or_default())
    }

    async fn judge(
        &mut self,
        name: &TableName,
        setting: &TableSetting,
        facts: Option<TableFacts>,
        noted: Option<Noted>,
    ) -> Result<Result<Found, String>, MirrorError> {
        let Some(facts) = facts else {
            return Ok(Err(format!("table {name}: it is not there in MySQL yet")));
        };
        let mut columns = match Columns::of(name.as_str(), &facts, setting) {
            Ok(columns) => columns,
            Err(reason) => return Ok(Err(reason)),
        };
        if !columns.unguarded.is_empty() {
            guard_triggers(&mut self.mysql, name, &columns.unguarded).await?;
            columns.unguarded.clear();
        }
        let outbox = Outbox::of(&columns);
        let Some(Noted { mut state, definition, touched, progress }) = noted else {
            let has_rows = !self.mysql.rows(columns.any_row()).await?.is_empty();
            if let (true, Some(catching_up)) = (has_rows, self.node.catching_up()) {
                // Until then nobody knows whether the store has rows of it.
                return Ok(Err(format!(
                    "table {name}: what becomes of its rows is seen once this new site has those of a \
                     peer; {catching_up}"
                )));
            }
            return self.first_sight(name, columns, outbox).await.map(Ok);
        };
        let is_same = definition == columns.definition();
        let broken = self.broken(&outbox, &facts).await?;
        if matches!(state, State::Wait | State::Adopt) && (!is_same || broken.is_some()) {
            // Every row is compared yet, whatever was missed: the comparison begins anew.
            tracing::warn!(table = %name, "capture: the table was altered before it was adopted");
            self.equip(&outbox).await?;
            self.mysql.execute(outbox.adjust().as_str()).await?;
            let definition = columns.definition();
            self.mysql.execute(own::note(name.as_str(), State::Wait, &definition)).await?;
            state = State::Wait;
        }
        let now = match state {
            State::Wait => self.wait_over(name, &columns, &outbox).await?,
            State::Adopt => State::Adopt,
            State::Broken => State::Broken,
            _ if broken.is_some() => State::Broken,
            // Not every row was noted yet.
            State::Touch if !is_same => State::Broken,
            _ if !is_same => State::Altered,
            other => other,
        };
        let reason = match now {
            State::Broken => format!(
                "table {name}: {}, and what was written since is not known: lastword table refresh \
                 {name} compares every row",
                broken.unwrap_or_else(|| "it was altered".to_owned())
            ),
            State::Altered => format!(
                "table {name}: its columns are not those that were captured: lastword table \
                 refresh {name} takes the new ones in"
            ),
            other => wait_reason(name, other),
        };
        if now != state && matches!(now, State::Altered | State::Broken) {
            tracing::warn!(table = %name, reason, "capture: the table waits");
            self.mysql.execute(own::set_state(name.as_str(), now)).await?;
        }
        state = now;
        let adopt: Option<Progress> = serde_json::from_str(&progress).ok();
        let compared = adopt.as_ref().map(|Progress { counts, .. }| counts.rows_of_mysql());
        let taken_in = compared.or(progress.parse().ok()).unwrap_or(0);
        Ok(Ok(Found { columns, outbox, state, reason, touched, taken_in, adopt }))
    }

    /// What is missing of what notes an application's writes. A trigger of another release is made anew.
    async fn broken(
        &mut self,
        outbox: &Outbox,
        facts: &TableFacts,
    ) -> Result<Option<String>, MirrorError> {
        for (name, event, body) in outbox.triggers() {
            match facts.triggers.iter().find(|trigger| trigger.name == name) {
                None => return Ok(Some(format!("its trigger {name} is gone"))),
                Some(trigger) if trigger.body.trim() != body => {
                    self.mysql.execute(outbox.create_trigger(&name, event, &body).as_str()).await?;
                }
                Some(_) => {}
            }
        }
        match self.mysql.rows(outbox.nothing()).await {
            Ok(_) => Ok(None),
            Err(error) if error.lacks(NO_TABLE) || error.lacks(NO_COLUMN) => {
                Ok(Some(format!("its outbox {} is gone or altered", outbox.name())))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes outbox and triggers. `CREATE TRIGGER` waits for transactions that use the table: whoever writes
    /// there afterwards leaves an entry.
    async fn equip(&mut self, outbox: &Outbox) -> Result<(), MirrorError> {
        match self.mysql.rows(outbox.nothing()).await {
            Err(error) if error.lacks(NO_COLUMN) => {
                // Of a table of that name with another key; no trigger fills it.
                self.mysql.execute(format!("DROP TABLE `{}`", outbox.name()).as_str()).await?;
            }
            Err(error) if error.lacks(NO_TABLE) => {}
            other => drop(other?),
        }
        self.mysql.execute(outbox.create().as_str()).await?;
        for (name, event, body) in outbox.triggers() {
            self.mysql.execute(outbox.create_trigger(&name, event, &body).as_str()).await?;
        }
        Ok(())
    }

    async fn first_sight(
        &mut self,
        name: &TableName,
        columns: Columns,
        outbox: Outbox,
    ) -> Result<Found, MirrorError> {
        self.equip(&outbox).await?;
        let is_known = !self.mysql.rows(own::is_known(name.as_str())).await?.is_empty();
        let state = if is_known || self.mysql.rows(columns.any_row()).await?.is_empty() {
            State::On
        } else if self.is_empty_in_store(name).await? {
            State::Touch
        } else {
            State::Wait
        };
        self.mysql.execute(own::note(name.as_str(), state, &columns.definition())).await?;
        tracing::info!(table = %name, state = state.word(), "captures the table");
        let reason = wait_reason(name, state);
        Ok(Found { columns, outbox, state, reason, touched: None, taken_in: 0, adopt: None })
    }

    /// Whether a table whose rows are in the store, too, still has any, on either side.
    async fn wait_over(
        &mut self,
        name: &TableName,
        columns: &Columns,
        outbox: &Outbox,
    ) -> Result<State, MirrorError> {
        let state = if self.mysql.rows(columns.any_row()).await?.is_empty() {
            // That it was emptied is no delete of the store's rows.
            self.mysql.execute(format!("DELETE FROM `{}`", outbox.name()).as_str()).await?;
            State::On
        } else if self.is_empty_in_store(name).await? {
            State::Touch
        } else {
            return Ok(State::Wait);
        };
        self.mysql.execute(own::set_state(name.as_str(), state)).await?;
        Ok(state)
    }

    async fn is_empty_in_store(&self, name: &TableName) -> Result<bool, MirrorError> {
        let (node, name) = (self.node.clone(), name.clone());
        read(move || {
            let now_ms = node.now_ms();
            for row in node.snapshot().scan(&name, &ScanRange::default())? {
                if row?.body.is_live(now_ms) {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Takes the new columns of a table in, or everything of a table of which something may have been
    /// missed: every row is compared with the store.
    pub(super) async fn refresh(
        &mut self,
        name: &TableName,
    ) -> Result<Result<(), String>, MirrorError> {
        let Some(setting) = self.settings().await?.remove(name) else {
            return Ok(Err(format!(
                "table {name}: it is not captured: give it capture = true in its [[table]]"
            )));
        };
        let mut facts = facts_of(&mut self.mysql, std::slice::from_ref(name)).await?;
        let Some(facts) = facts.remove(name.as_str()) else {
            return Ok(Err(format!("table {name}: it is not there in MySQL")));
        };
        let columns = match Columns::of(name.as_str(), &facts, &setting) {
            Ok(columns) => columns,
            Err(reason) => return Ok(Err(reason)),
        };
        let noted = self.noted().await?.remove(name.as_str());
        let Some(noted) = noted else {
            self.check_tables().await?;
            return Ok(Ok(()));
        };
        if matches!(noted.state, State::Wait | State::Adopt) {
            return Ok(Err(wait_reason(name, noted.state)));
        }
        let key =
            |definition: &str| definition.rsplit_once("PRIMARY KEY").map(|(_, key)| key.to_owned());
        if key(&noted.definition) != key(&columns.definition()) {
            return Ok(Err(format!(
                "table {name}: its primary key has changed, and with it the names of all its rows \
                 in the store: change it back, or take the table out of the settings"
            )));
        }
        let outbox = Outbox::of(&columns);
        self.equip(&outbox).await?;
        self.mysql.execute(outbox.adjust().as_str()).await?;
        let definition = columns.definition();
        // Where each write was noted, what is not in the store as it was here is not the application's.
        let state = if noted.state == State::Altered { State::Renew } else { State::Touch };
        self.mysql.execute(own::note(name.as_str(), state, &definition)).await?;
        self.check_tables().await?;
        Ok(Ok(()))
    }

    /// Up to where MySQL is not behind in each of these tables.
    pub(super) async fn heads_of(
        &mut self,
        tables: &[&TableName],
    ) -> Result<Vec<Heads>, MirrorError> {
        let damaged = || MirrorError::Damaged("_lastword_mirror");
        let names: Vec<_> = tables.iter().map(|table| table.as_str()).collect();
        let rows = self.mysql.rows(own::heads_of(&names)).await?;
        let heads = |cell: &Cell| match cell.as_deref() {
            None => Ok(Heads::new()),
            Some(bytes) => Heads::from_bytes(bytes).ok_or_else(damaged),
        };
        let of_all = heads(rows.first().and_then(|row| row.first()).ok_or_else(damaged)?)?;
        let mut of_tables = HashMap::new();
        for row in &rows {
            if let [_, name, filled, behind] = &row[..] {
                let of_table = match number(filled) {
                    Some(1) => of_all.clone(),
                    _ => heads(behind)?,
                };
                of_tables.insert(text(name), of_table);
            }
        }
        // Of one that was never filled: of nothing.
        let of_table = |name: &&str| of_tables.get(*name).cloned().unwrap_or_default();
        Ok(names.iter().map(of_table).collect())
    }
}

fn wait_reason(name: &TableName, state: State) -> String {
    match state {
        State::Wait => format!(
            "table {name}: rows are in MySQL and in the store, and nobody has said which are \
             right: lastword adopt --table {name} compares them, or empty one of the two"
        ),
        State::Adopt => format!("table {name}: its rows are being compared with the store's"),
        _ => String::new(),
    }
}

/// Puts an application's triggers into a condition that lastword's own sessions do not meet; what they were
/// is kept.
pub(in crate::mirror) async fn guard_triggers(
    mysql: &mut Connection,
    table: &TableName,
    names: &[String],
) -> Result<(), MirrorError> {
    mysql.execute(guard::OWN_TABLE.1).await?;
    let rows = mysql.rows(guard::triggers_of(table.as_str())).await?;
    let triggers: Vec<Trigger> = rows
        .iter()
        .filter_map(|row| {
            let [name, event, table, body, timing, sql_mode, definer] = &row[..] else {
                return None;
            };
            Some(Trigger {
                name: text(name),
                event: text(event),
                table: text(table),
                body: text(body),
                timing: text(timing),
                sql_mode: text(sql_mode),
                definer: text(definer),
            })
        })
        .collect();
    for trigger in guard::to_make_anew(&triggers, names) {
        let is_new = names.contains(&trigger.name) && !trigger.is_guarded();
        if is_new {
            mysql.execute(guard::keep(trigger)).await?;
        }
        mysql.execute(trigger.set_mode()).await?;
        let made = mysql.execute(trigger.create(is_new).as_str()).await;
        mysql.execute(guard::own_mode()).await?;
        made?;
        if is_new {
            tracing::info!(%table, trigger = trigger.name, "guarded an application's trigger");
        }
    }
    Ok(())
}
