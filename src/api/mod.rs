//! The gRPC server: what clients, operators and peers reach.
//!
//! ```text
//! key_value.rs  reads and writes
//! bulk.rs       a load: many batches under way on one stream
//! scan.rs       a range of rows, streamed
//! admin.rs      what operators ask
//! telling.rs    long work, with how far it has come; adoption.rs: MySQL's rows from before
//! conflicts.rs  the conflict journal
//! export.rs     a delta, to be carried by hand
//! import.rs     one that was
//! paged.rs      long answers, a page at a time
//! bounded.rs    how many requests run at once, and for how long
//! ```
//!
//! The exchange with peers comes in by the same port; its service is handed in, for edges do not
//! know one another. Health and reflection are served beside them.
//!
//! A new site that has not caught up says `NOT_SERVING` of what clients use, and serves whoever asks all the
//! same. Everything has a bound: connections, streams, requests in flight, their bytes and their time. At
//! shutdown the health turns to `NOT_SERVING`, what runs is finished within [`GRACE`], and what is
//! left is cut off.

mod admin;
mod adoption;
mod bounded;
mod bulk;
mod conflicts;
mod export;
mod import;
mod key_value;
mod paged;
mod scan;
mod telling;

use std::time::Duration;

use futures_util::stream;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{server::NamedService, transport::Server};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    listen::{Entrance, EntranceConfig},
    node::Node,
    wire::{
        limits::Limits,
        proto::{
            self, admin_service_server::AdminServiceServer,
            key_value_service_server::KeyValueServiceServer,
            replication_service_server::ReplicationService,
            replication_service_server::ReplicationServiceServer,
        },
        windows,
    },
};
use admin::Admin;
use bounded::Bounded;
use key_value::KeyValue;

/// The most connections, peers' included.
const CONNECTIONS_MAX: usize = 10_000;
/// How long a connection may take to show that it speaks HTTP/2.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// The preface of HTTP/2: who has sent it is through the handshake, and watched by pings.
const HTTP2_PREFACE_BYTES: usize = 24;
/// A connection that is silent for so long is asked whether it is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long it may take to say so.
const KEEP_ALIVE_TIME_MAX: Duration = Duration::from_secs(10);
/// The most bytes of a request's headers.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// What a message may have beyond the tables, keys and values that the limits count.
const MESSAGE_OVERHEAD_BYTES: usize = 1 << 20;
/// The most requests for rows that run at once; others wait.
const REQUESTS_IN_FLIGHT_MAX: usize = 1_024;
/// The most questions of operators that are worked on at once; others wait.
const ADMIN_REQUESTS_IN_FLIGHT_MAX: usize = 4;
/// How long a request may take, its way in included, but for the wait for its session and the rows
/// of a scan.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// How long requests may go on after the shutdown began.
pub const GRACE: Duration = Duration::from_secs(5);
/// How long the connections that are cut off then may take to end.
const CUT_TIME_MAX: Duration = Duration::from_secs(1);

/// How the server is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// What one request may ask for.
    pub limits: Limits,
    /// The most scans at once. Default 64.
    pub scans_max: usize,
    /// How long a scan's client may take no rows. Default 60 s.
    pub scan_stall_max: Duration,
    /// How long a scan may keep its snapshot in all. Default 1 h.
    pub scan_age_max: Duration,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            limits: Limits::default(),
            scans_max: 64,
            scan_stall_max: Duration::from_secs(60),
            scan_age_max: Duration::from_secs(3_600),
        }
    }
}

/// The server could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// From the transport.
    #[error("api: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The compiled proto cannot be shown.
    #[error("api: reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves clients, operators and peers on `listener` until `shutdown`, and what runs then to its
/// end, within [`GRACE`].
///
/// # Errors
///
/// [`ServeError`]: the server could not be run.
pub async fn serve<R: ReplicationService>(
    node: Node,
    config: Config,
    listener: TcpListener,
    replication: ReplicationServiceServer<R>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let request_time_max = REQUEST_TIME_MAX + config.limits.read_wait_max;
    let message_bytes_max = config.limits.request_bytes_max + MESSAGE_OVERHEAD_BYTES;
    let key_value = KeyValueServiceServer::new(KeyValue::new(node.clone(), config))
        .max_decoding_message_size(message_bytes_max);
    let admin = AdminServiceServer::new(Admin::new(node.clone()))
        .max_decoding_message_size(message_bytes_max);
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };

    let router = windows::of_server(Server::builder())
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIME_MAX))
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .add_service(Bounded::new(key_value, REQUESTS_IN_FLIGHT_MAX, request_time_max))
        .add_service(
            Bounded::new(admin, ADMIN_REQUESTS_IN_FLIGHT_MAX, request_time_max)
                .unless(admin::IMPORT_PATH),
        )
        .add_service(replication)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);

    let cut = CancellationToken::new();
    let entrance = Entrance::new(
        listener,
        EntranceConfig {
            connections_max: CONNECTIONS_MAX,
            time_max: HANDSHAKE_TIME_MAX,
            proven_bytes: Some(HTTP2_PREFACE_BYTES),
        },
        cut.clone(),
    );
    let connections = stream::unfold(entrance, |mut entrance| async {
        let (connection, _) = entrance.accept().await;
        Some((Ok::<_, std::io::Error>(connection), entrance))
    });

    let services = service_names::<R>();
    report(&reporter, &services, ServingStatus::Serving).await;
    if node.catching_up().is_some() {
        report(&reporter, of_clients(&services), ServingStatus::NotServing).await;
    }
    let health = tokio::spawn(turn_health(reporter, services, node, shutdown.clone()));
    let mut serving = std::pin::pin!(
        router.serve_with_incoming_shutdown(connections, shutdown.clone().cancelled_owned())
    );
    let grace_is_over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    let served = tokio::select! {
        served = &mut serving => served,
        () = grace_is_over => {
            tracing::info!("requests are still running after the grace period: cutting them off");
            cut.cancel();
            tokio::time::timeout(CUT_TIME_MAX, serving).await.unwrap_or(Ok(()))
        }
    };
    health.abort();
    Ok(served?)
}

fn service_names<R: ReplicationService>() -> [&'static str; 4] {
    [
        // The server as a whole.
        "",
        <KeyValueServiceServer<KeyValue> as NamedService>::NAME,
        <AdminServiceServer<Admin> as NamedService>::NAME,
        <ReplicationServiceServer<R> as NamedService>::NAME,
    ]
}

async fn report(reporter: &HealthReporter, services: &[&str], status: ServingStatus) {
    for service in services {
        reporter.set_service_status(service, status).await;
    }
}

/// Those that a site is ready for only once it has caught up.
fn of_clients<'s>(services: &'s [&'static str; 4]) -> &'s [&'static str] {
    &services[..2]
}

/// Says that clients are served once a new site has caught up, and that nothing is served any more
/// once the node stops or the shutdown begins.
async fn turn_health(
    mut reporter: HealthReporter,
    services: [&'static str; 4],
    node: Node,
    shutdown: CancellationToken,
) {
    let ends = async {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = node.stopped() => {}
        }
    };
    let serves = async {
        node.caught_up().await;
        report(&reporter, of_clients(&services), ServingStatus::Serving).await;
        std::future::pending().await
    };
    tokio::select! {
        biased;
        () = ends => {}
        () = serves => {}
    }
    report(&reporter, &services, ServingStatus::NotServing).await;
    shutdown.cancelled().await;
    // Who watches has heard it; without a reporter the watch ends, and does not hold up the rest.
    for service in services {
        reporter.clear_service_status(service).await;
    }
}
