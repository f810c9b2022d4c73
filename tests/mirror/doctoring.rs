//! `lastword doctor` looks at a real MariaDB: what it names is wrong, and what it says mends it.

use std::{process::Command, time::Duration};

use lastword::{
    mirror::{Config, Triggers, grant_statements},
    protocol::SequenceIds,
};
use serde_json::Value;

use crate::{
    common::{
        mariadb::MariaDb,
        program::{complaint, done, json, program},
        wait::until,
    },
    films,
    world::{LIMIT, Running, World, config},
};

const PASSWORD: &str = "n0t shown";

/// What the doctor says, and whether the exit code agrees.
fn doctor(url: &str, more: &[&str]) -> Value {
    let output = program(&[&["doctor", "--json", "--mysql", url], more].concat());
    let report = json(&String::from_utf8(output.stdout).unwrap());
    let errors = report["errors"].as_u64().unwrap();
    assert_eq!(output.status.code(), Some(i32::from(errors > 0)), "{report}");
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(!report.to_string().contains(PASSWORD) && !complaints.contains(PASSWORD));
    assert_eq!(complaints.lines().count(), usize::from(errors > 0), "{complaints}");
    report
}

/// What it says of one thing.
fn of<'r>(report: &'r Value, subject: &str) -> &'r Value {
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["subject"] == subject);
    found.unwrap_or_else(|| panic!("{subject} in {report}"))
}

#[test]
fn what_harms_is_named_and_what_it_says_mends_it() {
    let mariadb = MariaDb::start_with(&["--log-bin=log", "--binlog-format=ROW", "--server-id=3"]);
    let url = mariadb.url("shop");
    let report = doctor(&url, &[]);
    assert_eq!((&report["errors"], &report["warnings"]), (&0.into(), &0.into()), "{report}");
    assert!(report["version"].as_str().unwrap().contains("MariaDB"), "{report}");
    assert_eq!(of(&report, "server_id")["found"], "server_id = 3; lastword does not use it");

    for (harm, subject, level) in [
        ("SET GLOBAL max_allowed_packet = 1048576", "max_allowed_packet", "error"),
        ("SET GLOBAL read_only = ON", "read_only", "ok"),
        (
            "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
            "innodb_flush_log_at_trx_commit",
            "warning",
        ),
        ("SET GLOBAL binlog_format = 'STATEMENT'", "binlog_format", "warning"),
    ] {
        mariadb.sql("", harm);
        let report = doctor(&url, &[]);
        let found = of(&report, subject);
        assert_eq!(found["level"], level, "{harm}: {found}");
        match found["mend"].as_str() {
            Some(mend) => drop(mariadb.sql("", mend)),
            None => drop(mariadb.sql("", "SET GLOBAL read_only = OFF")),
        }
        assert_eq!(of(&doctor(&url, &[]), subject)["level"], "ok", "{harm}");
    }
    // Who is not root is bound by it.
    mariadb.sql(
        "",
        "CREATE USER plain@'127.0.0.1'; GRANT ALL ON shop.* TO plain@'127.0.0.1'; \
         SET GLOBAL read_only = ON",
    );
    let plain = format!("mysql://plain@127.0.0.1:{}/shop", mariadb.port());
    assert_eq!(of(&doctor(&plain, &[]), "read_only")["level"], "error");
    mariadb.sql("", of(&doctor(&plain, &[]), "read_only")["mend"].as_str().unwrap());

    mariadb.sql("shop", "CREATE TABLE names (k VARCHAR(20) PRIMARY KEY, v TEXT)");
    let report = doctor(&url, &[]);
    let found = of(&report, "key_collation");
    assert_eq!(found["level"], "warning", "{found}");
    mariadb.sql("shop", found["mend"].as_str().unwrap());
    assert_eq!(of(&doctor(&url, &[]), "key_collation")["level"], "ok");
    // For people.
    let text = done(&["doctor", "--mysql", &url]);
    assert!(text.starts_with("MySQL 127.0.0.1:") && text.contains("\nok       version "), "{text}");
}

