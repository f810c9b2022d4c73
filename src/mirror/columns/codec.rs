//! Cells of MySQL to keys and JSON objects, and back to parameters.
//!
//! What comes from MySQL is always told; what goes there is checked first, for MySQL cuts, rounds and
//! converts some things without an error even where its mode is strict.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Map, Value};

use super::{
    kind::{Kind, Unit},
    schema::{Absent, Column, Columns},
    texts::{self, quoted},
};
use crate::{
    mirror::{mysql::Cell, statement::Param},
    model::Key,
};

/// What a row's columns are set to, in the table's order; `None`: to the column's default.
pub(in crate::mirror) type RowParams = Vec<Option<Param>>;

impl Columns {
    /// The key of a row, from the cells of the key's columns in its order.
    ///
    /// # Errors
    ///
    /// It is empty, or too long to be one.
    pub(in crate::mirror) fn key_of(&self, cells: &[Cell]) -> Result<Key, String> {
        let mut columns = self.key_columns().zip(cells);
        let bytes = match (columns.next(), self.key.len()) {
            (Some((column, cell)), 1) => match column.value_of(cell) {
                _ if matches!(column.kind, Kind::Bytes { .. }) => cell.clone().unwrap_or_default(),
                Value::String(text) => text.into_bytes(),
                other => other.to_string().into_bytes(),
            },
            (first, _) => {
                let all = first.into_iter().chain(columns);
                let parts: Vec<_> = all.map(|(column, cell)| column.value_of(cell)).collect();
                Value::Array(parts).to_string().into_bytes()
            }
        };
        Key::new(bytes).map_err(|error| format!("the primary key is no key of lastword: {error}"))
    }

    /// The key of a row, from the cells of all its columns.
    ///
    /// # Errors
    ///
    /// As of [`Columns::key_of`].
    pub(in crate::mirror) fn key_of_row(&self, cells: &[Cell]) -> Result<Key, String> {
        let of_key: Vec<_> = self.key.iter().filter_map(|&at| cells.get(at).cloned()).collect();
        self.key_of(&of_key)
    }

    /// The value of a row: a JSON object, from the cells of all its columns.
    pub(in crate::mirror) fn value_of(&self, cells: &[Cell]) -> Vec<u8> {
        let mut object = String::from("{");
        for (at, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let name = Value::from(column.name.as_str());
            // A number's text must not change with the release that writes it.
            let _ = match (column.value_of(cell), &column.kind) {
                (Value::Number(number), Kind::Float { .. }) => {
                    let number = number.as_f64().unwrap_or_default();
                    write!(object, "{comma}{name}:{number:?}")
                }
                (value, _) => write!(object, "{comma}{name}:{value}"),
            };
        }
        object.push('}');
        object.into_bytes()
    }

    /// The cells of the key's columns as parameters: a place in the table, whether or not a row of the store
    /// can stand there.
    pub(in crate::mirror) fn params_of(&self, cells: &[Cell]) -> Vec<Param> {
        let params = self.key_columns().zip(cells).map(|(column, cell)| {
            let value = column.value_of(cell);
            column.param_of(&value).unwrap_or_else(|_| match cell {
                Some(bytes) => Param::Bytes(bytes.clone().into()),
                None => Param::Null,
            })
        });
        params.collect()
    }

    /// The parameters for the primary key's columns, in its order.
    ///
    /// # Errors
    ///
    /// Why no row can have this key, with the column's name.
    pub(in crate::mirror) fn key_params(&self, key: &Key) -> Result<Vec<Param>, String> {
        let parts = self.parts_of(key)?;
        let columns: Vec<_> = self.key_columns().collect();
        let params = columns
            .iter()
            .zip(&parts)
            .map(|(column, value)| match column.param_of(value) {
                Ok(Param::Null) => Err(format!("{}: a key is never NULL", column.name)),
                other => other,
            })
            .collect::<Result<Vec<_>, _>>()?;
        // 042 and 42 are one row to MySQL: of its texts only one is the key.
        let cells: Vec<_> = params.iter().map(cell_of).collect();
        match self.key_of(&cells) {
            Ok(canonical) if canonical == *key => Ok(params),
            Ok(canonical) => Err(format!(
                "the key is written {}, the row's is {}",
                quoted(&String::from_utf8_lossy(key.as_slice())),
                quoted(&String::from_utf8_lossy(canonical.as_slice()))
            )),
            Err(reason) => Err(reason),
        }
    }

