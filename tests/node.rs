//! One node: its writer and what waits for it, its followers, its end.

#[path = "common/dice.rs"]
mod dice;
#[path = "common/disk.rs"]
mod disk;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dice::Dice;
use disk::Disk;
use lastword::{
    model::{Body, BodyParts, Context, Heads, Hlc, Key, Origin, Row, TableName, Version},
    node::{
        Change, FollowDelta, Follower, Mutation, Node, NodeConfig, ReadError, SystemClock,
        WallClock, WriteError,
    },
    protocol::{Delta, Receiver, Want},
    store::{
        LocalBatch, LocalWrite, MergeReport, Moving, OpenError, Operation, Reconciled, RemoteBatch,
        Request, Store, StoreConfig, Writer,
    },
};
use tokio::task::JoinHandle;

/// Nothing takes so long; who waits in vain fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a node keeps its store and its log; what makes a commit durable is the log's.
#[derive(Default)]
struct Disks {
    store: Disk,
    log: Disk,
}

impl Disks {
    fn open(&self) -> (Store, Writer) {
        let config = StoreConfig {
            cache_bytes: 1 << 20,
            segment_bytes: 64 << 10,
            moving: Moving::Inline,
            ..StoreConfig::new(Origin::from_bytes([5; 16]), 7)
        };
        Store::open_on(self.store.clone(), self.log.clone(), &config).unwrap()
    }

    fn hold_syncs(&self, hold: bool) {
        self.log.hold_syncs(hold);
    }

    fn fail_syncs(&self) {
        self.log.fail_syncs();
    }
}

async fn merge(node: &Node, batch: RemoteBatch) -> Result<MergeReport, WriteError> {
    node.submit(batch).await?.merged().await
}

/// A node on a disk that does what a test asks of it.
async fn node_on(disk: &Disks, change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut config = NodeConfig::new("", "here");
    change(&mut config);
    Node::start(config, disk.open()).await.unwrap()
}

fn table() -> TableName {
    TableName::of_client("t").unwrap()
}

fn put(key: impl Into<Bytes>, value: &str) -> Mutation {
    let key = Key::new(key).unwrap();
    let value = Bytes::copy_from_slice(value.as_bytes());
    Mutation { table: table(), change: Change::Put { key, value, ttl: None } }
}

fn peers_row(by: u8, hlc: Hlc, key: impl Into<Bytes>) -> Row {
    let body = Body::new(&BodyParts {
        version: Version { hlc, origin: Origin::from_bytes([by; 16]) },
        seen: Hlc::ZERO,
        context: &Context::new(),
        expires_at_ms: None,
        value: Some(b"theirs"),
    });
    Row { table: table(), key: Key::new(key).unwrap(), body }
}

fn peers_batch(rows: Vec<Row>, claim: Option<Heads>) -> RemoteBatch {
    RemoteBatch { sender: Origin::from_bytes([8; 16]), rows, claim, tentative: None }
}

fn commits(node: &Node) -> u64 {
    node.status().unwrap().commits
}

/// Lets every task that can go on do so. Of use on one thread only.
async fn let_all_run() {
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
}

type Writing = JoinHandle<Result<lastword::node::Committed, WriteError>>;

fn write_each(node: &Node, keys: impl Iterator<Item = usize>) -> Vec<Writing> {
    keys.map(|key| {
        let node = node.clone();
        tokio::spawn(async move { node.write(vec![put(format!("k{key}"), "v")]).await })
    })
    .collect()
}

// ---- the writer

