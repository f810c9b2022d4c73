//! A link that is up: its receiving and its sending half.
//!
//! ```text
//! incoming frames --> receive() --> node.submit    --+  notes: the peer's heads, its wants,
//!                                                    |  acknowledgements that are due
//! node's bell     --> send()    --> outgoing frames <-+
//! ```
//!
//! Questions about rows, and the answers to them, are `comparing.rs`'s.
//!
//! The two halves share only [`Notes`], which are overwritten, never queued. So the receiving half
//! never waits for the sending one, and two nodes that both have much to send cannot lock up.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::Stream;
use tonic::Status;

use super::{
    Shared,
    comparing::Comparing,
    exchange::{LinkError, error_of, next_frame},
    merges::Merges,
    notes::Notes,
};
use crate::{
    model::{Heads, Origin},
    node::{FollowDelta, Follower, Node, Page, PeerHandle, WriteError},
    protocol::{Delta, Frame, Receiver},
    store::RemoteBatch,
    wire::proto,
};

/// The most rows of a frame.
const FRAME_ROWS_MAX: usize = 4_096;
/// After rows were held back: the shortest and the longest wait before asking again.
const WANT_AGAIN_MIN: Duration = Duration::from_secs(1);
const WANT_AGAIN_MAX: Duration = Duration::from_secs(30);

/// A link that is up.
pub(super) struct Session<'l> {
    pub(super) shared: &'l Shared,
    pub(super) node: &'l Node,
    pub(super) peer: Origin,
    pub(super) handle: &'l PeerHandle,
    pub(super) notes: Notes,
    pub(super) comparing: Comparing,
}

