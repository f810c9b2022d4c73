//! Links between real nodes over real sockets, in one process: rows both ways, cuts, refusals.

mod common;
#[path = "replication/compression.rs"]
mod compression;
#[path = "replication/mesh.rs"]
mod mesh;
#[path = "replication/raw_peer.rs"]
mod raw_peer;
#[path = "replication/slow_peer.rs"]
mod slow_peer;

use std::{
    net::SocketAddr,
    sync::{Arc, Condvar, Mutex, atomic::AtomicU64},
    time::Duration,
};

use common::proxy::Proxy;
use lastword::{
    model::{Body, Key, Origin, TableName},
    node::{Change, Direction, IdKind, Mutation, Node, NodeConfig, PeerReport, WallClock},
    protocol::{Compression, SequenceIds},
    replication::{Config, PeerConfig, Replication},
    store::{ScanRange, Store, StoreConfig},
    wire::windows,
};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

/// A node with its links, on a port of its own.
struct Site {
    node: Node,
    address: SocketAddr,
    shutdown: CancellationToken,
    server: JoinHandle<()>,
    replication: Arc<Replication>,
    data: Arc<tempfile::TempDir>,
}

#[derive(Default)]
struct Setting {
    cluster: Option<String>,
    sequence: Option<SequenceIds>,
    clock: Option<Arc<dyn WallClock>>,
    data: Option<Arc<tempfile::TempDir>>,
    recent_bytes_max: Option<usize>,
    /// For the peers that it dials.
    compression: Compression,
    /// For those that only dial it.
    compression_accepted: Compression,
    heartbeat: Option<Duration>,
    silence_max: Option<Duration>,
    delta_age_max: Option<Duration>,
    /// Of the store: with so much the newest changes are moved into redb.
    memory_bytes: Option<usize>,
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

async fn site(name: &str, listener: TcpListener, peers: &[SocketAddr], setting: Setting) -> Site {
    let data = setting.data.unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
    let mut config = NodeConfig::new(data.path(), name);
    config.cluster = setting.cluster.unwrap_or(config.cluster);
    config.sequence = setting.sequence;
    config.clock = setting.clock.unwrap_or(config.clock);
    config.recent_bytes_max = setting.recent_bytes_max.unwrap_or(config.recent_bytes_max);
    let node = match setting.memory_bytes {
        None => Node::open(config).await.unwrap(),
        Some(memory_bytes) => {
            let origin = Origin::from_bytes(rand::random());
            let small = StoreConfig { memory_bytes, ..StoreConfig::new(origin, rand::random()) };
            let store = Store::open(data.path(), &small).unwrap();
            Node::start(config, store).await.unwrap()
        }
    };
    let shutdown = CancellationToken::new();
    let links = Config {
        peers: peers.iter().map(|peer| peer_config(*peer, setting.compression)).collect(),
        compression: setting.compression_accepted,
        heartbeat: setting.heartbeat.unwrap_or(Duration::from_millis(100)),
        silence_max: setting.silence_max.unwrap_or(Duration::from_secs(1)),
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
        delta_age_max: setting.delta_age_max.unwrap_or(Config::default().delta_age_max),
        ..Config::default()
    };
    let replication = Arc::new(Replication::start(node.clone(), links, shutdown.clone()));
    let address = listener.local_addr().unwrap();
    let service = replication.service();
    let stop = shutdown.clone();
    let server = tokio::spawn(async move {
        windows::of_server(tonic::transport::Server::builder())
            .add_service(service)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.cancelled())
            .await
            .unwrap();
    });
    Site { node, address, shutdown, server, replication, data }
}

fn peer_config(address: SocketAddr, compression: Compression) -> PeerConfig {
    PeerConfig { address: format!("http://{address}"), compression }
}

impl Site {
    async fn put(&self, key: &str, value: &str) {
        self.node.write(vec![put(key, value)]).await.unwrap();
    }

    fn get(&self, key: &str) -> Option<String> {
        let row = self.node.snapshot().get(&table(), &Key::new(key.to_owned()).unwrap());
        let value = row.unwrap()?.value()?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }

