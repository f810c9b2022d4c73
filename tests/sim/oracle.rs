//! The oracle: it knows every write, and what each writer had met before.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use bytes::Bytes;
use lastword::{
    model::{Heads, Hlc, Origin, Row, Version},
    store::Store,
};

use super::{Place, Violation, place_of};

/// A write that is durable somewhere.
struct Write {
    place: Place,
    /// `None`: it deletes.
    value: Option<Bytes>,
    expires_at_ms: Option<u64>,
    /// The versions of this row that its writer had met, and whatever their writers had.
    past: BTreeSet<Version>,
    /// What its writer had incorporated.
    heads: Heads,
    /// Its writer had heard of an admission of itself: this is no write from before it.
    is_in: bool,
}

/// A write as the oracle is told of it.
pub(super) struct Written {
    pub(super) version: Version,
    /// `None`: it deletes.
    pub(super) value: Option<Bytes>,
    pub(super) expires_at_ms: Option<u64>,
}

/// A purge, as the oracle is told of it.
pub(super) struct Purge {
    /// Every clock that counts has shown this, or more.
    pub(super) at_least_ms: u64,
    /// The members that the store knows, where they can be asked: what each claims.
    pub(super) members: Vec<(usize, Heads)>,
}

/// What a store should hold, and what it has met of each row.
#[derive(Clone, Default)]
struct View {
    standing: BTreeMap<Place, Version>,
    met: BTreeMap<Place, BTreeSet<Version>>,
}

#[derive(Default)]
pub(super) struct Oracle {
    writes: BTreeMap<Version, Write>,
    views: Vec<View>,
    /// For each site, the most that it ever showed of its heads.
    shown: Vec<Heads>,
    /// How far each origin ever said to have come itself, or was admitted: nobody may claim more.
    said: Heads,
    /// Who was admitted, by which write of its sponsor.
    admissions: Vec<(Origin, Version)>,
    /// What sites had when they were backed up.
    backups: BTreeMap<usize, View>,
    /// Sites that were set back.
    set_back: BTreeSet<usize>,
    /// Losers whose record was lost with a disk: it was made.
    records_lost: BTreeSet<Version>,
    /// Dead rows that all members had when they were purged.
    purged: BTreeSet<Version>,
    /// What no site that was not removed had when another one came back with it.
    brought: BTreeSet<Version>,
}

impl Oracle {
    pub(super) fn add_site(&mut self) {
        self.views.push(View::default());
        self.shown.push(Heads::new());
    }

    pub(super) fn backed_up(&mut self, site: usize) {
        self.backups.insert(site, self.views[site].clone());
    }

    /// A site has what it had when it was backed up, instead of what is in `store`.
    pub(super) fn restored(&mut self, site: usize, store: &Store) {
        let conflicts = store.snapshot().conflicts().unwrap();
        self.records_lost.extend(conflicts.iter().map(|(_, loser)| loser.body.version()));
        self.views[site] = self.backups[&site].clone();
        self.set_back.insert(site);
    }

    /// A site speaks for another origin now: what it had shown of the earlier one counts no more. What none of
    /// the `others` has, which were not removed, it brings.
    pub(super) fn came_back(&mut self, site: usize, others: &[usize]) {
        self.shown[site] = Heads::new();
        for (place, versions) in &self.views[site].met {
            let met = |other: &usize| self.views[*other].met.get(place);
            let is_there = |v: &&Version| others.iter().filter_map(met).any(|met| met.contains(v));
            self.brought.extend(versions.iter().filter(|version| !is_there(version)));
        }
    }

    /// Whether nobody can say any more that a version was seen: `seen` speaks of what members have, and a
    /// context goes with the row that is purged. Another site that comes back with it meets it as new.
    fn is_forgotten(&self, version: Version) -> bool {
        let place = |version: &Version| self.writes.get(version).map(|write| &write.place);
        let mut later = self.purged.range(version..);
        self.brought.contains(&version) && later.any(|at| place(at) == place(&version))
    }

