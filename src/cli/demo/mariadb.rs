//! A private MariaDB of the demo's: its own folder, port and process.

use std::{
    net::TcpListener,
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::process::{Process, wait_until};

const START_MAX: Duration = Duration::from_secs(60);
/// What to do where MariaDB is missing.
const INSTALL_HINT: &str =
    "MariaDB is not installed: run 'apt-get install mariadb-server' (or scripts/setup.sh demo)";

const DATABASE: &str = "shop";
/// An application's table, the same at both sites.
const ARTICLES: &str = "CREATE TABLE articles (id INT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, \
     title VARCHAR(80) NOT NULL, changed TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) \
     ON UPDATE CURRENT_TIMESTAMP(6))";

/// A running MariaDB with one database.
pub(super) struct MariaDb {
    pub(super) port: u16,
    pub(super) process: Process,
    socket: PathBuf,
    client: PathBuf,
}

impl MariaDb {
    /// Makes a data folder under `folder` and starts the server on a free port; numbers that it gives rows are
    /// `offset`, `offset` + 2, ...
    pub(super) async fn start(site: &str, offset: u8, folder: &Path) -> anyhow::Result<MariaDb> {
        let folder = folder.join(format!("mariadb-{site}"));
        std::fs::create_dir(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let data = folder.join("data");
        // A server that starts deletes what it takes for its own leftovers in a shared one.
        let temporary = folder.join("tmp");
        std::fs::create_dir(&temporary)
            .with_context(|| format!("cannot create {}", temporary.display()))?;
        // The server gives up root's rights unless it is told that they are wanted.
        let user = (std::fs::metadata(&folder)?.uid() == 0).then_some("--user=root");
        let made = Command::new(program("mariadb-install-db")?)
            .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
            .arg(format!("--datadir={}", data.display()))
            .args(user)
            .env("TMPDIR", &temporary)
            .stdin(Stdio::null())
            .output()
            .await
            .context(INSTALL_HINT)?;
        if !made.status.success() {
            bail!("mariadb-install-db failed: {}", String::from_utf8_lossy(&made.stderr).trim());
        }
        let port = free_port()?;
        let socket = folder.join("socket");
        let log = folder.join("error.log");
        let mut command = std::process::Command::new(program("mariadbd")?);
        command
            .arg("--no-defaults")
            .arg(format!("--datadir={}", data.display()))
            .arg(format!("--tmpdir={}", temporary.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--pid-file={}", folder.join("pid").display()))
            .arg(format!("--log-error={}", log.display()))
            .arg(format!("--port={port}"))
            .args(["--bind-address=127.0.0.1", "--skip-log-bin", "--skip-name-resolve"])
            .args(["--auto-increment-increment=2", &format!("--auto-increment-offset={offset}")])
            .args(["--character-set-server=utf8mb4", "--innodb-buffer-pool-size=64M"])
            .args(user)
            // Ctrl-C is the demo's to handle.
            .process_group(0);
        let process = Process::spawn(&format!("MariaDB at {site}"), command, &log)?;
        let mariadb = MariaDb { port, process, socket, client: program("mariadb")? };
        wait_until(&format!("MariaDB at {site} to start"), START_MAX, async || {
            mariadb.process.check()?;
            Ok(mariadb.run("SELECT 1", None).await.is_ok())
        })
        .await?;
        mariadb.run(&format!("CREATE DATABASE {DATABASE}"), None).await?;
        mariadb.query(ARTICLES).await?;
        Ok(mariadb)
    }

    /// The address for `lastword serve --mysql`.
    pub(super) fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}/{DATABASE}", self.port)
    }

    /// Runs a statement with MariaDB's own client; rows as lines, columns separated by tabs.
    pub(super) async fn query(&self, statement: &str) -> anyhow::Result<String> {
        self.run(statement, Some(DATABASE)).await
    }

    async fn run(&self, statement: &str, database: Option<&str>) -> anyhow::Result<String> {
        let output = Command::new(&self.client)
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket.display()))
            .args(["--user=root", "--batch", "--skip-column-names", "--execute", statement])
            .args(database)
            .stdin(Stdio::null())
            .output()
            .await
            .context(INSTALL_HINT)?;
        if !output.status.success() {
            bail!("{statement}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// How a person reaches it.
    pub(super) fn client_command(&self) -> String {
        format!("mariadb --no-defaults -u root -S {} {DATABASE}", self.socket.display())
    }
}

/// A port that nobody listens on now.
pub(super) fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("no free port on 127.0.0.1")?;
    Ok(listener.local_addr()?.port())
}

/// Debian keeps the server where not everybody's PATH leads.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    const FOLDERS: [&str; 5] =
        ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/homebrew/bin"];
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|p| p.exists());
    found.context(INSTALL_HINT)
}
