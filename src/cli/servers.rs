//! `--server`: which nodes a client command talks to.

use crate::{
    client::{Client, Options},
    config::{self, Environment, NodeUrl},
};

/// Flags of every client command.
#[derive(clap::Args)]
pub(super) struct ServerArgs {
    /// The node to talk to. Repeat it in order of preference: where one cannot be reached the next
    /// is asked [default: http://127.0.0.1:7400] [env: LASTWORD_SERVER, separated by commas]
    #[arg(long = "server", value_name = "URL")]
    servers: Vec<String>,
}

impl ServerArgs {
    /// Their addresses, in order of preference.
    pub(super) fn urls(&self) -> anyhow::Result<Vec<NodeUrl>> {
        Ok(config::servers(&self.servers, &Environment::of_process())?)
    }

    /// A client of these nodes.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(self.urls()?.iter().map(NodeUrl::as_str), Options::default())?)
    }
}
