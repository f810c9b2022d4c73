//! The conflict journal, as its operator's tools ask for it and get it.

use std::sync::Arc;

use super::{
    limits::{Problem, RequestError},
    proto,
    rows::{self, timestamp_out},
};
use crate::{
    model::{Body, Hlc, KEY_BYTES_MAX, Origin, Row, TableName, Version},
    store::Conflict,
};

/// Which conflicts are asked for.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Only of this table.
    pub table: Option<TableName>,
    /// Only of keys that begin so.
    pub prefix: bytes::Bytes,
    /// Only those whose loser was stamped here or later.
    pub since: Hlc,
    /// At most so many.
    pub conflicts_max: Option<u64>,
    /// In the order of their stamps; else the other way round.
    pub oldest_first: bool,
}

impl Filter {
    /// Whether the conflict that this row lost is asked for; its stamp aside.
    #[must_use]
    pub fn admits(&self, loser: &Row) -> bool {
        self.table.as_ref().is_none_or(|table| *table == loser.table)
            && loser.key.as_slice().starts_with(&self.prefix)
    }
}

/// Reads a `ListConflicts`.
///
/// # Errors
///
/// [`RequestError`]
pub fn list_in(request: proto::ListConflictsRequest) -> Result<Filter, RequestError> {
    let table = match request.table.as_str() {
        "" => None,
        table => Some(rows::table_in(table)?),
    };
    if request.prefix.len() > KEY_BYTES_MAX {
        let problem = Problem::BoundTooLong { length: request.prefix.len(), max: KEY_BYTES_MAX };
        return Err(RequestError::new("prefix", problem));
    }
    // Before 1970 nothing was stamped.
    let since_ms = request.since_time.map_or(0, |time| {
        let ms = i128::from(time.seconds) * 1_000 + i128::from(time.nanos / 1_000_000);
        u64::try_from(ms.max(0)).unwrap_or(u64::MAX)
    });
    Ok(Filter {
        table,
        prefix: request.prefix,
        since: Hlc::at_ms(since_ms),
        conflicts_max: (request.limit > 0).then_some(request.limit),
        oldest_first: request.oldest_first,
    })
}

/// Reads the id of a conflict.
///
/// # Errors
///
/// [`RequestError`]
pub fn id_in(id: &str) -> Result<Version, RequestError> {
    id.parse().map_err(|_| {
        let shown = id.chars().take(80).collect();
        RequestError::new("id", Problem::ConflictId(shown))
    })
}

/// A conflict. `site_of` names the site of a store, where it is known.
pub fn conflict_out(
    conflict: &Conflict,
    site_of: impl Fn(Origin) -> Option<Arc<str>>,
) -> proto::Conflict {
    let Conflict { winner, loser } = conflict;
    proto::Conflict {
        id: loser.body.version().to_string(),
        table: loser.table.as_str().to_owned(),
        key: loser.key.bytes().clone(),
        loser: Some(row_version_out(&loser.body, &site_of)),
        winner: Some((*winner).into()),
        winner_site: name(site_of(winner.origin)),
        winner_time: Some(timestamp_out(winner.hlc.ms())),
    }
}

/// One version of a row, dead or not.
pub fn row_version_out(
    body: &Body,
    site_of: impl Fn(Origin) -> Option<Arc<str>>,
) -> proto::RowVersion {
    let version = body.version();
    proto::RowVersion {
        version: Some(version.into()),
        site: name(site_of(version.origin)),
        write_time: Some(timestamp_out(version.hlc.ms())),
        deleted: body.is_tombstone(),
        value: body.value().unwrap_or_default(),
        expire_time: body.expires_at_ms().map(timestamp_out),
    }
}

fn name(site: Option<Arc<str>>) -> String {
    site.map_or_else(String::new, |site| site.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_in_either_case_and_else_refused_by_name() {
        let id = "115@0a1b2c3d-4455-6677-8899-aabbccddeeff";
        assert_eq!(id_in(id).unwrap().to_string(), id);
        assert_eq!(id_in(&id.to_uppercase()).unwrap(), id_in(id).unwrap());
        let error = id_in("nonsense").unwrap_err().to_string();
        assert!(error.starts_with("id: \"nonsense\" is not the id of a conflict"), "{error}");
        assert!(id_in(&"x".repeat(1 << 20)).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn times_before_and_after_all_stamps_are_bounds_like_others() {
        let since = |seconds, nanos| {
            let since_time = Some(prost_types::Timestamp { seconds, nanos });
            list_in(proto::ListConflictsRequest { since_time, ..Default::default() }).unwrap().since
        };
        assert_eq!(since(-5, 0), Hlc::ZERO);
        assert_eq!(since(5, 7_000_000), Hlc::at_ms(5_007));
        assert_eq!(since(i64::MAX, 0), Hlc::at_ms(u64::MAX));
    }

    #[test]
    fn wrong_filters_are_refused() {
        let of = |table: &str, prefix: usize| {
            let prefix = vec![b'k'; prefix].into();
            let request =
                proto::ListConflictsRequest { table: table.into(), prefix, ..Default::default() };
            list_in(request).map(drop).map_err(|error| error.field)
        };
        assert_eq!(of("", 512), Ok(()));
        assert_eq!(of("T", 0), Err("table".to_owned()));
        assert_eq!(of("t", 513), Err("prefix".to_owned()));
    }
}
