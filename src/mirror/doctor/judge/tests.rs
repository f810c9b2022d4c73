//! Every bad fact is found, with its way out; what is as it should be is said to be so.

use super::*;
use crate::{
    mirror::{
        Config, DeclaredColumn, TableSetting,
        doctor::tests::{capturing, plain},
        shape::TableFacts,
    },
    protocol::SequenceIds,
};

fn facts(changed: &[(&str, &str)]) -> Facts {
    let variables = [
        ("auto_increment_increment", "1"),
        ("auto_increment_offset", "1"),
        ("server_id", "1"),
        ("sql_mode", "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION"),
        ("binlog_format", "MIXED"),
        ("log_bin", "OFF"),
        ("log_bin_trust_function_creators", "OFF"),
        ("max_allowed_packet", "16777216"),
        ("wait_timeout", "28800"),
        ("innodb_flush_log_at_trx_commit", "1"),
        ("innodb_lock_wait_timeout", "50"),
        ("default_storage_engine", "InnoDB"),
        ("time_zone", "SYSTEM"),
        ("system_time_zone", "UTC"),
        ("read_only", "OFF"),
    ];
    Facts {
        version: "10.11.19-MariaDB-deb12u1".into(),
        user: "lastword@127.0.0.1".into(),
        database: "shop".into(),
        variables: variables
            .iter()
            .chain(changed)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        grants: vec![
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, TRIGGER ON `shop`.* TO `l`@`%`"
                .into(),
        ],
        ..Facts::default()
    }
}

fn numbered(changed: &[(&str, &str)]) -> Facts {
    Facts { auto_increments: vec![("film".into(), "film_id".into())], ..facts(changed) }
}

/// What is not as it should be.
fn complaints(facts: &Facts, config: &Config) -> Vec<Finding> {
    let findings = judge(facts, Wanted::of(config));
    assert!(findings.is_sorted_by_key(|finding| finding.level));
    for finding in &findings {
        let texts = [&finding.found, &finding.why, &finding.mend.clone().unwrap_or_default()];
        assert!(texts.iter().all(|text| !text.contains('\n')), "{finding:?}");
        assert!(!finding.found.is_empty());
        let is_ok = finding.level == Level::Ok;
        assert_eq!(is_ok, finding.why.is_empty() && finding.mend.is_none(), "{finding:?}");
        assert!(!finding.loses_data || finding.level == Level::Error, "{finding:?}");
    }
    findings.into_iter().filter(|finding| finding.level != Level::Ok).collect()
}

#[track_caller]
fn one(facts: &Facts, config: &Config) -> Finding {
    let mut complaints = complaints(facts, config);
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
    complaints.remove(0)
}

#[test]
fn a_server_that_is_fit_gives_nothing_to_complain_of() {
    assert_eq!(complaints(&facts(&[]), &plain()), []);
    assert_eq!(complaints(&facts(&[]), &capturing()), []);
    let log_bin =
        [("log_bin", "ON"), ("binlog_format", "ROW"), ("log_bin_trust_function_creators", "ON")];
    assert_eq!(complaints(&facts(&log_bin), &capturing()), []);
    let mysql = Facts { version: "8.4.2".into(), ..facts(&[]) };
    assert_eq!(complaints(&mysql, &capturing()), []);
}

