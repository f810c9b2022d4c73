//! How sites come and go: what an operator does, and what each node does by itself once a second.

use lastword::{
    model::{Hlc, Origin, Role},
    protocol::{Frame, Membership, Standing, member_row, removal_row, seal_row},
    store::{Outcome, Request},
};

use super::{
    BOUND_MS, Rule, Violation,
    cluster::{Cluster, Step},
    oracle::Purge,
    site::Site,
};

/// No more sites than these at once.
const SITES_MAX: usize = 7;

impl Cluster {
    /// What `node::membership` does once a second: what is owed, and a newcomer that everybody knows
    /// begins to write.
    pub(super) fn upkeep(&mut self, site: usize) -> Step {
        self.advance(site)?;
        let snapshot = self.sites[site].snapshot();
        if let Some(joining) = snapshot.joining().filter(|joining| joining.pulled) {
            let (own, heads) = (self.sites[site].origin(), snapshot.heads());
            let (known, earlier) = (&mut self.sites[site].known, snapshot.earlier());
            if known.missing(own, heads, snapshot.members(), joining, earlier).is_empty() {
                self.apply(site, &[Request::Activate])?;
            }
        }
        Ok(())
    }

    /// Says to the peers what is known of the others.
    pub(super) fn tell(&mut self, link: usize, end: usize) {
        let site = &self.sites[self.links[link].ends[end].site];
        let snapshot = site.snapshot();
        let known = site.known.to_tell(site.origin(), snapshot.heads(), snapshot.members());
        self.links[link].wires[1 - end].push_back(Frame::Known(known));
        self.tally.told += 1;
    }

    /// Purges what may go.
    pub(super) fn purge(&mut self, site: usize) -> Step {
        if self.sites[site].reconciling.is_some() {
            return Ok(());
        }
        let stable = match self.rule {
            Rule::PurgeBelowHorizon => self.sites[site].heads(),
            _ => self.sites[site].stable(),
        };
        let outcomes =
            self.try_apply(site, &[Request::Purge { stable, drift_bound_ms: BOUND_MS }])?;
        if let [Outcome::Purged(purged)] = outcomes[..] {
            self.tally.purges += u64::from(purged.rows > 0);
            self.tally.rows_purged += purged.rows;
        }
        Ok(())
    }

    pub(super) fn seal(&mut self, site: usize) -> Step {
        let snapshot = self.sites[site].snapshot();
        // An operator does not seal a site that is still alone.
        let alone = snapshot.members().remaining().count() < 2;
        // Nor a part of a cluster whose other part somebody has sealed. Who comes back is part of nothing yet.
        let sealed_elsewhere = self.sites.iter().any(|other| {
            let is_known = |origin| snapshot.members().get(origin).is_some();
            let has_sealed = |members: &Membership| {
                members.has_seal() && members.has_acknowledged(other.origin())
            };
            other.is_up() && has_sealed(other.snapshot().members()) && !is_known(other.origin())
        });
        if !alone
            && !sealed_elsewhere
            && snapshot.members().wants_seal(snapshot.heads())
            && !self.refuses(site)
        {
            self.tally.seals += 1;
            self.write_system(site, seal_row())?;
        }
        Ok(())
    }

    /// A new site comes up beside one that is there; says which it is.
    pub(super) fn found(&mut self) -> Result<Option<usize>, Violation> {
        let there = self.sites.iter().filter(|site| !site.removed).count();
        if there >= SITES_MAX || self.sites.len() >= 20 {
            return Ok(None);
        }
        let site = self.sites.len();
        self.found_site()?;
        self.tally.founded += 1;
        // It may have been in use before it meets anyone.
        for _ in 0..self.dice.pick(&[0, 0, 1, 4]) {
            self.write(site)?;
        }
        Ok(Some(site))
    }

    /// An operator removes a member, at another one.
    pub(super) fn remove(&mut self, site: usize) -> Step {
        let members = self.members();
        if members.len() < 3 || !members.contains(&site) || self.refuses(site) {
            return Ok(());
        }
        let other = self.dice.pick(&members);
        let snapshot = self.sites[site].snapshot();
        let origin = self.sites[other].origin();
        // Before the cluster is sealed, the one may be the only way to others.
        if !snapshot.members().is_sealed(snapshot.heads()) {
            return Ok(());
        }
        let is_known = snapshot.members().standing(origin, snapshot.heads()) == Standing::Member;
        if other == site || !is_known {
            return Ok(());
        }
        self.tally.removals += 1;
        self.sites[other].removed = true;
        let by = self.sites[site].name();
        self.write_system(site, removal_row(origin, &by))
    }

