//! Whether a MySQL table can stand for a table of the store, and its columns.
//!
//! Refused is what would lose or change rows that nobody is told of. Each reason is one line with the
//! way out: a statement, or a setting of the table that accepts it.

use std::fmt::Write;

use super::kind::Kind;
use crate::mirror::{
    shape::{ColumnFacts, ForeignKeyFacts, IndexFacts, TableFacts},
    table_setting::{TableSetting, Triggers},
};

/// A table whose rows are JSON objects.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::mirror) struct Columns {
    pub(in crate::mirror) name: String,
    /// In the table's order; those that MySQL computes left out.
    pub(in crate::mirror) columns: Vec<Column>,
    /// Which of them are the primary key, in its order.
    pub(in crate::mirror) key: Vec<usize>,
    /// Different keys of the store may be one to MySQL.
    pub(in crate::mirror) key_folds: bool,
    /// Those that MySQL computes: ignored where an object has them.
    pub(in crate::mirror) generated: Vec<String>,
    /// Unique indexes besides the primary key.
    pub(in crate::mirror) unique: Vec<Unique>,
    /// The application's triggers that lastword is to guard before it writes.
    pub(in crate::mirror) unguarded: Vec<String>,
}

/// A unique index besides the primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mirror) struct Unique {
    pub(in crate::mirror) name: String,
    pub(in crate::mirror) columns: Vec<String>,
}

/// A column.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::mirror) struct Column {
    pub(in crate::mirror) name: String,
    pub(in crate::mirror) kind: Kind,
    /// The whole type, as in `CREATE TABLE`.
    pub(in crate::mirror) column_type: String,
    pub(in crate::mirror) charset: Option<String>,
    pub(in crate::mirror) collation: Option<String>,
    pub(in crate::mirror) is_nullable: bool,
    pub(in crate::mirror) absent: Absent,
}

/// What stands for a member that an object has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mirror) enum Absent {
    /// The column's default.
    Default,
    /// There is none.
    Refused,
    /// There is one, but each site would have its own.
    Varies,
}

/// What to do where a table is not there, and lastword does not know its columns.
pub(in crate::mirror) fn is_missing(table: &str) -> String {
    format!(
        "table {table}: it is not there: run the CREATE TABLE of the other sites, or give its [[table]] \
         columns and a primary_key, and lastword makes it"
    )
}

impl Columns {
    /// Judges a table.
    ///
    /// # Errors
    ///
    /// The reason, in one line, with the table's name and what to do.
    pub(in crate::mirror) fn of(
        table: &str,
        facts: &TableFacts,
        setting: &TableSetting,
    ) -> Result<Columns, String> {
        let engine = facts.engine.as_deref();
        if !engine.is_some_and(|engine| engine.eq_ignore_ascii_case("InnoDB")) {
            return Err(match engine {
                Some(engine) => format!(
                    "table {table}: it is {engine}, not InnoDB, so rows and checkpoint could not \
                     be one transaction: run ALTER TABLE `{table}` ENGINE=InnoDB"
                ),
                None => format!(
                    "table {table}: it is a view: take it out of the [[table]] settings, the \
                     tables behind it can be mirrored"
                ),
            });
        }
        let (generated, stored): (Vec<_>, Vec<_>) =
            facts.columns.iter().partition(|column| column.is_generated());
        let columns =
            stored.iter().map(|facts| Column::of(table, facts)).collect::<Result<Vec<_>, _>>()?;
        let key = key_of(table, facts, &columns, setting)?;
        let is_primary = |index: &&IndexFacts| index.name.eq_ignore_ascii_case("PRIMARY");
        let unique: Vec<_> = facts
            .indexes
            .iter()
            .filter(|index| index.is_unique && !is_primary(index))
            .map(|index| Unique {
                name: index.name.clone(),
                columns: index.columns.iter().map(|(name, _)| name.clone()).collect(),
            })
            .collect();
        if let Some(Unique { name, .. }) = unique.first().filter(|_| !setting.accepts_unique) {
            return Err(format!(
                "table {table}: its index {name} is unique besides the primary key, and of rows \
                 of two sites that collide in it only one can stand: run ALTER TABLE `{table}` \
                 DROP INDEX `{name}`, or set unique = \"accept\" in its [[table]]"
            ));
        }
        let contested = facts.indexes.iter().filter(|index| index.is_unique && !is_primary(index));
        for index in contested {
            let is_told = |(name, is_prefix): &(String, bool)| {
                !is_prefix && columns.iter().any(|column| column.name == *name)
            };
            if !index.columns.iter().all(is_told) {
                let name = &index.name;
                return Err(format!(
                    "table {table}: its unique index {name} has a computed column, or only the \
                     beginning of one, so it cannot be told which rows collide in it: run ALTER \
                     TABLE `{table}` DROP INDEX `{name}`, or make it of whole columns"
                ));
            }
        }
        if !setting.accepts_cascade {
            refuse_cascades(table, &facts.foreign_keys, setting)?;
        }
        let generated = generated.into_iter().map(|column| column.name.clone()).collect();
        let unguarded = unguarded(table, facts, setting)?;
        let of_key = |facts: &&ColumnFacts| key.iter().any(|&at| columns[at].name == facts.name);
        let key_folds = facts.columns.iter().filter(of_key).any(folds);
        let name = table.to_owned();
        Ok(Columns { name, columns, key, key_folds, generated, unique, unguarded })
    }