    /// The parameters for all columns, in the table's order.
    ///
    /// # Errors
    ///
    /// Why MySQL would not keep the row as it is, with the column's name.
    pub(in crate::mirror) fn row_params(
        &self,
        key: &Key,
        value: &[u8],
    ) -> Result<RowParams, String> {
        let of_key = self.key_params(key)?;
        let mut object: Map<String, Value> = serde_json::from_slice(value)
            .map_err(|error| format!("the value is no JSON object: {error}"))?;
        let mut row = Vec::with_capacity(self.columns.len());
        for (at, column) in self.columns.iter().enumerate() {
            let of_key = self.key.iter().position(|&key| key == at).map(|at| &of_key[at]);
            let param = match (object.remove(&column.name), of_key) {
                (None, Some(param)) => Some(param.clone()),
                (None, None) => column.absent()?,
                (Some(value), None) => Some(column.param_of(&value)?),
                (Some(value), Some(of_key)) => {
                    let param = column.param_of(&value)?;
                    if param != *of_key {
                        let name = &column.name;
                        return Err(format!("{name}: the object says {value}, the key another"));
                    }
                    Some(param)
                }
            };
            row.push(param);
        }
        object.retain(|name, _| !self.generated.contains(name));
        match object.keys().next() {
            None => Ok(row),
            Some(name) => Err(format!("{}: the table has no such column", quoted(name))),
        }
    }

    /// The key as JSON values, one for each of its columns.
    fn parts_of(&self, key: &Key) -> Result<Vec<Value>, String> {
        let bytes = key.as_slice();
        let columns: Vec<_> = self.key_columns().collect();
        if let [column] = &columns[..] {
            if matches!(column.kind, Kind::Bytes { .. }) {
                return Ok(vec![Value::String(BASE64.encode(bytes))]);
            }
            let name = &column.name;
            let text = str::from_utf8(bytes).map_err(|_| format!("{name}: the key is no UTF-8"))?;
            let value = match column.kind.is_number() {
                true => number_of(text)
                    .ok_or_else(|| format!("{name}: the key {} is no number", quoted(text)))?,
                false => Value::from(text),
            };
            return Ok(vec![value]);
        }
        let parts: Option<Vec<Value>> = serde_json::from_slice(bytes).ok();
        parts.filter(|parts| parts.len() == columns.len()).ok_or_else(|| {
            let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
            format!("the key is no JSON array of {}, such as [1,\"x\"]", names.join(" and "))
        })
    }
}

impl Column {
    /// The cell as JSON.
    fn value_of(&self, cell: &Cell) -> Value {
        let Some(bytes) = cell else { return Value::Null };
        if let Kind::Bytes { .. } = self.kind {
            return Value::String(BASE64.encode(bytes));
        }
        if let (Kind::Bits { .. }, true) = (&self.kind, bytes.len() <= 8) {
            return bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte)).into();
        }
        let text = String::from_utf8_lossy(bytes);
        match self.kind {
            Kind::Integer { .. } | Kind::Year => {
                number_of(&text).unwrap_or_else(|| Value::String(text.into_owned()))
            }
            Kind::Float { is_double, .. } => float_value(&text, is_double),
            Kind::Date => Value::from(text.get(..10).unwrap_or(&text)),
            Kind::DateTime { fraction } | Kind::Time { fraction } => {
                Value::String(texts::at_precision(&text, fraction))
            }
            _ => Value::String(text.into_owned()),
        }
    }

    /// What MySQL is given for the value, where it keeps it as it is.
    fn param_of(&self, value: &Value) -> Result<Param, String> {
        let name = &self.name;
        if value.is_null() {
            return match self.is_nullable {
                true => Ok(Param::Null),
                false => Err(format!("{name}: null, the column is NOT NULL")),
            };
        }
        self.kind.param_of(value).map_err(|reason| format!("{name}: {reason}"))
    }

    fn absent(&self) -> Result<Option<Param>, String> {
        let name = &self.name;
        match self.absent {
            Absent::Default => Ok(None),
            Absent::Refused => {
                Err(format!("{name}: the object has no such member, the column no default"))
            }
            Absent::Varies => Err(format!(
                "{name}: the object has no such member, and the column's default is not the same \
                 at every site"
            )),
        }
    }
}

