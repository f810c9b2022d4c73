//! Whether MySQL has the rows of the store, while both take writes; and putting right what it has not.
//!
//! ```text
//! mod.rs    questions, one at a time; table after table
//! walk.rs   chunks: a sum that MySQL computes, beside that of the store's rows; where they differ, row by row
//! judge.rs  a row that seems to differ: does it, or is a write on its way?
//! form.rs   how a table's rows stand in MySQL: kv.rs, or columns
//! kv.rs     the rows of a table of keys and values as numbers, computed alike on both sides
//! ```
//!
//! It reads by a connection of its own, so the mirror goes on meanwhile, and writes nothing: what is to be put
//! right is given to the mirror's session ([`Repair`]), so that nobody else writes its tables.
//!
//! **Promise.** What is called a difference is one: its row was looked at twice, each time in one snapshot of
//! MySQL that claims, by the checkpoint in it, to hold the store's version, which the store had before
//! and afterwards. What somebody changed, took away or added is found, as far as 64 bits of SHA-256 tell.

mod form;
mod judge;
mod kv;
mod walk;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep},
};

use super::{
    Config,
    capture::Outbox,
    columns::{Columns, RowParams, own},
    error::MirrorError,
    mysql::{Connection, text},
    repair::Repair,
    shape::Shape,
    statement,
    tables::facts_of,
};
use crate::{
    model::TableName,
    node::{
        MirrorAsk, MirrorDifference, MirrorLineEnd, MirrorTableVerified, MirrorVerified,
        MirrorVerifyError, MirrorVerifyOptions, MirrorVerifyProgress, Node,
    },
};
use form::Form;
use kv::Kv;

/// Each read is of one moment, or of a snapshot that stays.
const SESSION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ";

/// How long a mirror may take to begin that nothing keeps from it.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// How long a table may take to come: the mirror may be about to make it.
const TABLE_WAIT_MAX: Duration = Duration::from_secs(2);
const TABLE_AGAIN: Duration = Duration::from_millis(50);

/// Answers questions, one at a time, for as long as the mirror lives.
pub(super) async fn serve(
    node: &Node,
    config: &Config,
    mut line: MirrorLineEnd,
    repairs: mpsc::Sender<Repair>,
) {
    loop {
        let MirrorAsk { options, progress, mut answer } = line.next().await;
        tokio::select! {
            verified = verify(node, config, &options, &progress, &repairs) => {
                // Who has gone does not want to know.
                let _ = answer.send(verified.map_err(MirrorVerifyError::from));
            }
            () = answer.closed() => {}
        }
    }
}

async fn verify(
    node: &Node,
    config: &Config,
    options: &MirrorVerifyOptions,
    progress: &watch::Sender<MirrorVerifyProgress>,
    repairs: &mpsc::Sender<Repair>,
) -> Result<MirrorVerified, Failed> {
    begun(node).await?;
    let mut mysql = Connection::open(config).await?;
    mysql.execute(SESSION).await?;
    let waiting = waiting(node);
    let tables = tables(node, config, &waiting, &mut mysql, options).await?;
    let mut verified = MirrorVerified::default();
    for table in tables {
        let at = MirrorTableVerified::new(table.clone());
        let form = match waiting.get(table.as_str()) {
            Some(reason) => Some(Err(reason.clone())),
            None => form(config, &mut mysql, &table).await?,
        };
        let problem = match form {
            Some(Ok(form)) => {
                let suspects = BTreeSet::new();
                let mut check = Check {
                    node,
                    mysql: &mut mysql,
                    repairs: options.repair.then_some(repairs),
                    progress,
                    before: std::mem::take(&mut verified),
                    differences: Vec::new(),
                    at,
                    form: Arc::new(form),
                    suspects,
                };
                match check.walk().await {
                    Ok(()) => {}
                    Err(Failed::Table(reason)) => check.at.problem = Some(reason),
                    Err(Failed::Mirror(error)) if error.concerns_table() => {
                        check.at.problem = Some(format!("table {table}: {error}"));
                    }
                    Err(failed) => return Err(failed),
                }
                verified = check.ended();
                // A snapshot that was being looked at.
                mysql.execute("ROLLBACK").await?;
                continue;
            }
            Some(Err(reason)) => reason,
            None => format!(
                "table {table}: it is not in MySQL: the mirror makes and fills it when it connects \
                 again, or writes to it"
            ),
        };
        verified.tables.push(MirrorTableVerified { problem: Some(problem), ..at });
    }
    verified.bytes = mysql.bytes_read();
    Ok(verified)
}

/// Whether MySQL's table can be compared; `None`: it is not there, nor does it come in a while.
async fn form(
    config: &Config,
    mysql: &mut Connection,
    table: &TableName,
) -> Result<Option<Result<Form, String>>, Failed> {
    let began = Instant::now();
    loop {
        let found = facts_of(mysql, std::slice::from_ref(table)).await?;
        match found.get(table.as_str()) {
            Some(facts) => {
                let Some(setting) = config.columns_of(table) else {
                    let shape = Shape::of(table.as_str(), facts);
                    return Ok(Some(shape.map(|shape| Form::Kv(Kv::new(table.clone(), &shape)))));
                };
                let columns = match Columns::of(table.as_str(), facts, setting) {
                    Ok(columns) => Arc::new(columns),
                    Err(reason) => return Ok(Some(Err(reason))),
                };
                let outbox = setting.capture.then(|| Arc::new(Outbox::of(&columns)));
                let defaults = defaults(mysql, &columns).await?;
                return Ok(Some(Ok(Form::Columns { columns, outbox, defaults })));
            }
            None if began.elapsed() >= TABLE_WAIT_MAX => return Ok(None),
            None => sleep(TABLE_AGAIN).await,
        }
    }
}

