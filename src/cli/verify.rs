//! `lastword verify`: whether two nodes, or a node and its MySQL, have the same rows.

use anyhow::bail;
use clap::ValueEnum;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use crate::{
    client::ClientError,
    wire::proto::{self, RowDifferenceKind, VerifyStage},
};

use super::{
    output::{KeyText, VersionText, escape, json_line, one_line, print, spinner, time_text},
    servers::ServerArgs,
    verify_mirror,
};

/// Compare the rows of a node with those of a peer, or of its MySQL, while both take writes
///
/// Prints the rows that differ and should not. Exit code 0: equal; 1: not, or not known.
///
/// With --peer: table, key, how they differ, what is here, what is there, and up to which time both have
/// every write. --repair writes the right rows once more, as ordinary writes that reach every site and
/// mirror, and compares again: the greater version's value, the row that only one side has, the row that
/// can still be read. Writes that come meanwhile stay.
///
/// With --mirror: table, key, and how MySQL's row differs: changed, missing or extra. --repair writes the
/// node's rows over them.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lastword verify --peer nyc\n  \
                        lastword verify --peer nyc --repair --prefer here\n  \
                        lastword verify --mirror --table sessions --repair")]
#[command(group = clap::ArgGroup::new("with").required(true).args(["peer", "mirror"]))]
pub(super) struct Args {
    /// With the peer at this site
    #[arg(long, value_name = "SITE")]
    peer: Option<String>,
    /// With the tables in MySQL
    #[arg(long)]
    mirror: bool,
    /// Only this table
    #[arg(long, value_name = "TABLE", requires = "mirror")]
    table: Option<String>,
    /// Put right what differs
    #[arg(long)]
    repair: bool,
    /// Whose row is right where one write has two values: this node's, or the peer's. Without it such
    /// rows are left alone
    #[arg(long, value_name = "SIDE", requires = "repair", conflicts_with = "mirror")]
    prefer: Option<Prefer>,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Prefer {
    /// The node that is asked
    Here,
    /// The peer
    There,
}

#[derive(Serialize)]
struct Report<'a> {
    equal: bool,
    through: Option<String>,
    /// A string: JSON's readers lose the low bits of so large a number.
    through_hlc: String,
    rows: u64,
    bytes: u64,
    in_flux: u64,
    differing: u64,
    unjudged: u64,
    repaired: u64,
    differences: Vec<Difference<'a>>,
}

#[derive(Serialize)]
struct Difference<'a> {
    table: &'a str,
    #[serde(flatten)]
    key: KeyText<'a>,
    kind: &'static str,
    here: Option<State>,
    there: Option<State>,
    #[serde(skip_serializing_if = "str::is_empty")]
    undecided: &'a str,
}

#[derive(Serialize)]
struct State {
    #[serde(flatten)]
    version: Option<VersionText>,
    damaged: bool,
    deleted: bool,
    expires_at: Option<String>,
    value_bytes: u64,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        match self.peer.clone() {
            Some(peer) => self.run_peer(peer).await,
            None => {
                let request = proto::VerifyMirrorRequest {
                    table: self.table.unwrap_or_default(),
                    repair: self.repair,
                };
                verify_mirror::run(self.server.client()?, request, self.json).await
            }
        }
    }

    async fn run_peer(self, peer: String) -> anyhow::Result<()> {
        let prefer = match self.prefer {
            None => proto::Side::Unspecified,
            Some(Prefer::Here) => proto::Side::Here,
            Some(Prefer::There) => proto::Side::There,
        };
        let request =
            proto::VerifyRequest { peer: peer.clone(), repair: self.repair, prefer: prefer.into() };
        let verify = self.server.client()?.verify(request).await?;
        let bar = spinner();
        let result = verify.result(|news| {
            bar.set_message(progress_text(news));
            bar.tick();
        });
        let result = result.await;
        bar.finish_and_clear();
        let result = result?;

        let mut out = Vec::new();
        if self.json {
            json_line(&mut out, &report_of(&result)?);
        } else {
            text_of(&mut out, &result);
        }
        print(&out)?;
        match (result.differing, result.unjudged) {
            (0, 0) => Ok(()),
            (0, n) => bail!(
                "{} on this node and {} differ, too many to tell which are on their way: try \
                 again when the two are level (lastword status)",
                rows(n),
                peer
            ),
            (n, _) if self.repair => bail!("{} still differ from {peer}", rows(n)),
            (n, _) => bail!("{} differ from {peer}: --repair puts them right", rows(n)),
        }
    }
}

pub(super) fn rows(count: u64) -> String {
    format!("{} {}", HumanCount(count), if count == 1 { "row" } else { "rows" })
}

