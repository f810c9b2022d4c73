//! One node and its real servers on loopback ports: every rpc, every limit, every promise that one
//! node can keep alone.
//!
//! ```text
//! served.rs   a node in a temporary folder, with a clock that the test sets
//! writes.rs   put, delete, insert, batch
//! reads.rs    get, get many, sessions
//! scans.rs    scan
//! conflicts.rs the conflict journal
//! closed.rs   what is shown and claimed of a site that was removed
//! files.rs    deltas that are carried by hand
//! limits.rs   at each limit a request passes, one above it is refused
//! serving.rs  health, reflection, status, shutdown
//! pages.rs    the HTTP server
//! ```

mod bulk;
mod closed;
mod conflicts;
mod files;
mod limits;
mod pages;
mod reads;
mod scans;
mod served;
mod serving;
mod writes;
