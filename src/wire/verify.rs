//! Whether two nodes have the same rows, as an operator's tools ask for it and get it.

use super::{proto, rows::timestamp_out};
use crate::{
    node::{PlaceDiffers, RowState, Verified, VerifyOptions, VerifyProgress, VerifyStage},
    protocol::verdict::{Side, Wrong},
};

impl From<proto::VerifyRequest> for VerifyOptions {
    fn from(request: proto::VerifyRequest) -> VerifyOptions {
        let prefer = match request.prefer() {
            proto::Side::Here => Some(Side::Here),
            proto::Side::There => Some(Side::There),
            proto::Side::Unspecified => None,
        };
        VerifyOptions { peer: request.peer, repair: request.repair, prefer }
    }
}

impl From<VerifyProgress> for proto::VerifyResponse {
    fn from(progress: VerifyProgress) -> proto::VerifyResponse {
        let stage = match progress.stage {
            VerifyStage::Beginning => proto::VerifyStage::Beginning,
            VerifyStage::Comparing => proto::VerifyStage::Comparing,
            VerifyStage::Judging => proto::VerifyStage::Judging,
            VerifyStage::Repairing => proto::VerifyStage::Repairing,
        };
        let progress = proto::VerifyProgress {
            stage: stage.into(),
            rows: progress.rows,
            differing: progress.differing,
            repaired: progress.repaired,
            bytes: progress.bytes,
        };
        let event = Some(proto::verify_response::Event::Progress(progress));
        proto::VerifyResponse { event }
    }
}

impl From<Verified> for proto::VerifyResponse {
    fn from(verified: Verified) -> proto::VerifyResponse {
        let result = proto::VerifyResult {
            through_hlc: verified.through.bits(),
            through: Some(timestamp_out(verified.through.ms())),
            rows: verified.rows,
            bytes: verified.bytes,
            in_flux: verified.in_flux,
            differing: verified.differing,
            differences: verified.differences.into_iter().map(difference_out).collect(),
            repaired: verified.repaired,
            unjudged: verified.unjudged,
        };
        proto::VerifyResponse { event: Some(proto::verify_response::Event::Result(result)) }
    }
}

fn difference_out(place: PlaceDiffers) -> proto::RowDifference {
    use proto::RowDifferenceKind as Kind;
    let kind = match place.wrong {
        Wrong::OnlyHere => Kind::OnlyHere,
        Wrong::OnlyThere => Kind::OnlyThere,
        Wrong::NewerHere => Kind::NewerHere,
        Wrong::NewerThere => Kind::NewerThere,
        Wrong::Unequal => Kind::Unequal,
    };
    proto::RowDifference {
        table: place.table.as_str().to_owned(),
        key: place.key.bytes().clone(),
        kind: kind.into(),
        here: place.here.map(state_out),
        there: place.there.map(state_out),
        undecided_reason: place.undecided.unwrap_or_default(),
    }
}

fn state_out(state: RowState) -> proto::RowState {
    proto::RowState {
        version: state.version.map(proto::Version::from),
        damaged: state.damaged,
        deleted: state.deleted,
        expire_time: state.expires_at_ms.map(timestamp_out),
        value_bytes: state.value_bytes,
    }
}
