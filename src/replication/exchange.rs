//! Drives one link: hello, then deltas both ways, until it ends.
//!
//! ```text
//! incoming frames --> receive() --> node.submit    --+  notes: the peer's heads, its wants,
//!                                                    |  acknowledgements that are due
//! node's bell     --> send()    --> outgoing frames <-+
//! ```
//!
//! The two halves share only [`Notes`], which are overwritten, never queued. So the receiving half
//! never waits for the sending one, and two nodes that both have much to send cannot lock up.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{Shared, dial::Peer, links};
use crate::{
    model::{Heads, Origin},
    node::{
        Direction, FollowDelta, Follower, LastError, Merging, Node, Page, PeerHandle, WriteError,
    },
    protocol::{
        Delta, Frame, Goodbye, GoodbyeReason, Hello, PROTOCOL_VERSION, Receiver, Refusal,
        ViolationError, check_hello,
    },
    store::{RemoteBatch, StoreError},
    wire::{exchange::FrameError, proto},
};

/// The most rows of a frame.
const FRAME_ROWS_MAX: usize = 4_096;
/// Parts of deltas that may be on their way into commits at once.
const MERGES_MAX: usize = 64;
/// No further part is read while more bytes than these are on their way into commits.
const MERGES_BYTES_MAX: usize = 4 << 20;
/// After rows were held back: the shortest and the longest wait before asking again.
const WANT_AGAIN_MIN: Duration = Duration::from_secs(1);
const WANT_AGAIN_MAX: Duration = Duration::from_secs(30);

/// An open stream.
pub(super) struct Link<S> {
    pub(super) direction: Direction,
    pub(super) out: mpsc::Sender<proto::Frame>,
    pub(super) incoming: S,
}

