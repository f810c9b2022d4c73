//! What a write says of those that it has seen.

use crate::model::{CONTEXT_ORIGINS_MAX, Context, Hlc, Knowledge, Origin};

/// What a new write by `own` says it has seen: what is known, but for what `seen` says already and
/// the writer's own versions.
pub(super) fn context_of_a_write(known: &Knowledge, own: Origin) -> Context {
    let mut entries: Vec<(Origin, Hlc)> =
        known.context.iter().filter(|&(origin, hlc)| origin != own && hlc > known.seen).collect();
    if entries.len() > CONTEXT_ORIGINS_MAX {
        // Beyond any real cluster. The oldest go: at worst a conflict is recorded that was none.
        entries.sort_unstable_by_key(|&(_, hlc)| std::cmp::Reverse(hlc));
        entries.truncate(CONTEXT_ORIGINS_MAX);
    }
    entries.into_iter().collect()
}
