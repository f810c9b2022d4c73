//! Where two stores differ, for bytes that grow with the difference and not with the stores.
//!
//! ```text
//! position.rs     the one order in which both sides lay out their rows
//! fingerprint.rs  a row's hash, and the sum of many
//! message.rs      what one side says to the other: ranges, one behind the other, bounded
//! split.rs        one pass over a range: its sum, its rows where they are few, its parts where not
//! draft.rs        a message that grows until it is full
//! comparer.rs     the side that asks, and ends with the difference
//! answer.rs       the side that answers, from one snapshot, and remembers nothing
//! ```
//!
//! The asking side says the fingerprint of each of some ranges. Where the answering side has another
//! one it answers with the fingerprints of parts of the range, or with its rows where they are few;
//! parts that still differ are asked for again, in smaller parts. So a difference is closed in by
//! either side in turn, and what is equal is skipped.
//!
//! ```text
//! Comparer::begin     --> Comparison --> answer
//! Comparer::on_answer <-- Comparison <--
//!                     --> Comparison --> answer ...      until there is nothing left to ask
//! ```
//!
//! Both sides must stand on one snapshot each for the whole comparison. A message is bounded; what does
//! not fit is left for the next one. Rounds, time and how many differences are kept are the driver's
//! to bound.
//!
//! Source: Meyer, "Range-Based Set Reconciliation", 2023.

mod answer;
mod comparer;
mod draft;
mod fingerprint;
mod message;
mod position;
mod split;
#[cfg(test)]
mod tests;

pub use answer::answer;
pub use comparer::{Comparer, Difference};
pub use fingerprint::{Fingerprint, ListedHash, RowHash, RowHasher, Sum};
pub use message::{
    Comparison, ComparisonError, ListedRow, MESSAGE_BYTES_MAX, MESSAGE_BYTES_MIN, Says,
};
pub use position::{POSITION_BYTES_MAX, Position, Span};

/// A row as it is compared.
pub type HashedRow = (Position, RowHash);

/// The rows of one side, in one consistent moment.
pub trait RowSource {
    /// Why rows cannot be read.
    type Error;

    /// The rows of `span` in the order of their positions, each with its hash; whichever rows the
    /// source leaves out, it leaves out always.
    ///
    /// # Errors
    ///
    /// Whatever the source says.
    fn rows(
        &self,
        span: &Span,
    ) -> Result<impl Iterator<Item = Result<HashedRow, Self::Error>>, Self::Error>;
}

/// Why a comparison cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompareError<E> {
    /// This side's rows cannot be read.
    #[error("{0}")]
    Source(E),
    /// A message does not keep to the rules.
    #[error("{0}")]
    Message(#[from] ComparisonError),
}
