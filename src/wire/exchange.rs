//! Frames between nodes: proto <-> [`protocol`](crate::protocol).

use super::{
    compare::{compare_out, compared_out},
    compress,
    delta::{self, DeltaRow},
    proto,
};
use crate::{
    model::{Body, BodyError, Heads, Hlc, Key, KeyError, Origin, Row, TableName, TableNameError},
    node::Rows,
    protocol::{
        Capabilities, Delta, Frame, Goodbye, GoodbyeReason, Hello, HelloMembership, Joining,
        SequenceIds, Want, compare::COMPARED_ROWS_MAX, ranges::ComparisonError,
    },
};

/// The largest frame that is read, and the most that the rows of one may be when decompressed: a row of
/// the largest value, and room for later releases.
pub const FRAME_BYTES_MAX: usize = 16 << 20;

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
    /// More origins than any cluster has.
    #[error("peer: {0} origins in one frame, more than {HEADS_MAX}")]
    TooManyOrigins(usize),
    /// A comparison that breaks its rules.
    #[error("peer: {0}")]
    Comparison(#[from] ComparisonError),
    /// A position that shares more with the one before it than that has.
    #[error("peer: comparison: a position shares {0} bytes with a shorter one")]
    Shared(u32),
    /// A hash or a fingerprint that is not 16 bytes.
    #[error("peer: comparison: a hash of {0} bytes, not 16")]
    Hash(usize),
    /// More rows in a comparison than may be asked for at once.
    #[error("peer: comparison: {0} rows, more than {COMPARED_ROWS_MAX}")]
    TooManyRows(usize),
    /// Compressed rows that are none.
    #[error("peer: rows_zstd: {0}: run the same release of lastword on both sides")]
    Compressed(String),
    /// Compressed rows that would take too much memory.
    #[error(
        "peer: rows_zstd: {0} bytes when decompressed, more than the {FRAME_BYTES_MAX} of a frame: \
         run the same release of lastword on both sides"
    )]
    TooLarge(u64),
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
            Some(Kind::Want(want)) => Frame::Want(Want {
                heads: heads_in(&want.heads)?,
                number: want.number,
                reconcile: want.reconcile,
            }),
            Some(Kind::Join(proto::Join {})) => Frame::Join,
            Some(Kind::Welcome(welcome)) => Frame::Welcome(rows_in(welcome.member_rows)?),
            Some(Kind::Known(known)) => Frame::Known(known_in(&known)?),
            Some(Kind::BelowFloor(proto::BelowFloor {})) => Frame::BelowFloor,
            Some(Kind::ReconcileQuestion(question)) => {
                Frame::ReconcileQuestion(question.comparison.unwrap_or_default().try_into()?)
            }
            Some(Kind::ReconcileAnswer(answer)) => {
                Frame::ReconcileAnswer(answer.comparison.unwrap_or_default().try_into()?)
            }
            Some(Kind::Linked(linked)) => {
                if linked.origins.len() > HEADS_MAX {
                    return Err(FrameError::TooManyOrigins(linked.origins.len()));
                }
                let origins = linked.origins.iter().map(|origin| origin_in(origin));
                Frame::Linked(origins.collect::<Result<_, _>>()?)
            }
            Some(Kind::Ping(proto::Ping { token })) => Frame::Ping(token),
            Some(Kind::Pong(proto::Pong { token, wall_ms })) => Frame::Pong { token, wall_ms },
            Some(Kind::Compare(compare)) => compare.try_into()?,
            Some(Kind::Compared(compared)) => compared.try_into()?,
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
            Frame::Want(Want { heads, number, reconcile }) => {
                Some(Kind::Want(proto::Want { heads: heads_out(&heads), number, reconcile }))
            }
            Frame::Join => Some(Kind::Join(proto::Join {})),
            Frame::Welcome(rows) => {
                Some(Kind::Welcome(proto::Welcome { member_rows: rows_out(rows) }))
            }
            Frame::Known(known) => Some(Kind::Known(known_out(&known))),
            Frame::BelowFloor => Some(Kind::BelowFloor(proto::BelowFloor {})),
            Frame::ReconcileQuestion(comparison) => {
                let comparison = Some(proto::Comparison::from(&comparison));
                Some(Kind::ReconcileQuestion(proto::ReconcileQuestion { comparison }))
            }
            Frame::ReconcileAnswer(comparison) => {
                let comparison = Some(proto::Comparison::from(&comparison));
                Some(Kind::ReconcileAnswer(proto::ReconcileAnswer { comparison }))
            }
            Frame::Compare { id, ask } => Some(Kind::Compare(compare_out(id, ask))),
            Frame::Compared { id, answer } => Some(Kind::Compared(compared_out(id, answer))),
            Frame::Linked(origins) => Some(Kind::Linked(proto::Linked {
                origins: origins.into_iter().map(origin_out).collect(),
            })),
            Frame::Ping(token) => Some(Kind::Ping(proto::Ping { token })),
            Frame::Pong { token, wall_ms } => Some(Kind::Pong(proto::Pong { token, wall_ms })),
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
            capabilities: Capabilities::of_names(hello.capabilities.iter().map(String::as_str)),
            membership: HelloMembership {
                has_acknowledged: hello.has_acknowledged,
                may_join: hello.may_join,
                waits_for_admission: hello.waits_for_admission,
                earlier: match hello.earlier_origin.is_empty() {
                    true => None,
                    false => Some(origin_in(&hello.earlier_origin)?),
                },
                joining: hello.joining.map(joining_in).transpose()?,
                rows: rows_in(hello.member_rows)?,
                members: members_in(&hello.members)?,
            },
        })
    }
}