    /// Every row, byte for byte.
    fn rows(&self) -> Vec<(Key, Body)> {
        let snapshot = self.node.snapshot();
        let rows = snapshot.scan(&table(), &ScanRange::default()).unwrap();
        rows.map(|row| row.unwrap()).map(|row| (row.key, row.body)).collect()
    }

    fn peers(&self) -> Vec<PeerReport> {
        self.node.reports().peers()
    }

    fn links(&self) -> usize {
        self.peers().iter().filter(|peer| peer.direction.is_some()).count()
    }

    async fn stop(self) -> Arc<tempfile::TempDir> {
        self.shutdown.cancel();
        self.replication.ended().await;
        self.server.await.unwrap();
        self.node.shutdown().await;
        self.data
    }
}

fn table() -> TableName {
    TableName::of_client("t").unwrap()
}

fn put(key: &str, value: &str) -> Mutation {
    Mutation {
        table: table(),
        change: Change::Put {
            key: Key::new(key.to_owned()).unwrap(),
            value: value.to_owned().into(),
            ttl: None,
        },
    }
}

/// Waits for a condition; fails with `what` when the time is up.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn pair() -> (Site, Site) {
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let a = site("fra", la, &[b_at], Setting::default()).await;
    let b = site("nyc", lb, &[a.address], Setting::default()).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_that_dials_each_other_ends_with_one_link_and_equal_rows() {
    let (a, b) = pair().await;
    a.put("a", "1").await;
    b.put("b", "2").await;
    until("rows on both sides", || a.get("b").is_some() && b.get("a").is_some()).await;
    until("one link at each side", || a.links() == 1 && b.links() == 1).await;
    until("one report for each peer", || a.peers().len() == 1 && b.peers().len() == 1).await;
    // The rule holds: both keep the link that the smaller origin dialled.
    let smaller = |own: &Site, other: &Site| match own.node.origin() < other.node.origin() {
        true => Some(Direction::Dialled),
        false => Some(Direction::Accepted),
    };
    until("the same link at both sides", || {
        a.peers()[0].direction == smaller(&a, &b) && b.peers()[0].direction == smaller(&b, &a)
    })
    .await;
    assert_eq!(a.rows(), b.rows());
    let (a_name, b_name) = (a.node.site_of(b.node.origin()), b.node.site_of(a.node.origin()));
    assert_eq!((a_name.as_deref(), b_name.as_deref()), (Some("nyc"), Some("fra")));
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_written_at_both_sites_has_one_winner_and_a_recorded_loser() {
    let (la, lb) = (listener().await, listener().await);
    let line = Proxy::start(lb.local_addr().unwrap());
    let a = site("fra", la, &[line.address()], Setting::default()).await;
    let b = site("nyc", lb, &[], Setting::default()).await;
    a.put("k", "before").await;
    until("the first row", || b.get("k").is_some()).await;
    line.cut();
    until("the cut to be noticed", || a.links() == 0 && b.links() == 0).await;
    a.put("k", "of a").await;
    // In the same millisecond the counters would decide, or the origins.
    let stamp_ms = a.node.heads().get(a.node.origin()).ms();
    until("the next millisecond", || b.node.now_ms() > stamp_ms).await;
    b.put("k", "of b").await;
    line.heal();
    until("equal rows", || a.rows() == b.rows() && a.get("k").as_deref() == Some("of b")).await;
    let mut losers = Vec::new();
    for site in [&a, &b] {
        for (_, row) in site.node.snapshot().conflicts().unwrap() {
            losers.push(row.body.value().unwrap());
        }
    }
    assert!(!losers.is_empty() && losers.iter().all(|value| value == "of a"), "{losers:?}");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_travel_through_a_chain_and_are_not_sent_back() {
    let (la, lb, lc) = (listener().await, listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let a = site("a", la, &[b_at], Setting::default()).await;
    let b = site("b", lb, &[], Setting::default()).await;
    let c = site("c", lc, &[b_at], Setting::default()).await;
    until("both links", || b.links() == 2 && a.links() == 1 && c.links() == 1).await;
    for n in 0..200 {
        a.put(&format!("a{n}"), "x").await;
        c.put(&format!("c{n}"), "y").await;
    }
    until("all rows everywhere", || [&a, &b, &c].iter().all(|site| site.rows().len() == 400)).await;
    assert_eq!(a.rows(), b.rows());
    assert_eq!(b.rows(), c.rows());
    // 200 rows of the other end and the member rows; nothing of its own comes back.
    let member_rows = 3;
    for (site, name) in [(&a, "a"), (&c, "c")] {
        let received = site.peers()[0].rows_received;
        assert!(received <= 200 + member_rows, "{name} received {received} rows");
    }
    for site in [a, b, c] {
        site.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_catch_up_goes_on_where_it_broke_off() {
    const ROWS: usize = 20_000;
    let (la, lb) = (listener().await, listener().await);
    let line = Proxy::start(la.local_addr().unwrap());
    let a = site("fra", la, &[], Setting::default()).await;
    for chunk in 0..ROWS / 1_000 {
        let rows = (0..1_000).map(|n| put(&format!("{:06}", chunk * 1_000 + n), &"v".repeat(100)));
        a.node.write(rows.collect()).await.unwrap();
    }
    line.cut();
    let b = site("nyc", lb, &[line.address()], Setting::default()).await;
    let received = |site: &Site| site.peers().iter().map(|peer| peer.rows_received).sum::<u64>();
    let mut cuts = 0;
    while b.rows().len() < ROWS {
        let before = received(&b);
        line.heal();
        until("some rows", || received(&b) > before || b.rows().len() == ROWS).await;
        if cuts < 4 {
            line.cut();
            until("the cut to be noticed", || b.links() == 0).await;
            cuts += 1;
        } else {
            until("the rest", || b.rows().len() == ROWS).await;
        }
    }
    assert_eq!(a.rows(), b.rows());
    assert!(cuts > 0);
    // Each cut costs the frames under way at most, not what was merged before.
    let in_flight = 8 * 2_500;
    let total = received(&b) as usize;
    assert!(total <= ROWS + cuts * in_flight / 4, "{total} rows received with {cuts} cuts");
    let claimed = b.node.clone();
    let a_origin = a.node.origin();
    until("the claim", || claimed.heads().get(a_origin) > lastword::model::Hlc::ZERO).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let (la, lb) = (listener().await, listener().await);
    let line = Proxy::start(lb.local_addr().unwrap());
    let a = site("fra", la, &[line.address()], Setting::default()).await;
    let b = site("nyc", lb, &[], Setting::default()).await;
    a.put("k", "1").await;
    until("the first row", || b.get("k").is_some()).await;
    line.freeze();
    a.put("k", "2").await;
    until("silence to be noticed on both sides", || a.links() == 0 && b.links() == 0).await;
    assert!(a.peers()[0].last_error.is_some());
    line.heal();
    until("the row", || b.get("k").as_deref() == Some("2")).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_gets_what_it_missed_and_no_more() {
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let a = site("fra", la, &[b_at], Setting::default()).await;
    let b = site("nyc", lb, &[], Setting::default()).await;
    for n in 0..500 {
        a.put(&format!("old{n}"), "x").await;
    }
    until("the first rows", || b.rows().len() == 500).await;
    let data = b.stop().await;
    for n in 0..20 {
        a.put(&format!("new{n}"), "x").await;
    }
    let lb = TcpListener::bind(b_at).await.unwrap();
    let setting = Setting { data: Some(data), ..Setting::default() };
    let b = site("nyc", lb, &[], setting).await;
    until("the missed rows", || b.rows().len() == 520).await;
    let received = b.peers()[0].rows_received;
    assert!((20..=60).contains(&received), "{received} rows for 20 missed ones");
    assert_eq!(a.rows(), b.rows());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_that_fall_out_of_memory_read_the_index() {
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let setting = Setting { recent_bytes_max: Some(0), ..Setting::default() };
    let a = site("fra", la, &[b_at], setting).await;
    let b = site("nyc", lb, &[], Setting::default()).await;
    for n in 0..300 {
        a.put(&format!("{n}"), "x").await;
    }
    until("all rows", || b.rows().len() == 300).await;
    assert_eq!(a.rows(), b.rows());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_both_sides_say_why() {
    let (la, lb, lc) = (listener().await, listener().await, listener().await);
    let a_at = la.local_addr().unwrap();
    let ids = |offset| Some(SequenceIds { offset, increment: 2 });
    let setting = Setting { sequence: ids(1), ..Setting::default() };
    let a = site("fra", la, &[a_at], setting).await;
    let setting = Setting { cluster: Some("blog".into()), ..Setting::default() };
    let b = site("nyc", lb, &[a_at], setting).await;
    let setting = Setting { sequence: ids(1), ..Setting::default() };
    let c = site("sin", lc, &[a_at], setting).await;
    let error = |site: &Site| {
        let error = site.peers().first().and_then(|peer| peer.last_error.clone());
        error.map(|error| error.message).unwrap_or_default()
    };
    until("itself", || error(&a).contains("leads back to this node")).await;
    until("another cluster", || error(&b).contains("cluster")).await;
    until("the same offset", || error(&c).contains("sequence offset 1")).await;
    a.put("k", "v").await;
    assert_eq!((b.rows().len(), c.rows().len()), (0, 0));
    for site in [a, b, c] {
        site.stop().await;
    }
}

/// A clock that runs fast.
#[derive(Debug)]
struct Ahead(AtomicU64);

impl WallClock for Ahead {
    fn now_ms(&self) -> u64 {
        let ahead_ms = self.0.load(std::sync::atomic::Ordering::Relaxed);
        lastword::node::SystemClock.now_ms() + ahead_ms
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_with_a_fast_clock_is_held_back_and_catches_up_later() {
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let fast = Arc::new(Ahead(0.into()));
    let setting = Setting { clock: Some(fast.clone()), ..Setting::default() };
    let a = site("fra", la, &[b_at], setting).await;
    let b = site("nyc", lb, &[], Setting::default()).await;
    a.put("before", "x").await;
    until("the two to meet", || b.get("before").is_some()).await;
    fast.0.store(12_000, std::sync::atomic::Ordering::Relaxed);
    a.put("early", "x").await;
    until("rows to be held back", || b.peers().iter().any(|peer| peer.held_rows > 0)).await;
    assert_eq!(b.get("early"), None);
    // Its own clock and its other rows are not moved.
    b.put("mine", "y").await;
    assert!(b.node.heads().get(b.node.origin()).ms() < b.node.now_ms() + 5_000);
    until("the other way", || a.get("mine").is_some()).await;
    // Two seconds later the stamp lies within the bound.
    until("the row", || b.get("early").is_some()).await;
    assert_eq!(b.peers()[0].held_rows, 0);
    a.stop().await;
    b.stop().await;
}

/// Two that never met do not begin with stamps that are out of bounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_with_a_fast_clock_is_met_once_time_allows() {
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let fast = Arc::new(Ahead(12_000.into()));
    let setting = Setting { clock: Some(fast.clone()), ..Setting::default() };
    let a = site("fra", la, &[b_at], setting).await;
    let b = site("nyc", lb, &[], Setting::default()).await;
    let told = || a.peers()[0].last_error.as_ref().map(|error| error.message.clone());
    until("the reason", || told().is_some_and(|message| message.contains("clocks"))).await;
    let offset_ms = a.peers()[0].clock_offset_ms.unwrap();
    assert!((-13_000..-11_000).contains(&offset_ms), "{offset_ms}");
    a.put("k", "x").await;
    until("the row", || b.get("k").is_some()).await;
    a.stop().await;
    b.stop().await;
}

/// What a peer's clock is ahead by is measured anew while the link lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_steps_under_a_link_shows() {
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let steps = Arc::new(Ahead(0.into()));
    let setting = Setting { clock: Some(steps.clone()), ..Setting::default() };
    let a = site("fra", la, &[b_at], setting).await;
    let b = site("nyc", lb, &[], Setting::default()).await;
    until("the link", || a.links() == 1 && b.links() == 1).await;
    let offset_ms = || b.peers()[0].clock_offset_ms.unwrap_or(i64::MAX);
    assert!(offset_ms().abs() < 1_000, "{}", offset_ms());
    steps.0.store(5_000, std::sync::atomic::Ordering::Relaxed);
    until("the step", || (4_000..6_000).contains(&offset_ms())).await;
    assert_eq!(b.peers()[0].connects, 1, "the link lasted");
    a.stop().await;
    b.stop().await;
}

/// A clock that keeps the writer waiting while it is held, as a disk does that cannot keep up.
#[derive(Debug, Default)]
struct Held(Mutex<bool>, Condvar);

impl Held {
    fn hold(&self, held: bool) {
        *self.0.lock().unwrap() = held;
        self.1.notify_all();
    }
}

impl WallClock for Held {
    fn now_ms(&self) -> u64 {
        if std::thread::current().name() == Some("lastword-writer") {
            let _free = self.1.wait_while(self.0.lock().unwrap(), |held| *held).unwrap();
        }
        lastword::node::SystemClock.now_ms()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_stays_up_while_small_deltas_wait_for_a_writer_that_is_held_up() {
    const ROWS: u64 = 6_000;
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let patient = || Setting { silence_max: Some(4 * LIMIT), ..Setting::default() };
    let clock = Arc::new(Held::default());
    let a = site("fra", la, &[b_at], patient()).await;
    let b = site("nyc", lb, &[], Setting { clock: Some(clock.clone()), ..patient() }).await;
    a.put("first", "x").await;
    until("the first row", || b.get("first").is_some()).await;
    let before = a.peers()[0].rows_sent;
    clock.hold(true);
    // A delta each: with every core taken that is some time.
    let sent = timeout(3 * LIMIT, async {
        for n in 0..ROWS {
            a.put(&format!("{n:04}"), "").await;
            // Each in a delta of its own.
            while a.peers()[0].rows_sent <= before + n {
                let error = &a.peers()[0].last_error;
                assert!(error.is_none(), "the link broke at row {n}: {error:?}");
                tokio::task::yield_now().await;
            }
        }
    });
    sent.await.expect("all fit into what comes in unread");
    assert!(b.rows().len() < 500, "the writer is held up");
    clock.hold(false);
    until("all rows", || a.rows() == b.rows()).await;
    assert_eq!((a.peers()[0].connects, b.peers()[0].connects), (1, 1), "one link throughout");
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_at_both_sites_never_meet() {
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let ids = |offset| Setting {
        sequence: Some(SequenceIds { offset, increment: 2 }),
        ..Setting::default()
    };
    let a = site("fra", la, &[b_at], ids(1)).await;
    let b = site("nyc", lb, &[], ids(2)).await;
    let insert = |id| Mutation {
        table: table(),
        change: Change::Insert { value: "v".into(), ttl: None, id },
    };
    for _ in 0..50 {
        let (one, two) = tokio::join!(
            a.node.write(vec![insert(IdKind::Sequence), insert(IdKind::UuidV7)]),
            b.node.write(vec![insert(IdKind::Sequence), insert(IdKind::UuidV7)]),
        );
        one.unwrap();
        two.unwrap();
    }
    until("all rows", || a.rows().len() == 200 && b.rows().len() == 200).await;
    assert_eq!(a.rows(), b.rows());
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_reaches_the_peer_within_milliseconds() {
    let (a, b) = pair().await;
    until("one link", || a.links() == 1 && b.links() == 1).await;
    let mut times = Vec::new();
    for n in 0..50 {
        let key = format!("k{n}");
        let mut bell = b.node.bell();
        a.put(&key, "x").await;
        let acknowledged = tokio::time::Instant::now();
        while b.get(&key).is_none() {
            bell.changed().await.unwrap();
        }
        times.push(acknowledged.elapsed());
    }
    times.sort();
    // The link's timers are 100 ms: a median far below shows that it is woken, not polled.
    assert!(times[25] < Duration::from_millis(50), "median {:?}", times[25]);
    a.stop().await;
    b.stop().await;
}
