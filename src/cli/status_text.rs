//! A node's status for people: `SHOW SLAVE STATUS`, but each line says what it means.
//!
//! Pure: ages are told by the node's own clock, so the clock of whoever asks does not matter.

use std::fmt::{Display, Write};

use crate::{client::ClientError, wire::proto};

use super::output::{one_line, time_text};

const LABEL_WIDTH: usize = 18;

/// The whole text.
pub(super) fn of(status: &proto::StatusResponse) -> Result<String, ClientError> {
    let node = status.node.as_ref().ok_or(ClientError::Incomplete("node"))?;
    let clock = NodeClock::of(node);
    let mut text = Text::default();
    write_node(&mut text, node, &clock);
    for peer in &status.peers {
        write_peer(&mut text, peer, &clock);
    }
    match &status.mirror {
        Some(mirror) => write_mirror(&mut text, mirror, &clock),
        None => text.title("Mirror: none"),
    }
    if let Some(cluster) = &status.cluster {
        write_cluster(&mut text, cluster);
    }
    write_heads(&mut text, &node.heads);
    if !node.heads_text.is_empty() {
        text.row(format_args!("For export --since: {}", one_line(&node.heads_text)));
    }
    Ok(text.0)
}

fn write_node(text: &mut Text, node: &proto::NodeStatus, clock: &NodeClock) {
    text.title(&format!("Node {} of cluster {}", node.site, node.cluster));
    if !node.role.is_empty() {
        text.line("Role", &node.role);
    }
    text.line("Origin", &node.origin);
    text.line("Version", &node.software_version);
    if let Some(start) = &node.start_time {
        text.line("Started", clock.when(start));
    }
    text.line("Rows", format!("{} in {}", grouped(node.rows), size(node.store_bytes)));
    if let Some(catching_up) = &node.catching_up {
        text.line("Ready", format!("No: {}", catching_up.reason));
    }
    text.line(
        "Takes writes",
        match node.writes_refused_reason.as_str() {
            "" => "Yes".to_owned(),
            reason => format!("No: {reason}"),
        },
    );
    text.line(
        "Written",
        format!("{} rows in {} commits", grouped(node.rows_written), grouped(node.commits)),
    );
    text.line("Merged", rows(node.rows_merged));
    text.line("Held back", rows(node.rows_held_back));
    text.line("Conflicts", conflicts(node));
}

fn conflicts(node: &proto::NodeStatus) -> String {
    let recorded = format!("{} recorded", grouped(node.conflicts_recorded));
    match node.conflicts_oldest_age_seconds {
        Some(age) => format!(
            "{recorded}, {} kept in {}, the oldest {} ago",
            grouped(node.conflicts_kept),
            size(node.conflicts_kept_bytes),
            span(age)
        ),
        None => recorded,
    }
}

/// The members themselves: `lastword member list`.
fn write_cluster(text: &mut Text, cluster: &proto::ClusterStatus) {
    text.title("Cluster");
    let is_in = |member: &&proto::MemberStatus| member.state() == proto::MemberState::Member;
    let members = cluster.members.iter().filter(is_in).count();
    let sealed = if cluster.sealed { "sealed" } else { "not sealed" };
    text.line("Members", format!("{members}, {sealed}"));
    if cluster.joining {
        let missing = match cluster.admission_missing.join(", ") {
            none if none.is_empty() => "its sponsor".to_owned(),
            missing => missing,
        };
        text.line("Being admitted", format!("waits for {missing}"));
    }
    let purged = grouped(cluster.rows_purged);
    text.line("Dead rows", format!("{} here, {purged} purged", grouped(cluster.dead_rows)));
    for waits_for in &cluster.purge_waits_for {
        text.line("They wait for", waits_for);
    }
}

