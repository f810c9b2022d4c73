//! Rows of different keys that cannot both stand in MySQL: because another index is unique, or because the
//! primary key's collation takes different keys for one.
//!
//! The store holds both; each site's database has room for one. Whichever came first would stand there, and
//! two sites would differ for good. So the rule is the same everywhere, and of the rows alone: the row with
//! the greater version stands, the other is set aside in `_lastword_rejected`, and comes back once the place
//! is free.
//!
//! A row of an application's own that the store does not have yet is the newest of all.

use super::{
    capture::Outbox,
    columns::{ColumnRecord, Columns, Place},
    error::MirrorError,
    mapping::Refused,
    session::{Session, read},
};
use crate::model::{Key, TableName, Version};

/// A row that stands in another's place.
struct Rival {
    place: Place,
    /// As the store has it; `None`: not any more.
    standing: Option<(Version, usize)>,
}

impl Session<'_> {
    /// Decides between rows that MySQL would not take and those that stand in their place. What is not to
    /// stand is added to `refused`; gives the keys of the rows among them that stood.
    pub(super) async fn contest(
        &mut self,
        table: &TableName,
        columns: &Columns,
        mut set_aside: Vec<(&ColumnRecord, String)>,
        refused: &mut Vec<Refused>,
    ) -> Result<Vec<Key>, MirrorError> {
        // The greatest first: those it beats need not be moved twice.
        set_aside.sort_by_key(|(record, _)| std::cmp::Reverse(record.place.version));
        let mut losers = Vec::new();
        for (record, reason) in set_aside {
            let Some(rivals) = self.rivals(table, columns, record).await? else {
                refused.push(record.refused(reason));
                continue;
            };
            let places: Vec<_> = rivals.iter().map(|rival| &rival.place).collect();
            self.delete_places(columns, &places).await?;
            match self.mysql.execute(columns.insert(&[record])).await {
                Ok(_) => {}
                Err(error) => {
                    let Some(reason) = error.refused_row() else { return Err(error) };
                    refused.push(record.refused(reason));
                }
            }
            for Rival { place, standing } in rivals {
                if let Some((version, value_bytes)) = standing {
                    let winner = String::from_utf8_lossy(record.place.key.as_slice()).into_owned();
                    refused.push(Refused {
                        key: place.key.clone(),
                        version,
                        value_bytes,
                        reason: format!(
                            "the row {winner:?}, which was written later, has its place in a \
                             unique index"
                        ),
                    });
                }
                losers.push(place.key);
            }
        }
        Ok(losers)
    }

    /// The rows in whose place this one is to stand; `None`: it is not, or nothing stands there.
    async fn rivals(
        &mut self,
        table: &TableName,
        columns: &Columns,
        record: &ColumnRecord,
    ) -> Result<Option<Vec<Rival>>, MirrorError> {
        let mut places = Vec::new();
        for row in self.mysql.rows(columns.rivals(record)).await? {
            let Ok(key) = columns.key_of(&row) else { return Ok(None) };
            let Ok(params) = columns.key_params(&key) else { return Ok(None) };
            if key != record.place.key {
                places.push(Place { key, params, version: Version::default() });
            }
        }
        if places.is_empty() {
            return Ok(None);
        }
        if self.columns.get(table).is_some_and(|of_table| of_table.is_captured) {
            let places: Vec<_> = places.iter().collect();
            let in_hand = self.in_hand(&Outbox::of(columns), columns, &places).await?;
            if !in_hand.waiting.is_empty() {
                return Ok(None);
            }
        }
        let (node, name) = (self.node.clone(), table.clone());
        let rivals = read(move || {
            let (snapshot, now_ms) = (node.snapshot(), node.now_ms());
            places
                .into_iter()
                .map(|place| {
                    let body = snapshot.get(&name, &place.key)?.filter(|body| body.is_live(now_ms));
                    let standing = body
                        .map(|body| (body.version(), body.value().map_or(0, |value| value.len())));
                    Ok(Rival { place, standing })
                })
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
        let beaten = |rival: &Rival| {
            rival.standing.is_none_or(|(version, _)| version < record.place.version)
        };
        Ok(rivals.iter().all(beaten).then_some(rivals))
    }
}
