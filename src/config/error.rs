//! What can be wrong with the settings. Every message is one line that names the setting, where it
//! was set, and what to do.

use std::{io, path::PathBuf};

use super::{layers::Source, setting::Setting};

/// Why there are no settings to run with. Nothing was started or changed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file holds a name that nobody reads.
    #[error("{}: unknown setting {name}{}", file.display(), hint(*suggestion, "lastword config lists all"))]
    UnknownSetting {
        /// The file.
        file: PathBuf,
        /// The name, with its section.
        name: String,
        /// A known name near to it.
        suggestion: Option<&'static str>,
    },
    /// A `LASTWORD_` variable that nobody reads.
    #[error(
        "unknown variable {name}{}",
        hint(*suggestion, "unset it; lastword serve --help lists all")
    )]
    UnknownVariable {
        /// Its name.
        name: String,
        /// A known name near to it.
        suggestion: Option<&'static str>,
    },
    /// A file could not be read.
    #[error("{name}: cannot read {}: {error}", path.display())]
    Read {
        /// The setting or flag that names the file.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The file is not TOML.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// A setting without a default was not given.
    #[error(
        "{}: missing: give --{} {}, or set {}, or {} in the settings file",
        .0.name, .0.flag, .0.value_name, .0.env, .0.name
    )]
    Missing(&'static Setting),
    /// A setting's value does not do.
    #[error("{name} ({origin}): {reason}")]
    Invalid {
        /// The setting.
        name: &'static str,
        /// Where its value comes from.
        origin: Source,
        /// Why, and what to write instead.
        reason: String,
    },
    /// `--server` or `LASTWORD_SERVER` does not do.
    #[error("{origin}: {reason}")]
    Server {
        /// The flag or the variable.
        origin: &'static str,
        /// Why, and what to write instead.
        reason: String,
    },
}

fn hint(suggestion: Option<&str>, otherwise: &str) -> String {
    match suggestion {
        Some(name) => format!(": did you mean {name}?"),
        None => format!(": {otherwise}"),
    }
}
