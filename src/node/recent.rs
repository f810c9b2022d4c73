//! The newest commits, in memory: links and mirrors that keep up read them here.
//!
//! Bounded by bytes; who falls behind reads the change index instead, so a lost entry costs time,
//! never data.

use std::{collections::VecDeque, sync::Arc};

use crate::model::{Heads, Row};

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

    /// The commits after `sequence`; `None` where some of them are gone.
    pub(super) fn after(&self, sequence: u64) -> Option<Vec<Arc<Commit>>> {
        let missing = usize::try_from(self.sequence.checked_sub(sequence)?).ok()?;
        let from = self.commits.len().checked_sub(missing)?;
        Some(self.commits.range(from..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Body, BodyParts, Context, Hlc, Key, Origin, TableName, Version};

    fn rows(hlc: u64) -> Vec<Row> {
        vec![Row {
            table: TableName::of_any("t").unwrap(),
            key: Key::new("k").unwrap(),
            body: Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(hlc), origin: Origin::default() },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(b"v"),
            }),
        }]
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
