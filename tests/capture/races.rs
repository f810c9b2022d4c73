//! The application and lastword write the same rows at the same moment.

use std::time::Duration;

use lastword::{
    model::{Key, TableName},
    node::{Change, Mutation},
};
use mysql_async::prelude::Queryable;
use tokio::time::Instant;

use crate::world::{LIMIT, Running, World, captured, config, shared};

/// What a client of the node, or another site, puts.
fn put(key: &str, value: &str) -> Mutation {
    let value = format!(r#"{{"id":{key},"v":"{value}"}}"#).into();
    let change = Change::Put { key: Key::new(key.to_owned()).unwrap(), value, ttl: None };
    Mutation { table: TableName::of_client("items").unwrap(), change }
}

/// A row of the application's own comes back to the mirror as a change of the store, late: it must not stand
/// over what the application wrote meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn an_application_reads_what_it_wrote_last() {
    let (mariadb, database) = (&*shared(), "own_writes");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    // Rows of the node's clients keep the mirror at work, one of them beside the application's.
    let node = world.node.clone();
    let others = tokio::spawn(async move {
        for n in 0_u64.. {
            let rows = (0..20).map(|key| put(&(100 + key).to_string(), &n.to_string())).collect();
            node.write(rows).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let pool = mysql_async::Pool::new(&*mariadb.url(database));
    let mut conn = pool.get_conn().await.unwrap();
    conn.query_drop("INSERT INTO items VALUES (1, '0')").await.unwrap();
    let began = Instant::now();
    let mut updates = 0_u64;
    while began.elapsed() < Duration::from_secs(3) {
        updates += 1;
        conn.query_drop("UPDATE items SET v = v + 1 WHERE id = 1").await.unwrap();
        for _ in 0..rand::random::<u64>() % 4 {
            tokio::time::sleep(Duration::from_millis(rand::random::<u64>() % 5)).await;
            let read: Option<String> =
                conn.query_first("SELECT v FROM items WHERE id = 1").await.unwrap();
            assert_eq!(read, Some(updates.to_string()));
        }
    }
    others.abort();
    let _ = others.await;
    drop(conn);
    pool.disconnect().await.unwrap();
    assert!(updates > 100, "{updates} updates");
    world.agrees(mariadb, database);
    assert_eq!(world.report().conflicts, 0, "nobody else wrote that row");
    assert_eq!(world.column("items", "1", "v").unwrap(), updates.to_string());
}

/// A version that the application's transaction could not see arrives while that holds the row: the
/// application's is the later write, and the other is kept in the journal of conflicts.
#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_application_did_not_see_is_a_conflict_and_no_loss() {
    let (mariadb, database) = (&*shared(), "unseen");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    mariadb.sql(database, "INSERT INTO items VALUES (1, 'first'), (2, 'first')");
    world.agrees(mariadb, database);
    let pool = mysql_async::Pool::new(&*mariadb.url(database));
    let mut conn = pool.get_conn().await.unwrap();
    for round in 1..=5_u64 {
        conn.query_drop("START TRANSACTION").await.unwrap();
        conn.query_drop(format!("UPDATE items SET v = 'app {round}' WHERE id = 1")).await.unwrap();
        conn.query_drop("DELETE FROM items WHERE id = 2").await.unwrap();
        let values = [put("1", &format!("site {round}")), put("2", &format!("site {round}"))];
        world.node.write(values.into()).await.unwrap();
        // The mirror comes to wait for the application's locks.
        let waits = "SELECT COUNT(*) FROM information_schema.INNODB_LOCK_WAITS";
        world.until("the mirror waits for the row", || {
            (mariadb.sql("", waits) != [["0"]]).then_some(())
        });
        conn.query_drop("COMMIT").await.unwrap();
        world.agrees(mariadb, database);
        assert_eq!(world.column("items", "1", "v").unwrap(), format!("app {round}"));
        assert!(!world.stored("items").contains_key("2"), "its delete is the later write");
        assert_eq!(world.report().conflicts, round * 2);
        // And what comes now was seen by nobody else.
        world.node.write(vec![put("2", "again")]).await.unwrap();
        world.agrees(mariadb, database);
        assert_eq!(mariadb.sql(database, "SELECT v FROM items WHERE id = 2"), [["again"]]);
    }
    drop(conn);
    pool.disconnect().await.unwrap();
}

/// Both write as fast as they can, the same few rows: in the end both have the same.
#[tokio::test(flavor = "multi_thread")]
async fn both_write_the_same_rows_and_agree_in_the_end() {
    let (mariadb, database) = (&*shared(), "same_rows");
    let config = config(mariadb, database);
    let world = World::new().await;
    let running = Running::start(&world, &config);
    world.captures("items");
    let node = world.node.clone();
    let puts = tokio::spawn(async move {
        for n in 0..1_500_u64 {
            let key = (rand::random::<u64>() % 6 + 1).to_string();
            node.write(vec![put(&key, &format!("site {n}"))]).await.unwrap();
            tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 2_000)).await;
        }
    });
    let pool = mysql_async::Pool::new(&*mariadb.url(database));
    let mut conn = pool.get_conn().await.unwrap();
    let mut n = 0;
    let mut done = 0;
    while !puts.is_finished() {
        n += 1;
        let id = rand::random::<u64>() % 6 + 1;
        let sql = match rand::random::<u64>() % 4 {
            0 => format!("DELETE FROM items WHERE id = {id}"),
            1 => format!("REPLACE INTO items VALUES ({id}, 'app {n}')"),
            2 => format!("UPDATE items SET v = 'app {n}' WHERE id IN ({id}, {id} + 1)"),
            _ => format!("UPDATE items SET id = {id} + 1 WHERE id = {id}"),
        };
        // A duplicate, or a deadlock: the application's own business.
        match conn.query_drop(sql).await {
            Ok(()) => done += 1,
            Err(mysql_async::Error::Server(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    puts.await.unwrap();
    drop(conn);
    pool.disconnect().await.unwrap();
    assert!(done > 200, "{done} statements");
    crate::common::wait::until("the hand-over of all", LIMIT, || {
        let waiting = mariadb.sql(database, "SELECT COUNT(*) FROM _lastword_capture_items");
        (waiting == [["0"]]).then_some(())
    });
    world.agrees(mariadb, database);
    // And a mirror that begins anew finds nothing to mend.
    running.stop().await;
    let before = world.stored("items");
    let _running = Running::start(&world, &config);
    world.captures("items");
    world.agrees(mariadb, database);
    assert_eq!(world.stored("items"), before);
}

/// A table whose `v` is unique, and whose key folds: of two rows for one place the later stands, in whatever
/// order they come, and the other comes back once the place is free.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_rows_for_one_place_the_later_stands() {
    let (mariadb, database) = (&*shared(), "one_place");
    let mut config = config(mariadb, database);
    mariadb.sql(
        database,
        "CREATE TABLE words (id VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY \
         KEY, v VARCHAR(9) NULL, UNIQUE by_v (v)) ENGINE=InnoDB",
    );
    config.tables.push(lastword::mirror::TableSetting {
        accepts_key_collation: true,
        accepts_unique: true,
        ..captured("words")
    });
    let world = World::new().await;
    let table = TableName::of_client("words").unwrap();
    let put = |key: &str, v: &str| {
        let value = format!(r#"{{"id":"{key}","v":{v}}}"#).into();
        let change = Change::Put { key: Key::new(key.to_owned()).unwrap(), value, ttl: None };
        Mutation { table: table.clone(), change }
    };
    // Before the mirror runs: it meets them in the order of their keys, not of their times.
    let first = [put("z", r#""one""#), put("a", r#""one""#), put("F", "null"), put("f", "null")];
    for one in first {
        world.node.write(vec![one]).await.unwrap();
    }
    let _running = Running::start(&world, &config);
    world.captures("words");
    let rows = || {
        let rows = mariadb.sql(database, "SELECT id FROM words ORDER BY id");
        let aside = "SELECT k FROM _lastword_rejected WHERE tbl = 'words' ORDER BY k";
        let of = |rows: Vec<Vec<String>>| rows.into_iter().flatten().collect::<Vec<_>>().join(" ");
        (of(rows), of(mariadb.sql(database, aside)))
    };
    let become_ = |stand: &str, aside: &str| {
        let mut last = None;
        let what = format!("{stand}, without {aside}");
        world.until(&what, || {
            last = Some(rows());
            (rows() == (stand.to_owned(), aside.to_owned())).then_some(())
        });
    };
    become_("a f", "F z");
    // The earlier one is written anew: now it is the later one, and takes the place of the other.
    world.node.write(vec![put("z", r#""one""#)]).await.unwrap();
    become_("f z", "F a");
    world.node.write(vec![put("F", r#""two""#)]).await.unwrap();
    become_("F z", "a f");
    // An application frees a place, and takes another.
    mariadb.sql(database, "UPDATE words SET v = NULL WHERE id = 'z'");
    become_("a F z", "f");
    mariadb.sql(database, "DELETE FROM words WHERE id = 'f'");
    become_("a f z", "");
    assert_eq!(mariadb.sql(database, "SELECT id FROM words WHERE id = 'f'"), [["f"]]);
    assert_eq!(world.stored("words").len(), 3, "{:?}", world.stored("words"));
}
