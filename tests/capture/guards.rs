//! An application's own triggers keep working, and fire for the application alone.

use lastword::mirror::{TableSetting, Triggers};

use crate::world::{Running, World, captured, config, shared};

#[tokio::test(flavor = "multi_thread")]
async fn guarded_triggers_fire_for_the_application_and_not_for_lastword() {
    let (mariadb, database) = (&*shared(), "guards");
    let mut config = config(mariadb, database);
    mariadb.sql("", "GRANT SUPER, SET USER ON *.* TO lastword@'127.0.0.1'");
    config.tables = vec![TableSetting { triggers: Triggers::Guard, ..captured("items") }];
    mariadb.sql(
        database,
        "CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(100)); \
         CREATE TRIGGER upper BEFORE INSERT ON items FOR EACH ROW SET NEW.v = UPPER(NEW.v); \
         CREATE TRIGGER twice BEFORE INSERT ON items FOR EACH ROW FOLLOWS upper \
           SET NEW.v = CONCAT(NEW.v, NEW.v) -- a remark at its end",
    );
    mariadb.sql(
        database,
        "CREATE TRIGGER logged AFTER INSERT ON items FOR EACH ROW \
         INSERT INTO log (what) VALUES (NEW.v)",
    );
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    mariadb.sql(database, "INSERT INTO items VALUES (1, 'ab')");
    world.agrees(mariadb, database);
    assert_eq!(world.column("items", "1", "v").unwrap(), "ABAB");
    assert_eq!(mariadb.sql(database, "SELECT what FROM log"), [["ABAB"]]);
    let kept = mariadb.sql(database, "SELECT name FROM _lastword_triggers ORDER BY name");
    assert_eq!(kept, [["logged"], ["twice"], ["upper"]]);
    mariadb.sql(database, "SET @lastword_applying = 1; INSERT INTO items VALUES (2, 'as it is')");
    let row = mariadb.sql(database, "SELECT v FROM items WHERE id = 2");
    assert_eq!(row, [["as it is"]]);
    assert_eq!(mariadb.sql(database, "SELECT COUNT(*) FROM log"), [["1"]]);
    let order = mariadb.sql(
        database,
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'guards' AND \
         ACTION_TIMING = 'BEFORE' ORDER BY ACTION_ORDER",
    );
    assert_eq!(order, [["upper"], ["twice"]]);
}

/// A trigger that comes while rows are being written: it does not fire for lastword in any instant.
#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_is_added_never_fires_for_lastword() {
    let (mariadb, database) = (&*shared(), "guards_late");
    let mut config = config(mariadb, database);
    mariadb.sql("", "GRANT SUPER, SET USER ON *.* TO lastword@'127.0.0.1'");
    config.tables = vec![TableSetting { triggers: Triggers::Guard, ..captured("items") }];
    config.columns_check = std::time::Duration::from_millis(200);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    for n in 1..=5 {
        mariadb.sql(
            database,
            &format!(
                "CREATE TRIGGER late_{n} BEFORE INSERT ON items FOR EACH ROW SET NEW.v = 'changed'"
            ),
        );
        let (key, value) = (n.to_string(), format!(r#"{{"id":{n},"v":"as it was written"}}"#));
        let change = lastword::node::Change::Put {
            key: lastword::model::Key::new(key).unwrap(),
            value: value.into(),
            ttl: None,
        };
        let table = lastword::model::TableName::of_client("items").unwrap();
        world.node.write(vec![lastword::node::Mutation { table, change }]).await.unwrap();
        world.agrees(mariadb, database);
    }
    let rows = mariadb.sql(database, "SELECT COUNT(*) FROM items WHERE v = 'as it was written'");
    assert_eq!(rows, [["5"]]);
}

/// After its triggers were guarded the session's mode is its own again: a key of 0 is 0, and no new number.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_zero_is_zero_after_triggers_were_guarded() {
    let (mariadb, database) = (&*shared(), "guards_zero");
    let mut config = config(mariadb, database);
    mariadb.sql("", "GRANT SUPER, SET USER ON *.* TO lastword@'127.0.0.1'");
    let setting = TableSetting { triggers: Triggers::Guard, ..captured("items") };
    config.tables = vec![TableSetting { capture: false, ..setting }];
    mariadb.sql(database, "CREATE TRIGGER t BEFORE INSERT ON items FOR EACH ROW SET NEW.v = 'x'");
    let world = World::new().await;
    let change = lastword::node::Change::Put {
        key: lastword::model::Key::new("0".to_owned()).unwrap(),
        value: r#"{"id":0,"v":"zero"}"#.into(),
        ttl: None,
    };
    let table = lastword::model::TableName::of_client("items").unwrap();
    world.node.write(vec![lastword::node::Mutation { table, change }]).await.unwrap();
    let _running = Running::start(&world, &config);
    let rows = world.until("the row", || {
        let rows = mariadb.sql(database, "SELECT id, v FROM items");
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows, [["0", "zero"]]);
}
