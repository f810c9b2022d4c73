//! `lastword rejoin`: a stopped node's store gets a new origin, and comes back as a new member.

use std::path::PathBuf;

use serde::Serialize;

use super::output::{json_line, print};
use crate::{
    model::Origin,
    store::{Store, StoreConfig},
};

/// Let the store of a stopped node come back into its cluster as a new member
///
/// For a store that was removed from the cluster, or was set back to an older copy: the others refuse it, because
/// they have closed it, or know more of it than it does. It gets a new origin and keeps its rows, so
/// that coming back costs what changed; what it had not spread is written anew once it is in. Not for
/// a copy of a store that is still running: give that one an empty data folder.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  lastword rejoin --data /var/lib/lastword && systemctl start lastword"
)]
pub(super) struct Args {
    /// The data folder of the node
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Report {
    origin: String,
    earlier_origin: String,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let fresh = Origin::from_bytes(*uuid::Uuid::new_v4().as_bytes());
        let data = self.data;
        let renamed = tokio::task::spawn_blocking(move || {
            Store::rejoin(&data, &StoreConfig::new(fresh, rand::random()))
        });
        let earlier = renamed.await??;
        let mut out = Vec::new();
        if self.json {
            let (origin, earlier_origin) = (fresh.to_string(), earlier.to_string());
            json_line(&mut out, &Report { origin, earlier_origin });
        } else {
            out.extend_from_slice(
                format!(
                    "the store {earlier} is {fresh} now: start its node, and it joins its cluster as a new \
                     member\n"
                )
                .as_bytes(),
            );
        }
        Ok(print(&out)?)
    }
}
