//! MariaDB with durable commits and a binary log that is synced with them, alone or as one of two
//! masters that replicate each other; driven by mysql_async with prepared statements.

use std::{
    net::SocketAddr, ops::Range, os::unix::fs::MetadataExt, path::PathBuf, process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use mysql_async::{Conn, Opts, OptsBuilder, Row, Statement, prelude::Queryable};
use tokio::{
    process::Command,
    time::{Instant, timeout},
};

use super::{Place, REQUEST_MAX, START_MAX};
use crate::{
    load::{self, Done, Operation, Source, key, spread},
    process::{Cpu, Server, first_line, free_address, program, settle, wait_until},
};

const DATABASE: &str = "bench";
const INSTALL_MAX: Duration = Duration::from_secs(120);
/// Rows in one statement of a first load.
const FILL_ROWS: usize = 1_000;

/// What each server runs with. The first three are the durability that is compared; the others give
/// it memory and log enough not to be held up by them.
const OPTIONS: [&str; 11] = [
    "--innodb-flush-log-at-trx-commit=1",
    "--sync-binlog=1",
    "--log-bin=binlog",
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--character-set-server=utf8mb4",
    "--innodb-buffer-pool-size=1G",
    "--innodb-log-file-size=512M",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    "--max-connections=200",
    "--max-allowed-packet=64M",
];

/// A server: its folder and address stay the same over every start.
pub(crate) struct MariaDb {
    folder: PathBuf,
    address: SocketAddr,
    options: Vec<String>,
    server: Option<Server>,
}

impl MariaDb {
    /// A server alone, running, with an empty table `kv`.
    pub(crate) async fn alone(place: &Place) -> anyhow::Result<MariaDb> {
        MariaDb::start(place, 1, &[]).await
    }

    /// Server `id`, running, with more options and an empty table `kv`.
    pub(crate) async fn start(place: &Place, id: u32, more: &[&str]) -> anyhow::Result<MariaDb> {
        let folder = place.make("mariadb")?;
        std::fs::create_dir(folder.join("tmp"))?;
        // MariaDB runs as root only when told so.
        let user = (std::fs::metadata(&folder)?.uid() == 0).then_some("--user=root");
        let data = format!("--datadir={}", folder.join("data").display());
        let install = Command::new(program("mariadb-install-db")?)
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .arg(&data)
            .args(user)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let made = timeout(INSTALL_MAX, install).await.context("mariadb-install-db hangs")??;
        let said = String::from_utf8_lossy(&made.stderr);
        ensure!(made.status.success(), "mariadb-install-db failed: {}", said.trim());

        let address = free_address()?;
        let mut options = vec![
            "--no-defaults".to_owned(),
            data,
            format!("--tmpdir={}", folder.join("tmp").display()),
            format!("--socket={}", folder.join("socket").display()),
            format!("--pid-file={}", folder.join("pid").display()),
            format!("--port={}", address.port()),
            format!("--server-id={id}"),
            format!("--gtid-domain-id={id}"),
        ];
        options.extend(OPTIONS.iter().chain(more).map(|&option| option.to_owned()));
        options.extend(user.map(Into::into));
        let mut mariadb = MariaDb { folder, address, options, server: None };
        mariadb.spawn()?;
        mariadb.answers().await?;
        let mut conn = Conn::new(opts(address, None)).await?;
        // Each server makes its own, replicated or not.
        conn.query_drop("SET sql_log_bin = 0").await?;
        conn.query_drop(format!("CREATE DATABASE {DATABASE}")).await?;
        conn.query_drop(format!("USE {DATABASE}")).await?;
        conn.query_drop(
            "CREATE TABLE kv (k VARBINARY(16) PRIMARY KEY, v VARBINARY(255) NOT NULL) ENGINE=InnoDB",
        )
        .await?;
        Ok(mariadb)
    }

    pub(crate) fn version() -> anyhow::Result<String> {
        first_line(&program("mariadbd")?, &["--no-defaults", "--version"])
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("log");
        let server = Server::start("MariaDB", &program("mariadbd")?, &self.options, &log)?;
        self.server = Some(server);
        Ok(())
    }

    /// Waits until it answers.
    pub(crate) async fn answers(&mut self) -> anyhow::Result<()> {
        wait_until("MariaDB to answer", START_MAX, async || {
            self.server.as_mut().context("not started")?.check()?;
            Ok(matches!(timeout(REQUEST_MAX, Conn::new(opts(self.address, None))).await, Ok(Ok(_))))
        })
        .await
    }

    /// Ends it in order.
    pub(crate) async fn stop(&mut self) -> anyhow::Result<()> {
        self.server.take().context("not started")?.stop().await
    }

    pub(crate) fn cpu(&self) -> anyhow::Result<Cpu> {
        Ok(self.server.as_ref().context("not started")?.cpu())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// For `lastword serve --mysql`.
    pub(crate) fn url(&self) -> String {
        self.url_of(DATABASE)
    }

    /// The same with another database.
    pub(crate) fn url_of(&self, database: &str) -> String {
        format!("mysql://root@{}/{database}", self.address)
    }

    pub(crate) async fn conn(&self) -> anyhow::Result<Conn> {
        connect(self.address).await
    }

    /// A connection and a prepared statement for each source.
    pub(crate) async fn workers<W>(
        &self,
        sources: Vec<Source>,
        statement: &str,
        make: impl Fn(Conn, Statement, Source) -> W,
    ) -> anyhow::Result<Vec<W>> {
        let mut workers = Vec::new();
        for source in sources {
            let mut conn = self.conn().await?;
            let statement = conn.prep(statement).await?;
            workers.push(make(conn, statement, source));
        }
        Ok(workers)
    }

    /// Writes the rows 0 to `rows` once each; it is quiet again when this returns.
    pub(crate) async fn fill(&self, rows: u64, limit: Duration) -> anyhow::Result<()> {
        let mut conn = self.conn().await?;
        let mut source = Source::over(rows);
        let share = async move {
            let mut numbers = spread(0..rows).peekable();
            while numbers.peek().is_some() {
                let values: Vec<mysql_async::Value> = numbers
                    .by_ref()
                    .take(FILL_ROWS)
                    .flat_map(|n| [bytes_value(&key(n)), bytes_value(&source.value())])
                    .collect();
                let places = vec!["(?,?)"; values.len() / 2].join(",");
                conn.exec_drop(format!("REPLACE INTO kv VALUES {places}"), values).await?;
            }
            Ok(())
        };
        load::all([share], limit).await?;
        settle(&[self.cpu()?]).await
    }

    /// Writes these rows once each, every one a transaction of its own, over 64 connections.
    pub(crate) async fn fill_singly(
        &self,
        rows: Range<u64>,
        limit: Duration,
    ) -> anyhow::Result<()> {
        const SHARES: usize = 64;
        let workers = self.workers(Source::many(SHARES), REPLACE, |conn, statement, source| {
            (conn, statement, source)
        });
        let shares = workers.await?.into_iter().enumerate().map(|(share, worker)| {
            let (mut conn, statement, mut source) = worker;
            let numbers = spread(rows.clone()).skip(share).step_by(SHARES);
            async move {
                for n in numbers {
                    conn.exec_drop(&statement, (&key(n)[..], &source.value()[..])).await?;
                }
                Ok(())
            }
        });
        load::all(shares, limit).await?;
        settle(&[self.cpu()?]).await
    }

    /// The rows of a table.
    pub(crate) async fn count(&self, table: &str) -> anyhow::Result<u64> {
        let count = format!("SELECT COUNT(*) FROM {table}");
        self.conn().await?.query_first(count).await?.context("no count")
    }

    /// Waits until this replica has applied all that stands in the binary log of `master`.
    pub(crate) async fn has_all_of(&self, master: &MariaDb, limit: Duration) -> anyhow::Result<()> {
        let position: Option<String> =
            master.conn().await?.query_first("SELECT @@gtid_binlog_pos").await?;
        let position = position.context("no position")?;
        let mut conn = self.conn().await?;
        let wait = conn.exec_first("SELECT MASTER_GTID_WAIT(?, ?)", (position, limit.as_secs()));
        // 0: there; -1: the time is up.
        let ended: Option<i64> = timeout(limit + REQUEST_MAX, wait).await.context("it hangs")??;
        ensure!(ended == Some(0), "the replica is not there after {} s", limit.as_secs());
        Ok(())
    }
}

/// A connection to a server, or to the line that leads to it.
pub(crate) async fn connect(address: SocketAddr) -> anyhow::Result<Conn> {
    let conn = timeout(REQUEST_MAX, Conn::new(opts(address, Some(DATABASE)))).await;
    Ok(conn.context("MariaDB does not answer")??)
}

fn opts(address: SocketAddr, database: Option<&str>) -> Opts {
    let opts = OptsBuilder::default()
        .ip_or_hostname(address.ip().to_string())
        .tcp_port(address.port())
        .user(Some("root"))
        .db_name(database)
        // TCP for all systems alike.
        .prefer_socket(false);
    opts.into()
}

fn bytes_value(bytes: &[u8]) -> mysql_async::Value {
    mysql_async::Value::Bytes(bytes.to_vec())
}

/// Two masters, each the other's replica by the other's address as `seen` from its site.
pub(crate) async fn start_pair(place: &Place, more: &[&str]) -> anyhow::Result<[MariaDb; 2]> {
    let mut pair = Vec::new();
    for id in [1, 2] {
        let offset = format!("--auto-increment-offset={id}");
        let mut options = vec!["--auto-increment-increment=2", &offset];
        options.extend(more);
        pair.push(MariaDb::start(place, id, &options).await?);
    }
    let pair: [MariaDb; 2] = pair.try_into().ok().context("two of them")?;
    for (replica, master) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
        let mut conn = replica.conn().await?;
        conn.query_drop(format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={}, MASTER_USER='root', \
             MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos",
            master.address.port()
        ))
        .await?;
        conn.query_drop("START SLAVE").await?;
    }
    for server in &pair {
        wait_until("MariaDB to replicate", START_MAX, async || {
            Ok(slave_status(&mut server.conn().await?).await?.runs())
        })
        .await?;
    }
    Ok(pair)
}

