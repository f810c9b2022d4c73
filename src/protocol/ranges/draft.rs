//! A message that grows until it is full.

use super::{
    Comparison, ComparisonError, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, POSITION_BYTES_MAX,
    Position, Says, Span, message::RANGE_BYTES,
};

/// For the skip before a range and the one at the end of the message.
const RESERVE_BYTES: usize = 2 * (RANGE_BYTES + POSITION_BYTES_MAX);

/// A message under way.
pub(super) struct Draft {
    message: Comparison,
    bytes_max: usize,
}

impl Draft {
    pub(super) fn new(bytes_max: usize) -> Draft {
        let bytes_max = bytes_max.clamp(MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX);
        Draft { message: Comparison::new(), bytes_max }
    }

    /// How many bytes of listed rows a further range may have, whatever its end.
    pub(super) fn room(&self) -> usize {
        let taken = self.message.bytes() + RESERVE_BYTES + RANGE_BYTES + POSITION_BYTES_MAX;
        self.bytes_max.saturating_sub(taken)
    }

    /// Says something of `span`, which lies behind all that was spoken of, and skips what lies between;
    /// rows must fit the [`room`](Self::room). `false`, with nothing said: it is full.
    pub(super) fn say(&mut self, span: &Span, says: Says) -> Result<bool, ComparisonError> {
        if self.room() == 0 {
            return Ok(false);
        }
        self.skip_to(Some(&span.start))?;
        self.message.push(span.end.clone(), says)?;
        Ok(true)
    }

    /// Speaks of everything before `point`: what was not spoken of is skipped.
    pub(super) fn skip_to(&mut self, point: Option<&Position>) -> Result<(), ComparisonError> {
        if point == Some(&Position::START) || self.message.reaches(point) {
            return Ok(());
        }
        self.message.push(point.cloned(), Says::Skip)
    }

    pub(super) fn finish(self) -> Comparison {
        self.message
    }
}
