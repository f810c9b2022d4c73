//! The program itself, run against a fake node: what it prints, byte for byte, and how it exits.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    process::{Output, Stdio},
};

use lastword::{
    model::Origin,
    store::{Store, StoreConfig},
    wire::proto,
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

mod fake_node;

use fake_node::{EXPIRY, FakeNode, Mood, ORIGIN_TEXT};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastword"));
    #[expect(clippy::disallowed_methods, reason = "the child's environment is made here")]
    let ours = std::env::vars_os().map(|(name, _)| name);
    ours.filter(|name| name.as_bytes().starts_with(b"LASTWORD_")).for_each(|name| {
        command.env_remove(name);
    });
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(node: &FakeNode, arguments: &[impl AsRef<OsStr>]) -> Output {
    program().args(arguments).args(["--server", &node.url]).output().await.unwrap()
}

/// Stdout of a run that must do its work and have nothing to complain of.
async fn done(node: &FakeNode, arguments: &[impl AsRef<OsStr>]) -> Vec<u8> {
    let output = run(node, arguments).await;
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
    output.stdout
}

async fn done_text(node: &FakeNode, arguments: &[&str]) -> String {
    String::from_utf8(done(node, arguments).await).unwrap()
}

/// The one line on stderr of a run that must fail with this code and print nothing else.
fn complaint(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(output.stdout, b"");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("error: "), "{text}");
    text.trim_end().to_owned()
}

#[tokio::test]
async fn put_and_get_keep_every_byte() {
    let node = FakeNode::start("fra").await;
    let (key, value) = (OsStr::from_bytes(b"\xff\x01"), OsStr::from_bytes(b"a\n\xfe \\"));
    let put = [OsStr::new("put"), OsStr::new("t"), key, value];
    assert_eq!(done(&node, &put).await, b"");
    assert_eq!(done(&node, &[OsStr::new("get"), OsStr::new("t"), key]).await, b"a\n\xfe \\");
    done(&node, &["put", "t", "-5", "-7"]).await;
    assert_eq!(done_text(&node, &["get", "t", "-5"]).await, "-7");
}

#[tokio::test]
async fn put_reads_its_value_from_stdin() {
    let node = FakeNode::start("fra").await;
    let mut put = program()
        .args(["put", "t", "k", "-", "--server", &node.url])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(b"from\0stdin\n").await.unwrap();
    assert!(put.wait().await.unwrap().success());
    assert_eq!(done(&node, &["get", "t", "k"]).await, b"from\0stdin\n");

    let mut put = program()
        .args(["put", "t", "k", "-", "--server", &node.url])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program stops reading at its bound, so the rest may find the pipe closed.
    let _ = put.stdin.take().unwrap().write_all(&vec![0; (3 << 20) + 1]).await;
    let text = complaint(&put.wait_with_output().await.unwrap(), 1);
    assert_eq!(
        text,
        "error: value: stdin holds more than 3145728 bytes, the most a value may have"
    );
}

#[tokio::test]
async fn an_absent_row_is_exit_code_1() {
    let node = FakeNode::start("fra").await;
    let text = complaint(&run(&node, &["get", "t", "nobody\n"]).await, 1);
    assert_eq!(text, "error: no row with key nobody\\n in table t");
    complaint(&run(&node, &["get", "t", "nobody", "--json"]).await, 1);
}

#[tokio::test]
async fn a_row_as_json() {
    let node = FakeNode::start("fra").await;
    done(&node, &["put", "t", "k", "v", "--ttl", "1m 500ms"]).await;
    let ttl = prost_types::Duration { seconds: 60, nanos: 500_000_000 };
    assert_eq!(node.state().ttls, [ttl]);
    assert_eq!(
        done_text(&node, &["get", "t", "k", "--json"]).await,
        format!(
            "{{\"table\":\"t\",\"key\":\"k\",\"value\":\"v\",\"hlc\":\"1\",\"origin\":\
             \"{ORIGIN_TEXT}\",\"site\":\"fra\",\"expires_at\":\"2026-01-02T03:04:05.678Z\"}}\n"
        )
    );
}

