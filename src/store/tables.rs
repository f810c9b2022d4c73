//! The redb tables: what each key and value is. docs/format.md is the page for people.
//!
//! Two tables are written by redb transactions alone: `meta` and `identity`. The others are
//! [`Space`]s: a commit writes them into the log and into memory, and they move into redb together
//! with the number of the newest commit among them.
//!
//! | table | key | value |
//! | --- | --- | --- |
//! | meta | name | number |
//! | identity | unit | this store's origin |
//! | state | name | number |
//! | tables | table id | table name |
//! | rows | place: table id, key | the row's [`Body`](crate::model::Body) bytes |
//! | changes | origin, hlc | place: exactly one entry for each row |
//! | known | place | what is known of the key beyond the row, where that is more |
//! | heads | origin | hlc |
//! | tentative | the sender's origin | heads |
//! | conflicts | hlc, origin of the loser | the winner's version, place by name, the losing body |
//! | sequences | table id | the sequence id given out last |
//! | floor | origin | hlc up to which dead rows may be gone |
//! | dead | hlc from which on it may be purged, place | nothing: a tombstone or a row that expires |
//! | reached | origin | the greatest hlc of a row of it that came in before it was claimed |
//! | renew | place | the version there that nobody else takes as it is: it is written anew |

use redb::{
    Database, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use super::{FORMAT_VERSION, OpenError, StoreConfig, StoreError};
use crate::model::Origin;

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const IDENTITY: TableDefinition<'_, (), &[u8; 16]> = TableDefinition::new("identity");

const META_FORMAT: &str = "format_version";
const META_BOOT: &str = "boot";
/// Starts the checksums of the log's records.
const META_LOG_SALT: &str = "log_salt";
/// 1 in a store that was created where peers are expected: it lacks what they have, at first.
const META_FIRST_DELTA_DUE: &str = "first_delta_due";
/// The newest commit of the log that is in these tables.
const META_FLUSHED: &str = "log_flushed";

/// No head or stamp above this was sent anywhere: where the clock goes on after a restart.
pub(super) const STATE_CEILING: &[u8] = b"clock_ceiling";
pub(super) const STATE_CONFLICTS_TOTAL: &[u8] = b"conflicts_total";
pub(super) const STATE_CONFLICTS_KEPT: &[u8] = b"conflicts_kept";
pub(super) const STATE_CONFLICTS_BYTES: &[u8] = b"conflicts_kept_bytes";
/// The journal holds no key below this one.
pub(super) const STATE_CONFLICTS_FROM: &[u8] = b"conflicts_from";
pub(super) const STATE_ROWS: &[u8] = b"rows";
pub(super) const STATE_PURGED: &[u8] = b"purged";
/// How this store comes to belong to a sealed cluster, while it does: see [`Joining`](super::Joining).
pub(super) const STATE_JOINING: &[u8] = b"joining";
/// 1: this store has asked a sealed cluster to take it in, and meets nobody else meanwhile.
pub(super) const STATE_ASKED: &[u8] = b"asked";
/// Of a store that comes back: how far rows of origins that were closed without it had come to others.
pub(super) const STATE_OUTSIDE: &[u8] = b"outside";
/// The origin that this store had before it was given a new one.
pub(super) const STATE_EARLIER: &[u8] = b"earlier_origin";
/// Before a configured peer's address: the origin that was met there.
pub(super) const STATE_MET: &[u8] = b"met:";
/// 1 once a delta was claimed, where one is due.
pub(super) const STATE_FIRST_DELTA: &[u8] = b"first_delta";
/// The newest hand-over from this node's database: see [`Receipt`](super::Receipt).
pub(super) const STATE_RECEIPT: &[u8] = b"hand_over";
/// The stamps of what was handed over, while the database's heads do not say that it has it.
pub(super) const STATE_SPANS: &[u8] = b"hand_over_spans";

/// The definition of a space's table.
pub(super) type SpaceTable = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// The tables that a commit writes. The numbers are a contract with the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(super) enum Space {
    State = 0,
    Tables = 1,
    Rows = 2,
    Changes = 3,
    Known = 4,
    Heads = 5,
    Tentative = 6,
    Conflicts = 7,
    Sequences = 8,
    Floor = 9,
    Dead = 10,
    Reached = 11,
    Renew = 12,
}

