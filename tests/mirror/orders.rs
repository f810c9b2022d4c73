//! What an operator tells the mirror: to pause, to go on, to fill tables anew; under load, and over
//! restarts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lastword::{
    mirror::Config,
    model::TableName,
    node::{MirrorOrderError, Node},
};

use crate::{
    common::{
        mariadb::MariaDb,
        node::Node as Process,
        program::{at, complaint, done, status},
        wait::until,
    },
    crashes::{Load, settle},
    films,
    world::{LIMIT, Running, World, checkpoint, config, hex, mirrored, shared},
};

fn table(name: &str) -> TableName {
    TableName::of_client(name).unwrap()
}

/// How many sessions of the mirror are open.
fn sessions(mariadb: &MariaDb, database: &str) -> usize {
    let sessions = format!(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{database}' AND USER = 'lastword'"
    );
    mariadb.sql("", &sessions).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_mirror_writes_nothing_until_it_is_told_to_go_on() {
    let (mariadb, database) = (&*shared(), "paused");
    let world = World::new().await;
    assert!(matches!(world.node.pause_mirror("ann"), Err(MirrorOrderError::NoMirror)));
    let config = Config { batch_rows_max: 50, ..config(mariadb, database) };
    let mirror = Running::start(&world, &config);
    let load = Load::start(&world);
    world.when("some rows", |report| report.rows_applied > 500);

    let pause = world.node.pause_mirror("ann@fra\n").unwrap();
    assert_eq!(pause.by, "ann@fra");
    assert!(world.node.mirror_at_rest(LIMIT).await);
    let before = (checkpoint(mariadb, database), mirrored(mariadb, database, "t"));
    until("its session to end", LIMIT, || (sessions(mariadb, database) == 0).then_some(()));
    let lags = |node: &Node| node.status().unwrap().mirror.unwrap().behind;
    until("it to lag", LIMIT, || (lags(&world.node).rows > 100).then_some(()));
    assert!(lags(&world.node).seconds > 0.0);
    let report = world.report();
    assert!(!report.connected && !report.applying && report.last_error.is_none(), "{report:?}");
    // The first order stays.
    assert_eq!(world.node.pause_mirror("bob").unwrap(), pause);
    assert_eq!(before, (checkpoint(mariadb, database), mirrored(mariadb, database, "t")));

    // Over a restart of the node, too.
    load.stop().await;
    mirror.stop().await;
    let world = world.restart().await;
    let _mirror = Running::start(&world, &config);
    assert!(world.node.mirror_at_rest(LIMIT).await);
    world.put("t", "while paused", "v").await;
    assert_eq!(world.node.status().unwrap().mirror.unwrap().orders.paused, Some(pause.clone()));
    assert_eq!(world.report().connects, 0);
    assert_eq!(before, (checkpoint(mariadb, database), mirrored(mariadb, database, "t")));

    let load = Load::start(&world);
    assert_eq!(world.node.resume_mirror().unwrap(), Some(pause));
    world.when("it to go on", |report| report.connected && report.applying);
    assert!(load.stop().await > 0);
    settle(&world, mariadb, database);
    world.judge(mariadb, database, "t");
    assert_eq!(world.node.resume_mirror().unwrap(), None);
    // What was passed on before the pause was not passed on again.
    assert!(world.report().rows_applied < world.node.status().unwrap().rows * 40);
    assert_eq!((lags(&world.node).seconds, lags(&world.node).rows), (0.0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_while_mysql_is_away_holds_when_it_comes_back() {
    let mut mariadb = MariaDb::start();
    let database = "away";
    let world = World::new().await;
    let config = config(&mariadb, database);
    let _mirror = Running::start(&world, &config);
    world.put("t", "k", "v").await;
    world.judge(&mariadb, database, "t");
    mariadb.kill9();
    world.when("the loss", |report| !report.connected);
    world.node.pause_mirror("ann").unwrap();
    assert!(world.node.mirror_at_rest(LIMIT).await);
    mariadb.restart();
    world.put("t", "k", "newer").await;
    let connects = world.report().connects;
    assert_eq!(sessions(&mariadb, database), 0);
    world.node.resume_mirror().unwrap();
    world.judge(&mariadb, database, "t");
    assert_eq!(world.report().connects, connects + 1);
}

/// Looks at rows that nobody changes, until it is told to stop: none may ever be away.
struct Watch {
    stop: Arc<AtomicBool>,
    looks: Arc<AtomicU64>,
    thread: std::thread::JoinHandle<()>,
}

impl Watch {
    fn start(mariadb: &Arc<MariaDb>, database: &'static str, rows: usize) -> Watch {
        let (stop, looks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (mariadb, stopped, counted) = (Arc::clone(mariadb), stop.clone(), looks.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let standing = mariadb.sql(database, "SELECT COUNT(*) FROM t WHERE k LIKE 'k%'");
                assert_eq!(standing[0][0], rows.to_string(), "a current row was away");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Watch { stop, looks, thread }
    }

    fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every row was there each time");
        self.looks.load(Ordering::Relaxed)
    }
}

fn rebuilt(world: &World) {
    until("the tables to be filled anew", LIMIT, || {
        world.node.mirror_orders().borrow().rebuild.is_none().then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_filled_anew_while_writes_go_on_and_no_current_row_is_ever_away() {
    let (mariadb, database) = (shared(), "rebuilt");
    let world = World::new().await;
    let config = Config { batch_rows_max: 100, rescan_rows_max: 90, ..config(&mariadb, database) };
    let mirror = Running::start(&world, &config);
    world.fill("t", 4_000, 20).await;
    world.fill("u", 500, 20).await;
    world.judge(&mariadb, database, "t");
    // Whatever hands in the database have done.
    let damage = |table: &str| {
        format!(
            "UPDATE {table} SET v = 'theirs' WHERE k LIKE '%7'; \
             UPDATE {table} SET v = 'younger', hlc = hlc + 1000000000000 WHERE k LIKE '%13'; \
             UPDATE {table} SET expires_at = NOW(6) + INTERVAL 9 DAY WHERE k LIKE '%22'; \
             UPDATE {table} SET v = 'elder', hlc = 1, origin = '' WHERE k LIKE '%31'; \
             INSERT INTO {table} VALUES ('stranger', 'v', 18446744073709551615, '', NOW(6), NULL), \
             ('a stranger', 'v', 1, '', NOW(6), NULL);"
        )
    };
    mariadb.sql(database, &damage("t"));
    mariadb.sql(database, &damage("u"));
    let damaged = mirrored(&mariadb, database, "u");
    let load = Load::start(&world);
    let watch = Watch::start(&mariadb, database, 4_000);

    // One table, twice: the second order begins it again.
    assert!(matches!(
        world.node.rebuild_mirror(Some(&table("nobodys"))),
        Err(MirrorOrderError::NoTable(_))
    ));
    world.node.rebuild_mirror(Some(&table("t"))).unwrap();
    let at = world
        .when("the first rows", |report| report.rebuild.as_ref().is_some_and(|at| at.rows > 0));
    assert_eq!(at.rebuild.unwrap().table, table("t"));
    world.node.rebuild_mirror(Some(&table("t"))).unwrap();
    rebuilt(&world);
    assert_eq!(mirrored(&mariadb, database, "u"), damaged, "the other table was not asked for");
    assert!(load.stop().await > 0);
    settle(&world, &mariadb, database);
    world.judge(&mariadb, database, "t");

    // All, with sessions that break, and a node that restarts.
    mariadb.sql(database, &damage("t"));
    let load = Load::start(&world);
    world.node.rebuild_mirror(None).unwrap();
    for _ in 0..5 {
        world.when("some rows", |report| report.rebuild.as_ref().is_some_and(|at| at.rows > 100));
        let kill = format!(
            "SELECT CONCAT('KILL ', ID) FROM information_schema.PROCESSLIST WHERE DB = '{database}' \
             AND USER = 'lastword'"
        );
        let connects = world.report().connects;
        for session in mariadb.sql("", &kill) {
            let _ = mariadb.try_sql("", &session[0]);
        }
        world.when("a new session", |report| report.connects > connects);
    }
    world.when("some rows", |report| report.rebuild.as_ref().is_some_and(|at| at.rows > 100));
    load.stop().await;
    mirror.stop().await;
    assert!(watch.stop() > 10, "it looked often enough");
    let world = world.restart().await;
    let order = world.node.mirror_orders().borrow().rebuild.clone().unwrap();
    assert_eq!(order.tables, None);
    let (load, watch) = (Load::start(&world), Watch::start(&mariadb, database, 4_000));
    let _mirror = Running::start(&world, &config);
    rebuilt(&world);
    assert!(load.stop().await > 0);
    watch.stop();
    settle(&world, &mariadb, database);
    world.judge(&mariadb, database, "t");
    world.judge(&mariadb, database, "u");
    assert_eq!(world.report().rebuild, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_waits_for_a_pause_and_makes_a_table_that_was_dropped() {
    let (mariadb, database) = (&*shared(), "rebuilt_later");
    let world = World::new().await;
    let config = config(mariadb, database);
    let _mirror = Running::start(&world, &config);
    world.fill("t", 300, 10).await;
    world.judge(mariadb, database, "t");
    world.node.pause_mirror("ann").unwrap();
    assert!(world.node.mirror_at_rest(LIMIT).await);
    mariadb.sql(database, "UPDATE t SET v = 'theirs'");
    world.node.rebuild_mirror(Some(&table("t"))).unwrap();
    world.put("t", "one", "more").await;
    assert!(world.node.mirror_orders().borrow().rebuild.is_some());
    assert!(!mirrored(mariadb, database, "t").contains_key(&hex(b"one")));
    world.node.resume_mirror().unwrap();
    rebuilt(&world);
    world.judge(mariadb, database, "t");
}

/// A session that keeps a film locked until it is released.
struct Lock {
    mariadb: Arc<MariaDb>,
    thread: std::thread::JoinHandle<()>,
}

impl Lock {
    fn of(mariadb: &Arc<MariaDb>, database: &'static str, id: usize) -> Lock {
        let held = Arc::clone(mariadb);
        let thread = std::thread::spawn(move || {
            let lock = format!(
                "START TRANSACTION; SELECT id FROM film WHERE id = {id} FOR UPDATE; DO SLEEP(600)"
            );
            held.try_sql(database, &lock).unwrap_err();
        });
        let lock = Lock { mariadb: Arc::clone(mariadb), thread };
        until("the lock", LIMIT, || lock.session());
        lock
    }

    fn session(&self) -> Option<String> {
        let sessions = "SELECT ID FROM information_schema.PROCESSLIST WHERE STATE = 'User sleep' \
                        AND INFO = 'DO SLEEP(600)'";
        Some(self.mariadb.sql("", sessions).first()?[0].clone())
    }

    fn release(self) {
        let session = self.session().expect("it sleeps");
        self.mariadb.sql("", &format!("KILL {session}"));
        self.thread.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_table_is_filled_anew_and_mysql_says_so_until_it_is() {
    let (mariadb, database) = (Arc::new(MariaDb::start()), "films");
    let world = World::new().await;
    let config = Config {
        batch_rows_max: 100,
        rescan_rows_max: 90,
        columns_check: Duration::from_millis(200),
        ..films::with_films(&mariadb, config(&mariadb, database))
    };
    let mirror = Running::start(&world, &config);
    films::fill(&world, 0..3_000).await;
    world.fill("t", 300, 20).await;
    films::judge(&world, &mariadb, database);
    assert_eq!(films::mirrored(&mariadb, database).len(), 3_000);
    let damage = "UPDATE film SET title = 'theirs' WHERE id % 7 = 0; \
                  DELETE FROM film WHERE id % 11 = 0; \
                  INSERT INTO film VALUES (100001, 'a stranger'), (18446744073709551615, 'another')";
    mariadb.sql(database, damage);
    let is_ordered = || world.node.mirror_orders().borrow().rebuild.is_some();

    // In the middle of it, in the order of keys, a row is locked.
    let lock = Lock::of(&mariadb, database, 2_000);
    world.node.rebuild_mirror(Some(&table("film"))).unwrap();
    // What InnoDB says of locks gets no newer while it is asked often.
    let waits = "SELECT 1 FROM information_schema.PROCESSLIST WHERE USER = 'lastword' \
                 AND INFO LIKE 'INSERT INTO `film`%' AND TIME_MS > 300";
    until("the mirror to wait for the lock", LIMIT, || {
        (!mariadb.sql("", waits).is_empty()).then_some(())
    });
    assert!(!films::is_filled(&mariadb, database) && is_ordered());
    let at = world.report().rebuild.unwrap();
    assert_eq!(at.table, table("film"));
    // A pause takes effect between two parts; what is missing is still known to be.
    world.node.pause_mirror("ann").unwrap();
    lock.release();
    assert!(world.node.mirror_at_rest(LIMIT).await);
    assert!(!films::is_filled(&mariadb, database) && is_ordered());
    let paused = films::mirrored(&mariadb, database);
    assert!(paused.contains_key(&100_001) && paused.len() < 3_000, "{}", paused.len());
    world.write(vec![films::film(7, "written while paused"), films::film(5_000, "new")]).await;
    world.delete("film", "14").await;
    assert_eq!(paused, films::mirrored(&mariadb, database));

    // Another session, and writes meanwhile.
    mirror.stop().await;
    let mirror = Running::start(&world, &config);
    world.node.resume_mirror().unwrap();
    films::fill(&world, 5_001..6_000).await;
    rebuilt(&world);
    assert!(films::is_filled(&mariadb, database));
    films::judge(&world, &mariadb, database);
    assert_eq!(films::mirrored(&mariadb, database).len(), 3_999);

    // With all others, and with writes in the middle.
    mariadb.sql(database, &format!("{damage}; UPDATE t SET v = 'theirs'"));
    world.node.rebuild_mirror(None).unwrap();
    for id in 0..100 {
        world.write(vec![films::film(id * 50, "while it is filled anew")]).await;
    }
    rebuilt(&world);
    films::judge(&world, &mariadb, database);
    world.judge(&mariadb, database, "t");

    // One that will not do is passed over, known to lack rows, and filled once it does.
    mariadb.sql(database, "ALTER TABLE film ADD UNIQUE INDEX twice (id, title)");
    world.when("it to wait", |report| !report.waiting_tables.is_empty());
    mariadb.sql(database, "UPDATE film SET title = 'theirs' WHERE id = 1");
    world.node.rebuild_mirror(None).unwrap();
    rebuilt(&world);
    assert!(!films::is_filled(&mariadb, database));
    mariadb.sql(database, "ALTER TABLE film DROP INDEX twice");
    films::judge(&world, &mariadb, database);
    mirror.stop().await;
}

#[test]
fn the_commands_do_what_they_say() {
    let mariadb = shared();
    let nobody = Process::new("lon").start();
    let refused = complaint(&at(&nobody.url(), &["mirror", "pause"]), 1);
    assert!(refused.contains("this node has none: start it with --mysql"), "{refused}");

    let mut node = Process::new("fra").mysql(&mariadb.url("commands")).start();
    let url = node.url();
    done(&at(&url, &["put", "t", "k", "v"]));
    let stands = |value: &str| {
        until(value, LIMIT, || {
            let rows = mariadb.try_sql("commands", "SELECT v FROM t WHERE k = 'k'").ok()?;
            (rows == [[value]]).then_some(())
        });
    };
    stands("v");
    let paused = done(&at(&url, &["mirror", "pause", "--by", "ann"]));
    assert!(paused.starts_with("paused since 20") && paused.ends_with(", by ann\n"), "{paused}");
    let mirror = status(&url)["mirror"].clone();
    assert_eq!((&mirror["paused_by"], &mirror["connected"]), (&"ann".into(), &false.into()));
    done(&at(&url, &["put", "t", "k", "later"]));
    node.restart();
    let text = done(&at(&url, &["status"]));
    assert!(
        text.contains("Paused: 20") && text.contains(", by ann; lastword mirror resume"),
        "{text}"
    );
    let page = node.http_get("/").unwrap().1;
    assert!(page.contains("Paused") && page.contains("by ann"), "{page}");
    let metrics = node.http_get("/metrics").unwrap().1;
    for name in ["lag_seconds", "lag_rows", "paused"] {
        assert!(metrics.contains(&format!("lastword_mirror_{name}{{")), "{name} in {metrics}");
    }
    stands("v");
    let resumed = done(&at(&url, &["mirror", "resume"]));
    assert!(resumed.starts_with("goes on; it was paused since 20"), "{resumed}");
    stands("later");
    assert_eq!(done(&at(&url, &["mirror", "resume"])), "it was not paused\n");

    mariadb.sql(
        "commands",
        "UPDATE t SET v = 'theirs'; INSERT INTO t SELECT 'x', v, 1, '', NOW(6), NULL FROM t",
    );
    assert_eq!(done(&at(&url, &["mirror", "rebuild", "--table", "t", "--wait"])), "filled anew\n");
    stands("later");
    assert_eq!(mariadb.sql("commands", "SELECT COUNT(*) FROM t")[0][0], "1");
    assert_eq!(status(&url)["mirror"]["rebuild_tables"], serde_json::Value::Null);
    let unknown = complaint(&at(&url, &["mirror", "rebuild", "--table", "nobodys"]), 1);
    assert!(unknown.contains("this node has no table nobodys"), "{unknown}");
    // Who says nothing of themselves is named by the machine.
    let paused = done(&at(&url, &["mirror", "pause"]));
    assert!(paused.contains(", by ") && paused.contains('@'), "{paused}");
    until("the lag to be 0 but for the idle", Duration::from_secs(10), || {
        (status(&url)["mirror"]["behind_rows"] == 0).then_some(())
    });
}
