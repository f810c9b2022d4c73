//! `lastword compact`: a stopped node's file, written anew and as small as it can be.

use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::output::{json_line, print};
use crate::{
    model::Origin,
    store::{Compacted, Store, StoreConfig},
};

/// Make the file of a stopped node as small as it can be
///
/// Writes the store's file anew beside the old one, which it then replaces: it needs room for both
/// meanwhile. Stopped half-way, it leaves the store as it was.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword compact --data /var/lib/lastword")]
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
    rows: u64,
    before_bytes: u64,
    after_bytes: u64,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let compacted = tokio::task::spawn_blocking(move || {
            let bar = ProgressBar::new(0);
            let style = ProgressStyle::with_template("{bar:40} {percent}% of {len} entries, {eta}");
            bar.set_style(style.expect("a sound template"));
            // A store that is there keeps its own.
            let fresh_origin = Origin::from_bytes(*uuid::Uuid::new_v4().as_bytes());
            let config = StoreConfig::new(fresh_origin, rand::random());
            let compacted = Store::compact(&self.data, &config, |done, total| {
                bar.set_length(total);
                bar.set_position(done);
            });
            bar.finish_and_clear();
            compacted.map(|compacted| (compacted, self.json))
        });
        let (Compacted { rows, before_bytes, after_bytes }, json) = compacted.await??;
        let mut out = Vec::new();
        if json {
            json_line(&mut out, &Report { rows, before_bytes, after_bytes });
        } else {
            let (before, after) =
                (indicatif::HumanBytes(before_bytes), indicatif::HumanBytes(after_bytes));
            out.extend_from_slice(
                format!("{rows} rows: {before} before, {after} now\n").as_bytes(),
            );
        }
        Ok(print(&out)?)
    }
}
