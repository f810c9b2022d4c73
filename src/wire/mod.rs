//! Generated proto, and the one place where it becomes domain values and back.
//!
//! ```text
//! adoption.rs  tables that were there before
//! carried.rs   deltas that are carried as files
//! conflicts.rs the conflict journal
//! exchange.rs  frames between nodes
//! delta.rs     the frame that brings rows
//! compress.rs  its rows as one compressed field
//! compare.rs   those that ask how two stores differ
//! ranges.rs    ranges of rows in them
//! limits.rs    what one request may ask for
//! rows.rs      what clients send and get, with every limit
//! session.rs   the tokens that say what a client has seen
//! status.rs    the state of a node
//! verify.rs    whether two nodes have the same rows; mirror_verify.rs: a node and its MySQL
//! error.rs     errors -> canonical codes
//! windows.rs   how much comes in unread, at both ends of a connection
//! ```
//!
//! What comes in is validated here (`TryFrom`, errors that name the field); what goes out cannot
//! fail.

pub mod adoption;
pub mod carried;
mod compare;
pub mod compress;
pub mod conflicts;
pub mod delta;
pub mod error;
pub mod exchange;
pub mod limits;
pub mod mirror_verify;
mod ranges;
pub mod rows;
pub mod session;
pub mod status;
pub mod verify;
pub mod windows;

/// The generated messages, clients and servers.
#[expect(missing_docs, reason = "generated")]
#[allow(clippy::all, clippy::pedantic, reason = "generated")]
pub mod proto {
    tonic::include_proto!("lastword.v1");

    /// The compiled proto files, for server reflection.
    pub const FILE_DESCRIPTOR_SET: &[u8] =
        include_bytes!(concat!(env!("OUT_DIR"), "/lastword.v1.descriptors.bin"));
}
