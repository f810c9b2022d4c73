//! The captured tables: outboxes and triggers made where they are missing, rows that were there before taken
//! in, tables that were altered held up until somebody has looked.
//!
//! ```text
//! first sight:  MySQL empty ------------> on         the mirror fills it
//!               the store empty --------> touch      an entry is made of each row, then: on
//!               rows here and there ----> wait       somebody must say which are right
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
        columns::Columns,
        error::MirrorError,
        mysql::{Cell, Connection, number, text},
        session::read,
        shape::TableFacts,
        statement::{Param, in_powers_of_two},
        tables::{TABLES_ASKED_MAX, facts_of},
    },
    model::{Heads, Key, TableName},
    node::Node,
    store::ScanRange,
};

/// Of how many rows entries are made at once.
const TOUCH_ROWS: usize = 4_096;
/// Up to so many entries are counted.
const PENDING_MAX: usize = 100_000;
const NO_TABLE: u16 = 1146;
const NO_COLUMN: u16 = 1054;

/// What is noted of a table.
struct Noted {
    state: State,
    definition: String,
    touched: Option<Vec<u8>>,
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
            tables.push(Table { name, setting, found, held_up, rows, pending });
        }
        self.tables = tables;
        Ok(())
    }

    async fn noted(&mut self) -> Result<HashMap<String, Noted>, MirrorError> {
        let rows = self.mysql.rows(own::CAPTURED).await?;
        let noted = rows.iter().filter_map(|row| {
            let [table, state, definition, touched] = &row[..] else { return None };
            let state = State::of_word(&text(state))?;
            let (definition, touched) = (text(definition), touched.clone());
            Some((text(table), Noted { state, definition, touched }))
        });
        Ok(noted.collect())
    }

    async fn pending(&mut self, outbox: &Outbox) -> Result<u64, MirrorError> {
        let rows = self.mysql.rows(outbox.pending(PENDING_MAX)).await?;
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
        let Some(Noted { mut state, definition, touched }) = noted else {
            return self.first_sight(name, columns, outbox).await.map(Ok);
        };
        if state == State::Wait {
            state = self.wait_over(name, &columns, &outbox).await?;
            let reason = wait_reason(name, state);
            return Ok(Ok(Found { columns, outbox, state, reason, touched }));
        }
        let broken = self.broken(&outbox, &facts).await?;
        let now = match state {
            State::Broken => State::Broken,
            _ if broken.is_some() => State::Broken,
            // Not every row was noted yet.
            State::Touch if definition != columns.definition() => State::Broken,
            _ if definition != columns.definition() => State::Altered,
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
            _ => String::new(),
        };
        if now != state {
            tracing::warn!(table = %name, reason, "capture: the table waits");
            self.mysql.execute(own::set_state(name.as_str(), now)).await?;
            state = now;
        }
        Ok(Ok(Found { columns, outbox, state, reason, touched }))
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
            Err(MirrorError::Server(error)) if [NO_TABLE, NO_COLUMN].contains(&error.code) => {
                Ok(Some(format!("its outbox {} is gone or altered", outbox.name())))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes outbox and triggers. `CREATE TRIGGER` waits for transactions that use the table: whoever writes
    /// there afterwards leaves an entry.
    async fn equip(&mut self, outbox: &Outbox) -> Result<(), MirrorError> {
        match self.mysql.rows(outbox.nothing()).await {
            Err(MirrorError::Server(error)) if error.code == NO_COLUMN => {
                // Of a table of that name with another key; no trigger fills it.
                self.mysql.execute(format!("DROP TABLE `{}`", outbox.name()).as_str()).await?;
            }
            Err(MirrorError::Server(error)) if error.code == NO_TABLE => {}
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
        Ok(Found { columns, outbox, state, reason, touched: None })
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

    /// Makes entries of some rows of a table whose rows are being taken in. Whether there was such a table.
    pub(super) async fn touch_some(&mut self) -> Result<bool, MirrorError> {
        let is_due = |found: &Found| matches!(found.state, State::Touch | State::Renew);
        let touched = |table: &Table| table.found.as_ref().is_ok_and(is_due);
        let Some(at) = self.tables.iter().position(touched) else { return Ok(false) };
        let of_table = self.tables[at].name.clone();
        let has = self.heads_of(&of_table).await?;
        let Table { name, found: Ok(found), .. } = &mut self.tables[at] else { return Ok(false) };
        let name = name.as_str();
        let after = match &found.touched {
            None => None,
            Some(bytes) => {
                let key = Key::new(bytes.clone()).map_err(|error| error.to_string());
                // Noted of other columns: from the beginning.
                key.and_then(|key| found.columns.key_params(&key)).ok()
            }
        };
        let keys = self.mysql.rows(found.columns.keys_after(after.as_deref(), TOUCH_ROWS)).await?;
        let mut rows = Vec::with_capacity(keys.len());
        let mut last = None;
        for cells in &keys {
            let key = found.columns.key_of(cells);
            match key.and_then(|key| Ok((found.columns.key_params(&key)?, key))) {
                Ok((of_key, key)) => {
                    rows.push((of_key, key.clone()));
                    last = Some(key);
                }
                Err(reason) => {
                    self.tables[at].found = Err(format!("table {name}: {reason}"));
                    return Ok(false);
                }
            }
        }
        if found.state == State::Renew {
            rows = as_they_were(self.node, of_table.clone(), rows, has).await?;
        }
        let params: Vec<_> = rows.into_iter().map(|(params, _)| params).collect();
        self.mysql.execute("START TRANSACTION").await?;
        for some in in_powers_of_two(&params) {
            self.mysql.execute(found.outbox.touch(some)).await?;
        }
        if let Some(last) = last {
            self.mysql.execute(own::set_touched(name, last.as_slice())).await?;
            found.touched = Some(last.as_slice().to_vec());
        }
        if keys.len() < TOUCH_ROWS {
            self.mysql.execute(own::set_state(name, State::On)).await?;
            found.state = State::On;
        }
        self.mysql.execute("COMMIT").await?;
        Ok(true)
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
        if noted.state == State::Wait {
            return Ok(Err(wait_reason(name, State::Wait)));
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

    /// Up to where MySQL is not behind in this table.
    pub(super) async fn heads_of(&mut self, table: &TableName) -> Result<Heads, MirrorError> {
        let rows = self.mysql.rows(own::heads_of(table.as_str())).await?;
        let heads = |cell: &Cell| match cell.as_deref() {
            None => Some(Heads::new()),
            Some(bytes) => Heads::from_bytes(bytes),
        };
        let read = rows.first().and_then(|row| match &row[..] {
            [of_all, filled, ..] if number(filled) == Some(1) => heads(of_all),
            [_, _, of_table] => heads(of_table),
            _ => None,
        });
        read.ok_or(MirrorError::Damaged("_lastword_mirror"))
    }
}

/// Those of these rows that the store has as they are here, where MySQL is not behind `has`.
async fn as_they_were(
    node: &Node,
    table: TableName,
    rows: Vec<(Vec<Param>, Key)>,
    has: Heads,
) -> Result<Vec<(Vec<Param>, Key)>, MirrorError> {
    let node = node.clone();
    read(move || {
        let (snapshot, now_ms) = (node.snapshot(), node.now_ms());
        let mut same = Vec::new();
        for (params, key) in rows {
            let Some(body) = snapshot.get(&table, &key)?.filter(|body| body.is_live(now_ms)) else {
                continue;
            };
            let version = body.version();
            if has.includes(version) || snapshot.is_handed_over(node.origin(), version)? {
                same.push((params, key));
            }
        }
        Ok(same)
    })
    .await
}

fn wait_reason(name: &TableName, state: State) -> String {
    match state {
        State::Wait => format!(
            "table {name}: rows are in MySQL and in the store, and nobody has said which are \
             right: lastword adopt compares them, or empty one of the two"
        ),
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
        mysql.execute(guard::OWN_MODE).await?;
        made?;
        if is_new {
            tracing::info!(%table, trigger = trigger.name, "guarded an application's trigger");
        }
    }
    Ok(())
}
