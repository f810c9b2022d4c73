//! Rows that stood in a table before it was captured are taken in: MySQL makes an entry of each, a piece of the
//! table at a time, and the capture finds them as if an application had written them just now.
//!
//! A piece ends at a key, so the same piece is never made twice, and a capture that begins anew goes on behind
//! it. Rows that come meanwhile have entries of their own.

use super::{
    own::{self, State},
    session::{Found, Session, Table},
};
use crate::{
    mirror::{
        columns::Columns,
        error::MirrorError,
        mysql::Cell,
        session::read,
        statement::{Param, in_powers_of_two},
    },
    model::{Heads, Key, TableName},
    node::Node,
};

/// Of how many rows entries are made at once. While MySQL makes them, others who insert entries may wait.
const TOUCH_ROWS: usize = 4_000;

impl Session<'_> {
    /// Makes entries of some rows of a table whose rows are being taken in. Whether there was such a table.
    pub(super) async fn touch_some(&mut self) -> Result<bool, MirrorError> {
        let is_due = |found: &Found| matches!(found.state, State::Touch | State::Renew);
        let touched = |table: &Table| table.found.as_ref().is_ok_and(is_due);
        let Some(at) = self.tables.iter().position(touched) else { return Ok(false) };
        let of_table = self.tables[at].name.clone();
        let has = self.heads_of(&[&of_table]).await?.pop().unwrap_or_default();
        let Table { name, found: Ok(found), pending, .. } = &mut self.tables[at] else {
            return Ok(false);
        };
        let name = name.as_str();
        let after: Option<Vec<Param>> = match &found.touched {
            None => None,
            Some(bytes) => {
                let key = Key::new(bytes.clone()).map_err(|error| error.to_string());
                // Noted of other columns: from the beginning.
                key.and_then(|key| found.columns.key_params(&key)).ok()
            }
        };
        let end = self.mysql.rows(found.columns.piece_end(after.as_deref(), TOUCH_ROWS)).await?;
        let end = match end.first() {
            None => None,
            Some(cells) => {
                let key = found.columns.key_of(cells);
                match key.and_then(|key| Ok((found.columns.key_params(&key)?, key))) {
                    Ok(end) => Some(end),
                    Err(reason) => {
                        self.tables[at].found = Err(format!("table {name}: {reason}"));
                        return Ok(false);
                    }
                }
            }
        };
        let (params, key) = end.unzip();
        let within = (after.as_deref(), params.as_deref());
        let renewed = match found.state {
            State::Renew => {
                let keys = self.mysql.rows(found.columns.keys_within(within.0, within.1)).await?;
                Some(as_they_were(self.node, &of_table, &found.columns, &keys, has).await?)
            }
            _ => None,
        };
        self.mysql.execute("START TRANSACTION").await?;
        if self.mysql.execute(own::fence(self.epoch, self.handed)).await? != 1 {
            return Err(MirrorError::Fenced);
        }
        let mut rows = 0;
        match renewed {
            None => {
                let touch = found.outbox.touch_within(&found.columns, within.0, within.1);
                rows += self.mysql.execute(touch).await?;
            }
            Some(keys) => {
                let keys: Vec<&[Param]> = keys.iter().map(Vec::as_slice).collect();
                for some in in_powers_of_two(&keys) {
                    rows += self.mysql.execute(found.outbox.touch(some)).await?;
                }
            }
        }
        found.taken_in += rows;
        *pending += rows;
        let progress = found.taken_in.to_string();
        let place = key.as_ref().map(Key::as_slice);
        self.mysql.execute(own::set_progress(name, place, &progress)).await?;
        if key.is_none() {
            self.mysql.execute(own::set_state(name, State::On)).await?;
            found.state = State::On;
        }
        self.mysql.execute("COMMIT").await?;
        found.touched = key.map(|key| key.as_slice().to_vec());
        Ok(true)
    }
}

/// The keys among these of rows that the store has as they are here, where MySQL is not behind `has`.
async fn as_they_were(
    node: &Node,
    table: &TableName,
    columns: &Columns,
    keys: &[Vec<Cell>],
    has: Heads,
) -> Result<Vec<Vec<Param>>, MirrorError> {
    let keys = keys.iter().filter_map(|cells| {
        let key = columns.key_of(cells).ok()?;
        Some((columns.key_params(&key).ok()?, key))
    });
    let keys: Vec<(Vec<Param>, Key)> = keys.collect();
    let (node, table) = (node.clone(), table.clone());
    read(move || {
        let (snapshot, now_ms) = (node.snapshot(), node.now_ms());
        let mut same = Vec::new();
        for (params, key) in keys {
            let Some(body) = snapshot.get(&table, &key)?.filter(|body| body.is_live(now_ms)) else {
                continue;
            };
            let version = body.version();
            if has.includes(version) || snapshot.is_handed_over(node.origin(), version)? {
                same.push(params);
            }
        }
        Ok(same)
    })
    .await
}
