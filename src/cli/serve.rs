//! `lastword serve`: the composition root, where a node is put together from its settings.

use anyhow::bail;

use crate::{config::Config, telemetry};

use super::settings_args::SettingsArgs;

/// Run a node
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword serve --site fra --data /var/lib/lastword \
                        --peer http://nyc.example:7400\n\n\
                        In the settings file: site = \"fra\", peer = [\"http://...\"]; \
                        --sequence-offset is offset in the section [sequence].\n\
                        lastword config shows the settings in effect and where each comes from.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = Config::from_layers(&self.settings.layers()?)?;
        telemetry::init(&config.log.filter, config.log.format)?;
        run(config).await
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
///
/// Whatever keeps it from starting, or makes it stop.
pub async fn run(config: Config) -> anyhow::Result<()> {
    bail!("site {}: serve is not built yet", config.site)
}
