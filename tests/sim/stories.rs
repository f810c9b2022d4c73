//! Histories that chance seldom writes: each shows why one rule is what it is. `stage.rs` says how they are told.

use super::{Rule, Violation, stage::Stage};

/// Two rows of 0 reach 1, where the older one is replaced; 2 gets the younger one only. What that
/// allows to skip at 1 must not be skipped at 0.
pub(crate) fn tentative_is_for_one_sender(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 3);
    stage.put(0, "older")?;
    stage.put(0, "younger")?;
    stage.pull(0, 1, None)?;
    stage.put(1, "older")?;
    stage.pull(1, 2, Some(1))?;
    stage.pull(0, 2, None)?;
    stage.pull(1, 2, None)?;
    stage.0.check_stores()
}

/// The same gap at 2, whose delta to 3 breaks behind the younger row. The older one comes to 2 later, and
/// is not among what 3 may skip.
pub(crate) fn tentative_ends_at_what_the_sender_claims(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 4);
    stage.put(0, "older")?;
    stage.put(0, "younger")?;
    stage.pull(0, 1, None)?;
    stage.put(1, "older")?;
    stage.pull(1, 2, Some(1))?;
    stage.pull(2, 3, Some(1))?;
    stage.pull(0, 2, None)?;
    stage.pull(2, 3, None)?;
    stage.0.check_stores()
}

/// The same gap at 2, which passes the younger row on to 3. The older one comes to 2 later, and must
/// still be passed on.
pub(crate) fn rows_sent_are_no_cursor(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 4);
    stage.put(0, "older")?;
    stage.put(0, "younger")?;
    stage.pull(0, 1, None)?;
    stage.put(1, "older")?;
    stage.pull(1, 2, Some(1))?;
    stage.pull(2, 3, None)?;
    stage.put(0, "another")?;
    stage.pull(0, 2, None)?;
    stage.pull(2, 3, None)?;
    stage.0.check_stores()
}

/// 0 commits a row of its own, one of 1, and another of its own, while 2 listens; the link is cut
/// after the row of 1. Had it come second, the last row would have counted as passed.
pub(crate) fn memory_goes_origin_by_origin(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 3);
    stage.pull(0, 2, None)?;
    stage.put(0, "first")?;
    stage.put(1, "second")?;
    stage.pull(1, 0, None)?;
    stage.put(0, "third")?;
    stage.pull(0, 2, Some(2))?;
    stage.pull(0, 2, None)?;
    stage.0.check_stores()
}

/// What 1 has purged, 0 had with the tombstone in the end: but who was taken in by 0 before, and is not
/// known to 1, has the row still. Gives the newcomer.
fn newcomer_below_the_floor(stage: &mut Stage) -> Result<usize, Violation> {
    stage.put(1, "row")?;
    stage.pull(1, 0, None)?;
    stage.delete(1, "row")?;
    // Of 0 all is known up to here, which is before it takes anyone in.
    stage.advance(0)?;
    stage.pull(0, 1, None)?;
    stage.found(0)
}

/// Who comes in may stand below the floor of a member that did not know of it yet.
pub(crate) fn newcomer_reconciles_with_who_did_not_know_it(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 2)?;
    let newcomer = newcomer_below_the_floor(&mut stage)?;
    stage.pull(1, 0, None)?;
    stage.purge(1)?;
    stage.pull(1, newcomer, None)?;
    assert!(stage.0.tally.died_elsewhere == 1 || rule != Rule::Sound, "the story is idle");
    stage.0.check_stores()
}

/// The floor is there after a restart.
pub(crate) fn floor_outlives_a_restart(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 2)?;
    let newcomer = newcomer_below_the_floor(&mut stage)?;
    stage.pull(1, 0, None)?;
    stage.purge(1)?;
    stage.restart(1);
    stage.pull(1, newcomer, None)?;
    stage.0.check_stores()
}

/// Who was not heard of since the start has perhaps not heard of a deletion: it is not purged.
pub(crate) fn who_is_not_heard_of_holds_up(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.put(2, "row")?;
    stage.pull(2, 1, None)?;
    stage.delete(1, "row")?;
    for site in [0, 2] {
        stage.advance(site)?;
        stage.pull(site, 1, None)?;
    }
    stage.restart(1);
    stage.pull(0, 1, None)?;
    stage.pull(1, 0, None)?;
    stage.0.purge(1)?;
    stage.0.check_stores()
}

