//! A node's status as JSON: everything that it says, with the unit in each name. What is empty or
//! not known is `null`.

use serde::Serialize;

use crate::{client::ClientError, wire::proto};

use super::output::time_text;

#[derive(Debug, Serialize)]
pub(super) struct Status<'a> {
    node: Node<'a>,
    peers: Vec<Peer<'a>>,
    mirror: Option<Mirror<'a>>,
}

#[derive(Debug, Serialize)]
struct Node<'a> {
    cluster: &'a str,
    site: &'a str,
    role: Option<&'a str>,
    origin: &'a str,
    software_version: &'a str,
    started_at: Option<String>,
    catching_up: Option<CatchingUp<'a>>,
    rows: u64,
    store_bytes: u64,
    heads: Vec<Head<'a>>,
    /// For `export --since`.
    heads_text: &'a str,
    conflicts_recorded: u64,
    conflicts_kept: u64,
    conflicts_kept_bytes: u64,
    conflicts_oldest_age_seconds: Option<f64>,
    rows_merged: u64,
    rows_held_back: u64,
    rows_written: u64,
    commits: u64,
    writes_refused_reason: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct CatchingUp<'a> {
    reason: &'a str,
    remaining_rows: Option<u64>,
    remaining_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Head<'a> {
    origin: &'a str,
    site: Option<&'a str>,
    /// A string: JSON's readers lose the low bits of so large a number. `null`: it is closed.
    hlc: Option<String>,
    age_seconds: Option<f64>,
    closed: bool,
}

#[derive(Debug, Serialize)]
struct Peer<'a> {
    address: Option<&'a str>,
    site: Option<&'a str>,
    origin: Option<&'a str>,
    connected: bool,
    receiving: bool,
    applying: bool,
    behind_seconds: Option<f64>,
    behind_rows: u64,
    behind_bytes: u64,
    peer_behind_rows: u64,
    peer_behind_bytes: u64,
    rows_received: u64,
    rows_sent: u64,
    bytes_received: u64,
    bytes_sent: u64,
    connects: u64,
    last_error: Option<&'a str>,
    last_error_at: Option<String>,
    direction: Option<&'a str>,
    clock_offset_ms: Option<i64>,
    compressing: bool,
    wire_bytes_received: u64,
    wire_bytes_sent: u64,
    round_trip_seconds: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Mirror<'a> {
    target: &'a str,
    connected: bool,
    applying: bool,
    behind_seconds: f64,
    behind_rows: u64,
    behind_bytes: u64,
    rows_applied: u64,
    rows_rejected: u64,
    last_rejected_reason: Option<&'a str>,
    rescan_table: Option<&'a str>,
    rescan_rows: u64,
    paused_at: Option<String>,
    paused_by: Option<&'a str>,
    /// `null`: nothing is; an empty list: all tables.
    rebuild_tables: Option<&'a [String]>,
    rebuilding_table: Option<&'a str>,
    rebuilding_rows: u64,
    waiting_tables: Vec<WaitingTable<'a>>,
    last_error: Option<&'a str>,
    last_error_at: Option<String>,
    connects: u64,
}

#[derive(Debug, Serialize)]
struct WaitingTable<'a> {
    table: &'a str,
    reason: &'a str,
}

/// The status, to be serialized.
pub(super) fn of(status: &proto::StatusResponse) -> Result<Status<'_>, ClientError> {
    let node = status.node.as_ref().ok_or(ClientError::Incomplete("node"))?;
    Ok(Status {
        node: node_of(node),
        peers: status.peers.iter().map(peer_of).collect(),
        mirror: status.mirror.as_ref().map(mirror_of),
    })
}

fn node_of(node: &proto::NodeStatus) -> Node<'_> {
    Node {
        cluster: &node.cluster,
        site: &node.site,
        role: known(&node.role),
        origin: &node.origin,
        software_version: &node.software_version,
        started_at: node.start_time.as_ref().map(time_text),
        catching_up: node.catching_up.as_ref().map(|catching_up| CatchingUp {
            reason: &catching_up.reason,
            remaining_rows: catching_up.remaining_rows,
            remaining_bytes: catching_up.remaining_bytes,
        }),
        rows: node.rows,
        store_bytes: node.store_bytes,
        heads: node
            .heads
            .iter()
            .map(|h| Head {
                origin: &h.origin,
                site: known(&h.site),
                hlc: (!h.closed).then(|| h.hlc.to_string()),
                age_seconds: (!h.closed).then_some(h.age_seconds),
                closed: h.closed,
            })
            .collect(),
        heads_text: &node.heads_text,
        conflicts_recorded: node.conflicts_recorded,
        conflicts_kept: node.conflicts_kept,
        conflicts_kept_bytes: node.conflicts_kept_bytes,
        conflicts_oldest_age_seconds: node.conflicts_oldest_age_seconds,
        rows_merged: node.rows_merged,
        rows_held_back: node.rows_held_back,
        rows_written: node.rows_written,
        commits: node.commits,
        writes_refused_reason: known(&node.writes_refused_reason),
    }
}

fn peer_of(peer: &proto::PeerStatus) -> Peer<'_> {
    Peer {
        address: known(&peer.address),
        site: known(&peer.site),
        origin: known(&peer.origin),
        connected: peer.connected,
        receiving: peer.receiving,
        applying: peer.applying,
        behind_seconds: peer.behind_seconds,
        behind_rows: peer.behind_rows,
        behind_bytes: peer.behind_bytes,
        peer_behind_rows: peer.peer_behind_rows,
        peer_behind_bytes: peer.peer_behind_bytes,
        rows_received: peer.rows_received,
        rows_sent: peer.rows_sent,
        bytes_received: peer.bytes_received,
        bytes_sent: peer.bytes_sent,
        connects: peer.connects,
        last_error: known(&peer.last_error),
        last_error_at: peer.last_error_time.as_ref().map(time_text),
        direction: known(&peer.direction),
        clock_offset_ms: peer.clock_offset_ms,
        compressing: peer.compressing,
        wire_bytes_received: peer.wire_bytes_received,
        wire_bytes_sent: peer.wire_bytes_sent,
        round_trip_seconds: peer.round_trip_seconds,
    }
}

fn mirror_of(mirror: &proto::MirrorStatus) -> Mirror<'_> {
    Mirror {
        target: &mirror.target,
        connected: mirror.connected,
        applying: mirror.applying,
        behind_seconds: mirror.behind_seconds,
        behind_rows: mirror.behind_rows,
        behind_bytes: mirror.behind_bytes,
        rows_applied: mirror.rows_applied,
        rows_rejected: mirror.rows_rejected,
        last_rejected_reason: known(&mirror.last_rejected_reason),
        rescan_table: known(&mirror.rescan_table),
        rescan_rows: mirror.rescan_rows,
        paused_at: mirror.paused_time.as_ref().map(time_text),
        paused_by: known(&mirror.paused_by),
        rebuild_tables: Some(&mirror.rebuild_tables[..])
            .filter(|tables| mirror.rebuild_all || !tables.is_empty()),
        rebuilding_table: known(&mirror.rebuilding_table),
        rebuilding_rows: mirror.rebuilding_rows,
        waiting_tables: mirror
            .waiting_tables
            .iter()
            .map(|waiting| WaitingTable { table: &waiting.table, reason: &waiting.reason })
            .collect(),
        last_error: known(&mirror.last_error),
        last_error_at: mirror.last_error_time.as_ref().map(time_text),
        connects: mirror.connects,
    }
}

fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
