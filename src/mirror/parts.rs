//! Many rows as statements of several rows: while MySQL has one, the next is made.

use super::mysql::Call;

/// Rows that go out part by part, in their order.
pub(super) struct Parts<'r, R, F, S> {
    /// What is left, the next first to be taken from the end.
    waiting: Vec<&'r [R]>,
    /// The next part, made already.
    made: Option<(&'r [R], Call)>,
    /// How many rows from the front one statement takes, at least one.
    fit: F,
    call: S,
}

impl<'r, R, F, S> Parts<'r, R, F, S>
where
    F: Fn(&[R]) -> usize,
    S: Fn(&[R]) -> Call,
{
    pub(super) fn new(rows: &'r [R], fit: F, call: S) -> Parts<'r, R, F, S> {
        Parts { waiting: vec![rows], made: None, fit, call }
    }

    /// The next part; `None`: all went out.
    pub(super) fn next(&mut self) -> Option<(&'r [R], Call)> {
        self.made.take().or_else(|| self.make())
    }

    /// Makes the part that [`Parts::next`] gives. To be awaited beside a statement under way: it never waits.
    pub(super) async fn make_next(&mut self) {
        self.made = self.make();
    }

    /// This part, which was just taken, goes out in two.
    pub(super) fn halve(&mut self, rows: &'r [R]) {
        self.waiting.extend(self.made.take().map(|(rows, _)| rows));
        let (first, second) = rows.split_at(rows.len() / 2);
        self.waiting.extend([second, first]);
    }

    fn make(&mut self) -> Option<(&'r [R], Call)> {
        loop {
            let rows = self.waiting.pop()?;
            if rows.is_empty() {
                continue;
            }
            let (now, later) = rows.split_at((self.fit)(rows));
            self.waiting.push(later);
            return Some((now, (self.call)(now)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_rows_go_out_in_their_order_whichever_are_refused() {
        let rows: Vec<u64> = (0..10).collect();
        let call = |rows: &[u64]| Call::Text(format!("{rows:?}"));
        let mut parts = Parts::new(&rows, |rows| rows.len().min(4), call);
        let (mut out, mut refused) = (Vec::new(), Vec::new());
        while let Some((now, call)) = parts.next() {
            parts.make_next().await;
            assert!(matches!(call, Call::Text(text) if text == format!("{now:?}")));
            match now {
                now if !now.contains(&2) => out.extend(now),
                [row] => refused.push(*row),
                now => parts.halve(now),
            }
        }
        assert_eq!((out, refused), (vec![0, 1, 3, 4, 5, 6, 7, 8, 9], vec![2]));
    }
}
