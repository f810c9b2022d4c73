//! Puts right what two nodes differ in, and loses nothing.
//!
//! The right row is written once more, here, as an ordinary write: so it spreads to the peer, to every
//! other site and to the mirrors. It is written only where what was compared still stands here, so a
//! write that came meanwhile stays. One that was made elsewhere in the same moment, and that this node
//! could not see, may lose against it: then it is recorded as a conflict, as ever.

use super::{
    Node, Verified, VerifyError, VerifyStage, WriteError,
    verify::{Judged, Verifier},
};
use crate::{
    model::TableName,
    protocol::{
        ranges::Position,
        verdict::{Side, Standing, Verdict, Wrong, right_side},
    },
    store::{Outcome, Request, Rewrite, RewriteBatch, RewriteReport},
};

/// How often is compared again after something was put right.
const ROUNDS_MAX: usize = 10;

/// Compares, and where that is asked for repairs and compares again until all is equal, or what is left
/// cannot be put right.
pub(super) async fn run(verifier: &Verifier<'_>) -> Result<Verified, VerifyError> {
    let mut repaired = 0;
    let mut round = 0;
    loop {
        let found = verifier.compare().await?;
        let mut verified = found.verified;
        if verifier.options.repair && !found.places.is_empty() && round < ROUNDS_MAX {
            verifier.report(|progress| progress.stage = VerifyStage::Repairing);
            let done = put_right(verifier, &found.places).await?;
            repaired += done.written;
            round += 1;
            if done.moved {
                continue;
            }
        }
        (verified.repaired, verified.bytes) = (repaired, verifier.bytes());
        return Ok(verified);
    }
}

/// What was done about differences.
#[derive(Default)]
struct Done {
    /// Rows written once more.
    written: u64,
    /// Some place is no longer as it was found: it was written, here or by a client meanwhile.
    moved: bool,
}

/// Writes the right rows once more, some at a time. Each time both sides are looked at anew: a row that
/// is written now is younger than whatever clients have written meanwhile where this node cannot see it.
async fn put_right(verifier: &Verifier<'_>, places: &[Position]) -> Result<Done, VerifyError> {
    let mut done = Done::default();
    let mut rest = places;
    while !rest.is_empty() {
        let pair = verifier.pair(verifier.node.snapshot().positions(true)).await?;
        let judged = pair.judge_some(rest).await?;
        rest = &rest[judged.len()..];
        let is_wrong = |judged: &Judged| matches!(judged.verdict, Verdict::Differs(_));
        done.moved |= !judged.iter().all(is_wrong);
        let rows: Vec<_> = judged.iter().filter_map(|judged| right_row(verifier, judged)).collect();
        if !rows.is_empty() {
            let written = verifier.node.rewrite(rows).await?.written;
            done.written += written;
            done.moved = true;
            verifier.report(|progress| progress.repaired += written);
        }
    }
    Ok(done)
}

/// The row to be written, where the place is wrong and it can be told which is right.
fn right_row(verifier: &Verifier<'_>, judged: &Judged) -> Option<Rewrite> {
    let Verdict::Differs(wrong) = judged.verdict else { return None };
    let (table, key) = judged.position.row().filter(|(table, _)| !table.is_system())?;
    let (here, there) = (judged.here.as_ref(), judged.there.as_ref());
    let right = match right_side(wrong, here, there, verifier.options.prefer).ok()? {
        Side::Here => here,
        Side::There => there,
    };
    let body = right.and_then(Standing::body)?;
    Some(Rewrite {
        table,
        key,
        standing: here.map(|standing| standing.bytes().clone()),
        value: body.value(),
        expires_at_ms: body.expires_at_ms(),
    })
}

/// Why a place is not put right, where that is asked for.
pub(super) fn undecided(
    verifier: &Verifier<'_>,
    table: &TableName,
    wrong: Wrong,
    here: &Option<Standing>,
    there: &Option<Standing>,
) -> Option<String> {
    if !verifier.options.repair {
        return None;
    }
    if table.is_system() {
        return Some("a row of the system's own is not written on behalf of others".to_owned());
    }
    let right = right_side(wrong, here.as_ref(), there.as_ref(), verifier.options.prefer);
    right.err().map(|undecided| undecided.to_string())
}

impl Node {
    /// Writes rows once more, where what they are to replace still stands.
    async fn rewrite(&self, rows: Vec<Rewrite>) -> Result<RewriteReport, WriteError> {
        let drift_bound_ms = self.drift_bound_ms();
        match self.request(Request::Rewrite(RewriteBatch { rows, drift_bound_ms })).await? {
            Outcome::Rewritten(report) => Ok(report?),
            _ => unreachable!("a batch of rewrites has an outcome of its own"),
        }
    }
}