#[tokio::test]
async fn requests_that_wait_share_a_commit_and_are_answered_after_it() {
    let disk = Disks::default();
    let node = node_on(&disk, |_| {}).await;
    let before = commits(&node);
    disk.hold_syncs(true);
    let first = write_each(&node, 0..1);
    // The writer takes the first at once, and waits for the disk with it.
    let_all_run().await;
    let mut others = write_each(&node, 1..500);
    let_all_run().await;

    // Nothing is acknowledged that is not durable; and nobody who reads waits for it.
    assert!(first.iter().chain(&others).all(|writing| !writing.is_finished()));
    let snapshot = node.snapshot();
    assert!(snapshot.get(&table(), &Key::new("k0").unwrap()).unwrap().is_none());
    assert_eq!(commits(&node), before);

    disk.hold_syncs(false);
    others.extend(first);
    for writing in others {
        let committed = writing.await.unwrap().unwrap();
        assert!(node.heads().covers(&committed.session));
    }
    let shared = commits(&node) - before;
    assert!(shared <= 4, "500 writes took {shared} commits");
    assert_eq!(node.status().unwrap().rows_written, 501, "with the node's own name");
}

/// The same on a real file, where commits take as long as they take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_need_few_commits() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::open(NodeConfig::new(folder.path(), "here")).await.unwrap();
    let before = commits(&node);
    for writing in write_each(&node, 0..2_000) {
        writing.await.unwrap().unwrap();
    }
    let commits = commits(&node) - before;
    assert!(commits < 2_000 / 4, "2,000 writes took {commits} commits");
    node.shutdown().await;
}

#[tokio::test]
async fn a_shutdown_commits_what_waits_and_takes_nothing_more() {
    let disk = Disks::default();
    let node = node_on(&disk, |_| {}).await;
    disk.hold_syncs(true);
    let waiting = write_each(&node, 0..10);
    let_all_run().await;
    let stopping =
        [node.clone(), node.clone()].map(|node| tokio::spawn(async move { node.shutdown().await }));
    let_all_run().await;
    let late = node.write(vec![put("late", "v")]).await;
    assert!(matches!(late, Err(WriteError::ShuttingDown)), "{late:?}");
    disk.hold_syncs(false);
    for writing in waiting {
        writing.await.unwrap().unwrap();
    }
    for stopping in stopping {
        tokio::time::timeout(PATIENCE, stopping).await.unwrap().unwrap();
    }
    tokio::time::timeout(PATIENCE, node.stopped()).await.unwrap();
    assert_eq!(node.failure(), None);
    drop(node);

    let node = node_on(&disk, |_| {}).await;
    let rows = node.snapshot().scan(&table(), &Default::default()).unwrap().count();
    assert_eq!((rows, node.boot()), (10, 2));
}

#[tokio::test]
async fn when_the_disk_fails_all_who_wait_are_told_and_nothing_more_is_taken() {
    let disk = Disks::default();
    let node = node_on(&disk, |_| {}).await;
    let heads = node.heads();
    let mut follower = Follower::new(&node, Heads::new());
    let delta = follower.begin().unwrap().delta().unwrap();
    follower.finish(&delta);
    disk.hold_syncs(true);
    let waiting = write_each(&node, 0..50);
    let_all_run().await;
    disk.fail_syncs();
    disk.hold_syncs(false);
    for writing in waiting {
        let answer = writing.await.unwrap();
        assert!(matches!(answer, Err(WriteError::StoreFailed(_))), "{answer:?}");
    }
    tokio::time::timeout(PATIENCE, node.stopped()).await.unwrap();
    assert!(node.failure().unwrap().contains("the disk does not sync"), "{:?}", node.failure());
    for answer in [
        node.write(vec![put("late", "v")]).await.map(|_| ()),
        merge(&node, peers_batch(vec![], None)).await.map(|_| ()),
        node.advance().await,
    ] {
        assert!(matches!(answer, Err(WriteError::StoreFailed(_))), "{answer:?}");
    }
    // Nothing of it was shown to anybody, and who follows learns that nothing more will come.
    assert_eq!(node.heads(), heads);
    assert!(!tokio::time::timeout(PATIENCE, follower.changed()).await.unwrap());
    tokio::time::timeout(PATIENCE, node.shutdown()).await.unwrap();
}

