//! The store's own tests, on memory that outlives the store: what is durable is found again.
//!
//! ```text
//! writes.rs     clients' writes, their order and their refusals
//! merges.rs     peers' rows: what is dropped, lost, recorded, known
//! rewrites.rs   rows written once more, and damaged ones
//! hand_overs.rs  writes of applications in the database
//! clock.rs      stamps and heads across restarts and clocks that are set back
//! purges.rs     dead rows, and when they may go
//! sequences.rs  generated ids
//! snapshots.rs  what a reader sees while the writer goes on
//! positions.rs  rows as another store compares them
//! histories.rs  all of it at random, against a model
//! hostile.rs    whatever a peer may send
//! journal.rs    what of the conflict journal is kept
//! compaction.rs the file, written anew
//! format.rs     the bytes in the file, and files that cannot be opened
//! ```

mod clock;
mod compaction;
mod format;
mod hand_overs;
mod histories;
mod hostile;
mod journal;
mod merges;
mod positions;
mod purges;
mod rewrites;
mod sequences;
mod snapshots;
mod writes;

use std::{collections::BTreeMap, sync::Mutex};

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

/// Little of everything, so that what is rare in life happens here: segments that are full, commits
/// over several of them, memory that moves into redb every few commits.
fn small(origin_byte: u8) -> StoreConfig {
    StoreConfig {
        cache_bytes: 1 << 20,
        memory_bytes: 2_000,
        segment_bytes: 1_024,
        move_rows: 3,
        moving: Moving::Inline,
        ..StoreConfig::new(origin(origin_byte), 7)
    }
}

/// One store and its writer; `None` while it is closed.
struct Site {
    memory: Memory,
    log: Memory,
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
            config: small(origin_byte),
            log: Memory::default(),
            now_ms: NOON_MS,
            sequence: None,
        };
        site.reopen();
        site
    }

    fn reopen(&mut self) {
        self.open = None;
        // The origin of a store is drawn once, whatever is drawn at later starts.
        let opened = Store::open_on(self.memory.clone(), self.log.clone(), &self.config).unwrap();
        self.config.fresh_origin = origin(0xee);
        self.open = Some(opened);
    }

    /// Moves what is in memory into redb.
    fn move_all(&mut self) {
        let (_, writer) = self.open.as_mut().unwrap();
        writer.move_all().unwrap();
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
        self.store().snapshot().get(&table(), &self::key(key)).unwrap()
    }

    fn changes(&self, above: &Heads) -> Vec<Row> {
        let snapshot = self.store().snapshot();
        snapshot.changes(above).unwrap().map(Result::unwrap).collect()
    }

    fn known(&self, key: &'static str) -> Option<Knowledge> {
        let place = codec::place(TableId(0), key.as_bytes());
        let entry = self.store().published().view.get(Space::Known, &place).unwrap();
        entry.map(|value| codec::split_known_value(&value).unwrap())
    }

    /// All entries of a space, in memory or in redb.
    fn entries(&self, space: Space) -> BTreeMap<Bytes, Bytes> {
        let view = self.store().published().view;
        let mut range = view.range(space, Bound::Unbounded, Bound::Unbounded).unwrap();
        std::iter::from_fn(|| range.next().unwrap()).collect()
    }

    /// What must hold after every commit.
    fn check(&self) {
        let names = self.entries(Space::Tables);
        let rows = self.entries(Space::Rows);
        let index = self.store().snapshot().changes(&Heads::new()).unwrap();
        let changes: Vec<Row> = index.map(Result::unwrap).collect();
        let view = self.store().published().view;
        let ceiling = view.number(tables::STATE_CEILING).unwrap();
        let counted = view.number(tables::STATE_ROWS).unwrap();
        assert_eq!(counted, rows.len() as u64, "rows are counted");
        let conflicts = self.entries(Space::Conflicts);
        let totals = self.store().journal_totals().unwrap();
        assert_eq!(totals.kept, conflicts.len() as u64, "and so are conflicts");
        let bytes: usize = conflicts.iter().map(|(key, value)| key.len() + value.len()).sum();
        assert_eq!(totals.kept_bytes, bytes as u64, "and their bytes");
        let oldest = conflicts.keys().next().map(|key| codec::split_conflict_key(key).unwrap().hlc);
        assert_eq!(totals.oldest, oldest, "the oldest is found without a search");

        for (at, id) in names.keys().enumerate() {
            assert_eq!((at as u32).to_be_bytes(), id[..], "table ids have no gaps");
        }
        for (place, body) in &rows {
            let body = codec::body(body.clone()).unwrap();
            let (id, _) = codec::split_place(place).unwrap();
            assert!((id.0 as usize) < names.len(), "the table of a row has a name");
            let indexed = changes.iter().filter(|row| row.body == body).count();
            assert_eq!(indexed, 1, "each row has its entry in the change index");
            assert!(body.version().hlc.bits() <= ceiling, "a stamp lies below the durable ceiling");
        }
        assert_eq!(rows.len(), changes.len(), "and there is no other entry");
        // What has moved agrees within itself, also where it is out of date.
        let all = |space: Space| {
            let entries = view.base.table(space).range::<&[u8]>(..).unwrap().map(Result::unwrap);
            let bytes =
                |(key, value): (redb::AccessGuard<'_, &[u8]>, redb::AccessGuard<'_, &[u8]>)| {
                    (key.value().to_vec(), value.value().to_vec())
                };
            entries.map(bytes).collect::<Vec<_>>()
        };
        let indexed = all(Space::Rows).into_iter().map(|(place, body)| {
            (codec::change_key(codec::version_of_body(&body).unwrap()).to_vec(), place)
        });
        let indexed: BTreeMap<_, _> = indexed.collect();
        assert!(
            indexed.into_iter().eq(all(Space::Changes)),
            "the index of redb is that of its rows"
        );
        for (place, value) in self.entries(Space::Known) {
            let row = rows.get(&place).expect("what is known is known of a row");
            let body = codec::body(row.clone()).unwrap();
            let known = codec::split_known_value(&value).unwrap();
            assert_ne!(known, Knowledge::of(&body), "kept where it is more than the row says");
        }
        let may_die = |(place, body): (&Bytes, &Bytes)| {
            let from = codec::dead_from(&codec::body(body.clone()).unwrap())?;
            Some(Bytes::from(codec::dead_key(from, place)))
        };
        let mut dead: Vec<Bytes> = rows.iter().filter_map(may_die).collect();
        dead.sort();
        let entries = self.entries(Space::Dead);
        assert!(entries.keys().eq(&dead), "an entry for each row that is dead, or will be");
        let heads = self.store().heads();
        for (origin, hlc) in self.entries(Space::Heads) {
            let published = heads.get(Origin::from_bytes(origin[..].try_into().unwrap()));
            let hlc = view::number_in(&hlc).unwrap();
            assert!(published.bits() >= hlc, "what is claimed durably is published");
        }
        let durable = |(_, hlc): (Origin, Hlc)| hlc.bits() <= ceiling || hlc.is_closed();
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