/// Runs statements as somebody else than root; whether that user may.
fn may(mariadb: &MariaDb, user: &str, database: &str, statements: &str) -> bool {
    let output = Command::new("mariadb")
        .args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--batch"])
        .arg(format!("--port={}", mariadb.port()))
        .arg(format!("--user={user}"))
        .arg(format!("--execute={statements}"))
        .arg(database)
        .output()
        .expect("the mariadb client runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_denied = error.contains("denied") || error.contains("you need (at least one of)");
    assert!(output.status.success() || is_denied, "{statements}: {error}");
    !is_denied
}

#[test]
fn the_grants_for_capture_are_enough_for_what_it_does_and_each_is_needed() {
    let mariadb = MariaDb::start();
    mariadb.url("shop");
    let mut captured = films::setting();
    captured.capture = true;
    captured.triggers = Triggers::Guard;
    let mut config = config(&mariadb, "shop");
    config.tables = vec![captured];
    let grants = grant_statements(&config, "'captor'@'127.0.0.1'").unwrap();
    mariadb.sql(
        "shop",
        "CREATE USER captor@'127.0.0.1'; CREATE TABLE film (id INT PRIMARY KEY, title TEXT); \
         CREATE TRIGGER theirs BEFORE INSERT ON film FOR EACH ROW SET NEW.title = 'new'",
    );
    // Of these each needs one that no other does.
    let work = [
        ("CREATE", "CREATE TABLE IF NOT EXISTS _lastword_capture_film (seq SERIAL, k_id INT)"),
        ("ALTER", "ALTER TABLE _lastword_capture_film MODIFY k_id BIGINT"),
        (
            "TRIGGER",
            "CREATE OR REPLACE TRIGGER _lastword_ai_film AFTER INSERT ON film FOR EACH ROW \
             INSERT INTO _lastword_capture_film (k_id) VALUES (NEW.id)",
        ),
        (
            "SET USER",
            "DELIMITER //\nCREATE OR REPLACE DEFINER=root@localhost TRIGGER theirs BEFORE INSERT ON \
             film FOR EACH ROW IF @lastword_applying IS NULL THEN SET NEW.title = 'new'; END IF//",
        ),
        ("INSERT", "INSERT INTO film VALUES (1, 'x')"),
        ("UPDATE", "UPDATE film SET title = 'y' WHERE id = 1"),
        ("SELECT", "SELECT * FROM _lastword_capture_film"),
        ("DELETE", "DELETE FROM film"),
        ("DELETE", "DELETE FROM _lastword_capture_film"),
        ("DROP", "DROP TABLE IF EXISTS _lastword_capture_film"),
    ];
    mariadb.sql("", &grants.join("\n"));
    for (_, statement) in work {
        assert!(may(&mariadb, "captor", "shop", statement), "{statement}");
    }
    mariadb.sql("shop", "CREATE TABLE _lastword_capture_film (seq SERIAL, k_id INT)");
    for (privilege, statement) in work {
        let place = if privilege == "SET USER" { "*.*" } else { "shop.*" };
        mariadb.sql("", &format!("REVOKE {privilege} ON {place} FROM captor@'127.0.0.1'"));
        assert!(!may(&mariadb, "captor", "shop", statement), "{statement} without {privilege}");
        mariadb.sql("", &grants.join("\n"));
    }
}

#[test]
fn each_table_that_is_to_stand_in_columns_is_looked_at() {
    let mariadb = MariaDb::start();
    let url = mariadb.url("shop");
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("lastword.toml");
    std::fs::write(&settings, "[[table]]\nname = \"*\"\nmirror = \"columns\"\n").unwrap();
    let settings = ["--config", settings.to_str().unwrap()];
    mariadb.sql(
        "shop",
        "CREATE TABLE film (id INT PRIMARY KEY, title VARCHAR(20)); \
         CREATE TABLE keyless (id INT); CREATE TABLE Actor (id INT PRIMARY KEY); \
         CREATE TABLE folding (name VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY); \
         CREATE VIEW films AS SELECT * FROM film",
    );
    let report = doctor(&url, &settings);
    let findings = report["findings"].as_array().unwrap().iter();
    let found = findings.filter(|finding| finding["subject"] == "column_tables");
    let found: Vec<_> = found.map(|finding| finding["found"].as_str().unwrap()).collect();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("Actor"), "{found:?}");
    assert!(found[1].starts_with("table folding: its key column name has the coll"), "{found:?}");
    assert!(found[2].starts_with("table keyless: it has no primary key"), "{found:?}");
    mariadb.sql(
        "shop",
        "DROP TABLE Actor; ALTER TABLE keyless ADD PRIMARY KEY (id); \
         ALTER TABLE folding MODIFY name VARCHAR(20) COLLATE utf8mb4_nopad_bin NOT NULL",
    );
    let report = doctor(&url, &settings);
    assert_eq!(of(&report, "column_tables")["found"], "3 looked at, all will do");
    assert_eq!(report["errors"], 0);
}

