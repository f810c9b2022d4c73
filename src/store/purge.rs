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
use crate::model::{Body, Heads, Hlc, Key, Row, TableName, Version};

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

    /// Ends a reconciliation: takes away what died there, and claims all that the other had. Gives how many
    /// rows went; `None`: nothing was done, for the other was removed.
    pub(super) fn reconcile(&mut self, end: &Reconciled) -> Result<Option<u64>, StoreError> {
        if self.was_removed(end.sender) {
            return Ok(None);
        }
        let mut removed = 0;
        for (found, doubtful) in
            end.dead.iter().map(|dead| (dead, false)).chain(end.doubtful.iter().map(|d| (d, true)))
        {
            let (table, key, version) = found;
            let Some((place, body)) = self.found(table, key, *version)? else { continue };
            if doubtful {
                let members = &self.cluster.members;
                let removal = members.get(version.origin).and_then(|member| member.removal);
                let row = Row { table: table.clone(), key: key.clone(), body: body.clone() };
                self.journal.record(&mut self.batch, removal.unwrap_or(*version), &row)?;
            }
            self.take_away(&place, &body)?;
            removed += 1;
        }
        for (table, key, version) in &end.renew {
            if let Some((place, _)) = self.found(table, key, *version)? {
                self.batch.put(Space::Renew, &place, &codec::change_key(*version));
                self.cluster.to_mut().renewing = true;
            }
        }
        self.claim(&end.claim);
        self.note_pulled();
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
        Ok(Some(removed))
    }

    /// A row that the reconciliation found, and its place. Written anew meanwhile, here or by a row that
    /// came in before, another one stands there.
    fn found(
        &mut self,
        table: &TableName,
        key: &Key,
        version: Version,
    ) -> Result<Option<(Vec<u8>, Body)>, StoreError> {
        let Some(id) = self.names.id(table) else { return Ok(None) };
        let (place, spot) = self.locate(id, key);
        let body = self.standing(spot, &place)?.into_body();
        Ok(body.filter(|body| body.version() == version).map(|body| (place, body)))
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
