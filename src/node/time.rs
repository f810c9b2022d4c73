//! The one place that looks at the clock.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

/// Wall time: the system's, or a test's.
pub trait WallClock: Send + Sync + fmt::Debug + 'static {
    /// Milliseconds since the Unix epoch, UTC. May go backwards.
    fn now_ms(&self) -> u64;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl WallClock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the home of the wall clock")]
    fn now_ms(&self) -> u64 {
        // A clock before 1970 counts as 1970: the hybrid clock goes on from what it had.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
