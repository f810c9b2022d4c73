//! The oracle: it knows every write, and what each writer had met before.

use std::collections::{BTreeMap, BTreeSet};

use lastword::{
    model::{Heads, Row, Version},
    store::Store,
};

use super::{Place, Violation, place_of};

/// A write that is durable somewhere.
struct Write {
    place: Place,
    tombstone: bool,
    /// The versions of this row that its writer had met, and whatever their writers had.
    past: BTreeSet<Version>,
}

/// What a store should hold, and what it has met of each row.
#[derive(Clone, Default)]
struct View {
    standing: BTreeMap<Place, Version>,
    met: BTreeMap<Place, BTreeSet<Version>>,
}

pub(super) struct Oracle {
    writes: BTreeMap<Version, Write>,
    views: Vec<View>,
    /// For each site, the most that it ever showed of its heads.
    shown: Vec<Heads>,
}

impl Oracle {
    pub(super) fn new(sites: usize) -> Oracle {
        let views = vec![View::default(); sites];
        Oracle { writes: BTreeMap::new(), views, shown: vec![Heads::new(); sites] }
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
        version: Version,
        tombstone: bool,
    ) -> Result<(), Violation> {
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
        let write = Write { place: place.clone(), tombstone, past };
        if self.writes.insert(version, write).is_some() {
            return Err(Violation(format!("two writes are stamped {version}")));
        }
        Ok(())
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
    pub(super) fn check_heads(&mut self, site: usize, heads: &Heads) -> Result<(), Violation> {
        if !heads.covers(&self.shown[site]) {
            let shown = &self.shown[site];
            return Err(Violation(format!("site {site} showed {shown} and now claims {heads}")));
        }
        self.shown[site].clone_from(heads);
        let standing = &self.views[site].standing;
        for (version, Write { place, .. }) in &self.writes {
            if heads.includes(*version) && standing.get(place).is_none_or(|have| have < version) {
                let have = standing.get(place);
                return Err(Violation(format!(
                    "site {site} claims {version} of {place:?}, but has {have:?}"
                )));
            }
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
            return Err(Violation(format!(
                "site {site} holds {found:?} instead of {:?}",
                self.views[site].standing
            )));
        }
        for (winner, loser) in snapshot.conflicts().unwrap() {
            let loser = loser.body.version();
            if self.follows(winner, loser) || self.follows(loser, winner) {
                return Err(Violation(format!(
                    "site {site} recorded {loser} as lost to {winner}, but one had seen the other"
                )));
            }
        }
        Ok(())
    }

    /// When all is quiet: every store has the last word on every row, and no loser went unrecorded.
    pub(super) fn check_end(&self, stores: &[&Store]) -> Result<(), Violation> {
        let dump = |store: &Store| -> Vec<Row> {
            let mut rows: Vec<Row> =
                store.snapshot().changes(&Heads::new()).unwrap().map(Result::unwrap).collect();
            rows.sort_by_key(place_of);
            rows
        };
        let first = dump(stores[0]);
        for (site, store) in stores.iter().enumerate() {
            let rows = dump(store);
            if rows != first {
                return Err(Violation(format!("sites 0 and {site} differ: {first:?}, {rows:?}")));
            }
            if store.heads() != stores[0].heads() {
                let (one, other) = (stores[0].heads(), store.heads());
                return Err(Violation(format!("heads of 0 and {site} differ: {one}, {other}")));
            }
        }
        let mut last_words: BTreeMap<&Place, Version> = BTreeMap::new();
        for (version, write) in &self.writes {
            // In the order of versions: the last one stays.
            last_words.insert(&write.place, *version);
        }
        for row in &first {
            let version = last_words.remove(&place_of(row));
            if version != Some(row.body.version()) {
                return Err(Violation(format!("{version:?} had the last word, not {row:?}")));
            }
        }
        if !last_words.is_empty() {
            return Err(Violation(format!("rows are lost: {last_words:?}")));
        }
        self.check_losers(stores, &first)
    }

    fn check_losers(&self, stores: &[&Store], standing: &[Row]) -> Result<(), Violation> {
        let mut recorded = BTreeSet::new();
        for store in stores {
            let conflicts = store.snapshot().conflicts().unwrap();
            recorded.extend(conflicts.iter().map(|(_, loser)| loser.body.version()));
        }
        let standing: BTreeSet<Version> = standing.iter().map(|row| row.body.version()).collect();
        for (version, write) in &self.writes {
            let others = || self.writes.iter().filter(|(_, other)| other.place == write.place);
            let followed = others().any(|(other, _)| self.follows(*other, *version));
            // Two deletes have equal values: one stands for the other, without a record.
            let stood_for = write.tombstone
                && others().any(|(other, write)| write.tombstone && other > version);
            let fine = standing.contains(version) || followed || stood_for;
            if !fine && !recorded.contains(version) {
                return Err(Violation(format!("{version} of {:?} is lost silently", write.place)));
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
