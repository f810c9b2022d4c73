//! Applications that write SQL at both sites, and note what was acknowledged.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use mysql_async::{Conn, Opts, prelude::Queryable};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{runtime::Runtime, task::JoinHandle, time::timeout};

use crate::world::Pair;

/// A statement that takes longer is not waited for.
const STATEMENT_MAX: Duration = Duration::from_secs(10);

/// One transaction of an application: its statements, and the event that it leaves, if any.
pub(crate) struct Transaction {
    pub(crate) statements: Vec<String>,
    pub(crate) event: Option<String>,
}

/// Draws a transaction: for which site, its number there.
pub(crate) type Draw = fn(&mut SmallRng, usize, u64) -> Transaction;

/// What was acknowledged.
#[derive(Default)]
pub(crate) struct Acknowledged {
    pub(crate) done: u64,
    pub(crate) events: Vec<String>,
}

impl Acknowledged {
    /// The events that none of the rows has.
    pub(crate) fn missing(&self, rows: &[Vec<String>]) -> Vec<String> {
        let there: std::collections::HashSet<_> = rows.iter().flatten().collect();
        self.events.iter().filter(|event| !there.contains(event)).cloned().collect()
    }
}

/// Clients that write until they are told to stop.
pub(crate) struct Load {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    noted: Arc<Mutex<Acknowledged>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients at each site.
    pub(crate) fn start(pair: &Pair, clients: u64, seed: u64, draw: Draw) -> Load {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let noted = Arc::<Mutex<Acknowledged>>::default();
        let mut handles = Vec::new();
        for site in 0..2 {
            for client in 0..clients {
                let random = SmallRng::seed_from_u64(seed * 1_000 + site as u64 * 100 + client);
                let (stop, noted) = (Arc::clone(&stop), Arc::clone(&noted));
                let first = client * 1_000_000;
                let write = write_on(pair.url(site), site, first, random, draw, stop, noted);
                handles.push(runtime.spawn(write));
            }
        }
        Load { runtime, stop, noted, clients: handles }
    }

    pub(crate) fn stop(self) -> Acknowledged {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            self.runtime.block_on(client).unwrap();
        }
        std::mem::take(&mut *self.noted.lock().unwrap())
    }
}

async fn write_on(
    url: String,
    site: usize,
    first: u64,
    mut random: SmallRng,
    draw: Draw,
    stop: Arc<AtomicBool>,
    noted: Arc<Mutex<Acknowledged>>,
) {
    let mut conn: Option<Conn> = None;
    let mut number = first;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = &mut conn else {
            let opts = Opts::from_url(&url).unwrap();
            conn = timeout(STATEMENT_MAX, Conn::new(opts)).await.ok().and_then(Result::ok);
            if conn.is_none() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            continue;
        };
        number += 1;
        let Transaction { statements, event } = draw(&mut random, site, number);
        let many = statements.len() > 1;
        let all = async {
            if many {
                open.query_drop("START TRANSACTION").await?;
            }
            for statement in &statements {
                open.query_drop(statement).await?;
            }
            if many {
                open.query_drop("COMMIT").await?;
            }
            Ok::<_, mysql_async::Error>(())
        };
        match timeout(STATEMENT_MAX, all).await {
            Ok(Ok(())) => {
                let mut noted = noted.lock().unwrap();
                noted.done += 1;
                noted.events.extend(event);
            }
            // A duplicate, a deadlock, a parent that is gone: the application's own business.
            Ok(Err(mysql_async::Error::Server(_))) => {
                if open.query_drop("ROLLBACK").await.is_err() {
                    conn = None;
                }
            }
            _ => conn = None,
        }
    }
}

/// The CREATE TRIGGER statements of a script.
pub(crate) fn triggers_in(script: &str) -> String {
    let mut triggers = String::new();
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("CREATE TRIGGER") {
            triggers += line;
            triggers.push('\n');
            for line in lines.by_ref() {
                triggers += line;
                triggers.push('\n');
                if line.ends_with(';') {
                    break;
                }
            }
        }
    }
    triggers
}

/// What the clerks of the Sakila sample's stores do, at both sites.
pub(crate) fn sakila(random: &mut SmallRng, site: usize, number: u64) -> Transaction {
    let film = random.random_range(1..=60);
    let customer = random.random_range(1..=40);
    let actor = random.random_range(1..=30);
    let payment = random.random_range(1..=16_000);
    let statements = match random.random_range(0..10) {
        0 => vec![format!("UPDATE film SET title = 'FILM {site} {number}' WHERE film_id = {film}")],
        1 => vec![format!(
            "UPDATE film SET rental_rate = rental_rate + 0.01, special_features = 'Trailers,Commentaries' \
             WHERE film_id BETWEEN {film} AND {film} + 5"
        )],
        2 => vec![format!(
            "UPDATE customer SET email = 'c{customer}@{site}.{number}' WHERE customer_id = {customer}"
        )],
        3 => vec![format!(
            "INSERT INTO actor (first_name, last_name) VALUES ('Zoë {site}', 'N{number}')"
        )],
        4 => vec![
            format!("DELETE FROM film_actor WHERE film_id = {film}"),
            format!(
                "INSERT IGNORE INTO film_actor (actor_id, film_id) VALUES ({actor}, {film}), ({actor} + 1, {film})"
            ),
        ],
        5 => vec![
            format!(
                "INSERT INTO rental (rental_date, inventory_id, customer_id, staff_id) VALUES \
                 (NOW(), {}, {customer}, 1)",
                random.random_range(1..=2_000) * 2 + site
            ),
            "SET @rental = LAST_INSERT_ID()".into(),
            format!(
                "INSERT INTO payment (customer_id, staff_id, rental_id, amount, payment_date) VALUES \
                 ({customer}, 1, @rental, {}.99, NOW())",
                number % 10
            ),
        ],
        6 => vec![format!("UPDATE payment SET amount = amount + 1 WHERE payment_id = {payment}")],
        7 => vec![format!("DELETE FROM payment WHERE payment_id = {payment}")],
        8 => vec![
            format!(
                "INSERT INTO film (title, description, language_id) VALUES ('NEW {site} {number}', 'text', 1)"
            ),
            "UPDATE film SET description = 'longer text' WHERE film_id = LAST_INSERT_ID()".into(),
        ],
        _ => vec![format!(
            "REPLACE INTO film_category (film_id, category_id) VALUES ({film}, {})",
            random.random_range(1..=3)
        )],
    };
    Transaction { statements, event: None }
}