/// A head above a write whose sync failed would claim it, and nobody would ever ask for it.
#[test]
fn a_store_that_failed_moves_no_head() {
    let disk = Disks::default();
    let (store, mut writer) = disk.open();
    let write =
        LocalWrite { table: table(), operation: Operation::Delete { key: Key::new("k").unwrap() } };
    let batch = LocalBatch {
        writes: vec![write],
        create_tables: true,
        sequence: None,
        drift_bound_ms: 10_000,
    };
    let now_ms = 1_700_000_000_000;
    writer.apply(now_ms, &[Request::Local(batch.clone())]).unwrap();
    let heads = store.heads();
    disk.fail_syncs();
    writer.apply(now_ms + 1, &[Request::Local(batch)]).unwrap_err();
    writer.apply(now_ms + 2, &[Request::Advance]).unwrap_err();
    assert_eq!(store.heads(), heads);
}

/// With threads to spare a caller who is alone commits by itself; what holds of the writer's thread
/// holds of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lone_caller_commits_as_the_writer_does() {
    let disk = Disks::default();
    let node = node_on(&disk, |_| {}).await;
    let first = node.write(vec![put("a", "1")]).await.unwrap();
    let second = node.write(vec![put("a", "2")]).await.unwrap();
    assert!(first.results[0].version < second.results[0].version);
    assert!(node.heads().covers(&second.session));
    // While it waits for the disk another caller goes to the queue, and both are answered.
    disk.hold_syncs(true);
    let waiting = write_each(&node, 0..2);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(waiting.iter().all(|writing| !writing.is_finished()));
    disk.hold_syncs(false);
    for writing in waiting {
        writing.await.unwrap().unwrap();
    }
    disk.fail_syncs();
    let answer = node.write(vec![put("a", "3")]).await;
    assert!(matches!(answer, Err(WriteError::StoreFailed(_))), "{answer:?}");
    tokio::time::timeout(PATIENCE, node.stopped()).await.unwrap();
    let answer = node.write(vec![put("a", "4")]).await;
    assert!(matches!(answer, Err(WriteError::StoreFailed(_))), "{answer:?}");
    assert_eq!(
        node.snapshot().get(&table(), &Key::new("a").unwrap()).unwrap().unwrap().value().unwrap(),
        "2"
    );
    tokio::time::timeout(PATIENCE, node.shutdown()).await.unwrap();
}

#[tokio::test]
async fn a_node_whose_first_write_fails_does_not_open() {
    let disk = Disks::default();
    let opened = disk.open();
    disk.fail_syncs();
    let refused = Node::start(NodeConfig::new("", "here"), opened).await.unwrap_err();
    assert!(matches!(refused, OpenError::FirstWrite(_)), "{refused}");
}

/// Panics on the writer's thread when told to.
#[derive(Debug, Default)]
struct BrokenClock(AtomicBool);

impl WallClock for BrokenClock {
    fn now_ms(&self) -> u64 {
        let is_writer = std::thread::current().name() == Some("lastword-writer");
        assert!(!is_writer || !self.0.load(Ordering::Relaxed), "a bug, for the test");
        SystemClock.now_ms()
    }
}

#[tokio::test]
async fn a_panic_of_the_writer_stops_the_node() {
    let clock = Arc::new(BrokenClock::default());
    let node = node_on(&Disks::default(), |config| config.clock = clock.clone()).await;
    clock.0.store(true, Ordering::Relaxed);
    let answer = node.write(vec![put("k", "v")]).await;
    assert!(matches!(answer, Err(WriteError::StoreFailed(_))), "{answer:?}");
    tokio::time::timeout(PATIENCE, node.stopped()).await.unwrap();
    assert!(node.failure().unwrap().contains("panicked"), "{:?}", node.failure());
    tokio::time::timeout(PATIENCE, node.shutdown()).await.unwrap();
}

// ---- reads, heads, members

