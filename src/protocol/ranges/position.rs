//! The one order in which both sides lay out their rows.
//!
//! A row's position is its table's name, a zero byte, then its key: table numbers differ from store
//! to store. Positions compare as bytes; between any two there is room for a boundary, which need not
//! be a row's position itself.

use std::fmt;

use crate::model::{KEY_BYTES_MAX, Key, TABLE_NAME_BYTES_MAX, TableName};

/// The longest position, in bytes.
pub const POSITION_BYTES_MAX: usize = TABLE_NAME_BYTES_MAX + 1 + KEY_BYTES_MAX;

/// A point in the order of all rows: a row's own, or a boundary between rows.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(Vec<u8>);

impl Position {
    /// Before every row.
    pub const START: Position = Position(Vec::new());

    /// Any point.
    #[must_use]
    pub const fn new(bytes: Vec<u8>) -> Position {
        Position(bytes)
    }

    /// The position of a row.
    #[must_use]
    pub fn of_row(table: &TableName, key: &[u8]) -> Position {
        let table = table.as_str().as_bytes();
        let mut bytes = Vec::with_capacity(table.len() + 1 + key.len());
        bytes.extend_from_slice(table);
        bytes.push(0);
        bytes.extend_from_slice(key);
        Position(bytes)
    }

    /// The row that stands here; `None` where none can.
    #[must_use]
    pub fn row(&self) -> Option<(TableName, Key)> {
        let (table, key) = self.0.split_at(self.0.iter().position(|byte| *byte == 0)?);
        let table = TableName::of_any(std::str::from_utf8(table).ok()?).ok()?;
        Some((table, Key::new(key[1..].to_vec()).ok()?))
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// How many bytes both begin with.
    #[must_use]
    pub fn shared_with(&self, other: &Position) -> usize {
        self.0.iter().zip(&other.0).take_while(|(a, b)| a == b).count()
    }

    /// The shortest boundary that parts `before` from `self`, which lies above it.
    pub(super) fn parted_from(&self, before: &Position) -> Position {
        let length = (self.shared_with(before) + 1).min(self.0.len());
        Position(self.0[..length].to_vec())
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// The positions from `start`, included, to `end`, not included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first point.
    pub start: Position,
    /// Behind the last; `None`: to the end of all.
    pub end: Option<Position>,
}

impl Span {
    /// All there is.
    #[must_use]
    pub const fn whole() -> Span {
        Span { start: Position::START, end: None }
    }

    /// Whether the span ends at or before `point`; `None` stands for the end of all.
    pub(super) fn ends_by(&self, point: Option<&Position>) -> bool {
        is_at_most(self.end.as_ref(), point)
    }

    /// Whether a row may stand here.
    pub(super) fn holds(&self, position: &Position) -> bool {
        self.start <= *position && self.end.as_ref().is_none_or(|end| position < end)
    }
}

/// Whether the end `a` is no further than the end `b`.
pub(super) fn is_at_most(a: Option<&Position>, b: Option<&Position>) -> bool {
    match (a, b) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(a), Some(b)) => a <= b,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(text: &str) -> Position {
        Position::new(text.as_bytes().to_vec())
    }

    #[test]
    fn a_row_is_found_again_from_its_position() {
        let table = TableName::of_any("_members").unwrap();
        let key = Key::new(vec![0, 1, 0]).unwrap();
        assert_eq!(Position::of_row(&table, key.as_slice()).row(), Some((table, key)));
        for none in ["", "t", "t\0", "T\0k", "\0k"] {
            assert_eq!(position(none).row(), None, "{none:?}");
        }
        let longest = "a".repeat(TABLE_NAME_BYTES_MAX) + "\0" + &"k".repeat(KEY_BYTES_MAX);
        assert_eq!(longest.len(), POSITION_BYTES_MAX);
        assert!(position(&longest).row().is_some());
        assert_eq!(position(&format!("{longest}k")).row(), None);
        assert_eq!(position(&format!("a{longest}")).row(), None);
    }

    #[test]
    fn a_table_lies_before_those_whose_names_go_on() {
        assert!(position("a\0\u{7f}") < position("a_b\0k") && position("a\0k") < position("ab\0k"));
    }

    proptest! {
        #[test]
        fn a_boundary_parts_two_positions_and_is_short(mut a: Vec<u8>, mut b: Vec<u8>) {
            prop_assume!(a != b);
            if a > b {
                std::mem::swap(&mut a, &mut b);
            }
            let (a, b) = (Position::new(a), Position::new(b));
            let parted = b.parted_from(&a);
            prop_assert!(a < parted && parted <= b);
            let shorter = Position::new(parted.as_slice()[..parted.as_slice().len() - 1].to_vec());
            prop_assert!(shorter <= a);
        }
    }
}