    /// An operator removes the members whose stores are no more, or that cannot come in for want of such
    /// a one; says whether there was any.
    pub(super) fn remove_the_gone(&mut self) -> Result<bool, Violation> {
        let Some(&site) = self.members().first() else { return Ok(false) };
        let snapshot = self.sites[site].snapshot();
        if !snapshot.members().has_seal() {
            return Ok(false);
        }
        let gone: Vec<Origin> = snapshot
            .members()
            .remaining()
            .filter(|origin| {
                // Who is still asking to be taken in has stamped nothing since all clocks went on.
                let speaks =
                    |site: &Site| site.heads().get(*origin) >= Hlc::at_ms(self.calm_since_ms);
                let there =
                    |site: &Site| !site.removed && site.is_up() && site.is_active() && speaks(site);
                !self.sites.iter().any(|site| site.origin() == *origin && there(site))
            })
            .collect();
        // A removal that was ordered by one who was removed itself, before anybody could claim the order,
        // is ordered once more.
        let heads = snapshot.heads();
        let is_open = |origin: &Origin| !heads.get(*origin).is_closed();
        let removed = snapshot.members().iter().filter(|(_, member)| member.removal.is_some());
        let gone: Vec<Origin> =
            removed.map(|(origin, _)| origin).filter(is_open).chain(gone).collect();
        let by = self.sites[site].name();
        for origin in &gone {
            if let Some(stuck) = self.sites.iter_mut().find(|site| site.origin() == *origin) {
                stuck.removed = true;
            }
            self.write_system(site, removal_row(*origin, &by))?;
        }
        let removed: Vec<bool> = self.sites.iter().map(|site| site.removed).collect();
        self.cut_where(|link| link.ends.iter().any(|end| removed[end.site]));
        Ok(!gone.is_empty())
    }

    pub(super) fn back_up(&mut self, site: usize) {
        // A copy from before it belonged to a cluster is of no use there.
        let snapshot = self.sites[site].snapshot();
        let belongs = snapshot.members().has_acknowledged(self.sites[site].origin());
        if belongs && self.sites[site].is_active() {
            self.sites[site].back_up();
            self.oracle.backed_up(site);
        }
    }

    /// A site's disk is lost, and its store set back to an earlier copy; or it was removed. It comes back
    /// as a new member.
    pub(super) fn come_back(&mut self, site: usize) -> Step {
        let set_back = !self.sites[site].removed;
        // What was recorded at a disk that is lost can be read while it is up.
        if !self.sites[site].is_up()
            || set_back && (!self.sites[site].has_backup() || self.members().len() < 3)
        {
            return Ok(());
        }
        self.cut_where(|link| link.touches(site));
        if set_back {
            self.oracle.restored(site, self.sites[site].store());
            self.sites[site].restore();
            self.tally.restored += 1;
        } else {
            self.tally.rejoined += 1;
        }
        if set_back && self.rule == Rule::RestoredKeepsOrigin {
            self.sites[site].start();
            return Ok(());
        }
        self.origins += 1;
        let fresh = Origin::from_bytes([100 + self.origins; 16]);
        self.sites[site].rejoin(fresh);
        let others = self.sites.iter().filter(|other| !other.removed && other.number != site);
        let others: Vec<usize> = others.map(|other| other.number).collect();
        self.oracle.came_back(site, &others);
        self.sites[site].start();
        // As a node does that starts.
        let row = member_row(self.sites[site].origin(), &self.sites[site].name(), Role::Site);
        self.write_system(site, row)
    }

    /// Rows are gone from a store without a tombstone.
    pub(super) fn note_removed(&mut self, site: usize, requests: &[Request]) -> Step {
        let by_purge = requests.iter().any(|request| matches!(request, Request::Purge { .. }));
        let (own, store) = (self.sites[site].origin(), self.sites[site].store());
        let snapshot = store.snapshot();
        let remaining: Vec<Origin> = snapshot.members().remaining().collect();
        // Nobody reads at a site that was removed, or is not in yet.
        let counts = self.sites.iter().filter(|site| remaining.contains(&site.origin()));
        // What had expired where a clock is set back afterwards has expired.
        let least_ms =
            counts.map(|site| site.has_passed_ms(self.now_ms)).min().unwrap_or(self.now_ms);
        let counts = |other: &&Site| {
            let origin = other.origin();
            other.is_up() && other.is_active() && origin != own && remaining.contains(&origin)
        };
        let others = self.sites.iter().filter(counts);
        let members = others.map(|other| (other.number, other.heads())).collect();
        let purge = Purge { at_least_ms: least_ms, members };
        self.oracle.removed(site, store, by_purge.then_some(&purge))
    }
}
