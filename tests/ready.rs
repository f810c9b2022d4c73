//! A new site that joins one with many rows: not ready before it has them all once, and the old one serves
//! its clients meanwhile.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use common::{
    node::Node,
    program::{at, done, status},
    proxy::Proxy,
    wait::until,
};
use lastword::{
    client::{Client, Options},
    wire::proto::{self, mutation::Mutation},
};

const ROWS: u64 = 50_000;
const BATCH: u64 = 1_000;
/// What clients write at the old site meanwhile.
const KEYS_MEANWHILE: u64 = 100;
const LIMIT: Duration = Duration::from_secs(60);

fn put(key: String) -> proto::Mutation {
    let put = proto::PutRequest {
        table: "t".into(),
        key: key.into(),
        value: vec![b'v'; 200].into(),
        ..Default::default()
    };
    proto::Mutation { mutation: Some(Mutation::Put(put)) }
}

fn client(url: &str) -> Client {
    Client::new([url], Options::default()).unwrap()
}

/// What `/readyz` says while the node is not ready: how many rows are to come, where it says so.
fn left(node: &Node) -> Result<Option<u64>, String> {
    let (code, body) = node.http_get("/readyz").expect("it answers");
    match code {
        200 => Err(body),
        503 => {
            assert!(body.starts_with("catching up: this new store has not had all"), "{body}");
            Ok(body.split_whitespace().find_map(|word| word.parse().ok()))
        }
        _ => panic!("{code}: {body}"),
    }
}

/// Writes and reads at one node until told to stop; each must be done, and soon. Gives their number.
async fn use_on(url: String, stop: Arc<AtomicBool>) -> u64 {
    let mut client = client(&url);
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let key = format!("meanwhile-{}", done % KEYS_MEANWHILE);
        let both = async {
            client.put("t", key.clone(), "v", None).await.unwrap();
            client.get("t", key.clone()).await.unwrap().expect("just written");
        };
        tokio::time::timeout(Duration::from_secs(5), both).await.expect("served at once");
        done += 1;
    }
    done
}

#[test]
fn a_new_site_is_ready_once_it_has_what_the_old_one_had() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // Founded alone: ready at once.
    let mut fra = Node::new("fra").start();
    fra.wait_ready();
    runtime.block_on(async {
        let mut client = client(&fra.url());
        for from in (0..ROWS).step_by(BATCH as usize) {
            let rows = (from..from + BATCH).map(|n| put(format!("k{n:06}"))).collect();
            client.batch(rows).await.unwrap();
        }
    });

    let proxy = Proxy::start(fra.grpc_address());
    proxy.cut();
    let mut nyc = Node::new("nyc").peer(&proxy.url()).start();
    assert_eq!(left(&nyc), Ok(None), "no peer is connected");
    let stop = Arc::new(AtomicBool::new(false));
    let using = runtime.spawn(use_on(fra.url(), Arc::clone(&stop)));

    // Progress falls; on the way the line freezes.
    proxy.heal();
    let mut seen = vec![u64::MAX];
    until("a quarter of the rows", LIMIT, || {
        let rows = left(&nyc).expect("not ready yet")?;
        let least = seen[seen.len() - 1];
        assert!(rows <= least, "{rows} after {seen:?}");
        if rows < least {
            seen.push(rows);
        }
        (rows < ROWS * 3 / 4).then(|| proxy.freeze())
    });
    assert!(seen.len() > 2 && seen[1] <= ROWS + KEYS_MEANWHILE + 1, "{seen:?}");
    let catching_up = &status(&nyc.url())["node"]["catching_up"];
    assert!(catching_up["remaining_rows"].as_u64().unwrap() <= seen[seen.len() - 1]);
    assert!(catching_up["remaining_bytes"].as_u64().unwrap() > 0, "{catching_up}");

    // A restart does not make it ready: it lacks what it lacked.
    nyc.restart();
    assert!(left(&nyc).is_ok());
    proxy.cut();
    proxy.heal();
    nyc.wait_ready();
    stop.store(true, Ordering::Relaxed);
    let used = runtime.block_on(using).expect("the old site served its clients throughout");
    assert!(used > 10, "{used}");
    for key in ["k000000", "k049999"] {
        done(&at(&nyc.url(), &["get", "t", key]));
    }
    assert!(status(&nyc.url())["node"]["rows"].as_u64().unwrap() >= ROWS);
    assert!(status(&nyc.url())["node"]["catching_up"].is_null());

    // Who was ready once is ready after any restart, reached by anyone or not.
    proxy.cut();
    nyc.restart();
    assert!(left(&nyc).is_err());
}
