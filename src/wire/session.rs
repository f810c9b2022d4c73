//! Session tokens: what a client has seen, in bytes that only nodes understand.
//!
//! ```text
//! 1, heads                          whoever reads next must have incorporated the heads
//! 2, store, count, beyond, heads    and, unless it is that store, what lies beyond them too
//! ```
//!
//! `store` has 16 bytes, `count` two, heads and beyond 24 for each origin. All numbers are
//! big-endian.
//!
//! A store that takes in a long delta shows its rows before it can claim them. A client that reads
//! such a row has seen more than the heads say: the token notes it as *beyond*. The store itself
//! has it and keeps serving that client; any other must have incorporated it first.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::limits::{Problem, RequestError};
use crate::model::{Heads, Origin, Version};

/// The most origins a token may name.
pub const SESSION_ORIGINS_MAX: usize = 10_000;

const KIND_HEADS: u8 = 1;
const KIND_BEYOND: u8 = 2;
const ENTRY_BYTES: usize = 24;
const BYTES_MAX: usize = 1 + 16 + 2 + SESSION_ORIGINS_MAX * ENTRY_BYTES;

/// What a client has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    heads: Heads,
    /// Where it saw more than the heads say, and what.
    beyond: Option<(Origin, Heads)>,
}

impl Session {
    /// Reads a token; an empty one asks for nothing.
    ///
    /// # Errors
    ///
    /// [`RequestError`] for the field `session`.
    pub fn from_token(token: &[u8]) -> Result<Session, RequestError> {
        let malformed = || RequestError::new("session", Problem::SessionMalformed);
        if token.len() > BYTES_MAX {
            return Err(RequestError::new("session", Problem::SessionTooLong(token.len())));
        }
        match token {
            [] => Ok(Session::default()),
            [KIND_HEADS, heads @ ..] => Ok(Session::from(heads_in(heads).ok_or_else(malformed)?)),
            [KIND_BEYOND, rest @ ..] => Session::with_beyond(rest).ok_or_else(malformed),
            _ => Err(malformed()),
        }
    }

    fn with_beyond(bytes: &[u8]) -> Option<Session> {
        let (store, bytes) = bytes.split_first_chunk::<16>()?;
        let (count, bytes) = bytes.split_first_chunk::<2>()?;
        let count = usize::from(u16::from_be_bytes(*count));
        let (beyond, heads) = bytes.split_at_checked(count * ENTRY_BYTES)?;
        Some(Session {
            heads: heads_in(heads)?,
            beyond: Some((Origin::from_bytes(*store), heads_in(beyond)?)),
        })
    }

    /// The token of this session.
    #[must_use]
    pub fn token(&self) -> Bytes {
        token(&self.heads, self.beyond.as_ref().map(|(store, beyond)| (*store, beyond)))
    }

    /// With `heads` seen as well: what a write adds.
    #[must_use]
    pub fn and(mut self, heads: &Heads) -> Session {
        self.heads.join(heads);
        self
    }

    /// What `store` must have incorporated before it serves this session.
    #[must_use]
    pub fn required_at(&self, store: Origin) -> Cow<'_, Heads> {
        match &self.beyond {
            Some((seen_at, beyond)) if *seen_at != store => {
                let mut heads = self.heads.clone();
                heads.join(beyond);
                Cow::Owned(heads)
            }
            _ => Cow::Borrowed(&self.heads),
        }
    }
}

impl From<Heads> for Session {
    fn from(heads: Heads) -> Session {
        Session { heads, beyond: None }
    }
}

/// What one read sees of a store; its [`token`](Self::token) is the client's next session.
#[derive(Clone, Debug)]
pub struct Seen {
    store: Origin,
    heads: Arc<Heads>,
    beyond: Heads,
}

impl Seen {
    /// A read by `session` of a snapshot with these heads, at `store`.
    #[must_use]
    pub fn new(session: &Session, store: Origin, heads: Arc<Heads>) -> Seen {
        let mut seen = Seen { store, heads, beyond: Heads::new() };
        if let Some((_, beyond)) = &session.beyond {
            for (origin, hlc) in beyond.iter() {
                seen.note(Version { hlc, origin });
            }
        }
        seen
    }

    /// This version was seen, be it a live row or the reason why there is none.
    pub fn note(&mut self, version: Version) {
        if !self.heads.includes(version) {
            self.beyond.raise(version.origin, version.hlc);
        }
    }

    /// The token of what was seen so far.
    #[must_use]
    pub fn token(&self) -> Bytes {
        let beyond = (!self.beyond.is_empty()).then_some((self.store, &self.beyond));
        token(&self.heads, beyond)
    }
}