/// 0 knows somebody whom 1 does not, and has acknowledged the seal, which 1 hears of in a delta that
/// breaks before the rest. What 1 has deleted that one may have written.
pub(crate) fn acknowledgement_counts_once_it_is_claimed(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 2);
    stage.0.found_site()?;
    stage.put(2, "row")?;
    stage.delete(1, "row")?;
    stage.pull(1, 0, None)?;
    stage.advance(0)?;
    stage.pull(0, 1, None)?;
    let (link, _) = stage.link(0, 2);
    stage.deliver_all(link)?;
    stage.0.seal(1)?;
    stage.advance(1)?;
    stage.pull(1, 0, None)?;
    stage.advance(0)?;
    stage.pull(0, 1, Some(1))?;
    stage.0.purge(1)?;
    stage.pull(0, 1, None)?;
    stage.pull(2, 1, None)?;
    stage.0.check_stores()
}

/// A newcomer has said hello to 0, and writes before it asks. 1, whose clock is fast, admits it above
/// that, which it does not hear; 0, whose clock is slow, would admit it below.
pub(crate) fn admission_lies_above_all_that_was_stamped(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 2)?;
    (stage.0.sites[0].skew_ms, stage.0.sites[1].skew_ms) = (-2_000, 2_000);
    // Past what was reserved while the clocks were true.
    stage.0.now_ms += 60_000;
    stage.0.found_site()?;
    let (slow, end) = stage.link(0, 2);
    stage.0.deliver(slow, end)?;
    stage.put(2, "row")?;
    let (fast, end) = stage.link(1, 2);
    stage.0.deliver(fast, end)?;
    stage.0.deliver(fast, 1 - end)?;
    stage.0.deliver(fast, end)?;
    stage.0.cut(fast);
    let (slow, _) = stage.link(0, 2);
    stage.deliver_all(slow)?;
    stage.comes_in(2, &[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])
}

/// A newcomer has said hello to 0, and writes before it asks. The admission lies below that, and is of
/// no use the next time either.
pub(crate) fn an_old_admission_is_not_given_again(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 2)?;
    stage.0.sites[0].skew_ms = -2_000;
    stage.0.now_ms += 60_000;
    stage.0.found_site()?;
    let (slow, end) = stage.link(0, 2);
    stage.0.deliver(slow, end)?;
    stage.put(2, "row")?;
    stage.deliver_all(slow)?;
    stage.comes_in(2, &[(0, 1), (1, 0), (0, 2), (2, 0)])
}

/// A floor is taken over while links are open: it counts for each delta, not when a link begins.
pub(crate) fn floor_rises_under_an_open_link(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 2)?;
    let one = newcomer_below_the_floor(&mut stage)?;
    let other = stage.found(0)?;
    stage.pull(0, one, None)?;
    stage.pull(1, 0, None)?;
    stage.purge(1)?;
    stage.pull(other, one, None)?;
    stage.pull(1, other, None)?;
    stage.pull(other, one, None)?;
    stage.0.check_stores()
}

/// A reconciliation with 1 has seen that all is alike; then a row that died there would come from
/// somebody else.
pub(crate) fn nothing_comes_in_beside_a_reconciliation(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.put(2, "row")?;
    stage.pull(2, 1, None)?;
    stage.delete(1, "row")?;
    for site in [0, 2] {
        stage.advance(site)?;
        stage.pull(site, 1, None)?;
    }
    let without = stage.found(0)?;
    stage.pull(2, 0, None)?;
    let with = stage.found(0)?;
    // Its admission, and no more.
    stage.pull(0, without, Some(1))?;
    stage.pull(1, 0, None)?;
    stage.pull(1, 2, None)?;
    stage.purge(1)?;

    let (link, end) = stage.link(1, without);
    while stage.0.links[link].ends[1 - end].talk.as_ref().is_none_or(|t| t.comparing.is_none()) {
        let wires = &stage.0.links[link].wires;
        match (0..2).find(|end| !wires[*end].is_empty()) {
            Some(end) => drop(stage.0.deliver(link, end)?),
            None if stage.0.begin(link, end)? => stage.0.send_part(link, end, 10, false),
            // It says that the newcomer stands below its floor.
            None => {}
        }
    }
    stage.pull(with, without, None)?;
    stage.pull(1, without, None)?;
    stage.pull(with, without, None)?;
    stage.0.check_stores()
}

