//! Sites and links, and what can happen to them. Each step tells the oracle.

use std::collections::BTreeSet;

use bytes::Bytes;
use lastword::{
    model::{Heads, Hlc, Key, Origin, Row, TableName, Version},
    protocol::{Delta, Frame, Hello, PROTOCOL_VERSION, Receiver, Sender, SequenceIds, check_hello},
    store::{
        LocalBatch, LocalWrite, Operation, Outcome, RemoteBatch, Request, ScanRange, Store, Written,
    },
};

use super::{
    BOUND_MS, NOON_MS, Place, Rule, Tally, Violation, WILD_MS,
    link::{End, Link, Outgoing, Talk},
    oracle::Oracle,
    place_of,
    site::{Site, as_they_stand},
};
use crate::dice::Dice;

/// A commit takes about so many operations of the disk.
const COMMIT_OPERATIONS_MAX: usize = 30;

pub(super) struct Cluster {
    pub(super) rule: Rule,
    pub(super) dice: Dice,
    pub(super) now_ms: u64,
    pub(super) sites: Vec<Site>,
    pub(super) links: Vec<Link>,
    pub(super) tally: Tally,
    oracle: Oracle,
    values: u64,
    /// How many keys clients write to in a table.
    keys: usize,
    /// Crashes and races may happen.
    trouble: bool,
    /// Which rows arrived, from which store at which.
    arrived: BTreeSet<(usize, usize, Version)>,
}

type Step = Result<(), Violation>;

impl Cluster {
    pub(super) fn new(rule: Rule, mut dice: Dice, sites: usize, trouble: bool) -> Cluster {
        let commits_kept_max = dice.pick(&[1, 4, 30]);
        let keys = dice.pick(&[2, 5, 15]);
        let mut sites: Vec<Site> = (0..sites).map(|n| Site::new(n, commits_kept_max)).collect();
        sites.iter_mut().for_each(Site::start);
        Cluster {
            rule,
            dice,
            now_ms: NOON_MS,
            oracle: Oracle::new(sites.len()),
            sites,
            links: Vec::new(),
            tally: Tally::default(),
            values: 0,
            keys,
            trouble,
            arrived: BTreeSet::new(),
        }
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
        let stores: Vec<&Store> = self.sites.iter().map(Site::store).collect();
        self.oracle.check_end(&stores)
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

    pub(super) fn advance(&mut self, site: usize) -> Step {
        self.apply(site, &[Request::Advance])
    }

    fn local(&self, site: usize, writes: Vec<LocalWrite>) -> Request {
        let increment = self.sites.len() as u64;
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

    fn some_write(&mut self) -> LocalWrite {
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

    fn apply(&mut self, site: usize, requests: &[Request]) -> Step {
        let heads = self.sites[site].heads();
        let applied = self.sites[site].apply(self.now_ms, requests).unwrap();
        self.tally.commits += u64::from(applied.committed);
        for (request, outcome) in requests.iter().zip(&applied.outcomes) {
            self.note(site, request, outcome, &heads)?;
        }
        self.oracle.check_heads(site, &applied.heads)
    }

    /// Tells the oracle of a request that is durable, applied while the site claimed `heads`.
    fn note(&mut self, site: usize, request: &Request, outcome: &Outcome, heads: &Heads) -> Step {
        match (request, outcome) {
            (Request::Local(batch), Outcome::Local(Ok(written))) => {
                for (write, Written { key, version, .. }) in batch.writes.iter().zip(written) {
                    let place = (write.table.clone(), key.clone());
                    let tombstone = matches!(write.operation, Operation::Delete { .. });
                    self.oracle.wrote(site, &place, *version, tombstone)?;
                }
            }
            (Request::Local(_), Outcome::Local(Err(_))) => self.tally.refusals += 1,
            (Request::Remote(batch), Outcome::Remote(report)) => {
                self.oracle.merged(site, &batch.rows, heads);
                self.tally.conflicts += report.conflicts;
            }
            _ => {}
        }
        Ok(())
    }

    // ---- crashes

    /// The power fails between two commits.
    pub(super) fn crash(&mut self, site: usize) {
        self.tally.crashes += 1;
        self.sites[site].crash(&mut self.dice);
        self.links.retain(|link| !link.touches(site));
    }

    /// The power fails while a group is being committed. A marker in the group tells afterwards
    /// whether it was; it is there as a whole, or not at all.
    fn crash_in_commit(&mut self, site: usize, request: Request) -> Step {
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
            self.oracle.check_heads(site, &applied.heads)?;
        }
        self.crash(site);
        self.sites[site].start();
        if applied.is_err() {
            self.find(site, &place, &requests[1], &heads)?;
        }
        self.oracle.check_heads(site, &self.sites[site].heads())?;
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
            let tombstone = row.body.is_tombstone();
            self.oracle.wrote(site, &place_of(row), row.body.version(), tombstone)?;
        }
        if let Request::Remote(batch) = request {
            self.oracle.merged(site, &batch.rows, heads);
        }
        Ok(())
    }

    /// Whether the clock of a site is too far ahead of its wall clock to take a client's write.
    fn refuses(&self, site: usize) -> bool {
        self.sites[site].ahead_ms(self.now_ms) > BOUND_MS
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

    // ---- links

    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let [ours, theirs] = [self.hello(a), self.hello(b)];
        self.links.push(Link {
            wires: [[Frame::Hello(theirs.clone())].into(), [Frame::Hello(ours.clone())].into()],
            ends: [
                End { site: a, hello: ours, talk: None },
                End { site: b, hello: theirs, talk: None },
            ],
        });
    }

    /// What `site` says first.
    fn hello(&self, site: usize) -> Hello {
        let (this, store) = (&self.sites[site], self.sites[site].store());
        Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster: "simulated".into(),
            site: this.name(),
            origin: this.origin(),
            boot: store.boot(),
            nonce: site as u64,
            heads: this.heads(),
            sequence: None,
            wall_ms: this.now_ms(self.now_ms),
        }
    }