#[test]
fn a_server_that_is_away_is_said_to_be() {
    let report = doctor("mysql://u:n0t%20shown@127.0.0.1:1/shop", &[]);
    let found = of(&report, "connection");
    assert!(found["found"].as_str().unwrap().contains("cannot connect to 127.0.0.1:1/shop"));
    let missing = complaint(&["doctor"], 2);
    assert!(missing.contains("mysql"), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grants_it_prints_are_enough_and_each_is_needed() {
    let mariadb = MariaDb::start();
    let database = "least_rights";
    mariadb.url(database);
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    std::fs::write(&password_file, format!("{PASSWORD}\n")).unwrap();
    let url = format!("mysql://least@127.0.0.1:{}/{database}", mariadb.port());
    let secret = ["--mysql-password-file", password_file.to_str().unwrap()];
    let user = "'least'@'127.0.0.1'";

    // A table of keys and values needs less.
    let plain = done(&["doctor", "--grants", "--user", user, "--mysql", &url]);
    assert!(!plain.contains("TRIGGER"), "{plain}");
    let settings = folder.path().join("lastword.toml");
    std::fs::write(
        &settings,
        "[[table]]\nname = \"film\"\nmirror = \"columns\"\nprimary_key = [\"id\"]\n\
         columns = [{ name = \"id\", type = \"BIGINT UNSIGNED NOT NULL\" }, \
         { name = \"title\", type = \"VARCHAR(200) NOT NULL\" }]\n",
    )
    .unwrap();
    let settings = settings.to_str().unwrap();
    let secret = [&secret[..], &["--config", settings]].concat();
    let mut arguments =
        vec!["doctor", "--grants", "--user", user, "--mysql", &url, "--config", settings];
    let printed = done(&arguments);
    let mut config = Config { tables: vec![films::setting()], ..config(&mariadb, database) };
    let expected = grant_statements(&config, user).unwrap().join("\n");
    assert_eq!(printed.trim_end(), expected);
    assert!(printed.contains("ON `least\\_rights`.* TO 'least'@'127.0.0.1'"), "{printed}");
    arguments.drain(2..4);
    assert!(done(&arguments).contains("TO 'least'@'%';"));

    mariadb.sql("", &format!("CREATE USER {user} IDENTIFIED BY '{PASSWORD}'"));
    let report = doctor(&url, &secret);
    assert!(of(&report, "connection")["found"].as_str().unwrap().contains("denied"), "{report}");
    mariadb.sql("", &printed);
    let report = doctor(&url, &secret);
    assert_eq!((&report["errors"], &report["user"]), (&0.into(), &"least@127.0.0.1".into()));

    // It runs so.
    let world = World::new().await;
    config.target.user = "least".into();
    config.target.password = Some(PASSWORD.into());
    let mirror = Running::start(&world, &config);
    world.fill("t", 500, 10).await;
    world.delete("t", "k000001").await;
    world.put("u", "k", "v").await;
    world.judge(&mariadb, database, "t");
    world.judge(&mariadb, database, "u");
    films::fill(&world, 0..500).await;
    world.delete("film", "7").await;
    films::judge(&world, &mariadb, database);
    assert_eq!(films::mirrored(&mariadb, database).len(), 499);
    assert!(world.report().waiting_tables.is_empty());
    mirror.stop().await;

    // Without TRIGGER those of applications are not seen.
    for privilege in ["SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "TRIGGER"] {
        mariadb.sql("", &format!("REVOKE {privilege} ON `least\\_rights`.* FROM {user}"));
        let report = doctor(&url, &secret);
        let found = of(&report, "privileges");
        assert_eq!(found["level"], "error");
        let lacks = format!("least@127.0.0.1 lacks {privilege} (");
        assert!(found["found"].as_str().unwrap().starts_with(&lacks), "{found}");
        if privilege == "TRIGGER" {
            mariadb.sql("", found["mend"].as_str().unwrap());
            continue;
        }
        // And without it the mirror does not get by.
        let table = format!("without_{}", privilege.to_lowercase());
        let mirror = Running::start(&world, &config);
        world.put(&table, "k", "v").await;
        world.put("t", "again", "v").await;
        world.delete("t", "again").await;
        world.put("t", "again", "v").await;
        world.delete("t", "again").await;
        world.when(privilege, |report| !report.applying && report.last_error.is_some());
        mirror.stop().await;
        mariadb.sql("", found["mend"].as_str().unwrap());
        assert_eq!(doctor(&url, &secret)["errors"], 0);
        let mirror = Running::start(&world, &config);
        world.judge(&mariadb, database, &table);
        world.judge(&mariadb, database, "t");
        mirror.stop().await;
    }
    until("no session to be left", LIMIT, || {
        let sessions = "SELECT 1 FROM information_schema.PROCESSLIST WHERE USER = 'least'";
        mariadb.sql("", sessions).is_empty().then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_would_collide_stop_the_mirror_until_mysql_gives_the_sites_own() {
    let mariadb = MariaDb::start();
    let database = "numbers";
    let world = World::new().await;
    let mut config = Config {
        sequence: Some(SequenceIds { offset: 3, increment: 10 }),
        columns_check: Duration::from_millis(200),
        ..films::with_films(&mariadb, config(&mariadb, database))
    };
    config.tables[0].columns[0].definition.push_str(" AUTO_INCREMENT");
    // Nobody but lastword writes there: that is odd, and no more.
    let mirror = Running::start(&world, &config);
    films::fill(&world, 0..10).await;
    films::judge(&world, &mariadb, database);
    mirror.stop().await;

    config.tables[0].capture = true;
    let mirror = Running::start(&world, &config);
    let report = world.fails_with("the site's sequence has increment 10 and offset 3");
    let message = report.last_error.unwrap().message;
    let mend = "SET GLOBAL auto_increment_increment = 10, GLOBAL auto_increment_offset = 3;";
    assert!(message.contains(mend) && message.contains("film"), "{message}");
    films::fill(&world, 10..20).await;
    assert_eq!(films::mirrored(&mariadb, database).len(), 10);
    mariadb.sql("", mend);
    films::judge(&world, &mariadb, database);
    assert_eq!(films::mirrored(&mariadb, database).len(), 20);

    // Somebody turns it back while the mirror runs.
    mariadb.sql("", "SET GLOBAL auto_increment_increment = 1, GLOBAL auto_increment_offset = 1");
    world.fails_with(mend);
    mariadb.sql("", mend);
    films::fill(&world, 20..30).await;
    films::judge(&world, &mariadb, database);
    assert_eq!(films::mirrored(&mariadb, database).len(), 30);
    mirror.stop().await;

    // A table that comes while it runs is looked at, too.
    mariadb.sql("", "SET GLOBAL auto_increment_increment = 1, GLOBAL auto_increment_offset = 1");
    config.target.database = "numbers_later".into();
    mariadb.url("numbers_later");
    mariadb.sql("", "GRANT ALL ON numbers_later.* TO lastword@'127.0.0.1'");
    config.tables[0].name = "*".into();
    config.tables[0].columns.clear();
    config.tables[0].primary_key.clear();
    let world = World::new().await;
    let _mirror = Running::start(&world, &config);
    world.when("it to follow", |report| report.applying);
    mariadb.sql("numbers_later", "CREATE TABLE actor (id INT AUTO_INCREMENT PRIMARY KEY)");
    world.fails_with(mend);
    mariadb.sql("", mend);
    world.when("it to go on", |report| report.applying);
}
