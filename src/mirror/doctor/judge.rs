//! Facts in, findings out. Pure: no fact is so rare that a test cannot show that it is found.
//!
//! Each function looks at one thing and says one thing of it, be it that all is well: whoever reads the
//! list sees what was looked at.

use super::{
    Finding, Level, Wanted,
    facts::Facts,
    grants::{self, holds_globally},
};
use crate::{
    mirror::columns::{self, Columns},
    model::TableName,
};

/// The oldest releases whose statements and types are those that are used here.
const MARIADB_MIN: (u32, u32) = (10, 3);
const MYSQL_MIN: (u32, u32) = (8, 0);
/// What a statement needs beside the value: key, versions, and the protocol's own, in bytes.
const PACKET_MARGIN_BYTES: u64 = 128 << 10;
/// What a server is told to take where it takes too little, at least, in bytes.
const PACKET_BYTES_ADVISED: u64 = 16 << 20;
/// Two clocks of one site that differ by more are not looked after, in milliseconds.
const CLOCK_AHEAD_MS_MAX: u64 = 1_000;
/// Applications that wait less for a lock would meet those of a large transaction of the mirror.
const LOCK_WAIT_SECONDS_MIN: u64 = 5;

/// All findings, the worst first.
pub(in crate::mirror) fn judge(facts: &Facts, wanted: Wanted<'_>) -> Vec<Finding> {
    let look = Look { facts, wanted };
    let mut findings = vec![
        look.version(),
        look.privileges(),
        look.read_only(),
        look.encryption(),
        look.packet(),
        look.sql_mode(),
        look.durability(),
        look.binlog(),
        look.trigger_creators(),
        look.server_id(),
        look.numbers(),
        look.engine(),
        look.clock(),
        look.time_zone(),
        look.waits(),
    ];
    findings.extend(look.key_collations());
    findings.extend(look.column_tables());
    findings.sort_by_key(|finding| finding.level);
    findings
}

struct Look<'a> {
    facts: &'a Facts,
    wanted: Wanted<'a>,
}

fn ok(subject: &'static str, found: impl Into<String>) -> Finding {
    Finding {
        subject,
        level: Level::Ok,
        found: found.into(),
        why: String::new(),
        mend: None,
        loses_data: false,
    }
}

fn bad(level: Level, subject: &'static str, found: impl Into<String>, why: &str) -> Finding {
    Finding { level, why: why.to_owned(), ..ok(subject, found) }
}

impl Finding {
    fn mended_by(self, statement: impl Into<String>) -> Finding {
        Finding { mend: Some(statement.into()), ..self }
    }

    fn losing_data(self) -> Finding {
        Finding { loses_data: true, ..self }
    }
}

/// For new sessions at once; in the server's settings too, to outlive its restart.
fn set(name: &str, value: &str) -> String {
    let plain = value.trim_matches('\'');
    format!(
        "SET GLOBAL {name} = {value}; -- and {name} = {plain} below [mysqld], to outlive a restart"
    )
}

