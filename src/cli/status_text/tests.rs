//! Golden texts.

use super::*;
use crate::model::Hlc;

/// 2026-01-02T03:04:05Z, in seconds.
const NOW: i64 = 1_767_323_045;

fn time(seconds: i64) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds, nanos: 0 })
}

fn head(origin: &str, site: &str, age_ms: u64) -> proto::Head {
    proto::Head {
        origin: origin.to_owned(),
        site: site.to_owned(),
        hlc: Hlc::at_ms(NOW as u64 * 1_000 - age_ms).bits(),
        age_seconds: age_ms as f64 / 1_000.0,
        closed: false,
    }
}

fn node() -> proto::NodeStatus {
    proto::NodeStatus {
        cluster: "lastword".to_owned(),
        site: "fra".to_owned(),
        origin: "00112233-4455-6677-8899-aabbccddeeff".to_owned(),
        software_version: "0.1.0".to_owned(),
        start_time: time(NOW - 7_500),
        rows: 1_234_567,
        store_bytes: 5 << 20,
        heads: vec![
            head("00112233-4455-6677-8899-aabbccddeeff", "fra", 0),
            head("ffeeddcc-bbaa-9988-7766-554433221100", "", 800),
            proto::Head {
                origin: "99999999-9999-9999-9999-999999999999".to_owned(),
                site: "gone".to_owned(),
                closed: true,
                ..proto::Head::default()
            },
        ],
        role: "site".to_owned(),
        catching_up: None,
        heads_text: "h1.AAEC".to_owned(),
        conflicts_recorded: 3,
        conflicts_kept: 2,
        conflicts_kept_bytes: 2_048,
        conflicts_oldest_age_seconds: Some(7_200.0),
        rows_merged: 88_000,
        rows_held_back: 1,
        rows_written: 45_000,
        commits: 1_200,
        writes_refused_reason: String::new(),
        time: time(NOW),
    }
}

#[test]
fn a_whole_status() {
    let status = proto::StatusResponse {
        cluster: None,
        node: Some(node()),
        peers: vec![
            proto::PeerStatus {
                address: "http://127.0.0.1:7410".to_owned(),
                site: "nyc".to_owned(),
                origin: "ffeeddcc-bbaa-9988-7766-554433221100".to_owned(),
                connected: true,
                receiving: true,
                applying: true,
                behind_seconds: Some(0.8),
                behind_rows: 120,
                behind_bytes: 65_536,
                rows_received: 88_000,
                rows_sent: 45_000,
                bytes_received: 12 << 20,
                bytes_sent: 6 << 20,
                compressing: true,
                wire_bytes_received: 4 << 20,
                wire_bytes_sent: 2 << 20,
                round_trip_seconds: Some(0.0802),
                connects: 3,
                last_error: "the connection\nbroke".to_owned(),
                last_error_time: time(NOW - 123),
                direction: "dialled".to_owned(),
                clock_offset_ms: Some(-12),
                ..Default::default()
            },
            proto::PeerStatus {
                address: "http://lon.example:7400".to_owned(),
                last_error: "connection refused".to_owned(),
                last_error_time: time(NOW - 2),
                peer_behind_rows: 45_000,
                peer_behind_bytes: 6 << 20,
                ..Default::default()
            },
        ],
        mirror: Some(proto::MirrorStatus {
            target: "127.0.0.1:3306/shop".to_owned(),
            connected: true,
            applying: true,
            behind_seconds: 0.0,
            rows_applied: 133_000,
            rows_rejected: 1,
            last_rejected_reason: "Data too long for column 'v'".to_owned(),
            connects: 1,
            rescan_table: "sessions".to_owned(),
            rescan_rows: 20_000,
            ..Default::default()
        }),
    };
    let expected = "\
Node fra of cluster lastword
              Role: site
            Origin: 00112233-4455-6677-8899-aabbccddeeff
           Version: 0.1.0
           Started: 2026-01-02T00:59:05.000Z, 2 h 5 min ago
              Rows: 1,234,567 in 5.0 MiB
      Takes writes: Yes
           Written: 45,000 rows in 1,200 commits
            Merged: 88,000 rows
         Held back: 1 row
         Conflicts: 3 recorded, 2 kept in 2.0 KiB, the oldest 2 h 0 min ago

Peer nyc at http://127.0.0.1:7410
         Connected: Yes, dialled
         Receiving: Yes
          Applying: Yes
     We are behind: 0.8 s, 120 rows, 64.0 KiB
    Peer is behind: 0 rows, 0 B
          Received: 88,000 rows, 12.0 MiB
              Sent: 45,000 rows, 6.0 MiB
        Compressed: Yes; on the wire 4.0 MiB received, 2.0 MiB sent
        Round trip: 80.2 ms
          Connects: 3
         Its clock: -12 ms from ours
        Last error: 2 min 3 s ago: the connection broke

Peer http://lon.example:7400, not met yet
         Connected: No
         Receiving: No
          Applying: No
     We are behind: unknown time, 0 rows, 0 B
    Peer is behind: 45,000 rows, 6.0 MiB
          Received: 0 rows, 0 B
              Sent: 0 rows, 0 B
        Compressed: No; on the wire 0 B received, 0 B sent
          Connects: 0
        Last error: 2.0 s ago: connection refused

Mirror 127.0.0.1:3306/shop
         Connected: Yes
          Applying: Yes
            Behind: 0.0 s, 0 rows, 0 B
        Rescanning: table sessions, 20,000 rows so far
           Applied: 133,000 rows
          Rejected: 1 row, the last: Data too long for column 'v'
          Connects: 1
        Last error: none

Heads: up to where each site's writes are here
  SITE           AGE  HLC                   ORIGIN
  fra          0.0 s  115823283077120000    00112233-4455-6677-8899-aabbccddeeff
  ?            0.8 s  115823283024691200    ffeeddcc-bbaa-9988-7766-554433221100
  gone        closed                        99999999-9999-9999-9999-999999999999
  For export --since: h1.AAEC
";
    assert_eq!(of(&status).unwrap(), expected);
}

