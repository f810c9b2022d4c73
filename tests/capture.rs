//! What applications write into MySQL becomes this site's writes, once each: with a real node in this process
//! and a real MariaDB.
//!
//! What is judged is always the same: the rows in MySQL and the live rows of the store are the same, and the
//! store wrote no row more often than the applications did.

mod common;
#[path = "capture/crashes.rs"]
mod crashes;
#[path = "capture/guards.rs"]
mod guards;
#[path = "capture/orders.rs"]
mod orders;
#[path = "capture/races.rs"]
mod races;
#[path = "capture/schema.rs"]
mod schema;
#[path = "capture/statements.rs"]
mod statements;
#[path = "capture/world.rs"]
mod world;
