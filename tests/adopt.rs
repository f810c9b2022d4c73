//! Tables that were there before lastword came: taken in at one site, and made one with it at another.
//!
//! What must hold: no row that stood in either database is lost unseen, whoever wins is as was said, and
//! nothing that an application writes meanwhile is lost, whatever is killed.

mod common;
#[allow(dead_code, reason = "shared with the tests of two databases under plain SQL")]
#[path = "tables/load.rs"]
mod load;
#[allow(dead_code, reason = "shared with the tests of two databases under plain SQL")]
#[path = "tables/world.rs"]
mod world;

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    mariadb::MariaDb,
    node::Node,
    program::{at, complaint, done, json},
    wait::until,
};
use load::{Load, Transaction};
use rand::{RngExt, rngs::SmallRng};
use serde_json::{Value, json};
use world::Pair;

const LIMIT: Duration = Duration::from_secs(60);
const SHOP: &str = "
CREATE TABLE items (id INT NOT NULL PRIMARY KEY, v VARCHAR(60), updated_at DATETIME(3) NULL);
CREATE TABLE stock (a INT NOT NULL, b VARCHAR(20) COLLATE utf8mb4_nopad_bin NOT NULL, n BIGINT NOT NULL,
  PRIMARY KEY (a, b));
CREATE TABLE events (id VARCHAR(40) COLLATE utf8mb4_nopad_bin NOT NULL PRIMARY KEY, what VARCHAR(100));
";

/// Rows of both tables, as a site has them.
fn rows(items: &[(i32, &str, &str)], lines: &[(i32, &str, i64)]) -> String {
    let items = items.iter().map(|(id, v, at)| {
        let at = if at.is_empty() { "NULL".to_owned() } else { format!("'2024-02-29 12:{at}'") };
        format!("INSERT INTO items VALUES ({id}, '{v}', {at});")
    });
    let lines =
        lines.iter().map(|(a, b, n)| format!("INSERT INTO stock VALUES ({a}, '{b}', {n});"));
    items.chain(lines).collect()
}

/// Both databases loaded; fra has taken its rows in, and nyc, which has rows of its own, has had them.
fn diverged(tables: &[&str], fra: &str, nyc: &str) -> Pair {
    let mut pair = Pair::start("shop", &[SHOP, fra], &[SHOP, nyc]);
    pair.sites[0].node.restart();
    for table in tables {
        let url = pair.sites[0].node.url();
        let taken_in = json(&done(&at(&url, &["import", "--mysql", table, "--json"])));
        assert_eq!(taken_in["table"], **table);
    }
    pair.sites[1].node.restart();
    pair.sites[1].node.wait_ready();
    for table in tables {
        waits(&pair, table);
    }
    pair
}

/// Waits until nyc waits for somebody to say which rows of a table are right.
#[track_caller]
fn waits(pair: &Pair, table: &str) {
    until("the wait", LIMIT, || (state(pair, table) == "wait").then_some(()));
}

/// What nyc's MySQL says of a captured table.
fn state(pair: &Pair, table: &str) -> String {
    let sql = format!("SELECT state FROM _lastword_captured WHERE tbl = '{table}'");
    let rows = pair.sites[1].mariadb.try_sql("shop", &sql).unwrap_or_default();
    rows.first().map(|row| row[0].clone()).unwrap_or_default()
}

/// Runs `lastword adopt` at nyc.
#[track_caller]
fn adopt(pair: &Pair, table: &str, flags: &[&str]) -> Value {
    let url = pair.sites[1].node.url();
    json(&done(&at(&url, &[&["adopt", "--table", table, "--json"], flags].concat())))
}

fn numbers(result: &Value) -> [u64; 7] {
    ["only_mysql", "only_store", "equal", "different", "mysql_wins", "store_wins", "written_since"]
        .map(|name| result[name].as_u64().unwrap_or_else(|| panic!("{name}: {result}")))
}

/// The rows that lost, by key: where they stood, and their column `v` or `n`.
fn losers(pair: &Pair, table: &str) -> BTreeMap<String, (String, Value)> {
    let sql = format!("SELECT k, stood_in, v FROM _lastword_adopted WHERE tbl = '{table}'");
    let rows = pair.sites[1].mariadb.sql("shop", &sql);
    rows.into_iter()
        .map(|row| {
            let object: Value = serde_json::from_str(&row[2]).unwrap();
            let value = object.get("v").or(object.get("n")).unwrap().clone();
            (row[0].clone(), (row[1].clone(), value))
        })
        .collect()
}

