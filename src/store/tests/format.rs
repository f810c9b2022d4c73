//! The names and bytes of the tables are a contract.

use redb::{ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const IDENTITY: TableDefinition<'_, (), &[u8; 16]> = TableDefinition::new("identity");

fn space(name: &str) -> TableDefinition<'_, &[u8], &[u8]> {
    TableDefinition::new(name)
}

/// All that is in the file, table by table; opened by the types that are part of the format.
fn dump(read: &ReadTransaction) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in read.open_table(META).unwrap().iter().unwrap() {
        let (name, number) = entry.unwrap();
        lines.push(format!("meta {} {:x}", name.value(), number.value()));
    }
    let identity = read.open_table(IDENTITY).unwrap();
    lines.push(format!("identity {}", hex(identity.get(()).unwrap().unwrap().value())));
    for entry in read.open_table(space("state")).unwrap().iter().unwrap() {
        let (name, number) = entry.unwrap();
        let name = String::from_utf8_lossy(name.value()).into_owned();
        lines.push(format!("state {name} {}", hex(number.value())));
    }
    for name in [
        "tables",
        "rows",
        "known",
        "changes",
        "conflicts",
        "heads",
        "tentative",
        "sequences",
        "floor",
        "dead",
    ] {
        for entry in read.open_table(space(name)).unwrap().iter().unwrap() {
            let (key, value) = entry.unwrap();
            lines.push(format!("{name} {} {}", hex(key.value()), hex(value.value())));
        }
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
    site.try_write(vec![delete("d")]).unwrap();
    let hlc = |ms: u64| Hlc::at_ms(ms);
    let loser = peers_row("k", 2, hlc(0xfff), &[], "lost");
    site.remote(vec![loser], None, Some(heads(&[(2, hlc(0xfff))])));
    site.remote(vec![], Some(heads(&[(3, hlc(0xffe))])), None);
    site.remote(vec![], None, Some(heads(&[(2, hlc(0xfff)), (3, hlc(0xffe))])));
    // All of it has moved.
    site.move_all();
    let read = site.store().shared.database.begin_read().unwrap();
    let expected = [
        "meta boot 1",
        "meta format_version 3",
        "meta log_flushed 6",
        "meta log_salt 7",
        "identity 01010101010101010101010101010101",
        "state clock_ceiling 000000001bb80000",
        "state conflicts_from 000000000fff000002020202020202020202020202020202",
        "state conflicts_kept 0000000000000001",
        "state conflicts_kept_bytes 000000000000005d",
        "state conflicts_total 0000000000000001",
        "state rows 0000000000000003",
        "tables 00000000 74",
        // Place: table id, key. Body: model::Body's own golden test.
        "rows 0000000033 010000240000000010000002010101010101010101010101010101010000000000000000736571",
        "rows 0000000064 010100240000000010000003010101010101010101010101010101010000000000000000",
        "rows 000000006b 0100002400000000100000010101010101010101010101010101010100000000000000006f6e65",
        // Seen, then origin and hlc of each.
        "known 000000006b 0000000000000000020202020202020202020202020202020000000\
         00fff0000",
        // Origin, hlc: place.
        "changes 010101010101010101010101010101010000000010000001 000000006b",
        "changes 010101010101010101010101010101010000000010000002 0000000033",
        "changes 010101010101010101010101010101010000000010000003 0000000064",
        // Loser's hlc, origin: winner's hlc, origin, table, key, the losing body.
        "conflicts 000000000fff000002020202020202020202020202020202 \
         000000001000000101010101010101010101010101010101\
         0174\
         00016b\
         01000024000000000fff0000020202020202020202020202020202020000000000000000\
         6c6f7374",
        "heads 01010101010101010101010101010101 0000000010000003",
        "heads 03030303030303030303030303030303 000000000ffe0000",
        "tentative 09090909090909090909090909090909 \
         02020202020202020202020202020202000000000fff0000\
         03030303030303030303030303030303000000000ffe0000",
        "sequences 00000000 0000000000000003",
        // From when on the row is dead, its place.
        "dead 00000000100000030000000064 ",
    ];
    assert_eq!(dump(&read), expected);
}

