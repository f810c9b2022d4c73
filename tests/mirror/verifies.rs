//! Whether MySQL has the store's rows, asked while both take writes: what somebody changed behind the
//! mirror's back is found, all of it and nothing else, and put right.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use lastword::{
    mirror::Config,
    model::TableName,
    node::{
        MirrorVerified, MirrorVerifyError, MirrorVerifyOptions, MirrorVerifyProgress, MirrorWrong,
    },
};
use tokio::sync::watch;

use crate::{
    common::{node::Node, program::program},
    crashes::{Load, settle},
    world::{Running, World, config, mirrored, put, put_for, shared},
};

/// Repeated where rows changed too often to be told in its time, as on a machine with much else to do.
pub(crate) async fn verify(world: &World, repair: bool) -> MirrorVerified {
    for _ in 0..9 {
        let verified = verify_once(world, repair).await;
        if verified.tables.iter().all(|table| table.in_flux == 0) {
            return verified;
        }
    }
    verify_once(world, repair).await
}

async fn verify_once(world: &World, repair: bool) -> MirrorVerified {
    try_verify(world, MirrorVerifyOptions { table: None, repair }).await.unwrap()
}

async fn try_verify(
    world: &World,
    options: MirrorVerifyOptions,
) -> Result<MirrorVerified, MirrorVerifyError> {
    let (progress, _told) = watch::channel(MirrorVerifyProgress::default());
    world.node.verify_mirror(options, progress).await
}

/// Key and kind of each difference.
pub(crate) fn kinds(verified: &MirrorVerified) -> BTreeMap<String, MirrorWrong> {
    let differences = verified.differences.iter();
    differences.map(|it| (String::from_utf8_lossy(&it.key).into_owned(), it.wrong)).collect()
}

#[track_caller]
pub(crate) fn assert_equal(verified: &MirrorVerified) {
    for table in &verified.tables {
        assert_eq!((table.differing(), table.in_flux), (0, 0), "{verified:?}");
        assert_eq!(table.problem, None);
    }
}