impl Look<'_> {
    /// `name = value`.
    fn shown(&self, name: &str) -> String {
        format!("{name} = {}", self.facts.variable(name))
    }

    fn version(&self) -> Finding {
        let subject = "version";
        let version = &self.facts.version;
        let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
        let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
        let (name, least) = match self.facts.is_mariadb() {
            true => ("MariaDB", MARIADB_MIN),
            false => ("MySQL", MYSQL_MIN),
        };
        match (major, minor) {
            (Some(major), Some(minor)) if (major, minor) < least => bad(
                Level::Error,
                subject,
                format!("{name} {version}"),
                "statements and types that the mirror uses came later",
            )
            .mended_by(format!("upgrade to {name} {}.{} or later", least.0, least.1)),
            _ => ok(subject, format!("{name} {version}")),
        }
    }

    fn privileges(&self) -> Finding {
        let subject = "privileges";
        let missing = grants::missing(self.facts, self.wanted);
        if missing.is_empty() {
            let needed = grants::needed(self.wanted);
            let names: Vec<_> = needed.iter().map(|needed| needed.privilege).collect();
            return ok(subject, format!("{} has {}", self.facts.user, names.join(", ")));
        }
        let names: Vec<_> = missing
            .iter()
            .map(|needed| format!("{} ({})", needed.privilege, needed.what_for))
            .collect();
        let found = format!("{} lacks {}", self.facts.user, names.join(", "));
        bad(Level::Error, subject, found, "the mirror stops where it comes to need it")
            .mended_by(grants::mending(self.facts, &missing))
    }

    fn read_only(&self) -> Finding {
        let names = ["read_only", "super_read_only", "innodb_read_only"];
        let on = names.into_iter().find(|name| self.facts.is_on(name) == Some(true));
        let may = ["SUPER", "READ_ONLY ADMIN", "READ ONLY ADMIN"];
        match on {
            Some("read_only") if may.iter().any(|p| holds_globally(self.facts, p)) => {
                ok("read_only", "read_only = ON, which does not bind this user")
            }
            Some(name) => bad(
                Level::Error,
                "read_only",
                format!("{name} = ON"),
                "nothing can be written; it may be a replica of another server, which lastword must \
                 then write to in its place",
            )
            .mended_by(set(name, "OFF")),
            None => ok("read_only", "read_only = OFF"),
        }
    }

    fn encryption(&self) -> Finding {
        let subject = "tls";
        match (self.facts.is_encrypted, self.facts.is_remote) {
            (true, _) => ok(subject, "the connection is encrypted, and MySQL proved who it is"),
            (false, false) => ok(subject, "not encrypted: it does not leave this machine"),
            (false, true) => bad(
                Level::Warning,
                subject,
                "the connection goes to another machine and is not encrypted",
                "whoever is on the way reads the rows, and may pretend to be MySQL",
            )
            .mended_by(
                "in lastword's settings: mysql_tls = \"required\", and mysql_ca_file = the authority \
                 that signed MySQL's certificate",
            ),
        }
    }

    fn packet(&self) -> Finding {
        let name = "max_allowed_packet";
        let needed = self.wanted.value_bytes_max as u64 + PACKET_MARGIN_BYTES;
        match self.facts.number(name) {
            Some(bytes) if bytes < needed => bad(
                Level::Error,
                name,
                self.shown(name),
                &format!(
                    "values may have {} bytes (limits.value_bytes_max): the largest do not fit into \
                     a statement, and are set aside in _lastword_rejected",
                    self.wanted.value_bytes_max
                ),
            )
            .mended_by(set(name, &needed.max(PACKET_BYTES_ADVISED).to_string())),
            _ => ok(name, self.shown(name)),
        }
    }

    fn sql_mode(&self) -> Finding {
        let name = "sql_mode";
        let mode = self.facts.variable(name);
        let is_strict = mode.split(',').any(|one| one.starts_with("STRICT_"));
        if is_strict || !self.wanted.captures() {
            return ok(name, format!("{}; lastword's own sessions are strict", self.shown(name)));
        }
        let strict = match mode {
            "" => "'STRICT_TRANS_TABLES'".to_owned(),
            mode => format!("'{mode},STRICT_TRANS_TABLES'"),
        };
        bad(
            Level::Warning,
            name,
            self.shown(name),
            "what applications write that does not fit is cut without a word, and captured so, for \
             all sites",
        )
        .mended_by(set(name, &strict))
    }

    fn durability(&self) -> Finding {
        let name = "innodb_flush_log_at_trx_commit";
        match (self.facts.variable(name), self.wanted.captures()) {
            ("1" | "", _) => ok(name, self.shown(name)),
            (_, false) => bad(
                Level::Warning,
                name,
                self.shown(name),
                "a power cut takes the newest second out of MySQL; the mirror notices, and writes it \
                 again",
            )
            .mended_by(set(name, "1")),
            (_, true) => bad(
                Level::Error,
                name,
                self.shown(name),
                "a power cut takes transactions back that were captured, and may give their numbers in \
                 the outbox to later ones, which are then taken for captured",
            )
            .mended_by(set(name, "1"))
            .losing_data(),
        }
    }

    fn binlog(&self) -> Finding {
        let subject = "binlog_format";
        if self.facts.is_on("log_bin") != Some(true) {
            return ok(subject, "log_bin = OFF: lastword needs no binary log");
        }
        let format = self.facts.variable(subject).to_ascii_uppercase();
        match (format.as_str(), !self.wanted.has_column_tables()) {
            ("STATEMENT", false) => bad(
                Level::Error,
                subject,
                self.shown(subject),
                "lastword writes tables with columns of their own at READ COMMITTED, which MySQL \
                 refuses with this format (error 1665)",
            )
            .mended_by(set(subject, "'ROW'")),
            ("STATEMENT", true) => bad(
                Level::Warning,
                subject,
                self.shown(subject),
                "a replica of this server repeats statements rather than rows, and may come to differ",
            )
            .mended_by(set(subject, "'ROW'")),
            ("MIXED", _) if self.wanted.captures() => bad(
                Level::Warning,
                subject,
                self.shown(subject),
                "a replica of this server repeats statements, and with them the triggers that capture",
            )
            .mended_by(set(subject, "'ROW'")),
            _ => ok(subject, self.shown(subject)),
        }
    }

    fn trigger_creators(&self) -> Finding {
        let name = "log_bin_trust_function_creators";
        let needs_it = self.wanted.captures() || self.wanted.guards_triggers();
        let log_bin = self.facts.is_on("log_bin") == Some(true);
        let trusts = self.facts.is_on(name) != Some(false);
        if needs_it && log_bin && !trusts && !holds_globally(self.facts, "SUPER") {
            return bad(
                Level::Error,
                name,
                self.shown(name),
                "with a binary log only SUPER may make triggers (error 1419), and capture needs them",
            )
            .mended_by(set(name, "1"));
        }
        ok(name, if log_bin { self.shown(name) } else { "log_bin = OFF: not needed".to_owned() })
    }

    fn server_id(&self) -> Finding {
        let name = "server_id";
        if self.facts.is_on("log_bin") == Some(true) && self.facts.number(name) == Some(0) {
            return bad(
                Level::Warning,
                name,
                self.shown(name),
                "MySQL lets no replica connect to a server without a number",
            )
            .mended_by(set(name, "1"));
        }
        ok(name, format!("{}; lastword does not use it", self.shown(name)))
    }

    fn numbers(&self) -> Finding {
        let subject = "auto_increment";
        let (step, start) = ("auto_increment_increment", "auto_increment_offset");
        let (increment, offset) =
            (self.facts.number(step).unwrap_or(1), self.facts.number(start).unwrap_or(1));
        let found = format!("{step} = {increment}, {start} = {offset}");
        let tables: Vec<_> = self.facts.auto_increments.iter().map(|(table, _)| table).collect();
        let Some(table) = tables.first() else {
            return ok(subject, format!("{found}; no mirrored table is numbered by MySQL"));
        };
        let is_captured = tables
            .iter()
            .any(|table| self.wanted.table(table).is_some_and(|wanted| wanted.capture));
        let collide = format!(
            "rows inserted at two sites into {table} would get the same number, and one would \
             overwrite the other; sessions that are open keep their old step until they reconnect"
        );
        let finding = match self.wanted.sequence {
            Some(sequence) if (sequence.increment, sequence.offset) != (increment, offset) => bad(
                Level::Error,
                subject,
                format!(
                    "{found}, but the site's sequence has increment {} and offset {}",
                    sequence.increment, sequence.offset
                ),
                &collide,
            )
            .mended_by(format!(
                "SET GLOBAL {step} = {}, GLOBAL {start} = {}; -- and both below [mysqld], to outlive \
                 a restart",
                sequence.increment, sequence.offset
            )),
            Some(_) => return ok(subject, format!("{found}, as the site's sequence")),
            None if increment < 2 || offset > increment => {
                bad(Level::Error, subject, found, &collide).mended_by(
                    "in lastword's settings: sequence.increment = the number of sites or more, the \
                     same at all, and sequence.offset = 1, 2, ..., each site its own; then run doctor \
                     again",
                )
            }
            None => {
                return bad(
                    Level::Warning,
                    subject,
                    found,
                    "the settings do not say which numbers are this site's, so it is not known whether \
                     another site has the same",
                )
                .mended_by(format!(
                    "in lastword's settings: sequence.increment = {increment}, sequence.offset = \
                     {offset}"
                ));
            }
        };
        match is_captured {
            true => finding.losing_data(),
            // Applications here only read it.
            false => Finding { level: Level::Warning, ..finding },
        }
    }

    fn engine(&self) -> Finding {
        let name = "default_storage_engine";
        match self.facts.variable(name) {
            engine if engine.eq_ignore_ascii_case("innodb") || !self.wanted.has_column_tables() => {
                ok(name, format!("{}; lastword's own tables are InnoDB's", self.shown(name)))
            }
            _ => bad(
                Level::Warning,
                name,
                self.shown(name),
                "tables that applications make are of an engine without transactions, which is refused",
            )
            .mended_by(set(name, "'InnoDB'")),
        }
    }

    fn clock(&self) -> Finding {
        let ahead_ms = self.facts.clock_ahead_ms;
        if ahead_ms.unsigned_abs() <= CLOCK_AHEAD_MS_MAX {
            return ok("clock", format!("MySQL's is {ahead_ms} ms ahead"));
        }
        bad(
            Level::Warning,
            "clock",
            format!("MySQL's is {ahead_ms} ms ahead of this machine's"),
            "queries that compare expires_at with UTC_TIMESTAMP(6) show expired rows, or hide live ones",
        )
        .mended_by("set both clocks by NTP (chrony, systemd-timesyncd)")
    }

    fn time_zone(&self) -> Finding {
        let zone = match self.facts.variable("time_zone") {
            "SYSTEM" => format!("SYSTEM, {}", self.facts.variable("system_time_zone")),
            zone => zone.to_owned(),
        };
        ok("time_zone", format!("{zone}; lastword's own sessions, and its columns, are UTC"))
    }

    fn waits(&self) -> Finding {
        let subject = "timeouts";
        let (idle, lock) = ("wait_timeout", "innodb_lock_wait_timeout");
        let found = format!("{}, {}", self.shown(idle), self.shown(lock));
        let waits = self.facts.number(lock).unwrap_or(u64::MAX);
        if self.wanted.captures() && waits < LOCK_WAIT_SECONDS_MIN {
            let why =
                "applications that write a row which the mirror is writing may get error 1205";
            let seconds = LOCK_WAIT_SECONDS_MIN.to_string();
            return bad(Level::Warning, subject, found, why).mended_by(set(lock, &seconds));
        }
        ok(subject, format!("{found}; lastword's own sessions set theirs"))
    }

    /// One for each column table that will not do; one that all is well otherwise.
    fn column_tables(&self) -> Vec<Finding> {
        let subject = "column_tables";
        if !self.wanted.has_column_tables() {
            return Vec::new();
        }
        let refusals = self.facts.column_tables.iter().filter_map(|(name, facts)| {
            let setting = self.wanted.table(name)?;
            if let Err(error) = TableName::of_client(name) {
                return Some(error.to_string());
            }
            match facts {
                Some(facts) => Columns::of(name, facts, setting).err(),
                None if setting.columns.is_empty() => Some(columns::is_missing(name)),
                None => None,
            }
        });
        let why = "the table waits alone until it will do, and is filled then; the others go on";
        let findings: Vec<_> =
            refusals.map(|refusal| bad(Level::Error, subject, refusal, why)).collect();
        match findings.is_empty() {
            true => {
                let found = format!("{} looked at, all will do", self.facts.column_tables.len());
                vec![ok(subject, found)]
            }
            false => findings,
        }
    }

    /// One for each table of keys and values that takes different keys for one; one that all is well
    /// otherwise.
    fn key_collations(&self) -> Vec<Finding> {
        let subject = "key_collation";
        let mut findings = Vec::new();
        for (table, column, collation) in &self.facts.text_keys {
            if is_exact(collation) || column != "k" || self.wanted.table(table).is_some() {
                continue;
            }
            let why = "of keys that are one to MySQL ('a', 'A', 'a ') one row can stand; the others are \
                       set aside in _lastword_rejected";
            let finding =
                bad(Level::Warning, subject, format!("{table}.{column} is {collation}"), why);
            findings.push(
                finding
                    .mended_by(format!("ALTER TABLE `{table}` MODIFY k VARBINARY(512) NOT NULL;")),
            );
        }
        if findings.is_empty() {
            findings.push(ok(subject, "no key of keys and values is folded"));
        }
        findings
    }
}

/// Whether a collation takes two texts for equal only where they are the same bytes.
fn is_exact(collation: &str) -> bool {
    collation.ends_with("_nopad_bin") || collation.ends_with("_0900_bin")
}

#[cfg(test)]
mod tests;
