//! Two databases with the same tables, written by plain SQL on both sides: they become equal, and stay so.
//!
//! What must hold at the end, whatever was cut or killed meanwhile: every table holds the same rows at both
//! sites, by dumps in the order of the primary key and, where it is installed, by `pt-table-sync`; and no
//! row is missing whose INSERT was acknowledged.
//!
//! `make test-mysql` runs the Sakila sample, too: `SAKILA` names the folder with its schema.sql and data.sql.

#![allow(clippy::print_stdout, reason = "the figures are for whoever reads the log")]

mod common;
#[path = "tables/load.rs"]
mod load;
#[path = "tables/shop.rs"]
mod shop;
#[path = "tables/world.rs"]
mod world;

use std::{fs, path::Path, time::Duration};

use load::Load;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use world::Pair;

/// A number from the environment, for longer runs.
fn setting(name: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "how long a test runs is its caller's choice")]
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?}")))
}

/// Cuts the line, kills nodes and databases; between two of them the load goes on.
fn trouble(pair: &mut Pair, rounds: u64, random: &mut SmallRng) {
    for round in 0..rounds {
        let what = random.random_range(0..6);
        let site = random.random_range(0..2);
        pause(random, 100..700);
        match what {
            0 | 1 => {
                pair.line.cut();
                pause(random, 200..1_500);
                pair.line.heal();
            }
            2 | 3 => {
                pair.sites[site].node.kill9();
                pause(random, 0..500);
                pair.sites[site].node.restart();
            }
            4 => {
                pair.sites[site].mariadb.kill9();
                pause(random, 0..300);
                pair.sites[site].mariadb.restart();
            }
            _ => {
                pair.sites[site].node.kill9();
                pair.sites[site].mariadb.kill9();
                pair.sites[site].mariadb.restart();
                pair.sites[site].node.restart();
            }
        }
        println!("trouble {round}: case {what} at site {site}");
    }
}

/// How long is the point: what happens must hit the load at any of its moments.
fn pause(random: &mut SmallRng, ms: std::ops::Range<u64>) {
    std::thread::sleep(Duration::from_millis(random.random_range(ms)));
}

#[test]
fn rows_that_were_there_before_appear_at_the_other_site() {
    let mut pair = Pair::start("shop", &[shop::SCHEMA], &[shop::SCHEMA]);
    pair.sites[0].mariadb.sql("shop", shop::DATA);
    pair.start_nodes();
    let dump = pair.until_equal();
    assert!(dump["customers"].len() > 2 && dump["order_lines"].len() > 2, "{dump:?}");
    // And one after the other, as the application goes on.
    pair.sites[1].mariadb.sql("shop", "UPDATE customers SET name = 'changed at nyc' WHERE id = 1");
    pair.sites[0].mariadb.sql("shop", "DELETE FROM order_lines WHERE order_id = 1 AND line_no = 1");
    let after = pair.until_equal();
    assert!(after["customers"].iter().any(|row| row.contains(&"changed at nyc".to_owned())));
    assert_eq!(after["order_lines"].len() + 1, dump["order_lines"].len());
}

#[test]
fn plain_sql_at_both_sites_leaves_both_databases_equal() {
    let seed = setting("TEST_SEED", 1);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut pair = Pair::start("shop", &[shop::SCHEMA], &[shop::SCHEMA]);
    pair.sites[0].mariadb.sql("shop", shop::DATA);
    pair.start_nodes();
    pair.until_equal();
    let load = Load::start(&pair, 2, seed, shop::statements);
    trouble(&mut pair, setting("TEST_KILLS", 8), &mut random);
    let acknowledged = load.stop();
    let dump = pair.until_equal();
    let missing = acknowledged.missing(&dump["events"]);
    assert!(missing.is_empty(), "acknowledged, and gone (seed {seed}): {missing:?}");
    println!(
        "{} transactions acknowledged, {} events",
        acknowledged.done,
        acknowledged.events.len()
    );
    assert!(acknowledged.done > 100 && acknowledged.events.len() > 20);
    let tables = dump.iter().map(|(table, rows)| format!("{table} {}", rows.len()));
    println!("equal: {}", tables.collect::<Vec<_>>().join(", "));
}

#[test]
#[ignore = "make test-mysql: SAKILA names the folder of the sample"]
fn the_sakila_sample() {
    #[expect(clippy::disallowed_methods, reason = "where the sample is, is its caller's to say")]
    let folder = std::env::var("SAKILA").expect("SAKILA: the folder with schema.sql and data.sql");
    let read = |name: &str| {
        let path = Path::new(&folder).join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (schema, data) = (read("schema.sql"), read("data.sql"));
    let seed = setting("TEST_SEED", 1);
    let mut random = SmallRng::seed_from_u64(seed);
    let mut pair = Pair::start("sakila", &[&schema], &[&schema]);
    pair.start_nodes();
    // While the nodes run: rows and the triggers that come with them, at one site only.
    pair.sites[0].mariadb.script("sakila", &data);
    // The application at the other site has the same triggers.
    pair.sites[1].mariadb.script("sakila", &load::triggers_in(&data));
    let dump = pair.until_equal();
    let rows: usize = dump.values().map(Vec::len).sum();
    println!("the sample is at both sites: {} tables, {rows} rows", dump.len());
    assert!(dump.len() == 16 && rows > 46_000, "{} {rows}", dump.len());
    let load = Load::start(&pair, 2, seed, load::sakila);
    trouble(&mut pair, setting("TEST_KILLS", 12), &mut random);
    let acknowledged = load.stop();
    let dump = pair.until_equal();
    let tables = dump.iter().map(|(table, rows)| format!("{table} {}", rows.len()));
    println!(
        "{} transactions acknowledged; equal: {}",
        acknowledged.done,
        tables.collect::<Vec<_>>().join(", ")
    );
    assert!(acknowledged.done > 100);
}
