//! Answers that are long: read a page at a time, streamed at the client's pace.
//!
//! ```text
//! pages, where blocking is allowed --> channel of two --> the client's stream
//! ```
//!
//! While two pages wait to be sent, no further one is read, and the thread serves others. But what is read
//! is a snapshot, which keeps the space of what is replaced meanwhile: a client that takes nothing for a
//! while, or too long in all, is told so and sent away.

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

use crate::{store::StoreError, wire::error::AnswerError};

/// How many bytes a page has, roughly.
pub(super) const PAGE_BYTES: usize = 256 << 10;
/// How many pages wait to be sent.
const PAGES_WAITING_MAX: usize = 2;

/// What is left of an answer.
pub(super) trait Pages: Send + 'static {
    /// What is sent.
    type Message: Send + 'static;

    /// Reads on. May wait for the disk.
    fn next(&mut self) -> Result<Page<Self::Message>, StoreError>;
}

/// A part of an answer.
pub(super) struct Page<M> {
    /// `None`: nothing to send this time.
    pub(super) message: Option<M>,
    pub(super) last: bool,
}

/// How long a client may take.
pub(super) struct TimeLimits {
    /// To take a page, and what it is told then.
    pub(super) stall_max: Duration,
    pub(super) stalled: AnswerError,
    /// In all, and what it is told then.
    pub(super) age_max: Duration,
    pub(super) too_old: AnswerError,
}

/// For what an operator asks for: a minute without a page taken, an hour in all.
pub(super) fn of_operators(what: &'static str) -> TimeLimits {
    let (stall_max, age_max) = (Duration::from_secs(60), Duration::from_secs(3_600));
    TimeLimits {
        stall_max,
        stalled: AnswerError::StreamStalled { what, stall_max },
        age_max,
        too_old: AnswerError::StreamTooOld { what, age_max },
    }
}

/// Begins to send; `place` is given back at the end.
pub(super) fn start<P: Pages>(
    pages: P,
    limits: TimeLimits,
    place: OwnedSemaphorePermit,
) -> PageStream<P::Message> {
    let (sender, receiver) = mpsc::channel(PAGES_WAITING_MAX);
    let end = Arc::new(OnceLock::new());
    let stream = PageStream { pages: receiver, end: Arc::clone(&end), ended: false };
    tokio::spawn(async move {
        if let Err(status) = send(pages, &sender, limits).await {
            let _ = end.set(status);
        }
        // The stream ends with its sender: by then why it ended is set, and the place free.
        drop(place);
        drop(sender);
    });
    stream
}

/// Reads pages and hands them on until they end or the client has gone.
async fn send<P: Pages>(
    mut pages: P,
    sender: &mpsc::Sender<P::Message>,
    limits: TimeLimits,
) -> Result<(), Status> {
    let too_old_at = Instant::now() + limits.age_max;
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
            return Err(limits.too_old.into());
        }
        if let Some(message) = page.message {
            let stalled_at = Instant::now() + limits.stall_max;
            let sent = tokio::time::timeout_at(stalled_at.min(too_old_at), sender.send(message));
            match sent.await {
                Ok(Ok(())) => {}
                // The client has gone.
                Ok(Err(_)) => return Ok(()),
                Err(_) if stalled_at <= too_old_at => return Err(limits.stalled.into()),
                Err(_) => return Err(limits.too_old.into()),
            }
        }
        if page.last {
            return Ok(());
        }
    }
}

/// The pages, and then why they ended early, if they did.
#[derive(Debug)]
pub(super) struct PageStream<M> {
    pages: mpsc::Receiver<M>,
    end: Arc<OnceLock<Status>>,
    ended: bool,
}

impl<M> futures_util::Stream for PageStream<M> {
    type Item = Result<M, Status>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<M, Status>>> {
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
