//! Version vectors: [`Heads`], what a store has incorporated, and [`Context`], what a row's writer
//! had seen of it.
//!
//! `heads[o] = t` says: every write of origin `o` up to `t` is here, or something that supersedes
//! it. An origin that is not named stands at [`Hlc::ZERO`].

use std::fmt;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{Hlc, Origin, Version};

/// Before a vector as text: its first form.
const TEXT_PREFIX: &str = "h1.";

/// For some origins, a stamp each; kept in the order of the origins, without zeros.
///
/// An empty one allocates nothing: most rows have an empty [`Context`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VersionVector(Vec<(Origin, Hlc)>);

/// What a store has incorporated, or claims to have.
pub type Heads = VersionVector;

/// The versions of one key that its writer had seen, the writer's own aside.
pub type Context = VersionVector;

impl VersionVector {
    /// Names no origin. Allocates nothing.
    #[must_use]
    pub const fn new() -> VersionVector {
        VersionVector(Vec::new())
    }

    /// The stamp of `origin`; [`Hlc::ZERO`] where it is not named.
    #[must_use]
    pub fn get(&self, origin: Origin) -> Hlc {
        match self.position(origin) {
            Ok(at) => self.0[at].1,
            Err(_) => Hlc::ZERO,
        }
    }

    /// Raises the stamp of `origin` to `hlc`; never lowers it. Says whether it moved.
    pub fn raise(&mut self, origin: Origin, hlc: Hlc) -> bool {
        match self.position(origin) {
            Ok(at) if self.0[at].1 < hlc => self.0[at].1 = hlc,
            Err(at) if hlc > Hlc::ZERO => self.0.insert(at, (origin, hlc)),
            _ => return false,
        }
        true
    }

    /// Raises every stamp to that of `other`. Says whether any moved.
    pub fn join(&mut self, other: &VersionVector) -> bool {
        let mut moved = false;
        for &(origin, hlc) in &other.0 {
            moved |= self.raise(origin, hlc);
        }
        moved
    }

    /// Takes `origin` out.
    pub fn remove(&mut self, origin: Origin) {
        if let Ok(at) = self.position(origin) {
            self.0.remove(at);
        }
    }

    /// Whether the write `version` is at or below the stamp of its origin.
    #[must_use]
    pub fn includes(&self, version: Version) -> bool {
        version.hlc <= self.get(version.origin)
    }

    /// Whether no stamp of `other` is above ours.
    #[must_use]
    pub fn covers(&self, other: &VersionVector) -> bool {
        other.0.iter().all(|&(origin, hlc)| hlc <= self.get(origin))
    }

    /// With every stamp at or above `limit` lowered to `to`, which lies below it. Closed origins stay
    /// closed.
    #[must_use]
    pub fn clipped(&self, limit: Hlc, to: Hlc) -> VersionVector {
        let clip = |hlc: Hlc| if hlc < limit || hlc.is_closed() { hlc } else { to };
        self.0.iter().map(|&(origin, hlc)| (origin, clip(hlc))).collect()
    }

    /// The greatest stamp of an origin that is not closed.
    #[must_use]
    pub fn greatest_open(&self) -> Hlc {
        self.0.iter().map(|&(_, hlc)| hlc).filter(|hlc| !hlc.is_closed()).max().unwrap_or_default()
    }

    /// Of each origin the lesser stamp of the two: what both have.
    #[must_use]
    pub fn meet(&self, other: &VersionVector) -> VersionVector {
        self.0.iter().map(|&(origin, hlc)| (origin, hlc.min(other.get(origin)))).collect()
    }

