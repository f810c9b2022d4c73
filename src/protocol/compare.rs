//! What two nodes say to each other when one asks how their stores differ.
//!
//! ```text
//! Begin { heads }  -->  the other takes a snapshot once it has all that   --> Begun { heads, floor }
//! Ranges           -->  fingerprints of ranges: see `ranges`              --> Ranges
//! Rows             -->  bodies of that snapshot                           --> Bodies
//! End              -->  it lets the snapshot go
//! ```
//!
//! One question is under way at a time; each carries the number of its comparison.

use bytes::Bytes;

use super::ranges::{Comparison, Position};
use crate::model::Heads;

/// The most rows that are asked for at once.
pub const COMPARED_ROWS_MAX: usize = 4_096;

/// What the asking side asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Take a snapshot, best one that has incorporated these heads. One of an earlier comparison is let
    /// go.
    Begin(Heads),
    /// The fingerprints of ranges.
    Ranges(Comparison),
    /// The rows at these positions, at most [`COMPARED_ROWS_MAX`].
    Rows(Vec<Position>),
    /// The comparison is over: there is no answer.
    End,
}

/// What the other side answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The snapshot was taken.
    Begun {
        /// What it has incorporated.
        heads: Heads,
        /// Up to where dead rows may be gone in it.
        floor: Heads,
    },
    /// Its fingerprints and rows, as far as the message had room.
    Ranges(Comparison),
    /// The bytes of the bodies there, tombstones included, in the order asked, as far as the message
    /// had room, at least one. They may be damaged: that is what is looked for.
    Bodies(Vec<Option<Bytes>>),
    /// Why there is no answer.
    Refused(String),
}
