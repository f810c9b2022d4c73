//! Settings: file, environment and flags in, one typed and validated [`Config`] out.
//!
//! ```text
//! lastword.toml  <  LASTWORD_* variables  <  flags          rising priority
//!        `--------------+--------------------'
//!                 Layers: texts by name; unknown names are refused
//!                       |
//!                 Config: each text parsed once, bounds checked
//! ```
//!
//! No file is needed. This is the only module that reads environment variables, and nothing else
//! parses a setting. Passwords are kept in a [`Secret`] and never shown.

mod error;
mod layers;
mod mysql;
mod parse;
mod peers;
mod secret;
pub mod setting;
mod suggest;
mod tables;

use std::{
    fs::File,
    io::Read,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use crate::{
    mirror::TableSetting,
    model::Role,
    protocol::{Compression, SequenceIds},
    telemetry::LogFormat,
};

pub use error::ConfigError;
pub use layers::{Effective, Environment, Flags, Layers, Source};
pub use mysql::{MysqlTarget, MysqlTls};
pub use parse::NodeUrl;
pub use peers::Peer;
pub use secret::Secret;

use setting::Setting;

/// The upper bound of [`Limits::value_bytes_max`]: with it a row fits a 4 MiB gRPC message.
pub const VALUE_BYTES_MAX_BOUND: usize = 3 << 20;
/// The upper bound of [`Limits::batch_mutations_max`] and [`Limits::get_many_keys_max`].
pub const CALL_ITEMS_MAX_BOUND: usize = 10_000;
/// The upper bound of [`Limits::read_wait_max`].
pub const READ_WAIT_MAX_BOUND: Duration = Duration::from_secs(60);
/// The bounds of [`Limits::clock_drift_max`]: below, ordinary clocks would be held back, and a node's
/// own stamps, which may lead its clock by 3 s after a restart.
pub const CLOCK_DRIFT_MAX_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(5)..=Duration::from_secs(3600);
/// The bounds of [`Member::seal_after`].
pub const SEAL_AFTER_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::ZERO..=Duration::from_secs(365 * 86_400);
/// The bounds of [`Member::absent_max`].
pub const ABSENT_MAX_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(86_400)..=Duration::from_secs(3_660 * 86_400);
/// The bounds of [`Conflicts::kept_bytes_max`]: the largest row fits in.
pub const CONFLICTS_KEPT_BYTES_BOUNDS: std::ops::RangeInclusive<u64> = 4 << 20..=4 << 30;
/// The bounds of [`Conflicts::kept_age_max`].
pub const CONFLICTS_KEPT_AGE_BOUNDS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(3600)..=Duration::from_secs(3650 * 24 * 3600);
/// Where client commands look for a node unless told otherwise.
pub const SERVER_DEFAULT: &str = "http://127.0.0.1:7400";

const PASSWORD_FILE_BYTES_MAX: u64 = 4_096;
const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// What a node runs with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name, `[a-z0-9][a-z0-9-]{0,31}`. Default `lastword`.
    pub cluster: String,
    /// This site's name, `[a-z0-9][a-z0-9-]{0,31}`. Required.
    pub site: String,
    /// What the node is for. Default: its site.
    pub role: Role,
    /// The folder of this node's store, made when missing. Required.
    pub data: PathBuf,
    /// Where gRPC is served. Default 127.0.0.1:7400.
    pub listen: SocketAddr,
    /// Where the status page and metrics are served. Default 127.0.0.1:7401; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// The nodes to exchange with. Default: none.
    pub peers: Vec<Peer>,
    /// Whether what goes to peers is compressed that say nothing of their own. Default auto.
    pub compression: Compression,
    /// The database to mirror into. Default: none.
    pub mysql: Option<MysqlTarget>,
    /// How single tables stand there. Default: all as keys and values.
    pub mirrored_tables: Vec<TableSetting>,
    /// Whether addresses that other machines reach are allowed, although there is no
    /// authentication. Default: no.
    pub insecure: bool,
    /// The site's sequence ids; `None` (the default): only UUIDs are made.
    pub sequence: Option<SequenceIds>,
    /// How tables come to be.
    pub tables: Tables,
    /// What clients and peers may ask for.
    pub limits: Limits,
    /// How the cluster's members come and go.
    pub member: Member,
    /// What of the conflict journal is kept.
    pub conflicts: Conflicts,
    /// What is logged, and how.
    pub log: Log,
}

