//! What operators do with records, by the program itself and with real nodes: conflicts that are looked
//! at and taken back.

mod common;

use std::{
    process::{Command, Output, Stdio},
    time::Duration,
};

use common::{node::Node, wait::until};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastword"));
    #[expect(clippy::disallowed_methods, reason = "the child's environment is made here")]
    let own = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in own.filter(|name| name.starts_with("LASTWORD_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What a run prints that must do its work and have nothing to complain of.
#[track_caller]
fn done(arguments: &[&str]) -> String {
    let output = program(arguments);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{arguments:?}: {complaints}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that a run prints which must fail so.
#[track_caller]
fn complaint(arguments: &[&str], code: i32) -> String {
    let output = program(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// With `--server` of this node.
fn at<'a>(node: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--server", node]].concat()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

/// What a key holds; `None`: nothing.
fn value_of(url: &str, key: &str) -> Option<String> {
    let output = program(&at(url, &["get", "t", key]));
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// Two nodes that have never met write the same keys, then meet.
fn met_after_conflicts(keys: &[(&str, &str, &str)]) -> (Node, Node) {
    let fra = Node::new("fra").start();
    let mut nyc = Node::new("nyc").start();
    for (key, at_fra, at_nyc) in keys {
        done(&at(&fra.url(), &["put", "t", key, at_fra]));
        done(&at(&nyc.url(), &["put", "t", key, at_nyc]));
    }
    nyc.kill9();
    let mut nyc = nyc.peer(&fra.url());
    nyc.restart();
    until("the conflicts to be recorded at both sites", LIMIT, || {
        let recorded = |node: &Node| {
            let status = json(&done(&at(&node.url(), &["status", "--json"])));
            status["node"]["conflicts_recorded"].as_u64().unwrap()
        };
        let all = keys.len() as u64;
        (recorded(&fra) == all && recorded(&nyc) == all).then_some(())
    });
    (fra, nyc)
}

#[test]
fn a_write_that_lost_is_found_shown_and_restored_at_both_sites() {
    let long = "x".repeat(10_000);
    let (fra, nyc) = met_after_conflicts(&[("user:1", "from fra", "from nyc"), ("b", &long, "b")]);
    let (fra, nyc) = (fra.url(), nyc.url());
    assert_eq!(value_of(&fra, "user:1").as_deref(), Some("from nyc"));

    let listed = done(&at(&fra, &["conflicts", "list", "--json", "--prefix", "user:"]));
    let [conflict] = &lines(&listed)[..] else { panic!("{listed}") };
    assert_eq!(conflict["loser"]["value"], "from fra");
    assert_eq!(
        (&conflict["loser"]["site"], &conflict["winner"]["site"]),
        (&"fra".into(), &"nyc".into())
    );
    let id = conflict["id"].as_str().unwrap().to_owned();
    // The same conflict is recorded under the same name at both sites.
    let both = done(&at(&nyc, &["conflicts", "list", "--json", "--since", "1h", "--oldest-first"]));
    let both = lines(&both);
    assert_eq!((both.len(), both[0]["id"].as_str()), (2, Some(id.as_str())));
    assert_eq!(both[1]["loser"]["value"], long, "in whole");

    let table = done(&at(&nyc, &["conflicts", "list"]));
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.lines().all(|line| line.chars().count() < 180), "{table}");
    let limited = done(&at(&nyc, &["conflicts", "list", "--limit", "1", "--table", "t"]));
    assert!(limited.contains("xxx…") && !limited.contains("user:1"), "{limited}");
    assert_eq!(done(&at(&nyc, &["conflicts", "list", "--table", "other"])), "no conflicts\n");

    let shown = done(&at(&nyc, &["conflicts", "show", &id]));
    for text in [
        "Key: user:1",
        "Lost: written at fra",
        "Value: from fra",
        "Won: written at nyc",
        "Now: what won",
    ] {
        assert!(shown.contains(text), "{text} in\n{shown}");
    }

    // Without a terminal nobody can be asked.
    let refused = complaint(&at(&nyc, &["conflicts", "restore", &id]), 1);
    assert!(refused.contains("give --yes"), "{refused}");
    assert_eq!(value_of(&nyc, "user:1").as_deref(), Some("from nyc"));
    let upper = id.to_uppercase();
    let restored = done(&at(&nyc, &["conflicts", "restore", "--yes", &upper]));
    assert!(restored.starts_with("restored as "), "{restored}");
    until("the restored value to be everywhere", LIMIT, || {
        let is_there = |url| value_of(url, "user:1").as_deref() == Some("from fra");
        (is_there(&fra) && is_there(&nyc)).then_some(())
    });
    let shown = json(&done(&at(&fra, &["conflicts", "show", &id, "--json"])));
    assert_eq!(
        (&shown["standing"]["value"], &shown["standing"]["site"]),
        (&"from fra".into(), &"nyc".into())
    );
    // It had seen both: no further conflict anywhere.
    assert_eq!(done(&at(&fra, &["conflicts", "list", "--json"])).lines().count(), 2);

    let unknown = format!("1@{}", id.split_once('@').unwrap().1);
    let text = complaint(&at(&fra, &["conflicts", "restore", "--yes", &unknown]), 1);
    assert!(text.contains("lastword conflicts list shows those"), "{text}");
}
