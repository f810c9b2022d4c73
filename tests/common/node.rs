//! A real node: a `lastword serve` process with its own folder and ports.
//!
//! ```no_run
//! let nyc = Node::new("nyc");
//! let mut fra = Node::new("fra").peer(&nyc.url()).start();
//! fra.kill9();
//! fra.restart();
//! ```
//!
//! Ports and folder exist before the process does, so nodes can name each other, and stay the same
//! over every restart.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::{guardian, port::Port, wait::until};

const READY_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(30);
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// How much of its log a failure shows, in lines.
const LOG_LINES_SHOWN: usize = 40;

/// A node that runs, or is yet to be started, or was stopped or killed and may be started again.
#[derive(Debug)]
pub(crate) struct Node {
    site: String,
    dir: TempDir,
    grpc: Port,
    http: Port,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// A node that does not run yet.
    pub(crate) fn new(site: &str) -> Node {
        let dir = tempfile::Builder::new()
            .prefix(&format!("lastword-{site}-"))
            .tempdir()
            .expect("a temporary folder can be made");
        Node {
            site: site.to_owned(),
            dir,
            grpc: Port::reserve(),
            http: Port::reserve(),
            flags: Vec::new(),
            child: None,
        }
    }

    /// Exchanges with the node at this address.
    pub(crate) fn peer(self, url: &str) -> Node {
        self.flag("--peer", url)
    }

    /// Mirrors its rows into this database.
    pub(crate) fn mysql(self, url: &str) -> Node {
        self.flag("--mysql", url)
    }

    /// Runs with one more flag of `lastword serve`, from its next start on.
    pub(crate) fn flag(mut self, name: &str, value: &str) -> Node {
        self.flags.extend([name.to_owned(), value.to_owned()]);
        self
    }

    /// Starts the process; it answers when this returns. A new site that has not caught up is not ready
    /// yet.
    pub(crate) fn start(mut self) -> Node {
        self.spawn();
        self.wait_answering();
        self
    }

    /// Starts the process again, killing it before where it runs; it answers when this returns.
    pub(crate) fn restart(&mut self) {
        self.kill9();
        self.spawn();
        self.wait_answering();
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn spawn(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.site);
        // Every start writes on at the end of the same log.
        let log = File::options().create(true).append(true).open(self.log_path());
        let log = log.expect("the temporary folder is writable");
        let mut command = Command::new(env!("CARGO_BIN_EXE_lastword"));
        command
            .args(["serve", "--site", &self.site])
            .arg("--data")
            .arg(self.data_dir())
            .args(["--listen", &self.grpc.address().to_string()])
            .args(["--http", &self.http.address().to_string()])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("an open file"))
            .stderr(log);
        // Settings of the developer's own nodes are not for this one.
        #[expect(clippy::disallowed_methods, reason = "the child's environment is made here")]
        let own = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in own.filter(|name| name.starts_with("LASTWORD_")) {
            command.env_remove(name);
        }
        self.child = Some(guardian::spawn(&mut command));
    }

    /// Waits until the node answers; panics with its log when it ends instead.
    #[track_caller]
    pub(crate) fn wait_answering(&mut self) {
        self.wait_for("/healthz");
    }

    /// Waits until the node says that it is ready; panics with its log when it ends instead.
    #[track_caller]
    pub(crate) fn wait_ready(&mut self) {
        self.wait_for("/readyz");
    }

    #[track_caller]
    fn wait_for(&mut self, page: &str) {
        let what = format!("{page} of {}", self.site);
        until(&what, READY_LIMIT, || {
            if let Some(status) = self.try_wait() {
                panic!("{} ended at its start ({status}):\n{}", self.site, self.log_tail());
            }
            matches!(self.http_get(page), Some((200, _))).then_some(())
        });
    }

    /// The end of the process, where it has ended; `None` where it runs.
    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("our own child"))
    }

    /// Kills the process as power loss would.
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            guardian::kill9(&mut child);
        }
    }

    /// Lets the process end in order (SIGTERM) and says how it ended; panics when it does not end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the node runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"));
        kill(pid, Signal::SIGTERM).expect("our own child, not waited for yet");
        let what = format!("orderly end of {}", self.site);
        let status = until(&what, STOP_LIMIT, || child.try_wait().expect("our own child"));
        guardian::forget(&mut child);
        status
    }

    /// Stops the process where it is (SIGSTOP), or lets it go on (SIGCONT), as a paused machine would.
    pub(crate) fn pause(&self, is_paused: bool) {
        let child = self.child.as_ref().expect("the node runs");
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"));
        let signal = if is_paused { Signal::SIGSTOP } else { Signal::SIGCONT };
        kill(pid, signal).expect("our own child, not waited for yet");
    }

    /// The site's name.
    pub(crate) fn site(&self) -> &str {
        &self.site
    }

    /// Where clients and peers reach it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.grpc.address())
    }

    /// The address of [`Node::url`].
    pub(crate) fn grpc_address(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// The address of its status page.
    pub(crate) fn http_address(&self) -> SocketAddr {
        self.http.address()
    }

    /// The folder of its store.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// All that it has printed, over all its starts.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Status code and body of a page of its HTTP port; `None` where it does not answer.
    pub(crate) fn http_get(&self, path: &str) -> Option<(u16, String)> {
        http_get(self.http.address(), path).ok()
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn log_tail(&self) -> String {
        tail(&self.log_path())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill9();
        if thread::panicking() {
            let mut text = String::new();
            let _ = writeln!(text, "--- the end of the log of {}:", self.site);
            text.push_str(&self.log_tail());
            #[expect(clippy::print_stderr, reason = "tells why a test failed")]
            {
                eprintln!("{text}");
            }
        }
    }
}

fn tail(path: &Path) -> String {
    let log = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}

fn http_get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, HTTP_LIMIT)?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    // HTTP/1.0 and no keep-alive: the answer is everything until the end.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Ok((code, body.to_owned()))
}
