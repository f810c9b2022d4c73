//! `lastword insert`: a row under a new key.

use std::{ffi::OsString, time::Duration};

use clap::ValueEnum;

use crate::wire::proto;

use super::{
    output::{print, written_json},
    servers::ServerArgs,
    value::{parse_ttl, read_value},
};

/// Write a row under a new key that the node makes, and print the key
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword insert orders '{\"item\": 7}' --id sequence\n\n\
                        A value that begins with a dash goes after --: lastword insert t -- -v")]
pub(super) struct Args {
    /// The table; made when missing, unless the node's settings say otherwise
    table: String,
    /// The value; - reads it from stdin
    #[arg(allow_negative_numbers = true)]
    value: OsString,
    /// Which kind of key to make
    #[arg(long, value_enum, default_value = "uuid")]
    id: Id,
    /// How long the row lives, such as 90s or 5m; without it for ever
    #[arg(long, value_name = "DURATION", value_parser = parse_ttl)]
    ttl: Option<Duration>,
    /// Print the key and the version written as one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum Id {
    /// A UUID of version 7: in order of time
    Uuid,
    /// A number, unique in the cluster; the node needs sequence.offset and sequence.increment
    Sequence,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let id_kind = match self.id {
            Id::Uuid => proto::IdKind::UuidV7,
            Id::Sequence => proto::IdKind::Sequence,
        };
        let mut client = self.server.client()?;
        let value = read_value(self.value)?;
        let inserted = client.insert(&self.table, value, self.ttl, id_kind).await?;
        let mut line = Vec::new();
        if self.json {
            written_json(&mut line, &self.table, &inserted.key, &inserted.version, None)?;
        } else {
            line.extend_from_slice(&inserted.key);
            line.push(b'\n');
        }
        Ok(print(&line)?)
    }
}
