//! The conflict journal: what is kept, what goes first, and that the counts are exact.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// A conflict that a write of origin 2 lost, stamped so; each has a key of its own.
fn conflict(lost: Hlc, value: &str) -> [Row; 2] {
    let row = |by, hlc: Hlc, value: &str| Row {
        key: Key::new(format!("key {}", lost.bits())).unwrap(),
        ..peers_row("-", by, hlc, &[], value)
    };
    [row(2, lost, value), row(3, Hlc::from_bits(lost.bits() + 1), "winner")]
}

/// Where a look for the oldest begins: at it, else a commit would pass by all that went before.
fn assert_no_search(site: &Site) {
    let from = site.entries(Space::State)[tables::STATE_CONFLICTS_FROM].clone();
    let oldest = site.entries(Space::Conflicts).into_keys().next();
    assert_eq!(Some(from), oldest);
}

fn losers(site: &Site) -> Vec<Hlc> {
    let conflicts = site.store().snapshot().conflicts().unwrap();
    conflicts.iter().map(|(_, loser)| loser.body.version().hlc).collect()
}

fn with_limits(limits: JournalLimits) -> Site {
    let mut site = Site::new(1);
    site.config.journal = limits;
    site.reopen();
    site
}

#[test]
fn the_newest_losers_are_kept_and_all_are_counted() {
    let mut site = Site::new(1);
    let kept = JournalLimits::default().entries_max;
    let rows: Vec<Row> = (0..kept + 20).flat_map(|n| conflict(at(1, 2 * n), "lost")).collect();
    assert_eq!(site.merge(rows).conflicts, kept + 20);
    let totals = site.store().journal_totals().unwrap();
    assert_eq!((totals.kept, totals.recorded), (kept, kept + 20));
    assert_eq!(totals.oldest, Some(at(1, 40)));
    assert_eq!(losers(&site).len() as u64, kept);
    site.reopen();
    assert_eq!(site.store().journal_totals().unwrap(), totals);
    site.check();
}

#[test]
fn beyond_its_bytes_the_oldest_go_as_many_as_it_takes() {
    let limits = JournalLimits { bytes_max: 4_000, ..JournalLimits::default() };
    let mut site = with_limits(limits);
    for n in 0..20 {
        site.merge(conflict(at(n, 0), "small").to_vec());
        site.check();
    }
    assert_eq!(losers(&site).len(), 20);
    let large = "x".repeat(3_500);
    site.merge(conflict(at(30, 0), &large).to_vec());
    site.check();
    assert_no_search(&site);
    let left = losers(&site);
    assert!((2..5).contains(&left.len()), "{left:?}");
    assert_eq!(left.last(), Some(&at(30, 0)), "the newest stays");
    assert!(left.iter().rev().skip(1).rev().all(|hlc| *hlc > at(15, 0)), "{left:?}");
    // One that is larger than all of it is counted and not kept; an older one goes before the others.
    site.merge(conflict(at(5, 0), &large).to_vec());
    site.check();
    assert_eq!(losers(&site), left);
    site.merge(conflict(at(40, 0), &"x".repeat(4_000)).to_vec());
    site.check();
    assert_eq!(losers(&site), []);
    let totals = site.store().journal_totals().unwrap();
    assert_eq!((totals.recorded, totals.kept, totals.kept_bytes), (23, 0, 0));
}

/// A journal that is old as a whole goes a part at a time: no commit looks through all of it.
#[test]
fn what_is_too_old_goes_a_part_at_a_time() {
    let limits = JournalLimits { age_max_ms: 1_000, ..JournalLimits::default() };
    let mut site = with_limits(limits);
    let rows: Vec<Row> = (0..300).flat_map(|n| conflict(at(0, 2 * n), "lost")).collect();
    site.merge(rows);
    assert_eq!(losers(&site).len(), 300, "young as yet");
    site.now_ms += 2_000;
    let mut left = 300;
    for n in 0u64.. {
        site.merge(conflict(at(2_000, 2 * n), "young").to_vec());
        site.check();
        assert_no_search(&site);
        let old = losers(&site).into_iter().filter(|hlc| *hlc < at(1_000, 0)).count();
        assert!(old < left && left - old <= 66, "{old} of {left}");
        left = old;
        if n == 2 {
            site.reopen();
        }
        if left == 0 {
            break;
        }
    }
    assert_eq!(site.store().journal_totals().unwrap().oldest, Some(at(2_000, 0)));
}

