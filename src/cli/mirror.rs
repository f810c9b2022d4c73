//! `lastword mirror`: what an operator tells a node's mirror.

use std::time::Duration;

use clap::Subcommand;
use tokio::time::sleep;

use super::{
    output::{one_line, print, time_text},
    servers::ServerArgs,
};
use crate::client::Client;

/// How often `--wait` looks.
const WAIT_POLL: Duration = Duration::from_millis(200);
/// How often in a row it may fail to: the node may be restarted meanwhile.
const WAIT_FAILURES_MAX: u32 = 50;

/// Pause a node's mirror, let it go on, have its MySQL tables filled anew
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lastword mirror pause && mariadb-dump shop > shop.sql; \
                        lastword mirror resume\n  lastword mirror rebuild --table sessions --wait\n\n\
                        lastword status shows since when it is paused, and how far a rebuild is.")]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write nothing more into MySQL, over every restart of the node, until resume
    ///
    /// The transaction under way ends first, and with it the connection. The node serves and replicates
    /// as ever; dead rows stay in its store meanwhile.
    Pause(PauseArgs),
    /// Go on from where MySQL stands
    Resume(ResumeArgs),
    /// Fill all tables anew from the store, or one, while writes go on
    ///
    /// Rows are written over whatever stands there; what the store does not have is deleted. No row that is
    /// current is away at any instant.
    Rebuild(RebuildArgs),
}

#[derive(clap::Args)]
struct PauseArgs {
    /// Who says so, for status [default: this user at this machine]
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(clap::Args)]
struct ResumeArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(clap::Args)]
struct RebuildArgs {
    /// Only this table
    #[arg(long)]
    table: Option<String>,
    /// End once it is done
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let text = match self.command {
            Command::Pause(args) => {
                let by = args.by.unwrap_or_else(whoever);
                let paused = args.server.client()?.pause_mirror(&by).await?;
                let since = paused.since_time.as_ref().map(time_text).unwrap_or_default();
                let by = one_line(&paused.by);
                match paused.stopped {
                    true => format!("paused since {since}, by {by}\n"),
                    false => format!(
                        "paused since {since}, by {by}; the transaction under way has not ended yet: \
                         lastword status tells when it is no longer connected\n"
                    ),
                }
            }
            Command::Resume(args) => {
                match args.server.client()?.resume_mirror().await?.since_time {
                    Some(since) => format!("goes on; it was paused since {}\n", time_text(&since)),
                    None => "it was not paused\n".to_owned(),
                }
            }
            Command::Rebuild(args) => {
                let table = args.table.unwrap_or_default();
                let mut client = args.server.client()?;
                client.rebuild_mirror(&table).await?;
                if args.wait {
                    rebuilt(&mut client).await?;
                    "filled anew\n".to_owned()
                } else {
                    "begins; lastword status shows how far it is\n".to_owned()
                }
            }
        };
        Ok(print(text.as_bytes())?)
    }
}

/// Waits until nothing is left to be filled anew.
async fn rebuilt(client: &mut Client) -> anyhow::Result<()> {
    let mut failures = 0;
    loop {
        match client.status().await {
            Ok(status) => {
                failures = 0;
                let mirror = status.mirror.unwrap_or_default();
                if !mirror.rebuild_all && mirror.rebuild_tables.is_empty() {
                    return Ok(());
                }
            }
            Err(error) if failures == WAIT_FAILURES_MAX => return Err(error.into()),
            Err(_) => failures += 1,
        }
        sleep(WAIT_POLL).await;
    }
}

/// `ann@fra-1`, as far as the system tells.
fn whoever() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
    match nix::unistd::gethostname() {
        Ok(host) => format!("{user}@{}", host.to_string_lossy()),
        Err(_) => user,
    }
}
