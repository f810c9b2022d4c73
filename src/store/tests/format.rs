//! The bytes in the file, and files that cannot be opened.

use redb::{ReadTransaction, TableDefinition};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All that is in the file, table by table; opened by the types that are part of the format.
fn dump(read: &ReadTransaction) -> Vec<String> {
    let mut lines = Vec::new();
    let meta = read.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
    for entry in meta.iter().unwrap() {
        let (name, number) = entry.unwrap();
        lines.push(format!("meta {} {:x}", name.value(), number.value()));
    }
    let identity = read.open_table(TableDefinition::<(), &[u8; 16]>::new("identity")).unwrap();
    lines.push(format!("identity {}", hex(identity.get(()).unwrap().unwrap().value())));
    let names = read.open_table(TableDefinition::<u32, &str>::new("tables")).unwrap();
    for entry in names.iter().unwrap() {
        let (id, name) = entry.unwrap();
        lines.push(format!("tables {} {}", id.value(), name.value()));
    }
    for name in ["rows", "known"] {
        let table = read.open_table(TableDefinition::<&[u8], &[u8]>::new(name)).unwrap();
        for entry in table.iter().unwrap() {
            let (place, value) = entry.unwrap();
            lines.push(format!("{name} {} {}", hex(place.value()), hex(value.value())));
        }
    }
    for name in ["changes", "conflicts"] {
        let table = read.open_table(TableDefinition::<&[u8; 24], &[u8]>::new(name)).unwrap();
        for entry in table.iter().unwrap() {
            let (key, value) = entry.unwrap();
            lines.push(format!("{name} {} {}", hex(key.value()), hex(value.value())));
        }
    }
    let heads = read.open_table(TableDefinition::<&[u8; 16], u64>::new("heads")).unwrap();
    for entry in heads.iter().unwrap() {
        let (origin, hlc) = entry.unwrap();
        lines.push(format!("heads {} {:x}", hex(origin.value()), hlc.value()));
    }
    let tentative = read.open_table(TableDefinition::<&[u8; 16], &[u8]>::new("tentative")).unwrap();
    for entry in tentative.iter().unwrap() {
        let (sender, vector) = entry.unwrap();
        lines.push(format!("tentative {} {}", hex(sender.value()), hex(vector.value())));
    }
    let sequences = read.open_table(TableDefinition::<u32, u64>::new("sequences")).unwrap();
    for entry in sequences.iter().unwrap() {
        let (table, id) = entry.unwrap();
        lines.push(format!("sequences {} {}", table.value(), id.value()));
    }
    lines
}

/// The layout is a contract with every store out there: a change of it needs a new format version.
#[test]
fn golden_layout() {
    let mut site = Site::new(1);
    site.now_ms = 0x1000;
    site.sequence = Some(SequenceIds { offset: 3, increment: 10 });
    site.put("k", "one");
    site.try_write(vec![insert("seq")]).unwrap();
    let hlc = |ms: u64| Hlc::at_ms(ms);
    let loser = peers_row("k", 2, hlc(0xfff), &[], "lost");
    site.remote(vec![loser], None, Some(heads(&[(2, hlc(0xfff))])));
    site.remote(vec![], Some(heads(&[(3, hlc(0xffe))])), None);
    site.remote(vec![], None, Some(heads(&[(2, hlc(0xfff)), (3, hlc(0xffe))])));
    let read = site.store().shared.database.begin_read().unwrap();
    let expected = [
        "meta boot 1",
        "meta clock_ceiling 1bb80000",
        "meta conflicts_total 1",
        "meta format_version 1",
        "identity 01010101010101010101010101010101",
        "tables 0 t",
        // Place: table id, key. Body: model::Body's own golden test.
        "rows 0000000033 010000240000000010000002010101010101010101010101010101010000000000000000736571",
        "rows 000000006b 0100002400000000100000010101010101010101010101010101010100000000000000006f6e65",
        // Seen, then origin and hlc of each.
        "known 000000006b 0000000000000000020202020202020202020202020202020000000\
         00fff0000",
        // Origin, hlc: place.
        "changes 010101010101010101010101010101010000000010000001 000000006b",
        "changes 010101010101010101010101010101010000000010000002 0000000033",
        // Loser's hlc, origin: winner's hlc, origin, table, key, the losing body.
        "conflicts 000000000fff000002020202020202020202020202020202 \
         000000001000000101010101010101010101010101010101\
         0174\
         00016b\
         01000024000000000fff0000020202020202020202020202020202020000000000000000\
         6c6f7374",
        "heads 01010101010101010101010101010101 10000002",
        "heads 03030303030303030303030303030303 ffe0000",
        "tentative 09090909090909090909090909090909 \
         02020202020202020202020202020202000000000fff0000\
         03030303030303030303030303030303000000000ffe0000",
        "sequences 0 3",
    ];
    assert_eq!(dump(&read), expected);
}

