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
//! chunk. Where MySQL orders keys otherwise (numbers, text under a collation), chunks are lists of the store's keys,
//! and then all of MySQL's keys are looked up in the store.

use std::sync::Arc;

use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    Check, Failed,
    form::{Form, Numbers},
    kv::{Kv, Range},
};
use crate::{
    mirror::{
        columns::shown,
        error::MirrorError,
        mysql::{Cell, number},
        session::read,
    },
    model::{Key, Row, TableName},
    node::{MirrorWrong, Node},
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
        let ordered = self.form.ordered().cloned();
        let mut next = Some(self.read_chunk(None));
        while let Some(chunk) = next.take() {
            let chunk = chunk.await.expect("reading the store does not panic");
            let chunk = chunk.map_err(MirrorError::from)?;
            next = chunk.range.through.clone().map(|last| self.read_chunk(Some(last)));
            self.at.rows += chunk.keys.len() as u64;
            match &ordered {
                Some(kv) => self.compare_range(kv, &chunk).await?,
                None => self.compare_keys(&chunk).await?,
            }
            self.step().await?;
        }
        if ordered.is_none() {
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
        let form = self.form.ordered().map(|_| Arc::clone(&self.form));
        spawn_blocking(move || chunk_of(&node, &table, form.as_deref(), after))
    }

    async fn compare_range(&mut self, kv: &Kv, chunk: &Chunk) -> Result<(), Failed> {
        let sum = kv.sum_of_range(&chunk.range, chunk.now_ms);
        let theirs = count_and_sum(&self.mysql.rows(sum).await?);
        if theirs == Some((chunk.keys.len() as u64, chunk.sum)) {
            return Ok(());
        }
        let mut after = chunk.range.after.clone();
        loop {
            let (now_ms, part) =
                (self.node.now_ms(), Range { after, through: chunk.range.through.clone() });
            let rows = kv.rows_of_range(&part, now_ms, FETCH_ROWS_MAX);
            let theirs = numbers(self.mysql.rows(rows).await?);
            let is_last = theirs.len() < FETCH_ROWS_MAX;
            let through = match theirs.last_key_value() {
                Some((last, _)) if !is_last => Some(last.clone()),
                _ => part.through.clone(),
            };
            let part = Range { through, ..part };
            let (node, table, of) = (self.node.clone(), self.at.table.clone(), part.clone());
            let form = Arc::clone(&self.form);
            let ours = read(move || numbers_of(&node, &table, &form, &of, now_ms)).await?;
            self.suspect(&ours, &theirs);
            self.step().await?;
            if is_last {
                return Ok(());
            }
            after = part.through;
        }
    }

    async fn compare_keys(&mut self, chunk: &Chunk) -> Result<(), Failed> {
        let form = Arc::clone(&self.form);
        // Those that cannot stand there were set aside: that is looked at.
        let (keys, nowhere): (Vec<_>, Vec<_>) =
            chunk.keys.iter().cloned().partition(|key| form.may_hold(key));
        self.suspects.extend(nowhere);
        for some in keys.chunks(KEYS_MAX) {
            let (node, table) = (self.node.clone(), self.at.table.clone());
            let (asked, now_ms, of) = (some.to_vec(), self.node.now_ms(), Arc::clone(&form));
            let ours = read(move || numbers_of_keys(&node, &table, &of, asked, now_ms)).await?;
            let sum = ours.values().fold(0, |sum, number| sum ^ number);
            let theirs = self.mysql.rows(form.sum_of_keys(some, now_ms)).await?;
            if count_and_sum(&theirs) == Some((ours.len() as u64, sum)) {
                continue;
            }
            let mut theirs =
                form.numbers(self.mysql.rows(form.numbers_of_keys(some, now_ms)).await?);
            theirs.retain(|key, _| some.binary_search(key).is_ok());
            self.suspect(&ours, &theirs);
        }
        Ok(())
    }

    /// All keys of MySQL, looked up in the store.
    async fn look_for_extra(&mut self) -> Result<(), Failed> {
        let mut after: Option<Vec<Cell>> = None;
        loop {
            let table = self.at.table.clone();
            let page = self.form.keys_after(&table, after.as_deref(), FETCH_ROWS_MAX);
            let mut rows = self.mysql.rows(page).await?;
            let mut keys = Vec::with_capacity(rows.len());
            for row in &rows {
                match self.form.key_of(row) {
                    Some(key) => keys.push(key),
                    // The mirror can neither have written it nor take it away.
                    None => self.note(shown(row), MirrorWrong::Extra, None, false),
                }
            }
            let Some(last) = rows.pop() else { return Ok(()) };
            let (node, now_ms) = (self.node.clone(), self.node.now_ms());
            let gone = read(move || not_live(&node, &table, keys, now_ms)).await?;
            self.suspects.extend(gone);
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

/// `form`: where the chunk's sum is asked for.
fn chunk_of(
    node: &Node,
    table: &TableName,
    form: Option<&Form>,
    after: Option<Vec<u8>>,
) -> Result<Chunk, StoreError> {
    let now_ms = node.now_ms();
    let mut range = Range { after, through: None };
    let (mut keys, mut sum, mut bytes, mut read_rows) = (Vec::new(), 0, 0, 0);
    for row in node.snapshot().scan(table, &scan_range(&range))? {
        let Row { key, body, .. } = row?;
        read_rows += 1;
        if body.is_live(now_ms) {
            sum ^= form.and_then(|form| form.number(&key, &body)).unwrap_or_default();
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
    form: &Form,
    range: &Range,
    now_ms: u64,
) -> Result<Numbers, StoreError> {
    let mut numbers = Numbers::new();
    for row in node.snapshot().scan(table, &scan_range(range))? {
        let Row { key, body, .. } = row?;
        if let Some(number) = form.number(&key, &body).filter(|_| body.is_live(now_ms)) {
            numbers.insert(key.as_slice().to_vec(), number);
        }
    }
    Ok(numbers)
}

fn numbers_of_keys(
    node: &Node,
    table: &TableName,
    form: &Form,
    keys: Vec<Vec<u8>>,
    now_ms: u64,
) -> Result<Numbers, StoreError> {
    let snapshot = node.snapshot();
    let mut numbers = Numbers::new();
    for bytes in keys {
        let Ok(key) = Key::new(bytes.clone()) else { continue };
        let body = snapshot.get(table, &key)?.filter(|body| body.is_live(now_ms));
        if let Some(number) = body.and_then(|body| form.number(&key, &body)) {
            numbers.insert(bytes, number);
        }
    }
    Ok(numbers)
}

/// Those of these keys under which the store has no live row.
fn not_live(
    node: &Node,
    table: &TableName,
    keys: Vec<Vec<u8>>,
    now_ms: u64,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let snapshot = node.snapshot();
    let mut gone = Vec::new();
    for bytes in keys {
        let body = match Key::new(bytes.clone()) {
            Ok(key) => snapshot.get(table, &key)?,
            Err(_) => None,
        };
        if body.is_none_or(|body| !body.is_live(now_ms)) {
            gone.push(bytes);
        }
    }
    Ok(gone)
}
