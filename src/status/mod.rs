//! The HTTP server for people and their monitoring: how this node is.
//!
//! ```text
//! /         a page                            page.rs
//! /metrics  numbers for Prometheus            metrics.rs
//! /healthz  200 while the node lives
//! /readyz   200 while it serves reads and writes, and has caught up once; else 503, and why in one line
//! ```
//!
//! It changes nothing and shows no row. The state is gathered at most once in 250 ms,
//! however many ask. Each connection serves one request, and soon.

mod metrics;
mod page;

use std::{future::IntoFuture, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderName, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use futures_util::FutureExt;
use tokio::{net::TcpListener, sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    listen::{Entrance, EntranceConfig},
    node::{Node, NodeStatus},
};
use metrics::Metrics;

/// The most connections.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may last: it serves one request.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// How long requests may go on after the shutdown began.
const GRACE: Duration = Duration::from_secs(1);
/// For so long a gathered state is shown again.
const FRESH_FOR: Duration = Duration::from_millis(250);

/// What the browser may do with the page: show it.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; \
         form-action 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (header::CONNECTION, "close"),
];

/// The server could not be run.
#[derive(Debug, thiserror::Error)]
#[error("status: {0}")]
pub struct ServeError(#[from] std::io::Error);

/// Shows `node` on `listener` until `shutdown`.
///
/// # Errors
///
/// [`ServeError`]: the server could not be run.
pub async fn serve(
    node: Node,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let watched = Watched { node, metrics: Arc::default(), latest: Arc::default() };
    let router = Router::new()
        .route("/", get(show_page))
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .layer(middleware::from_fn(add_headers))
        .with_state(watched);
    let cut = CancellationToken::new();
    let entrance = Entrance::new(
        listener,
        EntranceConfig {
            connections_max: CONNECTIONS_MAX,
            time_max: CONNECTION_TIME_MAX,
            proven_bytes: None,
        },
        cut.clone(),
    );
    let serving = axum::serve(entrance, router)
        .with_graceful_shutdown(shutdown.clone().cancelled_owned())
        .into_future();
    let grace_is_over = async {
        shutdown.cancelled().await;
        tokio::time::sleep(GRACE).await;
        cut.cancel();
    };
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        served = &mut serving => Ok(served?),
        () = grace_is_over => Ok(serving.await?),
    }
}

/// The node, and what was last gathered of it.
#[derive(Clone)]
struct Watched {
    node: Node,
    metrics: Arc<Mutex<Metrics>>,
    latest: Arc<Mutex<Option<Gathered>>>,
}

struct Gathered {
    at: Instant,
    status: Arc<NodeStatus>,
}

impl Watched {
    async fn status(&self) -> Result<Arc<NodeStatus>, Unavailable> {
        // Whoever else asks waits here, and is shown the same.
        let mut latest = self.latest.lock().await;
        if let Some(gathered) = &*latest
            && gathered.at.elapsed() < FRESH_FOR
        {
            return Ok(Arc::clone(&gathered.status));
        }
        let node = self.node.clone();
        let gathered = tokio::task::spawn_blocking(move || node.status()).await;
        let status = gathered
            .map_err(|_| Unavailable("a fault while the state was gathered".to_owned()))?
            .map_err(|error| Unavailable(error.to_string()))?;
        let status = Arc::new(status);
        *latest = Some(Gathered { at: Instant::now(), status: Arc::clone(&status) });
        Ok(status)
    }
}

/// 503, and why.
struct Unavailable(String);

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0)).into_response()
    }
}

async fn add_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, header::HeaderValue::from_static(value));
    }
    response
}

async fn show_page(State(watched): State<Watched>) -> Result<Html<String>, Unavailable> {
    let status = watched.status().await?;
    Ok(Html(page::page(&status)))
}

async fn show_metrics(State(watched): State<Watched>) -> Result<impl IntoResponse, Unavailable> {
    let status = watched.status().await?;
    let text = watched.metrics.lock().await.text(&status);
    Ok(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
}

async fn healthz(State(watched): State<Watched>) -> Result<&'static str, Unavailable> {
    lives(&watched.node)?;
    Ok("ok\n")
}

async fn readyz(State(watched): State<Watched>) -> Result<&'static str, Unavailable> {
    lives(&watched.node)?;
    if let Some(catching_up) = watched.node.catching_up() {
        return Err(Unavailable(catching_up.to_string()));
    }
    // A replica never takes writes: it is ready for what it is for.
    if watched.node.role().takes_writes()
        && let Some(reason) = watched.node.writes_refused_reason()
    {
        return Err(Unavailable(format!("writes are refused: {reason}")));
    }
    let node = watched.node.clone();
    match tokio::task::spawn_blocking(move || node.snapshot().rows().map(drop)).await {
        Ok(Ok(())) => Ok("ok\n"),
        Ok(Err(error)) => Err(Unavailable(error.to_string())),
        Err(_) => Err(Unavailable("a fault while reading".to_owned())),
    }
}

fn lives(node: &Node) -> Result<(), Unavailable> {
    if let Some(failure) = node.failure() {
        return Err(Unavailable(failure.to_owned()));
    }
    if node.stopped().now_or_never().is_some() {
        return Err(Unavailable("the node has stopped".to_owned()));
    }
    Ok(())
}