impl Space {
    /// In the order of their numbers.
    pub(super) const ALL: [Space; 13] = [
        Space::State,
        Space::Tables,
        Space::Rows,
        Space::Changes,
        Space::Known,
        Space::Heads,
        Space::Tentative,
        Space::Conflicts,
        Space::Sequences,
        Space::Floor,
        Space::Dead,
        Space::Reached,
        Space::Renew,
    ];

    pub(super) fn of_number(number: u8) -> Option<Space> {
        Space::ALL.get(usize::from(number)).copied()
    }

    pub(super) const fn table(self) -> SpaceTable {
        TableDefinition::new(match self {
            Space::State => "state",
            Space::Tables => "tables",
            Space::Rows => "rows",
            Space::Changes => "changes",
            Space::Known => "known",
            Space::Heads => "heads",
            Space::Tentative => "tentative",
            Space::Conflicts => "conflicts",
            Space::Sequences => "sequences",
            Space::Floor => "floor",
            Space::Dead => "dead",
            Space::Reached => "reached",
            Space::Renew => "renew",
        })
    }
}

/// What a store knows of itself.
pub(super) struct Identity {
    pub(super) origin: Origin,
    pub(super) boot: u64,
    pub(super) log_salt: u32,
    pub(super) flushed: u64,
    pub(super) first_delta_due: bool,
}

/// Whether this file never held a store.
pub(super) fn is_new(database: &Database) -> Result<bool, StoreError> {
    match database.begin_read()?.open_table(META) {
        Ok(_) => Ok(false),
        Err(TableError::TableDoesNotExist(_)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Gives a store another origin.
pub(super) fn set_origin(write: &WriteTransaction, origin: Origin) -> Result<(), StoreError> {
    write.open_table(IDENTITY)?.insert((), origin.as_bytes())?;
    Ok(())
}

/// Creates the tables of a new store, checks the format of an old one, and counts the start.
pub(super) fn found(database: &Database, config: &StoreConfig) -> Result<Identity, OpenError> {
    let write = begin_write(database)?;
    let identity = {
        let mut meta = write.open_table(META).map_err(StoreError::from)?;
        let format = meta.get(META_FORMAT)?.map(|entry| entry.value());
        match format {
            None => {
                meta.insert(META_FORMAT, FORMAT_VERSION)?;
                if !config.peers.is_empty() {
                    meta.insert(META_FIRST_DELTA_DUE, 1)?;
                }
            }
            Some(FORMAT_VERSION) => {}
            Some(found) => return Err(OpenError::Format { found }),
        }
        let boot = meta.get(META_BOOT)?.map_or(0, |entry| entry.value()) + 1;
        meta.insert(META_BOOT, boot)?;
        let first_delta_due = meta.get(META_FIRST_DELTA_DUE)?.is_some();
        let flushed = meta.get(META_FLUSHED)?.map_or(0, |entry| entry.value());
        let salt = meta.get(META_LOG_SALT)?.map(|entry| entry.value());
        let log_salt = match salt {
            Some(salt) => u32::try_from(salt).map_err(|_| StoreError::Damaged("the log's salt"))?,
            None => {
                meta.insert(META_LOG_SALT, u64::from(config.fresh_log_salt))?;
                config.fresh_log_salt
            }
        };
        let mut identity = write.open_table(IDENTITY).map_err(StoreError::from)?;
        let known = identity.get(())?.map(|entry| *entry.value());
        let origin = known.map_or(config.fresh_origin, Origin::from_bytes);
        if known.is_none() {
            identity.insert((), origin.as_bytes())?;
        }
        for space in Space::ALL {
            write.open_table(space.table()).map_err(StoreError::from)?;
        }
        Identity { origin, boot, log_salt, flushed, first_delta_due }
    };
    write.commit().map_err(StoreError::from)?;
    Ok(identity)
}

/// Notes the newest commit that is in the tables.
pub(super) fn set_flushed(write: &WriteTransaction, sequence: u64) -> Result<(), StoreError> {
    write.open_table(META)?.insert(META_FLUSHED, sequence)?;
    Ok(())
}

/// A transaction whose commit survives a crash, and whose file opens quickly after one.
pub(super) fn begin_write(database: &Database) -> Result<WriteTransaction, StoreError> {
    let mut write = database.begin_write()?;
    // Implies a two-phase commit.
    write.set_quick_repair(true);
    Ok(write)
}
