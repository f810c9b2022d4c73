//! `lastword adopt`: a table whose rows stand in MySQL and in the store becomes one.

use anyhow::bail;
use clap::ValueEnum;
use indicatif::HumanCount;
use serde::Serialize;

use super::{
    output::{KeyText, escape, json_line, print, spinner},
    servers::ServerArgs,
};
use crate::{
    client::ClientError,
    wire::proto::{
        self, AdoptCounts, RowsIn, adopt_table_request::Decision, adopt_table_response::Event,
    },
};

/// Compare a MySQL table with the store, and make them one
///
/// For a captured table that waits because both have rows: that of a second site, whose table is an older or
/// a newer copy of the first one's. Prints how many rows only MySQL has (they become writes of this site), only the
/// store (they are filled into MySQL), and how many differ; with --newer-by or --keep also whose row is right
/// then. Nothing is changed without --apply. With it, rows that lose are kept in MySQL, in
/// _lastword_adopted. Applications may go on writing: what they have written since the capture began is this
/// site's. Interrupted, the node goes on; run it again to see the end.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lastword adopt --table customers --newer-by updated_at\n  \
                        lastword adopt --table customers --newer-by updated_at --apply")]
pub(super) struct Args {
    /// The table
    #[arg(long)]
    table: String,
    /// Of two different rows the one is right that has the later time in this column; the store's where both
    /// are the same
    #[arg(long, value_name = "COLUMN", conflicts_with = "keep")]
    newer_by: Option<String>,
    /// Of two different rows this one's is right
    #[arg(long, value_name = "SIDE")]
    keep: Option<Keep>,
    /// Make it so
    #[arg(long)]
    apply: bool,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keep {
    /// The node's own MySQL
    Mysql,
    /// The store, which the sites share
    Store,
}

#[derive(Serialize)]
struct Report<'a> {
    table: &'a str,
    applied: bool,
    was_done: bool,
    only_mysql: u64,
    only_store: u64,
    equal: u64,
    different: u64,
    mysql_wins: u64,
    store_wins: u64,
    written_since: u64,
    losers_in: &'a str,
    examples: Vec<Example<'a>>,
}

#[derive(Serialize)]
struct Example<'a> {
    #[serde(flatten)]
    key: KeyText<'a>,
    kind: &'static str,
    columns: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    winner: Option<&'static str>,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let decision = match (self.newer_by.clone(), self.keep) {
            (Some(column), _) => Some(Decision::NewerBy(column)),
            (None, Some(Keep::Mysql)) => Some(Decision::Keep(RowsIn::Mysql.into())),
            (None, Some(Keep::Store)) => Some(Decision::Keep(RowsIn::Store.into())),
            (None, None) => None,
        };
        if self.apply && decision.is_none() {
            bail!("apply: say which rows are right: --newer-by COLUMN, or --keep mysql|store");
        }
        let is_decided = decision.is_some();
        let request =
            proto::AdoptTableRequest { table: self.table.clone(), decision, apply: self.apply };
        let mut parts = self.server.client()?.adopt_table(request).await?;
        let bar = spinner();
        let result = loop {
            match parts.next().await {
                Ok(Some(proto::AdoptTableResponse { event: Some(Event::Result(result)) })) => {
                    break Ok(result);
                }
                Ok(Some(proto::AdoptTableResponse { event: Some(Event::Progress(counts)) })) => {
                    let AdoptCounts { only_mysql, equal, different, .. } = counts;
                    let compared = HumanCount(only_mysql + equal + different);
                    let different = HumanCount(different);
                    bar.set_message(format!("{compared} rows compared, {different} differ"));
                    bar.tick();
                }
                // An event of a later release.
                Ok(Some(proto::AdoptTableResponse { event: None })) => {}
                Ok(None) => break Err(ClientError::Incomplete("result")),
                Err(error) => break Err(error),
            }
        };
        bar.finish_and_clear();
        let result = result?;
        let mut out = Vec::new();
        if self.json {
            json_line(&mut out, &self.report_of(&result));
        } else {
            self.text_of(&mut out, &result, is_decided);
        }
        Ok(print(&out)?)
    }

    fn report_of<'a>(&'a self, result: &'a proto::AdoptResult) -> Report<'a> {
        let counts = result.counts.unwrap_or_default();
        let examples = result.examples.iter().map(|example| Example {
            key: KeyText::of(&example.key),
            kind: kind_of(example),
            columns: &example.columns,
            winner: winner_of(example),
        });
        Report {
            table: &self.table,
            applied: self.apply,
            was_done: result.was_done,
            only_mysql: counts.only_mysql,
            only_store: counts.only_store,
            equal: counts.equal,
            different: counts.different,
            mysql_wins: counts.mysql_wins,
            store_wins: counts.store_wins,
            written_since: counts.written_since,
            losers_in: &result.losers_in,
            examples: examples.collect(),
        }
    }

    fn text_of(&self, out: &mut Vec<u8>, result: &proto::AdoptResult, is_decided: bool) {
        let counts = result.counts.unwrap_or_default();
        for example in &result.examples {
            escape(out, &example.key);
            let columns = example.columns.join(",");
            let winner = winner_of(example).map(|side| format!("\t{side} is right"));
            let winner = winner.unwrap_or_default();
            out.extend_from_slice(
                format!("\t{}\t{columns}{winner}\n", kind_of(example)).as_bytes(),
            );
        }
        let (are, come_to_be) = match self.apply {
            true => ("are", "become"),
            false => ("would be", "would become"),
        };
        let line =
            |count: u64, text: String| format!("{:>12} {text}", HumanCount(count).to_string());
        let mut lines = vec![
            line(counts.only_mysql, format!("only in MySQL: {come_to_be} writes of this site")),
            line(counts.only_store, format!("only in the store: {are} filled into MySQL")),
            line(counts.equal, "equal".to_owned()),
            line(counts.different, "different".to_owned()),
        ];
        if is_decided {
            lines.push(line(counts.mysql_wins, "of them: MySQL's is right".to_owned()));
            lines.push(line(counts.store_wins, "of them: the store's is right".to_owned()));
        }
        if counts.written_since > 0 {
            let text = "of them: written here since the capture began, and so this site's";
            lines.push(line(counts.written_since, text.to_owned()));
        }
        let losers_in = &result.losers_in;
        lines.push(match (self.apply, result.was_done) {
            (true, true) => "it was adopted before, with these counts".to_owned(),
            (true, false) => format!("adopted; the rows that lost are in MySQL, in {losers_in}"),
            (false, _) if is_decided => "nothing was changed: --apply makes it so".to_owned(),
            (false, _) => {
                "nothing was changed: --newer-by COLUMN or --keep mysql|store says which of \
                           the different rows are right, --apply makes it so"
                    .to_owned()
            }
        });
        for line in lines {
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
    }
}

fn kind_of(example: &proto::AdoptExample) -> &'static str {
    match example.only_in() {
        RowsIn::Mysql => "only_mysql",
        RowsIn::Store => "only_store",
        RowsIn::Unspecified => "different",
    }
}

fn winner_of(example: &proto::AdoptExample) -> Option<&'static str> {
    match example.winner() {
        RowsIn::Mysql => Some("mysql"),
        RowsIn::Store => Some("store"),
        RowsIn::Unspecified => None,
    }
}
