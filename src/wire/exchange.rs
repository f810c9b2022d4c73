//! Frames between nodes: proto <-> [`protocol`](crate::protocol).

use super::proto;
use crate::{
    model::{Body, BodyError, Heads, Hlc, Key, KeyError, Origin, Row, TableName, TableNameError},
    protocol::{Delta, Frame, Goodbye, GoodbyeReason, Hello, SequenceIds},
};

/// The most origins a frame may name: heads are kept sorted, at a cost that is quadratic at worst.
const HEADS_MAX: usize = 10_000;

/// Why a frame cannot be used. The stream ends; nothing of the frame was merged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A row's table.
    #[error("peer: row: {0}")]
    Table(#[from] TableNameError),
    /// A row's key.
    #[error("peer: row: {0}")]
    Key(#[from] KeyError),
    /// A row's body.
    #[error("peer: {0}")]
    Body(#[from] BodyError),
    /// An origin that is not 16 bytes.
    #[error("peer: an origin of {0} bytes, not 16")]
    Origin(usize),
    /// More heads than any cluster has.
    #[error("peer: {0} heads, more than {HEADS_MAX}")]
    TooManyHeads(usize),
    /// A sequence that no node may have.
    #[error("peer: sequence offset {offset} does not lie within 1 to {increment}")]
    Sequence {
        /// As sent.
        offset: u64,
        /// As sent.
        increment: u64,
    },
}

impl TryFrom<Option<proto::Frame>> for Frame {
    type Error = FrameError;

    fn try_from(frame: Option<proto::Frame>) -> Result<Frame, FrameError> {
        use proto::frame::Kind;
        Ok(match frame.and_then(|frame| frame.kind) {
            Some(Kind::Hello(hello)) => Frame::Hello(hello.try_into()?),
            Some(Kind::Delta(delta)) => Frame::Delta(delta.try_into()?),
            Some(Kind::Ack(ack)) => Frame::Ack(heads_in(&ack.heads)?),
            Some(Kind::Want(want)) => {
                Frame::Want { heads: heads_in(&want.heads)?, number: want.number }
            }
            Some(Kind::Goodbye(goodbye)) => Frame::Goodbye(Goodbye {
                reason: match goodbye.reason() {
                    proto::GoodbyeReason::Duplicate => GoodbyeReason::Duplicate,
                    proto::GoodbyeReason::Refused => GoodbyeReason::Refused,
                    proto::GoodbyeReason::Unspecified | proto::GoodbyeReason::Shutdown => {
                        GoodbyeReason::Shutdown
                    }
                },
                message: goodbye.message,
            }),
            None => Frame::Unknown,
        })
    }
}

impl From<Frame> for proto::Frame {
    fn from(frame: Frame) -> proto::Frame {
        use proto::frame::Kind;
        let kind = match frame {
            Frame::Hello(hello) => Some(Kind::Hello(hello.into())),
            Frame::Delta(delta) => Some(Kind::Delta(delta.into())),
            Frame::Ack(heads) => Some(Kind::Ack(proto::Ack { heads: heads_out(&heads) })),
            Frame::Want { heads, number } => {
                Some(Kind::Want(proto::Want { heads: heads_out(&heads), number }))
            }
            Frame::Goodbye(goodbye) => Some(Kind::Goodbye(proto::Goodbye {
                reason: match goodbye.reason {
                    GoodbyeReason::Shutdown => proto::GoodbyeReason::Shutdown,
                    GoodbyeReason::Duplicate => proto::GoodbyeReason::Duplicate,
                    GoodbyeReason::Refused => proto::GoodbyeReason::Refused,
                } as i32,
                message: goodbye.message,
            })),
            Frame::Unknown => None,
        };
        proto::Frame { kind }
    }
}

impl TryFrom<proto::Hello> for Hello {
    type Error = FrameError;

    fn try_from(hello: proto::Hello) -> Result<Hello, FrameError> {
        let (offset, increment) = (hello.sequence_offset, hello.sequence_increment);
        let sequence = match increment {
            0 => None,
            _ if (1..=increment).contains(&offset) => Some(SequenceIds { offset, increment }),
            _ => return Err(FrameError::Sequence { offset, increment }),
        };
        Ok(Hello {
            protocol_version: hello.protocol_version,
            cluster: hello.cluster,
            site: hello.site,
            origin: origin_in(&hello.origin)?,
            boot: hello.boot,
            nonce: hello.nonce,
            heads: heads_in(&hello.heads)?,
            sequence,
            wall_ms: hello.wall_ms,
        })
    }
}

impl From<Hello> for proto::Hello {
    fn from(hello: Hello) -> proto::Hello {
        proto::Hello {
            protocol_version: hello.protocol_version,
            cluster: hello.cluster,
            site: hello.site,
            origin: origin_out(hello.origin),
            boot: hello.boot,
            nonce: hello.nonce,
            heads: heads_out(&hello.heads),
            sequence_offset: hello.sequence.map_or(0, |ids| ids.offset),
            sequence_increment: hello.sequence.map_or(0, |ids| ids.increment),
            wall_ms: hello.wall_ms,
            capabilities: Vec::new(),
        }
    }
}

impl TryFrom<proto::Delta> for Delta {
    type Error = FrameError;

    fn try_from(delta: proto::Delta) -> Result<Delta, FrameError> {
        let snapshot_heads =
            if delta.first { Some(heads_in(&delta.snapshot_heads)?) } else { None };
        Ok(Delta {
            snapshot_heads,
            rows: rows_in(delta.rows)?,
            last: delta.last,
            remaining_rows: delta.remaining_rows,
            remaining_bytes: delta.remaining_bytes,
            want_number: delta.want_number,
        })
    }
}

impl From<Delta> for proto::Delta {
    fn from(delta: Delta) -> proto::Delta {
        proto::Delta {
            first: delta.snapshot_heads.is_some(),
            snapshot_heads: delta.snapshot_heads.as_ref().map(heads_out).unwrap_or_default(),
            rows: delta.rows.into_iter().map(proto::DeltaRow::from).collect(),
            last: delta.last,
            remaining_rows: delta.remaining_rows,
            remaining_bytes: delta.remaining_bytes,
            want_number: delta.want_number,
        }
    }
}

pub(super) fn rows_in(rows: Vec<proto::DeltaRow>) -> Result<Vec<Row>, FrameError> {
    let mut last: Option<TableName> = None;
    let mut decoded = Vec::with_capacity(rows.len());
    for row in rows {
        // Mostly that of the row before, which is shared then.
        let table = match last {
            Some(last) if last.as_str() == row.table => last,
            _ => TableName::of_any(&row.table)?,
        };
        last = Some(table.clone());
        decoded.push(Row { table, key: Key::new(row.key)?, body: Body::decode(row.body)? });
    }
    Ok(decoded)
}

impl From<Row> for proto::DeltaRow {
    fn from(row: Row) -> proto::DeltaRow {
        proto::DeltaRow {
            table: row.table.as_str().to_owned(),
            key: row.key.bytes().clone(),
            body: row.body.bytes().clone(),
        }
    }
}

pub(super) fn heads_in(heads: &[proto::OriginHead]) -> Result<Heads, FrameError> {
    if heads.len() > HEADS_MAX {
        return Err(FrameError::TooManyHeads(heads.len()));
    }
    heads.iter().map(|head| Ok((origin_in(&head.origin)?, Hlc::from_bits(head.hlc)))).collect()
}

pub(super) fn heads_out(heads: &Heads) -> Vec<proto::OriginHead> {
    heads
        .iter()
        .map(|(origin, hlc)| proto::OriginHead { origin: origin_out(origin), hlc: hlc.bits() })
        .collect()
}

pub(super) fn origin_in(bytes: &[u8]) -> Result<Origin, FrameError> {
    let bytes = bytes.try_into().map_err(|_| FrameError::Origin(bytes.len()))?;
    Ok(Origin::from_bytes(bytes))
}

pub(super) fn origin_out(origin: Origin) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(origin.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BodyParts, Context, Version};

    fn row() -> Row {
        Row {
            table: TableName::of_any("t").unwrap(),
            key: Key::new("k").unwrap(),
            body: Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(9), origin: Origin::from_bytes([1; 16]) },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(b"v"),
            }),
        }
    }

    fn heads() -> Heads {
        [(Origin::from_bytes([1; 16]), Hlc::from_bits(9))].into_iter().collect()
    }

    #[test]
    fn frames_round_trip() {
        for frame in [
            Frame::Hello(Hello {
                protocol_version: 1,
                cluster: "c".into(),
                site: "s".into(),
                origin: Origin::from_bytes([2; 16]),
                boot: 3,
                nonce: 4,
                heads: heads(),
                sequence: Some(SequenceIds { offset: 2, increment: 3 }),
                wall_ms: 5,
            }),
            Frame::Delta(Delta {
                snapshot_heads: Some(heads()),
                rows: vec![row()],
                last: true,
                remaining_rows: 1,
                remaining_bytes: 2,
                want_number: 3,
            }),
            Frame::Delta(Delta::default()),
            Frame::Ack(heads()),
            Frame::Want { heads: heads(), number: 7 },
            Frame::Goodbye(Goodbye { reason: GoodbyeReason::Duplicate, message: "because".into() }),
            Frame::Unknown,
        ] {
            let wire = proto::Frame::from(frame.clone());
            assert_eq!(Frame::try_from(Some(wire)), Ok(frame));
        }
    }

    #[test]
    fn unsound_frames_are_refused() {
        let good = proto::DeltaRow::from(row());
        let bad_key = proto::DeltaRow { key: bytes::Bytes::new(), ..good.clone() };
        assert!(matches!(rows_in(vec![bad_key]), Err(FrameError::Key(_))));
        let bad_table = proto::DeltaRow { table: "T".into(), ..good.clone() };
        assert!(matches!(rows_in(vec![bad_table]), Err(FrameError::Table(_))));
        let bad_body = proto::DeltaRow { body: bytes::Bytes::from_static(&[1]), ..good };
        assert!(matches!(rows_in(vec![bad_body]), Err(FrameError::Body(_))));
        assert_eq!(origin_in(&[0; 15]), Err(FrameError::Origin(15)));
    }
}
