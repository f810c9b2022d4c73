//! The row itself, in the bytes that it is stored and sent in.
//!
//! A [`Body`] keeps the bytes it was decoded from, and those are what travels on: an older node
//! that relays a row passes on what a newer one added to it. All numbers are big-endian.
//!
//! ```text
//! offset  bytes  content
//! 0       1      format, 1
//! 1       1      flags: 1 tombstone, 2 has expiry, 4 has context; others: later versions'
//! 2       2      header length: the value begins there and takes the rest
//! 4       8      hlc
//! 12      16     origin
//! 28      8      seen
//! 36      8      expiry, ms since the Unix epoch, UTC     only with flag 2
//! ..      2      number of context entries                only with flag 4
//! ..      24 n   context: origin, hlc; by origin          only with flag 4
//! ..             what later versions add, up to the header length
//! ```

use bytes::{BufMut, Bytes};

use super::{Context, Hlc, Key, Origin, TableName, Version};

/// The most origins a context may name.
pub const CONTEXT_ORIGINS_MAX: usize = 1_024;

const FORMAT: u8 = 1;
const FLAG_TOMBSTONE: u8 = 1;
const FLAG_EXPIRY: u8 = 2;
const FLAG_CONTEXT: u8 = 4;
const FIXED_BYTES: usize = 36;
const ENTRY_BYTES: usize = 24;

/// One version of a row: a value or a tombstone, and what decides its fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    bytes: Bytes,
    value_at: usize,
    tombstone: bool,
    version: Version,
    seen: Hlc,
    expires_at_ms: Option<u64>,
    context: Context,
}

/// What a new body is made of.
#[derive(Clone, Debug)]
pub struct BodyParts<'a> {
    /// Which write this is.
    pub version: Version,
    /// Every write stamped up to here had been seen by the writer.
    pub seen: Hlc,
    /// The versions of this key by other origins, above `seen`, that the writer had seen.
    pub context: &'a Context,
    /// When the row expires, in milliseconds since the Unix epoch, UTC.
    pub expires_at_ms: Option<u64>,
    /// The value; `None` for a tombstone.
    pub value: Option<&'a [u8]>,
}

impl BodyParts<'_> {
    /// A tombstone does not expire.
    fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms.filter(|_| self.value.is_some())
    }

    /// Writes the row's bytes behind what `out` holds; gives where in them the value begins. The same
    /// holds for the context as in [`Body::new`].
    pub fn encode(&self, out: &mut Vec<u8>) -> usize {
        let context_bytes = match self.context.len() {
            0 => 0,
            n => 2 + n * ENTRY_BYTES,
        };
        let expires_at_ms = self.expires_at_ms();
        let value_at = FIXED_BYTES + if expires_at_ms.is_some() { 8 } else { 0 } + context_bytes;
        let value = self.value.unwrap_or_default();
        let flags = if self.value.is_none() { FLAG_TOMBSTONE } else { 0 }
            | if expires_at_ms.is_some() { FLAG_EXPIRY } else { 0 }
            | if self.context.is_empty() { 0 } else { FLAG_CONTEXT };

        out.reserve(value_at + value.len());
        let from = out.len();
        out.put_u8(FORMAT);
        out.put_u8(flags);
        out.put_u16(u16::try_from(value_at).expect("a context of at most 1,024 origins"));
        out.put_u64(self.version.hlc.bits());
        out.put_slice(self.version.origin.as_bytes());
        out.put_u64(self.seen.bits());
        if let Some(ms) = expires_at_ms {
            out.put_u64(ms);
        }
        if !self.context.is_empty() {
            out.put_u16(u16::try_from(self.context.len()).expect("at most 1,024 origins"));
            out.put_slice(&self.context.to_bytes());
        }
        debug_assert_eq!(out.len() - from, value_at);
        out.put_slice(value);
        value_at
    }
}

/// Why bytes are no body. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Cut short, or lengths that do not fit.
    #[error("row: the encoding is cut short or its lengths do not fit")]
    Malformed,
    /// Written by a version of lastword that this one does not understand.
    #[error("row: encoding format {0} is newer than this node understands: upgrade this node")]
    UnknownFormat(u8),
    /// A stamp that no sound store issues.
    #[error("row: {0}")]
    Unsound(&'static str),
}

impl Body {
    /// Encodes a new row.
    ///
    /// `parts.context` must name at most [`CONTEXT_ORIGINS_MAX`] origins, each below
    /// `parts.version`; the store's write path sees to that.
    #[must_use]
    pub fn new(parts: &BodyParts<'_>) -> Body {
        let mut bytes = Vec::new();
        let value_at = parts.encode(&mut bytes);
        Body {
            bytes: bytes.into(),
            value_at,
            tombstone: parts.value.is_none(),
            version: parts.version,
            seen: parts.seen,
            expires_at_ms: parts.expires_at_ms(),
            context: parts.context.clone(),
        }
    }

