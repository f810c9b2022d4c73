//! Sites and links, and what can happen to them. Each step tells the oracle.

use std::collections::BTreeSet;

use bytes::Bytes;
use lastword::{
    model::{Heads, Key, Origin, Role, Row, TableName, Version},
    protocol::{MEMBER_TABLES, SequenceIds, Standing, SystemRow, member_row},
    store::{LocalBatch, LocalWrite, Operation, Outcome, Request, ScanRange, Store, Written},
};

use super::{
    BOUND_MS, NOON_MS, Place, Rule, Tally, Violation, WILD_MS,
    link::Link,
    oracle::{Oracle, Written as WrittenAt},
    place_of,
    site::Site,
};
use crate::dice::Dice;

/// A commit takes about so many operations of the disk.
const COMMIT_OPERATIONS_MAX: usize = 30;
/// So much of a request, and of what became of it, is printed.
const TRACED_CHARS_MAX: usize = 400;

pub(super) struct Cluster {
    pub(super) rule: Rule,
    pub(super) dice: Dice,
    pub(super) now_ms: u64,
    /// Prints each commit, for whoever looks into a violation.
    traces: bool,
    /// Since then nobody writes any more, and nothing goes wrong.
    pub(super) calm_since_ms: u64,
    pub(super) sites: Vec<Site>,
    pub(super) links: Vec<Link>,
    pub(super) tally: Tally,
    pub(super) links_made: u64,
    /// How many stores came back under a new origin.
    pub(super) origins: u8,
    pub(super) oracle: Oracle,
    values: u64,
    commits_kept_max: usize,
    /// How many keys clients write to in a table.
    keys: usize,
    /// Crashes and races may happen.
    pub(super) trouble: bool,
    may_have_trouble: bool,
    /// Which rows arrived, from which store at which.
    pub(super) arrived: BTreeSet<(usize, usize, Version)>,
}

pub(super) type Step = Result<(), Violation>;

impl Cluster {
    pub(super) fn new(rule: Rule, mut dice: Dice, sites: usize, trouble: bool) -> Cluster {
        let commits_kept_max = dice.pick(&[1, 4, 30]);
        let keys = dice.pick(&[2, 5, 15]);
        let mut cluster = Cluster {
            rule,
            dice,
            now_ms: NOON_MS,
            traces: std::env::var("SIM_TRACE").is_ok(),
            calm_since_ms: 0,
            oracle: Oracle::default(),
            sites: Vec::new(),
            links: Vec::new(),
            links_made: 0,
            origins: 0,
            commits_kept_max,
            tally: Tally::default(),
            values: 0,
            keys,
            trouble,
            may_have_trouble: trouble,
            arrived: BTreeSet::new(),
        };
        for _ in 0..sites {
            cluster.found_site().expect("the first write of a store");
        }
        cluster
    }

    /// A new site, with an empty store that makes itself known.
    pub(super) fn found_site(&mut self) -> Step {
        let number = self.sites.len();
        let mut site = Site::new(number, self.commits_kept_max);
        site.start();
        self.oracle.add_site();
        self.sites.push(site);
        let row = member_row(self.sites[number].origin(), &self.sites[number].name(), Role::Site);
        self.write_system(number, row)
    }

    /// A row of a system table, as this site's own write.
    pub(super) fn write_system(&mut self, site: usize, row: SystemRow) -> Step {
        let SystemRow { table, key, value } = row;
        let operation = Operation::Put { key, value: value.into(), expires_at_ms: None };
        let request = self.local(site, vec![LocalWrite { table, operation }]);
        self.apply(site, &[request])
    }

    /// Whether nothing goes wrong for a while, of what may.
    pub(super) fn calm(&mut self, calm: bool) {
        self.trouble = self.may_have_trouble && !calm;
    }

    /// From now on nobody writes and nothing goes wrong: true clocks, and all sites up.
    pub(super) fn calm_down(&mut self) {
        self.trouble = false;
        for site in &mut self.sites {
            site.skew_ms = 0;
            if !site.is_up() {
                site.start();
            }
        }
        // Whatever was stamped ahead of time lies behind now.
        self.now_ms += 2 * WILD_MS.unsigned_abs();
        self.calm_since_ms = self.now_ms;
    }

