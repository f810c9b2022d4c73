//! The newest commits, in memory: links and mirrors that keep up read them here.
//!
//! Bounded by bytes; who falls behind reads the change index instead, so a lost entry costs time,
//! never data.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

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
    bytes: usize,
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

impl Recent {
    pub(super) fn new(bytes_max: usize) -> Recent {
        Recent { commits: VecDeque::new(), bytes: 0, bytes_max, sequence: 0 }
    }

    /// Adds a commit and gives its sequence number.
    pub(super) fn push(&mut self, rows: Vec<Row>, heads: Arc<Heads>) -> u64 {
        self.sequence += 1;
        let bytes = rows.iter().map(|row| row.size_bytes() + ROW_OVERHEAD_BYTES).sum();
        self.bytes += bytes;
        self.commits.push_back(Arc::new(Commit { sequence: self.sequence, rows, heads, bytes }));
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

/// The rows that these commits changed, as they stand after the last of them: origin by origin, in
/// the order of their stamps, as the change index goes.
pub(super) fn as_they_stand(commits: &[Arc<Commit>]) -> Vec<Row> {
    let rows = || commits.iter().flat_map(|commit| &commit.rows);
    if let [commit] = commits {
        // Each row is there once, and in order.
        return commit.rows.clone();
    }
    let mut newest: HashMap<(&TableName, &Key), Version> = HashMap::new();
    for row in rows() {
        let version = newest.entry((&row.table, &row.key)).or_default();
        *version = row.body.version().max(*version);
    }
    let stands = |row: &&Row| newest[&(&row.table, &row.key)] == row.body.version();
    let mut rows: Vec<Row> = rows().filter(stands).cloned().collect();
    rows.sort_unstable_by_key(|row| row.body.version().in_index());
    rows
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

    /// Commits come in any order of origins and stamps; a delta must not.
    #[test]
    fn some_commits_together_give_each_row_once_and_origin_by_origin() {
        let mut recent = Recent::new(10_000);
        recent.push(vec![row("a", 1, 9), row("b", 2, 3)], Arc::default());
        recent.push(vec![row("c", 1, 5), row("a", 2, 12)], Arc::default());
        recent.push(vec![row("d", 1, 7)], Arc::default());
        let rows = as_they_stand(&recent.after(0).unwrap());
        let expected = [row("c", 1, 5), row("d", 1, 7), row("b", 2, 3), row("a", 2, 12)];
        assert_eq!(rows, expected);
        assert_eq!(as_they_stand(&recent.after(2).unwrap()), [row("d", 1, 7)]);
        assert!(as_they_stand(&[]).is_empty());
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
        let mut recent = Recent::new(2 * (rows(1)[0].size_bytes() + ROW_OVERHEAD_BYTES));
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
}
