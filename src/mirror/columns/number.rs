//! The rows of a column table as one number each, computed alike by MySQL and here. Pure.
//!
//! ```text
//! SHA-256 of the columns' texts, with commas between: a number, a decimal, a time as MySQL prints it,
//!     a text or bytes in hexadecimal, NULL as '-'
//! ```
//!
//! Its first 64 bits stand for a row, their XOR for any set of rows. No two rows have the same text before they are
//! hashed. The other way around one row may have two texts, where MySQL prints otherwise what it keeps as it was told
//! (a text of JSON in MySQL 8): then the row is fetched, and its number computed here from its cells.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    codec::RowParams,
    kind::Kind,
    schema::{Absent, Column, Columns},
    sql::name_of,
};
use crate::{
    mirror::{
        mysql::Cell,
        statement::{Param, Statement},
    },
    model::Key,
};

/// How many rows a statement fetches whose columns may be large, and others.
const LARGE_ROWS_MAX: usize = 16;
const ROWS_MAX: usize = 250;
/// A column that takes more bytes or characters than this is large.
const LARGE: u64 = 16_384;

impl Columns {
    /// Count and sum of the rows with these keys.
    pub(in crate::mirror) fn sum_of(&self, keys: &[&[Param]]) -> Statement {
        self.at(&format!("SELECT COUNT(*),BIT_XOR({}) FROM", self.number_sql()), keys)
    }

    /// Number and key of the rows with these keys.
    pub(in crate::mirror) fn numbers_of(&self, keys: &[&[Param]]) -> Statement {
        self.at(&format!("SELECT {},{} FROM", self.number_sql(), self.key_list("")), keys)
    }

    /// How many rows are fetched at a time.
    pub(in crate::mirror) fn fetch_rows_max(&self) -> usize {
        let is_large = |column: &Column| match column.kind {
            Kind::Text { length_max, .. } | Kind::Bytes { length_max, .. } => length_max > LARGE,
            _ => false,
        };
        if self.columns.iter().any(is_large) { LARGE_ROWS_MAX } else { ROWS_MAX }
    }

    /// Some row with the defaults in place of what has one, as [`Columns::defaults_in`] reads it; nothing
    /// where the table is empty.
    pub(in crate::mirror) fn defaults(&self) -> Statement {
        let mut list = String::new();
        for (at, column) in self.columns.iter().enumerate() {
            let name = name_of(column);
            let value = match self.takes_default(at) {
                true => format!("DEFAULT({name})"),
                false => name,
            };
            // As of `select_list`.
            let value = match column.kind {
                Kind::Float { is_double: false, .. } => format!("CAST({value} AS DOUBLE)"),
                _ => value,
            };
            let comma = if at == 0 { "" } else { "," };
            let _ = write!(list, "{comma}{value}");
        }
        Statement::new(format!("SELECT {list} FROM `{}` LIMIT 1", self.name), [])
    }

    /// What a member that an object has not stands for, by column; `None`: that is not known, or refused.
    pub(in crate::mirror) fn defaults_in(&self, cells: &[Cell]) -> RowParams {
        let value = self.value_of(cells);
        let row = self.key_of_row(cells).and_then(|key| self.row_params(&key, &value));
        let mut row = row.unwrap_or_default();
        row.resize(self.columns.len(), None);
        for (at, param) in row.iter_mut().enumerate() {
            param.take_if(|_| !self.takes_default(at));
        }
        row
    }

    fn takes_default(&self, at: usize) -> bool {
        !self.key.contains(&at) && self.columns[at].absent == Absent::Default
    }

    /// The number of a row of this key and value.
    pub(in crate::mirror) fn number(&self, key: &Key, value: &[u8], defaults: &RowParams) -> u64 {
        let mut text = Vec::new();
        match self.row_params(key, value) {
            Ok(row) => {
                for (at, column) in self.columns.iter().enumerate() {
                    if at > 0 {
                        text.push(b',');
                    }
                    match row[at].as_ref().or(defaults.get(at).and_then(Option::as_ref)) {
                        Some(param) => column.push_text(&mut text, param),
                        // Unlike every text.
                        None => text.push(b'?'),
                    }
                }
            }
            // It cannot be written here, but may stand here as it is.
            Err(_) => {
                text.push(b'!');
                text.extend_from_slice(value);
            }
        }
        let first = Sha256::digest(text)[..8].try_into().expect("a hash of 32 bytes");
        u64::from_be_bytes(first)
    }

