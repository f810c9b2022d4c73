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

use std::{pin::Pin, time::Duration};

use tokio::{
    sync::{OwnedRwLockWriteGuard, mpsc},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_stream::Stream;
use tonic::Status;

use super::{
    Shared,
    comparing::Comparing,
    exchange::{LinkError, difference, error_of, next_frame},
    merges::Merges,
    notes::Notes,
    reconcile::{self, Reconciling},
    relay::Relay,
};
use crate::{
    model::{Heads, Origin},
    node::{Begun, FollowDelta, Follower, Node, Page, PeerHandle, WriteError},
    protocol::{Capabilities, Compare, Delta, Frame, Receiver, Want},
    store::{MeetError, RemoteBatch, Step},
    wire::{compress::compress, delta, proto},
};

/// The most rows of a frame.
const FRAME_ROWS_MAX: usize = 4_096;
/// After rows were held back: the shortest and the longest wait before asking again.
const WANT_AGAIN_MIN: Duration = Duration::from_secs(1);
const WANT_AGAIN_MAX: Duration = Duration::from_secs(30);

/// Leave to reconcile, waited for.
type Turn = Pin<Box<dyn Future<Output = OwnedRwLockWriteGuard<()>> + Send>>;

/// What became of a part of a delta.
struct Taken {
    /// Rows were held back: ask again after this time.
    ask_again_after: Option<Duration>,
    /// The first half of a reconciliation is here.
    compare: Option<Compare>,
}

/// A link that is up.
pub(super) struct Session<'l> {
    pub(super) shared: &'l Shared,
    pub(super) node: &'l Node,
    pub(super) peer: Origin,
    pub(super) handle: &'l PeerHandle,
    pub(super) notes: Notes,
    pub(super) comparing: Comparing,
    /// Since when the link is up: a Ping's token is its time in microseconds since then.
    pub(super) since: Instant,
    pub(super) peer_can: Capabilities,
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
        let mut want_again_at: Option<Instant> = None;
        let mut merging = Merges::default();
        let mut turn: Option<Turn> = None;
        if self.must_reconcile() {
            turn = Some(self.wait_for_turn());
            receiver.expect_reconciliation();
        } else {
            self.want(&mut receiver, want);
        }
        let mut reconciliation: Option<Reconciling> = None;
        loop {
            let silence = self.shared.config.silence_max;
            let (frame, wire_bytes) = tokio::select! {
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
                    if self.must_reconcile() {
                        turn.get_or_insert_with(|| self.wait_for_turn());
                        receiver.expect_reconciliation();
                    } else {
                        self.want(&mut receiver, (*self.node.heads()).clone());
                    }
                    continue;
                }
                taken = async { turn.as_mut().expect("waited for").await }, if turn.is_some() => {
                    turn = None;
                    reconciliation = Some(Reconciling::new(self.peer, taken));
                    // What others had handed in before is merged when this comes back.
                    self.node.advance().await?;
                    let heads = (*self.node.heads()).clone();
                    let number = receiver.want_reconciliation(heads.clone());
                    let want = Want { heads, number, reconcile: true };
                    self.notes.leave(|notes| notes.own_want = Some(want));
                    continue;
                }
            };
            match frame {
                Frame::Delta(delta) => {
                    self.handle.update(|r| r.wire_bytes_received += wire_bytes as u64);
                    // In a reconciliation the turn is ours; and who waits for it takes nothing in.
                    let waits = turn.is_some() || reconciliation.is_some();
                    let _turn = if waits { None } else { Some(self.node.merge_turn().await) };
                    let taken = self.take_delta(&mut receiver, delta, &mut merging).await?;
                    if let Some(wait) = taken.ask_again_after {
                        // Whatever was begun is asked for anew then.
                        reconciliation = None;
                        want_again_at.get_or_insert(Instant::now() + wait);
                    }
                    if let (Some(with), Some(reconciliation)) = (taken.compare, &mut reconciliation)
                    {
                        while !merging.is_empty() {
                            merging.first_merged().await?;
                        }
                        let next = reconciliation.begin(self.node, with).await?;
                        self.go_on(next, &mut receiver).await?;
                    }
                }
                Frame::BelowFloor => {
                    if turn.is_none() && reconciliation.is_none() {
                        turn = Some(self.wait_for_turn());
                        receiver.expect_reconciliation();
                    }
                }
                Frame::ReconcileQuestion(question) => {
                    if let Some(snapshot) = self.notes.kept_snapshot() {
                        let answer = reconcile::answer(snapshot, question).await?;
                        let frame = Frame::ReconcileAnswer(answer);
                        self.notes.leave(|notes| notes.comparison = Some(frame));
                    }
                }
                Frame::ReconcileAnswer(answer) => {
                    let Some(under_way) = &mut reconciliation else { continue };
                    if let Some(next) = under_way.on_answer(answer).await?
                        && self.go_on(next, &mut receiver).await?
                    {
                        reconciliation = None;
                    }
                }
                Frame::Ack(heads) => self.peer_has(&heads),
                Frame::Want(want) => {
                    self.notes.leave(|notes| notes.peer_want = Some(want));
                }
                Frame::Known(known) => {
                    for (member, heads) in known {
                        self.node.learn(member, &heads);
                    }
                }
                Frame::Linked(origins) => {
                    self.notes.leave(|notes| notes.peer_linked = Some(origins));
                }
                Frame::Ping(token) => self.notes.leave(|notes| notes.pong_due = Some(token)),
                Frame::Pong { token, wall_ms } => self.on_pong(token, wall_ms),
                Frame::Goodbye(goodbye) => return Err(error_of(goodbye)),
                Frame::Compare { id, ask } => self.comparing.on_ask(id, ask),
                Frame::Compared { id, answer } => self.comparing.on_answer(id, answer),
                Frame::Hello(_) | Frame::Join | Frame::Welcome(_) | Frame::Unknown => {}
            }
        }
    }

    fn token(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// How far the peer is: the shortest way there and back, because a Ping may have waited behind rows.
    /// What its clock says counts where it did not.
    fn on_pong(&self, token: u64, wall_ms: u64) {
        let round_trip = Duration::from_micros(self.token().saturating_sub(token));
        let now_ms = self.node.now_ms();
        self.handle.update(|report| {
            let shortest = report.round_trip.unwrap_or(Duration::MAX).min(round_trip);
            report.round_trip = Some(shortest);
            if round_trip <= shortest * 2 {
                let half_ms = u64::try_from(round_trip.as_millis() / 2).unwrap_or_default();
                report.clock_offset_ms = Some(difference(wall_ms.saturating_add(half_ms), now_ms));
            }
        });
    }

    /// Whether this store is being admitted, and has not pulled all that its sponsor had: it compares, so
    /// that what it has from before is told apart.
    fn must_reconcile(&self) -> bool {
        self.node.snapshot().joining().is_some_and(|joining| !joining.pulled)
    }

    fn wait_for_turn(&self) -> Turn {
        let node = self.node.clone();
        Box::pin(async move { node.reconcile_turn().await })
    }

    /// Asks for the peer's delta from `heads` on.
    fn want(&self, receiver: &mut Receiver, heads: Heads) {
        let number = receiver.want_again(heads.clone());
        let want = Want { heads, number, reconcile: false };
        self.notes.leave(|notes| notes.own_want = Some(want));
    }

    /// The peer has durably incorporated this.
    fn peer_has(&self, heads: &Heads) {
        self.handle.update(|report| report.acked.join(heads));
        self.node.learn(self.peer, heads);
        self.notes.peer_has(heads);
    }

    /// Goes on with a reconciliation; `true`: it has ended.
    async fn go_on(&self, next: Step, receiver: &mut Receiver) -> Result<bool, LinkError> {
        match next {
            Step::Ask(question) => {
                let frame = Frame::ReconcileQuestion(question);
                self.notes.leave(|notes| notes.comparison = Some(frame));
                Ok(false)
            }
            Step::End(end) => {
                let rows = self.node.reconcile(end).await?.ok_or(MeetError::Removed)?;
                tracing::info!(peer = %self.peer, rows_that_had_died = rows, "reconciled");
                self.want(receiver, (*self.node.heads()).clone());
                self.notes.leave(|notes| notes.ack_due = true);
                Ok(true)
            }
        }
    }

    /// Hands a part of a delta to the writer.
    async fn take_delta(
        &self,
        receiver: &mut Receiver,
        delta: Delta,
        merging: &mut Merges,
    ) -> Result<Taken, LinkError> {
        if let Some(heads) = &delta.snapshot_heads {
            // Before the rows are merged, so that they are not sent back.
            self.peer_has(heads);
        }
        let bytes: usize = delta.rows.iter().map(crate::model::Row::size_bytes).sum();
        let rows = delta.rows.len() as u64;
        let (remaining_rows, remaining_bytes) = (delta.remaining_rows, delta.remaining_bytes);
        let own_head = self.node.snapshot().own_head(self.node.origin(), self.peer);
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
        Ok(Taken { ask_again_after: wait, compare: received.compare })
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
        let mut relay = Relay::new(self.node.origin());
        let mut links = self.shared.links.changes();
        let mut told = Vec::new();
        self.put(out, Frame::Ping(self.token())).await?;
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
                // The sender lives as long as the links.
                _ = links.changed() => {
                    self.put(out, Frame::Linked(self.shared.links.up())).await?;
                    continue;
                }
                _ = heartbeat.tick() => true,
            };
            self.answer_notes(out, &mut follower, &mut relay).await?;
            if beat {
                self.put(out, Frame::Ping(self.token())).await?;
                self.node.advance().await?;
                let known = self.node.known();
                if told != known {
                    self.put(out, Frame::Known(known.clone())).await?;
                    told = known;
                }
            }
            if follower.want_number() > 0 {
                self.send_delta(out, &mut follower, &mut relay, beat).await?;
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
        relay: &mut Relay,
    ) -> Result<bool, LinkError> {
        let notes = self.notes.take();
        if let Some(origins) = notes.peer_linked {
            relay.peer_is_linked(origins);
        }
        if let Some(token) = notes.pong_due {
            let wall_ms = self.node.now_ms();
            self.put(out, Frame::Pong { token, wall_ms }).await?;
        }
        if let Some(want) = notes.own_want {
            self.put(out, Frame::Want(want)).await?;
        }
        if let Some(frame) = notes.comparison {
            self.put(out, frame).await?;
        }
        if notes.ack_due {
            self.put(out, Frame::Ack((*self.node.heads()).clone())).await?;
        }
        let wanted = notes.peer_want.is_some();
        if let Some(want) = notes.peer_want {
            self.notes.keep_snapshot(None);
            follower.on_want(want);
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
        relay: &mut Relay,
        beat: bool,
    ) -> Result<(), LinkError> {
        if !self.node.snapshot().may_be_told() {
            follower.pass();
            return match beat {
                true => self.put(out, Frame::Ack((*self.node.heads()).clone())).await,
                false => Ok(()),
            };
        }
        let want_number = follower.want_number();
        let mut delta = match self.begin(follower)? {
            Begun::Delta(delta) => delta,
            Begun::BelowFloor => {
                // Once for each Want, and with the heartbeats: the peer may have been busy.
                if beat || self.notes.is_first_refusal(want_number) {
                    self.put(out, Frame::BelowFloor).await?;
                }
                return Ok(());
            }
            Begun::Waiting if beat => {
                return self.put(out, Frame::Ack((*self.node.heads()).clone())).await;
            }
            Begun::Waiting => return Ok(()),
        };
        if !beat && relay.may_wait(&delta) {
            if relay.is_awaited(true, delta.heads()) {
                self.put(out, Frame::Ack((**delta.heads()).clone())).await?;
            }
            return Ok(());
        }
        let mut floor = Heads::new();
        let is_reconciliation = delta.reconciled_with().is_some();
        if let Some(snapshot) = delta.reconciled_with() {
            floor.clone_from(snapshot.floor());
            self.notes.keep_snapshot(Some(snapshot.clone()));
        }
        let mut snapshot_heads = Some((**delta.heads()).clone());
        let mut old_at = Instant::now() + self.shared.config.delta_age_max;
        loop {
            let page;
            (delta, page) = next_page(delta, self.shared.config.frame_bytes).await?;
            if page.rows.is_empty() && snapshot_heads.is_some() && !beat && !delta.is_scan() {
                // Nothing but heads: the next heartbeat tells them. A first delta goes out in any
                // case: what a broken one brought is claimed with it.
                if relay.is_awaited(follower.is_behind(&delta), delta.heads()) {
                    self.put(out, Frame::Ack((**delta.heads()).clone())).await?;
                }
                follower.finish(&delta);
                return Ok(());
            }
            let rows = page.rows.len() as u64;
            let bytes = page.rows.size_bytes() as u64;
            let mut frame = delta::Delta::from(Delta {
                snapshot_heads: snapshot_heads.take(),
                floor: std::mem::take(&mut floor),
                rows: page.rows,
                last: page.last,
                remaining_rows: page.remaining_rows,
                remaining_bytes: page.remaining_bytes,
                want_number,
            });
            if self.compresses() {
                compress(&mut frame);
            }
            let wire_bytes = frame.row_bytes as u64;
            if is_reconciliation {
                // It cannot be gone on with later; its snapshot is kept as long as it makes progress.
                old_at = Instant::now() + self.shared.config.delta_age_max;
            }
            let mut put = std::pin::pin!(self.put(out, frame));
            let in_time = timeout_at(old_at, &mut put).await;
            let is_slow = in_time.is_err();
            in_time.unwrap_or(Ok(()))?;
            if is_slow && is_reconciliation {
                return Err(LinkError::Stalled);
            }
            let is_old =
                !is_reconciliation && (is_slow || (delta.is_scan() && Instant::now() > old_at));
            if page.last {
                relay.has_told(delta.heads());
                follower.finish(&delta);
            } else if is_old {
                follower.leave_off(&delta);
            }
            if is_slow {
                // What the delta holds of the store does not wait for the peer.
                drop(delta);
                put.await?;
                self.count_sent(rows, bytes, wire_bytes);
                return Ok(());
            }
            self.count_sent(rows, bytes, wire_bytes);
            if page.last || is_old || self.answer_notes(out, follower, relay).await? {
                return Ok(());
            }
        }
    }

    /// What the follower can pass on now.
    fn begin(&self, follower: &mut Follower) -> Result<Begun, LinkError> {
        let mut begun = follower.begin()?;
        // What the peer sent meanwhile is not sent back: the note is left before its rows are merged.
        while let Some(heads) = self.notes.take_peer_heads() {
            follower.known(&heads);
            begun = follower.begin()?;
        }
        Ok(begun)
    }

    fn count_sent(&self, rows: u64, bytes: u64, wire_bytes: u64) {
        self.handle.update(|report| {
            report.rows_sent += rows;
            report.bytes_sent += bytes;
            report.wire_bytes_sent += wire_bytes;
        });
    }

    /// Whether to compress: asked for each frame, because how far the peer is shows while rows go out
    /// already, and the setting of a peer that dialled us is found when we reach it, too.
    fn compresses(&self) -> bool {
        self.handle.update(|report| {
            let round_trip = report.round_trip.unwrap_or_default();
            report.compressing = report.compression.applies(self.peer_can, round_trip);
            report.compressing
        })
    }

    async fn put(
        &self,
        out: &mpsc::Sender<proto::Frame>,
        frame: impl Into<proto::Frame>,
    ) -> Result<(), LinkError> {
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
