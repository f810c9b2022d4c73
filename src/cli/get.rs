//! `lastword get`: one row.

use std::ffi::OsString;

use anyhow::bail;

use super::{
    output::{escape, print, row_json},
    servers::ServerArgs,
    value::bytes_of,
};

/// Print a row's value, byte for byte; exit code 1 where there is none
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword get sessions abc > value.bin\n\n\
                        A key that begins with a dash goes after --: lastword get t -- -k")]
pub(super) struct Args {
    /// The table
    table: String,
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: OsString,
    /// Print the whole row as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let key = bytes_of(self.key);
        let Some(row) = self.server.client()?.get(&self.table, key.clone()).await? else {
            let mut shown = Vec::new();
            escape(&mut shown, &key);
            bail!("no row with key {} in table {}", String::from_utf8_lossy(&shown), self.table);
        };
        if self.json {
            let mut line = Vec::new();
            row_json(&mut line, &row, true)?;
            print(&line)?;
        } else {
            print(&row.value)?;
        }
        Ok(())
    }
}
