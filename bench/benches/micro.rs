//! The hot paths by the clock, for whoever makes them faster.
//!
//! ```text
//! apply      a group through the writer: new rows, rows put over others, a peer's rows
//! merge      two versions of a row, nothing else
//! exchange   a delta's rows to the bytes of a frame, and back
//! get, scan  out of memory, out of redb
//! log        a commit on a real disk: one append, one sync, and little else
//! ```
//!
//! Everything but `log` has disks of memory: what a commit does for the log is in `apply`, its sync
//! is not. Times are for comparing two builds on one quiet machine within the hour; what must stay as
//! it is over the years is counted, see `hot_paths`.

use std::{
    cell::{Cell, RefCell},
    hint::black_box,
    ops::Range,
    time::Duration,
};

use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use lastword::{
    model::{Body, Context, Heads, Row, Version, merge},
    protocol::Frame,
    store::{Request, ScanRange, Store},
};
use lastword_bench::inputs::{
    Disks, OWN, PEER, Rows, Site, body, config, frame_in, frame_out, key, merge_of, peers_rows,
    peers_stamp, puts, puts_of_edition, table,
};

/// The rows of a store before anything is measured.
const BASE_ROWS: u64 = 100_000;
/// A store that has grown by so many is made anew, so that a quick machine, which does more in its
/// time, measures the same as a slow one.
const GROWTH_ROWS_MAX: u64 = 100_000;
/// The rows of a group: what gathers for a commit while the one before is on its way.
const GROUP_ROWS: u64 = 64;
/// The rows of a range that is read whole.
const RANGE_ROWS: u64 = 1_000;
/// Where a frame is cut.
const FRAME_BYTES: usize = 256 << 10;

/// A group named so, of short measurements: for a trend, not for a paper.
fn group<'c>(criterion: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(20);
    group.warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group
}

/// A store of [`BASE_ROWS`], in memory or in redb; what comes later stays in memory.
fn filled(rows: Rows) -> Site {
    let disks = Disks::default();
    disks.open(rows).fill(0, BASE_ROWS);
    disks.open(Rows::InMemory)
}

// ---- apply ------------------------------------------------------------------------------------

/// A store and the number of the next row to write there.
struct Growing {
    rows: Rows,
    site: Site,
    from: u64,
    next: u64,
}

impl Growing {
    /// Whose next row is number `from`.
    fn new(rows: Rows, from: u64) -> Growing {
        Growing { rows, site: filled(rows), from, next: from }
    }

    fn next_rows(&mut self, count: u64) -> Range<u64> {
        if self.next + count - self.from > GROWTH_ROWS_MAX {
            *self = Growing::new(self.rows, self.from);
        }
        self.next += count;
        self.next - count..self.next
    }
}

/// Times commits of groups of `count` rows, as `requests` makes them.
fn time_commits(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    count: u64,
    store: Growing,
    requests: impl Fn(Range<u64>) -> Vec<Request>,
) {
    let store = RefCell::new(store);
    group.throughput(Throughput::Elements(count));
    group.bench_function(BenchmarkId::new(name, count), |bencher| {
        bencher.iter_batched(
            || requests(store.borrow_mut().next_rows(count)),
            |group| black_box(store.borrow_mut().site.apply(&group)),
            BatchSize::SmallInput,
        );
    });
}

fn apply(criterion: &mut Criterion) {
    let mut group = group(criterion, "apply");
    for count in [1, GROUP_ROWS, 1_000] {
        let store = Growing::new(Rows::InMemory, BASE_ROWS);
        time_commits(&mut group, "new rows", count, store, puts);
    }
    for (name, rows) in [("over memory", Rows::InMemory), ("over redb", Rows::Moved)] {
        let over = |rows| puts_of_edition(rows, 1);
        time_commits(&mut group, name, GROUP_ROWS, Growing::new(rows, 0), over);
    }
    // Stamps go on rising over stores: where a store is made anew, rows for the one before may still
    // be on their way to it, and what they claim must not pass over those that follow.
    let stamped = Cell::new(0);
    let peers = |rows: Range<u64>| {
        let first = stamped.get();
        stamped.set(first + GROUP_ROWS);
        vec![merge_of(peers_rows(rows, first))]
    };
    let store = Growing::new(Rows::InMemory, BASE_ROWS);
    time_commits(&mut group, "peer's new rows", GROUP_ROWS, store, peers);
    group.finish();
}

