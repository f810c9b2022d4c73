//! What operators do with records, by the program itself and with real nodes: conflicts that are looked
//! at and taken back, deltas that are carried as files.

mod common;

use std::time::Duration;

use common::{
    node::Node,
    program::{at, complaint, done, json, program, status, value_of},
    wait::until,
};
use lastword::{
    delta_file::Writer,
    model::{Body, BodyParts, Context, Heads, Hlc, Key, Origin, Row, TableName, Version},
    node::{SystemClock, WallClock},
    protocol::CarriedHeader,
    wire::{carried::carried_rows_out, proto::DeltaFileHeader},
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(json).collect()
}

/// Two nodes that have never met write the same keys; both writes meet at both of them, then they are
/// linked.
fn met_after_conflicts(keys: &[(&str, &str, &str)]) -> (Node, Node) {
    let fra = Node::new("fra").start();
    let mut nyc = Node::new("nyc").start();
    for (key, at_fra, at_nyc) in keys {
        done(&at(&fra.url(), &["put", "t", key, at_fra]));
        done(&at(&nyc.url(), &["put", "t", key, at_nyc]));
    }
    // Over a link the first to merge may leave nothing to meet for the other.
    let carried = Carried::new();
    let (of_fra, of_nyc) = (carried.path("fra.lwd"), carried.path("nyc.lwd"));
    export(&fra.url(), "nothing", &of_fra);
    export(&nyc.url(), "nothing", &of_nyc);
    for (node, file) in [(&nyc, of_fra), (&fra, of_nyc)] {
        assert_eq!(import(&node.url(), &file)["conflicts"], keys.len());
    }
    nyc.kill9();
    let mut nyc = nyc.peer(&fra.url());
    nyc.restart();
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

/// A file in a folder of its own.
struct Carried {
    folder: tempfile::TempDir,
}

impl Carried {
    fn new() -> Carried {
        Carried { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// The only files there are.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn export(url: &str, since: &str, file: &str) -> Value {
    json(&done(&at(url, &["export", "--json", "--since", since, file])))
}

fn import(url: &str, file: &str) -> Value {
    json(&done(&at(url, &["import", "--json", file])))
}

/// Every row of the table, byte for byte, with versions and expiry.
fn rows(url: &str) -> String {
    done(&at(url, &["scan", "t", "--json"]))
}

#[test]
fn sites_without_a_line_converge_by_files_carried_both_ways() {
    let (fra_node, nyc_node) = (Node::new("fra").start(), Node::new("nyc").start());
    let (fra, nyc) = (fra_node.url(), nyc_node.url());
    let carried = Carried::new();
    let value = "v".repeat(100_000);
    for n in 0..12 {
        done(&at(&fra, &["put", "t", &format!("fra-{n}"), &value]));
        done(&at(&nyc, &["put", "t", &format!("nyc-{n}"), &value]));
    }
    for (key, ttl) in [("both", "1h"), ("gone", "2h")] {
        done(&at(&fra, &["put", "t", key, "from fra", "--ttl", ttl]));
        done(&at(&nyc, &["put", "t", key, "from nyc"]));
    }
    done(&at(&nyc, &["delete", "t", "gone"]));

    let first = carried.path("first.lwd");
    let exported = export(&fra, "nothing", &first);
    assert_eq!(
        (&exported["rows"], &exported["since"]),
        (&15.into(), &"h1.".into()),
        "and fra's member row"
    );
    assert!(exported["bytes"].as_u64().unwrap() < 50_000, "compressed: {exported}");
    assert_eq!(carried.names(), ["first.lwd"]);
    let imported = import(&nyc, &first);
    assert_eq!((&imported["claimed"], &imported["conflicts"]), (&true.into(), &2.into()));
    assert_eq!(value_of(&nyc, "fra-7"), Some(value));
    // What import prints names what is here: nothing is left to send from there on.
    let again = carried.path("again.lwd");
    assert_eq!(export(&fra, imported["heads"].as_str().unwrap(), &again)["rows"], 0);
    std::fs::remove_file(again).unwrap();

    // What nyc was told by the file, fra need not be sent back; and nobody had to say what fra has.
    let second = carried.path("second.lwd");
    assert_eq!(export(&nyc, "fra", &second)["rows"], 15);
    assert_eq!(import(&fra, &second)["conflicts"], 2);
    assert_eq!(rows(&fra), rows(&nyc));
    assert!(!rows(&fra).is_empty());
    let conflicts = |url: &str| done(&at(url, &["conflicts", "list", "--json"]));
    assert_eq!(conflicts(&fra), conflicts(&nyc), "the same two losers");

    // The same file again does nothing.
    let before = (rows(&nyc), status(&nyc)["node"]["conflicts_recorded"].clone());
    let again = import(&nyc, &first);
    assert_eq!((&again["rows"], &again["rows_stored"]), (&15.into(), &0.into()));
    assert_eq!((&again["conflicts"], &again["claimed"]), (&0.into(), &true.into()));
    assert_eq!((rows(&nyc), status(&nyc)["node"]["conflicts_recorded"].clone()), before);

    // From now on a file holds what changed, and goes on where the other site stands.
    done(&at(&fra, &["put", "t", "both", "later"]));
    let third = carried.path("third.lwd");
    assert_eq!(export(&fra, "nyc", &third)["rows"], 1);
    let fourth = carried.path("fourth.lwd");
    let by_heads = export(&fra, imported["heads"].as_str().unwrap(), &fourth);
    assert!(by_heads["rows"].as_u64().unwrap() >= 1, "{by_heads}");
    let text = done(&at(&nyc, &["import", &third]));
    assert!(
        text.starts_with("from fra: 1 row, 1 of them new here, 0 conflicts recorded\n"),
        "{text}"
    );
    assert_eq!(value_of(&nyc, "both").as_deref(), Some("later"));
    assert_eq!(rows(&fra), rows(&nyc));
}

#[test]
fn a_file_that_is_not_for_a_node_is_refused_with_the_way_out() {
    let fra_node = Node::new("fra").start();
    let mut nyc_node = Node::new("nyc").start();
    let lon_node = Node::new("lon").start();
    let blog_node = Node::new("blog").flag("--cluster", "blog").start();
    let (fra, nyc, lon) = (fra_node.url(), nyc_node.url(), lon_node.url());
    let carried = Carried::new();
    let (whole, gap) = (carried.path("whole.lwd"), carried.path("gap.lwd"));
    done(&at(&fra, &["put", "t", "k", "v"]));
    export(&fra, "nothing", &whole);
    import(&nyc, &whole);
    let back = carried.path("back.lwd");
    export(&nyc, "fra", &back);
    import(&fra, &back);
    // What a site is known to have outlives the process.
    nyc_node.restart();
    export(&nyc, "fra", &back);
    done(&at(&fra, &["put", "t", "l", "v"]));
    export(&fra, "nyc", &gap);

    let text = complaint(&at(&lon, &["import", &gap]), 1);
    assert!(text.contains("there is a gap") && value_of(&lon, "l").is_none(), "{text}");
    let since = text.trim_end().rsplit(' ').next().unwrap();
    export(&fra, since, &gap);
    assert_eq!(import(&lon, &gap)["claimed"], true);
    assert_eq!(rows(&lon), rows(&fra));

    let text = complaint(&at(&fra, &["import", &whole]), 1);
    assert!(text.contains("this node wrote it itself"), "{text}");
    let text = complaint(&at(&blog_node.url(), &["import", &whole]), 1);
    assert!(text.contains("from cluster \"lastword\""), "{text}");
    let text = complaint(&at(&fra, &["export", "--since", "par", &gap]), 1);
    assert!(text.contains("known: nyc;"), "{text}");
    let text = complaint(&at(&lon, &["export", "--since", "h1.x", &gap]), 1);
    assert!(text.contains("heads: not heads as text"), "{text}");
    // A file that cannot be written is no half a file.
    let nowhere = carried.path("no/such/folder.lwd");
    complaint(&at(&fra, &["export", "--since", "nothing", &nowhere]), 1);
}

#[test]
fn a_file_that_was_cut_or_altered_is_refused_before_anything_is_merged() {
    let (fra_node, nyc_node) = (Node::new("fra").start(), Node::new("nyc").start());
    let (fra, nyc) = (fra_node.url(), nyc_node.url());
    let carried = Carried::new();
    let file = carried.path("file.lwd");
    // Several blocks: those before the fault are sound.
    for n in 0..20 {
        let letter = |i: u64| char::from(b'a' + u8::try_from((i * i + n) % 23).unwrap());
        let value: String = (0..100_000).map(letter).collect();
        done(&at(&fra, &["put", "t", &format!("k{n}"), &value]));
    }
    export(&fra, "nothing", &file);
    let sound = std::fs::read(&file).unwrap();
    let before = status(&nyc)["node"]["rows"].clone();
    let bad = carried.path("bad.lwd");
    let altered_at = |at: usize| {
        let mut altered = sound.clone();
        altered[at] ^= 1;
        altered
    };
    let (middle, end) = (altered_at(sound.len() / 2), altered_at(sound.len() - 1));
    let cut = &sound[..sound.len() - 1];
    for (bytes, what) in [(cut, "cut short"), (&middle, "altered"), (&end, "altered")] {
        std::fs::write(&bad, bytes).unwrap();
        let text = complaint(&at(&nyc, &["import", &bad]), 1);
        assert!(text.contains(what), "{text}");
        assert_eq!(status(&nyc)["node"]["rows"], before, "nothing was merged");
    }
    std::fs::write(&bad, "something else").unwrap();
    let text = complaint(&at(&nyc, &["import", &bad]), 1);
    assert!(text.contains("not a delta file"), "{text}");
    let text = complaint(&at(&nyc, &["import", &carried.path("nothing.lwd")]), 1);
    assert!(text.contains("cannot read"), "{text}");
    assert_eq!(import(&nyc, &file)["claimed"], true);
}

/// A file of another store, with these rows of its own.
fn file_of_another(path: &str, cluster: &str, rows: &[(&str, Hlc)]) {
    let origin = Origin::from_bytes([7; 16]);
    let row = |&(key, hlc): &(&str, Hlc)| Row {
        table: TableName::of_client("t").unwrap(),
        key: Key::new(key.to_owned()).unwrap(),
        body: Body::new(&BodyParts {
            version: Version { hlc, origin },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(&[b'v'; 1_000]),
        }),
    };
    let heads: Heads = rows.iter().map(|&(_, hlc)| (origin, hlc)).collect();
    let header = CarriedHeader {
        cluster: cluster.into(),
        site: "par".into(),
        origin,
        heads,
        ..CarriedHeader::default()
    };
    let out = std::fs::File::create(path).unwrap();
    let mut writer = Writer::new(out, &DeltaFileHeader::from(header)).unwrap();
    // A block for each row.
    for one in rows {
        writer.rows(&carried_rows_out(&vec![row(one)].into())).unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn rows_of_a_clock_that_runs_ahead_are_told_of_and_nothing_is_claimed() {
    let fra = Node::new("fra").start();
    let carried = Carried::new();
    let file = carried.path("ahead.lwd");
    let now_ms = SystemClock.now_ms();
    let ahead = Hlc::at_ms(now_ms + 3_600_000);
    file_of_another(&file, "lastword", &[("sound", Hlc::at_ms(now_ms)), ("ahead", ahead)]);
    let before = status(&fra.url())["node"]["heads"].as_array().unwrap().len();
    let output = program(&at(&fra.url(), &["import", "--json", &file]));
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.starts_with("error: 1 row held back") && text.contains("nothing is claimed"),
        "{text}"
    );
    assert!(text.contains(" again in 59m "), "{text}");
    let report = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!((&report["claimed"], &report["rows_stored"]), (&false.into(), &1.into()));
    assert!(value_of(&fra.url(), "sound").is_some() && value_of(&fra.url(), "ahead").is_none());
    assert_eq!(status(&fra.url())["node"]["heads"].as_array().unwrap().len(), before);
}

#[test]
fn a_node_that_is_killed_in_the_middle_of_an_import_claims_nothing_and_takes_the_file_again() {
    const ROWS: u64 = 20_000;
    let mut fra = Node::new("fra").start();
    let carried = Carried::new();
    let file = carried.path("long.lwd");
    let then_ms = SystemClock.now_ms() - 3_600_000;
    let keys: Vec<String> = (0..ROWS).map(|n| format!("k{n:06}")).collect();
    let rows: Vec<(&str, Hlc)> =
        keys.iter().zip(0..).map(|(key, n)| (key.as_str(), Hlc::at_ms(then_ms + n))).collect();
    file_of_another(&file, "lastword", &rows);
    let url = fra.url();
    // A refusal is told, however much of the file is on its way.
    let other = carried.path("other.lwd");
    file_of_another(&other, "blog", &rows);
    let text = complaint(&at(&url, &["import", &other]), 1);
    assert!(text.contains("from cluster \"blog\""), "{text}");

    std::thread::scope(|scope| {
        let importing = scope.spawn(|| program(&at(&url, &["import", &file])));
        until("some rows", LIMIT, || {
            (status(&url)["node"]["rows"].as_u64().unwrap() > 100).then_some(())
        });
        fra.kill9();
        let output = importing.join().unwrap();
        assert_eq!(output.status.code(), Some(1), "it cannot have been through already");
    });
    fra.restart();
    let node = &status(&url)["node"];
    assert!(node["rows"].as_u64().unwrap() < ROWS, "{node}");
    assert_eq!(node["heads"].as_array().unwrap().len(), 1, "nothing is claimed: {node}");
    let imported = import(&url, &file);
    assert_eq!((&imported["rows"], &imported["claimed"]), (&ROWS.into(), &true.into()));
    assert_eq!(status(&url)["node"]["rows"].as_u64(), Some(ROWS + 1), "and its member row");
}