fn members_in(members: &[proto::KnownMember]) -> Result<Vec<(Origin, bool)>, FrameError> {
    if members.len() > HEADS_MAX {
        return Err(FrameError::TooManyOrigins(members.len()));
    }
    members.iter().map(|member| Ok((origin_in(&member.origin)?, member.admitted))).collect()
}

fn joining_in(joining: proto::Joining) -> Result<Joining, FrameError> {
    Ok(Joining {
        sponsor: origin_in(&joining.sponsor)?,
        admission: Hlc::from_bits(joining.admission_hlc),
        pulled: joining.pulled,
    })
}

fn joining_out(joining: Joining) -> proto::Joining {
    proto::Joining {
        sponsor: origin_out(joining.sponsor),
        admission_hlc: joining.admission.bits(),
        pulled: joining.pulled,
    }
}

fn known_in(known: &proto::Known) -> Result<Vec<(Origin, Heads)>, FrameError> {
    if known.members.len() > HEADS_MAX {
        return Err(FrameError::TooManyOrigins(known.members.len()));
    }
    let members = known.members.iter();
    members.map(|member| Ok((origin_in(&member.origin)?, heads_in(&member.heads)?))).collect()
}

fn known_out(known: &[(Origin, Heads)]) -> proto::Known {
    let member = |(origin, heads): &(Origin, Heads)| proto::MemberHeads {
        origin: origin_out(*origin),
        heads: heads_out(heads),
    };
    proto::Known { members: known.iter().map(member).collect() }
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
            capabilities: hello.capabilities.names().map(str::to_owned).collect(),
            has_acknowledged: hello.membership.has_acknowledged,
            may_join: hello.membership.may_join,
            waits_for_admission: hello.membership.waits_for_admission,
            earlier_origin: hello.membership.earlier.map(origin_out).unwrap_or_default(),
            joining: hello.membership.joining.map(joining_out),
            member_rows: rows_out(hello.membership.rows),
            members: hello
                .membership
                .members
                .into_iter()
                .map(|(origin, admitted)| proto::KnownMember {
                    origin: origin_out(origin),
                    admitted,
                })
                .collect(),
        }
    }
}

impl TryFrom<delta::Delta> for Delta {
    type Error = FrameError;

    fn try_from(delta: delta::Delta) -> Result<Delta, FrameError> {
        let delta::Delta { beginning, encoded, mut rows, rest, .. } = delta;
        debug_assert!(encoded.is_empty(), "what came in is decoded");
        if !rest.rows_zstd.is_empty() {
            rows.append(&mut compress::decompressed(&rest.rows_zstd)?);
        }
        let snapshot_heads =
            if beginning.first { Some(heads_in(&beginning.snapshot_heads)?) } else { None };
        Ok(Delta {
            snapshot_heads,
            floor: heads_in(&rest.floor)?,
            rows: rows_in(rows)?,
            last: rest.last,
            remaining_rows: rest.remaining_rows,
            remaining_bytes: rest.remaining_bytes,
            want_number: rest.want_number,
        })
    }
}

impl<R: Into<Rows>> From<Delta<R>> for delta::Delta {
    fn from(delta: Delta<R>) -> delta::Delta {
        let heads = delta.snapshot_heads.as_ref();
        let encoded = delta::encoded(&delta.rows.into());
        delta::Delta {
            beginning: delta::Beginning {
                first: heads.is_some(),
                snapshot_heads: heads.map(heads_out).unwrap_or_default(),
            },
            row_bytes: encoded.iter().map(bytes::Bytes::len).sum(),
            encoded,
            rows: Vec::new(),
            rest: delta::Rest {
                last: delta.last,
                remaining_rows: delta.remaining_rows,
                remaining_bytes: delta.remaining_bytes,
                want_number: delta.want_number,
                floor: heads_out(&delta.floor),
                rows_zstd: bytes::Bytes::new(),
            },
        }
    }
}

impl From<delta::Delta> for proto::Frame {
    fn from(delta: delta::Delta) -> proto::Frame {
        proto::Frame { kind: Some(proto::frame::Kind::Delta(delta)) }
    }
}

/// What the rows of a frame took on the wire, in bytes.
#[must_use]
pub fn row_bytes(frame: &Option<proto::Frame>) -> usize {
    match frame {
        Some(proto::Frame { kind: Some(proto::frame::Kind::Delta(delta)) }) => delta.row_bytes,
        _ => 0,
    }
}