    /// The stream ends; what is under way is lost.
    pub(super) fn cut(&mut self, link: usize) {
        self.tally.cuts += 1;
        self.links.swap_remove(link);
    }

    /// Hands the oldest frame under way to an end.
    pub(super) fn deliver(&mut self, link: usize, end: usize) -> Step {
        let Some(frame) = self.links[link].wires[end].pop_front() else { return Ok(()) };
        match frame {
            Frame::Hello(theirs) => self.meet(link, end, theirs),
            Frame::Delta(delta) => self.receive(link, end, delta),
            Frame::Ack(heads) => {
                self.talk(link, end).sender.on_peer_heads(&heads);
                Ok(())
            }
            Frame::Want { heads, number } => {
                let talk = self.talk(link, end);
                talk.sender.on_want(heads, number);
                talk.delta = None;
                talk.followed = None;
                Ok(())
            }
            // Comparisons are not simulated: they change nothing.
            Frame::Compare { .. } | Frame::Compared { .. } => Ok(()),
            Frame::Goodbye(_) | Frame::Unknown => Ok(()),
        }
    }

    fn meet(&mut self, link: usize, end: usize, theirs: Hello) -> Step {
        let End { site, hello, .. } = &self.links[link].ends[end];
        let mut ours = hello.clone();
        if self.rule != Rule::StaleOwnHead {
            ours.heads = self.sites[*site].heads();
        }
        check_hello(&ours, &theirs)
            .map_err(|refusal| Violation(format!("site {site} refuses: {refusal}")))?;
        let heads = self.sites[*site].heads();
        let want = self.want(*site, theirs.origin, &heads);
        let mut receiver = Receiver::new(ours.origin, want.clone(), BOUND_MS);
        let number = receiver.want_again(want.clone());
        self.tally.resumes += u64::from(want != heads);
        let talk = Talk {
            peer: theirs.origin,
            receiver,
            sender: Sender::new(theirs.heads.clone(), theirs.heads),
            followed: None,
            delta: None,
            ask_at_ms: None,
        };
        let link = &mut self.links[link];
        link.ends[end].talk = Some(talk);
        link.wires[1 - end].push_back(Frame::Want { heads: want, number });
        Ok(())
    }

    /// From where on `site` wants the delta of `peer`.
    fn want(&self, site: usize, peer: Origin, heads: &Heads) -> Heads {
        let store = self.sites[site].store();
        let mut want = heads.clone();
        want.join(&store.tentative(peer).unwrap());
        if self.rule == Rule::TentativeOfAnyone {
            for other in &self.sites {
                want.join(&store.tentative(other.origin()).unwrap());
            }
        }
        want
    }

