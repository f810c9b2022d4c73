//! What a node can do beyond the protocol, and whether a link makes use of it.
//!
//! Each side names its abilities in its hello. Names that a node does not know are passed over, so
//! that a newer release can offer more, and an older one, which names none, is taken as it is.

use std::{str::FromStr, time::Duration};

/// From such a round trip on, [`Compression::Auto`] takes a line for slow: sites of one town, or one
/// data centre, are nearer.
pub const SLOW_ROUND_TRIP: Duration = Duration::from_millis(5);

/// The abilities of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// It takes the rows of a delta compressed by zstd, too.
    pub zstd: bool,
}

const ZSTD: &str = "zstd";

impl Capabilities {
    /// Those of this release.
    #[must_use]
    pub const fn own() -> Capabilities {
        Capabilities { zstd: true }
    }

    /// Those that this release knows among `names`.
    pub fn of_names<'n>(names: impl IntoIterator<Item = &'n str>) -> Capabilities {
        let mut known = Capabilities::default();
        for name in names {
            known.zstd |= name == ZSTD;
        }
        known
    }

    /// As they stand in a hello.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.zstd.then_some(ZSTD).into_iter()
    }
}

/// Whether a node compresses what it sends over a link; the other direction is the peer's choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Where the line is slow: its round trip takes [`SLOW_ROUND_TRIP`] or longer.
    #[default]
    Auto,
    /// Always, where the peer can take it.
    On,
    /// Never.
    Off,
}

impl Compression {
    /// Whether to compress for a peer of these abilities over a line of this round trip.
    #[must_use]
    pub fn applies(self, peer: Capabilities, round_trip: Duration) -> bool {
        peer.zstd
            && match self {
                Compression::Auto => round_trip >= SLOW_ROUND_TRIP,
                Compression::On => true,
                Compression::Off => false,
            }
    }

    /// As it is written in the settings.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Compression::Auto => "auto",
            Compression::On => "on",
            Compression::Off => "off",
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Compression, String> {
        [Compression::Auto, Compression::On, Compression::Off]
            .into_iter()
            .find(|compression| compression.as_str() == text)
            .ok_or_else(|| format!("{text:?} is neither auto nor on nor off"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_are_passed_over_and_an_older_node_names_none() {
        let known = Capabilities::of_names(["lz9", "zstd", "ZSTD", ""]);
        assert_eq!(known, Capabilities { zstd: true });
        assert_eq!(Capabilities::of_names(["zstd2", "Zstd"]), Capabilities::default());
        assert_eq!(Capabilities::of_names([]), Capabilities::default());
        for capabilities in [Capabilities::own(), Capabilities::default()] {
            assert_eq!(Capabilities::of_names(capabilities.names()), capabilities);
        }
    }

    #[test]
    fn a_link_is_compressed_where_the_peer_can_and_the_setting_says_so() {
        let (able, older) = (Capabilities { zstd: true }, Capabilities::default());
        let (near, far) = (SLOW_ROUND_TRIP - Duration::from_micros(1), SLOW_ROUND_TRIP);
        for (compression, over_near, over_far) in [
            (Compression::Auto, false, true),
            (Compression::On, true, true),
            (Compression::Off, false, false),
        ] {
            assert_eq!(compression.applies(able, near), over_near, "{compression:?}");
            assert_eq!(compression.applies(able, far), over_far, "{compression:?}");
            assert!(!compression.applies(older, far), "{compression:?}");
            assert_eq!(compression.as_str().parse(), Ok(compression));
        }
        "yes".parse::<Compression>().unwrap_err();
    }
}
