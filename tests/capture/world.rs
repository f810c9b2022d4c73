//! A node, a database with an application's table, the mirror and capture between them, and the judge.

use std::{collections::BTreeMap, time::Duration};

use lastword::{
    mirror::{self, Config, Form, TableSetting, Target},
    model::{Key, TableName},
    node::{CaptureReport, CapturedTable, Node, NodeConfig},
    protocol::SequenceIds,
    store::ScanRange,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

pub(crate) use crate::common::running::{Running, shared};
use crate::common::{mariadb::MariaDb, wait::until};

/// Far beyond what anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// A table of an application's, whose rows are `id`, `v`.
pub(crate) const ITEMS: &str =
    "CREATE TABLE items (id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100)) ENGINE=InnoDB";

/// A node and its folder.
pub(crate) struct World {
    pub(crate) node: Node,
    data: TempDir,
}

impl AsRef<Node> for World {
    fn as_ref(&self) -> &Node {
        &self.node
    }
}

impl World {
    pub(crate) async fn new() -> World {
        World::open(tempfile::tempdir().unwrap()).await
    }

    async fn open(data: TempDir) -> World {
        let config = NodeConfig { cache_bytes: 32 << 20, ..NodeConfig::new(data.path(), "fra") };
        let tried = Instant::now();
        loop {
            match Node::open(config.clone()).await {
                Ok(node) => return World { node, data },
                // What read there when its task was aborted ends on its own.
                Err(_) if tried.elapsed() < LIMIT => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Ends the node and opens its store again.
    pub(crate) async fn restart(self) -> World {
        self.node.shutdown().await;
        let World { node, data } = self;
        drop(node);
        World::open(data).await
    }

    pub(crate) fn report(&self) -> CaptureReport {
        self.node.reports().capture().unwrap_or_default()
    }

    /// How a captured table is.
    #[allow(dead_code, reason = "for looking into a failure")]
    pub(crate) fn table(&self, name: &str) -> Option<CapturedTable> {
        self.report().tables.into_iter().find(|table| table.table.as_str() == name)
    }

    /// Waits until the table is so.
    #[track_caller]
    pub(crate) fn when(&self, name: &str, what: &str, so: impl Fn(&CapturedTable) -> bool) {
        let mut last = None;
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, LIMIT, || {
                let report = self.report();
                last = Some(report.clone());
                let table = report.tables.iter().find(|table| table.table.as_str() == name);
                (report.connected && table.is_some_and(&so)).then_some(())
            });
        }))
        .unwrap_or_else(|_| panic!("{what}: {last:?}, {:?}", self.node.reports().mirror()));
    }

    /// Waits until the table is captured.
    #[track_caller]
    pub(crate) fn captures(&self, name: &str) {
        self.when(name, "capture", |table| table.state == lastword::node::CaptureState::On);
    }

    /// The live rows of a table, as the store has them: key, value.
    pub(crate) fn stored(&self, table: &str) -> BTreeMap<String, Value> {
        let name = TableName::of_client(table).unwrap();
        let now_ms = self.node.now_ms();
        let rows = self.node.snapshot().scan(&name, &ScanRange::default()).unwrap();
        rows.map(Result::unwrap)
            .filter(|row| row.body.is_live(now_ms))
            .map(|row| {
                let key = String::from_utf8(row.key.as_slice().to_vec()).unwrap();
                (key, serde_json::from_slice(&row.body.value().unwrap()).unwrap())
            })
            .collect()
    }

    /// One column of a row, as the store has it.
    pub(crate) fn column(&self, table: &str, key: &str, column: &str) -> Option<Value> {
        let name = TableName::of_client(table).unwrap();
        let key = Key::new(key.to_owned()).unwrap();
        let body = self.node.snapshot().get(&name, &key).unwrap()?;
        let value: Value = serde_json::from_slice(&body.value()?).unwrap();
        value.get(column).cloned()
    }

    /// How many rows were written into the store.
    pub(crate) fn writes(&self) -> u64 {
        self.node.status().unwrap().rows_written
    }

    /// Waits; tells how the capture is where that is in vain.
    #[track_caller]
    pub(crate) fn until<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        let look = std::panic::AssertUnwindSafe(look);
        std::panic::catch_unwind(move || {
            let look = look;
            until(what, LIMIT, look.0)
        })
        .unwrap_or_else(|_| panic!("{what}: {:?}", self.report()))
    }

    /// Waits until outbox and table agree with the store: `id` and `v` of the table `items`.
    #[track_caller]
    pub(crate) fn agrees(&self, mariadb: &MariaDb, database: &str) {
        self.until("MySQL and the store to agree", || {
            let (waiting, here) = look(mariadb, database);
            let there: BTreeMap<String, String> = self
                .stored("items")
                .into_iter()
                .map(|(key, value)| (key, text(&value["v"])))
                .collect();
            (waiting == 0 && here == there).then_some(())
        });
    }
}

/// How many entries wait in the outbox of `items`, and its rows.
pub(crate) fn look(mariadb: &MariaDb, database: &str) -> (usize, BTreeMap<String, String>) {
    let rows = mariadb.sql(
        database,
        "SELECT 'o', seq FROM _lastword_capture_items UNION ALL SELECT id, v FROM items",
    );
    let (waiting, rows): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row[0] == "o");
    (waiting.len(), rows.into_iter().map(|row| (row[0].clone(), row[1].clone())).collect())
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A captured table.
pub(crate) fn captured(table: &str) -> TableSetting {
    TableSetting {
        name: table.into(),
        form: Form::Columns,
        capture: true,
        ..TableSetting::default()
    }
}

/// A database of its own with a user who may do what the doctor says, and nothing else; `items` is made and
/// captured.
pub(crate) fn config(mariadb: &MariaDb, database: &str) -> Config {
    let _ = mariadb.url(database);
    mariadb.sql(database, ITEMS);
    let mut config = Config::new(Target {
        host: "127.0.0.1".into(),
        port: mariadb.port(),
        user: "lastword".into(),
        password: Some("secret".into()),
        database: database.into(),
    });
    config.tables = vec![captured("items")];
    // There is one site.
    config.sequence = Some(SequenceIds { offset: 1, increment: 1 });
    config.retry_min = Duration::from_millis(20);
    config.retry_max = Duration::from_millis(200);
    let user = "'lastword'@'127.0.0.1'";
    mariadb.sql("", &format!("CREATE USER IF NOT EXISTS {user} IDENTIFIED BY 'secret'"));
    mariadb.sql("", &mirror::grant_statements(&config, user).unwrap().join("\n"));
    config
}