// ---- pure functions ---------------------------------------------------------------------------

fn merge_two(criterion: &mut Criterion) {
    let mut group = group(criterion, "merge");
    let by = |origin, write, context: &Context| {
        body(1, Version { hlc: peers_stamp(write), origin }, context)
    };
    let older = by(OWN, 1, &Context::new());
    let newer = by(PEER, 2, &[(OWN, peers_stamp(1))].into_iter().collect());
    let unseen = by(PEER, 3, &Context::new());
    let pairs: [(&str, &Body, &Body); 3] =
        [("newer", &older, &newer), ("older", &newer, &older), ("concurrent", &older, &unseen)];
    for (name, local, incoming) in pairs {
        group.bench_function(name, |bencher| {
            bencher.iter(|| merge(black_box(local), None, black_box(incoming)));
        });
    }
    group.finish();
}

fn exchange(criterion: &mut Criterion) {
    let mut group = group(criterion, "exchange");
    let frame_rows = FRAME_BYTES / peers_rows(0..1, 0)[0].size_bytes();
    for (name, count) in [("64 rows", GROUP_ROWS), ("256 KiB", frame_rows as u64)] {
        let rows: Vec<Row> = peers_rows(0..count, 0);
        let heads: Heads = [(PEER, peers_stamp(count))].into_iter().collect();
        let bytes = frame_out(rows.clone(), heads.clone());
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            // The rows stay with the store's recent commits: each link clones them.
            bencher.iter(|| frame_out(black_box(&rows).clone(), heads.clone()));
        });
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            bencher.iter(|| -> Frame { frame_in(black_box(&bytes).clone()) });
        });
    }
    group.finish();
}

// ---- reads ------------------------------------------------------------------------------------

fn reads(criterion: &mut Criterion) {
    let table = table();
    for (name, rows) in [("memory", Rows::InMemory), ("redb", Rows::Moved)] {
        let Site { store, .. } = filled(rows);
        let mut gets = group(criterion, "get");
        let mut number = 0;
        gets.bench_function(name, |bencher| {
            // A step that has no factor in common with the number of rows.
            let next_key = || {
                number = (number + 677) % BASE_ROWS;
                key(number)
            };
            let get = |key| store.snapshot().get(&table, &key).expect("a sound store");
            bencher.iter_batched(next_key, get, BatchSize::SmallInput);
        });
        gets.finish();

        let mut scans = group(criterion, "scan");
        scans.throughput(Throughput::Elements(RANGE_ROWS));
        scans.bench_function(name, |bencher| {
            let scan = || {
                let all = ScanRange::default();
                let rows = store.snapshot().scan(&table, &all).expect("a sound store");
                rows.take(1_000).map(black_box).count()
            };
            bencher.iter(scan);
        });
        scans.finish();
    }
}

// ---- the disk ---------------------------------------------------------------------------------

fn log(criterion: &mut Criterion) {
    let mut group = group(criterion, "log");
    // Beside what is built: the folder for temporary files may be in memory.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let opened = Store::open(folder.path(), &config(Rows::InMemory)).expect("a sound store");
    let mut site = Site { store: opened.0, writer: opened.1 };
    for count in [1, GROUP_ROWS] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(BenchmarkId::new("commit on disk", count), |bencher| {
            // The same rows again: what the commit costs besides is small beside the sync.
            let requests = puts(0..count);
            bencher.iter(|| site.apply(black_box(&requests)));
        });
    }
    group.finish();
}

criterion_group!(benches, apply, merge_two, exchange, reads, log);
criterion_main!(benches);
