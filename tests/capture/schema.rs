//! Tables that are altered under way, and tables that cannot be captured as they are.

use lastword::node::CaptureState;
use serde_json::json;

use crate::world::{Running, World, captured, config, shared};

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_added_waits_for_a_refresh_and_nothing_is_lost() {
    let (mariadb, database) = (&*shared(), "altered");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    mariadb.sql(database, "INSERT INTO items VALUES (1, 'one'), (2, 'two'), (3, 'three')");
    world.agrees(mariadb, database);

    mariadb.sql(database, "ALTER TABLE items ADD COLUMN price DECIMAL(6,2) NOT NULL DEFAULT 1.5");
    mariadb.sql(
        database,
        "UPDATE items SET price = 9 WHERE id = 1; DELETE FROM items WHERE id = 3; \
         INSERT INTO items VALUES (4, 'four', 4)",
    );
    let paused = |table: &lastword::node::CapturedTable| {
        table.state == CaptureState::Waiting && table.reason.contains("table refresh items")
    };
    world.when("items", "the pause", paused);
    world.when("items", "entries", |table| table.pending == 3);
    assert_eq!(world.column("items", "1", "price"), None);
    assert!(world.stored("items").contains_key("3"));

    let items = lastword::model::TableName::of_client("items").unwrap();
    world.node.refresh_table(items.clone()).await.unwrap();
    world.captures("items");
    world.agrees(mariadb, database);
    assert_eq!(world.column("items", "1", "price"), Some(json!("9.00")));
    assert_eq!(world.column("items", "2", "price"), Some(json!("1.50")));
    assert_eq!(world.column("items", "4", "price"), Some(json!("4.00")));

    mariadb.sql(database, "ALTER TABLE items DROP COLUMN price");
    mariadb.sql(database, "INSERT INTO items VALUES (5, 'five')");
    world.when("items", "the pause", paused);
    world.node.refresh_table(items.clone()).await.unwrap();
    world.agrees(mariadb, database);
    assert_eq!(world.column("items", "5", "v"), Some(json!("five")));
    assert_eq!(world.column("items", "1", "price"), None);

    // A key that means something else cannot be taken in.
    mariadb.sql(
        database,
        "ALTER TABLE items MODIFY id INT NOT NULL, DROP PRIMARY KEY, ADD COLUMN no INT NOT NULL \
         DEFAULT 0, ADD PRIMARY KEY (id, no)",
    );
    world.when("items", "the pause", paused);
    let refused = world.node.refresh_table(items).await.unwrap_err().to_string();
    assert!(refused.contains("its primary key has changed"), "{refused}");
}

