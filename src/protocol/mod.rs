//! The rules of the exchange, pure: no `async`, no clock, no I/O, no randomness.
//!
//! ```text
//! carried.rs    whether a delta that came as a file may be merged
//! clock.rs      the hybrid logical clock
//! frame.rs      what two nodes say to each other, as values
//! handshake.rs  whether the two may exchange at all
//! receiver.rs   frames in  --> batches for the store, with what may be claimed
//! sender.rs     what the other side lacks, and from where on to send it
//! ```
//!
//! Time is handed in as milliseconds since the Unix epoch, UTC, so that a whole cluster runs in
//! one thread from one seed. The drivers are in `replication` (real links) and in the tests.

mod carried;
mod clock;
mod frame;
mod handshake;
mod receiver;
mod sender;

pub use carried::{CarriedHeader, CarriedRefusal, check_carried};
pub use clock::Clock;
pub use frame::{Delta, Frame, Goodbye, GoodbyeReason, Hello, SequenceIds};
pub use handshake::{Refusal, check_hello};
pub use receiver::{DRIFT_BOUND_MS_DEFAULT, Received, Receiver, ViolationError};
pub use sender::Sender;

/// The exchange that this node speaks; two nodes must speak the same.
pub const PROTOCOL_VERSION: u32 = 1;