#[test]
fn variables_that_harm_are_found_with_the_statement_that_mends_them() {
    use Level::{Error, Warning};
    let plain = plain();
    let packet = ("max_allowed_packet", "1048576");
    let flush = ("innodb_flush_log_at_trx_commit", "2");
    let statement = [("log_bin", "ON"), ("binlog_format", "STATEMENT")];
    let statement_and_trust =
        [statement[0], statement[1], ("log_bin_trust_function_creators", "1")];
    let mixed = [("log_bin", "ON"), ("log_bin_trust_function_creators", "1")];
    let untrusted = [("log_bin", "ON"), ("binlog_format", "ROW")];
    for (changed, wanted, level, subject, mend) in [
        (
            &[packet][..],
            &plain,
            Error,
            "max_allowed_packet",
            "SET GLOBAL max_allowed_packet = 16777216;",
        ),
        (&[flush], &plain, Warning, flush.0, "SET GLOBAL innodb_flush_log_at_trx_commit = 1;"),
        (&[flush], &capturing(), Error, flush.0, "SET GLOBAL innodb_flush_log_at_trx_commit = 1;"),
        (
            &[("sql_mode", "")],
            &capturing(),
            Warning,
            "sql_mode",
            "sql_mode = 'STRICT_TRANS_TABLES';",
        ),
        (
            &[("sql_mode", "NO_ZERO_DATE")],
            &capturing(),
            Warning,
            "sql_mode",
            "SET GLOBAL sql_mode = 'NO_ZERO_DATE,STRICT_TRANS_TABLES';",
        ),
        (&statement, &plain, Warning, "binlog_format", "SET GLOBAL binlog_format = 'ROW';"),
        (&statement_and_trust, &capturing(), Error, "binlog_format", "binlog_format = 'ROW';"),
        (&mixed, &capturing(), Warning, "binlog_format", "SET GLOBAL binlog_format = 'ROW';"),
        (
            &untrusted,
            &capturing(),
            Error,
            "log_bin_trust_function_creators",
            "SET GLOBAL log_bin_trust_function_creators = 1;",
        ),
        (&[("read_only", "ON")], &plain, Error, "read_only", "SET GLOBAL read_only = OFF;"),
        (
            &[("default_storage_engine", "MyISAM")],
            &capturing(),
            Warning,
            "default_storage_engine",
            "SET GLOBAL default_storage_engine = 'InnoDB';",
        ),
        (
            &[("innodb_lock_wait_timeout", "1")],
            &capturing(),
            Warning,
            "timeouts",
            "SET GLOBAL innodb_lock_wait_timeout = 5;",
        ),
        (
            &[("log_bin", "ON"), ("binlog_format", "ROW"), ("server_id", "0")],
            &plain,
            Warning,
            "server_id",
            "SET GLOBAL server_id = 1;",
        ),
    ] {
        let finding = one(&facts(changed), wanted);
        assert_eq!((finding.level, finding.subject), (level, subject), "{finding:?}");
        assert!(finding.mend.as_ref().unwrap().contains(mend), "{finding:?}");
    }
    // What only applications' writes suffer from is none without capture.
    for harmless in [("sql_mode", ""), ("default_storage_engine", "MyISAM")] {
        assert_eq!(complaints(&facts(&[harmless]), &plain), []);
    }
    assert!(one(&facts(&[flush]), &capturing()).loses_data);
    assert!(!one(&facts(&[flush]), &plain).loses_data);
    // The limit is the settings'.
    let large = Config { value_bytes_max: 3 << 20, ..plain.clone() };
    assert_eq!(one(&facts(&[("max_allowed_packet", "3145728")]), &large).level, Error);
}

#[test]
fn a_user_that_may_do_everything_is_not_told_otherwise() {
    let root = vec!["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION".into()];
    let changed = [("log_bin", "ON"), ("binlog_format", "ROW"), ("read_only", "ON")];
    let mut facts = Facts { grants: root, ..facts(&changed) };
    assert_eq!(complaints(&facts, &capturing()), []);
    facts.variables.insert("super_read_only".into(), "ON".into());
    facts.variables.remove("read_only");
    assert_eq!(one(&facts, &capturing()).subject, "read_only");
}

#[test]
fn missing_privileges_are_named_with_the_grant() {
    let grants =
        vec!["GRANT SELECT, INSERT, UPDATE, CREATE, DROP, ALTER ON `shop`.* TO `l`@`%`".into()];
    let facts = Facts { grants, ..facts(&[]) };
    let finding = one(&facts, &capturing());
    assert_eq!((finding.level, finding.subject), (Level::Error, "privileges"));
    assert!(
        finding.found.contains("lacks DELETE (to delete rows), TRIGGER (to capture"),
        "{finding:?}"
    );
    let grant = "GRANT DELETE, TRIGGER ON `shop`.* TO 'lastword'@'127.0.0.1';";
    assert_eq!(finding.mend.unwrap(), grant);
}

#[test]
fn numbers_that_two_sites_would_both_give_are_found() {
    let sequence = |offset, increment| Config {
        sequence: Some(SequenceIds { offset, increment }),
        ..capturing()
    };
    let own = |increment, offset| {
        numbered(&[("auto_increment_increment", increment), ("auto_increment_offset", offset)])
    };
    // Nothing is set up: the same numbers everywhere.
    let finding = one(&own("1", "1"), &capturing());
    assert!(finding.loses_data && finding.found.contains("auto_increment_increment = 1"));
    assert!(finding.mend.unwrap().contains("sequence.offset"));
    // MySQL ignores an offset above the increment.
    assert!(one(&own("2", "3"), &capturing()).loses_data);
    // It may be right; nobody knows.
    let finding = one(&own("2", "2"), &capturing());
    assert_eq!((finding.level, finding.loses_data), (Level::Warning, false));
    assert!(finding.mend.unwrap().contains("sequence.increment = 2, sequence.offset = 2"));
    // The settings say what is right.
    assert_eq!(complaints(&own("10", "3"), &sequence(3, 10)), []);
    for (increment, offset) in [("1", "1"), ("10", "2"), ("2", "3")] {
        let finding = one(&own(increment, offset), &sequence(3, 10));
        assert!(finding.loses_data, "{finding:?}");
        let mend = finding.mend.unwrap();
        assert!(
            mend.starts_with(
                "SET GLOBAL auto_increment_increment = 10, GLOBAL auto_increment_offset = 3;"
            ),
            "{mend}"
        );
    }
    // Where nobody but lastword writes, it is no more than odd; where there are none, nothing.
    let mut mirrored = sequence(3, 10);
    mirrored.tables[0].capture = false;
    let finding = one(&own("1", "1"), &mirrored);
    assert_eq!((finding.level, finding.loses_data), (Level::Warning, false));
    assert_eq!(complaints(&facts(&[]), &sequence(3, 10)), []);
}

