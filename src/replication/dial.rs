//! Keeps a link to one configured peer: dials, backs off with jitter, tries again, for ever.

use std::{sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::transport::Endpoint;

use super::{
    FRAMES_QUEUED_MAX, PeerConfig, Shared,
    exchange::{self, Ended, Link, LinkError},
    links::Peer,
};
use crate::{
    node::{Direction, PeerReport},
    wire::{
        exchange::FRAME_BYTES_MAX,
        proto::{
            ExchangeRequest, Frame as WireFrame,
            replication_service_client::ReplicationServiceClient,
        },
        windows,
    },
};

/// Keeps a link to a peer until the node shuts down.
pub(super) async fn keep_link(shared: Arc<Shared>, peer: PeerConfig) {
    let PeerConfig { address, compression } = peer;
    let report = PeerReport { address: address.clone(), compression, ..PeerReport::default() };
    let mut peer = Peer { handle: Arc::new(shared.node.reports().add_peer(report)), origin: None };
    loop {
        let mut backoff = ExponentialBuilder::default()
            .with_min_delay(shared.config.backoff_min)
            .with_max_delay(shared.config.backoff_max)
            .with_jitter()
            .without_max_times()
            .build();
        // One turn for each attempt; a link that came up begins the back-off anew.
        loop {
            let ended = tokio::select! {
                ended = attempt(&shared, &address, &mut peer) => ended,
                () = shared.shutdown.cancelled() => return,
            };
            let came_up = match ended {
                Ok(Ended::Shutdown) => return,
                Ok(Ended::Duplicate { came_up }) => {
                    // The other link of this pair goes on; take over when it ends.
                    if let Some(origin) = peer.origin {
                        tokio::select! {
                            () = shared.links.gone(origin) => {}
                            () = shared.shutdown.cancelled() => return,
                        }
                    }
                    came_up
                }
                Err((error, came_up)) => {
                    tracing::warn!(peer = %address, %error, "link");
                    peer.note(error.to_string(), shared.node.now_ms());
                    came_up
                }
            };
            let wait = if came_up { shared.config.backoff_min } else { next_wait(&mut backoff) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shared.shutdown.cancelled() => return,
            }
            if came_up {
                break;
            }
        }
    }
}

fn next_wait(backoff: &mut impl Iterator<Item = Duration>) -> Duration {
    backoff.next().expect("without a limit of attempts")
}

/// Dials once and drives the link until it ends. The flag tells whether it came up.
async fn attempt(
    shared: &Arc<Shared>,
    address: &str,
    peer: &mut Peer,
) -> Result<Ended, (LinkError, bool)> {
    let config = &shared.config;
    let connect = |error: tonic::transport::Error| {
        (LinkError::Connect { address: address.to_owned(), reason: innermost(&error) }, false)
    };
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(connect)?;
    let endpoint = windows::of_endpoint(endpoint)
        .connect_timeout(config.connect_max)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(config.silence_max)
        .keep_alive_timeout(config.silence_max)
        .keep_alive_while_idle(true);
    let channel = endpoint.connect().await.map_err(connect)?;
    let mut client =
        ReplicationServiceClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
    let (out, queue) = mpsc::channel::<WireFrame>(FRAMES_QUEUED_MAX);
    let requests = ReceiverStream::new(queue).map(|frame| ExchangeRequest { frame: Some(frame) });
    let answer = timeout(config.connect_max, client.exchange(requests)).await;
    let incoming = match answer {
        Ok(Ok(response)) => response.into_inner().map(|answer| answer.map(|a| a.frame)),
        Ok(Err(status)) => return Err((LinkError::Lost(status.message().to_owned()), false)),
        Err(_) => return Err((LinkError::NoHello, false)),
    };
    let link = Link { direction: Direction::Dialled, out, incoming };
    exchange::drive(shared, link, Some(peer)).await
}

/// The cause at the bottom: "connection refused" says more than "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
