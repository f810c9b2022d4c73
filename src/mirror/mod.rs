//! The mirror: each user table of the store as a table in the site's own MySQL, of keys and values
//! (`kv`), or of ordinary columns.
//!
//! ```text
//! node: changes --> session.rs --> apply.rs: rows + checkpoint, one transaction --> mysql.rs
//!                     |              page.rs      made while MySQL has the one before
//!                     |              parts.rs     statements, likewise
//!                     |              mapping.rs   which row is written, deleted, set aside
//!                     |              statement.rs the SQL; upsert.rs: rows of keys and values
//!                     |-- rebuild.rs: tables filled anew, where an operator says so
//!                     |-- rescan.rs: rows that died while nobody told MySQL
//!                     |-- tables.rs: made where missing; shape.rs: will it do?
//!                     |-- doctor/: is this MySQL fit for it?
//!                     |-- column_tables.rs, column_rows.rs, fill.rs: tables of ordinary columns
//!                     |     columns/: rows as JSON objects, the SQL of such tables
//!                     |     in_hand.rs: rows that applications write, too; contest.rs: two for one place
//!                     |-- upkeep.rs: expired rows, rows set aside, idle heads
//!                     `-- repair.rs: rows that verify/ found to be other than the store's
//! capture/: what applications write; adopt/: which rows are right where both sides have some
//! ```
//!
//! A mirror goes on from what MySQL says, never from what it remembers: each session begins with
//! the checkpoint that stands in `_lastword_mirror`, and ends with the first error, after which a
//! new one begins. So there is one way to recover, and it is taken at every start.
//!
//! **Promise.** MySQL holds exactly the node's rows at the checkpoint: no gap, no duplicate, no
//! older row over a newer one, whichever of the two crashed, and whenever. A row that MySQL
//! refuses stands in `_lastword_rejected` instead, with the reason. MySQL that is away, slow or
//! read-only costs the mirror time, and the node nothing.

mod adopt;
mod apply;
mod capture;
mod column_rows;
mod column_tables;
mod columns;
mod config;
mod contest;
mod doctor;
mod error;
mod fill;
mod in_hand;
mod mapping;
mod mysql;
mod page;
mod parts;
mod rebuild;
mod repair;
mod rescan;
mod session;
mod shape;
mod statement;
mod table_setting;
mod tables;
mod upkeep;
mod upsert;
mod verify;

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

pub use config::{Config, Target, Tls};
pub use doctor::{Examination, Finding, GrantError, Level, examine, grant_statements};
pub use table_setting::{DeclaredColumn, Form, TableSetting, Triggers};

use crate::{
    model::{Heads, TableName},
    node::{LastError, MirrorHandle, MirrorReport, Node, Rescan, WaitingTable},
};
use capture::CaptureStates;
use error::MirrorError;
use repair::Repair;
use session::Session;

/// After a session that lasted so long, the waits between attempts begin at the shortest again.
const SESSION_SOUND: Duration = Duration::from_secs(10);

/// Mirrors `node` into the database of `config`, until `shutdown` or the node's own end.
///
/// How it is stands in the node's reports. The task may be dropped at any moment: what MySQL holds
/// stays consistent, and the next mirror goes on from there.
pub fn start(node: Node, config: Config, shutdown: CancellationToken) -> JoinHandle<()> {
    let target = config.target.to_string();
    let report = MirrorReport { target, ..MirrorReport::default() };
    let report = Report { mirror: node.reports().add_mirror(report), warned_of: Mutex::default() };
    let (sender, states) = watch::channel(CaptureStates::new());
    let (capture_rests, rests) = watch::channel(false);
    let line = node.mirror_line().open();
    let (repairs, asked) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = node.stopped() => {}
            () = mirror(&node, &config, &report, states, rests, asked) => {}
            () = capture::capture(&node, &config, sender, capture_rests) => {}
            () = verify::serve(&node, &config, line, repairs) => {}
        }
    })
}