/// A hundred rows that differ, each in its own way, and what is to be said of them.
fn injected() -> (String, BTreeMap<String, MirrorWrong>) {
    let (mut sql, mut expected) = (String::new(), BTreeMap::new());
    // Rows of the store are k000000 and on; these lie all over them.
    let key = |n: usize| format!("k{:06}", n * 163 + 7);
    let changes = [
        "v = 'changed'",
        "v = CONCAT(v, ' ')",
        "v = ''",
        "v = REVERSE(v)",
        "hlc = hlc + 1",
        "hlc = hlc - 1",
        "hlc = 18446744073709551615",
        "hlc = 0",
        "origin = UNHEX(REPEAT('FF', 16))",
        "origin = UNHEX(REPEAT('00', 16))",
        "expires_at = '2040-01-01'",
        "expires_at = '2000-01-01'",
        "updated_at = updated_at + INTERVAL 1 MICROSECOND",
        "updated_at = '9999-12-31 23:59:59.999999'",
    ];
    for n in 0..38 {
        let _ = write!(sql, "UPDATE t SET {} WHERE k = '{}'; ", changes[n % 14], key(n));
        // What expires at once by itself is taken away by the mirror.
        let gone = changes[n % 14].contains("2000-01-01");
        let kind = if gone { MirrorWrong::Missing } else { MirrorWrong::Changed };
        expected.insert(key(n), kind);
    }
    // Two rows whose values changed places.
    let (one, two) = (key(38), key(39));
    let _ = write!(
        sql,
        "SET @one = (SELECT v FROM t WHERE k = '{one}'), @two = (SELECT v FROM t WHERE k = '{two}'); \
         UPDATE t SET v = @two WHERE k = '{one}'; UPDATE t SET v = @one WHERE k = '{two}'; "
    );
    expected.extend([(one, MirrorWrong::Changed), (two, MirrorWrong::Changed)]);
    for n in 40..70 {
        let _ = write!(sql, "DELETE FROM t WHERE k = '{}'; ", key(n));
        expected.insert(key(n), MirrorWrong::Missing);
    }
    for n in 70..100 {
        // Before the first, behind the last, between two, and keys that no store takes.
        let extra = match n {
            70 => String::new(),
            71 => "\u{1}".to_owned(),
            72 => "zzz".to_owned(),
            _ => format!("k{:06}x", n * 131),
        };
        let _ = write!(
            sql,
            "INSERT INTO t VALUES ('{extra}', 'v', {n}, UNHEX(REPEAT('0{}', 16)), NOW(6), NULL); ",
            n % 10
        );
        expected.insert(extra, MirrorWrong::Extra);
    }
    assert_eq!(expected.len(), 100);
    (sql, expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_differences_of_a_hundred_are_found_and_put_right_under_load() {
    let (mariadb, database) = (&*shared(), "verifies");
    let world = World::new().await;
    let rows = 20_000;
    for from in (0..rows).step_by(500) {
        let row = |n| put("t", format!("k{n:06}"), format!("value {n}"));
        world.write((from..from + 500).map(row).collect()).await;
    }
    world.write(vec![put_for("t", "lasting", "v", Duration::from_secs(3_600))]).await;
    world.fill("u", 10, 10).await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    world.judge(mariadb, database, "t");
    let load = Load::start(&world);
    for _ in 0..3 {
        let verified = verify(&world, false).await;
        assert_equal(&verified);
        assert!(verified.tables[0].rows > rows as u64, "{verified:?}");
        assert!(verified.bytes < 2_000_000, "{verified:?}");
    }

    let (sql, expected) = injected();
    mariadb.sql(database, &sql);
    let verified = verify(&world, false).await;
    let found = kinds(&verified);
    for (key, kind) in &expected {
        let kind_found = found.get(key);
        // Whoever looks before the mirror has taken it away sees it changed.
        let fits = kind_found == Some(kind)
            || (*kind == MirrorWrong::Missing && kind_found == Some(&MirrorWrong::Changed));
        assert!(fits, "{key}: {kind:?}, found {kind_found:?}");
    }
    assert_eq!(found.len(), 100, "{verified:?}");
    assert_eq!(verified.tables[0].differing(), 100);
    assert_eq!(verified.tables[0].repaired, 0);

    let only_u = MirrorVerifyOptions { table: TableName::of_client("u").ok(), repair: true };
    assert_equal(&try_verify(&world, only_u).await.unwrap());
    let verified = verify(&world, true).await;
    assert_eq!(verified.tables[0].differing(), 100, "{verified:?}");
    assert_eq!(verified.tables[0].repaired, 100, "{verified:?}");
    assert!(verified.differences.iter().all(|difference| difference.repaired));
    assert_equal(&verify(&world, false).await);
    load.stop().await;
    settle(&world, mariadb, database);
    world.judge(mariadb, database, "t");
    assert_equal(&verify(&world, true).await);
    // A deadlock too many is another connection; what is refused would be one each second.
    assert!(world.report().connects <= 2, "{:?}", world.report());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_called_a_difference_that_is_on_its_way() {
    let (mariadb, database) = (&*shared(), "on_its_way");
    let world = World::new().await;
    let mirror_config = Config { batch_rows_max: 30, ..config(mariadb, database) };
    world.fill("t", 3_000, 10).await;
    let mirror = Running::start(&world, &mirror_config);
    world.when("its beginning", |report| report.position.is_some());
    // Also while it fills, and while it has fallen behind.
    assert_equal(&verify(&world, false).await);
    let load = Load::start(&world);
    for _ in 0..20 {
        assert_equal(&verify(&world, false).await);
    }
    assert_equal(&verify(&world, true).await);
    load.stop().await;
    settle(&world, mariadb, database);
    world.judge(mariadb, database, "t");
    mirror.stop().await;
    let error = try_verify(&world, MirrorVerifyOptions::default()).await.unwrap_err();
    assert!(matches!(error, MirrorVerifyError::NoMirror), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_text_are_compared_in_any_order_and_with_what_was_set_aside() {
    let (mariadb, database) = (&*shared(), "text_columns");
    let world = World::new().await;
    let config = config(mariadb, database);
    let columns = "v TEXT CHARACTER SET latin1, hlc BIGINT UNSIGNED NOT NULL, \
                   origin BINARY(16) NOT NULL, updated_at DATETIME(6) NOT NULL, \
                   expires_at DATETIME(6) NULL";
    mariadb.sql(
        database,
        &format!(
            "CREATE TABLE t (k VARCHAR(100) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci \
             PRIMARY KEY, {columns}); CREATE TABLE u (k VARCHAR(100) CHARACTER SET utf8mb4 \
             COLLATE utf8mb4_nopad_bin PRIMARY KEY, {columns})"
        ),
    );
    let mut rows = Vec::new();
    for table in ["t", "u"] {
        rows.extend((0..900).map(|n| put(table, format!("{n} é"), format!("ü {n}"))));
        // One of these two, and neither of those, stands in t; in u they all are missing or stand.
        rows.extend(["a", "A"].map(|key| put(table, key, "v")));
        rows.extend([put(table, [0xff, 0xfe], "v"), put(table, "no latin", "日本")]);
    }
    world.write(rows).await;
    let _mirror = Running::start(&world, &config);
    world.caught_up();
    let verified = verify(&world, false).await;
    assert_equal(&verified);
    let set_aside: Vec<_> = verified.tables.iter().map(|table| table.set_aside).collect();
    assert_eq!(set_aside, [3, 2], "{verified:?}");

    for table in ["t", "u"] {
        mariadb.sql(
            database,
            &format!(
                "UPDATE {table} SET v = 'x' WHERE k = '5 é'; DELETE FROM {table} WHERE k = '6 é'; \
                 INSERT INTO {table} VALUES ('B', 'v', 5, UNHEX(REPEAT('01', 16)), NOW(6), NULL)"
            ),
        );
    }
    let verified = verify(&world, true).await;
    let expected = BTreeMap::from([
        ("5 é".to_owned(), MirrorWrong::Changed),
        ("6 é".to_owned(), MirrorWrong::Missing),
        ("B".to_owned(), MirrorWrong::Extra),
    ]);
    assert_eq!(kinds(&verified), expected, "{verified:?}");
    assert!(verified.tables.iter().all(|table| table.repaired == 3), "{verified:?}");
    assert_equal(&verify(&world, false).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_cannot_be_compared_is_named() {
    let (mariadb, database) = (&*shared(), "incomparable");
    let world = World::new().await;
    world.fill("t", 10, 10).await;
    world.fill("u", 10, 10).await;
    let _mirror = Running::start(&world, &config(mariadb, database));
    world.caught_up();
    mariadb.sql(database, "ALTER TABLE t DROP COLUMN expires_at; DROP TABLE u");
    let verified = verify(&world, false).await;
    let problems: Vec<_> = verified.tables.iter().flat_map(|table| &table.problem).collect();
    assert!(problems[0].contains("it lacks the columns expires_at"), "{problems:?}");
    assert!(problems[1].contains("it is not in MySQL"), "{problems:?}");
    let unknown = MirrorVerifyOptions { table: TableName::of_client("x").ok(), repair: false };
    let error = try_verify(&world, unknown).await.unwrap_err();
    assert!(matches!(error, MirrorVerifyError::UnknownTable(_)), "{error}");
}

/// The command, as people and scripts use it.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_says_what_differs_and_exits_accordingly() {
    let (mariadb, database) = (&*shared(), "verify_command");
    let node = Node::new("fra").mysql(&mariadb.url(database)).start();
    let url = node.url();
    let run = |arguments: &[&str]| {
        let arguments = [&["verify", "--mirror", "--server", &url][..], arguments].concat();
        let output = program(&arguments);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    for key in ["a", "b", "c"] {
        program(&["put", "t", key, "v", "--server", &url]);
    }
    let (code, out, error) = run(&[]);
    assert_eq!((code, &error[..]), (Some(0), ""), "{out}");
    assert!(out.starts_with("t: equal, 3 rows compared\n"), "{out}");

    mariadb.sql(
        database,
        "UPDATE t SET v = 'x' WHERE k = 'a'; DELETE FROM t WHERE k = 'b'; \
         INSERT INTO t SELECT 'd', v, hlc, origin, updated_at, expires_at FROM t WHERE k = 'c'",
    );
    let (code, out, error) = run(&["--table", "t"]);
    assert_eq!(code, Some(1));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[..3], ["t\ta\tchanged", "t\tb\tmissing", "t\td\textra"], "{out}");
    assert!(lines[3].starts_with("t: not equal, 3 rows differ (1 changed, 1 missing, 1 extra)"));
    assert!(error.contains("3 rows differ from MySQL's: --repair puts them right"), "{error}");

    let (code, out, error) = run(&["--repair", "--json"]);
    assert_eq!((code, &error[..]), (Some(0), ""), "{out}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["equal"], true);
    assert_eq!(report["tables"][0]["repaired"], 3);
    assert_eq!(report["differences"][2]["key"], "d");
    assert_eq!(report["differences"][2]["kind"], "extra");
    assert_eq!(mirrored(mariadb, database, "t").len(), 3);
    assert_eq!(run(&[]).0, Some(0));

    let (code, _, error) = run(&["--table", "nothing"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("neither the store nor MySQL has a mirrored table nothing"), "{error}");
    let (code, _, _) = run(&["--peer", "nyc"]);
    assert_eq!(code, Some(2), "either a peer or the mirror");
}
