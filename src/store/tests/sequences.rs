//! Generated ids: they go on, step over what stands there, and end.

use super::*;

fn ids(site: &mut Site, count: usize) -> Vec<String> {
    let written = site.try_write(vec![insert("v"); count]).unwrap();
    written.iter().map(|w| String::from_utf8(w.key.as_slice().to_vec()).unwrap()).collect()
}

fn site(offset: u64, increment: u64) -> Site {
    Site { sequence: Some(SequenceIds { offset, increment }), ..Site::new(1) }
}

#[test]
fn ids_go_on_by_the_increment_across_batches_and_restarts() {
    let mut site = site(2, 5);
    assert_eq!(ids(&mut site, 2), ["2", "7"]);
    assert_eq!(ids(&mut site, 1), ["12"]);
    site.reopen();
    assert_eq!(ids(&mut site, 1), ["17"]);
    site.check();
}

#[test]
fn each_table_counts_for_itself() {
    let mut site = site(1, 2);
    ids(&mut site, 3);
    let other = TableName::of_client("other").unwrap();
    let there = LocalWrite { table: other, operation: insert("v").operation };
    let written = site.try_write(vec![there.clone(), insert("v"), there]).unwrap();
    let keys: Vec<_> = written.iter().map(|w| w.key.as_slice()).collect();
    assert_eq!(keys, [b"1", b"7", b"3"]);
}

#[test]
fn other_settings_go_on_above_the_last_id() {
    let mut site = site(1, 2);
    assert_eq!(ids(&mut site, 3), ["1", "3", "5"]);
    site.sequence = Some(SequenceIds { offset: 2, increment: 10 });
    assert_eq!(ids(&mut site, 2), ["12", "22"]);
    site.sequence = Some(SequenceIds { offset: 10, increment: 10 });
    assert_eq!(ids(&mut site, 2), ["30", "40"]);
}

#[test]
fn places_that_were_ever_used_are_stepped_over() {
    let mut site = site(1, 1);
    site.try_write(vec![put("1", "by hand"), put("2", "by hand"), delete("3")]).unwrap();
    site.try_write(vec![delete("2")]).unwrap();
    assert_eq!(ids(&mut site, 1), ["4"]);
    assert_eq!(site.get("1").unwrap().value().unwrap(), "by hand");
    assert!(site.get("3").unwrap().is_tombstone());
    // Nor does an id fall onto a key that the same batch names, before or after.
    let written =
        site.try_write(vec![put("5", "hand"), insert("v"), insert("v"), delete("7")]).unwrap();
    let keys: Vec<_> = written.iter().map(|w| w.key.as_slice()).collect();
    assert_eq!(keys, [b"5", b"6", b"8", b"7"]);
    site.check();
}

/// What is merged from the site that had this offset before is not written over either.
#[test]
fn places_of_peers_rows_are_stepped_over() {
    let mut site = site(1, 1);
    site.merge(vec![peers_row("1", 2, at(1, 0), &[], "theirs")]);
    assert_eq!(ids(&mut site, 1), ["2"]);
    assert_eq!(site.get("1").unwrap().value().unwrap(), "theirs");
}

#[test]
fn ids_end_below_two_to_the_64th_and_a_refusal_uses_none() {
    let mut site = site(1, 1);
    site.try_write(vec![insert("v")]).unwrap();
    let write = site.store().shared.database.begin_write().unwrap();
    write.open_table(tables::SEQUENCES).unwrap().insert(0, u64::MAX - 4).unwrap();
    write.commit().unwrap();
    let last = "18446744073709551615";
    // Stepping over what was put by hand uses ids up too.
    site.try_write(vec![put("18446744073709551613", "by hand")]).unwrap();
    let exhausted = Err(RefusedError::SequenceExhausted(table()));
    assert_eq!(
        site.try_write(vec![put("k", "v"), insert("v"), insert("v"), insert("v"), insert("v")]),
        exhausted
    );
    assert!(site.get("k").is_none());
    assert_eq!(ids(&mut site, 2), ["18446744073709551612", "18446744073709551614"]);
    assert_eq!(ids(&mut site, 1), [last]);
    assert_eq!(site.try_write(vec![insert("v")]), exhausted);
    // Other writes go on.
    site.put("k", "v");
    site.reopen();
    assert_eq!(site.try_write(vec![insert("v")]), exhausted);
    site.check();
}

#[test]
fn an_increment_as_large_as_can_be_gives_one_id() {
    let mut site = site(u64::MAX, u64::MAX);
    assert_eq!(ids(&mut site, 1), ["18446744073709551615"]);
    assert!(site.try_write(vec![insert("v")]).is_err());
}