fn write_peer(text: &mut Text, peer: &proto::PeerStatus, clock: &NodeClock) {
    text.title(&match (peer.site.as_str(), peer.address.as_str()) {
        ("", address) => format!("Peer {address}, not met yet"),
        (site, "") => format!("Peer {site}, which dials us"),
        (site, address) => format!("Peer {site} at {address}"),
    });
    text.line(
        "Connected",
        match peer.direction.as_str() {
            "" => yes_no(peer.connected).to_owned(),
            direction => format!("{}, {direction}", yes_no(peer.connected)),
        },
    );
    text.line("Receiving", yes_no(peer.receiving));
    text.line("Applying", yes_no(peer.applying));
    let behind = format!("{}, {}", rows(peer.behind_rows), size(peer.behind_bytes));
    text.line(
        "We are behind",
        match peer.behind_seconds {
            Some(seconds) => format!("{}, {behind}", span(seconds)),
            None => format!("unknown time, {behind}"),
        },
    );
    text.line(
        "Peer is behind",
        format!("{}, {}", rows(peer.peer_behind_rows), size(peer.peer_behind_bytes)),
    );
    text.line("Received", format!("{}, {}", rows(peer.rows_received), size(peer.bytes_received)));
    text.line("Sent", format!("{}, {}", rows(peer.rows_sent), size(peer.bytes_sent)));
    text.line(
        "Compressed",
        format!(
            "{}; on the wire {} received, {} sent",
            yes_no(peer.compressing),
            size(peer.wire_bytes_received),
            size(peer.wire_bytes_sent)
        ),
    );
    if let Some(seconds) = peer.round_trip_seconds {
        text.line("Round trip", format!("{:.1} ms", seconds * 1_000.0));
    }
    text.line("Connects", grouped(peer.connects));
    if let Some(offset_ms) = peer.clock_offset_ms {
        text.line("Its clock", format!("{offset_ms:+} ms from ours"));
    }
    text.line("Last error", clock.error(&peer.last_error, peer.last_error_time.as_ref()));
}

fn write_mirror(text: &mut Text, mirror: &proto::MirrorStatus, clock: &NodeClock) {
    text.title(&format!("Mirror {}", mirror.target));
    if let Some(since) = &mirror.paused_time {
        let since = clock.when(since);
        let by = one_line(&mirror.paused_by);
        let by = if by.is_empty() { by } else { format!(", by {by}") };
        text.line("Paused", format!("{since}{by}; lastword mirror resume"));
    }
    text.line("Connected", yes_no(mirror.connected));
    text.line("Applying", yes_no(mirror.applying));
    text.line(
        "Behind",
        format!(
            "{}, {}, {}",
            span(mirror.behind_seconds),
            rows(mirror.behind_rows),
            size(mirror.behind_bytes)
        ),
    );
    if !mirror.rescan_table.is_empty() {
        let table = one_line(&mirror.rescan_table);
        text.line("Rescanning", format!("table {table}, {} so far", rows(mirror.rescan_rows)));
    }
    if mirror.rebuild_all || !mirror.rebuild_tables.is_empty() {
        let what = match mirror.rebuild_all {
            true => "all tables".to_owned(),
            false => one_line(&mirror.rebuild_tables.join(", ")),
        };
        let at = match mirror.rebuilding_table.as_str() {
            "" => "not begun".to_owned(),
            table => format!("table {}, {} so far", one_line(table), rows(mirror.rebuilding_rows)),
        };
        text.line("Rebuilding", format!("{what}: {at}"));
    }
    for waiting in &mirror.waiting_tables {
        text.line("Waiting", one_line(&waiting.reason));
    }
    text.line("Applied", rows(mirror.rows_applied));
    text.line(
        "Rejected",
        match mirror.last_rejected_reason.as_str() {
            "" => rows(mirror.rows_rejected),
            reason => format!("{}, the last: {reason}", rows(mirror.rows_rejected)),
        },
    );
    text.line("Connects", grouped(mirror.connects));
    text.line("Last error", clock.error(&mirror.last_error, mirror.last_error_time.as_ref()));
}

