//! A MySQL that neither answers nor goes away: the mirror gives its session up, and the node serves on.

use std::time::Duration;

use lastword::mirror::Config;

use crate::{
    common::{mariadb::MariaDb, wait::until},
    crashes::{Load, settle},
    world::{LIMIT, Running, World, config, shared},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stands_still_costs_its_session_and_the_node_nothing() {
    let mariadb = MariaDb::start();
    let database = "still";
    let world = World::new().await;
    let config = Config {
        statement_max: Duration::from_millis(500),
        connect_max: Duration::from_millis(500),
        ..config(&mariadb, database)
    };
    let _mirror = Running::start(&world, &config);
    let load = Load::start(&world);
    for _ in 0..3 {
        world.when("it to follow", |report| report.applying);
        mariadb.freeze();
        world.fails_with("took longer than 500ms");
        let written = || world.node.status().unwrap().rows_written;
        let before = written();
        until("more writes", LIMIT, || (written() > before + 500).then_some(()));
        // Not one attempt after another: there are never more than one session and one connection.
        world.fails_with("connecting took longer than 500ms");
        mariadb.thaw();
    }
    assert!(load.stop().await > 0);
    settle(&world, &mariadb, database);
    world.judge(&mariadb, database, "t");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_nobody_waits_for_ends_in_the_server_too() {
    let (mariadb, database) = (&*shared(), "abandoned");
    let world = World::new().await;
    // MariaDB is told whole seconds: this, and the five that it gets on top.
    let config = Config { statement_max: Duration::from_millis(300), ..config(mariadb, database) };
    world.put("t", "k", "v").await;
    let mirror = Running::start(&world, &config);
    world.judge(mariadb, database, "t");
    mariadb.sql(
        database,
        "DELIMITER //\nCREATE TRIGGER slow BEFORE UPDATE ON t FOR EACH ROW DO SLEEP(600)//",
    );
    world.put("t", "k", "newer").await;
    world.fails_with("a statement took longer than 300ms");
    mirror.stop().await;
    let sleeping = "SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = 'abandoned' AND \
                    STATE = 'User sleep'";
    until("it to end", LIMIT, || mariadb.sql("", sleeping).is_empty().then_some(()));
    mariadb.sql(database, "DROP TRIGGER slow");
    let _mirror = Running::start(&world, &config);
    world.judge(mariadb, database, "t");
}