#[test]
fn what_has_diverged_becomes_one_row_by_row() {
    let fra = [
        (1, "same", "00:00.000"),
        (2, "newer at fra", "05:00.000"),
        (3, "older at fra", "01:00.000"),
        (4, "at one time, fra", "01:00.000"),
        (5, "no time at nyc", "01:00.000"),
        (6, "no time at fra", ""),
        (7, "only fra", "01:00.000"),
        (10, "only fra, too", "01:00.000"),
    ];
    let nyc = [
        (1, "same", "00:00.000"),
        (2, "older at nyc", "04:59.999"),
        (3, "newer at nyc", "01:00.001"),
        (4, "at one time, nyc", "01:00.000"),
        (5, "no time at nyc", ""),
        (6, "no time at fra", "01:00.000"),
        (8, "only nyc", "01:00.000"),
    ];
    let fra_lines = [(1, "x", 5), (1, "y", 5), (2, "x", 9), (10, "z", 1)];
    let nyc_lines = [(1, "x", 5), (1, "y", 6), (2, "x", 8), (3, "only", 1)];
    let pair = diverged(&["items", "stock"], &rows(&fra, &fra_lines), &rows(&nyc, &nyc_lines));
    let before = pair.sites[1].mariadb.sql("shop", "SELECT * FROM items ORDER BY id");

    // Looking changes nothing, and says how it is.
    let looked = adopt(&pair, "items", &[]);
    assert_eq!(numbers(&looked), [1, 2, 1, 5, 0, 0, 0], "{looked}");
    let looked = adopt(&pair, "items", &["--newer-by", "updated_at"]);
    assert_eq!(numbers(&looked), [1, 2, 1, 5, 2, 3, 0], "{looked}");
    let example =
        json!({"key": "2", "kind": "different", "columns": ["v", "updated_at"], "winner": "store"});
    assert!(looked["examples"].as_array().unwrap().contains(&example), "{looked}");
    let example = json!({"key": "10", "kind": "only_store", "columns": []});
    assert!(looked["examples"].as_array().unwrap().contains(&example), "{looked}");
    assert_eq!(numbers(&adopt(&pair, "items", &["--keep", "mysql"])), [1, 2, 1, 5, 5, 0, 0]);
    assert_eq!(numbers(&adopt(&pair, "stock", &["--keep", "store"])), [1, 1, 1, 2, 0, 2, 0]);
    let url = pair.sites[1].node.url();
    for (flags, says) in [
        (&["--newer-by", "v"][..], "the column v of the table items is varchar(60)"),
        (&["--newer-by", "gone"], "has no column gone"),
        (&["--apply"], "--newer-by COLUMN, or --keep mysql|store"),
    ] {
        let asked = [&["adopt", "--table", "items"], flags].concat();
        let said = complaint(&at(&url, &asked), 1);
        assert!(said.contains(says), "{said}");
    }
    let said = complaint(&at(&url, &["import", "--mysql", "items"]), 1);
    assert!(said.contains("lastword adopt --table items"), "{said}");
    assert_eq!((state(&pair, "items"), state(&pair, "stock")), ("wait".into(), "wait".into()));
    assert_eq!(pair.sites[1].mariadb.sql("shop", "SELECT * FROM items ORDER BY id"), before);
    assert!(losers(&pair, "items").is_empty());

    // An application goes on before anybody has decided: what it writes is this site's.
    pair.sites[1].mariadb.sql(
        "shop",
        "UPDATE items SET v = 'written since' WHERE id = 2; DELETE FROM items WHERE id = 5",
    );
    let applied = adopt(&pair, "items", &["--newer-by", "updated_at", "--apply"]);
    assert_eq!(numbers(&applied), [1, 3, 1, 4, 2, 1, 1], "{applied}");
    assert_eq!(applied["was_done"], false);
    let applied = adopt(&pair, "stock", &["--keep", "store", "--apply"]);
    assert_eq!(numbers(&applied), [1, 1, 1, 2, 0, 2, 0], "{applied}");

    let dump = pair.until_equal();
    let items: Vec<_> = dump["items"].iter().map(|row| (&*row[0], &*row[1])).collect();
    let expected = [
        ("1", "same"),
        ("2", "written since"),
        ("3", "newer at nyc"),
        ("4", "at one time, fra"),
        ("6", "no time at fra"),
        ("7", "only fra"),
        ("8", "only nyc"),
        ("10", "only fra, too"),
    ];
    assert_eq!(items, expected);
    assert_eq!(dump["items"][4][2], "2024-02-29 12:01:00.000");
    let lines: Vec<_> = dump["stock"].iter().map(|row| row.join(" ")).collect();
    assert_eq!(lines, ["1 x 5", "1 y 5", "2 x 9", "3 only 1", "10 z 1"]);

    // And each row that lost is kept.
    let kept = losers(&pair, "items");
    let row =
        |key: &str, stood_in: &str, v: &str| (key.to_owned(), (stood_in.to_owned(), json!(v)));
    let expected = [
        row("2", "store", "newer at fra"),
        row("3", "store", "older at fra"),
        row("4", "mysql", "at one time, nyc"),
        row("6", "store", "no time at fra"),
    ];
    assert_eq!(kept, BTreeMap::from(expected));
    let kept: Vec<_> = losers(&pair, "stock").into_values().collect();
    assert_eq!(kept, [("mysql".into(), json!(6)), ("mysql".into(), json!(8))]);
    // What the store had is in the journal, too: nyc had never seen it.
    let conflicts = done(&at(&url, &["conflicts", "list", "--table", "items", "--json"]));
    let mut keys: Vec<_> = conflicts.lines().map(|line| json(line)["key"].clone()).collect();
    keys.sort_by_key(Value::to_string);
    assert_eq!(keys, ["2", "3", "5", "6"], "{conflicts}");

    // Asked for once more it is done; asked for otherwise there is nothing to do.
    let again = adopt(&pair, "items", &["--newer-by", "updated_at", "--apply"]);
    assert_eq!((&again["was_done"], again["different"].as_u64()), (&json!(true), Some(4)));
    let said = complaint(&at(&url, &["adopt", "--table", "items"]), 1);
    assert!(said.contains("nothing to adopt"), "{said}");
}