    fn receive(&mut self, link: usize, end: usize, delta: Delta) -> Step {
        let rule = self.rule;
        let site = self.links[link].ends[end].site;
        let from = self.links[link].ends[1 - end].site;
        for row in &delta.rows {
            let version = row.body.version();
            self.tally.rows_sent_again += u64::from(!self.arrived.insert((from, site, version)));
        }
        let now_ms = self.sites[site].now_ms(self.now_ms);
        let own = self.sites[site].origin();
        let own_head = match rule {
            Rule::StaleOwnHead => self.links[link].ends[end].hello.heads.get(own),
            _ => self.sites[site].heads().get(own),
        };
        let (snapshot_heads, last) = (delta.snapshot_heads.clone(), delta.last);
        let reached: Heads = delta
            .rows
            .iter()
            .map(|row| {
                let Version { hlc, origin } = row.body.version();
                (origin, hlc)
            })
            .collect();
        let talk = self.talk(link, end);
        if let Some(heads) = &snapshot_heads {
            // What the peer's snapshot holds need not be sent back.
            talk.sender.on_peer_heads(heads);
        }
        let mut received = talk
            .receiver
            .on_delta(delta, own_head, now_ms)
            .map_err(|violation| Violation(format!("site {site} ends a stream: {violation}")))?;
        if received.held_rows > 0 {
            talk.ask_at_ms = Some(now_ms + received.held_ahead_ms);
        }
        if rule == Rule::TaintForgotten && last && talk.receiver.is_tainted() {
            talk.receiver = Receiver::new(own, Heads::new(), BOUND_MS);
        }
        if rule == Rule::HeadsRowByRow {
            let mut claim = received.claim.take().unwrap_or_default();
            claim.join(&reached);
            received.claim = Some(claim);
        }
        let sender = talk.peer;
        self.tally.rows_held += received.held_rows;

        let acks = received.claim.is_some();
        let batch = RemoteBatch {
            sender,
            rows: received.rows,
            claim: received.claim,
            tentative: received.tentative,
        };
        if batch.rows.is_empty() && !acks && batch.tentative.is_none() {
            return Ok(());
        }
        if self.trouble && self.dice.chance(2) && !self.refuses(site) {
            return self.crash_in_commit(site, Request::Remote(batch));
        }
        let mut requests = vec![Request::Remote(batch)];
        if self.trouble && self.dice.chance(10) {
            // A client's batch in the same commit, before or after.
            let writes = vec![self.some_write()];
            let at = self.dice.below(2);
            requests.insert(at, self.local(site, writes));
        }
        self.apply(site, &requests)?;
        if acks {
            let ack = Frame::Ack(self.sites[site].heads());
            self.links[link].wires[1 - end].push_back(ack);
        }
        Ok(())
    }

    /// Asks again for what was held back, once it may be merged.
    pub(super) fn ask_again(&mut self, link: usize, end: usize) -> bool {
        let site = self.links[link].ends[end].site;
        let now_ms = self.sites[site].now_ms(self.now_ms);
        let heads = self.sites[site].heads();
        let Some(talk) = &mut self.links[link].ends[end].talk else { return false };
        if talk.ask_at_ms.is_none_or(|at_ms| now_ms < at_ms) || !talk.receiver.is_tainted() {
            return false;
        }
        talk.ask_at_ms = None;
        let number = talk.receiver.want_again(heads.clone());
        self.tally.wants += 1;
        self.links[link].wires[1 - end].push_back(Frame::Want { heads, number });
        true
    }

    /// Leaves a delta off; the next one begins behind what went out.
    pub(super) fn leave_off(&mut self, link: usize, end: usize) {
        let Some(talk) = &mut self.links[link].ends[end].talk else { return };
        if let Some(delta) = talk.delta.take() {
            talk.sender.on_broken_off(&delta.passed);
            talk.followed = None;
        }
    }

    /// Begins a delta at an end, where none is on its way and there is news; says whether one is.
    pub(super) fn begin(&mut self, link: usize, end: usize) -> Result<bool, Violation> {
        let talk = self.links[link].ends[end].talk.as_ref();
        if talk.is_none_or(|talk| talk.sender.want_number() == 0) {
            return Ok(false);
        }
        if self.talk(link, end).delta.is_none() {
            let delta = self.delta_of_now(link, end)?;
            self.talk(link, end).delta = delta;
        }
        Ok(self.talk(link, end).delta.is_some())
    }

