//! Servers as processes of our own: bounded waits, their CPU time and memory, and a certain end.
//!
//! Dropping a [`Server`] ends it. Where this process itself is killed, the kernel ends its servers:
//! each is started through `setpriv --pdeathsig KILL`, which becomes the server and keeps its id.
//! That signal comes when the *thread* that started a server ends, so all are started on the main
//! one.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};
use tokio::time::{Instant, sleep};

const STOP_MAX: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);
const LOG_LINES_SHOWN: usize = 12;
/// A server counts as quiet when it used less than this share of a core.
const QUIET_SHARE: f64 = 0.10;
const QUIET_LOOK: Duration = Duration::from_millis(250);
const QUIET_MAX: Duration = Duration::from_secs(60);

/// A running server.
pub(crate) struct Server {
    name: String,
    log: PathBuf,
    child: Child,
}

impl Server {
    /// Starts a program with its output at the end of `log`.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        args: &[String],
        log: &Path,
    ) -> anyhow::Result<Server> {
        let output = File::options().create(true).append(true).open(log);
        let output = output.with_context(|| format!("cannot write {}", log.display()))?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // A Ctrl-C is for us: we end the servers in our own order.
            .process_group(0)
            .spawn()
            .context("cannot start setpriv (package util-linux)")?;
        Ok(Server { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// Waits until something accepts connections at this address.
    pub(crate) async fn listens(
        &mut self,
        address: SocketAddr,
        limit: Duration,
    ) -> anyhow::Result<()> {
        let what = format!("{} to listen on {address}", self.name);
        wait_until(&what, limit, async || {
            self.check()?;
            Ok(TcpStream::connect(address).is_ok())
        })
        .await
    }

    /// Fails with the end of its log where it has ended by itself.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            bail!("{} ended ({status}):\n{end}", self.name);
        }
        Ok(())
    }

    pub(crate) fn cpu(&self) -> Cpu {
        Cpu { process: self.child.id() }
    }

    /// The memory that it holds, in bytes (VmRSS).
    pub(crate) fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        resident_bytes(&status).context("/proc/PID/status has no VmRSS")
    }

    /// Ends it as power loss would.
    pub(crate) fn kill9(mut self) {
        self.end();
    }

    /// Lets it end in order.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM)?;
        let what = format!("{} to end", self.name);
        wait_until(&what, STOP_MAX, async || Ok(self.child.try_wait()?.is_some())).await
    }

    fn end(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The CPU time of a process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cpu {
    process: u32,
}

impl Cpu {
    /// User and kernel time so far, with that of children that it has waited for.
    pub(crate) fn spent(self) -> anyhow::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process))
            .context("the server has ended")?;
        let ticks = cpu_ticks(&stat).context("/proc/PID/stat is not as proc(5) says")?;
        let in_second = sysconf(SysconfVar::CLK_TCK)?.context("no clock tick")?;
        Ok(Duration::from_secs_f64(ticks as f64 / in_second as f64))
    }
}

/// Waits until these servers are done with what they put off, so that none of them works while
/// another one is measured; gives up in silence after a while.
pub(crate) async fn settle(servers: &[Cpu]) -> anyhow::Result<()> {
    let total = || servers.iter().map(|cpu| cpu.spent()).sum::<anyhow::Result<Duration>>();
    let deadline = Instant::now() + QUIET_MAX;
    let mut before = total()?;
    while Instant::now() < deadline {
        sleep(QUIET_LOOK).await;
        let now = total()?;
        if (now.saturating_sub(before)).as_secs_f64() < QUIET_LOOK.as_secs_f64() * QUIET_SHARE {
            return Ok(());
        }
        before = now;
    }
    Ok(())
}

/// utime, stime, cutime and cstime together. The name may hold spaces and parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    // Field 3 of proc(5) is the first one here.
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Looks until `condition` holds; fails with what it waited for.
pub(crate) async fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !condition().await? {
        if Instant::now() > deadline {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// An address of 127.0.0.1 that nobody listens on now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port")?;
    Ok(listener.local_addr()?)
}

/// Where a program is; Debian keeps servers where not everybody's PATH leads.
pub(crate) fn program(name: &str) -> anyhow::Result<PathBuf> {
    const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];
    let found = FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|p| p.exists());
    found.with_context(|| format!("{name} is not installed: run scripts/setup.sh bench"))
}

/// What a program prints, its first line: for versions.
pub(crate) fn first_line(program: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_past_a_name_with_anything_in_it() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194560 10 0 0 0 700 50 3 2 20 0 9 0 100 0 0";
        assert_eq!(cpu_ticks(stat), Some(755));
        assert_eq!(cpu_ticks("42 (a) S 1"), None);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(resident_bytes("Name:\tx\n"), None);
    }
}