/// Session after session; ends with the node.
async fn mirror(
    node: &Node,
    config: &Config,
    report: &Report,
    states: watch::Receiver<CaptureStates>,
    mut capture_rests: watch::Receiver<bool>,
    mut repairs: mpsc::Receiver<Repair>,
) {
    let mut waits = waits(config);
    let mut last_text = String::new();
    let mut orders = node.mirror_orders();
    loop {
        let is_paused = orders.borrow_and_update().paused.is_some();
        node.mirror_is_at_rest(false);
        if is_paused {
            report.paused();
            tokio::select! {
                Ok(_) = capture_rests.wait_for(|&rests| rests) => node.mirror_is_at_rest(true),
                Ok(_) = orders.wait_for(|orders| orders.paused.is_none()) => {}
                else => {}
            }
            // The node holds the other end.
            let _ = orders.wait_for(|orders| orders.paused.is_none()).await;
            waits = self::waits(config);
            continue;
        }
        let began = Instant::now();
        let connected = Session::connect(node, config, report, states.clone(), &mut repairs).await;
        let (error, session) = match connected {
            Err(error) => (error, None),
            Ok(mut session) => match session.run().await {
                Ok(()) => return,
                Err(error) => (error, Some(session)),
            },
        };
        // One that waits for an operator keeps its sound connection: status can tell the two.
        if matches!(error, MirrorError::Paused) {
            continue;
        }
        let session = session.filter(|_| error.waits_for_operator());
        report.failed(node.now_ms(), &error, session.is_some());
        let text = error.to_string();
        if text == last_text {
            tracing::debug!(error = text, "the mirror still waits");
        } else {
            tracing::warn!(error = text, "the mirror waits, then tries again");
        }
        last_text = text;
        if began.elapsed() >= SESSION_SOUND {
            waits = self::waits(config);
        }
        tokio::select! {
            () = sleep(waits.next().unwrap_or(config.retry_max)) => {}
            _ = orders.changed() => {}
        }
    }
}

fn waits(config: &Config) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(config.retry_min)
        .with_max_delay(config.retry_max)
        .without_max_times()
        .with_jitter()
        .build()
}

/// What status shows of the mirror.
struct Report {
    mirror: MirrorHandle,
    /// What the log was told of MySQL's settings.
    warned_of: Mutex<Vec<Finding>>,
}

impl Report {
    /// A session has taken over.
    fn follows(&self, position: &Heads) {
        self.mirror.update(|mirror| {
            mirror.connected = true;
            mirror.applying = true;
            mirror.connects += 1;
            mirror.position = Some(position.clone());
        });
    }

    fn stands_at(&self, position: &Heads) {
        self.mirror.update(|mirror| mirror.position = Some(position.clone()));
    }

    /// A rescan has looked at so many rows of this table; `None`: it is over.
    fn rescans(&self, at: Option<(&TableName, u64)>) {
        let rescan = at.map(|(table, rows)| Rescan { table: table.clone(), rows });
        self.mirror.update(|mirror| mirror.rescan = rescan);
    }

    /// A rebuild has come so far in this table; `None`: it is over.
    fn rebuilds(&self, at: Option<Rescan>) {
        self.mirror.update(|mirror| mirror.rebuild = at);
    }

    /// An operator said so; nothing is wrong.
    fn paused(&self) {
        self.mirror.update(|mirror| {
            mirror.connected = false;
            mirror.applying = false;
            mirror.rescan = None;
            mirror.rebuild = None;
        });
    }

    /// Logs what is not as it should be, where it was not told yet.
    fn warns_of(&self, findings: &[Finding]) {
        let mut warned_of = self.warned_of.lock().expect("no holder of this lock panics");
        warned_of.retain(|told| findings.contains(told));
        for finding in findings.iter().filter(|finding| finding.level != Level::Ok) {
            if warned_of.contains(finding) {
                continue;
            }
            let Finding { subject, found, why, mend, .. } = finding;
            let mend = mend.as_deref().unwrap_or_default();
            tracing::warn!(subject, found, why, mend, "MySQL is not set up as it should be");
            warned_of.push(finding.clone());
        }
    }

    fn applied(&self, rows: u64) {
        self.mirror.update(|mirror| mirror.rows_applied += rows);
    }

    /// So many rows are set aside now; `None`: none was added.
    fn rejected(&self, rows: u64, newest_reason: Option<String>) {
        self.mirror.update(|mirror| {
            mirror.rows_rejected = rows;
            match newest_reason {
                _ if rows == 0 => mirror.last_rejected_reason.clear(),
                Some(reason) => mirror.last_rejected_reason = reason,
                None => {}
            }
        });
    }

    /// These tables will not do, for these reasons.
    fn waits_for(&self, tables: &BTreeMap<String, String>) {
        let waiting = tables
            .iter()
            .map(|(table, reason)| WaitingTable { table: table.clone(), reason: reason.clone() });
        self.mirror.update(|mirror| mirror.waiting_tables = waiting.collect());
    }

    fn failed(&self, now_ms: u64, error: &MirrorError, connected: bool) {
        self.mirror.update(|mirror| {
            mirror.connected = connected;
            mirror.applying = false;
            mirror.rescan = None;
            mirror.rebuild = None;
            mirror.last_error = Some(LastError { message: error.to_string(), at_ms: now_ms });
        });
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.paused();
    }
}
