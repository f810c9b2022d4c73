//! What happens next: all of it drawn from the seed.

use super::{BOUND_MS, Rule, Tally, Violation, WILD_MS, cluster::Cluster, link::Link};
use crate::dice::Dice;

/// How the sites are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    Chain,
    Ring,
    Star,
    Mesh,
}

/// What kind of history it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) sites_max: usize,
    pub(crate) steps: usize,
    /// Links are cut anywhere.
    pub(crate) cuts: bool,
    /// Sites come and go, and dead rows are purged.
    pub(crate) members: bool,
    /// Sites crash; clocks lie, one of them wildly; commits fall between two reads; two links join
    /// the same two sites.
    pub(crate) trouble: bool,
}

impl Plan {
    /// Everything at once.
    pub(crate) const ROUGH: Plan =
        Plan { sites_max: 5, steps: 300, cuts: true, members: true, trouble: true };
}

/// Rounds in which a calm cluster must come to rest.
const CALM_ROUNDS_MAX: usize = 1_000;
/// Rounds in a quiet while.
const QUIET_ROUNDS_MAX: usize = 40;
/// How wrong a clock may be without anybody noticing.
const SKEW_MS_MAX: usize = BOUND_MS as usize / 4;

/// Plays the history of a seed to its end.
pub(crate) fn run(seed: u64, rule: Rule, plan: &Plan) -> Result<Tally, Violation> {
    let mut dice = Dice::new(seed);
    let sites = dice.pick(&[2, 3, 3, 4, 5]).min(plan.sites_max);
    let topology = dice.pick(&[Topology::Chain, Topology::Ring, Topology::Star, Topology::Mesh]);
    let mut history = History {
        frequencies: frequencies(&mut dice, plan),
        edges: edges(topology, sites),
        wild: dice.below(sites),
        cluster: Cluster::new(rule, dice, sites, plan.trouble),
        plan: *plan,
    };
    if !plan.cuts {
        history.connect_all();
    }
    if plan.members && history.cluster.dice.chance(60) {
        history.begin_sealed()?;
    }
    for step in 0..plan.steps {
        history.step()?;
        if step % 50 == 49 {
            history.cluster.check_stores()?;
        }
    }
    history.come_to_rest()?;
    history.cluster.check_end()?;
    Ok(history.cluster.tally)
}

struct History {
    cluster: Cluster,
    plan: Plan,
    frequencies: Vec<(Event, usize)>,
    edges: Vec<(usize, usize)>,
    /// The site whose clock is wrong by hours now and then.
    wild: usize,
}

/// Goes on with the delta of an end, or begins one where there is news; says whether.
fn send(cluster: &mut Cluster, link: usize, end: usize) -> Result<bool, Violation> {
    let began = !cluster.links[link].sends(end);
    if !cluster.begin(link, end)? {
        return Ok(false);
    }
    // Now and then something happens between the snapshot and the first part.
    if !began || cluster.dice.chance(50) {
        let rows_max = 1 + cluster.dice.below(4);
        let ends_alone = cluster.dice.chance(20);
        cluster.send_part(link, end, rows_max, ends_alone);
    }
    Ok(true)
}

fn edges(topology: Topology, sites: usize) -> Vec<(usize, usize)> {
    let chain = (1..sites).map(|site| (site - 1, site));
    match topology {
        Topology::Chain => chain.collect(),
        Topology::Ring if sites > 2 => chain.chain([(sites - 1, 0)]).collect(),
        Topology::Ring => chain.collect(),
        Topology::Star => (1..sites).map(|site| (0, site)).collect(),
        Topology::Mesh => (0..sites).flat_map(|a| (0..a).map(move |b| (b, a))).collect(),
    }
}

/// What may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Write,
    Advance,
    Connect,
    Cut,
    Crash,
    CrashInWrite,
    Start,
    Clock,
    LeaveOff,
    Pull,
    Send,
    AskAgain,
    Deliver,
    Purge,
    Tell,
    Seal,
    Found,
    Remove,
    BackUp,
    ComeBack,
    Quiet,
}

