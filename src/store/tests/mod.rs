//! The store's own tests, on memory that outlives the store: what is durable is found again.
//!
//! ```text
//! writes.rs     clients' writes, their order and their refusals
//! merges.rs     peers' rows: what is dropped, lost, recorded, known
//! clock.rs      stamps and heads across restarts and clocks that are set back
//! sequences.rs  generated ids
//! snapshots.rs  what a reader sees while the writer goes on
//! histories.rs  all of it at random, against a model
//! hostile.rs    whatever a peer may send
//! format.rs     the bytes in the file, and files that cannot be opened
//! ```

mod clock;
mod format;
mod histories;
mod hostile;
mod merges;
mod sequences;
mod snapshots;
mod writes;

use std::sync::Mutex;

use bytes::Bytes;

use super::*;
use crate::{
    model::{Body, BodyParts, Context, Key, Knowledge, Row, Version},
    protocol::{DRIFT_BOUND_MS_DEFAULT, SequenceIds},
};

/// Midday of some day.
const NOON_MS: u64 = 1_700_000_000_000;

/// Memory that a store is opened on again and again.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl StorageBackend for Memory {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.0.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let (bytes, from) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        out.copy_from_slice(&bytes[from..from + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> std::io::Result<()> {
        self.0.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let (mut bytes, from) = (self.0.lock().unwrap(), usize::try_from(offset).unwrap());
        bytes[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// One store and its writer; `None` while it is closed.
struct Site {
    memory: Memory,
    open: Option<(Store, Writer)>,
    config: StoreConfig,
    now_ms: u64,
    sequence: Option<SequenceIds>,
}

impl Site {
    fn new(origin_byte: u8) -> Site {
        let mut site = Site {
            memory: Memory::default(),
            open: None,
            config: StoreConfig { fresh_origin: origin(origin_byte), cache_bytes: 1 << 20 },
            now_ms: NOON_MS,
            sequence: None,
        };
        site.reopen();
        site
    }

    fn reopen(&mut self) {
        self.open = None;
        // The origin of a store is drawn once, whatever is drawn at later starts.
        let opened = Store::open_on(self.memory.clone(), &self.config).unwrap();
        self.config.fresh_origin = origin(0xee);
        self.open = Some(opened);
    }

    fn store(&self) -> &Store {
        &self.open.as_ref().unwrap().0
    }

    fn apply(&mut self, requests: &[Request]) -> Applied {
        let (_, writer) = self.open.as_mut().unwrap();
        writer.apply(self.now_ms, requests).unwrap()
    }

    fn batch(&self, writes: Vec<LocalWrite>) -> LocalBatch {
        LocalBatch {
            writes,
            create_tables: true,
            sequence: self.sequence,
            drift_bound_ms: DRIFT_BOUND_MS_DEFAULT,
        }
    }

    fn try_write(&mut self, writes: Vec<LocalWrite>) -> Result<Vec<Written>, RefusedError> {
        let batch = self.batch(writes);
        local(&self.apply(&[Request::Local(batch)]).outcomes[0])
    }

    fn put(&mut self, key: &'static str, value: &'static str) -> Version {
        self.try_write(vec![put(key, value)]).unwrap()[0].version
    }

    fn merge(&mut self, rows: Vec<Row>) -> MergeReport {
        self.remote(rows, None, None)
    }

    fn remote(
        &mut self,
        rows: Vec<Row>,
        claim: Option<Heads>,
        tentative: Option<Heads>,
    ) -> MergeReport {
        let batch = RemoteBatch { sender: origin(9), rows, claim, tentative };
        match &self.apply(&[Request::Remote(batch)]).outcomes[0] {
            Outcome::Remote(report) => *report,
            other => panic!("{other:?}"),
        }
    }

    fn get(&self, key: &'static str) -> Option<Body> {
        self.store().snapshot().unwrap().get(&table(), &self::key(key)).unwrap()
    }

    fn changes(&self, above: &Heads) -> Vec<Row> {
        let snapshot = self.store().snapshot().unwrap();
        snapshot.changes(above).unwrap().map(Result::unwrap).collect()
    }

    fn known(&self, key: &'static str) -> Option<Knowledge> {
        let read = self.store().shared.database.begin_read().unwrap();
        let known = read.open_table(tables::KNOWN).unwrap();
        let place = codec::place(TableId(0), key.as_bytes());
        let entry = known.get(place.as_slice()).unwrap();
        entry.map(|entry| codec::split_known_value(entry.value()).unwrap())
    }

    /// What must hold after every commit.
    fn check(&self) {
        let read = self.store().shared.database.begin_read().unwrap();
        let names = read.open_table(tables::TABLES).unwrap();
        let rows = read.open_table(tables::ROWS).unwrap();
        let changes = read.open_table(tables::CHANGES).unwrap();
        let known = read.open_table(tables::KNOWN).unwrap();
        let meta = read.open_table(tables::META).unwrap();
        let ceiling = meta.get(tables::META_CEILING).unwrap().map_or(0, |entry| entry.value());

        for (at, entry) in names.iter().unwrap().enumerate() {
            assert_eq!(at as u32, entry.unwrap().0.value(), "table ids have no gaps");
        }
        for entry in rows.iter().unwrap() {
            let (place, body) = entry.unwrap();
            let body = codec::body(body.value()).unwrap();
            let (id, _) = codec::split_place(place.value()).unwrap();
            assert!(u64::from(id.0) < names.len().unwrap(), "the table of a row has a name");
            let entry = changes.get(&codec::change_key(body.version())).unwrap();
            let indexed = entry.expect("each row has its entry in the change index");
            assert_eq!(indexed.value(), place.value(), "which leads back to it");
            assert!(body.version().hlc.bits() <= ceiling, "a stamp lies below the durable ceiling");
        }
        assert_eq!(rows.len().unwrap(), changes.len().unwrap(), "and there is no other entry");
        for entry in known.iter().unwrap() {
            let (place, value) = entry.unwrap();
            let row = rows.get(place.value()).unwrap().expect("what is known is known of a row");
            let body = codec::body(row.value()).unwrap();
            let known = codec::split_known_value(value.value()).unwrap();
            assert_ne!(known, Knowledge::of(&body), "kept where it is more than the row says");
        }
        let heads = self.store().heads();
        for entry in read.open_table(tables::HEADS).unwrap().iter().unwrap() {
            let (origin, hlc) = entry.unwrap();
            let published = heads.get(Origin::from_bytes(*origin.value()));
            assert!(published.bits() >= hlc.value(), "what is claimed durably is published");
        }
        let durable = |(_, hlc): (Origin, Hlc)| hlc.bits() <= ceiling;
        assert!(heads.iter().all(durable), "what is published lies below the durable ceiling");
    }
}

fn local(outcome: &Outcome) -> Result<Vec<Written>, RefusedError> {
    match outcome {
        Outcome::Local(result) => result.clone(),
        other => panic!("{other:?}"),
    }
}

fn origin(byte: u8) -> Origin {
    Origin::from_bytes([byte; 16])
}

fn table() -> TableName {
    TableName::of_client("t").unwrap()
}

fn key(key: &'static str) -> Key {
    Key::new(key).unwrap()
}

fn put(key: &'static str, value: &'static str) -> LocalWrite {
    let value = Bytes::from(value);
    let operation = Operation::Put { key: self::key(key), value, expires_at_ms: None };
    LocalWrite { table: table(), operation }
}

fn delete(key: &'static str) -> LocalWrite {
    LocalWrite { table: table(), operation: Operation::Delete { key: self::key(key) } }
}

fn insert(value: &'static str) -> LocalWrite {
    let operation = Operation::InsertSequence { value: value.into(), expires_at_ms: None };
    LocalWrite { table: table(), operation }
}

/// The `count`th stamp of a millisecond, counted from noon.
fn at(ms_after_noon: u64, count: u64) -> Hlc {
    Hlc::from_bits(Hlc::at_ms(NOON_MS + ms_after_noon).bits() + count)
}

/// A row of a peer that has seen the versions in `context`.
fn peers_row(key: &'static str, by: u8, hlc: Hlc, context: &[Version], value: &str) -> Row {
    let context: Context = context.iter().map(|seen| (seen.origin, seen.hlc)).collect();
    let body = Body::new(&BodyParts {
        version: Version { hlc, origin: origin(by) },
        seen: Hlc::ZERO,
        context: &context,
        expires_at_ms: None,
        value: (!value.is_empty()).then_some(value.as_bytes()),
    });
    Row { table: table(), key: self::key(key), body }
}

fn heads(entries: &[(u8, Hlc)]) -> Heads {
    entries.iter().map(|&(o, hlc)| (origin(o), hlc)).collect()
}
