//! What is written at the node stands in MySQL: filled, followed, updated, deleted, expired.

use std::time::{Duration, Instant};

use lastword::model::{Heads, TableName};

use crate::{
    common::wait::until,
    world::{LIMIT, Running, World, checkpoint, config, delete, mirrored, put, put_for, shared},
};

#[tokio::test(flavor = "multi_thread")]
async fn rows_from_before_and_rows_from_now_are_there() {
    let (mariadb, database) = (&*shared(), "fill");
    let world = World::new().await;
    world.fill("first", 2_500, 100).await;
    world.fill("second", 10, 0).await;
    world.delete("first", "k000007").await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    world.judge(mariadb, database, "first");
    world.judge(mariadb, database, "second");

    world.put("first", "k000007", "again").await;
    world.put("third", "new table", "new row").await;
    world.write((0..1_500).map(|n| put("second", format!("{n}"), "x")).collect()).await;
    world.write((0..700).map(|n| delete("first", format!("k{n:06}"))).collect()).await;
    for table in ["first", "second", "third"] {
        world.judge(mariadb, database, table);
    }
    let status = world.node.status().unwrap().mirror.unwrap();
    assert!(status.report.connected && status.report.applying, "{status:?}");
    assert_eq!(
        (status.behind.rows, status.report.connects, status.report.last_error),
        (0, 1, None)
    );
    let (heads, epoch) = checkpoint(mariadb, database);
    assert!(heads.covers(world.report().position.as_ref().unwrap()));
    assert_eq!(epoch, 1);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "a figure is measured")]
async fn a_write_is_in_mysql_within_moments() {
    let (mariadb, database) = (&*shared(), "latency");
    let world = World::new().await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    world.put("t", "warm", "up").await;
    world.caught_up();
    let mut waits = Vec::new();
    for n in 0..200 {
        let written = world.node.write(vec![put("t", format!("{n}"), "v")]).await.unwrap();
        let began = Instant::now();
        let there = |position: &Heads| position.covers(&written.session);
        while !world.report().position.as_ref().is_some_and(there) {
            assert!(began.elapsed() < LIMIT);
            tokio::task::yield_now().await;
        }
        waits.push(began.elapsed());
    }
    waits.sort();
    eprintln!(
        "from the node's answer to MySQL's commit: median {:?}, 95 % {:?}",
        waits[100], waits[190]
    );
    assert!(waits[100] < Duration::from_secs(1));
    world.judge(mariadb, database, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_versions_of_one_key_end_with_the_last() {
    let (mariadb, database) = (&*shared(), "versions");
    let world = World::new().await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    for round in 0..50 {
        for key in ["a", "b"] {
            world.put("t", key, format!("{round}")).await;
            world.delete("t", key).await;
        }
        world.put("t", "b", format!("stays {round}")).await;
        // Two versions of one key in one batch.
        world.write(vec![put("t", "c", "x"), put("t", "c", format!("{round}"))]).await;
    }
    world.judge(mariadb, database, "t");
    assert_eq!(mirrored(mariadb, database, "t").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_rows_leave() {
    let (mariadb, database) = (&*shared(), "expiry");
    let world = World::new().await;
    let hour = Duration::from_secs(3_600);
    world.write(vec![put_for("t", "early", "v", hour), put("t", "ever", "v")]).await;
    world.time_passes(3_600_000);
    world.write(vec![put_for("t", "soon", "v", hour), put_for("t", "late", "v", hour * 3)]).await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    world.judge(mariadb, database, "t");
    assert_eq!(mirrored(mariadb, database, "t").len(), 3);

    let many = (0..12_500).map(|n| put_for("many", &format!("{n}"), "v", hour)).collect();
    world.write(many).await;
    world.judge(mariadb, database, "many");
    // A later version of a row that would have expired.
    world.write(vec![put("many", "7", "stays")]).await;
    world.time_passes(3_600_000);
    until("expired rows to leave", LIMIT, || {
        let left =
            mirrored(mariadb, database, "t").len() + mirrored(mariadb, database, "many").len();
        (left == 3).then_some(())
    });
    for table in ["t", "many"] {
        world.judge(mariadb, database, table);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_byte_comes_through() {
    let (mariadb, database) = (&*shared(), "bytes");
    let world = World::new().await;
    let all: Vec<u8> = (0..=255).collect();
    let mut rows = Vec::new();
    for byte in 0..=255u8 {
        rows.push(put("single", [byte], [byte]));
        rows.push(put("paired", [byte, b'\''], [b'\\', byte]));
        rows.push(put("paired", [b'\\', byte], [byte, b'\'']));
    }
    rows.push(put("single", &all, all.repeat(300)));
    rows.push(put("single", b"' OR 1=1; DROP TABLE single; --", b"?:x"));
    rows.push(put("single", [0xff; 512], ""));
    world.write(rows).await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    for table in ["single", "paired"] {
        world.judge(mariadb, database, table);
    }
    assert_eq!(mirrored(mariadb, database, "single").len(), 259);
    // Keys of every byte are found again, too.
    let singles = (0..=255u8).map(|byte| delete("single", [byte])).collect();
    world.write(singles).await;
    world.judge(mariadb, database, "single");
    assert_eq!(mirrored(mariadb, database, "single").len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_heads_are_written_down_once_in_a_while() {
    let (mariadb, database) = (&*shared(), "idle");
    let world = World::new().await;
    world.put("t", "k", "v").await;
    let config = lastword::mirror::Config {
        heartbeat: Duration::from_millis(100),
        ..config(mariadb, database)
    };
    let _mirror = Running::start(&world, &config);
    world.caught_up();
    world.time_passes(1_000);
    world.node.advance().await.unwrap();
    world.caught_up();
    assert_eq!(checkpoint(mariadb, database).0, *world.node.heads());
    assert_eq!(world.report().connects, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn system_tables_stay_in_the_store() {
    let (mariadb, database) = (&*shared(), "system");
    let world = World::new().await;
    world.put("t", "k", "v").await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    world.caught_up();
    let members = TableName::of_any("_members").unwrap();
    assert!(world.node.snapshot().has_table(&members));
    let tables = mariadb.sql(database, "SHOW TABLES").into_iter().flatten();
    let of_store: Vec<_> = tables.filter(|table| !table.starts_with("_lastword_")).collect();
    assert_eq!(of_store, ["t"]);
}
