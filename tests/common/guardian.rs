//! Ends the servers of a test process that was itself killed.
//!
//! Dropping a server ends it, but a test process that is killed, by a time limit or by hand, drops
//! nothing. The guardian is a shell that reads from this process the ids of the servers that run;
//! when its input ends, this process is gone, and it kills what is left.

use std::{
    io::Write,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// `+ 12` notes a process, `- 12` forgets it. A Ctrl-C is for the tests; the shell outlives them.
const SCRIPT: &str = "
trap '' INT TERM
pids=' '
while read -r verb pid; do
    case $verb in
    +) pids=\"$pids$pid \" ;;
    -) pids=\"${pids%% $pid *} ${pids#* $pid }\" ;;
    esac
done
for pid in $pids; do kill -9 \"$pid\"; done 2>/dev/null
";

/// Says a line to the guardian, which is started when this is first called.
fn tell(verb: char, pid: u32) {
    static SHELL: OnceLock<Mutex<Child>> = OnceLock::new();
    let shell = SHELL.get_or_init(|| {
        let shell = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Mutex::new(shell.expect("sh starts"))
    });
    let mut shell = shell.lock().unwrap_or_else(PoisonError::into_inner);
    let input = shell.stdin.as_mut().expect("its input is a pipe");
    writeln!(input, "{verb} {pid}").expect("the guardian reads");
}

/// Starts a process that does not outlive this one.
pub(crate) fn spawn(command: &mut Command) -> Child {
    let child = command.spawn().unwrap_or_else(|error| {
        panic!("{:?} does not start ({error}); run scripts/setup.sh", command.get_program())
    });
    tell('+', child.id());
    child
}

/// Ends a process at once, as power loss would, and waits for its end.
pub(crate) fn kill9(child: &mut Child) {
    // Fails only where the process has ended already.
    let _ = child.kill();
    forget(child);
}

/// Takes note that a process has ended, or ends now.
pub(crate) fn forget(child: &mut Child) {
    child.wait().expect("a child can be waited for");
    tell('-', child.id());
}
