//! Links whose rows are compressed, one way or both, and peers that cannot take it or abuse it.

use std::time::Duration;

use lastword::{
    node::PeerReport,
    protocol::{Compression, SLOW_ROUND_TRIP},
    wire::{
        delta::{Beginning, Delta, Rest},
        proto::frame::Kind,
    },
};

use super::{Setting, Site, listener, put, raw_peer::RawPeer, site, until};

const ROWS: usize = 2_000;

fn setting(compression: Compression) -> Setting {
    Setting { compression, compression_accepted: compression, ..Setting::default() }
}

/// Like what applications store.
fn json(n: usize) -> String {
    format!(
        r#"{{"user":"user{n:05}","city":"Frankfurt am Main","visits":{},"theme":"dark"}}"#,
        n * 37
    )
}

async fn fill(site: &Site, prefix: &str) {
    for from in (0..ROWS).step_by(100) {
        let rows = (from..from + 100).map(|n| put(&format!("{prefix}{n:05}"), &json(n)));
        site.node.write(rows.collect()).await.unwrap();
    }
}

/// What each says of the other, once all rows are at both.
async fn exchange_rows(a: &Site, b: &Site) -> (PeerReport, PeerReport) {
    fill(a, "a").await;
    fill(b, "b").await;
    until("all rows", || a.rows().len() == 2 * ROWS && b.rows().len() == 2 * ROWS).await;
    assert_eq!(a.rows(), b.rows());
    // What was sent last is counted after it was sent.
    let report = |site: &Site| site.peers().remove(0);
    until("equal counts", || {
        let (of_a, of_b) = (report(a), report(b));
        of_a.wire_bytes_sent == of_b.wire_bytes_received
            && of_b.wire_bytes_sent == of_a.wire_bytes_received
    })
    .await;
    (report(a), report(b))
}

/// `a` dials `b`.
async fn pair(a: Compression, b: Compression) -> (Site, Site) {
    let (la, lb) = (listener().await, listener().await);
    let b_at = lb.local_addr().unwrap();
    let a = site("fra", la, &[b_at], setting(a)).await;
    let b = site("nyc", lb, &[], setting(b)).await;
    until("the link", || a.links() == 1 && b.links() == 1).await;
    (a, b)
}

fn assert_compressed(report: &PeerReport) {
    assert!(report.compressing, "{report:?}");
    assert!(report.wire_bytes_sent * 2 < report.bytes_sent, "{report:?}");
}

fn assert_plain(report: &PeerReport) {
    assert!(!report.compressing, "{report:?}");
    // The rows' own bytes, and the keys and lengths of their fields.
    let overhead = report.wire_bytes_sent - report.bytes_sent;
    assert!((report.rows_sent * 6..=report.rows_sent * 20).contains(&overhead), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_travel_compressed_both_ways() {
    let (a, b) = pair(Compression::On, Compression::On).await;
    let (of_a, of_b) = exchange_rows(&a, &b).await;
    assert_compressed(&of_a);
    assert_compressed(&of_b);
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_direction_is_its_senders_choice() {
    for (dialler, acceptor) in
        [(Compression::On, Compression::Off), (Compression::Off, Compression::On)]
    {
        let (a, b) = pair(dialler, acceptor).await;
        let (of_a, of_b) = exchange_rows(&a, &b).await;
        for (compression, report) in [(dialler, of_a), (acceptor, of_b)] {
            match compression {
                Compression::On => assert_compressed(&report),
                _ => assert_plain(&report),
            }
        }
        a.stop().await;
        b.stop().await;
    }
}

/// Both dial each other, and one of the two streams goes on: it may be the one that the peer dialled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_for_a_peer_holds_whoever_dialled() {
    let (la, lb) = (listener().await, listener().await);
    let (a_at, b_at) = (la.local_addr().unwrap(), lb.local_addr().unwrap());
    let setting = || Setting {
        compression: Compression::On,
        compression_accepted: Compression::Off,
        ..Setting::default()
    };
    let a = site("fra", la, &[b_at], setting()).await;
    let b = site("nyc", lb, &[a_at], setting()).await;
    let mut number = 0;
    let deadline = tokio::time::Instant::now() + super::LIMIT;
    // Asked for each frame: rows until both have reached each other.
    while ![&a, &b].iter().all(|site| site.peers().iter().any(|peer| peer.compressing)) {
        assert!(tokio::time::Instant::now() < deadline, "{:?} {:?}", a.peers(), b.peers());
        number += 1;
        a.put("a", &number.to_string()).await;
        b.put("b", &number.to_string()).await;
    }
    a.stop().await;
    b.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_itself_a_node_compresses_over_a_slow_line_alone() {
    let (a, b) = pair(Compression::Auto, Compression::Auto).await;
    // Loopback is fast: on a busy machine too a heartbeat shows it in the end.
    let is_near = |site: &Site| {
        site.peers()[0].round_trip.is_some_and(|round_trip| round_trip < SLOW_ROUND_TRIP)
    };
    until("the peers' being near", || is_near(&a) && is_near(&b)).await;
    let (of_a, of_b) = exchange_rows(&a, &b).await;
    assert_plain(&of_a);
    assert_plain(&of_b);
    // A peer that takes its time with its answer.
    let mut slow = RawPeer::dial(a.address).await;
    slow.introduce(&["zstd"], 2 * SLOW_ROUND_TRIP).await;
    let delta = slow.next_rows().await;
    assert!(delta.rows.is_empty() && !delta.rest.rows_zstd.is_empty());
    a.stop().await;
    b.stop().await;
}

/// An older node names no capability; a newer one some that this one does not know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_name_zstd_gets_plain_rows() {
    let a = site("fra", listener().await, &[], setting(Compression::On)).await;
    fill(&a, "a").await;
    for (capabilities, compressed) in
        [(&[][..], false), (&["lz9"], false), (&["lz9", "zstd"], true)]
    {
        let mut peer = RawPeer::dial(a.address).await;
        peer.introduce(capabilities, Duration::ZERO).await;
        let delta = peer.next_rows().await;
        assert_eq!(delta.rows.is_empty(), compressed, "{capabilities:?}");
        assert_eq!(!delta.rest.rows_zstd.is_empty(), compressed, "{capabilities:?}");
    }
    a.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bomb_ends_the_link_and_both_are_told_why() {
    let a = site("fra", listener().await, &[], Setting::default()).await;
    let mut peer = RawPeer::dial(a.address).await;
    peer.introduce(&["zstd"], Duration::ZERO).await;
    let bomb = zstd::bulk::compress(&vec![0; 20 << 20], 1).unwrap();
    assert!(bomb.len() < 10_000);
    let beginning = Beginning { first: true, ..Beginning::default() };
    let rest = Rest { last: true, rows_zstd: bomb.into(), ..Rest::default() };
    peer.send(Kind::Delta(Delta { beginning, rest, ..Delta::default() })).await;
    let goodbye = loop {
        if let Kind::Goodbye(goodbye) = peer.next().await.expect("it says why") {
            break goodbye;
        }
    };
    let why = "rows_zstd: 20971520 bytes when decompressed, more than the 16777216 of a frame";
    assert!(goodbye.message.contains(why), "{goodbye:?}");
    until("the error in its status", || {
        let error = a.peers().remove(0).last_error;
        error.is_some_and(|error| error.message.contains(why))
    })
    .await;
    until("the link to be gone", || a.links() == 0).await;
    assert!(a.rows().is_empty());
    // Others are served.
    a.put("k", "v").await;
    drop(peer);
    a.stop().await;
}
