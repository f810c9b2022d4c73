//! The rows of the system tables of membership: their keys, their values, and who writes them.
//!
//! ```text
//! _members        origin             {"site": name}       by the store itself, or by its sponsor;
//!                                                         "role" where it is not a site's
//! _admissions     origin             {"sponsor": origin}  by the sponsor: stamps begin above it
//! _removals       origin             {"by": site}         by any member
//! _removal_acks   origin, member     {"head", "reached"}  by each remaining member
//! _seals          "seal"             {}                   by any member, before the first purge
//! _seal_acks      member             {}                   by each member that was not admitted
//! ```
//!
//! An origin is its 16 bytes; values are JSON, to which later releases may add. What follows from the
//! rows is in `members.rs`.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use crate::model::{Hlc, Key, Origin, Role, Row, TableName, Version};

/// Names and values of the system tables of membership.
pub struct MemberTables {
    /// See the head of this file.
    pub members: TableName,
    /// See the head of this file.
    pub admissions: TableName,
    /// See the head of this file.
    pub removals: TableName,
    /// See the head of this file.
    pub removal_acks: TableName,
    /// See the head of this file.
    pub seals: TableName,
    /// See the head of this file.
    pub seal_acks: TableName,
}

/// The system tables of membership.
pub static MEMBER_TABLES: LazyLock<MemberTables> = LazyLock::new(|| {
    let table = |name| TableName::of_any(name).expect("a sound name");
    MemberTables {
        members: table("_members"),
        admissions: table("_admissions"),
        removals: table("_removals"),
        removal_acks: table("_removal_acks"),
        seals: table("_seals"),
        seal_acks: table("_seal_acks"),
    }
});

impl MemberTables {
    /// All of them.
    #[must_use]
    pub fn all(&self) -> [&TableName; 6] {
        [
            &self.members,
            &self.admissions,
            &self.removals,
            &self.removal_acks,
            &self.seals,
            &self.seal_acks,
        ]
    }
}

/// A row of a system table, to be written: a value, as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemRow {
    /// The table.
    pub table: TableName,
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct MemberValue {
    pub(super) site: String,
    #[serde(default, skip_serializing_if = "Role::is_site")]
    pub(super) role: Role,
}

#[derive(Serialize, Deserialize)]
struct AdmissionValue {
    sponsor: String,
}

#[derive(Serialize, Deserialize)]
struct RemovalValue {
    by: String,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RemovalAckValue {
    pub(super) head: String,
    #[serde(default)]
    pub(super) reached: String,
}

fn system_row(table: &TableName, key: Vec<u8>, value: &impl Serialize) -> SystemRow {
    SystemRow {
        table: table.clone(),
        key: Key::new(key).expect("at most 32 bytes"),
        value: serde_json::to_vec(value).expect("a plain struct"),
    }
}

/// Says that the store `origin` is that of `site`, and what it is for.
#[must_use]
pub fn member_row(origin: Origin, site: &str, role: Role) -> SystemRow {
    let value = MemberValue { site: site.to_owned(), role };
    system_row(&MEMBER_TABLES.members, origin.as_bytes().to_vec(), &value)
}

/// Admits the store `origin`: `sponsor` writes it.
#[must_use]
pub fn admission_row(origin: Origin, sponsor: Origin) -> SystemRow {
    let value = AdmissionValue { sponsor: sponsor.to_string() };
    system_row(&MEMBER_TABLES.admissions, origin.as_bytes().to_vec(), &value)
}

/// Removes the store `origin`, by the site `by`.
#[must_use]
pub fn removal_row(origin: Origin, by: &str) -> SystemRow {
    let value = RemovalValue { by: by.to_owned() };
    system_row(&MEMBER_TABLES.removals, origin.as_bytes().to_vec(), &value)
}

/// The member `own` takes nothing from `removed` any more, of which it has everything up to `head`, and
/// nothing above `reached`.
#[must_use]
pub(super) fn removal_ack_row(removed: Origin, own: Origin, head: Hlc, reached: Hlc) -> SystemRow {
    let key = [*removed.as_bytes(), *own.as_bytes()].concat();
    let value = RemovalAckValue { head: head.to_string(), reached: reached.to_string() };
    system_row(&MEMBER_TABLES.removal_acks, key, &value)
}

/// Seals the cluster.
#[must_use]
pub fn seal_row() -> SystemRow {
    system_row(&MEMBER_TABLES.seals, b"seal".to_vec(), &serde_json::json!({}))
}

/// The member `own` takes in nobody it does not know.
#[must_use]
pub(super) fn seal_ack_row(own: Origin) -> SystemRow {
    system_row(&MEMBER_TABLES.seal_acks, own.as_bytes().to_vec(), &serde_json::json!({}))
}

/// The store that a row admits, and its stamp; `None`: the row does something else.
///
/// An admission that somebody else than its sponsor wrote anew says that the store is a member, and
/// nothing of where its stamps begin: it has been stamping since.
#[must_use]
pub fn admission_in(row: &Row) -> Option<(Origin, Hlc)> {
    if row.table != MEMBER_TABLES.admissions {
        return None;
    }
    let origin = row.key.as_slice().try_into().ok()?;
    let value = row.body.value()?;
    let AdmissionValue { sponsor } = serde_json::from_slice(&value).ok()?;
    let Version { hlc, origin: by } = row.body.version();
    (sponsor == by.to_string()).then_some((Origin::from_bytes(origin), hlc))
}

/// What the store `origin` is for, as its own row among these says; where there is none, it serves a site.
#[must_use]
pub fn role_in(rows: &[Row], origin: Origin) -> Role {
    let tables = &*MEMBER_TABLES;
    let is_own =
        |row: &&Row| row.table == tables.members && row.key.as_slice() == origin.as_bytes();
    let value = rows.iter().find(is_own).and_then(|row| row.body.value());
    let member = value.and_then(|value| serde_json::from_slice::<MemberValue>(&value).ok());
    member.map_or(Role::Site, |member| member.role)
}
