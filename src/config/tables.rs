//! How single tables stand in MySQL: `[[table]]` in the file.
//!
//! ```toml
//! [[table]]
//! name = "film"                    # or "*": every table of the database
//! mirror = "columns"               # default: kv
//! unique = "accept"
//! ```
//!
//! Between the file and here a table is one text, as every setting is: a JSON object of its members.

use std::path::Path;

use ::config::{Value, ValueKind};
use serde::{Deserialize, Serialize};

use super::{ConfigError, Reader, invalid_in_file, setting::TABLE, suggest::nearest};
use crate::{
    mirror::{DeclaredColumn, Form, TableSetting, Triggers},
    model::TableName,
};

const NAMES: [&str; 9] = [
    "table.name",
    "table.mirror",
    "table.capture",
    "table.key_collation",
    "table.unique",
    "table.cascade",
    "table.triggers",
    "table.columns",
    "table.primary_key",
];
const COLUMN_NAMES: [&str; 2] = ["table.columns.name", "table.columns.type"];
const EXAMPLE: &str = "write [[table]], then name = \"film\" and mirror = \"columns\" below it";
const COLUMNS_EXAMPLE: &str =
    "columns is a list such as [{ name = \"id\", type = \"BIGINT UNSIGNED NOT NULL\" }]";

/// A table as the file has it.
#[derive(Default, Serialize, Deserialize)]
struct Told {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mirror: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    capture: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_collation: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cascade: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    triggers: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<ToldColumn>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    primary_key: Vec<String>,
}

#[derive(Default, Serialize, Deserialize)]
struct ToldColumn {
    name: String,
    #[serde(rename = "type")]
    definition: String,
}

/// One text for each `[[table]]` in the file at `path`.
pub(super) fn texts_of(kind: ValueKind, path: &Path) -> Result<Vec<String>, ConfigError> {
    let ValueKind::Array(tables) = kind else { return Err(invalid(path, EXAMPLE)) };
    tables.into_iter().map(|table| text_of(table, path)).collect()
}

fn text_of(table: Value, path: &Path) -> Result<String, ConfigError> {
    let mut told = Told::default();
    for (key, value) in entries(table, path, "table", &NAMES, EXAMPLE)? {
        match key.as_str() {
            "name" => told.name = text(&key, value, path)?,
            "mirror" => told.mirror = Some(text(&key, value, path)?),
            "capture" => match value.kind {
                ValueKind::Boolean(switch) => told.capture = switch,
                _ => return Err(invalid(path, "capture must be true or false")),
            },
            "key_collation" => told.key_collation = Some(text(&key, value, path)?),
            "unique" => told.unique = Some(text(&key, value, path)?),
            "cascade" => told.cascade = Some(text(&key, value, path)?),
            "triggers" => told.triggers = Some(text(&key, value, path)?),
            "columns" => told.columns = columns(value, path)?,
            _ => told.primary_key = texts(&key, value, path)?,
        }
    }
    if told.name.is_empty() {
        return Err(invalid(path, &format!("a table has no name: {EXAMPLE}")));
    }
    Ok(serde_json::to_string(&told).expect("texts and lists of texts are JSON"))
}

