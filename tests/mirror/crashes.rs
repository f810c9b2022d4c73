//! Whichever side crashes, and whenever: no gap, no duplicate, no older row over a newer one.

use std::{collections::BTreeMap, time::Duration};

use lastword::mirror::{Config, Target};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    common::{mariadb::MariaDb, proxy::Proxy, wait::until},
    world::{
        LIMIT, Running, World, checkpoint, config, delete, foreign, heads_of, hex, mirrored, put,
        put_for, shared,
    },
};

const KEYS: u64 = 500;

/// Writes, deletes and expiring rows over few keys, until it is told to stop.
pub(crate) struct Load {
    task: JoinHandle<u64>,
    stop: CancellationToken,
}

impl Load {
    pub(crate) fn start(world: &World) -> Load {
        let (node, stop) = (world.node.clone(), CancellationToken::new());
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut commits = 0;
            while !stopped.is_cancelled() {
                let rows = (0..20).map(|_| {
                    let key = format!("{}", rand::random::<u64>() % KEYS);
                    match rand::random::<u8>() % 8 {
                        0 => delete("t", key),
                        1 => put_for("t", &key, "short", Duration::from_millis(50)),
                        2 => put_for("t", &key, "long", Duration::from_secs(3_600)),
                        _ => put("t", key, format!("{commits} {}", rand::random::<u64>())),
                    }
                });
                node.write(rows.collect()).await.unwrap();
                commits += 1;
                // A busy site, not all that the machine can do: MySQL has to catch up afterwards.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            commits
        });
        Load { task, stop }
    }

    /// Ends it; gives how many commits it made.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

fn random_ms(max: u64) -> Duration {
    Duration::from_millis(rand::random::<u64>() % max)
}

