//! One pass over a range: its sum, its rows where they are few, its parts where they are not.
//!
//! How many rows there are is known only at the end. So the parts begin small; when there would be too
//! many of them each two become one, and from then on parts are twice as large.

use super::{ListedRow, Position, RowSource, Span, Sum};

/// So many rows are told one by one rather than by the fingerprints of parts.
pub(super) const LISTED_MAX: usize = 8;
/// A part has at least so many rows, but for the last.
const PART_ROWS_MIN: u64 = 4;

/// A range, and what one pass over it found.
pub(super) struct Split {
    pub(super) total: Sum,
    /// The first rows; all of them where they are at most [`LISTED_MAX`].
    pub(super) listed: Vec<ListedRow>,
    /// Where each part begins, and its rows' sum; the last ends where the range does.
    pub(super) parts: Vec<(Position, Sum)>,
}

impl Split {
    /// Passes over `span` and parts it into at most `parts_max`, an even number.
    pub(super) fn of<S: RowSource>(
        source: &S,
        span: &Span,
        parts_max: usize,
    ) -> Result<Split, S::Error> {
        debug_assert!(parts_max >= 2 && parts_max.is_multiple_of(2));
        let mut split = Split { total: Sum::default(), listed: Vec::new(), parts: Vec::new() };
        let mut part_rows = PART_ROWS_MIN;
        let mut before = Position::START;
        for row in source.rows(span)? {
            let (position, hash) = row?;
            debug_assert!(split.total.count() == 0 || before < position, "rows come in order");
            let is_full = split.parts.last().is_none_or(|(_, sum)| sum.count() == part_rows);
            if is_full && split.parts.len() == parts_max {
                part_rows *= 2;
                split.parts = split
                    .parts
                    .chunks_exact(2)
                    .map(|pair| {
                        let (start, mut sum) = pair[0].clone();
                        sum.join(&pair[1].1);
                        (start, sum)
                    })
                    .collect();
            }
            if is_full {
                let start = match split.parts.is_empty() {
                    true => span.start.clone(),
                    false => position.parted_from(&before),
                };
                split.parts.push((start, Sum::default()));
            }
            split.parts.last_mut().expect("one that is not full").1.add(&hash);
            split.total.add(&hash);
            if split.listed.len() < LISTED_MAX {
                split.listed.push(ListedRow { position: position.clone(), hash: hash.listed() });
            }
            before = position;
        }
        Ok(split)
    }

    /// Whether [`listed`](Self::listed) is all.
    pub(super) fn is_listed(&self) -> bool {
        self.total.count() <= LISTED_MAX as u64
    }

    /// The parts as ranges of `span`.
    pub(super) fn spans(&self, span: &Span) -> impl Iterator<Item = (Span, Sum)> {
        let ends = self.parts.iter().skip(1).map(|(start, _)| Some(start.clone()));
        let ends = ends.chain([span.end.clone()]);
        self.parts
            .iter()
            .zip(ends)
            .map(|((start, sum), end)| (Span { start: start.clone(), end }, *sum))
    }
}
