//! Which of two rows is the later one, by a column that tells the time of their last change.

use serde_json::{Map, Value};

use crate::mirror::columns::{Columns, Kind};

/// A time that can be compared with others of its column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Time {
    /// `2024-02-29 12:34:56.1`, without zeros at the end.
    Text(String),
    /// Seconds, milliseconds, a count: whatever the application has there.
    Number(i128),
}

/// Why a column tells no time; `None`: it does.
pub(in crate::mirror) fn refused_as_time(columns: &Columns, name: &str) -> Option<String> {
    let table = &columns.name;
    let Some(column) = columns.columns.iter().find(|column| column.name == name) else {
        return Some(format!("newer-by: the table {table} has no column {name}"));
    };
    match column.kind {
        Kind::Date | Kind::DateTime { .. } | Kind::Integer { .. } => None,
        _ => Some(format!(
            "newer-by: the column {name} of the table {table} is {}: give one that is DATETIME, \
             TIMESTAMP, DATE or an integer, or decide with --keep",
            column.column_type
        )),
    }
}

/// Whether MySQL's row is later than the store's. One that has a time is later than one that has none.
pub(super) fn is_mysql_newer(
    column: &str,
    mysql: &Map<String, Value>,
    store: &Map<String, Value>,
) -> bool {
    let time = |row: &Map<String, Value>| row.get(column).and_then(time_of);
    time(mysql) > time(store)
}

fn time_of(value: &Value) -> Option<Time> {
    match value {
        Value::String(text) => {
            let text = match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.'),
                false => text,
            };
            Some(Time::Text(text.to_owned()))
        }
        Value::Number(number) => {
            let signed = number.as_i64().map(i128::from);
            signed.or_else(|| number.as_u64().map(i128::from)).map(Time::Number)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::columns::test_columns;

    fn row(text: &str) -> Map<String, Value> {
        serde_json::from_str(&format!(r#"{{"at":{text}}}"#)).unwrap()
    }

    #[test]
    fn the_later_time_is_found_whatever_its_digits() {
        for (mysql, store, newer) in [
            (r#""2024-02-29 12:34:57""#, r#""2024-02-29 12:34:56""#, true),
            (r#""2024-02-29 12:34:56""#, r#""2024-02-29 12:34:57""#, false),
            (r#""2024-02-29 12:34:56.5""#, r#""2024-02-29 12:34:56""#, true),
            (r#""2024-02-29 12:34:56""#, r#""2024-02-29 12:34:56.000000""#, false),
            (r#""2024-02-29 12:34:56.000""#, r#""2024-02-29 12:34:56""#, false),
            (r#""2024-02-29 12:34:56.100""#, r#""2024-02-29 12:34:56.09""#, true),
            (r#""2024-02-20""#, r#""2024-02-19""#, true),
            ("10", "9", true),
            ("9", "10", false),
            ("18446744073709551615", "-1", true),
            ("7", "7", false),
            ("7", "null", true),
            ("null", "7", false),
            ("null", "null", false),
        ] {
            assert_eq!(is_mysql_newer("at", &row(mysql), &row(store)), newer, "{mysql} {store}");
        }
        assert!(is_mysql_newer("at", &row("1"), &Map::new()));
    }

    #[test]
    fn a_column_that_tells_no_time_is_refused_by_name() {
        let of = [("id", "int(11)"), ("name", "varchar(9)"), ("at", "datetime"), ("n", "int(11)")];
        let columns = test_columns("t", &of, &["id"]);
        let refused = |name| refused_as_time(&columns, name);
        assert!(refused("gone").unwrap().contains("has no column gone"));
        assert!(refused("name").unwrap().contains("is varchar(9)"));
        assert_eq!((refused("at"), refused("n")), (None, None));
    }
}
