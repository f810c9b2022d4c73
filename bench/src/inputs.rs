//! What is measured: stores in memory, rows, frames and requests, the same in every run.
//!
//! ```text
//! Disks --open--> Site: a store and its writer, on one thread, no real disk, no real clock
//! number --> key, value, put, peer's row
//! ```
//!
//! Rows are numbered. Neighbouring numbers lie far apart in key order, as sessions do; a value is
//! noise of the size that web sessions have. Nothing here draws at random.

use std::{io, sync::Arc};

use bytes::Bytes;
use lastword::{
    model::{Body, BodyParts, Context, Heads, Hlc, Key, Origin, Row, TableName, Version},
    protocol::{DRIFT_BOUND_MS_DEFAULT, Delta, Frame},
    store::{
        Applied, LocalBatch, LocalWrite, Moving, Operation, RemoteBatch, Request, Store,
        StoreConfig, Writer,
    },
    wire::proto,
};
use prost::Message;
use redb::{StorageBackend, backends::InMemoryBackend};

/// The length of a value, in bytes.
pub const VALUE_BYTES: usize = 256;
/// What the wall clock shows throughout, in milliseconds since the Unix epoch, UTC.
pub const NOW_MS: u64 = 1_700_000_000_000;
/// So many rows a request where a store is filled.
const FILL_GROUP_ROWS: usize = 1_000;

/// The origin of the store that is measured.
pub const OWN: Origin = Origin::from_bytes([1; 16]);
/// The origin of its peer.
pub const PEER: Origin = Origin::from_bytes([2; 16]);

/// Where a store leaves what it has committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All in memory.
    InMemory,
    /// Each commit is moved into redb before it is answered.
    Moved,
}

/// Memory in place of a disk; it outlives the store that is on it.
#[derive(Clone, Debug)]
struct Disk(Arc<InMemoryBackend>);

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

/// The two disks of a store: a site that is opened on them again finds its rows.
#[derive(Clone, Debug)]
pub struct Disks {
    rows: Disk,
    log: Disk,
}

impl Default for Disks {
    fn default() -> Disks {
        let disk = || Disk(Arc::new(InMemoryBackend::new()));
        Disks { rows: disk(), log: disk() }
    }
}

impl Disks {
    /// Opens the store that is there; only one at a time may be open.
    #[must_use]
    pub fn open(&self, rows: Rows) -> Site {
        let opened = Store::open_on(self.rows.clone(), self.log.clone(), &config(rows));
        let (store, writer) = opened.expect("a sound store");
        Site { store, writer }
    }
}

/// How the stores are opened that are measured: the writer moves rows itself, so that one thread
/// does all the work.
#[must_use]
pub fn config(rows: Rows) -> StoreConfig {
    StoreConfig {
        cache_bytes: 64 << 20,
        memory_bytes: match rows {
            // Far more than any run writes.
            Rows::InMemory => 1 << 40,
            Rows::Moved => 1,
        },
        // No run fills a segment: beginning the next one would fall upon one operation of many.
        segment_bytes: 16 << 20,
        moving: Moving::Inline,
        ..StoreConfig::new(OWN, 7)
    }
}

/// A store that is open, and its writer.
#[derive(Debug)]
pub struct Site {
    /// The store.
    pub store: Store,
    /// Its writer.
    pub writer: Writer,
}

impl Site {
    /// A store on memory of its own that holds the rows up to number `count`.
    #[must_use]
    pub fn with_rows(rows: Rows, count: u64) -> Site {
        let mut site = Disks::default().open(rows);
        site.fill(0, count);
        site
    }

    /// Puts the rows numbered from `from` to before `to`.
    pub fn fill(&mut self, from: u64, to: u64) {
        let numbers: Vec<u64> = (from..to).collect();
        for group in numbers.chunks(FILL_GROUP_ROWS) {
            self.apply(&puts(group.iter().copied()));
        }
    }

