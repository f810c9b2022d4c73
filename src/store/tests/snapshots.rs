//! What a reader sees while the writer goes on.

use super::*;

fn scanned(snapshot: &Snapshot, range: &ScanRange) -> Vec<String> {
    let rows = snapshot.scan(&table(), range).unwrap();
    rows.map(|row| String::from_utf8(row.unwrap().key.as_slice().to_vec()).unwrap()).collect()
}

fn range(start: &str, end: &str, reverse: bool) -> ScanRange {
    let bound = |text: &str| (!text.is_empty()).then(|| text.as_bytes().to_vec());
    ScanRange { start: bound(start), end: bound(end), reverse }
}

#[test]
fn a_snapshot_does_not_see_what_is_written_after_it() {
    let mut site = Site::new(1);
    let first = site.put("k", "one");
    let snapshot = site.store().snapshot().unwrap();
    let second = site.put("k", "two");
    site.put("l", "new");
    site.try_write(vec![delete("k")]).unwrap();
    assert_eq!(snapshot.get(&table(), &key("k")).unwrap().unwrap().version(), first);
    assert_eq!(snapshot.rows().unwrap(), 1);
    assert_eq!(scanned(&snapshot, &ScanRange::default()), ["k"]);
    let changes: Vec<_> = snapshot.changes(&Heads::new()).unwrap().map(Result::unwrap).collect();
    assert_eq!(changes.len(), 1);
    assert!(snapshot.heads().includes(first) && !snapshot.heads().includes(second));
}

/// The heads are read before the rows: the rows of a commit in between stand above the heads, and
/// a table that it created is there for whoever passes changes on.
#[test]
fn a_commit_between_heads_and_rows_is_more_than_the_heads_claim() {
    let mut site = Site::new(1);
    site.put("k", "one");
    let published = site.store().published();
    let fresh = TableName::of_client("fresh").unwrap();
    let there = LocalWrite { table: fresh.clone(), operation: put("k", "v").operation };
    let written = site.try_write(vec![there, put("k", "two")]).unwrap();
    let read = site.store().shared.database.begin_read().unwrap();
    let snapshot = Snapshot::new(read, published).unwrap();
    assert!(!snapshot.heads().includes(written[0].version));
    let above: Vec<_> = snapshot.changes(snapshot.heads()).unwrap().map(Result::unwrap).collect();
    let tables: Vec<_> = above.iter().map(|row| row.table.as_str()).collect();
    assert_eq!(tables, ["fresh", "t"]);
    // Readers are shown the tables of the heads' moment.
    assert!(!snapshot.has_table(&fresh));
    assert_eq!(snapshot.get(&fresh, &key("k")).unwrap(), None);
    assert_eq!(snapshot.scan(&fresh, &ScanRange::default()).unwrap().count(), 0);
}

#[test]
fn scans_visit_their_range_in_either_direction() {
    let mut site = Site::new(1);
    let other = TableName::of_client("other").unwrap();
    let there = LocalWrite { table: other, operation: put("b", "elsewhere").operation };
    site.try_write(vec![put("b", "v"), there, put("a", "v"), put("\u{ff}", "v"), put("ba", "v")])
        .unwrap();
    let snapshot = site.store().snapshot().unwrap();
    let all = ["a", "b", "ba", "\u{ff}"];
    assert_eq!(scanned(&snapshot, &range("", "", false)), all);
    assert_eq!(scanned(&snapshot, &range("", "", true)), ["\u{ff}", "ba", "b", "a"]);
    assert_eq!(scanned(&snapshot, &range("b", "", false)), ["b", "ba", "\u{ff}"]);
    assert_eq!(scanned(&snapshot, &range("b", "ba", false)), ["b"]);
    assert_eq!(scanned(&snapshot, &range("aa", "c", true)), ["ba", "b"]);
    assert!(scanned(&snapshot, &range("c", "b", false)).is_empty());
    let empty = ScanRange { end: Some(Vec::new()), ..ScanRange::default() };
    assert!(scanned(&snapshot, &empty).is_empty());
    let nowhere = TableName::of_client("nowhere").unwrap();
    assert_eq!(snapshot.scan(&nowhere, &ScanRange::default()).unwrap().count(), 0);
}

#[test]
fn changes_go_origin_by_origin_in_the_order_of_stamps() {
    let mut site = Site::new(5);
    site.merge(vec![
        peers_row("d", 0xff, at(1, 0), &[], "x"),
        peers_row("c", 2, at(9, 0), &[], "x"),
        peers_row("b", 2, at(3, 0), &[], "x"),
        peers_row("a", 0, at(4, 0), &[], "x"),
    ]);
    site.put("e", "ours");
    let keys = |above: &Heads| -> Vec<String> {
        let rows = site.changes(above);
        rows.iter().map(|row| format!("{:?}", row.key)).collect()
    };
    assert_eq!(keys(&Heads::new()), ["a", "b", "c", "e", "d"]);
    assert_eq!(keys(&heads(&[(2, at(3, 0)), (0, at(5, 0))])), ["c", "e", "d"]);
    assert_eq!(keys(&heads(&[(2, Hlc::MAX), (0xff, Hlc::MAX), (0, at(3, 9))])), ["a", "e"]);
    let snapshot = site.store().snapshot().unwrap();
    assert_eq!(snapshot.count_changes(&Heads::new(), 100).unwrap(), 5);
    assert_eq!(snapshot.count_changes(&Heads::new(), 3).unwrap(), 3);
    let ours = heads(&[(5, Hlc::MAX)]);
    assert_eq!(snapshot.oldest_change(&ours).unwrap(), Some(at(1, 0)));
    let two = heads(&[(5, Hlc::MAX), (0xff, at(1, 0))]);
    assert_eq!(snapshot.oldest_change(&two).unwrap(), Some(at(3, 0)));
    let all = heads(&[(0, Hlc::MAX), (2, Hlc::MAX), (5, Hlc::MAX), (0xff, Hlc::MAX)]);
    assert_eq!(snapshot.oldest_change(&all).unwrap(), None);
}
