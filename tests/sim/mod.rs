//! A whole cluster in one thread, from one seed, judged by an oracle that knows every write.
//!
//! The stores, their write path and both halves of the exchange are the real ones. What is played
//! here is what lies between them: links that lose what is under way, clocks that lie, disks that
//! tear, and the order in which all of it happens.
//!
//! ```text
//! schedule.rs  what happens next: drawn from the seed
//! cluster.rs   sites, their commits and their crashes
//! talk.rs      how two of them talk over a link
//! belonging.rs how sites come and go, and what they purge
//! site.rs      one store, its newest commits, its disk and its clock
//! link.rs      one stream between two sites: both ends' state and the frames under way
//! oracle.rs    what must hold, at once and in the end
//! stories.rs   histories that chance seldom writes; those of sites that leave, and come back, in
//!              member_stories.rs, of who is let in, in newcomer_stories.rs
//! stage.rs     what stories are told with
//! ```
//!
//! The driver of a link is written a second time here, after `node::follow` and the rules of the
//! exchange. Each [`Rule`] but the sound one gets one thing wrong: the oracle must notice.

mod belonging;
mod cluster;
mod link;
pub(crate) mod member_stories;
pub(crate) mod newcomer_stories;
mod oracle;
mod schedule;
mod site;
pub(crate) mod stage;
pub(crate) mod stories;
mod talk;

use lastword::{
    model::{Key, Row, TableName},
    protocol::DRIFT_BOUND_MS_DEFAULT,
};

pub(crate) use schedule::{Plan, run};

/// How the links are driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// As the rules say.
    Sound,
    /// Heads are raised row by row, not by the checkpoint alone.
    HeadsRowByRow,
    /// A delta ends with the heads of that moment, not with those of its snapshot.
    CheckpointOfNow,
    /// A delta's pages are read from the live store, not from one snapshot.
    LiveDelta,
    /// A delta leaves out the rows above the sender's own heads.
    OnlyClaimedRows,
    /// The sender's cursor moves to the highest row sent.
    CursorAtHighestRow,
    /// What a broken delta allows to be skipped is used with any other store, too.
    TentativeOfAnyone,
    /// Rows from memory go out in the order of their commits.
    CommitOrder,
    /// The own head is told before it is durable.
    UndurableHead,
    /// After rows were held back, the next delta's checkpoint counts without asking again.
    TaintForgotten,
    /// A peer's claim of our own writes is judged by the head that our hello named.
    StaleOwnHead,
    /// Whoever asks gets a delta, whatever has died meanwhile.
    NoFloor,
    /// Whether a delta may be had is judged when it is asked for, not for each one that follows.
    FloorWhenAsked,
    /// A reconciliation leaves out what came after: the other's rows above our heads.
    NoFirstHalf,
    /// Its first half leaves out the tombstones.
    FirstHalfWithoutTombstones,
    /// It deletes at once, and claims later.
    ReconcileDeletesFirst,
    /// A store that was set back goes on under the origin it had.
    RestoredKeepsOrigin,
    /// Who is admitted is followed before it has written anew what it had.
    TellsBeforeRenewal,
    /// Other links are merged while one is reconciled.
    ReconcileBesideOthers,
    /// Dead rows go once nothing older can be on its way, whoever lacks them.
    PurgeBelowHorizon,
}

/// Where a row stands.
type Place = (TableName, Key);

fn place_of(row: &Row) -> Place {
    (row.table.clone(), row.key.clone())
}

/// What the oracle, or a driver, found broken.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

/// What happened in a history: the histories are of use only while they meet all of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) writes: u64,
    pub(crate) conflicts: u64,
    pub(crate) deltas_from_memory: u64,
    pub(crate) deltas_from_index: u64,
    pub(crate) rows_sent: u64,
    /// Rows that the receiver had got before on a link to the same store.
    pub(crate) rows_sent_again: u64,
    /// Rows that went back to the store they had come from.
    pub(crate) rows_sent_back: u64,
    pub(crate) rows_held: u64,
    pub(crate) wants: u64,
    pub(crate) cuts: u64,
    pub(crate) resumes: u64,
    pub(crate) crashes: u64,
    /// Commits that a crash hit, and that were found whole afterwards.
    pub(crate) commits_found: u64,
    /// And that were not found.
    pub(crate) commits_lost: u64,
    pub(crate) refusals: u64,
    pub(crate) purges: u64,
    pub(crate) rows_purged: u64,
    pub(crate) seals: u64,
    pub(crate) admitted: u64,
    pub(crate) joined: u64,
    pub(crate) turned_away: u64,
    pub(crate) removals: u64,
    pub(crate) closings: u64,
    pub(crate) reconciliations_begun: u64,
    pub(crate) reconciliations: u64,
    pub(crate) died_elsewhere: u64,
    pub(crate) renewed: u64,
    pub(crate) founded: u64,
    /// Sites that belong nowhere in the end.
    pub(crate) left_out: u64,
    pub(crate) restored: u64,
    pub(crate) rejoined: u64,
    pub(crate) told: u64,
    pub(crate) commits: u64,
    /// Of them, after the last write and the last trouble.
    pub(crate) commits_when_calm: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Tally) {
        self.writes += other.writes;
        self.conflicts += other.conflicts;
        self.deltas_from_memory += other.deltas_from_memory;
        self.deltas_from_index += other.deltas_from_index;
        self.rows_sent += other.rows_sent;
        self.rows_sent_again += other.rows_sent_again;
        self.rows_sent_back += other.rows_sent_back;
        self.rows_held += other.rows_held;
        self.wants += other.wants;
        self.cuts += other.cuts;
        self.resumes += other.resumes;
        self.crashes += other.crashes;
        self.commits_found += other.commits_found;
        self.commits_lost += other.commits_lost;
        self.refusals += other.refusals;
        self.purges += other.purges;
        self.rows_purged += other.rows_purged;
        self.seals += other.seals;
        self.admitted += other.admitted;
        self.joined += other.joined;
        self.turned_away += other.turned_away;
        self.removals += other.removals;
        self.closings += other.closings;
        self.reconciliations_begun += other.reconciliations_begun;
        self.reconciliations += other.reconciliations;
        self.died_elsewhere += other.died_elsewhere;
        self.renewed += other.renewed;
        self.founded += other.founded;
        self.left_out += other.left_out;
        self.restored += other.restored;
        self.rejoined += other.rejoined;
        self.told += other.told;
        self.commits += other.commits;
        self.commits_when_calm += other.commits_when_calm;
    }
}

const NOON_MS: u64 = 1_700_000_000_000;
const BOUND_MS: u64 = DRIFT_BOUND_MS_DEFAULT;
/// By how much the one wild clock is wrong.
const WILD_MS: i64 = 3_600_000;
