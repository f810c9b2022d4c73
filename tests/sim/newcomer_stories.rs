//! Stories of stores that are let in, for the first time or again. `stage.rs` says how they are told.

use lastword::model::{Hlc, Key, TableName};

use super::{Rule, Violation, stage::Stage};

/// 0 is set back, and writes a row before it is admitted: until that is written anew 0 tells nobody what it has. 2 admits
/// it, and the answer is lost; it comes in by way of 1, of which 2 hears by way of 0 alone.
pub(crate) fn a_hub_comes_back(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.0.back_up(0);
    stage.0.come_back(0)?;
    stage.put(0, "row")?;
    stage.admits(2, 0)?;
    stage.comes_in(0, &[(0, 1), (1, 0), (0, 2), (2, 0)])?;
    assert_eq!(stage.0.tally.renewed, 1, "the story is idle");
    Ok(())
}

/// 2 comes back from a sealed cluster, and writes. 1, which is a member and has not heard of the seal, must not get that
/// before 0 has taken 2 in: it stands in the place of a row that 0 lacks.
pub(crate) fn who_waits_for_admission_meets_nobody(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::new(rule, 3);
    stage.put(1, "row")?;
    stage.0.seal(2)?;
    for (from, to) in [(2, 0), (0, 2)] {
        stage.advance(from)?;
        stage.pull(from, to, None)?;
    }
    stage.0.back_up(2);
    stage.0.come_back(2)?;
    stage.put(2, "row")?;
    stage.pull(2, 1, None)?;
    stage.pull(0, 2, None)?;
    stage.pull(1, 0, None)?;
    stage.comes_in(2, &[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])?;
    assert!(stage.0.tally.renewed > 0, "the story is idle");
    Ok(())
}

/// A row is deleted, and the tombstone purged. 0 is set back to after that and writes the row again before it is
/// admitted: it had seen the deletion. 2, which is set back to before, has the deleted row still.
pub(crate) fn who_comes_back_has_seen_what_it_had_seen(rule: Rule) -> Result<(), Violation> {
    let ways = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    let mut stage = Stage::sealed(rule, 3)?;
    stage.put(0, "row")?;
    stage.meet_all(0..3)?;
    stage.0.back_up(2);
    stage.delete(1, "row")?;
    stage.meet_all(0..3)?;
    stage.meet_all(0..3)?;
    stage.purge(0)?;
    stage.0.back_up(0);
    stage.0.come_back(0)?;
    stage.put(0, "row")?;
    stage.comes_in(0, &ways)?;
    stage.0.come_back(2)?;
    stage.comes_in(2, &ways)
}

/// 2 and 3 are removed, which they do not know, and admit a newcomer each, and the newcomers meet. That of 3 is told to
/// come back, and does; of the other one nobody hears anything that it could be known by.
pub(crate) fn who_is_not_in_takes_nobody_in(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 4)?;
    stage.remove(0, 2)?;
    stage.remove(0, 3)?;
    let (lost, newcomer) = (stage.found(2)?, stage.found(3)?);
    assert_eq!(stage.0.tally.joined, 2, "the story is idle");
    for _ in 0..4 {
        stage.meet_all(0..2)?;
    }
    stage.pull(lost, newcomer, None)?;
    stage.pull(newcomer, lost, None)?;
    stage.rejoin(newcomer)?;
    stage.comes_in(newcomer, &[(0, 1), (1, 0), (0, newcomer), (newcomer, 0), (1, newcomer)])?;
    let unknown = stage.0.sites[lost].origin();
    if stage.0.sites[0].heads().get(unknown) > Hlc::ZERO {
        return Err(Violation("0 claims what a store wrote that is no member".into()));
    }
    Ok(())
}

