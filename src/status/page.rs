//! The page: a node's state as HTML, for people.
//!
//! A pure function of the state, self-contained: no script, nothing loaded from elsewhere. Every
//! text from outside passes [`Text`], which escapes it.

use std::fmt::{self, Write};

use crate::node::{
    Backlog, ConflictsStatus, Direction, LastError, MirrorStatus, NodeStatus, PeerStatus,
};

/// After so long the browser asks again.
const REFRESH_SECONDS: u32 = 5;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#dfe4ea;--back:#f7f8fa;\
--card:#fff;--good:#1d7a46;--bad:#b3261e}\
@media(prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#9aa5b4;--line:#2c3540;\
--back:#12171d;--card:#1a2129;--good:#6fcf97;--bad:#ff8a80}}\
*{box-sizing:border-box}\
body{margin:0 auto;padding:2rem 1rem;max-width:64rem;background:var(--back);color:var(--ink);\
font:16px/1.5 system-ui,sans-serif}\
h1{margin:0;font-size:1.5rem}h2{margin:2rem 0 .5rem;font-size:1.1rem}\
p{margin:.25rem 0}small,.soft{color:var(--soft)}\
section{background:var(--card);border:1px solid var(--line);border-radius:.5rem;\
padding:.5rem 1rem;overflow-x:auto}\
section+section{margin-top:.75rem}\
table{border-collapse:collapse;width:100%}\
th,td{padding:.3rem 1rem .3rem 0;text-align:left;vertical-align:top;\
border-bottom:1px solid var(--line)}\
tr:last-child>*{border-bottom:0}\
th[scope=row]{width:16rem;font-weight:normal;color:var(--soft)}\
td{font-variant-numeric:tabular-nums;overflow-wrap:anywhere}\
.yes{color:var(--good)}.no{color:var(--bad);font-weight:600}\
code{font-size:.9em}";

/// The page for `status`.
pub(super) fn page(status: &NodeStatus) -> String {
    let mut html = String::with_capacity(8 << 10);
    write_page(&mut html, status).expect("a String takes any text");
    html
}

fn write_page(html: &mut String, status: &NodeStatus) -> fmt::Result {
    let (site, cluster) = (Text(&status.site), Text(&status.cluster));
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <meta http-equiv=\"refresh\" content=\"{REFRESH_SECONDS}\">\n\
         <title>{site} · lastword</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>{site}</h1><p class=\"soft\">cluster {cluster} · lastword {} · {}</p></header>\n\
         <main>\n",
        env!("CARGO_PKG_VERSION"),
        Time(status.now_ms),
    )?;
    node(html, status)?;
    html.write_str("<h2>Peers</h2>\n")?;
    if status.peers.is_empty() {
        html.write_str("<section><p class=\"soft\">This node has no peers.</p></section>\n")?;
    }
    for each in &status.peers {
        peer(html, each)?;
    }
    html.write_str("<h2>MySQL mirror</h2>\n")?;
    match &status.mirror {
        Some(status) => mirror(html, status)?,
        None => {
            html.write_str("<section><p class=\"soft\">This node has no mirror.</p></section>\n")?;
        }
    }
    heads(html, status)?;
    html.write_str("</main>\n</body>\n</html>\n")
}

fn node(html: &mut String, status: &NodeStatus) -> fmt::Result {
    html.write_str("<h2>Node</h2>\n<section><table>\n")?;
    row(html, "Role", status.role)?;
    if let Some(catching_up) = &status.catching_up {
        let reason = catching_up.to_string();
        row(html, "Ready", format_args!("{}: {}", YesNo(false), Text(&reason)))?;
    }
    if status.writes_refused_reason.is_empty() {
        row(html, "Takes writes", YesNo(true))?;
    } else {
        let reason = Text(&status.writes_refused_reason);
        row(html, "Takes writes", format_args!("{}: {reason}", YesNo(false)))?;
    }
    row(html, "Rows", Count(status.rows))?;
    row(html, "Store", Bytes(status.store_bytes))?;
    row(html, "Rows written by clients", Count(status.rows_written))?;
    row(html, "Rows merged from peers", Count(status.rows_merged))?;
    row(html, "Durable commits", Count(status.commits))?;
    conflicts(html, &status.conflicts)?;
    row(html, "Rows held back", Alarm(status.rows_held_back))?;
    row(html, "Running since", Time(status.started_ms))?;
    row(html, "Origin", format_args!("<code>{}</code>", status.origin))?;
    html.write_str("</table></section>\n")
}

fn conflicts(html: &mut String, conflicts: &ConflictsStatus) -> fmt::Result {
    row(html, "Conflicts recorded", Count(conflicts.recorded))?;
    let kept = format!("{} · {}", Count(conflicts.kept), Bytes(conflicts.kept_bytes));
    match conflicts.oldest_age_seconds {
        Some(age) => {
            row(html, "Conflicts kept", format_args!("{kept} · the oldest {} ago", Seconds(age)))
        }
        None => row(html, "Conflicts kept", "none"),
    }
}

