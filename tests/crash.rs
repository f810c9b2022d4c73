//! One store, a disk whose power is cut at any moment, and everything that must be there afterwards.
//!
//! Every group of requests is applied on a disk that may fail in the middle of it. Then the power is
//! cut, a torn part of what was not synced survives, and the store is opened on what is found: also
//! with the power failing again while it is being opened.

#[path = "common/dice.rs"]
mod dice;
#[path = "common/disk.rs"]
mod disk;

use std::collections::BTreeMap;

use bytes::Bytes;
use dice::Dice;
use disk::Disk;
use lastword::{
    model::{Body, BodyParts, Context, Heads, Hlc, Key, Origin, Row, TableName, Version},
    protocol::SequenceIds,
    store::{
        HandOver, HandedRow, LocalBatch, LocalWrite, Moving, Operation, Outcome, RemoteBatch,
        Request, ScanRange, Store, StoreConfig, Writer, Written,
    },
};

const HISTORIES: u64 = 100;
const GROUPS: usize = 40;
const NOON_MS: u64 = 1_700_000_000_000;
/// An opening, or a move into redb, takes about so many operations of a disk.
const OPERATIONS_MAX: usize = 40;
/// A commit takes about so many of the log's.
const COMMIT_OPERATIONS_MAX: usize = 4;
/// And so many of them are syncs.
const COMMIT_SYNCS_MAX: usize = 3;

/// A history is named by its seed: to look into one, narrow the range to it.
#[test]
fn what_was_acknowledged_is_there_after_any_crash() {
    let mut crashes = Crashes::default();
    for seed in 0..HISTORIES {
        History::new(seed).run(&mut crashes);
    }
    // The histories are of use only while they meet all of it.
    let Crashes { idle, kept, lost, at_opening } = crashes;
    assert!(idle > 50 && kept > 25 && lost > 50 && at_opening > 50, "{crashes:?}");
}

/// What the crashes hit.
#[derive(Clone, Copy, Debug, Default)]
struct Crashes {
    /// Between two commits.
    idle: u32,
    /// A commit that was not acknowledged and is there.
    kept: u32,
    /// A commit that was not acknowledged and is not.
    lost: u32,
    /// The opening after a crash.
    at_opening: u32,
}

struct History {
    seed: u64,
    dice: Dice,
    disk: Disk,
    log: Disk,
    open: Option<(Store, Writer)>,
    now_ms: u64,
    /// The standing version and value of each key, as acknowledged.
    rows: BTreeMap<Key, (Version, Option<Bytes>)>,
    /// What was shown to others: of the own origin, too.
    shown: Heads,
    tentative: Heads,
    /// The number of the newest hand-over that was acknowledged.
    handed_over: u64,
    values: u64,
    peers_stamp: u64,
}

/// What a group does where it is applied.
struct Effect {
    requests: Vec<Request>,
    /// The last value that it puts under each key, `None` for a delete.
    local: BTreeMap<Key, Option<Bytes>>,
    remote: Vec<Row>,
    claim: Heads,
    tentative: Heads,
}

impl History {
    fn new(seed: u64) -> History {
        let mut history = History {
            seed,
            dice: Dice::new(seed),
            disk: Disk::default(),
            log: Disk::default(),
            open: None,
            now_ms: NOON_MS,
            rows: BTreeMap::new(),
            shown: Heads::new(),
            tentative: Heads::new(),
            handed_over: 0,
            values: 0,
            peers_stamp: 0,
        };
        history.reopen(&mut Crashes::default());
        history
    }

    fn run(mut self, crashes: &mut Crashes) {
        for _ in 0..GROUPS {
            self.now_ms =
                self.now_ms.saturating_add_signed(self.dice.pick(&[0, 1, 700, 4_000, -9_000]));
            let effect = self.group();
            let crash = self.dice.chance(40);
            if crash && self.dice.chance(50) {
                self.log.fail_at_sync(self.dice.below(COMMIT_SYNCS_MAX));
            } else if crash && self.dice.chance(60) {
                self.log.fail_after(self.dice.below(COMMIT_OPERATIONS_MAX));
            } else if crash {
                self.disk.fail_after(self.dice.below(OPERATIONS_MAX));
            }
            let (_, writer) = self.open.as_mut().unwrap();
            let applied = writer.apply(self.now_ms, &effect.requests);
            let acknowledged = applied.is_ok();
            if let Ok(applied) = applied {
                self.acknowledge(&effect, &applied.outcomes);
            }
            let (store, _) = self.open.as_ref().unwrap();
            self.shown.join(&store.heads());
            if crash {
                self.cut();
                self.reopen(crashes);
                match acknowledged {
                    true => crashes.idle += 1,
                    false if self.adopt(&effect) => crashes.kept += 1,
                    false => crashes.lost += 1,
                }
            } else if self.dice.chance(10) {
                // A clean end.
                self.reopen(crashes);
            }
            self.check();
        }
    }

