//! `lastword config`: the settings in effect, and where each comes from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::{Config, Effective, setting::Kind};

use super::{
    output::{json_line, one_line, print},
    settings_args::SettingsArgs,
};

/// Show the settings that serve would run with, and where each comes from
///
/// Passwords are hidden. Exit code 2 where serve would refuse them.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword config --config lastword.toml --site fra --json")]
pub(super) struct Args {
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let layers = self.settings.layers()?;
        let settings = layers.effective();
        let mut out = Vec::new();
        if self.json {
            json_line(&mut out, &json_of(&settings));
        } else {
            out.extend_from_slice(table_of(&settings).as_bytes());
        }
        print(&out)?;
        // Shown first: it helps to see what is wrong with them.
        Config::from_layers(&layers)?;
        Ok(())
    }
}

#[derive(Serialize)]
struct Shown<'a> {
    value: Value<'a>,
    source: String,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    List(&'a [String]),
    Text(Option<&'a str>),
}

fn json_of(settings: &[Effective]) -> BTreeMap<&'static str, Shown<'_>> {
    settings
        .iter()
        .map(|e| {
            let value = match e.setting.kind {
                Kind::List | Kind::Tables => Value::List(&e.texts),
                _ => Value::Text(e.texts.first().map(String::as_str)),
            };
            (e.setting.name, Shown { value, source: e.source.to_string() })
        })
        .collect()
}

/// Three columns: name, value, source.
fn table_of(settings: &[Effective]) -> String {
    let value = |e: &Effective| match e.texts.as_slice() {
        [] => "(not set)".to_owned(),
        texts => one_line(&texts.join(",")),
    };
    let names = settings.iter().map(|e| e.setting.name.len()).max().unwrap_or(0);
    let values = settings.iter().map(|e| value(e).chars().count()).max().unwrap_or(0);
    settings
        .iter()
        .map(|e| format!("{:names$}  {:values$}  {}\n", e.setting.name, value(e), e.source))
        .collect()
}