fn peer(html: &mut String, peer: &PeerStatus) -> fmt::Result {
    let name = match (peer.report.site.as_str(), peer.report.address.as_str()) {
        ("", "") => "a peer not met yet",
        ("", address) => address,
        (site, _) => site,
    };
    writeln!(html, "<section><h3>{}</h3><table>", Text(name))?;
    if !peer.report.address.is_empty() {
        row(html, "Address", Text(&peer.report.address))?;
    }
    let connected = YesNo(peer.report.direction.is_some());
    match peer.report.direction {
        Some(Direction::Dialled) => row(html, "Receiving", format_args!("{connected}, dialled"))?,
        Some(Direction::Accepted) => row(html, "Receiving", format_args!("{connected}, accepted"))?,
        None => row(html, "Receiving", connected)?,
    }
    row(html, "Applying", YesNo(peer.applying))?;
    match peer.behind_seconds {
        Some(seconds) => row(
            html,
            "This node is behind",
            format_args!(
                "{} · {} rows · {} to come",
                Seconds(seconds),
                Count(peer.report.remaining_rows),
                Bytes(peer.report.remaining_bytes)
            ),
        )?,
        None => row(html, "This node is behind", "never met")?,
    }
    row(html, "The peer is behind", Behind(peer.peer_behind))?;
    let flow = |rows, bytes| format!("{} rows · {}", Count(rows), Bytes(bytes));
    row(html, "Received", flow(peer.report.rows_received, peer.report.bytes_received))?;
    row(html, "Sent", flow(peer.report.rows_sent, peer.report.bytes_sent))?;
    row(
        html,
        "Compressed",
        format_args!(
            "{} · on the wire {} received · {} sent",
            if peer.report.compressing { "Yes" } else { "No" },
            Bytes(peer.report.wire_bytes_received),
            Bytes(peer.report.wire_bytes_sent)
        ),
    )?;
    if let Some(round_trip) = peer.report.round_trip {
        row(html, "Round trip", format_args!("{:.1} ms", round_trip.as_secs_f64() * 1_000.0))?;
    }
    if let Some(ms) = peer.report.clock_offset_ms {
        row(html, "Its clock less ours", format_args!("{ms} ms"))?;
    }
    row(html, "Times connected", Count(peer.report.connects))?;
    last_error(html, peer.report.last_error.as_ref())?;
    html.write_str("</table></section>\n")
}

fn mirror(html: &mut String, mirror: &MirrorStatus) -> fmt::Result {
    writeln!(html, "<section><h3>{}</h3><table>", Text(&mirror.report.target))?;
    if let Some(pause) = &mirror.orders.paused {
        let by = Text(&pause.by);
        row(html, "Paused", format_args!("since {}, by {by}", Time(pause.since_ms)))?;
    }
    row(html, "Connected", YesNo(mirror.report.connected))?;
    row(html, "Applying", YesNo(mirror.report.applying))?;
    row(html, "MySQL is behind", Behind(mirror.behind))?;
    if let Some(rescan) = &mirror.report.rescan {
        let rows = Count(rescan.rows);
        row(html, "Rescanning", format_args!("table {}, {rows} rows so far", rescan.table))?;
    }
    if let Some(rebuild) = &mirror.report.rebuild {
        let rows = Count(rebuild.rows);
        row(html, "Rebuilding", format_args!("table {}, {rows} rows so far", rebuild.table))?;
    }
    if let Some(capture) = &mirror.capture {
        row(html, "Captures", YesNo(capture.connected))?;
        row(html, "Rows captured", Count(capture.rows_captured))?;
        let pending = capture.tables.iter().map(|table| table.pending).sum();
        row(html, "Waiting to be captured", Count(pending))?;
        for table in capture.tables.iter().filter(|table| !table.reason.is_empty()) {
            row(html, "Not captured", Text(&table.reason))?;
        }
    }
    for waiting in &mirror.report.waiting_tables {
        row(html, "Waiting", Text(&waiting.reason))?;
    }
    row(html, "Rows applied", Count(mirror.report.rows_applied))?;
    row(html, "Rows rejected", Alarm(mirror.report.rows_rejected))?;
    if !mirror.report.last_rejected_reason.is_empty() {
        row(html, "Last rejected", Text(&mirror.report.last_rejected_reason))?;
    }
    row(html, "Times connected", Count(mirror.report.connects))?;
    last_error(html, mirror.report.last_error.as_ref())?;
    html.write_str("</table></section>\n")
}

