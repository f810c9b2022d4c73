//! `lastword conflicts`: writes that were overtaken by a write that had not seen them.

use std::{
    ffi::OsString,
    io::{self, BufRead, IsTerminal, Write},
    time::Duration,
};

use anyhow::bail;

use super::{
    conflicts_text::{self, Line},
    output::{json_line, print, written_json},
    servers::ServerArgs,
    value::bytes_of,
};
use crate::{client::ClientError, wire::proto};

/// List, show and restore writes that lost against a write made at the same time elsewhere
///
/// Two sites wrote the same key and neither had seen the other's write: the later one stands
/// everywhere, and the other is kept in the conflict journal of each node where the two met, for a
/// while ([conflicts] in the settings).
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lastword conflicts list --table sessions --since 2h\n  \
                        lastword conflicts show 115823283077120000@0a1b2c3d-4455-6677-8899-aabbccddeeff\n  \
                        lastword conflicts restore 115823283077120000@0a1b2c3d-4455-6677-8899-aabbccddeeff")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    List(ListArgs),
    Show(ShowArgs),
    Restore(RestoreArgs),
}

/// List the conflicts that a node keeps, the newest first
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword conflicts list --prefix user: --since 2h --limit 20")]
struct ListArgs {
    /// Only of this table
    #[arg(long, value_name = "T")]
    table: Option<String>,
    /// Only of keys that begin so
    #[arg(long, value_name = "P")]
    prefix: Option<OsString>,
    /// Only writes made within this time, such as 30m, 2h or 7days
    #[arg(long, value_name = "DURATION", value_parser = parse_since)]
    since: Option<Duration>,
    /// At most so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// The oldest first
    #[arg(long)]
    oldest_first: bool,
    /// Print each conflict as one line of JSON, with the whole value
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Show both writes of a conflict, and what stands now
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword conflicts show \
                        115823283077120000@0a1b2c3d-4455-6677-8899-aabbccddeeff")]
struct ShowArgs {
    /// As lastword conflicts list shows it
    id: String,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Write the losing value again: it replaces what stands now, everywhere
///
/// A delete that lost is restored as a delete. On a terminal it shows both and asks first.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword conflicts restore --yes \
                        115823283077120000@0a1b2c3d-4455-6677-8899-aabbccddeeff")]
struct RestoreArgs {
    /// As lastword conflicts list shows it
    id: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print the version written as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.action {
            Action::List(args) => args.run().await,
            Action::Show(args) => args.run().await,
            Action::Restore(args) => args.run().await,
        }
    }
}

impl ListArgs {
    async fn run(self) -> anyhow::Result<()> {
        let mut client = self.server.client()?;
        let since_time = match self.since {
            None => None,
            Some(since) => Some(node_time_less(client.status().await?, since)?),
        };
        let request = proto::ListConflictsRequest {
            table: self.table.unwrap_or_default(),
            prefix: self.prefix.map(bytes_of).unwrap_or_default(),
            since_time,
            limit: self.limit.unwrap_or(0),
            oldest_first: self.oldest_first,
        };
        let mut parts = client.list_conflicts(request).await?;
        let mut nothing = true;
        while let Some(part) = parts.next().await? {
            let mut lines = Vec::new();
            if nothing && !self.json {
                lines.extend_from_slice(conflicts_text::heading().as_bytes());
            }
            nothing = false;
            for conflict in &part.conflicts {
                if self.json {
                    json_line(&mut lines, &Line::of(conflict)?);
                } else {
                    lines.extend_from_slice(conflicts_text::row(conflict)?.as_bytes());
                }
            }
            print(&lines)?;
        }
        if nothing && !self.json {
            print(b"no conflicts\n")?;
        }
        Ok(())
    }
}

impl ShowArgs {
    async fn run(self) -> anyhow::Result<()> {
        let found = self.server.client()?.get_conflict(self.id.trim()).await?;
        let mut out = Vec::new();
        if self.json {
            json_line(&mut out, &conflicts_text::Whole::of(&found)?);
        } else {
            out.extend_from_slice(conflicts_text::whole(&found)?.as_bytes());
        }
        Ok(print(&out)?)
    }
}

impl RestoreArgs {
    async fn run(self) -> anyhow::Result<()> {
        let mut client = self.server.client()?;
        let id = self.id.trim();
        if !self.yes {
            let found = client.get_conflict(id).await?;
            if !io::stdin().is_terminal() {
                bail!("restore asks on a terminal only, and this is none: give --yes");
            }
            ask(&conflicts_text::whole(&found)?)?;
        }
        let restored = client.restore_conflict(id).await?;
        let version = restored.version.as_ref().ok_or(ClientError::Incomplete("version"))?;
        let mut line = Vec::new();
        if self.json {
            written_json(&mut line, &restored.table, &restored.key, version, None)?;
        } else {
            let id = conflicts_text::id_of(version)?;
            line.extend_from_slice(format!("restored as {id}\n").as_bytes());
        }
        Ok(print(&line)?)
    }
}

/// Shows what would be done on the terminal, and goes on only with a yes.
fn ask(what: &str) -> anyhow::Result<()> {
    let mut stderr = io::stderr();
    write!(stderr, "{what}\nWrite the lost value again, over what stands now? [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("nothing was restored"),
    }
}

/// The node's clock counts, not this machine's.
fn node_time_less(
    status: proto::StatusResponse,
    since: Duration,
) -> Result<prost_types::Timestamp, ClientError> {
    let time = status.node.and_then(|node| node.time).ok_or(ClientError::Incomplete("time"))?;
    let since = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    Ok(prost_types::Timestamp { seconds: time.seconds.saturating_sub(since), ..time })
}

fn parse_since(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "write numbers with units, such as 30m, 2h or 7days".to_owned())
}
