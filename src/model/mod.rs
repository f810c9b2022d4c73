//! What a row is, and who has the last word.
//!
//! Plain values and pure functions: no clock, no I/O, no `async`. Everything above speaks these
//! types.
//!
//! ```text
//! Hlc, Origin --> Version        which write is younger          version.rs
//! Heads                          what a store has incorporated   heads.rs
//! Role                           what a node is for              role.rs
//! TableName, Key                 where a row stands              key.rs
//! Body                           the row itself, as it travels   body.rs
//! merge                          two versions of one row meet    merge.rs
//! ```

mod body;
mod heads;
mod key;
mod merge;
mod role;
mod version;

pub use body::{Body, BodyError, BodyParts, CONTEXT_ORIGINS_MAX, Row};
pub use heads::{Context, Heads, VersionVector};
pub use key::{
    KEY_BYTES_MAX, Key, KeyError, TABLE_NAME_BYTES_MAX, TableName, TableNameError,
    VALUE_BYTES_MAX_DEFAULT,
};
pub use merge::{Knowledge, Merged, Relation, Winner, merge, relation};
pub use role::Role;
pub use version::{Hlc, Origin, Version, VersionError};
