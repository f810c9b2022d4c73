//! `lastword status`: the state of a node, its links and its mirror.

use super::{
    output::{json_line, print},
    servers::ServerArgs,
    status_json, status_text,
};

/// Show whether a node receives from each peer, applies, and how far behind it is
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword status --server http://nyc.example:7400")]
pub(super) struct Args {
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let status = self.server.client()?.status().await?;
        let mut out = Vec::new();
        if self.json {
            json_line(&mut out, &status_json::of(&status)?);
        } else {
            out.extend_from_slice(status_text::of(&status)?.as_bytes());
        }
        Ok(print(&out)?)
    }
}
