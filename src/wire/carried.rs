//! Deltas that are carried as files: proto <-> [`protocol`](crate::protocol).

use super::{
    delta::DeltaRow,
    exchange::{FrameError, heads_in, heads_out, origin_in, origin_out, rows_in},
    limits::{Problem, RequestError},
    proto,
};
use crate::{
    model::{Heads, Row},
    node::Rows,
    protocol::CarriedHeader,
};

/// From where on a delta is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// From what this site is known to have.
    Site(String),
    /// From here.
    Heads(Heads),
}

/// Reads an `Export`.
///
/// # Errors
///
/// [`RequestError`]
pub fn since_in(request: proto::ExportRequest) -> Result<Since, RequestError> {
    use proto::export_request::Since as Wire;
    match request.since {
        Some(Wire::Site(site)) => Ok(Since::Site(site.chars().take(80).collect())),
        Some(Wire::Heads(text)) => match Heads::from_text(&text) {
            Some(heads) => Ok(Since::Heads(heads)),
            None => Err(RequestError::new("heads", Problem::HeadsMalformed)),
        },
        Some(Wire::Nothing(true)) => Ok(Since::Heads(Heads::new())),
        Some(Wire::Nothing(false)) | None => Err(RequestError::new("since", Problem::NoSince)),
    }
}

impl TryFrom<proto::DeltaFileHeader> for CarriedHeader {
    type Error = FrameError;

    fn try_from(header: proto::DeltaFileHeader) -> Result<CarriedHeader, FrameError> {
        Ok(CarriedHeader {
            cluster: header.cluster,
            site: header.site,
            origin: origin_in(&header.origin)?,
            since: heads_in(&header.since)?,
            heads: heads_in(&header.snapshot_heads)?,
            floor: heads_in(&header.floor)?,
            sealed: header.sealed,
            created_ms: header.created_ms,
        })
    }
}

impl From<CarriedHeader> for proto::DeltaFileHeader {
    fn from(header: CarriedHeader) -> proto::DeltaFileHeader {
        proto::DeltaFileHeader {
            cluster: header.cluster,
            site: header.site,
            origin: origin_out(header.origin),
            since: heads_out(&header.since),
            snapshot_heads: heads_out(&header.heads),
            floor: heads_out(&header.floor),
            created_ms: header.created_ms,
            sealed: header.sealed,
        }
    }
}

/// Reads the rows of a file.
///
/// # Errors
///
/// [`FrameError`]
pub fn carried_rows_in(rows: proto::DeltaFileRows) -> Result<Vec<Row>, FrameError> {
    rows_in(rows.rows)
}

/// The rows of a file.
#[must_use]
pub fn carried_rows_out(rows: &Rows) -> proto::DeltaFileRows {
    proto::DeltaFileRows { rows: rows.iter().cloned().map(DeltaRow::from).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hlc, Origin};

    fn heads(hlc: u64) -> Heads {
        [(Origin::from_bytes([1; 16]), Hlc::from_bits(hlc))].into_iter().collect()
    }

    #[test]
    fn headers_round_trip() {
        let header = CarriedHeader {
            cluster: "c".into(),
            site: "s".into(),
            origin: Origin::from_bytes([2; 16]),
            since: heads(1),
            heads: heads(3),
            floor: heads(2),
            sealed: true,
            created_ms: 4,
        };
        let wire = proto::DeltaFileHeader::from(header.clone());
        assert_eq!(CarriedHeader::try_from(wire.clone()), Ok(header));
        let cut = proto::DeltaFileHeader { origin: bytes::Bytes::from_static(&[1; 15]), ..wire };
        assert_eq!(CarriedHeader::try_from(cut), Err(FrameError::Origin(15)));
    }

    #[test]
    fn from_where_on_must_be_said() {
        use proto::export_request::Since as Wire;
        let of = |since| since_in(proto::ExportRequest { since });
        assert_eq!(of(Some(Wire::Nothing(true))), Ok(Since::Heads(Heads::new())));
        assert_eq!(of(Some(Wire::Heads(heads(7).to_text()))), Ok(Since::Heads(heads(7))));
        assert_eq!(of(Some(Wire::Site("nyc".into()))), Ok(Since::Site("nyc".into())));
        assert_eq!(of(None).unwrap_err().field, "since");
        assert_eq!(of(Some(Wire::Nothing(false))).unwrap_err().field, "since");
        assert_eq!(of(Some(Wire::Heads("h1.x".into()))).unwrap_err().field, "heads");
    }
}