fn progress_text(progress: &proto::VerifyProgress) -> String {
    let stage = match progress.stage() {
        VerifyStage::Unspecified | VerifyStage::Beginning => "taking snapshots",
        VerifyStage::Comparing => "comparing",
        VerifyStage::Judging => "looking into what differs",
        VerifyStage::Repairing => "putting right",
    };
    format!(
        "{stage}: {}, {} differ or are on their way, {} repaired, {} exchanged",
        rows(progress.rows),
        HumanCount(progress.differing),
        HumanCount(progress.repaired),
        HumanBytes(progress.bytes),
    )
}

fn text_of(out: &mut Vec<u8>, result: &proto::VerifyResult) {
    for difference in &result.differences {
        escape(out, difference.table.as_bytes());
        out.push(b'\t');
        escape(out, &difference.key);
        let (here, there) = (difference.here.as_ref(), difference.there.as_ref());
        let fields = [kind_text(difference.kind()), &state_text(here), &state_text(there)];
        for field in fields {
            out.push(b'\t');
            out.extend_from_slice(field.as_bytes());
        }
        if !difference.undecided_reason.is_empty() {
            out.push(b'\t');
            out.extend_from_slice(one_line(&difference.undecided_reason).as_bytes());
        }
        out.push(b'\n');
    }
    let shown = result.differences.len() as u64;
    if result.differing > shown {
        let more = HumanCount(result.differing - shown);
        out.extend_from_slice(format!("... and {more} more\n").as_bytes());
    }
    let verdict = match (result.differing, result.unjudged) {
        (0, 0) => "equal".to_owned(),
        (n, 0) => format!("not equal, {} differ", rows(n)),
        (n, more) => {
            format!("not equal, {} differ, {} not looked into", rows(n), HumanCount(more))
        }
    };
    let repaired = match result.repaired {
        0 => String::new(),
        n => format!(", {} repaired", HumanCount(n)),
    };
    let through = result.through.as_ref().map_or_else(String::new, time_text);
    out.extend_from_slice(
        format!(
            "{verdict}{repaired}: every write up to {through} is on both sides; {} compared, {} \
             exchanged, {} on their way\n",
            rows(result.rows),
            HumanBytes(result.bytes),
            HumanCount(result.in_flux),
        )
        .as_bytes(),
    );
}

fn state_text(state: Option<&proto::RowState>) -> String {
    let Some(state) = state else { return "nothing".to_owned() };
    let version = match VersionText::of(state.version.as_ref()) {
        Ok(VersionText { hlc, origin }) => format!("{hlc}@{origin}"),
        Err(_) => "no version".to_owned(),
    };
    match state {
        proto::RowState { damaged: true, .. } => format!("damaged {version}"),
        proto::RowState { deleted: true, .. } => format!("deleted {version}"),
        _ => format!("{version} {} bytes", HumanCount(state.value_bytes)),
    }
}

fn kind_text(kind: RowDifferenceKind) -> &'static str {
    match kind {
        RowDifferenceKind::Unspecified => "differs",
        RowDifferenceKind::OnlyHere => "only_here",
        RowDifferenceKind::OnlyThere => "only_there",
        RowDifferenceKind::NewerHere => "newer_here",
        RowDifferenceKind::NewerThere => "newer_there",
        RowDifferenceKind::Unequal => "unequal",
    }
}

fn report_of(result: &proto::VerifyResult) -> Result<Report<'_>, ClientError> {
    let state = |state: &proto::RowState| -> Result<State, ClientError> {
        let version = state.version.as_ref();
        Ok(State {
            version: version.map(|version| VersionText::of(Some(version))).transpose()?,
            damaged: state.damaged,
            deleted: state.deleted,
            expires_at: state.expire_time.as_ref().map(time_text),
            value_bytes: state.value_bytes,
        })
    };
    let mut differences = Vec::with_capacity(result.differences.len());
    for difference in &result.differences {
        differences.push(Difference {
            table: &difference.table,
            key: KeyText::of(&difference.key),
            kind: kind_text(difference.kind()),
            here: difference.here.as_ref().map(state).transpose()?,
            there: difference.there.as_ref().map(state).transpose()?,
            undecided: &difference.undecided_reason,
        });
    }
    Ok(Report {
        equal: result.differing == 0 && result.unjudged == 0,
        through: result.through.as_ref().map(time_text),
        through_hlc: result.through_hlc.to_string(),
        rows: result.rows,
        bytes: result.bytes,
        in_flux: result.in_flux,
        differing: result.differing,
        unjudged: result.unjudged,
        repaired: result.repaired,
        differences,
    })
}
