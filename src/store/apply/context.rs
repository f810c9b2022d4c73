//! What a write says of those that it has seen.

use super::{Stands, Transaction, codec};
use crate::{
    model::{CONTEXT_ORIGINS_MAX, Context, Hlc, Knowledge, Origin},
    store::{StoreError, tables::Space},
};

impl Transaction<'_> {
    /// What is known of the versions in a place, the standing one included. What is kept of it beside the
    /// row goes: the next row says it.
    pub(super) fn known_of(
        &mut self,
        place: &[u8],
        local: &Stands,
    ) -> Result<Knowledge, StoreError> {
        let Some(version) = local.version() else { return Ok(Knowledge::default()) };
        let kept = self.kept_knowledge(place)?;
        if kept.is_some() {
            self.batch.remove(Space::Known, place);
        }
        let known = kept.or_else(|| local.body().map(Knowledge::of));
        let mut known = known.unwrap_or_default();
        known.context.raise(version.origin, version.hlc);
        Ok(known)
    }

    /// What is kept beside the row, where that is more than its writer knew.
    pub(super) fn kept_knowledge(&self, place: &[u8]) -> Result<Option<Knowledge>, StoreError> {
        let kept = self.batch.get(Space::Known, place)?;
        kept.map(|value| codec::split_known_value(&value)).transpose()
    }
}

/// What a new write by `own` says it has seen: what is known, but for what `seen` says already and
/// the writer's own versions. What `came_late` none of those whom `seen` speaks of can have seen as it is.
pub(super) fn context_of_a_write(
    known: &Knowledge,
    own: Origin,
    came_late: impl Fn(Origin, Hlc) -> bool,
) -> Context {
    let is_told = |&(origin, hlc): &(Origin, Hlc)| {
        origin != own && (hlc > known.seen || came_late(origin, hlc))
    };
    let mut entries: Vec<(Origin, Hlc)> = known.context.iter().filter(is_told).collect();
    if entries.len() > CONTEXT_ORIGINS_MAX {
        // Beyond any real cluster. The oldest go: at worst a conflict is recorded that was none.
        entries.sort_unstable_by_key(|&(_, hlc)| std::cmp::Reverse(hlc));
        entries.truncate(CONTEXT_ORIGINS_MAX);
    }
    entries.into_iter().collect()
}
