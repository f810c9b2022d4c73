//! Replicas: all rows, no writes of clients; and stores that are brought up to date now and then.

mod common;

use std::time::Duration;

use common::{
    node::Node,
    program::{at, complaint, done, json, program, status, value_of},
    wait::until,
};
use lastword::{
    client::{Client, Options},
    model::{Key, Role, TableName},
    node::{self, Change, Mutation, NodeConfig, WriteError},
    wire::proto::{self, mutation::Mutation::Put as PutOne},
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn put(key: &'static str) -> Vec<Mutation> {
    let change = Change::Put { key: Key::new(key).unwrap(), value: "v".into(), ttl: None };
    vec![Mutation { table: TableName::of_client("t").unwrap(), change }]
}

/// The node's own row of the member list, as JSON.
fn member(node: &node::Node) -> Value {
    let key = Key::new(node.origin().as_bytes().to_vec()).unwrap();
    let row = node.snapshot().get(&TableName::of_any("_members").unwrap(), &key).unwrap().unwrap();
    serde_json::from_slice(&row.value().unwrap()).unwrap()
}

#[tokio::test]
async fn the_member_list_tells_a_replica_from_a_site_and_only_a_site_is_written_to() {
    let folder = tempfile::tempdir().unwrap();
    let open = async |role| {
        let config = NodeConfig { role, ..NodeConfig::new(folder.path(), "lon") };
        node::Node::open(config).await.unwrap()
    };
    let node = open(Role::Replica).await;
    assert_eq!(member(&node), serde_json::json!({"site": "lon", "role": "replica"}));
    assert!(matches!(node.write(put("k")).await, Err(WriteError::Replica { .. })));
    assert!(matches!(node.begin_write(put("k")).await, Err(WriteError::Replica { .. })));
    let status = node.status().unwrap();
    assert_eq!((status.role, status.rows), (Role::Replica, 1));
    assert!(status.writes_refused_reason.contains("read-only replica"));
    node.shutdown().await;
    drop(node);

    let node = open(Role::Site).await;
    assert_eq!(member(&node), serde_json::json!({"site": "lon"}));
    node.write(put("k")).await.unwrap();
    node.shutdown().await;
}

#[test]
fn a_replica_serves_reads_and_says_where_to_write() {
    let fra = Node::new("fra").start();
    done(&at(&fra.url(), &["put", "t", "k", "v"]));
    let mut lon = Node::new("lon").peer(&fra.url()).flag("--role", "replica").start();
    // Although it never takes writes.
    lon.wait_ready();
    until("the row at the replica", LIMIT, || value_of(&lon.url(), "k"));
    let batch = ["insert", "t", "v"];
    for write in [&["put", "t", "k", "w"][..], &["delete", "t", "k"], &batch] {
        let text = complaint(&at(&lon.url(), write), 1);
        let expected = format!("lon is a read-only replica: write at fra ({})", fra.url());
        assert!(text.contains(&expected), "{text}");
    }
    assert_eq!(value_of(&lon.url(), "k").as_deref(), Some("v"));
    let node = &status(&lon.url())["node"];
    assert_eq!(node["role"], "replica");
    assert!(node["writes_refused_reason"].as_str().unwrap().contains("read-only"), "{node}");
    assert_eq!(status(&fra.url())["node"]["role"], "site");
    let (_, page) = lon.http_get("/").unwrap();
    assert!(page.contains("read-only replica"), "{page}");
    // Another replica is no place to write at.
    let par = Node::new("par").peer(&lon.url()).flag("--role", "replica").start();
    until("the row at the second replica", LIMIT, || value_of(&par.url(), "k"));
    let text = complaint(&at(&par.url(), &["put", "t", "k", "w"]), 1);
    assert!(text.contains("write at one of its peers"), "{text}");
}

/// `lastword sync --once` of this node's store, which must not run.
fn sync<'a>(node: &'a Node, data: &'a str, rest: &[&'a str]) -> Vec<&'a str> {
    [&["sync", "--once", "--site", node.site(), "--data", data][..], rest].concat()
}

