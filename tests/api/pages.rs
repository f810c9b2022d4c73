//! The HTTP server: is it alive, is it ready, how is it.

use std::net::SocketAddr;

use lastword::{node::PeerReport, status};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};

use crate::served::{PATIENCE, START_MS, Served, until};

struct Pages {
    served: Served,
    address: SocketAddr,
    serving: JoinHandle<Result<(), status::ServeError>>,
}

impl Pages {
    async fn new() -> Pages {
        let served = Served::new().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = served.shutdown.clone();
        let serving = tokio::spawn(status::serve(served.node.clone(), listener, shutdown));
        Pages { served, address, serving }
    }

    /// The whole answer, headers and all: each connection serves one request.
    async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

#[tokio::test]
async fn alive_and_ready_or_why_not() {
    let pages = Pages::new().await;
    for path in ["/healthz", "/readyz"] {
        let answer = pages.get(path).await;
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"),
            "{answer}"
        );
    }
    // A clock that was set back: alive, but writes are refused.
    pages.served.clock.set(START_MS - 3_600_000);
    assert!(pages.get("/healthz").await.starts_with("HTTP/1.1 200 "));
    let answer = pages.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\n\r\nwrites are refused: this node's stamps lead"), "{answer}");
    pages.served.clock.set(START_MS);
    assert!(pages.get("/readyz").await.starts_with("HTTP/1.1 200 "));

    pages.served.node.shutdown().await;
    for path in ["/healthz", "/readyz"] {
        let answer = pages.get(path).await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("the node has stopped\n"), "{answer}");
    }
}

#[tokio::test]
async fn the_page_shows_the_node_and_may_do_nothing() {
    let pages = Pages::new().await;
    let _peer = pages
        .served
        .node
        .reports()
        .add_peer(PeerReport { site: "<script>nyc".into(), ..PeerReport::default() });
    let answer = pages.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (headers, page) = answer.split_once("\r\n\r\n").unwrap();
    let headers = headers.to_lowercase();
    for header in ["content-security-policy: default-src 'none'", "content-type: text/html"] {
        assert!(headers.contains(header), "{header} in {headers}");
    }
    assert!(page.contains("<h1>fra</h1>") && page.contains("&lt;script&gt;nyc"), "{page}");
    assert!(!page.contains("<script"), "{page}");
}

#[tokio::test]
async fn the_metrics_follow_the_node() {
    let pages = Pages::new().await;
    let answer = pages.get("/metrics").await;
    assert!(answer.to_lowercase().contains("content-type: application/openmetrics-text"));
    assert!(answer.contains("\nlastword_rows 1\n"), "the member row: {answer}");
    pages.served.put("t", "k", "v").await;
    until("the numbers to follow", async || {
        let answer = pages.get("/metrics").await;
        answer.contains("\nlastword_rows 2\n")
            && answer.contains("\nlastword_rows_written_total 2\n")
    })
    .await;
    assert!(pages.get("/metrics").await.ends_with("# EOF\n"));
}

#[tokio::test]
async fn nothing_else_is_there_and_nothing_is_changed() {
    let pages = Pages::new().await;
    assert!(pages.get("/rows").await.starts_with("HTTP/1.1 404 "));
    let mut stream = TcpStream::connect(pages.address).await.unwrap();
    let request = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn who_says_nothing_does_not_hold_up_the_end() {
    let pages = Pages::new().await;
    let _silent = TcpStream::connect(pages.address).await.unwrap();
    assert!(pages.get("/healthz").await.starts_with("HTTP/1.1 200 "));
    pages.served.shutdown.cancel();
    timeout(PATIENCE, pages.serving).await.unwrap().unwrap().unwrap();
}
