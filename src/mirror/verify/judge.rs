//! A row that seems to differ: it does, or a write is on its way.
//!
//! ```text
//! store: version --> MySQL, one snapshot: checkpoint, row, whether it was set aside --> store: row
//! ```
//!
//! Where the store has the same version before and afterwards, and the checkpoint in MySQL's snapshot
//! covers it, MySQL must hold exactly that row: the mirror says so itself. Anything else is looked at
//! again a little later, and what differs is, too, before it is called a difference. So neither the mirror's
//! lag nor a write in between is taken for one.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{Check, Failed, form::Form, walk::KEYS_MAX};
use crate::{
    mirror::{
        columns::own,
        error::MirrorError,
        mysql::{number, text},
        repair::Repair,
        session::read,
        statement::{self, Param, Statement},
    },
    model::{Body, Heads, Hlc, Key, Origin, TableName, Version},
    node::{MIRROR_DIFFERENCES_MAX, MirrorDifference, MirrorWrong, Node},
    store::StoreError,
};

/// Between two looks at a row, at first and at most.
const AGAIN_MIN: Duration = Duration::from_millis(10);
const AGAIN_MAX: Duration = Duration::from_millis(500);
/// Up to where MySQL has all rows, as it says.
const HEADS: &str = "SELECT heads FROM _lastword_mirror WHERE id = 1";
/// What cannot be told within this time is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a look says of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Right,
    SetAside,
    /// A write is on its way, or came just now.
    InFlux,
    Wrong(MirrorWrong, Option<Version>),
}

/// What MySQL holds of a key.
#[derive(Clone, Copy, Debug, Default)]
struct Theirs {
    /// The row's number, where there is a row, and whether MySQL could tell it.
    row: Option<Option<u64>>,
    has_expired: bool,
    /// An application's write of it is on its way to the store.
    is_in_hand: bool,
    set_aside: Option<Version>,
}

