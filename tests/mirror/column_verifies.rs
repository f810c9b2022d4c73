//! The comparison of column tables: each type's value by what it is, whatever its text; every row that somebody
//! changed, took away or added is found, and put right.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use lastword::{
    mirror::{Config, Form, TableSetting},
    node::MirrorWrong,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    common::{mariadb::MariaDb, wait::until},
    verifies::{assert_equal, kinds, verify},
    world::{LIMIT, Running, World, config, delete, put, put_for, shared},
};

const FILM: &str = "CREATE TABLE film (id INT UNSIGNED NOT NULL, \
    lang CHAR(2) CHARACTER SET ascii COLLATE ascii_bin NOT NULL, \
    title VARCHAR(100) CHARACTER SET latin1, note TEXT, rate DECIMAL(20,4), single FLOAT, \
    fixed FLOAT(7,2), ratio DOUBLE, made YEAR, day DATE, moment DATETIME(6), stamp TIMESTAMP(3) NULL, \
    span TIME(2), rating ENUM('G','PG-13','it''s'), features SET('a','b','c'), bits BIT(33), \
    code BINARY(4), body LONGBLOB, place GEOMETRY, uid UUID, ip INET6, small TINYINT, big BIGINT, \
    number INT(6) UNSIGNED ZEROFILL, price DECIMAL(10,2) ZEROFILL, extra JSON, \
    twice INT AS (small * 2), kind VARCHAR(10) NOT NULL DEFAULT 'x''y', PRIMARY KEY (id, lang)) \
    ENGINE=InnoDB DEFAULT CHARSET utf8mb4";
const LANGS: [&str; 3] = ["de", "en", "fr"];
/// Rows that the load writes have these numbers.
const BUSY: std::ops::Range<usize> = 50_000..50_300;

fn columns(mariadb: &MariaDb, database: &str, tables: &[&str]) -> Config {
    let setting = |name: &&str| TableSetting {
        name: (*name).to_owned(),
        form: Form::Columns,
        ..TableSetting::default()
    };
    let tables = tables.iter().map(setting).collect();
    Config { tables, columns_check: Duration::from_millis(100), ..config(mariadb, database) }
}

fn key(n: usize) -> String {
    format!("[{n},\"{}\"]", LANGS[n % 3])
}

/// A row with all that a type can have, not always as MySQL would print it.
fn film(n: usize) -> Value {
    let noise = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let ratio = Some(f64::from_bits(noise)).filter(|ratio| ratio.is_finite()).unwrap_or(0.5);
    let single = (noise % 1_000_003) as f32 / 7.0;
    let mut row = json!({
        "id": n, "lang": (LANGS[n % 3]), "title": format!("Fülm {n} "), "note": format!("日本 \"{n}\",\n"),
        "rate": format!("{}{}.5", if n.is_multiple_of(2) { "-" } else { "" }, noise >> 20),
        "single": single.to_string().parse::<f64>().unwrap(), "fixed": (n % 1_000) as f64 + 0.25,
        "ratio": ratio, "made": 1901 + n % 255, "day": format!("2024-02-{:02}", 1 + n % 29),
        "moment": format!("2024-02-29 12:34:56.{:06}", noise % 1_000_000),
        "stamp": format!("2024-02-29 12:34:56.{}", n % 10), "span": format!("-{}:59:59.5", 100 + n % 700),
        "rating": (["G", "PG-13", "it's"][n % 3]), "features": (["", "a,c", "b"][n % 3]),
        "bits": noise >> 31, "code": "AP8gAA==", "body": (["", "AAEC/w==", "QQ=="][n % 3]),
        "place": "AAAAAAEBAAAAAAAAAAAA8D8AAAAAAAAAQA==",
        "uid": format!("123e4567-e89b-12d3-a456-{:012x}", noise >> 16),
        "ip": format!("::{:04x}", noise % 999), "small": (n % 256) as i64 - 128,
        "big": noise as i64, "number": n, "price": format!("{n}.5"),
        "extra": format!("{{\"n\" : {n}}}"), "kind": "k",
    });
    let members = row.as_object_mut().unwrap();
    match n % 11 {
        // They stand for the defaults.
        0 => ["kind", "note", "place"].map(|name| members.remove(name)).map(drop),
        1 => ["title", "ratio", "body"]
            .map(|name| members.insert(name.into(), Value::Null))
            .map(drop),
        _ => [(); 3],
    };
    row
}

/// Writes rows, deletes some, lets some expire, as long as it lives.
struct Load(CancellationToken);

