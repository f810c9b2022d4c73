//! What one side says to the other: ranges, one behind the other, from the start of all rows.
//!
//! A [`Comparison`] keeps its rules by how it is made: [`Comparison::push`] is the only way to add a
//! range, for our own messages and for those that are decoded alike. What lies behind the last range
//! is not spoken of.

use super::{Fingerprint, ListedHash, POSITION_BYTES_MAX, Position, Span, position::is_at_most};

/// No message is larger, in memory or on the wire, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// The least that a message must be allowed: a range's few rows fit, whatever their positions.
pub const MESSAGE_BYTES_MIN: usize = 8 << 10;

/// What a range takes beside its end and its rows, at most: its fingerprint, tags and lengths.
pub(super) const RANGE_BYTES: usize = 32;
/// What a listed row takes beside its position, at most: its hash, tags and lengths.
const ROW_BYTES: usize = 32;

/// What is said of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing: it is equal, or not the matter now.
    Skip,
    /// This stands for the speaker's rows.
    Fingerprint(Fingerprint),
    /// These are the speaker's rows, all of them, in order.
    Rows(Vec<ListedRow>),
}

/// One row of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedRow {
    /// Where it stands.
    pub position: Position,
    /// Equal for equal rows.
    pub hash: ListedHash,
}

impl ListedRow {
    /// The most it takes in memory or on the wire, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        ROW_BYTES + self.position.as_slice().len()
    }
}

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ComparisonError {
    /// Ends must rise, and nothing may follow the range that has no end.
    #[error("comparison: a range does not lie behind the one before it")]
    OutOfOrder,
    /// A boundary or a position beyond any row's.
    #[error("comparison: a position of {0} bytes; the longest has {POSITION_BYTES_MAX}")]
    TooLong(usize),
    /// A listed position where no row can stand.
    #[error("comparison: a listed row has no table and key")]
    NoRow,
    /// A listed row outside its range, or out of order.
    #[error("comparison: the listed rows of a range lie outside it or out of order")]
    RowsOutOfOrder,
    /// More than a message may hold.
    #[error("comparison: a message has more than {MESSAGE_BYTES_MAX} bytes")]
    TooLarge,
    /// The asking side lists no rows.
    #[error("comparison: a question lists rows; a question has fingerprints only")]
    RowsAsked,
    /// The answer speaks of what was not asked, or of half a range.
    #[error("comparison: the answer does not fit the ranges that were asked for")]
    NotAsked,
    /// The answer brings the comparison no further.
    #[error("comparison: the answer brings nothing new")]
    NoProgress,
}

/// A message: what is said of each range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Comparison {
    ranges: Vec<(Option<Position>, Says)>,
    bytes: usize,
}

impl Comparison {
    /// Of nothing.
    #[must_use]
    pub const fn new() -> Comparison {
        Comparison { ranges: Vec::new(), bytes: 0 }
    }

    /// Says something of the range from the end of the last one to `end`; `None`: to the end of all.
    ///
    /// # Errors
    ///
    /// [`ComparisonError`]: the range breaks the message's rules. Nothing was added.
    pub fn push(&mut self, end: Option<Position>, says: Says) -> Result<(), ComparisonError> {
        let start = match self.ranges.last() {
            None => Position::START,
            Some((Some(end), _)) => end.clone(),
            Some((None, _)) => return Err(ComparisonError::OutOfOrder),
        };
        let span = Span { start, end };
        let mut bytes = RANGE_BYTES;
        if let Some(end) = &span.end {
            if *end <= span.start {
                return Err(ComparisonError::OutOfOrder);
            }
            bytes += checked_length(end)?;
        }
        if let Says::Rows(rows) = &says {
            for row in rows {
                checked_length(&row.position)?;
                row.position.row().ok_or(ComparisonError::NoRow)?;
                bytes += row.bytes();
            }
            let within = rows.iter().all(|row| span.holds(&row.position));
            if !within || !rows.is_sorted_by(|a, b| a.position < b.position) {
                return Err(ComparisonError::RowsOutOfOrder);
            }
        }
        if self.bytes + bytes > MESSAGE_BYTES_MAX {
            return Err(ComparisonError::TooLarge);
        }
        self.bytes += bytes;
        self.ranges.push((span.end, says));
        Ok(())
    }

    /// The ends of the ranges and what is said of each.
    #[must_use]
    pub fn ranges(&self) -> &[(Option<Position>, Says)] {
        &self.ranges
    }

    /// The same, each with its start as well.
    pub(super) fn spans(&self) -> impl Iterator<Item = (Span, &Says)> {
        let mut start = Position::START;
        self.ranges.iter().map(move |(end, says)| {
            let next = end.clone().unwrap_or_default();
            (Span { start: std::mem::replace(&mut start, next), end: end.clone() }, says)
        })
    }

    /// How far the message speaks; outer `None`: it says nothing.
    pub(super) fn end(&self) -> Option<Option<&Position>> {
        self.ranges.last().map(|(end, _)| end.as_ref())
    }

    /// Whether the message speaks of what lies before `point`.
    pub(super) fn reaches(&self, point: Option<&Position>) -> bool {
        self.end().is_some_and(|end| is_at_most(point, end))
    }

    /// The most it takes in memory or on the wire, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

fn checked_length(position: &Position) -> Result<usize, ComparisonError> {
    match position.as_slice().len() {
        length if length <= POSITION_BYTES_MAX => Ok(length),
        length => Err(ComparisonError::TooLong(length)),
    }
}
