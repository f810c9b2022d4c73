//! Whether MySQL has this node's rows, as an operator's tools ask for it and get it.

use super::{limits::RequestError, proto, rows};
use crate::node::{
    MirrorDifference, MirrorTableVerified, MirrorVerified, MirrorVerifyOptions,
    MirrorVerifyProgress, MirrorWrong,
};

/// What is asked for.
///
/// # Errors
///
/// [`RequestError`]: what it names is no table.
pub fn options_in(
    request: &proto::VerifyMirrorRequest,
) -> Result<MirrorVerifyOptions, RequestError> {
    let table = match request.table.as_str() {
        "" => None,
        name => Some(rows::table_in(name)?),
    };
    Ok(MirrorVerifyOptions { table, repair: request.repair })
}

impl From<MirrorVerifyProgress> for proto::VerifyMirrorResponse {
    fn from(progress: MirrorVerifyProgress) -> proto::VerifyMirrorResponse {
        let table = progress.table.map(|table| table.as_str().to_owned());
        let progress = proto::VerifyMirrorProgress {
            table: table.unwrap_or_default(),
            rows: progress.rows,
            differing: progress.differing,
            repaired: progress.repaired,
            bytes: progress.bytes,
        };
        let event = Some(proto::verify_mirror_response::Event::Progress(progress));
        proto::VerifyMirrorResponse { event }
    }
}

impl From<MirrorVerified> for proto::VerifyMirrorResponse {
    fn from(verified: MirrorVerified) -> proto::VerifyMirrorResponse {
        let result = proto::VerifyMirrorResult {
            tables: verified.tables.into_iter().map(table_out).collect(),
            differences: verified.differences.into_iter().map(difference_out).collect(),
            bytes: verified.bytes,
        };
        let event = Some(proto::verify_mirror_response::Event::Result(result));
        proto::VerifyMirrorResponse { event }
    }
}

fn table_out(table: MirrorTableVerified) -> proto::MirrorTableResult {
    proto::MirrorTableResult {
        table: table.table.as_str().to_owned(),
        rows: table.rows,
        changed: table.changed,
        missing: table.missing,
        extra: table.extra,
        repaired: table.repaired,
        in_flux: table.in_flux,
        set_aside: table.set_aside,
        problem: table.problem.unwrap_or_default(),
    }
}

fn difference_out(difference: MirrorDifference) -> proto::MirrorDifference {
    use proto::MirrorDifferenceKind as Kind;
    let kind = match difference.wrong {
        MirrorWrong::Changed => Kind::Changed,
        MirrorWrong::Missing => Kind::Missing,
        MirrorWrong::Extra => Kind::Extra,
    };
    proto::MirrorDifference {
        table: difference.table.as_str().to_owned(),
        key: difference.key.into(),
        kind: kind.into(),
        version: difference.version.map(proto::Version::from),
        repaired: difference.repaired,
    }
}
