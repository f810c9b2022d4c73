//! The state of a node in numbers, as Prometheus reads them.
//!
//! The numbers are those of [`NodeStatus`], set anew for each reader: nothing is counted here.
//! Every name begins with `lastword_` and ends with its unit.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};

use crate::node::{MirrorStatus, NodeStatus, PeerStatus};

/// What [`Metrics::text`] gives.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// A number of things now.
type Count = Gauge<u64, AtomicU64>;
/// A time in seconds, or a yes (1) or no (0).
type Real = Gauge<f64, AtomicU64>;

/// Whose head it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HeadLabels {
    site: String,
    origin: String,
}

/// Which peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabels {
    site: String,
    address: String,
}

/// All numbers of a node.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Rows held, tombstones and expired rows included.
    rows: Count,
    /// Size of the store's file.
    store_bytes: Count,
    /// Wall time of the start, since the Unix epoch.
    start_time_seconds: Real,
    /// Durable commits since the start.
    commits: Counter,
    /// Rows written by clients of this node since the start.
    rows_written: Counter,
    /// Rows merged from peers since the start.
    rows_merged: Counter,
    /// Concurrent writes of one key ever recorded here.
    conflicts_recorded: Counter,
    /// Conflicts that the journal holds now.
    conflicts_kept: Count,
    /// Their bytes.
    conflicts_kept_bytes: Count,
    /// Age of the oldest of them; 0: there is none.
    conflicts_oldest_age_seconds: Real,
    /// Rows held back now because their stamps are too far ahead.
    rows_held_back: Count,
    /// 1 while a new site has not caught up once.
    catching_up: Count,
    /// 1 while clients' writes are refused.
    writes_refused: Count,
    /// Wall time less the head of each origin: how old this node's view of that site is.
    head_age_seconds: Family<HeadLabels, Real>,
    peers: PeerMetrics,
    mirror: MirrorMetrics,
}

/// The numbers of the links, by peer.
#[derive(Debug, Default)]
struct PeerMetrics {
    /// 1 while the link is up.
    connected: Family<PeerLabels, Count>,
    /// 1 while nothing received is held back.
    applying: Family<PeerLabels, Count>,
    /// Wall time less this node's head of the peer.
    behind_seconds: Family<PeerLabels, Real>,
    /// Rows that the peer still has to send.
    behind_rows: Family<PeerLabels, Count>,
    /// Bytes that the peer still has to send.
    behind_bytes: Family<PeerLabels, Count>,
    /// Age of the oldest row here that the peer has not acknowledged.
    unacknowledged_seconds: Family<PeerLabels, Real>,
    /// Rows here that the peer has not acknowledged.
    unacknowledged_rows: Family<PeerLabels, Count>,
    /// Bytes here that the peer has not acknowledged.
    unacknowledged_bytes: Family<PeerLabels, Count>,
    /// Rows that came in.
    rows_received: Family<PeerLabels, Counter>,
    /// Rows that went out.
    rows_sent: Family<PeerLabels, Counter>,
    /// Bytes of rows that came in.
    bytes_received: Family<PeerLabels, Counter>,
    /// Bytes of rows that went out.
    bytes_sent: Family<PeerLabels, Counter>,
    /// What the rows that came in took in frames.
    wire_bytes_received: Family<PeerLabels, Counter>,
    /// What the rows that went out took in frames.
    wire_bytes_sent: Family<PeerLabels, Counter>,
    /// 1 while what goes out is compressed.
    compressing: Family<PeerLabels, Count>,
    /// From this node's hello to the peer's answer.
    round_trip_seconds: Family<PeerLabels, Real>,
    /// How often a link came up.
    connects: Family<PeerLabels, Counter>,
    /// The peer's wall clock less this node's.
    clock_offset_seconds: Family<PeerLabels, Real>,
}

