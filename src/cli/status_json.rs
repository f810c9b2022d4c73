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
    origin: &'a str,
    software_version: &'a str,
    started_at: Option<String>,
    rows: u64,
    store_bytes: u64,
    heads: Vec<Head<'a>>,
    conflicts_recorded: u64,
    rows_merged: u64,
    rows_held_back: u64,
    rows_written: u64,
    commits: u64,
    writes_refused_reason: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Head<'a> {
    origin: &'a str,
    site: Option<&'a str>,
    /// A string: JSON's readers lose the low bits of so large a number.
    hlc: String,
    age_seconds: f64,
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
    last_error: Option<&'a str>,
    last_error_at: Option<String>,
    connects: u64,
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
        origin: &node.origin,
        software_version: &node.software_version,
        started_at: node.start_time.as_ref().map(time_text),
        rows: node.rows,
        store_bytes: node.store_bytes,
        heads: node
            .heads
            .iter()
            .map(|h| Head {
                origin: &h.origin,
                site: known(&h.site),
                hlc: h.hlc.to_string(),
                age_seconds: h.age_seconds,
            })
            .collect(),
        conflicts_recorded: node.conflicts_recorded,
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
        last_error: known(&mirror.last_error),
        last_error_at: mirror.last_error_time.as_ref().map(time_text),
        connects: mirror.connects,
    }
}

fn known(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
