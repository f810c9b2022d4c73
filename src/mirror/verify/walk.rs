//! The walk through a table: chunk by chunk, a sum of MySQL's rows beside one of the store's.
//!
//! ```text
//! store: keys (a, b], count, sum ----.   while MySQL adds one chunk up,
//! MySQL: keys (a, b], count, sum --- = ? the store's next one is read
//!                                    `--- no: key and number of each row; those that differ are suspects
//! ```
//!
//! Each chunk is of another moment, so nothing is held for long, and what is written meanwhile makes
//! few chunks differ. The first and the last are open at their ends: rows that only MySQL has are within some
//! chunk. Where MySQL orders keys otherwise (text under a collation), chunks are lists of the store's keys,
//! and then all of MySQL's keys are looked up in the store.

use std::collections::BTreeMap;

use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    Check, Failed,
    kv::{self, Range},
};
use crate::{
    mirror::{
        error::MirrorError,
        mysql::{Cell, number},
        session::read,
        statement,
    },
    model::{Key, Row, TableName},
    node::Node,
    store::{ScanRange, StoreError},
};

/// Live rows in a chunk.
const CHUNK_ROWS_MAX: usize = 2_000;
/// Their keys and values, roughly, in bytes.
const CHUNK_BYTES_MAX: usize = 8 << 20;
/// Rows of the store that are gone through for a chunk, dead ones included.
const CHUNK_READ_ROWS_MAX: usize = 50_000;
/// Keys in one statement.
pub(super) const KEYS_MAX: usize = 500;
/// Rows of MySQL that are fetched at a time.
const FETCH_ROWS_MAX: usize = 4_000;
/// Suspects are judged once there are so many.
const SUSPECTS_MAX: usize = 1_000;

/// Some rows of the store, one after the other.
struct Chunk {
    range: Range,
    /// The moment up to which rows count as expired.
    now_ms: u64,
    /// Its live rows.
    keys: Vec<Vec<u8>>,
    sum: u64,
}

impl Check<'_> {
    /// Compares the table; what differs is judged, and put right where that is asked for.
    pub(super) async fn walk(&mut self) -> Result<(), Failed> {
        let is_ordered = self.kv.is_ordered();
        let mut next = Some(self.read_chunk(None));
        while let Some(chunk) = next.take() {
            let chunk = chunk.await.expect("reading the store does not panic");
            let chunk = chunk.map_err(MirrorError::from)?;
            next = chunk.range.through.clone().map(|last| self.read_chunk(Some(last)));
            self.at.rows += chunk.keys.len() as u64;
            if is_ordered {
                self.compare_range(&chunk).await?;
            } else {
                self.compare_keys(&chunk).await?;
            }
            self.step().await?;
        }
        if !is_ordered {
            self.look_for_extra().await?;
        }
        self.judge().await?;
        self.tell();
        Ok(())
    }

    /// Judges where there is enough to judge.
    async fn step(&mut self) -> Result<(), Failed> {
        if self.suspects.len() >= SUSPECTS_MAX {
            self.judge().await?;
        }
        self.tell();
        Ok(())
    }

    fn read_chunk(&self, after: Option<Vec<u8>>) -> JoinHandle<Result<Chunk, StoreError>> {
        let (node, table) = (self.node.clone(), self.at.table.clone());
        spawn_blocking(move || chunk_of(&node, &table, after))
    }

    async fn compare_range(&mut self, chunk: &Chunk) -> Result<(), Failed> {
        let sum = self.kv.sum_of_range(&chunk.range, chunk.now_ms);
        let theirs = count_and_sum(&self.mysql.rows(sum).await?);
        if theirs == Some((chunk.keys.len() as u64, chunk.sum)) {
            return Ok(());
        }
        let mut after = chunk.range.after.clone();
        loop {
            let (now_ms, part) =
                (self.node.now_ms(), Range { after, through: chunk.range.through.clone() });
            let rows = self.kv.rows_of_range(&part, now_ms, FETCH_ROWS_MAX);
            let theirs = numbers(self.mysql.rows(rows).await?);
            let is_last = theirs.len() < FETCH_ROWS_MAX;
            let through = match theirs.last_key_value() {
                Some((last, _)) if !is_last => Some(last.clone()),
                _ => part.through.clone(),
            };
            let part = Range { through, ..part };
            let (node, table, of) = (self.node.clone(), self.at.table.clone(), part.clone());
            let ours = read(move || numbers_of(&node, &table, &of, now_ms)).await?;
            self.suspect(&ours, &theirs);
            self.step().await?;
            if is_last {
                return Ok(());
            }
            after = part.through;
        }
    }

    async fn compare_keys(&mut self, chunk: &Chunk) -> Result<(), Failed> {
        let keys: Vec<_> = chunk.keys.iter().filter(|key| self.kv.may_hold(key)).cloned().collect();
        // Those that cannot stand there were set aside: that is looked at.
        self.suspects.extend(chunk.keys.iter().filter(|key| !self.kv.may_hold(key)).cloned());
        for some in keys.chunks(KEYS_MAX) {
            let (node, table) = (self.node.clone(), self.at.table.clone());
            let (asked, now_ms) = (some.to_vec(), self.node.now_ms());
            let ours = read(move || numbers_of_keys(&node, &table, asked, now_ms)).await?;
            let sum = ours.values().fold(0, |sum, number| sum ^ number);
            let theirs = self.mysql.rows(self.kv.sum_of_keys(some, now_ms)).await?;
            if count_and_sum(&theirs) == Some((ours.len() as u64, sum)) {
                continue;
            }
            let rows = self.mysql.rows(self.kv.rows_of_keys(some, now_ms)).await?;
            let lives = |row: &Vec<Cell>| row.get(2).and_then(number) == Some(1);
            let theirs = numbers(rows.into_iter().filter(lives).collect());
            let theirs = theirs.into_iter().filter(|(key, _)| some.contains(key)).collect();
            self.suspect(&ours, &theirs);
        }
        Ok(())
    }

    /// All keys of MySQL, looked up in the store.
    async fn look_for_extra(&mut self) -> Result<(), Failed> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let table = self.at.table.clone();
            let keys = statement::keys_after(&table, after.as_deref(), FETCH_ROWS_MAX);
            let rows = self.mysql.rows(keys).await?;
            let keys: Vec<_> =
                rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect();
            let Some(last) = keys.last().cloned() else { return Ok(()) };
            let (node, now_ms, asked) = (self.node.clone(), self.node.now_ms(), keys.clone());
            let ours = read(move || numbers_of_keys(&node, &table, asked, now_ms)).await?;
            self.suspects.extend(keys.into_iter().filter(|key| !ours.contains_key(key)));
            self.step().await?;
            after = Some(last);
        }
    }

    fn suspect(&mut self, ours: &Numbers, theirs: &Numbers) {
        let keys = ours.keys().chain(theirs.keys());
        let differ = keys.filter(|key| ours.get(*key) != theirs.get(*key)).cloned();
        self.suspects.extend(differ);
    }
}

