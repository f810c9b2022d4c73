//! Taking dead rows away: by purging, and at the end of a reconciliation.
//!
//! A row is dead from a stamp on: a tombstone from its own, a row that expires from its expiry (by the
//! slowest clock: stamps may lead it by the drift bound). It is
//! purged once that stamp lies at or below the horizon (no older write can still be on its way) *and*
//! every member is known to have it (nobody needs to be told). Age alone never counts. The floor says
//! up to where rows may be gone: who stands below it cannot be told by a delta what died.
//!
//! A reconciliation found rows that only this store has, and that the other's heads cover: they died
//! there. They go, and heads and floor rise, in one transaction.

use std::ops::Bound;

use super::{
    Purged, Reconciled, StoreError, apply::Transaction, codec, memory::Spot, tables, tables::Space,
};
use crate::model::{Body, Heads, Hlc};

/// So many dead rows are looked at in one commit.
pub(super) const PURGED_ROWS_MAX: usize = 4_096;

impl Transaction<'_> {
    /// Purges what every member has, as `stable` says of each origin.
    pub(super) fn purge(
        &mut self,
        stable: &Heads,
        drift_bound_ms: u64,
    ) -> Result<Purged, StoreError> {
        let mut purged = Purged::default();
        let horizon = self.cluster.horizon(&self.heads);
        if horizon == Hlc::ZERO {
            return Ok(purged);
        }
        let end = horizon.next().bits().to_be_bytes();
        let view = self.batch.view().clone();
        let mut entries = view.range(Space::Dead, Bound::Unbounded, Bound::Excluded(&end[..]))?;
        while let Some((key, _)) = entries.next()? {
            if purged.looked_at == PURGED_ROWS_MAX as u64 {
                purged.more = true;
                break;
            }
            purged.looked_at += 1;
            let (from, place) = codec::split_dead_key(&key)?;
            let spot = Spot::of(Space::Rows, &place);
            let Some(body) = self.standing(spot, &place)?.into_body() else { continue };
            // Heads may lead the clocks that readers judge by.
            let expired_everywhere = |ms: u64| {
                Hlc::at_ms(ms.saturating_add(drift_bound_ms).saturating_add(1)) <= horizon
            };
            let is_dead = codec::dead_from(&body) == Some(from)
                && !body.is_live(self.now_ms)
                && body.expires_at_ms().is_none_or(expired_everywhere);
            if is_dead && stable.includes(body.version()) && self.heads.includes(body.version()) {
                self.take_away(&place, &body)?;
                let version = body.version();
                let floor = &mut self.cluster.to_mut().floor;
                if floor.raise(version.origin, version.hlc) {
                    let hlc = version.hlc.bits();
                    self.batch.put_number(Space::Floor, version.origin.as_bytes(), hlc);
                }
                purged.rows += 1;
            }
        }
        if purged.rows > 0 {
            let total = self.batch.number(Space::State, tables::STATE_PURGED)? + purged.rows;
            self.batch.put_number(Space::State, tables::STATE_PURGED, total);
        }
        Ok(purged)
    }

    /// Ends a reconciliation: takes away what died there, and claims all that the other had.
    pub(super) fn reconcile(&mut self, end: &Reconciled) -> Result<u64, StoreError> {
        let mut removed = 0;
        for (table, key, version) in &end.dead {
            let Some(id) = self.names.id(table) else { continue };
            let (place, spot) = self.locate(id, key);
            // Written anew meanwhile, here or by a row that came in before: that one stands.
            if let Some(body) = self.standing(spot, &place)?.into_body()
                && body.version() == *version
            {
                self.take_away(&place, &body)?;
                removed += 1;
            }
        }
        self.claim(&end.claim);
        for (origin, hlc) in end.floor.iter() {
            if self.cluster.floor.get(origin) < hlc {
                self.cluster.to_mut().floor.raise(origin, hlc);
                self.batch.put_number(Space::Floor, origin.as_bytes(), hlc.bits());
            }
        }
        let sender = end.sender.as_bytes();
        if self.batch.get(Space::Tentative, sender)?.is_some() {
            self.batch.remove(Space::Tentative, sender);
        }
        Ok(removed)
    }

    fn take_away(&mut self, place: &[u8], body: &Body) -> Result<(), StoreError> {
        self.batch.remove(Space::Rows, place);
        if let Some(from) = codec::dead_from(body) {
            self.batch.remove(Space::Dead, &codec::dead_key(from, place));
        }
        if self.batch.get(Space::Known, place)?.is_some() {
            self.batch.remove(Space::Known, place);
        }
        self.rows_removed += 1;
        Ok(())
    }
}
