//! The node as one of a cluster: whom it meets, what it knows of the others, and what it does by itself
//! once a second.
//!
//! ```text
//! a link's hello       --> meet, admit, join    the store decides, where stamps are given
//! a link's heads       --> learn                what each member is known to have
//! upkeep, every second --> advance              acknowledgements, closings: what is owed
//!                          activate             a newcomer that everybody knows begins to write
//!                          seal                 some time after the founders have met
//!                          purge                what everybody has
//!                          remove               who was away for too long
//! ```

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::{
    sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{Node, WriteError};
use crate::{
    model::{Heads, Hlc, Origin, Row},
    protocol::{Hello, HelloMembership, Known, Standing, removal_row, role_in, seal_row},
    store::{MeetError, Meeting, Met, Outcome, Purged, Reconciled, Request, StoreError},
};

/// When the node does by itself what an operator may also do.
#[derive(Clone, Debug)]
pub struct UpkeepConfig {
    /// How often it looks whether something is due.
    pub every: Duration,
    /// The founders seal the cluster so long after the youngest of them was met. Until then sites with
    /// writes of their own may join by simply meeting; dead rows stay.
    pub seal_after: Duration,
    /// A member that is away for longer is removed.
    pub absent_max: Duration,
}

impl Default for UpkeepConfig {
    fn default() -> UpkeepConfig {
        UpkeepConfig {
            every: Duration::from_secs(1),
            seal_after: Duration::from_secs(600),
            absent_max: Duration::from_secs(30 * 86_400),
        }
    }
}

/// A member must be found away for too long at so many looks in a row before it is removed: an hour, at
/// one a second. A clock that is set wrong for a moment removes nobody.
const ABSENT_LOOKS: u32 = 3_600;
/// A member that is away for this share of the limit is warned of.
const ABSENT_WARNING_SHARE: f64 = 0.5;
/// The least time between two warnings of one member.
const WARN_EVERY_MS: u64 = 3_600_000;

/// What a node knows of the others' state.
#[derive(Debug, Default)]
pub(super) struct Others {
    known: Mutex<Known>,
}

impl Others {
    fn known<T>(&self, with: impl FnOnce(&mut Known) -> T) -> T {
        with(&mut self.known.lock().expect("no holder of this lock panics"))
    }
}

impl Node {
    /// How this store stands to the cluster, for its hello.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn hello_membership(&self) -> Result<HelloMembership, StoreError> {
        self.snapshot().hello_membership(self.origin())
    }

    /// How another store stands to the cluster, as far as is known here.
    #[must_use]
    pub fn standing(&self, origin: Origin) -> Standing {
        let snapshot = self.snapshot();
        snapshot.members().standing(origin, snapshot.heads())
    }

    /// Whether this store may exchange with another, and as what.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn meet(&self, meeting: Meeting) -> Result<Result<Met, MeetError>, WriteError> {
        let _turn = self.merge_turn().await;
        match self.request(Request::Meet(Box::new(meeting))).await? {
            Outcome::Met(met) => Ok(met),
            _ => unreachable!("a meeting has its own outcome"),
        }
    }

    /// Takes the newcomer that said `hello` into the sealed cluster; gives the rows that say so.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn admit(&self, hello: &Hello) -> Result<Result<Vec<Row>, MeetError>, WriteError> {
        let request = Request::Admit {
            newcomer: hello.origin,
            site: hello.site.clone(),
            role: role_in(&hello.membership.rows, hello.origin),
            earlier: hello.membership.earlier,
            head: hello.heads.get(hello.origin),
            wall_ms: hello.wall_ms,
            drift_bound_ms: self.drift_bound_ms(),
        };
        match self.request(request).await? {
            Outcome::Admitted(admitted) => Ok(admitted),
            _ => unreachable!("an admission has its own outcome"),
        }
    }

    /// A sponsor has taken this store in.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn join(
        &self,
        sponsor: Origin,
        rows: Vec<Row>,
    ) -> Result<Result<(), MeetError>, WriteError> {
        let drift_bound_ms = self.drift_bound_ms();
        match self.request(Request::Join { sponsor, rows, drift_bound_ms }).await? {
            Outcome::Joined(joined) => Ok(joined),
            _ => unreachable!("joining has its own outcome"),
        }
    }

    /// Ends a reconciliation; gives how many rows had died there, `None` where the other was removed.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: the node stops.
    pub async fn reconcile(&self, end: Reconciled) -> Result<Option<u64>, WriteError> {
        match self.request(Request::Reconcile(Box::new(end))).await? {
            Outcome::Reconciled(rows) => Ok(rows),
            _ => unreachable!("a reconciliation has its own outcome"),
        }
    }

    /// Leave to merge what a peer sent: nobody reconciles meanwhile.
    pub async fn merge_turn(&self) -> OwnedRwLockReadGuard<()> {
        std::sync::Arc::clone(&self.shared.turns).read_owned().await
    }

    /// Leave to reconcile: nobody else merges meanwhile, and nothing is purged.
    pub async fn reconcile_turn(&self) -> OwnedRwLockWriteGuard<()> {
        std::sync::Arc::clone(&self.shared.turns).write_owned().await
    }

    /// A member has incorporated this, as it says itself or another one says of it.
    pub fn learn(&self, member: Origin, heads: &Heads) {
        if member != self.origin() {
            self.shared.others.known(|known| known.learn(member, heads));
        }
    }

    /// What members are known to have incorporated, to tell a peer.
    #[must_use]
    pub fn known(&self) -> Vec<(Origin, Heads)> {
        let snapshot = self.snapshot();
        let own = self.origin();
        self.shared.others.known(|known| known.to_tell(own, snapshot.heads(), snapshot.members()))
    }

    /// What `member` is known to have incorporated.
    #[must_use]
    pub fn known_of(&self, member: Origin) -> Heads {
        self.shared.others.known(|known| known.of(member).cloned().unwrap_or_default())
    }

    /// The members that a node on its way into the cluster still waits for; empty where it is in.
    #[must_use]
    pub fn admission_missing(&self) -> Vec<Origin> {
        let snapshot = self.snapshot();
        let Some(joining) = snapshot.joining() else { return Vec::new() };
        let (own, heads, members) = (self.origin(), snapshot.heads(), snapshot.members());
        self.shared
            .others
            .known(|known| known.missing(own, heads, members, joining, snapshot.earlier()))
    }

    /// Seals the cluster now: from then on newcomers are admitted, and dead rows are purged.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: refused, or the node stops.
    pub async fn seal(&self) -> Result<(), WriteError> {
        let snapshot = self.snapshot();
        if snapshot.members().wants_seal(snapshot.heads()) {
            self.write_system(seal_row()).await?;
        }
        Ok(())
    }

    /// Removes a member, for good: the others refuse it, and wait for it no more.
    ///
    /// # Errors
    ///
    /// [`WriteError`]: refused, or the node stops.
    pub async fn remove_member(&self, origin: Origin) -> Result<(), WriteError> {
        self.write_system(removal_row(origin, self.site())).await.map(|_| ())
    }

    /// Does what is due, once a second, until `shutdown` or the node stops.
    pub async fn keep_up(self, config: UpkeepConfig, shutdown: CancellationToken) {
        let mut upkeep = Upkeep { node: self, config, tried: None, absent: HashMap::new() };
        let mut ticks = tokio::time::interval(upkeep.config.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match upkeep.look().await {
                Ok(()) => {}
                Err(UpkeepError::Write(WriteError::Refused(reason))) => {
                    tracing::warn!(%reason, "upkeep");
                }
                Err(UpkeepError::Write(_)) => return,
                Err(UpkeepError::Store(error)) => tracing::error!(%error, "upkeep"),
            }
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum UpkeepError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

struct Upkeep {
    node: Node,
    config: UpkeepConfig,
    /// What was stable, and the horizon, at the last purge: while neither moves, nothing more can go.
    tried: Option<(Heads, Hlc)>,
    /// Who is away for too long: at how many looks, and when it was warned of.
    absent: HashMap<Origin, (u32, u64)>,
}

impl Upkeep {
    async fn look(&mut self) -> Result<(), UpkeepError> {
        self.node.advance().await?;
        let snapshot = self.node.snapshot();
        if let Some(joining) = snapshot.joining() {
            if joining.pulled && self.node.admission_missing().is_empty() {
                self.node.request(Request::Activate).await?;
            }
            return Ok(());
        }
        // What was written before the admission is written anew, some rows at a time.
        while !self.node.snapshot().may_be_told() {
            self.node.advance().await?;
        }
        self.seal_where_due().await?;
        self.look_after_the_absent().await?;
        self.purge().await
    }

    async fn seal_where_due(&self) -> Result<(), UpkeepError> {
        let snapshot = self.node.snapshot();
        let members = snapshot.members();
        if !members.wants_seal(snapshot.heads()) || snapshot.unmet().next().is_some() {
            return Ok(());
        }
        let youngest = members.iter().filter_map(|(_, member)| member.known_since()).max();
        let alone = members.remaining().count() < 2;
        let Some(youngest) = youngest.filter(|_| !alone) else { return Ok(()) };
        let age_ms = super::age_ms(youngest, self.node.now_ms());
        if u128::from(age_ms) >= self.config.seal_after.as_millis() {
            tracing::info!("sealing the cluster: its members are known");
            self.node.seal().await?;
        }
        Ok(())
    }

    async fn purge(&mut self) -> Result<(), UpkeepError> {
        loop {
            // From before the look at where the mirror stands: a rescan counts on that.
            let Ok(_turn) = std::sync::Arc::clone(&self.node.shared.turns).try_read_owned() else {
                return Ok(());
            };
            let snapshot = self.node.snapshot();
            let horizon = snapshot.horizon();
            let (own, heads) = (self.node.origin(), snapshot.heads());
            let mut stable =
                self.node.shared.others.known(|known| known.stable(own, heads, snapshot.members()));
            if let Some(mirror) = self.node.reports().mirror() {
                // MySQL must be told what died.
                stable = stable.meet(&mirror.position.unwrap_or_default());
            }
            let now = (stable.clone(), horizon);
            if horizon == Hlc::ZERO || self.tried.as_ref() == Some(&now) {
                return Ok(());
            }
            let drift_bound_ms = self.node.drift_bound_ms();
            let purged = match self.node.request(Request::Purge { stable, drift_bound_ms }).await? {
                Outcome::Purged(purged) => purged,
                _ => Purged::default(),
            };
            if !purged.more || purged.rows == 0 {
                self.tried = Some(now);
                return Ok(());
            }
        }
    }

    async fn look_after_the_absent(&mut self) -> Result<(), UpkeepError> {
        let snapshot = self.node.snapshot();
        let (own, now_ms) = (self.node.origin(), self.node.now_ms());
        let limit_ms = u64::try_from(self.config.absent_max.as_millis()).unwrap_or(u64::MAX);
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a limit of days"
        )]
        let warn_ms = (limit_ms as f64 * ABSENT_WARNING_SHARE) as u64;
        for member in snapshot.members().remaining().filter(|member| *member != own) {
            let head = snapshot.heads().get(member);
            let away_ms = super::age_ms(head, now_ms);
            if head == Hlc::ZERO || away_ms <= warn_ms {
                self.absent.remove(&member);
                continue;
            }
            let (looks, warned_ms) = self.absent.entry(member).or_default();
            let site = self.node.site_of(member);
            if now_ms.saturating_sub(*warned_ms) >= WARN_EVERY_MS {
                *warned_ms = now_ms;
                let (days, limit_days) = (away_ms / 86_400_000, limit_ms / 86_400_000);
                tracing::warn!(
                    ?site, origin = %member, days, limit_days,
                    "a member is away; dead rows are kept for it, and at the limit it is removed"
                );
            }
            if away_ms <= limit_ms {
                *looks = 0;
                continue;
            }
            *looks += 1;
            if *looks >= ABSENT_LOOKS {
                tracing::warn!(?site, origin = %member, "removed: it was away for too long");
                self.node.remove_member(member).await?;
                self.absent.remove(&member);
            }
        }
        Ok(())
    }
}
