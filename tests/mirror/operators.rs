//! What only someone's action can cure is said in one line, changes nothing, and is tried again.

use lastword::mirror::{Config, Target};

use crate::{
    common::mariadb::MariaDb,
    world::{Running, World, checkpoint, config, mirrored, put, shared},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_table_of_another_shape_pauses_the_mirror_until_it_is_altered() {
    let (mariadb, database) = (&*shared(), "shapes");
    let world = World::new().await;
    let config = config(mariadb, database);
    mariadb.sql(database, "CREATE TABLE t (k VARCHAR(20) PRIMARY KEY, v TEXT, note TEXT)");
    let _mirror = Running::start(&world, &config);
    world.put("other", "k", "v").await;
    world.caught_up();
    world.put("t", "k", "v").await;
    world.put("other", "k", "waits too").await;
    let report =
        world.fails_with("table t: it lacks the columns hlc, origin, updated_at, expires_at");
    assert!(report.connected, "the connection is sound");
    assert!(world.node.status().unwrap().mirror.unwrap().behind.rows >= 2);
    assert!(mariadb.sql(database, "SELECT * FROM t").is_empty());

    // The way out that it names.
    let message = report.last_error.unwrap().message;
    let from = message.find("ALTER TABLE").unwrap();
    let to = message.find("; or rename").unwrap();
    mariadb.sql(database, &message[from..to]);
    world.judge(mariadb, database, "t");
    world.judge(mariadb, database, "other");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_others_are_not_mixed_with_mirrored_ones() {
    let (mariadb, database) = (&*shared(), "strangers");
    let world = World::new().await;
    let config = config(mariadb, database);
    mariadb.sql(
        database,
        "CREATE TABLE t (k VARBINARY(512) PRIMARY KEY, v BLOB, hlc BIGINT UNSIGNED NOT NULL, \
         origin BINARY(16) NOT NULL, updated_at DATETIME(6) NOT NULL, expires_at DATETIME(6) \
         NULL); INSERT INTO t VALUES ('mine', 'x', 1, '', NOW(6), NULL)",
    );
    let _mirror = Running::start(&world, &config);
    world.put("t", "k", "v").await;
    world.fails_with("table t: it holds rows that lastword did not write");
    assert_eq!(mirrored(mariadb, database, "t").len(), 1);
    mariadb.sql(database, "RENAME TABLE t TO kept");
    world.judge(mariadb, database, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_mirrors_another_store_is_left_alone() {
    let (mariadb, database) = (&*shared(), "owner");
    let (first, second) = (World::new().await, World::new().await);
    let config = config(mariadb, database);
    first.put("t", "k", "first").await;
    let mirror = Running::start(&first, &config);
    first.judge(mariadb, database, "t");
    mirror.stop().await;
    let before = (checkpoint(mariadb, database), mirrored(mariadb, database, "t"));

    second.put("t", "k", "second").await;
    let _mirror = Running::start(&second, &config);
    let report = second.fails_with("this database mirrors the store");
    assert!(report.last_error.unwrap().message.contains(&first.node.origin().to_string()));
    assert_eq!(before, (checkpoint(mariadb, database), mirrored(mariadb, database, "t")));
    mariadb.sql(database, "DROP TABLE t, _lastword_mirror, _lastword_tables, _lastword_rejected");
    second.judge(mariadb, database, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_ahead_of_the_store_is_left_alone() {
    let (mariadb, database) = (&*shared(), "ahead");
    let world = World::new().await;
    let config = config(mariadb, database);
    world.put("t", "k", "v").await;
    let mirror = Running::start(&world, &config);
    world.caught_up();
    mirror.stop().await;
    // As after the data folder was set back: MySQL has seen a later write of this store.
    let later = hlc_of_a_minute_ahead(&world);
    mariadb.sql(
        database,
        &format!("UPDATE _lastword_mirror SET heads = CONCAT(origin, UNHEX('{later:016X}'))"),
    );
    let _mirror = Running::start(&world, &config);
    world.fails_with("the data folder was set back or copied");
}

fn hlc_of_a_minute_ahead(world: &World) -> u64 {
    (world.node.now_ms() + 60_000) << 16
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_dropped_is_filled_again() {
    let (mariadb, database) = (&*shared(), "dropped");
    let world = World::new().await;
    world.fill("t", 1_200, 10).await;
    world.fill("u", 10, 10).await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    world.judge(mariadb, database, "t");
    mariadb.sql(database, "DROP TABLE t");
    world.put("t", "one", "more").await;
    world.judge(mariadb, database, "t");
    world.judge(mariadb, database, "u");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_at_the_server_is_named_and_waited_for() {
    let mut mariadb = MariaDb::start();
    let world = World::new().await;
    world.put("t", "k", "v").await;
    let sound = config(&mariadb, "shop");
    let with = |target: Target| Config { target, ..sound.clone() };

    let mirror =
        Running::start(&world, &with(Target { database: String::new(), ..sound.target.clone() }));
    world.fails_with("the URL names no database");
    mirror.stop().await;
    let mirror = Running::start(
        &world,
        &with(Target { password: Some("hunter2".into()), ..sound.target.clone() }),
    );
    let report = world.fails_with("check the user and the password");
    let shown = format!("{report:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    mirror.stop().await;

    let config = with(Target { database: "later".into(), ..sound.target.clone() });
    mariadb.sql("", "GRANT SELECT, INSERT, UPDATE, DELETE ON later.* TO lastword@'127.0.0.1'");
    let _mirror = Running::start(&world, &config);
    let report = world.fails_with("run CREATE DATABASE `later`");
    assert!(!report.connected);
    mariadb.sql("", "CREATE DATABASE `later`");
    world.fails_with("grant the user SELECT, INSERT, UPDATE, DELETE and CREATE");
    mariadb.sql("", "GRANT CREATE ON later.* TO lastword@'127.0.0.1'");
    world.judge(&mariadb, "later", "t");

    mariadb.sql("", "SET GLOBAL read_only = 1");
    world.write(vec![put("t", "k", "read-only for a while")]).await;
    world.fails_with("MySQL is read-only");
    mariadb.sql("", "SET GLOBAL read_only = 0");
    world.judge(&mariadb, "later", "t");

    mariadb.stop();
    let report = world.fails_with("cannot connect to 127.0.0.1:");
    assert!(report.last_error.unwrap().message.contains("/later: "));
    mariadb.restart();
    world.put("t", "k", "and again").await;
    world.judge(&mariadb, "later", "t");
}
