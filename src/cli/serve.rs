//! `lastword serve`: the composition root, where a node is put together from its settings.
//!
//! ```text
//! listeners --> node --> replication, mirror, api, status --> until a signal, or the node stops
//! ```
//!
//! The order of the end is that of the start, backwards: the edges end first, what they had begun is
//! committed, then the writer ends.

use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    api,
    config::{Config, MysqlTarget, Peer},
    mirror,
    node::{Node, NodeConfig, UpkeepConfig},
    replication::{self, PeerConfig, Replication},
    status,
    store::JournalLimits,
    telemetry,
    wire::limits::Limits,
};

use super::{settings_args::SettingsArgs, signals::Signals};

/// Run a node
#[derive(clap::Args)]
#[command(after_help = "Example:\n  lastword serve --site fra --data /var/lib/lastword \
                        --peer http://nyc.example:7400\n\n\
                        In the settings file: site = \"fra\", peer = [\"http://...\"]; \
                        --sequence-offset is offset in the section [sequence].\n\
                        lastword config shows the settings in effect and where each comes from.")]
pub(super) struct Args {
    #[command(flatten)]
    settings: SettingsArgs,
}

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let config = Config::from_layers(&self.settings.layers()?)?;
        telemetry::init(&config.log.filter, config.log.format)?;
        run(config).await
    }
}

/// Runs a node until it is told to stop.
///
/// # Errors
///
/// Whatever keeps it from starting, or makes it stop.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // Before the store is opened: a port in use must not cost a start.
    let listener = listen("listen", config.listen).await?;
    let http_listener = match config.http {
        Some(address) => Some(listen("http", address).await?),
        None => None,
    };
    let mut signals = Signals::new()?;
    let node = Node::open(node_config(&config)).await?;
    let shutdown = CancellationToken::new();
    let edges = TaskTracker::new();

    let links = replication::Config {
        peers: config.peers.iter().map(peer_config).collect(),
        compression: config.compression,
        ..replication::Config::default()
    };
    edges.spawn(node.clone().keep_up(upkeep_config(&config), shutdown.clone()));
    let replication = Replication::start(node.clone(), links, shutdown.clone());
    if let Some(target) = &config.mysql {
        let mirror = mirror::start(node.clone(), mirror_config(&config, target), shutdown.clone());
        edges.spawn(async move {
            if let Err(error) = mirror.await {
                tracing::error!(%error, "the mirror ended");
            }
        });
    }
    if let Some(http_listener) = http_listener {
        let serving = status::serve(node.clone(), http_listener, shutdown.clone());
        edges.spawn(until_shutdown("http", serving, shutdown.clone()));
    }
    let limits = api::Config { limits: limits(&config), ..api::Config::default() };
    let serving =
        api::serve(node.clone(), limits, listener, replication.service(), shutdown.clone());
    edges.spawn(until_shutdown("listen", serving, shutdown.clone()));
    edges.close();
    tracing::info!(
        site = %config.site, cluster = %config.cluster, origin = %node.origin(),
        listen = %config.listen, data = %config.data.display(), "serving"
    );

    tokio::select! {
        signal = signals.next() => tracing::info!(signal, "stopping"),
        () = node.stopped() => {}
        () = shutdown.cancelled() => {}
    }
    shutdown.cancel();
    replication.ended().await;
    edges.wait().await;
    node.shutdown().await;
    match node.failure() {
        Some(failure) => bail!("{failure}"),
        None => Ok(()),
    }
}

async fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "{setting}: cannot listen on {address}: is another lastword running? use another port"
        )
    })
}

/// Drives a server; where it ends by itself, so does the node.
async fn until_shutdown<E: std::fmt::Display>(
    setting: &'static str,
    serving: impl Future<Output = Result<(), E>>,
    shutdown: CancellationToken,
) {
    if let Err(error) = serving.await {
        tracing::error!(setting, %error, "the server ended");
    }
    shutdown.cancel();
}

pub(super) fn node_config(config: &Config) -> NodeConfig {
    let drift_ms = config.limits.clock_drift_max.as_millis();
    let kept_ms = config.conflicts.kept_age_max.as_millis();
    NodeConfig {
        cluster: config.cluster.clone(),
        role: config.role,
        sequence: config.sequence,
        create_tables: config.tables.auto_create,
        drift_bound_ms: u64::try_from(drift_ms).expect("at most an hour"),
        peers: config.peers.iter().map(|peer| peer_config(peer).address).collect(),
        journal: JournalLimits {
            bytes_max: config.conflicts.kept_bytes_max,
            age_max_ms: u64::try_from(kept_ms).expect("at most ten years"),
            ..JournalLimits::default()
        },
        ..NodeConfig::new(&config.data, &config.site)
    }
}

pub(super) fn upkeep_config(config: &Config) -> UpkeepConfig {
    UpkeepConfig {
        seal_after: config.member.seal_after,
        absent_max: config.member.absent_max,
        ..UpkeepConfig::default()
    }
}

pub(super) fn peer_config(peer: &Peer) -> PeerConfig {
    PeerConfig { address: peer.address.as_str().to_owned(), compression: peer.compression }
}

fn limits(config: &Config) -> Limits {
    Limits {
        value_bytes_max: config.limits.value_bytes_max,
        batch_mutations_max: config.limits.batch_mutations_max,
        get_many_keys_max: config.limits.get_many_keys_max,
        read_wait_max: config.limits.read_wait_max,
        ..Limits::default()
    }
}

pub(super) fn mirror_config(config: &Config, target: &MysqlTarget) -> mirror::Config {
    mirror::Config {
        tls: target.tls.as_ref().map(|tls| mirror::Tls { ca_file: tls.ca_file.clone() }),
        tables: config.mirrored_tables.clone(),
        value_bytes_max: config.limits.value_bytes_max,
        sequence: config.sequence,
        ..mirror::Config::new(mirror_target(target))
    }
}

fn mirror_target(target: &MysqlTarget) -> mirror::Target {
    mirror::Target {
        host: target.host.clone(),
        port: target.port,
        user: target.user.clone(),
        password: target.password.as_ref().map(|secret| secret.expose().to_owned()),
        database: target.database.clone(),
    }
}
