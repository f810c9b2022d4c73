//! Many rows of one statement: whatever is among them, each arrives as it is, or is set aside alone.

use std::time::Duration;

use lastword::{
    mirror::{Config, Form, TableSetting},
    node::Mutation,
};
use serde_json::{Value, json};

use crate::{
    common::mariadb::MariaDb,
    verifies::{assert_equal, verify},
    world::{Running, World, config, delete, put, put_for, shared},
};

/// More than one statement takes, and fewer than a transaction.
const ROWS: usize = 2_500;
const COMMIT_ROWS: usize = 500;
const COLUMNS: &str = "id BIGINT NOT NULL PRIMARY KEY, n BIGINT, u BIGINT UNSIGNED, d DOUBLE, \
    money DECIMAL(20,4), s VARCHAR(40) CHARACTER SET utf8mb4, b VARBINARY(300), at DATETIME(6), \
    bits BIT(64), nothing INT, kind INT NOT NULL DEFAULT 7, CHECK (s <> 'no')";

async fn write(world: &World, rows: impl IntoIterator<Item = Mutation>) {
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        world.write(rows.by_ref().take(COMMIT_ROWS).collect()).await;
    }
}

/// The keys set aside.
fn aside(mariadb: &MariaDb, database: &str) -> Vec<String> {
    let rows = mariadb.sql(database, "SELECT k FROM _lastword_rejected ORDER BY k");
    rows.into_iter().map(|mut row| row.remove(0)).collect()
}

fn column_table(mariadb: &MariaDb, database: &str) -> Config {
    let config = config(mariadb, database);
    mariadb.sql("", &format!("GRANT TRIGGER ON `{database}`.* TO lastword@'127.0.0.1'"));
    mariadb.sql(database, &format!("CREATE TABLE t ({COLUMNS}) ENGINE=InnoDB"));
    let table = TableSetting { name: "t".into(), form: Form::Columns, ..TableSetting::default() };
    Config { tables: vec![table], ..config }
}

/// A row of every sort, by its number and how often it was written before; `refused`: not by lastword.
fn row(number: usize, written: u64, refused: bool) -> Value {
    let mut object = json!({
        "id": i64::try_from(number).unwrap() - 1_000,
        "n": ([json!(i64::MIN), json!(-1), Value::Null, json!(0), json!(i64::MAX)][number % 5]),
        "u": ([json!(u64::MAX), json!(written), Value::Null][number % 3]),
        "d": ([json!(-0.5), json!(1e300), Value::Null][number % 3]),
        "money": (["-1.0000", "9999999999999999.9999"][number % 2]),
        "s": (["", "käse \u{1f9c0}", "'\\\"\u{0}", " "][number % 4]),
        "b": (["", "AP/+", "JyIn"][number % 3]),
        "at": (["0000-00-00 00:00:00.000000", "2024-02-29 12:34:56.000001"][number % 2]),
        "bits": ([u64::MAX, written][number % 2]),
        "nothing": null,
    });
    if refused {
        object["s"] = "no".into();
    }
    object
}