    /// The store `origin` is at `head`, and may say so to others.
    pub(super) fn says(&mut self, origin: Origin, head: Hlc) {
        self.said.raise(origin, head);
    }

    /// A sponsor admits the store `newcomer`, by a write that it `wrote`.
    pub(super) fn admitted(&mut self, newcomer: Origin, by: Version) {
        self.says(newcomer, by.hlc);
        self.admissions.push((newcomer, by));
    }

    pub(super) fn writes(&self) -> u64 {
        self.writes.len() as u64
    }

    pub(super) fn knows(&self, version: Version) -> bool {
        self.writes.contains_key(&version)
    }

    /// A client's write that was acknowledged, or found after a crash.
    pub(super) fn wrote(
        &mut self,
        site: usize,
        place: &Place,
        written: Written,
        heads: &Heads,
    ) -> Result<(), Violation> {
        let Written { version, value, expires_at_ms } = written;
        if version.hlc <= self.shown[site].get(version.origin) {
            return Err(Violation(format!(
                "site {site} stamps {version}, below a head of its own that it had shown"
            )));
        }
        let view = &mut self.views[site];
        let met = view.met.entry(place.clone()).or_default();
        let past = met.clone();
        if past.iter().any(|seen| *seen >= version) {
            return Err(Violation(format!("site {site} stamps {version}, below what it had met")));
        }
        met.insert(version);
        view.standing.insert(place.clone(), version);
        let (place, heads) = (place.clone(), heads.clone());
        let is_in = self
            .admissions
            .iter()
            .any(|(newcomer, by)| *newcomer == version.origin && self.has_met(site, by));
        let write = Write { place, value, expires_at_ms, past, heads, is_in };
        if self.writes.insert(version, write).is_some() {
            return Err(Violation(format!("two writes are stamped {version}")));
        }
        Ok(())
    }

    /// Whether a site ever had a write.
    fn has_met(&self, site: usize, version: &Version) -> bool {
        let met = self.views[site].met.get(&self.writes[version].place);
        met.is_some_and(|met| met.contains(version))
    }

    /// Rows that a site merged, while it claimed `heads`.
    pub(super) fn merged(&mut self, site: usize, rows: &[Row], heads: &Heads) {
        for row in rows {
            let version = row.body.version();
            if heads.includes(version) {
                continue;
            }
            let view = &mut self.views[site];
            let met = view.met.entry(place_of(row)).or_default();
            met.insert(version);
            if let Some(write) = self.writes.get(&version) {
                met.extend(&write.past);
            }
            let standing = view.standing.entry(place_of(row)).or_insert(version);
            *standing = version.max(*standing);
        }
    }

    /// The heads of a site claim nothing that is not there, and never less than was shown.
    ///
    /// While a site `renews` what it had from before, rows that nobody else has may stand in the way: what
    /// killed them may be gone everywhere, and they are written anew. Of whom it admitted after it was `removed`
    /// a site knows nothing.
    pub(super) fn check_heads(
        &mut self,
        site: usize,
        heads: &Heads,
        (renews, removed): (bool, bool),
    ) -> Result<(), Violation> {
        if !heads.covers(&self.shown[site]) {
            let shown = &self.shown[site];
            return Err(Violation(format!("site {site} showed {shown} and now claims {heads}")));
        }
        self.shown[site].clone_from(heads);
        if let Some((origin, hlc)) =
            heads.iter().find(|(origin, hlc)| !hlc.is_closed() && *hlc > self.said.get(*origin))
        {
            let said = self.said.get(origin);
            return Err(Violation(format!(
                "site {site} claims {origin} up to {hlc}, which itself has only come to {said}"
            )));
        }
        let standing = &self.views[site].standing;
        for (version, Write { place, .. }) in &self.writes {
            if heads.includes(*version) && standing.get(place).is_none_or(|have| have < version) {
                let have = standing.get(place);
                // It died, and is gone with what killed it; or nobody who is left ever had it.
                let is_renewed = |have: &Version| {
                    renews
                        && (heads.get(have.origin).is_closed()
                            || self.is_from_before_admission(place, *have))
                };
                let nothing_lives_there =
                    have.is_none_or(|have| self.may_die(*have) || is_renewed(have));
                if (nothing_lives_there && self.is_dead(place, *version, heads))
                    || heads.get(version.origin).is_closed()
                    || removed && self.admissions.iter().any(|(o, _)| *o == version.origin)
                    || self.is_from_before_admission(place, *version)
                {
                    continue;
                }
                return Err(Violation(format!(
                    "site {site} claims {version} of {place:?}, but has {have:?}: {}",
                    self.history(place, *version)
                )));
            }
        }
        Ok(())
    }

