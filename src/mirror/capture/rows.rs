//! A hand-over: what stands in the outboxes, and the rows that it names, of one moment.
//!
//! ```text
//! snapshot: checkpoint, entries, rows, columns --> one store commit --> entries deleted
//! ```
//!
//! Several entries of a row are one write: the row as it stands. Earlier ones were overwritten by the same
//! site before anyone else could see them.

use std::collections::BTreeMap;

use super::{
    receipt::Entries,
    session::{Found, Session},
};
use crate::{
    mirror::{
        columns::Columns,
        error::MirrorError,
        mysql::{Cell, number},
        statement::in_powers_of_two,
        tables::facts_of,
    },
    model::{Hlc, Key, Origin, TableName, Version},
    node::CaptureError,
    store::HandedRow,
};

/// How many entries of a table one hand-over takes.
const ENTRIES_MAX: usize = 4_096;
/// How many rows are read at once, where they may be large.
const ROWS_MAX: usize = 64;
/// And where those before took no more bytes each.
const SMALL_ROWS_MAX: usize = 256;
const SMALL_ROW_BYTES: usize = 4 << 10;
/// Of a table no more rows are read once they have so many bytes.
const BYTES_MAX: usize = 8 << 20;

/// What one look found in a table.
#[derive(Default)]
struct Read {
    rows: Vec<HandedRow>,
    entries: Vec<u64>,
}

/// The entries of one key.
#[derive(Default)]
struct Written {
    /// Those that are not handed over yet.
    entries: Vec<u64>,
    missed: Vec<Version>,
}

