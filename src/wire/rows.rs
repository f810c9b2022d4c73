//! What clients send and get: proto <-> rows, mutations and ranges.
//!
//! Every limit is checked here, before anything is read or written. A [`RequestError`] names the
//! field as the client wrote it (`mutations[3].put.key`), what is wrong and the limit.

use std::{fmt, time::Duration};

use bytes::Bytes;

use tonic::Status;

use super::{
    limits::{Limits, Problem, RequestError},
    proto,
    session::Session,
};
use crate::{
    model::{Body, KEY_BYTES_MAX, Key, Origin, TableName, TableNameError, Version},
    node::{Change, Committed, IdKind, Mutation},
    store::{ScanRange, Written},
};

/// Up to here rows may expire, in milliseconds since the Unix epoch, UTC: the last day of the year
/// 9999, the end of what a `Timestamp` and MySQL's `DATETIME` can say.
pub const EXPIRES_AT_MS_MAX: u64 = 253_402_214_400_000;

/// A read of one row.
#[derive(Clone, Debug)]
pub struct Get {
    /// The table.
    pub table: TableName,
    /// The row's key.
    pub key: Key,
    /// What the client has seen.
    pub session: Session,
}

/// A read of many rows.
#[derive(Clone, Debug)]
pub struct GetMany {
    /// The table.
    pub table: TableName,
    /// The keys, in the order asked.
    pub keys: Vec<Key>,
    /// What the client has seen.
    pub session: Session,
}

/// A read of a range.
#[derive(Clone, Debug)]
pub struct Scan {
    /// The table.
    pub table: TableName,
    /// The keys.
    pub range: ScanRange,
    /// At most so many rows.
    pub rows_max: Option<u64>,
    /// Leave the values out.
    pub keys_only: bool,
    /// What the client has seen.
    pub session: Session,
}

/// Reads a `Get`.
///
/// # Errors
///
/// [`RequestError`]
pub fn get_in(request: proto::GetRequest) -> Result<Get, RequestError> {
    Ok(Get {
        table: table_in(&request.table)?,
        key: key_in(request.key, "key")?,
        session: Session::from_token(&request.session)?,
    })
}

/// Reads a `GetMany`.
///
/// # Errors
///
/// [`RequestError`]
pub fn get_many_in(
    request: proto::GetManyRequest,
    limits: &Limits,
) -> Result<GetMany, RequestError> {
    let table = table_in(&request.table)?;
    let (count, max) = (request.keys.len(), limits.get_many_keys_max);
    if count > max {
        return Err(RequestError::new("keys", Problem::TooManyKeys { count, max }));
    }
    let mut keys = Vec::with_capacity(count);
    for (at, key) in request.keys.into_iter().enumerate() {
        keys.push(key_in(key, format_args!("keys[{at}]"))?);
    }
    Ok(GetMany { table, keys, session: Session::from_token(&request.session)? })
}

/// Reads a `Scan`.
///
/// # Errors
///
/// [`RequestError`]
pub fn scan_in(request: proto::ScanRequest) -> Result<Scan, RequestError> {
    let table = table_in(&request.table)?;
    let proto::ScanRequest { prefix, start, end, reverse, .. } = request;
    // One more than a key, so that the key that follows another can be named: itself and a zero.
    let bounds = [(&prefix, "prefix", KEY_BYTES_MAX), (&start, "start", KEY_BYTES_MAX + 1)];
    for (bound, field, max) in bounds.into_iter().chain([(&end, "end", KEY_BYTES_MAX + 1)]) {
        if bound.len() > max {
            let problem = Problem::BoundTooLong { length: bound.len(), max };
            return Err(RequestError::new(field, problem));
        }
    }
    let range = if prefix.is_empty() {
        let given = |bound: Bytes| (!bound.is_empty()).then(|| bound.to_vec());
        ScanRange { start: given(start), end: given(end), reverse }
    } else if start.is_empty() && end.is_empty() {
        let end = prefix_end(&prefix);
        ScanRange { start: Some(prefix.to_vec()), end, reverse }
    } else {
        return Err(RequestError::new("prefix", Problem::PrefixAndRange));
    };
    Ok(Scan {
        table,
        range,
        rows_max: (request.limit > 0).then_some(request.limit),
        keys_only: request.keys_only,
        session: Session::from_token(&request.session)?,
    })
}

