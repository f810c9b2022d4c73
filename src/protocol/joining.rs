//! A store on its way into a sealed cluster: what it keeps in mind of that.

use crate::model::{Hlc, Origin};

/// A store on its way into a sealed cluster. Meanwhile it takes no clients' writes, stamps nothing, and
/// exchanges with its sponsor alone until it has pulled everything from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joining {
    /// The member that admitted it.
    pub sponsor: Origin,
    /// The stamp of its admission: it will stamp above it only.
    pub admission: Hlc,
    /// Whether it has incorporated the admission, and all that the sponsor had then. Now every member
    /// must be known to have heard of the admission.
    pub pulled: bool,
}

impl Joining {
    /// 16 bytes of sponsor, 8 of stamp, 1 whether it has pulled.
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.sponsor.as_bytes().to_vec();
        bytes.extend_from_slice(&self.admission.bits().to_be_bytes());
        bytes.push(u8::from(self.pulled));
        bytes
    }

    /// What [`to_bytes`](Self::to_bytes) made.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Joining> {
        let (sponsor, rest) = bytes.split_first_chunk::<16>()?;
        let (admission, rest) = rest.split_first_chunk::<8>()?;
        Some(Joining {
            sponsor: Origin::from_bytes(*sponsor),
            admission: Hlc::from_bits(u64::from_be_bytes(*admission)),
            pulled: *rest.first()? != 0,
        })
    }
}