    pub(super) fn check_stores(&self) -> Step {
        for site in self.sites.iter().filter(|site| site.is_up()) {
            self.oracle.check_store(site.number, site.store())?;
        }
        Ok(())
    }

    pub(super) fn check_end(&mut self) -> Step {
        self.check_stores()?;
        self.tally.writes = self.oracle.writes();
        let closed: BTreeSet<_> = self
            .sites
            .iter()
            .flat_map(|site| site.heads().iter().collect::<Vec<_>>())
            .filter(|(_, head)| head.is_closed())
            .map(|(origin, _)| origin)
            .collect();
        self.tally.closings += closed.len() as u64;
        let members = self.members();
        self.tally.left_out += (self.left().len() - members.len()) as u64;
        let stores: Vec<(usize, &Store)> =
            members.iter().map(|site| (*site, self.sites[*site].store())).collect();
        let all: Vec<&Store> =
            self.sites.iter().filter(|site| site.is_up()).map(Site::store).collect();
        let judged = self.check_all_done(&members);
        let judged = judged.and_then(|()| self.oracle.check_end(&stores, &all));
        judged.map_err(|Violation(what)| Violation(format!("{what}\n{}", self.describe())))
    }

    /// In the end nothing is left to do, in a sealed cluster: every removal is complete, and what is dead is
    /// purged.
    fn check_all_done(&self, members: &[usize]) -> Step {
        for site in members {
            let snapshot = self.sites[*site].snapshot();
            let heads = snapshot.heads();
            if !snapshot.members().is_sealed(heads) {
                continue;
            }
            let open = |origin: &Origin| !heads.get(*origin).is_closed();
            let removed = snapshot.members().iter().filter(|(_, member)| member.removal.is_some());
            if let Some(origin) = removed.map(|(origin, _)| origin).find(open) {
                return Err(Violation(format!("site {site} never closes {origin}")));
            }
            let dead = snapshot.count_dead(self.now_ms, 1).unwrap();
            if dead > 0 {
                return Err(Violation(format!("site {site} never purges what is dead")));
            }
        }
        Ok(())
    }

    /// How each site sees the cluster, for whoever looks into a violation.
    pub(super) fn describe(&self) -> String {
        let short = |origin: Origin| origin.as_bytes()[0];
        let vector = |heads: &Heads| -> Vec<String> {
            heads.iter().map(|(o, hlc)| format!("{}:{hlc}", short(o))).collect()
        };
        let of_site = |site: &Site| {
            let name = format!("site {} ({})", site.number, short(site.origin()));
            if !site.is_up() {
                return format!("{name} is down");
            }
            let snapshot = site.snapshot();
            let members: Vec<String> = snapshot
                .members()
                .iter()
                .map(|(origin, member)| {
                    let ack = snapshot.members().has_acknowledged(origin);
                    let (admission, removal) = (member.admission, member.removal);
                    format!(
                        "{}{}{}{}",
                        short(origin),
                        if ack { " sealed" } else { "" },
                        admission.map(|by| format!(" admitted {by}")).unwrap_or_default(),
                        removal.map(|by| format!(" removed {by}")).unwrap_or_default(),
                    )
                })
                .collect();
            format!(
                "{name} removed {}, joining {:?}, seal {}, horizon {}\n  members {members:?}\n  heads \
                 {:?}\n  floor {:?}",
                site.removed,
                snapshot.joining(),
                snapshot.members().has_seal(),
                snapshot.horizon(),
                vector(snapshot.heads()),
                vector(snapshot.floor()),
            )
        };
        self.sites.iter().map(of_site).collect::<Vec<_>>().join("\n")
    }

    /// The sites that nobody removed.
    pub(super) fn left(&self) -> Vec<usize> {
        self.sites.iter().filter(|site| !site.removed).map(|site| site.number).collect()
    }

    /// The sites that belong to the cluster and take writes, as they see it themselves, and that nobody
    /// removed.
    pub(super) fn members(&self) -> Vec<usize> {
        let is_member = |site: &&Site| !site.removed && site.is_up() && site.is_active();
        let members: Vec<usize> = self.sites.iter().filter(is_member).map(|s| s.number).collect();
        // Who never met the others is no part of it.
        let biggest = members.iter().map(|site| self.knows(*site, &members)).max_by_key(Vec::len);
        biggest.unwrap_or_default()
    }