    /// The version alone, of bytes that [`decode`](Self::decode) accepts.
    #[must_use]
    pub fn version_in(bytes: &[u8]) -> Option<Version> {
        Some(Version {
            hlc: Hlc::from_bits(u64::from_be_bytes(array(bytes, 4).ok()?)),
            origin: Origin::from_bytes(array(bytes, 12).ok()?),
        })
    }

    /// Whether these bytes are a delete, without decoding them; bytes that do not decode may say
    /// either.
    #[must_use]
    pub fn is_tombstone_in(bytes: &[u8]) -> bool {
        matches!(bytes, [FORMAT, flags, ..] if flags & FLAG_TOMBSTONE != 0)
    }

    /// Reads a row from its bytes, which are kept as they are.
    ///
    /// # Errors
    ///
    /// [`BodyError`]; whatever decodes can be merged.
    pub fn decode(bytes: Bytes) -> Result<Body, BodyError> {
        match bytes.first() {
            None => return Err(BodyError::Malformed),
            Some(&FORMAT) => {}
            Some(&other) => return Err(BodyError::UnknownFormat(other)),
        }
        let flags = *bytes.get(1).ok_or(BodyError::Malformed)?;
        let value_at = usize::from(u16::from_be_bytes(array(&bytes, 2)?));
        let header = bytes.get(..value_at).ok_or(BodyError::Malformed)?;
        let version = Body::version_in(header).ok_or(BodyError::Malformed)?;
        let seen = Hlc::from_bits(u64::from_be_bytes(array(header, 28)?));
        let mut at = FIXED_BYTES;
        let expires_at_ms = if flags & FLAG_EXPIRY != 0 {
            at += 8;
            Some(u64::from_be_bytes(array(header, at - 8)?))
        } else {
            None
        };
        let mut context = Context::new();
        if flags & FLAG_CONTEXT != 0 {
            let count = usize::from(u16::from_be_bytes(array(header, at)?));
            at += 2;
            let entries = header.get(at..at + count * ENTRY_BYTES).ok_or(BodyError::Malformed)?;
            context = Context::from_bytes(entries).ok_or(BodyError::Malformed)?;
            if count > CONTEXT_ORIGINS_MAX || context.len() != count {
                return Err(BodyError::Unsound("its context names an origin twice, or too many"));
            }
        }
        let tombstone = flags & FLAG_TOMBSTONE != 0;
        if version.hlc == Hlc::ZERO {
            return Err(BodyError::Unsound("its stamp is zero"));
        }
        if seen >= version.hlc || context.iter().any(|(_, hlc)| hlc >= version.hlc) {
            return Err(BodyError::Unsound("it claims to have seen writes younger than itself"));
        }
        if tombstone && (bytes.len() > value_at || expires_at_ms.is_some()) {
            return Err(BodyError::Unsound("a tombstone has neither value nor expiry"));
        }
        Ok(Body { value_at, tombstone, version, seen, expires_at_ms, context, bytes })
    }

    /// The encoding, as it came in or was made.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Which write this is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Every write stamped up to here had been seen by the writer.
    #[must_use]
    pub fn seen(&self) -> Hlc {
        self.seen
    }

    /// What else of this key the writer had seen.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// When the row expires, in milliseconds since the Unix epoch, UTC; `None`: never.
    #[must_use]
    pub fn expires_at_ms(&self) -> Option<u64> {
        self.expires_at_ms
    }

    /// Whether this is a delete.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.tombstone
    }

    /// Whether the row is there for a reader whose clock shows `now_ms`.
    #[must_use]
    pub fn is_live(&self, now_ms: u64) -> bool {
        !self.tombstone && self.expires_at_ms.is_none_or(|ms| ms > now_ms)
    }

    /// The value, sharing the encoding's memory; `None` for a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<Bytes> {
        (!self.tombstone).then(|| self.bytes.slice(self.value_at..))
    }

    /// Whether both are deletes, or both hold the same value.
    #[must_use]
    pub fn same_value(&self, other: &Body) -> bool {
        self.tombstone == other.tombstone
            && self.bytes[self.value_at..] == other.bytes[other.value_at..]
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], BodyError> {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().ok_or(BodyError::Malformed)
}

/// A row in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The table.
    pub table: TableName,
    /// The key within the table.
    pub key: Key,
    /// The version of the row that stands there.
    pub body: Body,
}

