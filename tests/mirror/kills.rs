//! `kill -9` of the node's process and of MariaDB, at random moments, under load.
//!
//! `KILLS=300 cargo test --test mirror kills::` kills more often.

use std::time::Duration;

use lastword::model::Heads;
use tokio::time::sleep;

use crate::{
    commit_proxy::CommitProxy,
    commits::judge_all,
    common::{mariadb::MariaDb, node::Node, wait::until},
    crashes::{Load, settle},
    process::{ClientLoad, judge},
    world::{LIMIT, Running, World, checkpoint, config, shared},
};

/// How often the everyday run kills each of the two.
const KILLS: u64 = 20;

/// As the environment says.
fn kills() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long a test runs is for who runs it")]
    let asked = std::env::var("KILLS").ok();
    asked.map_or(KILLS, |text| text.parse().expect("KILLS is a number"))
}

pub(crate) async fn some_ms(max: u64) {
    sleep(Duration::from_millis(rand::random::<u64>() % max)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_at_random_moments_leaves_mysql_exact() {
    let (mariadb, database) = (&*shared(), "node_kills");
    let mut node = Node::new("fra").mysql(&mariadb.url(database)).start();
    let mut claimed = Heads::new();
    for kill in 0..kills() {
        let load = ClientLoad::start(&node);
        // While it writes; while it still starts; while its mirror begins.
        some_ms(250).await;
        node.kill9();
        node.spawn();
        if kill % 3 == 0 {
            some_ms(60).await;
            node.kill9();
            node.spawn();
        }
        node.wait_answering();
        some_ms(50).await;
        load.stop().await;
        let now = judge(&node, mariadb, database).await;
        assert!(now.covers(&claimed), "the checkpoint went back: {claimed} to {now}");
        claimed = now;
    }
}

/// The node is in this process here: its mirror looks for MySQL again at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_killed_at_random_moments_is_exact_again() {
    let mut mariadb = MariaDb::start();
    let database = "mysql_kills";
    let world = World::new().await;
    let _mirror = Running::start(&world, &config(&mariadb, database));
    let mut claimed = Heads::new();
    for _ in 0..kills() {
        let load = Load::start(&world);
        some_ms(300).await;
        mariadb.kill9();
        // The node does not mind.
        let written = || world.node.status().unwrap().rows_written;
        let before = written();
        until("more writes", LIMIT, || (written() > before + 50).then_some(()));
        mariadb.restart();
        some_ms(100).await;
        load.stop().await;
        settle(&world, &mariadb, database);
        judge_all(&world, &mariadb, database);
        let (now, _) = checkpoint(&mariadb, database);
        assert!(now.covers(&claimed), "the checkpoint went back: {claimed} to {now}");
        claimed = now;
    }
}

/// Both at once, in either order, on a line that breaks at commits.
#[tokio::test(flavor = "multi_thread")]
async fn both_killed_on_a_bad_line_are_exact_again() {
    let mut mariadb = MariaDb::start();
    let database = "both_kills";
    let _ = mariadb.url(database);
    let proxy = CommitProxy::start(([127, 0, 0, 1], mariadb.port()).into(), rand::random());
    let url = format!("mysql://root@127.0.0.1:{}/{database}", proxy.port());
    let mut node = Node::new("fra").mysql(&url).start();
    for round in 0..kills() / 4 {
        let load = ClientLoad::start(&node);
        proxy.break_at(10, 10);
        some_ms(300).await;
        if round % 2 == 0 {
            mariadb.kill9();
            some_ms(20).await;
            node.kill9();
        } else {
            node.kill9();
            some_ms(20).await;
            mariadb.kill9();
        }
        node.spawn();
        mariadb.restart();
        node.wait_answering();
        some_ms(200).await;
        load.stop().await;
        proxy.break_at(0, 0);
        judge(&node, &mariadb, database).await;
    }
}