impl Session<'_> {
    /// The receiving half; ends only with an error.
    pub(super) async fn receive<S>(&self, incoming: &mut S) -> LinkError
    where
        S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
    {
        match self.try_receive(incoming).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_receive<S>(&self, incoming: &mut S) -> Result<std::convert::Infallible, LinkError>
    where
        S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
    {
        let mut want = (*self.node.heads()).clone();
        want.join(&self.node.tentative(self.peer)?);
        let mut receiver =
            Receiver::new(self.node.origin(), want.clone(), self.node.drift_bound_ms());
        let number = receiver.want_again(want.clone());
        self.notes.leave(|notes| notes.own_want = Some((want, number)));

        let mut want_again_at: Option<Instant> = None;
        let mut merging = Merges::default();
        loop {
            let silence = self.shared.config.silence_max;
            let frame = tokio::select! {
                ack_due = merging.first_merged(), if !merging.is_empty() => {
                    if ack_due? {
                        self.notes.leave(|notes| notes.ack_due = true);
                    }
                    continue;
                }
                frame = timeout(silence, next_frame(incoming)), if merging.has_room() => {
                    frame.map_err(|_| LinkError::Silent)??
                }
                () = sleep_until(want_again_at.unwrap_or_else(Instant::now)),
                    if want_again_at.is_some() =>
                {
                    want_again_at = None;
                    let heads = (*self.node.heads()).clone();
                    let number = receiver.want_again(heads.clone());
                    self.notes.leave(|notes| notes.own_want = Some((heads, number)));
                    continue;
                }
            };
            match frame {
                Frame::Delta(delta) => {
                    if let Some(wait) = self.take_delta(&mut receiver, delta, &mut merging).await? {
                        want_again_at.get_or_insert(Instant::now() + wait);
                    }
                }
                Frame::Ack(heads) => {
                    self.handle.update(|report| report.acked.join(&heads));
                    self.notes.peer_has(&heads);
                }
                Frame::Want { heads, number } => {
                    self.notes.leave(|notes| notes.peer_want = Some((heads, number)));
                }
                Frame::Goodbye(goodbye) => return Err(error_of(goodbye)),
                Frame::Compare { id, ask } => self.comparing.on_ask(id, ask),
                Frame::Compared { id, answer } => self.comparing.on_answer(id, answer),
                Frame::Hello(_) | Frame::Unknown => {}
            }
        }
    }

    /// Hands a part of a delta to the writer. Gives the time after which to ask again, where rows
    /// were held.
    async fn take_delta(
        &self,
        receiver: &mut Receiver,
        delta: Delta,
        merging: &mut Merges,
    ) -> Result<Option<Duration>, LinkError> {
        if let Some(heads) = &delta.snapshot_heads {
            // Before the rows are merged, so that they are not sent back.
            self.handle.update(|report| report.acked.join(heads));
            self.notes.peer_has(heads);
        }
        let bytes: usize = delta.rows.iter().map(crate::model::Row::size_bytes).sum();
        let rows = delta.rows.len() as u64;
        let (remaining_rows, remaining_bytes) = (delta.remaining_rows, delta.remaining_bytes);
        let own_head = self.node.heads().get(self.node.origin());
        let received =
            receiver.on_delta(delta, own_head, self.node.now_ms()).map_err(LinkError::Violation)?;
        self.handle.update(|report| {
            report.rows_received += rows;
            report.bytes_received += bytes as u64;
            report.remaining_rows = remaining_rows;
            report.remaining_bytes = remaining_bytes;
            if received.held_rows > 0 {
                report.held_rows = received.held_rows;
            } else if received.claim.is_some() {
                report.held_rows = 0;
            }
        });
        let wait = (received.held_rows > 0).then(|| {
            Duration::from_millis(received.held_ahead_ms).clamp(WANT_AGAIN_MIN, WANT_AGAIN_MAX)
        });
        let ack_due = rows > 0 && received.claim.is_some();
        if !received.rows.is_empty() || self.claims_more(received.claim.as_ref()) {
            let batch = RemoteBatch {
                sender: self.peer,
                rows: received.rows,
                claim: received.claim,
                tentative: received.tentative,
            };
            merging.push(self.node.submit(batch).await?, bytes, ack_due);
        }
        Ok(wait)
    }

    fn claims_more(&self, claim: Option<&Heads>) -> bool {
        claim.is_some_and(|claim| !self.node.heads().covers(claim))
    }

    /// The sending half; ends only with an error.
    pub(super) async fn send(
        &self,
        out: &mpsc::Sender<proto::Frame>,
        peer_heads: Heads,
    ) -> LinkError {
        match self.try_send(out, peer_heads).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn try_send(
        &self,
        out: &mpsc::Sender<proto::Frame>,
        peer_heads: Heads,
    ) -> Result<std::convert::Infallible, LinkError> {
        let mut follower = Follower::new(self.node, peer_heads);
        let mut heartbeat = tokio::time::interval(self.shared.config.heartbeat);
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let wanted = follower.want_number() > 0;
            let beat = tokio::select! {
                () = self.notes.left() => false,
                running = follower.changed(), if wanted => {
                    if !running {
                        return Err(WriteError::ShuttingDown.into());
                    }
                    false
                }
                _ = heartbeat.tick() => true,
            };
            if beat {
                self.node.advance().await?;
            }
            self.answer_notes(out, &mut follower).await?;
            if follower.want_number() > 0 {
                self.send_delta(out, &mut follower, beat).await?;
            } else if beat {
                self.put(out, Frame::Ack((*self.node.heads()).clone())).await?;
            }
        }
    }

    /// Sends what is due and learns what the peer said; `true`: the peer wants another delta.
    async fn answer_notes(
        &self,
        out: &mpsc::Sender<proto::Frame>,
        follower: &mut Follower,
    ) -> Result<bool, LinkError> {
        let notes = self.notes.take();
        if let Some((heads, number)) = notes.own_want {
            self.put(out, Frame::Want { heads, number }).await?;
        }
        if notes.ack_due {
            self.put(out, Frame::Ack((*self.node.heads()).clone())).await?;
        }
        let wanted = notes.peer_want.is_some();
        if let Some((heads, number)) = notes.peer_want {
            follower.on_want(heads, number);
        }
        if let Some(heads) = notes.peer_heads {
            follower.known(&heads);
        }
        Ok(wanted)
    }

    /// Sends the delta of this moment; an empty one only as a heartbeat.
    async fn send_delta(
        &self,
        out: &mpsc::Sender<proto::Frame>,
        follower: &mut Follower,
        beat: bool,
    ) -> Result<(), LinkError> {
        let started = Instant::now();
        let mut delta = follower.begin()?;
        let mut snapshot_heads = Some((**delta.heads()).clone());
        let want_number = follower.want_number();
        loop {
            let page;
            (delta, page) = next_page(delta, self.shared.config.frame_bytes).await?;
            if page.rows.is_empty() && snapshot_heads.is_some() && !beat && !delta.is_scan() {
                // Nothing but heads: the next heartbeat tells them. A first delta goes out in any
                // case: what a broken one brought is claimed with it.
                follower.finish(&delta);
                return Ok(());
            }
            let rows = page.rows.len() as u64;
            let bytes: usize = page.rows.iter().map(crate::model::Row::size_bytes).sum();
            let frame = Frame::Delta(Delta {
                snapshot_heads: snapshot_heads.take(),
                rows: page.rows,
                last: page.last,
                remaining_rows: page.remaining_rows,
                remaining_bytes: page.remaining_bytes,
                want_number,
            });
            self.put(out, frame).await?;
            self.handle.update(|report| {
                report.rows_sent += rows;
                report.bytes_sent += bytes as u64;
            });
            if page.last {
                follower.finish(&delta);
                return Ok(());
            }
            if self.answer_notes(out, follower).await? {
                return Ok(());
            }
            if delta.is_scan() && started.elapsed() > self.shared.config.delta_age_max {
                follower.leave_off(&delta);
                return Ok(());
            }
        }
    }

    async fn put(&self, out: &mpsc::Sender<proto::Frame>, frame: Frame) -> Result<(), LinkError> {
        let closed = |_| LinkError::Lost("the connection is closed".into());
        out.send(frame.into()).await.map_err(closed)
    }
}

/// The next page; a scan reads the disk and does so where blocking is allowed.
async fn next_page(
    mut delta: FollowDelta,
    bytes_max: usize,
) -> Result<(FollowDelta, Page), LinkError> {
    if !delta.is_scan() {
        let page = delta.page(FRAME_ROWS_MAX, bytes_max)?;
        return Ok((delta, page));
    }
    let read = move || {
        let page = delta.page(FRAME_ROWS_MAX, bytes_max);
        (delta, page)
    };
    let (delta, page) =
        tokio::task::spawn_blocking(read).await.expect("reading a page does not panic");
    Ok((delta, page?))
}
