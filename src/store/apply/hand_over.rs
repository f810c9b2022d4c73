//! Writes that applications made in this site's database become this store's writes.
//!
//! Such a write was made by somebody who saw the database's row, not the store's. What stands in the store
//! and had not come to the database when it was read was not seen: then the write is concurrent with
//! it, although its stamp is newer and it wins. The overwritten row goes into the journal, and the
//! new one does not claim to have followed it.

use super::{Stands, Transaction, codec, context_of_a_write};
use crate::{
    model::{Heads, Hlc, Knowledge, Row, Version},
    store::{
        HandOver, HandOverError, HandOverReport, HandedRow, Receipt, StoreError,
        handover::Spans,
        tables::{STATE_RECEIPT, STATE_SPANS, Space},
    },
};

/// What the database knew of the store's rows.
struct Sight<'h> {
    /// What it had.
    heads: &'h Heads,
    /// Up to where it had every write.
    horizon: Hlc,
    /// What came from it.
    spans: Spans,
}

impl Transaction<'_> {
    pub(in crate::store) fn hand_over(
        &mut self,
        batch: &HandOver,
    ) -> Result<Result<HandOverReport, HandOverError>, StoreError> {
        let receipt = self.batch.get(Space::State, STATE_RECEIPT)?;
        let before = receipt.map_or(Ok(Receipt::default()), Receipt::from_bytes)?.number;
        if batch.number != before + 1 {
            return Ok(Err(HandOverError::OutOfTurn { number: batch.number, newest: before }));
        }
        if let Err(refused) = self.check_writes(batch.drift_bound_ms) {
            return Ok(Err(refused.into()));
        }
        if let Some(refused) = self.check_tables(batch.rows.iter().map(|row| &row.table)) {
            return Ok(Err(refused.into()));
        }
        let spans = self.batch.get(Space::State, STATE_SPANS)?;
        let mut sight = Sight {
            heads: &batch.seen,
            horizon: self.published.cluster.horizon(&batch.seen),
            spans: spans.map_or(Ok(Spans::default()), |spans| Spans::from_bytes(&spans))?,
        };
        let mut report = HandOverReport::default();
        let mut span: Option<(Hlc, Hlc)> = None;
        for row in &batch.rows {
            match self.hand_row_over(row, &sight, &mut report)? {
                Some(version) => {
                    let first = span.map_or(version.hlc, |(first, _)| first);
                    span = Some((first, version.hlc));
                    report.written += 1;
                }
                None => report.unchanged += 1,
            }
        }
        // Where nothing was written there is nothing that could be written twice.
        if let Some((first, last)) = span {
            let receipt = Receipt { number: batch.number, entries: batch.entries.clone() };
            self.batch.put(Space::State, STATE_RECEIPT, &receipt.to_bytes());
            sight.spans.add(first, last, batch.seen.get(self.origin));
            self.batch.put(Space::State, STATE_SPANS, &sight.spans.to_bytes());
        }
        Ok(Ok(report))
    }

    /// The version of the write; `None`: the row stands like that already.
    fn hand_row_over(
        &mut self,
        row: &HandedRow,
        sight: &Sight<'_>,
        report: &mut HandOverReport,
    ) -> Result<Option<Version>, StoreError> {
        let id = self.table_id(&row.table);
        let (place, spot) = self.locate(id, &row.key);
        let local = self.standing(spot, &place)?;
        if self.is_so_already(&local, row) {
            self.place = place;
            return Ok(None);
        }
        let mut known = self.known_of(&place, &local)?;
        let unseen = local.version().filter(|version| !self.was_seen(*version, row, sight));
        let write = (&row.key, row.value.as_deref(), None);
        if unseen.is_none() {
            known.seen = known.seen.max(sight.horizon);
            let (version, _) = self.put_own((place, spot), &row.table, write, &local, &known);
            return Ok(Some(version));
        }
        let writers = what_was_seen(&known, row, sight);
        let (version, _) = self.put_own((place.clone(), spot), &row.table, write, &local, &writers);
        // As after a merge: what this store knows is more than the writer did.
        known.seen = known.seen.max(writers.seen);
        let known = self.said_of(&known);
        if known != self.said_of(&writers) {
            self.batch.put(Space::Known, &place, &codec::known_value(&known));
        }
        if let Some(body) = local.into_body() {
            let loser = Row { table: row.table.clone(), key: row.key.clone(), body };
            self.journal.record(&mut self.batch, version, &loser)?;
            report.conflicts += 1;
        }
        Ok(Some(version))
    }

    fn is_so_already(&self, local: &Stands, row: &HandedRow) -> bool {
        let live = local.body().filter(|body| body.is_live(self.now_ms));
        match (&row.value, live) {
            (Some(value), Some(body)) => body.value().is_some_and(|standing| standing == *value),
            // Bytes that are no row may have been one.
            (None, None) => !matches!(local, Stands::Damaged(_)),
            _ => false,
        }
    }

    /// As a row of this store would say it.
    fn said_of(&self, known: &Knowledge) -> Knowledge {
        let came_late = |origin, hlc| self.cluster.members.came_late(origin, hlc);
        let context = context_of_a_write(known, self.origin, came_late);
        Knowledge { seen: known.seen, context }
    }

    /// Whether the database had this version of the row, or a later one that replaced it there.
    fn was_seen(&self, version: Version, row: &HandedRow, sight: &Sight<'_>) -> bool {
        let is_its_own = version.origin == self.origin && sight.spans.includes(version.hlc);
        is_its_own || (sight.heads.includes(version) && !row.missed.contains(&version))
    }
}

/// Of what is known of a key here, what the database had: no more than its heads say, and nothing from a
/// version on that it was told of and did not take.
fn what_was_seen(known: &Knowledge, row: &HandedRow, sight: &Sight<'_>) -> Knowledge {
    let before = |hlc: Hlc| Hlc::from_bits(hlc.bits().saturating_sub(1));
    let mut context = known.context.meet(sight.heads);
    let mut seen = sight.horizon;
    for missed in &row.missed {
        seen = seen.min(before(missed.hlc));
        if context.includes(*missed) {
            context.remove(missed.origin);
            context.raise(missed.origin, before(missed.hlc));
        }
    }
    Knowledge { seen, context }
}
