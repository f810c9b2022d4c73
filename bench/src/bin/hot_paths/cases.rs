//! The hot paths, each as a case: set up once, then done again and again on one thread.
//!
//! A case is given how many rounds it may have to do and makes the inputs of all of them, whether
//! they are done or not. So two runs that differ in their rounds alone differ in nothing else.

use std::{hint::black_box, iter, ops::Range, sync::Arc};

use lastword::{
    model::{Heads, Hlc, Origin, Version},
    node::{Change, Follower, Mutation, Node, NodeConfig, WallClock},
    protocol::Delta,
    store::{Request, ScanRange, Store},
    wire::{
        compress::compress,
        delta,
        limits::Limits,
        proto,
        rows::{batch_in, put_in},
        session::{Seen, Session},
    },
};
use lastword_bench::inputs::{
    Disks, NOW_MS, OWN, PEER, Rows, Site, frame_in, frame_out, json_rows, key, merge_of,
    peers_rows, peers_stamp, puts, puts_of_edition, puts_that_expire, table, value,
};
use prost::Message;

/// The rows of a store before anything is measured.
const BASE_ROWS: u64 = 10_000;
/// The rows of a group: what gathers for a commit while the one before is on its way.
const GROUP_ROWS: u64 = 64;
/// The rows of a range that is read whole.
const RANGE_ROWS: u64 = 1_000;

/// Does one round.
pub(crate) type Round = Box<dyn FnMut()>;

/// One hot path.
pub(crate) struct Case {
    /// Its name in the baseline.
    pub(crate) name: &'static str,
    /// What is counted: one of these is an operation.
    pub(crate) unit: &'static str,
    /// The rounds of the shorter of the two runs: enough that what varies from one set-up to the
    /// next (the seeds of hash tables) does not count.
    pub(crate) rounds: usize,
    /// The operations of a round.
    pub(crate) per_round: u64,
    /// Sets it up for so many rounds.
    pub(crate) prepare: fn(usize) -> Round,
}

/// All of them, in the order of the life of a row.
pub(crate) const CASES: &[Case] = &[
    case("put_request", "a PutRequest's bytes -> mutation", 1_000, 1, put_request),
    case("bulk_request", "row of a BulkWriteRequest's bytes -> mutations", 100, 64, bulk_request),
    case("put_new", "new row, 64 a commit", 30, GROUP_ROWS, put_new),
    case("put_over", "row put over one in redb, 64 a commit", 30, GROUP_ROWS, put_over),
    case("put_expiring", "new row that expires, 64 a commit", 30, GROUP_ROWS, put_expiring),
    case("move", "row moved from memory into redb", 1, MOVED_ROWS, move_rows),
    case("encode", "row read for one peer -> frame's bytes", 100, GROUP_ROWS, encode),
    case("encode_shared", "row committed -> another peer's frame", 120, GROUP_ROWS, encode_shared),
    case("compress_100", "JSON row of 100 bytes in a frame -> zstd", 20, 512, compress_100),
    case("compress_1000", "JSON row of 1,000 bytes in a frame -> zstd", 20, 128, compress_1000),
    case("decompress_100", "row of such a frame -> row", 20, 512, decompress_100),
    case("decompress_1000", "row of such a frame -> row", 20, 128, decompress_1000),
    case("catch_up", "row of a delta read from redb", 4, RANGE_ROWS, catch_up),
    case("decode", "row of a frame's bytes -> row", 100, GROUP_ROWS, decode),
    case("merge_new", "peer's new row, 64 a commit", 30, GROUP_ROWS, merge_new),
    case("merge_over", "peer's row over an older one, 64 a commit", 30, GROUP_ROWS, merge_over),
    case("get_memory", "row read from memory", 4_000, 1, get_memory),
    case("get_redb", "row read from redb", 4_000, 1, get_redb),
    case("scan_memory", "row of a scan of memory", 6, RANGE_ROWS, scan_memory),
    case("scan_redb", "row of a scan of redb", 6, RANGE_ROWS, scan_redb),
    case("session_read", "session token in, read, token out", 1_000, 1, session_read),
    case("session_write", "session token in, write, token out", 1_000, 1, session_write),
];

const fn case(
    name: &'static str,
    unit: &'static str,
    rounds: usize,
    per_round: u64,
    prepare: fn(usize) -> Round,
) -> Case {
    Case { name, unit, rounds, per_round, prepare }
}

