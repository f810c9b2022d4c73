//! docs/performance.md and its raw results, all of it generated from the figures.

use std::{
    fmt::{self, Write as _},
    fs,
    path::Path,
};

use anyhow::Context;
use serde::Serialize;

use crate::{
    cases::{Case, LASTWORD},
    machine::Machine,
    measure::{Bound, Figure, Runs, Spread, Verdict},
    plot,
};

/// What became of a case.
pub(crate) struct Result {
    pub(crate) case: &'static Case,
    pub(crate) runs: Runs,
    pub(crate) notes: Vec<String>,
    /// Why it has no figures.
    pub(crate) failed: Option<String>,
}

/// How it was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) quick: bool,
    /// Cases that were left out of this run.
    pub(crate) left_out: Vec<&'static str>,
}

#[derive(Serialize)]
struct Raw<'a> {
    machine: &'a Machine,
    settings: &'a Settings,
    cases: Vec<RawCase<'a>>,
}

#[derive(Serialize)]
struct RawCase<'a> {
    name: &'static str,
    runs: &'a Runs,
    verdicts: Vec<Verdict>,
    notes: &'a [String],
    failed: &'a Option<String>,
}

/// Writes the report to `file`, and pictures and raw results into the folder beside it that has the
/// same name.
pub(crate) fn write(
    file: &Path,
    machine: &Machine,
    settings: &Settings,
    results: &[Result],
) -> anyhow::Result<()> {
    let folder = file.with_extension("");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for result in results.iter().filter(|result| result.failed.is_none()) {
        plot::draw(result.case, &result.runs, &folder.join(format!("{}.svg", result.case.name)))?;
    }
    let raw = Raw { machine, settings, cases: results.iter().map(raw_case).collect() };
    fs::write(folder.join("results.json"), serde_json::to_string_pretty(&raw)? + "\n")?;
    let pictures = folder.file_name().context("a file has a name")?.to_string_lossy().into_owned();
    fs::write(file, text(machine, settings, results, &pictures)?)
        .with_context(|| format!("cannot write {}", file.display()))
}

fn raw_case(result: &Result) -> RawCase<'_> {
    let Result { case, runs, notes, failed } = result;
    RawCase { name: case.name, runs, verdicts: verdicts(result), notes, failed }
}

fn verdicts(result: &Result) -> Vec<Verdict> {
    result.case.goals.iter().map(|goal| goal.judge(&result.runs)).collect()
}

fn text(
    machine: &Machine,
    settings: &Settings,
    results: &[Result],
    pictures: &str,
) -> std::result::Result<String, fmt::Error> {
    let mut out = String::new();
    out.push_str(HEAD);
    how(&mut out, settings, pictures)?;
    out.push_str("\n## Goals\n\n| case | goal | measured | reached |\n| --- | --- | --- | --- |\n");
    for result in results {
        for verdict in verdicts(result) {
            let got = verdict.got.map_or("not measured".to_owned(), ratio);
            let reached = if verdict.reached { "yes" } else { "**no**" };
            writeln!(
                out,
                "| [{name}](#{name}) | {} | {got} | {reached} |",
                goal_text(&verdict),
                name = result.case.name
            )?;
        }
    }
    out.push_str("\nMeasured is the median of the rounds, with the smallest and the greatest.\n");
    losses(&mut out, results)?;
    for result in results {
        section(&mut out, result, pictures)?;
    }
    out.push_str(NOT_EQUAL);
    out.push_str("\n## The machine\n\n| | |\n| --- | --- |\n");
    for (name, value) in &machine.0 {
        writeln!(out, "| {name} | {value} |")?;
    }
    Ok(out)
}

const HEAD: &str = "\
# Performance

<!-- Written by `make bench` from what it measured. Not to be edited by hand. -->

lastword beside etcd, Redis and MariaDB on one machine, in one run, at equal durability: every write
is acknowledged after an fdatasync (etcd as it is; Redis `appendonly yes`, `appendfsync always`;
MariaDB `innodb_flush_log_at_trx_commit=1`, `sync_binlog=1`).
";

const NOT_EQUAL: &str = "
## What is not equal

- The systems do different things. etcd keeps every version of a key, and would agree with other
  members; here it is alone. MariaDB runs SQL and transactions. Redis holds everything in memory.
  lastword stamps each row, indexes what changed for its peers, and takes no locks between sites.
- The load comes from the same machine and shares its cores with the server: a system whose client
  library is thrifty gains by that. All are driven by the same asynchronous workers in one process;
  lastword and etcd over gRPC (tonic), 32 workers to a connection; Redis (the redis crate) and
  MariaDB (mysql_async, prepared statements) with one connection each. For Redis its own
  redis-benchmark, in C, is measured as well, and the better of the two counts.
- redis-benchmark counts its start, and its values are one repeated letter; the others' are noise.
- Server CPU is that of the server alone, without its clients, but with what it does beside: what a
  server puts off until after a measurement is not counted, and each has the time to finish it
  before the next one is measured.
- etcd 3.4 copies the buffer of its last large load for every read until it is restarted. So it is
  restarted after its load in get-64; its reads are linearizable, as lastword's of one node are.
- MariaDB sends a transaction to its replica before it acknowledges it, lastword a row afterwards:
  the lag counts from the acknowledgement for both.
- In put-64-replicated lastword is two nodes and two MariaDB on the same cores on which MariaDB is
  two.
- One machine has no network. What a line costs is measured in page-80ms only.
- MariaDB has a buffer pool of 1 GiB and 512 MiB of redo log, in which all of its data fits here.
";