impl Session<'_> {
    /// Hands over what waits in these tables, or the first part of it; gives how many rows that was.
    ///
    /// A table that is not filled is handed over by itself: what an application saw there is another
    /// moment's of the store.
    pub(super) async fn hand_over(&mut self, due: &[usize]) -> Result<usize, MirrorError> {
        self.mysql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").await?;
        self.mysql.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let names: Vec<_> = due.iter().map(|&at| self.tables[at].name.clone()).collect();
        let all_heads = self.heads_of(&names.iter().collect::<Vec<_>>()).await?;
        let heads = all_heads.first().cloned().unwrap_or_default();
        let (now, later): (Vec<_>, Vec<_>) =
            due.iter().zip(&all_heads).partition(|(_, of_table)| **of_table == heads);
        if !later.is_empty() {
            self.is_drained = false;
        }
        let now: Vec<usize> = now.into_iter().map(|(&at, _)| at).collect();
        let mut reads = Vec::new();
        for &at in &now {
            match self.read(at).await? {
                Ok(read) => {
                    self.tables[at].held_up = None;
                    reads.push((at, read));
                }
                Err(reason) => {
                    let table = &mut self.tables[at];
                    if table.held_up.as_ref() != Some(&reason) {
                        tracing::warn!(table = %table.name, reason, "capture: the table waits");
                    }
                    // Until the next check.
                    table.found = Err(reason.clone());
                    table.held_up = Some(reason);
                }
            }
        }
        let reads = self.of_these_columns(reads).await?;
        self.mysql.execute("COMMIT").await?;

        let mut entries = Entries::default();
        let mut rows = Vec::new();
        for (at, read) in reads {
            let Ok(found) = &self.tables[at].found else { continue };
            let some = read.entries.len() as u64;
            entries.add(found.outbox.name(), read.entries);
            self.tables[at].rows += read.rows.len() as u64;
            self.tables[at].pending = self.tables[at].pending.saturating_sub(some);
            rows.extend(read.rows);
        }
        if entries.is_empty() {
            return Ok(0);
        }
        let found = rows.len();
        let number = self.handed + 1;
        let report = match self.node.hand_over(number, rows, heads, entries.to_bytes()).await {
            Ok(report) => report,
            Err(CaptureError::OutOfTurn(_)) => return Err(MirrorError::Fenced),
            Err(CaptureError::Write(error)) => {
                return Err(MirrorError::Table(format!("capture: {error}")));
            }
        };
        self.report.handed_over(&report);
        self.done(&entries, report.written > 0).await?;
        Ok(found)
    }

    /// What waits in a table; or why it cannot be told.
    async fn read(&mut self, at: usize) -> Result<Result<Read, String>, MirrorError> {
        let Session { mysql, tables, config, is_drained, .. } = self;
        let table = &tables[at];
        let Ok(Found { columns, outbox, .. }) = &table.found else {
            return Ok(Ok(Read::default()));
        };
        let listed = mysql.rows(outbox.entries(ENTRIES_MAX)).await?;
        let written = match by_key(columns, &listed) {
            Ok(written) => written,
            Err(reason) => return Ok(Err(format!("table {}: {reason}", table.name))),
        };
        if written.values().map(|written| written.entries.len()).sum::<usize>() >= ENTRIES_MAX {
            *is_drained = false;
        }
        let mut read = Read::default();
        let all: Vec<(Key, Written)> = written.into_iter().collect();
        let mut bytes = 0;
        let mut left = &all[..];
        while !left.is_empty() {
            let is_small = bytes > 0 && bytes <= SMALL_ROW_BYTES * read.rows.len();
            let rows_max = if is_small { SMALL_ROWS_MAX } else { ROWS_MAX };
            let (some, rest) = left.split_at(rows_max.min(left.len()));
            left = rest;
            if bytes > BYTES_MAX {
                *is_drained = false;
                break;
            }
            let last: Vec<u64> = some
                .iter()
                .filter_map(|(_, written)| written.entries.iter().max().copied())
                .collect();
            let mut standing: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
            for entries in in_powers_of_two(&last) {
                for row in mysql.rows(outbox.rows(columns, entries)).await? {
                    let cells = row.get(1..).unwrap_or_default();
                    match columns.key_of_row(cells) {
                        Ok(key) => {
                            let value = columns.value_of(cells);
                            bytes += value.len();
                            standing.insert(key, value);
                        }
                        Err(reason) => {
                            return Ok(Err(format!("table {}: {reason}", table.name)));
                        }
                    }
                }
            }
            for (key, written) in some {
                // Under a collation that folds the row may be another key's.
                let value = standing.remove(key);
                if let Some(value) = &value
                    && value.len() > config.captured_value_bytes_max
                {
                    return Ok(Err(too_large(&table.name, key, value.len(), config)));
                }
                read.entries.extend(&written.entries);
                read.rows.push(HandedRow {
                    table: table.name.clone(),
                    key: key.clone(),
                    value: value.map(Into::into),
                    missed: written.missed.clone(),
                });
            }
        }
        Ok(Ok(read))
    }

    /// Leaves those off whose columns are no longer what they were read as. Within the snapshot: what was
    /// read cannot be altered before it ends.
    async fn of_these_columns(
        &mut self,
        reads: Vec<(usize, Read)>,
    ) -> Result<Vec<(usize, Read)>, MirrorError> {
        let names: Vec<_> = reads.iter().map(|&(at, _)| self.tables[at].name.clone()).collect();
        let facts = facts_of(&mut self.mysql, &names).await?;
        let mut same = Vec::new();
        for (at, read) in reads {
            let table = &self.tables[at];
            let Ok(found) = &table.found else { continue };
            let now = facts
                .get(table.name.as_str())
                .map(|facts| Columns::of(table.name.as_str(), facts, &table.setting));
            if let Some(Ok(now)) = now
                && now.definition() == found.columns.definition()
            {
                same.push((at, read));
            } else {
                // What it is instead the next check says.
                tracing::debug!(table = %table.name, "capture: its columns have changed");
                self.tables[at].found = Err(format!("table {}: it is being altered", table.name));
            }
        }
        Ok(same)
    }
}

/// The keys that have entries which are not handed over.
fn by_key(columns: &Columns, listed: &[Vec<Cell>]) -> Result<BTreeMap<Key, Written>, String> {
    let mut all: BTreeMap<Key, Written> = BTreeMap::new();
    for row in listed {
        let [seq, handed, hlc, origin, cells @ ..] = &row[..] else { continue };
        let written = all.entry(columns.key_of(cells)?).or_default();
        if let (Some(seq), Some(0)) = (number(seq), number(handed)) {
            written.entries.push(seq);
        }
        if let (Some(hlc), Some(origin)) = (number(hlc), origin.as_deref())
            && let Ok(origin) = origin.try_into()
        {
            let origin = Origin::from_bytes(origin);
            written.missed.push(Version { hlc: Hlc::from_bits(hlc), origin });
        }
    }
    all.retain(|_, written| !written.entries.is_empty());
    Ok(all)
}

fn too_large(table: &TableName, key: &Key, bytes: usize, config: &crate::mirror::Config) -> String {
    format!(
        "table {table}: the row {} takes {bytes} bytes as JSON, more than {}: make it smaller, then \
         the table goes on",
        String::from_utf8_lossy(key.as_slice()),
        config.captured_value_bytes_max
    )
}