impl Kind {
    fn is_number(&self) -> bool {
        matches!(self, Kind::Integer { .. } | Kind::Bits { .. } | Kind::Year)
    }

    fn param_of(&self, value: &Value) -> Result<Param, String> {
        match self {
            Kind::Integer { min, max } => integer(value, *min, *max),
            Kind::Bits { max } => integer(value, 0, *max),
            Kind::Year => match value.as_u64() {
                Some(year @ (0 | 1901..=2155)) => Ok(Param::Number(year)),
                _ => Err(format!("{} is no year: use 1901 to 2155, or 0", shown(value))),
            },
            Kind::Float { is_double, is_unsigned, fixed } => {
                float(value, *is_double, *is_unsigned, *fixed)
            }
            Kind::Decimal { digits, scale, is_unsigned } => {
                let text = match value {
                    Value::Number(number) if !number.is_f64() => number.to_string(),
                    other => string(other)?.to_owned(),
                };
                texts::decimal(&text, *digits, *scale, *is_unsigned).map(text_param)
            }
            Kind::Date => texts::date(string(value)?).map(text_param),
            Kind::DateTime { fraction } => {
                texts::date_time(string(value)?, *fraction).map(text_param)
            }
            Kind::Time { fraction } => texts::time(string(value)?, *fraction).map(text_param),
            Kind::Text { unit, length_max, is_fixed } => {
                let text = string(value)?;
                text_fits(text, *unit, *length_max, *is_fixed)?;
                Ok(text_param(text.to_owned()))
            }
            Kind::Enum(members) => {
                let text = string(value)?;
                match members.iter().any(|member| member == text) {
                    true => Ok(text_param(text.to_owned())),
                    false => Err(format!("{} is no member", quoted(text))),
                }
            }
            Kind::Set(members) => {
                let text = string(value)?;
                set_fits(text, members)?;
                Ok(text_param(text.to_owned()))
            }
            Kind::Bytes { length_max, is_fixed } => {
                let text = string(value)?;
                let bytes = BASE64
                    .decode(text)
                    .map_err(|error| format!("{} is no base64: {error}", quoted(text)))?;
                let length = bytes.len() as u64;
                if length > *length_max || *is_fixed && length < *length_max {
                    return Err(format!("{length} bytes, the column takes {length_max}"));
                }
                Ok(Param::Bytes(bytes.into()))
            }
            Kind::Uuid => texts::uuid(string(value)?).map(text_param),
            Kind::Address { is_v6 } => texts::address(string(value)?, *is_v6).map(text_param),
        }
    }
}

fn integer(value: &Value, min: i64, max: u64) -> Result<Param, String> {
    let Value::Number(number) = value else {
        return Err(format!("{} is no whole number", shown(value)));
    };
    let outside = || format!("{number} is out of range: use {min} to {max}");
    match (number.as_u64(), number.as_i64()) {
        (Some(number), _) if number <= max => Ok(Param::Number(number)),
        (None, Some(number)) if number >= min => Ok(Param::Integer(number)),
        (None, None) => Err(format!("{number} is no whole number")),
        _ => Err(outside()),
    }
}

/// The JSON number that gives back what the column holds.
fn float_value(text: &str, is_double: bool) -> Value {
    let Ok(exact) = text.parse::<f64>() else { return Value::String(text.to_owned()) };
    if is_double {
        return exact.into();
    }
    // The shortest text of a FLOAT, which is not that of the DOUBLE that it equals.
    #[expect(clippy::cast_possible_truncation, reason = "it is a FLOAT's")]
    let single = exact as f32;
    match single.to_string().parse::<f64>() {
        Ok(short) if narrowed(short) == single => short.into(),
        _ => f64::from(single).into(),
    }
}

