//! Real parts for integration tests: MariaDB instances, nodes, and links that can be cut.
//!
//! ```text
//! mariadb.rs   a private MariaDB in a temporary folder
//! node.rs      a `lastword serve` process
//! proxy.rs     a TCP proxy that can be cut, healed and frozen
//! running.rs   a mirror within the test process, and the MariaDB that tests share
//! program.rs   the program itself, run to its end
//! site.rs      a node within the test process
//! port.rs      loopback ports that stay ours while their server is down
//! guardian.rs  ends the servers of a test process that was itself killed
//! wait.rs      waiting for a condition, bounded
//! ```
//!
//! Everything is synchronous and may be used from any thread. Each part ends its own process, by
//! its id, when it is dropped.

#![allow(dead_code, reason = "each test binary uses a part of this")]

pub(crate) mod guardian;
pub(crate) mod mariadb;
pub(crate) mod node;
pub(crate) mod port;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod running;
pub(crate) mod site;
pub(crate) mod wait;