/// The numbers of the MySQL mirror; label `target`. No mirror, no numbers.
#[derive(Debug, Default)]
struct MirrorMetrics {
    /// 1 while a connection is up.
    connected: Family<TargetLabel, Count>,
    /// 1 while nothing keeps rows from being applied.
    applying: Family<TargetLabel, Count>,
    /// Age of the oldest change that is not in MySQL yet.
    lag_seconds: Family<TargetLabel, Real>,
    /// Rows that are not in MySQL yet.
    lag_rows: Family<TargetLabel, Count>,
    /// Bytes that are not in MySQL yet.
    lag_bytes: Family<TargetLabel, Count>,
    /// 1 while an operator has it paused.
    paused: Family<TargetLabel, Count>,
    /// Column tables that wait for someone to mend them.
    waiting_tables: Family<TargetLabel, Count>,
    /// Rows that stand in `_lastword_rejected`.
    rejected_rows: Family<TargetLabel, Count>,
    /// Rows written to MySQL since the start.
    rows_applied: Family<TargetLabel, Counter>,
    /// How often a connection came up.
    connects: Family<TargetLabel, Counter>,
}

/// Which database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabel {
    target: String,
}

impl Metrics {
    /// `status` in the OpenMetrics text format.
    pub(super) fn text(&mut self, status: &NodeStatus) -> String {
        self.set(status);
        let mut text = String::new();
        text::encode(&mut text, &self.registry(status)).expect("a String takes any text");
        text
    }

    fn set(&mut self, status: &NodeStatus) {
        self.rows.set(status.rows);
        self.store_bytes.set(status.store_bytes);
        self.start_time_seconds.set(seconds(status.started_ms));
        set(&self.commits, status.commits);
        set(&self.rows_written, status.rows_written);
        set(&self.rows_merged, status.rows_merged);
        set(&self.conflicts_recorded, status.conflicts.recorded);
        self.conflicts_kept.set(status.conflicts.kept);
        self.conflicts_kept_bytes.set(status.conflicts.kept_bytes);
        self.conflicts_oldest_age_seconds
            .set(status.conflicts.oldest_age_seconds.unwrap_or_default());
        self.rows_held_back.set(status.rows_held_back);
        self.catching_up.set(u64::from(status.catching_up.is_some()));
        self.writes_refused.set(u64::from(!status.writes_refused_reason.is_empty()));
        self.head_age_seconds.clear();
        for head in &status.heads {
            let Some(open) = head.head else { continue };
            let labels = HeadLabels { site: head.site.clone(), origin: head.origin.to_string() };
            self.head_age_seconds.get_or_create(&labels).set(open.age_seconds);
        }
        // What is gone must not be shown any longer.
        self.peers = PeerMetrics::default();
        status.peers.iter().for_each(|peer| self.peers.set(peer));
        self.mirror = MirrorMetrics::default();
        status.mirror.iter().for_each(|mirror| self.mirror.set(mirror));
    }

    fn registry(&self, status: &NodeStatus) -> Registry {
        let mut registry = Registry::with_prefix("lastword");
        let r = &mut registry;
        let build = Info::new([
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("cluster", status.cluster.clone()),
            ("site", status.site.clone()),
            ("role", status.role.to_string()),
            ("origin", status.origin.to_string()),
        ]);
        r.register("node", "This node", build);
        r.register("rows", "Rows held, tombstones and expired rows included", self.rows.clone());
        r.register("store_bytes", "Size of the store's file", self.store_bytes.clone());
        r.register("start_time_seconds", "Time of the start", self.start_time_seconds.clone());
        r.register("commits", "Durable commits", self.commits.clone());
        r.register("rows_written", "Rows written by clients", self.rows_written.clone());
        r.register("rows_merged", "Rows merged from peers", self.rows_merged.clone());
        r.register(
            "conflicts_recorded",
            "Concurrent writes of one key ever recorded here",
            self.conflicts_recorded.clone(),
        );
        r.register(
            "conflicts_kept",
            "Conflicts that the journal holds now",
            self.conflicts_kept.clone(),
        );
        r.register(
            "conflicts_kept_bytes",
            "Bytes of the conflicts that the journal holds now",
            self.conflicts_kept_bytes.clone(),
        );
        r.register(
            "conflicts_oldest_age_seconds",
            "Age of the oldest conflict that the journal holds",
            self.conflicts_oldest_age_seconds.clone(),
        );
        r.register(
            "rows_held_back",
            "Rows held back because their stamps are too far ahead",
            self.rows_held_back.clone(),
        );
        r.register(
            "catching_up",
            "1 while a new site has not caught up once",
            self.catching_up.clone(),
        );
        r.register("writes_refused", "1 while writes are refused", self.writes_refused.clone());
        r.register(
            "head_age_seconds",
            "Wall time less the head of each origin that is not closed",
            self.head_age_seconds.clone(),
        );
        self.peers.register(r.sub_registry_with_prefix("peer"));
        self.mirror.register(r.sub_registry_with_prefix("mirror"));
        registry
    }
}

