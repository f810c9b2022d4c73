//! The side that answers, from one snapshot, and remembers nothing.

use super::{
    CompareError, Comparison, ComparisonError, ListedRow, Position, RowSource, Says, Span, Sum,
    draft::Draft, split::Split,
};

/// A range that differs is answered in at most so many parts.
pub(super) const PARTS_MAX: usize = 16;

/// Answers a question of a [`Comparer`](super::Comparer) from `source`, which must stand on the same
/// snapshot for all questions of one comparison. The answer has at most `message_bytes`; where that does
/// not do it ends early, and the rest is asked for again. Costs one pass over the ranges asked for, as
/// far as the answer comes.
///
/// # Errors
///
/// [`CompareError`]: rows cannot be read, or the question breaks the rules.
pub fn answer<S: RowSource>(
    source: &S,
    question: &Comparison,
    message_bytes: usize,
) -> Result<Comparison, CompareError<S::Error>> {
    let mut draft = Draft::new(message_bytes);
    let nothing = Sum::default().fingerprint();
    for (span, says) in question.spans() {
        let theirs = match says {
            Says::Skip => continue,
            Says::Rows(_) => return Err(ComparisonError::RowsAsked.into()),
            Says::Fingerprint(theirs) => *theirs,
        };
        let told = if theirs == nothing {
            list(source, &span, &mut draft)?
        } else {
            let split = Split::of(source, &span, PARTS_MAX).map_err(CompareError::Source)?;
            split.total.fingerprint() == theirs || tell(&span, split, &mut draft)?
        };
        if !told {
            // What is equal before it is said to be.
            draft.skip_to(Some(&span.start))?;
            return Ok(draft.finish());
        }
    }
    if let Some(end) = question.end() {
        draft.skip_to(end)?;
    }
    Ok(draft.finish())
}

/// A range that differs; `false`: the message is full.
fn tell(span: &Span, split: Split, draft: &mut Draft) -> Result<bool, ComparisonError> {
    if split.is_listed() {
        let bytes: usize = split.listed.iter().map(ListedRow::bytes).sum();
        return Ok(bytes <= draft.room() && draft.say(span, Says::Rows(split.listed))?);
    }
    for (part, sum) in split.spans(span) {
        if !draft.say(&part, Says::Fingerprint(sum.fingerprint()))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A range where the asking side has nothing: all rows, as far as they fit. `false`: not all do.
fn list<S: RowSource>(
    source: &S,
    span: &Span,
    draft: &mut Draft,
) -> Result<bool, CompareError<S::Error>> {
    let mut rows: Vec<ListedRow> = Vec::new();
    let mut room = draft.room();
    let mut rest: Option<Position> = None;
    for row in source.rows(span).map_err(CompareError::Source)? {
        let (position, hash) = row.map_err(CompareError::Source)?;
        let row = ListedRow { position, hash: hash.listed() };
        match room.checked_sub(row.bytes()) {
            Some(less) => room = less,
            None => {
                rest = Some(match rows.last() {
                    Some(last) => row.position.parted_from(&last.position),
                    None => return Ok(false),
                });
                break;
            }
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Ok(true);
    }
    let cut = rest.is_some();
    let told = Span { start: span.start.clone(), end: rest.or_else(|| span.end.clone()) };
    Ok(draft.say(&told, Says::Rows(rows))? && !cut)
}
