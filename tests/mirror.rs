//! The mirror, with a real node in this process and a real MariaDB.
//!
//! What is judged is always the same: the rows in MySQL are the live rows of the store, byte for
//! byte, whatever happened to either side on the way.

mod common;
#[path = "mirror/crashes.rs"]
mod crashes;
#[path = "mirror/doctoring.rs"]
mod doctoring;
#[path = "mirror/encryption.rs"]
mod encryption;
#[path = "mirror/films.rs"]
mod films;
#[path = "mirror/operators.rs"]
mod operators;
#[path = "mirror/orders.rs"]
mod orders;
#[path = "mirror/refusals.rs"]
mod refusals;
#[path = "mirror/rescans.rs"]
mod rescans;
#[path = "mirror/rows.rs"]
mod rows;
#[path = "mirror/stalls.rs"]
mod stalls;
#[path = "mirror/world.rs"]
mod world;
