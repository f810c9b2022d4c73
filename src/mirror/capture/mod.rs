//! Capture: what applications write into MySQL becomes this site's writes, once each.
//!
//! ```text
//! application --> row + entry in the outbox (trigger, same transaction)
//!                  |  session.rs  looks every few milliseconds
//!                  |  rows.rs     entries, rows and checkpoint of one moment
//!                  v
//!                 node: one commit of rows and receipt --> entries deleted --> the next look
//! ```
//!
//! `outbox.rs` and `guard.rs` are the SQL, `tables.rs` says which tables are captured and from when on,
//! `touch.rs` takes in what stood there before, `adopting.rs` compares it with what the store has, `own.rs`
//! and `receipt.rs` are what is remembered.
//!
//! **Promise.** Every committed write of an application to a captured table is handed over, once, whichever
//! side crashed, and whenever; lastword's own writes never are. The store keeps with the rows of a hand-over
//! which entries they were; the next one begins only when these are gone.
//!
//! **Why triggers.** The binary log needs to be on, in row format with full images, with a privilege that shows
//! all databases; and it lacks what cascades delete. An outbox needs none of that, is part of the
//! application's transaction, and tells per row whether something waits, which is what lets the mirror pass
//! such a row over. Whoever reads the binary log instead fills the same place: keys, and the rows as they
//! stand, to `Session::hand_over`.

mod adopting;
mod guard;
mod outbox;
mod own;
mod receipt;
mod rows;
mod session;
mod tables;
mod touch;

use std::collections::HashMap;

use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};

pub(super) use outbox::Outbox;
pub(super) use own::State;
pub(super) use tables::guard_triggers;

use super::{Config, error::MirrorError};
use crate::{
    model::TableName,
    node::{
        CaptureCommand, CaptureHandle, CaptureReport, CaptureState, CapturedTable, LastError, Node,
    },
    store::HandOverReport,
};
use session::{Session, Table};

/// How each captured table is; those are missing that were not judged yet.
pub(super) type CaptureStates = HashMap<TableName, State>;

/// Session after session; ends with the node. `rests` tells whether it keeps off MySQL, as the mirror is told to:
/// what applications write meanwhile waits in the outboxes.
pub(super) async fn capture(
    node: &Node,
    config: &Config,
    states: watch::Sender<CaptureStates>,
    rests: watch::Sender<bool>,
) {
    if !config.tables.iter().any(|setting| setting.capture) {
        rests.send_replace(true);
        // The mirror waits for its end.
        return std::future::pending().await;
    }
    let report = Report { states, capture: node.reports().add_capture(CaptureReport::default()) };
    let mut commands = node.take_capture_commands();
    let mut waits = super::waits(config);
    let mut last_text = String::new();
    let mut orders = node.mirror_orders();
    loop {
        // Said before it is looked whether to rest, so that whoever pauses and then asks is not told so too early.
        rests.send_replace(false);
        if orders.borrow_and_update().paused.is_some() {
            report.paused();
            rests.send_replace(true);
            // The node holds the other end.
            let _ = orders.wait_for(|orders| orders.paused.is_none()).await;
            continue;
        }
        let Err(error) = run(node, config, &report, &mut commands).await;
        if matches!(error, MirrorError::Paused) {
            continue;
        }
        report.failed(node.now_ms(), &error);
        let text = error.to_string();
        if text == last_text {
            tracing::debug!(error = text, "the capture still waits");
        } else {
            tracing::warn!(error = text, "the capture waits, then tries again");
            waits = super::waits(config);
        }
        last_text = text;
        tokio::select! {
            () = sleep(waits.next().unwrap_or(config.retry_max)) => {}
            _ = orders.changed() => {}
        }
    }
}

async fn run(
    node: &Node,
    config: &Config,
    report: &Report,
    commands: &mut mpsc::Receiver<CaptureCommand>,
) -> Result<std::convert::Infallible, MirrorError> {
    let mut session = Session::connect(node, config, report).await?;
    session.run(commands).await
}

/// What status shows of the capture, and what the mirror goes by.
struct Report {
    states: watch::Sender<CaptureStates>,
    capture: CaptureHandle,
}

impl Report {
    fn runs(&self, tables: &[Table]) {
        self.states.send_if_modified(|states| {
            let mut changed = false;
            for table in tables {
                // Of one that is not known now it stays.
                if let Ok(found) = &table.found {
                    changed |= states.insert(table.name.clone(), found.state) != Some(found.state);
                }
            }
            changed
        });
        let tables = tables
            .iter()
            .map(|table| {
                let (state, reason) = match (&table.found, &table.held_up) {
                    (Err(reason), _) | (Ok(_), Some(reason)) => {
                        (CaptureState::Waiting, reason.clone())
                    }
                    (Ok(found), None) => (state_of(found.state), found.reason.clone()),
                };
                let Table { rows, pending, rows_about, .. } = *table;
                let taken_in = table.found.as_ref().map_or(0, |found| found.taken_in);
                let table = table.name.clone();
                CapturedTable { table, state, reason, rows, pending, taken_in, rows_about }
            })
            .collect();
        self.capture.update(|capture| {
            capture.connected = true;
            capture.tables = tables;
        });
    }

    fn handed_over(&self, report: &HandOverReport) {
        self.capture.update(|capture| {
            capture.rows_captured += report.written;
            capture.rows_unchanged += report.unchanged;
            capture.conflicts += report.conflicts;
        });
    }

    /// An operator said so; nothing is wrong.
    fn paused(&self) {
        self.capture.update(|capture| capture.connected = false);
    }

    fn failed(&self, now_ms: u64, error: &MirrorError) {
        self.capture.update(|capture| {
            capture.connected = false;
            capture.last_error = Some(LastError { message: error.to_string(), at_ms: now_ms });
        });
    }
}

fn state_of(state: State) -> CaptureState {
    match state {
        State::On => CaptureState::On,
        State::Touch | State::Renew | State::Adopt => CaptureState::TakingIn,
        State::Wait | State::Altered | State::Broken => CaptureState::Waiting,
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.capture.update(|capture| capture.connected = false);
    }
}
