//! A range of rows, streamed from one snapshot.
//!
//! ```text
//! snapshot --> page, where blocking is allowed --> channel of two pages --> the client's stream
//! ```
//!
//! The client's pace is the scan's: while two pages wait to be sent, no further one is read, and
//! the thread serves others. But a snapshot keeps the space of what is replaced meanwhile, so a
//! client that takes nothing for a while, or too long in all, is told where to go on.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::Instant,
};
use tonic::Status;

use super::{
    Config,
    key_value::{RowsOut, View},
};
use crate::{
    store::{self, StoreError},
    wire::{error::AnswerError, proto, rows, session::Seen},
};

/// How many bytes of rows a page has, roughly.
const PAGE_BYTES: usize = 256 << 10;
/// How many rows of the store a page looks at, dead ones included, before the scan looks up whether
/// its client is still there.
const PAGE_VISITS_MAX: usize = 10_000;
/// How many pages wait to be sent.
const PAGES_WAITING_MAX: usize = 2;

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
    };
    let (sender, receiver) = mpsc::channel(PAGES_WAITING_MAX);
    let end = Arc::new(OnceLock::new());
    let limits = TimeLimits { stall_max: config.scan_stall_max, age_max: config.scan_age_max };
    let stream = ScanStream { pages: receiver, end: Arc::clone(&end), ended: false };
    tokio::spawn(async move {
        if let Err(status) = send_pages(pages, &sender, limits).await {
            let _ = end.set(status);
        }
        // The stream ends with its sender: by then why it ended is set, and the place free.
        drop(place);
        drop(sender);
    });
    Ok(stream)
}

#[derive(Clone, Copy)]
struct TimeLimits {
    stall_max: Duration,
    age_max: Duration,
}

/// Reads pages and hands them on until the range ends or the client has gone.
async fn send_pages(
    mut pages: Pages,
    sender: &mpsc::Sender<proto::ScanResponse>,
    limits: TimeLimits,
) -> Result<(), Status> {
    let too_old_at = Instant::now() + limits.age_max;
    let mut nothing_sent = true;
    loop {
        let page;
        (pages, page) = tokio::task::spawn_blocking(move || {
            let page = pages.next();
            (pages, page)
        })
        .await
        .map_err(|_| AnswerError::Fault)?;
        let page = page?;
        if sender.is_closed() {
            return Ok(());
        }
        if Instant::now() >= too_old_at {
            return Err(AnswerError::ScanTooOld { age_max: limits.age_max }.into());
        }
        // An empty range is answered with one page, for its session.
        if !page.message.rows.is_empty() || (page.last && nothing_sent) {
            nothing_sent = false;
            let stalled_at = Instant::now() + limits.stall_max;
            let sent =
                tokio::time::timeout_at(stalled_at.min(too_old_at), sender.send(page.message));
            match sent.await {
                Ok(Ok(())) => {}
                // The client has gone.
                Ok(Err(_)) => return Ok(()),
                Err(_) if stalled_at <= too_old_at => {
                    return Err(AnswerError::ScanStalled { stall_max: limits.stall_max }.into());
                }
                Err(_) => return Err(AnswerError::ScanTooOld { age_max: limits.age_max }.into()),
            }
        }
        if page.last {
            return Ok(());
        }
    }
}

/// What is left of a scan.
struct Pages {
    scan: store::Scan,
    seen: Seen,
    rows: RowsOut,
    rows_left: u64,
    keys_only: bool,
}

struct Page {
    message: proto::ScanResponse,
    last: bool,
}

impl Pages {
    fn next(&mut self) -> Result<Page, StoreError> {
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
        Ok(Page { message: proto::ScanResponse { rows, session: self.seen.token() }, last })
    }
}

/// The pages, and then why they ended early, if they did.
#[derive(Debug)]
pub(super) struct ScanStream {
    pages: mpsc::Receiver<proto::ScanResponse>,
    end: Arc<OnceLock<Status>>,
    ended: bool,
}

impl futures_util::Stream for ScanStream {
    type Item = Result<proto::ScanResponse, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<proto::ScanResponse, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let page = ready!(self.pages.poll_recv(context));
        self.ended = page.is_none();
        Poll::Ready(match page {
            Some(page) => Some(Ok(page)),
            None => self.end.get().cloned().map(Err),
        })
    }
}