/// A file as another process of this format would have left it, written without this crate's code.
#[test]
fn a_file_of_this_format_is_read() {
    let memory = Memory::default();
    let database = Database::builder().create_with_backend(memory.clone()).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut meta = write.open_table(TableDefinition::<&str, u64>::new("meta")).unwrap();
        meta.insert("format_version", 1).unwrap();
        meta.insert("boot", 6).unwrap();
        meta.insert("clock_ceiling", 0x2000_0000).unwrap();
        let mut identity =
            write.open_table(TableDefinition::<(), &[u8; 16]>::new("identity")).unwrap();
        identity.insert((), &[7; 16]).unwrap();
        let mut names = write.open_table(TableDefinition::<u32, &str>::new("tables")).unwrap();
        names.insert(0, "t").unwrap();
        let body = Body::new(&BodyParts {
            version: Version { hlc: Hlc::from_bits(0x1000_0000), origin: origin(7) },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(b"kept"),
        });
        let mut rows = write.open_table(TableDefinition::<&[u8], &[u8]>::new("rows")).unwrap();
        rows.insert([0, 0, 0, 0, b'k'].as_slice(), body.bytes().as_ref()).unwrap();
        let mut changes =
            write.open_table(TableDefinition::<&[u8; 24], &[u8]>::new("changes")).unwrap();
        let mut change = [7; 24];
        change[16..].copy_from_slice(&0x1000_0000u64.to_be_bytes());
        changes.insert(&change, [0, 0, 0, 0, b'k'].as_slice()).unwrap();
        let mut heads = write.open_table(TableDefinition::<&[u8; 16], u64>::new("heads")).unwrap();
        heads.insert(&[7; 16], 0x1000_0000).unwrap();
        heads.insert(&[8; 16], 0x1234_5678).unwrap();
    }
    write.commit().unwrap();
    drop(database);

    let mut site = Site { memory, ..Site::new(1) };
    site.reopen();
    site.check();
    assert_eq!((site.store().origin(), site.store().boot()), (origin(7), 7));
    assert_eq!(site.get("k").unwrap().value().unwrap(), "kept");
    // Nothing above the ceiling was sent: the own head stands there.
    let expected = heads(&[(7, Hlc::from_bits(0x2000_0000)), (8, Hlc::from_bits(0x1234_5678))]);
    assert_eq!(*site.store().heads(), expected);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let mut site = Site::new(1);
    site.put("k", "v");
    let write = site.store().shared.database.begin_write().unwrap();
    write.open_table(tables::META).unwrap().insert("format_version", FORMAT_VERSION + 1).unwrap();
    write.commit().unwrap();
    site.open = None;
    let before = site.memory.0.lock().unwrap().clone();
    let refused = Store::open_on(site.memory.clone(), &site.config).unwrap_err();
    assert!(matches!(refused, OpenError::Format { found } if found == FORMAT_VERSION + 1));
    assert!(refused.to_string().contains("format 2, this release reads format 1"), "{refused}");
    let database = Database::builder().create_with_backend(site.memory.clone()).unwrap();
    let read = database.begin_read().unwrap();
    let meta = read.open_table(tables::META).unwrap();
    assert_eq!(meta.get("boot").unwrap().unwrap().value(), 1);
    assert_eq!(before.len(), site.memory.0.lock().unwrap().len());
}

#[test]
fn a_folder_is_made_for_this_user_and_opened_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new").join("data");
    let config = StoreConfig { fresh_origin: origin(1), cache_bytes: 1 << 20 };
    let (store, mut writer) = Store::open(&data, &config).unwrap();
    let batch = Site::new(2).batch(vec![put("k", "v")]);
    writer.apply(NOON_MS, &[Request::Local(batch)]).unwrap();
    assert!(store.file_bytes() > 0);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let again = Store::open(&data, &config).unwrap_err();
    assert!(matches!(again, OpenError::InUse { .. }), "{again}");
    drop((store, writer));
    let (store, _writer) = Store::open(&data, &config).unwrap();
    assert_eq!(store.boot(), 2);
    assert!(store.snapshot().unwrap().get(&table(), &key("k")).unwrap().is_some());
}

/// As a loss of power leaves it: redb writes its magic number last.
#[test]
fn a_file_whose_creation_was_cut_short_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(STORE_FILE);
    let config = StoreConfig { fresh_origin: origin(1), cache_bytes: 1 << 20 };
    drop(Store::open(folder.path(), &config).unwrap());
    let whole = std::fs::read(&path).unwrap();
    for length in [1, 9, 4_096, whole.len()] {
        let mut cut = whole[..length].to_vec();
        cut[..length.min(9)].fill(0);
        std::fs::write(&path, cut).unwrap();
        let (store, _writer) = Store::open(folder.path(), &config).unwrap();
        assert_eq!(store.boot(), 1);
        let again = Store::open(folder.path(), &config).unwrap_err();
        assert!(matches!(again, OpenError::InUse { .. }), "{again}");
    }
}

#[test]
fn what_is_no_store_or_no_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig { fresh_origin: origin(1), cache_bytes: 1 << 20 };
    std::fs::write(folder.path().join(STORE_FILE), b"no store, but long enough to look").unwrap();
    let refused = Store::open(folder.path(), &config).unwrap_err();
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let refused = Store::open(&file, &config).unwrap_err();
    assert!(matches!(refused, OpenError::Folder { .. }), "{refused}");
}
