//! `compare`: lastword beside etcd, Redis and MariaDB, in one run, at equal durability.
//!
//! ```text
//! main.rs      the command line; case after case
//! cases/       what is measured: contenders, goals
//! systems/     how each system is started and driven
//! load.rs      the workers
//! process.rs   servers as processes of our own
//! measure.rs   figures, rounds, ratios, goals
//! machine.rs   what it was measured on
//! report.rs    docs/performance.md, results.json
//! plot.rs      the pictures
//! ```
//!
//! Private instances on loopback, in folders that are gone afterwards. A case that fails does not
//! take the others down; the report names it, and the exit code is 1.

mod cases;
mod load;
mod machine;
mod measure;
mod plot;
mod process;
mod report;
mod systems;

use std::{fs, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, timeout},
};

use cases::{Bench, Case, Outcome};
use machine::Machine;
use report::Settings;
use systems::{Place, echo};

/// A case that takes longer has failed.
const CASE_MAX: Duration = Duration::from_secs(20 * 60);

/// Measure lastword beside etcd, Redis and MariaDB and write docs/performance.md
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// How often each contender is measured [default: 5, or 1 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// How long, for each case and round [default: 5, or 2 with --quick]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// Only these cases
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    cases: Vec<String>,
    /// Say which cases there are
    #[arg(long)]
    list: bool,
    /// Few and short rounds, small stores: to see that all of it works
    #[arg(long)]
    quick: bool,
    /// The report; pictures and raw results go into a folder beside it
    #[arg(long, value_name = "FILE", default_value = "docs/performance.md")]
    out: PathBuf,
    /// The release binary under test
    #[arg(long, value_name = "PATH", default_value = "target/release/lastword")]
    lastword: PathBuf,
    /// Where the servers' folders are made; it must be on a real disk [default: the system's
    /// temporary folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What this program is started as by itself.
#[derive(clap::Subcommand)]
enum Part {
    #[command(hide = true)]
    Echo(echo::Args),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let ended = runtime.context("cannot start the runtime").and_then(|runtime| {
        // Servers are started by this thread, and end with it: see process.rs.
        runtime.block_on(async {
            tokio::select! {
                ended = run(args) => ended,
                told = told_to_end() => Err(told),
            }
        })
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("compare: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn told_to_end() -> anyhow::Error {
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    let [Ok(mut interrupt), Ok(mut terminate)] = signals else {
        return anyhow::anyhow!("cannot wait for signals");
    };
    tokio::select! {
        _ = interrupt.recv() => anyhow::anyhow!("interrupted"),
        _ = terminate.recv() => anyhow::anyhow!("told to end"),
    }
}

#[expect(clippy::print_stderr, reason = "progress and errors, on the terminal")]
fn say(text: &str) {
    eprintln!("{text}");
}

async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(Part::Echo(echo)) = args.part {
        return echo.serve().await;
    }
    if args.list {
        for case in cases::ALL {
            say(&format!("{:20} {}", case.name, case.title));
        }
        return Ok(());
    }
    let (chosen, left_out) = choose(&args.cases)?;
    // The folders are gone when this is dropped, after the servers in them.
    let mut folder = tempfile::Builder::new();
    folder.prefix("lastword-compare-");
    let folder = match &args.dir {
        Some(dir) => folder.tempdir_in(dir),
        None => folder.tempdir(),
    };
    let folder = folder.context("cannot make a temporary folder")?;
    let place = Place { folder: folder.path().to_owned(), lastword: release(&args.lastword)? };
    let machine = Machine::look(&place)?;
    let bench = Bench {
        place,
        rounds: args.rounds.unwrap_or(if args.quick { 1 } else { 5 }).into(),
        seconds: args.seconds.unwrap_or(if args.quick { 2.0 } else { 5.0 }),
        quick: args.quick,
    };
    ensure!((0.5..=600.0).contains(&bench.seconds), "--seconds is from 0.5 to 600");
    let settings =
        Settings { rounds: bench.rounds, seconds: bench.seconds, quick: bench.quick, left_out };

    let mut results = Vec::new();
    for case in chosen {
        // A folder for each case, so that it can be gone before the next one fills the disk.
        let folder = bench.place.folder.join(case.name);
        fs::create_dir(&folder)?;
        let place = Place { folder: folder.clone(), ..bench.place.clone() };
        results.push(measure(case, &Bench { place, ..bench.clone() }).await);
        fs::remove_dir_all(&folder)?;
        // After each case, so that a run that is broken off leaves what it has.
        report::write(&args.out, &machine, &settings, &results)?;
    }
    let failed: Vec<_> =
        results.iter().filter(|r| r.failed.is_some()).map(|r| r.case.name).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// The cases wanted, in their order, and the names of the others.
fn choose(wanted: &[String]) -> anyhow::Result<(Vec<&'static Case>, Vec<&'static str>)> {
    let unknown = wanted.iter().find(|name| cases::ALL.iter().all(|case| case.name != **name));
    if let Some(name) = unknown {
        bail!("there is no case {name}; --list names them");
    }
    let is_wanted = |case: &&Case| wanted.is_empty() || wanted.iter().any(|name| name == case.name);
    let (chosen, others): (Vec<_>, Vec<_>) = cases::ALL.into_iter().partition(is_wanted);
    Ok((chosen, others.into_iter().map(|case| case.name).collect()))
}

/// The binary, if it is worth measuring. Cargo puts a debug one into a folder of that name.
fn release(binary: &std::path::Path) -> anyhow::Result<PathBuf> {
    let binary = binary.canonicalize().with_context(|| {
        format!("{} is not there: make build PROFILE=release", binary.display())
    })?;
    let of_debug = binary.components().any(|part| part.as_os_str() == "debug");
    ensure!(!of_debug && !cfg!(debug_assertions), "measure release builds only: make bench");
    Ok(binary)
}

async fn measure(case: &'static Case, bench: &Bench) -> report::Result {
    let began = Instant::now();
    say(&format!("{}: {}", case.name, case.title));
    let ended = timeout(CASE_MAX, (case.run)(bench)).await;
    let ended = ended.context("took too long").and_then(|outcome| outcome);
    let failed = ended.as_ref().err().map(|error| format!("{error:#}"));
    let Outcome { runs, notes } = ended.unwrap_or_default();
    for contender in case.contenders {
        for figure in case.figures {
            if let Some(spread) = runs.spread(contender, *figure) {
                let value = report::number(spread.median);
                say(&format!("  {contender:40} {value:>12} {}", figure.label));
            }
        }
    }
    for verdict in case.goals.iter().map(|goal| goal.judge(&runs)) {
        say(&format!("  {}", report::verdict_line(&verdict)));
    }
    for note in notes.iter().chain(&failed) {
        say(&format!("  {note}"));
    }
    say(&format!("  {:.0} s", began.elapsed().as_secs_f64()));
    report::Result { case, runs, notes, failed }
}