    /// The key's columns, in its order.
    pub(in crate::mirror) fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().map(|&at| &self.columns[at])
    }

    /// All that a row's JSON depends on, as text: where it differs the table was altered.
    pub(in crate::mirror) fn definition(&self) -> String {
        let mut text = String::new();
        for Column { name, column_type, charset, is_nullable, .. } in &self.columns {
            let charset = charset.as_deref().map(|name| format!(" {name}")).unwrap_or_default();
            let null = if *is_nullable { "" } else { " NOT NULL" };
            let _ = write!(text, "`{name}` {column_type}{charset}{null}, ");
        }
        let key: Vec<_> = self.key_columns().map(|column| format!("`{}`", column.name)).collect();
        let _ = write!(text, "PRIMARY KEY ({})", key.join(", "));
        text
    }

    /// Whether a row can collide with none but that of its own key.
    pub(in crate::mirror) fn is_told_by_key(&self) -> bool {
        self.unique.is_empty() && !self.key_folds
    }
}

impl Column {
    fn of(table: &str, facts: &ColumnFacts) -> Result<Column, String> {
        let ColumnFacts { name, column_type, .. } = facts;
        let kind = Kind::of(facts).ok_or_else(|| {
            format!(
                "table {table}: its column {name} is {column_type}, a type that lastword cannot \
                 keep as it is: run ALTER TABLE `{table}` MODIFY `{name}` VARCHAR(255), or another \
                 type, or take the table out of the [[table]] settings"
            )
        })?;
        Ok(Column {
            name: name.clone(),
            kind,
            column_type: column_type.clone(),
            charset: facts.charset.clone(),
            collation: facts.collation.clone(),
            is_nullable: facts.is_nullable,
            absent: Absent::of(facts),
        })
    }
}

impl Absent {
    fn of(facts: &ColumnFacts) -> Absent {
        if facts.extra.contains("auto_increment") || facts.extra.contains("default_generated") {
            return Absent::Varies;
        }
        match facts.default.as_deref() {
            None if facts.is_nullable => Absent::Default,
            None => Absent::Refused,
            // MariaDB writes texts in quotes, and expressions as they are.
            Some(text) if text.starts_with(['\'', 'b', 'x', '"']) && text.contains('\'') => {
                Absent::Default
            }
            Some(text)
                if text.contains('(') || text.to_ascii_lowercase().starts_with("current_") =>
            {
                Absent::Varies
            }
            Some(_) => Absent::Default,
        }
    }
}

