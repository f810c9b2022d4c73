//! What is due by time: expired rows leave, rows set aside are tried again, idle heads are
//! written down.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Config,
    columns::{Columns, Place, own},
    error::MirrorError,
    mysql::{Cell, first_number, number},
    session::{Expiry, Session, read},
    statement::{self, in_powers_of_two},
};
use crate::model::{Body, BodyParts, Context, Heads, Hlc, Key, Origin, Row, TableName, Version};

/// Between two looks for expired rows, and for whatever else is due.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How many rows a sweep deletes in one transaction.
const SWEEP_ROWS_MAX: usize = 1_000;
/// How many rows set aside are tried again at a time.
const RETRY_ROWS_MAX: usize = 100;

/// When what is due.
pub(super) struct Upkeep {
    sweep_at: Instant,
    retry_at: Instant,
    retry_wait: Duration,
    /// The place in `_lastword_rejected` behind which rows are tried next.
    retry_after: (Vec<u8>, Vec<u8>),
    is_retrying: bool,
}

impl Upkeep {
    /// All is due at once: nothing is known of what went before.
    pub(super) fn new(config: &Config) -> Upkeep {
        let now = Instant::now();
        Upkeep {
            sweep_at: now,
            retry_at: now,
            retry_wait: config.rejected_retry_min,
            retry_after: Default::default(),
            is_retrying: false,
        }
    }

    /// How long to wait for changes before [`Session::keep_up`] is called again, whose rounds the
    /// sweeps set.
    pub(super) fn nothing_due_for(&self) -> Duration {
        self.sweep_at.saturating_duration_since(Instant::now())
    }

    /// Rows set aside are tried again at once, from the first on.
    pub(super) fn retry_now(&mut self) {
        self.retry_at = Instant::now();
        self.retry_after = Default::default();
    }

    /// Rows were written that may have been in the way of rows set aside.
    pub(super) fn retry_soon(&mut self) {
        if !self.is_retrying {
            self.retry_now();
        }
    }

    /// Rows were set aside just now: to try them again at once would be in vain.
    pub(super) fn put_retry_off(&mut self) {
        self.retry_at = self.retry_at.max(Instant::now() + self.retry_wait);
    }
}