/// How the cluster's members come and go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// So long after the founders have met the cluster is sealed: newcomers are admitted, and dead
    /// rows go. Default 10 minutes, within [`SEAL_AFTER_BOUNDS`].
    pub seal_after: Duration,
    /// A member that is away for longer is removed. Default 30 days, within [`ABSENT_MAX_BOUNDS`].
    pub absent_max: Duration,
}

/// How tables come to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Whether an unknown table is created at its first write. Default: yes.
    pub auto_create: bool,
}

/// What clients and peers may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest value that clients may write, in bytes. Default 1 MiB, at most
    /// [`VALUE_BYTES_MAX_BOUND`].
    pub value_bytes_max: usize,
    /// The most mutations in one batch. Default 1,000, at most [`CALL_ITEMS_MAX_BOUND`].
    pub batch_mutations_max: usize,
    /// The most keys in one `GetMany`. Default 1,000, at most [`CALL_ITEMS_MAX_BOUND`].
    pub get_many_keys_max: usize,
    /// How long a read waits for what its session has seen. Default 2 s, at most
    /// [`READ_WAIT_MAX_BOUND`].
    pub read_wait_max: Duration,
    /// How far a peer's stamp may lead this clock before its row is held back, and this store's own
    /// before client writes are refused. Default 10 s, within [`CLOCK_DRIFT_MAX_BOUNDS`].
    pub clock_drift_max: Duration,
}

/// What of the conflict journal is kept; beyond, the oldest losers go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflicts {
    /// So many bytes. Default 64 MiB, within [`CONFLICTS_KEPT_BYTES_BOUNDS`].
    pub kept_bytes_max: u64,
    /// How long ago the loser may have been stamped. Default 30 days, within
    /// [`CONFLICTS_KEPT_AGE_BOUNDS`].
    pub kept_age_max: Duration,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A filter as `tracing_subscriber::EnvFilter` reads it. Default `info`.
    pub filter: String,
    /// Default text.
    pub format: LogFormat,
}

impl Config {
    /// Parses and validates what the layers say; reads the password file, if one is named.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]: the first setting that is missing or does not do.
    pub fn from_layers(layers: &Layers) -> Result<Config, ConfigError> {
        use setting::*;

        let read = Reader { layers };
        let config = Config {
            cluster: read.required(&CLUSTER, parse::name)?,
            site: read.required(&SITE, parse::name)?,
            role: read.required(&ROLE, Role::from_str)?,
            data: read.required(&DATA, |text| Ok(PathBuf::from(text)))?,
            listen: read.required(&LISTEN, parse::address)?,
            http: read.optional(&HTTP, parse::address)?,
            peers: read.peers()?,
            compression: read.required(&COMPRESSION, str::parse)?,
            mysql: read.mysql()?,
            mirrored_tables: read.tables()?,
            insecure: read.required(&INSECURE, parse::switch)?,
            sequence: read.sequence()?,
            tables: Tables { auto_create: read.required(&TABLES_AUTO_CREATE, parse::switch)? },
            limits: Limits {
                value_bytes_max: read.required(&VALUE_BYTES_MAX, |text| {
                    parse::bytes(text, 1..=VALUE_BYTES_MAX_BOUND as u64).map(|n| n as usize)
                })?,
                batch_mutations_max: read.required(&BATCH_MUTATIONS_MAX, call_items)?,
                get_many_keys_max: read.required(&GET_MANY_KEYS_MAX, call_items)?,
                read_wait_max: read.required(&READ_WAIT_MAX, |text| {
                    parse::duration(text, Duration::ZERO..=READ_WAIT_MAX_BOUND)
                })?,
                clock_drift_max: read.required(&CLOCK_DRIFT_MAX, |text| {
                    parse::duration(text, CLOCK_DRIFT_MAX_BOUNDS)
                })?,
            },
            member: Member {
                seal_after: read.required(&MEMBER_SEAL_AFTER, |text| {
                    parse::duration(text, SEAL_AFTER_BOUNDS)
                })?,
                absent_max: read.required(&MEMBER_ABSENT_MAX, |text| {
                    parse::duration(text, ABSENT_MAX_BOUNDS)
                })?,
            },
            conflicts: Conflicts {
                kept_bytes_max: read.required(&CONFLICTS_KEPT_MAX_BYTES, |text| {
                    parse::bytes(text, CONFLICTS_KEPT_BYTES_BOUNDS)
                })?,
                kept_age_max: read.required(&CONFLICTS_KEPT_MAX_AGE, |text| {
                    parse::duration(text, CONFLICTS_KEPT_AGE_BOUNDS)
                })?,
            },
            log: Log {
                filter: read.required(&LOG, log_filter)?,
                format: read.required(&LOG_FORMAT, LogFormat::from_str)?,
            },
        };
        config.check_addresses(&read)?;
        config.check_tables(&read)?;
        Ok(config)
    }

