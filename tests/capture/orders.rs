//! What keeps the capture off MySQL: an operator who says so, and a MySQL that would lose what it captures.

use std::time::Duration;

use crate::{
    common::{mariadb::MariaDb, wait::until},
    world::{LIMIT, Running, World, config, look, shared},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_one_of_the_capture_too_and_loses_nothing() {
    let (mariadb, database) = (&*shared(), "paused");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    mariadb.sql(database, "INSERT INTO items VALUES (1, 'before')");
    world.agrees(mariadb, database);

    world.node.pause_mirror("ann").unwrap();
    assert!(world.node.mirror_at_rest(LIMIT).await);
    let sessions = format!(
        "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{database}' AND USER = 'lastword'"
    );
    until("no session to be left", LIMIT, || mariadb.sql("", &sessions).is_empty().then_some(()));
    mariadb.sql(database, "INSERT INTO items VALUES (2, 'meanwhile'); UPDATE items SET v = 'both'");
    let standing = look(mariadb, database);
    assert_eq!((standing.0, standing.1.len()), (3, 2));
    assert!(!world.report().connected);
    assert_eq!(world.stored("items").len(), 1);

    world.node.resume_mirror().unwrap();
    world.agrees(mariadb, database);
    assert_eq!(world.column("items", "2", "v"), Some("both".into()));
    // One order right after the other.
    for _ in 0..20 {
        world.node.pause_mirror("ann").unwrap();
        assert!(world.node.mirror_at_rest(LIMIT).await);
        mariadb.sql(database, "INSERT INTO items (v) VALUES ('one more')");
        assert!(look(mariadb, database).0 > 0, "it is at rest");
        world.node.resume_mirror().unwrap();
    }
    world.agrees(mariadb, database);
    assert_eq!(world.stored("items").len(), 22);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_collide_is_not_captured_until_mysql_is_mended() {
    let mariadb = MariaDb::start();
    let database = "unfit";
    let mut config = config(&mariadb, database);
    config.columns_check = Duration::from_millis(100);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    mariadb.sql("", "SET GLOBAL auto_increment_increment = 10");
    let refused = || {
        let report = world.report();
        let error = report.last_error.filter(|_| !report.connected)?;
        error.message.contains("SET GLOBAL auto_increment_increment = 1, ").then_some(())
    };
    until("the capture to stop", LIMIT, refused);
    mariadb.sql(database, "INSERT INTO items (v) VALUES ('waits')");
    assert_eq!((look(&mariadb, database).0, world.stored("items").len()), (1, 0));
    mariadb.sql("", "SET GLOBAL auto_increment_increment = 1, GLOBAL auto_increment_offset = 1");
    world.agrees(&mariadb, database);
    assert_eq!(world.stored("items").len(), 1);
}
