//! `lastword member`: who belongs to the cluster, and who no longer does.

use std::fmt::Write as _;

use clap::Subcommand;
use serde::Serialize;

use super::{
    output::{json_line, print},
    servers::ServerArgs,
};
use crate::wire::proto::{self, MemberState};

/// List the members of the cluster, seal it, remove a member for good
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  lastword member list\n  lastword member remove nyc\n  lastword member seal"
)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show all members, and for whom dead rows wait
    List(ListArgs),
    /// Remove a member that does not come back: the others refuse it, and wait for it no more
    Remove(RemoveArgs),
    /// Seal the cluster now, rather than some time after its founders have met
    ///
    /// From then on newcomers are admitted by a member, and dead rows go. A node that is alone seals only so.
    Seal(SealArgs),
}

#[derive(clap::Args)]
struct ListArgs {
    /// Print one line of JSON for each member
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(clap::Args)]
struct RemoveArgs {
    /// Its site, or its origin
    #[arg(value_name = "SITE|ORIGIN")]
    member: String,
    /// Also before the cluster is sealed: sites that only this one had met must rejoin then
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(clap::Args)]
struct SealArgs {
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Member<'m> {
    site: &'m str,
    origin: &'m str,
    state: &'static str,
    admitted: bool,
    has_acknowledged_seal: bool,
    age_seconds: Option<f64>,
    is_self: bool,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut out = Vec::new();
        match self.command {
            Command::List(args) => {
                let status = args.server.client()?.status().await?;
                let cluster = status.cluster.unwrap_or_default();
                if args.json {
                    cluster.members.iter().for_each(|member| json_line(&mut out, &json_of(member)));
                } else {
                    out.extend_from_slice(text_of(&cluster)?.as_bytes());
                }
            }
            Command::Remove(args) => {
                let origin = args.server.client()?.remove_member(&args.member, args.force).await?;
                out.extend_from_slice(
                    format!(
                        "{origin} is removed: the others refuse it from now on. To bring it back, stop its node, \
                         run lastword rejoin --data DIR there, and start it again.\n"
                    )
                    .as_bytes(),
                );
            }
            Command::Seal(args) => {
                args.server.client()?.seal_cluster().await?;
                out.extend_from_slice(
                    b"the cluster is sealed once every member has acknowledged it\n",
                );
            }
        }
        Ok(print(&out)?)
    }
}

fn json_of(member: &proto::MemberStatus) -> Member<'_> {
    Member {
        site: &member.site,
        origin: &member.origin,
        state: state_of(member),
        admitted: member.admitted,
        has_acknowledged_seal: member.has_acknowledged_seal,
        age_seconds: member.age_seconds,
        is_self: member.is_self,
    }
}

fn state_of(member: &proto::MemberStatus) -> &'static str {
    match member.state() {
        MemberState::Unspecified => "unknown",
        MemberState::Member => "member",
        MemberState::Removed => "being removed",
        MemberState::Closed => "removed",
    }
}

/// A table, one member a line; then what dead rows wait for.
pub(super) fn text_of(cluster: &proto::ClusterStatus) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    let site = |member: &proto::MemberStatus| match (member.site.is_empty(), member.is_self) {
        (true, _) => "?".to_owned(),
        (false, true) => format!("{} (this node)", member.site),
        (false, false) => member.site.clone(),
    };
    let width = cluster.members.iter().map(|member| site(member).len()).max().unwrap_or(0).max(4);
    writeln!(
        text,
        "{:width$}  {:36}  {:13}  {:8}  heard of",
        "site", "origin", "state", "came as"
    )?;
    for member in &cluster.members {
        let came_as = if member.admitted { "newcomer" } else { "founder" };
        let age = member.age_seconds.map_or("-".to_owned(), |age| format!("{age:.1} s ago"));
        let (site, state) = (site(member), state_of(member));
        writeln!(text, "{site:width$}  {:36}  {state:13}  {came_as:8}  {age}", member.origin)?;
    }
    let sealed = match cluster.sealed {
        true => "yes: dead rows go once every member has them, newcomers are admitted",
        false => "no: dead rows stay, sites with writes of their own may join by simply meeting",
    };
    writeln!(text, "\nsealed: {sealed}")?;
    writeln!(text, "dead rows: {} here, {} purged so far", cluster.dead_rows, cluster.rows_purged)?;
    for waits_for in &cluster.purge_waits_for {
        writeln!(text, "  dead rows wait for {waits_for}")?;
    }
    if cluster.joining {
        let missing = cluster.admission_missing.join(", ");
        let missing = if missing.is_empty() { "its sponsor".to_owned() } else { missing };
        writeln!(text, "this node is being admitted: it waits for {missing}")?;
    }
    Ok(text)
}