/// How often each event comes up in this history: some of them often in one, never in another.
fn frequencies(dice: &mut Dice, plan: &Plan) -> Vec<(Event, usize)> {
    let cut = if plan.cuts { dice.pick(&[1, 3, 8]) } else { 0 };
    let crash = if plan.trouble { dice.pick(&[0, 0, 1, 3]) } else { 0 };
    vec![
        (Event::Write, dice.pick(&[3, 10, 20])),
        (Event::Advance, dice.pick(&[0, 2, 6])),
        (Event::Connect, cut * 3),
        (Event::Cut, cut),
        (Event::Crash, crash),
        (Event::CrashInWrite, crash),
        (Event::Start, crash * 4),
        (Event::Clock, if plan.trouble { dice.pick(&[0, 2, 6]) } else { 0 }),
        (Event::LeaveOff, dice.pick(&[0, 1, 4])),
        (Event::Pull, if plan.cuts { dice.pick(&[0, 15, 40]) } else { 0 }),
        (Event::Send, dice.pick(&[0, 3, 25])),
        (Event::AskAgain, dice.pick(&[3, 10])),
        (Event::Deliver, dice.pick(&[10, 25, 40])),
        (Event::Purge, if plan.members { dice.pick(&[2, 6, 12]) } else { 0 }),
        (Event::Tell, if plan.members { dice.pick(&[3, 10]) } else { 0 }),
        (Event::Seal, if plan.members { dice.pick(&[0, 1, 4]) } else { 0 }),
        (Event::Found, if plan.members { dice.pick(&[0, 0, 1]) } else { 0 }),
        (Event::Remove, if plan.members { dice.pick(&[0, 1, 2]) } else { 0 }),
        (Event::BackUp, if plan.members { dice.pick(&[0, 1, 3]) } else { 0 }),
        (Event::ComeBack, if plan.members { dice.pick(&[0, 1, 3]) } else { 0 }),
        (Event::Quiet, if plan.members && plan.cuts { dice.pick(&[0, 2, 5]) } else { 0 }),
    ]
}

impl History {
    fn step(&mut self) -> Result<(), Violation> {
        let event = self.next_event();
        let cluster = &mut self.cluster;
        cluster.now_ms += cluster.dice.pick(&[0, 0, 1, 2, 30, 400]);
        let site = cluster.dice.below(cluster.sites.len());
        let up = cluster.sites[site].is_up();
        match event {
            Event::Write if up => {
                // Now and then in a row: several commits for one delta.
                for _ in 0..cluster.dice.pick(&[1, 1, 1, 5]) {
                    cluster.write(site)?;
                }
            }
            Event::Advance if up => cluster.upkeep(site)?,
            Event::Purge if up => cluster.purge(site)?,
            Event::Seal if up => cluster.seal(site)?,
            Event::Remove if up => cluster.remove(site)?,
            Event::BackUp if up => cluster.back_up(site),
            Event::ComeBack => {
                // Often long after it was removed, or backed up: what it has may have died since.
                if (cluster.sites[site].removed || cluster.sites[site].has_backup())
                    && cluster.dice.chance(50)
                {
                    for _ in 0..3 {
                        self.cluster.tidy_up()?;
                        self.quiet()?;
                    }
                }
                self.cluster.come_back(site)?;
            }
            Event::Found => {
                if let Some(new) = cluster.found()? {
                    let beside = cluster.dice.below(new);
                    self.edges.push((beside, new));
                }
            }
            Event::Tell => {
                if let Some((link, end)) = self.some_end(|link, end| link.ends[end].talk.is_some())
                {
                    self.cluster.tell(link, end);
                }
            }
            Event::Connect => self.connect_some(),
            Event::Cut => {
                // Most of them in the middle of a delta.
                let anywhere = cluster.dice.chance(30);
                if let Some((link, _)) = self.some_end(|link, end| anywhere || link.sends(end)) {
                    self.cluster.cut(link);
                }
            }
            Event::Crash if up => cluster.crash(site),
            Event::CrashInWrite if up => cluster.crash_in_write(site)?,
            Event::Start if !up => cluster.sites[site].start(),
            Event::Clock => {
                let wild = cluster.dice.chance(50);
                self.set_clock(if wild { self.wild } else { site });
            }
            Event::LeaveOff => {
                if let Some((link, end)) = self.some_end(|_, _| true) {
                    self.cluster.leave_off(link, end);
                }
            }
            Event::Send => {
                if let Some((link, end)) = self.some_end(|link, end| link.ends[end].talk.is_some())
                {
                    send(&mut self.cluster, link, end)?;
                }
            }
            Event::AskAgain => {
                if let Some((link, end)) = self.some_end(Link::asks) {
                    self.cluster.ask_again(link, end);
                }
            }
            Event::Pull => self.pull()?,
            Event::Quiet => self.quiet()?,
            Event::Deliver => {
                if let Some((link, end)) = self.some_end(|link, end| !link.wires[end].is_empty()) {
                    self.cluster.deliver(link, end)?;
                }
            }
            Event::Write
            | Event::Advance
            | Event::Purge
            | Event::Seal
            | Event::Remove
            | Event::BackUp
            | Event::Crash
            | Event::CrashInWrite
            | Event::Start => {}
        }
        Ok(())
    }