impl PeerMetrics {
    fn set(&self, peer: &PeerStatus) {
        let labels =
            &PeerLabels { site: peer.report.site.clone(), address: peer.report.address.clone() };
        self.connected.get_or_create(labels).set(u64::from(peer.report.direction.is_some()));
        self.applying.get_or_create(labels).set(u64::from(peer.applying));
        if let Some(behind_seconds) = peer.behind_seconds {
            self.behind_seconds.get_or_create(labels).set(behind_seconds);
        }
        self.behind_rows.get_or_create(labels).set(peer.report.remaining_rows);
        self.behind_bytes.get_or_create(labels).set(peer.report.remaining_bytes);
        self.unacknowledged_seconds.get_or_create(labels).set(peer.peer_behind.seconds);
        self.unacknowledged_rows.get_or_create(labels).set(peer.peer_behind.rows);
        self.unacknowledged_bytes.get_or_create(labels).set(peer.peer_behind.bytes);
        set(&self.rows_received.get_or_create(labels), peer.report.rows_received);
        set(&self.rows_sent.get_or_create(labels), peer.report.rows_sent);
        set(&self.bytes_received.get_or_create(labels), peer.report.bytes_received);
        set(&self.bytes_sent.get_or_create(labels), peer.report.bytes_sent);
        set(&self.wire_bytes_received.get_or_create(labels), peer.report.wire_bytes_received);
        set(&self.wire_bytes_sent.get_or_create(labels), peer.report.wire_bytes_sent);
        self.compressing.get_or_create(labels).set(u64::from(peer.report.compressing));
        if let Some(round_trip) = peer.report.round_trip {
            self.round_trip_seconds.get_or_create(labels).set(round_trip.as_secs_f64());
        }
        set(&self.connects.get_or_create(labels), peer.report.connects);
        if let Some(ms) = peer.report.clock_offset_ms {
            let offset = seconds(ms.unsigned_abs());
            let signed = if ms < 0 { -offset } else { offset };
            self.clock_offset_seconds.get_or_create(labels).set(signed);
        }
    }

    fn register(&self, r: &mut Registry) {
        r.register("connected", "1 while the link is up", self.connected.clone());
        r.register("applying", "1 while nothing received is held back", self.applying.clone());
        r.register(
            "behind_seconds",
            "Wall time less this node's head of the peer",
            self.behind_seconds.clone(),
        );
        r.register("behind_rows", "Rows that the peer still has to send", self.behind_rows.clone());
        r.register(
            "behind_bytes",
            "Bytes that the peer still has to send",
            self.behind_bytes.clone(),
        );
        r.register(
            "unacknowledged_seconds",
            "Age of the oldest row that the peer has not acknowledged",
            self.unacknowledged_seconds.clone(),
        );
        r.register(
            "unacknowledged_rows",
            "Rows that the peer has not acknowledged",
            self.unacknowledged_rows.clone(),
        );
        r.register(
            "unacknowledged_bytes",
            "Bytes that the peer has not acknowledged",
            self.unacknowledged_bytes.clone(),
        );
        r.register("rows_received", "Rows that came in", self.rows_received.clone());
        r.register("rows_sent", "Rows that went out", self.rows_sent.clone());
        r.register("received_bytes", "Bytes of rows that came in", self.bytes_received.clone());
        r.register("sent_bytes", "Bytes of rows that went out", self.bytes_sent.clone());
        r.register(
            "wire_received_bytes",
            "What the rows that came in took in frames, compressed or not",
            self.wire_bytes_received.clone(),
        );
        r.register(
            "wire_sent_bytes",
            "What the rows that went out took in frames, compressed or not",
            self.wire_bytes_sent.clone(),
        );
        r.register("compressing", "1 while what goes out is compressed", self.compressing.clone());
        r.register(
            "round_trip_seconds",
            "From this node's hello to the peer's answer, when the link came up",
            self.round_trip_seconds.clone(),
        );
        r.register("connects", "How often a link came up", self.connects.clone());
        r.register(
            "clock_offset_seconds",
            "The peer's wall clock less this node's",
            self.clock_offset_seconds.clone(),
        );
    }
}

