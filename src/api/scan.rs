//! A range of rows, streamed from one snapshot.

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Config,
    key_value::{RowsOut, View},
    paged::{self, PAGE_BYTES, Page, PageStream, TimeLimits},
};
use crate::{
    store::{self, StoreError},
    wire::{error::AnswerError, proto, rows, session::Seen},
};

/// How many rows of the store a page looks at, dead ones included, before the scan looks up whether
/// its client is still there.
const PAGE_VISITS_MAX: usize = 10_000;

/// The rows, page by page.
pub(super) type ScanStream = PageStream<proto::ScanResponse>;

/// Starts a scan; `place` is given back when it ends.
pub(super) fn start(
    view: View,
    query: &rows::Scan,
    config: &Config,
    place: OwnedSemaphorePermit,
) -> Result<ScanStream, StoreError> {
    let View { snapshot, seen, rows } = view;
    let pages = Pages {
        scan: snapshot.scan(&query.table, &query.range)?,
        seen,
        rows,
        rows_left: query.rows_max.unwrap_or(u64::MAX),
        keys_only: query.keys_only,
        nothing_sent: true,
    };
    let (stall_max, age_max) = (config.scan_stall_max, config.scan_age_max);
    let limits = TimeLimits {
        stall_max,
        stalled: AnswerError::ScanStalled { stall_max },
        age_max,
        too_old: AnswerError::ScanTooOld { age_max },
    };
    Ok(paged::start(pages, limits, place))
}

/// What is left of a scan.
struct Pages {
    scan: store::Scan,
    seen: Seen,
    rows: RowsOut,
    rows_left: u64,
    keys_only: bool,
    nothing_sent: bool,
}

impl paged::Pages for Pages {
    type Message = proto::ScanResponse;

    fn next(&mut self) -> Result<Page<proto::ScanResponse>, StoreError> {
        let mut rows = Vec::new();
        let (mut bytes, mut visits) = (0, 0);
        let mut last = false;
        while bytes < PAGE_BYTES && visits < PAGE_VISITS_MAX {
            let row = if self.rows_left > 0 { self.scan.next().transpose()? } else { None };
            let Some(row) = row else {
                last = true;
                break;
            };
            visits += 1;
            self.seen.note(row.body.version());
            if let Some(row) = self.rows.row(&row.key, &row.body, self.keys_only) {
                bytes += rows::size_out(&row);
                rows.push(row);
                self.rows_left -= 1;
            }
        }
        // An empty range is answered with one page, for its session.
        let is_due = !rows.is_empty() || (last && self.nothing_sent);
        self.nothing_sent &= !is_due;
        let message = is_due.then(|| proto::ScanResponse { rows, session: self.seen.token() });
        Ok(Page { message, last })
    }
}