fn heads(html: &mut String, status: &NodeStatus) -> fmt::Result {
    html.write_str(
        "<h2>Heads</h2>\n<section><table>\n<thead><tr><th scope=\"col\">Site</th>\
         <th scope=\"col\">Age</th><th scope=\"col\">Origin</th></tr></thead>\n<tbody>\n",
    )?;
    for head in &status.heads {
        let site = if head.site.is_empty() { "not met yet" } else { &head.site };
        write!(html, "<tr><td>{}</td><td>", Text(site))?;
        match head.head {
            Some(open) => write!(html, "{}", Seconds(open.age_seconds))?,
            None => html.write_str("closed")?,
        }
        writeln!(html, "</td><td><code>{}</code></td></tr>", head.origin)?;
    }
    html.write_str("</tbody></table></section>\n")
}

/// `content` is HTML: what comes from outside is wrapped in [`Text`].
fn row(html: &mut String, name: &str, content: impl fmt::Display) -> fmt::Result {
    writeln!(html, "<tr><th scope=\"row\">{name}</th><td>{content}</td></tr>")
}

fn last_error(html: &mut String, error: Option<&LastError>) -> fmt::Result {
    match error {
        Some(LastError { message, at_ms }) => {
            row(html, "Last error", format_args!("{}: {}", Time(*at_ms), Text(message)))
        }
        None => row(html, "Last error", "none"),
    }
}

/// Text from outside, escaped.
struct Text<'a>(&'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

struct YesNo(bool);

impl fmt::Display for YesNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, word) = if self.0 { ("yes", "Yes") } else { ("no", "No") };
        write!(f, "<span class=\"{class}\">{word}</span>")
    }
}

/// `1 234 567`, in groups that no browser breaks.
struct Count(u64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                f.write_char('\u{202f}')?;
            }
            f.write_char(digit)?;
        }
        Ok(())
    }
}

/// A count that should be 0.
struct Alarm(u64);

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0"),
            n => write!(f, "<span class=\"no\">{}</span>", Count(n)),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    #[expect(clippy::cast_precision_loss, reason = "a size for people")]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut size = self.0 as f64;
        if size < 1_024.0 {
            return write!(f, "{} bytes", self.0);
        }
        let mut unit = "";
        for next in ["KiB", "MiB", "GiB", "TiB"] {
            if size < 1_024.0 {
                break;
            }
            (size, unit) = (size / 1_024.0, next);
        }
        write!(f, "{size:.1} {unit}")
    }
}

struct Seconds(f64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MINUTE: f64 = 60.0;
        const HOUR: f64 = 60.0 * MINUTE;
        const DAY: f64 = 24.0 * HOUR;
        match self.0 {
            seconds if seconds < MINUTE => write!(f, "{seconds:.1} s"),
            seconds if seconds < HOUR => write!(f, "{:.1} min", seconds / MINUTE),
            seconds if seconds < DAY => write!(f, "{:.1} h", seconds / HOUR),
            seconds => write!(f, "{:.1} days", seconds / DAY),
        }
    }
}

struct Behind(Backlog);

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Backlog { seconds, rows, bytes } = self.0;
        if rows == 0 {
            return f.write_str("nothing");
        }
        write!(f, "{} · {} rows · {}", Seconds(seconds), Count(rows), Bytes(bytes))
    }
}

