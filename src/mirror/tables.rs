//! The mirrored tables in MySQL: made where they are missing, looked at before they are used.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use super::{
    error::MirrorError,
    mysql::{Cell, Connection, number, text},
    session::{Expiry, Session, Table},
    shape::{ColumnFacts, ForeignKeyFacts, IndexFacts, Shape, TableFacts, TriggerFacts},
    statement,
};
use crate::model::TableName;

/// Of how many tables MySQL is asked at once.
pub(super) const TABLES_ASKED_MAX: usize = 100;
/// A table without an engine is looked at again so often, and after so long.
const LOOKS_MAX: usize = 20;
const LOOK_AGAIN: Duration = Duration::from_millis(25);

impl Session<'_> {
    /// Sees to it that these tables are there and can be written. Not within a transaction:
    /// MySQL ends one when it makes a table.
    pub(super) async fn ensure_tables(&mut self, tables: &[TableName]) -> Result<(), MirrorError> {
        let new: Vec<_> =
            tables.iter().filter(|table| !self.tables.contains_key(*table)).cloned().collect();
        for some in new.chunks(TABLES_ASKED_MAX) {
            let mut facts = self.facts(some).await?;
            for table in some {
                let found = match facts.remove(table.as_str()) {
                    Some(found) => found,
                    None => self.create(table).await?,
                };
                self.take_in(table, &found).await?;
            }
        }
        Ok(())
    }

    async fn create(&mut self, table: &TableName) -> Result<TableFacts, MirrorError> {
        self.mysql.execute(statement::create(table)).await?;
        tracing::info!(%table, "made the MySQL table");
        let mut facts = self.facts(std::slice::from_ref(table)).await?;
        Ok(facts.remove(table.as_str()).unwrap_or_default())
    }

    async fn take_in(&mut self, table: &TableName, facts: &TableFacts) -> Result<(), MirrorError> {
        let shape = Shape::of(table.as_str(), facts).map_err(MirrorError::Table)?;
        if !self.known.contains(table) {
            // Rows of someone else's would stand among the mirrored ones, and be taken for them.
            if !self.mysql.rows(statement::any_row(table)).await?.is_empty() {
                return Err(MirrorError::Table(format!(
                    "table {table}: it holds rows that lastword did not write: move them away \
                     with RENAME TABLE, or empty it with TRUNCATE"
                )));
            }
            self.mysql.execute(statement::know_table(table)).await?;
            self.known.insert(table.clone());
        }
        if !shape.has_expiry_index() {
            tracing::warn!(
                %table,
                "the MySQL table has no index on expires_at: to find expired rows, all are read; \
                 run ALTER TABLE `{table}` ADD INDEX (expires_at)"
            );
        }
        self.tables.insert(table.clone(), Table { shape, expiry: Expiry::Unknown });
        Ok(())
    }

    /// What MySQL says of the tables that are there.
    pub(super) async fn facts(
        &mut self,
        tables: &[TableName],
    ) -> Result<HashMap<String, TableFacts>, MirrorError> {
        facts_of(&mut self.mysql, tables).await
    }
}

/// What MySQL says of the tables that are there.
pub(super) async fn facts_of(
    mysql: &mut Connection,
    tables: &[TableName],
) -> Result<HashMap<String, TableFacts>, MirrorError> {
    let names: Vec<_> = tables.iter().map(TableName::as_str).collect();
    let mut facts: HashMap<String, TableFacts> = HashMap::new();
    for row in settled_tables(mysql, &names).await? {
        if let [name, engine, _] = &row[..] {
            let engine = engine.is_some().then(|| text(engine));
            facts.entry(text(name)).or_default().engine = engine;
        }
    }
    for row in mysql.rows(statement::column_facts(&names)).await? {
        if let Some((table, column)) = column_facts(&row) {
            facts.entry(table).or_default().columns.push(column);
        }
    }
    let mut indexes: BTreeMap<(String, String), IndexFacts> = BTreeMap::new();
    for row in mysql.rows(statement::index_facts(&names)).await? {
        let [table, index, not_unique, column, prefix] = &row[..] else { continue };
        let entry = indexes.entry((text(table), text(index))).or_default();
        entry.name = text(index);
        entry.is_unique = number(not_unique) == Some(0);
        entry.columns.push((text(column), prefix.is_some()));
    }
    for ((table, _), index) in indexes {
        facts.entry(table).or_default().indexes.push(index);
    }
    for row in mysql.rows(statement::foreign_key_facts(&names)).await? {
        let [name, child, parent, on_update, on_delete] = &row[..] else { continue };
        let key = ForeignKeyFacts {
            name: text(name),
            child: text(child),
            parent: text(parent),
            on_update: text(on_update),
            on_delete: text(on_delete),
        };
        for table in BTreeSet::from([&key.child, &key.parent]) {
            if let Some(facts) = facts.get_mut(table) {
                facts.foreign_keys.push(key.clone());
            }
        }
    }
    for row in mysql.rows(statement::trigger_facts(&names)).await? {
        let [table, name, body] = &row[..] else { continue };
        let trigger = TriggerFacts { name: text(name), body: text(body) };
        facts.entry(text(table)).or_default().triggers.push(trigger);
    }
    Ok(facts)
}

/// The tables with these names. A table that is just being made, or changed, has no engine for a moment, as if it were a
/// view.
async fn settled_tables(
    mysql: &mut Connection,
    names: &[&str],
) -> Result<Vec<Vec<Cell>>, MirrorError> {
    for _ in 0..LOOKS_MAX {
        let rows = mysql.rows(statement::table_facts(names)).await?;
        let is_unsettled = |row: &Vec<Cell>| row[1].is_none() && text(&row[2]) == "BASE TABLE";
        if !rows.iter().any(is_unsettled) {
            return Ok(rows);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    mysql.rows(statement::table_facts(names)).await
}

fn column_facts(row: &[Cell]) -> Option<(String, ColumnFacts)> {
    let [table, name, data_type, column_type, nullable, default, extra, length, rest @ ..] = row
    else {
        return None;
    };
    let [collation, charset, digits, scale, fraction_digits] = rest else { return None };
    let some_text = |cell: &Cell| cell.is_some().then(|| text(cell));
    let extra = text(extra).to_ascii_lowercase();
    let column = ColumnFacts {
        name: text(name),
        data_type: text(data_type).to_ascii_lowercase(),
        column_type: text(column_type),
        is_nullable: text(nullable).eq_ignore_ascii_case("yes"),
        has_default: default.is_some()
            || extra.contains("auto_increment")
            || extra.contains("generated"),
        length_max: number(length),
        collation: some_text(collation),
        default: some_text(default),
        extra,
        charset: some_text(charset),
        digits: number(digits),
        scale: number(scale),
        fraction_digits: number(fraction_digits),
    };
    Some((text(table), column))
}
