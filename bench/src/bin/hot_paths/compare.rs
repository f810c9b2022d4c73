//! Counts against the baseline: what may stay as it is, and what must be looked at.

use std::fmt;

use crate::baseline::Baseline;

/// By how much a count may differ from the baseline.
const TOLERANCE_PERCENT: u64 = 10;
/// And where another compiler or machine counted that one: its code is another.
const OTHER_TOOLCHAIN_TOLERANCE_PERCENT: u64 = 25;

/// What is said of one case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Within the tolerance.
    Same,
    /// More instructions than the tolerance allows.
    Dearer,
    /// So many fewer that the baseline guards nothing any more.
    Cheaper,
    /// The baseline does not know it.
    New,
}

#[derive(Debug)]
struct Line<'c> {
    case: &'c str,
    instructions: u64,
    baseline: Option<u64>,
    verdict: Verdict,
}

/// All cases beside the baseline. Its `Display` is the table.
#[derive(Debug)]
pub(crate) struct Comparison<'c> {
    lines: Vec<Line<'c>>,
    tolerance_percent: u64,
    /// Where the toolchains differ: a note that says so.
    note: Option<String>,
    /// Cases of the baseline that are no more.
    gone: Vec<&'c str>,
}

impl<'c> Comparison<'c> {
    /// Compares what was counted now with the baseline.
    pub(crate) fn new(now: &'c Baseline, baseline: &'c Baseline) -> Comparison<'c> {
        let note = (now.toolchain != baseline.toolchain && !baseline.instructions.is_empty()).then(|| {
            format!(
                "note: counted with {} for {}, the baseline with {} for {}: up to {} % may differ",
                now.toolchain.compiler,
                now.toolchain.machine,
                baseline.toolchain.compiler,
                baseline.toolchain.machine,
                OTHER_TOOLCHAIN_TOLERANCE_PERCENT,
            )
        });
        let tolerance_percent =
            if note.is_some() { OTHER_TOOLCHAIN_TOLERANCE_PERCENT } else { TOLERANCE_PERCENT };
        let line = |(case, &instructions): (&'c String, &u64)| {
            let baseline = baseline.instructions.get(case).copied();
            let verdict = judge(instructions, baseline, tolerance_percent);
            Line { case, instructions, baseline, verdict }
        };
        let is_gone = |case: &&str| !now.instructions.contains_key(*case);
        Comparison {
            lines: now.instructions.iter().map(line).collect(),
            tolerance_percent,
            note,
            gone: baseline.instructions.keys().map(String::as_str).filter(is_gone).collect(),
        }
    }

    /// Whether everything costs what it may.
    pub(crate) fn passes(&self) -> bool {
        self.lines.iter().all(|line| !matches!(line.verdict, Verdict::Dearer | Verdict::New))
    }

    /// What to do about each verdict, a line each.
    pub(crate) fn advice(&self) -> Vec<String> {
        let percent = self.tolerance_percent;
        let cheaper = format!(
            "more than {percent} % below the baseline: lower it with make bench-check UPDATE=1"
        );
        let dearer = format!(
            "more than {percent} % above the baseline: find what it does now that it did not; where \
             that is worth its price, make bench-check UPDATE=1"
        );
        [
            (self.with(Verdict::Cheaper), &*cheaper),
            (self.gone.clone(), "no case any more: take it out with make bench-check UPDATE=1"),
            (self.with(Verdict::New), "not in the baseline: add it with make bench-check UPDATE=1"),
            (self.with(Verdict::Dearer), &*dearer),
        ]
        .into_iter()
        .filter(|(cases, _)| !cases.is_empty())
        .map(|(cases, what)| format!("{}: {what}", cases.join(", ")))
        .collect()
    }

    fn with(&self, verdict: Verdict) -> Vec<&str> {
        self.lines.iter().filter(|line| line.verdict == verdict).map(|line| line.case).collect()
    }
}

fn judge(instructions: u64, baseline: Option<u64>, tolerance_percent: u64) -> Verdict {
    let Some(baseline) = baseline else { return Verdict::New };
    let tolerance = baseline * tolerance_percent / 100;
    if instructions > baseline + tolerance {
        Verdict::Dearer
    } else if instructions < baseline - tolerance {
        Verdict::Cheaper
    } else {
        Verdict::Same
    }
}