/// The members of a table in the file, in a fixed order, each of them known.
fn entries(
    table: Value,
    path: &Path,
    section: &str,
    known: &[&'static str],
    example: &str,
) -> Result<Vec<(String, Value)>, ConfigError> {
    let ValueKind::Table(table) = table.kind else { return Err(invalid(path, example)) };
    let mut entries: Vec<_> = table.into_iter().collect();
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    for (key, _) in &entries {
        let name = format!("{section}.{key}");
        if !known.contains(&name.as_str()) {
            let suggestion = nearest(&name, known.iter().copied());
            return Err(ConfigError::UnknownSetting { file: path.to_owned(), name, suggestion });
        }
    }
    Ok(entries)
}

fn text(key: &str, value: Value, path: &Path) -> Result<String, ConfigError> {
    match value.kind {
        ValueKind::String(text) if !text.is_empty() => Ok(text),
        _ => Err(invalid(path, &format!("{key} must be a text"))),
    }
}

fn texts(key: &str, value: Value, path: &Path) -> Result<Vec<String>, ConfigError> {
    match value.kind {
        ValueKind::Array(values) => {
            values.into_iter().map(|value| text(key, value, path)).collect()
        }
        _ => Err(invalid(path, &format!("{key} must be a list of texts"))),
    }
}

fn columns(value: Value, path: &Path) -> Result<Vec<ToldColumn>, ConfigError> {
    let ValueKind::Array(values) = value.kind else { return Err(invalid(path, COLUMNS_EXAMPLE)) };
    let column = |value| {
        let mut told = ToldColumn::default();
        let members = entries(value, path, "table.columns", &COLUMN_NAMES, COLUMNS_EXAMPLE)?;
        for (key, value) in members {
            match key.as_str() {
                "name" => told.name = text(&key, value, path)?,
                _ => told.definition = text(&key, value, path)?,
            }
        }
        if told.name.is_empty() || told.definition.is_empty() {
            return Err(invalid(path, COLUMNS_EXAMPLE));
        }
        Ok(told)
    };
    values.into_iter().map(column).collect()
}

fn invalid(path: &Path, reason: &str) -> ConfigError {
    invalid_in_file(&TABLE, path, reason)
}

impl Reader<'_> {
    /// The tables that have settings of their own.
    pub(super) fn tables(&self) -> Result<Vec<TableSetting>, ConfigError> {
        let mut tables: Vec<TableSetting> = Vec::new();
        for text in self.layers.list(&TABLE) {
            let table = setting_of(&text).map_err(|reason| self.invalid(&TABLE, reason))?;
            if tables.iter().any(|other| other.name == table.name) {
                let reason = format!("{} is named twice: name each table once", table.name);
                return Err(self.invalid(&TABLE, reason));
            }
            tables.push(table);
        }
        Ok(tables)
    }
}

fn setting_of(text: &str) -> Result<TableSetting, String> {
    let told: Told = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let name = told.name;
    let of_table = |reason: String| format!("{name}: {reason}");
    if name != TableSetting::ALL {
        TableName::of_client(&name).map_err(|error| error.to_string())?;
    }
    let form = match told.mirror.as_deref() {
        None => Form::default(),
        Some(word) => TableSetting::form_named(word)
            .ok_or_else(|| of_table(format!("mirror: {word:?} is neither kv nor columns")))?,
    };
    let triggers = match told.triggers.as_deref() {
        None => Triggers::default(),
        Some(word) => TableSetting::triggers_named(word).ok_or_else(|| {
            of_table(format!("triggers: {word:?} is neither refuse nor guard nor accept"))
        })?,
    };
    let accepts = |setting: &str, word: &Option<String>| match word.as_deref() {
        None | Some("refuse") => Ok(false),
        Some("accept") => Ok(true),
        Some(word) => Err(of_table(format!("{setting}: {word:?} is neither refuse nor accept"))),
    };
    let table = TableSetting {
        form,
        capture: told.capture,
        accepts_key_collation: accepts("key_collation", &told.key_collation)?,
        accepts_unique: accepts("unique", &told.unique)?,
        accepts_cascade: accepts("cascade", &told.cascade)?,
        triggers,
        columns: told
            .columns
            .into_iter()
            .map(|ToldColumn { name, definition }| DeclaredColumn { name, definition })
            .collect(),
        primary_key: told.primary_key,
        name: name.clone(),
    };
    match misfit(&table) {
        None => Ok(table),
        Some(reason) => Err(of_table(reason)),
    }
}

/// What of a setting does not go with the rest of it.
fn misfit(table: &TableSetting) -> Option<String> {
    let plain = TableSetting { name: table.name.clone(), ..TableSetting::default() };
    if table.form == Form::KeyValue && *table != plain {
        return Some("only a table with mirror = \"columns\" can have this: add it".to_owned());
    }
    if table.columns.is_empty() != table.primary_key.is_empty() {
        return Some("columns and primary_key go together: give both, or neither".to_owned());
    }
    if table.name == TableSetting::ALL && !table.columns.is_empty() {
        return Some("columns are those of one table: give it a [[table]] of its own".to_owned());
    }
    let declared = |name: &String| table.columns.iter().any(|column| column.name == *name);
    let name = table.primary_key.iter().find(|name| !declared(name))?;
    Some(format!("primary_key: {name:?} is none of its columns"))
}
