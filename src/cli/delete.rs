//! `lastword delete`: removes one row.

use std::ffi::OsString;

use super::{
    output::{print, written_json},
    servers::ServerArgs,
    value::bytes_of,
};

/// Delete a row; deleting what is absent succeeds, too
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword delete sessions abc\n\n\
                        A key that begins with a dash goes after --: lastword delete t -- -k")]
pub(super) struct Args {
    /// The table
    table: String,
    /// The key
    #[arg(allow_negative_numbers = true)]
    key: OsString,
    /// Print the version written, and whether a row was there, as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let key = bytes_of(self.key);
        let deleted = self.server.client()?.delete(&self.table, key.clone()).await?;
        if self.json {
            let mut line = Vec::new();
            let existed = Some(deleted.existed);
            written_json(&mut line, &self.table, &key, &deleted.version, existed)?;
            print(&line)?;
        }
        Ok(())
    }
}
