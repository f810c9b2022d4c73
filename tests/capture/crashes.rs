//! Whichever side crashes, and whenever: each committed row of an application is in the store, and none was
//! written twice.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    common::mariadb::MariaDb,
    world::{LIMIT, Running, World, config, shared},
};

/// A client that writes each row once, until it is told to stop.
struct Client {
    thread: thread::JoinHandle<Sent>,
    stop: Arc<AtomicBool>,
}

/// What it wrote.
#[derive(Default)]
struct Sent {
    /// Committed: value by key.
    rows: BTreeMap<u64, String>,
    /// It did not hear whether these stand.
    in_doubt: BTreeMap<u64, String>,
}

impl Client {
    fn start(url: String, first: u64) -> Client {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(write_rows(url, first, &stopped))
        });
        Client { thread, stop }
    }

    fn stop(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

async fn write_rows(url: String, first: u64, stop: &AtomicBool) -> Sent {
    use mysql_async::prelude::Queryable;
    let mut sent = Sent::default();
    let mut key = first;
    let mut conn = None;
    while !stop.load(Ordering::Relaxed) {
        if conn.is_none() {
            let options = mysql_async::Opts::from_url(&url).unwrap();
            conn = mysql_async::Conn::new(options).await.ok();
        }
        let Some(open) = &mut conn else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        // Two rows in one transaction, the second of them changed at once.
        let (one, two) = (key, key + 1);
        key += 2;
        let value = format!("{}", rand::random::<u32>());
        let done = async {
            open.query_drop("START TRANSACTION").await?;
            open.query_drop(format!("INSERT INTO items VALUES ({one}, '{value}')")).await?;
            open.query_drop(format!("INSERT INTO items VALUES ({two}, 'x')")).await?;
            open.query_drop(format!("UPDATE items SET v = '{value}' WHERE id = {two}")).await?;
            open.query_drop("COMMIT").await
        };
        match done.await {
            Ok(()) => {
                sent.rows.extend([(one, value.clone()), (two, value)]);
            }
            Err(_) => {
                sent.in_doubt.extend([(one, value.clone()), (two, value)]);
                conn = None;
            }
        }
        tokio::time::sleep(Duration::from_micros(rand::random::<u64>() % 2_000)).await;
    }
    sent
}

/// Every row that was committed is in the store, as is every other that MySQL has; each was written once.
fn judge(world: &World, mariadb: &MariaDb, database: &str, sent: &Sent, writes: u64) {
    world.agrees(mariadb, database);
    let stored = world.stored("items");
    for (key, value) in &sent.rows {
        assert_eq!(stored.get(&key.to_string()).map(|row| &row["v"]), Some(&value.clone().into()));
    }
    let doubted = sent.in_doubt.keys().filter(|key| stored.contains_key(&key.to_string())).count();
    assert_eq!(stored.len(), sent.rows.len() + doubted, "nothing else is there");
    assert_eq!(writes, stored.len() as u64, "each row was written once");
    assert_eq!(world.report().conflicts, 0);
}

fn random_ms(max: u64) -> Duration {
    Duration::from_millis(rand::random::<u64>() % max)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_aborted_at_random_moments_writes_each_row_once() {
    let (mariadb, database) = (&*shared(), "aborted");
    let config = config(mariadb, database);
    let world = World::new().await;
    let first = Running::start(&world, &config);
    world.captures("items");
    first.abort();
    let before = world.writes();
    let client = Client::start(mariadb.url(database), 1);
    let rows = || mariadb.sql(database, "SELECT COUNT(*) FROM items")[0][0].parse::<u64>().unwrap();
    let mut rounds = 0;
    // However busy the machine is.
    while rounds < 60 || rows() <= 500 {
        rounds += 1;
        let running = Running::start(&world, &config);
        tokio::time::sleep(random_ms(60)).await;
        running.abort();
    }
    let sent = client.stop();
    assert!(sent.in_doubt.is_empty() && sent.rows.len() > 100, "{} rows", sent.rows.len());
    let _running = Running::start(&world, &config);
    world.captures("items");
    world.agrees(mariadb, database);
    judge(&world, mariadb, database, &sent, world.writes() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_restarted_again_and_again_writes_each_row_once() {
    let (mariadb, database) = (&*shared(), "restarted");
    let config = config(mariadb, database);
    let mut world = World::new().await;
    let mut running = Running::start(&world, &config);
    world.captures("items");
    // The site's own rows.
    let before = world.writes();
    let client = Client::start(mariadb.url(database), 1);
    let mut writes = 0;
    for _ in 0..12 {
        tokio::time::sleep(random_ms(150)).await;
        running.abort();
        // Counted once the writer has ended: what was asked for may still be made.
        world.node.shutdown().await;
        writes += world.writes();
        world = world.restart().await;
        running = Running::start(&world, &config);
    }
    // And rows that are written while the node is down.
    running.stop().await;
    world.node.shutdown().await;
    writes += world.writes();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sent = client.stop();
    world = world.restart().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    world.agrees(mariadb, database);
    judge(&world, mariadb, database, &sent, writes + world.writes() - before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_while_it_is_written_loses_and_doubles_nothing() {
    let mut mariadb = MariaDb::start();
    let database = "killed";
    let config = config(&mariadb, database);
    let world = World::new().await;
    let _running = Running::start(&world, &config);
    world.captures("items");
    let before = world.writes();
    let client = Client::start(mariadb.url(database), 1);
    for _ in 0..8 {
        tokio::time::sleep(random_ms(400)).await;
        mariadb.kill9();
        mariadb.restart();
        let captured = world.report().rows_captured;
        crate::common::wait::until("capture to go on", LIMIT, || {
            (world.report().rows_captured > captured).then_some(())
        });
    }
    let sent = client.stop();
    assert!(!sent.in_doubt.is_empty(), "kills come while it writes");
    world.agrees(&mariadb, database);
    judge(&world, &mariadb, database, &sent, world.writes() - before);
}