/// What SHOW SLAVE STATUS says.
#[derive(Debug)]
pub(crate) struct SlaveStatus {
    pub(crate) io: String,
    pub(crate) sql: String,
    pub(crate) behind: Option<u64>,
}

impl SlaveStatus {
    pub(crate) fn runs(&self) -> bool {
        self.io == "Yes" && self.sql == "Yes"
    }
}

pub(crate) async fn slave_status(conn: &mut Conn) -> anyhow::Result<SlaveStatus> {
    let row: Option<Row> = conn.query_first("SHOW SLAVE STATUS").await?;
    let row = row.context("no replica")?;
    Ok(SlaveStatus {
        io: row.get("Slave_IO_Running").context("no Slave_IO_Running")?,
        sql: row.get("Slave_SQL_Running").context("no Slave_SQL_Running")?,
        behind: row.get::<Option<u64>, _>("Seconds_Behind_Master").flatten(),
    })
}

/// What [`Replace`] needs prepared.
pub(crate) const REPLACE: &str = "REPLACE INTO kv VALUES (?, ?)";
/// What [`Select`] needs prepared.
pub(crate) const SELECT: &str = "SELECT v FROM kv WHERE k = ?";

/// REPLACE after REPLACE, each a transaction of its own.
pub(crate) struct Replace {
    pub(crate) conn: Conn,
    pub(crate) statement: Statement,
    pub(crate) source: Source,
}

impl Operation for Replace {
    async fn next(&mut self) -> anyhow::Result<Done> {
        let (key, value) = (self.source.key(), self.source.value());
        let began = Instant::now();
        self.conn.exec_drop(&self.statement, (&key[..], &value[..])).await?;
        Ok(Done { rows: 1, began })
    }
}

/// SELECT after SELECT, of rows that are there.
pub(crate) struct Select {
    pub(crate) conn: Conn,
    pub(crate) statement: Statement,
    pub(crate) source: Source,
}

impl Operation for Select {
    async fn next(&mut self) -> anyhow::Result<Done> {
        let key = self.source.key();
        let began = Instant::now();
        let value: Option<Vec<u8>> = self.conn.exec_first(&self.statement, (&key[..],)).await?;
        value.context("a row is missing")?;
        Ok(Done { rows: 1, began })
    }
}