impl Check<'_> {
    /// Judges the suspects, and has put right what differs, where that is asked for.
    pub(super) async fn judge(&mut self) -> Result<(), Failed> {
        let suspects = std::mem::take(&mut self.suspects);
        let wrong = self.look_until_sure(suspects).await?;
        if wrong.is_empty() {
            return Ok(());
        }
        let still_wrong = match self.repairs.is_some() {
            true => self.put_right(&wrong).await?,
            false => wrong.keys().cloned().collect(),
        };
        for (key, (kind, version)) in wrong {
            let repaired = !still_wrong.contains(&key);
            self.note(key, kind, version, repaired);
        }
        Ok(())
    }

    /// Notes a row that differs.
    pub(super) fn note(
        &mut self,
        key: Vec<u8>,
        wrong: MirrorWrong,
        version: Option<Version>,
        repaired: bool,
    ) {
        match wrong {
            MirrorWrong::Changed => self.at.changed += 1,
            MirrorWrong::Missing => self.at.missing += 1,
            MirrorWrong::Extra => self.at.extra += 1,
        }
        self.at.repaired += u64::from(repaired);
        if self.before.differences.len() + self.differences.len() < MIRROR_DIFFERENCES_MAX {
            let table = self.at.table.clone();
            self.differences.push(MirrorDifference { table, key, wrong, version, repaired });
        }
    }

    /// Those that differ and should not.
    async fn look_until_sure(
        &mut self,
        suspects: BTreeSet<Vec<u8>>,
    ) -> Result<BTreeMap<Vec<u8>, (MirrorWrong, Option<Version>)>, Failed> {
        // With whether the last look found it wrong.
        let mut open: BTreeMap<_, _> = suspects.into_iter().map(|key| (key, false)).collect();
        let mut sure = BTreeMap::new();
        let (began, mut again) = (Instant::now(), AGAIN_MIN);
        while !open.is_empty() && began.elapsed() < PATIENCE {
            for (key, verdict) in self.look(open.keys().cloned().collect()).await? {
                match verdict {
                    Verdict::InFlux => {
                        open.insert(key, false);
                        continue;
                    }
                    Verdict::Wrong(wrong, version) => {
                        if open.insert(key.clone(), true) != Some(true) {
                            continue;
                        }
                        sure.insert(key.clone(), (wrong, version));
                    }
                    Verdict::SetAside => self.at.set_aside += 1,
                    Verdict::Right => {}
                }
                open.remove(&key);
            }
            if !open.is_empty() {
                sleep(again).await;
                again = (again * 2).min(AGAIN_MAX);
            }
        }
        self.at.in_flux += open.len() as u64;
        Ok(sure)
    }

    /// Has the mirror's session write the store's rows over these; gives those that stay wrong.
    async fn put_right(
        &mut self,
        wrong: &BTreeMap<Vec<u8>, (MirrorWrong, Option<Version>)>,
    ) -> Result<BTreeSet<Vec<u8>>, Failed> {
        let keys: Vec<_> = wrong.keys().cloned().collect();
        let (done, answered) = oneshot::channel();
        let repair = Repair { table: self.at.table.clone(), keys: keys.clone(), done };
        let asked = async {
            let repairs = self.repairs.expect("it is asked for");
            // Whether or not it says that it is done, the rows tell.
            if repairs.send(repair).await.is_ok() {
                let _ = answered.await;
            }
        };
        let _ = timeout(PATIENCE, asked).await;
        let mut still: BTreeSet<_> = keys.into_iter().collect();
        let (began, mut again) = (Instant::now(), AGAIN_MIN);
        loop {
            let looked = self.look(still.iter().cloned().collect()).await?;
            // What is on its way now is not what was wrong: the row was written meanwhile.
            still.retain(|key| matches!(looked.get(key), Some(Verdict::Wrong(..))));
            if still.is_empty() || began.elapsed() >= PATIENCE.min(AGAIN_MAX * 4) {
                return Ok(still);
            }
            sleep(again).await;
            again = (again * 2).min(AGAIN_MAX);
        }
    }

    /// One look at each of these rows.
    async fn look(&mut self, keys: Vec<Vec<u8>>) -> Result<HashMap<Vec<u8>, Verdict>, Failed> {
        let before = self.stored(keys.clone()).await?;
        let mut theirs: HashMap<Vec<u8>, Theirs> = HashMap::new();
        let now_ms = self.node.now_ms();
        self.mysql.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let heads = self.checkpoint().await?;
        self.still_compares().await?;
        let form = Arc::clone(&self.form);
        for some in keys.chunks(form.look_rows_max(KEYS_MAX)) {
            let possible: Vec<_> = some.iter().filter(|key| form.may_hold(key)).cloned().collect();
            if !possible.is_empty() {
                for row in self.mysql.rows(form.look_at(&possible, now_ms)).await? {
                    let Some((key, of, has_expired)) = form.found(&row) else { continue };
                    let entry = theirs.entry(key).or_default();
                    entry.row = Some(of);
                    entry.has_expired = has_expired;
                }
                // The store comes to have them, or MySQL the store's.
                if let Some(in_hand) = form.in_hand(&possible) {
                    for row in self.mysql.rows(in_hand).await? {
                        let [_, _, key @ ..] = &row[..] else { continue };
                        let Some(key) = form.key_of(key) else { continue };
                        theirs.entry(key).or_default().is_in_hand = true;
                    }
                }
            }
            if form.columns().is_some() {
                let expired = own::expired_among(&self.at.table, now_ms, some);
                for row in self.mysql.rows(expired).await? {
                    let Some(Some(key)) = row.into_iter().next() else { continue };
                    theirs.entry(key).or_default().has_expired = true;
                }
            }
            for row in self.mysql.rows(set_aside(&self.at.table, some)).await? {
                let [Some(key), hlc, Some(origin)] = &row[..] else { continue };
                let version = number(hlc).zip(origin[..].try_into().ok());
                theirs.entry(key.clone()).or_default().set_aside = version.map(|(hlc, origin)| {
                    Version { hlc: Hlc::from_bits(hlc), origin: Origin::from_bytes(origin) }
                });
            }
        }
        self.mysql.execute("COMMIT").await?;
        let after = self.stored(keys.clone()).await?;
        let now_ms = self.node.now_ms();
        let version = |body: &Option<Body>| body.as_ref().map(Body::version);
        let verdicts = keys.into_iter().zip(before).zip(after).map(|((key, before), after)| {
            let found = theirs.get(&key).copied().unwrap_or_default();
            let verdict = match version(&before) == version(&after) {
                true if found.is_in_hand => Verdict::InFlux,
                true => verdict(&form, &key, after.as_ref(), found, &heads, now_ms),
                false => Verdict::InFlux,
            };
            (key, verdict)
        });
        Ok(verdicts.collect())
    }

    /// What the store has under these keys, dead rows included.
    async fn stored(&self, keys: Vec<Vec<u8>>) -> Result<Vec<Option<Body>>, Failed> {
        let (node, table) = (self.node.clone(), self.at.table.clone());
        Ok(read(move || bodies(&node, &table, keys)).await?)
    }

    /// Ends the comparison of a column table of which the checkpoint says nothing; within a snapshot.
    async fn still_compares(&mut self) -> Result<(), Failed> {
        let Some(columns) = self.form.columns().cloned() else { return Ok(()) };
        let remembered = self.mysql.rows(own::remembered_of(&self.at.table)).await?;
        let claims = match remembered.first().map(Vec::as_slice) {
            Some([filled, definition]) => {
                number(filled) == Some(1) && text(definition) == columns.definition()
            }
            _ => false,
        };
        if !claims {
            let table = &self.at.table;
            let reason = format!("table {table}: it is being filled from the store: try again");
            return Err(Failed::Table(reason));
        }
        if let Form::Columns { defaults: None, outbox, .. } = &*self.form {
            // It was empty.
            let (outbox, defaults) = (outbox.clone(), super::defaults(self.mysql, &columns).await?);
            self.form = Arc::new(Form::Columns { columns, outbox, defaults });
        }
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<Heads, Failed> {
        let rows = self.mysql.rows(HEADS).await?;
        let heads = rows.first().and_then(|row| Heads::from_bytes(row.first()?.as_deref()?));
        Ok(heads.ok_or(MirrorError::Damaged("_lastword_mirror"))?)
    }
}