/// What an application does while its tables are adopted.
fn statements(random: &mut SmallRng, site: usize, number: u64) -> Transaction {
    let id = random.random_range(1..=7_200);
    let change = match random.random_range(0..4) {
        0 => format!("DELETE FROM items WHERE id = {id}"),
        1 => format!("REPLACE INTO items VALUES ({id}, 'again {site} {number}', NOW(3))"),
        _ => format!(
            "UPDATE items SET v = 'app {site} {number}', updated_at = NOW(3) WHERE id = {id}"
        ),
    };
    let event = format!("{site}-{number}");
    let noted = format!("INSERT INTO events VALUES ('{event}', 'item {id}')");
    Transaction { statements: vec![change, noted], event: Some(event) }
}

#[test]
fn applications_that_write_and_a_node_that_is_killed_meanwhile_lose_nothing() {
    let fra = "INSERT INTO items SELECT seq, CONCAT('fra ', seq), '2024-02-29 12:00:00.000' \
               FROM seq_1_to_6000";
    let nyc = "INSERT INTO items SELECT seq, IF(seq % 3, CONCAT('fra ', seq), 'nyc'), \
               '2024-02-29 12:00:00.000' + INTERVAL seq % 2 SECOND FROM seq_1201_to_7200";
    let mut pair = diverged(&["items"], fra, nyc);
    let looked = adopt(&pair, "items", &["--newer-by", "updated_at"]);
    let [only_mysql, only_store, equal, different, mysql_wins, store_wins, _] = numbers(&looked);
    assert_eq!([only_mysql, only_store, equal + different], [1_200, 1_200, 4_800]);
    assert_eq!((equal, mysql_wins, store_wins), (1_600, 2_400, 800));

    let load = Load::start(&pair, 1, 7, statements);
    let url = pair.sites[1].node.url();
    let adopting = ["adopt", "--table", "items", "--newer-by", "updated_at", "--apply", "--json"];
    for _ in 0..2 {
        let mut asking = Command::new(env!("CARGO_BIN_EXE_lastword"))
            .args(at(&url, &adopting))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let before = compared(&pair);
        until("some rows to be compared", LIMIT, || {
            let is_on = state(&pair, "items") == "on";
            (is_on || compared(&pair) != before).then_some(())
        });
        assert_eq!((&*state(&pair, "items"), pair.sites[1].node.try_wait()), ("adopt", None));
        pair.sites[1].node.kill9();
        assert!(!asking.wait().unwrap().success());
        assert_eq!(state(&pair, "items"), "adopt", "it was killed under way");
        pair.sites[1].node.restart();
    }
    let adopted = json(&done(&at(&url, &adopting)));
    let acknowledged = load.stop();
    let dump = pair.until_equal();
    let missing = acknowledged.missing(&dump["events"]);
    assert!(missing.is_empty(), "acknowledged, and gone: {missing:?}");
    assert!(acknowledged.done > 50, "{} transactions", acknowledged.done);

    // Rows that nobody wrote meanwhile are as was said, and each that lost is kept, once.
    let [only_mysql, _, equal, different, mysql_wins, store_wins, written_since] =
        numbers(&adopted);
    assert_eq!(different, mysql_wins + store_wins + written_since, "{adopted}");
    assert!(only_mysql + equal + different > 5_000, "{adopted}");
    let sql = "SELECT COUNT(*), COUNT(DISTINCT k) FROM _lastword_adopted WHERE tbl = 'items'";
    let kept = pair.sites[1].mariadb.sql("shop", sql);
    assert_eq!(kept, [[different.to_string(), different.to_string()]]);
    let written: std::collections::HashSet<&str> =
        dump["events"].iter().filter_map(|row| row[1].strip_prefix("item ")).collect();
    let items: BTreeMap<&str, &Vec<String>> =
        dump["items"].iter().map(|row| (&*row[0], row)).collect();
    let mut judged = 0;
    for id in 1..=7_200 {
        let text = id.to_string();
        if written.contains(&*text) {
            continue;
        }
        // nyc's is later where its number is odd, and elsewhere fra's is right.
        let is_nyc = id > 6_000 || (id > 1_200 && id % 2 == 1);
        let v = if is_nyc && id % 3 == 0 { "nyc".to_owned() } else { format!("fra {id}") };
        let second = if id > 1_200 && is_nyc { id % 2 } else { 0 };
        let row = items.get(&*text).unwrap_or_else(|| panic!("{id} is gone"));
        assert_eq!(row[1..], [v, format!("2024-02-29 12:00:0{second}.000")], "{id}");
        judged += 1;
    }
    assert!(judged > 3_000, "{judged} rows");
}

