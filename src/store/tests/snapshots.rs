//! A snapshot shows one moment.

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
    let snapshot = site.store().snapshot();
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

/// A snapshot is of one moment, wherever the rows move meanwhile: its heads, tables and rows agree.
#[test]
fn a_snapshot_stays_as_it_is_while_memory_moves_into_redb() {
    let mut site = Site::new(1);
    site.put("a", "one");
    site.put("b", "one");
    let before = site.store().snapshot();
    site.put("a", "two");
    let between = site.store().snapshot();
    site.move_all();
    site.try_write(vec![delete("b"), put("c", "three")]).unwrap();
    site.move_all();
    let value = |snapshot: &Snapshot, name| {
        let body = snapshot.get(&table(), &key(name)).unwrap();
        body.and_then(|body| body.value())
    };
    assert_eq!(value(&before, "a").unwrap(), "one");
    assert_eq!(value(&between, "a").unwrap(), "two");
    for snapshot in [&before, &between] {
        assert_eq!(value(snapshot, "b").unwrap(), "one");
        assert_eq!(scanned(snapshot, &ScanRange::default()), ["a", "b"]);
        assert_eq!(snapshot.changes(&Heads::new()).unwrap().count(), 2);
        assert_eq!(snapshot.rows().unwrap(), 2);
    }
    let after = site.store().snapshot();
    assert_eq!((value(&after, "b"), value(&after, "c").unwrap()), (None, "three".into()));
}

#[test]
fn scans_visit_their_range_in_either_direction() {
    let mut site = Site::new(1);
    let other = TableName::of_client("other").unwrap();
    let there = LocalWrite { table: other, operation: put("b", "elsewhere").operation };
    site.try_write(vec![put("b", "v"), there, put("a", "v"), put("\u{ff}", "v"), put("ba", "v")])
        .unwrap();
    let snapshot = site.store().snapshot();
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
    let snapshot = site.store().snapshot();
    assert_eq!(snapshot.count_changes(&Heads::new(), 100).unwrap(), 5);
    assert_eq!(snapshot.count_changes(&Heads::new(), 3).unwrap(), 3);
    let ours = heads(&[(5, Hlc::MAX)]);
    assert_eq!(snapshot.oldest_change(&ours).unwrap(), Some(at(1, 0)));
    let two = heads(&[(5, Hlc::MAX), (0xff, at(1, 0))]);
    assert_eq!(snapshot.oldest_change(&two).unwrap(), Some(at(3, 0)));
    let all = heads(&[(0, Hlc::MAX), (2, Hlc::MAX), (5, Hlc::MAX), (0xff, Hlc::MAX)]);
    assert_eq!(snapshot.oldest_change(&all).unwrap(), None);
}

/// Of what memory holds of an origin some entries are taken at a time: none is lost between two takes, and none
/// counts that was replaced, or that the snapshot does not see.
#[test]
fn many_changes_are_found_in_every_layer() {
    let rows = |numbers: std::ops::Range<usize>, value: &str| {
        let put = |n| {
            let (key, value) = (Key::new(format!("{n:05}")).unwrap(), value.to_owned().into());
            let operation = Operation::Put { key, value, expires_at_ms: None };
            LocalWrite { table: table(), operation }
        };
        numbers.map(put).collect::<Vec<_>>()
    };
    let mut site = Site::new(1);
    site.try_write(rows(0..500, "moved")).unwrap();
    site.move_all();
    site.try_write(rows(400..700, "replaced")).unwrap();
    site.try_write(rows(450..900, "newest")).unwrap();
    let snapshot = site.store().snapshot();
    site.try_write(rows(0..1_000, "not seen")).unwrap();
    let mut found: Vec<(Hlc, String, String)> = Vec::new();
    for row in snapshot.changes(&Heads::new()).unwrap().map(Result::unwrap) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let value = text(&row.body.value().unwrap());
        found.push((row.body.version().hlc, text(row.key.as_slice()), value));
    }
    assert!(found.is_sorted_by(|one, next| one.0 < next.0));
    let expected = (0..900).map(|n| {
        let value = match n {
            0..400 => "moved",
            400..450 => "replaced",
            _ => "newest",
        };
        (format!("{n:05}"), value.to_owned())
    });
    assert!(found.into_iter().map(|(_, key, value)| (key, value)).eq(expected));
    assert_eq!(snapshot.count_changes(&Heads::new(), u64::MAX).unwrap(), 900);
}