fn write_heads(text: &mut Text, heads: &[proto::Head]) {
    text.title("Heads: up to where each site's writes are here");
    let site = |head: &proto::Head| match head.site.as_str() {
        "" => "?".to_owned(),
        site => one_line(site),
    };
    let width = heads.iter().map(|head| site(head).len()).chain([4]).max().unwrap_or(0);
    text.row(format_args!("{:width$}  {:>12}  {:20}  ORIGIN", "SITE", "AGE", "HLC"));
    for head in heads {
        let (age, hlc) = match head.closed {
            true => ("closed".to_owned(), String::new()),
            false => (span(head.age_seconds), head.hlc.to_string()),
        };
        let origin = one_line(&head.origin);
        text.row(format_args!("{:width$}  {age:>12}  {hlc:<20}  {origin}", site(head)));
    }
}

/// The text so far.
#[derive(Default)]
struct Text(String);

impl Text {
    fn title(&mut self, title: &str) {
        if !self.0.is_empty() {
            self.0.push('\n');
        }
        self.0.push_str(&one_line(title));
        self.0.push('\n');
    }

    /// A label, aligned by its colon, and what it says; whoever wrote that, it stays on this line.
    fn line(&mut self, label: &str, value: impl Display) {
        let value = one_line(&value.to_string());
        self.write(format_args!("{label:>LABEL_WIDTH$}: {value}\n"));
    }

    fn row(&mut self, row: impl Display) {
        self.write(format_args!("  {row}\n"));
    }

    fn write(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.0.write_fmt(arguments).expect("a String takes every text");
    }
}

/// The node's wall clock when it answered, in milliseconds since the Unix epoch, UTC.
struct NodeClock(Option<f64>);

impl NodeClock {
    fn of(node: &proto::NodeStatus) -> NodeClock {
        NodeClock(node.time.as_ref().map(ms))
    }

    /// How long ago `time` was, in seconds.
    fn age_seconds(&self, time: &prost_types::Timestamp) -> Option<f64> {
        self.0.map(|now_ms| (now_ms - ms(time)) / 1_000.0)
    }

    fn when(&self, time: &prost_types::Timestamp) -> String {
        match self.age_seconds(time) {
            Some(age) => format!("{}, {} ago", time_text(time), span(age)),
            None => time_text(time),
        }
    }

    fn error(&self, error: &str, time: Option<&prost_types::Timestamp>) -> String {
        match (error, time) {
            ("", _) => "none".to_owned(),
            (error, None) => error.to_owned(),
            (error, Some(time)) => match self.age_seconds(time) {
                Some(age) => format!("{} ago: {error}", span(age)),
                None => format!("{}: {error}", time_text(time)),
            },
        }
    }
}

fn ms(time: &prost_types::Timestamp) -> f64 {
    time.seconds as f64 * 1_000.0 + f64::from(time.nanos) / 1e6
}

fn yes_no(yes: bool) -> &'static str {
    if yes { "Yes" } else { "No" }
}

/// `1 row`, `2 rows`.
pub(super) fn rows(count: u64) -> String {
    match count {
        1 => "1 row".to_owned(),
        count => format!("{} rows", grouped(count)),
    }
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the unit that leaves it below 1024.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64 / 1_024.0;
    let mut unit = UNITS[0];
    for larger in &UNITS[1..] {
        // What would be shown as 1024.0 belongs to the next unit.
        if amount < 1_023.95 {
            break;
        }
        amount /= 1_024.0;
        unit = larger;
    }
    format!("{amount:.1} {unit}")
}

/// A length of time in its two largest units. A head of a clock that runs ahead has a negative age.
fn span(seconds: f64) -> String {
    let sign = if seconds <= -0.05 { "-" } else { "" };
    let length = seconds.abs();
    // Whole seconds first, so that 59.7 s is 1 min and not 60 s. A float beyond u64 saturates.
    let whole = length.round() as u64;
    let text = match whole {
        _ if length < 9.95 => format!("{length:.1} s"),
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests;
