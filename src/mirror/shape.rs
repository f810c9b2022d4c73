//! Whether a MySQL table can hold the mirror of a store's table, from what MySQL says of it.
//!
//! lastword makes its tables itself. One that is there already is taken as it is, provided that
//! each row can stand in it exactly, found by its key. Pure.

use std::fmt::Write;

/// What `information_schema` says of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct TableFacts {
    /// `None` for a view.
    pub(super) engine: Option<String>,
    pub(super) columns: Vec<ColumnFacts>,
    pub(super) indexes: Vec<IndexFacts>,
    /// Of it, and those of others that name it.
    pub(super) foreign_keys: Vec<ForeignKeyFacts>,
    pub(super) triggers: Vec<TriggerFacts>,
}

/// What it says of a foreign key.
#[derive(Clone, Debug, Default)]
pub(super) struct ForeignKeyFacts {
    pub(super) name: String,
    /// Where it is declared.
    pub(super) child: String,
    /// What it names.
    pub(super) parent: String,
    /// Such as `CASCADE`.
    pub(super) on_update: String,
    pub(super) on_delete: String,
}

/// What it says of a trigger.
#[derive(Clone, Debug, Default)]
pub(super) struct TriggerFacts {
    pub(super) name: String,
    /// Its body, as it was written.
    pub(super) body: String,
}

/// What it says of a column.
#[derive(Clone, Debug, Default)]
pub(super) struct ColumnFacts {
    pub(super) name: String,
    /// Such as `varchar`.
    pub(super) data_type: String,
    /// Such as `varchar(8)`, or `enum('A','b')`.
    pub(super) column_type: String,
    pub(super) is_nullable: bool,
    /// It has a default, or MySQL computes it.
    pub(super) has_default: bool,
    /// Characters for text, bytes else.
    pub(super) length_max: Option<u64>,
    pub(super) collation: Option<String>,
    /// The default as MySQL writes it down.
    pub(super) default: Option<String>,
    /// What it says besides, in small letters: such as `auto_increment`.
    pub(super) extra: String,
    pub(super) charset: Option<String>,
    /// Of a number; of BIT its bits.
    pub(super) digits: Option<u64>,
    /// Of them, those behind the point.
    pub(super) scale: Option<u64>,
    /// Behind the seconds.
    pub(super) fraction_digits: Option<u64>,
}

impl ColumnFacts {
    /// Whether MySQL computes it.
    pub(super) fn is_generated(&self) -> bool {
        ["virtual generated", "stored generated", "persistent"]
            .iter()
            .any(|word| self.extra.contains(word))
    }

    /// Whether different contents are never equal to MySQL. Collations other than these take letters of
    /// either case for equal, or spaces at the end for nothing: "a" and "a " are one key to utf8mb4_bin.
    pub(super) fn is_exact(&self) -> bool {
        self.collation
            .as_deref()
            .is_none_or(|name| name.ends_with("_nopad_bin") || name.ends_with("_0900_bin"))
    }
}

/// What it says of an index.
#[derive(Clone, Debug, Default)]
pub(super) struct IndexFacts {
    pub(super) name: String,
    pub(super) is_unique: bool,
    /// In order; `true`: only a prefix of the column.
    pub(super) columns: Vec<(String, bool)>,
}

/// A table that can hold a mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    key: Column,
    value: Column,
    has_expiry_index: bool,
}

/// How a column stores keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Characters, in whatever character set; else bytes.
    pub(super) is_text: bool,
    /// BINARY or CHAR: what is shorter is filled up.
    pub(super) is_fixed: bool,
    /// In characters for text, in bytes else.
    pub(super) length_max: u64,
    /// Two contents are equal to MySQL only where they are the same bytes.
    pub(super) is_exact: bool,
}

impl Shape {
    /// The column `k`.
    pub(super) fn key(&self) -> &Column {
        &self.key
    }

    /// The column `v`.
    pub(super) fn value(&self) -> &Column {
        &self.value
    }

    /// Whether MySQL finds expired rows without reading the whole table.
    pub(super) fn has_expiry_index(&self) -> bool {
        self.has_expiry_index
    }