    /// All writes of a place, for whoever looks into the fate of one of them.
    fn history(&self, place: &Place, version: Version) -> String {
        let writes = self.writes.iter().filter(|(_, write)| write.place == *place);
        let line = |(at, write): (&Version, &Write)| {
            let Write { value, expires_at_ms, past, heads, .. } = write;
            let tombstone = value.is_none();
            let (had, past) = (heads.get(version.origin), past.contains(&version));
            let held: Vec<usize> = (0..self.views.len())
                .filter(|site| self.views[*site].met.get(place).is_some_and(|met| met.contains(at)))
                .collect();
            format!(
                "\n  {at}: delete {tombstone}, expires {expires_at_ms:?}, its writer had met that one \
                 {past} and claimed {had}, held by {held:?}"
            )
        };
        writes.map(line).collect()
    }

    /// Whether what stood in a place up to `version` is dead by a write at or above it that `heads` claim.
    fn is_dead(&self, place: &Place, version: Version, heads: &Heads) -> bool {
        let mut later = self.writes.range(version..).filter(|(_, write)| write.place == *place);
        later.any(|(at, _)| heads.includes(*at) && self.may_die(*at))
    }

    fn may_die(&self, version: Version) -> bool {
        let write = &self.writes[&version];
        write.value.is_none() || write.expires_at_ms.is_some()
    }

    /// Whether a write was made before its store was admitted: it comes anew.
    fn is_from_before_admission(&self, place: &Place, version: Version) -> bool {
        self.is_below_admission(version, |_| true) || place.0.is_system()
    }

    /// Whether a write lies at or below one of these admissions of its store, of which that had not heard then.
    fn is_below_admission(&self, version: Version, of: impl Fn(&Version) -> bool) -> bool {
        let is_in = self.writes.get(&version).is_some_and(|write| write.is_in);
        let is_below = |(origin, at): &(Origin, Version)| {
            *origin == version.origin && version.hlc <= at.hlc && of(at)
        };
        !is_in && self.admissions.iter().any(is_below)
    }

    /// The same, of those admissions that came to one of these sites: that of a site which was removed before
    /// it told anybody never was.
    fn comes_anew(&self, sites: &[usize], place: &Place, version: Version) -> bool {
        let came = |at: &Version| sites.iter().any(|site| self.has_met(*site, at));
        self.is_below_admission(version, came) || place.0.is_system()
    }

    /// Rows went from a store without a tombstone: by a purge, or by a reconciliation. What a purge takes
    /// must be dead, and claimed by all who count.
    pub(super) fn removed(
        &mut self,
        site: usize,
        store: &Store,
        by_purge: Option<&Purge>,
    ) -> Result<(), Violation> {
        let snapshot = store.snapshot();
        let is_there = |(table, key): &Place| snapshot.get(table, key).unwrap().is_some();
        let went: Vec<(Place, Version)> = self.views[site]
            .standing
            .iter()
            .filter(|(place, _)| !is_there(place))
            .map(|(place, version)| (place.clone(), *version))
            .collect();
        for (place, version) in went {
            let write = &self.writes[&version];
            if let Some(Purge { at_least_ms, members }) = by_purge {
                let expired = write.expires_at_ms.is_some_and(|at_ms| at_ms <= *at_least_ms);
                if write.value.is_some() && !expired {
                    return Err(Violation(format!("site {site} purges {version}: it lives")));
                }
                if let Some((other, _)) = members.iter().find(|(_, heads)| !heads.includes(version))
                {
                    return Err(Violation(format!(
                        "site {site} purges {version}, which site {other} does not claim"
                    )));
                }
                self.purged.insert(version);
            }
            self.views[site].standing.remove(&place);
        }
        Ok(())
    }

