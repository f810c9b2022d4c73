//! What a client changes, and the keys that the node makes.

use std::time::Duration;

use bytes::Bytes;

use crate::{
    model::{Key, TableName},
    store::Operation,
};

/// What a client changes.
#[derive(Clone, Debug)]
pub struct Mutation {
    /// The table.
    pub table: TableName,
    /// What is done there.
    pub change: Change,
}

/// What a client does to a row.
#[derive(Clone, Debug)]
pub enum Change {
    /// Replaces the whole row.
    Put {
        /// The row's key.
        key: Key,
        /// Its new value.
        value: Bytes,
        /// How long it lives; `None`: for ever.
        ttl: Option<Duration>,
    },
    /// Deletes the row.
    Delete {
        /// The row's key.
        key: Key,
    },
    /// Writes a row under a key that the node makes.
    Insert {
        /// Its value.
        value: Bytes,
        /// How long it lives; `None`: for ever.
        ttl: Option<Duration>,
        /// Which kind of key.
        id: IdKind,
    },
}

/// Which kind of key the node makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// A UUID version 7 as text.
    UuidV7,
    /// A number of the site's own, in decimal.
    Sequence,
}

impl Change {
    /// What the store is to do; times to live count from `now_ms`.
    pub(super) fn into_operation(self, now_ms: u64) -> Operation {
        let expires_at_ms = |ttl: Option<Duration>| {
            ttl.map(|ttl| now_ms.saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)))
        };
        match self {
            Change::Put { key, value, ttl } => {
                Operation::Put { key, value, expires_at_ms: expires_at_ms(ttl) }
            }
            Change::Delete { key } => Operation::Delete { key },
            Change::Insert { value, ttl, id: IdKind::Sequence } => {
                Operation::InsertSequence { value, expires_at_ms: expires_at_ms(ttl) }
            }
            Change::Insert { value, ttl, id: IdKind::UuidV7 } => {
                Operation::Put { key: uuid_v7(now_ms), value, expires_at_ms: expires_at_ms(ttl) }
            }
        }
    }
}

/// A key in order of time, with 74 random bits: two never meet.
fn uuid_v7(now_ms: u64) -> Key {
    let id = uuid::Builder::from_unix_timestamp_millis(now_ms, &rand::random()).into_uuid();
    Key::new(id.to_string()).expect("36 characters")
}
