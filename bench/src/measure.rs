//! Figures, rounds, ratios, goals: what was measured and what it says. Nothing here runs anything.
//!
//! ```text
//! Sample     one contender in one round: a value for each figure
//! Runs       all samples of a case, by contender, in the order of the rounds
//! Goal       ours against the best of its peers in the same round, or against a bound
//! Verdict    the median of the ratios of the rounds, and whether the goal is reached
//! ```
//!
//! A ratio is taken within a round and only then the median over the rounds: what slows the machine
//! down for a minute slows both sides of that round.

use std::collections::BTreeMap;

use serde::Serialize;

/// A kind of figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// Its name in results.json.
    pub(crate) key: &'static str,
    /// Its name for people, with the unit.
    pub(crate) label: &'static str,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
}

/// Rows in a second.
pub(crate) const RATE: Figure =
    Figure { key: "rows_per_second", label: "rows/s", more_is_better: true };
/// What the server spent on each row, in user and kernel mode together.
pub(crate) const CPU: Figure =
    Figure { key: "server_cpu_us_per_row", label: "server CPU µs/row", more_is_better: false };
/// The median latency.
pub(crate) const P50: Figure = Figure { key: "p50_ms", label: "p50 ms", more_is_better: false };
/// The latency that one in a hundred exceeds.
pub(crate) const P99: Figure = Figure { key: "p99_ms", label: "p99 ms", more_is_better: false };

/// What one contender did in one round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct Sample(BTreeMap<&'static str, f64>);

impl Sample {
    /// The same, with one figure more.
    pub(crate) fn with(mut self, figure: Figure, value: f64) -> Sample {
        self.0.insert(figure.key, value);
        self
    }

    /// The value of a figure, where it was measured.
    pub(crate) fn get(&self, figure: Figure) -> Option<f64> {
        self.0.get(figure.key).copied()
    }
}

/// All samples of a case.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub(crate) struct Runs(BTreeMap<&'static str, Vec<Sample>>);

impl Runs {
    /// Notes the next round of a contender.
    pub(crate) fn push(&mut self, contender: &'static str, sample: Sample) {
        self.0.entry(contender).or_default().push(sample);
    }

    /// A contender's values of a figure, round by round; empty where it has none.
    pub(crate) fn values(&self, contender: &str, figure: Figure) -> Vec<f64> {
        let samples = self.0.get(contender).map(Vec::as_slice).unwrap_or_default();
        samples.iter().filter_map(|sample| sample.get(figure)).collect()
    }

    /// The spread of a contender's figure; `None` where it was not measured.
    pub(crate) fn spread(&self, contender: &str, figure: Figure) -> Option<Spread> {
        Spread::of(&self.values(contender, figure))
    }

    /// Ours over the best of the peers, round by round.
    pub(crate) fn ratios(&self, figure: Figure, ours: &str, peers: &[&str]) -> Vec<f64> {
        let peers: Vec<_> = peers.iter().map(|peer| self.values(peer, figure)).collect();
        let best = |round: usize| {
            let values = peers.iter().filter_map(|values| values.get(round).copied());
            values.reduce(if figure.more_is_better { f64::max } else { f64::min })
        };
        let ours = self.values(ours, figure);
        ours.iter().enumerate().filter_map(|(round, ours)| Some(ours / best(round)?)).collect()
    }
}

/// A median with its smallest and greatest value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of no values there is none; of an even number the middle lies between two.
    pub(crate) fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min, &max) = (sorted.first()?, sorted.last()?);
        let upper = sorted.len() / 2;
        let lower = (sorted.len() - 1) / 2;
        Some(Spread { median: (sorted[lower] + sorted[upper]) / 2.0, min, max })
    }
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Bound::AtLeast(bound) => value >= bound,
            Bound::AtMost(bound) => value <= bound,
        }
    }
}

/// A goal of a case.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Goal {
    pub(crate) figure: Figure,
    /// Whose figure.
    pub(crate) ours: &'static str,
    /// Divided by the best of these; none: the figure itself has to hold the bound.
    pub(crate) peers: &'static [&'static str],
    pub(crate) bound: Bound,
}