/// A moment, UTC.
struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(ms) {
            Ok(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M:%S UTC")),
            Err(_) => f.write_str("after the year 9999"),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        model::{Hlc, Origin, Role, TableName},
        node::{
            CaptureReport, CaptureState, CapturedTable, CatchingUp, ClusterStatus, HeadStatus,
            MirrorOrders, MirrorPause, MirrorReport, OpenHead, PeerReport, Rescan, WaitingTable,
        },
    };

    /// A node with something of everything, some of it hostile.
    pub(in crate::status) fn status() -> NodeStatus {
        let error = LastError {
            message: "</td><script>alert(1)</script>".into(),
            at_ms: 1_760_000_000_000,
        };
        NodeStatus {
            cluster: "shop".into(),
            site: "fra".into(),
            role: Role::Replica,
            origin: Origin::from_bytes([1; 16]),
            started_ms: 1_760_000_000_000,
            now_ms: 1_760_000_060_000,
            catching_up: Some(CatchingUp {
                from: Some("<em>".into()),
                remaining_rows: Some(12),
                remaining_bytes: 34,
                held_rows: 1,
            }),
            rows: 1_234,
            store_bytes: 3 << 20,
            heads: vec![
                HeadStatus {
                    origin: Origin::from_bytes([1; 16]),
                    site: "fra".into(),
                    head: Some(OpenHead { hlc: Hlc::at_ms(1_760_000_060_000), age_seconds: 0.0 }),
                },
                HeadStatus { origin: Origin::from_bytes([9; 16]), site: "gone".into(), head: None },
            ],
            heads_text: "h1.".into(),
            conflicts: ConflictsStatus {
                recorded: 3,
                kept: 2,
                kept_bytes: 2_048,
                oldest_age_seconds: Some(7_200.0),
            },
            rows_merged: 4,
            rows_written: 5,
            commits: 7,
            rows_held_back: 0,
            writes_refused_reason: String::new(),
            membership: ClusterStatus {
                members: Vec::new(),
                sealed: true,
                dead_rows: 2,
                rows_purged: 1,
                purge_waits_for: Vec::new(),
                admission_missing: None,
            },
            peers: vec![PeerStatus {
                report: PeerReport {
                    address: "http://10.0.0.2:7400".into(),
                    site: "nyc".into(),
                    origin: Some(Origin::from_bytes([2; 16])),
                    direction: Some(Direction::Dialled),
                    rows_received: 10,
                    rows_sent: 11,
                    bytes_received: 12,
                    bytes_sent: 13,
                    wire_bytes_received: 14,
                    wire_bytes_sent: 15,
                    compressing: true,
                    round_trip: Some(Duration::from_micros(80_250)),
                    connects: 1,
                    clock_offset_ms: Some(-12),
                    last_error: Some(error.clone()),
                    ..PeerReport::default()
                },
                applying: true,
                behind_seconds: Some(0.8),
                peer_behind: Backlog { seconds: 90.0, rows: 1_234_567, bytes: 5 << 30 },
            }],
            mirror: Some(MirrorStatus {
                report: MirrorReport {
                    target: "10.0.0.1:3306/<shop>".into(),
                    connected: true,
                    applying: false,
                    rows_applied: 20,
                    rows_rejected: 2,
                    waiting_tables: vec![WaitingTable {
                        table: "film".into(),
                        reason: "table film: its <em>trigger</em> is not guarded".into(),
                    }],
                    rebuild: Some(Rescan { table: TableName::of_any("actor").unwrap(), rows: 15 }),
                    last_rejected_reason: "Data too long for column 'v' & more".into(),
                    connects: 1,
                    last_error: Some(error),
                    ..MirrorReport::default()
                },
                behind: Backlog::default(),
                orders: MirrorOrders {
                    paused: Some(MirrorPause { since_ms: 1_760_000_000_000, by: "<ann>".into() }),
                    rebuild: None,
                },
                capture: Some(CaptureReport {
                    connected: true,
                    rows_captured: 77,
                    tables: vec![CapturedTable {
                        table: TableName::of_any("inventory").unwrap(),
                        state: CaptureState::Waiting,
                        reason: "table inventory: its columns are not <those>".into(),
                        rows: 77,
                        pending: 8,
                        taken_in: 0,
                        rows_about: 0,
                    }],
                    ..CaptureReport::default()
                }),
            }),
        }
    }

    #[test]
    fn it_shows_node_peers_and_mirror() {
        let html = page(&status());
        for text in [
            "<h1>fra</h1>",
            "replica",
            "12 rows (34 bytes) to come from &lt;em&gt;; 1 held back, stamped too far ahead",
            "cluster shop",
            "3.0 MiB",
            "2 · 2.0 KiB · the oldest 2.0 h ago",
            "nyc",
            "0.8 s",
            "1.5 min · 1\u{202f}234\u{202f}567 rows · 5.0 GiB",
            "<span class=\"no\">No</span>",
            "<span class=\"no\">2</span>",
            "2025-10-09 08:53:20 UTC",
            "-12 ms",
            "Yes · on the wire 14 bytes received · 15 bytes sent",
            "80.2 ms",
            "since 2025-10-09 08:53:20 UTC, by &lt;ann&gt;",
            "its &lt;em&gt;trigger&lt;/em&gt; is not guarded",
            "table actor, 15 rows so far",
            "table inventory: its columns are not &lt;those&gt;",
        ] {
            assert!(html.contains(text), "{text} in\n{html}");
        }
    }

    #[test]
    fn whatever_comes_from_outside_is_escaped() {
        let mut status = status();
        status.site = "<b>".into();
        status.cluster = "\"&'".into();
        status.writes_refused_reason = "<i>".into();
        status.heads[0].site = "<u>".into();
        status.peers[0].report.site = "<s>".into();
        status.peers[0].report.address = "<a>".into();
        let html = page(&status);
        for tag in ["<script", "<b>", "<i>", "<u>", "<s>", "<a>", "<shop>", "<em>", "\"&'"] {
            assert!(!html.contains(tag), "{tag}");
        }
        assert!(html.contains("&lt;/td&gt;&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(html.contains("&quot;&amp;&#39;"));
    }

    #[test]
    fn a_node_alone_says_so() {
        let mut status = status();
        status.peers.clear();
        status.mirror = None;
        let html = page(&status);
        assert!(html.contains("no peers") && html.contains("no mirror"));
    }
}
