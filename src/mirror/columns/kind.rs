//! What a column can hold, from its type in MySQL.

use crate::mirror::shape::ColumnFacts;

/// What a column can hold, and how its values are told in JSON.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::mirror) enum Kind {
    /// A number.
    Integer { min: i64, max: u64 },
    /// A number: `BIT`, most significant first.
    Bits { max: u64 },
    /// A number.
    Year,
    /// A string: a float could not tell all of them.
    Decimal { digits: usize, scale: usize, is_unsigned: bool },
    /// A number. `fixed`: of `FLOAT(M,D)` the digits D behind the point, to which MySQL rounds.
    Float { is_double: bool, is_unsigned: bool, fixed: Option<u32> },
    /// A string: `2024-02-29`.
    Date,
    /// A string: `2024-02-29 12:34:56.000001`. TIMESTAMP as well, in UTC.
    DateTime { fraction: usize },
    /// A string: `-838:59:59.000000`.
    Time { fraction: usize },
    /// A string.
    Text { unit: Unit, length_max: u64, is_fixed: bool },
    /// A string, one of these.
    Enum(Vec<String>),
    /// A string, some of these in this order, with commas between.
    Set(Vec<String>),
    /// A string in base64, padded.
    Bytes { length_max: u64, is_fixed: bool },
    /// A string of 36 characters.
    Uuid,
    /// A string: an IPv6 or IPv4 address.
    Address { is_v6: bool },
}

/// In what a text's length is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mirror) enum Unit {
    /// Characters.
    Chars,
    /// Bytes in the column's own character set: so many a UTF-16 or UTF-32 unit.
    Bytes { encoding: Encoding },
}

/// How many bytes a text takes in a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mirror) enum Encoding {
    /// UTF-8, and those whose texts are no longer.
    Utf8,
    /// One byte a character.
    Single,
    /// Two bytes or four.
    Utf16,
    /// Four bytes.
    Utf32,
}

impl Kind {
    /// `None`: of a type that lastword does not know to keep as it is.
    pub(super) fn of(facts: &ColumnFacts) -> Option<Kind> {
        let is_unsigned = facts.column_type.to_ascii_lowercase().contains("unsigned");
        let length_max = facts.length_max.unwrap_or_default();
        let fraction = usize::try_from(facts.fraction_digits.unwrap_or_default()).ok()?;
        let kind = match facts.data_type.as_str() {
            "tinyint" => integer(8, is_unsigned),
            "smallint" => integer(16, is_unsigned),
            "mediumint" => integer(24, is_unsigned),
            "int" => integer(32, is_unsigned),
            "bigint" => integer(64, is_unsigned),
            "bit" => {
                let bits = facts.digits.filter(|bits| (1..=64).contains(bits))?;
                Kind::Bits { max: u64::MAX >> (64 - bits) }
            }
            "year" => Kind::Year,
            "decimal" => Kind::Decimal {
                digits: usize::try_from(facts.digits?).ok()?,
                scale: usize::try_from(facts.scale.unwrap_or_default()).ok()?,
                is_unsigned,
            },
            "float" | "double" => Kind::Float {
                is_double: facts.data_type == "double",
                is_unsigned,
                fixed: facts.scale.and_then(|scale| u32::try_from(scale).ok()),
            },
            "date" => Kind::Date,
            "datetime" | "timestamp" => Kind::DateTime { fraction },
            "time" => Kind::Time { fraction },
            "char" | "varchar" => {
                Kind::Text { unit: Unit::Chars, length_max, is_fixed: facts.data_type == "char" }
            }
            "tinytext" | "text" | "mediumtext" | "longtext" => {
                let encoding = Encoding::of(facts.charset.as_deref().unwrap_or_default());
                Kind::Text { unit: Unit::Bytes { encoding }, length_max, is_fixed: false }
            }
            // MySQL's own: what it prints of a text that it printed is the same.
            "json" => {
                let unit = Unit::Bytes { encoding: Encoding::Utf8 };
                Kind::Text { unit, length_max: u64::from(u32::MAX), is_fixed: false }
            }
            "enum" => Kind::Enum(members(&facts.column_type)?),
            "set" => Kind::Set(members(&facts.column_type)?),
            "binary" | "varbinary" => {
                Kind::Bytes { length_max, is_fixed: facts.data_type == "binary" }
            }
            "tinyblob" | "blob" | "mediumblob" | "longblob" => {
                Kind::Bytes { length_max, is_fixed: false }
            }
            // The bytes that MySQL keeps: the SRID, then the WKB.
            "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" | "geomcollection" => {
                Kind::Bytes { length_max: u64::from(u32::MAX), is_fixed: false }
            }
            "uuid" => Kind::Uuid,
            "inet4" => Kind::Address { is_v6: false },
            "inet6" => Kind::Address { is_v6: true },
            _ => return None,
        };
        Some(kind)
    }