impl Session<'_> {
    /// Does what is due. `heads`: how far everything is passed on, where that is so.
    pub(super) async fn keep_up(&mut self, heads: Option<&Heads>) -> Result<(), MirrorError> {
        self.repair_asked().await?;
        let now = Instant::now();
        if now >= self.upkeep.sweep_at {
            self.upkeep.sweep_at = now + SWEEP_EVERY;
            self.sweep().await?;
        }
        // Within a delta later rows would come before earlier ones of the same keys.
        if heads.is_some() && self.rejected_rows > 0 && now >= self.upkeep.retry_at {
            self.retry_rejected().await?;
        }
        if heads.is_some()
            && (self.columns_due || self.columns_looked_at.elapsed() >= self.config.columns_check)
        {
            self.find_column_tables().await?;
        }
        if heads.is_some() {
            self.bring_owed().await?;
        }
        if self.last_used.elapsed() >= self.config.heartbeat {
            self.heartbeat(heads).await?;
        }
        Ok(())
    }

    /// Idle heads, or a sign of life: a connection that is not used is not known to be there.
    async fn heartbeat(&mut self, heads: Option<&Heads>) -> Result<(), MirrorError> {
        match heads {
            Some(heads) if !self.position.covers(heads) => {
                let mut position = self.position.clone();
                position.join(heads);
                self.apply(Vec::new(), position).await
            }
            _ => {
                self.mysql.execute("DO 0").await?;
                self.last_used = Instant::now();
                Ok(())
            }
        }
    }

    /// One round over the tables in which a row has expired.
    async fn sweep(&mut self) -> Result<(), MirrorError> {
        let now_ms = self.node.now_ms();
        let tables: Vec<_> = self
            .tables
            .iter()
            .filter(|(_, table)| match table.expiry {
                Expiry::Unknown => true,
                Expiry::Never => false,
                Expiry::At(ms) => ms <= now_ms,
            })
            .map(|(name, _)| name.clone())
            .collect();
        for table in tables {
            if self.next_expiry(&table).await?.is_some_and(|ms| ms <= now_ms) {
                self.begin(&self.position.clone()).await?;
                let sweep = statement::sweep(&table, now_ms, SWEEP_ROWS_MAX);
                let swept = self.mysql.execute(sweep).await?;
                self.commit(self.position.clone()).await?;
                if swept == SWEEP_ROWS_MAX as u64 {
                    // More wait: the next page of changes goes first, then on with it.
                    self.upkeep.sweep_at = Instant::now();
                } else {
                    self.next_expiry(&table).await?;
                }
            }
        }
        self.sweep_columns().await
    }

    /// The same of column tables, whose times stand in a table of their own.
    async fn sweep_columns(&mut self) -> Result<(), MirrorError> {
        let now_ms = self.node.now_ms();
        let tables: Vec<_> = self
            .columns
            .iter()
            .filter(|(_, table)| match table.expiry {
                Expiry::Unknown => true,
                Expiry::Never => false,
                Expiry::At(ms) => ms <= now_ms,
            })
            .map(|(name, table)| (name.clone(), Arc::clone(&table.columns)))
            .collect();
        for (table, columns) in tables {
            let rows = self.mysql.rows(own::expired(&table, now_ms, SWEEP_ROWS_MAX)).await?;
            let keys: Vec<_> =
                rows.iter().filter_map(|row| Key::new(row.first()?.clone()?).ok()).collect();
            let places: Vec<_> = keys.iter().filter_map(|key| place_of(&columns, key)).collect();
            if !keys.is_empty() {
                self.begin(&self.position.clone()).await?;
                self.delete_columns(&table, &columns, places).await?;
                for some in in_powers_of_two(&keys.iter().collect::<Vec<_>>()) {
                    self.mysql.execute(own::forget_expiries(&table, some)).await?;
                }
                self.commit(self.position.clone()).await?;
            }
            if keys.len() == SWEEP_ROWS_MAX {
                self.upkeep.sweep_at = Instant::now();
            } else {
                let next = first_number(&self.mysql.rows(own::next_expiry(&table)).await?);
                if let Some(of_table) = self.columns.get_mut(&table) {
                    of_table.expiry = next.map_or(Expiry::Never, Expiry::At);
                }
            }
        }
        Ok(())
    }

    async fn next_expiry(&mut self, table: &TableName) -> Result<Option<u64>, MirrorError> {
        let rows = self.mysql.rows(statement::next_expiry(table)).await?;
        let next = first_number(&rows);
        if let Some(table) = self.tables.get_mut(table) {
            table.expiry = next.map_or(Expiry::Never, Expiry::At);
        }
        Ok(next)
    }

    /// Tries some of the rows that were set aside: the table may have been altered meanwhile.
    async fn retry_rejected(&mut self) -> Result<(), MirrorError> {
        let (table, key) = &self.upkeep.retry_after;
        let page = self.mysql.rows(statement::rejected_after(table, key, RETRY_ROWS_MAX)).await?;
        let places = page
            .iter()
            .map(|row| place(row).ok_or(MirrorError::Damaged("_lastword_rejected")))
            .collect::<Result<Vec<_>, _>>()?;
        if places.is_empty() && self.upkeep.retry_after == Default::default() {
            // Somebody took them out.
            return self.count_rejected().await;
        }
        let is_full = places.len() == RETRY_ROWS_MAX;
        self.upkeep.retry_after = match places.last() {
            Some((table, key, _)) if is_full => {
                (table.as_str().as_bytes().to_vec(), key.as_slice().to_vec())
            }
            _ => Default::default(),
        };

        let tables: BTreeSet<_> = places.iter().map(|(table, ..)| table.clone()).collect();
        for table in &tables {
            self.tables.remove(table);
        }
        let node = self.node.clone();
        let rows = read(move || {
            let snapshot = node.snapshot();
            places
                .into_iter()
                .map(|(table, key, version)| {
                    let body = snapshot.get(&table, &key)?.unwrap_or_else(|| gone(version));
                    Ok(Row { table, key, body })
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let before = self.rejected_rows;
        self.upkeep.is_retrying = true;
        let applied = self.apply(rows, self.position.clone()).await;
        self.upkeep.is_retrying = false;
        applied?;

        let wait = if self.rejected_rows < before {
            self.upkeep.retry_wait = self.config.rejected_retry_min;
            if is_full { Duration::ZERO } else { self.upkeep.retry_wait }
        } else {
            let longer = (self.upkeep.retry_wait * 2).min(self.config.rejected_retry_max);
            std::mem::replace(&mut self.upkeep.retry_wait, longer)
        };
        self.upkeep.retry_at = Instant::now() + wait;
        Ok(())
    }
}

/// The table, key and version that a row of `_lastword_rejected` names.
fn place(row: &[Cell]) -> Option<(TableName, Key, Version)> {
    let [table, key, hlc, origin] = row else { return None };
    Some((
        TableName::of_client(str::from_utf8(table.as_deref()?).ok()?).ok()?,
        Key::new(key.clone()?).ok()?,
        Version {
            hlc: Hlc::from_bits(number(hlc)?),
            origin: Origin::from_bytes(origin.as_deref()?.try_into().ok()?),
        },
    ))
}

fn place_of(columns: &Columns, key: &Key) -> Option<Place> {
    let params = columns.key_params(key).ok()?;
    Some(Place { key: key.clone(), params, version: Version::default() })
}

/// In place of a row that the store no longer has.
pub(super) fn gone(version: Version) -> Body {
    Body::new(&BodyParts {
        version,
        seen: Hlc::ZERO,
        context: &Context::new(),
        expires_at_ms: None,
        value: None,
    })
}
