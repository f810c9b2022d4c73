//! The redb tables: what each key and value is. docs/format.md is the page for people.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | meta | name | number |
//! | tables | table id | table name |
//! | rows | place: table id, key | the row's [`Body`](crate::model::Body) bytes |
//! | changes | origin, hlc | place: exactly one entry for each row |
//! | known | place | what is known of the key beyond the row, where that is more |
//! | heads | origin | hlc |
//! | tentative | the sender's origin | heads |
//! | conflicts | hlc, origin of the loser | the winner's version, place by name, the losing body |
//! | sequences | table id | the sequence id given out last |

use redb::{Database, ReadableTable, TableDefinition};

use super::{FORMAT_VERSION, OpenError, StoreError};
use crate::model::{Hlc, Origin};

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const IDENTITY: TableDefinition<'_, (), &[u8; 16]> = TableDefinition::new("identity");
pub(super) const TABLES: TableDefinition<'_, u32, &str> = TableDefinition::new("tables");
pub(super) const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
pub(super) const CHANGES: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("changes");
pub(super) const KNOWN: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("known");
pub(super) const HEADS: TableDefinition<'_, &[u8; 16], u64> = TableDefinition::new("heads");
pub(super) const TENTATIVE: TableDefinition<'_, &[u8; 16], &[u8]> =
    TableDefinition::new("tentative");
pub(super) const CONFLICTS: TableDefinition<'_, &[u8; 24], &[u8]> =
    TableDefinition::new("conflicts");
pub(super) const SEQUENCES: TableDefinition<'_, u32, u64> = TableDefinition::new("sequences");

const META_FORMAT: &str = "format_version";
const META_BOOT: &str = "boot";
/// No head or stamp above this was sent anywhere: where the clock goes on after a restart.
pub(super) const META_CEILING: &str = "clock_ceiling";
pub(super) const META_CONFLICTS_TOTAL: &str = "conflicts_total";

/// What a store knows of itself.
pub(super) struct Identity {
    pub(super) origin: Origin,
    pub(super) boot: u64,
    pub(super) ceiling: Hlc,
}

/// Creates the tables of a new store, checks the format of an old one, and counts the start.
pub(super) fn found(database: &Database, fresh_origin: Origin) -> Result<Identity, OpenError> {
    let mut write = database.begin_write().map_err(StoreError::from)?;
    write.set_two_phase_commit(true);
    let identity = {
        let mut meta = write.open_table(META).map_err(StoreError::from)?;
        let format = meta.get(META_FORMAT)?.map(|entry| entry.value());
        match format {
            None => {
                meta.insert(META_FORMAT, FORMAT_VERSION)?;
            }
            Some(FORMAT_VERSION) => {}
            Some(found) => return Err(OpenError::Format { found }),
        }
        let boot = meta.get(META_BOOT)?.map_or(0, |entry| entry.value()) + 1;
        meta.insert(META_BOOT, boot)?;
        let ceiling = meta.get(META_CEILING)?.map_or(0, |entry| entry.value());

        let mut identity = write.open_table(IDENTITY).map_err(StoreError::from)?;
        let known = identity.get(())?.map(|entry| *entry.value());
        let origin = known.map_or(fresh_origin, Origin::from_bytes);
        if known.is_none() {
            identity.insert((), origin.as_bytes())?;
        }
        write.open_table(TABLES).map_err(StoreError::from)?;
        write.open_table(ROWS).map_err(StoreError::from)?;
        write.open_table(CHANGES).map_err(StoreError::from)?;
        write.open_table(KNOWN).map_err(StoreError::from)?;
        write.open_table(HEADS).map_err(StoreError::from)?;
        write.open_table(TENTATIVE).map_err(StoreError::from)?;
        write.open_table(CONFLICTS).map_err(StoreError::from)?;
        write.open_table(SEQUENCES).map_err(StoreError::from)?;
        Identity { origin, boot, ceiling: Hlc::from_bits(ceiling) }
    };
    write.commit().map_err(StoreError::from)?;
    Ok(identity)
}
