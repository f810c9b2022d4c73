//! Rows that MySQL refuses are set aside, with the reason, and come back when they can.

use std::time::Duration;

use crate::{
    common::mariadb::MariaDb,
    world::{Running, World, config, delete, hex, mirrored, put, put_for, shared},
};

const COLUMNS: &str = "hlc BIGINT UNSIGNED NOT NULL, origin BINARY(16) NOT NULL, \
    updated_at DATETIME(6) NOT NULL, expires_at DATETIME(6) NULL, KEY (expires_at)";

/// Key and reason of each row set aside.
fn rejected(mariadb: &MariaDb, database: &str) -> Vec<(String, String)> {
    let rows = mariadb.sql(database, "SELECT k, reason FROM _lastword_rejected ORDER BY tbl, k");
    rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_does_not_fit_is_set_aside_and_cured() {
    let (mariadb, database) = (&*shared(), "misfits");
    let world = World::new().await;
    let config = config(mariadb, database);
    mariadb.sql(
        database,
        &format!(
            "CREATE TABLE t (k VARCHAR(8) NOT NULL PRIMARY KEY, \
             v VARCHAR(10) CHARACTER SET ascii NOT NULL, {COLUMNS})"
        ),
    );
    let mirror = Running::start(&world, &config);
    let mut rows: Vec<_> = (0..300).map(|n| put("t", format!("{n:03}"), "fits")).collect();
    rows.extend([
        put("t", "a key too long", "v"),
        put("t", "long", "a value too long"),
        put("t", "umlaut", "grün"),
        put("t", b"\xff", "v"),
        put("t", "spaces", "10 chars  "),
    ]);
    world.write(rows).await;
    world.caught_up();
    assert_eq!(mirrored(mariadb, database, "t").len(), 301);
    let aside = rejected(mariadb, database);
    let keys: Vec<_> = aside.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["a key too long", "long", "umlaut", "\u{fffd}"]);
    assert_eq!(aside[0].1, "k has 14 characters, the column takes 8");
    assert_eq!(aside[1].1, "v has 16 characters, the column takes 10");
    assert!(aside[2].1.contains("Incorrect string value"), "{}", aside[2].1);
    let status = world.node.status().unwrap().mirror.unwrap();
    assert_eq!(status.report.rows_rejected, 4);
    assert!(!status.report.last_rejected_reason.is_empty() && status.report.applying, "{status:?}");
    assert_eq!(status.behind.rows, 0);

    // No older version stands as if it were current, and a later one that fits is taken.
    world.put("t", "000", "this one is too long").await;
    world.caught_up();
    assert!(!mirrored(mariadb, database, "t").contains_key(&hex(b"000")));
    world.write(vec![put("t", "long", "short"), delete("t", "umlaut")]).await;
    world.caught_up();
    let keys: Vec<_> = rejected(mariadb, database).into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["000", "a key too long", "\u{fffd}"]);
    assert_eq!(world.report().rows_rejected, 3);
    assert_eq!(mirrored(mariadb, database, "t")[&hex(b"long")].value, hex(b"short"));

    // Once the table can hold them they are taken as they are.
    mirror.stop().await;
    mariadb.sql(
        database,
        "ALTER TABLE t MODIFY k VARBINARY(512) NOT NULL, MODIFY v MEDIUMBLOB NOT NULL",
    );
    let _mirror = Running::start(&world, &config);
    world
        .when("the rows to be tried again", |report| report.connected && report.rows_rejected == 0);
    world.judge(mariadb, database, "t");
    assert!(rejected(mariadb, database).is_empty());
    assert_eq!(world.report().last_rejected_reason, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_and_triggers_may_refuse_rows() {
    let (mariadb, database) = (&*shared(), "checks");
    let world = World::new().await;
    let config = lastword::mirror::Config {
        rejected_retry_min: Duration::from_millis(20),
        rejected_retry_max: Duration::from_millis(40),
        ..config(mariadb, database)
    };
    mariadb.sql(
        database,
        &format!(
            "CREATE TABLE t (k VARCHAR(64) COLLATE utf8mb4_nopad_bin PRIMARY KEY, v JSON NOT NULL, \
             {COLUMNS});\nDELIMITER //\nCREATE TRIGGER refuses BEFORE INSERT ON t FOR EACH ROW IF \
             NEW.k = 'trigger' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END \
             IF //"
        ),
    );
    let _mirror = Running::start(&world, &config);
    let json = |key: &str| put("t", key, "{\"a\": [1, 2]}");
    world.write(vec![json("fine"), put("t", "no json", "{"), json("trigger"), json("Fine")]).await;
    world.caught_up();
    assert_eq!(mirrored(mariadb, database, "t").len(), 2);
    let aside = rejected(mariadb, database);
    assert!(aside[0].1.contains("CONSTRAINT"), "{aside:?}");
    assert_eq!(aside[1].1, "not this one (error 1644)");
    // They are tried again while the mirror runs.
    mariadb.sql(database, "DROP TRIGGER refuses");
    world.when("one to be taken", |report| report.rows_rejected == 1);
    mariadb.sql(database, "ALTER TABLE t MODIFY v LONGTEXT NOT NULL CHECK (1)");
    world.when("the other to be taken", |report| report.rows_rejected == 0);
    world.judge(mariadb, database, "t");
    assert_eq!(world.report().connects, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_set_aside_are_all_tried_again() {
    let (mariadb, database) = (&*shared(), "many_misfits");
    let world = World::new().await;
    let config = config(mariadb, database);
    for table in ["t", "u"] {
        mariadb.sql(
            database,
            &format!(
                "CREATE TABLE {table} (k VARBINARY(512) PRIMARY KEY, v VARCHAR(9) CHARACTER SET ascii NOT NULL, \
                 {COLUMNS})"
            ),
        );
    }
    let mirror = Running::start(&world, &config);
    // MySQL itself refuses every second row.
    let value = |n| if n % 2 == 0 { "ascii" } else { "ümlaut" };
    for table in ["t", "u"] {
        world.write((0..300).map(|n| put(table, format!("{n}"), value(n))).collect()).await;
    }
    world.caught_up();
    assert_eq!(world.report().rows_rejected, 300);
    assert_eq!(mirrored(mariadb, database, "t").len(), 150);
    mirror.stop().await;
    for table in ["t", "u"] {
        mariadb.sql(database, &format!("ALTER TABLE {table} MODIFY v VARCHAR(9) NOT NULL"));
    }
    let _mirror = Running::start(&world, &config);
    world
        .when("the rows to be tried again", |report| report.connected && report.rows_rejected == 0);
    for table in ["t", "u"] {
        world.judge(mariadb, database, table);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_set_aside_that_expires_is_forgotten() {
    let (mariadb, database) = (&*shared(), "forgotten");
    let world = World::new().await;
    let config = config(mariadb, database);
    mariadb.sql(
        database,
        &format!(
            "CREATE TABLE t (k VARBINARY(512) PRIMARY KEY, v VARBINARY(3) NOT NULL, {COLUMNS})"
        ),
    );
    let mirror = Running::start(&world, &config);
    world.write(vec![put_for("t", "k", "too long", Duration::from_secs(3_600))]).await;
    world.when("the row to be set aside", |report| report.rows_rejected == 1);
    mirror.stop().await;
    world.time_passes(3_600_000);
    let _mirror = Running::start(&world, &config);
    world.when("it to be forgotten", |report| report.connected && report.rows_rejected == 0);
    world.judge(mariadb, database, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_larger_than_a_packet_is_set_aside() {
    let mariadb = MariaDb::start_with(&["--max-allowed-packet=1M"]);
    let database = "packets";
    let world = World::new().await;
    let _mirror = Running::start(&world, &config(&mariadb, database));
    let mut rows: Vec<_> = (0..20).map(|n| put("t", format!("{n}"), vec![b'x'; 300_000])).collect();
    rows.push(put("t", "giant", vec![b'x'; 1_200_000]));
    world.write(rows).await;
    world.caught_up();
    assert_eq!(mirrored(&mariadb, database, "t").len(), 20);
    let aside = rejected(&mariadb, database);
    assert_eq!(aside.len(), 1);
    assert!(aside[0].1.contains("raise max_allowed_packet"), "{aside:?}");
    assert_eq!(world.report().connects, 1);
    world.put("t", "giant", "shrunk").await;
    world.judge(&mariadb, database, "t");
    assert_eq!(world.report().rows_rejected, 0);
}

/// To utf8mb4_general_ci "a", "A" and "a " are one key.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_mysql_takes_for_equal_do_not_overwrite_each_other() {
    let (mariadb, database) = (&*shared(), "collisions");
    let world = World::new().await;
    let config = config(mariadb, database);
    mariadb.sql(
        database,
        &format!(
            "CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_general_ci NOT NULL PRIMARY KEY, \
             v TEXT NOT NULL, {COLUMNS})"
        ),
    );
    let mirror = Running::start(&world, &config);
    world.put("t", "a", "small").await;
    world.caught_up();
    world.write(vec![put("t", "A", "capital"), put("t", "a ", "space"), put("t", "b", "x")]).await;
    world.caught_up();
    let rows = mirrored(mariadb, database, "t");
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[&hex(b"a")].value, hex(b"small"));
    let aside = rejected(mariadb, database);
    assert_eq!(aside.len(), 2);
    assert!(aside[0].1.contains("equal to another key"), "{aside:?}");
    // Deleting the one that was set aside leaves the other alone.
    world.delete("t", "A").await;
    world.caught_up();
    assert_eq!(mirrored(mariadb, database, "t").len(), 2);
    world.write(vec![delete("t", "a"), put("t", "A", "now it fits")]).await;
    world.caught_up();
    let rows = mirrored(mariadb, database, "t");
    assert_eq!(rows[&hex(b"A")].value, hex(b"now it fits"));
    assert!(!rows.contains_key(&hex(b"a")));
    mirror.stop().await;
    mariadb.sql(database, "ALTER TABLE t MODIFY k VARBINARY(512) NOT NULL");
    let _mirror = Running::start(&world, &config);
    world
        .when("the rows to be tried again", |report| report.connected && report.rows_rejected == 0);
    world.judge(mariadb, database, "t");
}
