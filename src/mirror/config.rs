//! How the mirror is set up.

use std::{fmt, path::PathBuf, time::Duration};

use super::{Form, TableSetting};
use crate::{model::TableName, protocol::SequenceIds};

/// The MySQL database to mirror into, and how.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it is.
    pub target: Target,
    /// How it proves who it is; `None`: it need not, and nothing is encrypted.
    pub tls: Option<Tls>,
    /// How single tables stand there; the others are [keys and values](super::Form::KeyValue).
    pub tables: Vec<TableSetting>,
    /// The largest value that a client may write, in bytes.
    pub value_bytes_max: usize,
    /// The site's numbers, where it has some.
    pub sequence: Option<SequenceIds>,
    /// A row that applications wrote may be so large, as JSON, in bytes; a larger one holds its table up.
    pub captured_value_bytes_max: usize,
    /// How many rows one transaction takes at most.
    pub batch_rows_max: usize,
    /// How many bytes of rows one transaction takes, roughly; a single row may be larger.
    pub batch_bytes_max: usize,
    /// How many rows a rescan reads from MySQL at a time.
    pub rescan_rows_max: usize,
    /// How long connecting may take.
    pub connect_max: Duration,
    /// How long a statement may take; then the connection counts as lost.
    pub statement_max: Duration,
    /// The first wait before MySQL is tried again; it doubles each time, with jitter.
    pub retry_min: Duration,
    /// The longest such wait, jitter aside.
    pub retry_max: Duration,
    /// The first wait before rows set aside are tried again; it doubles while none is taken.
    pub rejected_retry_min: Duration,
    /// The longest such wait.
    pub rejected_retry_max: Duration,
    /// A scan of the store holds its old pages: after so long it is left off, and a new one goes
    /// on from there.
    pub scan_max: Duration,
    /// Column tables are looked at once in this time: they may have been altered, or mended.
    pub columns_check: Duration,
    /// An idle connection is tried, and idle heads are written down, once in this time.
    pub heartbeat: Duration,
}

/// Where a MySQL database is. Shown without the user and the password: `host:port/database`.
#[derive(Clone)]
pub struct Target {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// MySQL's own is 3306.
    pub port: u16,
    /// Whom to connect as.
    pub user: String,
    /// Where one is needed. Shown nowhere.
    pub password: Option<String>,
    /// The database whose tables mirror the store's.
    pub database: String,
}

/// How MySQL proves who it is: its certificate must name the target's host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The authorities, PEM, of which one must have signed it; read at each connection. `None`: those
    /// that browsers trust.
    pub ca_file: Option<PathBuf>,
}

impl Config {
    /// With the defaults.
    #[must_use]
    pub fn new(target: Target) -> Config {
        Config {
            target,
            tls: None,
            tables: Vec::new(),
            value_bytes_max: 1 << 20,
            sequence: None,
            captured_value_bytes_max: 3 << 20,
            batch_rows_max: 4_000,
            batch_bytes_max: 4 << 20,
            rescan_rows_max: 10_000,
            connect_max: Duration::from_secs(10),
            statement_max: Duration::from_secs(30),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
            rejected_retry_min: Duration::from_secs(10),
            rejected_retry_max: Duration::from_secs(300),
            scan_max: Duration::from_secs(60),
            columns_check: Duration::from_secs(5),
            heartbeat: Duration::from_secs(5),
        }
    }

    /// The setting of a table that stands in columns; `None`: it is keys and values.
    #[must_use]
    pub fn columns_of(&self, table: &TableName) -> Option<&TableSetting> {
        TableSetting::of_columns(&self.tables, table.as_str())
    }

    /// Whether some tables stand in columns.
    #[must_use]
    pub fn has_column_tables(&self) -> bool {
        self.tables.iter().any(|setting| setting.form == Form::Columns)
    }
}

impl Target {
    /// Whether what goes there stays on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { host, port, database, .. } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}/{database}")
        } else {
            write!(f, "{host}:{port}/{database}")
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_user_nor_password_is_shown() {
        let target = Target {
            host: "::1".into(),
            port: 3306,
            user: "shopkeeper".into(),
            password: Some("hunter2".into()),
            database: "shop".into(),
        };
        assert_eq!(target.to_string(), "[::1]:3306/shop");
        let shown = format!("{:?}", Config::new(target));
        assert!(!shown.contains("hunter2") && !shown.contains("shopkeeper"), "{shown}");
    }
}
