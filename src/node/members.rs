//! The member list: a replicated system table, origin -> name of the site, and its role.

use std::{
    collections::HashMap,
    sync::{Arc, RwLock},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    model::{Key, Origin, Role, Row, TableName},
    store::{Operation, ScanRange, Snapshot, StoreError},
};

/// The value of a member's row, as JSON.
#[derive(Serialize, Deserialize)]
struct Member {
    site: String,
    #[serde(default, skip_serializing_if = "Role::is_site")]
    role: Role,
}

/// The names of the sites this node has heard of.
#[derive(Debug, Default)]
pub(super) struct Members {
    sites: RwLock<HashMap<Origin, (Arc<str>, Role)>>,
}

/// The system table.
pub(super) fn table() -> TableName {
    TableName::of_any("_members").expect("a sound name")
}

/// The write by which a member makes itself known: key, its origin's 16 bytes.
pub(super) fn announcement(origin: Origin, site: &str, role: Role) -> Operation {
    let value = serde_json::to_vec(&Member { site: site.into(), role }).expect("a plain struct");
    Operation::Put { key: key_of(origin), value: Bytes::from(value), expires_at_ms: None }
}

fn key_of(origin: Origin) -> Key {
    Key::new(origin.as_bytes().to_vec()).expect("16 bytes")
}

impl Members {
    pub(super) fn load(snapshot: &Snapshot) -> Result<Members, StoreError> {
        let members = Members::default();
        for row in snapshot.scan(&table(), &ScanRange::default())? {
            members.learn(&[row?]);
        }
        Ok(members)
    }

    /// Takes note of member rows among those that a commit changed.
    pub(super) fn learn(&self, rows: &[Row]) {
        let members = table();
        for row in rows.iter().filter(|row| row.table == members) {
            let Ok(origin) = row.key.as_slice().try_into().map(Origin::from_bytes) else {
                continue;
            };
            let mut sites = self.sites.write().expect("no holder of this lock panics");
            // A newer release may add fields; a row that says no site names none.
            match row.body.value().and_then(|value| serde_json::from_slice::<Member>(&value).ok()) {
                Some(member) => sites.insert(origin, (member.site.into(), member.role)),
                None => sites.remove(&origin),
            };
        }
    }

    pub(super) fn site_of(&self, origin: Origin) -> Option<Arc<str>> {
        self.get(origin).map(|(site, _)| site)
    }

    pub(super) fn role_of(&self, origin: Origin) -> Option<Role> {
        self.get(origin).map(|(_, role)| role)
    }

    fn get(&self, origin: Origin) -> Option<(Arc<str>, Role)> {
        self.sites.read().expect("no holder of this lock panics").get(&origin).cloned()
    }
}
