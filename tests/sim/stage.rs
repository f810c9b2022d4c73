//! What the stories are told with: sites that do one thing after the other.
//!
//! Sites are numbered; rows go from one to another in parts of one row, and a pull may be left in the
//! middle: then the link is cut. Ties and the order of origins: 3 before 0 before 2 before 1.

use std::collections::VecDeque;

use lastword::protocol::removal_row;

use super::{Rule, Violation, cluster::Cluster};
use crate::dice::Dice;

pub(crate) type Story = fn(Rule) -> Result<(), Violation>;

pub(super) struct Stage(pub(super) Cluster);

impl Stage {
    pub(super) fn new(rule: Rule, sites: usize) -> Stage {
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

    pub(super) fn put(&mut self, site: usize, key: &'static str) -> Result<(), Violation> {
        self.0.now_ms += 1;
        self.0.put(site, key)
    }

    /// `to` gets what it lacks of `from`: all, or so many parts till the link is cut.
    pub(super) fn pull(
        &mut self,
        from: usize,
        to: usize,
        parts: Option<usize>,
    ) -> Result<(), Violation> {
        let (link, end) = self.link(from, to);
        let mut left = parts.unwrap_or(usize::MAX);
        loop {
            if !self.deliver_all(link)? {
                return Ok(());
            }
            let cluster = &mut self.0;
            if left == 0 {
                cluster.cut(link);
                return Ok(());
            }
            if !cluster.begin(link, end)? {
                // Unless that was said.
                if cluster.links[link].wires.iter().all(VecDeque::is_empty) {
                    return Ok(());
                }
                continue;
            }
            cluster.send_part(link, end, 1, true);
            left -= 1;
        }
    }

    /// What is under way between two sites arrives, and what answers it; `false`: it has to wait, or the
    /// link has ended.
    pub(super) fn deliver_all(&mut self, link: usize) -> Result<bool, Violation> {
        let cluster = &mut self.0;
        let Some(id) = cluster.links.get(link).map(|link| link.id) else { return Ok(false) };
        loop {
            let Some(joined) = cluster.links.get(link).filter(|link| link.id == id) else {
                return Ok(false);
            };
            let Some(end) = (0..2).find(|end| !joined.wires[*end].is_empty()) else {
                return Ok(true);
            };
            if !cluster.deliver(link, end)? {
                return Ok(false);
            }
        }
    }

    /// All of them are one sealed cluster, and apart again.
    pub(super) fn sealed(rule: Rule, sites: usize) -> Result<Stage, Violation> {
        let mut stage = Stage::new(rule, sites);
        stage.0.seal(0)?;
        for _ in 0..3 {
            stage.meet_all(0..sites)?;
        }
        stage.0.cut_where(|_| true);
        Ok(stage)
    }

    /// These get all from each other, say what they know, and do what is due.
    pub(super) fn meet_all(&mut self, sites: std::ops::Range<usize>) -> Result<(), Violation> {
        for site in sites.clone() {
            self.advance(site)?;
        }
        for (a, b) in sites.clone().flat_map(|a| sites.clone().map(move |b| (a, b))) {
            if a != b {
                self.pull(a, b, None)?;
                self.tell(a, b)?;
            }
        }
        Ok(())
    }

    /// The head of a site follows the clock, and what is due there is done.
    pub(super) fn advance(&mut self, site: usize) -> Result<(), Violation> {
        self.0.now_ms += 1;
        self.0.upkeep(site)
    }

    pub(super) fn delete(&mut self, site: usize, key: &'static str) -> Result<(), Violation> {
        self.0.now_ms += 1;
        self.0.delete(site, key)
    }

    /// `from` says to `to` what it knows of everybody; a link joins them.
    pub(super) fn tell(&mut self, from: usize, to: usize) -> Result<(), Violation> {
        let (link, end) = self.link(from, to);
        self.0.tell(link, end);
        self.deliver_all(link).map(drop)
    }

    /// A newcomer is taken in by `sponsor`, and pulls all from there; not everybody knows of it.
    pub(super) fn found(&mut self, sponsor: usize) -> Result<usize, Violation> {
        let site = self.0.sites.len();
        self.0.found_site()?;
        self.pull(sponsor, site, None)?;
        self.advance(site)?;
        self.0.cut_where(|_| true);
        Ok(site)
    }

    /// `sponsor` admits a newcomer, which never gets the answer.
    pub(super) fn admits(&mut self, sponsor: usize, newcomer: usize) -> Result<(), Violation> {
        let before = self.0.tally.admitted;
        let (link, end) = self.link(sponsor, newcomer);
        // Both hellos, and the question.
        for end in [1 - end, end, end] {
            self.0.deliver(link, end)?;
        }
        self.0.cut(link);
        assert_eq!(self.0.tally.admitted, before + 1, "the story is idle");
        Ok(())
    }

    /// The link of two sites, made where there is none, and the end of `from`.
    pub(super) fn link(&mut self, from: usize, to: usize) -> (usize, usize) {
        let cluster = &mut self.0;
        let link = match cluster.links.iter().position(|link| link.joins(from, to)) {
            Some(link) => link,
            None => {
                cluster.connect(from, to);
                cluster.links.len() - 1
            }
        };
        (link, usize::from(cluster.links[link].ends[0].site != from))
    }

    /// With true clocks, rows go these ways until all have them, and what is due is done.
    pub(super) fn settle(&mut self, ways: &[(usize, usize)]) -> Result<(), Violation> {
        self.0.cut_where(|_| true);
        self.0.calm_down();
        for round in 0..6 {
            for site in 0..if round < 4 { self.0.sites.len() } else { 0 } {
                self.advance(site)?;
            }
            for &(from, to) in ways {
                self.pull(from, to, None)?;
                if !self.0.links.is_empty() {
                    self.tell(from, to)?;
                }
            }
            self.0.cut_where(|_| true);
        }
        Ok(())
    }

    /// So a site becomes a member, and all have the same.
    pub(super) fn comes_in(
        &mut self,
        site: usize,
        ways: &[(usize, usize)],
    ) -> Result<(), Violation> {
        // Its admission, and what that brings about, is told in turn.
        for _ in 0..2 {
            self.settle(ways)?;
        }
        if !self.0.members().contains(&site) {
            return Err(Violation(format!("site {site} never comes in\n{}", self.0.describe())));
        }
        self.0.check_end()
    }

    /// These exchange what they have until the origin of a removed site is closed, and have the same.
    pub(super) fn closes(&mut self, left: &[usize], removed: usize) -> Result<(), Violation> {
        let ways: Vec<(usize, usize)> = left
            .iter()
            .flat_map(|from| left.iter().map(move |to| (*from, *to)))
            .filter(|(from, to)| from != to)
            .collect();
        self.settle(&ways)?;
        let origin = self.0.sites[removed].origin();
        let is_open = |site: &usize| !self.0.sites[*site].heads().get(origin).is_closed();
        if let Some(site) = left.iter().copied().find(is_open) {
            return Err(Violation(format!("site {site} never closes {origin}")));
        }
        self.0.check_end()
    }

    /// An operator removes a member, at another one.
    pub(super) fn remove(&mut self, by: usize, site: usize) -> Result<(), Violation> {
        let cluster = &mut self.0;
        cluster.sites[site].removed = true;
        let removal = removal_row(cluster.sites[site].origin(), &cluster.sites[by].name());
        cluster.write_system(by, removal)
    }

    /// A site that cannot come in is told to come back as another store.
    pub(super) fn rejoin(&mut self, site: usize) -> Result<(), Violation> {
        self.0.sites[site].removed = true;
        self.0.come_back(site)
    }

    /// A node stops and starts again; its store loses nothing.
    pub(super) fn restart(&mut self, site: usize) {
        self.0.crash(site);
        self.0.sites[site].start();
    }

    /// Purges what may go at a site: something must.
    pub(super) fn purge(&mut self, site: usize) -> Result<(), Violation> {
        let before = self.0.tally.rows_purged;
        self.0.purge(site)?;
        assert!(self.0.tally.rows_purged > before, "nothing is purged: the story is idle");
        Ok(())
    }
}