impl Load {
    fn start(world: &World) -> Load {
        let (node, stop) = (world.node.clone(), CancellationToken::new());
        let stopped = stop.clone();
        tokio::spawn(async move {
            while !stopped.is_cancelled() {
                let rows = (0..20).map(|_| {
                    let n = BUSY.start + rand::random::<u64>() as usize % BUSY.len();
                    let mut row = film(n);
                    row["big"] = rand::random::<i64>().into();
                    match rand::random::<u8>() % 8 {
                        0 => delete("film", key(n)),
                        1 => put_for("film", &key(n), &row.to_string(), Duration::from_millis(50)),
                        _ => put("film", key(n), row.to_string()),
                    }
                });
                if node.write(rows.collect()).await.is_err() {
                    return;
                }
                // A busy site, not all that the machine can do.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        Load(stop)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// All that the load does not touch, as MySQL shows it.
fn shown(mariadb: &MariaDb, database: &str) -> Vec<Vec<String>> {
    let (first, last) = (BUSY.start, BUSY.end);
    let rest =
        format!("SELECT * FROM film WHERE id NOT BETWEEN {first} AND {last} ORDER BY id, lang");
    let sum =
        "SELECT COUNT(*), MD5(GROUP_CONCAT(HEX(body), HEX(place), HEX(bits), HEX(code))) FROM film";
    let mut all = mariadb.sql(database, &format!("{sum} WHERE id NOT BETWEEN {first} AND {last}"));
    all.extend(mariadb.sql(database, &rest));
    all
}

/// A hundred rows that differ, each in its own way, and what is to be said of them.
fn injected(rows: usize) -> (String, BTreeMap<String, MirrorWrong>) {
    // As somebody would do it whom no trigger is to see.
    let mut sql = "SET @lastword_applying = 1; ".to_owned();
    let mut expected = BTreeMap::new();
    let changes = [
        "title = 'x'",
        "title = CONCAT(title, ' ')",
        "title = UPPER(title)",
        "note = CONCAT(note, ' ')",
        "note = NULL",
        "note = '-'",
        "rate = rate + 0.0001",
        "single = single + 0.0078125",
        "fixed = fixed + 0.01",
        "ratio = ratio * (1 + 2.3e-16)",
        "ratio = NULL",
        "made = 0",
        "day = '0000-00-00'",
        "moment = moment + INTERVAL 1 MICROSECOND",
        "stamp = stamp + INTERVAL 1000 MICROSECOND",
        "stamp = NULL",
        "span = '-00:00:00.5'",
        "rating = IF(rating = 'G', 'PG-13', 'G')",
        "features = 'a,b,c'",
        "bits = bits ^ 1",
        "code = 0x00FF2001",
        "body = CONCAT(body, 0x00)",
        "body = REPEAT(0x00, 100000)",
        "place = ST_GeomFromText('POINT(1 3)')",
        "uid = '00000000-0000-0000-0000-000000000000'",
        "ip = 'ffff::1'",
        "small = IF(small = 127, -128, small + 1)",
        "big = -big",
        "number = number + 1",
        "price = -price + 2 * price + 0.01",
        "extra = REPLACE(extra, ' ', '')",
        "kind = 'X''Y'",
    ];
    // Rows all over the store's, none of those that lack a member or are NULL somewhere.
    let at = |n: usize| 11 * (n * (rows / 11 - 1) / 100) + 2 + n % 9;
    let place = |n: usize| format!("id = {n} AND lang = '{}'", LANGS[n % 3]);
    for n in 0..38 {
        let change = changes[n % changes.len()];
        let _ = write!(sql, "UPDATE film SET {change} WHERE {}; ", place(at(n)));
        expected.insert(key(at(n)), MirrorWrong::Changed);
    }
    // Two rows whose values changed places.
    let (one, two) = (at(38), at(39));
    let of = |n: usize| format!("(SELECT big FROM film WHERE {})", place(n));
    let _ = write!(
        sql,
        "SET @one = {}, @two = {}; UPDATE film SET big = @two WHERE {}; UPDATE film SET big = @one \
         WHERE {}; ",
        of(one),
        of(two),
        place(one),
        place(two)
    );
    expected.extend([one, two].map(|n| (key(n), MirrorWrong::Changed)));
    for n in 40..70 {
        let _ = write!(sql, "DELETE FROM film WHERE {}; ", place(at(n)));
        expected.insert(key(at(n)), MirrorWrong::Missing);
    }
    for n in 70..100 {
        // Before the first, behind the last, and beside others.
        let (id, lang) = match n {
            70 => (0, "a"),
            71 => (u32::MAX as usize, "zz"),
            72 => (rows + 5, "de"),
            _ => (at(n), ["x", "y"][n % 2]),
        };
        let _ = write!(sql, "INSERT INTO film (id, lang, title) VALUES ({id}, '{lang}', 'x'); ");
        expected.insert(format!("[{id},\"{lang}\"]"), MirrorWrong::Extra);
    }
    assert_eq!(expected.len(), 100);
    (sql, expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_differences_of_a_hundred_are_found_in_a_column_table_and_put_right_under_load() {
    let (mariadb, database) = (&*shared(), "column_verifies");
    let world = World::new().await;
    let config = columns(mariadb, database, &["film"]);
    mariadb.sql(database, FILM);
    let rows = 3_000;
    for from in (0..rows).step_by(500) {
        let row = |n| put("film", key(n), film(n).to_string());
        world.write((from..from + 500).map(row).collect()).await;
    }
    let lasting = film(rows).to_string();
    world.write(vec![put_for("film", &key(rows), &lasting, Duration::from_secs(3_600))]).await;
    // What MySQL would not keep as it is stands aside, and is no difference.
    world.put("film", "nonsense", "{}").await;
    world.put("film", "[900001,\"de\"]", r#"{"title":"日本"}"#).await;
    world.put("film", "[900002,\"de\"]", r#"{"small":128}"#).await;
    let _mirror = Running::start(&world, &config);
    world.caught_up();
    filled(&world, mariadb, database, "film");
    assert_eq!(mariadb.sql(database, "SELECT COUNT(*) FROM film")[0][0], "3001");
    let load = Load::start(&world);
    let before = shown(mariadb, database);
    for _ in 0..3 {
        let verified = verify(&world, false).await;
        assert_equal(&verified);
        let [table] = &verified.tables[..] else { panic!("{verified:?}") };
        assert!(table.rows >= rows as u64 && table.set_aside == 3, "{verified:?}");
        // Keys, and sums: rows are fetched only where one is being written.
        assert!(verified.bytes < 1_000_000, "{verified:?}");
    }

    let (sql, expected) = injected(rows);
    mariadb.sql(database, &sql);
    let verified = verify(&world, false).await;
    assert_eq!(kinds(&verified), expected);
    assert_eq!((verified.tables[0].differing(), verified.tables[0].repaired), (100, 0));
    assert_ne!(shown(mariadb, database), before);

    let verified = verify(&world, true).await;
    assert_eq!(kinds(&verified), expected);
    assert_eq!(verified.tables[0].repaired, 100, "{verified:?}");
    assert_equal(&verify(&world, false).await);
    assert_eq!(shown(mariadb, database), before);
    drop(load);
    assert!(world.report().connects <= 2, "{:?}", world.report());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_column_table_is_filled_by_its_repair() {
    let (mariadb, database) = (&*shared(), "truncated_columns");
    let world = World::new().await;
    let config = columns(mariadb, database, &["item", "wide", "heap"]);
    mariadb.sql(
        database,
        "CREATE TABLE item (id BIGINT PRIMARY KEY, v DOUBLE DEFAULT 0.1, t TEXT DEFAULT 'none') \
         ENGINE=InnoDB; CREATE TABLE wide (k VARBINARY(600) PRIMARY KEY, v INT) ENGINE=InnoDB; \
         CREATE TABLE heap (id INT PRIMARY KEY) ENGINE=MyISAM",
    );
    let row = |n: i64| put("item", n.to_string(), json!({"v": n as f64 / 3.0}).to_string());
    world.write((-700..700).map(row).collect()).await;
    world.put("item", "7000", "{}").await;
    world.put("wide", [0, 0xff], "{}").await;
    let _mirror = Running::start(&world, &config);
    world.caught_up();
    for table in ["item", "wide"] {
        filled(&world, mariadb, database, table);
    }
    let sum = || mariadb.sql(database, "SELECT COUNT(*), SUM(v), MAX(t) FROM item");
    let before = sum();
    assert_eq!((&*before[0][0], &*before[0][2]), ("1401", "none"));

    mariadb
        .sql(database, "TRUNCATE item; INSERT INTO wide VALUES (REPEAT('x', 600), 1), (0x01, 1)");
    let verified = verify(&world, false).await;
    let found: Vec<_> = verified
        .tables
        .iter()
        .map(|table| (table.table.as_str(), table.changed, table.missing, table.extra))
        .collect();
    assert_eq!(found, [("heap", 0, 0, 0), ("item", 0, 1401, 0), ("wide", 0, 0, 2)], "{verified:?}");
    let problem = verified.tables[0].problem.as_deref().unwrap();
    assert!(problem.contains("it is MyISAM, not InnoDB"), "{problem}");

    let verified = verify(&world, true).await;
    let repaired: Vec<_> = verified.tables.iter().map(|table| table.repaired).collect();
    // What no store can have as a key is not the mirror's to delete.
    assert_eq!(repaired, [0, 1401, 1], "{verified:?}");
    assert_eq!(sum(), before);
    assert_eq!(mariadb.sql(database, "SELECT LENGTH(k) FROM wide ORDER BY 1"), [["2"], ["600"]]);
    // A default that became another one is another row: what was told stands nowhere else.
    mariadb.sql(database, "UPDATE item SET t = 'some' WHERE id = 7000");
    let changed = verify(&world, true).await;
    assert_eq!((changed.tables[1].changed, changed.tables[1].repaired), (1, 1), "{changed:?}");
    assert_eq!(sum(), before);
}

/// Waits until MySQL has all rows of the table: it is filled beside the changes.
fn filled(world: &World, mariadb: &MariaDb, database: &str, table: &str) {
    until("the table to be filled", LIMIT, || {
        world.caught_up();
        let filled = format!("SELECT filled FROM _lastword_columns WHERE tbl = '{table}'");
        (mariadb.sql(database, &filled) == [["1"]]).then_some(())
    });
}
