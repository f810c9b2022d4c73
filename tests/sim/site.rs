//! One site: a store on a disk that may fail, its newest commits in memory, its clock.

use std::collections::{BTreeMap, VecDeque};

use lastword::{
    model::{Heads, Origin, Row, Version},
    protocol::{Known, Standing},
    store::{Applied, Moving, Request, Snapshot, Store, StoreConfig, StoreError, Writer},
};

use super::{Place, place_of};
use crate::{dice::Dice, disk::Disk};

pub(super) struct Site {
    pub(super) number: usize,
    /// Its wall clock less the true time.
    pub(super) skew_ms: i64,
    /// What its wall clock showed when it was set last, or earlier, where that was more.
    passed_ms: u64,
    disk: Disk,
    log: Disk,
    origin: Origin,
    open: Option<Open>,
    backup: Option<Backup>,
    /// How many commits stay in memory.
    pub(super) commits_kept_max: usize,
    /// What it knows of the others; forgotten in a crash.
    pub(super) known: Known,
    /// The link by which it reconciles: it merges nothing else meanwhile.
    pub(super) reconciling: Option<u64>,
    /// An operator removed it.
    pub(super) removed: bool,
}

/// A copy of the store, and its origin then.
struct Backup {
    disk: Disk,
    log: Disk,
    origin: Origin,
}

struct Open {
    store: Store,
    writer: Writer,
    commits: VecDeque<(u64, Vec<Row>)>,
    sequence: u64,
}

impl Site {
    pub(super) fn new(number: usize, commits_kept_max: usize) -> Site {
        let (disk, log) = (Disk::default(), Disk::default());
        // In no order of the sites' numbers: ties go by it.
        let byte = if number < 11 { (number * 7 + 3) % 11 } else { number };
        Site {
            number,
            origin: Origin::from_bytes([u8::try_from(byte).unwrap(); 16]),
            backup: None,
            skew_ms: 0,
            passed_ms: 0,
            disk,
            log,
            open: None,
            commits_kept_max,
            known: Known::default(),
            reconciling: None,
            removed: false,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        self.origin
    }

    pub(super) fn name(&self) -> String {
        format!("site{}", self.number)
    }

    pub(super) fn is_up(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn now_ms(&self, true_ms: u64) -> u64 {
        true_ms.saturating_add_signed(self.skew_ms)
    }

    /// Somebody sets its wall clock.
    pub(super) fn set_clock(&mut self, skew_ms: i64, true_ms: u64) {
        self.passed_ms = self.has_passed_ms(true_ms);
        self.skew_ms = skew_ms;
    }

    /// The most that its wall clock ever showed.
    pub(super) fn has_passed_ms(&self, true_ms: u64) -> u64 {
        self.now_ms(true_ms).max(self.passed_ms)
    }

    fn config(&self) -> StoreConfig {
        // Memory moves into redb every few commits.
        StoreConfig {
            cache_bytes: 1 << 16,
            memory_bytes: 2_000,
            segment_bytes: 2_048,
            move_rows: 3,
            moving: Moving::Inline,
            ..StoreConfig::new(self.origin, 7)
        }
    }

    /// Keeps a copy of the store.
    pub(super) fn back_up(&mut self) {
        let (disk, log) = (self.disk.copy(), self.log.copy());
        self.backup = Some(Backup { disk, log, origin: self.origin });
    }

    pub(super) fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    /// The node stops, and its store is the copy from before.
    pub(super) fn restore(&mut self) {
        let backup = self.backup.take().expect("a copy");
        (self.disk, self.log, self.origin) = (backup.disk, backup.log, backup.origin);
        (self.open, self.known, self.reconciling) = (None, Known::default(), None);
    }

    /// The stopped store gets a new origin.
    pub(super) fn rejoin(&mut self, fresh: Origin) {
        self.open = None;
        self.known = Known::default();
        self.reconciling = None;
        self.removed = false;
        let config = StoreConfig { fresh_origin: fresh, ..self.config() };
        let earlier = Store::rejoin_on(self.disk.clone(), self.log.clone(), &config).unwrap();
        assert_eq!(earlier, self.origin);
        self.origin = fresh;
    }

    pub(super) fn start(&mut self) {
        let config = self.config();
        let opened = Store::open_on(self.disk.clone(), self.log.clone(), &config);
        let (store, writer) = opened.unwrap();
        self.open = Some(Open { store, writer, commits: VecDeque::new(), sequence: 0 });
    }

    /// The power fails; what the disk had not made durable is torn.
    pub(super) fn crash(&mut self, dice: &mut Dice) {
        self.disk = self.disk.cut(dice);
        self.log = self.log.cut(dice);
        self.open = None;
        self.known = Known::default();
        self.reconciling = None;
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    pub(super) fn log(&self) -> &Disk {
        &self.log
    }

    pub(super) fn store(&self) -> &Store {
        &self.open.as_ref().expect("a site that is up").store
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.store().snapshot()
    }

    /// What every member has, as far as this site knows.
    pub(super) fn stable(&self) -> Heads {
        let snapshot = self.snapshot();
        self.known.stable(self.origin(), snapshot.heads(), snapshot.members())
    }

    /// Whether it is a member that takes writes.
    pub(super) fn is_active(&self) -> bool {
        let snapshot = self.snapshot();
        let standing = snapshot.members().standing(self.origin(), snapshot.heads());
        snapshot.joining().is_none() && standing == Standing::Member
    }

    pub(super) fn heads(&self) -> Heads {
        (*self.store().heads()).clone()
    }

    /// By how much its stamps lead its wall clock.
    pub(super) fn ahead_ms(&self, true_ms: u64) -> u64 {
        let writer = &self.open.as_ref().expect("a site that is up").writer;
        writer.ahead_ms(self.now_ms(true_ms))
    }

    /// The newest commit's number: what the bell tells.
    pub(super) fn sequence(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.sequence)
    }

    pub(super) fn apply(
        &mut self,
        true_ms: u64,
        requests: &[Request],
    ) -> Result<Applied, StoreError> {
        let now_ms = self.now_ms(true_ms);
        let open = self.open.as_mut().expect("a site that is up");
        let applied = open.writer.apply(now_ms, requests)?;
        if applied.rows_removed > 0 {
            open.commits.clear();
        }
        if !applied.rows.is_empty() || applied.rows_removed > 0 {
            open.sequence += 1;
            open.commits.push_back((open.sequence, applied.rows.clone()));
            if open.commits.len() > self.commits_kept_max {
                open.commits.pop_front();
            }
        }
        Ok(applied)
    }

    /// The rows of the commits after number `sequence`, in the order of the commits; `None` where
    /// some are gone from memory.
    pub(super) fn rows_after(&self, sequence: u64) -> Option<Vec<Row>> {
        let open = self.open.as_ref()?;
        let missing = usize::try_from(open.sequence.checked_sub(sequence)?).unwrap();
        let from = open.commits.len().checked_sub(missing)?;
        Some(open.commits.range(from..).flat_map(|(_, rows)| rows.iter().cloned()).collect())
    }
}

/// As `node::recent` joins commits: each row as it stands, in the order of the change index.
pub(super) fn as_they_stand(rows: Vec<Row>) -> Vec<Row> {
    let mut newest: BTreeMap<Place, Row> = BTreeMap::new();
    for row in rows {
        newest.insert(place_of(&row), row);
    }
    let mut rows: Vec<Row> = newest.into_values().collect();
    rows.sort_by_key(|row| {
        let Version { hlc, origin } = row.body.version();
        (origin, hlc)
    });
    rows
}