    /// The delta of this moment; `None`: the peer lacks nothing.
    fn delta_of_now(&mut self, link: usize, end: usize) -> Result<Option<Outgoing>, Violation> {
        let site = self.links[link].ends[end].site;
        let mut heads = self.sites[site].heads();
        let sequence = self.sites[site].sequence();
        let followed = self.talk(link, end).followed;
        if followed == Some(sequence) && self.talk(link, end).sender.cursor().covers(&heads) {
            return Ok(None);
        }
        if self.rule == Rule::UndurableHead {
            let now_ms = self.sites[site].now_ms(self.now_ms);
            heads.raise(self.sites[site].origin(), Hlc::at_ms(now_ms));
        }
        let recent = followed.and_then(|sequence| self.sites[site].rows_after(sequence));
        let mut rows = if let Some(rows) = recent {
            self.tally.deltas_from_memory += 1;
            let rule = self.rule;
            let sender = &self.talk(link, end).sender;
            let rows = if rule == Rule::CommitOrder { rows } else { as_they_stand(rows) };
            rows.into_iter().filter(|row| sender.lacks(row)).collect()
        } else {
            self.tally.deltas_from_index += 1;
            if self.trouble && self.dice.chance(10) {
                // The snapshot is taken after the heads were read: it may hold more.
                self.write(site)?;
            }
            self.rows_above(site, self.talk_ref(link, end).sender.cursor())
        };
        if self.rule == Rule::OnlyClaimedRows {
            rows.retain(|row| heads.includes(row.body.version()));
        }
        let talk = self.talk(link, end);
        // The first delta of a stream goes out in any case: what a broken one brought is claimed
        // with it.
        if followed.is_some() && rows.is_empty() && talk.sender.cursor().covers(&heads) {
            talk.followed = Some(sequence);
            return Ok(None);
        }
        Ok(Some(Outgoing::new(heads, sequence, rows)))
    }

    fn rows_above(&self, site: usize, above: &Heads) -> Vec<Row> {
        let snapshot = self.sites[site].store().snapshot();
        snapshot.changes(above).unwrap().map(Result::unwrap).collect()
    }

    /// Sends the next rows of the delta on its way; what ends it may come with them, or alone.
    pub(super) fn send_part(&mut self, link: usize, end: usize, rows_max: usize, ends_alone: bool) {
        let rule = self.rule;
        let site = self.links[link].ends[end].site;
        let to = self.links[link].ends[1 - end].site;
        let now = self.sites[site].heads();
        let live = (rule == Rule::LiveDelta)
            .then(|| self.rows_above(site, self.talk_ref(link, end).sender.cursor()));

        let talk = self.talk(link, end);
        let mut delta = talk.delta.take().expect("a delta on its way out");
        if rule == Rule::CheckpointOfNow && !delta.begun {
            delta.heads = now;
        }
        if let Some(live) = live {
            let order = |row: &Row| {
                let Version { hlc, origin } = row.body.version();
                (origin, hlc)
            };
            let behind = delta.last.as_ref().map(order);
            let rest: Vec<Row> = live.into_iter().filter(|row| Some(order(row)) > behind).collect();
            delta.rows = rest.into_iter();
        }
        let rows: Vec<Row> = delta.rows.by_ref().take(rows_max).collect();
        let last = delta.rows.len() == 0 && (rows.is_empty() || !ends_alone);
        delta.note_passed(&rows);
        let frame = Frame::Delta(Delta {
            snapshot_heads: (!delta.begun).then(|| delta.heads.clone()),
            rows: rows.clone(),
            last,
            remaining_rows: delta.rows.len() as u64,
            remaining_bytes: 0,
            want_number: talk.sender.want_number(),
        });
        delta.begun = true;
        if rule == Rule::CursorAtHighestRow {
            for row in &rows {
                let Version { hlc, origin } = row.body.version();
                talk.sender.on_broken_off(&[(origin, hlc)].into_iter().collect());
            }
        }
        if last {
            talk.sender.on_sent(&delta.heads);
            talk.followed = Some(delta.sequence);
        } else {
            talk.delta = Some(delta);
        }
        for row in &rows {
            let version = row.body.version();
            self.tally.rows_sent += 1;
            self.tally.rows_sent_back += u64::from(self.arrived.contains(&(to, site, version)));
        }
        self.links[link].wires[1 - end].push_back(frame);
    }

    fn talk(&mut self, link: usize, end: usize) -> &mut Talk {
        self.links[link].ends[end].talk.as_mut().expect("after the hello")
    }

    fn talk_ref(&self, link: usize, end: usize) -> &Talk {
        self.links[link].ends[end].talk.as_ref().expect("after the hello")
    }
}

/// The key, where the client names it.
fn key_of(write: &LocalWrite) -> Option<&Key> {
    match &write.operation {
        Operation::Put { key, .. } | Operation::Delete { key } => Some(key),
        Operation::InsertSequence { .. } => None,
    }
}
