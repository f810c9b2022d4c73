//! Writes, merges, claims and restarts at random, against a model.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const KEYS: [&str; 4] = ["a", "b", "c", "d"];

#[derive(Clone, Debug)]
enum Step {
    /// Puts, or deletes where the value is 0.
    Write(Vec<(usize, u8)>),
    Insert,
    /// Rows of peers, by origin and stamp; then the claim.
    Merge(Vec<(u8, u64, bool)>, Option<(u8, u64)>),
    Advance,
    Reopen,
    Clock(i16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = proptest::collection::vec((0..KEYS.len(), 0u8..4), 1..4);
    let rows = proptest::collection::vec((2u8..4, 0u64..60, any::<bool>()), 0..4);
    let claim = proptest::option::of((2u8..4, 0u64..60));
    let step = prop_oneof![
        4 => write.prop_map(Step::Write),
        1 => Just(Step::Insert),
        4 => (rows, claim).prop_map(|(rows, claim)| Step::Merge(rows, claim)),
        1 => Just(Step::Advance),
        1 => Just(Step::Reopen),
        2 => any::<i16>().prop_map(Step::Clock),
    ];
    proptest::collection::vec(step, 1..40)
}

/// A version is unique for a write: all else of a peer's row follows from it.
fn row_of(by: u8, count: u64, knows: bool) -> Row {
    let key = KEYS[usize::try_from(count).unwrap() % KEYS.len()];
    let known = Version { hlc: at(0, count / 2 + 1), origin: origin(by ^ 1) };
    let context = if knows && count > 2 { vec![known] } else { vec![] };
    let value = if count.is_multiple_of(7) { String::new() } else { format!("{by}-{count}") };
    peers_row(key, by, at(0, count + 1), &context, &value)
}

/// What a store should hold.
#[derive(Default)]
struct Model {
    rows: BTreeMap<&'static str, Version>,
    heads: Heads,
    stamp: Hlc,
}

impl Model {
    fn meets(&mut self, key: &'static str, version: Version) {
        let standing = self.rows.entry(key).or_insert(version);
        *standing = version.max(*standing);
    }

    fn local(&mut self, key: &'static str, version: Version) {
        assert!(version.hlc > self.stamp, "stamps rise above all that was seen");
        self.stamp = version.hlc;
        self.heads.raise(version.origin, version.hlc);
        self.rows.insert(key, version);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn rows_index_heads_and_knowledge_agree_after_any_history(steps in steps()) {
        let mut site = Site::new(1);
        site.sequence = Some(SequenceIds { offset: 1, increment: 3 });
        let mut model = Model::default();
        let mut ids = Vec::new();
        // Knowing or not is fixed for a version.
        let mut knows = BTreeMap::new();
        for step in steps {
            let shown = site.store().heads();
            match step {
                Step::Write(writes) => {
                    let batch = writes
                        .iter()
                        .map(|&(at, value)| match value {
                            0 => delete(KEYS[at]),
                            value => put(KEYS[at], ["", "x", "y", "z"][usize::from(value)]),
                        })
                        .collect();
                    let batch = LocalBatch { drift_bound_ms: u64::MAX, ..site.batch(batch) };
                    let applied = site.apply(&[Request::Local(batch)]);
                    let written = local(&applied.outcomes[0]).unwrap();
                    for ((at, _), written) in writes.iter().zip(written) {
                        model.local(KEYS[*at], written.version);
                    }
                }
                Step::Insert => {
                    let batch = LocalBatch {
                        drift_bound_ms: u64::MAX,
                        ..site.batch(vec![insert("v")])
                    };
                    let applied = site.apply(&[Request::Local(batch)]);
                    let written = local(&applied.outcomes[0]).unwrap().remove(0);
                    prop_assert!(!ids.contains(&written.key));
                    model.stamp = written.version.hlc;
                    model.heads.raise(written.version.origin, written.version.hlc);
                    ids.push(written.key);
                }
                Step::Merge(rows, claim) => {
                    let rows: Vec<Row> = rows
                        .into_iter()
                        .map(|(by, count, new)| row_of(by, count, *knows.entry((by, count)).or_insert(new)))
                        .collect();
                    for row in &rows {
                        model.stamp = model.stamp.max(row.body.version().hlc);
                        if !model.heads.includes(row.body.version()) {
                            let key = KEYS.into_iter().find(|k| key(k) == row.key).unwrap();
                            model.meets(key, row.body.version());
                        }
                    }
                    let claim = claim.map(|(by, count)| heads(&[(by, at(0, count))]));
                    for (origin, hlc) in claim.iter().flat_map(Heads::iter) {
                        model.heads.raise(origin, hlc);
                        model.stamp = model.stamp.max(hlc);
                    }
                    site.remote(rows, claim, None);
                }
                Step::Advance => {
                    site.apply(&[Request::Advance]);
                }
                Step::Reopen => site.reopen(),
                Step::Clock(by_ms) => {
                    site.now_ms = site.now_ms.saturating_add_signed(by_ms.into());
                }
            }
            site.check();
            let now = site.store().heads();
            prop_assert!(now.covers(&shown), "what was shown is kept: {} then {}", shown, now);
            prop_assert!(now.covers(&model.heads));
            let own = site.store().origin();
            for (origin, hlc) in now.iter().filter(|(origin, _)| *origin != own) {
                prop_assert_eq!(hlc, model.heads.get(origin), "nothing is claimed unasked");
            }
            model.stamp = model.stamp.max(now.get(own));
            for key in KEYS {
                let version = site.get(key).map(|body| body.version());
                prop_assert_eq!(version, model.rows.get(key).copied(), "{}", key);
            }
        }
    }
}