#[tokio::test]
async fn a_read_waits_for_its_session_and_gives_up_in_time() {
    let node = node_on(&Disks::default(), |_| {}).await;
    let there = Hlc::at_ms(node.now_ms());
    let session: Heads = [(Origin::from_bytes([8; 16]), there)].into_iter().collect();
    let waiting = {
        let (node, session) = (node.clone(), session.clone());
        tokio::spawn(async move { node.snapshot_at(&session, PATIENCE).await })
    };
    let_all_run().await;
    assert!(!waiting.is_finished());
    let in_vain = node.snapshot_at(&session, Duration::from_millis(20)).await;
    match in_vain {
        Err(ReadError::NotThereYet { waited_ms: 20, behind_ms }) => {
            assert_eq!(behind_ms, there.ms(), "of this origin nothing is here");
        }
        other => panic!("{other:?}"),
    }
    let row = peers_row(8, there, "k");
    merge(&node, peers_batch(vec![row], Some(session.clone()))).await.unwrap();
    let snapshot = waiting.await.unwrap().unwrap();
    assert!(snapshot.heads().covers(&session));
    assert!(snapshot.get(&table(), &Key::new("k").unwrap()).unwrap().is_some());
    // One that is there need not wait at all.
    node.snapshot_at(&session, Duration::ZERO).await.unwrap();
}

