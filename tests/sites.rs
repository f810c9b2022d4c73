//! Two sites as they are in life: real nodes, real MariaDB, loads, and processes killed under them.
//!
//! What must hold afterwards: both stores hold the same rows, each MariaDB holds the rows of its
//! store, no acknowledged write is lost, and there is neither gap nor duplicate.
//!
//! `TEST_SECONDS` and `TEST_KILLS` make them longer.

mod common;

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{mariadb::MariaDb, node::Node, wait::until};
use lastword::{
    client::{Client, Options},
    wire::proto::{self, ScanRequest, mutation::Mutation},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

const SETTLED_MAX: Duration = Duration::from_secs(120);

/// A site: a database and a node that mirrors into it.
struct Site {
    mariadb: MariaDb,
    node: Node,
}

fn pair() -> (Site, Site) {
    let (fra_db, nyc_db) = std::thread::scope(|scope| {
        let fra = scope.spawn(MariaDb::start);
        (fra.join().unwrap(), MariaDb::start())
    });
    let nyc_node = Node::new("nyc").mysql(&nyc_db.url("shop"));
    let fra_node = Node::new("fra").mysql(&fra_db.url("shop")).peer(&nyc_node.url());
    let nyc_node = nyc_node.peer(&fra_node.url());
    let fra = Site { mariadb: fra_db, node: fra_node.start() };
    let nyc = Site { mariadb: nyc_db, node: nyc_node.start() };
    (fra, nyc)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A number from the environment, for longer runs.
fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long a test runs is its caller's choice")]
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")))
}

type Version = (u64, Vec<u8>);
/// Key -> value, version, expiry in milliseconds since the Unix epoch.
type Rows = BTreeMap<Vec<u8>, (Vec<u8>, Version, Option<i64>)>;

fn version(version: Option<proto::Version>) -> Version {
    let version = version.expect("every row and every answer has one");
    (version.hlc, version.origin.to_vec())
}

impl Site {
    fn client(&self) -> Client {
        Client::new([self.node.url()], Options::default()).unwrap()
    }

    /// What the node shows.
    fn rows(&self, runtime: &tokio::runtime::Runtime, table: &str) -> Rows {
        runtime.block_on(async {
            let mut client = self.client();
            let request = ScanRequest { table: table.into(), ..ScanRequest::default() };
            let mut scan = client.scan(request).await.unwrap();
            let mut rows = Rows::new();
            while let Some(part) = scan.next().await.unwrap() {
                for row in part {
                    let expires =
                        row.expire_time.map(|t| t.seconds * 1_000 + i64::from(t.nanos) / 1_000_000);
                    let value = (row.value.to_vec(), version(row.version), expires);
                    assert!(rows.insert(row.key.to_vec(), value).is_none(), "a key twice");
                }
            }
            rows
        })
    }

    /// What MariaDB shows; an unknown table is empty.
    fn mirrored(&self, table: &str) -> Rows {
        let known = self.mariadb.sql("shop", &format!("SHOW TABLES LIKE '{table}'"));
        if known.is_empty() {
            return Rows::new();
        }
        let statement = format!(
            "SELECT HEX(k), HEX(v), hlc, HEX(origin), \
             ROUND(UNIX_TIMESTAMP(CONVERT_TZ(expires_at, '+00:00', @@session.time_zone)) * 1000) \
             FROM {table}"
        );
        let mut rows = Rows::new();
        for row in self.mariadb.sql("shop", &statement) {
            let [key, value, hlc, origin, expires] = &row[..] else { panic!("{row:?}") };
            let expires = expires.parse::<f64>().ok().map(|ms| ms as i64);
            let version = (hlc.parse().unwrap(), unhex(origin));
            assert!(rows.insert(unhex(key), (unhex(value), version, expires)).is_none());
        }
        rows
    }

    /// Whether nothing is on its way: link up, nothing to send, mirror up to date.
    fn settled(&self, runtime: &tokio::runtime::Runtime) -> bool {
        runtime.block_on(async {
            let Ok(status) = self.client().status().await else { return false };
            let peers = status
                .peers
                .iter()
                .all(|peer| peer.connected && peer.behind_rows == 0 && peer.peer_behind_rows == 0);
            let mirror = status.mirror.expect("a mirror is configured");
            peers && mirror.connected && mirror.behind_rows == 0
        })
    }
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len() / 2).map(|n| u8::from_str_radix(&text[2 * n..2 * n + 2], 16).unwrap()).collect()
}

/// Waits until everything has arrived, then compares stores and databases row for row.
fn assert_equal(runtime: &tokio::runtime::Runtime, fra: &Site, nyc: &Site, table: &str) -> Rows {
    until("both sites to settle", SETTLED_MAX, || {
        (fra.settled(runtime) && nyc.settled(runtime)).then_some(())
    });
    // Rows may expire between two looks: then both are taken again.
    until("equal rows everywhere", Duration::from_secs(20), || {
        let rows = fra.rows(runtime, table);
        let same = rows == nyc.rows(runtime, table)
            && rows == fra.mirrored(table)
            && rows == nyc.mirrored(table);
        same.then_some(rows)
    })
}

