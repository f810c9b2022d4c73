//! The rows of a table that waits are compared with the store's, a lot at a time, between the looks; and made one
//! with them, where somebody has said which are right.
//!
//! ```text
//! a lot of MySQL's rows, each with whether an entry of it waits --> the store's rows of the same keys
//!   --> judged --> one transaction: losers kept, entries made, how far that is   (the state is `adopt`)
//! all compared --> the state is `on`: entries flow, and the mirror fills the table from the store
//! ```
//!
//! **Invariant.** Behind the key that is noted, nothing is decided; up to it, each row of MySQL that differs has
//! an entry, or stands among the losers. Both are of one transaction, so whoever goes on after a crash
//! decides no row twice. Nothing of the table is handed over or filled before all are decided.
//!
//! What applications write meanwhile has entries of their triggers: it is this site's, like any write.

use std::collections::HashMap;

use tokio::sync::{oneshot, watch};

use super::{
    own::{self, State},
    session::{Found, Session},
};
use crate::{
    mirror::{
        adopt::{Judged, Loser, Progress, Standing, judge, refused_as_time},
        error::MirrorError,
        mysql::number,
        session::read,
        statement::{Param, in_powers_of_two},
    },
    model::{Key, TableName},
    node::{AdoptCounts, AdoptKind, AdoptOptions, Adopted, Decision, Stand},
    store::ScanRange,
};

/// How many rows a lot has, at most.
const LOT_ROWS: usize = 1_024;
/// Of a lot no more rows are read once they have so many bytes.
const LOT_BYTES: usize = 8 << 20;
/// How many losers one statement keeps.
const LOSERS_MAX: usize = 256;
/// What one takes besides, roughly, in bytes.
const LOSER_BYTES: usize = 100;
/// How often a lot is tried again that others' locks were in the way of.
const TRIES_MAX: usize = 20;

/// Who waits for it.
pub(super) struct Asking {
    pub(super) progress: watch::Sender<AdoptCounts>,
    pub(super) answer: oneshot::Sender<Result<Adopted, String>>,
}

/// A comparison under way.
pub(super) struct Adoption {
    table: TableName,
    decision: Option<Decision>,
    applies: bool,
    /// Those that stand in the way of nothing any more: only the store's are left to be looked at.
    is_through: bool,
    /// Up to which key it has come.
    after: Option<Key>,
    judged: Judged,
    tries: usize,
    asking: Option<Asking>,
}

impl Adoption {
    fn tell(&self) {
        if let Some(Asking { progress, .. }) = &self.asking {
            progress.send_replace(self.judged.counts.clone());
        }
    }

    fn adopted(&mut self, was_done: bool) -> Adopted {
        Adopted {
            counts: self.judged.counts.clone(),
            examples: std::mem::take(&mut self.judged.examples),
            was_done,
            losers_in: own::ADOPTED.to_owned(),
        }
    }

    fn answer(&mut self, result: Result<Adopted, String>) {
        if let Some(Asking { answer, .. }) = self.asking.take() {
            // Who asked may have gone.
            let _ = answer.send(result);
        }
    }
}

