//! Guards the cost of the hot paths: counts their instructions and compares with a baseline.
//!
//! Times on a busy machine say little; how many instructions an operation takes is nearly the same
//! in every run. So a change that makes a path dearer is seen at once, and on any machine.
//!
//! ```text
//! hot_paths check            each case under valgrind --> table, and whether it may stay so
//! hot_paths check --update   the same, and writes the baseline
//! hot_paths CASE ROUNDS      does a case, for valgrind or another profiler
//!
//! cases.rs     the hot paths, set up and done
//! count.rs     the instructions of one operation, by valgrind
//! baseline.rs  bench/instructions.toml
//! compare.rs   counts against the baseline: the verdicts
//! ```

mod baseline;
mod cases;
mod compare;
mod count;

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, bail};

use baseline::Baseline;
use cases::CASES;
use compare::Comparison;

/// Relative to where this was built.
const BASELINE_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.toml");

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["check"] => check(false),
        ["check", "--update"] => check(true),
        [case, rounds] => run(case, rounds).map(|()| ExitCode::SUCCESS),
        _ => usage(),
    };
    done.unwrap_or_else(|error| {
        // Where nobody reads it there is nobody to tell.
        let _ = writeln!(io::stderr(), "hot_paths: {error:#}");
        ExitCode::from(2)
    })
}

fn usage() -> anyhow::Result<ExitCode> {
    let mut text = String::from("usage: hot_paths check [--update] | hot_paths CASE ROUNDS\n\n");
    for case in CASES {
        text += &format!("  {:14} {} a round: {}\n", case.name, case.per_round, case.unit);
    }
    io::stderr().write_all(text.as_bytes())?;
    Ok(ExitCode::from(2))
}

/// Does a case so many times.
fn run(case: &str, rounds: &str) -> anyhow::Result<()> {
    let case = cases::named(case).with_context(|| format!("there is no case {case}"))?;
    let rounds: usize = rounds.parse().with_context(|| format!("rounds: {rounds}"))?;
    // Prepared for the longer run in both, so that they differ in what is measured alone.
    let rounds_max = count::ROUNDS_FACTOR * case.rounds;
    if rounds > rounds_max {
        bail!("{} does at most {rounds_max} rounds", case.name);
    }
    let mut round = (case.prepare)(rounds_max);
    for _ in 0..rounds {
        round();
    }
    // What was set up goes with the process.
    std::mem::forget(round);
    Ok(())
}

/// Counts all cases and says what became of them.
fn check(update: bool) -> anyhow::Result<ExitCode> {
    let path = Path::new(BASELINE_FILE);
    let old = Baseline::read(path)?;
    let mut out = io::stdout();
    writeln!(out, "counting the instructions of {} hot paths under valgrind", CASES.len())?;
    let new = Baseline { toolchain: count::toolchain()?, instructions: count::count_all(CASES)? };
    let comparison = Comparison::new(&new, &old);
    write!(out, "\n{comparison}")?;
    if update {
        new.write(path)?;
        writeln!(out, "\nwrote {}", path.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    for advice in comparison.advice() {
        writeln!(out, "\n{advice}")?;
    }
    Ok(if comparison.passes() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