/// The least key above all that begin with `prefix`; `None`: there is none.
fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let at = prefix.iter().rposition(|&byte| byte < 0xff)?;
    let mut end = prefix[..=at].to_vec();
    end[at] += 1;
    Some(end)
}

/// Reads a `Put`. `now_ms` is wall time in milliseconds since the Unix epoch, UTC.
///
/// # Errors
///
/// [`RequestError`]
pub fn put_in(
    request: proto::PutRequest,
    limits: &Limits,
    now_ms: u64,
) -> Result<Mutation, RequestError> {
    Ok(Mutation {
        table: table_in(&request.table)?,
        change: Change::Put {
            key: key_in(request.key, "key")?,
            value: value_in(request.value, limits)?,
            ttl: ttl_in(request.ttl, now_ms)?,
        },
    })
}

/// Reads a `Delete`.
///
/// # Errors
///
/// [`RequestError`]
pub fn delete_in(request: proto::DeleteRequest) -> Result<Mutation, RequestError> {
    Ok(Mutation {
        table: table_in(&request.table)?,
        change: Change::Delete { key: key_in(request.key, "key")? },
    })
}

/// Reads an `Insert`. `now_ms` is wall time in milliseconds since the Unix epoch, UTC.
///
/// # Errors
///
/// [`RequestError`]
pub fn insert_in(
    request: proto::InsertRequest,
    limits: &Limits,
    now_ms: u64,
) -> Result<Mutation, RequestError> {
    let id = match proto::IdKind::try_from(request.id_kind) {
        Ok(proto::IdKind::Unspecified | proto::IdKind::UuidV7) => IdKind::UuidV7,
        Ok(proto::IdKind::Sequence) => IdKind::Sequence,
        Err(_) => return Err(RequestError::new("id_kind", Problem::IdKind(request.id_kind))),
    };
    Ok(Mutation {
        table: table_in(&request.table)?,
        change: Change::Insert {
            value: value_in(request.value, limits)?,
            ttl: ttl_in(request.ttl, now_ms)?,
            id,
        },
    })
}

/// Reads a `Batch`. `now_ms` is wall time in milliseconds since the Unix epoch, UTC.
///
/// # Errors
///
/// [`RequestError`]: of the first mutation that is wrong.
pub fn batch_in(
    request: proto::BatchRequest,
    limits: &Limits,
    now_ms: u64,
) -> Result<Vec<Mutation>, RequestError> {
    use proto::mutation::Mutation as Kind;
    let (count, max) = (request.mutations.len(), limits.batch_mutations_max);
    if count == 0 {
        return Err(RequestError::new("mutations", Problem::NoMutations { max }));
    }
    if count > max {
        return Err(RequestError::new("mutations", Problem::TooManyMutations { count, max }));
    }
    let mut mutations = Vec::with_capacity(count);
    let mut bytes = 0;
    for (at, mutation) in request.mutations.into_iter().enumerate() {
        let (mutation, kind) = match mutation.mutation {
            Some(Kind::Put(put)) => (put_in(put, limits, now_ms), "put"),
            Some(Kind::Delete(delete)) => (delete_in(delete), "delete"),
            Some(Kind::Insert(insert)) => (insert_in(insert, limits, now_ms), "insert"),
            None => {
                let field = format!("mutations[{at}]");
                return Err(RequestError::new(&field, Problem::NoMutation));
            }
        };
        let mutation =
            mutation.map_err(|error| error.within(format_args!("mutations[{at}].{kind}")))?;
        bytes += size_bytes(&mutation);
        mutations.push(mutation);
    }
    let max = limits.request_bytes_max;
    if bytes > max {
        return Err(RequestError::new("mutations", Problem::RequestTooLarge { bytes, max }));
    }
    Ok(mutations)
}

