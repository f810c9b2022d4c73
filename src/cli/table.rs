//! `lastword table`: what an operator tells a node of a MySQL table.

use std::time::Duration;

use anyhow::bail;
use clap::Subcommand;
use tokio::time::sleep;

use super::{output::print, servers::ServerArgs};
use crate::{client::Client, wire::proto};

/// How often `--wait` looks.
const WAIT_POLL: Duration = Duration::from_millis(200);

/// Take in what became of a captured MySQL table
#[derive(clap::Args)]
#[command(
    after_help = "Example, after ALTER TABLE film ADD COLUMN ... at this site:\n  lastword table \
                        refresh film --wait\n\nlastword status lists the captured tables, and why one waits."
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// A table that was altered goes on with the columns that it has now
    ///
    /// Nothing that applications wrote meanwhile is lost: it waits in the outbox. What other sites wrote
    /// meanwhile comes, too.
    Refresh(RefreshArgs),
}

#[derive(clap::Args)]
struct RefreshArgs {
    /// The table
    table: String,
    /// End once its rows flow again
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let Command::Refresh(args) = self.command;
        let mut client = args.server.client()?;
        client.refresh_table(&args.table).await?;
        let text = if args.wait {
            flows(&mut client, &args.table).await?;
            "its rows flow\n"
        } else {
            "its rows are taken in; lastword status shows how far it is\n"
        };
        Ok(print(text.as_bytes())?)
    }
}

/// Waits until the table is captured, and nothing waits in its outbox.
async fn flows(client: &mut Client, table: &str) -> anyhow::Result<()> {
    loop {
        let capture = client.status().await?.mirror.and_then(|mirror| mirror.capture);
        let found = capture.into_iter().flat_map(|c| c.tables).find(|t| t.table == table);
        let Some(found) = found else { bail!("table {table}: it is not captured any more") };
        match found.state() {
            proto::CaptureState::On if found.pending == 0 => return Ok(()),
            proto::CaptureState::Waiting => bail!("{}", found.reason),
            _ => sleep(WAIT_POLL).await,
        }
    }
}
