//! The outbox of a captured table, and the triggers that fill it: the text of their statements. Pure.
//!
//! ```text
//! an application's INSERT, UPDATE, DELETE --> trigger --> the row's key into the outbox, in its transaction
//! capture: entries and rows of one snapshot --> the store --> entries deleted, or marked `handed`
//! mirror:  a row with an entry that is not handed over is passed over, and noted there as `missed`
//! ```
//!
//! An entry is a key and nothing more: no value passes through the text, the character set or the time
//! zone of a session that is not lastword's own, and no change of any other column can break an
//! application's write. The row is read by the capture itself, as it stands.

use std::fmt::Write;

use crate::mirror::{
    columns::{Column, Columns, placeholder, quoted},
    statement::{Param, Statement, repeat},
};

/// The longest name that MySQL takes, in characters.
const NAME_CHARS_MAX: usize = 64;
const OUTBOX: &str = "_lastword_capture_";
/// Before the names of lastword's own triggers.
const TRIGGER: &str = "_lastword_a";
/// Digits that stand for the rest of a name that is too long.
const HASH_DIGITS: usize = 16;

/// A captured table, as far as its outbox depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::mirror) struct Outbox {
    table: String,
    name: String,
    key: Vec<KeyColumn>,
}

/// A column of the table's primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct KeyColumn {
    name: String,
    /// Its type, with character set and collation where it has them.
    column_type: String,
    /// What it is compared with.
    placeholder: String,
}

impl KeyColumn {
    fn of(column: &Column) -> KeyColumn {
        let mut column_type = column.column_type.clone();
        if let (Some(charset), Some(collation)) = (&column.charset, &column.collation) {
            let _ = write!(column_type, " CHARACTER SET {charset} COLLATE {collation}");
        }
        let placeholder = placeholder(column);
        KeyColumn { name: column.name.clone(), column_type, placeholder }
    }
}

impl Outbox {
    pub(in crate::mirror) fn of(columns: &Columns) -> Outbox {
        let table = columns.name.clone();
        let name = named(OUTBOX, &table);
        Outbox { table, name, key: columns.key_columns().map(KeyColumn::of).collect() }
    }

    /// The outbox's own name.
    pub(in crate::mirror) fn name(&self) -> &str {
        &self.name
    }

    /// The outbox itself. Its key columns take NULL only so that no TIMESTAMP follows the clock.
    pub(in crate::mirror) fn create(&self) -> String {
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS `{}` (seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY \
             KEY, handed TINYINT UNSIGNED NOT NULL DEFAULT 0 COMMENT '1: the store has it, and \
             the row is to be written by the mirror', missed_hlc BIGINT UNSIGNED NULL, \
             missed_origin BINARY(16) NULL COMMENT 'a version that was not written over the \
             application''s row'",
            self.name
        );
        for KeyColumn { name, column_type, .. } in &self.key {
            let _ = write!(sql, ", {} {column_type} NULL", own(name));
        }
        let _ = write!(sql, ", KEY (handed), KEY ({})) ENGINE=InnoDB", self.columns());
        sql
    }