#[tokio::test]
async fn writes_as_json() {
    let node = FakeNode::start("fra").await;
    let written = |key: &str, hlc: u64| {
        format!(
            "{{\"table\":\"t\",\"key\":\"{key}\",\"hlc\":\"{hlc}\",\"origin\":\"{ORIGIN_TEXT}\""
        )
    };
    let put = done_text(&node, &["put", "t", "k", "v", "--json"]).await;
    assert_eq!(put, format!("{}}}\n", written("k", 1)));
    let delete = ["delete", "t", "k", "--json"];
    let existed = format!("{},\"existed\":true}}\n", written("k", 2));
    assert_eq!(done_text(&node, &delete).await, existed);
    let absent = format!("{},\"existed\":false}}\n", written("k", 3));
    assert_eq!(done_text(&node, &delete).await, absent);
    assert_eq!(done_text(&node, &["delete", "t", "k"]).await, "");
    let insert = done_text(&node, &["insert", "t", "v", "--id", "sequence", "--json"]).await;
    assert_eq!(insert, format!("{}}}\n", written("4711", 5)));
}

#[tokio::test]
async fn insert_prints_the_key() {
    let node = FakeNode::start("fra").await;
    let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
    assert_eq!(done_text(&node, &["insert", "t", "v"]).await, format!("{uuid}\n"));
    assert_eq!(done_text(&node, &["get", "t", uuid]).await, "v");
    let sequence = ["insert", "t", "w", "--id", "sequence", "--ttl", "5m"];
    assert_eq!(done_text(&node, &sequence).await, "4711\n");
    assert_eq!(node.state().ttls, [prost_types::Duration { seconds: 300, nanos: 0 }]);
}

#[tokio::test]
async fn scan_prints_a_line_for_each_row() {
    let node = FakeNode::start("fra").await;
    for (key, value) in [("a1", "one"), ("a2", "t\two"), ("b", "three\n"), ("c", "")] {
        done(&node, &["put", "t", key, value]).await;
    }
    let scan = |arguments: &'static [&'static str]| {
        let node = node.clone();
        async move { done_text(&node, &[&["scan", "t"], arguments].concat()).await }
    };
    assert_eq!(scan(&[]).await, "a1\tone\na2\tt\\two\nb\tthree\\n\nc\t\n");
    assert_eq!(scan(&["--prefix", "a"]).await, "a1\tone\na2\tt\\two\n");
    assert_eq!(scan(&["--start", "a2", "--end", "c", "--keys-only"]).await, "a2\nb\n");
    assert_eq!(scan(&["--reverse", "--limit", "3", "--keys-only"]).await, "c\nb\na2\n");
    assert_eq!(scan(&["--prefix", "x"]).await, "");
    let version = format!("\"hlc\":\"4\",\"origin\":\"{ORIGIN_TEXT}\",\"site\":\"fra\"");
    assert_eq!(
        scan(&["--prefix", "c", "--json"]).await,
        format!("{{\"table\":\"t\",\"key\":\"c\",\"value\":\"\",{version},\"expires_at\":null}}\n")
    );
    assert_eq!(
        scan(&["--prefix", "c", "--json", "--keys-only"]).await,
        format!("{{\"table\":\"t\",\"key\":\"c\",{version},\"expires_at\":null}}\n")
    );
}

