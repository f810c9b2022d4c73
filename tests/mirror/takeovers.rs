//! A node is stopped (a machine that is paused, a process that swaps), another one with a copy of its folder takes
//! the database over, and then the first goes on from where it was, with what it was about to write.

use std::time::Duration;

use lastword::model::Heads;
use tokio::time::{Instant, sleep};

use crate::{
    common::{
        mariadb::{MariaDb, copy_folder},
        node::Node,
        proxy::Proxy,
        wait::until,
    },
    kills::some_ms,
    process::{ClientLoad, client, judge},
    world::{LIMIT, heads_of_hex, mirrored, shared},
};

/// How long the first one may try what it likes.
const WATCHED: Duration = Duration::from_millis(600);

/// Notes every change of the checkpoint, and every row that is written over.
const NOTE_CHANGES: &str = "
    CREATE TABLE checkpoints (n INT AUTO_INCREMENT PRIMARY KEY, epoch BIGINT, heads MEDIUMBLOB);
    CREATE TRIGGER note_checkpoint AFTER UPDATE ON _lastword_mirror FOR EACH ROW
        INSERT INTO checkpoints (epoch, heads) VALUES (NEW.epoch, NEW.heads);
    CREATE TABLE overwritten (k VARBINARY(512), old BIGINT UNSIGNED, new BIGINT UNSIGNED);
    CREATE TRIGGER note_row AFTER UPDATE ON t FOR EACH ROW
        INSERT INTO overwritten VALUES (OLD.k, OLD.hlc, NEW.hlc);";

/// Nothing went back, at any moment.
#[track_caller]
fn only_forwards(mariadb: &MariaDb, database: &str) {
    let (mut heads, mut epoch) = (Heads::new(), 0);
    let noted = mariadb.sql(database, "SELECT epoch, HEX(heads) FROM checkpoints ORDER BY n");
    assert!(!noted.is_empty());
    for (at, row) in noted.iter().enumerate() {
        let now: (u64, Heads) = (row[0].parse().unwrap(), heads_of_hex(&row[1]));
        assert!(now.0 >= epoch, "change {at}: the epoch went back to {}", now.0);
        assert!(
            now.1.covers(&heads),
            "change {at}: the checkpoint went back: {heads} to {}",
            now.1
        );
        (epoch, heads) = now;
    }
    let back = mariadb.sql(database, "SELECT HEX(k), old, new FROM overwritten WHERE new < old");
    assert!(back.is_empty(), "rows went back: {back:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_that_was_stopped_while_another_took_over_writes_nothing_back() {
    let mariadb = &*shared();
    // Held up at a random moment of a transaction; before it begins one; not held up by its line.
    for how in ["within", "before", "anywhere", "before"] {
        let database = "stopped";
        mariadb.sql("", &format!("CREATE OR REPLACE DATABASE {database}"));
        let line = Proxy::start(([127, 0, 0, 1], mariadb.port()).into());
        let url = format!("mysql://root@{}/{database}", line.address());
        let first = Node::new("fra").mysql(&url).start();
        let load = ClientLoad::start(&first);
        until("some load", LIMIT, || (load.acknowledged() > 20).then_some(()));
        load.stop().await;
        judge(&first, mariadb, database).await;
        mariadb.sql(database, NOTE_CHANGES);

        if how == "before" {
            line.freeze();
        }
        let load = ClientLoad::start(&first);
        some_ms(100).await;
        if how == "within" {
            line.freeze();
        }
        let before = load.acknowledged();
        until("more load", LIMIT, || (load.acknowledged() > before + 20).then_some(()));
        load.stop().await;
        first.pause(true);

        let second = Node::new("fra").mysql(&mariadb.url(database));
        copy_folder(&first.data_dir(), &second.data_dir());
        // What a client holds that says nothing ends after wait_timeout; here at once.
        let holding = "SELECT trx_mysql_thread_id FROM information_schema.INNODB_TRX";
        for thread in mariadb.sql("", holding) {
            let _ = mariadb.try_sql("", &format!("KILL {}", thread[0]));
        }
        let second = second.start();
        let load = ClientLoad::start(&second);
        until("its own writes", LIMIT, || (load.acknowledged() > 30).then_some(()));
        load.stop().await;
        judge(&second, mariadb, database).await;
        let rows = mirrored(mariadb, database, "t");

        // What was under way arrives, and the first one goes on.
        line.heal();
        first.pause(false);
        let mut revived = client(&first);
        let deadline = Instant::now() + LIMIT;
        loop {
            let status = revived.status().await.unwrap();
            let error = status.mirror.unwrap().last_error;
            // Where MySQL ended its transaction it finds the connection lost first.
            if !error.is_empty() {
                assert!(how != "before" || error.contains("another mirror has taken"), "{error}");
                break;
            }
            assert!(Instant::now() < deadline, "{how}: the first one goes on as if nothing were");
            sleep(Duration::from_millis(10)).await;
        }
        sleep(WATCHED).await;
        only_forwards(mariadb, database);
        assert_eq!(mirrored(mariadb, database, "t"), rows, "{how}");
    }
}