    /// A store holds just what it should; every conflict that it recorded is one.
    pub(super) fn check_store(&self, site: usize, store: &Store) -> Result<(), Violation> {
        let snapshot = store.snapshot();
        let mut found = BTreeMap::new();
        for row in snapshot.changes(&Heads::new()).unwrap().map(Result::unwrap) {
            let standing = snapshot.get(&row.table, &row.key).unwrap();
            if standing.as_ref() != Some(&row.body) {
                return Err(Violation(format!("site {site}: the index is wrong at {row:?}")));
            }
            found.insert(place_of(&row), row.body.version());
        }
        if found != self.views[site].standing || found.len() as u64 != snapshot.rows().unwrap() {
            let standing = &self.views[site].standing;
            let of = |a: &BTreeMap<Place, Version>, b: &BTreeMap<Place, Version>| {
                let differs =
                    |(place, version): &(&Place, &Version)| b.get(*place) != Some(*version);
                format!("{:?}", a.iter().filter(differs).collect::<Vec<_>>())
            };
            let (here, expected) = (of(&found, standing), of(standing, &found));
            let rows = (found.len(), snapshot.rows().unwrap());
            return Err(Violation(format!(
                "site {site} holds {here} instead of {expected}; rows, and counted: {rows:?}"
            )));
        }
        for (winner, loser) in snapshot.conflicts().unwrap() {
            let loser = loser.body.version();
            let is_ordered = self.follows(winner, loser) || self.follows(loser, winner);
            // Who was set back to before it wrote anew what it had cannot know that it has.
            let came_anew =
                self.set_back.contains(&site) && self.is_below_admission(loser, |_| true);
            if is_ordered && !came_anew && !self.is_forgotten(loser) {
                let write = self.writes.get(&loser);
                let place = write.map(|write| write.place.clone());
                let history = write.map(|write| self.history(&write.place, loser));
                return Err(Violation(format!(
                    "site {site} recorded {loser} as lost to {winner} in {place:?}, but one had seen \
                     the other: {}",
                    history.unwrap_or_default()
                )));
            }
        }
        Ok(())
    }