impl MirrorMetrics {
    fn set(&self, mirror: &MirrorStatus) {
        let label = &TargetLabel { target: mirror.report.target.clone() };
        self.connected.get_or_create(label).set(u64::from(mirror.report.connected));
        self.applying.get_or_create(label).set(u64::from(mirror.report.applying));
        self.lag_seconds.get_or_create(label).set(mirror.behind.seconds);
        self.lag_rows.get_or_create(label).set(mirror.behind.rows);
        self.lag_bytes.get_or_create(label).set(mirror.behind.bytes);
        let is_paused = mirror.orders.paused.is_some();
        self.paused.get_or_create(label).set(u64::from(is_paused));
        let waiting = mirror.report.waiting_tables.len();
        self.waiting_tables.get_or_create(label).set(waiting as u64);
        self.rejected_rows.get_or_create(label).set(mirror.report.rows_rejected);
        set(&self.rows_applied.get_or_create(label), mirror.report.rows_applied);
        set(&self.connects.get_or_create(label), mirror.report.connects);
    }

    fn register(&self, r: &mut Registry) {
        r.register("connected", "1 while a connection is up", self.connected.clone());
        r.register("applying", "1 while rows can be applied", self.applying.clone());
        r.register(
            "lag_seconds",
            "Age of the oldest change that is not in MySQL yet",
            self.lag_seconds.clone(),
        );
        r.register("paused", "1 while an operator has it paused", self.paused.clone());
        r.register("lag_rows", "Rows that are not in MySQL yet", self.lag_rows.clone());
        r.register("lag_bytes", "Bytes that are not in MySQL yet", self.lag_bytes.clone());
        r.register(
            "waiting_tables",
            "Column tables that wait for someone to mend them",
            self.waiting_tables.clone(),
        );
        r.register("rejected_rows", "Rows in _lastword_rejected", self.rejected_rows.clone());
        r.register("rows_applied", "Rows written to MySQL", self.rows_applied.clone());
        r.register("connects", "How often a connection came up", self.connects.clone());
    }
}

fn set(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

#[expect(clippy::cast_precision_loss, reason = "a time for monitoring")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::{super::page::tests::status, *};

    #[test]
    fn the_text_is_open_metrics() {
        let text = Metrics::default().text(&status());
        for line in [
            "# TYPE lastword_commits counter",
            "lastword_commits_total 7",
            "lastword_rows 1234",
            "lastword_conflicts_recorded_total 3",
            "lastword_conflicts_kept 2",
            "lastword_catching_up 1",
            "lastword_conflicts_oldest_age_seconds 7200.0",
            "lastword_peer_connected{site=\"nyc\",address=\"http://10.0.0.2:7400\"} 1",
            "lastword_peer_behind_seconds{site=\"nyc\",address=\"http://10.0.0.2:7400\"} 0.8",
            "lastword_peer_clock_offset_seconds{site=\"nyc\",address=\"http://10.0.0.2:7400\"} -0.012",
            "lastword_peer_wire_sent_bytes_total{site=\"nyc\",address=\"http://10.0.0.2:7400\"} 15",
            "lastword_peer_compressing{site=\"nyc\",address=\"http://10.0.0.2:7400\"} 1",
            "lastword_peer_round_trip_seconds{site=\"nyc\",address=\"http://10.0.0.2:7400\"} 0.08025",
            "lastword_mirror_lag_seconds{target=\"10.0.0.1:3306/<shop>\"} 0.0",
            "lastword_mirror_lag_rows{target=\"10.0.0.1:3306/<shop>\"} 0",
            "lastword_mirror_paused{target=\"10.0.0.1:3306/<shop>\"} 1",
            "lastword_mirror_waiting_tables{target=\"10.0.0.1:3306/<shop>\"} 1",
            "lastword_mirror_rejected_rows{target=\"10.0.0.1:3306/<shop>\"} 2",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(text.contains("lastword_head_age_seconds{site=\"fra\",origin="));
        assert!(!text.contains("site=\"gone\""), "what is closed has no age:\n{text}");
    }

    #[test]
    fn what_is_gone_is_no_longer_shown() {
        let mut metrics = Metrics::default();
        metrics.text(&status());
        let mut later = status();
        later.peers.clear();
        later.mirror = None;
        later.heads.clear();
        let text = metrics.text(&later);
        for gone in ["nyc", "<shop>", "lastword_head_age_seconds{"] {
            assert!(!text.contains(gone), "{gone} in\n{text}");
        }
    }
}
