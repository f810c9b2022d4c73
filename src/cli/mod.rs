//! The command line: parses, dispatches, and turns errors into one line and an exit code.
//!
//! ```text
//! lastword COMMAND ... --> Command --> its module's Args::run --> stdout
//!                                            `--> error --> one line on stderr, exit code 1 or 2
//! ```
//!
//! Each command is a module with `Args` (the flags, their help, an example) and `Args::run`. To add
//! one, write its module and add its line to the list below. Nothing else prints.

mod adopt;
mod bench;
mod compact;
mod config;
mod conflicts;
mod conflicts_text;
mod delete;
mod demo;
mod doctor;
mod exit;
mod export;
mod get;
mod import;
mod insert;
mod member;
mod mirror;
mod output;
mod put;
mod rejoin;
mod scan;
pub mod serve;
mod servers;
mod settings_args;
mod signals;
mod status;
mod status_json;
mod status_text;
mod sync;
mod table;
mod take_in;
mod value;
mod verify;
mod verify_mirror;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand};

/// A conflict-resolving, geo-replicated key-value service.
#[derive(Parser)]
#[command(name = "lastword", version, max_term_width = 100, after_help = EXAMPLES)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  lastword serve --site fra --data /var/lib/lastword --peer http://nyc.example:7400
  lastword put sessions abc 'hello' --ttl 5m
  lastword get sessions abc
  lastword status

lastword COMMAND --help tells more of each. Exit codes: 0 done, 1 failed, 2 usage.";

macro_rules! commands {
    ($($name:ident => $module:ident,)*) => {
        #[derive(Subcommand)]
        enum Command {
            $($name($module::Args),)*
        }

        impl Command {
            async fn run(self) -> anyhow::Result<()> {
                match self {
                    $(Command::$name(args) => args.run().await,)*
                }
            }
        }
    };
}

commands! {
    Serve => serve,
    Get => get,
    Put => put,
    Delete => delete,
    Insert => insert,
    Scan => scan,
    Status => status,
    Verify => verify,
    Conflicts => conflicts,
    Export => export,
    Import => import,
    Adopt => adopt,
    Sync => sync,
    Config => config,
    Doctor => doctor,
    Member => member,
    Mirror => mirror,
    Table => table,
    Compact => compact,
    Rejoin => rejoin,
    Bench => bench,
    Demo => demo,
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => return exit::code_of_usage(&error),
    };
    exit::code_of(run(command))
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(command.run())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_has_an_example() {
        let mut line = CommandLine::command();
        line.clone().debug_assert();
        for command in line.get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Example"), "{}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
