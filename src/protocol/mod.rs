//! The rules of the exchange, pure: no `async`, no clock, no I/O, no randomness.
//!
//! ```text
//! clock.rs      the hybrid logical clock
//! compare.rs    what two nodes say when one asks how their stores differ
//! frame.rs      what two nodes say to each other, as values
//! handshake.rs  whether the two may exchange at all
//! ranges/       where two stores differ, for few bytes
//! receiver.rs   frames in  --> batches for the store, with what may be claimed
//! sender.rs     what the other side lacks, and from where on to send it
//! verdict.rs    whether a difference is one, and which side is right
//! ```
//!
//! Time is handed in as milliseconds since the Unix epoch, UTC, so that a whole cluster runs in
//! one thread from one seed. The drivers are in `replication` (real links) and in the tests.

mod clock;
pub mod compare;
mod frame;
mod handshake;
pub mod ranges;
mod receiver;
mod sender;
pub mod verdict;

pub use clock::Clock;
pub use frame::{Delta, Frame, Goodbye, GoodbyeReason, Hello, SequenceIds};
pub use handshake::{Refusal, check_hello};
pub use receiver::{DRIFT_BOUND_MS_DEFAULT, Received, Receiver, ViolationError};
pub use sender::Sender;

/// The exchange that this node speaks; two nodes must speak the same.
pub const PROTOCOL_VERSION: u32 = 1;