    /// Judges a table.
    ///
    /// # Errors
    ///
    /// The reason, in one line, with the table's name and what to do.
    pub(super) fn of(table: &str, facts: &TableFacts) -> Result<Shape, String> {
        let engine = facts.engine.as_deref();
        if !engine.is_some_and(|engine| engine.eq_ignore_ascii_case("InnoDB")) {
            return Err(format!(
                "table {table}: it is no InnoDB table ({}), so rows and checkpoint could not be \
                 one transaction: run ALTER TABLE `{table}` ENGINE=InnoDB, or rename it away",
                engine.unwrap_or("a view")
            ));
        }
        let column = |name: &str| facts.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name));
        let missing: Vec<_> = COLUMNS.iter().filter(|(name, ..)| column(name).is_none()).collect();
        if !missing.is_empty() {
            let names: Vec<_> = missing.iter().map(|(name, ..)| *name).collect();
            let mut alter = String::new();
            for (name, _, definition) in missing {
                let _ = write!(alter, " ADD COLUMN {name} {definition},");
            }
            return Err(format!(
                "table {table}: it lacks the columns {}: run ALTER TABLE `{table}`{}; or rename \
                 it away, and the mirror makes its own",
                names.join(", "),
                alter.trim_end_matches(',')
            ));
        }
        for &(name, types, definition) in &COLUMNS {
            let facts = column(name).expect("none is missing");
            if !types.iter().any(|fits| *fits == facts.data_type || *fits == facts.column_type) {
                return Err(wrong_column(table, name, &facts.column_type, definition));
            }
        }
        if !column("expires_at").is_some_and(|facts| facts.is_nullable) {
            return Err(wrong_column(table, "expires_at", "NOT NULL", "DATETIME(6) NULL"));
        }
        let ours = |name: &str| COLUMNS.iter().any(|(our, ..)| our.eq_ignore_ascii_case(name));
        if let Some(other) =
            facts.columns.iter().find(|c| !ours(&c.name) && !c.is_nullable && !c.has_default)
        {
            let name = &other.name;
            return Err(format!(
                "table {table}: no row can be added without its column {name}: run ALTER TABLE \
                 `{table}` MODIFY `{name}` {} NULL",
                other.column_type
            ));
        }
        let key_index = [("k".to_owned(), false)];
        let unique = || facts.indexes.iter().filter(|index| index.is_unique);
        if !unique().any(|index| lower(&index.columns) == key_index) {
            return Err(format!(
                "table {table}: k is not its primary key: run ALTER TABLE `{table}` DROP PRIMARY \
                 KEY, ADD PRIMARY KEY (k)"
            ));
        }
        // A row would take the place of one with another key.
        if let Some(index) = unique().find(|index| lower(&index.columns) != key_index) {
            let name = &index.name;
            return Err(format!(
                "table {table}: the index {name} is unique, but only k may be: run ALTER TABLE \
                 `{table}` DROP INDEX `{name}`"
            ));
        }
        Ok(Shape {
            key: Column::of(column("k").expect("none is missing")),
            value: Column::of(column("v").expect("none is missing")),
            has_expiry_index: facts
                .indexes
                .iter()
                .any(|index| lower(&index.columns).first().is_some_and(|c| c.0 == "expires_at")),
        })
    }
}

impl Column {
    fn of(facts: &ColumnFacts) -> Column {
        Column {
            is_text: facts.collation.is_some(),
            is_fixed: matches!(facts.data_type.as_str(), "binary" | "char"),
            length_max: facts.length_max.unwrap_or_default(),
            is_exact: facts.is_exact(),
        }
    }
}

const KEY_TYPES: &[&str] = &["varbinary", "binary", "varchar", "char"];
const VALUE_TYPES: &[&str] = &[
    "varbinary",
    "binary",
    "varchar",
    "char",
    "tinyblob",
    "blob",
    "mediumblob",
    "longblob",
    "tinytext",
    "text",
    "mediumtext",
    "longtext",
];
/// Older servers show a width.
const HLC_TYPES: &[&str] = &["bigint unsigned", "bigint(20) unsigned"];

/// The columns: name, the types or whole column types that will do, the definition to propose.
const COLUMNS: [(&str, &[&str], &str); 6] = [
    ("k", KEY_TYPES, "VARBINARY(512) NOT NULL PRIMARY KEY"),
    ("v", VALUE_TYPES, "MEDIUMBLOB NOT NULL"),
    ("hlc", HLC_TYPES, "BIGINT UNSIGNED NOT NULL"),
    ("origin", &["binary(16)"], "BINARY(16) NOT NULL"),
    ("updated_at", &["datetime(6)"], "DATETIME(6) NOT NULL"),
    ("expires_at", &["datetime(6)"], "DATETIME(6) NULL"),
];

fn lower(columns: &[(String, bool)]) -> Vec<(String, bool)> {
    columns.iter().map(|(name, prefix)| (name.to_ascii_lowercase(), *prefix)).collect()
}

