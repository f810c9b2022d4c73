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

use super::{Config, mysql::Connection};
use crate::protocol::SequenceIds;

pub use grants::{GrantError, statements as grant_statements};

pub(super) use facts::Facts;
pub(super) use judge::judge;

/// What MySQL must be fit for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The largest value that a client may write, in bytes.
    pub value_bytes_max: usize,
    /// The site's numbers, where it has some.
    pub sequence: Option<SequenceIds>,
    /// The tables with columns of their own.
    pub tables: Vec<WantedTable>,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted { value_bytes_max: 1 << 20, sequence: None, tables: Vec::new() }
    }
}

/// A table with columns of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedTable {
    /// Its name; `*`: every table of the database.
    pub name: String,
    /// What applications write is captured.
    pub is_captured: bool,
    /// A key whose collation takes different keys for one is accepted.
    pub folding_keys_accepted: bool,
    /// Its own triggers are made silent for lastword's writes.
    pub triggers_guarded: bool,
}

impl Wanted {
    fn table(&self, name: &str) -> Option<&WantedTable> {
        let by_name = self.tables.iter().find(|table| table.name == name);
        by_name.or_else(|| self.tables.iter().find(|table| table.name == "*"))
    }

    fn captures(&self) -> bool {
        self.tables.iter().any(|table| table.is_captured)
    }

    fn guards_triggers(&self) -> bool {
        self.tables.iter().any(|table| table.triggers_guarded)
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
    let facts = match Connection::open(config).await {
        Ok(mut mysql) => Facts::read(&mut mysql, &config.wanted, &config.target, now_ms).await,
        Err(error) => Err(error),
    };
    match facts {
        Ok(facts) => Examination {
            findings: judge(&facts, &config.wanted),
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
