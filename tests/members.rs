//! Sites that come and go, as real processes: a ring that is cut and healed, a cluster that seals itself and purges, a
//! newcomer with rows of its own, a member that is removed and comes back.

mod common;

use std::{collections::BTreeMap, process::Command, time::Duration};

use common::{node::Node, wait::until};
use serde_json::Value;

const SETTLED_MAX: Duration = Duration::from_secs(60);

fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, SETTLED_MAX, || holds().then_some(()));
}

/// Runs a client command against a node; its output, and whether it succeeded.
fn run(node: &Node, args: &[&str]) -> (String, bool) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastword"));
    let output = command.args(args).args(["--server", &node.url()]).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

fn done(node: &Node, args: &[&str]) -> String {
    let (text, done) = run(node, args);
    assert!(done, "lastword {args:?}: {text}");
    text
}

/// Key and value of every row of a table.
fn rows(node: &Node, table: &str) -> BTreeMap<String, String> {
    let text = done(node, &["scan", table, "--json"]);
    let row = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        let part = |name: &str| row[name].as_str().unwrap().to_owned();
        (part("key"), part("value"))
    };
    text.lines().map(row).collect()
}

/// The members as a node lists them: site -> state.
fn members(node: &Node) -> BTreeMap<String, String> {
    let text = done(node, &["member", "list", "--json"]);
    let member = |line: &str| {
        let member: Value = serde_json::from_str(line).unwrap();
        let part = |name: &str| member[name].as_str().unwrap().to_owned();
        (part("site"), part("state"))
    };
    text.lines().map(member).collect()
}

fn until_equal(what: &str, nodes: &[&Node], expected: &BTreeMap<String, String>) {
    wait(what, || nodes.iter().all(|node| rows(node, "t") == *expected));
}

/// A ring: each dials the next one. The seal comes as soon as all have met.
fn ring() -> [Node; 3] {
    let nodes = ["fra", "nyc", "sin"].map(Node::new);
    let urls: Vec<String> = nodes.iter().map(Node::url).collect();
    let mut at = 0;
    nodes.map(|node| {
        at += 1;
        node.peer(&urls[at % 3]).flag("--member-seal-after", "0s").flag("--log", "warn").start()
    })
}

