//! A node, a database, a mirror between them, and the judge.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use lastword::{
    mirror::{Config, Target},
    model::{Body, BodyParts, Context, Heads, Hlc, Key, Origin, Row, TableName, Version},
    node::{Change, MirrorReport, Mutation, Node, NodeConfig, SystemClock, WallClock},
    store::{RemoteBatch, ScanRange},
};
use tempfile::TempDir;

pub(crate) use crate::common::running::{Running, shared};
use crate::common::{mariadb::MariaDb, wait::until};

/// Far beyond what anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
const PASSWORD: &str = "p@ss:w'ord/%";

/// A node with a clock that can be set forward.
pub(crate) struct World {
    pub(crate) node: Node,
    clock: Arc<Clock>,
    data: TempDir,
}

#[derive(Debug, Default)]
struct Clock {
    ahead_ms: AtomicU64,
}

impl WallClock for Clock {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }
}

impl AsRef<Node> for World {
    fn as_ref(&self) -> &Node {
        &self.node
    }
}

impl World {
    pub(crate) async fn new() -> World {
        World::open(tempfile::tempdir().unwrap(), Arc::default()).await
    }

    async fn open(data: TempDir, clock: Arc<Clock>) -> World {
        let config = NodeConfig {
            clock: Arc::clone(&clock) as Arc<dyn WallClock>,
            cache_bytes: 32 << 20,
            ..NodeConfig::new(data.path(), "fra")
        };
        World { node: Node::open(config).await.unwrap(), clock, data }
    }

    /// Ends the node and opens its store again.
    pub(crate) async fn restart(self) -> World {
        self.node.shutdown().await;
        let World { node, clock, data } = self;
        drop(node);
        World::open(data, clock).await
    }

    /// Merges rows as if a peer had sent them, and what may be claimed with them.
    pub(crate) async fn merge(&self, rows: Vec<Row>, claim: Option<Heads>) {
        let sender = Origin::from_bytes([0xee; 16]);
        let batch = RemoteBatch { sender, rows, claim, tentative: None };
        self.node.submit(batch).await.unwrap().merged().await.unwrap();
    }

    /// Sets the node's clock forward.
    pub(crate) fn time_passes(&self, ms: u64) {
        self.clock.ahead_ms.fetch_add(ms, Ordering::Relaxed);
    }

    pub(crate) async fn put(&self, table: &str, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.write(vec![put(table, key, value)]).await;
    }

    pub(crate) async fn delete(&self, table: &str, key: impl AsRef<[u8]>) {
        self.write(vec![delete(table, key)]).await;
    }

    pub(crate) async fn write(&self, mutations: Vec<Mutation>) {
        self.node.write(mutations).await.unwrap();
    }

    /// Writes `count` rows `k000000` and so on, many to a commit.
    pub(crate) async fn fill(&self, table: &str, count: usize, value_bytes: usize) {
        let value = vec![b'v'; value_bytes];
        for from in (0..count).step_by(500) {
            let rows = from..(from + 500).min(count);
            self.write(rows.map(|n| put(table, format!("k{n:06}"), &value)).collect()).await;
        }
    }

    pub(crate) fn report(&self) -> MirrorReport {
        self.node.reports().mirror().expect("a mirror was started")
    }

    /// Waits until MySQL has all that the node has.
    #[track_caller]
    pub(crate) fn caught_up(&self) {
        self.when("the mirror to catch up", |report| {
            let heads = self.node.heads();
            report.applying
                && report.position.as_ref().is_some_and(|position| position.covers(&heads))
        });
    }

    /// Waits for the report to be so.
    #[track_caller]
    pub(crate) fn when(&self, what: &str, so: impl Fn(&MirrorReport) -> bool) -> MirrorReport {
        let mut last = None;
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, LIMIT, || {
                let report = self.report();
                last = Some(report.clone());
                so(&report).then_some(report)
            })
        }))
        .unwrap_or_else(|_| panic!("{what}: {last:?}"))
    }

    /// Waits for an error whose text has `part`.
    #[track_caller]
    pub(crate) fn fails_with(&self, part: &str) -> MirrorReport {
        self.when(part, |report| {
            !report.applying
                && report.last_error.as_ref().is_some_and(|error| error.message.contains(part))
        })
    }

    /// The live rows of a table, as the store has them.
    pub(crate) fn stored(&self, table: &str) -> BTreeMap<String, Columns> {
        let name = TableName::of_client(table).unwrap();
        let now_ms = self.node.now_ms();
        let rows = self.node.snapshot().scan(&name, &ScanRange::default()).unwrap();
        rows.map(Result::unwrap)
            .filter(|row| row.body.is_live(now_ms))
            .map(|row| {
                let version = row.body.version();
                let columns = Columns {
                    value: hex(&row.body.value().unwrap()),
                    hlc: version.hlc.to_string(),
                    origin: hex(version.origin.as_bytes()),
                    updated_us: (version.hlc.ms() * 1_000).to_string(),
                    expires_us: match row.body.expires_at_ms() {
                        Some(ms) => (ms * 1_000).to_string(),
                        None => "NULL".into(),
                    },
                };
                (hex(row.key.as_slice()), columns)
            })
            .collect()
    }

    /// Judges a table, once the mirror has caught up.
    #[track_caller]
    pub(crate) fn judge(&self, mariadb: &MariaDb, database: &str, table: &str) {
        self.caught_up();
        let (stored, mirrored) = (self.stored(table), mirrored(mariadb, database, table));
        assert_eq!(stored.len(), mirrored.len(), "rows of {table}");
        for (key, columns) in &stored {
            assert_eq!(mirrored.get(key), Some(columns), "key {key} of {table}");
        }
    }
}