/// A row is long under way from 0 to 1. Meanwhile it came another way, and died, and everybody has
/// that: it is purged.
pub(crate) fn what_died_arrives_late(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    let (link, end) = stage.link(0, 1);
    stage.deliver_all(link)?;
    stage.put(0, "row")?;
    assert!(stage.0.begin(link, end)?, "there is news");
    stage.0.send_part(link, end, 10, false);
    stage.pull(0, 2, None)?;
    stage.delete(2, "row")?;
    stage.pull(2, 0, None)?;
    stage.advance(0)?;
    stage.pull(0, 2, None)?;
    stage.pull(2, 1, None)?;
    stage.tell(2, 1)?;
    stage.advance(1)?;
    stage.purge(1)?;
    stage.deliver_all(link)?;
    stage.0.check_stores()
}

/// Everybody has a deletion, and it is purged. Then one disk after the other is set back to before it: in the
/// end nobody is left who met it, and the row stays dead.
pub(crate) fn a_deletion_outlives_all_who_met_it(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.put(0, "row")?;
    stage.meet_all(0..3)?;
    (0..3).for_each(|site| stage.0.back_up(site));
    stage.delete(1, "row")?;
    stage.meet_all(0..3)?;
    stage.meet_all(0..3)?;
    for site in 0..3 {
        stage.purge(site)?;
    }
    for site in 0..3 {
        stage.0.come_back(site)?;
        stage.comes_in(site, &[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])?;
    }
    assert_eq!(stage.0.tally.died_elsewhere, 3, "the story is idle");
    Ok(())
}

/// A deletion comes to 3 alone before both stores are removed. 3 brings it back, written anew; who writes the row
/// again has seen it, and 2 has it still.
pub(crate) fn a_deletion_that_two_removed_sites_had(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 4)?;
    stage.delete(2, "row")?;
    stage.pull(2, 3, None)?;
    stage.remove(0, 2)?;
    stage.remove(0, 3)?;
    for _ in 0..3 {
        stage.meet_all(0..2)?;
    }
    let mut ways = vec![(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)];
    stage.0.come_back(3)?;
    stage.settle(&ways)?;
    stage.put(0, "row")?;
    ways.extend([(0, 2), (2, 0), (1, 2), (2, 1), (3, 2), (2, 3)]);
    stage.0.come_back(2)?;
    stage.comes_in(2, &ways)?;
    assert!(stage.0.tally.renewed > 0, "the story is idle");
    Ok(())
}

/// A deletion comes to 0 without a claim before its store is removed, and is written anew when that comes
/// back. Who wrote the row again had seen it: there is no conflict.
pub(crate) fn a_deletion_that_came_without_a_claim(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.delete(2, "row")?;
    stage.put(2, "another")?;
    stage.pull(2, 0, Some(1))?;
    stage.remove(0, 2)?;
    for _ in 0..3 {
        stage.meet_all(0..2)?;
    }
    stage.0.come_back(2)?;
    stage.pull(1, 2, None)?;
    stage.put(0, "row")?;
    stage.pull(1, 0, None)?;
    stage.pull(0, 2, None)?;
    stage.comes_in(2, &[(0, 1), (1, 0), (0, 2), (2, 0)])?;
    assert!(stage.0.tally.renewed > 0, "the story is idle");
    Ok(())
}

/// 2 was removed, which it does not know, and admits a newcomer that never hears of it, by a clock that is fast.
/// The newcomer comes in by way of 0, and stamps below. When it meets 2, it was not set back; when 2 comes back, it
/// lacks what the newcomer wrote, and writes still.
pub(crate) fn an_admission_by_a_removed_site(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.remove(0, 2)?;
    stage.0.sites[2].skew_ms = 6_000;
    stage.0.found_site()?;
    stage.admits(2, 3)?;
    // 1 does not know it either, and sends a part of what it has.
    stage.put(1, "one")?;
    stage.put(1, "two")?;
    stage.pull(1, 2, Some(1))?;
    for _ in 0..3 {
        stage.meet_all(0..2)?;
    }
    for _ in 0..8 {
        for (from, to) in [(0, 3), (3, 0), (0, 1), (1, 0), (1, 3), (3, 1)] {
            stage.advance(from)?;
            stage.pull(from, to, None)?;
            stage.tell(from, to)?;
        }
    }
    assert!(stage.0.members().contains(&3), "the story is idle");
    stage.put(3, "three")?;
    stage.pull(3, 2, None)?;
    stage.0.come_back(2)?;
    for (from, to) in [(3, 0), (0, 2), (0, 1)] {
        stage.pull(from, to, None)?;
    }
    assert_eq!(stage.0.tally.joined, 2, "the story is idle");
    stage.put(3, "four")?;
    for (from, to) in [(3, 1), (1, 2)] {
        stage.pull(from, to, None)?;
    }
    let ways = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1), (3, 0), (0, 3), (3, 1), (1, 3)];
    stage.comes_in(2, &ways)
}