#[test]
fn production_loads_at_both_sites_leave_equal_rows() {
    let seconds = setting("TEST_SECONDS", 6);
    let runtime = runtime();
    let (fra, nyc) = pair();
    for (workload, table) in [("cluster12", "pages"), ("cluster19", "counters")] {
        let output = Command::new(env!("CARGO_BIN_EXE_lastword"))
            .args(["bench", "--workload", workload, "--table", table, "--json"])
            .args(["--duration", &format!("{seconds}s"), "--keys", "20000"])
            .args(["--server", &fra.node.url(), "--server", &nyc.node.url()])
            .output()
            .unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{error}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let written: u64 = report["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| node["writes"]["count"].as_u64().unwrap())
            .sum();
        let rows = assert_equal(&runtime, &fra, &nyc, table);
        #[expect(clippy::print_stdout, reason = "the figures are for whoever reads the log")]
        {
            println!("{workload}: {written} writes in {seconds} s, {} rows at the end", rows.len());
        }
        assert!(!rows.is_empty() && written > 0);
    }
}

/// What a site acknowledged: for each key the greatest version.
type Acknowledged = Arc<Mutex<BTreeMap<Vec<u8>, Version>>>;

/// Writes to one site until told to stop; notes what was acknowledged. A node that is down is tried
/// again; what it did not acknowledge is not noted.
async fn write_on(
    mut client: Client,
    site: &'static str,
    worker: u64,
    stop: Arc<AtomicBool>,
    acknowledged: Acknowledged,
) -> u64 {
    let mut random = SmallRng::seed_from_u64(worker);
    let mut writes = 0;
    for n in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // Some keys are this worker's own, some are written at both sites.
        let key = |n: u64| match n % 3 {
            0 => format!("shared-{:03}", n % 300),
            _ => format!("{site}-{worker}-{:04}", n % 2_000),
        };
        let value = |n: u64| format!("{site} {worker} {n}");
        let written = if random.random_bool(0.5) {
            let put = |n: u64| proto::Mutation {
                mutation: Some(Mutation::Put(proto::PutRequest {
                    table: "t".into(),
                    key: key(n).into(),
                    value: value(n).into(),
                    ttl: None,
                    ..Default::default()
                })),
            };
            let batch = client.batch((n..n + 5).map(put).collect()).await;
            batch.map(|results| {
                results.into_iter().map(|result| (result.key.to_vec(), result.version)).collect()
            })
        } else {
            let put = client.put("t", key(n), value(n), None).await;
            put.map(|version| vec![(key(n).into_bytes(), Some(version))])
        };
        match written {
            Ok(written) => {
                let mut acknowledged = acknowledged.lock().unwrap();
                for (key, stamp) in written {
                    writes += 1;
                    let newest = acknowledged.entry(key).or_default();
                    *newest = newest.clone().max(version(stamp));
                }
            }
            // The node is being killed or started: there is nothing to wait for but its return.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    writes
}

#[test]
fn kills_at_random_moments_lose_nothing_that_was_acknowledged() {
    const WORKERS: u64 = 4;
    let kills = setting("TEST_KILLS", 10);
    let seed = setting("TEST_SEED", 1);
    let mut random = SmallRng::seed_from_u64(seed);
    let runtime = runtime();
    let (mut fra, mut nyc) = pair();
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Acknowledged::default();
    let mut writers = Vec::new();
    for worker in 0..WORKERS {
        for (site, name) in [(&fra, "fra"), (&nyc, "nyc")] {
            let options = Options {
                connect_timeout: Duration::from_millis(500),
                request_timeout: Duration::from_secs(5),
                ..Options::default()
            };
            let client =
                runtime.block_on(async { Client::new([site.node.url()], options).unwrap() });
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            writers.push(runtime.spawn(write_on(client, name, worker, stop, acknowledged)));
        }
    }
    for kill in 0..kills {
        std::thread::sleep(Duration::from_millis(random.random_range(50..600)));
        let site = if random.random_bool(0.5) { &mut fra } else { &mut nyc };
        // Sometimes both processes of a site, as when its power fails.
        let what = random.random_range(0..5);
        if what < 3 {
            site.node.kill9();
        }
        if what >= 2 {
            site.mariadb.kill9();
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        if what >= 2 {
            site.mariadb.restart();
        }
        if what < 3 {
            site.node.restart();
        }
        #[expect(clippy::print_stdout, reason = "tells which kill a failure followed")]
        {
            println!("kill {kill} of {}: case {what}", site.node.site());
        }
    }
    stop.store(true, Ordering::Relaxed);
    let writes: u64 = writers.into_iter().map(|writer| runtime.block_on(writer).unwrap()).sum();
    let rows = assert_equal(&runtime, &fra, &nyc, "t");
    let acknowledged = acknowledged.lock().unwrap();
    for (key, newest) in acknowledged.iter() {
        let shown = String::from_utf8_lossy(key);
        let (_, version, _) = rows.get(key).unwrap_or_else(|| panic!("{shown} is lost"));
        assert!(version >= newest, "{shown}: an older version stands there (seed {seed})");
    }
    #[expect(clippy::print_stdout, reason = "the figures are for whoever reads the log")]
    {
        println!("{writes} writes acknowledged, {} keys, {kills} kills", acknowledged.len());
    }
    assert!(writes > 0 && acknowledged.len() > 100);
}