    /// Those of `others` that a site has in its list, and that have it in theirs.
    fn knows(&self, site: usize, others: &[usize]) -> Vec<usize> {
        let has = |one: usize, other: usize| {
            let snapshot = self.sites[one].snapshot();
            let origin = self.sites[other].origin();
            snapshot.members().standing(origin, snapshot.heads()) == Standing::Member
        };
        let mutual = |other: &&usize| has(site, **other) && has(**other, site);
        others.iter().filter(mutual).copied().collect()
    }

    // ---- what clients do

    /// A client's batch at a site; alone, or in one commit with another's.
    pub(super) fn write(&mut self, site: usize) -> Step {
        let mut requests = Vec::new();
        for _ in 0..1 + self.dice.below(2) {
            let writes = (0..1 + self.dice.below(3)).map(|_| self.some_write()).collect();
            requests.push(self.local(site, writes));
        }
        self.apply(site, &requests)
    }

    /// One row of one client.
    pub(super) fn put(&mut self, site: usize, key: &'static str) -> Step {
        let (table, key) = (TableName::of_client("t").unwrap(), Key::new(key).unwrap());
        let operation = Operation::Put { key, value: self.value(), expires_at_ms: None };
        let request = self.local(site, vec![LocalWrite { table, operation }]);
        self.apply(site, &[request])
    }

    /// One row, gone.
    pub(super) fn delete(&mut self, site: usize, key: &'static str) -> Step {
        let (table, key) = (TableName::of_client("t").unwrap(), Key::new(key).unwrap());
        let request =
            self.local(site, vec![LocalWrite { table, operation: Operation::Delete { key } }]);
        self.apply(site, &[request])
    }

    /// A client deletes rows at some member.
    pub(super) fn tidy_up(&mut self) -> Step {
        let members = self.members();
        if members.is_empty() {
            return Ok(());
        }
        let site = self.dice.pick(&members);
        let table = TableName::of_client("t").unwrap();
        let deletes = (0..self.keys).map(|key| {
            let key = Key::new(format!("k{key}")).unwrap();
            LocalWrite { table: table.clone(), operation: Operation::Delete { key } }
        });
        let request = self.local(site, deletes.collect());
        self.apply(site, &[request])
    }

    pub(super) fn advance(&mut self, site: usize) -> Step {
        self.apply(site, &[Request::Advance])
    }

    pub(super) fn local(&self, site: usize, writes: Vec<LocalWrite>) -> Request {
        let increment = 23;
        Request::Local(LocalBatch {
            writes,
            create_tables: true,
            sequence: Some(SequenceIds { offset: site as u64 + 1, increment }),
            drift_bound_ms: BOUND_MS,
        })
    }

    fn value(&mut self) -> Bytes {
        self.values += 1;
        Bytes::from(self.values.to_string())
    }

    pub(super) fn some_write(&mut self) -> LocalWrite {
        let table = TableName::of_client(self.dice.pick(&["t", "t", "t", "u"])).unwrap();
        let key = Key::new(format!("k{}", self.dice.below(self.keys))).unwrap();
        let operation = match self.dice.below(12) {
            0 => Operation::InsertSequence { value: self.value(), expires_at_ms: None },
            1 | 2 => Operation::Delete { key },
            3 => {
                let expires_at_ms = Some(self.now_ms + self.dice.below(5_000) as u64);
                Operation::Put { key, value: self.value(), expires_at_ms }
            }
            _ => Operation::Put { key, value: self.value(), expires_at_ms: None },
        };
        LocalWrite { table, operation }
    }

    // ---- commits

    /// Whether a site is coming in, and has not written anew yet what it had from before; and whether it was
    /// removed.
    fn standing(&self, site: usize) -> (bool, bool) {
        let snapshot = self.sites[site].snapshot();
        let renews = snapshot.joining().is_some() || !snapshot.may_be_told();
        (renews, self.sites[site].removed)
    }

    pub(super) fn apply(&mut self, site: usize, requests: &[Request]) -> Step {
        self.try_apply(site, requests).map(drop)
    }

