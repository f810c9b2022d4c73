//! A table of ordinary columns, and its judge.

use std::collections::BTreeMap;

use lastword::{
    mirror::{Config, DeclaredColumn, Form, TableSetting},
    model::TableName,
    node::Mutation,
    store::ScanRange,
};
use serde_json::{Value, json};

use crate::{
    common::mariadb::MariaDb,
    world::{World, put},
};

/// How many rows one commit writes.
const COMMIT_ROWS: usize = 500;

/// The setting of the table `film`, which lastword makes.
pub(crate) fn setting() -> TableSetting {
    let column = |name: &str, definition: &str| DeclaredColumn {
        name: name.to_owned(),
        definition: definition.to_owned(),
    };
    TableSetting {
        name: "film".into(),
        form: Form::Columns,
        columns: vec![
            column("id", "BIGINT UNSIGNED NOT NULL"),
            column("title", "VARCHAR(200) NOT NULL"),
        ],
        primary_key: vec!["id".into()],
        ..TableSetting::default()
    }
}

/// `config` with the table, and the privilege that it takes.
pub(crate) fn with_films(mariadb: &MariaDb, config: Config) -> Config {
    let database = &config.target.database;
    mariadb.sql("", &format!("GRANT TRIGGER ON `{database}`.* TO lastword@'127.0.0.1'"));
    Config { tables: vec![setting()], ..config }
}

pub(crate) fn film(id: usize, title: &str) -> Mutation {
    put("film", id.to_string(), json!({ "id": id, "title": title }).to_string())
}

/// Writes films of these numbers.
pub(crate) async fn fill(world: &World, ids: std::ops::Range<usize>) {
    for from in ids.clone().step_by(COMMIT_ROWS) {
        let some = from..(from + COMMIT_ROWS).min(ids.end);
        world.write(some.map(|id| film(id, &format!("film {id}"))).collect()).await;
    }
}

/// The films by number, as the store has them.
pub(crate) fn stored(world: &World) -> BTreeMap<u64, String> {
    let (table, now_ms) = (TableName::of_client("film").unwrap(), world.node.now_ms());
    let rows = world.node.snapshot().scan(&table, &ScanRange::default()).unwrap();
    rows.map(Result::unwrap)
        .filter(|row| row.body.is_live(now_ms))
        .map(|row| {
            let object: Value = serde_json::from_slice(&row.body.value().unwrap()).unwrap();
            (object["id"].as_u64().unwrap(), object["title"].as_str().unwrap().to_owned())
        })
        .collect()
}

/// The same, as MySQL has them.
pub(crate) fn mirrored(mariadb: &MariaDb, database: &str) -> BTreeMap<u64, String> {
    let rows = mariadb.sql(database, "SELECT id, title FROM film");
    rows.into_iter().map(|row| (row[0].parse().unwrap(), row[1].clone())).collect()
}

/// Judges them, once the mirror has caught up and lacks no row.
#[track_caller]
pub(crate) fn judge(world: &World, mariadb: &MariaDb, database: &str) {
    // First: a session that begins may find that the table lacks rows.
    world.caught_up();
    crate::common::wait::until("the films to be filled", crate::world::LIMIT, || {
        is_filled(mariadb, database).then_some(())
    });
    assert_eq!(stored(world), mirrored(mariadb, database));
}

/// Whether MySQL says that the table lacks no row.
pub(crate) fn is_filled(mariadb: &MariaDb, database: &str) -> bool {
    let filled = "SELECT filled FROM _lastword_columns WHERE tbl = 'film'";
    mariadb.try_sql(database, filled).is_ok_and(|rows| rows == [["1"]])
}
