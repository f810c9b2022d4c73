//! A client's writes: what stands afterwards, and what is refused.

use super::*;

#[test]
fn a_put_replaces_the_whole_row_and_its_entry_in_the_change_index() {
    let mut site = Site::new(1);
    let first = site.put("k", "one");
    let second = site.put("k", "two");
    site.check();
    assert!(second > first);
    assert_eq!(site.get("k").unwrap().value().unwrap(), "two");
    let changes = site.changes(&Heads::new());
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].body.version(), second);
    // The writer had seen its own earlier write: its stamp says so, no context is needed.
    assert!(changes[0].body.context().is_empty());
}

#[test]
fn a_delete_leaves_a_tombstone_whether_or_not_a_row_was_there() {
    let mut site = Site::new(1);
    site.put("k", "one");
    let written = site.try_write(vec![delete("k"), delete("never")]).unwrap();
    site.check();
    assert_eq!(written.iter().map(|w| w.existed).collect::<Vec<_>>(), [true, false]);
    assert!(site.get("k").unwrap().is_tombstone() && site.get("never").unwrap().is_tombstone());
    assert!(!site.try_write(vec![delete("k")]).unwrap()[0].existed);
    assert!(!site.try_write(vec![put("k", "again")]).unwrap()[0].existed);
    assert!(site.get("k").unwrap().is_live(site.now_ms));
}

#[test]
fn an_expired_row_did_not_exist() {
    let mut site = Site::new(1);
    let value = Bytes::from("short");
    let expires_at_ms = Some(NOON_MS + 5);
    let operation = Operation::Put { key: key("k"), value, expires_at_ms };
    site.try_write(vec![LocalWrite { table: table(), operation }]).unwrap();
    assert!(site.get("k").unwrap().is_live(NOON_MS + 4));
    assert!(!site.get("k").unwrap().is_live(NOON_MS + 5));
    site.now_ms = NOON_MS + 5;
    assert!(!site.try_write(vec![put("k", "long")]).unwrap()[0].existed);
    assert_eq!(site.get("k").unwrap().expires_at_ms(), None);
}

#[test]
fn a_batch_is_applied_in_order_and_its_last_word_stands() {
    let mut site = Site::new(1);
    let batch = site.batch(vec![put("k", "one"), delete("k"), put("l", "x"), put("k", "two")]);
    let applied = site.apply(&[Request::Local(batch)]);
    site.check();
    let written = local(&applied.outcomes[0]).unwrap();
    assert!(written.windows(2).all(|pair| pair[0].version < pair[1].version));
    assert_eq!(written.iter().map(|w| w.existed).collect::<Vec<_>>(), [false, true, false, false]);
    // Each changed row once, as it stands, in the order of the versions.
    let rows: Vec<_> = applied.rows.iter().map(|row| row.body.version()).collect();
    assert_eq!(rows, [written[2].version, written[3].version]);
    assert!(applied.heads.includes(written[3].version));
}

/// Requests of many callers share a commit; the refusal of one is its own affair.
#[test]
fn a_refused_batch_writes_nothing_and_leaves_its_group_alone() {
    let mut site = Site::new(1);
    let good = Request::Local(site.batch(vec![put("good", "v")]));
    let other = TableName::of_client("other").unwrap();
    let there = LocalWrite { table: other.clone(), operation: put("k", "v").operation };
    let refused = LocalBatch {
        create_tables: false,
        ..site.batch(vec![put("bad", "v"), there, put("bad", "w")])
    };
    let no_ids = Request::Local(site.batch(vec![put("bad", "v"), insert("x")]));
    let applied = site.apply(&[good, Request::Local(refused), no_ids, Request::Advance]);
    site.check();
    assert!(local(&applied.outcomes[0]).is_ok());
    // The good batch created its table within this very transaction; the other is not there.
    assert_eq!(local(&applied.outcomes[1]), Err(RefusedError::NoTable(other.clone())));
    assert_eq!(local(&applied.outcomes[2]), Err(RefusedError::NoSequence));
    let snapshot = site.store().snapshot();
    assert_eq!(snapshot.rows().unwrap(), 1);
    assert!(!snapshot.has_table(&other));
    drop(snapshot);
    site.reopen();
    assert_eq!(site.changes(&Heads::new()).len(), 1);
    assert!(site.get("bad").is_none());
}

#[test]
fn a_store_has_so_many_tables_and_no_more() {
    let mut site = Site::new(1);
    let in_table = |n: usize| LocalWrite {
        table: TableName::of_client(&format!("t{n}")).unwrap(),
        operation: put("k", "v").operation,
    };
    site.try_write((0..TABLES_MAX - 1).map(in_table).collect()).unwrap();
    let two = vec![in_table(TABLES_MAX), in_table(TABLES_MAX + 1)];
    let refused = TableName::of_client(&format!("t{}", TABLES_MAX + 1)).unwrap();
    assert_eq!(site.try_write(two), Err(RefusedError::TooManyTables(refused)));
    // A new table named twice is one table.
    site.try_write(vec![in_table(TABLES_MAX), in_table(TABLES_MAX)]).unwrap();
    assert!(site.try_write(vec![in_table(TABLES_MAX + 1)]).is_err());
    site.try_write(vec![in_table(5)]).unwrap();
    site.check();
}

/// What follows the store keeps the rows of many commits, and counts them alone.
#[test]
fn the_one_row_that_many_callers_left_does_not_keep_what_they_wrote() {
    let mut site = Site::new(1);
    let requests: Vec<_> =
        (0..100).map(|_| Request::Local(site.batch(vec![put("k", "value")]))).collect();
    let applied = site.apply(&requests);
    let [row] = &applied.rows[..] else { panic!("{:?}", applied.rows) };
    assert!(row.body.bytes().is_unique(), "it shares the memory of the record");
    let spread: Vec<_> = (0..100)
        .map(|n| {
            let key = Key::new(format!("{n:03}")).unwrap();
            let operation = Operation::Put { key, value: "value".into(), expires_at_ms: None };
            Request::Local(site.batch(vec![LocalWrite { table: table(), operation }]))
        })
        .collect();
    let applied = site.apply(&spread);
    assert_eq!(applied.rows.len(), 100);
    assert!(!applied.rows[0].body.bytes().is_unique(), "one copy serves all");
    site.check();
}
