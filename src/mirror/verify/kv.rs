//! The rows of a `kv` table as one number each, computed alike by MySQL and here. Pure.
//!
//! ```text
//! SHA-256 of: length of k, length of v, hlc, updated_at, expires_at, then origin, k and v themselves
//! ```
//!
//! Its first 64 bits stand for a row, their XOR for any set of rows. Lengths come first, so that no
//! two rows have the same bytes before they are hashed; XOR of a plain CRC would not see two values that
//! have changed places. Times are microseconds since 1970, in whatever time zone the session is.
//! Functions that MySQL 8 and MariaDB both have. A row too large for MySQL to put together counts, but gives no
//! number: its chunk differs, and the row is fetched.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::super::{
    mapping::datetime,
    shape::Shape,
    statement::{Param, Statement, repeat},
};
use crate::model::{Body, TableName};

/// Which rows of a table, by their keys in the order of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    /// Behind this one; `None`: from the first.
    pub(super) after: Option<Vec<u8>>,
    /// Up to this one; `None`: to the last.
    pub(super) through: Option<Vec<u8>>,
}

/// How the rows of a table are compared.
#[derive(Clone, Debug)]
pub(super) struct Kv {
    name: TableName,
    key_is_text: bool,
    value_is_text: bool,
}

impl Kv {
    pub(super) fn new(name: TableName, shape: &Shape) -> Kv {
        Kv { name, key_is_text: shape.key().is_text, value_is_text: shape.value().is_text }
    }

    /// Whether MySQL's order of the keys is that of their bytes.
    pub(super) fn is_ordered(&self) -> bool {
        !self.key_is_text
    }

    /// Whether MySQL can look for this key at all.
    pub(super) fn may_hold(&self, key: &[u8]) -> bool {
        !self.key_is_text || str::from_utf8(key).is_ok()
    }

    /// Count and sum of the rows of a range that live at `now_ms`.
    pub(super) fn sum_of_range(&self, range: &Range, now_ms: u64) -> Statement {
        let (place, mut params) = of_range(range);
        params.push(Param::DateTime(datetime(now_ms)));
        self.sum(&place, params)
    }

    /// Count and sum of the rows with these keys that live at `now_ms`.
    pub(super) fn sum_of_keys(&self, keys: &[Vec<u8>], now_ms: u64) -> Statement {
        let (place, mut params) = of_keys(keys);
        params.push(Param::DateTime(datetime(now_ms)));
        self.sum(&place, params)
    }

    fn sum(&self, place: &str, params: Vec<Param>) -> Statement {
        let (name, number) = (&self.name, self.number());
        let select = format!("SELECT COUNT(*), BIT_XOR({number}) FROM `{name}`");
        Statement::new(format!("{select} WHERE {place} AND {LIVES}"), params)
    }

    /// Key and number of the rows of a range that live at `now_ms`, the first `rows_max`.
    pub(super) fn rows_of_range(&self, range: &Range, now_ms: u64, rows_max: usize) -> Statement {
        let (place, mut params) = of_range(range);
        params.push(Param::DateTime(datetime(now_ms)));
        let (name, number) = (&self.name, self.number());
        let select = format!("SELECT k, {number} FROM `{name}` WHERE {place} AND {LIVES}");
        Statement::new(format!("{select} ORDER BY k LIMIT {rows_max}"), params)
    }

    /// Key, number, and whether it lives at `now_ms`, of the rows with these keys.
    pub(super) fn rows_of_keys(&self, keys: &[Vec<u8>], now_ms: u64) -> Statement {
        let (place, params) = of_keys(keys);
        let mut all = vec![Param::DateTime(datetime(now_ms))];
        all.extend(params);
        let (name, number) = (&self.name, self.number());
        Statement::new(format!("SELECT k, {number}, {LIVES} FROM `{name}` WHERE {place}"), all)
    }

    /// The expression that gives a row's number.
    fn number(&self) -> String {
        let bytes = |column: &str, is_text: bool| match is_text {
            true => format!("CAST(CONVERT({column} USING utf8mb4) AS BINARY)"),
            false => column.to_owned(),
        };
        let (k, v) = (bytes("k", self.key_is_text), bytes("v", self.value_is_text));
        let us = |column: &str| format!("TIMESTAMPDIFF(MICROSECOND,'1970-01-01',{column})");
        let (updated, expires) = (us("updated_at"), us("expires_at"));
        format!(
            "CAST(CONV(LEFT(SHA2(CONCAT(LENGTH({k}),' ',LENGTH({v}),' ',hlc,' ',{updated},' ',\
             IFNULL({expires},'-'),' ',origin,{k},{v}),256),16),16,10) AS UNSIGNED)"
        )
    }
}