fn token(heads: &Heads, beyond: Option<(Origin, &Heads)>) -> Bytes {
    let mut token = match beyond {
        None => vec![KIND_HEADS],
        Some((store, beyond)) => {
            let count = u16::try_from(beyond.len()).expect("fewer origins than 2^16");
            let mut token = vec![KIND_BEYOND];
            token.extend_from_slice(store.as_bytes());
            token.extend_from_slice(&count.to_be_bytes());
            token.extend_from_slice(&beyond.to_bytes());
            token
        }
    };
    token.extend_from_slice(&heads.to_bytes());
    Bytes::from(token)
}

fn heads_in(bytes: &[u8]) -> Option<Heads> {
    Heads::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Hlc;

    fn origin(byte: u8) -> Origin {
        Origin::from_bytes([byte; 16])
    }

    fn heads(entries: &[(u8, u64)]) -> Heads {
        entries.iter().map(|&(o, h)| (origin(o), Hlc::from_bits(h))).collect()
    }

    fn version(o: u8, h: u64) -> Version {
        Version { hlc: Hlc::from_bits(h), origin: origin(o) }
    }

    #[test]
    fn a_token_is_a_kind_and_heads() {
        let token = Session::from(heads(&[(1, 2)])).token();
        assert_eq!(token[0], 1);
        assert_eq!(&token[1..], heads(&[(1, 2)]).to_bytes());
        assert_eq!(Session::from_token(&[]).unwrap(), Session::default());
    }

    #[test]
    fn what_lies_beyond_the_heads_is_asked_of_other_stores_only() {
        let mut seen = Seen::new(&Session::default(), origin(9), Arc::new(heads(&[(1, 5)])));
        seen.note(version(1, 5));
        assert_eq!(seen.token()[0], 1);
        seen.note(version(1, 7));
        seen.note(version(2, 3));
        let session = Session::from_token(&seen.token()).unwrap();
        assert_eq!(*session.required_at(origin(9)), heads(&[(1, 5)]));
        assert_eq!(*session.required_at(origin(8)), heads(&[(1, 7), (2, 3)]));

        // The same store has claimed a part of it since: the rest goes on in the token.
        let later = Seen::new(&session, origin(9), Arc::new(heads(&[(1, 7)])));
        let session = Session::from_token(&later.token()).unwrap();
        assert_eq!(*session.required_at(origin(8)), heads(&[(1, 7), (2, 3)]));
        let settled = Seen::new(&session, origin(9), Arc::new(heads(&[(1, 7), (2, 4)])));
        assert_eq!(settled.token()[0], 1);
    }

    #[test]
    fn a_write_adds_to_what_was_seen_elsewhere() {
        let mut seen = Seen::new(&Session::default(), origin(9), Arc::new(heads(&[(1, 5)])));
        seen.note(version(2, 3));
        let read = Session::from_token(&seen.token()).unwrap();
        let written = Session::from_token(&read.and(&heads(&[(8, 7)])).token()).unwrap();
        assert_eq!(*written.required_at(origin(8)), heads(&[(1, 5), (2, 3), (8, 7)]));
    }

    #[test]
    fn malformed_tokens_are_refused() {
        for token in [&[0][..], &[3], &[1, 0], &[1; 24], &[2], &[2; 19], &[255; 49]] {
            let error = Session::from_token(token).unwrap_err();
            assert!(error.to_string().starts_with("session: "), "{error}");
        }
        let long = vec![1; BYTES_MAX + 1];
        assert!(Session::from_token(&long).unwrap_err().to_string().contains("long"));
        let longest = vec![1; 1 + SESSION_ORIGINS_MAX * ENTRY_BYTES];
        assert!(Session::from_token(&longest).is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_session_or_are_refused(bytes: Vec<u8>) {
            let _ = Session::from_token(&bytes);
        }

        #[test]
        fn tokens_round_trip(
            all in proptest::collection::vec((0u8..5, 1u64..50), 0..6),
            seen in proptest::collection::vec((0u8..5, 1u64..50), 0..6),
        ) {
            let mut read = Seen::new(&Session::default(), origin(9), Arc::new(heads(&all)));
            for &(o, h) in &seen {
                read.note(version(o, h));
            }
            let session = Session::from_token(&read.token()).unwrap();
            prop_assert_eq!(session.token(), read.token());
            let elsewhere = session.required_at(origin(8));
            prop_assert!(elsewhere.covers(&heads(&all)) && elsewhere.covers(&heads(&seen)));
            let here = session.required_at(origin(9));
            prop_assert_eq!(here.as_ref(), &heads(&all));
        }
    }
}
