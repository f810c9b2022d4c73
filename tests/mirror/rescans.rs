//! Rows that died without MySQL being told: their tombstones are gone, and MySQL follows all the same.

use std::time::Duration;

use lastword::{
    mirror::Config,
    model::{Heads, Key, Origin, TableName, Version},
    node::UpkeepConfig,
    store::Reconciled,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    common::{mariadb::MariaDb, wait::until},
    crashes::{Load, settle},
    world::{
        LIMIT, Running, World, checkpoint, config, delete, foreign, heads_of, hex, mirrored, put,
        put_for, shared,
    },
};

/// What a node does by itself: here, to purge.
struct Upkeep {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl Upkeep {
    fn start(world: &World) -> Upkeep {
        let shutdown = CancellationToken::new();
        let config = UpkeepConfig { every: Duration::from_millis(10), ..UpkeepConfig::default() };
        let task = tokio::spawn(world.node.clone().keep_up(config, shutdown.clone()));
        Upkeep { task, shutdown }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap();
    }
}

/// Waits until so many rows were ever purged, and none is left that is dead.
#[track_caller]
fn purged(world: &World, rows: u64) {
    until("the dead rows to be purged", LIMIT, || {
        let snapshot = world.node.snapshot();
        let dead = snapshot.count_dead(world.node.now_ms(), u64::MAX).unwrap();
        (snapshot.rows_purged().unwrap() == rows && dead == 0).then_some(())
    });
}

/// Waits until the dead rows are purged, which a node without a mirror does.
async fn purge(world: &World, rows: u64) {
    let upkeep = Upkeep::start(world);
    purged(world, rows);
    upkeep.stop().await;
}

fn is_below_floor(world: &World, mariadb: &MariaDb, database: &str) -> bool {
    !checkpoint(mariadb, database).0.covers(world.node.snapshot().floor())
}

fn key(number: usize) -> String {
    format!("k{number:06}")
}

fn stands(mariadb: &MariaDb, database: &str, number: usize) -> bool {
    mirrored(mariadb, database, "t").contains_key(&hex(key(number).as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_died_and_was_purged_while_there_was_no_mirror_leaves_mysql() {
    let (mariadb, database) = (&*shared(), "rescan");
    let world = World::new().await;
    world.node.seal().await.unwrap();
    let config = Config { rescan_rows_max: 7, batch_rows_max: 50, ..config(mariadb, database) };
    let columns = "hlc BIGINT UNSIGNED NOT NULL, origin BINARY(16) NOT NULL, \
                   updated_at DATETIME(6) NOT NULL, expires_at DATETIME(6) NULL";
    mariadb.sql(
        database,
        &format!(
            "CREATE TABLE names (k VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci \
             PRIMARY KEY, v TEXT, {columns}); \
             CREATE TABLE theirs (k VARBINARY(512) PRIMARY KEY, v BLOB, {columns}); \
             INSERT INTO theirs VALUES ('k', 'v', 1, '', NOW(6), NULL)"
        ),
    );
    let names = ["A", "b", "C", "d", "Ö", "z", "Z9", "ünter", "longer than its column"];
    let mirror = Running::start(&world, &config);
    world.fill("t", 1_000, 10).await;
    world.fill("emptied", 301, 10).await;
    world.write(names.map(|name| put("names", name, "v")).into()).await;
    world.when("a row to be set aside", |report| report.rows_rejected == 1);
    world.judge(mariadb, database, "t");
    mirror.stop().await;

    let world = world.restart().await;
    let dead_names = ["b", "C", "Ö", "ünter", "longer than its column"];
    world.write((0..1_000).step_by(2).map(|n| delete("t", key(n))).collect()).await;
    world.write((0..301).map(|n| delete("emptied", key(n))).collect()).await;
    world.write(dead_names.map(|name| delete("names", name)).into()).await;
    // It does not expire as MySQL has it.
    world.write(vec![put_for("t", &key(1), "short", Duration::from_secs(1))]).await;
    world.put("t", key(3), "changed").await;
    world.time_passes(60_000);
    purge(&world, 500 + 301 + 5 + 1).await;
    world.put("t", key(4), "back again").await;
    assert_eq!(mirrored(mariadb, database, "t").len(), 1_000);
    assert!(is_below_floor(&world, mariadb, database));

    // Writes go on, and are purged once MySQL has them.
    let (load, upkeep) = (Load::start(&world), Upkeep::start(&world));
    let _mirror = Running::start(&world, &config);
    let rescan = world.when("the rescan", |report| report.rescan.is_some()).rescan.unwrap();
    assert!(rescan.rows > 0, "{rescan:?}");
    let rescan = world.node.status().unwrap().mirror.unwrap().report.rescan;
    assert!(rescan.is_none_or(|at| ["emptied", "names", "t"].contains(&at.table.as_str())));
    world.when("MySQL to stand above the floor", |report| {
        report.position.as_ref().is_some_and(|at| at.covers(world.node.snapshot().floor()))
    });
    assert!(load.stop().await > 0);
    settle(&world, mariadb, database);
    for table in ["t", "emptied", "names"] {
        world.judge(mariadb, database, table);
    }
    assert_eq!(mirrored(mariadb, database, "names").len(), 4);
    assert!(stands(mariadb, database, 4) && !stands(mariadb, database, 1));
    assert!(mirrored(mariadb, database, "emptied").is_empty());
    assert_eq!(mariadb.sql(database, "SELECT COUNT(*) FROM theirs")[0][0], "1");
    let report = world.when("the dead row to leave the list", |report| report.rows_rejected == 0);
    assert_eq!((report.rescan, report.connects), (None, 1));
    upkeep.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rescan_that_broke_off_is_done_again() {
    let (mariadb, database) = (&*shared(), "broken_rescan");
    let world = World::new().await;
    world.node.seal().await.unwrap();
    let config = Config { rescan_rows_max: 50, batch_rows_max: 50, ..config(mariadb, database) };
    let mirror = Running::start(&world, &config);
    world.fill("t", 2_000, 10).await;
    world.judge(mariadb, database, "t");
    mirror.stop().await;
    let world = world.restart().await;
    world.write((0..2_000).filter(|n| n % 10 != 0).map(|n| delete("t", key(n))).collect()).await;
    world.put("t", key(100), "changed").await;
    purge(&world, 1_800).await;
    let (before, _) = checkpoint(mariadb, database);

    // It always breaks off in the middle.
    let on_delete = |table: &str, number: usize, action: &str| {
        format!(
            "CREATE TRIGGER {table}_stops BEFORE DELETE ON {table} FOR EACH ROW \
             BEGIN IF OLD.k = '{}' THEN {action}; END IF; END",
            key(number)
        )
    };
    let stop = on_delete("t", 1_001, "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'broken off'");
    mariadb.sql(database, &format!("DELIMITER //\n{stop}//"));
    let mirror = Running::start(&world, &config);
    world.fails_with("broken off");
    mirror.stop().await;
    assert!(!stands(mariadb, database, 949) && stands(mariadb, database, 1_999));
    assert_eq!(checkpoint(mariadb, database).0, before, "nothing may be claimed yet");
    assert!(is_below_floor(&world, mariadb, database));

    let world = world.restart().await;
    // Written anew meanwhile, where it was and where it did not come to; and more died.
    world.write(vec![put("t", key(11), "anew"), put("t", key(1_501), "anew")]).await;
    world.write(vec![delete("t", key(20)), delete("t", key(1_520))]).await;
    purge(&world, 1_802).await;
    let (load, upkeep) = (Load::start(&world), Upkeep::start(&world));
    // Another session takes over while a part is deleted, and this is told so.
    let wait = on_delete("t", 1_001, "DO SLEEP(1)");
    mariadb.sql(database, &format!("DROP TRIGGER t_stops;\nDELIMITER //\n{wait}//"));
    let (_, epoch) = checkpoint(mariadb, database);
    let one = Running::start(&world, &config);
    until("it to be in the middle", LIMIT, || {
        let waiting = "SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = 'broken_rescan' \
                       AND STATE = 'User sleep'";
        (!mariadb.sql(database, waiting).is_empty()).then_some(())
    });
    assert!(is_below_floor(&world, mariadb, database));
    let two = Running::start(&world, &config);
    until("both to have taken over", LIMIT, || {
        (checkpoint(mariadb, database).1 >= epoch + 3).then_some(())
    });
    one.abort();
    assert!(load.stop().await > 0);
    settle(&world, mariadb, database);
    world.judge(mariadb, database, "t");
    upkeep.stop().await;
    two.stop().await;
    for (number, there) in [(11, true), (1_501, true), (20, false), (1_520, false), (12, false)] {
        assert_eq!(stands(mariadb, database, number), there, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_reconciliation_took_away_leaves_mysql_at_once() {
    let (mariadb, database) = (&*shared(), "reconciled");
    let world = World::new().await;
    let config = Config { rescan_rows_max: 50, ..config(mariadb, database) };
    let _mirror = Running::start(&world, &config);
    let rows = 1..=300;
    let rows = rows.map(|n| foreign(7, "t", &format!("their {n}"), n, Some("v")));
    world.merge(rows.collect(), Some(heads_of(7, 300))).await;
    world.fill("t", 100, 10).await;
    world.judge(mariadb, database, "t");
    let load = Load::start(&world);

    let table = TableName::of_client("t").unwrap();
    let standing = |key: String| {
        let key = Key::new(key.into_bytes()).unwrap();
        let body = world.node.snapshot().get(&table, &key).unwrap().unwrap();
        (table.clone(), key, body.version())
    };
    let mut dead: Vec<_> = (1..=200).map(|n| standing(format!("their {n}"))).collect();
    dead.push(standing(key(5)));
    // Another version than the one that the reconciliation found.
    let (place, written_anew, _) = standing(key(6));
    dead.push((place, written_anew, Version::default()));
    let end = Reconciled {
        sender: Origin::from_bytes([8; 16]),
        dead,
        doubtful: vec![standing("their 250".into())],
        renew: Vec::new(),
        claim: heads_of(8, 90),
        floor: heads_of(8, 80),
    };
    assert_eq!(world.node.reconcile(end).await.unwrap(), Some(202));
    assert!(load.stop().await > 0);
    settle(&world, mariadb, database);
    world.judge(mariadb, database, "t");
    let gone = |key: &str| !mirrored(mariadb, database, "t").contains_key(&hex(key.as_bytes()));
    assert!(gone("their 1") && gone("their 200") && gone("their 250") && gone(&key(5)));
    assert!(!gone("their 201") && !gone(&key(6)));
    assert_eq!(world.report().connects, 1);

    // The next one finds nothing: MySQL comes to stand above that floor as well.
    let end = Reconciled {
        sender: Origin::from_bytes([8; 16]),
        dead: Vec::new(),
        doubtful: Vec::new(),
        renew: Vec::new(),
        claim: Heads::new(),
        floor: heads_of(8, 90),
    };
    assert_eq!(world.node.reconcile(end).await.unwrap(), Some(0));
    world.put("t", "one", "more").await;
    world.judge(mariadb, database, "t");
    assert!(!is_below_floor(&world, mariadb, database));
}