/// Up to which key nyc has compared.
fn compared(pair: &Pair) -> String {
    let sql = "SELECT COALESCE(touched, '') FROM _lastword_captured WHERE tbl = 'items'";
    pair.sites[1].mariadb.sql("shop", sql)[0][0].clone()
}

#[test]
fn a_large_table_is_taken_in_while_its_application_writes() {
    let mariadb = MariaDb::start();
    let url = mariadb.url("shop");
    mariadb.script("shop", SHOP);
    mariadb.sql("shop", "INSERT INTO items SELECT seq, 'before', NULL FROM seq_1_to_10000");
    let settings = tempfile::tempdir().unwrap();
    let file = settings.path().join("lastword.toml");
    let setting = "[[table]]\nname = \"items\"\nmirror = \"columns\"\ncapture = true\n";
    std::fs::write(&file, setting).unwrap();
    let node = Node::new("fra").mysql(&url).flag("--config", file.to_str().unwrap()).start();
    // Some before it is through, some after.
    let import = std::thread::scope(|scope| {
        let import =
            scope.spawn(|| done(&at(&node.url(), &["import", "--mysql", "items", "--json"])));
        for n in 0..20 {
            let id = 1 + n * 500;
            mariadb.sql(
                "shop",
                &format!(
                    "UPDATE items SET v = 'meanwhile' WHERE id = {id}; \
                     DELETE FROM items WHERE id = {id} + 1; \
                     INSERT INTO items VALUES ({id} + 100000, 'new', NULL)"
                ),
            );
        }
        import.join().unwrap()
    });
    let import = json(&import);
    assert!(import["rows"].as_u64().unwrap() >= 9_980, "{import}");
    let outbox = "SELECT COUNT(*) FROM _lastword_capture_items";
    until("the hand-over of all", LIMIT, || (mariadb.sql("shop", outbox) == [["0"]]).then_some(()));
    let keys = done(&at(&node.url(), &["scan", "items", "--json"]));
    let stored: BTreeMap<String, Value> = keys
        .lines()
        .map(|line| {
            let row = json(line);
            let value: Value = serde_json::from_str(row["value"].as_str().unwrap()).unwrap();
            (row["key"].as_str().unwrap().to_owned(), value["v"].clone())
        })
        .collect();
    let rows = mariadb.sql("shop", "SELECT id, v FROM items");
    let here: BTreeMap<String, Value> =
        rows.into_iter().map(|row| (row[0].clone(), json!(row[1]))).collect();
    assert_eq!(stored.len(), 10_000);
    assert!(stored == here, "what the store has differs from MySQL");

    let refused = |arguments: &[&str]| complaint(&at(&node.url(), arguments), 1);
    let says = refused(&["import", "--mysql", "stock"]);
    assert!(
        says.contains("set [[table]] name = \"stock\"") && says.contains("capture = true"),
        "{says}"
    );
    let says = refused(&["adopt", "--table", "items"]);
    assert!(says.contains("nothing to adopt"), "{says}");
    let says = refused(&["import", "--mysql", "No Table"]);
    assert!(says.contains("is not a table name"), "{says}");
    let without = Node::new("lon").start();
    let says = complaint(&at(&without.url(), &["import", "--mysql", "items"]), 1);
    assert!(says.contains("set mysql, and capture = true in a [[table]]"), "{says}");
    let neither = complaint(&at(&without.url(), &["import"]), 2);
    assert!(neither.contains("<FILE>"), "{neither}");
}
