//! What a load measured.

use std::{fmt::Write as _, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{load::NodeResult, profile::Profile};

#[derive(Serialize)]
struct Report<'a> {
    workload: &'a str,
    table: &'a str,
    duration_seconds: f64,
    nodes: Vec<NodeReport<'a>>,
}

#[derive(Serialize)]
struct NodeReport<'a> {
    server: &'a str,
    operations_per_second: f64,
    failed: u64,
    last_error: Option<&'a str>,
    gets: Latencies,
    hits: u64,
    writes: Latencies,
}

#[derive(Serialize)]
struct Latencies {
    count: u64,
    p50_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

impl Latencies {
    fn of(histogram: &Histogram<u64>) -> Latencies {
        Latencies {
            count: histogram.len(),
            p50_us: histogram.value_at_quantile(0.5),
            p99_us: histogram.value_at_quantile(0.99),
            p999_us: histogram.value_at_quantile(0.999),
            max_us: histogram.max(),
        }
    }

    fn line(&self, what: &str) -> String {
        let ms = |us: u64| Duration::from_micros(us).as_secs_f64() * 1_000.0;
        format!(
            "  {what:<8}{:>10}   p50 {:>8.2} ms   p99 {:>8.2} ms   p99.9 {:>8.2} ms   max {:>8.2} ms\n",
            self.count,
            ms(self.p50_us),
            ms(self.p99_us),
            ms(self.p999_us),
            ms(self.max_us),
        )
    }
}

fn report<'a>(node: &'a NodeResult, duration: Duration) -> NodeReport<'a> {
    let (gets, writes) = (Latencies::of(&node.gets), Latencies::of(&node.writes));
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 operations")]
    let operations = (gets.count + writes.count) as f64;
    NodeReport {
        server: &node.server,
        operations_per_second: operations / duration.as_secs_f64(),
        failed: node.failed,
        last_error: node.last_error.as_deref(),
        gets,
        hits: node.hits,
        writes,
    }
}

/// One line of JSON.
pub(super) fn json(
    profile: &Profile,
    table: &str,
    duration: Duration,
    results: &[NodeResult],
) -> String {
    let nodes = results.iter().map(|node| report(node, duration)).collect();
    let report =
        Report { workload: profile.name, table, duration_seconds: duration.as_secs_f64(), nodes };
    let mut text = serde_json::to_string(&report).expect("plain structs always serialize");
    text.push('\n');
    text
}

/// A few lines for people.
pub(super) fn text(profile: &Profile, duration: Duration, results: &[NodeResult]) -> String {
    let mut text = format!(
        "{}: keys of {} bytes, values of {}, {:.0} % get, {:.0} % delete, Zipf {}, time to live {}\n",
        profile.name,
        profile.key_bytes,
        profile.value_bytes,
        profile.get_share * 100.0,
        profile.delete_share * 100.0,
        profile.zipf_exponent,
        humantime::format_duration(profile.ttl),
    );
    for node in results {
        let report = report(node, duration);
        let _ = writeln!(
            text,
            "{}: {:.0} operations/s for {}, {} failed",
            report.server,
            report.operations_per_second,
            humantime::format_duration(duration),
            report.failed,
        );
        text.push_str(&report.gets.line("gets"));
        text.push_str(&report.writes.line("writes"));
    }
    text
}

/// One of the errors, to show.
pub(super) fn an_error(results: &[NodeResult]) -> &str {
    results.iter().find_map(|node| node.last_error.as_deref()).unwrap_or("none told")
}
