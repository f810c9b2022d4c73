//! Where a row stands: its [`TableName`] and its [`Key`], with their limits.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;

/// The longest key, in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// The longest table name, in bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 63;
/// The largest value that clients may write, in bytes, unless the settings say otherwise.
pub const VALUE_BYTES_MAX_DEFAULT: usize = 1 << 20;

/// The name of a table: `[a-z][a-z0-9_]{0,62}`; the system's own begin with `_`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName(Arc<str>);

/// Why a text is no table name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableNameError {
    /// Clients name `[a-z][a-z0-9_]{0,62}`.
    #[error(
        "table: {0:?} is not a table name: use 1 to 63 of a-z, 0-9 and _, beginning with a letter"
    )]
    Malformed(String),
    /// Names that begin with `_`.
    #[error("table: {0:?} begins with _: such tables are the system's own; choose another name")]
    System(String),
}

impl TableName {
    /// A table that clients may write.
    ///
    /// # Errors
    ///
    /// [`TableNameError`], naming the rule that was broken.
    pub fn of_client(name: &str) -> Result<TableName, TableNameError> {
        let table = TableName::of_any(name)?;
        if table.is_system() {
            return Err(TableNameError::System(name.to_owned()));
        }
        Ok(table)
    }

    /// Any table, the system's included.
    ///
    /// # Errors
    ///
    /// [`TableNameError::Malformed`].
    pub fn of_any(name: &str) -> Result<TableName, TableNameError> {
        let mut bytes = name.bytes();
        let first_fits = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_');
        let rest_fits = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if first_fits && rest_fits && name.len() <= TABLE_NAME_BYTES_MAX {
            Ok(TableName(name.into()))
        } else {
            // A hostile name may be megabytes long; the message shows its beginning.
            Err(TableNameError::Malformed(name.chars().take(80).collect()))
        }
    }

    /// Whether the table is the system's own.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.starts_with('_')
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TableName {
    type Err = TableNameError;

    fn from_str(name: &str) -> Result<TableName, TableNameError> {
        TableName::of_client(name)
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A row's key: 1 to 512 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

/// Why bytes are no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key: {length_bytes} bytes long; a key has 1 to {KEY_BYTES_MAX} bytes")]
pub struct KeyError {
    /// The length that was offered.
    pub length_bytes: usize,
}

impl Key {
    /// A key of these bytes.
    ///
    /// # Errors
    ///
    /// [`KeyError`] where they are none or more than [`KEY_BYTES_MAX`].
    pub fn new(bytes: impl Into<Bytes>) -> Result<Key, KeyError> {
        let bytes = bytes.into();
        if (1..=KEY_BYTES_MAX).contains(&bytes.len()) {
            Ok(Key(bytes))
        } else {
            Err(KeyError { length_bytes: bytes.len() })
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_follow_their_rule() {
        for name in ["a", "sessions", "a_1", &"a".repeat(63)] {
            assert_eq!(TableName::of_client(name).unwrap().as_str(), name);
        }
        for name in ["", "A", "1a", "a-b", "a b", "ä", &"a".repeat(64), "a.b", "a`b"] {
            assert!(matches!(TableName::of_any(name), Err(TableNameError::Malformed(_))), "{name}");
        }
        assert!(matches!(TableName::of_client("_members"), Err(TableNameError::System(_))));
        assert!(TableName::of_any("_members").unwrap().is_system());
    }

    #[test]
    fn keys_have_1_to_512_bytes() {
        assert_eq!(Key::new(vec![]), Err(KeyError { length_bytes: 0 }));
        assert!(Key::new(vec![0]).is_ok());
        assert!(Key::new(vec![0; 512]).is_ok());
        assert_eq!(Key::new(vec![0; 513]), Err(KeyError { length_bytes: 513 }));
    }
}
