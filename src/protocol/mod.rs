//! The rules of the exchange, pure: no `async`, no clock, no I/O, no randomness.
//!
//! ```text
//! capability.rs what a node can do beyond that, and whether a link uses it
//! carried.rs    whether a delta that came as a file may be merged
//! clock.rs      the hybrid logical clock
//! compare.rs    what two nodes say when one asks how their stores differ
//! frame.rs      what two nodes say to each other, as values
//! handshake.rs  whether the two may exchange at all
//! joining.rs    a store on its way into a sealed cluster
//! known.rs      what each member is known to have incorporated
//! member_rows.rs  the rows of the member tables
//! members.rs    who belongs to the cluster, and what follows from it
//! ranges/       where two stores differ, for few bytes
//! receiver.rs   frames in  --> batches for the store, with what may be claimed
//! sender.rs     what the other side lacks, and from where on to send it
//! verdict.rs    whether a difference is one, and which side is right
//! ```
//!
//! Time is handed in as milliseconds since the Unix epoch, UTC, so that a whole cluster runs in
//! one thread from one seed. The drivers are in `replication` (real links) and in the tests.

mod capability;
mod carried;
mod clock;
pub mod compare;
mod frame;
mod handshake;
mod joining;
mod known;
mod member_rows;
mod members;
pub mod ranges;
mod receiver;
mod sender;
pub mod verdict;

pub use capability::{Capabilities, Compression, SLOW_ROUND_TRIP};
pub use carried::{CarriedHeader, CarriedRefusal, check_carried};
pub use clock::Clock;
pub use frame::{Delta, Frame, Goodbye, GoodbyeReason, Hello, HelloMembership, SequenceIds, Want};
pub use handshake::{Refusal, check_hello};
pub use joining::Joining;
pub use known::Known;
pub use member_rows::{
    MEMBER_TABLES, MemberTables, SystemRow, admission_in, admission_row, member_row, removal_row,
    role_in, seal_row,
};
pub use members::{Member, Membership, RemovalAck, Standing};
pub use receiver::{Compare, DRIFT_BOUND_MS_DEFAULT, Received, Receiver, ViolationError};
pub use sender::Sender;

/// The exchange that this node speaks; two nodes must speak the same.
pub const PROTOCOL_VERSION: u32 = 1;