/// What absent members of a column table's rows stand for; `None`: it is empty, so nothing is to be compared.
async fn defaults(
    mysql: &mut Connection,
    columns: &Columns,
) -> Result<Option<Arc<RowParams>>, Failed> {
    let rows = mysql.rows(columns.defaults()).await?;
    Ok(rows.first().map(|row| Arc::new(columns.defaults_in(row))))
}

/// The column tables that will not do, and why.
fn waiting(node: &Node) -> HashMap<String, String> {
    let report = node.reports().mirror().unwrap_or_default();
    report.waiting_tables.into_iter().map(|waiting| (waiting.table, waiting.reason)).collect()
}

/// Waits until the mirror itself has come so far that MySQL can be asked; not where it says why it has not.
async fn begun(node: &Node) -> Result<(), Failed> {
    let began = Instant::now();
    loop {
        let Some(report) = node.reports().mirror() else { return Ok(()) };
        let why = match (report.position, report.last_error) {
            (Some(_), _) => return Ok(()),
            (None, Some(error)) => error.message,
            (None, None) if began.elapsed() >= BEGIN_MAX => "try again".to_owned(),
            (None, None) => {
                sleep(TABLE_AGAIN).await;
                continue;
            }
        };
        return Err(Failed::NotBegun(format!("the mirror has not begun yet: {why}")));
    }
}

/// Those that the mirror knows as its own, and those of which the store has rows to mirror.
async fn tables(
    node: &Node,
    config: &Config,
    waiting: &HashMap<String, String>,
    mysql: &mut Connection,
    options: &MirrorVerifyOptions,
) -> Result<Vec<TableName>, Failed> {
    let known = mysql.rows(statement::known_tables()).await?;
    let known = known.iter().filter_map(|row| TableName::of_client(&text(row.first()?)).ok());
    let mut tables: BTreeSet<TableName> = known.collect();
    let remembered = mysql.rows(own::remembered()).await?;
    let remembered =
        remembered.iter().filter_map(|row| TableName::of_client(&text(row.first()?)).ok());
    let waiting = waiting.keys().filter_map(|name| TableName::of_client(name).ok());
    tables.extend(remembered.chain(waiting).filter(|table| config.columns_of(table).is_some()));
    let reading = node.clone();
    let stored = super::session::read(move || {
        let (snapshot, now_ms) = (reading.snapshot(), reading.now_ms());
        let mut stored = Vec::new();
        for table in snapshot.table_names().into_iter().filter(|table| !table.is_system()) {
            let mut rows = snapshot.scan(&table, &Default::default())?;
            let is_live = rows.find_map(|row| match row {
                Ok(row) => row.body.is_live(now_ms).then_some(Ok(())),
                Err(error) => Some(Err(error)),
            });
            if is_live.transpose()?.is_some() {
                stored.push(table.clone());
            }
        }
        Ok(stored)
    });
    tables.extend(stored.await?);
    if let Some(table) = &options.table {
        if !tables.contains(table) {
            return Err(Failed::UnknownTable(table.clone()));
        }
        tables = BTreeSet::from([table.clone()]);
    }
    Ok(tables.into_iter().collect())
}

/// One table under comparison.
struct Check<'v> {
    node: &'v Node,
    mysql: &'v mut Connection,
    /// Where differences are put right, if they are to be.
    repairs: Option<&'v mpsc::Sender<Repair>>,
    progress: &'v watch::Sender<MirrorVerifyProgress>,
    /// What came of the tables before.
    before: MirrorVerified,
    differences: Vec<MirrorDifference>,
    at: MirrorTableVerified,
    form: Arc<Form>,
    /// Keys whose rows seemed to differ, not judged yet.
    suspects: BTreeSet<Vec<u8>>,
}

impl Check<'_> {
    fn tell(&self) {
        let tables = || self.before.tables.iter().chain([&self.at]);
        self.progress.send_replace(MirrorVerifyProgress {
            table: Some(self.at.table.clone()),
            rows: tables().map(|table| table.rows).sum(),
            differing: tables().map(MirrorTableVerified::differing).sum(),
            repaired: tables().map(|table| table.repaired).sum(),
            bytes: self.mysql.bytes_read(),
        });
    }

    fn ended(self) -> MirrorVerified {
        let mut verified = self.before;
        verified.tables.push(self.at);
        verified.differences.extend(self.differences);
        verified
    }
}

/// Why there is no result.
#[derive(Debug)]
enum Failed {
    Mirror(MirrorError),
    UnknownTable(TableName),
    NotBegun(String),
    /// Of one table, why it cannot be compared.
    Table(String),
}

impl From<MirrorError> for Failed {
    fn from(error: MirrorError) -> Failed {
        Failed::Mirror(error)
    }
}

impl From<Failed> for MirrorVerifyError {
    fn from(failed: Failed) -> MirrorVerifyError {
        match failed {
            Failed::NotBegun(reason) | Failed::Table(reason) => MirrorVerifyError::Mysql(reason),
            Failed::UnknownTable(table) => MirrorVerifyError::UnknownTable(table),
            Failed::Mirror(MirrorError::Store(error)) => error.into(),
            Failed::Mirror(error) => MirrorVerifyError::Mysql(error.to_string()),
        }
    }
}