fn how(out: &mut String, settings: &Settings, folder: &str) -> fmt::Result {
    writeln!(
        out,
        "\nKeys have 16 bytes, values 100 bytes of noise, over 1,000,000 random keys where nothing \
         else is said. Rounds: {}; in each of them every contender warms up for 1 s and is measured \
         for {} s, another one first each time. A ratio is the median of the ratios of the \
         rounds; several peers: the best of the round. Raw results: \
         [results.json]({folder}/results.json). To measure again: `make bench`, or `make \
         bench-mirror` for what concerns the MySQL mirror alone.",
        settings.rounds, settings.seconds
    )?;
    if settings.quick {
        out.push_str(
            "\n**A quick run: few and short rounds, small stores. For figures run it in full.**\n",
        );
    }
    if !settings.left_out.is_empty() {
        writeln!(out, "\nLeft out of this run: {}.", settings.left_out.join(", "))?;
    }
    Ok(())
}

/// What is not reached, and every figure in which somebody else is better.
fn losses(out: &mut String, results: &[Result]) -> fmt::Result {
    out.push_str("\n## Where lastword loses\n\n");
    out.push_str("Why: [ARCHITECTURE.md](ARCHITECTURE.md#what-we-lose-and-why).\n\n");
    let mut lines = Vec::new();
    for result in results {
        let name = result.case.name;
        if let Some(error) = &result.failed {
            lines.push(format!("**{name} failed** and has no figures: {}", one_line(error)));
            continue;
        }
        for verdict in verdicts(result).iter().filter(|verdict| !verdict.reached) {
            let got = verdict.got.map_or("not measured".to_owned(), ratio);
            lines.push(format!("**{name} misses a goal**: {}: {got}", goal_text(verdict)));
        }
        for figure in result.case.figures {
            let better = better_peers(result, *figure);
            if !better.is_empty() {
                lines.push(format!("{name}, {}: {}", figure.label, better.join("; ")));
            }
        }
    }
    for line in &lines {
        writeln!(out, "- {line}")?;
    }
    if lines.is_empty() {
        out.push_str("Nowhere in this run.\n");
    }
    Ok(())
}

/// Who beats the best of ours in this figure, and how many times ours its figure is.
fn better_peers(result: &Result, figure: Figure) -> Vec<String> {
    let (ours, peers): (Vec<&str>, Vec<&str>) =
        result.case.contenders.iter().partition(|contender| contender.starts_with(LASTWORD));
    let better = |peer: &str| {
        let times = Spread::of(&result.runs.ratios(figure, peer, &ours))?;
        let wins = if figure.more_is_better { times.median > 1.0 } else { times.median < 1.0 };
        wins.then(|| format!("{peer} has {} times ours", ratio(times)))
    };
    peers.into_iter().filter_map(better).collect()
}

fn section(out: &mut String, result: &Result, pictures: &str) -> fmt::Result {
    let Result { case, runs, notes, failed } = result;
    writeln!(out, "\n## {}\n\n{}. {}\n", case.name, case.title, case.about)?;
    if let Some(error) = failed {
        return writeln!(out, "**Failed:** {}", one_line(error));
    }
    writeln!(out, "![{}]({pictures}/{}.svg)\n", case.title, case.name)?;
    out.push_str("| |");
    for figure in case.figures {
        write!(out, " {} |", figure.label)?;
    }
    writeln!(out, "\n| --- |{}", " --- |".repeat(case.figures.len()))?;
    for contender in case.contenders {
        write!(out, "| {contender} |")?;
        for figure in case.figures {
            match runs.spread(contender, *figure) {
                Some(spread) => write!(out, " {} |", spread_text(spread))?,
                None => out.push_str(" |"),
            }
        }
        out.push('\n');
    }
    if !notes.is_empty() {
        out.push('\n');
    }
    for note in notes {
        writeln!(out, "- {note}")?;
    }
    Ok(())
}

fn goal_text(verdict: &Verdict) -> String {
    let goal = &verdict.goal;
    let Figure { label, .. } = goal.figure;
    let (word, bound) = match goal.bound {
        Bound::AtLeast(bound) => ("at least", bound),
        Bound::AtMost(bound) => ("at most", bound),
    };
    match goal.peers {
        [] => format!("{label} of {}: {word} {}", goal.ours, number(bound)),
        peers => {
            format!("{label} of {}: {word} {bound} times {}", goal.ours, peers.join(" or "))
        }
    }
}

/// A verdict for the terminal.
pub(crate) fn verdict_line(verdict: &Verdict) -> String {
    let got = verdict.got.map_or("not measured".to_owned(), ratio);
    let reached = if verdict.reached { "reached" } else { "MISSED" };
    format!("{reached}: {}: {got}", goal_text(verdict))
}

fn ratio(spread: Spread) -> String {
    let Spread { median, min, max } = spread;
    format!("{} ({}..{})", number(median), number(min), number(max))
}

fn spread_text(spread: Spread) -> String {
    format!("**{}** ({}..{})", number(spread.median), number(spread.min), number(spread.max))
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Three digits, and groups of them: 0.123, 4.56, 78.9, 123, 4,560, 1,234,567.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 1.0 => format!("{value:.3}"),
        size if size < 10.0 => format!("{value:.2}"),
        size if size < 100.0 => format!("{value:.1}"),
        _ => grouped(value.round() as i64),
    }
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = if value < 0 { "-".to_owned() } else { String::new() };
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let cases = [
            (0.0, "0"),
            (0.1234, "0.123"),
            (4.567, "4.57"),
            (78.94, "78.9"),
            (123.4, "123"),
            (4_560.4, "4,560"),
            (1_234_567.0, "1,234,567"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
