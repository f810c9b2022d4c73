//! Cells of MySQL to keys and JSON objects, and back to parameters.
//!
//! What comes from MySQL is always told; what goes there is checked first, for MySQL cuts, rounds and
//! converts some things without an error even where its mode is strict.

use std::fmt::Write;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::Value;

use super::{
    kind::{Kind, Unit},
    members::Members,
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
        self.row_params_at(&self.key_params(key)?, value)
    }

    /// The same, where the key's parameters are known.
    pub(super) fn row_params_at(&self, key: &[Param], value: &[u8]) -> Result<RowParams, String> {
        let Members { of_columns, unknown } = Members::of(self, value)
            .map_err(|error| format!("the value is no JSON object: {error}"))?;
        let mut row = Vec::with_capacity(self.columns.len());
        for (at, (column, value)) in self.columns.iter().zip(of_columns).enumerate() {
            let of_key = self.key.iter().position(|&key| key == at).map(|at| &key[at]);
            let param = match (value, of_key) {
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
        match unknown {
            None => Ok(row),
            Some(name) => Err(format!("{}: the table has no such column", quoted(&name))),
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
mod tests;