fn key_of(
    table: &str,
    facts: &TableFacts,
    columns: &[Column],
    setting: &TableSetting,
) -> Result<Vec<usize>, String> {
    let primary = facts.indexes.iter().find(|index| index.name.eq_ignore_ascii_case("PRIMARY"));
    let Some(primary) = primary else {
        return Err(format!(
            "table {table}: it has no primary key, so no row could be told from another: run \
             ALTER TABLE `{table}` ADD PRIMARY KEY (...) with columns that are each row's own, or \
             ADD COLUMN id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY"
        ));
    };
    let mut key = Vec::new();
    for (name, is_prefix) in &primary.columns {
        if *is_prefix {
            return Err(format!(
                "table {table}: its primary key has only the beginning of {name}: run ALTER TABLE \
                 `{table}` DROP PRIMARY KEY, ADD PRIMARY KEY (...) with whole columns"
            ));
        }
        let Some(at) = columns.iter().position(|c| c.name.eq_ignore_ascii_case(name)) else {
            return Err(format!(
                "table {table}: its key column {name} is computed by MySQL: run ALTER TABLE \
                 `{table}` DROP PRIMARY KEY, ADD PRIMARY KEY (...) with columns that are written"
            ));
        };
        let column = &columns[at];
        if let Some(reason) = column.kind.refused_in_key() {
            return Err(format!(
                "table {table}: its key column {name} is {}, which {reason}, with ALTER TABLE \
                 `{table}` MODIFY `{name}` ...",
                column.column_type
            ));
        }
        let of_facts = facts.columns.iter().find(|c| c.name == column.name);
        let folds = of_facts.is_some_and(folds);
        if folds && !setting.accepts_key_collation {
            let charset = column.charset.as_deref().unwrap_or("utf8mb4");
            return Err(format!(
                "table {table}: its key column {name} has the collation {}, for which different \
                 keys are one, such as 'a' and 'A', or 'a' and 'a ': run ALTER TABLE `{table}` \
                 MODIFY `{name}` {} CHARACTER SET {charset} COLLATE {charset}_nopad_bin NOT NULL, \
                 or set key_collation = \"accept\" in its [[table]]",
                column.collation.as_deref().unwrap_or_default(),
                column.column_type
            ));
        }
        key.push(at);
    }
    Ok(key)
}

/// Whether two different contents may be one key to MySQL.
fn folds(facts: &ColumnFacts) -> bool {
    match facts.data_type.as_str() {
        // Their members are different for the collation.
        "enum" | "set" | "uuid" => false,
        // It never keeps spaces at the end.
        "char" => !facts.collation.as_deref().is_none_or(|name| name.ends_with("_bin")),
        _ => !facts.is_exact(),
    }
}

fn refuse_cascades(
    table: &str,
    foreign_keys: &[ForeignKeyFacts],
    setting: &TableSetting,
) -> Result<(), String> {
    let changes = |rule: &str| {
        ["CASCADE", "SET NULL", "SET DEFAULT"].iter().any(|word| rule.eq_ignore_ascii_case(word))
    };
    for ForeignKeyFacts { name, child, parent, on_update, on_delete } in foreign_keys {
        // What changes rows of the parent is written there by an application.
        let concerns = child == table || setting.capture;
        let rule = match (changes(on_delete), changes(on_update)) {
            _ if !concerns => continue,
            (true, _) => format!("ON DELETE {on_delete}"),
            (_, true) => format!("ON UPDATE {on_update}"),
            _ => continue,
        };
        return Err(format!(
            "table {table}: the foreign key {name} of {child} to {parent} is {rule}, and what \
             MySQL changes by it nobody is told: run ALTER TABLE `{child}` DROP FOREIGN KEY \
             `{name}` and add it anew with RESTRICT, or set cascade = \"accept\" in its [[table]]"
        ));
    }
    Ok(())
}