    pub(super) fn try_apply(
        &mut self,
        site: usize,
        requests: &[Request],
    ) -> Result<Vec<Outcome>, Violation> {
        let heads = self.sites[site].heads();
        let applied = self.sites[site].apply(self.now_ms, requests).unwrap();
        self.tally.commits += u64::from(applied.committed);
        for (request, outcome) in requests.iter().zip(&applied.outcomes) {
            self.note(site, request, outcome, &heads)?;
            if self.traces && !matches!(request, Request::Advance) {
                let line = |what: String| what.chars().take(TRACED_CHARS_MAX).collect::<String>();
                let (asked, done) = (line(format!("{request:?}")), line(format!("{outcome:?}")));
                println!("{} site {site}: {asked}\n    {done}", self.now_ms);
            }
        }
        self.note_own(site, &applied.rows, &heads)?;
        if applied.rows_removed > 0 {
            self.note_removed(site, requests)?;
        }
        let own = self.sites[site].origin();
        self.oracle.says(own, applied.heads.get(own));
        let judged = self.oracle.check_heads(site, &applied.heads, self.standing(site));
        judged.map_err(|Violation(what)| {
            Violation(format!("{what}\nat {requests:?}\n{}", self.describe()))
        })?;
        Ok(applied.outcomes)
    }

    /// Tells the oracle of a request that is durable, applied while the site claimed `heads`.
    fn note(&mut self, site: usize, request: &Request, outcome: &Outcome, heads: &Heads) -> Step {
        match (request, outcome) {
            (Request::Local(batch), Outcome::Local(Ok(written))) => {
                for (write, Written { key, version, .. }) in batch.writes.iter().zip(written) {
                    let place = (write.table.clone(), key.clone());
                    let (value, expires_at_ms) = match &write.operation {
                        Operation::Delete { .. } => (None, None),
                        Operation::Put { value, expires_at_ms, .. }
                        | Operation::InsertSequence { value, expires_at_ms, .. } => {
                            (Some(value.clone()), *expires_at_ms)
                        }
                    };
                    let at = WrittenAt { version: *version, value, expires_at_ms };
                    self.oracle.wrote(site, &place, at, heads)?;
                }
            }
            (Request::Local(_), Outcome::Local(Err(_))) => self.tally.refusals += 1,
            (Request::Remote(batch), Outcome::Remote(report)) if !report.refused => {
                self.oracle.merged(site, &batch.rows, heads);
                self.tally.conflicts += report.conflicts;
            }
            _ => {}
        }
        Ok(())
    }

    /// Tells the oracle what a store wrote by itself: rows of system tables, and rows from before its
    /// admission that it wrote anew; and what it took from a hello.
    fn note_own(&mut self, site: usize, rows: &[Row], heads: &Heads) -> Step {
        let own = self.sites[site].origin();
        for row in rows {
            let version = row.body.version();
            if version.origin == own && !self.oracle.knows(version) {
                self.tally.renewed += u64::from(!row.table.is_system());
                self.oracle.wrote(site, &place_of(row), written_at(row), heads)?;
                if let Some(newcomer) = admitted_by(own, row) {
                    self.oracle.admitted(newcomer, version);
                }
            } else if version.origin != own {
                self.oracle.merged(site, std::slice::from_ref(row), heads);
            }
        }
        Ok(())
    }

    // ---- crashes

    /// The power fails between two commits.
    pub(super) fn crash(&mut self, site: usize) {
        self.tally.crashes += 1;
        self.sites[site].crash(&mut self.dice);
        self.cut_where(|link| link.touches(site));
    }

    /// The power fails while a group is being committed. A marker in the group tells afterwards
    /// whether it was; it is there as a whole, or not at all.
    pub(super) fn crash_in_commit(&mut self, site: usize, request: Request) -> Step {
        let value = self.value();
        let marker = Key::new(format!("m{site}")).unwrap();
        let table = TableName::of_client("t").unwrap();
        let place = (table.clone(), marker.clone());
        let put = Operation::Put { key: marker, value, expires_at_ms: None };
        let marked = self.local(site, vec![LocalWrite { table, operation: put }]);
        let requests = [marked, request];

        let heads = self.sites[site].heads();
        if self.dice.chance(50) {
            self.sites[site].log().fail_at_sync(self.dice.below(2));
        } else if self.dice.chance(50) {
            self.sites[site].log().fail_after(self.dice.below(3));
        } else {
            self.sites[site].disk().fail_after(self.dice.below(COMMIT_OPERATIONS_MAX));
        }
        let applied = self.sites[site].apply(self.now_ms, &requests);
        if let Ok(applied) = &applied {
            for (request, outcome) in requests.iter().zip(&applied.outcomes) {
                self.note(site, request, outcome, &heads)?;
            }
            self.note_own(site, &applied.rows, &heads)?;
        }
        self.crash(site);
        self.sites[site].start();
        let own = self.sites[site].origin();
        self.oracle.says(own, self.sites[site].heads().get(own));
        if applied.is_err() {
            self.find(site, &place, &requests[1], &heads)?;
        }
        self.oracle.check_heads(site, &self.sites[site].heads(), self.standing(site))?;
        self.oracle.check_store(site, self.sites[site].store())
    }

