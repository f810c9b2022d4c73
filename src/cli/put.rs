//! `lastword put`: replaces one row.

use std::{ffi::OsString, time::Duration};

use super::{
    output::{print, written_json},
    servers::ServerArgs,
    value::{bytes_of, parse_ttl, read_value},
};

/// Write a row; whatever stood under the key is replaced
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  lastword put sessions abc hello --ttl 5m\n  \
                        lastword put pages home - < home.html\n\n\
                        A key or value that begins with a dash goes after --: \
                        lastword put t -- -k -v")]
pub(super) struct Args {
    /// The table; made when missing, unless the node's settings say otherwise
    table: String,
    /// The key: 1 to 512 bytes
    #[arg(allow_negative_numbers = true)]
    key: OsString,
    /// The value; - reads it from stdin
    #[arg(allow_negative_numbers = true)]
    value: OsString,
    /// How long the row lives, such as 90s or 5m; without it for ever
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// Print the version written as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut client = self.server.client()?;
        let (key, value) = (bytes_of(self.key), read_value(self.value)?);
        let version = client.put(&self.table, key.clone(), value, self.ttl).await?;
        if self.json {
            let mut line = Vec::new();
            written_json(&mut line, &self.table, &key, &version, None)?;
            print(&line)?;
        }
        Ok(())
    }
}
