//! The side that asks, and ends with the difference.

use std::collections::VecDeque;

use super::{
    CompareError, Comparison, ComparisonError, Fingerprint, ListedRow, Position, RowSource, Says,
    Span, answer::PARTS_MAX, draft::Draft, split::Split,
};

/// Into how many parts all rows are divided at first: what two equal stores tell each other.
const FIRST_PARTS_MAX: usize = 128;
/// With each answer a range has an eighth of the rows at most: no store needs more.
const DEPTH_MAX: u8 = 16;

/// A position where the two sides differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only the asking side has a row.
    OnlyHere(Position),
    /// Only the answering side has a row.
    OnlyThere(Position),
    /// Both have a row, and not the same.
    Unequal(Position),
}

impl Difference {
    /// Where.
    #[must_use]
    pub fn position(&self) -> &Position {
        match self {
            Difference::OnlyHere(at) | Difference::OnlyThere(at) | Difference::Unequal(at) => at,
        }
    }
}

/// A range that was asked for, or will be.
#[derive(Clone, Debug)]
struct Open {
    span: Span,
    /// Of our rows; `None`: it differs, or is not known to be equal, and is asked for in parts.
    fingerprint: Option<Fingerprint>,
    /// How many answers led here.
    depth: u8,
    /// A part of it was answered.
    begun: bool,
}

/// The asking side of one comparison.
///
/// Each call passes over this side's rows in the ranges that are spoken of, and blocks as long. What is
/// kept between calls is bounded, whatever the peer answers: by the ranges of two messages for each of the
/// few levels that a comparison can have.
#[derive(Clone, Debug)]
pub struct Comparer {
    message_bytes: usize,
    /// In order; all lie before those of `todo`.
    asked: VecDeque<Open>,
    todo: VecDeque<Open>,
    rows: u64,
}

impl Comparer {
    /// Of all rows; a question has at most `message_bytes`.
    #[must_use]
    pub fn new(message_bytes: usize) -> Comparer {
        let whole = Open { span: Span::whole(), fingerprint: None, depth: 0, begun: false };
        Comparer { message_bytes, asked: VecDeque::new(), todo: VecDeque::from([whole]), rows: 0 }
    }

    /// How many rows this side has; known once the comparison has begun.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The first question. Costs a pass over all rows.
    ///
    /// # Errors
    ///
    /// [`CompareError::Source`]: rows cannot be read.
    pub fn begin<S: RowSource>(
        &mut self,
        source: &S,
    ) -> Result<Comparison, CompareError<S::Error>> {
        let mut draft = Draft::new(self.message_bytes);
        self.fill(source, &mut draft)?;
        Ok(draft.finish())
    }

    /// Takes the answer to the newest question, tells `found` of the differences in it, each once,
    /// in their order within this answer, and gives the next question; `None`: all is compared.
    ///
    /// # Errors
    ///
    /// [`CompareError`]: rows cannot be read, or the answer breaks the rules. The comparison is over;
    /// differences that were told before are sound as far as the peer is.
    pub fn on_answer<S: RowSource>(
        &mut self,
        source: &S,
        answer: &Comparison,
        mut found: impl FnMut(Difference),
    ) -> Result<Option<Comparison>, CompareError<S::Error>> {
        let mut draft = Draft::new(self.message_bytes);
        let mut asked = std::mem::take(&mut self.asked);
        // Ranges that differ for which the question has no room; they lie before those still asked.
        let mut later = Vec::new();
        let mut moved = asked.is_empty();
        for (span, says) in answer.spans() {
            if *says == Says::Skip {
                moved |= skip(&mut asked, &span)?;
                continue;
            }
            let depth = told(&mut asked, &span, says)?;
            moved = true;
            let theirs = match says {
                Says::Fingerprint(theirs) => *theirs,
                Says::Rows(rows) => {
                    differ(source, &span, rows, &mut found).map_err(CompareError::Source)?;
                    continue;
                }
                Says::Skip => continue,
            };
            let split = Split::of(source, &span, PARTS_MAX).map_err(CompareError::Source)?;
            if split.total.fingerprint() != theirs {
                let open = Open { span, fingerprint: None, depth, begun: false };
                if later.is_empty() {
                    later.extend(self.ask(&open, &split, &mut draft)?);
                } else {
                    later.push(open);
                }
            }
        }
        if !moved {
            return Err(ComparisonError::NoProgress.into());
        }
        // What is left of the range where the answer was cut, and what lies behind.
        for open in asked.iter_mut().filter(|open| open.begun) {
            (open.fingerprint, open.begun) = (None, false);
        }
        for open in asked.into_iter().rev() {
            self.todo.push_front(open);
        }
        for open in later.into_iter().rev() {
            self.todo.push_front(open);
        }
        self.fill(source, &mut draft)?;
        Ok((!self.asked.is_empty()).then(|| draft.finish()))
    }

