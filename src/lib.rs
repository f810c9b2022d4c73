//! lastword: a conflict-resolving, geo-replicated key-value service.
//!
//! Web servers in several places each talk to a node beside them. Every node keeps all rows, stamps
//! each write with a hybrid logical clock, and exchanges deltas with its peers both ways.
//! Everywhere the last word wins. Each node mirrors its rows into the site's own MySQL tables.
//!
//! Imports point down only; each layer knows nothing of those above it:
//!
//! ```text
//! cli         serve and client commands, the composition root
//! config      file + environment + flags -> typed, validated settings
//! delta_file  a delta as the bytes of a file
//! edges       api (gRPC)   replication (links)   mirror (MySQL)   status (HTTP)   client
//! listen      connections in: their number and their time have a bound
//! wire        generated proto; the one place of proto <-> domain conversion
//! node        the handle every edge holds: writer (group commit), reader, clock source, errors
//! store       log, memory and redb: the one write transaction, change index, consistent views
//! protocol    pure: clock, frames, both halves of the exchange
//! model       pure: Key, Value, Hlc, Origin, Version, Row, merge
//! ```

pub mod api;
pub mod cli;
pub mod client;
pub mod config;
pub mod delta_file;
pub mod listen;
pub mod mirror;
pub mod model;
pub mod node;
pub mod protocol;
pub mod replication;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod wire;