#[tokio::test]
async fn a_reader_that_has_enough_is_no_error() {
    let node = FakeNode::start("fra").await;
    let value = "x".repeat(100_000);
    for key in ["a", "b", "c", "d"] {
        done(&node, &["put", "t", key, &value]).await;
    }
    let mut scan = program()
        .args(["scan", "t", "--server", &node.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(scan.stdout.take());
    let output = scan.wait_with_output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[tokio::test]
async fn status_for_people_and_for_programs() {
    let node = FakeNode::start("fra").await;
    node.state().status = proto::StatusResponse {
        cluster: None,
        node: Some(proto::NodeStatus {
            cluster: "lastword".to_owned(),
            site: "fra".to_owned(),
            origin: ORIGIN_TEXT.to_owned(),
            software_version: "0.1.0".to_owned(),
            start_time: Some(EXPIRY),
            rows: 7,
            heads: vec![
                proto::Head {
                    origin: ORIGIN_TEXT.to_owned(),
                    hlc: u64::MAX - 1,
                    age_seconds: 0.5,
                    ..Default::default()
                },
                proto::Head {
                    origin: ORIGIN_TEXT.to_owned(),
                    site: "gone".to_owned(),
                    closed: true,
                    ..Default::default()
                },
            ],
            ..Default::default()
        }),
        peers: vec![proto::PeerStatus {
            address: "http://nyc:7400".to_owned(),
            connected: true,
            receiving: true,
            behind_seconds: Some(1.5),
            peer_behind_rows: 3,
            last_error: "broken".to_owned(),
            last_error_time: Some(EXPIRY),
            clock_offset_ms: Some(-3),
            ..Default::default()
        }],
        mirror: None,
    };
    let text = done_text(&node, &["status"]).await;
    assert!(text.starts_with("Node fra of cluster lastword\n"), "{text}");
    assert!(text.contains("         Receiving: Yes\n          Applying: No\n"), "{text}");

    let line = done_text(&node, &["status", "--json"]).await;
    assert_eq!(line.matches('\n').count(), 1);
    let expected = json!({
        "node": {
            "cluster": "lastword",
            "site": "fra",
            "role": null,
            "origin": ORIGIN_TEXT,
            "software_version": "0.1.0",
            "started_at": "2026-01-02T03:04:05.678Z",
            "catching_up": null,
            "rows": 7,
            "store_bytes": 0,
            "heads": [
                {
                    "origin": ORIGIN_TEXT,
                    "site": null,
                    "hlc": "18446744073709551614",
                    "age_seconds": 0.5,
                    "closed": false,
                },
                {
                    "origin": ORIGIN_TEXT,
                    "site": "gone",
                    "hlc": null,
                    "age_seconds": null,
                    "closed": true,
                },
            ],
            "heads_text": "",
            "conflicts_recorded": 0,
            "conflicts_kept": 0,
            "conflicts_kept_bytes": 0,
            "conflicts_oldest_age_seconds": null,
            "rows_merged": 0,
            "rows_held_back": 0,
            "rows_written": 0,
            "commits": 0,
            "writes_refused_reason": null,
        },
        "peers": [{
            "address": "http://nyc:7400",
            "site": null,
            "origin": null,
            "connected": true,
            "receiving": true,
            "applying": false,
            "behind_seconds": 1.5,
            "behind_rows": 0,
            "behind_bytes": 0,
            "peer_behind_rows": 3,
            "peer_behind_bytes": 0,
            "rows_received": 0,
            "rows_sent": 0,
            "bytes_received": 0,
            "bytes_sent": 0,
            "connects": 0,
            "last_error": "broken",
            "last_error_at": "2026-01-02T03:04:05.678Z",
            "direction": null,
            "clock_offset_ms": -3,
            "compressing": false,
            "wire_bytes_received": 0,
            "wire_bytes_sent": 0,
            "round_trip_seconds": null,
        }],
        "mirror": null,
    });
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), expected);
}

#[tokio::test]
async fn what_the_node_refuses_is_told_in_one_line() {
    let node = FakeNode::start("fra").await;
    let text = complaint(&run(&node, &["put", "_t", "k", "v"]).await, 1);
    assert_eq!(text, "error: table: \"_t\" begins with _: choose another");
    node.state().mood = Mood::Unavailable;
    let text = complaint(&run(&node, &["scan", "t"]).await, 1);
    assert_eq!(text, "error: the node is starting: try again");
}

#[tokio::test]
async fn a_node_that_is_not_there_is_named_and_the_next_one_asked() {
    let node = FakeNode::start("fra").await;
    // Port 1 of loopback: nobody listens there.
    let nowhere = "http://127.0.0.1:1";
    let output = program().args(["get", "t", "k", "--server", nowhere]).output().await.unwrap();
    assert_eq!(
        complaint(&output, 1),
        "error: cannot connect to http://127.0.0.1:1 (Connection refused (os error 111)): is \
         lastword serve running there? give --server URL"
    );

    let both = ["put", "t", "k", "v", "--server", nowhere, "--server", &node.url];
    assert!(program().args(both).status().await.unwrap().success());
    let variable = format!("{nowhere},{}", node.url);
    let output =
        program().args(["get", "t", "k"]).env("LASTWORD_SERVER", variable).output().await.unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), &b"v"[..]));
}

