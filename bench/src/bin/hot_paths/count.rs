//! The instructions of one operation, by valgrind.
//!
//! A case runs twice, once with twice the rounds. What the longer run takes more is what its rounds
//! take: loading, set-up and the process itself fall out.

use std::{
    collections::BTreeMap,
    env, io,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use anyhow::{Context, bail};

use crate::{baseline::Toolchain, cases::Case};

/// The longer run has so many times the rounds of the shorter one.
pub(crate) const ROUNDS_FACTOR: usize = 2;

/// Counts every case: as many at once as there are processors, which changes no count.
pub(crate) fn count_all(cases: &[Case]) -> anyhow::Result<BTreeMap<String, u64>> {
    let next = AtomicUsize::new(0);
    let counts = Mutex::new(BTreeMap::new());
    let work = || -> anyhow::Result<()> {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let count = count_one(case).with_context(|| case.name)?;
            counts.lock().expect("no holder panics").insert(case.name.to_owned(), count);
        }
        Ok(())
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().try_for_each(|worker| worker.join().expect("no worker panics"))
    })?;
    Ok(counts.into_inner().expect("no holder panics"))
}

fn count_one(case: &Case) -> anyhow::Result<u64> {
    let shorter = count_run(case, case.rounds)?;
    let longer = count_run(case, ROUNDS_FACTOR * case.rounds)?;
    let operations = ((ROUNDS_FACTOR - 1) * case.rounds) as u64 * case.per_round;
    let more = longer.checked_sub(shorter).context("fewer instructions for more rounds")?;
    Ok((more + operations / 2) / operations)
}

/// The instructions of a whole run.
fn count_run(case: &Case, rounds: usize) -> anyhow::Result<u64> {
    let own_program = env::current_exe().context("this program's own path")?;
    let output = Command::new("valgrind")
        // Of the tools that count, the quickest.
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(own_program)
        .args([case.name, &rounds.to_string()])
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("valgrind is missing: install it (scripts/setup.sh bench-check does)")
        }
        Err(error) => return Err(error).context("valgrind"),
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("valgrind: {}: {}", output.status, said.trim_end());
    }
    instructions_in(&said).with_context(|| format!("valgrind gave no count: {said}"))
}

/// The number in `==17== I   refs:      112,979,445`.
fn instructions_in(report: &str) -> Option<u64> {
    let counted = report.lines().find_map(|line| {
        let (name, count) = line.split_once("refs:")?;
        name.trim_end().ends_with('I').then_some(count)
    })?;
    counted.trim().replace(',', "").parse().ok()
}

/// What compiled this program, and for what.
pub(crate) fn toolchain() -> anyhow::Result<Toolchain> {
    // cargo, which built and started this, leaves the choice of the compiler as it was.
    let output = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let said = String::from_utf8_lossy(&output.stdout);
    toolchain_in(&said, simd()).with_context(|| format!("rustc -vV said: {said}"))
}

fn toolchain_in(said: &str, simd: &str) -> Option<Toolchain> {
    let compiler = said.lines().next().filter(|line| line.starts_with("rustc "))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "))?;
    Some(Toolchain { compiler: compiler.to_owned(), machine: format!("{host}{simd}") })
}

/// Copies and searches have variants for the processors that have this.
fn simd() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        return " with AVX2";
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_valgrinds_report() {
        let report = "==17== Command: hot_paths put_new 20\n==17== \n==17== I   refs:      \
                      112,979,445\n==17== D   refs:  5\n";
        assert_eq!(instructions_in(report), Some(112_979_445));
        assert_eq!(instructions_in("==17== D   refs:  5\n"), None);
        assert_eq!(instructions_in(""), None);
    }

    #[test]
    fn the_compiler_says_what_it_is() {
        let said = "rustc 1.95.0 (5980 2026-04-14)\nbinary: rustc\nhost: x86_64-linux\n";
        let found = toolchain_in(said, " with AVX2").unwrap();
        assert_eq!(found.compiler, "rustc 1.95.0 (5980 2026-04-14)");
        assert_eq!(found.machine, "x86_64-linux with AVX2");
        assert_eq!(toolchain_in("", ""), None);
    }
}