fn number(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// A file as another process of this format would have left it, written without this crate's code.
#[test]
fn a_file_of_this_format_is_read() {
    let memory = Memory::default();
    let database = Database::builder().create_with_backend(memory.clone()).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut meta = write.open_table(META).unwrap();
        meta.insert("format_version", FORMAT_VERSION).unwrap();
        meta.insert("boot", 6).unwrap();
        meta.insert("log_flushed", 9).unwrap();
        meta.insert("log_salt", 7).unwrap();
        write.open_table(IDENTITY).unwrap().insert((), &[7; 16]).unwrap();
        let mut state = write.open_table(space("state")).unwrap();
        state.insert(b"clock_ceiling".as_slice(), number(0x2000_0000).as_slice()).unwrap();
        state.insert(b"rows".as_slice(), number(1).as_slice()).unwrap();
        let mut names = write.open_table(space("tables")).unwrap();
        names.insert([0; 4].as_slice(), b"t".as_slice()).unwrap();
        let body = Body::new(&BodyParts {
            version: Version { hlc: Hlc::from_bits(0x1000_0000), origin: origin(7) },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(b"kept"),
        });
        let mut rows = write.open_table(space("rows")).unwrap();
        rows.insert([0, 0, 0, 0, b'k'].as_slice(), body.bytes().as_ref()).unwrap();
        let mut changes = write.open_table(space("changes")).unwrap();
        let mut change = [7; 24];
        change[16..].copy_from_slice(&number(0x1000_0000));
        changes.insert(change.as_slice(), [0, 0, 0, 0, b'k'].as_slice()).unwrap();
        let mut heads = write.open_table(space("heads")).unwrap();
        heads.insert([7; 16].as_slice(), number(0x1000_0000).as_slice()).unwrap();
        heads.insert([8; 16].as_slice(), number(0x1234_5678).as_slice()).unwrap();
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
    write.open_table(META).unwrap().insert("format_version", FORMAT_VERSION + 1).unwrap();
    write.commit().unwrap();
    site.open = None;
    let refused = Store::open_on(site.memory.clone(), site.log.clone(), &site.config).unwrap_err();
    assert!(matches!(refused, OpenError::Format { found } if found == FORMAT_VERSION + 1));
    assert!(refused.to_string().contains("format 4, this release reads format 3"), "{refused}");
    let database = Database::builder().create_with_backend(site.memory.clone()).unwrap();
    let read = database.begin_read().unwrap();
    let meta = read.open_table(META).unwrap();
    assert_eq!(meta.get("boot").unwrap().unwrap().value(), 1);
}

#[test]
fn a_folder_is_made_for_this_user_and_opened_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("new").join("data");
    let config = small(1);
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
    assert!(store.snapshot().get(&table(), &key("k")).unwrap().is_some());
}

/// As a loss of power leaves it: redb writes its magic number last.
#[test]
fn a_file_whose_creation_was_cut_short_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(STORE_FILE);
    let config = small(1);
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

/// A store without its log would be an older one, and nobody would be told.
#[test]
fn a_store_whose_log_is_missing_is_refused_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(folder.path(), &small(1)).unwrap();
    let batch = Site::new(2).batch(vec![put("k", "v")]);
    writer.apply(NOON_MS, &[Request::Local(batch)]).unwrap();
    drop((store, writer));
    let (log, aside) = (folder.path().join(LOG_FILE), folder.path().join("aside"));
    std::fs::rename(&log, &aside).unwrap();
    for _ in 0..2 {
        let refused = Store::open(folder.path(), &small(1)).unwrap_err();
        assert!(matches!(refused, OpenError::LogMissing { .. }), "{refused}");
    }
    std::fs::rename(&aside, &log).unwrap();
    let (store, _writer) = Store::open(folder.path(), &small(1)).unwrap();
    assert!(store.snapshot().get(&table(), &key("k")).unwrap().is_some());
}

/// The log of another store, or of an earlier one in this folder, says nothing of this one.
#[test]
fn a_log_of_another_store_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut writer) = Store::open(folder.path(), &small(1)).unwrap();
    let batch = Site::new(2).batch(vec![put("k", "v")]);
    writer.apply(NOON_MS, &[Request::Local(batch)]).unwrap();
    drop((store, writer));
    std::fs::remove_file(folder.path().join(STORE_FILE)).unwrap();
    let other = StoreConfig { fresh_log_salt: 8, ..small(3) };
    let (store, _writer) = Store::open(folder.path(), &other).unwrap();
    assert_eq!((store.origin(), store.snapshot().rows().unwrap()), (origin(3), 0));
}

#[test]
fn what_is_no_store_or_no_folder_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let config = small(1);
    std::fs::write(folder.path().join(STORE_FILE), b"no store, but long enough to look").unwrap();
    let refused = Store::open(folder.path(), &config).unwrap_err();
    assert!(matches!(refused, OpenError::Database { .. }), "{refused}");
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let refused = Store::open(&file, &config).unwrap_err();
    assert!(matches!(refused, OpenError::Folder { .. }), "{refused}");
}
