//! Long work that a caller waits for: how far it has come, and at last the result.
//!
//! ```text
//! the work --> progress, about once a second --> the caller's stream
//!          --> result, or why there is none
//! ```

use std::{future::Future, time::Duration};

use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// How often the caller hears how far it has come.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(1);
/// What waits to be sent: progress is left out for a caller who does not read.
pub(super) const EVENTS_WAITING_MAX: usize = 2;

/// Progress, and at last the result or an error.
pub(super) type Telling<E> = ReceiverStream<Result<E, Status>>;

/// Does the work, which is given where to say how far it has come. It is dropped when the caller goes away.
pub(super) fn tell<P, R, E, F, W>(work: impl FnOnce(watch::Sender<P>) -> W) -> Telling<E>
where
    P: Clone + Default + Into<E> + Send + Sync + 'static,
    R: Into<E>,
    E: Send + 'static,
    F: Into<Status>,
    W: Future<Output = Result<R, F>> + Send + 'static,
{
    let (events, receiver) = mpsc::channel(EVENTS_WAITING_MAX);
    let (progress, told) = watch::channel(P::default());
    let work = work(progress);
    tokio::spawn(async move {
        let mut working = std::pin::pin!(work);
        let mut tell = tokio::time::interval(TELL_EVERY);
        let result: Result<E, Status> = loop {
            tokio::select! {
                done = &mut working => break done.map(Into::into).map_err(Into::into),
                _ = tell.tick() => {
                    let news = told.borrow().clone();
                    let _ = events.try_send(Ok(news.into()));
                }
                () = events.closed() => return,
            }
        };
        // Who has gone does not want to know.
        let _ = events.send(result).await;
    });
    ReceiverStream::new(receiver)
}
