//! The mirror, with a real node in this process and a real MariaDB.
//!
//! What is judged is always the same: the rows in MySQL are the live rows of the store, byte for
//! byte, whatever happened to either side on the way.

#[path = "mirror/bulks.rs"]
mod bulks;
#[path = "mirror/column_verifies.rs"]
mod column_verifies;
#[path = "mirror/commit_proxy.rs"]
mod commit_proxy;
#[path = "mirror/commits.rs"]
mod commits;
mod common;
#[path = "mirror/crashes.rs"]
mod crashes;
#[path = "mirror/doctoring.rs"]
mod doctoring;
#[path = "mirror/encryption.rs"]
mod encryption;
#[path = "mirror/films.rs"]
mod films;
#[path = "mirror/kills.rs"]
mod kills;
#[path = "mirror/operators.rs"]
mod operators;
#[path = "mirror/orders.rs"]
mod orders;
#[path = "mirror/process.rs"]
mod process;
#[path = "mirror/refusals.rs"]
mod refusals;
#[path = "mirror/rescans.rs"]
mod rescans;
#[path = "mirror/rows.rs"]
mod rows;
#[path = "mirror/stalls.rs"]
mod stalls;
#[path = "mirror/takeovers.rs"]
mod takeovers;
#[path = "mirror/verifies.rs"]
mod verifies;
#[path = "mirror/world.rs"]
mod world;