    /// Opens the store on its disk, which may fail meanwhile, until it is open.
    fn reopen(&mut self, crashes: &mut Crashes) {
        self.open = None;
        // Memory moves into redb, and commits go over several segments, every now and then.
        let config = StoreConfig {
            cache_bytes: 1 << 16,
            memory_bytes: 30_000,
            segment_bytes: 8_192,
            move_rows: 20,
            moving: Moving::Inline,
            ..StoreConfig::new(Origin::from_bytes([1; 16]), 7)
        };
        while self.dice.chance(30) {
            let operations = self.dice.below(OPERATIONS_MAX);
            let failing = if self.dice.chance(20) { &self.log } else { &self.disk };
            failing.fail_after(operations);
            let opened = Store::open_on(self.disk.clone(), self.log.clone(), &config);
            crashes.at_opening += u32::from(opened.is_err());
            drop(opened);
            self.cut();
        }
        let opened = Store::open_on(self.disk.clone(), self.log.clone(), &config);
        self.open = Some(opened.unwrap_or_else(|error| panic!("seed {}: {error}", self.seed)));
        let (store, _) = self.open.as_ref().unwrap();
        let heads = store.heads();
        assert!(
            heads.covers(&self.shown),
            "seed {}: {} was shown, {heads} is claimed",
            self.seed,
            self.shown
        );
    }

    fn cut(&mut self) {
        self.disk = self.disk.cut(&mut self.dice);
        self.log = self.log.cut(&mut self.dice);
    }

    fn group(&mut self) -> Effect {
        let mut effect = Effect {
            requests: Vec::new(),
            local: BTreeMap::new(),
            remote: Vec::new(),
            claim: Heads::new(),
            tentative: Heads::new(),
        };
        for _ in 0..self.dice.below(4) {
            let writes = (0..1 + self.dice.below(3)).map(|_| self.write(&mut effect)).collect();
            effect.requests.push(Request::Local(LocalBatch {
                writes,
                create_tables: true,
                sequence: Some(SequenceIds { offset: 1, increment: 2 }),
                drift_bound_ms: u64::MAX,
            }));
        }
        if self.dice.chance(40) {
            let rows: Vec<Row> = (0..self.dice.below(4)).map(|_| self.peers_row()).collect();
            let last = Version {
                hlc: Hlc::from_bits(Hlc::at_ms(NOON_MS).bits() + self.peers_stamp),
                origin: Origin::from_bytes([2; 16]),
            };
            let reached: Heads = [(last.origin, last.hlc)].into_iter().collect();
            let ends = self.dice.chance(50);
            let (claim, tentative) =
                if ends { (Some(reached), None) } else { (None, Some(reached)) };
            effect.remote.clone_from(&rows);
            effect.claim = claim.clone().unwrap_or_default();
            effect.tentative = tentative.clone().unwrap_or_default();
            let sender = Origin::from_bytes([2; 16]);
            effect.requests.push(Request::Remote(RemoteBatch { sender, rows, claim, tentative }));
        }
        if self.dice.chance(30) {
            effect.requests.push(Request::HandOver(self.hand_over()));
        }
        if effect.requests.is_empty() || self.dice.chance(10) {
            effect.requests.push(Request::Advance);
        }
        effect
    }