    fn next_event(&mut self) -> Event {
        let sum = self.frequencies.iter().map(|(_, often)| often).sum();
        let mut at = self.cluster.dice.below(sum);
        for &(event, often) in &self.frequencies {
            match at.checked_sub(often) {
                Some(rest) => at = rest,
                None => return event,
            }
        }
        unreachable!("below the sum")
    }

    /// One of the ends that this is true of.
    fn some_end(&mut self, of: impl Fn(&Link, usize) -> bool) -> Option<(usize, usize)> {
        let cluster = &mut self.cluster;
        let links = cluster.links.iter().enumerate();
        let ends: Vec<(usize, usize)> = links
            .flat_map(|(at, link)| [(at, 0, link), (at, 1, link)])
            .filter(|(_, end, link)| of(link, *end))
            .map(|(at, end, _)| (at, end))
            .collect();
        if ends.is_empty() { None } else { Some(cluster.dice.pick(&ends)) }
    }

    /// Joins two neighbours, now and then by a second link.
    fn connect_some(&mut self) {
        let cluster = &mut self.cluster;
        let (a, b) = cluster.dice.pick(&self.edges);
        let there = cluster.links.iter().filter(|link| link.joins(a, b)).count();
        let links_max = if self.plan.trouble && cluster.dice.chance(10) { 2 } else { 1 };
        if there < links_max && cluster.sites[a].is_up() && cluster.sites[b].is_up() {
            cluster.connect(a, b);
        }
    }

    /// One site gets something from a neighbour at a stretch, till all is there or the link breaks.
    fn pull(&mut self) -> Result<(), Violation> {
        let cluster = &mut self.cluster;
        let (a, b) = cluster.dice.pick(&self.edges);
        if !cluster.sites[a].is_up() || !cluster.sites[b].is_up() {
            return Ok(());
        }
        let link = match cluster.links.iter().position(|link| link.joins(a, b)) {
            Some(link) => link,
            None => {
                cluster.connect(a, b);
                cluster.links.len() - 1
            }
        };
        let (from, id) = (cluster.dice.below(2), cluster.links[link].id);
        let crashes = cluster.tally.crashes;
        for _ in 0..cluster.dice.pick(&[1, 2, 4, 30]) {
            for end in 0..2 {
                while cluster.deliver(link, end)? {
                    // A crash, or a refusal, ended it.
                    if cluster.tally.crashes > crashes
                        || cluster.links.get(link).is_none_or(|link| link.id != id)
                    {
                        return Ok(());
                    }
                }
            }
            send(cluster, link, from)?;
        }
        let cut_percent = if cluster.links[link].sends(from) { 60 } else { 10 };
        if self.plan.cuts && cluster.dice.chance(cut_percent) {
            cluster.cut(link);
        }
        Ok(())
    }

    fn connect_all(&mut self) {
        for &(a, b) in &self.edges {
            let removed = self.cluster.sites[a].removed || self.cluster.sites[b].removed;
            if !removed && !self.cluster.links.iter().any(|link| link.joins(a, b)) {
                self.cluster.connect(a, b);
            }
        }
    }

    fn set_clock(&mut self, site: usize) {
        let cluster = &mut self.cluster;
        let skew = cluster.dice.below(2 * SKEW_MS_MAX) as i64 - SKEW_MS_MAX as i64;
        let wild = site == self.wild && cluster.dice.chance(50);
        let ahead = cluster.dice.pick(&[WILD_MS, BOUND_MS as i64 + 500]);
        let now_ms = cluster.now_ms;
        cluster.sites[site].set_clock(if wild { ahead } else { skew }, now_ms);
    }

    /// The founders have met, and the cluster is sealed.
    fn begin_sealed(&mut self) -> Result<(), Violation> {
        self.cluster.calm(true);
        self.connect_all();
        for round in 0..6 {
            self.rest()?;
            if round == 1 {
                self.cluster.seal(0)?;
            }
            self.upkeep_and_word()?;
        }
        self.cluster.calm(false);
        if self.plan.cuts {
            self.cluster.cut_where(|_| true);
        }
        Ok(())
    }

