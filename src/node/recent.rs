//! The newest commits, in memory: links and mirrors that keep up read them here.
//!
//! Bounded by bytes; who falls behind reads the change index instead, so a lost entry costs time,
//! never data.
//!
//! A commit's rows are encoded for links once, by the first that sends them; the bound counts
//! those bytes from the beginning, so it holds whether they are there or not.

use std::{
    collections::{HashMap, VecDeque},
    ops::Range,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::page::Run;
use crate::model::{Heads, Key, Row, TableName, Version};

/// One durable commit.
#[derive(Debug)]
pub struct Commit {
    /// Counts the commits of this start of the node.
    pub sequence: u64,
    /// The rows that it changed, in the order of their versions.
    pub rows: Vec<Row>,
    /// What the store has incorporated with it.
    pub heads: Arc<Heads>,
    encoded: OnceLock<Encoded>,
    bytes: usize,
}

/// The rows of a commit as links send them.
#[derive(Debug)]
struct Encoded {
    bytes: Bytes,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl Commit {
    /// The bytes of these rows, one behind the other, as `encode` appends them. The first call does so
    /// for the whole commit; later ones, which must name the same function, share what it made.
    #[must_use]
    pub fn encoded(&self, rows: Range<usize>, encode: fn(&Row, &mut Vec<u8>)) -> Bytes {
        let encoded = self.encoded.get_or_init(|| {
            let bytes = self.rows.iter().map(|row| row.size_bytes() + ENCODED_OVERHEAD_BYTES).sum();
            let mut bytes = Vec::with_capacity(bytes);
            let mut ends = Vec::with_capacity(self.rows.len());
            for row in &self.rows {
                encode(row, &mut bytes);
                ends.push(bytes.len());
            }
            Encoded { bytes: bytes.into(), ends }
        });
        let end_of = |rows: usize| if rows == 0 { 0 } else { encoded.ends[rows - 1] };
        encoded.bytes.slice(end_of(rows.start)..end_of(rows.end))
    }
}

/// The newest commits, oldest first.
#[derive(Debug)]
pub(super) struct Recent {
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
    bytes_max: usize,
    sequence: u64,
}

/// What an entry costs besides its rows' bytes, roughly.
const ROW_OVERHEAD_BYTES: usize = 128;
/// What its encoding for links takes besides the row's bytes, at most: four keys and lengths of fields,
/// and where it ends.
const ENCODED_OVERHEAD_BYTES: usize = 32;

/// What a row takes here, with its encoding.
fn row_bytes(row: &Row) -> usize {
    2 * row.size_bytes() + ROW_OVERHEAD_BYTES + ENCODED_OVERHEAD_BYTES
}

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Recent {
        Recent { commits: VecDeque::new(), bytes: 0, bytes_max, sequence: 0 }
    }

    /// Adds a commit and gives its sequence number.
    pub(super) fn push(&mut self, rows: Vec<Row>, heads: Arc<Heads>) -> u64 {
        self.sequence += 1;
        let bytes = rows.iter().map(row_bytes).sum();
        self.bytes += bytes;
        let (sequence, encoded) = (self.sequence, OnceLock::new());
        self.commits.push_back(Arc::new(Commit { sequence, rows, heads, encoded, bytes }));
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.commits.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
        self.sequence
    }

    /// Rows that commits had brought are gone from the store: whoever follows looks there again.
    pub(super) fn forget(&mut self) {
        self.commits.clear();
        self.bytes = 0;
    }

    /// The commits after `sequence`; `None` where some of them are gone.
    pub(super) fn after(&self, sequence: u64) -> Option<Vec<Arc<Commit>>> {
        let missing = usize::try_from(self.sequence.checked_sub(sequence)?).ok()?;
        let from = self.commits.len().checked_sub(missing)?;
        Some(self.commits.range(from..).cloned().collect())
    }
}

/// The rows that these commits changed and someone `lacks`, as they stand after the last of them:
/// origin by origin, in the order of their stamps, as the change index goes.
pub(super) fn as_they_stand(commits: &[Arc<Commit>], lacks: impl Fn(&Row) -> bool) -> Vec<Run> {
    let mut runs = Vec::new();
    if let [commit] = commits {
        // Each row is there once, and in order.
        for (at, row) in commit.rows.iter().enumerate() {
            if lacks(row) {
                Run::extend(&mut runs, commit, at);
            }
        }
        return runs;
    }
    let mut newest: HashMap<(&TableName, &Key), Version> = HashMap::new();
    for row in commits.iter().flat_map(|commit| &commit.rows) {
        let version = newest.entry((&row.table, &row.key)).or_default();
        *version = row.body.version().max(*version);
    }
    let mut standing = Vec::new();
    for commit in commits {
        for (at, row) in commit.rows.iter().enumerate() {
            let version = row.body.version();
            if newest[&(&row.table, &row.key)] == version && lacks(row) {
                standing.push((version.in_index(), commit, at));
            }
        }
    }
    standing.sort_unstable_by_key(|(version, ..)| *version);
    for (_, commit, at) in standing {
        Run::extend(&mut runs, commit, at);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, BodyParts, Context, Hlc, Origin};

    fn row(key: &'static str, origin: u8, hlc: u64) -> Row {
        let origin = Origin::from_bytes([origin; 16]);
        Row {
            table: TableName::of_any("t").unwrap(),
            key: Key::new(key).unwrap(),
            body: Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(hlc), origin },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(b"v"),
            }),
        }
    }

    fn rows(hlc: u64) -> Vec<Row> {
        vec![row("k", 0, hlc)]
    }

    fn rows_of(runs: &[Run]) -> Vec<Row> {
        runs.iter().flat_map(Run::rows).cloned().collect()
    }

    /// Commits come in any order of origins and stamps; a delta must not.
    #[test]
    fn some_commits_together_give_each_row_once_and_origin_by_origin() {
        let mut recent = Recent::new(10_000);
        recent.push(vec![row("a", 1, 9), row("b", 2, 3)], Arc::default());
        recent.push(vec![row("c", 1, 5), row("a", 2, 12)], Arc::default());
        recent.push(vec![row("d", 1, 7)], Arc::default());
        let all = |commits: &[Arc<Commit>]| rows_of(&as_they_stand(commits, |_| true));
        let rows = all(&recent.after(0).unwrap());
        let expected = [row("c", 1, 5), row("d", 1, 7), row("b", 2, 3), row("a", 2, 12)];
        assert_eq!(rows, expected);
        assert_eq!(all(&recent.after(2).unwrap()), [row("d", 1, 7)]);
        assert!(all(&[]).is_empty());
    }

    #[test]
    fn who_keeps_up_gets_just_what_is_new() {
        let mut recent = Recent::new(10_000);
        for hlc in 1..=3 {
            assert_eq!(recent.push(rows(hlc), Arc::default()), hlc);
        }
        let after = |sequence| {
            let commits = recent.after(sequence)?;
            Some(commits.iter().map(|commit| commit.sequence).collect::<Vec<_>>())
        };
        assert_eq!(after(0), Some(vec![1, 2, 3]));
        assert_eq!(after(2), Some(vec![3]));
        assert_eq!(after(3), Some(vec![]));
        assert_eq!(after(4), None);
    }

    #[test]
    fn the_oldest_go_when_the_bytes_are_used_up() {
        let mut recent = Recent::new(2 * row_bytes(&rows(1)[0]));
        for hlc in 1..=5 {
            recent.push(rows(hlc), Arc::default());
        }
        assert!(recent.after(2).is_none());
        assert_eq!(recent.after(3).unwrap().len(), 2);
        let mut none = Recent::new(0);
        none.push(rows(1), Arc::default());
        assert!(none.after(0).is_none());
        assert!(none.after(1).unwrap().is_empty());
    }

    fn encode(row: &Row, out: &mut Vec<u8>) {
        out.extend_from_slice(row.key.as_slice());
        out.extend_from_slice(b";");
    }

    /// Whoever lacks only some rows of a commit is sent just these, from the bytes that all share.
    #[test]
    fn a_commit_is_encoded_once_and_each_gets_its_rows_of_it() {
        let mut recent = Recent::new(10_000);
        let rows = (1..=5).map(|n| row(["a", "bb", "c", "dd", "e"][n - 1], 1, n as u64));
        recent.push(rows.collect(), Arc::default());
        let commits = recent.after(0).unwrap();
        let sent = |lacks: &[u64]| {
            let runs =
                as_they_stand(&commits, |row| lacks.contains(&row.body.version().hlc.bits()));
            runs.iter().map(|run| run.encoded(encode)).collect::<Vec<_>>()
        };
        assert_eq!(sent(&[1, 2, 3, 4, 5]), ["a;bb;c;dd;e;"]);
        assert_eq!(sent(&[3, 4]), ["c;dd;"]);
        assert_eq!(sent(&[1, 3, 5]), ["a;", "c;", "e;"]);
        assert!(sent(&[]).is_empty());
        let whole = sent(&[1, 2, 3, 4, 5]).remove(0);
        assert_eq!(sent(&[3]).remove(0).as_ptr(), whole[5..].as_ptr(), "the same memory");
    }
}