    /// Commits a group.
    pub fn apply(&mut self, group: &[Request]) -> Applied {
        self.writer.apply(NOW_MS, group).expect("a sound store")
    }
}

/// The table of all rows.
#[must_use]
pub fn table() -> TableName {
    TableName::of_client("sessions").expect("a sound name")
}

/// The key of row `number`: 24 characters.
#[must_use]
pub fn key(number: u64) -> Key {
    Key::new(format!("{:016x}{number:08x}", scatter(number))).expect("24 bytes")
}

/// A value for row `number`; another one for each `edition`.
#[must_use]
pub fn value(number: u64, edition: u64) -> Bytes {
    let mut value = Vec::with_capacity(VALUE_BYTES);
    let mut state = scatter(number ^ (edition << 40));
    while value.len() < VALUE_BYTES {
        state = scatter(state);
        value.extend_from_slice(&state.to_be_bytes());
    }
    value.into()
}

/// A value for row `number` such as web applications store: JSON of about so many bytes, whose names
/// repeat from row to row and whose values mostly do not.
#[must_use]
pub fn json_value(number: u64, bytes: usize) -> Bytes {
    const CITIES: [&str; 8] =
        ["Berlin", "Lisbon", "Oslo", "Prague", "Riga", "Toulouse", "Vienna", "Zagreb"];
    let mut state = scatter(number);
    let mut next = || {
        state = scatter(state);
        state
    };
    let mut value = format!(
        r#"{{"user":{},"city":"{}","token":"{:016x}","seen":{},"items":["#,
        next() % 1_000_000,
        CITIES[(next() % 8) as usize],
        next(),
        NOW_MS + next() % 10_000_000
    );
    while value.len() < bytes {
        let (item, count, cents) = (next() % 50_000, next() % 9, next() % 20_000);
        value += &format!(r#"{{"item":{item},"count":{count},"cents":{cents}}},"#);
    }
    value += "]}";
    value.into()
}

/// The peer's rows of such values, one write each.
#[must_use]
pub fn json_rows(numbers: impl IntoIterator<Item = u64>, bytes: usize) -> Vec<Row> {
    let row = |number| {
        let parts = BodyParts {
            version: Version { hlc: peers_stamp(number), origin: PEER },
            seen: Hlc::ZERO,
            context: &Context::new(),
            expires_at_ms: None,
            value: Some(&json_value(number, bytes)),
        };
        Row { table: table(), key: key(number), body: Body::new(&parts) }
    };
    numbers.into_iter().map(row).collect()
}

/// Mixes the bits of a number, so that numbers in a row give none; no two give the same.
fn scatter(number: u64) -> u64 {
    // The finalizer of splitmix64.
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Puts of these rows, each by a client of its own, as they meet in one group of the writer.
#[must_use]
pub fn puts(numbers: impl IntoIterator<Item = u64>) -> Vec<Request> {
    puts_of_edition(numbers, 0)
}

/// The same with other values.
#[must_use]
pub fn puts_of_edition(numbers: impl IntoIterator<Item = u64>, edition: u64) -> Vec<Request> {
    puts_until(numbers, edition, None)
}

/// Puts of rows that expire in an hour: each has an entry more, by which it is found when it is dead.
#[must_use]
pub fn puts_that_expire(numbers: impl IntoIterator<Item = u64>) -> Vec<Request> {
    puts_until(numbers, 0, Some(NOW_MS + 3_600_000))
}

fn puts_until(
    numbers: impl IntoIterator<Item = u64>,
    edition: u64,
    expires_at_ms: Option<u64>,
) -> Vec<Request> {
    let put = |number| {
        let (key, value) = (key(number), value(number, edition));
        let operation = Operation::Put { key, value, expires_at_ms };
        Request::Local(LocalBatch {
            writes: vec![LocalWrite { table: table(), operation }],
            create_tables: true,
            sequence: None,
            drift_bound_ms: DRIFT_BOUND_MS_DEFAULT,
        })
    };
    numbers.into_iter().map(put).collect()
}

/// The stamp of the peer's write number `number`, of which each is later than all of our own.
#[must_use]
pub fn peers_stamp(number: u64) -> Hlc {
    Hlc::from_bits(Hlc::at_ms(NOW_MS + 1_000).bits() + number)
}

/// A version of row `number` by `origin`, whose writer had seen `context`.
#[must_use]
pub fn body(number: u64, version: Version, context: &Context) -> Body {
    Body::new(&BodyParts {
        version,
        seen: Hlc::ZERO,
        context,
        expires_at_ms: None,
        value: Some(&value(number, version.hlc.bits())),
    })
}

/// The peer's writes of these rows, stamped from write number `first_write` on.
#[must_use]
pub fn peers_rows(numbers: impl IntoIterator<Item = u64>, first_write: u64) -> Vec<Row> {
    let row = |(number, write)| {
        let version = Version { hlc: peers_stamp(write), origin: PEER };
        Row { table: table(), key: key(number), body: body(number, version, &Context::new()) }
    };
    numbers.into_iter().zip(first_write..).map(row).collect()
}

/// What a peer's delta of these rows becomes at its receiver: rows that share their frame's memory,
/// and the heads that may be claimed with them.
#[must_use]
pub fn merge_of(rows: Vec<Row>) -> Request {
    let heads: Heads =
        rows.iter().map(|row| row.body.version()).map(|seen| (seen.origin, seen.hlc)).collect();
    let frame = frame_in(frame_out(rows, heads.clone()));
    let Frame::Delta(delta) = frame else { unreachable!("a delta was sent") };
    Request::Remote(RemoteBatch {
        sender: PEER,
        rows: delta.rows,
        claim: Some(heads),
        tentative: None,
    })
}

/// The bytes of a frame that holds a whole delta, as they go out.
#[must_use]
pub fn frame_out(rows: Vec<Row>, heads: Heads) -> Bytes {
    let delta = Delta { snapshot_heads: Some(heads), rows, last: true, ..Delta::default() };
    let frame = proto::Frame::from(Frame::Delta(delta));
    proto::ExchangeRequest { frame: Some(frame) }.encode_to_vec().into()
}

/// A frame out of the bytes that came in.
#[must_use]
pub fn frame_in(bytes: Bytes) -> Frame {
    let request = proto::ExchangeRequest::decode(bytes).expect("a sound message");
    Frame::try_from(request.frame).expect("a sound frame")
}

#[cfg(test)]
mod tests {
    use lastword::store::{MergeReport, Outcome};

    use super::*;

    #[test]
    fn rows_have_keys_of_their_own_and_neighbours_are_apart() {
        let mut keys: Vec<Key> = (0..10_000).map(key).collect();
        let sorted_already = keys.is_sorted();
        keys.sort();
        keys.dedup();
        assert_eq!((keys.len(), sorted_already), (10_000, false));
        assert_ne!(value(1, 0), value(1, 1));
        assert_eq!(value(1, 0).len(), VALUE_BYTES);
    }

    #[test]
    fn a_site_finds_its_rows_again() {
        let disks = Disks::default();
        disks.open(Rows::Moved).fill(0, 100);
        disks.open(Rows::InMemory).fill(100, 200);
        let site = disks.open(Rows::Moved);
        let snapshot = site.store.snapshot();
        assert_eq!(snapshot.rows().unwrap(), 200);
        let found = snapshot.get(&table(), &key(150)).unwrap().unwrap();
        assert_eq!(found.value(), Some(value(150, 0)));
    }

    #[test]
    fn a_peers_rows_replace_ours() {
        let mut site = Site::with_rows(Rows::InMemory, 64);
        let applied = site.apply(&[merge_of(peers_rows(32..96, 0))]);
        let [Outcome::Remote(report)] = applied.outcomes[..] else { panic!("{applied:?}") };
        // Its writer had not seen ours.
        assert_eq!(
            report,
            MergeReport { stored: 64, passed_over: 0, conflicts: 32, refused: false }
        );
    }
}