/// Heads and rows are read one after the other, while commits go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_holds_what_its_heads_claim() {
    let node = node_on(&Disks::default(), |_| {}).await;
    let mut writing = Vec::new();
    for writer in 0..4 {
        let node = node.clone();
        writing.push(tokio::spawn(async move {
            let mut written = Vec::new();
            for count in 0..400 {
                let key = format!("k{}", (writer + count) % 5);
                let results = node.write(vec![put(key, "v")]).await.unwrap().results;
                written.push((results[0].key.clone(), results[0].version));
            }
            written
        }));
    }
    let mut seen = Vec::new();
    while writing.iter().any(|writing| !writing.is_finished()) {
        let snapshot = node.snapshot();
        let rows = snapshot.scan(&table(), &Default::default()).unwrap().map(Result::unwrap);
        let rows: BTreeMap<Key, Version> = rows.map(|row| (row.key, row.body.version())).collect();
        seen.push((snapshot.heads().clone(), rows));
        tokio::task::yield_now().await;
    }
    assert!(seen.len() > 20);
    for writing in writing {
        for (key, version) in writing.await.unwrap() {
            for (heads, rows) in &seen {
                let there = rows.get(&key).is_some_and(|have| *have >= version);
                assert!(there || !heads.includes(version), "{version} of {key:?} in {rows:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_node_makes_its_name_known_once() {
    let disk = Disks::default();
    let node = node_on(&disk, |_| {}).await;
    let origin = node.origin();
    assert_eq!(node.site_of(origin).as_deref(), Some("here"));
    assert_eq!(commits(&node), 1);
    node.shutdown().await;
    drop(node);
    let node = node_on(&disk, |_| {}).await;
    assert_eq!((node.site_of(origin).as_deref(), commits(&node)), (Some("here"), 0));
    let row = Row {
        table: TableName::of_any("_members").unwrap(),
        key: Key::new(vec![8; 16]).unwrap(),
        ..named_row(8, br#"{"site":"there","added_later":1}"#)
    };
    let peer = Origin::from_bytes([8; 16]);
    assert_eq!(node.site_of(peer), None);
    merge(&node, peers_batch(vec![row], None)).await.unwrap();
    assert_eq!(node.site_of(peer).as_deref(), Some("there"));
    // What is no member list entry is none, and harms nobody.
    let odd = Row {
        table: TableName::of_any("_members").unwrap(),
        key: Key::new(vec![9; 3]).unwrap(),
        ..named_row(9, b"no JSON")
    };
    merge(&node, peers_batch(vec![odd], None)).await.unwrap();
}

fn named_row(by: u8, value: &[u8]) -> Row {
    let row = peers_row(by, Hlc::at_ms(1_000), "k");
    let body = Body::new(&BodyParts {
        version: row.body.version(),
        seen: Hlc::ZERO,
        context: &Context::new(),
        expires_at_ms: None,
        value: Some(value),
    });
    Row { body, ..row }
}

#[tokio::test]
async fn the_bell_rings_only_when_there_is_news() {
    let node = node_on(&Disks::default(), |_| {}).await;
    let bell = node.bell();
    assert!(!bell.has_changed().unwrap());
    // A peer's delta that brings nothing new.
    merge(&node, peers_batch(vec![], None)).await.unwrap();
    assert!(!bell.has_changed().unwrap());
    let claim: Heads = [(Origin::from_bytes([8; 16]), Hlc::at_ms(5))].into_iter().collect();
    merge(&node, peers_batch(vec![], Some(claim.clone()))).await.unwrap();
    assert!(bell.has_changed().unwrap());
    let bell = node.bell();
    merge(&node, peers_batch(vec![], Some(claim))).await.unwrap();
    assert!(!bell.has_changed().unwrap());
}

// ---- followers

fn rows_of(delta: &mut FollowDelta) -> Vec<Row> {
    let mut rows = Vec::new();
    loop {
        let page = delta.page(3, 200).unwrap();
        assert!(page.rows.len() <= 3 && (page.last || !page.rows.is_empty()));
        let last = page.last;
        rows.extend(page.rows.into_vec());
        if last {
            return rows;
        }
    }
}

fn keys(rows: &[Row]) -> Vec<String> {
    let in_table = rows.iter().filter(|row| row.table == table());
    in_table.map(|row| format!("{:?}", row.key)).collect()
}

#[tokio::test]
async fn a_follower_that_keeps_up_gets_each_commit_once_and_from_memory() {
    let node = node_on(&Disks::default(), |_| {}).await;
    node.write(vec![put("before", "v")]).await.unwrap();
    let mut follower = Follower::new(&node, Heads::new());
    assert!(follower.changed().await);
    let mut delta = follower.begin().unwrap().delta().unwrap();
    assert!(delta.is_scan());
    assert_eq!(keys(&rows_of(&mut delta)), ["before"]);
    follower.finish(&delta);

    for key in ["a", "b", "a"] {
        node.write(vec![put(key, "v")]).await.unwrap();
    }
    assert!(follower.changed().await);
    let mut delta = follower.begin().unwrap().delta().unwrap();
    assert!(!delta.is_scan());
    // As it stands: the older version of "a" is not of this moment.
    assert_eq!(keys(&rows_of(&mut delta)), ["b", "a"]);
    assert_eq!(*delta.heads(), node.heads());
    follower.finish(&delta);

    let mut delta = follower.begin().unwrap().delta().unwrap();
    assert!(!delta.is_scan() && rows_of(&mut delta).is_empty());
    follower.finish(&delta);
    assert!(!node.bell().has_changed().unwrap());

    // What its peer says it has is left out.
    let written = node.write(vec![put("known", "v")]).await.unwrap();
    node.write(vec![put("new", "v")]).await.unwrap();
    follower.known(&written.session);
    let mut delta = follower.begin().unwrap().delta().unwrap();
    assert_eq!(keys(&rows_of(&mut delta)), ["new"]);
}

#[tokio::test]
async fn who_stands_below_the_floor_gets_nothing_until_it_has_taken_away_what_died() {
    let node = node_on(&Disks::default(), |_| {}).await;
    node.write(vec![put("k", "v")]).await.unwrap();
    let peer = Origin::from_bytes([9; 16]);
    let up_to = |hlc| Heads::from_iter([(peer, Hlc::from_bits(hlc))]);
    let raise_floor = |hlc| {
        let [dead, doubtful, renew] = [const { Vec::new() }; 3];
        let (claim, floor) = (up_to(hlc), up_to(hlc));
        node.reconcile(Reconciled { sender: peer, dead, doubtful, renew, claim, floor })
    };
    raise_floor(50).await.unwrap();
    let mut follower = Follower::new(&node, Heads::new());
    assert!(follower.begin().unwrap().delta().is_none());
    follower.taken_away(up_to(50));
    assert!(follower.changed().await);
    // More died before it was passed on: what was taken away does not make up for that.
    raise_floor(51).await.unwrap();
    assert!(follower.begin().unwrap().delta().is_none());
    follower.taken_away(up_to(51));
    let mut delta = follower.begin().unwrap().delta().unwrap();
    // All above where it stood, no less.
    assert_eq!(keys(&rows_of(&mut delta)), ["k"]);
    follower.finish(&delta);
    raise_floor(52).await.unwrap();
    assert!(follower.begin().unwrap().delta().is_none());
}

#[tokio::test]
async fn a_follower_that_falls_behind_reads_the_change_index() {
    let node = node_on(&Disks::default(), |config| config.recent_bytes_max = 500).await;
    let mut follower = Follower::new(&node, Heads::new());
    let delta = follower.begin().unwrap().delta().unwrap();
    follower.finish(&delta);
    for key in 0..10 {
        node.write(vec![put(format!("k{key}"), "v")]).await.unwrap();
    }
    let mut delta = follower.begin().unwrap().delta().unwrap();
    assert!(delta.is_scan());
    let page = delta.page(4, 1 << 20).unwrap();
    assert_eq!((page.rows.len(), page.last), (4, false));
    assert!(page.remaining_rows >= 6 && page.remaining_bytes >= 6 * 30, "{page:?}");

    // Left off, it goes on behind what was passed.
    let passed = follower.leave_off(&delta);
    assert!(page.rows.iter().all(|row| passed.includes(row.body.version())));
    assert!(follower.changed().await);
    let mut delta = follower.begin().unwrap().delta().unwrap();
    assert_eq!(keys(&rows_of(&mut delta)), ["k4", "k5", "k6", "k7", "k8", "k9"]);
    follower.finish(&delta);

    // Sent back, it begins there.
    follower.on_want(Want { number: follower.want_number(), ..Want::default() });
    let mut delta = follower.begin().unwrap().delta().unwrap();
    assert_eq!(keys(&rows_of(&mut delta)).len(), 10);
}

/// A peer's rows come in parts of their own; a part of them may be committed between two of ours.
#[tokio::test]
async fn deltas_from_memory_go_origin_by_origin() {
    let node = node_on(&Disks::default(), |_| {}).await;
    let mut follower = Follower::new(&node, Heads::new());
    let delta = follower.begin().unwrap().delta().unwrap();
    follower.finish(&delta);
    let now = Hlc::at_ms(node.now_ms());
    let peers = |by: u8, count: u64, key: &'static str| {
        peers_batch(vec![peers_row(by, Hlc::from_bits(now.bits() - count), key)], None)
    };
    merge(&node, peers(9, 1, "p")).await.unwrap();
    node.write(vec![put("first", "v")]).await.unwrap();
    merge(&node, peers(9, 2, "q")).await.unwrap();
    merge(&node, peers(2, 3, "r")).await.unwrap();
    node.write(vec![put("second", "v")]).await.unwrap();
    let mut delta = follower.begin().unwrap().delta().unwrap();
    assert!(!delta.is_scan());
    assert_eq!(keys(&rows_of(&mut delta)), ["r", "first", "second", "q", "p"]);
}

/// What a peer has got: rows by place, and what it may claim.
#[derive(Default)]
struct Peer {
    rows: BTreeMap<(TableName, Key), Version>,
    claimed: Heads,
    tentative: Heads,
}

impl Peer {
    /// Everything that is claimed is there, judged by what the node holds now or later.
    fn check(&self, node: &Node) {
        let snapshot = node.snapshot();
        for row in snapshot.changes(&Heads::new()).unwrap().map(Result::unwrap) {
            let version = row.body.version();
            if self.claimed.includes(version) {
                let have = self.rows.get(&(row.table.clone(), row.key.clone()));
                assert_eq!(have, Some(&version), "{row:?} is claimed by {}", self.claimed);
            }
        }
    }
}

/// One follower after another, each cut off anywhere, while many write: nothing is missed. Gives how
/// many deltas came from memory.
async fn follow_while_many_write(recent_bytes_max: usize, seed: u64) -> u32 {
    let disk = Disks::default();
    let node = node_on(&disk, |config| config.recent_bytes_max = recent_bytes_max).await;
    let mut dice = Dice::new(seed);
    let writers: Vec<JoinHandle<()>> = (0..4u8)
        .map(|writer| {
            let node = node.clone();
            let mut dice = Dice::new(seed * 10 + u64::from(writer));
            tokio::spawn(async move {
                let now = Hlc::at_ms(node.now_ms()).bits();
                for count in 0..60 {
                    let key = format!("k{}", dice.below(12));
                    if writer % 2 == 0 {
                        node.write(vec![put(key, "v")]).await.unwrap();
                    } else {
                        // A peer with a lower origin than the node, and one with a higher.
                        let row = peers_row(writer * 3, Hlc::from_bits(now + count), key);
                        let claim = dice.chance(30).then(|| {
                            let version = row.body.version();
                            [(version.origin, version.hlc)].into_iter().collect()
                        });
                        merge(&node, peers_batch(vec![row], claim)).await.unwrap();
                    }
                }
            })
        })
        .collect();

    let mut peer = Peer::default();
    let mut from_memory = 0;
    let mut rest = false;
    while !rest {
        // When the writers are done, one stream to the end.
        rest = writers.iter().all(JoinHandle::is_finished);
        let mut want = peer.claimed.clone();
        want.join(&peer.tentative);
        let mut follower = Follower::new(&node, want.clone());
        let mut receiver = Receiver::new(Origin::from_bytes([1; 16]), want, 60_000);
        for _ in 0..if rest { 1 } else { 1 + dice.below(6) } {
            let mut delta = follower.begin().unwrap().delta().unwrap();
            from_memory += u32::from(!delta.is_scan());
            let mut snapshot_heads = Some((**delta.heads()).clone());
            let mut cut = false;
            loop {
                tokio::task::yield_now().await;
                let page = delta.page(1 + dice.below(3), usize::MAX).unwrap();
                let part = Delta {
                    snapshot_heads: snapshot_heads.take(),
                    last: page.last,
                    rows: page.rows.into_vec(),
                    ..Delta::default()
                };
                let got = receiver.on_delta(part, Hlc::ZERO, node.now_ms()).unwrap();
                assert_eq!(got.held_rows, 0);
                for row in got.rows {
                    let version = row.body.version();
                    if !peer.claimed.includes(version) {
                        let have = peer.rows.entry((row.table, row.key)).or_default();
                        *have = version.max(*have);
                    }
                }
                if let Some(tentative) = got.tentative {
                    peer.tentative = tentative;
                }
                if let Some(claim) = got.claim {
                    peer.claimed.join(&claim);
                    peer.tentative = Heads::new();
                    peer.check(&node);
                }
                if page.last {
                    follower.finish(&delta);
                    break;
                }
                if !rest && dice.chance(5) {
                    cut = true;
                    break;
                }
                if !rest && dice.chance(5) {
                    follower.leave_off(&delta);
                    break;
                }
            }
            if cut {
                break;
            }
        }
    }
    peer.check(&node);
    assert!(peer.claimed.covers(&node.heads()));
    let rows = node.snapshot().rows().unwrap();
    assert_eq!(peer.rows.len() as u64, rows);
    from_memory
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_is_missed_while_many_write() {
    for recent_bytes_max in [600, 1 << 20] {
        let mut from_memory = 0;
        for seed in 0..15 {
            from_memory += follow_while_many_write(recent_bytes_max, seed).await;
        }
        // Writers may be through before a follower has begun its second delta; not always.
        assert!(recent_bytes_max < 1_000 || from_memory > 0);
    }
}
