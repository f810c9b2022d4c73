//! A private MariaDB: its own folder, port and process.
//!
//! Making a data folder takes longer than starting a server on it, so one is made for each version
//! of MariaDB, kept in `target/tmp`, and copied for every instance.

use std::{
    collections::HashSet,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{Read, Write},
    os::unix::{fs::MetadataExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{guardian, port::Port, wait::until};

/// A start that recovers from a crash takes longer than a clean one.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How much of the error log a failure shows, in lines.
const LOG_LINES_SHOWN: usize = 30;

/// A running MariaDB, or one that was stopped or killed and may be started again.
#[derive(Debug)]
pub(crate) struct MariaDb {
    dir: TempDir,
    port: Port,
    extra: Vec<String>,
    child: Option<Child>,
    databases: Mutex<HashSet<String>>,
}

impl MariaDb {
    /// Starts an instance with no database of its own; it answers when this returns.
    pub(crate) fn start() -> MariaDb {
        MariaDb::start_with(&[])
    }

    /// Starts an instance with more options, such as `--sql-mode=ANSI`.
    pub(crate) fn start_with(options: &[&str]) -> MariaDb {
        let dir = tempfile::Builder::new()
            .prefix("lastword-mariadb-")
            .tempdir()
            .expect("a temporary folder can be made");
        copy_folder(template(), &dir.path().join("data"));
        fs::create_dir(dir.path().join("tmp")).expect("the temporary folder is writable");
        let extra = options.iter().map(|&option| option.to_owned()).collect();
        let port = Port::reserve();
        let mut mariadb =
            MariaDb { dir, port, extra, child: None, databases: Mutex::new(HashSet::new()) };
        mariadb.restart();
        mariadb
    }

    /// The address of a database, which is created when this is first asked for it.
    pub(crate) fn url(&self, database: &str) -> String {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        if databases.insert(database.to_owned()) {
            self.sql("", &format!("CREATE DATABASE IF NOT EXISTS `{database}`"));
        }
        format!("mysql://root@{}/{database}", self.port.address())
    }

    /// The TCP port, on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// Runs statements in a database (`""`: in none) and gives the rows of the last ones as text:
    /// NULL as `NULL`; tab, line end and backslash in a value as `\t`, `\n` and `\\`.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, statements: &str) -> Vec<Vec<String>> {
        self.try_sql(database, statements).unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// Like [`MariaDb::sql`], or what the client printed on its standard error.
    pub(crate) fn try_sql(
        &self,
        database: &str,
        statements: &str,
    ) -> Result<Vec<Vec<String>>, String> {
        let output = Command::new(program("mariadb"))
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket().display()))
            .args(["--user=root", "--default-character-set=utf8mb4"])
            .args(["--batch", "--skip-column-names"])
            .arg(format!("--execute={statements}"))
            .arg(database)
            .stdin(Stdio::null())
            .output()
            .expect("the mariadb client runs");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
    }

    /// Runs a script of any length, DELIMITER lines too.
    #[track_caller]
    pub(crate) fn script(&self, database: &str, script: &str) {
        let mut client = Command::new(program("mariadb"))
            .arg("--no-defaults")
            .arg(format!("--socket={}", self.socket().display()))
            .args(["--user=root", "--default-character-set=utf8mb4", "--batch"])
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the mariadb client runs");
        let mut stdin = client.stdin.take().expect("a pipe");
        // A client that ends early says why.
        let _ = stdin.write_all(script.as_bytes());
        drop(stdin);
        let output = client.wait_with_output().expect("our own child");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}", complaints.trim());
    }

    /// Kills the server as power loss would; what it has committed is in its files.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            guardian::kill9(&mut child);
        }
    }

    /// Lets the server stand still: it neither answers nor goes away, until [`MariaDb::thaw`].
    pub(crate) fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("the server runs");
        kill(Pid::from_raw(i32::try_from(child.id()).expect("process ids fit")), signal)
            .expect("our own child, not waited for yet");
    }

    /// Lets the server shut down in order; panics when it does not.
    pub(crate) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"));
        kill(pid, Signal::SIGTERM).expect("the server runs");
        until("MariaDB's orderly end", STOP_LIMIT, || child.try_wait().expect("our own child"));
        guardian::forget(&mut child);
    }

    /// Starts the server on the same files and port, ending it in order before where it runs.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let mut child = guardian::spawn(
            Command::new(program("mariadbd"))
                .args(self.options())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null()),
        );
        until("MariaDB's start", START_LIMIT, || {
            if let Some(status) = child.try_wait().expect("our own child") {
                panic!("MariaDB ended at its start ({status}):\n{}", self.log_tail());
            }
            // Its own socket, opened after the TCP port: no other server answers there.
            greets(&self.socket()).then_some(())
        });
        self.child = Some(child);
    }

    fn options(&self) -> Vec<String> {
        let dir = self.dir.path();
        let mut options = vec![
            "--no-defaults".to_owned(),
            format!("--datadir={}", dir.join("data").display()),
            // At its start a server deletes all temporary tables there, those of others too, and
            // they crash: each needs a folder of its own.
            format!("--tmpdir={}", dir.join("tmp").display()),
            format!("--socket={}", self.socket().display()),
            format!("--pid-file={}", dir.join("pid").display()),
            format!("--log-error={}", self.log().display()),
            format!("--port={}", self.port.number()),
        ];
        options.extend(SERVER_OPTIONS.map(str::to_owned));
        options.extend(FILE_OPTIONS.map(str::to_owned));
        options.extend(user_option(dir));
        options.extend(self.extra.iter().cloned());
        options
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("error.log")
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// What every instance runs with: durable commits, little memory, nothing that slows its start.
const SERVER_OPTIONS: [&str; 12] = [
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--character-set-server=utf8mb4",
    "--innodb-flush-log-at-trx-commit=1",
    "--innodb-buffer-pool-size=32M",
    "--innodb-buffer-pool-dump-at-shutdown=OFF",
    "--innodb-buffer-pool-load-at-startup=OFF",
    "--key-buffer-size=1M",
    "--aria-pagecache-buffer-size=8M",
    "--max-connections=64",
    "--skip-slave-start",
];

/// What decides how large the files of the template are.
const FILE_OPTIONS: [&str; 2] = ["--innodb-log-file-size=16M", "--aria-log-file-size=8M"];

/// Debian keeps the servers where not everybody's PATH leads.
fn program(name: &str) -> PathBuf {
    ["/usr/sbin", "/usr/local/sbin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from(name))
}

/// MariaDB runs as root only when told so.
fn user_option(own_folder: &Path) -> Option<String> {
    let owner = fs::metadata(own_folder).expect("our own folder").uid();
    (owner == 0).then(|| "--user=root".to_owned())
}

/// Whether a server sends its greeting through this socket.
fn greets(socket: &Path) -> bool {
    let greeting = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.read_exact(&mut [0])
    };
    greeting().is_ok()
}

/// The data folder that every instance begins with, made when there is none for this version.
fn template() -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let version = Command::new(program("mariadbd"))
            .args(["--no-defaults", "--version"])
            .output()
            .unwrap_or_else(|error| panic!("mariadbd: {error}; run scripts/setup.sh"));
        let version = String::from_utf8_lossy(&version.stdout).into_owned();
        let mut hasher = DefaultHasher::new();
        (&version, FILE_OPTIONS).hash(&mut hasher);
        // "mariadbd  Ver 10.11.19-MariaDB for debian-linux-gnu on x86_64"
        let number = version.split_whitespace().nth(2).unwrap_or("unknown");
        let folder = cache.join(format!("mariadb-{number}-{:016x}", hasher.finish()));
        // Another test process may be making it. The lock goes with the file, or its process.
        let lock = File::create(cache.join("mariadb.lock")).expect("target/tmp is writable");
        lock.lock().expect("a file in target/tmp can be locked");
        if !folder.exists() {
            make_template(cache, &folder);
        }
        folder
    })
}

fn make_template(cache: &Path, folder: &Path) {
    let draft = tempfile::tempdir_in(cache).expect("target/tmp is writable");
    let data = draft.path().join("data");
    let output = Command::new(program("mariadb-install-db"))
        .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
        .arg(format!("--datadir={}", data.display()))
        .args(FILE_OPTIONS)
        .args(user_option(draft.path()))
        // A server that starts deletes what it takes for its own leftovers in a shared one.
        .env("TMPDIR", draft.path())
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("mariadb-install-db: {error}; run scripts/setup.sh"));
    assert!(
        output.status.success(),
        "mariadb-install-db failed:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    // Renamed only when complete: a folder that is there is whole.
    fs::rename(data, folder).expect("both are in target/tmp");
}

/// Copies a folder that nobody writes to; `to` must not be there.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir(to).expect("the temporary folder is writable");
    for entry in fs::read_dir(from).expect("the template is readable") {
        let entry = entry.expect("the template is readable");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("the template is readable").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("there is room in the temporary folder");
        }
    }
}
