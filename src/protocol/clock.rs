//! The hybrid logical clock: timestamps that decide who has the last word.
//!
//! [`Clock::tick`] stamps each local write; [`Clock::observe`] is shown every stamp that is merged.
//! Together they keep one promise: a reading is greater than every reading this clock gave, or was
//! shown, before it.
//!
//! ```text
//! local write --> tick(now)       --> Hlc --> store::apply
//! peer's row  --> observe(remote)         --> store::apply
//! nothing new --> advance(now)    --> Hlc     the head of an idle origin
//! ```
//!
//! The clock never looks at the time; `now` is handed in, so a simulation may run one site fast,
//! another slow, and a third backwards. Stamps too far ahead are the exchange's to hold back
//! ([`Receiver`](super::Receiver)); the clock is shown only what was accepted.
//!
//! Source: Kulkarni et al., "Logical Physical Clocks", 2014.

use crate::model::Hlc;

/// A hybrid logical clock.
#[derive(Clone, Debug)]
pub struct Clock {
    last: Hlc,
}

impl Clock {
    /// A clock whose readings all lie above `last`: the greatest stamp that the store ever issued,
    /// accepted or reserved.
    #[must_use]
    pub fn new(last: Hlc) -> Clock {
        Clock { last }
    }

    /// The next stamp: `max(last + 1, now)`.
    ///
    /// `now_ms` is local wall time in milliseconds since the Unix epoch, UTC; it may go backwards.
    pub fn tick(&mut self, now_ms: u64) -> Hlc {
        self.last = self.last.next().max(Hlc::at_ms(now_ms));
        self.last
    }

    /// Moves past a stamp that was merged.
    pub fn observe(&mut self, remote: Hlc) {
        self.last = self.last.max(remote);
    }

    /// Follows the wall clock without issuing a stamp: every later one lies above the result.
    pub fn advance(&mut self, now_ms: u64) -> Hlc {
        self.last = self.last.max(Hlc::at_ms(now_ms));
        self.last
    }

    /// The greatest stamp issued, accepted or passed.
    #[must_use]
    pub fn last(&self) -> Hlc {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_follows_the_wall_clock_and_counts_within_a_millisecond() {
        let mut clock = Clock::new(Hlc::ZERO);
        assert_eq!(clock.tick(7), Hlc::at_ms(7));
        assert_eq!(clock.tick(7), Hlc::from_bits((7 << 16) + 1));
        assert_eq!(clock.tick(8), Hlc::at_ms(8));
    }

    #[test]
    fn a_wall_clock_set_back_changes_nothing() {
        let mut clock = Clock::new(Hlc::at_ms(1000));
        assert_eq!(clock.tick(1), Hlc::from_bits((1000 << 16) + 1));
        assert_eq!(clock.advance(1), Hlc::from_bits((1000 << 16) + 1));
    }

    proptest! {
        #[test]
        fn readings_only_rise(steps in proptest::collection::vec((0u8..3, 0u64..1 << 20), 1..100)) {
            let mut clock = Clock::new(Hlc::ZERO);
            let mut floor = Hlc::ZERO;
            for (kind, argument) in steps {
                match kind {
                    0 => {
                        let stamp = clock.tick(argument);
                        prop_assert!(stamp > floor && stamp >= Hlc::at_ms(argument));
                        floor = stamp;
                    }
                    1 => {
                        let remote = Hlc::from_bits(argument << 10);
                        clock.observe(remote);
                        floor = floor.max(remote);
                    }
                    _ => floor = floor.max(clock.advance(argument)),
                }
            }
            prop_assert!(clock.last() >= floor);
        }
    }
}