    /// The triggers: name, event, and body.
    pub(in crate::mirror) fn triggers(&self) -> [(String, &'static str, String); 3] {
        let insert = |row: &str| {
            let values: Vec<_> =
                self.key.iter().map(|column| format!("{row}.{}", quoted(&column.name))).collect();
            let columns = self.columns();
            format!("INSERT INTO `{}` ({columns}) VALUES ({});", self.name, values.join(", "))
        };
        let same: Vec<_> = self
            .key
            .iter()
            .map(|column| {
                // As bytes: a key that changes its case alone is another one to the store.
                let name = quoted(&column.name);
                format!("BINARY OLD.{name} <=> BINARY NEW.{name}")
            })
            .collect();
        let update = format!(
            "IF NOT ({}) THEN {} END IF; {}",
            same.join(" AND "),
            insert("OLD"),
            insert("NEW")
        );
        [("i", "INSERT", insert("NEW")), ("u", "UPDATE", update), ("d", "DELETE", insert("OLD"))]
            .map(|(letter, event, body)| {
                let name = named(&format!("{TRIGGER}{letter}_"), &self.table);
                let body = format!("IF @lastword_applying IS NULL THEN {body} END IF");
                (name, event, body)
            })
    }

    /// Makes a trigger, in place of one of that name.
    pub(in crate::mirror) fn create_trigger(&self, name: &str, event: &str, body: &str) -> String {
        format!(
            "CREATE OR REPLACE TRIGGER `{name}` AFTER {event} ON {} FOR EACH ROW {body}",
            quoted(&self.table)
        )
    }

    /// Entries, the oldest first: seq, handed, what was missed, the key. Those that are handed over already
    /// besides.
    pub(in crate::mirror) fn entries(&self, rows_max: usize) -> Statement {
        let columns = format!("seq, handed, missed_hlc, missed_origin, {}", self.columns());
        let name = &self.name;
        Statement::new(
            format!(
                "(SELECT {columns} FROM `{name}` WHERE handed = 0 ORDER BY seq LIMIT ?) \
                 UNION ALL (SELECT {columns} FROM `{name}` WHERE handed = 1 ORDER BY seq LIMIT ?)"
            ),
            [count(rows_max), count(rows_max)],
        )
    }

    /// The rows that these entries name, as far as they are there: seq, then all that `columns` reads.
    pub(in crate::mirror) fn rows(&self, columns: &Columns, entries: &[u64]) -> Statement {
        let joined = self.same_key();
        let mut sql = format!(
            "SELECT o.seq, {} FROM `{}` o JOIN {} t ON {} WHERE o.seq IN (",
            columns.select_list("t."),
            self.name,
            quoted(&self.table),
            joined.join(" AND ")
        );
        close_list(&mut sql, entries.len());
        Statement::new(sql, numbers(entries))
    }

    /// The entries of these keys, locked: seq, handed, the key.
    pub(in crate::mirror) fn of_keys(&self, keys: &[&[Param]]) -> Statement {
        let mut statement = self.noted(keys);
        statement.sql.push_str(" FOR UPDATE");
        statement
    }

    /// The same, as they stand.
    pub(in crate::mirror) fn noted(&self, keys: &[&[Param]]) -> Statement {
        let same: Vec<_> = self
            .key
            .iter()
            .map(|column| format!("{} = {}", own(&column.name), column.placeholder))
            .collect();
        let columns = self.columns();
        let mut sql = format!("SELECT seq, handed, {columns} FROM `{}` WHERE ", self.name);
        // Not (a, b) IN (...): MariaDB would read the whole table.
        repeat(&mut sql, &format!("({})", same.join(" AND ")), " OR ", keys.len());
        Statement::new(sql, keys.concat())
    }

    /// Notes in these entries that a version was not written.
    pub(in crate::mirror) fn miss(&self, entries: &[u64], hlc: u64, origin: Param) -> Statement {
        let mut sql =
            format!("UPDATE `{}` SET missed_hlc = ?, missed_origin = ? WHERE seq IN (", self.name);
        close_list(&mut sql, entries.len());
        let mut params = vec![Param::Number(hlc), origin];
        params.extend(numbers(entries));
        Statement::new(sql, params)
    }

    /// Deletes entries whose rows the mirror has written.
    pub(in crate::mirror) fn settle(&self, entries: &[u64]) -> Statement {
        let mut sql = format!("DELETE FROM `{}` WHERE handed = 1 AND seq IN (", self.name);
        close_list(&mut sql, entries.len());
        Statement::new(sql, numbers(entries))
    }

    /// The keys whose rows the mirror owes: the key.
    pub(in crate::mirror) fn owed(&self, rows_max: usize) -> Statement {
        let columns = self.columns();
        Statement::new(
            format!("SELECT {columns} FROM `{}` WHERE handed = 1 ORDER BY seq LIMIT ?", self.name),
            [count(rows_max)],
        )
    }

    /// How many entries wait: up to `entries_max`.
    pub(in crate::mirror) fn pending(&self, entries_max: usize) -> Statement {
        let sql = format!(
            "SELECT COUNT(*) FROM (SELECT 1 FROM `{}` WHERE handed = 0 LIMIT {entries_max}) waiting",
            self.name
        );
        Statement::new(sql, [])
    }

    /// Finds nothing; an error where a column is not there.
    pub(in crate::mirror) fn nothing(&self) -> Statement {
        let columns = self.columns();
        Statement::new(
            format!(
                "SELECT seq, handed, missed_hlc, missed_origin, {columns} FROM `{}` LIMIT 0",
                self.name
            ),
            [],
        )
    }

    /// Gives the key's columns the types that they have in the table.
    pub(in crate::mirror) fn adjust(&self) -> String {
        let columns: Vec<_> = self
            .key
            .iter()
            .map(|KeyColumn { name, column_type, .. }| {
                format!("MODIFY {} {column_type} NULL", own(name))
            })
            .collect();
        format!("ALTER TABLE `{}` {}", self.name, columns.join(", "))
    }

    /// Makes entries of these keys.
    pub(in crate::mirror) fn touch(&self, keys: &[&[Param]]) -> Statement {
        let mut one = String::from("(");
        repeat(&mut one, "?", ", ", self.key.len());
        one.push(')');
        let mut sql = format!("INSERT INTO `{}` ({}) VALUES ", self.name, self.columns());
        repeat(&mut sql, &one, ", ", keys.len());
        Statement::new(sql, keys.concat())
    }

    /// Makes entries of the rows behind `after`, up to `end`.
    pub(in crate::mirror) fn touch_within(
        &self,
        columns: &Columns,
        after: Option<&[Param]>,
        end: Option<&[Param]>,
    ) -> Statement {
        let names: Vec<_> = self.key.iter().map(|column| quoted(&column.name)).collect();
        let Statement { sql: within, params } = columns.within(after, end);
        Statement::new(
            format!(
                "INSERT INTO `{}` ({}) SELECT {} FROM {}{within}",
                self.name,
                self.columns(),
                names.join(", "),
                quoted(&self.table)
            ),
            params,
        )
    }

    /// The rows of these keys, as far as they are there: whether an entry of it waits, then all that `columns`
    /// reads.
    pub(in crate::mirror) fn rows_of(&self, columns: &Columns, keys: &[&[Param]]) -> Statement {
        let entry = format!(
            "EXISTS (SELECT 1 FROM `{}` o WHERE o.handed = 0 AND {})",
            self.name,
            self.same_key().join(" AND ")
        );
        self.at(&format!("{entry}, {}", columns.select_list("t.")), keys)
    }

    /// The keys of these that are there.
    pub(in crate::mirror) fn keys_of(&self, columns: &Columns, keys: &[&[Param]]) -> Statement {
        self.at(&columns.key_list("t."), keys)
    }

    fn at(&self, what: &str, keys: &[&[Param]]) -> Statement {
        let one: Vec<_> = self
            .key
            .iter()
            .map(|column| format!("t.{} = {}", quoted(&column.name), column.placeholder))
            .collect();
        let mut sql = format!("SELECT {what} FROM {} t WHERE ", quoted(&self.table));
        // Not (a, b) IN (...): MariaDB would read the whole table.
        repeat(&mut sql, &format!("({})", one.join(" AND ")), " OR ", keys.len());
        Statement::new(sql, keys.concat())
    }

    fn same_key(&self) -> Vec<String> {
        let same =
            |KeyColumn { name, .. }: &KeyColumn| format!("t.{} = o.{}", quoted(name), own(name));
        self.key.iter().map(same).collect()
    }

    fn columns(&self) -> String {
        let names: Vec<_> = self.key.iter().map(|column| own(&column.name)).collect();
        names.join(", ")
    }
}

/// Which of these outboxes hold anything: their places in the list. Each is a look at one end of an index.
pub(in crate::mirror) fn look(outboxes: &[&Outbox]) -> Option<Statement> {
    let looks: Vec<_> = outboxes
        .iter()
        .enumerate()
        .map(|(at, outbox)| {
            format!("(SELECT {at} FROM `{}` WHERE handed = 0 LIMIT 1)", outbox.name)
        })
        .collect();
    (!looks.is_empty()).then(|| Statement::new(looks.join(" UNION ALL "), []))
}

/// Deletes entries that the store has; those stay that missed a version meanwhile.
pub(in crate::mirror) fn delete(outbox: &str, entries: &[u64]) -> Statement {
    let mut sql = format!("DELETE FROM `{outbox}` WHERE missed_hlc IS NULL AND seq IN (");
    close_list(&mut sql, entries.len());
    Statement::new(sql, numbers(entries))
}

/// Those that stay: their rows are the mirror's to write.
pub(in crate::mirror) fn hand(outbox: &str, entries: &[u64]) -> Statement {
    let mut sql = format!("UPDATE `{outbox}` SET handed = 1 WHERE seq IN (");
    close_list(&mut sql, entries.len());
    Statement::new(sql, numbers(entries))
}

/// Whether a trigger or a table is lastword's own.
pub(in crate::mirror) fn is_own(name: &str) -> bool {
    name.starts_with("_lastword_")
}

/// A name with `prefix` for a table, short enough.
fn named(prefix: &str, table: &str) -> String {
    if prefix.len() + table.len() <= NAME_CHARS_MAX {
        return format!("{prefix}{table}");
    }
    let hash = blake3::hash(table.as_bytes()).to_hex();
    let kept = NAME_CHARS_MAX - prefix.len() - HASH_DIGITS - 1;
    format!("{prefix}{}_{}", &table[..kept], &hash[..HASH_DIGITS])
}

/// The outbox's column for one of the table's key; MySQL's names have 64 characters at most.
fn own(column: &str) -> String {
    let name = format!("k_{column}");
    if name.chars().count() <= NAME_CHARS_MAX {
        return quoted(&name);
    }
    let hash = blake3::hash(column.as_bytes()).to_hex();
    format!("`k_{}`", &hash[..HASH_DIGITS])
}

fn count(number: usize) -> Param {
    Param::Number(number as u64)
}

fn numbers(numbers: &[u64]) -> Vec<Param> {
    numbers.iter().copied().map(Param::Number).collect()
}

fn close_list(sql: &mut String, values: usize) {
    repeat(sql, "?", ", ", values);
    sql.push(')');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::columns::{Absent, Kind};

    fn columns(table: &str, key: &[&str]) -> Columns {
        let kind = Kind::Integer { min: 0, max: 9 };
        let column = |name: &&str| Column {
            name: (*name).into(),
            kind: kind.clone(),
            column_type: "int(11)".into(),
            charset: None,
            collation: None,
            is_nullable: false,
            absent: Absent::Refused,
        };
        Columns {
            name: table.into(),
            columns: key.iter().map(column).collect(),
            key: (0..key.len()).collect(),
            key_folds: false,
            generated: Vec::new(),
            unique: Vec::new(),
            unguarded: Vec::new(),
        }
    }

    fn outbox(table: &str, key: &[&str]) -> Outbox {
        Outbox::of(&columns(table, key))
    }

    #[test]
    fn names_are_short_enough_and_their_own() {
        assert_eq!(outbox("film", &["id"]).name(), "_lastword_capture_film");
        let (one, two) = ("t".repeat(63), "t".repeat(62) + "u");
        let (one, two) = (outbox(&one, &["id"]), outbox(&two, &["id"]));
        assert_eq!(one.name().len(), 64);
        assert_ne!(one.name(), two.name());
        for (name, ..) in one.triggers() {
            assert!(name.len() == 64 && is_own(&name), "{name}");
        }
        assert_eq!(own(&"c".repeat(64)).len(), 2 + 2 + HASH_DIGITS);
        assert_eq!(own("a`b"), "`k_a``b`");
    }

    #[test]
    fn an_outbox_has_the_keys_columns_and_follows_no_clock() {
        let sql = outbox("line", &["order", "no"]).create();
        assert!(sql.contains("`k_order` int(11) NULL, `k_no` int(11) NULL"), "{sql}");
        assert!(sql.contains("KEY (`k_order`, `k_no`)"), "{sql}");
    }

    #[test]
    fn triggers_name_the_key_alone_and_are_silent_for_lastword() {
        let triggers = outbox("line", &["order", "no"]).triggers();
        for (_, _, body) in &triggers {
            assert!(body.starts_with("IF @lastword_applying IS NULL THEN "), "{body}");
            assert!(body.ends_with("; END IF"), "{body}");
        }
        let [(_, _, insert), (_, _, update), (name, event, delete)] = triggers;
        assert!(insert.contains("VALUES (NEW.`order`, NEW.`no`);"), "{insert}");
        assert!(delete.contains("VALUES (OLD.`order`, OLD.`no`);"), "{delete}");
        assert!(
            update.contains("IF NOT (BINARY OLD.`order` <=> BINARY NEW.`order` AND BINARY"),
            "{update}"
        );
        let sql = outbox("line", &["order", "no"]).create_trigger(&name, event, &delete);
        assert!(
            sql.starts_with(
                "CREATE OR REPLACE TRIGGER `_lastword_ad_line` AFTER DELETE ON `line` FOR EACH ROW"
            ),
            "{sql}"
        );
    }

    #[test]
    fn each_placeholder_has_a_parameter() {
        let outbox = outbox("line", &["order", "no"]);
        let key = vec![Param::Number(1), Param::Number(2)];
        for statement in [
            outbox.entries(10),
            outbox.rows(&columns("line", &["order", "no"]), &[1, 2, 3]),
            delete("o", &[1, 2]),
            hand("o", &[1]),
            outbox.of_keys(&[&key, &key]),
            outbox.miss(&[1, 2], 7, Param::Null),
            outbox.settle(&[1]),
            outbox.owed(5),
            outbox.pending(10),
            outbox.nothing(),
            outbox.touch(&[&key, &key]),
            outbox.touch_within(&columns("line", &["order", "no"]), Some(&key), Some(&key)),
            outbox.rows_of(&columns("line", &["order", "no"]), &[&key, &key]),
            outbox.keys_of(&columns("line", &["order", "no"]), &[&key]),
            look(&[&outbox, &outbox]).unwrap(),
        ] {
            let placeholders = statement.sql.matches('?').count();
            assert_eq!(placeholders, statement.params.len(), "{}", statement.sql);
        }
        assert!(look(&[]).is_none());
    }
}
