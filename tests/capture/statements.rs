//! Each kind of statement, and what it leaves in the store.

use std::{collections::BTreeMap, fs, time::Duration};

use serde_json::json;
use tokio::time::Instant;

use crate::world::{LIMIT, Running, World, captured, config, look, shared};

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_captured_and_a_rollback_is_not() {
    let (mariadb, database) = (&*shared(), "statements");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "50\tfrom a file\n51\tand another\n").unwrap();
    let load = format!("LOAD DATA LOCAL INFILE '{}' INTO TABLE items", file.path().display());
    for (sql, writes) in [
        ("INSERT INTO items VALUES (1, 'one')", 1),
        ("INSERT INTO items VALUES (2, 'two'), (3, 'three'), (4, NULL)", 3),
        ("UPDATE items SET v = 'uno' WHERE id = 1", 1),
        ("UPDATE items SET v = 'uno' WHERE id = 1", 0),
        ("UPDATE items SET id = 20 WHERE id = 2", 2),
        ("UPDATE items SET id = id + 100 WHERE id < 20 ORDER BY id DESC", 6),
        ("REPLACE INTO items VALUES (20, 'replaced'), (21, 'new')", 2),
        ("INSERT INTO items VALUES (20, 'x') ON DUPLICATE KEY UPDATE v = 'updated'", 1),
        ("INSERT INTO items VALUES (22, 'x') ON DUPLICATE KEY UPDATE v = 'updated'", 1),
        ("INSERT IGNORE INTO items VALUES (22, 'ignored'), (23, 'y')", 1),
        ("DELETE FROM items WHERE id > 100", 3),
        (
            "START TRANSACTION; INSERT INTO items VALUES (30, 'a'); UPDATE items SET v = 'b' WHERE \
          id = 30; DELETE FROM items WHERE id = 20; COMMIT",
            2,
        ),
        ("START TRANSACTION; INSERT INTO items VALUES (40, 'a'); DELETE FROM items; ROLLBACK", 0),
        (
            "START TRANSACTION; INSERT INTO items VALUES (41, 'a'); DELETE FROM items WHERE id = 41; \
          COMMIT",
            0,
        ),
        ("INSERT INTO items (v) SELECT v FROM items", 4),
        (&*load, 2),
    ] {
        let before = world.writes();
        mariadb.sql(database, sql);
        world.agrees(mariadb, database);
        assert_eq!(world.writes() - before, writes, "{sql}");
    }
    assert_eq!(world.column("items", "50", "v"), Some(json!("from a file")));
    assert_eq!(world.report().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_over_several_tables_arrives_in_all() {
    let (mariadb, database) = (&*shared(), "several");
    let mut config = config(mariadb, database);
    mariadb.sql(
        database,
        "CREATE TABLE parts (item INT, no VARCHAR(10) COLLATE utf8mb4_nopad_bin, n DECIMAL(8,2), \
         PRIMARY KEY (item, no)) ENGINE=InnoDB",
    );
    config.tables.push(captured("parts"));
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("parts");
    mariadb.sql(
        database,
        "START TRANSACTION; INSERT INTO items VALUES (1, 'x'); \
         INSERT INTO parts VALUES (1, 'a', 1.50), (1, 'A', 2); \
         UPDATE parts SET no = 'b' WHERE no = 'a'; COMMIT",
    );
    world.until("the parts", || (world.stored("parts").len() == 2).then_some(()));
    world.agrees(mariadb, database);
    let parts = BTreeMap::from([
        ("[1,\"A\"]".to_owned(), json!({"item": 1, "no": "A", "n": "2.00"})),
        ("[1,\"b\"]".to_owned(), json!({"item": 1, "no": "b", "n": "1.50"})),
    ]);
    assert_eq!(world.stored("parts"), parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_is_taken_in_while_it_is_written() {
    let (mariadb, database) = (&*shared(), "before");
    let config = config(mariadb, database);
    mariadb.sql(database, "INSERT INTO items SELECT seq, CONCAT('row ', seq) FROM seq_1_to_20000");
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    let mut added = 0;
    world.until("all rows", || {
        added += 1;
        mariadb.sql(database, &format!("INSERT INTO items VALUES ({}, 'late')", 100_000 + added));
        mariadb.sql(database, &format!("DELETE FROM items WHERE id = {added}"));
        (world.stored("items").len() >= 19_999).then_some(())
    });
    world.agrees(mariadb, database);
    world.captures("items");
}

/// Some kinds of statements must not tell the application anything else than before.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_sees_no_trace_of_the_triggers() {
    let (mariadb, database) = (&*shared(), "traces");
    let mut config = config(mariadb, database);
    mariadb.sql(database, "CREATE TABLE plain (k INT PRIMARY KEY, v INT) ENGINE=InnoDB");
    config.tables.push(captured("plain"));
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("plain");
    world.captures("items");
    let rows = mariadb.sql(
        database,
        "INSERT INTO items (v) VALUES ('a'), ('b'); SELECT LAST_INSERT_ID(), ROW_COUNT()",
    );
    assert_eq!(rows, [["1", "2"]]);
    let rows = mariadb.sql(
        database,
        "INSERT INTO items (v) VALUES ('c'); INSERT INTO plain VALUES (1, 1); \
         SELECT LAST_INSERT_ID(), ROW_COUNT()",
    );
    assert_eq!(rows, [["3", "1"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_in_the_store_soon() {
    let (mariadb, database) = (&*shared(), "latency");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    let pool = mysql_async::Pool::new(&*mariadb.url(database));
    let mut conn = pool.get_conn().await.unwrap();
    let mut taken = Vec::new();
    for n in 1..=200 {
        use mysql_async::prelude::Queryable;
        // In quiet, and while others write.
        tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 40)).await;
        conn.query_drop(format!("INSERT INTO items VALUES ({n}, 'x')")).await.unwrap();
        let committed = Instant::now();
        let key = n.to_string();
        while world.column("items", &key, "v").is_none() {
            tokio::time::sleep(Duration::from_micros(200)).await;
            assert!(committed.elapsed() < LIMIT, "row {n}: {:?}", world.report());
        }
        taken.push(committed.elapsed());
    }
    drop(conn);
    pool.disconnect().await.unwrap();
    taken.sort();
    let (p50, p99) = (taken[100], taken[198]);
    assert!(p50 < Duration::from_millis(50), "p50 {p50:?}, p99 {p99:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_quiet_nothing_goes_round() {
    let (mariadb, database) = (&*shared(), "quiet");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    mariadb.sql(database, "INSERT INTO items SELECT seq, 'app' FROM seq_1_to_100");
    world.agrees(mariadb, database);
    let writes = world.writes();
    // Rounds of the capture and of the mirror, each of which would find what the other left.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.writes(), writes);
    assert_eq!(look(mariadb, database).0, 0);
}