/// Rows by their keys, as numbers.
type Numbers = BTreeMap<Vec<u8>, u64>;

/// Of a result with keys and numbers. A row without a number differs from every other.
fn numbers(rows: Vec<Vec<Cell>>) -> Numbers {
    let row = |row: Vec<Cell>| {
        let of = row.get(1).and_then(number).unwrap_or_default();
        Some((row.into_iter().next()??, of))
    };
    rows.into_iter().filter_map(row).collect()
}

fn count_and_sum(rows: &[Vec<Cell>]) -> Option<(u64, u64)> {
    let [count, sum] = &rows.first()?[..] else { return None };
    Some((number(count)?, number(sum)?))
}

fn scan_range(range: &Range) -> ScanRange {
    // The next key behind another one ends with a zero more.
    let behind = |key: &Vec<u8>| [key, &[0][..]].concat();
    ScanRange {
        start: range.after.as_ref().map(behind),
        end: range.through.as_ref().map(behind),
        reverse: false,
    }
}

fn chunk_of(node: &Node, table: &TableName, after: Option<Vec<u8>>) -> Result<Chunk, StoreError> {
    let now_ms = node.now_ms();
    let mut range = Range { after, through: None };
    let (mut keys, mut sum, mut bytes, mut read_rows) = (Vec::new(), 0, 0, 0);
    for row in node.snapshot().scan(table, &scan_range(&range))? {
        let Row { key, body, .. } = row?;
        read_rows += 1;
        if body.is_live(now_ms) {
            let number = kv::number(key.as_slice(), &body).expect("it lives, so it has a value");
            sum ^= number;
            bytes += key.as_slice().len() + body.value().map_or(0, |value| value.len());
            keys.push(key.as_slice().to_vec());
        }
        if keys.len() >= CHUNK_ROWS_MAX
            || bytes >= CHUNK_BYTES_MAX
            || read_rows >= CHUNK_READ_ROWS_MAX
        {
            range.through = Some(key.as_slice().to_vec());
            break;
        }
    }
    Ok(Chunk { range, now_ms, keys, sum })
}

fn numbers_of(
    node: &Node,
    table: &TableName,
    range: &Range,
    now_ms: u64,
) -> Result<Numbers, StoreError> {
    let mut numbers = Numbers::new();
    for row in node.snapshot().scan(table, &scan_range(range))? {
        let Row { key, body, .. } = row?;
        if let Some(number) = kv::number(key.as_slice(), &body).filter(|_| body.is_live(now_ms)) {
            numbers.insert(key.as_slice().to_vec(), number);
        }
    }
    Ok(numbers)
}

fn numbers_of_keys(
    node: &Node,
    table: &TableName,
    keys: Vec<Vec<u8>>,
    now_ms: u64,
) -> Result<Numbers, StoreError> {
    let snapshot = node.snapshot();
    let mut numbers = Numbers::new();
    for bytes in keys {
        let Ok(key) = Key::new(bytes.clone()) else { continue };
        let body = snapshot.get(table, &key)?.filter(|body| body.is_live(now_ms));
        if let Some(number) = body.and_then(|body| kv::number(&bytes, &body)) {
            numbers.insert(bytes, number);
        }
    }
    Ok(numbers)
}