/// The triggers that are to be guarded.
fn unguarded(
    table: &str,
    facts: &TableFacts,
    setting: &TableSetting,
) -> Result<Vec<String>, String> {
    let names = facts
        .triggers
        .iter()
        .filter(|trigger| !trigger.name.starts_with("_lastword_"))
        .filter(|trigger| !trigger.body.to_ascii_lowercase().contains("@lastword_applying"))
        .map(|trigger| trigger.name.clone());
    match setting.triggers {
        Triggers::Accept => Ok(Vec::new()),
        Triggers::Guard => Ok(names.collect()),
        Triggers::Refuse => match names.into_iter().next() {
            None => Ok(Vec::new()),
            Some(name) => Err(format!(
                "table {table}: its trigger {name} would fire again for rows that other sites \
                 wrote: put its body into IF @lastword_applying IS NULL THEN ... END IF, or set \
                 triggers = \"guard\" in its [[table]] and lastword does it, or \"accept\""
            )),
        },
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::mirror::shape::TriggerFacts;

    pub(in crate::mirror::columns) fn column(name: &str, column_type: &str) -> ColumnFacts {
        let numbers: Vec<u64> = column_type
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(')'))
            .map(|(list, _)| list.split(',').filter_map(|n| n.parse().ok()).collect())
            .unwrap_or_default();
        let data_type = column_type.split(['(', ' ']).next().unwrap().to_owned();
        let is_text = ["char", "varchar", "text", "enum", "set"].contains(&data_type.as_str());
        ColumnFacts {
            name: name.into(),
            is_nullable: true,
            default: Some("NULL".into()),
            length_max: numbers.first().copied().or(Some(65_535)),
            digits: numbers.first().copied(),
            scale: numbers.get(1).copied(),
            fraction_digits: numbers.first().copied(),
            charset: is_text.then(|| "utf8mb4".into()),
            collation: is_text.then(|| "utf8mb4_nopad_bin".into()),
            column_type: column_type.into(),
            data_type,
            ..ColumnFacts::default()
        }
    }

    pub(in crate::mirror::columns) fn primary(columns: &[&str]) -> IndexFacts {
        let columns = columns.iter().map(|name| ((*name).to_owned(), false)).collect();
        IndexFacts { name: "PRIMARY".into(), is_unique: true, columns }
    }

    pub(in crate::mirror::columns) fn facts(columns: &[(&str, &str)], key: &[&str]) -> TableFacts {
        TableFacts {
            engine: Some("InnoDB".into()),
            columns: columns
                .iter()
                .map(|(name, column_type)| {
                    let facts = column(name, column_type);
                    match key.contains(name) {
                        true => ColumnFacts { is_nullable: false, default: None, ..facts },
                        false => facts,
                    }
                })
                .collect(),
            indexes: vec![primary(key)],
            ..TableFacts::default()
        }
    }

    fn film() -> TableFacts {
        let columns = [
            ("id", "int(10) unsigned"),
            ("title", "varchar(20)"),
            ("rate", "decimal(4,2)"),
            ("upper", "varchar(20)"),
        ];
        let mut facts = facts(&columns, &["id"]);
        facts.columns[3].extra = "virtual generated".into();
        facts
    }

    fn complaint(change: impl FnOnce(&mut TableFacts)) -> String {
        let mut facts = film();
        change(&mut facts);
        let text = Columns::of("film", &facts, &TableSetting::default()).unwrap_err();
        assert!(text.starts_with("table film: ") && !text.contains('\n'), "{text}");
        text
    }

    #[test]
    fn columns_that_mysql_computes_are_left_out() {
        let columns = Columns::of("film", &film(), &TableSetting::default()).unwrap();
        let names: Vec<_> = columns.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!((names, columns.key.as_slice()), (vec!["id", "title", "rate"], &[0][..]));
        assert_eq!(columns.generated, ["upper"]);
        assert_eq!(
            columns.definition(),
            "`id` int(10) unsigned NOT NULL, `title` varchar(20) utf8mb4, `rate` decimal(4,2), \
             PRIMARY KEY (`id`)"
        );
    }

    #[test]
    fn what_will_not_do_is_refused_with_the_way_out() {
        for (text, part) in [
            (complaint(|facts| facts.engine = None), "a view"),
            (complaint(|facts| facts.engine = Some("MyISAM".into())), "ENGINE=InnoDB"),
            (complaint(|facts| facts.indexes.clear()), "ADD PRIMARY KEY"),
            (complaint(|facts| facts.indexes[0].columns[0].1 = true), "whole columns"),
            (complaint(|facts| facts.indexes[0] = primary(&["upper"])), "computed by MySQL"),
            (complaint(|facts| facts.columns[1] = column("v", "vector(3)")), "column v is vector"),
            (complaint(|facts| facts.columns[0] = column("id", "double")), "make it DECIMAL"),
        ] {
            assert!(text.contains(part), "{text}");
        }
    }

    fn is_accepted(facts: &TableFacts, setting: TableSetting) -> bool {
        Columns::of("film", facts, &setting).is_ok()
    }

    #[test]
    fn keys_that_fold_are_refused_unless_accepted() {
        let mut facts = film();
        facts.indexes[0] = primary(&["title"]);
        assert!(is_accepted(&facts, TableSetting::default()));
        facts.columns[1].collation = Some("utf8mb4_general_ci".into());
        let text = Columns::of("film", &facts, &TableSetting::default()).unwrap_err();
        assert!(text.contains("COLLATE utf8mb4_nopad_bin NOT NULL"), "{text}");
        let accepts = TableSetting { accepts_key_collation: true, ..TableSetting::default() };
        assert!(!Columns::of("film", &facts, &accepts).unwrap().is_told_by_key());
        facts.columns[1].collation = Some("utf8mb4_bin".into());
        assert!(!is_accepted(&facts, TableSetting::default()));
        facts.columns[1].data_type = "char".into();
        assert!(is_accepted(&facts, TableSetting::default()));
    }

    #[test]
    fn further_unique_indexes_are_refused_unless_accepted() {
        let mut facts = film();
        facts.indexes.push(IndexFacts { name: "by_title".into(), ..primary(&["title"]) });
        let text = Columns::of("film", &facts, &TableSetting::default()).unwrap_err();
        assert!(text.contains("DROP INDEX `by_title`"), "{text}");
        let accepts = TableSetting { accepts_unique: true, ..TableSetting::default() };
        assert!(!Columns::of("film", &facts, &accepts).unwrap().is_told_by_key());
        facts.indexes.pop();
        assert!(Columns::of("film", &facts, &accepts).unwrap().is_told_by_key());
    }

    #[test]
    fn foreign_keys_that_change_rows_are_refused_unless_accepted() {
        let key = |child: &str, parent: &str, on_delete: &str| ForeignKeyFacts {
            name: "fk".into(),
            child: child.into(),
            parent: parent.into(),
            on_update: "RESTRICT".into(),
            on_delete: on_delete.into(),
        };
        let mut facts = film();
        facts.foreign_keys = vec![key("film", "language", "RESTRICT")];
        assert!(is_accepted(&facts, TableSetting::default()));
        facts.foreign_keys = vec![key("film", "language", "SET NULL")];
        assert!(!is_accepted(&facts, TableSetting::default()));
        let accepts = TableSetting { accepts_cascade: true, ..TableSetting::default() };
        assert!(is_accepted(&facts, accepts));
        // lastword's own session cascades nothing; an application that writes to the parent does.
        facts.foreign_keys = vec![key("inventory", "film", "CASCADE")];
        assert!(is_accepted(&facts, TableSetting::default()));
        assert!(!is_accepted(&facts, TableSetting { capture: true, ..TableSetting::default() }));
    }

    #[test]
    fn triggers_are_refused_guarded_or_accepted() {
        let mut facts = film();
        let trigger =
            |name: &str, body: &str| TriggerFacts { name: name.into(), body: body.into() };
        facts.triggers = vec![
            trigger("_lastword_ai_film", "INSERT"),
            trigger("a", "BEGIN IF @LASTWORD_APPLYING IS NULL THEN DO 1; END IF; END"),
        ];
        assert!(is_accepted(&facts, TableSetting::default()));
        facts.triggers.push(trigger("ins_film", "BEGIN DO 1; END"));
        assert!(!is_accepted(&facts, TableSetting::default()));
        let of = |triggers| {
            let setting = TableSetting { triggers, ..TableSetting::default() };
            Columns::of("film", &facts, &setting).unwrap().unguarded
        };
        assert_eq!(of(Triggers::Guard), ["ins_film"]);
        assert!(of(Triggers::Accept).is_empty());
    }

    #[test]
    fn defaults_that_differ_from_site_to_site_stand_for_nothing() {
        let absent = |default: Option<&str>, extra: &str| {
            Absent::of(&ColumnFacts {
                default: default.map(str::to_owned),
                extra: extra.into(),
                ..ColumnFacts::default()
            })
        };
        for constant in ["'G'", "'uuid()'", "NULL", "4.99", "b'101'", "-1"] {
            assert_eq!(absent(Some(constant), ""), Absent::Default, "{constant}");
        }
        for varies in ["current_timestamp()", "CURRENT_TIMESTAMP", "uuid()", "(rand() * 2)"] {
            assert_eq!(absent(Some(varies), ""), Absent::Varies, "{varies}");
        }
        assert_eq!(absent(None, "auto_increment"), Absent::Varies);
        assert_eq!(absent(None, ""), Absent::Refused);
    }
}