/// 2 is removed, which it does not know, and writes on. It takes in a newcomer that 0 has admitted, too: what this
/// has of 2 nobody else takes. It stands in the place of a row of 1, which 0 must not get by way of the newcomer.
pub(crate) fn what_a_removed_site_wrote_on_comes_anew(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.remove(0, 2)?;
    for _ in 0..4 {
        stage.meet_all(0..2)?;
    }
    stage.0.sites[2].skew_ms = 6_000;
    stage.put(2, "row")?;
    stage.0.found_site()?;
    stage.admits(0, 3)?;
    stage.pull(2, 3, None)?;
    assert_eq!((stage.0.tally.admitted, stage.0.tally.joined), (2, 1), "the story is idle");
    stage.pull(0, 1, None)?;
    stage.put(1, "row")?;
    stage.pull(1, 3, None)?;
    stage.pull(3, 0, None)?;
    stage.rejoin(3)?;
    stage.comes_in(3, &[(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)])?;
    assert!(stage.0.tally.renewed > 0, "the story is idle");
    Ok(())
}

/// 2 admits a newcomer, by a clock that is fast, and the answer is lost; the newcomer comes in by way of 0, and has a
/// link to 2 when it hears that 2 is removed. What 2 says of it then is no sign that it was set back.
pub(crate) fn a_link_to_a_removed_site_ends_as_such(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.0.sites[2].skew_ms = 6_000;
    stage.0.found_site()?;
    stage.admits(2, 3)?;
    stage.pull(0, 3, None)?;
    let (link, end) = stage.link(2, 3);
    stage.deliver_all(link)?;
    let id = stage.0.links[link].id;
    stage.remove(0, 2)?;
    for _ in 0..4 {
        for (from, to) in [(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)] {
            stage.advance(from)?;
            stage.pull(from, to, None)?;
            stage.tell(from, to)?;
        }
    }
    assert!(stage.0.members().contains(&3), "the story is idle");
    let link = stage.0.links.iter().position(|link| link.id == id).expect("a link to 2");
    assert!(stage.0.begin(link, end)?, "the story is idle");
    stage.0.send_part(link, end, 10, false);
    stage.deliver_all(link)?;
    stage.comes_in(3, &[(0, 1), (1, 0), (0, 3), (3, 0), (1, 3), (3, 1)])
}

/// 2 comes back, is let in, and comes back once more before it has written its row anew. That waits still.
pub(crate) fn what_was_to_come_anew_still_is(rule: Rule) -> Result<(), Violation> {
    let ways = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)];
    let mut stage = Stage::sealed(rule, 3)?;
    stage.rejoin(2)?;
    stage.put(2, "row")?;
    for _ in 0..3 {
        stage.advance(0)?;
        for (from, to) in ways {
            stage.pull(from, to, None)?;
            stage.tell(from, to)?;
        }
    }
    stage.advance(2)?;
    assert!(stage.0.members().contains(&2) && stage.0.tally.renewed == 0, "the story is idle");
    stage.rejoin(2)?;
    stage.comes_in(2, &ways)?;
    assert!(stage.0.tally.renewed > 0, "the story is idle");
    Ok(())
}

/// A row of 2's waits to be written anew, and 0 has written over it meanwhile: the row stays 0's, and the loss is
/// recorded.
pub(crate) fn what_was_written_over_does_not_come_anew(rule: Rule) -> Result<(), Violation> {
    let mut stage = Stage::sealed(rule, 3)?;
    stage.rejoin(2)?;
    stage.put(2, "row")?;
    stage.pull(0, 2, None)?;
    stage.put(0, "row")?;
    stage.pull(0, 2, None)?;
    assert!(stage.0.tally.joined == 1 && stage.0.tally.renewed == 0, "the story is idle");
    stage.comes_in(2, &[(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)])?;
    let (table, key) = (TableName::of_client("t").unwrap(), Key::new("row").unwrap());
    let row = stage.0.sites[1].snapshot().get(&table, &key).unwrap();
    if row.map(|row| row.version().origin) != Some(stage.0.sites[0].origin()) {
        return Err(Violation("somebody writes what was written elsewhere".into()));
    }
    Ok(())
}
