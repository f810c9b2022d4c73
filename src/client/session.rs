//! What a client has seen, as a token.

use bytes::Bytes;

/// A session: the token of the last answer, opaque. Sent with a read, it makes a node wait until it
/// has what this session has seen, or say that it has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session(Bytes);

impl Session {
    /// A session that was kept as bytes.
    #[must_use]
    pub fn from_token(token: impl Into<Bytes>) -> Session {
        Session(token.into())
    }

    /// The bytes to keep or send; empty: nothing seen yet.
    #[must_use]
    pub fn token(&self) -> Bytes {
        self.0.clone()
    }

    /// Goes on to the token of an answer; an answer without one changes nothing.
    pub(super) fn follow(&mut self, token: Bytes) {
        if !token.is_empty() {
            self.0 = token;
        }
    }
}