fn size_bytes(mutation: &Mutation) -> usize {
    let row_bytes = match &mutation.change {
        Change::Put { key, value, .. } => key.as_slice().len() + value.len(),
        Change::Delete { key } => key.as_slice().len(),
        Change::Insert { value, .. } => value.len(),
    };
    mutation.table.as_str().len() + row_bytes
}

/// The name of a table that clients may use.
///
/// # Errors
///
/// [`RequestError`]: it is none.
pub fn table_in(name: &str) -> Result<TableName, RequestError> {
    TableName::of_client(name).map_err(|error| {
        let problem = match error {
            TableNameError::Malformed(name) => Problem::TableMalformed(name),
            TableNameError::System(name) => Problem::TableOfSystem(name),
        };
        RequestError::new("table", problem)
    })
}

fn key_in(key: Bytes, field: impl fmt::Display) -> Result<Key, RequestError> {
    Key::new(key).map_err(|error| {
        RequestError::new(&field.to_string(), Problem::KeyLength(error.length_bytes))
    })
}

fn value_in(value: Bytes, limits: &Limits) -> Result<Bytes, RequestError> {
    let (length, max) = (value.len(), limits.value_bytes_max);
    if length > max {
        return Err(RequestError::new("value", Problem::ValueTooLong { length, max }));
    }
    Ok(value)
}

fn ttl_in(
    ttl: Option<prost_types::Duration>,
    now_ms: u64,
) -> Result<Option<Duration>, RequestError> {
    let Some(prost_types::Duration { seconds, nanos }) = ttl else { return Ok(None) };
    let wrong = |problem| Err(RequestError::new("ttl", problem));
    if !(-999_999_999..=999_999_999).contains(&nanos) {
        return wrong(Problem::TtlNanos(nanos));
    }
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u32::try_from(nanos)) else {
        return wrong(Problem::TtlNegative);
    };
    let ttl = Duration::new(seconds, nanos);
    let ms = ttl.as_millis();
    if ms == 0 {
        return wrong(Problem::TtlTooShort);
    }
    if u128::from(now_ms) + ms > u128::from(EXPIRES_AT_MS_MAX) {
        return wrong(Problem::TtlTooLong);
    }
    Ok(Some(ttl))
}

/// A live row, as a client sees it; `None` where there is none to see.
#[must_use]
pub fn row_out(
    table: &TableName,
    key: &Key,
    body: &Body,
    site: &str,
    keys_only: bool,
) -> Option<proto::Row> {
    let value = body.value()?;
    Some(proto::Row {
        table: table.as_str().to_owned(),
        key: key.bytes().clone(),
        value: if keys_only { Bytes::new() } else { value },
        version: Some(body.version().into()),
        expire_time: body.expires_at_ms().map(timestamp_out),
        site: site.to_owned(),
    })
}

/// The row's share of an answer, in bytes, rounded up.
#[must_use]
pub fn size_out(row: &proto::Row) -> usize {
    // Version, expiry and the lengths of all fields.
    const FIXED_BYTES: usize = 80;
    FIXED_BYTES + row.table.len() + row.key.len() + row.value.len() + row.site.len()
}

/// Answers a `Put`.
#[must_use]
pub fn put_out(committed: Committed, session: Session) -> proto::PutResponse {
    let (written, session) = only(committed, session);
    proto::PutResponse { version: Some(written.version.into()), session }
}

/// Answers a `Delete`.
#[must_use]
pub fn delete_out(committed: Committed, session: Session) -> proto::DeleteResponse {
    let (written, session) = only(committed, session);
    let existed = written.existed;
    proto::DeleteResponse { version: Some(written.version.into()), existed, session }
}

/// Answers an `Insert`.
#[must_use]
pub fn insert_out(committed: Committed, session: Session) -> proto::InsertResponse {
    let (written, session) = only(committed, session);
    let key = written.key.bytes().clone();
    proto::InsertResponse { key, version: Some(written.version.into()), session }
}

/// Answers a `Batch`.
#[must_use]
pub fn batch_out(committed: Committed, session: Session) -> proto::BatchResponse {
    proto::BatchResponse {
        session: session.and(&committed.session).token(),
        results: committed.results.into_iter().map(proto::MutationResult::from).collect(),
    }
}