/// Gives the store of a node that is down a new origin.
fn rejoin(node: &Node) {
    let data = node.data_dir();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastword"));
    let output = command.args(["rejoin", "--data", data.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn is_sealed(node: &Node) -> bool {
    done(node, &["member", "list"]).contains("sealed: yes")
}

#[test]
fn a_ring_is_cut_and_healed_and_a_member_is_removed_and_comes_back() {
    let [mut fra, mut nyc, mut sin] = ring();
    wait("the cluster to be sealed", || {
        [&fra, &nyc, &sin].iter().all(|node| is_sealed(node) && members(node).len() == 3)
    });
    let mut expected = BTreeMap::new();
    let mut put = |node: &Node, key: &str, value: &str| {
        done(node, &["put", "t", key, value]);
        expected.insert(key.to_owned(), value.to_owned());
    };
    put(&fra, "a", "from fra");
    put(&nyc, "b", "from nyc");
    put(&sin, "c", "from sin");
    let three = expected.clone();
    until_equal("the ring to agree", &[&fra, &nyc, &sin], &three);

    // The ring is a chain now, with writes at both ends; then fra is killed on top of it.
    sin.kill9();
    let mut put = |node: &Node, key: &str, value: &str| {
        done(node, &["put", "t", key, value]);
        expected.insert(key.to_owned(), value.to_owned());
    };
    put(&fra, "d", "while sin was down");
    put(&nyc, "a", "nyc had the last word");
    done(&nyc, &["delete", "t", "c"]);
    expected.remove("c");
    until_equal("the chain to agree", &[&fra, &nyc], &expected);
    assert!(done(&fra, &["status"]).contains("Dead rows: 1 here"), "a dead row waits for sin");
    fra.restart();
    sin.restart();
    until_equal("the ring to heal", &[&fra, &nyc, &sin], &expected);
    // Now that everybody has it, the dead row goes, everywhere.
    wait("the dead row to be purged", || {
        [&fra, &nyc, &sin].iter().all(|node| {
            let text = done(node, &["member", "list"]);
            text.contains("dead rows: 0 here, 1 purged so far")
        })
    });

    // sin writes something that nobody gets, and is removed while it is away.
    fra.kill9();
    nyc.kill9();
    done(&sin, &["put", "t", "unspread", "written at sin alone"]);
    sin.kill9();
    fra.restart();
    nyc.restart();
    let (text, removed) = run(&fra, &["member", "remove", "nowhere"]);
    assert!(!removed && text.contains("\"nowhere\" in the member list"), "{text}");
    let (text, removed) = run(&fra, &["member", "remove", "fra"]);
    assert!(!removed && text.contains("this node itself"), "{text}");
    done(&fra, &["member", "remove", "sin"]);
    wait("the removal to be complete", || {
        [&fra, &nyc].iter().all(|node| members(node)["sin"] == "removed")
    });
    done(&nyc, &["delete", "t", "d"]);
    expected.remove("d");
    wait("the dead row to be purged without sin", || {
        done(&fra, &["member", "list"]).contains("dead rows: 0 here, 2 purged so far")
    });

    sin.spawn();
    wait("sin to be told", || run(&sin, &["status"]).0.contains("was removed from the cluster"));
    assert!(!rows(&fra, "t").contains_key("unspread"));
    sin.kill9();
    rejoin(&sin);
    sin.spawn();
    expected.insert("unspread".into(), "written at sin alone".into());
    until_equal("sin to come back", &[&fra, &nyc, &sin], &expected);
    // What was deleted while it was away is gone there, too; and it takes writes again.
    done(&sin, &["put", "t", "again", "x"]);
    expected.insert("again".into(), "x".into());
    until_equal("the three to agree", &[&fra, &nyc, &sin], &expected);
}

#[test]
fn a_newcomer_with_rows_of_its_own_is_admitted_to_a_sealed_cluster() {
    let nyc = Node::new("nyc").flag("--member-seal-after", "0s");
    let fra = Node::new("fra").peer(&nyc.url()).flag("--member-seal-after", "0s").start();
    let nyc = nyc.start();
    wait("the cluster to be sealed", || is_sealed(&fra) && is_sealed(&nyc));
    done(&fra, &["put", "t", "contested", "older, at fra"]);
    done(&fra, &["put", "t", "theirs", "x"]);

    let mut tyo = Node::new("tyo").start();
    done(&tyo, &["put", "t", "contested", "younger, at tyo"]);
    done(&tyo, &["put", "t", "mine", "y"]);
    tyo.kill9();
    let mut tyo = tyo.peer(&fra.url());
    tyo.spawn();
    let expected: BTreeMap<String, String> =
        [("contested", "younger, at tyo"), ("mine", "y"), ("theirs", "x")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into();
    until_equal("the newcomer's rows to come along", &[&fra, &nyc, &tyo], &expected);
    wait("it to take writes", || run(&tyo, &["put", "t", "k", "v"]).1);
    assert!(done(&nyc, &["member", "list"]).contains("newcomer"));
}

/// The others hear of its admission by way of the hub itself, which tells nothing else before it is in.
#[test]
fn a_hub_that_comes_back_is_let_in_where_it_is_the_only_way_between_the_others() {
    let mut hub = Node::new("hub").flag("--member-seal-after", "0s");
    let spoke = |site| Node::new(site).peer(&hub.url()).flag("--member-seal-after", "0s").start();
    let [mut fra, mut nyc] = ["fra", "nyc"].map(spoke);
    hub.restart();
    wait("the cluster to be sealed", || {
        [&hub, &fra, &nyc].iter().all(|node| is_sealed(node) && members(node).len() == 3)
    });
    done(&fra, &["put", "t", "a", "from fra"]);
    done(&hub, &["put", "t", "b", "from the hub"]);
    let mut expected: BTreeMap<String, String> =
        [("a", "from fra"), ("b", "from the hub")].map(|(k, v)| (k.into(), v.into())).into();
    until_equal("the star to agree", &[&hub, &fra, &nyc], &expected);

    fra.kill9();
    nyc.kill9();
    done(&hub, &["put", "t", "b", "unspread"]);
    hub.kill9();
    rejoin(&hub);
    hub.restart();
    // Of its new life, and from before anybody has let it in.
    done(&hub, &["put", "t", "d", "first"]);
    fra.restart();
    done(&fra, &["put", "t", "c", "while the hub was away"]);
    nyc.restart();
    expected.insert("b".into(), "unspread".into());
    expected.insert("c".into(), "while the hub was away".into());
    expected.insert("d".into(), "first".into());
    until_equal("the star to agree again", &[&hub, &fra, &nyc], &expected);
    wait("the hub to take writes", || run(&hub, &["put", "t", "e", "x"]).1);
}
