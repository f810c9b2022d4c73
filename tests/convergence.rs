//! Sites that can reach each other converge, whatever happens on the way; and nothing that was
//! acknowledged is lost, or lost silently.
//!
//! Each history is drawn from one seed. A failure prints its seed; to look into it, set
//! [`REPLAY`] and run `cargo test --test convergence replay -- --ignored`.

#![allow(clippy::print_stdout, reason = "seeds and violations are for whoever looks into one")]

#[path = "common/dice.rs"]
mod dice;
#[path = "common/disk.rs"]
mod disk;
mod sim;

use sim::{
    Plan, Rule, Tally, run,
    stories::{self, Story},
};

/// A history to look into.
const REPLAY: (u64, Rule, Plan) = (0, Rule::Sound, Plan::ROUGH);

/// So many histories with everything that can go wrong.
const ROUGH_HISTORIES: u64 = 250;
/// Within so many histories a wrong rule is found out.
const WRONG_HISTORIES_MAX: u64 = 300;

fn play(seeds: std::ops::Range<u64>, plan: &Plan) -> Tally {
    let mut sum = Tally::default();
    for seed in seeds {
        match run(seed, Rule::Sound, plan) {
            Ok(tally) => sum.add(&tally),
            Err(violation) => panic!("seed {seed} of {plan:?}: {}", violation.0),
        }
    }
    sum
}

#[test]
fn sites_converge_whatever_happens_on_the_way() {
    let tally = play(0..ROUGH_HISTORIES, &Plan::ROUGH);
    // The histories are of use only while they meet all of it.
    let each = ROUGH_HISTORIES;
    assert!(tally.writes > 10 * each && tally.conflicts > each, "{tally:?}");
    assert!(tally.deltas_from_memory > each && tally.deltas_from_index > each, "{tally:?}");
    assert!(tally.cuts > each && tally.resumes > each / 4 && tally.crashes > each, "{tally:?}");
    assert!(tally.rows_held > each / 4 && tally.wants > each / 10, "{tally:?}");
    assert!(tally.commits_found > 10 && tally.commits_lost > 10, "{tally:?}");
    assert!(tally.refusals > 10, "{tally:?}");
}

/// The oracle has teeth: each rule that is tempting and wrong is found out.
#[test]
fn wrong_rules_are_found_out() {
    for rule in [
        Rule::HeadsRowByRow,
        Rule::CheckpointOfNow,
        Rule::LiveDelta,
        Rule::OnlyClaimedRows,
        Rule::TentativeOfAnyone,
        Rule::UndurableHead,
        Rule::TaintForgotten,
        Rule::StaleOwnHead,
    ] {
        let found = (0..WRONG_HISTORIES_MAX).any(|seed| run(seed, rule, &Plan::ROUGH).is_err());
        assert!(found, "{rule:?} is not found out: the oracle is blind");
    }
}

/// So are those that chance would need thousands of histories for.
#[test]
fn each_story_shows_why_its_rule_is_what_it_is() {
    let stories: [(Story, Rule); 3] = [
        (stories::tentative_is_for_one_sender, Rule::TentativeOfAnyone),
        (stories::rows_sent_are_no_cursor, Rule::CursorAtHighestRow),
        (stories::memory_goes_origin_by_origin, Rule::CommitOrder),
    ];
    for (story, wrong) in stories {
        if let Err(violation) = story(Rule::Sound) {
            panic!("the sound rule, against {wrong:?}: {}", violation.0);
        }
        assert!(story(wrong).is_err(), "{wrong:?} is not found out");
    }
}

/// In peace each row crosses a link once, and none goes back where it came from.
#[test]
fn in_peace_no_row_crosses_a_pairs_link_twice() {
    let plan = Plan { sites_max: 2, steps: 300, cuts: false, members: false, trouble: false };
    let tally = play(0..60, &plan);
    assert_eq!((tally.rows_sent_again, tally.rows_sent_back), (0, 0), "{tally:?}");
    assert!(tally.rows_sent > 60 * 10, "{tally:?}");
}

/// A catch-up that is cut off again and again goes on where it was: what arrived is not sent again.
#[test]
fn what_arrived_before_a_cut_is_not_sent_again() {
    let plan = Plan { sites_max: 2, steps: 300, cuts: true, members: false, trouble: false };
    let tally = play(0..60, &plan);
    assert!(tally.cuts > 60 && tally.resumes > 20, "{tally:?}");
    assert_eq!(tally.rows_sent_again, 0, "{tally:?}");
}

/// As many histories as asked: `SEEDS=0..5000 cargo test --release --test convergence many -- --ignored`.
#[test]
#[ignore = "as many histories as SEEDS asks for"]
fn many() {
    let seeds = std::env::var("SEEDS").unwrap_or_else(|_| "0..5000".into());
    let (from, to) = seeds.split_once("..").expect("SEEDS=from..to");
    let seeds = from.parse().expect("a number")..to.parse().expect("a number");
    println!("{:#?}", play(seeds, &Plan::ROUGH));
}

#[test]
#[ignore = "looks into one history: set REPLAY"]
#[expect(clippy::print_stdout, reason = "for whoever looks into it")]
fn replay() {
    let (seed, rule, plan) = REPLAY;
    match run(seed, rule, &plan) {
        Ok(tally) => println!("{tally:#?}"),
        Err(violation) => panic!("seed {seed} of {rule:?}, {plan:?}: {}", violation.0),
    }
}
