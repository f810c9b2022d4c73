//! How a command ends: 0 done, 1 failed, 2 usage; errors in one line on stderr.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::error::ErrorKind;

use crate::{client::ClientError, config::ConfigError};

use super::output::{OutputError, one_line};

const FAILED: u8 = 1;
const USAGE: u8 = 2;

/// Reports an error and gives the exit code.
pub(super) fn code_of(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    // `lastword scan t | head`: whoever reads has enough.
    if matches!(error.downcast_ref(), Some(OutputError::ReaderGone)) {
        return ExitCode::SUCCESS;
    }
    // With stderr gone as well there is nobody to tell.
    let _ = writeln!(io::stderr(), "error: {}", one_line(&message(&error)));
    ExitCode::from(if is_usage(&error) { USAGE } else { FAILED })
}

/// Reports what is wrong with the command line; help and version come this way, too.
pub(super) fn code_of_usage(error: &clap::Error) -> ExitCode {
    let text = error.render().to_string();
    if error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let _ = writeln!(io::stderr(), "{}", usage_line(&text));
    } else {
        // A reader that is gone has had enough.
        let _ = error.print();
    }
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// The parser's paragraphs in one line: what is wrong, its tips, and where to read on.
fn usage_line(text: &str) -> String {
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(one_line)
        .filter(|p| !p.is_empty() && !p.starts_with("Usage:") && !p.starts_with("For more"))
        .collect();
    format!("{} (--help tells more)", paragraphs.join("; "))
}

fn message(error: &anyhow::Error) -> String {
    match error.downcast_ref() {
        Some(ClientError::Unreachable(_)) => {
            format!("{error:#}: is lastword serve running there? give --server URL")
        }
        Some(ClientError::TimedOut { .. }) => {
            format!("{error:#}; see lastword status, or give another --server URL")
        }
        _ => format!("{error:#}"),
    }
}

fn is_usage(error: &anyhow::Error) -> bool {
    error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(ClientError::Address { .. }))
}
