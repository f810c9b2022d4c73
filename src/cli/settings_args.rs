//! The settings as flags, made from the list in `config`: a setting added there is a flag here.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::config::{
    Environment, Flags, Layers,
    setting::{self, Kind, Setting},
};

/// `--config FILE` and a flag for every setting.
pub(super) struct SettingsArgs(Flags);

impl SettingsArgs {
    /// File, environment and these flags, laid over each other.
    pub(super) fn layers(&self) -> anyhow::Result<Layers> {
        Ok(Layers::read(&self.0, &Environment::of_process())?)
    }
}

const FILE: &str = "config";

impl clap::Args for SettingsArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new(FILE)
            .long(FILE)
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("A settings file (TOML); variables go over it, flags over both [default: none]");
        command.arg(file).args(flags().map(flag_of))
    }

    fn augment_args_for_update(command: Command) -> Command {
        SettingsArgs::augment_args(command)
    }
}

/// The settings that have one.
fn flags() -> impl Iterator<Item = &'static Setting> {
    setting::ALL.into_iter().filter(|setting| setting.kind != Kind::Secret)
}

fn flag_of(setting: &'static Setting) -> Arg {
    let default = match setting.default {
        "" => String::new(),
        default => format!(" [default: {default}]"),
    };
    let flag = Arg::new(setting.flag)
        .long(setting.flag)
        .value_name(setting.value_name)
        .help(format!("{}{default} [env: {}]", setting.help, setting.env));
    match setting.kind {
        Kind::Text | Kind::SecretUrl | Kind::Secret => flag,
        // Tables have no flag.
        Kind::List | Kind::Tables => flag.action(ArgAction::Append),
        // `--insecure` and `--insecure=false`; the word after it is not its value.
        Kind::Switch => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
    }
}

impl FromArgMatches for SettingsArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<SettingsArgs, clap::Error> {
        let values = flags().filter_map(|setting| {
            let values = matches.get_many::<String>(setting.flag)?;
            Some((setting, values.cloned().collect()))
        });
        Ok(SettingsArgs(Flags { file: matches.get_one(FILE).cloned(), values: values.collect() }))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = SettingsArgs::from_arg_matches(matches)?;
        Ok(())
    }
}