#[tokio::test]
async fn wrong_usage_is_exit_code_2() {
    let usage = |arguments: &'static [&'static str]| async move {
        complaint(&program().args(arguments).output().await.unwrap(), 2)
    };
    assert_eq!(
        usage(&["put", "t", "k"]).await,
        "error: the following required arguments were not provided: <VALUE> (--help tells more)"
    );
    assert_eq!(
        usage(&["put", "t", "k", "v", "--ttl", "5"]).await,
        "error: invalid value '5' for '--ttl <DURATION>': write numbers with units, such as \
         500ms, 90s or 5m (--help tells more)"
    );
    assert_eq!(
        usage(&["get", "t", "-k"]).await,
        "error: unexpected argument '-k' found; tip: to pass '-k' as a value, use '-- -k' (--help \
         tells more)"
    );
    assert_eq!(
        usage(&["get", "t", "k", "--server", "fra:7400"]).await,
        "error: --server: \"fra:7400\" does not begin with http://: write http://HOST:PORT, the \
         port is usually 7400"
    );
    usage(&["put", "t", "k", "v", "--ttl", "0s"]).await;
    usage(&["scan", "t", "--prefix", "a", "--start", "b"]).await;
    usage(&["fetch"]).await;
    usage(&["serve", "--data", "d"]).await;
    usage(&["serve", "--site", "fra", "--data", "d", "--listen", "0.0.0.0:7400"]).await;
    usage(&["serve", "--config", "/nowhere/lastword.toml"]).await;

    let typo = program().args(["get", "t", "k"]).env("LASTWORD_SERVERS", "x").output().await;
    assert_eq!(
        complaint(&typo.unwrap(), 2),
        "error: unknown variable LASTWORD_SERVERS: did you mean LASTWORD_SERVER?"
    );
}

#[tokio::test]
async fn config_shows_what_is_in_effect_and_where_it_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lastword.toml");
    std::fs::write(
        &file,
        "site = 'nyc'\ncluster = 'shop'\n[sequence]\noffset = 1\nincrement = 2\n",
    )
    .unwrap();
    let mut command = program();
    command
        .args(["config", "--json", "--site", "fra", "--data", "d", "--insecure", "--config"])
        .arg(&file)
        .args(["--peer", "http://a:1", "--peer", "http://b:1"])
        .env("LASTWORD_MYSQL", "mysql://u:hunter2@h:3306/d");
    let output = command.output().await.unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let shown: Value = serde_json::from_str(&text).unwrap();
    let setting = |value: Value, source: &str| json!({"value": value, "source": source});
    assert_eq!(shown["site"], setting(json!("fra"), "--site"));
    assert_eq!(shown["cluster"], setting(json!("shop"), file.to_str().unwrap()));
    assert_eq!(shown["mysql"], setting(json!("mysql://u:***@h:3306/d"), "LASTWORD_MYSQL"));
    assert_eq!(shown["peer"], setting(json!(["http://a:1", "http://b:1"]), "--peer"));
    assert_eq!(shown["insecure"], setting(json!("true"), "--insecure"));
    assert_eq!(shown["sequence.offset"], setting(json!("1"), file.to_str().unwrap()));
    assert_eq!(shown["limits.read_wait_max"], setting(json!("2s"), "default"));

    // What serve would refuse is shown all the same, then refused.
    let output = program().args(["config", "--site", "fra"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("data                        (not set)       default\n"), "{text}");
    assert!(output.stderr.starts_with(b"error: data: missing: give --data DIR"));
}

#[tokio::test]
async fn help_and_version_go_to_stdout() {
    for arguments in [&["--help"][..], &["--version"], &["get", "--help"], &["help", "scan"]] {
        let output = program().args(arguments).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert!(!output.stdout.is_empty() && output.stderr.is_empty());
    }
    let output = program().output().await.unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[tokio::test]
async fn compact_needs_a_store_that_is_there_and_tells_what_it_saved() {
    let folder = tempfile::tempdir().unwrap();
    let compact = || {
        let mut command = program();
        command.args(["compact", "--json", "--data"]).arg(folder.path());
        command
    };
    let text = complaint(&compact().output().await.unwrap(), 1);
    assert!(text.contains("there is no store in this folder"), "{text}");

    let config = StoreConfig::new(Origin::from_bytes([1; 16]), 7);
    let (store, writer) = Store::open(folder.path(), &config).unwrap();
    let text = complaint(&compact().output().await.unwrap(), 1);
    assert!(text.contains("stop that lastword first"), "{text}");
    drop((store, writer));

    let output = compact().output().await.unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["rows"], 0);
    assert!(report["after_bytes"].as_u64().unwrap() <= report["before_bytes"].as_u64().unwrap());
}