impl Session<'_> {
    /// Begins to compare a table, or goes on with what was begun.
    pub(super) async fn begin_adoption(
        &mut self,
        options: AdoptOptions,
        asking: Asking,
    ) -> Result<(), MirrorError> {
        let AdoptOptions { table, decision, applies } = options;
        if let Some(running) = &mut self.adoption {
            let is_same = running.table == table && running.applies && applies;
            if is_same && running.decision == decision {
                running.asking = Some(asking);
            } else {
                let _ = asking.answer.send(Err(format!(
                    "table {}: it is being compared now: wait for its end, or ask for the same",
                    running.table
                )));
            }
            return Ok(());
        }
        self.check_tables().await?;
        let mut adoption = Adoption {
            table,
            decision,
            applies,
            is_through: false,
            after: None,
            judged: Judged::default(),
            tries: 0,
            asking: Some(asking),
        };
        match self.may_begin(&mut adoption).await? {
            Ok(true) => self.adoption = Some(adoption),
            Ok(false) => {
                let adopted = adoption.adopted(true);
                adoption.answer(Ok(adopted));
            }
            Err(reason) => adoption.answer(Err(reason)),
        }
        Ok(())
    }

    /// Whether there is anything to do: a table that was adopted so before is not compared again.
    async fn may_begin(
        &mut self,
        adoption: &mut Adoption,
    ) -> Result<Result<bool, String>, MirrorError> {
        let name = adoption.table.clone();
        let Some(at) = self.tables.iter().position(|table| table.name == name) else {
            return Ok(Err(format!("table {name}: it is not captured any more")));
        };
        let found = match &mut self.tables[at].found {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason.clone())),
        };
        if let Some(Decision::NewerBy(column)) = &adoption.decision
            && let Some(reason) = refused_as_time(&found.columns, column)
        {
            return Ok(Err(reason));
        }
        let kept = found.adopt.clone();
        match found.state {
            State::Wait => {}
            State::Adopt => {
                let Some(kept) = kept else { return Ok(Err(found.reason.clone())) };
                if !adoption.applies || adoption.decision.as_ref() != Some(&kept.decision) {
                    return Ok(Err(format!(
                        "table {name}: it is being adopted {}: run that again, with --apply, or wait",
                        said(&kept.decision)
                    )));
                }
                adoption.after = found.touched.clone().and_then(|key| Key::new(key).ok());
                adoption.judged.counts = kept.counts;
                return Ok(Ok(true));
            }
            State::On => {
                return Ok(match kept {
                    Some(kept)
                        if adoption.applies && adoption.decision == Some(kept.decision.clone()) =>
                    {
                        adoption.judged.counts = kept.counts;
                        Ok(false)
                    }
                    _ => Err(format!(
                        "table {name}: there is nothing to adopt: MySQL and the store have the same \
                         rows, and what applications write is captured"
                    )),
                });
            }
            State::Touch | State::Renew => {
                return Ok(Err(format!(
                    "table {name}: there is nothing to adopt: the store had no rows of it, and takes \
                     in those of MySQL: lastword import --mysql {name} shows how far it is"
                )));
            }
            State::Altered | State::Broken => return Ok(Err(found.reason.clone())),
        }
        if let (true, Some(decision)) = (adoption.applies, adoption.decision.clone()) {
            let progress = Progress { decision, counts: AdoptCounts::default() };
            self.mysql.execute("START TRANSACTION").await?;
            self.mysql.execute(own::set_progress(name.as_str(), None, &words(&progress))).await?;
            self.mysql.execute(own::set_state(name.as_str(), State::Adopt)).await?;
            self.mysql.execute("COMMIT").await?;
            found.state = State::Adopt;
            tracing::info!(table = %name, decision = said(&progress.decision), "adopts the table");
            found.adopt = Some(progress);
        } else if adoption.applies {
            return Ok(Err(format!(
                "table {name}: say which rows are right: --newer-by COLUMN, or --keep mysql|store"
            )));
        }
        Ok(Ok(true))
    }

    /// Compares some rows. Whether there is such a table.
    pub(super) async fn adopt_some(&mut self) -> Result<bool, MirrorError> {
        let mut adoption = match self.adoption.take().or_else(|| self.left_adoption()) {
            Some(adoption) => adoption,
            None => return Ok(false),
        };
        // Nobody waits for what changes nothing.
        let is_given_up = adoption.asking.as_ref().is_none_or(|asking| asking.answer.is_closed());
        if is_given_up && !adoption.applies {
            return Ok(true);
        }
        let at = self.tables.iter().position(|table| table.name == adoption.table);
        let found = at.and_then(|at| self.tables[at].found.as_ref().ok());
        let wanted = if adoption.applies { State::Adopt } else { State::Wait };
        let Some(at) = at.filter(|_| found.is_some_and(|found| found.state == wanted)) else {
            let name = &adoption.table;
            let reason = format!("table {name}: it has changed meanwhile: see lastword status");
            adoption.answer(Err(reason));
            return Ok(true);
        };
        let step = match adoption.is_through {
            true => self.look_for_missing(at, &mut adoption).await,
            false => self.compare_lot(at, &mut adoption).await,
        };
        let is_done = match step {
            Ok(Ok(is_done)) => is_done,
            Ok(Err(reason)) => {
                let reason = format!("table {}: {reason}", adoption.table);
                adoption.answer(Err(reason.clone()));
                self.tables[at].found = Err(reason);
                return Ok(true);
            }
            Err(error) if error.may_pass_at_once() && adoption.tries < TRIES_MAX => {
                self.mysql.execute("ROLLBACK").await?;
                adoption.tries += 1;
                false
            }
            Err(error) => return Err(error),
        };
        adoption.tell();
        if is_done {
            let adopted = adoption.adopted(false);
            adoption.answer(Ok(adopted));
        } else {
            self.adoption = Some(adoption);
        }
        Ok(true)
    }

    /// One that another session has begun.
    fn left_adoption(&self) -> Option<Adoption> {
        self.tables.iter().find_map(|table| {
            let found = table.found.as_ref().ok().filter(|found| found.state == State::Adopt)?;
            let Progress { decision, counts } = found.adopt.clone()?;
            Some(Adoption {
                table: table.name.clone(),
                decision: Some(decision),
                applies: true,
                is_through: false,
                after: found.touched.clone().and_then(|key| Key::new(key).ok()),
                judged: Judged { counts, ..Judged::default() },
                tries: 0,
                asking: None,
            })
        })
    }

    /// Compares the next lot of MySQL's rows. Whether that was all there is to do; or why a row cannot be
    /// one of the store's.
    async fn compare_lot(
        &mut self,
        at: usize,
        adoption: &mut Adoption,
    ) -> Result<Result<bool, String>, MirrorError> {
        let (rows, last, is_last) = match self.lot(at, adoption.after.as_ref()).await? {
            Ok(lot) => lot,
            Err(reason) => return Ok(Err(reason)),
        };
        let rows = self.with_the_stores(&adoption.table, rows).await?;
        let Session { mysql, tables, epoch, handed, .. } = self;
        let Ok(found) = &mut tables[at].found else { return Ok(Ok(true)) };
        // Taken over only once it is committed.
        let mut judged = Judged {
            counts: adoption.judged.counts.clone(),
            examples: adoption.judged.examples.clone(),
            ..Judged::default()
        };
        judge(&found.columns, rows, adoption.decision.as_ref(), &mut judged);
        if adoption.applies {
            if is_last {
                let AdoptCounts { equal, different, .. } = judged.counts;
                let live = live_rows(self.node, &adoption.table).await?;
                judged.counts.only_store = live.saturating_sub(equal + different);
            }
            let Some(decision) = adoption.decision.clone() else { return Ok(Ok(true)) };
            let progress = Progress { decision, counts: judged.counts.clone() };
            let name = adoption.table.as_str();
            mysql.execute("START TRANSACTION").await?;
            if mysql.execute(own::fence(*epoch, *handed)).await? != 1 {
                return Err(MirrorError::Fenced);
            }
            for some in losers_that_fit(&judged.losers, mysql.statement_bytes_max()) {
                mysql.execute(own::keep_losers(name, some)).await?;
            }
            let keys: Vec<Vec<Param>> = judged
                .touched
                .iter()
                .filter_map(|key| found.columns.key_params(key).ok())
                .collect();
            let keys: Vec<&[Param]> = keys.iter().map(Vec::as_slice).collect();
            for some in in_powers_of_two(&keys) {
                mysql.execute(found.outbox.touch(some)).await?;
            }
            let place = last.as_ref().map(Key::as_slice);
            mysql.execute(own::set_progress(name, place, &words(&progress))).await?;
            if is_last {
                mysql.execute(own::set_state(name, State::On)).await?;
            }
            mysql.execute("COMMIT").await?;
            found.touched = place.map(<[u8]>::to_vec);
            found.adopt = Some(progress);
            if is_last {
                found.state = State::On;
                found.reason = String::new();
                tracing::info!(table = name, counts = ?judged.counts, "the table is adopted");
            }
        }
        let (touched, losers) = (Vec::new(), Vec::new());
        adoption.judged = Judged { touched, losers, ..judged };
        adoption.tries = 0;
        adoption.after = if is_last { None } else { last };
        adoption.is_through = is_last;
        Ok(Ok(is_last && adoption.applies))
    }

    /// The next rows of MySQL, the last key among them, and whether there are no more behind it.
    async fn lot(
        &mut self,
        at: usize,
        after: Option<&Key>,
    ) -> Result<Result<(Vec<Standing>, Option<Key>, bool), String>, MirrorError> {
        let Session { mysql, tables, .. } = self;
        let Ok(Found { columns, outbox, .. }) = &tables[at].found else {
            return Ok(Ok((Vec::new(), None, true)));
        };
        let after = after.and_then(|key| columns.key_params(key).ok());
        let listed = mysql.rows(columns.keys_after(after.as_deref(), LOT_ROWS)).await?;
        let mut keys = Vec::with_capacity(listed.len());
        for cells in &listed {
            match columns.key_of(cells).and_then(|key| Ok((columns.key_params(&key)?, key))) {
                Ok(key) => keys.push(key),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        let (mut rows, mut bytes, mut last) = (Vec::with_capacity(keys.len()), 0, None);
        for some in in_powers_of_two(&keys) {
            if bytes > LOT_BYTES {
                return Ok(Ok((rows, last, false)));
            }
            let params: Vec<&[Param]> = some.iter().map(|(params, _)| params.as_slice()).collect();
            let mut standing = HashMap::new();
            for row in mysql.rows(outbox.rows_of(columns, &params)).await? {
                let Some((is_written, cells)) = row.split_first() else { continue };
                if let Ok(key) = columns.key_of_row(cells) {
                    let value = columns.value_of(cells);
                    bytes += value.len();
                    standing.insert(key, (number(is_written) == Some(1), value));
                }
            }
            for (_, key) in some {
                // One that went meanwhile has an entry.
                if let Some((is_written, mysql)) = standing.remove(key) {
                    let (key, store) = (key.clone(), None);
                    rows.push(Standing { key, mysql, store, is_written });
                }
                last = Some(key.clone());
            }
        }
        Ok(Ok((rows, last, keys.len() < LOT_ROWS)))
    }

    async fn with_the_stores(
        &self,
        table: &TableName,
        mut rows: Vec<Standing>,
    ) -> Result<Vec<Standing>, MirrorError> {
        let (node, table) = (self.node.clone(), table.clone());
        read(move || {
            let (snapshot, now_ms) = (node.snapshot(), node.now_ms());
            for row in &mut rows {
                let body = snapshot.get(&table, &row.key)?.filter(|body| body.is_live(now_ms));
                row.store = body.and_then(|body| body.value()).map(|value| value.to_vec());
            }
            Ok(rows)
        })
        .await
    }

    /// Counts the next of the store's rows that MySQL has not. Whether there are no more.
    async fn look_for_missing(
        &mut self,
        at: usize,
        adoption: &mut Adoption,
    ) -> Result<Result<bool, String>, MirrorError> {
        let (node, table) = (self.node.clone(), adoption.table.clone());
        let start = adoption.after.as_ref().map(|key| [key.as_slice(), &[0]].concat());
        let (keys, last) = read(move || {
            let (mut keys, mut looked) = (Vec::new(), 0);
            let (range, now_ms) = (ScanRange { start, ..ScanRange::default() }, node.now_ms());
            for row in node.snapshot().scan(&table, &range)? {
                let row = row?;
                looked += 1;
                let last = (looked == LOT_ROWS).then(|| row.key.clone());
                if row.body.is_live(now_ms) {
                    keys.push(row.key);
                }
                if last.is_some() {
                    return Ok((keys, last));
                }
            }
            Ok((keys, None))
        })
        .await?;
        let Session { mysql, tables, .. } = self;
        let Ok(Found { columns, outbox, .. }) = &tables[at].found else { return Ok(Ok(true)) };
        let places: Vec<(&Key, Option<Vec<Param>>)> =
            keys.iter().map(|key| (key, columns.key_params(key).ok())).collect();
        let params: Vec<&[Param]> =
            places.iter().filter_map(|(_, params)| params.as_deref()).collect();
        let mut standing = std::collections::HashSet::new();
        for some in in_powers_of_two(&params) {
            let rows = mysql.rows(outbox.keys_of(columns, some)).await?;
            standing.extend(rows.iter().filter_map(|row| columns.key_of(row).ok()));
        }
        for (key, _) in places {
            if !standing.contains(key) {
                adoption.judged.counts.only_store += 1;
                adoption.judged.show(AdoptKind::OnlyStore, key, Vec::new(), None);
            }
        }
        adoption.after = last;
        Ok(Ok(adoption.after.is_none()))
    }
}

/// How many rows of a table the store has.
async fn live_rows(node: &crate::node::Node, table: &TableName) -> Result<u64, MirrorError> {
    let (node, table) = (node.clone(), table.clone());
    read(move || {
        let (mut live, now_ms) = (0, node.now_ms());
        for row in node.snapshot().scan(&table, &ScanRange::default())? {
            live += u64::from(row?.body.is_live(now_ms));
        }
        Ok(live)
    })
    .await
}

/// As many of them as one statement takes, then the others; a single one may be larger.
fn losers_that_fit(losers: &[Loser], bytes_max: usize) -> impl Iterator<Item = &[Loser]> {
    let mut left = losers;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = left.iter().take(LOSERS_MAX).take_while(|Loser { key, row, .. }| {
            bytes += key.as_slice().len() + row.len() + LOSER_BYTES;
            bytes <= bytes_max
        });
        let (some, rest) = left.split_at(fit.count().max(1).min(left.len()));
        left = rest;
        (!some.is_empty()).then_some(some)
    })
}

fn words(progress: &Progress) -> String {
    serde_json::to_string(progress).expect("names and numbers")
}

/// As an operator says it.
fn said(decision: &Decision) -> String {
    match decision {
        Decision::NewerBy(column) => format!("--newer-by {column}"),
        Decision::Keep(Stand::MySql) => "--keep mysql".to_owned(),
        Decision::Keep(Stand::Store) => "--keep store".to_owned(),
    }
}