fn float(
    value: &Value,
    is_double: bool,
    is_unsigned: bool,
    fixed: Option<u32>,
) -> Result<Param, String> {
    let Some(number) = value.as_f64().filter(|_| value.is_number()) else {
        return Err(format!("{} is no number", shown(value)));
    };
    // A number above 2^53 may not be one that a DOUBLE has.
    let is_exact_integer = match (value.as_u64(), value.as_i64()) {
        (Some(whole), _) => number as u64 == whole && number < 1.8e19,
        (None, Some(whole)) => number as i64 == whole,
        (None, None) => true,
    };
    if is_unsigned && number < 0.0 {
        return Err(format!("{value} is below 0, the column is UNSIGNED"));
    }
    let kept = match fixed {
        Some(digits) => rounded(number, digits),
        None => number,
    };
    let same = match is_double {
        true => kept == number && is_exact_integer,
        false => {
            let single = narrowed(number);
            // Told as such a column would tell it, or exactly one of its numbers.
            let told = float_value(&single.to_string(), false).as_f64() == Some(number);
            single.is_finite()
                && (told || f64::from(single) == number)
                && narrowed(kept) == single
                && is_exact_integer
        }
    };
    match same {
        true => Ok(Param::Double(number)),
        false => Err(format!("{value} has more digits than the column keeps")),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "as MySQL does")]
fn narrowed(number: f64) -> f32 {
    number as f32
}

/// As MySQL rounds for `FLOAT(M,D)`.
fn rounded(number: f64, digits: u32) -> f64 {
    let power = 10_f64.powi(i32::try_from(digits).unwrap_or(i32::MAX));
    let whole = number.floor();
    whole + ((number - whole) * power).round_ties_even() / power
}

fn text_fits(text: &str, unit: Unit, length_max: u64, is_fixed: bool) -> Result<(), String> {
    let (length, name) = match unit {
        Unit::Chars => (text.chars().count() as u64, "characters"),
        Unit::Bytes { encoding } => (encoding.bytes(text), "bytes"),
    };
    // MySQL would cut off spaces at the end without an error.
    if length > length_max {
        return Err(format!("{length} {name}, the column takes {length_max}"));
    }
    if is_fixed && text.ends_with(' ') {
        return Err("it ends with a space, CHAR would drop it: make it VARCHAR".to_owned());
    }
    Ok(())
}

/// Each of them a member, in the order of the members, each once.
fn set_fits(text: &str, members: &[String]) -> Result<(), String> {
    let mut rest = members.iter();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        if !rest.any(|member| member == part) {
            return Err(format!("{} is no set of members in their order", quoted(text)));
        }
    }
    Ok(())
}

fn string(value: &Value) -> Result<&str, String> {
    value.as_str().ok_or_else(|| format!("{} is no string", shown(value)))
}

/// A value in a message: of a long one its beginning.
fn shown(value: &Value) -> String {
    const SHOWN_CHARS_MAX: usize = 40;
    value.to_string().chars().take(SHOWN_CHARS_MAX).collect()
}

fn number_of(text: &str) -> Option<Value> {
    let small = text.parse::<i64>().map(Value::from);
    small.or_else(|_| text.parse::<u64>().map(Value::from)).ok()
}

fn text_param(text: String) -> Param {
    Param::Bytes(text.into_bytes().into())
}