pub(super) fn rows_in(rows: Vec<DeltaRow>) -> Result<Vec<Row>, FrameError> {
    let mut last: Option<TableName> = None;
    let mut decoded = Vec::with_capacity(rows.len());
    for row in rows {
        // Mostly that of the row before, which is shared then.
        let table = match last {
            Some(last) if last.as_str().as_bytes() == row.table => last,
            _ => TableName::of_any(&String::from_utf8_lossy(&row.table))?,
        };
        last = Some(table.clone());
        decoded.push(Row { table, key: Key::new(row.key)?, body: Body::decode(row.body)? });
    }
    Ok(decoded)
}

fn rows_out(rows: Vec<Row>) -> Vec<DeltaRow> {
    rows.into_iter().map(DeltaRow::from).collect()
}

impl From<Row> for DeltaRow {
    fn from(row: Row) -> DeltaRow {
        DeltaRow {
            table: bytes::Bytes::copy_from_slice(row.table.as_str().as_bytes()),
            key: row.key.bytes().clone(),
            body: row.body.bytes().clone(),
        }
    }
}

pub(super) fn heads_in(heads: &[proto::OriginHead]) -> Result<Heads, FrameError> {
    if heads.len() > HEADS_MAX {
        return Err(FrameError::TooManyOrigins(heads.len()));
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
    use prost::Message;

    use super::*;
    use crate::{
        model::{BodyParts, Context, Version},
        protocol::ranges::Comparison,
    };

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
                capabilities: Capabilities::own(),
                membership: HelloMembership {
                    has_acknowledged: true,
                    may_join: true,
                    waits_for_admission: true,
                    earlier: Some(Origin::from_bytes([9; 16])),
                    joining: Some(Joining {
                        sponsor: Origin::from_bytes([6; 16]),
                        admission: Hlc::from_bits(7),
                        pulled: true,
                    }),
                    rows: vec![row()],
                    members: vec![(Origin::from_bytes([8; 16]), true)],
                },
            }),
            Frame::Delta(Delta {
                snapshot_heads: Some(heads()),
                floor: heads(),
                rows: vec![row()],
                last: true,
                remaining_rows: 1,
                remaining_bytes: 2,
                want_number: 3,
            }),
            Frame::Delta(Delta::default()),
            Frame::Ack(heads()),
            Frame::Want(Want { heads: heads(), number: 7, reconcile: true }),
            Frame::Join,
            Frame::Welcome(vec![row()]),
            Frame::Known(vec![(Origin::from_bytes([2; 16]), heads())]),
            Frame::BelowFloor,
            Frame::ReconcileQuestion(Comparison::new()),
            Frame::ReconcileAnswer(Comparison::new()),
            Frame::Linked(vec![Origin::from_bytes([3; 16]), Origin::from_bytes([4; 16])]),
            Frame::Ping(8),
            Frame::Pong { token: 8, wall_ms: 9 },
            Frame::Goodbye(Goodbye { reason: GoodbyeReason::Duplicate, message: "because".into() }),
            Frame::Unknown,
        ] {
            let bytes = proto::Frame::from(frame.clone()).encode_to_vec();
            let wire = proto::Frame::decode(&bytes[..]).unwrap();
            assert_eq!(Frame::try_from(Some(wire)), Ok(frame));
        }
    }

    #[test]
    fn unsound_frames_are_refused() {
        let row = row();
        let good = DeltaRow {
            table: "t".into(),
            key: row.key.bytes().clone(),
            body: row.body.bytes().clone(),
        };
        assert!(rows_in(vec![good.clone()]).is_ok());
        let bad_key = DeltaRow { key: bytes::Bytes::new(), ..good.clone() };
        assert!(matches!(rows_in(vec![bad_key]), Err(FrameError::Key(_))));
        for bad in [&b"T"[..], b"t\xff"] {
            let bad_table = DeltaRow { table: bad.into(), ..good.clone() };
            assert!(matches!(rows_in(vec![bad_table]), Err(FrameError::Table(_))));
        }
        let bad_body = DeltaRow { body: bytes::Bytes::from_static(&[1]), ..good };
        assert!(matches!(rows_in(vec![bad_body]), Err(FrameError::Body(_))));
        assert_eq!(origin_in(&[0; 15]), Err(FrameError::Origin(15)));
    }

    #[test]
    fn compressed_rows_are_rows() {
        let delta = Delta { rows: vec![row(); 100], last: true, ..Delta::default() };
        let mut wire = delta::Delta::from(delta.clone());
        compress::compress(&mut wire);
        assert!(wire.rest.rows_zstd.len() < 1_000);
        let bytes = proto::Frame::from(wire).encode_to_vec();
        let came = Some(proto::Frame::decode(&bytes[..]).unwrap());
        assert!((1..1_000).contains(&row_bytes(&came)));
        assert_eq!(Frame::try_from(came), Ok(Frame::Delta(delta)));
    }
}
