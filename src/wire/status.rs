//! The state of a node, as its operator's tools get it.

use super::{proto, rows::timestamp_out};
use crate::{
    node::{
        ClusterStatus, Direction, HeadStatus, LastError, MemberStatus, MirrorOrders, MirrorStatus,
        NodeStatus, PeerStatus, WaitingTable,
    },
    protocol::Standing,
};

impl From<NodeStatus> for proto::StatusResponse {
    fn from(status: NodeStatus) -> proto::StatusResponse {
        proto::StatusResponse {
            node: Some(proto::NodeStatus {
                cluster: status.cluster,
                site: status.site,
                origin: status.origin.to_string(),
                software_version: env!("CARGO_PKG_VERSION").to_owned(),
                start_time: Some(timestamp_out(status.started_ms)),
                time: Some(timestamp_out(status.now_ms)),
                rows: status.rows,
                store_bytes: status.store_bytes,
                heads: status.heads.into_iter().map(proto::Head::from).collect(),
                catching_up: status.catching_up.map(|catching_up| proto::CatchingUp {
                    reason: catching_up.to_string(),
                    remaining_rows: catching_up.remaining_rows,
                    remaining_bytes: catching_up.remaining_bytes,
                }),
                role: status.role.to_string(),
                heads_text: status.heads_text,
                conflicts_recorded: status.conflicts.recorded,
                conflicts_kept: status.conflicts.kept,
                conflicts_kept_bytes: status.conflicts.kept_bytes,
                conflicts_oldest_age_seconds: status.conflicts.oldest_age_seconds,
                rows_merged: status.rows_merged,
                rows_held_back: status.rows_held_back,
                rows_written: status.rows_written,
                commits: status.commits,
                writes_refused_reason: status.writes_refused_reason,
            }),
            peers: status.peers.into_iter().map(proto::PeerStatus::from).collect(),
            mirror: status.mirror.map(proto::MirrorStatus::from),
            cluster: Some(status.membership.into()),
        }
    }
}

impl From<ClusterStatus> for proto::ClusterStatus {
    fn from(cluster: ClusterStatus) -> proto::ClusterStatus {
        proto::ClusterStatus {
            members: cluster.members.into_iter().map(proto::MemberStatus::from).collect(),
            sealed: cluster.sealed,
            dead_rows: cluster.dead_rows,
            rows_purged: cluster.rows_purged,
            purge_waits_for: cluster.purge_waits_for,
            joining: cluster.admission_missing.is_some(),
            admission_missing: cluster.admission_missing.unwrap_or_default(),
        }
    }
}

impl From<MemberStatus> for proto::MemberStatus {
    fn from(member: MemberStatus) -> proto::MemberStatus {
        proto::MemberStatus {
            origin: member.origin.to_string(),
            site: member.site,
            is_self: member.is_self,
            admitted: member.admitted,
            state: match member.standing {
                Standing::Unknown => proto::MemberState::Unspecified,
                Standing::Member => proto::MemberState::Member,
                Standing::Removed => proto::MemberState::Removed,
                Standing::Closed => proto::MemberState::Closed,
            } as i32,
            has_acknowledged_seal: member.has_acknowledged,
            age_seconds: member.age_seconds,
        }
    }
}

impl From<HeadStatus> for proto::Head {
    fn from(head: HeadStatus) -> proto::Head {
        proto::Head {
            origin: head.origin.to_string(),
            site: head.site,
            hlc: head.head.map_or(0, |head| head.hlc.bits()),
            age_seconds: head.head.map_or(0.0, |head| head.age_seconds),
            closed: head.head.is_none(),
        }
    }
}

impl From<PeerStatus> for proto::PeerStatus {
    fn from(peer: PeerStatus) -> proto::PeerStatus {
        let (last_error, last_error_time) = last_error_out(peer.report.last_error);
        proto::PeerStatus {
            address: peer.report.address,
            site: peer.report.site,
            origin: peer.report.origin.map_or_else(String::new, |origin| origin.to_string()),
            connected: peer.report.direction.is_some(),
            receiving: peer.report.direction.is_some(),
            applying: peer.applying,
            behind_seconds: peer.behind_seconds,
            behind_rows: peer.report.remaining_rows,
            behind_bytes: peer.report.remaining_bytes,
            peer_behind_rows: peer.peer_behind.rows,
            peer_behind_bytes: peer.peer_behind.bytes,
            rows_received: peer.report.rows_received,
            rows_sent: peer.report.rows_sent,
            bytes_received: peer.report.bytes_received,
            bytes_sent: peer.report.bytes_sent,
            connects: peer.report.connects,
            last_error,
            last_error_time,
            direction: match peer.report.direction {
                Some(Direction::Dialled) => "dialled".to_owned(),
                Some(Direction::Accepted) => "accepted".to_owned(),
                None => String::new(),
            },
            clock_offset_ms: peer.report.clock_offset_ms,
            compressing: peer.report.compressing,
            wire_bytes_received: peer.report.wire_bytes_received,
            wire_bytes_sent: peer.report.wire_bytes_sent,
            round_trip_seconds: peer.report.round_trip.map(|time| time.as_secs_f64()),
        }
    }
}

impl From<MirrorStatus> for proto::MirrorStatus {
    fn from(mirror: MirrorStatus) -> proto::MirrorStatus {
        let (last_error, last_error_time) = last_error_out(mirror.report.last_error);
        let (rescan_table, rescan_rows) = match mirror.report.rescan {
            Some(rescan) => (rescan.table.to_string(), rescan.rows),
            None => (String::new(), 0),
        };
        let (rebuilding_table, rebuilding_rows) = match mirror.report.rebuild {
            Some(rebuild) => (rebuild.table.to_string(), rebuild.rows),
            None => (String::new(), 0),
        };
        let MirrorOrders { paused, rebuild } = mirror.orders;
        proto::MirrorStatus {
            target: mirror.report.target,
            connected: mirror.report.connected,
            applying: mirror.report.applying,
            behind_seconds: mirror.behind.seconds,
            behind_rows: mirror.behind.rows,
            behind_bytes: mirror.behind.bytes,
            rows_applied: mirror.report.rows_applied,
            rows_rejected: mirror.report.rows_rejected,
            last_error,
            last_error_time,
            last_rejected_reason: mirror.report.last_rejected_reason,
            connects: mirror.report.connects,
            rescan_table,
            rescan_rows,
            paused_time: paused.as_ref().map(|pause| timestamp_out(pause.since_ms)),
            paused_by: paused.map(|pause| pause.by).unwrap_or_default(),
            rebuild_all: rebuild.as_ref().is_some_and(|order| order.tables.is_none()),
            rebuild_tables: rebuild
                .and_then(|order| order.tables)
                .map(Vec::from_iter)
                .unwrap_or_default(),
            rebuilding_table,
            rebuilding_rows,
            waiting_tables: mirror
                .report
                .waiting_tables
                .into_iter()
                .map(|WaitingTable { table, reason }| proto::WaitingTable { table, reason })
                .collect(),
        }
    }
}

fn last_error_out(error: Option<LastError>) -> (String, Option<prost_types::Timestamp>) {
    match error {
        Some(error) => (error.message, Some(timestamp_out(error.at_ms))),
        None => (String::new(), None),
    }
}
