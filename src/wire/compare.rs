//! Frames that ask how two stores differ: proto <-> [`protocol::compare`](crate::protocol::compare).

use bytes::Bytes;

use super::{
    exchange::{FrameError, heads_in, heads_out},
    proto,
};
use crate::protocol::{
    Frame,
    compare::{Answer, Ask, COMPARED_ROWS_MAX},
    ranges::{ComparisonError, POSITION_BYTES_MAX, Position},
};

impl TryFrom<proto::Compare> for Frame {
    type Error = FrameError;

    fn try_from(compare: proto::Compare) -> Result<Frame, FrameError> {
        use proto::compare::Ask as Wire;
        let ask = match compare.ask {
            Some(Wire::Begin(begin)) => Ask::Begin(heads_in(&begin.heads)?),
            Some(Wire::Ranges(ranges)) => Ask::Ranges(ranges.try_into()?),
            Some(Wire::Rows(rows)) => Ask::Rows(positions_in(&rows.positions)?),
            Some(Wire::End(_)) => Ask::End,
            None => return Ok(Frame::Unknown),
        };
        Ok(Frame::Compare { id: compare.id, ask })
    }
}

impl TryFrom<proto::Compared> for Frame {
    type Error = FrameError;

    fn try_from(compared: proto::Compared) -> Result<Frame, FrameError> {
        use proto::compared::Answer as Wire;
        let answer = match compared.answer {
            Some(Wire::Begun(begun)) => {
                Answer::Begun { heads: heads_in(&begun.heads)?, floor: heads_in(&begun.floor)? }
            }
            Some(Wire::Ranges(ranges)) => Answer::Ranges(ranges.try_into()?),
            Some(Wire::Bodies(bodies)) => {
                checked_count(bodies.bodies.len())?;
                Answer::Bodies(bodies.bodies.into_iter().map(|body| body.body).collect())
            }
            Some(Wire::Refused(reason)) => Answer::Refused(reason),
            None => return Ok(Frame::Unknown),
        };
        Ok(Frame::Compared { id: compared.id, answer })
    }
}

pub(super) fn compare_out(id: u64, ask: Ask) -> proto::Compare {
    use proto::compare::Ask as Wire;
    let ask = match ask {
        Ask::Begin(heads) => Wire::Begin(proto::CompareBegin { heads: heads_out(&heads) }),
        Ask::Ranges(ranges) => Wire::Ranges((&ranges).into()),
        Ask::Rows(positions) => {
            let bytes = |position: Position| Bytes::from(position.into_bytes());
            let positions = positions.into_iter().map(bytes).collect();
            Wire::Rows(proto::CompareRows { positions })
        }
        Ask::End => Wire::End(proto::CompareEnd {}),
    };
    proto::Compare { id, ask: Some(ask) }
}

pub(super) fn compared_out(id: u64, answer: Answer) -> proto::Compared {
    use proto::compared::Answer as Wire;
    let answer = match answer {
        Answer::Begun { heads, floor } => {
            let (heads, floor) = (heads_out(&heads), heads_out(&floor));
            Wire::Begun(proto::CompareBegun { heads, floor })
        }
        Answer::Ranges(ranges) => Wire::Ranges((&ranges).into()),
        Answer::Bodies(bodies) => {
            let bodies = bodies.into_iter().map(|body| proto::ComparedBody { body }).collect();
            Wire::Bodies(proto::ComparedBodies { bodies })
        }
        Answer::Refused(reason) => Wire::Refused(reason),
    };
    proto::Compared { id, answer: Some(answer) }
}

fn positions_in(positions: &[Bytes]) -> Result<Vec<Position>, FrameError> {
    checked_count(positions.len())?;
    let position = |bytes: &Bytes| match bytes.len() {
        length if length > POSITION_BYTES_MAX => Err(ComparisonError::TooLong(length).into()),
        _ => Ok(Position::new(bytes.to_vec())),
    };
    positions.iter().map(position).collect()
}

fn checked_count(rows: usize) -> Result<(), FrameError> {
    if rows > COMPARED_ROWS_MAX { Err(FrameError::TooManyRows(rows)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Heads, Hlc, Origin},
        protocol::ranges::{Comparison, Says},
    };

    #[test]
    fn frames_round_trip() {
        let heads: Heads = [(Origin::from_bytes([1; 16]), Hlc::from_bits(9))].into_iter().collect();
        let mut ranges = Comparison::new();
        ranges.push(None, Says::Skip).unwrap();
        let row = Position::new(b"t\0k".to_vec());
        let bodies = vec![None, Some(Bytes::new()), Some(Bytes::from_static(b"body"))];
        let ask = |ask| Frame::Compare { id: 7, ask };
        let answer = |answer| Frame::Compared { id: 7, answer };
        for frame in [
            ask(Ask::Begin(heads.clone())),
            ask(Ask::Ranges(ranges.clone())),
            ask(Ask::Rows(vec![row])),
            ask(Ask::End),
            answer(Answer::Begun { heads: heads.clone(), floor: heads }),
            answer(Answer::Ranges(ranges)),
            answer(Answer::Bodies(bodies)),
            answer(Answer::Refused("because".into())),
        ] {
            let wire = proto::Frame::from(frame.clone());
            assert_eq!(Frame::try_from(Some(wire)), Ok(frame));
        }
    }

    #[test]
    fn questions_and_answers_have_a_bound() {
        let many = vec![Bytes::new(); COMPARED_ROWS_MAX + 1];
        assert_eq!(positions_in(&many), Err(FrameError::TooManyRows(COMPARED_ROWS_MAX + 1)));
        let long = Bytes::from(vec![b'a'; POSITION_BYTES_MAX + 1]);
        assert!(matches!(positions_in(&[long]), Err(FrameError::Comparison(_))));
        let bodies = vec![proto::ComparedBody::default(); COMPARED_ROWS_MAX + 1];
        let bodies = proto::compared::Answer::Bodies(proto::ComparedBodies { bodies });
        let refused = Frame::try_from(proto::Compared { id: 1, answer: Some(bodies) });
        assert_eq!(refused, Err(FrameError::TooManyRows(COMPARED_ROWS_MAX + 1)));
    }
}
