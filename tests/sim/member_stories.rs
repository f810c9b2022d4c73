//! Stories of sites that are removed, and that come back. `stage.rs` says how they are told.

use lastword::{
    model::{Hlc, Key, TableName},
    protocol::{Delta, Frame},
};

use super::{Rule, Violation, stage::Stage};

/// 2 is removed, and what it wrote came to 0, whose acknowledgement comes to 1 in a delta that breaks before the rest.
/// What 0 had when it said so is not here yet.
pub(crate) fn a_removal_counts_as_acknowledged_once_that_is_claimed(
    rule: Rule,
) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.put(2, "row")?;
    stage.pull(2, 0, None)?;
    stage.remove(1, 2)?;
    stage.advance(1)?;
    stage.pull(1, 0, None)?;
    stage.advance(0)?;
    stage.pull(0, 1, Some(1))?;
    stage.advance(1)?;
    stage.closes(&[0, 1], 2)
}

/// 0 removes 2, of which it has a row, and is removed itself before it says so: 1 has heard of the removal first, and
/// then got the row. It is deleted, and stays dead when 2 comes back with it.
pub(crate) fn an_acknowledgement_tells_of_what_the_remover_had(
    rule: Rule,
) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.put(2, "row")?;
    stage.pull(2, 0, None)?;
    stage.remove(0, 2)?;
    stage.pull(0, 1, Some(1))?;
    stage.advance(1)?;
    stage.pull(0, 1, None)?;
    stage.remove(1, 0)?;
    stage.delete(1, "row")?;
    for _ in 0..3 {
        stage.advance(1)?;
    }
    stage.purge(1)?;
    stage.0.come_back(2)?;
    stage.comes_in(2, &[(1, 2), (2, 1)])?;
    let (table, key) = (TableName::of_client("t").unwrap(), Key::new("row").unwrap());
    if stage.0.sites[1].snapshot().get(&table, &key).unwrap().is_some() {
        return Err(Violation("a deleted row is back".into()));
    }
    Ok(())
}

/// 0 and 1 have acknowledged that 3 is removed, and 0 removes 2 as well. 1, which has not heard of that, gets from 2
/// what 3 wrote.
pub(crate) fn removals_are_complete_together(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 4)?;
    stage.put(3, "row")?;
    stage.pull(3, 2, None)?;
    stage.remove(0, 3)?;
    stage.advance(0)?;
    stage.pull(0, 1, None)?;
    stage.advance(1)?;
    stage.pull(1, 0, None)?;
    stage.remove(0, 2)?;
    stage.advance(0)?;
    stage.pull(2, 1, None)?;
    stage.closes(&[0, 1], 3)
}

/// The same, and the row is deleted and purged before 3 comes back with it: it stays dead, though it came to 1 after that
/// had said what it has.
pub(crate) fn what_came_after_an_acknowledgement_died(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 4)?;
    stage.put(3, "row")?;
    stage.pull(3, 2, None)?;
    stage.remove(0, 3)?;
    stage.advance(0)?;
    stage.pull(0, 1, None)?;
    stage.advance(1)?;
    stage.pull(1, 0, None)?;
    stage.remove(0, 2)?;
    stage.pull(2, 1, None)?;
    for _ in 0..3 {
        stage.meet_all(0..2)?;
    }
    stage.delete(1, "row")?;
    for _ in 0..3 {
        stage.meet_all(0..2)?;
    }
    stage.purge(0)?;
    stage.purge(1)?;
    stage.0.come_back(3)?;
    stage.comes_in(3, &[(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)])?;
    let (table, key) = (TableName::of_client("t").unwrap(), Key::new("row").unwrap());
    if stage.0.sites[0].snapshot().get(&table, &key).unwrap().is_some() {
        return Err(Violation("a deleted row is back".into()));
    }
    Ok(())
}

/// 0 has said what it has of 2, which is removed and does not know it, and 1 has closed it. The link of 0 and 2 is still
/// there: nothing more comes in by it.
pub(crate) fn nothing_more_comes_from_a_removed_site(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.pull(2, 0, None)?;
    stage.remove(1, 2)?;
    stage.advance(1)?;
    stage.pull(1, 0, None)?;
    stage.advance(0)?;
    stage.pull(0, 1, None)?;
    stage.advance(1)?;
    stage.put(2, "row")?;
    stage.pull(2, 0, None)?;
    stage.closes(&[0, 1], 2)
}

/// 0 says that 2 is closed, for what reason ever. 1 has not heard of a removal, and goes on listening to 2.
pub(crate) fn a_peers_word_alone_closes_nobody(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    let (link, end) = stage.link(0, 1);
    stage.deliver_all(link)?;
    let origin = stage.0.sites[2].origin();
    let word = Delta {
        snapshot_heads: Some([(origin, Hlc::MAX)].into_iter().collect()),
        last: true,
        want_number: stage.0.talk_ref(link, end).sender.want_number(),
        ..Delta::default()
    };
    stage.0.links[link].wires[1 - end].push_back(Frame::Delta(word));
    stage.deliver_all(link)?;
    stage.put(2, "row")?;
    stage.comes_in(2, &[(0, 1), (1, 0), (1, 2), (2, 1)])
}

/// In a cluster that is not sealed 0 removes 1, which alone has met 2: 0 knows of nobody else who has what 1 wrote.
pub(crate) fn nobody_is_closed_while_founders_are_unknown(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 2);
    stage.0.found_site()?;
    stage.put(1, "row")?;
    stage.pull(1, 2, None)?;
    stage.remove(0, 1)?;
    stage.advance(0)?;
    stage.advance(0)?;
    stage.pull(2, 0, None)?;
    stage.0.seal(0)?;
    stage.closes(&[0, 2], 1)
}

