//! Comparisons of two stores: proto <-> [`protocol::ranges`](crate::protocol::ranges).
//!
//! Positions that follow each other mostly begin alike; what two share is sent once.

use bytes::Bytes;

use super::{exchange::FrameError, proto};
use crate::protocol::ranges::{
    Comparison, ComparisonError, Fingerprint, ListedRow, MESSAGE_BYTES_MAX, Position, Says,
};

impl TryFrom<proto::Comparison> for Comparison {
    type Error = FrameError;

    fn try_from(comparison: proto::Comparison) -> Result<Comparison, FrameError> {
        use proto::compared_range::Says as Wire;
        let mut message = Comparison::new();
        let mut start = Position::START;
        for range in comparison.ranges {
            let says = match range.says {
                None => Says::Skip,
                Some(Wire::Fingerprint(bytes)) => Says::Fingerprint(Fingerprint(sixteen(&bytes)?)),
                Some(Wire::Rows(rows)) => Says::Rows(rows_in(&start, &rows.rows)?),
            };
            let end = match range.to_end {
                true => None,
                false => Some(joined(&start, range.shared, &range.end)?),
            };
            start = end.clone().unwrap_or_default();
            message.push(end, says)?;
        }
        Ok(message)
    }
}

impl From<&Comparison> for proto::Comparison {
    fn from(comparison: &Comparison) -> proto::Comparison {
        use proto::compared_range::Says as Wire;
        let mut start = &Position::START;
        let mut ranges = Vec::with_capacity(comparison.ranges().len());
        for (end, says) in comparison.ranges() {
            let says = match says {
                Says::Skip => None,
                Says::Fingerprint(fingerprint) => {
                    Some(Wire::Fingerprint(Bytes::copy_from_slice(&fingerprint.0)))
                }
                Says::Rows(rows) => {
                    Some(Wire::Rows(proto::ComparedRows { rows: rows_out(start, rows) }))
                }
            };
            let (shared, rest) = end.as_ref().map(|end| parted(start, end)).unwrap_or_default();
            ranges.push(proto::ComparedRange { shared, end: rest, to_end: end.is_none(), says });
            start = end.as_ref().unwrap_or(start);
        }
        proto::Comparison { ranges }
    }
}

fn rows_in(start: &Position, rows: &[proto::ComparedRow]) -> Result<Vec<ListedRow>, FrameError> {
    let mut decoded: Vec<ListedRow> = Vec::new();
    // What is sent once can stand in each of many positions.
    let mut bytes = 0;
    for row in rows {
        let before = decoded.last().map_or(start, |row| &row.position);
        let position = joined(before, row.shared, &row.position)?;
        let row = ListedRow { position, hash: sixteen(&row.hash)? };
        bytes += row.bytes();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(ComparisonError::TooLarge.into());
        }
        decoded.push(row);
    }
    Ok(decoded)
}

fn rows_out(start: &Position, rows: &[ListedRow]) -> Vec<proto::ComparedRow> {
    let before = std::iter::once(start).chain(rows.iter().map(|row| &row.position));
    before
        .zip(rows)
        .map(|(before, row)| {
            let (shared, position) = parted(before, &row.position);
            proto::ComparedRow { shared, position, hash: Bytes::copy_from_slice(&row.hash) }
        })
        .collect()
}

/// How many bytes a position shares with the one before it, and the rest.
fn parted(before: &Position, position: &Position) -> (u32, Bytes) {
    let shared = position.shared_with(before);
    let rest = Bytes::copy_from_slice(&position.as_slice()[shared..]);
    (u32::try_from(shared).expect("a position of at most 576 bytes"), rest)
}

fn joined(before: &Position, shared: u32, rest: &[u8]) -> Result<Position, FrameError> {
    let shared = before.as_slice().get(..shared as usize).ok_or(FrameError::Shared(shared))?;
    Ok(Position::new([shared, rest].concat()))
}