    /// The expression that gives a row's number.
    fn number_sql(&self) -> String {
        let mut texts = String::new();
        for (at, column) in self.columns.iter().enumerate() {
            texts.push_str(if at == 0 { "" } else { ",','," });
            let (name, text) = (name_of(column), column.text_sql());
            let _ = match column.is_nullable {
                // NULL of a text is that it is too large: such a row has no number.
                true => write!(texts, "IF({name} IS NULL,'-',{text})"),
                false => write!(texts, "{text}"),
            };
        }
        format!("CAST(CONV(LEFT(SHA2(CONCAT({texts}),256),16),16,10) AS UNSIGNED)")
    }
}

impl Column {
    /// The column's text, in SQL.
    fn text_sql(&self) -> String {
        let name = name_of(self);
        match self.kind {
            // ZEROFILL adds zeros to what is printed.
            Kind::Integer { .. } | Kind::Bits { .. } | Kind::Year => format!("{name}+0"),
            Kind::Decimal { .. } if self.column_type.contains("zerofill") => format!("{name}+0"),
            Kind::Decimal { .. } | Kind::Date | Kind::DateTime { .. } | Kind::Time { .. } => {
                format!("CAST({name} AS CHAR)")
            }
            Kind::Float { .. } => format!("CAST(CAST({name} AS DOUBLE) AS CHAR)"),
            Kind::Uuid | Kind::Address { .. } => format!("CAST({name} AS CHAR)"),
            Kind::Text { .. } | Kind::Enum(_) | Kind::Set(_) => {
                format!("HEX(CONVERT({name} USING utf8mb4))")
            }
            Kind::Bytes { .. } => format!("HEX({name})"),
        }
    }

    /// The text that MySQL has of a column that is set to `param`.
    fn push_text(&self, text: &mut Vec<u8>, param: &Param) {
        const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
        match param {
            Param::Null => text.push(b'-'),
            Param::Number(number) => text.extend_from_slice(number.to_string().as_bytes()),
            Param::Integer(number) => text.extend_from_slice(number.to_string().as_bytes()),
            Param::Double(number) => {
                text.extend_from_slice(double_text(self.kept(*number)).as_bytes());
            }
            Param::Bytes(bytes) => match self.kind {
                Kind::Text { .. } | Kind::Enum(_) | Kind::Set(_) | Kind::Bytes { .. } => {
                    text.reserve(2 * bytes.len());
                    for byte in bytes.iter() {
                        let digits = [byte >> 4, byte & 15].map(|half| DIGITS[usize::from(half)]);
                        text.extend_from_slice(&digits);
                    }
                }
                Kind::Address { .. } => text.extend_from_slice(address_text(bytes).as_bytes()),
                _ => text.extend_from_slice(bytes),
            },
            Param::DateTime(time) => text.extend_from_slice(time.to_string().as_bytes()),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "as MySQL does")]
    fn kept(&self, number: f64) -> f64 {
        match self.kind {
            Kind::Float { is_double: false, .. } => f64::from(number as f32),
            _ => number,
        }
    }
}

/// As MySQL prints it: the shortest digits that give it back, with an exponent where it is far from 1.
fn double_text(number: f64) -> String {
    match number.abs() {
        1e-15..1e15 | 0.0 => number.to_string(),
        _ => format!("{number:e}"),
    }
}

/// One text for each address.
fn address_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => text.into_owned(),
    }
}