/// What 3 wrote comes to 0 with a gap, and who knew what fills it is removed, as 3 is. 1, which never had that, may
/// delete it meanwhile.
fn removed_with_a_gap(rule: Rule, deletes: bool) -> Result<Stage, Violation> {
    let mut stage = Stage::sealed(rule, 4)?;
    stage.put(3, "older")?;
    stage.put(3, "younger")?;
    stage.pull(3, 2, None)?;
    stage.put(2, "older")?;
    stage.pull(2, 0, Some(1))?;
    if deletes {
        stage.delete(1, "older")?;
    }
    stage.remove(0, 2)?;
    stage.remove(0, 3)?;
    for _ in 0..3 {
        stage.meet_all(0..2)?;
    }
    Ok(stage)
}

/// The row in the gap comes anew with 3: nothing that is younger is purged, so it cannot have died.
pub(crate) fn what_cannot_have_died_comes_anew(rule: Rule) -> Result<(), Violation> {
    let mut stage = removed_with_a_gap(rule, false)?;
    stage.0.come_back(3)?;
    stage.comes_in(3, &[(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)])?;
    let (table, key) = (TableName::of_client("t").unwrap(), Key::new("older").unwrap());
    if stage.0.sites[0].snapshot().get(&table, &key).unwrap().is_none() {
        return Err(Violation("a row that cannot have died is lost".into()));
    }
    Ok(())
}

/// The row in the gap was deleted, and that is purged. When 3 comes back, nobody can tell what became of its row: it is
/// kept as a conflict.
pub(crate) fn what_may_have_died_is_recorded(rule: Rule) -> Result<(), Violation> {
    let mut stage = removed_with_a_gap(rule, true)?;
    stage.purge(0)?;
    stage.purge(1)?;
    stage.0.come_back(3)?;
    stage.comes_in(3, &[(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)])
}

/// 2 is set back before the cluster is sealed, and nobody admits it: nobody else removes its earlier self, for which
/// all would wait.
pub(crate) fn who_comes_back_before_the_seal_removes_its_earlier_self(
    rule: Rule,
) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 3);
    stage.put(0, "row")?;
    stage.0.sites[2].back_up();
    stage.0.oracle.backed_up(2);
    let earlier = stage.0.sites[2].origin();
    stage.0.come_back(2)?;
    assert_ne!(stage.0.sites[2].origin(), earlier, "the story is idle");
    stage.meet_all(0..3)?;
    stage.delete(1, "row")?;
    stage.0.seal(0)?;
    for _ in 0..2 {
        stage.settle(&[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])?;
    }
    for site in 0..3 {
        stage.0.purge(site)?;
        let snapshot = stage.0.sites[site].snapshot();
        if snapshot.count_dead(stage.0.now_ms, 1).unwrap() > 0 {
            return Err(Violation(format!("site {site} never purges what is dead")));
        }
    }
    stage.0.check_end()
}

/// 2 has a row that is deleted and purged at 1, and whose writer's clock has gone ahead since, for 2 too far, whose own
/// has gone back. What died there dies here, however little of that writer's head may be claimed.
pub(crate) fn a_slow_clock_keeps_no_row_that_died(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 2)?;
    stage.put(0, "row")?;
    stage.pull(0, 1, None)?;
    stage.delete(1, "row")?;
    stage.advance(0)?;
    stage.pull(0, 1, None)?;
    let newcomer = stage.found(0)?;
    stage.pull(1, 0, None)?;
    stage.purge(1)?;
    let now_ms = stage.0.now_ms;
    stage.0.sites[0].set_clock(8_000, now_ms);
    stage.0.sites[newcomer].set_clock(-4_000, now_ms);
    stage.advance(0)?;
    stage.pull(0, 1, None)?;
    stage.0.cut_where(|_| true);
    stage.pull(1, newcomer, None)?;
    assert!(stage.0.tally.died_elsewhere == 1 || rule != Rule::Sound, "the story is idle");
    stage.settle(&[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])?;
    for site in 0..3 {
        stage.0.purge(site)?;
    }
    stage.0.check_end()
}

/// 2 was set back to before a row died, and reconciles with 1, whose clock is ahead: a row is held back. It asks once
/// more while the rest of the first answer is still on its way, which is no answer to that.
pub(crate) fn an_old_answer_ends_no_reconciliation(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.put(0, "row")?;
    stage.meet_all(0..3)?;
    stage.0.back_up(2);
    stage.delete(1, "row")?;
    stage.meet_all(0..3)?;
    stage.meet_all(0..3)?;
    stage.purge(0)?;
    stage.purge(1)?;
    stage.0.come_back(2)?;
    let (link, end) = stage.link(1, 2);
    while stage.0.tally.joined == 0 {
        let to = (0..2).find(|to| !stage.0.links[link].wires[*to].is_empty());
        stage.0.deliver(link, to.expect("it is taken in"))?;
    }
    let now_ms = stage.0.now_ms;
    stage.0.sites[1].set_clock(8_000, now_ms);
    stage.0.sites[2].set_clock(-4_000, now_ms);
    stage.put(1, "ahead")?;
    stage.put(1, "further ahead")?;
    stage.deliver_all(link)?;
    assert!(stage.0.begin(link, end)?, "the first half");
    while stage.0.tally.rows_held == 0 {
        stage.0.send_part(link, end, 1, true);
        stage.deliver_all(link)?;
    }
    stage.0.now_ms += 20_000;
    assert!(stage.0.ask_again(link, 1 - end), "it is due");
    stage.0.send_part(link, end, 10, false);
    stage.0.deliver(link, 1 - end)?;
    stage.pull(1, 2, None)?;
    stage.comes_in(2, &[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])
}