/// How a link ended in good order.
#[derive(Debug)]
pub(super) enum Ended {
    /// This node shuts down.
    Shutdown,
    /// Another link of the same pair goes on.
    Duplicate {
        /// Whether this one had come up before.
        came_up: bool,
    },
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("cannot connect to {address}: {reason}: is lastword serve running there?")]
    Connect { address: String, reason: String },
    #[error("the peer sent no hello in time: is it a lastword node?")]
    NoHello,
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
    #[error("the peer refuses this node: {0}")]
    RefusedByPeer(String),
    #[error("the peer went silent")]
    Silent,
    #[error("the peer shut down")]
    PeerShutdown,
    #[error("connection lost: {0}")]
    Lost(String),
    #[error("{0}")]
    Violation(ViolationError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Write(#[from] WriteError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Not an error: the stream of the pair that goes on is another one.
    #[error("another link of this pair goes on")]
    Duplicate,
    /// Not an error either.
    #[error("this node shuts down")]
    Shutdown,
}

/// Parts of deltas on their way into commits, in order: the next are read while one is written.
#[derive(Debug, Default)]
struct Merges {
    parts: VecDeque<(Merging, usize, bool)>,
    bytes: usize,
}

impl Merges {
    fn push(&mut self, merging: Merging, bytes: usize, ack_due: bool) {
        self.bytes += bytes;
        self.parts.push_back((merging, bytes, ack_due));
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn has_room(&self) -> bool {
        self.parts.len() < MERGES_MAX && self.bytes < MERGES_BYTES_MAX
    }

    /// Waits for the first part's commit; tells whether the peer is to know. Only when not empty.
    async fn first_merged(&mut self) -> Result<bool, WriteError> {
        let Some((merging, bytes, ack_due)) = self.parts.front_mut() else {
            return std::future::pending().await;
        };
        merging.merged().await?;
        let ack_due = *ack_due;
        self.bytes -= *bytes;
        self.parts.pop_front();
        Ok(ack_due)
    }
}

/// What the receiving half leaves for the sending half: the newest of each.
#[derive(Debug, Default)]
struct Notes {
    state: Mutex<NotesState>,
    rung: Notify,
}

#[derive(Debug, Default)]
struct NotesState {
    /// The peer has this.
    peer_heads: Option<Heads>,
    /// The peer wants rows from here on.
    peer_want: Option<(Heads, u64)>,
    /// The peer is to know what we have.
    ack_due: bool,
    /// We want rows from here on.
    own_want: Option<(Heads, u64)>,
}

impl Notes {
    fn leave(&self, note: impl FnOnce(&mut NotesState)) {
        note(&mut self.state.lock().expect("no holder of this lock panics"));
        self.rung.notify_one();
    }

    fn take(&self) -> NotesState {
        std::mem::take(&mut *self.state.lock().expect("no holder of this lock panics"))
    }
}

/// Drives a link until it ends. The flag of an error tells whether the link had come up.
pub(super) async fn drive<S>(
    shared: &Arc<Shared>,
    link: Link<S>,
    mut dialler: Option<&mut Peer>,
) -> Result<Ended, (LinkError, bool)>
where
    S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
{
    let Link { direction, out, mut incoming } = link;
    let not_up = |error: LinkError| (error, false);
    let node = &shared.node;
    let ours = own_hello(node);
    // A fresh queue has room.
    let _ = out.send(Frame::Hello(ours.clone()).into()).await;
    let theirs = timeout(shared.config.connect_max, read_hello(&mut incoming)).await;
    let theirs = match theirs {
        Ok(Err(LinkError::Duplicate)) => return Ok(Ended::Duplicate { came_up: false }),
        Ok(hello) => hello.map_err(not_up)?,
        Err(_) => return Err(not_up(LinkError::NoHello)),
    };
    // Heads as they are now: what went out over another link since our hello is no news of a clone.
    let ours = Hello { heads: (*node.heads()).clone(), ..ours };
    if let Err(refusal) = check_hello(&ours, &theirs) {
        say_goodbye(out, &mut incoming, GoodbyeReason::Refused, &refusal.to_string()).await;
        return Err(not_up(refusal.into()));
    }

    let peer = theirs.origin;
    let own_handle = dialler.as_ref().map(|peer| &peer.handle);
    let handle = shared.links.report_of(node, peer, own_handle);
    if let Some(dialler) = &mut dialler {
        dialler.handle = Arc::clone(&handle);
        dialler.origin = Some(peer);
    }
    let dialled_by = links::dialler(direction, node.origin(), peer);
    let Some(admitted) = shared.links.admit(peer, dialled_by) else {
        say_goodbye(out, &mut incoming, GoodbyeReason::Duplicate, "").await;
        return Ok(Ended::Duplicate { came_up: false });
    };
    let now_ms = node.now_ms();
    handle.update(|report| {
        report.site.clone_from(&theirs.site);
        report.origin = Some(peer);
        report.direction = Some(direction);
        report.connects += 1;
        report.acked.join(&theirs.heads);
        report.held_rows = 0;
        report.clock_offset_ms = Some(difference(theirs.wall_ms, now_ms));
    });
    tracing::info!(site = %theirs.site, origin = %peer, ?direction, "link up");

    let session = Session { shared, node, peer, handle: &handle, notes: Notes::default() };
    let receiving = session.receive(&mut incoming);
    let sending = session.send(&out, theirs.heads.clone());
    let ended = tokio::select! {
        error = receiving => error,
        error = sending => error,
        () = admitted.superseded.cancelled() => LinkError::Duplicate,
        () = shared.shutdown.cancelled() => LinkError::Shutdown,
    };
    let goodbye = match &ended {
        LinkError::Duplicate => Some(GoodbyeReason::Duplicate),
        LinkError::Shutdown => Some(GoodbyeReason::Shutdown),
        LinkError::Refused(_) | LinkError::Violation(_) => Some(GoodbyeReason::Refused),
        _ => None,
    };
    if let Some(reason) = goodbye {
        say_goodbye(out, &mut incoming, reason, &ended.to_string()).await;
    }
    match ended {
        LinkError::Duplicate => Ok(Ended::Duplicate { came_up: true }),
        LinkError::Shutdown => Ok(Ended::Shutdown),
        error => {
            let (message, at_ms) = (error.to_string(), node.now_ms());
            handle.update(|report| report.last_error = Some(LastError { message, at_ms }));
            Err((error, true))
        }
    }
}

fn own_hello(node: &Node) -> Hello {
    Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster: node.cluster().to_owned(),
        site: node.site().to_owned(),
        origin: node.origin(),
        boot: node.boot(),
        nonce: node.nonce(),
        heads: (*node.heads()).clone(),
        sequence: node.sequence(),
        wall_ms: node.now_ms(),
    }
}

async fn read_hello<S>(incoming: &mut S) -> Result<Hello, LinkError>
where
    S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
{
    match next_frame(incoming).await? {
        Frame::Hello(hello) => Ok(hello),
        Frame::Goodbye(goodbye) => Err(error_of(goodbye)),
        _ => Err(LinkError::NoHello),
    }
}

async fn next_frame<S>(incoming: &mut S) -> Result<Frame, LinkError>
where
    S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
{
    match incoming.next().await {
        Some(Ok(frame)) => Ok(Frame::try_from(frame)?),
        Some(Err(status)) => Err(LinkError::Lost(status.message().to_owned())),
        None => Err(LinkError::Lost("the peer closed the stream".into())),
    }
}

fn error_of(goodbye: Goodbye) -> LinkError {
    match goodbye.reason {
        GoodbyeReason::Shutdown => LinkError::PeerShutdown,
        GoodbyeReason::Duplicate => LinkError::Duplicate,
        GoodbyeReason::Refused => LinkError::RefusedByPeer(goodbye.message),
    }
}

/// Tells the peer why, if it still listens, and gives it a moment to hear: a stream that is dropped
/// takes along what was not sent.
async fn say_goodbye<S>(
    out: mpsc::Sender<proto::Frame>,
    incoming: &mut S,
    reason: GoodbyeReason,
    message: &str,
) where
    S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
{
    const PATIENCE: Duration = Duration::from_millis(500);
    let frame = Frame::Goodbye(Goodbye { reason, message: message.to_owned() });
    let _ = timeout(PATIENCE, async {
        if out.send(frame.into()).await.is_ok() {
            drop(out);
            while let Some(Ok(_)) = incoming.next().await {}
        }
    })
    .await;
}

fn difference(theirs_ms: u64, ours_ms: u64) -> i64 {
    i64::try_from(i128::from(theirs_ms) - i128::from(ours_ms)).unwrap_or(i64::MAX)
}

/// A link that is up.
struct Session<'l> {
    shared: &'l Shared,
    node: &'l Node,
    peer: Origin,
    handle: &'l PeerHandle,
    notes: Notes,
}

impl Session<'_> {
    /// The receiving half; ends only with an error.
    async fn receive<S>(&self, incoming: &mut S) -> LinkError
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
                    self.notes.leave(|notes| join(&mut notes.peer_heads, heads));
                }
                Frame::Want { heads, number } => {
                    self.notes.leave(|notes| notes.peer_want = Some((heads, number)));
                }
                Frame::Goodbye(goodbye) => return Err(error_of(goodbye)),
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
            self.notes.leave(|notes| join(&mut notes.peer_heads, heads.clone()));
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
    async fn send(&self, out: &mpsc::Sender<proto::Frame>, peer_heads: Heads) -> LinkError {
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
                () = self.notes.rung.notified() => false,
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
            if page.rows.is_empty() && snapshot_heads.is_some() && !beat {
                // Nothing but heads: the next heartbeat tells them.
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

fn join(heads: &mut Option<Heads>, more: Heads) {
    match heads {
        Some(heads) => {
            heads.join(&more);
        }
        None => *heads = Some(more),
    }
}
