//! One row in MySQL and one in the store, as JSON objects: whether MySQL would hold the same for both.

use serde_json::{Map, Value};

use crate::{mirror::columns::Columns, model::Key};

/// The columns in which two rows of this key differ; none: they are one row. A row of the store that could
/// not stand in MySQL differs in what its object says otherwise.
pub(super) fn differing(columns: &Columns, key: &Key, mysql: &[u8], store: &[u8]) -> Vec<String> {
    if mysql == store {
        return Vec::new();
    }
    let names = |differs: &dyn Fn(usize, &str) -> bool| -> Vec<String> {
        let all = columns.columns.iter().map(|column| column.name.as_str()).enumerate();
        all.filter(|&(at, name)| differs(at, name)).map(|(_, name)| name.to_owned()).collect()
    };
    // Numbers and decimals have several texts; what is written has one.
    if let (Ok(ours), Ok(theirs)) = (columns.row_params(key, mysql), columns.row_params(key, store))
    {
        return names(&|at, _| ours[at] != theirs[at]);
    }
    let (ours, theirs) = (object(mysql), object(store));
    let differing = names(&|_, name| ours.get(name) != theirs.get(name));
    match differing.is_empty() {
        // It has something that no column takes.
        true => vec!["*".to_owned()],
        false => differing,
    }
}

/// A row's members; none where it is no object.
pub(super) fn object(row: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(row).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::columns::test_columns;

    #[test]
    fn rows_are_one_where_mysql_would_hold_the_same() {
        let of = [("id", "int(11)"), ("v", "varchar(9)"), ("p", "decimal(5,2)"), ("f", "double")];
        let columns = test_columns("t", &of, &["id"]);
        let mysql = r#"{"id":7,"v":"x","p":"1.50","f":1.0}"#;
        for (store, expected) in [
            (mysql, vec![]),
            (r#"{"f":1,"p":"1.5","v":"x","id":7}"#, vec![]),
            (r#"{"id":7,"v":"y","p":"1.50","f":2.0}"#, vec!["v", "f"]),
            (r#"{"id":7,"v":"x","p":"1.50"}"#, vec!["f"]),
            (r#"{"id":7,"v":"much too long for it","p":"1.50","f":1.0}"#, vec!["v"]),
            (r#"{"id":7,"v":"x","p":"1.50","f":1.0,"more":1}"#, vec!["*"]),
            ("no object", vec!["id", "v", "p", "f"]),
        ] {
            let key = Key::new("7").unwrap();
            let found = differing(&columns, &key, mysql.as_bytes(), store.as_bytes());
            assert_eq!(found, expected, "{store}");
        }
    }
}
