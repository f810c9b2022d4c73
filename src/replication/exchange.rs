//! Drives one link: hello, then both halves of the session, until it ends.
//!
//! ```text
//! hello out, hello in --> check --> admitted? --> Session: receive and send --> goodbye
//! ```

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};
use tokio_stream::{Stream, StreamExt};
use tonic::Status;

use super::{
    Shared,
    comparing::Comparing,
    links::{self, Peer},
    notes::Notes,
    session::Session,
};
use crate::{
    node::{Direction, LastError, Node, PeerReport, WriteError},
    protocol::{
        Capabilities, Frame, Goodbye, GoodbyeReason, Hello, PROTOCOL_VERSION, Refusal,
        ViolationError, check_hello,
    },
    store::{MeetError, Meeting, Met, ReconcileError, StoreError},
    wire::{
        exchange::{FrameError, row_bytes},
        proto,
    },
};

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
    #[error("the peer reconciles, and has taken nothing for too long")]
    Stalled,
    #[error("the peer shut down")]
    PeerShutdown,
    #[error("connection lost: {0}")]
    Lost(String),
    #[error("{0}")]
    Violation(ViolationError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Reconcile(#[from] ReconcileError),
    #[error("{0}")]
    Meet(#[from] MeetError),
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
    let ours = own_hello(node).map_err(|error| not_up(error.into()))?;
    // A fresh queue has room.
    let _ = out.send(Frame::Hello(ours.clone()).into()).await;
    let theirs = timeout(shared.config.connect_max, read_hello(&mut incoming)).await;
    let theirs = match theirs {
        Ok(Err(LinkError::Duplicate)) => return Ok(Ended::Duplicate { came_up: false }),
        Ok(hello) => hello.map_err(not_up)?,
        Err(_) => return Err(not_up(LinkError::NoHello)),
    };
    // Heads as they are now: what went out over another link since our hello is no news of a clone.
    let membership = node.hello_membership().map_err(|error| not_up(error.into()))?;
    let ours = Hello { heads: (*node.heads()).clone(), membership, ..ours };
    if let Err(refusal) = check_hello(&ours, &theirs, node.standing(theirs.origin)) {
        say_goodbye(out, &mut incoming, GoodbyeReason::Refused, &refusal.to_string()).await;
        return Err(not_up(refusal.into()));
    }

    let peer = theirs.origin;
    let offset_ms = difference(theirs.wall_ms, node.now_ms());
    let address = dialler.as_ref().map(|peer| {
        // Where the two do not get on, it may say why.
        let note = |report: &mut PeerReport| {
            report.clock_offset_ms = Some(offset_ms);
            report.address.clone()
        };
        peer.handle.update(note)
    });
    let met = timeout(shared.config.connect_max, meet(node, &theirs, address, &out, &mut incoming));
    match met.await.unwrap_or(Err(LinkError::NoHello)) {
        Ok(()) => {}
        Err(LinkError::Duplicate) => return Ok(Ended::Duplicate { came_up: false }),
        Err(LinkError::Meet(error)) => {
            // What concerns the one is told to the other.
            let told = match error {
                MeetError::Removed => MeetError::OwnRemoved,
                MeetError::OwnRemoved => MeetError::Removed,
                MeetError::Sealed => MeetError::SealedThere,
                MeetError::SealedThere => MeetError::Sealed,
                error => error,
            };
            say_goodbye(out, &mut incoming, GoodbyeReason::Refused, &told.to_string()).await;
            return Err(not_up(error.into()));
        }
        Err(error) => return Err(not_up(error)),
    }
    node.learn(peer, &theirs.heads);
    let own_handle = dialler.as_ref().map(|peer| &peer.handle);
    let handle = shared.links.report_of(node, peer, own_handle, shared.config.compression);
    if let Some(dialler) = &mut dialler {
        dialler.handle = Arc::clone(&handle);
        dialler.origin = Some(peer);
    }
    let dialled_by = links::dialler(direction, node.origin(), peer);
    let Some(admitted) = shared.links.admit(peer, dialled_by) else {
        say_goodbye(out, &mut incoming, GoodbyeReason::Duplicate, "").await;
        return Ok(Ended::Duplicate { came_up: false });
    };
    handle.update(|report| {
        report.site.clone_from(&theirs.site);
        report.origin = Some(peer);
        report.direction = Some(direction);
        report.connects += 1;
        report.acked.join(&theirs.heads);
        report.held_rows = 0;
        report.clock_offset_ms = Some(offset_ms);
        report.round_trip = None;
    });
    tracing::info!(site = %theirs.site, origin = %peer, ?direction, "link up");

    let (comparing, questions) = Comparing::new();
    let session = Session {
        shared,
        node,
        peer,
        handle: &handle,
        notes: Notes::default(),
        comparing,
        since: Instant::now(),
        peer_can: theirs.capabilities,
    };
    let receiving = session.receive(&mut incoming);
    let sending = session.send(&out, theirs.heads.clone());
    let asking = session.ask(&out, node.calls().open(peer), questions.answered);
    let answering = session.answer(&out, questions.asked);
    let ended = tokio::select! {
        error = receiving => error,
        error = sending => error,
        error = asking => error,
        error = answering => error,
        () = admitted.superseded.cancelled() => LinkError::Duplicate,
        () = shared.shutdown.cancelled() => LinkError::Shutdown,
    };
    let goodbye = match &ended {
        LinkError::Duplicate => Some(GoodbyeReason::Duplicate),
        LinkError::Shutdown => Some(GoodbyeReason::Shutdown),
        LinkError::Refused(_)
        | LinkError::Violation(_)
        | LinkError::Frame(_)
        | LinkError::Meet(_) => Some(GoodbyeReason::Refused),
        _ => None,
    };
    if let Some(reason) = goodbye {
        let told = match &ended {
            LinkError::Meet(MeetError::Removed) => MeetError::OwnRemoved.to_string(),
            ended => ended.to_string(),
        };
        say_goodbye(out, &mut incoming, reason, &told).await;
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

fn own_hello(node: &Node) -> Result<Hello, StoreError> {
    Ok(Hello {
        protocol_version: PROTOCOL_VERSION,
        cluster: node.cluster().to_owned(),
        site: node.site().to_owned(),
        origin: node.origin(),
        boot: node.boot(),
        nonce: node.nonce(),
        heads: (*node.heads()).clone(),
        sequence: node.sequence(),
        wall_ms: node.now_ms(),
        capabilities: Capabilities::own(),
        membership: node.hello_membership()?,
    })
}

/// The rules of membership: whether the two stores may exchange; a newcomer is taken in on the way.
async fn meet<S>(
    node: &Node,
    theirs: &Hello,
    address: Option<String>,
    out: &mpsc::Sender<proto::Frame>,
    incoming: &mut S,
) -> Result<(), LinkError>
where
    S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
{
    let peer = theirs.origin;
    let meeting = Meeting {
        peer,
        address,
        membership: theirs.membership.clone(),
        heads: theirs.heads.clone(),
        drift_bound_ms: node.drift_bound_ms(),
    };
    let closed = |_| LinkError::Lost("the connection is closed".into());
    match node.meet(meeting).await?? {
        Met::Known => {}
        Met::Stranger => {
            out.send(Frame::Join.into()).await.map_err(closed)?;
            loop {
                match next_frame(incoming).await?.0 {
                    Frame::Welcome(rows) => {
                        node.join(peer, rows).await??;
                        break;
                    }
                    Frame::Goodbye(goodbye) => return Err(error_of(goodbye)),
                    _ => {}
                }
            }
        }
        Met::Newcomer => loop {
            match next_frame(incoming).await?.0 {
                Frame::Join => {
                    let rows = node.admit(theirs).await??;
                    tracing::info!(site = %theirs.site, origin = %peer, "admitted to the cluster");
                    out.send(Frame::Welcome(rows).into()).await.map_err(closed)?;
                    break;
                }
                // Meanwhile it was taken in by way of another link: this one is begun anew.
                Frame::Want(_) => return Err(MeetError::Joining.into()),
                Frame::Goodbye(goodbye) => return Err(error_of(goodbye)),
                _ => {}
            }
        },
    }
    Ok(())
}

async fn read_hello<S>(incoming: &mut S) -> Result<Hello, LinkError>
where
    S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
{
    match next_frame(incoming).await?.0 {
        Frame::Hello(hello) => Ok(hello),
        Frame::Goodbye(goodbye) => Err(error_of(goodbye)),
        _ => Err(LinkError::NoHello),
    }
}

/// The next frame, and what its rows took on the wire, in bytes.
pub(super) async fn next_frame<S>(incoming: &mut S) -> Result<(Frame, usize), LinkError>
where
    S: Stream<Item = Result<Option<proto::Frame>, Status>> + Unpin,
{
    match incoming.next().await {
        Some(Ok(frame)) => {
            let row_bytes = row_bytes(&frame);
            Ok((Frame::try_from(frame)?, row_bytes))
        }
        Some(Err(status)) => Err(LinkError::Lost(status.message().to_owned())),
        None => Err(LinkError::Lost("the peer closed the stream".into())),
    }
}

pub(super) fn error_of(goodbye: Goodbye) -> LinkError {
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

pub(super) fn difference(theirs_ms: u64, ours_ms: u64) -> i64 {
    i64::try_from(i128::from(theirs_ms) - i128::from(ours_ms)).unwrap_or(i64::MAX)
}
