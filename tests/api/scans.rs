//! Scans: order, ranges, one snapshot, and clients that are slow or gone.

use std::time::Duration;

use bytes::Bytes;
use lastword::wire::proto;
use proto::mutation::Mutation;
use tonic::{Code, Status, Streaming};

use crate::served::{START_MS, Served, delete, put, refused, ttl_ms, until};

fn scan() -> proto::ScanRequest {
    proto::ScanRequest { table: "t".into(), ..<_>::default() }
}

async fn rows(mut stream: Streaming<proto::ScanResponse>) -> Result<Vec<proto::Row>, Status> {
    let mut rows = Vec::new();
    let mut messages = 0;
    while let Some(message) = stream.message().await? {
        assert!(!message.session.is_empty());
        messages += 1;
        rows.extend(message.rows);
    }
    assert!(messages > 0, "a scan of nothing gives a session, too");
    Ok(rows)
}

impl Served {
    async fn scanned(&self, request: proto::ScanRequest) -> Vec<proto::Row> {
        let stream = self.client.clone().scan(request).await.unwrap().into_inner();
        rows(stream).await.unwrap()
    }

    async fn keys(&self, request: proto::ScanRequest) -> Vec<Bytes> {
        self.scanned(request).await.into_iter().map(|row| row.key).collect()
    }

    /// Whether a scan is let in; if so, it is read to its end.
    async fn finds_a_place(&self) -> bool {
        let first = proto::ScanRequest { limit: 1, ..scan() };
        match self.client.clone().scan(first).await {
            Ok(stream) => rows(stream.into_inner()).await.is_ok(),
            Err(_) => false,
        }
    }

    /// So many rows of 1 KiB each, with this value.
    async fn fill(&self, count: usize, value: u8) {
        for first in (0..count).step_by(1_000) {
            let batch = (first..count.min(first + 1_000))
                .map(|n| Mutation::Put(put("t", format!("{n:08}"), vec![value; 1_000])));
            self.batch(batch).await.unwrap();
        }
    }
}

const KEYS: [&[u8]; 7] = [b"a", b"b", b"b\x00", b"b\xff", b"b\xff\xff", b"c", b"\xff\xff"];

async fn with_keys() -> Served {
    let served = Served::new().await;
    for key in KEYS.iter().rev() {
        served.put("t", *key, *key).await;
    }
    // Neighbours, which no scan of the table shows.
    served.put("s", "z", "").await;
    served.put("u", "a", "").await;
    served
}

#[tokio::test]
async fn rows_come_in_key_order() {
    let served = with_keys().await;
    assert_eq!(served.keys(scan()).await, KEYS);
    let reverse = served.keys(proto::ScanRequest { reverse: true, ..scan() }).await;
    assert!(reverse.iter().rev().eq(KEYS));
    assert_eq!(served.keys(proto::ScanRequest { limit: 2, ..scan() }).await, KEYS[..2]);
    let last = served.keys(proto::ScanRequest { limit: 2, reverse: true, ..scan() }).await;
    assert_eq!(last, [KEYS[6], KEYS[5]]);
    assert_eq!(served.keys(proto::ScanRequest { limit: 100, ..scan() }).await, KEYS);
    for row in served.scanned(scan()).await {
        assert_eq!((row.key == row.value, row.site.as_str()), (true, "fra"));
        assert!(row.version.is_some());
    }
    for row in served.scanned(proto::ScanRequest { keys_only: true, ..scan() }).await {
        assert!(row.value.is_empty() && row.version.is_some());
    }
    let unknown = proto::ScanRequest { table: "unknown".into(), ..scan() };
    assert!(served.keys(unknown).await.is_empty());
}

#[tokio::test]
async fn a_range_is_a_prefix_or_has_bounds() {
    let served = with_keys().await;
    let prefix = async |prefix: &'static [u8], reverse| {
        served.keys(proto::ScanRequest { prefix: prefix.into(), reverse, ..scan() }).await
    };
    assert_eq!(prefix(b"b", false).await, KEYS[1..5]);
    assert_eq!(prefix(b"b\xff", false).await, KEYS[3..5]);
    assert_eq!(prefix(b"b\xff", true).await, [KEYS[4], KEYS[3]]);
    assert_eq!(prefix(b"\xff", false).await, KEYS[6..]);
    assert_eq!(prefix(b"\xff\xff\xff", false).await, KEYS[..0]);
    let range = async |start: &'static [u8], end: &'static [u8]| {
        let (start, end) = (start.into(), end.into());
        served.keys(proto::ScanRequest { start, end, ..scan() }).await
    };
    assert_eq!(range(b"b", b"c").await, KEYS[1..5]);
    assert_eq!(range(b"b", b"").await, KEYS[1..]);
    assert_eq!(range(b"", b"b").await, KEYS[..1]);
    assert_eq!(range(b"b\x00", b"b\xff\xff").await, KEYS[2..4]);
    assert_eq!(range(b"c", b"b").await, KEYS[..0]);
}