    /// Some of the sites exchange for a while, with nothing in the way: what all of them have may go, and who
    /// comes is taken in. The others are away.
    fn quiet(&mut self) -> Result<(), Violation> {
        let away_percent = self.cluster.dice.pick(&[0, 10, 40]);
        let away: Vec<usize> = (0..self.cluster.sites.len())
            .filter(|site| {
                !self.cluster.sites[*site].is_up() || self.cluster.dice.chance(away_percent)
            })
            .collect();
        let is_there = |sites: [usize; 2]| sites.iter().all(|site| !away.contains(site));
        self.cluster.cut_where(|link| !is_there([link.ends[0].site, link.ends[1].site]));
        for &(a, b) in &self.edges {
            let cluster = &mut self.cluster;
            if is_there([a, b]) && !cluster.links.iter().any(|link| link.joins(a, b)) {
                cluster.connect(a, b);
            }
        }
        let trouble = std::mem::take(&mut self.cluster.trouble);
        for _ in 0..self.cluster.dice.pick(&[1, 2, 4]) {
            for _ in 0..QUIET_ROUNDS_MAX {
                if !self.round()? {
                    break;
                }
            }
            self.upkeep_and_word()?;
        }
        for site in 0..self.cluster.sites.len() {
            if self.cluster.sites[site].is_up() && self.cluster.dice.chance(50) {
                self.cluster.purge(site)?;
            }
        }
        self.cluster.trouble = trouble;
        Ok(())
    }

    /// Each site does what is due, and says what it knows of the others.
    fn upkeep_and_word(&mut self) -> Result<(), Violation> {
        for site in 0..self.cluster.sites.len() {
            if !self.cluster.sites[site].removed && self.cluster.sites[site].is_up() {
                self.cluster.upkeep(site)?;
            }
        }
        for link in 0..self.cluster.links.len() {
            for end in 0..2 {
                if self.cluster.links[link].ends[end].talk.is_some() {
                    self.cluster.tell(link, end);
                }
            }
        }
        Ok(())
    }

    /// No more writes and no more trouble: all that is under way arrives.
    fn come_to_rest(&mut self) -> Result<(), Violation> {
        self.cluster.calm_down();
        if self.cluster.dice.chance(50) && self.plan.cuts {
            self.cluster.cut_where(|_| true);
        }
        self.join_up();
        let commits = self.cluster.tally.commits;
        self.calm_round()?;
        self.cluster.tally.commits_when_calm = self.cluster.tally.commits - commits;
        if self.plan.members {
            let left = self.cluster.left().len();
            self.settle(3 * left)?;
            // An operator removes who is gone for good, or cannot come in for want of such a one.
            for _ in 0..3 {
                if self.cluster.remove_the_gone()? {
                    self.join_up();
                    self.settle(2 * left)?;
                }
            }
            for site in self.cluster.left() {
                self.cluster.purge(site)?;
            }
            self.calm_round()?;
        }
        Ok(())
    }

    /// From now on whoever is left can reach each other; and the members, without those who are not in yet: a removal
    /// is complete only once all that remain have said so, and who comes back may have to wait for that.
    fn join_up(&mut self) {
        for sites in [self.cluster.left(), self.cluster.members()] {
            self.edges.extend(sites.windows(2).map(|pair| (pair[0], pair[1])));
        }
    }

    /// What is owed is owed in turn, from one end of the cluster to the other.
    fn settle(&mut self, rounds: usize) -> Result<(), Violation> {
        for _ in 0..rounds {
            self.upkeep_and_word()?;
            self.calm_round()?;
        }
        Ok(())
    }

    fn calm_round(&mut self) -> Result<(), Violation> {
        self.connect_all();
        for site in 0..self.cluster.sites.len() {
            if !self.cluster.sites[site].removed {
                self.cluster.upkeep(site)?;
            }
        }
        self.rest()
    }

    /// All that is under way arrives.
    fn rest(&mut self) -> Result<(), Violation> {
        for _ in 0..CALM_ROUNDS_MAX {
            if !self.round()? {
                return Ok(());
            }
        }
        Err(Violation("a calm cluster does not come to rest".into()))
    }

    /// Everything that is under way arrives, and each end sends what it has; says whether any did.
    fn round(&mut self) -> Result<bool, Violation> {
        let mut moved = false;
        let ids: Vec<u64> = self.cluster.links.iter().map(|link| link.id).collect();
        for id in ids {
            for end in 0..2 {
                // Time goes on, so that whoever answers with its clock never stops.
                self.cluster.now_ms += 1;
                let at = |cluster: &Cluster| cluster.links.iter().position(|link| link.id == id);
                while let Some(link) = at(&self.cluster) {
                    if !self.cluster.deliver(link, end)? {
                        break;
                    }
                    moved = true;
                }
                if let Some(link) = at(&self.cluster) {
                    self.cluster.take_turn(link, end);
                    moved |= self.cluster.ask_again(link, end);
                    moved |= send(&mut self.cluster, link, end)?;
                }
            }
        }
        Ok(moved)
    }
}