fn row_put(number: usize, object: &Value) -> Mutation {
    put("t", (i64::try_from(number).unwrap() - 1_000).to_string(), object.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_values_amid_which_some_are_refused() {
    let (mariadb, database) = (&*shared(), "bulk_kv");
    let world = World::new().await;
    let config = config(mariadb, database);
    mariadb.sql(
        database,
        "CREATE TABLE t (k VARBINARY(512) NOT NULL PRIMARY KEY, v MEDIUMBLOB NOT NULL, \
         hlc BIGINT UNSIGNED NOT NULL, origin BINARY(16) NOT NULL, updated_at DATETIME(6) NOT NULL, \
         expires_at DATETIME(6) NULL, KEY (expires_at), CHECK (v <> 'no'))",
    );
    let rows = |refused: [usize; 3], written: usize| {
        (0..ROWS).map(move |n| {
            let key = format!("{n:04}");
            match (refused.contains(&n), n % 3) {
                (true, _) => put("t", key, "no"),
                (false, 0) => put_for("t", &key, "", Duration::from_secs(1_000 + n as u64)),
                (false, 1) => put("t", key, [0, 0xff, b'\'', written as u8]),
                _ => put("t", key, vec![b'v'; n]),
            }
        })
    };
    // A first fill; rows over them, of which others are refused; and those are cured.
    write(&world, rows([0, 1_234, ROWS - 1], 0)).await;
    let mirror = Running::start(&world, &config);
    world.caught_up();
    assert_eq!(aside(mariadb, database), ["0000", "1234", "2499"]);
    write(&world, rows([1, 777, 778], 1)).await;
    world.caught_up();
    assert_eq!(aside(mariadb, database), ["0001", "0777", "0778"]);
    let refused = ["0001", "0777", "0778"];
    write(&world, refused.map(|key| delete("t", key))).await;
    world.judge(mariadb, database, "t");
    assert!(aside(mariadb, database).is_empty());
    mirror.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_of_every_sort_amid_which_some_are_refused() {
    let (mariadb, database) = (&*shared(), "bulk_columns");
    let world = World::new().await;
    let config = column_table(mariadb, database);
    let rows = |refused: [usize; 3], written: u64| {
        (0..ROWS).map(move |n| row_put(n, &row(n, written, refused.contains(&n))))
    };
    write(&world, rows([0, 1_234, ROWS - 1], 0)).await;
    let mirror = Running::start(&world, &config);
    world.caught_up();
    world.when("the table to be filled", |report| {
        report.rows_applied + report.rows_rejected >= ROWS as u64
    });
    assert_eq!(aside(mariadb, database), ["-1000", "1499", "234"]);
    assert_eq!(mariadb.sql(database, "SELECT COUNT(*), MIN(kind) FROM t"), [["2497", "7"]]);
    assert_equal(&verify(&world, false).await);
    write(&world, rows([1, 777, 778], 1)).await;
    world.caught_up();
    assert_eq!(aside(mariadb, database), ["-222", "-223", "-999"]);
    assert_equal(&verify(&world, false).await);
    let cured = [1, 777, 778].map(|n| row_put(n, &row(n, 2, false)));
    write(&world, cured).await;
    world.caught_up();
    assert!(aside(mariadb, database).is_empty());
    assert_eq!(mariadb.sql(database, "SELECT COUNT(*) FROM t"), [["2500"]]);
    assert_equal(&verify(&world, false).await);
    let ends = "SELECT n, u, CONVERT(s USING utf8mb4), HEX(b), at, nothing FROM t WHERE id IN (-1000, -999) ORDER BY id";
    let [first, second] = <[_; 2]>::try_from(mariadb.sql(database, ends)).unwrap();
    let (min, max) = (i64::MIN.to_string(), u64::MAX.to_string());
    assert_eq!(first, [&min, &max, "", "", "0000-00-00 00:00:00.000000", "NULL"]);
    assert_eq!(
        second,
        ["-1", "2", "käse \u{1f9c0}", "00FFFE", "2024-02-29 12:34:56.000001", "NULL"]
    );
    mirror.stop().await;
}

/// Rows that leave out other columns each: no two statements have one text.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_some_rows_leave_out() {
    let (mariadb, database) = (&*shared(), "bulk_defaults");
    let world = World::new().await;
    let config = column_table(mariadb, database);
    write(
        &world,
        (0..ROWS).map(|n| {
            let mut object = row(n, 0, n == 1_500);
            object.as_object_mut().unwrap().remove(["n", "u", "s", "kind"][n % 3]);
            if n % 7 == 0 {
                object["kind"] = n.into();
            }
            row_put(n, &object)
        }),
    )
    .await;
    let mirror = Running::start(&world, &config);
    world.caught_up();
    world.when("the table to be filled", |report| {
        report.rows_applied + report.rows_rejected >= ROWS as u64
    });
    assert_eq!(aside(mariadb, database), ["500"]);
    assert_eq!(
        mariadb.sql(database, "SELECT COUNT(*), SUM(kind = 7) FROM t"),
        [["2499".to_owned(), (ROWS - ROWS.div_ceil(7)).to_string()]]
    );
    assert_equal(&verify(&world, false).await);
    mirror.stop().await;
}

/// The last packet that MySQL takes is no larger than the first that it does not.
#[tokio::test(flavor = "multi_thread")]
async fn values_near_the_largest_packet() {
    let mariadb = MariaDb::start_with(&["--max-allowed-packet=1M"]);
    let database = "bulk_packets";
    let world = World::new().await;
    let config = config(&mariadb, database);
    let sizes = [300_000, 100, 0, 330_000, 327_000, 1, 970_000, 982_900, 60_000, 491_000, 491_400];
    let rows = |byte: u8| {
        let all = sizes.iter().cycle().take(sizes.len() * 3).enumerate();
        all.map(move |(n, size)| put("t", format!("{n:03}"), vec![byte; *size]))
    };
    let bytes = 3 * sizes.iter().sum::<usize>() + ROWS * 200;
    let judge = |byte: &str| {
        world.caught_up();
        let of_byte = format!("v = REPEAT({byte}, LENGTH(v)) OR v = REPEAT('v', 200)");
        let counted = format!("SELECT COUNT(*), SUM(LENGTH(v)), SUM({of_byte}) FROM t");
        let rows = (ROWS + 3 * sizes.len()).to_string();
        assert_eq!(mariadb.sql(database, &counted), [[rows.clone(), bytes.to_string(), rows]]);
    };
    for row in rows(0) {
        world.write(vec![row]).await;
    }
    world.fill("t", ROWS, 200).await;
    let mirror = Running::start(&world, &config);
    judge("X'00'");
    for row in rows(0xff) {
        world.write(vec![row]).await;
    }
    judge("X'FF'");
    mirror.stop().await;
}

/// MariaDB refuses a bulk where its binary log tells statements.
#[tokio::test(flavor = "multi_thread")]
async fn a_binary_log_of_statements() {
    let mariadb = MariaDb::start_with(&["--log-bin=binlog", "--binlog-format=STATEMENT"]);
    let database = "bulk_statements";
    let world = World::new().await;
    let config = config(&mariadb, database);
    world.fill("t", ROWS, 100).await;
    let mirror = Running::start(&world, &config);
    world.judge(&mariadb, database, "t");
    world.fill("t", ROWS, 50).await;
    world.judge(&mariadb, database, "t");
    mirror.stop().await;
}