/// The case of this name.
pub(crate) fn named(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

// ---- writes -----------------------------------------------------------------------------------

fn put_request(_: usize) -> Round {
    let request = put_message(1).encode_to_vec().into();
    let limits = Limits::default();
    let decode = move |bytes: &bytes::Bytes| {
        let request = proto::PutRequest::decode(bytes.clone()).expect("a sound message");
        put_in(request, &limits, NOW_MS).expect("a sound request")
    };
    Box::new(move || drop(black_box(decode(black_box(&request)))))
}

fn bulk_request(_: usize) -> Round {
    let mutation = |number| proto::Mutation {
        mutation: Some(proto::mutation::Mutation::Put(put_message(number))),
    };
    let mutations = (0..GROUP_ROWS).map(mutation).collect();
    let request = proto::BulkWriteRequest { mutations }.encode_to_vec().into();
    let limits = Limits::default();
    let decode = move |bytes: &bytes::Bytes| {
        let bulk = proto::BulkWriteRequest::decode(bytes.clone()).expect("a sound message");
        let batch = proto::BatchRequest { mutations: bulk.mutations, ..Default::default() };
        batch_in(batch, &limits, NOW_MS).expect("a sound request")
    };
    Box::new(move || drop(black_box(decode(black_box(&request)))))
}

fn put_message(number: u64) -> proto::PutRequest {
    proto::PutRequest {
        table: table().as_str().to_owned(),
        key: key(number).bytes().clone(),
        value: value(number, 0),
        ..proto::PutRequest::default()
    }
}

fn put_new(rounds: usize) -> Round {
    let groups = groups(BASE_ROWS, rounds).map(puts).collect();
    commits(Site::with_rows(Rows::InMemory, BASE_ROWS), groups)
}

fn put_expiring(rounds: usize) -> Round {
    let groups = groups(BASE_ROWS, rounds).map(puts_that_expire).collect();
    commits(Site::with_rows(Rows::InMemory, BASE_ROWS), groups)
}

fn put_over(rounds: usize) -> Round {
    let groups = groups(0, rounds).map(|rows| puts_of_edition(rows, 1)).collect();
    commits(in_redb(BASE_ROWS), groups)
}

/// The rows of a memory that is moved.
const MOVED_ROWS: u64 = 1_025;

/// Each round moves a memory into a redb that holds rows already. The commit that sets it off
/// brings the last of the rows: alone, so that next to nothing else is counted.
fn move_rows(rounds: usize) -> Round {
    let site = |_| {
        let disks = Disks::default();
        disks.open(Rows::Moved).fill(0, BASE_ROWS);
        disks.open(Rows::InMemory).fill(BASE_ROWS, BASE_ROWS + MOVED_ROWS - 1);
        // What the log brings back into memory is moved with the next commit.
        warm(disks.open(Rows::Moved))
    };
    let mut sites = (0..rounds).map(site).collect::<Vec<Site>>().into_iter();
    let last = BASE_ROWS + MOVED_ROWS - 1;
    let group = puts(last..=last);
    Box::new(move || {
        let mut site = sites.next().expect("one for each round");
        black_box(site.apply(&group));
        // Closing a store is no part of the move.
        std::mem::forget(site);
    })
}

// ---- the exchange -----------------------------------------------------------------------------

/// A clock that stands still.
#[derive(Debug)]
struct NoClock;

impl WallClock for NoClock {
    fn now_ms(&self) -> u64 {
        NOW_MS
    }
}

/// Rows that no other link shares, as the change index gives them: what the first link of a commit
/// does, too.
fn encode(rounds: usize) -> Round {
    let rows = peers_rows(0..GROUP_ROWS, 0);
    let mut pages = vec![rows; rounds].into_iter();
    let heads: Heads = [(PEER, peers_stamp(GROUP_ROWS))].into_iter().collect();
    Box::new(move || {
        let rows = pages.next().expect("one for each round");
        black_box(frame_out(rows, heads.clone()));
    })
}

/// What a link does once the bell has rung: the newest commit's rows, from the follower to the
/// bytes of a frame. Each round is another peer's link that stands before the same commit.
fn encode_shared(rounds: usize) -> Round {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let (node, followers) = runtime.block_on(async {
        let Site { store, writer } = Site::with_rows(Rows::InMemory, BASE_ROWS);
        let config =
            NodeConfig { clock: Arc::new(NoClock), ..NodeConfig::new("in-memory", "here") };
        let node = Node::start(config, (store, writer)).await.expect("a sound store");
        let mut followers: Vec<Follower> =
            iter::repeat_with(|| Follower::new(&node, (*node.heads()).clone()))
                .take(rounds)
                .collect();
        for follower in &mut followers {
            let mut delta =
                follower.begin().expect("a sound store").delta().expect("above the floor");
            let page = delta.page(usize::MAX, usize::MAX).expect("a sound store");
            assert!(page.last && page.rows.is_empty(), "a peer that has everything");
            follower.finish(&delta);
        }
        let put = |number| Mutation {
            table: table(),
            change: Change::Put { key: key(number), value: value(number, 0), ttl: None },
        };
        let rows = BASE_ROWS..BASE_ROWS + GROUP_ROWS;
        node.write(rows.map(put).collect()).await.expect("a sound store");
        (node, followers)
    });
    let mut followers = followers.into_iter();
    Box::new(move || {
        let _open = &node;
        let mut follower = followers.next().expect("one for each round");
        let mut delta = follower.begin().expect("a sound store").delta().expect("above the floor");
        assert!(!delta.is_scan(), "the newest commit is in memory");
        let page = delta.page(4_096, 256 << 10).expect("a sound store");
        let frame = delta::Delta::from(Delta {
            snapshot_heads: Some((**delta.heads()).clone()),
            floor: Heads::new(),
            rows: page.rows,
            last: page.last,
            remaining_rows: page.remaining_rows,
            remaining_bytes: page.remaining_bytes,
            want_number: 1,
        });
        let request = proto::ExchangeRequest { frame: Some(frame.into()) };
        black_box(request.encode_to_vec());
        follower.finish(&delta);
    })
}

fn compress_100(_: usize) -> Round {
    compress_frames(512, 100)
}

fn compress_1000(_: usize) -> Round {
    compress_frames(128, 1_000)
}

fn compress_frames(rows: u64, value_bytes: usize) -> Round {
    let frame = plain_frame(rows, value_bytes);
    Box::new(move || {
        let mut frame = frame.clone();
        compress(&mut frame);
        assert!(frame.encoded.is_empty(), "it became smaller");
        black_box(frame);
    })
}

fn decompress_100(_: usize) -> Round {
    decompress_frames(512, 100)
}

fn decompress_1000(_: usize) -> Round {
    decompress_frames(128, 1_000)
}

fn decompress_frames(rows: u64, value_bytes: usize) -> Round {
    let mut frame = plain_frame(rows, value_bytes);
    compress(&mut frame);
    let request = proto::ExchangeRequest { frame: Some(frame.into()) };
    let bytes = bytes::Bytes::from(request.encode_to_vec());
    Box::new(move || drop(black_box(frame_in(black_box(&bytes).clone()))))
}

fn plain_frame(rows: u64, value_bytes: usize) -> delta::Delta {
    let rows = json_rows(0..rows, value_bytes);
    delta::Delta::from(Delta { rows, last: true, ..Delta::default() })
}

fn catch_up(_: usize) -> Round {
    let Site { store, .. } = in_redb(RANGE_ROWS);
    Box::new(move || {
        let changes = store.snapshot().changes(&Heads::new()).expect("a sound store");
        assert_eq!(changes.map(black_box).count(), 1_000);
    })
}

fn decode(_: usize) -> Round {
    let heads = [(PEER, peers_stamp(GROUP_ROWS))].into_iter().collect();
    let bytes = frame_out(peers_rows(0..GROUP_ROWS, 0), heads);
    Box::new(move || drop(black_box(frame_in(black_box(&bytes).clone()))))
}

fn merge_new(rounds: usize) -> Round {
    let merge = |rows: Range<u64>| vec![merge_of(peers_rows(rows.clone(), rows.start))];
    let groups = groups(BASE_ROWS, rounds).map(merge).collect();
    commits(Site::with_rows(Rows::InMemory, BASE_ROWS), groups)
}

fn merge_over(rounds: usize) -> Round {
    let mut site = Site::with_rows(Rows::InMemory, 0);
    site.apply(&[merge_of(peers_rows(0..BASE_ROWS, 0))]);
    let merge = |rows: Range<u64>| vec![merge_of(peers_rows(rows.clone(), BASE_ROWS + rows.start))];
    let groups = groups(0, rounds).map(merge).collect();
    commits(site, groups)
}

// ---- reads ------------------------------------------------------------------------------------

fn get_memory(rounds: usize) -> Round {
    gets(Site::with_rows(Rows::InMemory, BASE_ROWS).store, rounds)
}

fn get_redb(rounds: usize) -> Round {
    gets(in_redb(BASE_ROWS).store, rounds)
}

fn gets(store: Store, rounds: usize) -> Round {
    let table = table();
    // A step that has no factor in common with the number of rows.
    let mut keys: Vec<_> = (0..rounds as u64).map(|at| key(at * 677 % BASE_ROWS)).collect();
    Box::new(move || {
        let key = keys.pop().expect("one for each round");
        let found = store.snapshot().get(&table, &key).expect("a sound store");
        black_box(found.expect("a row").value());
    })
}

fn scan_memory(_: usize) -> Round {
    scans(Site::with_rows(Rows::InMemory, BASE_ROWS).store)
}

fn scan_redb(_: usize) -> Round {
    scans(in_redb(BASE_ROWS).store)
}

fn scans(store: Store) -> Round {
    let (table, range) = (table(), ScanRange::default());
    Box::new(move || {
        let rows = store.snapshot().scan(&table, &range).expect("a sound store");
        assert_eq!(rows.take(1_000).map(black_box).count(), 1_000);
    })
}

fn session_read(_: usize) -> Round {
    let heads = Arc::new(three_heads());
    let token = Session::from((*heads).clone()).token();
    let seen = Version { hlc: Hlc::at_ms(NOW_MS), origin: PEER };
    Box::new(move || {
        let session = Session::from_token(black_box(&token)).expect("a sound token");
        black_box(heads.covers(&session.required_at(OWN)));
        let mut read = Seen::new(&session, OWN, Arc::clone(&heads));
        read.note(black_box(seen));
        black_box(read.token());
    })
}

fn session_write(_: usize) -> Round {
    let token = Session::from(three_heads()).token();
    let written = [(OWN, Hlc::at_ms(NOW_MS + 1))].into_iter().collect();
    Box::new(move || {
        let session = Session::from_token(black_box(&token)).expect("a sound token");
        black_box(session.and(&written).token());
    })
}

fn three_heads() -> Heads {
    let third = Origin::from_bytes([3; 16]);
    [OWN, PEER, third].into_iter().map(|origin| (origin, Hlc::at_ms(NOW_MS))).collect()
}

// ---- what they share --------------------------------------------------------------------------

/// A store whose `count` rows are in redb, none in memory, and its pages in redb's cache.
fn in_redb(count: u64) -> Site {
    let disks = Disks::default();
    disks.open(Rows::Moved).fill(0, count);
    warm(disks.open(Rows::InMemory))
}

/// Reads everything once: the first read of a page costs many times the next.
fn warm(site: Site) -> Site {
    let snapshot = site.store.snapshot();
    let rows = snapshot.scan(&table(), &ScanRange::default()).expect("a sound store");
    let changes = snapshot.changes(&Heads::new()).expect("a sound store");
    black_box((rows.count(), changes.count()));
    site
}

/// The numbers of the rows of each round's group, from `first` on.
fn groups(first: u64, rounds: usize) -> impl Iterator<Item = Range<u64>> {
    (0..rounds as u64).map(move |round| {
        let from = first + round * GROUP_ROWS;
        from..from + GROUP_ROWS
    })
}

/// Each round commits the next group.
fn commits(mut site: Site, groups: Vec<Vec<Request>>) -> Round {
    let mut groups = groups.into_iter();
    Box::new(move || {
        let group = groups.next().expect("one for each round");
        black_box(site.apply(&group));
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "minutes in a development build; make bench-check runs each case anyway"]
    fn each_case_does_its_rounds() {
        for case in CASES {
            let mut round = (case.prepare)(2);
            round();
            round();
        }
    }

    #[test]
    fn names_are_unique() {
        for case in CASES {
            assert_eq!(named(case.name).map(|found| found.unit), Some(case.unit), "{}", case.name);
        }
    }
}