    /// Every row of it is named by its number, as is its receipt.
    fn hand_over(&mut self) -> HandOver {
        let (store, _) = self.open.as_ref().unwrap();
        let number = store.snapshot().receipt().unwrap().number + 1;
        let row = |key: &'static str| HandedRow {
            table: handed(),
            key: Key::new(key).unwrap(),
            value: Some(number.to_string().into()),
            missed: Vec::new(),
        };
        HandOver {
            number,
            rows: vec![row("a"), row("b")],
            seen: Heads::new(),
            entries: number.to_string().into(),
            drift_bound_ms: u64::MAX,
        }
    }

    fn key(&mut self) -> Key {
        Key::new(format!("k{}", self.dice.below(6))).unwrap()
    }

    fn write(&mut self, effect: &mut Effect) -> LocalWrite {
        self.values += 1;
        // Long enough to spread over many pages now and then.
        let length = self.dice.pick(&[1, 40, 900, 9_000]);
        let value = Bytes::from(format!("{}-{}", self.values, "v".repeat(length)));
        let operation = match self.dice.below(10) {
            0 => Operation::InsertSequence { value, expires_at_ms: None },
            1 | 2 => {
                let key = self.key();
                effect.local.insert(key.clone(), None);
                Operation::Delete { key }
            }
            _ => {
                let key = self.key();
                effect.local.insert(key.clone(), Some(value.clone()));
                Operation::Put { key, value, expires_at_ms: None }
            }
        };
        LocalWrite { table: table(), operation }
    }

    /// A row of another origin, under a key of its own: its stamps say nothing of ours.
    fn peers_row(&mut self) -> Row {
        self.peers_stamp += 1;
        let hlc = Hlc::from_bits(Hlc::at_ms(NOON_MS).bits() + self.peers_stamp);
        let body = Body::new(&BodyParts {
            version: Version { hlc, origin: Origin::from_bytes([2; 16]) },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(self.peers_stamp.to_string().as_bytes()),
        });
        let key = Key::new(format!("p{}", self.dice.below(4))).unwrap();
        Row { table: table(), key, body }
    }

    fn acknowledge(&mut self, effect: &Effect, outcomes: &[Outcome]) {
        for (request, outcome) in effect.requests.iter().zip(outcomes) {
            if let (Request::HandOver(batch), Outcome::HandedOver(done)) = (request, outcome) {
                assert_eq!(done.as_ref().unwrap().written, 2, "seed {}", self.seed);
                self.handed_over = batch.number;
            }
            let (Request::Local(batch), Outcome::Local(written)) = (request, outcome) else {
                continue;
            };
            for (write, Written { key, version, .. }) in
                batch.writes.iter().zip(written.as_ref().unwrap())
            {
                let value = match &write.operation {
                    Operation::Put { value, .. } | Operation::InsertSequence { value, .. } => {
                        Some(value.clone())
                    }
                    Operation::Delete { .. } => None,
                };
                assert!(
                    version.hlc > self.shown.get(version.origin),
                    "seed {}: {version} lies below a head that was shown",
                    self.seed
                );
                let before = self.rows.insert(key.clone(), (*version, value));
                let is_sequence = matches!(write.operation, Operation::InsertSequence { .. });
                assert!(!is_sequence || before.is_none(), "seed {}: id {key:?} twice", self.seed);
            }
        }
        self.merged(effect);
    }

    fn merged(&mut self, effect: &Effect) {
        for row in &effect.remote {
            if !self.shown.includes(row.body.version()) {
                self.rows.insert(row.key.clone(), (row.body.version(), row.body.value()));
            }
        }
        self.shown.join(&effect.claim);
        if !effect.claim.is_empty() {
            self.tentative = Heads::new();
        } else if !effect.tentative.is_empty() {
            self.tentative.clone_from(&effect.tentative);
        }
    }

    /// A group that was not acknowledged is there as a whole, and then counts, or not at all.
    fn adopt(&mut self, effect: &Effect) -> bool {
        let (store, _) = self.open.as_ref().unwrap();
        let snapshot = store.snapshot();
        let mut found = Vec::new();
        for row in snapshot.scan(&table(), &ScanRange::default()).unwrap() {
            let row = row.unwrap();
            if self.rows.get(&row.key).is_none_or(|(known, _)| *known != row.body.version()) {
                found.push(row);
            }
        }
        let heads = store.heads();
        let claimed = !effect.claim.is_empty() && !self.shown.covers(&effect.claim);
        let claim_there = claimed && heads.covers(&effect.claim);
        let tentative = store.tentative(Origin::from_bytes([2; 16])).unwrap();
        if found.is_empty() && !claim_there && tentative == self.tentative {
            return false;
        }
        for (key, value) in &effect.local {
            let row = found.iter().find(|row| row.key == *key);
            let row = row.unwrap_or_else(|| panic!("seed {}: a part of a group", self.seed));
            assert_eq!(&row.body.value(), value, "seed {}", self.seed);
        }
        for row in &effect.remote {
            let standing = snapshot.get(&table(), &row.key).unwrap();
            let there = standing.is_some_and(|body| body.version() >= row.body.version());
            assert!(there, "seed {}: a part of a group", self.seed);
        }
        assert!(!claimed || claim_there, "seed {}: rows without their claim", self.seed);
        for row in found {
            self.rows.insert(row.key.clone(), (row.body.version(), row.body.value()));
        }
        self.merged(effect);
        true
    }

    /// What is there is what was acknowledged, and the index agrees.
    fn check(&self) {
        let (store, _) = self.open.as_ref().unwrap();
        let snapshot = store.snapshot();
        let rows: BTreeMap<_, _> = snapshot
            .scan(&table(), &ScanRange::default())
            .unwrap()
            .map(Result::unwrap)
            .map(|row| (row.key, (row.body.version(), row.body.value())))
            .collect();
        assert!(rows == self.rows, "seed {}: {rows:?} is there, not {:?}", self.seed, self.rows);
        // Rows and receipt are there together, and no acknowledged hand-over is gone.
        let receipt = snapshot.receipt().unwrap();
        assert!(receipt.number >= self.handed_over, "seed {}: a hand-over is gone", self.seed);
        for key in ["a", "b"] {
            let row = snapshot.get(&handed(), &Key::new(key).unwrap()).unwrap();
            let value = row.and_then(|body| body.value()).unwrap_or_default();
            assert_eq!(value, receipt.entries, "seed {}: a part of a hand-over", self.seed);
        }
        let mut changes = 0;
        for row in snapshot.changes(&Heads::new()).unwrap().map(Result::unwrap) {
            let standing = snapshot.get(&row.table, &row.key).unwrap();
            assert_eq!(standing, Some(row.body), "seed {}", self.seed);
            changes += 1;
        }
        assert_eq!(changes, snapshot.rows().unwrap(), "seed {}", self.seed);
        let sender = Origin::from_bytes([2; 16]);
        assert_eq!(store.tentative(sender).unwrap(), self.tentative, "seed {}", self.seed);
    }
}

fn handed() -> TableName {
    TableName::of_client("handed").unwrap()
}

fn table() -> TableName {
    TableName::of_client("t").unwrap()
}