fn wrong_column(table: &str, column: &str, found: &str, wanted: &str) -> String {
    let wanted = wanted.trim_end_matches(" PRIMARY KEY");
    format!(
        "table {table}: its column {column} is {found}: run ALTER TABLE `{table}` MODIFY {column} \
         {wanted}; or rename the table away, and the mirror makes its own"
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::mirror) fn bytes_column(length_max: u64) -> Column {
        Column { is_text: false, is_fixed: false, length_max, is_exact: true }
    }

    pub(in crate::mirror) fn text_column(length_max: u64) -> Column {
        Column { is_text: true, is_exact: false, ..bytes_column(length_max) }
    }

    pub(in crate::mirror) fn shape_of(key: Column, value: Column) -> Shape {
        Shape { key, value, has_expiry_index: true }
    }

    fn column(name: &str, column_type: &str, is_nullable: bool) -> ColumnFacts {
        ColumnFacts {
            name: name.into(),
            data_type: column_type.split(['(', ' ']).next().unwrap().into(),
            column_type: column_type.into(),
            is_nullable,
            length_max: Some(512),
            ..ColumnFacts::default()
        }
    }

    fn index(name: &str, is_unique: bool, column: &str) -> IndexFacts {
        IndexFacts { name: name.into(), is_unique, columns: vec![(column.into(), false)] }
    }

    fn own_table() -> TableFacts {
        TableFacts {
            engine: Some("InnoDB".into()),
            columns: vec![
                column("k", "varbinary(512)", false),
                column("v", "mediumblob", false),
                column("hlc", "bigint(20) unsigned", false),
                column("origin", "binary(16)", false),
                column("updated_at", "datetime(6)", false),
                column("expires_at", "datetime(6)", true),
            ],
            indexes: vec![index("PRIMARY", true, "k"), index("expires_at", false, "expires_at")],
            ..TableFacts::default()
        }
    }

    fn complaint(change: impl FnOnce(&mut TableFacts)) -> String {
        let mut facts = own_table();
        change(&mut facts);
        let text = Shape::of("shop", &facts).unwrap_err();
        assert!(text.starts_with("table shop: ") && !text.contains('\n'), "{text}");
        text
    }

    #[test]
    fn the_mirrors_own_table_will_do() {
        let shape = Shape::of("shop", &own_table()).unwrap();
        assert_eq!(shape.key(), &bytes_column(512));
        assert!(shape.has_expiry_index());
    }

    #[test]
    fn text_columns_and_more_columns_will_do() {
        let mut facts = own_table();
        facts.columns[0] = ColumnFacts {
            collation: Some("utf8mb4_general_ci".into()),
            ..column("K", "varchar(8)", false)
        };
        facts.columns.push(column("note", "int(11)", true));
        facts.columns.push(ColumnFacts { has_default: true, ..column("n", "int(11)", false) });
        let shape = Shape::of("shop", &facts).unwrap();
        assert!(shape.key().is_text && !shape.key().is_exact);
    }

    #[test]
    fn only_collations_that_compare_every_byte_are_exact() {
        for (collation, exact) in [
            ("utf8mb4_bin", false),
            ("utf8mb4_nopad_bin", true),
            ("utf8mb4_0900_bin", true),
            ("utf8mb4_0900_ai_ci", false),
            ("latin1_swedish_ci", false),
        ] {
            let facts = ColumnFacts {
                collation: Some(collation.into()),
                ..column("k", "varchar(8)", false)
            };
            assert_eq!(Column::of(&facts).is_exact, exact, "{collation}");
        }
    }

    #[test]
    fn what_will_not_do_is_named_with_the_way_out() {
        let text = complaint(|facts| {
            facts.columns.retain(|column| column.name != "hlc" && column.name != "origin");
        });
        assert!(text.contains("lacks the columns hlc, origin"), "{text}");
        assert!(
            text.contains(
                "ALTER TABLE `shop` ADD COLUMN hlc BIGINT UNSIGNED NOT NULL, ADD COLUMN origin \
                 BINARY(16) NOT NULL;"
            ),
            "{text}"
        );
        let text = complaint(|facts| facts.columns[2].column_type = "bigint(20)".into());
        assert!(text.contains("column hlc is bigint(20)"), "{text}");
        let text = complaint(|facts| facts.columns[1] = column("v", "int(11)", false));
        assert!(text.contains("MODIFY v MEDIUMBLOB NOT NULL"), "{text}");
        let text = complaint(|facts| facts.columns[5].is_nullable = false);
        assert!(text.contains("MODIFY expires_at DATETIME(6) NULL"), "{text}");
        let text = complaint(|facts| facts.engine = Some("MyISAM".into()));
        assert!(text.contains("ENGINE=InnoDB"), "{text}");
        let text = complaint(|facts| facts.engine = None);
        assert!(text.contains("a view"), "{text}");
        let text = complaint(|facts| facts.indexes[0] = index("PRIMARY", true, "id"));
        assert!(text.contains("ADD PRIMARY KEY (k)"), "{text}");
        let text = complaint(|facts| facts.indexes[0].columns[0].1 = true);
        assert!(text.contains("ADD PRIMARY KEY (k)"), "{text}");
        let text = complaint(|facts| facts.indexes.push(index("v", true, "v")));
        assert!(text.contains("DROP INDEX `v`"), "{text}");
        let text = complaint(|facts| facts.columns.push(column("id", "int(11)", false)));
        assert!(text.contains("MODIFY `id` int(11) NULL"), "{text}");
    }
}