/// Answers one request of a `BulkWrite`; an error is that request's own.
#[must_use]
pub fn bulk_out(committed: Result<Committed, Status>) -> proto::BulkWriteResponse {
    match committed {
        Ok(committed) => proto::BulkWriteResponse {
            session: Session::from(committed.session).token(),
            results: committed.results.into_iter().map(proto::MutationResult::from).collect(),
            error: None,
        },
        Err(status) => proto::BulkWriteResponse {
            error: Some(proto::BulkWriteError {
                code: i32::from(status.code()).unsigned_abs(),
                message: status.message().to_owned(),
            }),
            ..proto::BulkWriteResponse::default()
        },
    }
}

impl From<Written> for proto::MutationResult {
    fn from(written: Written) -> proto::MutationResult {
        proto::MutationResult {
            key: written.key.bytes().clone(),
            version: Some(written.version.into()),
            existed: written.existed,
        }
    }
}

fn only(committed: Committed, session: Session) -> (Written, Bytes) {
    let session = session.and(&committed.session).token();
    let written = committed.results.into_iter().next().expect("a result for each mutation");
    (written, session)
}

impl From<Version> for proto::Version {
    fn from(version: Version) -> proto::Version {
        proto::Version { hlc: version.hlc.bits(), origin: origin_out(version.origin) }
    }
}

fn origin_out(origin: Origin) -> Bytes {
    Bytes::copy_from_slice(origin.as_bytes())
}

