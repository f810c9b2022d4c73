//! Stamps and their order: [`Hlc`], [`Origin`] and the [`Version`] made of both.
//!
//! A version is unique for every write of the whole cluster, and all sites order versions alike;
//! that order *is* the conflict rule, so the order of [`Version`]'s fields is semantics.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// A hybrid logical timestamp: 48 bits of milliseconds since the Unix epoch (UTC), then a 16-bit
/// counter.
///
/// Source: Kulkarni et al., "Logical Physical Clocks", 2014.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hlc(u64);

impl Hlc {
    /// Before every write.
    pub const ZERO: Hlc = Hlc(0);
    /// The greatest stamp there is. No write has it: as a head it says that its origin is *closed*,
    /// that all of its writes there will ever be are here.
    pub const MAX: Hlc = Hlc(u64::MAX);

    /// A stamp from its 64 bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Hlc {
        Hlc(bits)
    }

    /// The stamp's 64 bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The first stamp of a millisecond since the Unix epoch, UTC. Times past the year 10889 (more
    /// than 48 bits) give the last millisecond there is.
    #[must_use]
    pub const fn at_ms(ms: u64) -> Hlc {
        const MS_MAX: u64 = (1 << 48) - 1;
        Hlc(if ms > MS_MAX { MS_MAX } else { ms } << 16)
    }

    /// Milliseconds since the Unix epoch, UTC.
    #[must_use]
    pub const fn ms(self) -> u64 {
        self.0 >> 16
    }

    /// The counter within the millisecond.
    #[must_use]
    pub const fn counter(self) -> u16 {
        (self.0 & 0xffff) as u16
    }

    /// The next stamp; a counter that is full spills into the next millisecond. Saturates at
    /// [`Hlc::MAX`].
    #[must_use]
    pub const fn next(self) -> Hlc {
        Hlc(self.0.saturating_add(1))
    }

    /// Whether, as a head, this one says that its origin is closed.
    #[must_use]
    pub const fn is_closed(self) -> bool {
        self.0 == u64::MAX
    }

    /// Whether this stamp leads `now_ms` by more than `bound_ms`.
    #[must_use]
    pub const fn is_beyond(self, now_ms: u64, bound_ms: u64) -> bool {
        self.ms() > now_ms.saturating_add(bound_ms)
    }
}

impl fmt::Display for Hlc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Hlc {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Hlc, Self::Err> {
        text.parse().map(Hlc)
    }
}

/// The 16-byte UUID of one store: made when the store is created, new after a restore.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin(Uuid);

impl Origin {
    /// An origin from its 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Origin {
        Origin(Uuid::from_bytes(bytes))
    }

    /// The 16 bytes, in the order that sorts.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Origin {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Origin, uuid::Error> {
        Uuid::parse_str(text).map(Origin)
    }
}

/// Which write this is, and which of two writes has the last word: the greater one.
///
/// The stamp decides; the origin breaks ties, alike everywhere. The order of the fields is the
/// order of the comparison.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// When, by the writer's hybrid clock.
    pub hlc: Hlc,
    /// The store that wrote.
    pub origin: Origin,
}

impl Version {
    /// The order of the change index and of a delta: origin by origin, each in the order of its
    /// stamps.
    #[must_use]
    pub fn in_index(self) -> (Origin, Hlc) {
        (self.origin, self.hlc)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.hlc, self.origin)
    }
}

/// Why a text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not HLC@ORIGIN, a number and a UUID")]
pub struct VersionError;

impl FromStr for Version {
    type Err = VersionError;

    /// Upper and lower case are the same.
    fn from_str(text: &str) -> Result<Version, VersionError> {
        let (hlc, origin) = text.split_once('@').ok_or(VersionError)?;
        Ok(Version {
            hlc: hlc.parse().map_err(|_| VersionError)?,
            origin: origin.parse().map_err(|_| VersionError)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn origin(byte: u8) -> Origin {
        Origin::from_bytes([byte; 16])
    }

    #[test]
    fn the_stamp_decides_before_the_origin() {
        let older = Version { hlc: Hlc::from_bits(1), origin: origin(9) };
        let younger = Version { hlc: Hlc::from_bits(2), origin: origin(1) };
        let tie = Version { hlc: Hlc::from_bits(2), origin: origin(2) };
        assert!(older < younger && younger < tie);
    }

    #[test]
    fn what_is_no_version_is_refused() {
        for text in ["", "7", "@", "x@00112233-4455-6677-8899-aabbccddeeff", "7@0011", "-1@"] {
            assert_eq!(text.parse::<Version>(), Err(VersionError), "{text}");
        }
    }

    #[test]
    fn a_full_counter_spills_into_the_next_millisecond() {
        let full = Hlc::from_bits((7 << 16) | 0xffff);
        assert_eq!(full.next(), Hlc::at_ms(8));
        assert_eq!(Hlc::MAX.next(), Hlc::MAX);
    }

    #[test]
    fn times_beyond_48_bits_are_clipped() {
        assert_eq!(Hlc::at_ms(u64::MAX).ms(), (1 << 48) - 1);
    }

    proptest! {
        #[test]
        fn text_and_bits_round_trip(bits: u64, bytes: [u8; 16]) {
            let hlc = Hlc::from_bits(bits);
            prop_assert_eq!(hlc.to_string().parse::<Hlc>().unwrap(), hlc);
            prop_assert_eq!((hlc.ms() << 16) | u64::from(hlc.counter()), bits);
            let origin = Origin::from_bytes(bytes);
            prop_assert_eq!(origin.to_string().parse::<Origin>().unwrap(), origin);
            let version = Version { hlc, origin };
            prop_assert_eq!(version.to_string().parse(), Ok(version));
            prop_assert_eq!(version.to_string().to_uppercase().parse(), Ok(version));
        }

        #[test]
        fn being_beyond_is_strict(now in 0u64..1 << 47, bound in 0u64..1 << 20, lead in 0u64..1 << 21) {
            prop_assert_eq!(Hlc::at_ms(now + lead).is_beyond(now, bound), lead > bound);
        }
    }
}
