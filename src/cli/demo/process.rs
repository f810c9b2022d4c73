//! Processes of the demo's own: ended by their id, whatever happens, unless they are to stay.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::Duration,
};

use anyhow::{Context, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

const STOP_MAX: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOG_LINES_SHOWN: usize = 8;

/// A child process.
pub(super) struct Process {
    what: String,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Process {
    /// Starts `command` with its output in `log`.
    pub(super) fn spawn(what: &str, mut command: Command, log: &Path) -> anyhow::Result<Process> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {what}"))?;
        Ok(Process { what: what.to_owned(), log: log.to_owned(), child: Mutex::new(Some(child)) })
    }

    /// Fails with the end of its log where the process has ended by itself.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let mut child = self.child.lock().expect("no holder of this lock panics");
        if let Some(status) = child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let end = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
            bail!("{} ended ({status}):\n{end}", self.what);
        }
        Ok(())
    }

    /// The process id; `None` once it was ended.
    pub(super) fn id(&self) -> Option<u32> {
        self.child.lock().expect("no holder of this lock panics").as_ref().map(Child::id)
    }

    /// Asks the process to end, and ends it where it does not.
    pub(super) async fn stop(&self) {
        let Some(child) = self.child.lock().expect("no holder of this lock panics").take() else {
            return;
        };
        let mut child = Kill(child);
        if let Ok(id) = i32::try_from(child.0.id()) {
            // One that has ended already is not there to be told.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        let deadline = Instant::now() + STOP_MAX;
        while Instant::now() < deadline {
            if matches!(child.0.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Lets the process run on when the demo ends.
    pub(super) fn leave(&self) {
        self.child.lock().expect("no holder of this lock panics").take();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(child) = self.child.get_mut().expect("no holder of this lock panics").take() {
            drop(Kill(child));
        }
    }
}

/// Kills on drop.
struct Kill(Child);

impl Drop for Kill {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks until `condition` holds; fails with what it waited for.
pub(super) async fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<Duration> {
    let start = Instant::now();
    while !condition().await? {
        if start.elapsed() > limit {
            bail!("waited {} s in vain for {what}", limit.as_secs());
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(start.elapsed())
}