#[test]
fn a_star_stands_for_every_table() {
    let mut all = capturing();
    all.tables[0].name = "*".into();
    assert!(one(&numbered(&[]), &all).loses_data);
    let mut but_one = all.clone();
    but_one.tables.push(TableSetting {
        name: "film".into(),
        capture: false,
        ..all.tables[0].clone()
    });
    assert!(!one(&numbered(&[]), &but_one).loses_data);
}

#[test]
fn keys_that_fold_are_found() {
    let key = |table: &str, column: &str, collation: &str| Facts {
        text_keys: vec![(table.into(), column.into(), collation.into())],
        ..facts(&[])
    };
    // 'a' and 'a ' are one under it.
    assert_eq!(one(&key("sessions", "k", "utf8mb4_bin"), &plain()).level, Level::Warning);
    assert_eq!(complaints(&key("sessions", "k", "utf8mb4_nopad_bin"), &plain()), []);
    // Column tables are judged as a whole; other tables are nobody's business.
    assert_eq!(complaints(&key("film", "k", "utf8mb4_general_ci"), &capturing()), []);
    let finding = one(&key("sessions", "k", "utf8mb4_general_ci"), &capturing());
    assert_eq!(finding.level, Level::Warning);
    assert_eq!(finding.mend.unwrap(), "ALTER TABLE `sessions` MODIFY k VARBINARY(512) NOT NULL;");
    assert_eq!(complaints(&key("theirs", "name", "utf8mb4_general_ci"), &capturing()), []);
}

#[test]
fn column_tables_that_will_not_do_are_named_each() {
    let facts = |tables: &[(&str, Option<&TableFacts>)]| Facts {
        column_tables: tables
            .iter()
            .map(|(name, facts)| ((*name).to_owned(), facts.cloned()))
            .collect(),
        ..facts(&[])
    };
    let view = TableFacts::default();
    let keyless = TableFacts { engine: Some("InnoDB".into()), ..TableFacts::default() };
    let mut all = capturing();
    all.tables[0].name = "*".into();
    let found = complaints(
        &facts(&[("film", Some(&view)), ("actor", Some(&keyless)), ("Ünique", None)]),
        &all,
    );
    let reasons: Vec<_> = found.iter().map(|finding| finding.found.as_str()).collect();
    assert!(reasons[0].starts_with("table actor: it has no primary key"), "{reasons:?}");
    assert!(reasons[1].starts_with("table film: it is a view"), "{reasons:?}");
    assert!(reasons[2].contains("Ünique") && reasons.len() == 3, "{reasons:?}");
    assert!(found.iter().all(|finding| finding.level == Level::Error && !finding.loses_data));
    // One that is missing is made where its columns are declared.
    let missing = facts(&[("film", None)]);
    assert!(one(&missing, &capturing()).found.contains("run the CREATE TABLE"));
    let mut declared = capturing();
    let column = DeclaredColumn { name: "id".into(), definition: "INT NOT NULL".into() };
    declared.tables[0].columns = vec![column];
    assert_eq!(complaints(&missing, &declared), []);
    // What has no [[table]] is nobody's business.
    assert_eq!(complaints(&facts(&[("film", Some(&view))]), &plain()), []);
}

#[test]
fn the_line_the_clock_and_the_version_are_looked_at() {
    let remote = Facts { is_remote: true, ..facts(&[]) };
    let finding = one(&remote, &plain());
    assert_eq!((finding.level, finding.subject), (Level::Warning, "tls"));
    assert_eq!(complaints(&Facts { is_encrypted: true, ..remote }, &plain()), []);
    for ahead_ms in [-1_500, 90_000] {
        let finding = one(&Facts { clock_ahead_ms: ahead_ms, ..facts(&[]) }, &plain());
        assert_eq!((finding.level, finding.subject), (Level::Warning, "clock"));
        assert!(finding.found.contains(&ahead_ms.to_string()));
    }
    for (version, is_fit) in [
        ("10.2.44-MariaDB", false),
        ("10.3.1-MariaDB", true),
        ("11.4.2-MariaDB-ubu2404", true),
        ("5.7.44-log", false),
        ("8.0.36", true),
    ] {
        let facts = Facts { version: version.into(), ..facts(&[]) };
        assert_eq!(complaints(&facts, &plain()).is_empty(), is_fit, "{version}");
    }
}