    /// What is said of tables must have an effect.
    fn check_tables(&self, read: &Reader<'_>) -> Result<(), ConfigError> {
        let Some(first) = self.mirrored_tables.first() else { return Ok(()) };
        if self.mysql.is_none() {
            let reason = format!(
                "{}: a [[table]] is one in MySQL, and there is none: set mysql, or leave it out",
                first.name
            );
            return Err(read.invalid(&setting::TABLE, reason));
        }
        let captured = self.mirrored_tables.iter().find(|table| table.capture);
        if let Some(captured) = captured.filter(|_| self.role == Role::Replica) {
            let reason = format!(
                "{}: a replica takes no writes, so it cannot capture any: leave capture out, or set \
                 role = \"site\"",
                captured.name
            );
            return Err(read.invalid(&setting::TABLE, reason));
        }
        Ok(())
    }

    /// There is no authentication yet, so whoever reaches an address may read and write.
    fn check_addresses(&self, read: &Reader<'_>) -> Result<(), ConfigError> {
        let addresses = [(&setting::LISTEN, Some(self.listen)), (&setting::HTTP, self.http)];
        for (setting, address) in addresses {
            if let Some(address) = address.filter(|a| !self.insecure && !a.ip().is_loopback()) {
                return Err(read.invalid(
                    setting,
                    format!(
                        "{address} can be reached from other machines, and there is no \
                         authentication yet: use 127.0.0.1, or --insecure (insecure = true) if \
                         everyone there may read and write everything"
                    ),
                ));
            }
        }
        if self.http == Some(self.listen) && self.listen.port() != 0 {
            return Err(read.invalid(
                &setting::HTTP,
                format!("{} is the address of listen already: use another port", self.listen),
            ));
        }
        Ok(())
    }
}

/// The nodes that client commands use, in order of preference: those of `--server`, else of
/// `LASTWORD_SERVER`, else [`SERVER_DEFAULT`].
///
/// # Errors
///
/// [`ConfigError`]: an address that is no URL, or a `LASTWORD_` variable that nobody knows.
pub fn servers(flags: &[String], environment: &Environment) -> Result<Vec<NodeUrl>, ConfigError> {
    let variable = environment.servers()?;
    let (origin, texts): (_, Vec<&str>) = match variable {
        _ if !flags.is_empty() => ("--server", flags.iter().map(String::as_str).collect()),
        Some(text) => (setting::SERVER_ENV, vec![text]),
        None => ("--server", vec![SERVER_DEFAULT]),
    };
    let urls: Result<Vec<NodeUrl>, String> =
        texts.iter().flat_map(|text| text.split(',')).map(|url| url.trim().parse()).collect();
    urls.map_err(|reason| ConfigError::Server { origin, reason })
}

/// Values out of the layers, and errors that say where they were set.
struct Reader<'a> {
    layers: &'a Layers,
}

