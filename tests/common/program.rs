//! The program itself, run to its end.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Runs the program.
pub(crate) fn program(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lastword"));
    #[expect(clippy::disallowed_methods, reason = "the child's environment is made here")]
    let own = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for name in own.filter(|name| name.starts_with("LASTWORD_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// What a run prints that must do its work and have nothing to complain of.
#[track_caller]
pub(crate) fn done(arguments: &[&str]) -> String {
    let output = program(arguments);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && complaints.is_empty(), "{arguments:?}: {complaints}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that a run prints which must fail so.
#[track_caller]
pub(crate) fn complaint(arguments: &[&str], code: i32) -> String {
    let output = program(arguments);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// With `--server` of this node.
pub(crate) fn at<'a>(node: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    [arguments, &["--server", node]].concat()
}

/// What a line of JSON says.
pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What a key holds; `None`: nothing.
pub(crate) fn value_of(url: &str, key: &str) -> Option<String> {
    let output = program(&at(url, &["get", "t", key]));
    output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
}

/// `lastword status --json`.
pub(crate) fn status(url: &str) -> Value {
    json(&done(&at(url, &["status", "--json"])))
}