impl fmt::Display for Comparison<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:14} {:>12} {:>10} {:>6}  verdict",
            "case", "instructions", "baseline", "ratio"
        )?;
        for line in &self.lines {
            let (baseline, ratio) = match line.baseline {
                #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
                Some(baseline) => {
                    let ratio = line.instructions as f64 / baseline as f64;
                    (baseline.to_string(), format!("{ratio:.2}"))
                }
                None => ("-".into(), "-".into()),
            };
            let verdict = match line.verdict {
                Verdict::Same => "same",
                Verdict::Dearer => "DEARER",
                Verdict::Cheaper => "cheaper",
                Verdict::New => "NEW",
            };
            let (case, instructions) = (line.case, line.instructions);
            writeln!(f, "{case:14} {instructions:>12} {baseline:>10} {ratio:>6}  {verdict}")?;
        }
        match &self.note {
            Some(note) => writeln!(f, "\n{note}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Toolchain;

    fn counted(compiler: &str, counts: &[(&str, u64)]) -> Baseline {
        Baseline {
            toolchain: Toolchain { compiler: compiler.into(), machine: "m".into() },
            instructions: counts.iter().map(|&(case, count)| (case.to_owned(), count)).collect(),
        }
    }

    fn verdict(now: u64, baseline: u64) -> (Verdict, bool) {
        let (now, baseline) = (counted("a", &[("x", now)]), counted("a", &[("x", baseline)]));
        let comparison = Comparison::new(&now, &baseline);
        (comparison.lines[0].verdict, comparison.passes())
    }

    #[test]
    fn more_than_the_tolerance_fails() {
        assert_eq!(verdict(1_000, 1_000), (Verdict::Same, true));
        assert_eq!(verdict(1_100, 1_000), (Verdict::Same, true));
        assert_eq!(verdict(1_101, 1_000), (Verdict::Dearer, false));
        assert_eq!(verdict(2_000, 1_000), (Verdict::Dearer, false));
    }

    #[test]
    fn far_less_passes_and_asks_for_a_lower_baseline() {
        assert_eq!(verdict(900, 1_000), (Verdict::Same, true));
        assert_eq!(verdict(899, 1_000), (Verdict::Cheaper, true));
        let (now, baseline) = (counted("a", &[("x", 1)]), counted("a", &[("x", 9)]));
        let advice = Comparison::new(&now, &baseline).advice();
        assert!(advice[0].starts_with("x: more than 10 % below the baseline"), "{advice:?}");
    }

    #[test]
    fn a_case_without_a_baseline_fails_and_one_that_is_gone_is_told() {
        let (now, baseline) = (counted("a", &[("x", 1)]), counted("a", &[("y", 1)]));
        let comparison = Comparison::new(&now, &baseline);
        assert!(!comparison.passes());
        let advice = comparison.advice().join("\n");
        assert!(advice.starts_with("y: no case") && advice.contains("\nx: not in"), "{advice}");
        assert!(!Comparison::new(&now, &Baseline::default()).passes());
    }

    #[test]
    fn another_compiler_is_told_and_allowed_more() {
        let baseline = counted("a", &[("x", 1_000)]);
        let judged = |count| {
            let now = counted("b", &[("x", count)]);
            let comparison = Comparison::new(&now, &baseline);
            (comparison.passes(), format!("{comparison}{}", comparison.advice().join("\n")))
        };
        let (passes, text) = judged(1_250);
        assert!(passes && text.contains("note: counted with b"), "{text}");
        let (passes, text) = judged(1_251);
        assert!(!passes && text.contains("\nx: more than 25 % above the baseline"), "{text}");
    }

    #[test]
    fn the_table_shows_each_case() {
        let (now, baseline) = (
            counted("a", &[("get", 110), ("put", 250)]),
            counted("a", &[("get", 100), ("put", 200)]),
        );
        let text = Comparison::new(&now, &baseline).to_string();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["get", "110", "100", "1.10", "same"]);
        assert_eq!(lines[2], ["put", "250", "200", "1.25", "DEARER"]);
    }
}