    /// When all is quiet: every store has the last word on every row, and no loser went unrecorded.
    /// `all` are the stores of those who were removed, too: what they recorded counts.
    pub(super) fn check_end(
        &self,
        stores: &[(usize, &Store)],
        all: &[&Store],
    ) -> Result<(), Violation> {
        let dump = |store: &Store| -> Vec<Row> {
            let mut rows: Vec<Row> =
                store.snapshot().changes(&Heads::new()).unwrap().map(Result::unwrap).collect();
            rows.sort_by_key(place_of);
            rows
        };
        let Some((one, store)) = stores.first() else { return Ok(()) };
        let first = dump(store);
        for (site, other) in stores {
            let rows = dump(other);
            if rows != first {
                let only = |a: &[Row], b: &[Row]| -> Vec<Row> {
                    a.iter().filter(|row| !b.contains(row)).cloned().collect()
                };
                let (here, there) = (only(&first, &rows), only(&rows, &first));
                return Err(Violation(format!(
                    "sites {one} and {site} differ: {here:?}, {there:?}"
                )));
            }
            if other.heads() != store.heads() {
                let (ours, theirs) = (store.heads(), other.heads());
                return Err(Violation(format!(
                    "heads of {one} and {site} differ: {ours}, {theirs}"
                )));
            }
        }
        let sites: Vec<usize> = stores.iter().map(|(site, _)| *site).collect();
        // What somebody who is left has held, or claims: the rest was lost with its site.
        let held = |version: &Version, write: &Write| {
            let claims = store.heads().get(version.origin);
            let is_held = stores.iter().any(|(site, _)| {
                self.views[*site].met.get(&write.place).is_some_and(|met| met.contains(version))
            });
            let is_claimed = version.hlc <= claims
                && !claims.is_closed()
                && !self.comes_anew(&sites, &write.place, *version);
            is_held || is_claimed
        };
        let mut last_words: BTreeMap<&Place, Version> = BTreeMap::new();
        let mut to_renew: Vec<(&Place, Version)> = Vec::new();
        // And what everybody had when it was purged: whoever met it may be gone since, or set back to before.
        let counts = |(version, write): &(&Version, &Write)| {
            let was_purged = self.purged.contains(version) && store.heads().includes(**version);
            was_purged || held(version, write)
        };
        for (version, write) in self.writes.iter().filter(counts) {
            if self.comes_anew(&sites, &write.place, *version) {
                to_renew.push((&write.place, *version));
                continue;
            }
            // In the order of versions: the last one stays.
            last_words.insert(&write.place, *version);
        }
        let may_be_gone = |place: &Place, version| place.0.is_system() || self.may_die(version);
        if let Some((place, version)) = to_renew.into_iter().find(|(place, version)| {
            !last_words.contains_key(*place) && !may_be_gone(place, *version)
        }) {
            return Err(Violation(format!("{version} of {place:?} never came anew")));
        }
        for row in first.iter().filter(|row| !row.table.is_system()) {
            let version = last_words.remove(&place_of(row));
            if version != Some(row.body.version()) {
                let history = self.history(&place_of(row), row.body.version());
                return Err(Violation(format!(
                    "{version:?} had the last word, not {row:?}: {history}"
                )));
            }
        }
        let recorded = self.recorded(all);
        for (place, version) in last_words {
            let write = &self.writes[&version];
            // Of what came to some without a claim before its store was removed nobody can tell whether it died: then
            // it is recorded.
            let is_doubtful =
                recorded.contains(&version) && store.heads().get(version.origin).is_closed();
            if write.value.is_some() && write.expires_at_ms.is_none() && !is_doubtful {
                let history = self.history(place, version);
                return Err(Violation(format!("a row is lost: {version} of {place:?}: {history}")));
            }
        }
        self.check_losers(all, held)
    }

    /// The losers that are recorded at any of these, or were where a disk is lost.
    fn recorded(&self, stores: &[&Store]) -> BTreeSet<Version> {
        let mut recorded = self.records_lost.clone();
        for store in stores {
            let conflicts = store.snapshot().conflicts().unwrap();
            recorded.extend(conflicts.iter().map(|(_, loser)| loser.body.version()));
        }
        recorded
    }

    fn check_losers(
        &self,
        stores: &[&Store],
        held: impl Fn(&Version, &Write) -> bool,
    ) -> Result<(), Violation> {
        let recorded = self.recorded(stores);
        for (version, write) in self.writes.iter().filter(|(version, write)| held(version, write)) {
            let others = || {
                let same = |(at, other): &(&Version, &Write)| {
                    other.place == write.place && held(at, other)
                };
                self.writes.range((Bound::Excluded(version), Bound::Unbounded)).filter(same)
            };
            if others().next().is_none() || write.place.0.is_system() {
                continue;
            }
            // A claim up to an admission says nothing of what was written before it.
            let counts = !self.is_from_before_admission(&write.place, *version);
            let followed = others().any(|(other, by)| {
                self.follows(*other, *version) || counts && by.heads.includes(*version)
            });
            // Of equal values, two deletes among them, one stands for the other, without a record.
            let stood_for = others().any(|(_, other)| other.value == write.value);
            if !followed && !stood_for && !recorded.contains(version) {
                return Err(Violation(format!(
                    "{version} of {:?} is lost silently: {}; recorded {recorded:?}",
                    write.place,
                    self.history(&write.place, *version)
                )));
            }
        }
        Ok(())
    }

    /// Whether the writer of `younger` had met `older`.
    fn follows(&self, younger: Version, older: Version) -> bool {
        (younger.origin == older.origin && younger.hlc > older.hlc)
            || self.writes.get(&younger).is_some_and(|write| write.past.contains(&older))
    }
}