fn verified(result: proto::VerifyResult) -> Vec<Result<proto::VerifyResponse, tonic::Status>> {
    use proto::verify_response::Event;
    let progress = proto::VerifyProgress { rows: 7, ..proto::VerifyProgress::default() };
    let events = [Event::Progress(progress), Event::Result(result)];
    events.map(|event| Ok(proto::VerifyResponse { event: Some(event) })).into()
}

#[tokio::test]
async fn verify_tells_of_equal_nodes_in_one_line() {
    let node = FakeNode::start("fra").await;
    node.state().verify = verified(proto::VerifyResult {
        through: Some(EXPIRY),
        rows: 1_234_567,
        bytes: 3_072,
        in_flux: 3,
        ..proto::VerifyResult::default()
    });
    assert_eq!(
        done_text(&node, &["verify", "--peer", "nyc"]).await,
        "equal: every write up to 2026-01-02T03:04:05.678Z is on both sides; 1,234,567 rows compared, \
         3.00 KiB exchanged, 3 on their way\n"
    );
}

#[tokio::test]
async fn verify_shows_each_row_that_differs_and_fails() {
    let node = FakeNode::start("fra").await;
    let origin = hex_origin();
    let version = |hlc| Some(proto::Version { hlc, origin: origin.clone() });
    let state = |hlc, value_bytes| proto::RowState {
        version: version(hlc),
        value_bytes,
        ..proto::RowState::default()
    };
    let difference =
        |key: &'static str, kind: proto::RowDifferenceKind, here, there| proto::RowDifference {
            table: "t".into(),
            key: key.into(),
            kind: kind.into(),
            here,
            there,
            undecided_reason: String::new(),
        };
    use proto::RowDifferenceKind::{NewerThere, OnlyHere, Unequal};
    let damaged = proto::RowState { damaged: true, ..proto::RowState::default() };
    let deleted = proto::RowState { deleted: true, ..state(9, 0) };
    let undecided = proto::RowDifference {
        undecided_reason: "say which\nis right".into(),
        ..difference("c", Unequal, Some(state(5, 1)), Some(damaged))
    };
    node.state().verify = verified(proto::VerifyResult {
        through: Some(EXPIRY),
        rows: 1,
        differing: 5,
        differences: vec![
            difference("a\tb", OnlyHere, Some(state(5, 1_000)), None),
            difference("b", NewerThere, Some(state(5, 1)), Some(deleted)),
            undecided,
        ],
        repaired: 2,
        ..proto::VerifyResult::default()
    });
    let output = run(&node, &["verify", "--peer", "nyc"]).await;
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            "t\ta\\tb\tonly_here\t5@{ORIGIN_TEXT} 1,000 bytes\tnothing\n\
             t\tb\tnewer_there\t5@{ORIGIN_TEXT} 1 bytes\tdeleted 9@{ORIGIN_TEXT}\n\
             t\tc\tunequal\t5@{ORIGIN_TEXT} 1 bytes\tdamaged no version\tsay which is right\n\
             ... and 2 more\n\
             not equal, 5 rows differ, 2 repaired: every write up to 2026-01-02T03:04:05.678Z is on \
             both sides; 1 row compared, 0 B exchanged, 0 on their way\n"
        )
    );
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: 5 rows differ from nyc: --repair puts them right\n"
    );
    assert_eq!(output.status.code(), Some(1));
    // What could not be told apart is not equal.
    node.state().verify =
        verified(proto::VerifyResult { unjudged: 2, ..proto::VerifyResult::default() });
    let output = run(&node, &["verify", "--peer", "nyc", "--json"]).await;
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["equal"], &report["unjudged"]), (&json!(false), &json!(2)));
    assert_eq!(output.status.code(), Some(1));
    let output = run(&node, &["verify", "--peer", "nyc", "--prefer", "here"]).await;
    complaint(&output, 2);
}

fn hex_origin() -> bytes::Bytes {
    let origin: Origin = ORIGIN_TEXT.parse().unwrap();
    bytes::Bytes::copy_from_slice(origin.as_bytes())
}
