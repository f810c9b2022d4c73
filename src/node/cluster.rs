//! The cluster as this node sees it: who belongs to it, and for whom dead rows wait.

use super::{Node, age_ms};
use crate::{
    model::{Hlc, Origin},
    protocol::Standing,
    store::StoreError,
};

/// Up to how many dead rows are counted; beyond, "at least so many".
const DEAD_ROWS_MAX: u64 = 1_000_000;
/// A member whose head is older holds the horizon back.
const WAITED_FOR_AFTER_MS: u64 = 5_000;

/// The cluster.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// All members ever, in the order of their origins.
    pub members: Vec<MemberStatus>,
    /// Every member has acknowledged the seal: dead rows go, and newcomers are admitted only.
    pub sealed: bool,
    /// Rows that are dead and still here, a million at most.
    pub dead_rows: u64,
    /// Rows ever purged here.
    pub rows_purged: u64,
    /// Why dead rows wait: one reason a line; empty: they do not.
    pub purge_waits_for: Vec<String>,
    /// While this node is being admitted: the sites that have not heard of it yet.
    pub admission_missing: Option<Vec<String>>,
}

/// A member.
#[derive(Clone, Debug)]
pub struct MemberStatus {
    /// Its store.
    pub origin: Origin,
    /// Its site.
    pub site: String,
    /// This node itself.
    pub is_self: bool,
    /// It was admitted; else it is a founder.
    pub admitted: bool,
    /// How it stands to the cluster.
    pub standing: Standing,
    /// It has acknowledged the seal, or came in behind it.
    pub has_acknowledged: bool,
    /// Wall time less our head of it; `None`: nothing is here yet, or it is closed.
    pub age_seconds: Option<f64>,
}

/// Why a member cannot be removed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemberError {
    /// Nobody of that name.
    #[error(
        "member: there is no site or origin {0:?} in the member list: see `lastword member list`"
    )]
    Unknown(String),
    /// Several stores have that name.
    #[error("member: {0:?} names several stores: use the origin, see `lastword member list`")]
    Ambiguous(String),
    /// This node.
    #[error("member: {0:?} is this node itself: remove it at another site")]
    Itself(String),
    /// It is gone already.
    #[error("member: {0:?} was removed already")]
    Removed(String),
    /// Others may be reachable through it only.
    #[error(
        "member: the cluster is not sealed yet: {0:?} may be the only way to sites that nobody else has met; \
         wait for the seal (`lastword member seal`), or use --force if it is lost for good: sites that only it had met \
         must rejoin then"
    )]
    NotSealed(String),
}

impl Node {
    /// The cluster at this moment. Reads the disk: call it where blocking is allowed.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn cluster_status(&self) -> Result<ClusterStatus, StoreError> {
        let (snapshot, own, now_ms) = (self.snapshot(), self.origin(), self.now_ms());
        let (heads, list) = (snapshot.heads(), snapshot.members());
        let age = |hlc: Hlc| {
            let known = hlc > Hlc::ZERO && !hlc.is_closed();
            known.then(|| super::status::seconds(age_ms(hlc, now_ms)))
        };
        let members: Vec<MemberStatus> = list
            .iter()
            .map(|(origin, member)| MemberStatus {
                origin,
                site: member.site.to_string(),
                is_self: origin == own,
                admitted: member.admission.is_some(),
                standing: list.standing(origin, heads),
                has_acknowledged: list.has_acknowledged(origin),
                age_seconds: age(heads.get(origin)),
            })
            .collect();
        let name = |member: &MemberStatus| match member.site.is_empty() {
            true => member.origin.to_string(),
            false => member.site.clone(),
        };
        let sealed = list.is_sealed(heads);
        let mut purge_waits_for: Vec<String> = snapshot
            .unmet()
            .map(|address| format!("the peer at {address}, which was never met"))
            .collect();
        let others = || members.iter().filter(|m| !m.is_self && m.standing != Standing::Closed);
        if !list.has_seal() {
            purge_waits_for.push("the cluster to be sealed".to_owned());
        } else if !sealed {
            let silent = others().filter(|member| !member.has_acknowledged);
            purge_waits_for.extend(silent.map(|m| format!("{} to acknowledge the seal", name(m))));
        }
        for member in others() {
            let away_ms = age_ms(heads.get(member.origin), now_ms);
            let told_ms = age_ms(self.known_of(member.origin).get(own), now_ms);
            if away_ms > WAITED_FOR_AFTER_MS {
                purge_waits_for.push(format!("{}, away for {} s", name(member), away_ms / 1_000));
            } else if told_ms > WAITED_FOR_AFTER_MS && member.standing == Standing::Member {
                purge_waits_for.push(format!("{} to say what it has", name(member)));
            }
        }
        let admission_missing = snapshot.joining().map(|_| {
            let missing = self.admission_missing();
            members.iter().filter(|m| missing.contains(&m.origin)).map(name).collect()
        });
        let dead_rows = snapshot.count_dead(now_ms, DEAD_ROWS_MAX)?;
        Ok(ClusterStatus {
            purge_waits_for: if dead_rows > 0 { purge_waits_for } else { Vec::new() },
            members,
            sealed,
            dead_rows,
            rows_purged: snapshot.rows_purged()?,
            admission_missing,
        })
    }

    /// The member that an operator means by `name`, a site or an origin, where it may be removed.
    ///
    /// # Errors
    ///
    /// [`MemberError`].
    pub fn member_to_remove(&self, name: &str, force: bool) -> Result<Origin, MemberError> {
        let snapshot = self.snapshot();
        let (heads, list) = (snapshot.heads(), snapshot.members());
        let named = |(origin, member): &(Origin, &crate::protocol::Member)| {
            *member.site == *name || origin.to_string().eq_ignore_ascii_case(name)
        };
        let named: Vec<Origin> = list.iter().filter(named).map(|(origin, _)| origin).collect();
        let still: Vec<Origin> = named
            .iter()
            .copied()
            .filter(|origin| list.standing(*origin, heads) == Standing::Member)
            .collect();
        let name = name.to_owned();
        match (&named[..], &still[..]) {
            ([], _) => Err(MemberError::Unknown(name)),
            (_, []) => Err(MemberError::Removed(name)),
            (_, [origin]) if *origin == self.origin() => Err(MemberError::Itself(name)),
            (_, [_]) if !force && !list.is_sealed(heads) => Err(MemberError::NotSealed(name)),
            (_, [origin]) => Ok(*origin),
            _ => Err(MemberError::Ambiguous(name)),
        }
    }
}