    /// The origins named and their stamps, in the order of the origins.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, Hlc)> + '_ {
        self.0.iter().copied()
    }

    /// How many origins are named.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no origin is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// 24 bytes for each origin: its 16, then the stamp, big-endian.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 24);
        for (origin, hlc) in &self.0 {
            bytes.extend_from_slice(origin.as_bytes());
            bytes.extend_from_slice(&hlc.bits().to_be_bytes());
        }
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) made; `None` where the length is not a multiple of 24.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<VersionVector> {
        let (entries, []) = bytes.as_chunks::<24>() else {
            return None;
        };
        Some(
            entries
                .iter()
                .map(|entry| {
                    let (origin, hlc) = entry.split_at(16);
                    let origin = origin.try_into().expect("16 of 24 bytes");
                    let hlc = hlc.try_into().expect("8 of 24 bytes");
                    (Origin::from_bytes(origin), Hlc::from_bits(u64::from_be_bytes(hlc)))
                })
                .collect(),
        )
    }

    /// One word that can be carried by hand: `h1.`, then [`to_bytes`](Self::to_bytes) in base64 for
    /// URLs. It is no site's name.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{TEXT_PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(self.to_bytes()))
    }

    /// What [`to_text`](Self::to_text) made; `None` for any other text.
    #[must_use]
    pub fn from_text(text: &str) -> Option<VersionVector> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_prefix(TEXT_PREFIX)?).ok()?;
        VersionVector::from_bytes(&bytes)
    }

    fn position(&self, origin: Origin) -> Result<usize, usize> {
        self.0.binary_search_by_key(&origin, |&(origin, _)| origin)
    }
}

impl FromIterator<(Origin, Hlc)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Origin, Hlc)>>(entries: I) -> VersionVector {
        let mut vector = VersionVector::new();
        for (origin, hlc) in entries {
            vector.raise(origin, hlc);
        }
        vector
    }
}

impl fmt::Display for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (origin, hlc)) in self.0.iter().enumerate() {
            f.write_str(if at == 0 { "" } else { " " })?;
            match hlc.is_closed() {
                true => write!(f, "closed@{origin}")?,
                false => write!(f, "{hlc}@{origin}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vectors() -> impl Strategy<Value = VersionVector> {
        proptest::collection::vec((0u8..5, 0u64..50), 0..8).prop_map(|entries| {
            entries
                .into_iter()
                .map(|(o, h)| (Origin::from_bytes([o; 16]), Hlc::from_bits(h)))
                .collect()
        })
    }

    fn joined(a: &VersionVector, b: &VersionVector) -> VersionVector {
        let mut sum = a.clone();
        sum.join(b);
        sum
    }

    proptest! {
        #[test]
        fn joining_is_a_least_upper_bound(a in vectors(), b in vectors(), c in vectors()) {
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(&joined(&a, &a), &a);
            prop_assert!(joined(&a, &b).covers(&a) && joined(&a, &b).covers(&b));
            prop_assert!(!(c.covers(&a) && c.covers(&b)) || c.covers(&joined(&a, &b)));
            prop_assert_eq!(a.covers(&b) && b.covers(&a), a == b);
            let both = a.meet(&b);
            prop_assert!(a.covers(&both) && b.covers(&both));
            prop_assert!(!(a.covers(&c) && b.covers(&c)) || both.covers(&c));
        }

        #[test]
        fn bytes_round_trip(a in vectors()) {
            prop_assert_eq!(VersionVector::from_text(&a.to_text()), Some(a.clone()));
            prop_assert_eq!(VersionVector::from_bytes(&a.to_bytes()), Some(a));
        }

        #[test]
        fn clipping_lowers_only_what_is_above(a in vectors(), limit in 1u64..50, by in 1u64..50) {
            let to = Hlc::from_bits(limit.saturating_sub(by));
            let limit = Hlc::from_bits(limit);
            let clipped = a.clipped(limit, to);
            for (origin, hlc) in a.iter() {
                prop_assert_eq!(clipped.get(origin), if hlc < limit { hlc } else { to });
            }
        }
    }

    #[test]
    fn a_closed_origin_is_shown_as_such() {
        let heads = [(1, Hlc::from_bits(7)), (2, Hlc::MAX)];
        let heads: VersionVector =
            heads.into_iter().map(|(o, h)| (Origin::from_bytes([o; 16]), h)).collect();
        let [one, two] = [1, 2].map(|o| Origin::from_bytes([o; 16]));
        assert_eq!(heads.to_string(), format!("7@{one} closed@{two}"));
    }

    #[test]
    fn odd_lengths_are_refused() {
        assert_eq!(VersionVector::from_bytes(&[0; 23]), None);
        for text in ["", "h1", "h1.AAAA", "h2.", "h1.!", "fra"] {
            assert_eq!(VersionVector::from_text(text), None, "{text}");
        }
        assert_eq!(VersionVector::from_text("h1."), Some(VersionVector::new()));
    }
}
