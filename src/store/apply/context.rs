//! What a write says of those that it has seen.

use crate::model::{CONTEXT_ORIGINS_MAX, Context, Hlc, Knowledge, Origin};

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