#[tokio::test]
async fn dead_rows_are_left_out_and_do_not_count() {
    let served = Served::new().await;
    served.fill(3_000, 1).await;
    let gone = (0..3_000).filter(|n| n % 1_000 != 7);
    let deletes: Vec<_> = gone.map(|n| Mutation::Delete(delete("t", format!("{n:08}")))).collect();
    for deletes in deletes.chunks(1_000) {
        served.batch(deletes.to_vec()).await.unwrap();
    }
    let short = proto::PutRequest { ttl: ttl_ms(5), ..put("t", "short", "v") };
    served.client.clone().put(short).await.unwrap();
    assert_eq!(served.keys(scan()).await, ["00000007", "00001007", "00002007", "short"]);
    served.clock.set(START_MS + 5);
    assert_eq!(served.keys(scan()).await, ["00000007", "00001007", "00002007"]);
    let limited = proto::ScanRequest { limit: 2, ..scan() };
    assert_eq!(served.keys(limited).await, ["00000007", "00001007"]);
}

#[tokio::test]
async fn a_scan_reads_one_snapshot_while_writes_go_on() {
    const ROWS: usize = 4_000;
    let served = Served::new().await;
    served.fill(ROWS, b'1').await;
    let mut stream = served.narrow_client().scan(scan()).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.rows.len() < ROWS / 4, "a page has about 256 KiB");
    let session = first.session.clone();

    served.fill(ROWS + 1_000, b'2').await;
    let deletes = (0..500).map(|n| Mutation::Delete(delete("t", format!("{:08}", 2 * n + 3_000))));
    served.batch(deletes).await.unwrap();

    let mut rows = first.rows;
    while let Some(message) = stream.message().await.unwrap() {
        assert_eq!(message.session, session);
        rows.extend(message.rows);
    }
    assert_eq!(rows.len(), ROWS);
    assert!(rows.is_sorted_by(|a, b| a.key < b.key));
    assert!(rows.iter().all(|row| row.value.iter().all(|&byte| byte == b'1')));

    // The next scan sees all of it, and so does a client that carries the session on.
    let later = served.scanned(proto::ScanRequest { session, ..scan() }).await;
    assert_eq!(later.len(), ROWS + 1_000 - 500);
    assert!(later.iter().all(|row| row.value.iter().all(|&byte| byte == b'2')));
}

#[tokio::test]
async fn so_many_scans_at_once_and_no_more() {
    let served = Served::with(|settings| settings.api.scans_max = 1).await;
    served.fill(4_000, 1).await;
    let mut client = served.narrow_client();
    let mut stream = client.scan(scan()).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let message = "scan: 1 scans run now, as many as may";
    refused(served.client.clone().scan(scan()).await, Code::ResourceExhausted, message);
    // A client that has gone gives its place back.
    drop(stream);
    until("the place", async || served.finds_a_place().await).await;
}

#[tokio::test]
async fn a_client_that_takes_no_rows_is_told_where_to_go_on() {
    let served = Served::with(|settings| {
        settings.api.scans_max = 1;
        settings.api.scan_stall_max = Duration::from_millis(100);
    })
    .await;
    served.fill(4_000, 1).await;
    let mut client = served.narrow_client();
    let mut stream = client.scan(scan()).await.unwrap().into_inner();
    let mut got = stream.message().await.unwrap().unwrap().rows;
    // Its snapshot is let go, and with it the place.
    until("the place", async || served.finds_a_place().await).await;
    let ended = loop {
        match stream.message().await {
            Ok(Some(message)) => got.extend(message.rows),
            Ok(None) => panic!("it ended as if it were whole"),
            Err(status) => break status,
        }
    };
    refused(Err::<(), _>(ended), Code::Aborted, "scan: no rows were taken for 0.1 s");
    assert!(got.len() < 4_000);

    let mut start = got.last().unwrap().key.to_vec();
    start.push(0);
    let rest = served.scanned(proto::ScanRequest { start: start.into(), ..scan() }).await;
    got.extend(rest);
    assert_eq!(got.len(), 4_000);
    assert!(got.is_sorted_by(|a, b| a.key < b.key));
}

#[tokio::test]
async fn a_scan_does_not_keep_its_snapshot_for_ever() {
    let served = Served::with(|settings| settings.api.scan_age_max = Duration::ZERO).await;
    served.fill(1, 1).await;
    let stream = served.client.clone().scan(scan()).await.unwrap().into_inner();
    refused(rows(stream).await, Code::Aborted, "scan: it took longer than 0 s");
}