/// Of a row that has not expired.
const LIVES: &str = "(expires_at IS NULL OR expires_at > ?)";

fn of_range(range: &Range) -> (String, Vec<Param>) {
    let mut place = "TRUE".to_owned();
    let mut params = Vec::new();
    for (bound, sign) in [(&range.after, ">"), (&range.through, "<=")] {
        if let Some(key) = bound {
            place.push_str(&format!(" AND k {sign} ?"));
            params.push(Param::Bytes(Bytes::copy_from_slice(key)));
        }
    }
    (place, params)
}

fn of_keys(keys: &[Vec<u8>]) -> (String, Vec<Param>) {
    let mut place = "k IN (".to_owned();
    repeat(&mut place, "?", ",", keys.len());
    place.push(')');
    (place, keys.iter().map(|key| Param::Bytes(Bytes::copy_from_slice(key))).collect())
}

/// The number of a row of the store; `None`: it is a tombstone.
pub(super) fn number(key: &[u8], body: &Body) -> Option<u64> {
    let value = body.value()?;
    let version = body.version();
    let us = |ms: u64| {
        let time = datetime(ms).duration_since(datetime(0));
        time.as_micros().to_string()
    };
    let (key_bytes, value_bytes, hlc) = (key.len(), value.len(), version.hlc.bits());
    let updated = us(version.hlc.ms());
    let expires = body.expires_at_ms().map_or_else(|| "-".to_owned(), us);
    let mut hash = Sha256::new();
    hash.update(format!("{key_bytes} {value_bytes} {hlc} {updated} {expires} "));
    hash.update(version.origin.as_bytes());
    hash.update(key);
    hash.update(&value);
    let first = hash.finalize()[..8].try_into().expect("a hash of 32 bytes");
    Some(u64::from_be_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mirror::shape::tests::{bytes_column, shape_of, text_column},
        model::{BodyParts, Context, Hlc, Origin, Version},
    };

    fn body(hlc: u64, origin: u8, value: Option<&[u8]>, expires_at_ms: Option<u64>) -> Body {
        let origin = Origin::from_bytes([origin; 16]);
        Body::new(&BodyParts {
            version: Version { hlc: Hlc::from_bits(hlc), origin },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms,
            value,
        })
    }

    #[test]
    fn a_number_is_of_lengths_version_times_key_and_value() {
        let row = body((5 << 16) | 7, 1, Some(b"\x00\xff "), None);
        let text = [&b"3 3 327687 5000 - "[..], &[1; 16], b"key\x00\xff "].concat();
        let first = Sha256::digest(text)[..8].try_into().unwrap();
        assert_eq!(number(b"key", &row), Some(u64::from_be_bytes(first)));
    }

    #[test]
    fn whatever_is_other_makes_another_number() {
        let v = Some(&b"v"[..]);
        let all = [
            number(b"k", &body(5, 1, v, None)),
            number(b"kv", &body(5, 1, Some(b""), None)),
            number(b"", &body(5, 1, Some(b"kv"), None)),
            number(b"k", &body(6, 1, v, None)),
            number(b"k", &body(5, 2, v, None)),
            number(b"k", &body(5, 1, v, Some(7))),
            number(b"k", &body(5, 1, v, Some(8))),
        ];
        let different: std::collections::HashSet<_> = all.iter().flatten().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(number(b"k", &body(5, 1, None, None)), None);
    }

    #[test]
    fn every_placeholder_has_its_parameter() {
        let (bytes, text) = (bytes_column(512), text_column(512));
        let range = Range { after: Some(b"a".to_vec()), through: Some(b"b".to_vec()) };
        let keys = [b"a".to_vec(), b"b".to_vec()];
        for shape in [shape_of(bytes, bytes), shape_of(text, text)] {
            let kv = Kv::new(TableName::of_any("t").unwrap(), &shape);
            for statement in [
                kv.sum_of_range(&range, 1),
                kv.sum_of_range(&Range::default(), 1),
                kv.sum_of_keys(&keys, 1),
                kv.rows_of_range(&range, 1, 10),
                kv.rows_of_keys(&keys, 1),
            ] {
                let places = statement.sql.matches('?').count();
                assert_eq!(places, statement.params.len(), "{}", statement.sql);
            }
        }
    }
}