fn sixteen(bytes: &[u8]) -> Result<[u8; 16], FrameError> {
    bytes.try_into().map_err(|_| FrameError::Hash(bytes.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::protocol::ranges::POSITION_BYTES_MAX;

    /// Sound messages; positions are long, and share much or little.
    fn messages() -> impl Strategy<Value = Comparison> {
        let tail = proptest::collection::vec(any::<u8>(), 1..4);
        let shared = prop_oneof![Just(0usize), Just(1), Just(500)];
        let key = (shared, tail).prop_map(|(shared, tail)| [&vec![7; shared][..], &tail].concat());
        let points = proptest::collection::btree_map(key, 0u8..3, 0..30);
        (points, any::<bool>(), any::<[u8; 16]>()).prop_map(|(points, to_end, hash)| {
            let table = "tab".parse().unwrap();
            let mut message = Comparison::new();
            let mut rows = Vec::new();
            for (key, kind) in points {
                let position = Position::of_row(&table, &key);
                match kind {
                    0 => rows.push(ListedRow { position, hash }),
                    1 => {
                        message
                            .push(Some(position), Says::Rows(std::mem::take(&mut rows)))
                            .unwrap();
                    }
                    _ => {
                        rows.clear();
                        message.push(Some(position), Says::Fingerprint(Fingerprint(hash))).unwrap();
                    }
                }
            }
            if to_end {
                message.push(None, Says::Skip).unwrap();
            }
            message
        })
    }

    proptest! {
        #[test]
        fn comparisons_round_trip_and_take_no_more_than_they_say(message in messages()) {
            let wire = proto::Comparison::from(&message);
            prop_assert!(wire.encoded_len() <= message.bytes());
            let bytes = wire.encode_to_vec();
            let decoded = proto::Comparison::decode(&bytes[..]).unwrap();
            prop_assert_eq!(Comparison::try_from(decoded), Ok(message));
        }
    }

    fn row(shared: u32, position: &str, hash: &[u8]) -> proto::ComparedRow {
        let position = Bytes::copy_from_slice(position.as_bytes());
        proto::ComparedRow { shared, position, hash: Bytes::copy_from_slice(hash) }
    }

    fn refused(ranges: Vec<proto::ComparedRange>) -> FrameError {
        Comparison::try_from(proto::Comparison { ranges }).unwrap_err()
    }

    fn rows(rows: Vec<proto::ComparedRow>) -> proto::ComparedRange {
        let says = proto::compared_range::Says::Rows(proto::ComparedRows { rows });
        proto::ComparedRange { to_end: true, says: Some(says), ..Default::default() }
    }

    #[test]
    fn unsound_comparisons_are_refused() {
        let end = |shared, end: &str| proto::ComparedRange {
            shared,
            end: Bytes::copy_from_slice(end.as_bytes()),
            ..Default::default()
        };
        assert_eq!(refused(vec![end(1, "x")]), FrameError::Shared(1));
        assert_eq!(refused(vec![end(0, "x"), end(u32::MAX, "x")]), FrameError::Shared(u32::MAX));
        let order = FrameError::Comparison(ComparisonError::OutOfOrder);
        assert_eq!(refused(vec![end(0, "x"), end(1, "")]), order);
        assert_eq!(refused(vec![end(0, "")]), order);
        assert_eq!(refused(vec![rows(vec![]), end(0, "x")]), order);
        let long = end(0, &"x".repeat(POSITION_BYTES_MAX + 1));
        let too_long = ComparisonError::TooLong(POSITION_BYTES_MAX + 1);
        assert_eq!(refused(vec![long]), FrameError::Comparison(too_long));
        assert_eq!(refused(vec![rows(vec![row(0, "t\0k", &[0; 15])])]), FrameError::Hash(15));
        let short = proto::compared_range::Says::Fingerprint(Bytes::new());
        let short = proto::ComparedRange { says: Some(short), ..end(0, "x") };
        assert_eq!(refused(vec![short]), FrameError::Hash(0));
    }

    /// A message of a megabyte must not become one of many: each row says that it shares nearly all.
    #[test]
    fn what_is_shared_counts_for_each() {
        let first = row(0, &format!("t\0{}", "k".repeat(500)), &[0; 16]);
        let next = (0..20_000).map(|_| row(502, "", &[0; 16]));
        let many = rows(std::iter::once(first).chain(next).collect());
        assert!(proto::Comparison { ranges: vec![many.clone()] }.encoded_len() < MESSAGE_BYTES_MAX);
        assert_eq!(refused(vec![many]), FrameError::Comparison(ComparisonError::TooLarge));
    }
}
