//! The conflict journal, for operators.

use tokio::sync::OwnedSemaphorePermit;

use super::paged::{self, PAGE_BYTES, Page, PageStream};
use crate::{
    model::Version,
    node::{Node, RestoreError},
    store::{Journal, StoreError},
    wire::{
        conflicts::{self, Filter},
        proto,
    },
};

/// How many entries a page looks at before it is looked up whether the client is still there.
const PAGE_VISITS_MAX: usize = 1_000;

/// The conflicts, page by page.
pub(super) type ConflictStream = PageStream<proto::ListConflictsResponse>;

/// Starts a list; `place` is given back when it ends.
pub(super) fn list(
    node: Node,
    filter: Filter,
    place: OwnedSemaphorePermit,
) -> Result<ConflictStream, StoreError> {
    let journal = node.snapshot().journal(filter.since, !filter.oldest_first)?;
    let left = filter.conflicts_max.unwrap_or(u64::MAX);
    let pages = Pages { node, journal, filter, left };
    Ok(paged::start(pages, paged::of_operators("conflicts"), place))
}

/// What is left of a list.
struct Pages {
    node: Node,
    journal: Journal,
    filter: Filter,
    left: u64,
}

impl paged::Pages for Pages {
    type Message = proto::ListConflictsResponse;

    fn next(&mut self) -> Result<Page<proto::ListConflictsResponse>, StoreError> {
        let mut page = Vec::new();
        let (mut bytes, mut visits) = (0, 0);
        let mut last = false;
        while bytes < PAGE_BYTES && visits < PAGE_VISITS_MAX {
            let conflict = if self.left > 0 { self.journal.next().transpose()? } else { None };
            let Some(conflict) = conflict else {
                last = true;
                break;
            };
            visits += 1;
            if self.filter.admits(&conflict.loser) {
                bytes += conflict.loser.size_bytes();
                page.push(conflicts::conflict_out(&conflict, |origin| self.node.site_of(origin)));
                self.left -= 1;
            }
        }
        let message =
            (!page.is_empty()).then_some(proto::ListConflictsResponse { conflicts: page });
        Ok(Page { message, last })
    }
}

/// A conflict and what stands in its place. May wait for the disk.
pub(super) fn get(node: &Node, id: Version) -> Result<proto::GetConflictResponse, RestoreError> {
    let snapshot = node.snapshot();
    let conflict = snapshot.conflict(id)?.ok_or(RestoreError::Unknown(id))?;
    let standing = snapshot.get(&conflict.loser.table, &conflict.loser.key)?;
    let site_of = |origin| node.site_of(origin);
    Ok(proto::GetConflictResponse {
        conflict: Some(conflicts::conflict_out(&conflict, site_of)),
        standing: standing.map(|body| conflicts::row_version_out(&body, site_of)),
    })
}
