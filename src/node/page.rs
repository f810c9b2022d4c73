//! Some rows of a delta, in the memory where they are: ranges of recent commits, which all
//! followers share, or rows that were read from the store for one of them.

use std::{ops::Range, sync::Arc};

use super::recent::Commit;
use crate::model::Row;

/// Rows in the order of their delta.
#[derive(Debug, Default)]
pub struct Rows {
    parts: Vec<Part>,
    len: usize,
    size_bytes: usize,
}

/// Neighbours among them.
#[derive(Debug)]
pub enum Part {
    /// Of a recent commit.
    Shared(Run),
    /// Read from the store.
    Own(Vec<Row>),
}

/// Neighbouring rows of one commit.
#[derive(Clone, Debug)]
pub struct Run {
    commit: Arc<Commit>,
    rows: Range<usize>,
}

impl Rows {
    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What they take in a frame, a batch or a cache, in bytes; see [`Row::size_bytes`].
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// The rows, part by part.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.parts.iter().flat_map(|part| match part {
            Part::Shared(run) => run.rows(),
            Part::Own(rows) => rows,
        })
    }

    /// The rows themselves, which share their bytes.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<Row> {
        if let [Part::Own(rows)] = &mut self.parts[..] {
            return std::mem::take(rows);
        }
        self.iter().cloned().collect()
    }

    /// Adds rows from the front of `run`, one at least, until there are `rows_max` or they take
    /// `bytes_max`.
    pub(super) fn take(&mut self, run: &mut Run, rows_max: usize, bytes_max: usize) {
        let mut taken = 0;
        for row in run.rows() {
            taken += 1;
            self.size_bytes += row.size_bytes();
            if self.len + taken >= rows_max || self.size_bytes >= bytes_max {
                break;
            }
        }
        let end = run.rows.start + taken;
        let commit = Arc::clone(&run.commit);
        self.parts.push(Part::Shared(Run { commit, rows: run.rows.start..end }));
        self.len += taken;
        run.rows.start = end;
    }
}

impl From<Vec<Row>> for Rows {
    fn from(rows: Vec<Row>) -> Rows {
        let size_bytes = rows.iter().map(Row::size_bytes).sum();
        Rows { len: rows.len(), size_bytes, parts: vec![Part::Own(rows)] }
    }
}

impl Run {
    /// The rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.commit.rows[self.rows.clone()]
    }

    /// Their bytes as `encode` makes them, which is done once for the whole commit; see
    /// [`Commit::encoded`].
    #[must_use]
    pub fn encoded(&self, encode: fn(&Row, &mut Vec<u8>)) -> bytes::Bytes {
        self.commit.encoded(self.rows.clone(), encode)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds row number `at` of `commit` to the last of `runs`, or begins another one.
    pub(super) fn extend(runs: &mut Vec<Run>, commit: &Arc<Commit>, at: usize) {
        match runs.last_mut() {
            Some(run) if run.rows.end == at && Arc::ptr_eq(&run.commit, commit) => {
                run.rows.end = at + 1;
            }
            _ => runs.push(Run { commit: Arc::clone(commit), rows: at..at + 1 }),
        }
    }
}
