//! `lastword scan`: the rows of a key range.

use std::ffi::OsString;

use crate::wire::proto;

use super::{
    output::{escape, print, row_json},
    servers::ServerArgs,
    value::bytes_of,
};

/// Print the rows of a table in the order of their keys: key, tab, value
///
/// Control characters, backslashes and bytes that are not UTF-8 are escaped (\n, \t, \\, \x00), so
/// that each row is one line; --json is exact.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lastword scan sessions --prefix user: --limit 10\n  \
                        lastword scan pages --start a --end n --keys-only")]
pub(super) struct Args {
    /// The table
    table: String,
    /// Only keys that begin so
    #[arg(long, value_name = "P", conflicts_with_all = ["start", "end"])]
    prefix: Option<OsString>,
    /// From this key on
    #[arg(long, value_name = "S")]
    start: Option<OsString>,
    /// Up to this key, not included
    #[arg(long, value_name = "E")]
    end: Option<OsString>,
    /// At most so many rows
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Leave the values out
    #[arg(long)]
    keys_only: bool,
    /// From the greatest key downwards
    #[arg(long)]
    reverse: bool,
    /// Print each row as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut client = self.server.client()?;
        let bytes = |argument: Option<OsString>| argument.map(bytes_of).unwrap_or_default();
        let request = proto::ScanRequest {
            table: self.table,
            prefix: bytes(self.prefix),
            start: bytes(self.start),
            end: bytes(self.end),
            limit: self.limit.unwrap_or(0),
            keys_only: self.keys_only,
            reverse: self.reverse,
            ..Default::default()
        };
        let mut scan = client.scan(request).await?;
        while let Some(rows) = scan.next().await? {
            let mut lines = Vec::new();
            for row in &rows {
                if self.json {
                    row_json(&mut lines, row, !self.keys_only)?;
                } else {
                    escape(&mut lines, &row.key);
                    if !self.keys_only {
                        lines.push(b'\t');
                        escape(&mut lines, &row.value);
                    }
                    lines.push(b'\n');
                }
            }
            print(&lines)?;
        }
        Ok(())
    }
}