fn bodies(
    node: &Node,
    table: &TableName,
    keys: Vec<Vec<u8>>,
) -> Result<Vec<Option<Body>>, StoreError> {
    let snapshot = node.snapshot();
    let body = |bytes| Key::new(bytes).map_or(Ok(None), |key| snapshot.get(table, &key));
    keys.into_iter().map(body).collect()
}

fn set_aside(table: &TableName, keys: &[Vec<u8>]) -> Statement {
    let mut sql =
        "SELECT k, hlc, origin FROM _lastword_rejected WHERE tbl = ? AND k IN (".to_owned();
    statement::repeat(&mut sql, "?", ",", keys.len());
    sql.push(')');
    let mut params = vec![Param::from(table)];
    params.extend(keys.iter().map(|key| Param::Bytes(Bytes::copy_from_slice(key))));
    Statement::new(sql, params)
}

/// What MySQL holds of a key beside what the store had all the time, where MySQL claims `heads`.
fn verdict(
    form: &Form,
    key: &[u8],
    ours: Option<&Body>,
    theirs: Theirs,
    heads: &Heads,
    now_ms: u64,
) -> Verdict {
    let expected =
        ours.zip(Key::new(key.to_vec()).ok()).and_then(|(body, key)| form.number(&key, body));
    match (expected, theirs.row) {
        (None, None) => return Verdict::Right,
        (Some(expected), Some(Some(row))) if row == expected => return Verdict::Right,
        // Too large for MySQL to tell.
        (_, Some(None)) => return Verdict::InFlux,
        _ => {}
    }
    let version = ours.map(Body::version);
    if version.is_some_and(|Version { hlc, origin }| heads.get(origin) < hlc) {
        return Verdict::InFlux;
    }
    let lives = ours.is_some_and(|body| body.is_live(now_ms));
    match (lives, theirs.row) {
        (true, Some(_)) => Verdict::Wrong(MirrorWrong::Changed, version),
        (true, None) if theirs.set_aside == version => Verdict::SetAside,
        (true, None) => Verdict::Wrong(MirrorWrong::Missing, version),
        (false, None) => Verdict::Right,
        // It leaves MySQL by itself.
        (false, Some(_)) if theirs.has_expired => Verdict::Right,
        (false, Some(_)) => Verdict::Wrong(MirrorWrong::Extra, version),
    }
}
