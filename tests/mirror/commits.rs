//! The line breaks at a COMMIT: whether or not it was done, each row stands once, and the checkpoint with it.

use lastword::mirror::{Config, Target};

use crate::{
    commit_proxy::{CommitProxy, Fates},
    common::{mariadb::MariaDb, wait::until},
    crashes::{Load, settle},
    world::{LIMIT, Running, World, checkpoint, config, put, shared},
};

/// The rows, and that the checkpoint names what is there: no less, and nothing that the node does not have.
#[track_caller]
pub(crate) fn judge_all(world: &World, mariadb: &MariaDb, database: &str) {
    world.judge(mariadb, database, "t");
    let (heads, _) = checkpoint(mariadb, database);
    let now = world.node.heads();
    assert!(now.covers(&heads), "the checkpoint claims {heads}, the node has {now}");
    let scan = world.node.snapshot();
    for row in scan.changes(&heads).unwrap() {
        let row = row.unwrap();
        assert!(row.table.is_system(), "{:?} is above the checkpoint", row.key);
    }
}

fn through(proxy: &CommitProxy, direct: Config) -> Config {
    let target = Target { port: proxy.port(), ..direct.target.clone() };
    Config { target, batch_rows_max: 50, ..direct }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_ok_is_never_heard_is_not_done_twice() {
    let (mariadb, database) = (&*shared(), "swallowed");
    let world = World::new().await;
    let proxy = CommitProxy::start(([127, 0, 0, 1], mariadb.port()).into(), 1);
    let config = through(&proxy, config(mariadb, database));
    let _mirror = Running::start(&world, &config);
    world.put("t", "k", "before").await;
    judge_all(&world, mariadb, database);
    let connects = world.report().connects;

    proxy.break_at(0, 100);
    world.write(vec![put("t", "k", "after"), put("t", "new", "v")]).await;
    // MySQL has it, and the mirror has not heard so.
    let there = || mariadb.sql(database, "SELECT v FROM t WHERE k = 'k'")[0][0] == "after";
    until("the commit", LIMIT, || there().then_some(()));
    until("the break", LIMIT, || (proxy.fates().swallowed >= 1).then_some(()));
    proxy.break_at(0, 0);
    world.when("a new session", |report| report.connects > connects);
    judge_all(&world, mariadb, database);

    let connects = world.report().connects;
    let cut = proxy.fates().cut;
    proxy.break_at(100, 0);
    world.put("t", "k", "later").await;
    until("the break", LIMIT, || (proxy.fates().cut > cut).then_some(()));
    assert_eq!(mariadb.sql(database, "SELECT v FROM t WHERE k = 'k'")[0][0], "after");
    proxy.break_at(0, 0);
    world.when("a new session", |report| report.connects > connects);
    judge_all(&world, mariadb, database);
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_break_either_way_under_load_leave_no_trace() {
    let (mariadb, database) = (&*shared(), "breaks");
    let world = World::new().await;
    let proxy = CommitProxy::start(([127, 0, 0, 1], mariadb.port()).into(), rand::random());
    let config = through(&proxy, config(mariadb, database));
    let _mirror = Running::start(&world, &config);
    for _ in 0..3 {
        let load = Load::start(&world);
        proxy.break_at(15, 15);
        let before = proxy.fates();
        until("many broken commits", LIMIT, || {
            let Fates { cut, swallowed, .. } = proxy.fates();
            (cut >= before.cut + 10 && swallowed >= before.swallowed + 10).then_some(())
        });
        load.stop().await;
        proxy.break_at(0, 0);
        settle(&world, mariadb, database);
        judge_all(&world, mariadb, database);
    }
    // Many of them broke its session, and some its beginning.
    assert!(world.report().connects > 20, "{:?}", world.report());
}

/// Tables are dropped under the mirror's feet, one or all, while writes go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_while_writes_go_on_misses_nothing() {
    let (mariadb, database) = (&*shared(), "rebuilds");
    let world = World::new().await;
    world.fill("t", 3_000, 20).await;
    world.fill("u", 500, 20).await;
    let config = Config { batch_rows_max: 200, ..config(mariadb, database) };
    let _mirror = Running::start(&world, &config);
    world.judge(mariadb, database, "u");
    for round in 0..8 {
        let load = Load::start(&world);
        let before = world.report().rows_applied;
        world.when("some rows", |report| report.rows_applied > before + 100);
        let drop = match round % 4 {
            0 => "DROP TABLE t",
            1 => "DROP TABLE t, u",
            2 => "DROP TABLE t, u, _lastword_mirror, _lastword_tables, _lastword_rejected",
            // The checkpoint alone.
            _ => "DROP TABLE _lastword_mirror",
        };
        mariadb.sql(database, drop);
        let before = world.report().rows_applied;
        world.when("the filling", |report| report.rows_applied > before + 1_000);
        load.stop().await;
        settle(&world, mariadb, database);
        judge_all(&world, mariadb, database);
        world.judge(mariadb, database, "u");
    }
}
