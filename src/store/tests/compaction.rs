//! A file that is written anew holds the same store.

use super::*;

#[test]
fn a_compacted_store_is_the_same_and_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { memory_bytes: 1 << 20, ..small(1) };
    let (store, mut writer) = Store::open(folder.path(), &config).unwrap();
    let value = Bytes::from(vec![b'v'; 500]);
    // Many of the rows are written again and again, in no order.
    for round in 0..40_u64 {
        let writes = (0..250_u64).map(|n| {
            let name = (n * 7_919 + round * 104_729) % 3_000;
            let key = Key::new(format!("{name:05}")).unwrap();
            let operation = Operation::Put { key, value: value.clone(), expires_at_ms: None };
            LocalWrite { table: table(), operation }
        });
        let batch = Site::new(2).batch(writes.collect());
        writer.apply(NOON_MS + round, &[Request::Local(batch)]).unwrap();
    }
    let rows = |store: &Store| -> Vec<Row> {
        store.snapshot().changes(&Heads::new()).unwrap().map(Result::unwrap).collect()
    };
    let (expected, heads, boot) = (rows(&store), store.heads(), store.boot());
    drop((store, writer));

    // An earlier try was cut short.
    std::fs::write(folder.path().join("lastword.redb.compact"), b"half of a copy").unwrap();
    let told = std::cell::Cell::new((0, 0));
    let done = Store::compact(folder.path(), &config, |done, total| told.set((done, total)));
    let done = done.unwrap();
    assert_eq!(done.rows, expected.len() as u64);
    assert!(done.after_bytes < done.before_bytes, "{done:?}");
    let (copied, total) = told.get();
    assert!(copied == total && total > 2 * done.rows, "{copied} of {total}");

    let (store, mut writer) = Store::open(folder.path(), &config).unwrap();
    assert!(store.file_bytes() <= done.after_bytes + (1 << 20), "{}", store.file_bytes());
    assert_eq!(rows(&store), expected);
    assert_eq!((store.origin(), store.boot()), (origin(1), boot + 2));
    assert!(store.heads().covers(&heads));
    // And it takes writes, which outlive the next start.
    let batch = Site::new(2).batch(vec![put("k", "after")]);
    writer.apply(NOON_MS + 100, &[Request::Local(batch)]).unwrap();
    drop((store, writer));
    let (store, _writer) = Store::open(folder.path(), &config).unwrap();
    let found = store.snapshot().get(&table(), &key("k")).unwrap().unwrap();
    assert_eq!(found.value().unwrap(), "after");
    assert_eq!(rows(&store).len(), expected.len() + 1);
}

#[test]
fn only_a_store_that_is_there_and_stopped_is_compacted() {
    let folder = tempfile::tempdir().unwrap();
    let compact = || Store::compact(folder.path(), &small(1), |_, _| ()).unwrap_err();
    assert!(matches!(compact(), OpenError::NoStore { .. }));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was created");
    let _open = Store::open(folder.path(), &small(1)).unwrap();
    assert!(matches!(compact(), OpenError::InUse { .. }));
}
