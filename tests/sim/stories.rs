//! Histories that chance seldom writes: each shows why one rule is what it is.
//!
//! Sites are numbered; rows go from one to another in parts of one row, and a pull may be left in the
//! middle: then the link is cut. Ties and the order of origins: 3 before 0 before 2 before 1.

use super::{Rule, Violation, cluster::Cluster};
use crate::dice::Dice;

pub(crate) type Story = fn(Rule) -> Result<(), Violation>;

struct Stage(Cluster);

impl Stage {
    fn new(rule: Rule, sites: usize) -> Stage {
        let mut cluster = Cluster::new(rule, Dice::new(0), sites, false);
        cluster.sites.iter_mut().for_each(|site| site.commits_kept_max = 10);
        let mut stage = Stage(cluster);
        // They have met, and are apart again.
        for (a, b) in (0..sites).flat_map(|a| (0..sites).map(move |b| (a, b))) {
            if a != b {
                stage.pull(a, b, None).expect("a calm beginning");
            }
        }
        stage.0.cut_where(|_| true);
        stage
    }

    fn put(&mut self, site: usize, key: &'static str) -> Result<(), Violation> {
        self.0.now_ms += 1;
        self.0.put(site, key)
    }

    /// `to` gets what it lacks of `from`: all, or so many parts till the link is cut.
    fn pull(&mut self, from: usize, to: usize, parts: Option<usize>) -> Result<(), Violation> {
        let cluster = &mut self.0;
        let link = match cluster.links.iter().position(|link| link.joins(from, to)) {
            Some(link) => link,
            None => {
                cluster.connect(from, to);
                cluster.links.len() - 1
            }
        };
        let end = usize::from(cluster.links[link].ends[0].site != from);
        let mut left = parts.unwrap_or(usize::MAX);
        loop {
            // What arrives may be answered at once.
            while let Some(end) = (0..2).find(|end| !cluster.links[link].wires[*end].is_empty()) {
                assert!(cluster.deliver(link, end)?, "one link, nothing to wait for");
            }
            if left == 0 {
                cluster.cut(link);
                return Ok(());
            }
            if !cluster.begin(link, end)? {
                return Ok(());
            }
            cluster.send_part(link, end, 1, true);
            left -= 1;
        }
    }
}

/// Two rows of 0 reach 1, where the older one is replaced; 2 gets the younger one only. What that
/// allows to skip at 1 must not be skipped at 0.
pub(crate) fn tentative_is_for_one_sender(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 3);
    stage.put(0, "older")?;
    stage.put(0, "younger")?;
    stage.pull(0, 1, None)?;
    stage.put(1, "older")?;
    stage.pull(1, 2, Some(1))?;
    stage.pull(0, 2, None)?;
    stage.pull(1, 2, None)?;
    stage.0.check_stores()
}

/// The same gap at 2, which passes the younger row on to 3. The older one comes to 2 later, and must
/// still be passed on.
pub(crate) fn rows_sent_are_no_cursor(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 4);
    stage.put(0, "older")?;
    stage.put(0, "younger")?;
    stage.pull(0, 1, None)?;
    stage.put(1, "older")?;
    stage.pull(1, 2, Some(1))?;
    stage.pull(2, 3, None)?;
    stage.put(0, "another")?;
    stage.pull(0, 2, None)?;
    stage.pull(2, 3, None)?;
    stage.0.check_stores()
}

/// 0 commits a row of its own, one of 1, and another of its own, while 2 listens; the link is cut
/// after the row of 1. Had it come second, the last row would have counted as passed.
pub(crate) fn memory_goes_origin_by_origin(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 3);
    stage.pull(0, 2, None)?;
    stage.put(0, "first")?;
    stage.put(1, "second")?;
    stage.pull(1, 0, None)?;
    stage.put(0, "third")?;
    stage.pull(0, 2, Some(2))?;
    stage.pull(0, 2, None)?;
    stage.0.check_stores()
}