/// What became of a goal.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) goal: Goal,
    /// The ratio over the rounds, or the figure itself; `None`: not measured.
    pub(crate) got: Option<Spread>,
    pub(crate) reached: bool,
}

impl Goal {
    /// Judges by the median.
    pub(crate) fn judge(self, runs: &Runs) -> Verdict {
        let values = match self.peers {
            [] => runs.values(self.ours, self.figure),
            peers => runs.ratios(self.figure, self.ours, peers),
        };
        let got = Spread::of(&values);
        let reached = got.is_some_and(|got| self.bound.holds(got.median));
        Verdict { goal: self, got, reached }
    }
}

/// Lets every contender measure once in each round, another one first each time, so that neither
/// the place in a round nor the minute favours one of them.
pub(crate) async fn interleave(
    rounds: usize,
    contenders: &[&'static str],
    mut measure: impl AsyncFnMut(&'static str) -> anyhow::Result<Sample>,
) -> anyhow::Result<Runs> {
    let mut runs = Runs::default();
    for round in 0..rounds {
        for place in 0..contenders.len() {
            let contender = contenders[(round + place) % contenders.len()];
            let sample = measure(contender)
                .await
                .map_err(|error| error.context(format!("{contender}, round {}", round + 1)))?;
            runs.push(contender, sample);
        }
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runs(rows: &[(&'static str, &[f64])]) -> Runs {
        let mut runs = Runs::default();
        for (contender, values) in rows {
            for value in *values {
                runs.push(contender, Sample::default().with(RATE, *value));
            }
        }
        runs
    }

    fn goal(peers: &'static [&'static str], bound: Bound) -> Goal {
        Goal { figure: RATE, ours: "us", peers, bound }
    }

    #[test]
    fn a_median_is_the_middle_or_between_the_two_in_the_middle() {
        let spread = |values: &[f64]| Spread::of(values).map(|s| (s.min, s.median, s.max));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some((1.0, 2.0, 9.0)));
        assert_eq!(spread(&[4.0, 1.0, 3.0, 2.0]), Some((1.0, 2.5, 4.0)));
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        let runs = runs(&[("us", &[10.0, 100.0, 30.0]), ("etcd", &[5.0, 100.0, 10.0])]);
        assert_eq!(runs.ratios(RATE, "us", &["etcd"]), [2.0, 1.0, 3.0]);
        let verdict = goal(&["etcd"], Bound::AtLeast(2.0)).judge(&runs);
        assert_eq!(verdict.got.map(|got| got.median), Some(2.0));
        assert!(verdict.reached);
        assert!(!goal(&["etcd"], Bound::AtLeast(2.1)).judge(&runs).reached);
    }

    #[test]
    fn of_several_peers_the_best_of_the_round_counts() {
        let runs = runs(&[("us", &[10.0, 10.0]), ("a", &[5.0, 20.0]), ("b", &[10.0, 4.0])]);
        assert_eq!(runs.ratios(RATE, "us", &["a", "b"]), [1.0, 0.5]);
        let less = Figure { more_is_better: false, ..RATE };
        assert_eq!(runs.ratios(less, "us", &["a", "b"]), [2.0, 2.5]);
    }

    #[test]
    fn a_goal_without_peers_is_about_the_figure_itself() {
        let runs = runs(&[("us", &[4.0, 6.0, 5.0])]);
        assert!(goal(&[], Bound::AtMost(5.0)).judge(&runs).reached);
        assert!(!goal(&[], Bound::AtMost(4.9)).judge(&runs).reached);
    }

    #[test]
    fn what_was_not_measured_is_not_reached() {
        let runs = runs(&[("us", &[4.0])]);
        let verdict = goal(&["nobody"], Bound::AtLeast(0.0)).judge(&runs);
        assert!(verdict.got.is_none() && !verdict.reached);
    }

    #[tokio::test]
    async fn another_contender_begins_each_round() {
        let mut order = Vec::new();
        let runs = interleave(3, &["a", "b", "c"], async |contender| {
            order.push(contender);
            Ok(Sample::default().with(RATE, 0.0))
        })
        .await
        .expect("nothing fails");
        assert_eq!(order.concat(), "abcbcacab");
        assert_eq!(runs.values("b", RATE), [0.0; 3]);
    }
}