    /// Why no primary key may have such a column; `None`: it may.
    pub(super) fn refused_in_key(&self) -> Option<&'static str> {
        match self {
            Kind::Float { .. } => Some("is not exact: make it DECIMAL"),
            Kind::Address { .. } => Some("has several texts for one address: make it VARBINARY"),
            Kind::Text { unit: Unit::Bytes { .. }, .. } => Some("is no key: make it VARCHAR"),
            _ => None,
        }
    }
}

fn integer(bits: u32, is_unsigned: bool) -> Kind {
    let max = u64::MAX >> (64 - bits);
    if is_unsigned {
        Kind::Integer { min: 0, max }
    } else {
        Kind::Integer { min: i64::MIN >> (64 - bits), max: max >> 1 }
    }
}

impl Encoding {
    fn of(charset: &str) -> Encoding {
        match charset {
            "ucs2" | "utf16" | "utf16le" => Encoding::Utf16,
            "utf32" => Encoding::Utf32,
            "ascii" | "latin1" | "latin2" | "latin5" | "latin7" | "cp1250" | "cp1251"
            | "cp1256" | "cp1257" | "cp850" | "cp852" | "cp866" | "greek" | "hebrew" | "koi8r"
            | "koi8u" | "macce" | "macroman" | "tis620" | "armscii8" | "geostd8" | "dec8"
            | "hp8" | "keybcs2" | "swe7" => Encoding::Single,
            _ => Encoding::Utf8,
        }
    }

    /// How many bytes `text` takes.
    pub(super) fn bytes(self, text: &str) -> u64 {
        let units = match self {
            Encoding::Utf8 => text.len(),
            Encoding::Single => text.chars().count(),
            Encoding::Utf16 => 2 * text.encode_utf16().count(),
            Encoding::Utf32 => 4 * text.chars().count(),
        };
        units as u64
    }
}

/// The members of `enum('a','it''s')`, as MySQL writes such a type down.
fn members(column_type: &str) -> Option<Vec<String>> {
    let (_, list) = column_type.split_once('(')?;
    let (list, _) = list.rsplit_once(')')?;
    let mut members = Vec::new();
    let mut letters = list.chars().peekable();
    loop {
        if letters.next()? != '\'' {
            return None;
        }
        let mut member = String::new();
        loop {
            match letters.next()? {
                '\'' if letters.peek() == Some(&'\'') => {
                    letters.next();
                    member.push('\'');
                }
                '\'' => break,
                '\\' => member.push(match letters.next()? {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0' => '\0',
                    other => other,
                }),
                letter => member.push(letter),
            }
        }
        members.push(member);
        match letters.next() {
            Some(',') => {}
            None => return Some(members),
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_read_as_mysql_writes_them() {
        assert_eq!(members("enum('G','PG-13')").unwrap(), ["G", "PG-13"]);
        assert_eq!(
            members(r"set('it''s','a)b','Ä','tab\\x','')").unwrap(),
            ["it's", "a)b", "Ä", r"tab\x", ""]
        );
        for bad in ["enum", "enum()", "enum('a'", "enum('a' 'b')"] {
            assert_eq!(members(bad), None, "{bad}");
        }
    }

    #[test]
    fn integers_have_the_bounds_of_their_types() {
        assert_eq!(integer(8, false), Kind::Integer { min: -128, max: 127 });
        assert_eq!(integer(24, true), Kind::Integer { min: 0, max: 16_777_215 });
        assert_eq!(integer(64, false), Kind::Integer { min: i64::MIN, max: i64::MAX as u64 });
        assert_eq!(integer(64, true), Kind::Integer { min: 0, max: u64::MAX });
    }

    #[test]
    fn lengths_are_those_in_the_columns_character_set() {
        let text = "aä€😀";
        let bytes = |charset| Encoding::of(charset).bytes(text);
        assert_eq!(bytes("utf8mb4"), 10);
        assert_eq!((bytes("latin1"), bytes("utf16"), bytes("utf32")), (4, 10, 16));
    }
}