/// What another site writes and deletes while a table waits is not undone by what stands here from before.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_an_altered_table_waits_stands() {
    let (mariadb, database) = (&*shared(), "altered_meanwhile");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    mariadb.sql(
        database,
        "INSERT INTO items VALUES (1, 'old'), (2, 'old'), (3, 'old'), (4, 'old'), (5, 'old')",
    );
    world.agrees(mariadb, database);
    mariadb.sql(database, "ALTER TABLE items ADD COLUMN n INT NOT NULL DEFAULT 7");
    world.when("items", "the pause", |table| table.state == CaptureState::Waiting);
    world.until("the mirror's pause", || {
        let filled = "SELECT filled FROM _lastword_columns WHERE tbl = 'items'";
        (mariadb.sql(database, filled) == [["0"]]).then_some(())
    });
    let items = lastword::model::TableName::of_client("items").unwrap();
    let change = |id: u64, v: Option<&str>| {
        let key = lastword::model::Key::new(id.to_string()).unwrap();
        let change = match v {
            Some(v) => lastword::node::Change::Put {
                key,
                value: json!({"id": id, "v": v}).to_string().into(),
                ttl: None,
            },
            None => lastword::node::Change::Delete { key },
        };
        lastword::node::Mutation { table: items.clone(), change }
    };
    let elsewhere = vec![change(1, Some("new")), change(2, None), change(4, Some("theirs"))];
    world.node.write(elsewhere).await.unwrap();
    mariadb.sql(database, "UPDATE items SET v = 'ours' WHERE id = 4");
    mariadb.sql(database, "INSERT INTO items VALUES (6, 'ours', 8)");
    // The checkpoint goes on over what the table is not given.
    world.until("the checkpoint", || {
        let position = world.node.reports().mirror().unwrap().position;
        position.is_some_and(|position| position.covers(&world.node.heads())).then_some(())
    });
    world.node.refresh_table(items.clone()).await.unwrap();
    world.captures("items");
    world.agrees(mariadb, database);
    let rows = mariadb.sql(database, "SELECT id, v, n FROM items ORDER BY id");
    let expected = [
        ["1", "new", "7"],
        ["3", "old", "7"],
        ["4", "ours", "7"],
        ["5", "old", "7"],
        ["6", "ours", "8"],
    ];
    assert_eq!(rows, expected);
    assert_eq!(world.column("items", "3", "n"), Some(json!(7)));
    assert!(!world.stored("items").contains_key("2"), "it was deleted, and stays so");
    assert_eq!(world.report().conflicts, 1, "of the row 4, which both wrote");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_on_both_sides_wait_until_somebody_says_which_are_right() {
    let (mariadb, database) = (&*shared(), "both_sides");
    let config = config(mariadb, database);
    mariadb.sql(database, "INSERT INTO items VALUES (1, 'in MySQL')");
    let world = World::new().await;
    let (table, key) = ("items", "2".to_owned());
    let change = lastword::node::Change::Put {
        key: lastword::model::Key::new(key).unwrap(),
        value: br#"{"id":2,"v":"in the store"}"#.as_slice().into(),
        ttl: None,
    };
    let table = lastword::model::TableName::of_client(table).unwrap();
    world.node.write(vec![lastword::node::Mutation { table, change }]).await.unwrap();
    let _running = Running::start(&world, &config);
    world.when("items", "the wait", |table| {
        table.state == CaptureState::Waiting && table.reason.contains("lastword adopt")
    });
    mariadb.sql(database, "UPDATE items SET v = 'later'");
    world.when("items", "its entry", |table| table.pending == 1);
    assert_eq!(world.stored("items").len(), 1);
    // What empties it deletes nothing in the store.
    mariadb.sql(database, "DELETE FROM items");
    world.captures("items");
    assert_eq!(world.stored("items").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_gone_is_noticed_and_a_refresh_finds_what_was_missed() {
    let (mariadb, database) = (&*shared(), "no_trigger");
    let config = config(mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    mariadb.sql(
        database,
        "INSERT INTO items VALUES (1, 'one'); DROP TRIGGER _lastword_ai_items; \
         INSERT INTO items VALUES (2, 'unseen')",
    );
    world.when("items", "the pause", |table| {
        table.reason.contains("its trigger _lastword_ai_items is gone")
    });
    let items = lastword::model::TableName::of_client("items").unwrap();
    world.node.refresh_table(items).await.unwrap();
    world.agrees(mariadb, database);
    assert_eq!(world.column("items", "2", "v"), Some(json!("unseen")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_that_will_not_do_holds_up_no_other() {
    let (mariadb, database) = (&*shared(), "one_waits");
    let mut config = config(mariadb, database);
    mariadb.sql(database, "CREATE TABLE keyless (v INT) ENGINE=InnoDB");
    mariadb.sql(database, "CREATE TABLE wide (id INT PRIMARY KEY, v LONGTEXT) ENGINE=InnoDB");
    config.tables.extend([captured("keyless"), captured("wide"), captured("missing")]);
    config.captured_value_bytes_max = 1_000;
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("wide");
    let long = "x".repeat(2_000);
    mariadb.sql(database, &format!("INSERT INTO wide VALUES (1, 'short'), (2, '{long}')"));
    mariadb.sql(database, "INSERT INTO items VALUES (1, 'one')");
    world.agrees(mariadb, database);
    world.when("keyless", "the reason", |table| table.reason.contains("ADD PRIMARY KEY"));
    world.when("missing", "the reason", |table| table.reason.contains("not there"));
    world.when("wide", "the reason", |table| table.reason.contains("more than 1000"));
    mariadb.sql(database, "UPDATE wide SET v = 'shorter' WHERE id = 2");
    world.captures("wide");
    world.until("both rows", || (world.stored("wide").len() == 2).then_some(()));
}