/// A time in milliseconds since the Unix epoch, UTC; beyond the year 9999 it is its last day.
#[must_use]
pub fn timestamp_out(ms: u64) -> prost_types::Timestamp {
    let ms = ms.min(EXPIRES_AT_MS_MAX);
    prost_types::Timestamp {
        seconds: i64::try_from(ms / 1_000).expect("within the year 9999"),
        nanos: i32::try_from(ms % 1_000 * 1_000_000).expect("less than a second"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_MS: u64 = 1_760_000_000_000;

    fn put() -> proto::PutRequest {
        proto::PutRequest {
            table: "t".into(),
            key: "k".into(),
            value: "v".into(),
            ttl: None,
            session: Bytes::new(),
        }
    }

    fn refused<T: fmt::Debug>(result: Result<T, RequestError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_field_the_limit_and_the_way_out() {
        let limits = Limits::default();
        let put_in = |request| put_in(request, &limits, NOW_MS);
        assert_eq!(
            refused(put_in(proto::PutRequest { value: vec![0; 1_200_000].into(), ..put() })),
            "value: 1,200,000 bytes long; a value has at most 1,048,576 bytes \
             (limits.value_bytes_max)"
        );
        assert_eq!(
            refused(put_in(proto::PutRequest { key: Bytes::new(), ..put() })),
            "key: 0 bytes long; a key has 1 to 512 bytes"
        );
        assert_eq!(
            refused(put_in(proto::PutRequest { table: "_members".into(), ..put() })),
            "table: \"_members\" begins with _: such tables are the system's own; choose another \
             name"
        );
        let mut mutations = vec![proto::Mutation { mutation: None }; 2];
        let wrong = proto::PutRequest { key: vec![0; 513].into(), ..put() };
        mutations[0].mutation = Some(proto::mutation::Mutation::Put(put()));
        mutations[1].mutation = Some(proto::mutation::Mutation::Put(wrong));
        assert_eq!(
            refused(batch_in(
                proto::BatchRequest { mutations, session: Bytes::new() },
                &limits,
                NOW_MS
            )),
            "mutations[1].put.key: 513 bytes long; a key has 1 to 512 bytes"
        );
        let keys = vec!["a".into(), Bytes::new()];
        let request = proto::GetManyRequest { table: "t".into(), keys, session: Bytes::new() };
        assert_eq!(
            refused(get_many_in(request, &limits)),
            "keys[1]: 0 bytes long; a key has 1 to 512 bytes"
        );
    }

    #[test]
    fn a_ttl_lies_within_1_ms_and_the_year_9999() {
        let ttl = |seconds, nanos| ttl_in(Some(prost_types::Duration { seconds, nanos }), NOW_MS);
        assert_eq!(ttl_in(None, NOW_MS), Ok(None));
        assert_eq!(ttl(0, 1_000_000), Ok(Some(Duration::from_millis(1))));
        assert_eq!(ttl(300, 0), Ok(Some(Duration::from_secs(300))));
        assert!(refused(ttl(0, 999_999)).starts_with("ttl: less than 1 ms"));
        assert!(refused(ttl(0, 0)).starts_with("ttl: less than 1 ms"));
        for (seconds, nanos) in [(-1, 0), (0, -1), (1, -1), (-1, 1), (i64::MIN, -999_999_999)] {
            assert!(refused(ttl(seconds, nanos)).starts_with("ttl: negative"));
        }
        assert!(refused(ttl(1, 1_000_000_000)).starts_with("ttl: nanos"));
        assert!(refused(ttl(1, i32::MIN)).starts_with("ttl: nanos"));
        let longest = i64::try_from((EXPIRES_AT_MS_MAX - NOW_MS) / 1_000).unwrap();
        assert!(ttl(longest, 0).is_ok());
        assert!(refused(ttl(longest, 1_000_000)).contains("9999"));
        assert!(refused(ttl(i64::MAX, 999_999_999)).contains("9999"));
    }

    #[test]
    fn times_are_shown_up_to_the_year_9999() {
        let last_day = timestamp_out(u64::MAX);
        assert_eq!(last_day.to_string(), "9999-12-31T00:00:00Z");
        assert_eq!(timestamp_out(1_234).to_string(), "1970-01-01T00:00:01.234Z");
    }

    #[test]
    fn a_range_is_a_prefix_or_has_bounds() {
        let scan = |prefix: &[u8], start: &[u8], end: &[u8]| {
            let of = Bytes::copy_from_slice;
            let (prefix, start, end) = (of(prefix), of(start), of(end));
            scan_in(proto::ScanRequest {
                table: "t".into(),
                prefix,
                start,
                end,
                ..Default::default()
            })
        };
        let range = scan(b"a\xff", b"", b"").unwrap().range;
        assert_eq!((range.start.unwrap(), range.end.unwrap()), (b"a\xff".to_vec(), b"b".to_vec()));
        assert_eq!(scan(b"\xff\xff", b"", b"").unwrap().range.end, None);
        let all = scan(b"", b"", b"").unwrap().range;
        assert_eq!((all.start, all.end), (None, None));
        assert!(refused(scan(b"a", b"b", b"")).starts_with("prefix: given together"));
        assert!(refused(scan(b"a", b"", b"b")).starts_with("prefix: given together"));
        assert!(scan(&[1; 512], b"", b"").is_ok() && scan(b"", &[1; 513], &[1; 513]).is_ok());
        assert!(refused(scan(&[1; 513], b"", b"")).starts_with("prefix: 513 bytes"));
        assert!(refused(scan(b"", &[1; 514], b"")).starts_with("start: 514 bytes"));
        assert!(refused(scan(b"", b"", &[1; 514])).starts_with("end: 514 bytes"));
    }

    proptest! {
        #[test]
        fn a_prefix_ends_just_above_its_keys(
            prefix in proptest::collection::vec(prop_oneof![0u8..3, 0xfdu8..], 1..4),
            key in proptest::collection::vec(prop_oneof![0u8..3, 0xfdu8..], 0..6),
        ) {
            let inside = key >= prefix && prefix_end(&prefix).is_none_or(|end| key < end);
            prop_assert_eq!(inside, key.starts_with(&prefix));
        }

        #[test]
        fn any_ttl_is_read_or_refused(seconds: i64, nanos: i32, now_ms in 0u64..1 << 48) {
            if let Ok(ttl) = ttl_in(Some(prost_types::Duration { seconds, nanos }), now_ms) {
                let ms = u64::try_from(ttl.unwrap().as_millis()).unwrap();
                prop_assert!(ms >= 1 && now_ms + ms <= EXPIRES_AT_MS_MAX);
            }
        }
    }
}