impl Reader<'_> {
    fn required<T>(
        &self,
        setting: &'static Setting,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let text = self.layers.text(setting).ok_or(ConfigError::Missing(setting))?;
        parse(text).map_err(|reason| self.invalid(setting, reason))
    }

    /// `None` where it is empty, `off` or not set.
    fn optional<T>(
        &self,
        setting: &'static Setting,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        match self.layers.text(setting) {
            None | Some("off") => Ok(None),
            Some(_) => self.required(setting, parse).map(Some),
        }
    }

    fn mysql(&self) -> Result<Option<MysqlTarget>, ConfigError> {
        let target = self.optional(&setting::MYSQL, MysqlTarget::from_str)?;
        let password = self.mysql_password(target.as_ref())?;
        let tls = self.mysql_tls()?;
        Ok(target.map(|target| MysqlTarget {
            password: target.password.clone().or(password),
            tls,
            ..target
        }))
    }

    /// One of the two settings, and only where the URL has none.
    fn mysql_password(&self, target: Option<&MysqlTarget>) -> Result<Option<Secret>, ConfigError> {
        use setting::{MYSQL_PASSWORD, MYSQL_PASSWORD_FILE};

        let text = self.layers.text(&MYSQL_PASSWORD).map(Secret::new);
        let file = self.optional(&MYSQL_PASSWORD_FILE, |text| Ok(PathBuf::from(text)))?;
        let setting = match (&text, &file) {
            (None, None) => return Ok(None),
            (Some(_), None) => &MYSQL_PASSWORD,
            (None, Some(_)) => &MYSQL_PASSWORD_FILE,
            (Some(_), Some(_)) => {
                let reason = "mysql_password is given, too: take one of the two out";
                return Err(self.invalid(&MYSQL_PASSWORD_FILE, reason.to_owned()));
            }
        };
        match target {
            None => Err(self.invalid(
                setting,
                "there is no mysql to use it for: give --mysql, or take it out".to_owned(),
            )),
            Some(MysqlTarget { password: Some(_), .. }) => Err(self.invalid(
                setting,
                "the mysql URL has a password already: take one of the two out".to_owned(),
            )),
            Some(_) => {
                match file {
                    None => Ok(text),
                    Some(path) => read_password(&path).map(Some).map_err(|error| {
                        ConfigError::Read { name: MYSQL_PASSWORD_FILE.name, path, error }
                    }),
                }
            }
        }
    }

    /// A file that is not there, or holds no certificate, is told at the start; it is read again at each
    /// connection.
    fn mysql_tls(&self) -> Result<Option<MysqlTls>, ConfigError> {
        let is_required = self.required(&setting::MYSQL_TLS, |text| match text {
            "off" => Ok(false),
            "required" => Ok(true),
            _ => Err(format!("{text:?}: write off or required")),
        })?;
        let ca_file = self.optional(&setting::MYSQL_CA_FILE, |text| Ok(PathBuf::from(text)))?;
        let Some(path) = ca_file.as_ref().filter(|_| is_required) else {
            return match ca_file {
                Some(_) => Err(self.invalid(
                    &setting::MYSQL_CA_FILE,
                    "it is of no use without mysql_tls = \"required\": give --mysql-tls=required too"
                        .to_owned(),
                )),
                None => Ok(is_required.then_some(MysqlTls { ca_file })),
            };
        };
        let text = std::fs::read(path).map_err(|error| ConfigError::Read {
            name: setting::MYSQL_CA_FILE.name,
            path: path.clone(),
            error,
        })?;
        if !text.windows(PEM_CERTIFICATE.len()).any(|part| part == PEM_CERTIFICATE) {
            return Err(self.invalid(
                &setting::MYSQL_CA_FILE,
                format!(
                    "{} holds no certificate: it must be PEM, with -----BEGIN CERTIFICATE-----",
                    path.display()
                ),
            ));
        }
        Ok(Some(MysqlTls { ca_file }))
    }

    fn sequence(&self) -> Result<Option<SequenceIds>, ConfigError> {
        let any = |text: &str| parse::number(text, 1..=u64::MAX);
        let offset = self.optional(&setting::SEQUENCE_OFFSET, any)?;
        let increment = self.optional(&setting::SEQUENCE_INCREMENT, any)?;
        match (offset, increment) {
            (None, None) => Ok(None),
            (Some(offset), Some(increment)) if offset <= increment => {
                Ok(Some(SequenceIds { offset, increment }))
            }
            (Some(offset), Some(increment)) => Err(self.invalid(
                &setting::SEQUENCE_OFFSET,
                format!("{offset} is above the increment: use 1 to {increment}"),
            )),
            (Some(_), None) => Err(self.invalid(
                &setting::SEQUENCE_OFFSET,
                "there is no increment with it: give --sequence-increment too".to_owned(),
            )),
            (None, Some(_)) => Err(self.invalid(
                &setting::SEQUENCE_INCREMENT,
                "there is no offset with it: give --sequence-offset too".to_owned(),
            )),
        }
    }

    fn invalid(&self, setting: &'static Setting, reason: String) -> ConfigError {
        ConfigError::Invalid { name: setting.name, origin: self.layers.source(setting), reason }
    }
}

/// What is wrong with a setting that the file alone has.
fn invalid_in_file(setting: &'static Setting, path: &Path, reason: &str) -> ConfigError {
    let (origin, reason) = (Source::File(path.to_owned()), reason.to_owned());
    ConfigError::Invalid { name: setting.name, origin, reason }
}

fn call_items(text: &str) -> Result<usize, String> {
    parse::number(text, 1..=CALL_ITEMS_MAX_BOUND as u64).map(|n| n as usize)
}

fn log_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{text:?} is not a filter ({error}): write a level, such as info, or targets with one \
             each, such as info,lastword::mirror=debug"
        )),
    }
}

/// The first line of the file.
fn read_password(path: &PathBuf) -> std::io::Result<Secret> {
    let mut text = String::new();
    File::open(path)?.take(PASSWORD_FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok(Secret::new(text.lines().next().unwrap_or_default()))
}

#[cfg(test)]
mod tests;
