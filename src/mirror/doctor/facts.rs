//! What MySQL says of itself. Nothing is judged here.

use std::collections::BTreeMap;

use super::Wanted;
use crate::{
    mirror::{
        TableSetting, Target,
        columns::own,
        error::MirrorError,
        mysql::{Connection, first_number, text},
        shape::TableFacts,
        statement::{self, Statement},
        tables::{TABLES_ASKED_MAX, facts_of},
    },
    model::TableName,
};

/// What the judge looks at.
#[derive(Clone, Debug, Default)]
pub(in crate::mirror) struct Facts {
    /// `10.11.19-MariaDB-deb12`, `8.4.2`.
    pub(in crate::mirror) version: String,
    /// Whom the server takes us for: `lastword@10.0.0.%`.
    pub(in crate::mirror) user: String,
    /// The database.
    pub(super) database: String,
    /// The global variables that matter, by their names in small letters. What this server does not know
    /// is not there.
    pub(super) variables: BTreeMap<String, String>,
    /// What `SHOW GRANTS` says, a line each. Not to be shown: a password's hash may be in it.
    pub(super) grants: Vec<String>,
    /// MySQL's clock less ours, in milliseconds.
    pub(super) clock_ahead_ms: i64,
    /// The connection is encrypted.
    pub(super) is_encrypted: bool,
    /// It goes to another machine.
    pub(super) is_remote: bool,
    /// Columns that MySQL numbers: table and column.
    pub(super) auto_increments: Vec<(String, String)>,
    /// Columns of primary keys that hold text: table, column, collation.
    pub(super) text_keys: Vec<(String, String, String)>,
    /// The tables that are to stand in columns, by name; `None`: it is not there.
    pub(super) column_tables: BTreeMap<String, Option<TableFacts>>,
}

impl Facts {
    /// Reads them.
    pub(in crate::mirror) async fn read(
        mysql: &mut Connection,
        wanted: Wanted<'_>,
        target: &Target,
        now_ms: impl Fn() -> u64,
    ) -> Result<Facts, MirrorError> {
        let mut facts = Facts {
            database: target.database.clone(),
            is_remote: !target.is_loopback(),
            ..Facts::default()
        };
        if let [row, ..] = &mysql.rows(statement::WHO).await?[..]
            && let [version, user] = &row[..]
        {
            (facts.version, facts.user) = (text(version), text(user));
        }
        for row in mysql.rows(statement::global_variables()).await? {
            if let [name, value] = &row[..] {
                facts.variables.insert(text(name).to_ascii_lowercase(), text(value));
            }
        }
        let before_ms = now_ms();
        let theirs_ms = first_number(&mysql.rows(statement::CLOCK).await?).unwrap_or(before_ms);
        // Halfway between question and answer.
        let ours_ms = before_ms + now_ms().saturating_sub(before_ms) / 2;
        facts.clock_ahead_ms = theirs_ms.cast_signed().saturating_sub(ours_ms.cast_signed());
        for row in mysql.rows(statement::CIPHER).await? {
            facts.is_encrypted = row.get(1).is_some_and(|cipher| !text(cipher).is_empty());
        }
        for row in mysql.rows(statement::GRANTS).await? {
            facts.grants.extend(row.first().map(text));
        }
        for (column, kind) in three(mysql, statement::numbered_columns()).await? {
            if wanted.table(&column.0).is_some() && kind.contains("auto_increment") {
                facts.auto_increments.push(column);
            }
        }
        for ((table, column), collation) in three(mysql, statement::text_keys()).await? {
            facts.text_keys.push((table, column, collation));
        }
        Ok(facts)
    }

    /// Reads what the tables are like that are to stand in columns.
    pub(super) async fn read_tables(
        &mut self,
        mysql: &mut Connection,
        wanted: Wanted<'_>,
    ) -> Result<(), MirrorError> {
        if !wanted.has_column_tables() {
            return Ok(());
        }
        let there = mysql.rows(own::base_tables()).await?;
        let there = there.iter().filter_map(|row| row.first().map(text));
        let named = wanted.tables.iter().map(|setting| setting.name.clone());
        let named = named.filter(|name| name != TableSetting::ALL);
        for name in there.chain(named).filter(|name| wanted.table(name).is_some()) {
            self.column_tables.insert(name, None);
        }
        // The others have names that no table of the store can have.
        let names: Vec<_> =
            self.column_tables.keys().filter_map(|name| TableName::of_client(name).ok()).collect();
        for some in names.chunks(TABLES_ASKED_MAX) {
            for (name, facts) in facts_of(mysql, some).await? {
                self.column_tables.insert(name, Some(facts));
            }
        }
        Ok(())
    }

    /// A variable; empty where the server does not know it.
    pub(super) fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.variable(name).parse().ok()
    }

    /// `None` where the server does not know it.
    pub(super) fn is_on(&self, name: &str) -> Option<bool> {
        let value = self.variables.get(name)?;
        Some(value == "1" || value.eq_ignore_ascii_case("on"))
    }

    pub(super) fn is_mariadb(&self) -> bool {
        self.version.to_ascii_lowercase().contains("mariadb")
    }
}

/// Table and column, and a third thing.
async fn three(
    mysql: &mut Connection,
    query: Statement,
) -> Result<Vec<((String, String), String)>, MirrorError> {
    let rows = mysql.rows(query).await?;
    let three = rows.iter().filter_map(|row| match &row[..] {
        [table, column, what] => {
            Some(((text(table), text(column)), text(what).to_ascii_lowercase()))
        }
        _ => None,
    });
    Ok(three.collect())
}