/// What stands for a row whose key is no key of the store, for people.
pub(in crate::mirror) fn shown(cells: &[Cell]) -> Vec<u8> {
    const SHOWN_CHARS_MAX: usize = 200;
    let text = |cell: &Cell| {
        let text = String::from_utf8_lossy(cell.as_deref().unwrap_or_default());
        Value::from(text.chars().take(SHOWN_CHARS_MAX).collect::<String>())
    };
    Value::Array(cells.iter().map(text).collect()).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::mirror::{columns::schema::tests::facts, table_setting::TableSetting};

    fn columns() -> Columns {
        let of = [
            ("id", "int(11)"),
            ("name", "varchar(20)"),
            ("rate", "decimal(5,2)"),
            ("single", "float"),
            ("ip", "inet6"),
        ];
        Columns::of("t", &facts(&of, &["id"]), &TableSetting::default()).unwrap()
    }

    fn number(value: &str) -> u64 {
        columns().number(&Key::new("7").unwrap(), value.as_bytes(), &Vec::new())
    }

    #[test]
    fn a_number_is_of_the_columns_texts() {
        let text = br"7,C3BC2C,12.50,0.10000000149011612,::1";
        let first = Sha256::digest(text)[..8].try_into().unwrap();
        let value = r#"{"ip":"::0001","id":7,"name":"ü,","rate":"12.5","single":0.1}"#;
        assert_eq!(number(value), u64::from_be_bytes(first));
        let cells = ["7", "ü,", "12.50", "0.10000000149011612", "::1"]
            .map(|text| Some(text.as_bytes().to_vec()));
        let fetched = columns().value_of(&cells);
        assert_eq!(number(str::from_utf8(&fetched).unwrap()), u64::from_be_bytes(first));
    }

    #[test]
    fn whatever_is_other_makes_another_number() {
        let all = [
            r#"{"name":"a","rate":null,"single":null,"ip":null}"#,
            r#"{"name":"","rate":null,"single":null,"ip":null}"#,
            r#"{"name":null,"rate":null,"single":null,"ip":null}"#,
            r#"{"name":"-","rate":null,"single":null,"ip":null}"#,
            r#"{"name":"a","rate":"1","single":null,"ip":null}"#,
            r#"{"name":"a","rate":null,"single":1,"ip":null}"#,
            r#"{"name":"a","rate":null,"single":-1,"ip":null}"#,
            r#"{"name":"a","rate":null,"single":null,"ip":"::1"}"#,
            r#"{"name":"a"}"#,
            r#"{"name":1}"#,
            r#"{"name":2}"#,
        ];
        let different: HashSet<_> = all.iter().map(|value| number(value)).collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn an_absent_member_is_its_default() {
        let columns = columns();
        let cells = [Some(b"1".to_vec()), Some(b"x".to_vec()), None, None, None];
        let defaults = columns.defaults_in(&cells);
        assert_eq!(defaults[0], None, "a key has none");
        let key = Key::new("7").unwrap();
        assert_eq!(
            columns.number(&key, b"{}", &defaults),
            number(r#"{"name":"x","rate":null,"single":null,"ip":null}"#)
        );
        let sql = columns.defaults().sql;
        assert!(sql.starts_with("SELECT `id`,DEFAULT(`name`),"), "{sql}");
        assert!(sql.contains("CAST(DEFAULT(`single`) AS DOUBLE)"), "{sql}");
    }

    #[test]
    fn doubles_are_printed_as_mysql_does() {
        for (number, text) in [
            (1e15, "1e15"),
            (123_456_789_012_345_680.0, "1.2345678901234568e17"),
            (1.5e-5, "0.000015"),
            (1e-15, "0.000000000000001"),
            (1.25e-16, "1.25e-16"),
            (0.0, "0"),
            (-123_456_789_012_345.6, "-123456789012345.6"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(double_text(number), text);
        }
    }

    #[test]
    fn every_placeholder_has_its_parameter() {
        let columns = columns();
        let key = [Param::Number(1)];
        for statement in [columns.sum_of(&[&key, &key]), columns.numbers_of(&[&key])] {
            let places = statement.sql.matches('?').count();
            assert_eq!(places, statement.params.len(), "{}", statement.sql);
        }
        assert!(columns.defaults().params.is_empty());
        assert_eq!(columns.fetch_rows_max(), ROWS_MAX);
    }
}