#[test]
fn a_store_is_brought_up_to_date_once_and_its_own_rows_go_out() {
    let fra = Node::new("fra").start();
    let mut lon = Node::new("lon").start();
    done(&at(&lon.url(), &["put", "t", "of-lon", "from lon"]));
    lon.kill9();
    for n in 0..20 {
        done(&at(&fra.url(), &["put", "t", &format!("k{n}"), &"v".repeat(1_000)]));
    }
    let data = lon.data_dir().to_str().unwrap().to_owned();
    let url = fra.url();
    // Nobody listens there; one that can be reached is enough.
    let nowhere = "http://127.0.0.1:1";
    let text = done(&sync(&lon, &data, &["--peer", &url, "--peer", nowhere, "--json"]));
    let lines: Vec<Value> = text.lines().map(json).collect();
    let [of_fra, of_nowhere] = &lines[..] else { panic!("{text}") };
    assert_eq!((&of_fra["site"], &of_fra["done"]), (&"fra".into(), &true.into()), "{text}");
    let fetched = of_fra["rows_received"].as_u64().unwrap();
    assert!((21..=22).contains(&fetched), "twenty and fra's member row: {text}");
    assert!(of_fra["bytes_received"].as_u64().unwrap() > 20_000, "{text}");
    assert!(of_fra["head_age_seconds"].as_f64().unwrap() < 20.0, "{text}");
    assert_eq!((&of_nowhere["reached"], &of_nowhere["done"]), (&false.into(), &false.into()));
    assert!(of_nowhere["last_error"].as_str().unwrap().contains("refused"), "{text}");
    assert_eq!(value_of(&url, "of-lon").as_deref(), Some("from lon"), "sent before it ended");

    // Again: there is nothing to fetch, and it says so in words.
    let text = done(&sync(&lon, &data, &["--peer", &url]));
    assert!(text.starts_with(&format!("fra at {url}: 0 rows fetched (0 B)")), "{text}");
    assert!(text.trim_end().ends_with("ago are here"), "{text}");
    // What was fetched is durable, and needs nobody else.
    drop(fra);
    lon.restart();
    assert_eq!(value_of(&lon.url(), "k19"), Some("v".repeat(1_000)));
    let text = complaint(&sync(&lon, &data, &["--peer", &url]), 1);
    assert!(text.contains("open in another process"), "{text}");
}

/// Writes so many rows, each under a key of this node's own.
fn fill(node: &Node, rows: u64) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut client = Client::new([node.url()], Options::default()).unwrap();
        for from in (0..rows).step_by(1_000) {
            let put = |n: u64| proto::PutRequest {
                table: "t".into(),
                key: format!("{}-{n}", node.site()).into(),
                value: vec![b'v'; 300].into(),
                ..Default::default()
            };
            let put = |n| proto::Mutation { mutation: Some(PutOne(put(n))) };
            client.batch((from..from + 1_000).map(put).collect()).await.unwrap();
        }
    });
}

/// Much to fetch and little to send, and the other way round: the one must not end the other.
#[test]
fn a_sync_ends_only_when_both_sides_have_all() {
    for (at_fra, at_lon) in [(20_000, 1_000), (1_000, 20_000)] {
        let fra = Node::new("fra").start();
        let mut lon = Node::new("lon").start();
        fill(&fra, at_fra);
        fill(&lon, at_lon);
        lon.kill9();
        let (data, url) = (lon.data_dir().to_str().unwrap().to_owned(), fra.url());
        done(&sync(&lon, &data, &["--peer", &url]));
        let count = |node: &Node| {
            done(&at(&node.url(), &["scan", "t", "--keys-only"])).lines().count() as u64
        };
        assert_eq!(count(&fra), at_fra + at_lon);
        drop(fra);
        lon.restart();
        assert_eq!(count(&lon), at_fra + at_lon);
    }
}

#[test]
fn a_sync_that_reaches_nobody_or_takes_too_long_fails() {
    let fra = Node::new("fra").start();
    let lon = Node::new("lon");
    let data = lon.data_dir().to_str().unwrap().to_owned();
    let url = fra.url();
    let failed = |arguments: &[&str], reason: &str| {
        let output = program(arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(reason), "{reason} in {text}");
        String::from_utf8(output.stdout).unwrap()
    };
    let alone = failed(&sync(&lon, &data, &["--peer", "http://127.0.0.1:1"]), "no peer could be");
    assert!(alone.starts_with("http://127.0.0.1:1: not reached: cannot connect"), "{alone}");
    failed(&sync(&lon, &data, &["--peer", &url, "--timeout", "1ms"]), "not done within 1ms");
    // Of another cluster: refused, which is not reached.
    let other = sync(&lon, &data, &["--peer", &url, "--cluster", "blog"]);
    assert!(failed(&other, "no peer could be").contains("not reached: refused: cluster"));
    complaint(&sync(&lon, &data, &[]), 2);
    complaint(&["sync", "--site", "lon", "--data", &data, "--peer", &url], 2);
}