    /// After a crash: is the group of `marker` and `request` there?
    fn find(&mut self, site: usize, marker: &Place, request: &Request, heads: &Heads) -> Step {
        let own = self.sites[site].origin();
        let snapshot = self.sites[site].store().snapshot();
        let mut fresh: Vec<Row> = Vec::new();
        for table in ["t", "u"] {
            let table = TableName::of_client(table).unwrap();
            let rows = snapshot.scan(&table, &ScanRange::default()).unwrap();
            let unknown = |row: &Row| {
                let version = row.body.version();
                version.origin == own && !self.oracle.knows(version)
            };
            fresh.extend(rows.map(Result::unwrap).filter(unknown));
        }
        fresh.sort_by_key(|row| row.body.version());
        if fresh.is_empty() {
            self.tally.commits_lost += 1;
            return Ok(());
        }
        self.tally.commits_found += 1;
        let places: Vec<Place> = fresh.iter().map(place_of).collect();
        let mut expected = vec![marker.clone()];
        if let Request::Local(batch) = request {
            let named = |write: &LocalWrite| Some((write.table.clone(), key_of(write)?.clone()));
            expected.extend(batch.writes.iter().filter_map(named));
        }
        if places != expected {
            return Err(Violation(format!("of a group {expected:?}, {places:?} is there")));
        }
        for row in &fresh {
            self.oracle.wrote(site, &place_of(row), written_at(row), heads)?;
        }
        if let Request::Remote(batch) = request
            && !matches!(
                snapshot.members().standing(batch.sender, heads),
                Standing::Removed | Standing::Closed
            )
        {
            self.oracle.merged(site, &batch.rows, heads);
        }
        Ok(())
    }

    /// Whether the clock of a site is too far ahead of its wall clock to take a client's write.
    pub(super) fn refuses(&self, site: usize) -> bool {
        self.sites[site].ahead_ms(self.now_ms) > BOUND_MS || !self.sites[site].is_active()
    }

    /// A client's batch, and the power fails with it.
    pub(super) fn crash_in_write(&mut self, site: usize) -> Step {
        if self.refuses(site) {
            return Ok(());
        }
        let mut writes: Vec<LocalWrite> = Vec::new();
        for _ in 0..3 {
            let write = self.some_write();
            let same =
                |other: &LocalWrite| other.table == write.table && key_of(other) == key_of(&write);
            if key_of(&write).is_some() && !writes.iter().any(same) {
                writes.push(write);
            }
        }
        let request = self.local(site, writes);
        self.crash_in_commit(site, request)
    }
}

/// What a row says of the write that it is.
fn written_at(row: &Row) -> WrittenAt {
    let (version, value) = (row.body.version(), row.body.value());
    WrittenAt { version, value, expires_at_ms: row.body.expires_at_ms() }
}

/// The key, where the client names it.
fn key_of(write: &LocalWrite) -> Option<&Key> {
    match &write.operation {
        Operation::Put { key, .. } | Operation::Delete { key } => Some(key),
        Operation::InsertSequence { .. } => None,
    }
}

/// The store that `sponsor` admits by this row. One that is written anew names somebody else, whose word counts.
fn admitted_by(sponsor: Origin, row: &Row) -> Option<Origin> {
    let value = String::from_utf8(row.body.value()?.to_vec()).ok()?;
    let admits = row.table == MEMBER_TABLES.admissions && value.contains(&sponsor.to_string());
    admits.then(|| Origin::from_bytes(row.key.as_slice().try_into().expect("an origin's bytes")))
}