/// A row but for its key, as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(crate) value: String,
    pub(crate) hlc: String,
    pub(crate) origin: String,
    pub(crate) updated_us: String,
    pub(crate) expires_us: String,
}

/// The rows of a table, as MySQL has them.
pub(crate) fn mirrored(
    mariadb: &MariaDb,
    database: &str,
    table: &str,
) -> BTreeMap<String, Columns> {
    let us = |column| format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {column})");
    let rows = mariadb.sql(
        database,
        &format!(
            "SELECT HEX(k), HEX(v), hlc, HEX(origin), {}, {} FROM `{table}`",
            us("updated_at"),
            us("expires_at")
        ),
    );
    rows.into_iter()
        .map(|row| {
            let [key, value, hlc, origin, updated_us, expires_us] =
                <[String; 6]>::try_from(row).unwrap();
            (key, Columns { value, hlc, origin, updated_us, expires_us })
        })
        .collect()
}

/// The heads that the checkpoint in MySQL names, and its epoch.
pub(crate) fn checkpoint(mariadb: &MariaDb, database: &str) -> (Heads, u64) {
    let row = &mariadb.sql(database, "SELECT HEX(heads), epoch FROM _lastword_mirror")[0];
    (heads_of_hex(&row[0]), row[1].parse().unwrap())
}

/// Heads as MySQL prints them.
pub(crate) fn heads_of_hex(text: &str) -> Heads {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..text.len()).step_by(2).map(byte).collect();
    Heads::from_bytes(&bytes).unwrap()
}

/// A database of its own, and the user that docs/mysql.md asks for.
pub(crate) fn config(mariadb: &MariaDb, database: &str) -> Config {
    let _ = mariadb.url(database);
    let password = PASSWORD.replace('\'', "''");
    mariadb.sql(
        "",
        &format!(
            "CREATE USER IF NOT EXISTS lastword@'127.0.0.1' IDENTIFIED BY '{password}'; \
             GRANT SELECT, INSERT, UPDATE, DELETE, CREATE ON `{database}`.* TO \
             lastword@'127.0.0.1'"
        ),
    );
    let mut config = Config::new(Target {
        host: "127.0.0.1".into(),
        port: mariadb.port(),
        user: "lastword".into(),
        password: Some(PASSWORD.into()),
        database: database.into(),
    });
    config.retry_min = Duration::from_millis(20);
    config.retry_max = Duration::from_millis(200);
    config
}

/// A row of another store: `None` is a tombstone.
pub(crate) fn foreign(origin: u8, table: &str, key: &str, hlc: u64, value: Option<&str>) -> Row {
    Row {
        table: TableName::of_client(table).unwrap(),
        key: Key::new(key.as_bytes().to_vec()).unwrap(),
        body: Body::new(&BodyParts {
            version: Version { hlc: Hlc::from_bits(hlc), origin: Origin::from_bytes([origin; 16]) },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: value.map(str::as_bytes),
        }),
    }
}

/// The heads of one origin.
pub(crate) fn heads_of(origin: u8, hlc: u64) -> Heads {
    [(Origin::from_bytes([origin; 16]), Hlc::from_bits(hlc))].into_iter().collect()
}

pub(crate) fn put(table: &str, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Mutation {
    let change = Change::Put {
        key: Key::new(key.as_ref().to_vec()).unwrap(),
        value: value.as_ref().to_vec().into(),
        ttl: None,
    };
    Mutation { table: TableName::of_client(table).unwrap(), change }
}

pub(crate) fn put_for(table: &str, key: &str, value: &str, ttl: Duration) -> Mutation {
    let mut mutation = put(table, key, value);
    if let Change::Put { ttl: its, .. } = &mut mutation.change {
        *its = Some(ttl);
    }
    mutation
}

pub(crate) fn delete(table: &str, key: impl AsRef<[u8]>) -> Mutation {
    let change = Change::Delete { key: Key::new(key.as_ref().to_vec()).unwrap() };
    Mutation { table: TableName::of_client(table).unwrap(), change }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}