/// Lets rows that live for moments only expire, so that both sides are at rest.
pub(crate) fn settle(world: &World, mariadb: &MariaDb, database: &str) {
    until("expired rows to leave", LIMIT, || {
        let due = "SELECT COUNT(*) FROM t WHERE expires_at < UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE";
        world.caught_up();
        (mariadb.sql(database, due)[0][0] == "0").then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_aborted_at_random_moments_leaves_no_trace() {
    let (mariadb, database) = (&*shared(), "aborts");
    let world = World::new().await;
    let config = Config { batch_rows_max: 50, ..config(mariadb, database) };
    let load = Load::start(&world);
    let rounds = 40;
    for _ in 0..rounds {
        let mirror = Running::start(&world, &config);
        tokio::time::sleep(random_ms(80)).await;
        mirror.abort();
    }
    assert!(load.stop().await > rounds);

    let _mirror = Running::start(&world, &config);
    settle(&world, mariadb, database);
    world.judge(mariadb, database, "t");
    assert!(!mirrored(mariadb, database, "t").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_in_the_middle_of_a_load_goes_on() {
    let mut mariadb = MariaDb::start();
    let database = "kills";
    let world = World::new().await;
    let _mirror = Running::start(&world, &config(&mariadb, database));
    let load = Load::start(&world);
    for _ in 0..8 {
        tokio::time::sleep(random_ms(400)).await;
        mariadb.kill9();
        // The node does not mind.
        let written = || world.node.status().unwrap().rows_written;
        let before = written();
        until("more writes", LIMIT, || (written() > before + 200).then_some(()));
        world.when("the loss to be noticed", |report| !report.connected);
        mariadb.restart();
    }
    load.stop().await;
    settle(&world, &mariadb, database);
    world.judge(&mariadb, database, "t");
    let report = world.report();
    assert!(report.last_error.is_some(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_fill_that_was_broken_off_goes_on_where_it_was() {
    let (mariadb, database) = (&*shared(), "resume");
    let world = World::new().await;
    let rows = 20_000;
    // Of several origins, one of them with its delta still under way.
    for (origin, claimed) in [(0x11, true), (0xff, false)] {
        let rows = 1..=5_000;
        let foreign = rows.map(|n| foreign(origin, "t", &format!("{origin} {n}"), n, Some("v")));
        world.merge(foreign.collect(), claimed.then(|| heads_of(origin, 5_000))).await;
    }
    world.fill("t", rows - 10_000, 10).await;
    let config = Config { batch_rows_max: 500, ..config(mariadb, database) };
    let mirror = Running::start(&world, &config);
    let before = world.when("a part of the fill", |report| report.rows_applied >= 9_000);
    mirror.abort();
    assert!((before.rows_applied as usize) < rows);

    // Changed and deleted meanwhile, on both sides of where it stands.
    world.write((0..100).map(|n| put("t", format!("k{:06}", n * 97), "new")).collect()).await;
    world.write((0..100).map(|n| delete("t", format!("k{:06}", n * 89))).collect()).await;
    let _mirror = Running::start(&world, &config);
    // Heads say nothing of the rows of a delta under way.
    let stored = world.stored("t").len();
    until("all rows", LIMIT, || (mirrored(mariadb, database, "t").len() == stored).then_some(()));
    world.judge(mariadb, database, "t");
    let after = world.report().rows_applied;
    assert!(after as usize <= rows - 9_000 + 200, "{after} rows were written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scan_that_is_left_off_goes_on_behind() {
    let (mariadb, database) = (&*shared(), "scans");
    let world = World::new().await;
    world.fill("t", 3_000, 10).await;
    let foreign = (1..=1_000).map(|n| foreign(0x11, "t", &format!("{n}"), n, Some("v")));
    world.merge(foreign.collect(), Some(heads_of(0x11, 1_000))).await;
    let config =
        Config { batch_rows_max: 70, scan_max: Duration::ZERO, ..config(mariadb, database) };
    let _mirror = Running::start(&world, &config);
    world.judge(mariadb, database, "t");
    // Each row once: no scan went over what another had passed.
    assert_eq!(world.report().rows_applied, 4_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_goes_on() {
    let (mariadb, database) = (&*shared(), "restarts");
    let mut world = World::new().await;
    let config = Config { heartbeat: Duration::from_millis(20), ..config(mariadb, database) };
    for round in 0..4 {
        let mirror = Running::start(&world, &config);
        world.put("t", format!("{round}"), "v").await;
        world.caught_up();
        // Idle heads are durable below the store's ceiling only; MySQL may have them.
        world.node.advance().await.unwrap();
        world.caught_up();
        mirror.stop().await;
        world = world.restart().await;
    }
    let _mirror = Running::start(&world, &config);
    world.judge(mariadb, database, "t");
    assert_eq!(world.report().last_error, None);
    assert_eq!(world.report().rows_applied, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lost_its_newest_commits_gets_them_again() {
    let (mariadb, database) = (&*shared(), "lost_commits");
    let world = World::new().await;
    world.fill("t", 100, 10).await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    world.caught_up();
    mariadb.sql(
        database,
        "CREATE TABLE t_then SELECT * FROM t; CREATE TABLE heads_then SELECT heads FROM \
         _lastword_mirror",
    );
    world.fill("t", 300, 20).await;
    world.delete("t", "k000005").await;
    world.judge(mariadb, database, "t");
    // As after a crash with innodb_flush_log_at_trx_commit = 0, under a proxy that hides it.
    mariadb.sql(
        database,
        "START TRANSACTION; DELETE FROM t; INSERT INTO t SELECT * FROM t_then; UPDATE \
         _lastword_mirror SET heads = (SELECT heads FROM heads_then); COMMIT",
    );
    world.put("t", "one", "more").await;
    world.when("a new beginning", |report| report.connects == 2);
    world.judge(mariadb, database, "t");
}

/// The store never goes back, so only a hand in the database can show the guards.
#[tokio::test(flavor = "multi_thread")]
async fn no_older_version_goes_over_a_newer_one() {
    let (mariadb, database) = (&*shared(), "guards");
    let world = World::new().await;
    let config = config(mariadb, database);
    world.write(["a", "b", "c", "d", "e"].map(|key| put("t", key, "stored")).into()).await;
    let mirror = Running::start(&world, &config);
    world.caught_up();
    mirror.stop().await;
    world.write(vec![delete("t", "c"), delete("t", "d")]).await;
    mariadb.sql(
        database,
        "UPDATE t SET v = 'newer', hlc = hlc + 100000000000 WHERE k IN ('a', 'c'); \
         UPDATE t SET v = 'greater origin', origin = UNHEX(REPEAT('FF', 16)) WHERE k = 'b'; \
         UPDATE t SET v = 'less', origin = UNHEX(REPEAT('00', 16)) WHERE k = 'e'; \
         UPDATE _lastword_mirror SET heads = ''",
    );
    let _mirror = Running::start(&world, &config);
    world.caught_up();
    let rows = mirrored(mariadb, database, "t");
    let values: Vec<_> = rows.values().map(|columns| columns.value.clone()).collect();
    let expected = ["newer", "greater origin", "newer", "stored"];
    assert_eq!(values, expected.map(|value| hex(value.as_bytes())));
    let stored = world.stored("t");
    assert_eq!(rows[&hex(b"e")], stored[&hex(b"e")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_writes_of_one_moment_the_greater_origin_stays() {
    let (mariadb, database) = (&*shared(), "ties");
    let world = World::new().await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    let hlc = world.node.now_ms() << 16;
    world.merge(vec![foreign(2, "t", "k", hlc, Some("2"))], Some(heads_of(2, hlc))).await;
    world.caught_up();
    world.merge(vec![foreign(3, "t", "k", hlc, Some("3"))], Some(heads_of(3, hlc))).await;
    world.judge(mariadb, database, "t");
    world.merge(vec![foreign(1, "t", "k", hlc, Some("1"))], Some(heads_of(1, hlc))).await;
    world.judge(mariadb, database, "t");
    assert_eq!(mirrored(mariadb, database, "t")[&hex(b"k")].value, hex(b"3"));
    world.merge(vec![foreign(4, "t", "k", hlc, None)], Some(heads_of(4, hlc))).await;
    world.judge(mariadb, database, "t");
    assert!(mirrored(mariadb, database, "t").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_delta_that_has_not_ended_are_there_too() {
    let (mariadb, database) = (&*shared(), "unended");
    let world = World::new().await;
    let config = config(mariadb, database);
    let mirror = Running::start(&world, &config);
    world.put("t", "own", "v").await;
    world.caught_up();
    world.merge(vec![foreign(7, "t", "live", 100, Some("v"))], None).await;
    let rows = || mirrored(mariadb, database, "t").len();
    until("the row", LIMIT, || (rows() == 2).then_some(()));
    mirror.stop().await;
    world.merge(vec![foreign(7, "t", "scanned", 50, Some("v"))], None).await;
    let _mirror = Running::start(&world, &config);
    world.judge(mariadb, database, "t");
    assert_eq!(rows(), 3);
    world.merge(vec![foreign(7, "t", "last", 120, Some("v"))], Some(heads_of(7, 120))).await;
    world.judge(mariadb, database, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_mirrors_only_the_newer_one_writes() {
    let (mariadb, database) = (&*shared(), "fence");
    let world = World::new().await;
    let config = config(mariadb, database);
    let load = Load::start(&world);
    let (one, two) = (Running::start(&world, &config), Running::start(&world, &config));
    let table = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'fence' AND \
                 TABLE_NAME = 't'";
    until("the table", LIMIT, || (!mariadb.sql(database, table).is_empty()).then_some(()));
    let (mut heads, mut epoch) = checkpoint(mariadb, database);
    let mut versions: BTreeMap<String, u64> = BTreeMap::new();
    for _ in 0..60 {
        let now = checkpoint(mariadb, database);
        assert!(now.0.covers(&heads) && now.1 >= epoch, "the checkpoint went back");
        (heads, epoch) = now;
        for (key, columns) in mirrored(mariadb, database, "t") {
            let hlc = columns.hlc.parse().unwrap();
            let before = versions.insert(key, hlc);
            assert!(before.is_none_or(|before| before <= hlc), "a row went back");
        }
    }
    assert!(load.stop().await > 0);
    assert!(epoch > 2, "each takes over from the other: {epoch}");
    one.stop().await;
    two.stop().await;
    world.fails_with("another mirror has taken this database over");

    let _mirror = Running::start(&world, &config);
    settle(&world, mariadb, database);
    world.judge(mariadb, database, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_hangs_is_given_up() {
    let (mariadb, database) = (&*shared(), "hangs");
    let world = World::new().await;
    let proxy = Proxy::start(([127, 0, 0, 1], mariadb.port()).into());
    let direct = config(mariadb, database);
    let config = Config {
        target: Target { port: proxy.address().port(), ..direct.target.clone() },
        statement_max: Duration::from_millis(500),
        connect_max: Duration::from_millis(500),
        heartbeat: Duration::from_millis(100),
        ..direct
    };
    let _mirror = Running::start(&world, &config);
    world.put("t", "k", "v").await;
    world.judge(mariadb, database, "t");

    proxy.freeze();
    world.fails_with("took longer than");
    world.put("t", "k", "while it hung").await;
    proxy.heal();
    world.judge(mariadb, database, "t");

    proxy.cut();
    world.put("t", "k", "while it was cut").await;
    world.when("the loss to be noticed", |report| !report.connected);
    proxy.heal();
    world.judge(mariadb, database, "t");
}