    /// Asks for what is to be done, as far as the question has room.
    fn fill<S: RowSource>(
        &mut self,
        source: &S,
        draft: &mut Draft,
    ) -> Result<(), CompareError<S::Error>> {
        while draft.room() > 0
            && let Some(open) = self.todo.pop_front()
        {
            if let Some(fingerprint) = open.fingerprint {
                draft.say(&open.span, Says::Fingerprint(fingerprint))?;
                self.asked.push_back(open);
                continue;
            }
            let is_whole = open.span == Span::whole();
            let parts_max = if is_whole { FIRST_PARTS_MAX } else { PARTS_MAX };
            let split = Split::of(source, &open.span, parts_max).map_err(CompareError::Source)?;
            if is_whole {
                self.rows = split.total.count();
            }
            if let Some(left) = self.ask(&open, &split, draft)? {
                self.todo.push_front(left);
            }
        }
        Ok(())
    }

    /// Asks for a range that differs: in parts, or as it is where this side has few rows there. Gives
    /// what the question has no room for.
    fn ask(
        &mut self,
        open: &Open,
        split: &Split,
        draft: &mut Draft,
    ) -> Result<Option<Open>, ComparisonError> {
        let whole = [(open.span.clone(), split.total)];
        let parts: Vec<_> = match split.is_listed() {
            true => whole.into(),
            false => split.spans(&open.span).collect(),
        };
        for (span, sum) in parts {
            let fingerprint = sum.fingerprint();
            if !draft.say(&span, Says::Fingerprint(fingerprint))? {
                let rest = Span { start: span.start, end: open.span.end.clone() };
                return Ok(Some(Open { span: rest, fingerprint: None, ..*open }));
            }
            let fingerprint = Some(fingerprint);
            self.asked.push_back(Open { span, fingerprint, depth: open.depth, begun: false });
        }
        Ok(None)
    }
}

/// The peer has the same in `span`: what was asked for there is done.
fn skip(asked: &mut VecDeque<Open>, span: &Span) -> Result<bool, ComparisonError> {
    let mut moved = false;
    while let Some(open) = asked.front() {
        let begins_behind = span.end.as_ref().is_some_and(|end| *end <= open.span.start);
        if begins_behind {
            break;
        }
        // Half a range cannot be known to be equal.
        if open.begun || open.span.start < span.start || !open.span.ends_by(span.end.as_ref()) {
            return Err(ComparisonError::NotAsked);
        }
        asked.pop_front();
        moved = true;
    }
    Ok(moved)
}

/// The peer says something of `span`, which must be the next part of a range that was asked for; gives
/// how many answers led to it.
fn told(asked: &mut VecDeque<Open>, span: &Span, says: &Says) -> Result<u8, ComparisonError> {
    let open = asked.front_mut().ok_or(ComparisonError::NotAsked)?;
    if span.start != open.span.start || !span.ends_by(open.span.end.as_ref()) {
        return Err(ComparisonError::NotAsked);
    }
    let is_whole = span.end == open.span.end;
    // A fingerprint of the same range says no more than that it differs, for ever.
    let is_fingerprint = matches!(says, Says::Fingerprint(_));
    if open.depth >= DEPTH_MAX || (is_whole && !open.begun && is_fingerprint) {
        return Err(ComparisonError::NoProgress);
    }
    let depth = open.depth + 1;
    match &span.end {
        Some(end) if !is_whole => {
            open.span.start = end.clone();
            open.begun = true;
        }
        _ => drop(asked.pop_front()),
    }
    Ok(depth)
}

/// Compares the peer's rows of `span` with ours.
fn differ<S: RowSource>(
    source: &S,
    span: &Span,
    theirs: &[ListedRow],
    found: &mut impl FnMut(Difference),
) -> Result<(), S::Error> {
    let mut theirs = theirs.iter().peekable();
    for row in source.rows(span)? {
        let (position, hash) = row?;
        while let Some(row) = theirs.next_if(|row| row.position < position) {
            found(Difference::OnlyThere(row.position.clone()));
        }
        match theirs.next_if(|row| row.position == position) {
            None => found(Difference::OnlyHere(position)),
            Some(row) if row.hash != hash.listed() => found(Difference::Unequal(position)),
            Some(_) => {}
        }
    }
    for row in theirs {
        found(Difference::OnlyThere(row.position.clone()));
    }
    Ok(())
}
