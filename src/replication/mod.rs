//! Replication: one link for each pair of nodes, rows both ways.
//!
//! ```text
//! dial.rs      keeps a link to each configured peer: dials, backs off, tries again
//! accept.rs    the gRPC service that other nodes dial
//! links.rs     which links are up; of two links of one pair one stays
//! exchange.rs  drives one link: hello, session, goodbye
//! session.rs   deltas both ways: the receiving and the sending half
//! reconcile.rs where this store stands below the peer's floor
//! notes.rs     what the one leaves for the other
//! comparing.rs questions about the peer's rows, and answers to its own
//! merges.rs    parts of deltas on their way into commits
//! relay.rs     when to pass on what another site wrote
//! ```
//!
//! The rules are [`protocol`](crate::protocol)'s; here are the sockets and the timers.

mod accept;
mod comparing;
mod dial;
mod exchange;
mod links;
mod merges;
mod notes;
mod reconcile;
mod relay;
mod session;

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use accept::Acceptor;

use crate::{
    node::Node,
    protocol::Compression,
    wire::{
        exchange::FRAME_BYTES_MAX, proto::replication_service_server::ReplicationServiceServer,
    },
};
use links::Links;

/// How a link treats silence, size and failure.
#[derive(Clone, Debug)]
pub struct Config {
    /// The peers to dial.
    pub peers: Vec<PeerConfig>,
    /// Whether what goes to a peer is compressed that dials us and is none of `peers`.
    pub compression: Compression,
    /// Rows of a frame, in bytes, roughly.
    pub frame_bytes: usize,
    /// How often a link says that there is nothing new.
    pub heartbeat: Duration,
    /// A peer that is silent for so long is gone.
    pub silence_max: Duration,
    /// How long a connection may take to come up, and a hello to come in.
    pub connect_max: Duration,
    /// The first wait before dialling again; it doubles, with jitter.
    pub backoff_min: Duration,
    /// The longest wait before dialling again.
    pub backoff_max: Duration,
    /// A delta that is read from the change index for longer, or waits so long for a peer that takes
    /// nothing, is left off and begun anew, so that the space of what was replaced meanwhile is given
    /// back.
    pub delta_age_max: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            peers: Vec::new(),
            compression: Compression::default(),
            frame_bytes: 256 << 10,
            heartbeat: Duration::from_secs(1),
            silence_max: Duration::from_secs(10),
            connect_max: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(5),
            delta_age_max: Duration::from_secs(60),
        }
    }
}

/// A peer to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// As `http://host:port`.
    pub address: String,
    /// Whether what goes to it is compressed, whoever dialled.
    pub compression: Compression,
}

/// Frames that wait to be sent on one link.
const FRAMES_QUEUED_MAX: usize = 4;

/// All links of a node.
#[derive(Debug)]
pub struct Replication {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Shared {
    node: Node,
    config: Config,
    links: Links,
    shutdown: CancellationToken,
}

impl Replication {
    /// Begins to dial the configured peers. Ends with `shutdown`.
    #[must_use]
    pub fn start(node: Node, config: Config, shutdown: CancellationToken) -> Replication {
        let shared = Arc::new(Shared { node, config, links: Links::default(), shutdown });
        let tasks = TaskTracker::new();
        for peer in shared.config.peers.clone() {
            tasks.spawn(dial::keep_link(Arc::clone(&shared), peer));
        }
        tasks.close();
        Replication { shared, tasks }
    }

    /// The service for the nodes that dial this one.
    #[must_use]
    pub fn service(&self) -> ReplicationServiceServer<Acceptor> {
        ReplicationServiceServer::new(Acceptor::new(Arc::clone(&self.shared), self.tasks.clone()))
            .max_decoding_message_size(FRAME_BYTES_MAX)
    }

    /// Waits until all links have ended, after `shutdown`.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }
}
