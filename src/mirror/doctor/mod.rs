//! The doctor: is this MySQL fit for what is asked of it, and if not, what mends it?
//!
//! ```text
//! MySQL --> facts.rs: what it says of itself --> judge.rs: findings --> lastword doctor, the session
//!                                                  `-- grants.rs: what the user may, and must be able to
//! ```
//!
//! Facts are read, and judged apart from that: the judgement is pure, so that every bad fact can be shown
//! to be found. A session asks the same judge at each connection. It pauses where going on would lose what
//! somebody wrote ([`Finding::loses_data`]), and logs the rest once.

mod facts;
mod grants;
mod judge;

use super::{Config, Form, TableSetting, Target, Triggers, error::MirrorError, mysql::Connection};
use crate::protocol::SequenceIds;

pub use grants::{GrantError, statements as grant_statements};

use facts::Facts;
use judge::judge;

/// What MySQL must be fit for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'c> {
    /// The largest value that a client may write, in bytes.
    value_bytes_max: usize,
    /// The site's numbers, where it has some.
    sequence: Option<SequenceIds>,
    /// How single tables stand there.
    tables: &'c [TableSetting],
}

impl<'c> Wanted<'c> {
    /// What these settings want.
    pub(super) fn of(config: &'c Config) -> Wanted<'c> {
        let Config { value_bytes_max, sequence, tables, .. } = config;
        Wanted { value_bytes_max: *value_bytes_max, sequence: *sequence, tables }
    }

    /// The setting of a table with columns of its own.
    fn table(&self, name: &str) -> Option<&'c TableSetting> {
        TableSetting::of_columns(self.tables, name)
    }

    fn has_column_tables(&self) -> bool {
        self.tables.iter().any(|table| table.form == Form::Columns)
    }

    /// Whether what applications write becomes this site's writes somewhere.
    pub(super) fn captures(&self) -> bool {
        self.tables.iter().any(|table| table.capture)
    }

    fn guards_triggers(&self) -> bool {
        self.tables.iter().any(|table| table.triggers == Triggers::Guard)
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It does not work so, or does harm.
    Error,
    /// It works, and may surprise.
    Warning,
    /// As it should be.
    Ok,
}

/// What was found in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: a variable of MySQL, or what else was looked at.
    pub subject: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found, in one line.
    pub found: String,
    /// Why it matters; empty where it is as it should be.
    pub why: String,
    /// The statement that mends it, or what else does.
    pub mend: Option<String>,
    /// To go on would lose what somebody wrote.
    pub loses_data: bool,
}

/// What the doctor says.
#[derive(Clone, Debug)]
pub struct Examination {
    /// Version of the server; empty where it was not reached.
    pub version: String,
    /// Whom the server takes lastword for.
    pub user: String,
    /// The worst first.
    pub findings: Vec<Finding>,
}

/// Connects, looks, and judges. A MySQL that cannot be reached is a finding, too. `now_ms`: wall time, in
/// milliseconds since the Unix epoch, UTC.
pub async fn examine(config: &Config, now_ms: impl Fn() -> u64) -> Examination {
    let wanted = Wanted::of(config);
    let facts = match Connection::open(config).await {
        Ok(mut mysql) => facts(&mut mysql, wanted, &config.target, now_ms).await,
        Err(error) => Err(error),
    };
    match facts {
        Ok(facts) => Examination {
            findings: judge(&facts, wanted),
            version: facts.version,
            user: facts.user,
        },
        Err(error) => Examination {
            version: String::new(),
            user: String::new(),
            findings: vec![Finding {
                subject: "connection",
                level: Level::Error,
                found: error.to_string(),
                why: "nothing else can be looked at; the node serves without its mirror".to_owned(),
                mend: None,
                loses_data: false,
            }],
        },
    }
}

/// What a session asks: is this MySQL fit to go on with?
///
/// # Errors
///
/// MySQL cannot be asked.
pub(super) async fn findings(
    mysql: &mut Connection,
    config: &Config,
    now_ms: impl Fn() -> u64,
) -> Result<Vec<Finding>, MirrorError> {
    let wanted = Wanted::of(config);
    match Facts::read(mysql, wanted, &config.target, now_ms).await {
        Ok(facts) => Ok(judge(&facts, wanted)),
        // Whatever it does not say of itself is found out by using it.
        Err(MirrorError::Server(error)) => {
            tracing::debug!(%error, "MySQL does not say all of itself");
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// Nothing may be written while something found here would lose what somebody wrote.
///
/// # Errors
///
/// [`MirrorError::Unfit`].
pub(super) fn refuse(findings: Vec<Finding>) -> Result<(), MirrorError> {
    match findings.into_iter().find(|finding| finding.loses_data) {
        Some(Finding { found, why, mend, .. }) => {
            Err(MirrorError::Unfit { found, why, mend: mend.unwrap_or_default() })
        }
        None => Ok(()),
    }
}

/// All that can be known. A session judges its tables itself.
async fn facts(
    mysql: &mut Connection,
    wanted: Wanted<'_>,
    target: &Target,
    now_ms: impl Fn() -> u64,
) -> Result<Facts, MirrorError> {
    let mut facts = Facts::read(mysql, wanted, target, now_ms).await?;
    facts.read_tables(mysql, wanted).await?;
    Ok(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every table of keys and values.
    pub(super) fn plain() -> Config {
        Config::new(Target {
            host: "127.0.0.1".into(),
            port: 3306,
            user: "lastword".into(),
            password: None,
            database: "shop".into(),
        })
    }

    /// The table `film` is captured.
    pub(super) fn capturing() -> Config {
        let film = TableSetting {
            name: "film".into(),
            form: Form::Columns,
            capture: true,
            ..TableSetting::default()
        };
        Config { tables: vec![film], ..plain() }
    }
}
