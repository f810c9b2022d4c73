//! What one request may ask for, and what is said of one that asks for something else.

use std::{fmt, time::Duration};

use crate::model::{KEY_BYTES_MAX, VALUE_BYTES_MAX_DEFAULT};

/// What one request may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest value that may be written, in bytes. Default 1 MiB.
    pub value_bytes_max: usize,
    /// The most mutations of a batch. Default 1,000.
    pub batch_mutations_max: usize,
    /// The most keys of a `GetMany`. Default 1,000.
    pub get_many_keys_max: usize,
    /// The most bytes of tables, keys and values in one request. Default 16 MiB.
    pub request_bytes_max: usize,
    /// The most bytes in the answer to a `GetMany`. Default 4 MiB less a little: what gRPC's clients
    /// receive unless told otherwise.
    pub answer_bytes_max: usize,
    /// How long a read waits for this site to reach its session. Default 2 s.
    pub read_wait_max: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            value_bytes_max: VALUE_BYTES_MAX_DEFAULT,
            batch_mutations_max: 1_000,
            get_many_keys_max: 1_000,
            request_bytes_max: 16 << 20,
            answer_bytes_max: (4 << 20) - (64 << 10),
            read_wait_max: Duration::from_secs(2),
        }
    }
}

/// A request that cannot be served as it is. Nothing was read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct RequestError {
    /// The field, as a path from the request.
    pub field: String,
    /// What is wrong with it, and what would be right.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Problem {
    #[error("{0:?} is not a table name: use 1 to 63 of a-z, 0-9 and _, beginning with a letter")]
    TableMalformed(String),
    #[error("{0:?} begins with _: such tables are the system's own; choose another name")]
    TableOfSystem(String),
    #[error("{} bytes long; a key has 1 to {KEY_BYTES_MAX} bytes", Grouped(*.0))]
    KeyLength(usize),
    #[error("{} bytes long; the bound of a range has at most {max} bytes", Grouped(*.length))]
    BoundTooLong { length: usize, max: usize },
    #[error(
        "{} bytes long; a value has at most {} bytes (limits.value_bytes_max)",
        Grouped(*.length), Grouped(*.max)
    )]
    ValueTooLong { length: usize, max: usize },
    #[error("less than 1 ms; a row lives at least 1 ms: leave ttl out for one that stays")]
    TtlTooShort,
    #[error("negative; a row lives at least 1 ms: leave ttl out for one that stays")]
    TtlNegative,
    #[error("nanos is {0}; it lies within 0 to 999,999,999")]
    TtlNanos(i32),
    #[error("ends after the year 9999: leave ttl out for a row that stays")]
    TtlTooLong,
    #[error("{0} is no kind of id: use ID_KIND_UUID_V7 or ID_KIND_SEQUENCE")]
    IdKind(i32),
    #[error("none given; a batch has 1 to {} (limits.batch_mutations_max)", Grouped(*.max))]
    NoMutations { max: usize },
    #[error(
        "{} given; a batch has 1 to {} (limits.batch_mutations_max): send more batches",
        Grouped(*.count), Grouped(*.max)
    )]
    TooManyMutations { count: usize, max: usize },
    #[error("empty: set one of put, delete and insert")]
    NoMutation,
    #[error(
        "{} given; a request has at most {} (limits.get_many_keys_max): send more requests",
        Grouped(*.count), Grouped(*.max)
    )]
    TooManyKeys { count: usize, max: usize },
    #[error(
        "{} bytes in all; a request has at most {} bytes: send more requests",
        Grouped(*.bytes), Grouped(*.max)
    )]
    RequestTooLarge { bytes: usize, max: usize },
    #[error("given together with start or end: use either prefix, or start and end")]
    PrefixAndRange,
    #[error(
        "{0:?} is not the id of a conflict: it is HLC@ORIGIN, as lastword conflicts list shows it"
    )]
    ConflictId(String),
    #[error("not heads as text: they begin with h1., as lastword status and import show them")]
    HeadsMalformed,
    #[error("empty: say what the other side has: a site, heads, or nothing")]
    NoSince,
    #[error("not a token of this cluster: pass on unchanged what a node answered, or leave it out")]
    SessionMalformed,
    #[error("{} bytes long; no token is: pass on unchanged what a node answered", Grouped(*.0))]
    SessionTooLong(usize),
}

impl RequestError {
    pub(super) fn new(field: &str, problem: Problem) -> RequestError {
        RequestError { field: field.to_owned(), problem }
    }

    /// The same, for a field within `outer`.
    pub(super) fn within(mut self, outer: impl fmt::Display) -> RequestError {
        self.field = format!("{outer}.{}", self.field);
        self
    }
}

/// A number for people: `1,200,000`.
pub(super) struct Grouped(pub(super) usize);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_str(",")?;
            }
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_048_576, "1,048,576")] {
            assert_eq!(Grouped(number).to_string(), text);
        }
    }
}