impl Row {
    /// The row's share of a frame, a batch or a cache, in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.table.as_str().len() + self.key.as_slice().len() + self.body.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(bits: u64) -> Version {
        Version { hlc: Hlc::from_bits(bits), origin: Origin::from_bytes([0xab; 16]) }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The encoding is a contract with every store and node out there.
    #[test]
    fn golden_bytes() {
        let plain = Body::new(&BodyParts {
            version: version(0x0102_0304_0506_0708),
            seen: Hlc::from_bits(5),
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(b"v"),
        });
        assert_eq!(
            hex(plain.bytes()),
            "010000240102030405060708abababababababababababababababab000000000000000576"
        );
        let context = [(Origin::from_bytes([1; 16]), Hlc::from_bits(2))].into_iter().collect();
        let full = Body::new(&BodyParts {
            version: version(9),
            seen: Hlc::ZERO,
            context: &context,
            expires_at_ms: Some(0x11),
            value: Some(b""),
        });
        assert_eq!(
            hex(full.bytes()),
            "010600460000000000000009abababababababababababababababab0000000000000000\
             00000000000000110001010101010101010101010101010101010000000000000002"
        );
        let tombstone = Body::new(&BodyParts {
            version: version(9),
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: Some(7),
            value: None,
        });
        assert_eq!(
            hex(tombstone.bytes()),
            "010100240000000000000009abababababababababababababababab0000000000000000"
        );
    }

    #[test]
    fn what_a_newer_version_added_is_kept() {
        let body = Body::new(&BodyParts {
            version: version(9),
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(b"value"),
        });
        let mut newer = body.bytes()[..FIXED_BYTES].to_vec();
        newer[1] |= 0x80;
        newer[3] += 3;
        newer.extend_from_slice(b"new");
        newer.extend_from_slice(b"value");
        let decoded = Body::decode(Bytes::from(newer.clone())).unwrap();
        assert_eq!(decoded.value().unwrap(), "value");
        assert_eq!(decoded.bytes(), &newer);
    }

    #[test]
    fn unsound_rows_are_refused() {
        let decode = |version, seen, context: &Context| {
            let parts =
                BodyParts { version, seen, context, expires_at_ms: None, value: Some(b"v") };
            Body::decode(Body::new(&parts).bytes().clone())
        };
        let of = |bits| [(Origin::from_bytes([1; 16]), Hlc::from_bits(bits))].into_iter().collect();
        assert!(decode(version(9), Hlc::from_bits(8), &of(8)).is_ok());
        assert!(decode(version(9), Hlc::from_bits(9), &of(8)).is_err());
        assert!(decode(version(9), Hlc::from_bits(8), &of(9)).is_err());
        assert!(decode(version(0), Hlc::ZERO, &Context::new()).is_err());
        let newer = Bytes::from_static(b"\x02anything");
        assert_eq!(Body::decode(newer), Err(BodyError::UnknownFormat(2)));
    }

    proptest! {
        #[test]
        fn bodies_round_trip(
            bits in 1000u64..,
            seen in 0u64..1000,
            context in proptest::collection::btree_map(any::<[u8; 16]>(), 1u64..1000, 0..5),
            expires_at_ms: Option<u64>,
            value: Option<Vec<u8>>,
        ) {
            let context = context
                .into_iter()
                .map(|(o, h)| (Origin::from_bytes(o), Hlc::from_bits(h)))
                .collect();
            let body = Body::new(&BodyParts {
                version: version(bits),
                seen: Hlc::from_bits(seen),
                context: &context,
                expires_at_ms,
                value: value.as_deref(),
            });
            let decoded = Body::decode(body.bytes().clone()).unwrap();
            prop_assert_eq!(decoded.value().map(|v| v.to_vec()), value);
            prop_assert_eq!(decoded.context(), &context);
            prop_assert_eq!(Body::is_tombstone_in(body.bytes()), body.is_tombstone());
            prop_assert_eq!(decoded, body);
        }

        #[test]
        fn any_bytes_decode_or_are_refused(bytes: Vec<u8>) {
            let _ = Body::decode(Bytes::from(bytes));
        }

        #[test]
        fn damaged_bodies_decode_or_are_refused(at in 0usize..80, byte: u8, cut in 0usize..80) {
            let context = [(Origin::from_bytes([1; 16]), Hlc::from_bits(2))].into_iter().collect();
            let body = Body::new(&BodyParts {
                version: version(9),
                seen: Hlc::ZERO,
                context: &context,
                expires_at_ms: Some(0x11),
                value: Some(b"some value"),
            });
            let mut bytes = body.bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut.max(1));
            let _ = Body::decode(Bytes::from(bytes));
        }
    }
}