/// The cell that MySQL would show of a parameter.
fn cell_of(param: &Param) -> Cell {
    match param {
        Param::Bytes(bytes) => Some(bytes.to_vec()),
        Param::Number(number) => Some(number.to_string().into_bytes()),
        Param::Integer(number) => Some(number.to_string().into_bytes()),
        Param::Double(number) => Some(number.to_string().into_bytes()),
        Param::Null | Param::DateTime(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mirror::{columns::schema::tests::facts, table_setting::TableSetting};

    fn columns(columns: &[(&str, &str)], key: &[&str]) -> Columns {
        Columns::of("t", &facts(columns, key), &TableSetting::default()).unwrap()
    }

    fn cell(text: &str) -> Cell {
        Some(text.as_bytes().to_vec())
    }

    fn key(text: &str) -> Key {
        Key::new(text.as_bytes().to_vec()).unwrap()
    }

    /// The cells that MySQL shows where it keeps parameters as they are.
    fn shown_again(columns: &Columns, row: &RowParams) -> Vec<Cell> {
        let cells = columns.columns.iter().zip(row).map(|(column, param)| {
            let param = param.as_ref().expect("every column was told");
            match (&column.kind, param) {
                (Kind::Bits { .. }, Param::Number(bits)) => Some(bits.to_be_bytes().to_vec()),
                _ => cell_of(param),
            }
        });
        cells.collect()
    }

    #[track_caller]
    fn refusal(columns: &Columns, at: &str, value: &str) -> String {
        let text = columns.row_params(&key(at), value.as_bytes()).unwrap_err();
        assert!(!text.contains('\n'), "{text}");
        text
    }

    const ALL: [(&str, &str); 26] = [
        ("id", "bigint(20) unsigned"),
        ("tiny", "tinyint(4)"),
        ("small", "smallint(5) unsigned"),
        ("medium", "mediumint(9)"),
        ("plain", "int(11)"),
        ("big", "bigint(20)"),
        ("bits", "bit(10)"),
        ("year", "year(4)"),
        ("rate", "decimal(30,10)"),
        ("single", "float"),
        ("double", "double"),
        ("day", "date"),
        ("moment", "datetime(6)"),
        ("stamp", "timestamp(3)"),
        ("span", "time(2)"),
        ("fixed", "char(8)"),
        ("name", "varchar(20)"),
        ("note", "text"),
        ("rating", "enum('G','PG-13','it''s')"),
        ("features", "set('a','b','c d')"),
        ("four", "binary(4)"),
        ("bytes", "varbinary(20)"),
        ("blob", "blob"),
        ("place", "geometry"),
        ("uuid", "uuid"),
        ("address", "inet6"),
    ];

    #[test]
    fn a_row_is_told_in_the_tables_order() {
        let columns = columns(&ALL, &["id"]);
        let cells: Vec<Cell> = vec![
            cell("18446744073709551615"),
            cell("-128"),
            cell("00065"),
            None,
            cell("0"),
            cell("-9223372036854775808"),
            Some(vec![2, 5]),
            cell("0000"),
            cell("-12345678901234567890.0000000001"),
            cell("0.10000000149011612"),
            cell("1e300"),
            cell("2024-02-29 00:00:00.000000"),
            cell("0000-00-00 00:00:00"),
            cell("2024-02-29 12:34:56.789000"),
            cell("-838:59:59.000000"),
            cell("käse"),
            cell("a \"b\"\\\n"),
            cell(""),
            cell("it's"),
            cell("a,c d"),
            Some(vec![0, 255, 1, 2]),
            Some(vec![]),
            None,
            Some(vec![0, 0, 0, 0, 1]),
            cell("123e4567-e89b-12d3-a456-426655440000"),
            cell("::1"),
        ];
        let value = String::from_utf8(columns.value_of(&cells)).unwrap();
        assert_eq!(
            value,
            "{\"id\":18446744073709551615,\"tiny\":-128,\"small\":65,\"medium\":null,\"plain\":0,\
             \"big\":-9223372036854775808,\"bits\":517,\"year\":0,\
             \"rate\":\"-12345678901234567890.0000000001\",\"single\":0.1,\"double\":1e300,\
             \"day\":\"2024-02-29\",\"moment\":\"0000-00-00 00:00:00.000000\",\
             \"stamp\":\"2024-02-29 12:34:56.789\",\"span\":\"-838:59:59.00\",\"fixed\":\"käse\",\
             \"name\":\"a \\\"b\\\"\\\\\\n\",\"note\":\"\",\"rating\":\"it's\",\
             \"features\":\"a,c d\",\"four\":\"AP8BAg==\",\"bytes\":\"\",\"blob\":null,\
             \"place\":\"AAAAAAE=\",\"uuid\":\"123e4567-e89b-12d3-a456-426655440000\",\
             \"address\":\"::1\"}"
        );
        let at = columns.key_of_row(&cells).unwrap();
        assert_eq!(at, key("18446744073709551615"));
        let row = columns.row_params(&at, value.as_bytes()).unwrap();
        let again = columns.value_of(&shown_again(&columns, &row));
        assert_eq!(String::from_utf8(again).unwrap(), value);
    }

    #[test]
    fn keys_are_the_primary_keys_text() {
        let one = columns(&[("k", "varbinary(10)"), ("v", "int(11)")], &["k"]);
        let raw = Key::new(vec![0xff, 0, b'"']).unwrap();
        assert_eq!(one.key_of(&[Some(vec![0xff, 0, b'"'])]), Ok(raw.clone()));
        assert_eq!(one.key_params(&raw), Ok(vec![Param::Bytes(raw.bytes().clone())]));
        assert!(one.key_of(&[cell("")]).unwrap_err().contains("1 to 512 bytes"));

        let of = [("n", "int(11)"), ("t", "varchar(9)"), ("b", "binary(2)"), ("d", "datetime(1)")];
        let several = columns(&of, &["n", "t", "b", "d"]);
        let cells = [cell("-7"), cell("x\"y"), Some(vec![1, 2]), cell("2024-02-29 00:00:00.0")];
        let at = several.key_of(&cells).unwrap();
        assert_eq!(at, key(r#"[-7,"x\"y","AQI=","2024-02-29 00:00:00.0"]"#));
        assert_eq!(several.key_params(&at).unwrap().len(), 4);
        for (bad, part) in [
            ("[-7, \"x\",\"AQI=\",\"2024-02-29 00:00:00.0\"]", "the key is written"),
            ("[-7,\"x\",\"AQI=\",\"2024-02-29 00:00:00\"]", "the key is written"),
            ("[-7,\"x\",\"AQI=\"]", "no JSON array of n and t and b and d"),
            ("[-7,null,\"AQI=\",\"2024-02-29 00:00:00.0\"]", "NOT NULL"),
            ("[2147483648,\"x\",\"AQI=\",\"2024-02-29 00:00:00.0\"]", "n: 2147483648 is out"),
        ] {
            let text = several.key_params(&key(bad)).unwrap_err();
            assert!(text.contains(part), "{bad}: {text}");
        }
        let number = columns(&[("id", "int(11)")], &["id"]);
        for bad in ["042", "+1", "1.0", "x", "-0"] {
            assert!(number.key_params(&key(bad)).is_err(), "{bad}");
        }
        let exact = columns(&[("id", "decimal(5,2)")], &["id"]);
        assert!(exact.key_params(&key("1.50")).is_ok());
        assert!(exact.key_params(&key("1.5")).unwrap_err().contains("\"1.50\""));
    }

    #[test]
    fn what_mysql_would_change_is_refused_with_the_columns_name() {
        let columns = columns(&ALL, &["id"]);
        for (value, part) in [
            (r#"{"tiny":128}"#, "tiny: 128 is out of range: use -128 to 127"),
            (r#"{"tiny":1.5}"#, "tiny: 1.5 is no whole number"),
            (r#"{"tiny":"1"}"#, "tiny: \"1\" is no whole number"),
            (r#"{"small":-1}"#, "small: -1 is out of range"),
            (r#"{"big":9223372036854775808}"#, "big: 9223372036854775808 is out of range"),
            (r#"{"bits":1024}"#, "bits: 1024 is out of range: use 0 to 1023"),
            (r#"{"year":1900}"#, "year: 1900 is no year"),
            (r#"{"rate":1.5}"#, "rate: 1.5 is no string"),
            (r#"{"rate":"1.00000000001"}"#, "rate: \"1.00000000001\" does not fit DECIMAL(30,10)"),
            (r#"{"single":0.123456789}"#, "single: 0.123456789 has more digits"),
            (r#"{"single":1e39}"#, "single: 1e+39 has more digits"),
            (r#"{"double":9007199254740993}"#, "double: 9007199254740993 has more digits"),
            (r#"{"double":"1"}"#, "double: \"1\" is no number"),
            (r#"{"day":"29.2.2024"}"#, "day: \"29.2.2024\" is no date"),
            (r#"{"stamp":"2024-02-29 12:34:56.7891"}"#, "stamp: "),
            (r#"{"fixed":"a "}"#, "fixed: it ends with a space"),
            (r#"{"name":"123456789012345678901"}"#, "name: 21 characters, the column takes 20"),
            (r#"{"rating":"g"}"#, "rating: \"g\" is no member"),
            (r#"{"rating":"1"}"#, "rating: \"1\" is no member"),
            (r#"{"features":"b,a"}"#, "features: \"b,a\" is no set"),
            (r#"{"four":"AAA="}"#, "four: 2 bytes, the column takes 4"),
            (r#"{"blob":"AA"}"#, "blob: \"AA\" is no base64"),
            (r#"{"nome":1}"#, "\"nome\": the table has no such column"),
            (r#"{"id":8}"#, "id: the object says 8"),
            (r#"{"id":null}"#, "id: null, the column is NOT NULL"),
            ("[1]", "no JSON object"),
            ("{", "no JSON object"),
        ] {
            let text = refusal(&columns, "7", value);
            assert!(text.contains(part), "{value}: {text}");
        }
    }

    #[test]
    fn absent_members_stand_for_the_default_where_it_is_the_same_everywhere() {
        let mut facts = facts(&[("id", "int(11)"), ("a", "int(11)"), ("b", "int(11)")], &["id"]);
        facts.columns[2].default = Some("rand()".into());
        facts.columns[2].extra = String::new();
        let columns = Columns::of("t", &facts, &TableSetting::default()).unwrap();
        let row = columns.row_params(&key("1"), br#"{"b":2}"#).unwrap();
        assert_eq!(row, [Some(Param::Number(1)), None, Some(Param::Number(2))]);
        assert!(refusal(&columns, "1", "{}").contains("b: the object has no such member"));
        facts.columns[1].default = None;
        facts.columns[1].is_nullable = false;
        let columns = Columns::of("t", &facts, &TableSetting::default()).unwrap();
        assert!(refusal(&columns, "1", r#"{"b":2}"#).contains("a: the object has no such member"));
    }

    #[test]
    fn floats_of_fixed_digits_are_those_that_mysql_rounds_to() {
        let columns = columns(&[("id", "int(11)"), ("f", "float(7,2)")], &["id"]);
        assert!(columns.row_params(&key("1"), br#"{"f":12345.67}"#).is_ok());
        assert!(refusal(&columns, "1", r#"{"f":0.123}"#).contains("f: 0.123"));
    }

    proptest! {
        #[test]
        fn every_float_comes_back(bits in any::<u32>()) {
            let number = f32::from_bits(bits);
            prop_assume!(number.is_finite());
            let columns = columns(&[("id", "int(11)"), ("f", "float")], &["id"]);
            for text in [format!("{number:?}"), format!("{:?}", f64::from(number))] {
                let value = columns.value_of(&[cell("1"), cell(&text)]);
                let row = columns.row_params(&key("1"), &value).unwrap();
                let Some(Param::Double(told)) = row[1] else { panic!("{row:?}") };
                prop_assert_eq!((told as f32).to_bits(), bits);
            }
        }

        #[test]
        fn every_double_comes_back(bits in any::<u64>()) {
            let number = f64::from_bits(bits);
            prop_assume!(number.is_finite());
            let columns = columns(&[("id", "int(11)"), ("f", "double")], &["id"]);
            let value = columns.value_of(&[cell("1"), cell(&format!("{number:?}"))]);
            let row = columns.row_params(&key("1"), &value).unwrap();
            let Some(Param::Double(told)) = row[1] else { panic!("{row:?}") };
            prop_assert_eq!(told.to_bits(), bits);
        }

        #[test]
        fn what_is_told_comes_back_to_the_same_cells(
            id in any::<u64>(),
            big in any::<i64>(),
            bits in 0_u64..1024,
            text in "\\PC{0,20}",
            note in any::<String>(),
            bytes in prop::collection::vec(any::<u8>(), 0..20),
            cents in any::<i64>(),
            micros in 0_u32..1_000_000,
            hours in 0_u32..838,
            is_null in any::<bool>(),
        ) {
            let columns = columns(
                &[
                    ("id", "bigint(20) unsigned"), ("name", "varchar(20)"), ("big", "bigint(20)"),
                    ("bits", "bit(10)"), ("note", "text"), ("bytes", "varbinary(20)"),
                    ("price", "decimal(21,2)"), ("at", "datetime(6)"), ("span", "time(6)"),
                ],
                &["id", "name"],
            );
            let sign = if cents < 0 { "-" } else { "" };
            let cents = cents.unsigned_abs();
            let nullable = |cell: Cell| if is_null { None } else { cell };
            let cells = [
                cell(&id.to_string()),
                cell(&text),
                nullable(cell(&big.to_string())),
                Some(bits.to_be_bytes().to_vec()),
                nullable(cell(&note)),
                Some(bytes),
                cell(&format!("{sign}{}.{:02}", cents / 100, cents % 100)),
                cell(&format!("2024-02-29 12:34:56.{micros:06}")),
                cell(&format!("{hours:02}:59:59.{micros:06}")),
            ];
            let Ok(at) = columns.key_of_row(&cells) else { return Ok(()) };
            let row = columns.row_params(&at, &columns.value_of(&cells)).unwrap();
            prop_assert_eq!(shown_again(&columns, &row), cells.to_vec());
        }
    }
}