#[test]
fn a_fresh_node_that_refuses_writes_and_has_nothing_yet() {
    let status = proto::StatusResponse {
        node: Some(proto::NodeStatus {
            heads: Vec::new(),
            time: None,
            writes_refused_reason: "the clock stands 1 h behind: set it".to_owned(),
            catching_up: Some(proto::CatchingUp {
                reason: "catching up: no peer is connected".to_owned(),
                ..Default::default()
            }),
            ..node()
        }),
        ..Default::default()
    };
    let text = of(&status).unwrap();
    // An older node does not tell its time, so times stand as they are.
    assert!(text.contains("           Started: 2026-01-02T00:59:05.000Z\n"), "{text}");
    assert!(
        text.contains("      Takes writes: No: the clock stands 1 h behind: set it\n"),
        "{text}"
    );
    assert!(text.contains("             Ready: No: catching up: no peer is conn"), "{text}");
    assert!(text.contains("\nMirror: none\n"), "{text}");
}

#[test]
fn a_peer_that_dials_us_is_said_to() {
    let status = proto::StatusResponse {
        cluster: None,
        node: Some(node()),
        peers: vec![proto::PeerStatus { site: "nyc".to_owned(), ..Default::default() }],
        mirror: None,
    };
    assert!(of(&status).unwrap().contains("\nPeer nyc, which dials us\n"));
}

#[test]
fn an_answer_without_a_node_is_refused() {
    of(&proto::StatusResponse::default()).unwrap_err();
}

#[test]
fn numbers_sizes_and_spans() {
    assert_eq!(["0", "999", "1,000", "1,234,567"], [0, 999, 1_000, 1_234_567].map(grouped));
    assert_eq!(
        ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "16777216.0 TiB"],
        [0, 1_023, 1_024, 1_536, (1 << 20) - 1, u64::MAX].map(size)
    );
    let spans = [0.0, 0.04, -0.04, -2.5, 9.94, 9.96, 59.4, 59.7, 3_599.9, 86_399.0, 90_000.0];
    assert_eq!(
        [
            "0.0 s",
            "0.0 s",
            "0.0 s",
            "-2.5 s",
            "9.9 s",
            "10 s",
            "59 s",
            "1 min 0 s",
            "1 h 0 min",
            "23 h 59 min",
            "1 d 1 h"
        ],
        spans.map(span)
    );
}