#[test]
fn it_is_read_from_both_ends_and_by_id() {
    let mut site = Site::new(1);
    for n in [3, 1, 2] {
        site.merge(conflict(at(n, 0), "lost").to_vec());
    }
    let snapshot = site.store().snapshot();
    let read = |since, newest_first| -> Vec<Hlc> {
        let journal = snapshot.journal(since, newest_first).unwrap();
        journal.map(|conflict| conflict.unwrap().loser.body.version().hlc).collect()
    };
    assert_eq!(read(Hlc::ZERO, false), [at(1, 0), at(2, 0), at(3, 0)]);
    assert_eq!(read(Hlc::ZERO, true), [at(3, 0), at(2, 0), at(1, 0)]);
    assert_eq!(read(at(2, 0), true), [at(3, 0), at(2, 0)]);
    assert_eq!(read(at(3, 1), false), []);
    let [loser, winner] = conflict(at(2, 0), "lost");
    let found = snapshot.conflict(loser.body.version()).unwrap().unwrap();
    assert_eq!(found, Conflict { winner: winner.body.version(), loser });
    assert_eq!(snapshot.conflict(winner.body.version()).unwrap(), None);
}

/// In a mesh the same pair meets once for each link that brings it.
#[test]
fn the_same_pair_again_changes_nothing() {
    let mut site = Site::new(1);
    site.merge(conflict(at(1, 0), "lost").to_vec());
    let before = (site.store().journal_totals().unwrap(), site.entries(Space::Conflicts));
    let [loser, _] = conflict(at(1, 0), "lost");
    assert_eq!(site.merge(vec![loser]).conflicts, 1, "met again");
    assert_eq!((site.store().journal_totals().unwrap(), site.entries(Space::Conflicts)), before);
    site.check();
}

/// The same loser met again by a greater winner: one entry, counted once, its bytes as they are now.
#[test]
fn a_loser_that_meets_another_winner_is_one_entry() {
    let mut site = Site::new(1);
    let [loser, winner] = conflict(at(1, 0), "lost");
    site.merge(vec![winner.clone(), loser.clone()]);
    site.check();
    let greater = Row { body: peers_row("-", 4, at(9, 0), &[], "greater").body, ..winner };
    site.merge(vec![greater.clone(), loser.clone()]);
    site.check();
    let totals = site.store().journal_totals().unwrap();
    // The first winner lost as well.
    assert_eq!((totals.recorded, totals.kept), (2, 2));
    let found = site.store().snapshot().conflict(loser.body.version()).unwrap().unwrap();
    assert_eq!(found.winner, greater.body.version());
}

#[derive(Clone, Debug)]
enum Step {
    /// Conflicts: when the loser was stamped, and how large it is.
    Merge(Vec<(u64, usize)>),
    Reopen,
    Clock(u64),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_journal_holds_the_newest_within_all_bounds(
        steps in proptest::collection::vec(
            prop_oneof![
                5 => proptest::collection::vec((0u64..3_000, 1usize..200), 1..6).prop_map(Step::Merge),
                1 => Just(Step::Reopen),
                2 => (0u64..400).prop_map(Step::Clock),
            ],
            1..40,
        ),
    ) {
        let limits = JournalLimits { entries_max: 7, bytes_max: 1_500, age_max_ms: 1_000 };
        let mut site = with_limits(limits);
        // Loser -> bytes of its entry: what is kept, and all that ever met.
        let mut kept: BTreeMap<Hlc, usize> = BTreeMap::new();
        let mut met = std::collections::BTreeSet::new();
        for step in steps {
            match step {
                Step::Merge(conflicts) => {
                    let mut rows = Vec::new();
                    for (ms, length) in conflicts {
                        let lost = at(ms, 0);
                        if met.insert(lost) {
                            let [loser, winner] = conflict(lost, &"v".repeat(length));
                            let value = codec::conflict_value(winner.body.version(), &loser);
                            kept.insert(lost, 24 + value.len());
                            rows.extend([loser, winner]);
                        }
                    }
                    let recorded = !rows.is_empty();
                    site.merge(rows);
                    let too_old = Hlc::at_ms(site.now_ms - limits.age_max_ms);
                    while recorded && kept.first_key_value().is_some_and(|(oldest, _)| {
                        kept.len() > 7 || kept.values().sum::<usize>() > 1_500 || *oldest < too_old
                    }) {
                        kept.pop_first();
                    }
                }
                Step::Reopen => site.reopen(),
                Step::Clock(ms) => site.now_ms += ms,
            }
            site.check();
            prop_assert_eq!(losers(&site), kept.keys().copied().collect::<Vec<_>>());
        }
    }
}
