//! Adoption: a table whose rows stand in MySQL and in the store, which nobody told apart yet. Pure.
//!
//! ```text
//! compare.rs  one row there, one here: alike or not, and in which columns
//! newer.rs    which of the two is the later one, by a column of theirs
//! judge.rs    many rows: what each comes to, counted; which keys get an entry; which rows lose
//! ```
//!
//! **Promise.** No row goes unseen. One that only MySQL has becomes a write of this site, one that only the
//! store has is filled into MySQL, and of two different ones the loser is kept.
//!
//! **Why not stamps.** A row's own time, such as `updated_at`, could be the time of its version in the store, and
//! every site would judge alike. But a store's writes are stamped above all it has made before: that is how the
//! others know that none is missing. A stamp in the past would be taken for one that is there already. So times
//! are compared here, once, and what wins is written now.

mod compare;
mod judge;
mod newer;

pub(super) use judge::{Judged, Loser, Progress, Standing, judge};
pub(super) use newer::refused_as_time;
