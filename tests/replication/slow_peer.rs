//! A peer that takes nothing: it costs itself time, and nobody else.

use std::time::Duration;

use lastword::protocol::Compression;
use tokio::time::{Instant, timeout};

use super::{Setting, Site, common::proxy::Proxy, listener, put, raw_peer::RawPeer, site, until};

const ROWS_A_WRITE: usize = 20;
const VALUE_BYTES: usize = 10_000;

/// What may be on the way to a peer that takes nothing: HTTP/2's window for a stream (2 MiB at who
/// dials) and its send buffer, the frames that wait to be sent and the one behind them, of 256 KiB and a
/// row each.
const ON_THE_WAY_BYTES_MAX: u64 = 4 << 20;

/// How long writes took, and then until the good peer had them.
#[derive(Debug, Default)]
struct Times {
    writes: Vec<Duration>,
    lags: Vec<Duration>,
}

impl Times {
    async fn of(writer: &Site, peer: &Site, name: &str, writes: usize) -> Times {
        let mut times = Times::default();
        let value = "v".repeat(VALUE_BYTES);
        for n in 0..writes {
            let key = |row: usize| format!("{name}{n:05}-{row}");
            let rows = (0..ROWS_A_WRITE).map(|row| put(&key(row), &value)).collect();
            let mut bell = peer.node.bell();
            let began = Instant::now();
            let wrote = timeout(Duration::from_secs(10), writer.node.write(rows)).await;
            wrote.expect("the writer is not held up").unwrap();
            times.writes.push(began.elapsed());
            let last = key(ROWS_A_WRITE - 1);
            while peer.get(&last).is_none() {
                let news = timeout(Duration::from_secs(10), bell.changed()).await;
                news.expect("the good peer is not held up").unwrap();
            }
            times.lags.push(began.elapsed() - *times.writes.last().unwrap());
        }
        times.writes.sort();
        times.lags.sort();
        times
    }
}

fn median(times: &[Duration]) -> Duration {
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_reading_holds_up_nobody_and_catches_up_later() {
    let (la, lb, lc) = (listener().await, listener().await, listener().await);
    let a_at = la.local_addr().unwrap();
    let line = Proxy::start(a_at);
    // The link stays up although nothing passes; and what passes is not made small.
    let setting = || Setting {
        silence_max: Some(Duration::from_secs(120)),
        compression: Compression::Off,
        compression_accepted: Compression::Off,
        ..Setting::default()
    };
    let a = site("fra", la, &[], setting()).await;
    let b = site("nyc", lb, &[a_at], setting()).await;
    let c = site("sin", lc, &[line.address()], setting()).await;
    until("both links", || a.links() == 2 && b.links() == 1 && c.links() == 1).await;
    let before = Times::of(&a, &b, "before", 40).await;
    until("the slow peer's rows", || c.rows().len() == a.rows().len()).await;

    let to_slow = || a.peers().into_iter().find(|peer| peer.site == "sin").unwrap();
    line.freeze();
    let sent_before = to_slow().bytes_sent;
    let during = Times::of(&a, &b, "during", 150).await;
    let written = (150 * ROWS_A_WRITE * VALUE_BYTES) as u64;
    let sent = to_slow().bytes_sent - sent_before;
    assert!(to_slow().direction.is_some() && c.links() == 1, "the link is up");
    assert!(sent < ON_THE_WAY_BYTES_MAX, "{sent} bytes on the way, of {written} written");
    for (before, during) in [(&before.writes, &during.writes), (&before.lags, &during.lags)] {
        let (before, during) = (median(before), median(during));
        // The machine may be busier than before; a writer that waits for the peer waits for ever.
        assert!(during < 5 * before + Duration::from_millis(50), "{before:?}, then {during:?}");
    }
    assert!(c.rows().len() < a.rows().len(), "it was away");

    line.heal();
    until("the rest of the rows", || c.rows().len() == a.rows().len()).await;
    assert_eq!(a.rows(), c.rows());
    assert_eq!(a.rows(), b.rows());
    for site in [a, b, c] {
        site.stop().await;
    }
}

/// A delta that is read from the store keeps the room of all that is replaced meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_stops_reading_does_not_keep_the_room_of_what_was_replaced() {
    const ROWS: usize = 800;
    let setting = Setting {
        silence_max: Some(Duration::from_secs(120)),
        delta_age_max: Some(Duration::from_millis(100)),
        memory_bytes: Some(1 << 20),
        recent_bytes_max: Some(0),
        ..Setting::default()
    };
    let a = site("fra", listener().await, &[], setting).await;
    let fill = async |edition: &str| {
        let value = edition.repeat(VALUE_BYTES);
        for from in (0..ROWS).step_by(ROWS_A_WRITE) {
            let rows = (from..from + ROWS_A_WRITE).map(|row| put(&row.to_string(), &value));
            a.node.write(rows.collect()).await.unwrap();
        }
    };
    let file_bytes = || a.node.status().unwrap().store_bytes;
    for edition in ["a", "b", "c"] {
        fill(edition).await;
    }
    // As much as it takes where nobody reads.
    let before = file_bytes();
    let mut peer = RawPeer::dial(a.address).await;
    peer.introduce(&[], Duration::ZERO).await;
    let sent = || a.peers().iter().map(|peer| peer.bytes_sent).sum::<u64>();
    until("a delta that waits", || sent() > 1 << 20).await;
    for edition in ["d", "e", "f", "g", "h", "i", "j", "k"] {
        fill(edition).await;
    }
    let stuck = sent();
    assert!(a.links() == 1 && stuck < ON_THE_WAY_BYTES_MAX, "{stuck} bytes are on the way");
    assert!(file_bytes() < 2 * before, "{} bytes, {before} before", file_bytes());

    // It reads on: what it gets begins a delta of today.
    let mut newest = false;
    while !newest {
        let delta = peer.next_rows().await;
        newest = delta.rows.iter().any(|row| row.body.ends_with(b"kkkk"));
    }
    // The server ends with its connections, and this one is still read from.
    drop(peer);
    a.stop().await;
}
