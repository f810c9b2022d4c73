//! What a transaction does for the cluster: meeting another store, admitting it, being admitted, and
//! what this store owes the others.
//!
//! ```text
//! meet    two stores see each other for the first time, or again
//! admit   this store, a member of a sealed cluster, takes in a newcomer
//! join    this store is that newcomer
//! upkeep  acknowledgements that are due, origins that can be closed, rows from before the admission
//! ```
//!
//! All of it happens where stamps are given, so that a row which says "I know all of these" is stamped
//! after the rows of all of these.

use std::ops::Bound;

use super::{
    MeetError, Meeting, MergeReport, Met, StoreError,
    apply::Transaction,
    cluster::{Cluster, Earlier, Returns, met_key},
    codec,
    memory::Spot,
    tables,
    tables::Space,
};
use crate::{
    model::{Heads, Hlc, Key, Origin, Role, Row},
    protocol::{
        Joining, MEMBER_TABLES, Standing, SystemRow, admission_row, member_row, removal_row,
    },
};

/// So many rows from before the admission are written anew in one commit.
const RENEWED_ROWS_MAX: usize = 1_000;

impl Transaction<'_> {
    /// Whether this store may exchange with another, and as what. Where the two never met and
    /// neither cluster is sealed, the other becomes known here, before anything of it is merged.
    pub(super) fn meet(&mut self, meeting: &Meeting) -> Result<Result<Met, MeetError>, StoreError> {
        let met = match self.judge(meeting) {
            Ok(met) => met,
            Err(error) => return Ok(Err(error)),
        };
        let peer = meeting.peer;
        if met == Met::Stranger && !self.cluster.asked {
            self.cluster.to_mut().asked = true;
            self.batch.put_number(Space::State, tables::STATE_ASKED, 1);
        }
        if met != Met::Known {
            return Ok(Ok(met));
        }
        if let Some(earlier) = self.cluster.earlier
            && earlier.returns == Returns::Freely
            && !meeting.membership.has_acknowledged
        {
            let earlier = Earlier { returns: Returns::AsFounder, ..earlier };
            self.batch.put(Space::State, tables::STATE_EARLIER, &earlier.to_bytes());
            self.cluster.to_mut().earlier = Some(earlier);
        }
        // Where the newcomer is the only way, nobody but itself can tell of its admission, while it does not tell
        // what is there yet.
        let rows = &meeting.membership.rows;
        let is_unknown = self.cluster.members.standing(peer, &self.heads) == Standing::Unknown;
        if is_unknown || rows.iter().any(|row| self.is_news_of_admission(row, peer)) {
            if are_beyond(rows, self.now_ms, meeting.drift_bound_ms) {
                return Ok(Err(MeetError::ClockSkew));
            }
            let mut report = MergeReport::default();
            for row in rows.iter().filter(|row| is_of(row, peer)) {
                self.merge_row(row, &mut report)?;
            }
        }
        if let Some(address) = &meeting.address
            && self.cluster.unmet.contains(address)
        {
            self.cluster.to_mut().unmet.remove(address);
            self.batch.put(Space::State, &met_key(address), peer.as_bytes());
        }
        Ok(Ok(met))
    }

    fn judge(&self, meeting: &Meeting) -> Result<Met, MeetError> {
        let Meeting { peer, membership: theirs, .. } = meeting;
        let (members, own, peer) = (&self.cluster.members, self.origin, *peer);
        if matches!(members.standing(own, &self.heads), Standing::Removed | Standing::Closed) {
            return Err(MeetError::OwnRemoved);
        }
        // Who asked to be taken in, or has to, is nobody before: whom it met meanwhile would have rows of its
        // that the others hold for known once they hear of the admission.
        if self.cluster.waits_for_admission(own) && !theirs.has_acknowledged {
            return Err(MeetError::Joining);
        }
        let is_founder = theirs.members.contains(&(own, false));
        if theirs.has_acknowledged && self.cluster.comes_back(own, is_founder) {
            return Ok(Met::Stranger);
        }
        let standing = members.standing(peer, &self.heads);
        if matches!(standing, Standing::Removed | Standing::Closed) {
            return Err(MeetError::Removed);
        }
        let bring_late = [
            self.brings_late(own, self.cluster.joining, &self.heads),
            self.brings_late(peer, theirs.joining, &meeting.heads),
        ];
        if bring_late.contains(&true) {
            return Err(MeetError::BroughtByRemoved);
        }
        // Who is let in while a removal is under way must bring nothing that those have not who have said so.
        let has_more = members.has_more_than_said(&meeting.heads, theirs.earlier, &self.heads);
        let newcomer = if has_more { Err(MeetError::Joining) } else { Ok(Met::Newcomer) };
        let we_sealed = members.has_acknowledged(own);
        if theirs.waits_for_admission && !we_sealed {
            return Err(MeetError::Joining);
        }
        let waits_for_another = |joining: &Option<Joining>, sponsor: Origin| {
            joining.is_some_and(|joining| !joining.pulled && joining.sponsor != sponsor)
        };
        if waits_for_another(&self.cluster.joining, peer) || waits_for_another(&theirs.joining, own)
        {
            return Err(MeetError::Joining);
        }
        let is_newcomer = we_sealed && !theirs.has_acknowledged && theirs.may_join;
        if standing == Standing::Member {
            // It was admitted, and has not heard of that; or it is known by rows that came otherwise.
            let admitted = members.get(peer).is_some_and(|member| member.admission.is_some());
            let is_newcomer = is_newcomer && (admitted || theirs.waits_for_admission);
            return if is_newcomer { newcomer } else { Ok(Met::Known) };
        }
        // A store that knows us belongs to whom we belong to: our row came to it by way of members.
        let we_are_admitted = members.get(own).is_some_and(|member| member.admission.is_some());
        // Unless it remembers us from an earlier life.
        let knows_us = theirs.earlier.is_none() && theirs.members.contains(&(own, we_are_admitted));
        match (we_sealed, theirs.has_acknowledged) {
            (false, false) => Ok(Met::Known),
            (false, true) if knows_us => Ok(Met::Known),
            (false, true) if self.cluster.may_join(self.origin, &self.heads) => Ok(Met::Stranger),
            // Its members know nothing of us.
            (false, true) => Err(MeetError::SealedThere),
            (true, _) if knows_us && !self.is_settled() => Ok(Met::Known),
            (true, _) if theirs.rows.iter().any(|row| self.may_take_in(row, peer)) => {
                Ok(Met::Known)
            }
            (true, true) => Err(MeetError::BothSealed),
            (true, false) if is_newcomer => newcomer,
            (true, false) => Err(MeetError::Sealed),
        }
    }

    /// Whether a store on its way into the cluster has more of a removed one than anybody takes.
    fn brings_late(&self, newcomer: Origin, joining: Option<Joining>, has: &Heads) -> bool {
        joining.is_some_and(|joining| joining.pulled)
            && self.cluster.members.brings_late(newcomer, has, &self.heads)
    }

    /// Whether others may rely on our knowing everyone: who knows us, and is unknown here then, was
    /// reached by way of a removed store alone.
    fn is_settled(&self) -> bool {
        let members = &self.cluster.members;
        members.is_sealed(&self.heads)
            || members.iter().any(|(_, member)| member.removal.is_some())
            || !self.cluster.floor.is_empty()
    }

    /// Whether a row admits `peer` as nothing here does.
    fn is_news_of_admission(&self, row: &Row, peer: Origin) -> bool {
        let known = self.cluster.members.get(peer).and_then(|member| member.admission);
        self.may_take_in(row, peer) && known < Some(row.body.version())
    }

    /// Whether a row admits `peer`, by a member that is still one. Who is not in yet cannot tell: where its sponsor
    /// was removed, which it has not heard of, so may others have been.
    fn may_take_in(&self, row: &Row, peer: Origin) -> bool {
        let members = &self.cluster.members;
        let by = members.standing(row.body.version().origin, &self.heads);
        let is_admission = row.table == MEMBER_TABLES.admissions && is_of(row, peer);
        is_admission && by == Standing::Member && self.cluster.joining.is_none()
    }

    /// Admits a newcomer whose own stamps go up to `head`, and gives the rows that say so; those of
    /// an earlier admission where there is one.
    pub(super) fn admit(
        &mut self,
        newcomer: Origin,
        (site, role): (&str, Role),
        earlier: Option<Origin>,
        head: Hlc,
    ) -> Result<Result<Vec<Row>, MeetError>, StoreError> {
        let members = &self.cluster.members;
        match members.standing(newcomer, &self.heads) {
            // Unless it has gone on writing since, because it never heard of that.
            Standing::Member
                if members.get(newcomer).is_some_and(|m| m.is_admitted_above(head)) =>
            {
                return Ok(Ok(self.rows_of_member(newcomer, earlier.is_some())?));
            }
            Standing::Member => {}
            Standing::Removed | Standing::Closed => return Ok(Err(MeetError::Removed)),
            Standing::Unknown => {}
        }
        if self.cluster.joining.is_some() || !members.has_acknowledged(self.origin) {
            return Ok(Err(MeetError::Joining));
        }
        // The others may close its earlier origin any moment, without what it brings of it: once that is
        // done, it will write it anew.
        let earlier_standing = earlier.map(|earlier| members.standing(earlier, &self.heads));
        let is_known = members.standing(newcomer, &self.heads) == Standing::Member;
        if earlier_standing == Some(Standing::Removed) && !is_known {
            return Ok(Err(MeetError::Joining));
        }
        // Whatever the newcomer wrote lies below its admission.
        self.clock.observe(head);
        // The admission first: nobody who has a part of this knows the one without the other.
        self.write_system(&admission_row(newcomer, self.origin))?;
        self.write_system(&member_row(newcomer, site, role))?;
        if let (Some(earlier), Some(Standing::Member)) = (earlier, earlier_standing) {
            // Behind the admission: who hears of the one knows of the other, and closes the earlier origin
            // with the newcomer's word only.
            self.write_system(&removal_row(earlier, site))?;
        }
        Ok(Ok(self.rows_of_member(newcomer, earlier.is_some())?))
    }

    /// A member's own rows: who it is and who admitted it; and where it comes back, what was said of the
    /// origins that are closed: it may have rows of theirs that nobody else has.
    fn rows_of_member(&mut self, member: Origin, comes_back: bool) -> Result<Vec<Row>, StoreError> {
        let tables = &*MEMBER_TABLES;
        let key = |origin: Origin| Key::new(origin.as_bytes().to_vec()).expect("16 bytes");
        let mut places = vec![(&tables.members, key(member)), (&tables.admissions, key(member))];
        if comes_back {
            let is_closed = |origin: &Origin| self.heads.get(*origin).is_closed();
            for (closed, member) in self.cluster.members.iter().filter(|(o, _)| is_closed(o)) {
                places.push((&tables.removals, key(closed)));
                let of = |by: &Origin| [*closed.as_bytes(), *by.as_bytes()].concat();
                let acks = member.removal_acks.keys().map(|by| Key::new(of(by)));
                places.extend(acks.flatten().map(|key| (&tables.removal_acks, key)));
            }
        }
        let mut rows = Vec::new();
        for (table, key) in places {
            let id = self.table_id(table);
            let (place, spot) = self.locate(id, &key);
            if let Some(body) = self.standing(spot, &place)?.into_body() {
                rows.push(Row { table: table.clone(), key, body });
            }
        }
        Ok(rows)
    }

    /// A sponsor's answer: the rows that admit this store.
    pub(super) fn join(
        &mut self,
        sponsor: Origin,
        rows: &[Row],
        drift_bound_ms: u64,
    ) -> Result<Result<(), MeetError>, StoreError> {
        if are_beyond(rows, self.now_ms, drift_bound_ms) {
            return Ok(Err(MeetError::ClockSkew));
        }
        if self.cluster.joining.is_some()
            || self.cluster.members.has_acknowledged(self.origin)
            || !self.cluster.may_join(self.origin, &self.heads)
        {
            return Ok(Err(MeetError::SealedThere));
        }
        let admission = rows.iter().find_map(|row| {
            let (origin, hlc) = crate::protocol::admission_in(row)?;
            (origin == self.origin).then_some(hlc)
        });
        let Some(admission) = admission else { return Ok(Err(MeetError::SealedThere)) };
        // Something was stamped after the hello that it answers: ask again.
        if admission <= self.heads.get(self.origin) {
            return Ok(Err(MeetError::Joining));
        }
        let mut report = MergeReport::default();
        let own = self.origin;
        for row in rows.iter().filter(|row| is_of(row, own) || is_of_removal(row)) {
            self.merge_row(row, &mut report)?;
        }
        // A sponsor tells of those alone which it has closed.
        let removals = rows.iter().filter(|row| row.table == MEMBER_TABLES.removals);
        let closed = removals.filter_map(|row| row.key.as_slice().try_into().ok());
        let closed: Vec<_> = closed.map(Origin::from_bytes).collect();
        self.begin_joining(sponsor, admission, &closed);
        Ok(Ok(()))
    }

    /// This store was admitted while it still met founders freely, and hears of that by way of them: the
    /// others hold what it wrote up to the admission for known, and it must be written anew as well.
    pub(super) fn hear_of_own_admission(&mut self, sponsor: Origin, admission: Hlc) {
        let is_closed = |origin: &Origin| self.heads.get(*origin).is_closed();
        let origins = self.cluster.members.iter().map(|(origin, _)| origin);
        let closed: Vec<_> = origins.filter(is_closed).collect();
        self.begin_joining(sponsor, admission, &closed);
    }

    fn begin_joining(&mut self, sponsor: Origin, admission: Hlc, closed: &[Origin]) {
        let joining = Joining { sponsor, admission, pulled: false };
        self.batch.put(Space::State, tables::STATE_JOINING, &joining.to_bytes());
        self.batch.remove(Space::State, tables::STATE_ASKED);
        let outside: Heads = closed
            .iter()
            // Of a member that it has never heard of it has nothing.
            .filter(|origin| self.cluster.members.get(**origin).is_some())
            // An origin of which nobody ever had anything counts too.
            .map(|origin| {
                (*origin, self.cluster.members.reached_up_to(*origin).max(Hlc::from_bits(1)))
            })
            .collect();
        self.batch.put(Space::State, tables::STATE_OUTSIDE, &outside.to_bytes());
        let cluster = self.cluster.to_mut();
        cluster.outside = outside;
        cluster.joining = Some(joining);
        cluster.asked = false;
    }

    /// A reconciliation was claimed: where it brought the admission, this store has all from before it.
    pub(super) fn note_pulled(&mut self) {
        if let Some(joining) = self.cluster.joining
            && !joining.pulled
            && self.heads.get(joining.sponsor) >= joining.admission
        {
            let joining = Joining { pulled: true, ..joining };
            self.batch.put(Space::State, tables::STATE_JOINING, &joining.to_bytes());
            self.cluster.to_mut().joining = Some(joining);
        }
    }

    /// Every member is known to have heard of the admission: this store is one of them.
    pub(super) fn activate(&mut self) {
        if self.cluster.joining.is_some_and(|joining| joining.pulled) {
            self.batch.remove(Space::State, tables::STATE_JOINING);
            self.batch.remove(Space::State, tables::STATE_OUTSIDE);
            let cluster = self.cluster.to_mut();
            cluster.joining = None;
            cluster.outside = Heads::new();
        }
    }

    /// Does what is due: see the head of this file.
    pub(super) fn upkeep(&mut self) -> Result<(), StoreError> {
        if self.cluster.joining.is_some() {
            return Ok(());
        }
        if self.cluster.waits_for_admission(self.origin) {
            return Ok(());
        }
        if self.cluster.renewing {
            self.renew()?;
        }
        if let Some(removal) = earlier_to_remove(&self.cluster, self.origin, &self.heads) {
            self.write_system(&removal)?;
        }
        let reached = |origin: Origin| {
            let before = self.batch.number(Space::Reached, origin.as_bytes());
            before.map(Hlc::from_bits).unwrap_or_default().max(self.reached.get(origin))
        };
        for row in self.cluster.members.owed(self.origin, &self.heads, reached) {
            self.write_system(&row)?;
        }
        for origin in self.cluster.members.closable(&self.heads) {
            self.heads.raise(origin, Hlc::MAX);
        }
        Ok(())
    }

    /// Writes rows anew that nobody else takes as they are, some at a time.
    fn renew(&mut self) -> Result<(), StoreError> {
        let view = self.batch.view().clone();
        let mut entries = view.range(Space::Renew, Bound::Unbounded, Bound::Unbounded)?;
        for _ in 0..RENEWED_ROWS_MAX {
            let Some((place, version)) = entries.next()? else { break };
            let spot = Spot::of(Space::Rows, &place);
            // Unless a peer's row came over it meanwhile: then the loss is recorded.
            if let Some(body) = self.standing(spot, &place)?.into_body()
                && codec::change_key(body.version()) == version[..]
            {
                let (id, key) = codec::split_place(&place)?;
                let table = self.names.name(id).ok_or(StoreError::Damaged("a table's name"))?;
                let (table, value) = (table.clone(), body.value());
                self.write_row(id, &table, &key, value.as_deref(), body.expires_at_ms())?;
            }
            self.batch.remove(Space::Renew, &place);
        }
        if entries.next()?.is_none() {
            self.cluster.to_mut().renewing = false;
        }
        Ok(())
    }

    fn write_system(&mut self, row: &SystemRow) -> Result<(), StoreError> {
        let id = self.table_id(&row.table);
        self.write_row(id, &row.table, &row.key, Some(&row.value), None)?;
        Ok(())
    }
}

fn are_beyond(rows: &[Row], now_ms: u64, drift_bound_ms: u64) -> bool {
    rows.iter().any(|row| row.body.version().hlc.is_beyond(now_ms, drift_bound_ms))
}

/// Whether a row says who `origin` is, or who admitted it.
fn is_of(row: &Row, origin: Origin) -> bool {
    let tables = &*MEMBER_TABLES;
    (row.table == tables.members || row.table == tables.admissions)
        && row.key.as_slice() == origin.as_bytes()
}

/// Whether a row removes a member, or acknowledges that.
fn is_of_removal(row: &Row) -> bool {
    row.table == MEMBER_TABLES.removals || row.table == MEMBER_TABLES.removal_acks
}

/// The removal of the origin that this store had before, where nobody has removed it yet.
fn earlier_to_remove(cluster: &Cluster, own: Origin, heads: &Heads) -> Option<SystemRow> {
    let earlier = cluster.earlier?.origin;
    let members = &cluster.members;
    let is_due =
        members.has_acknowledged(own) && members.standing(earlier, heads) == Standing::Member;
    let by = members.get(own).map_or("", |member| &member.site);
    is_due.then(|| removal_row(earlier, by))
}

/// Whether the writer has something to do besides letting the head follow the clock.
pub(super) fn is_due(published: &super::Published, own: Origin) -> bool {
    let (cluster, heads): (_, &Heads) = (&published.cluster, &published.heads);
    match cluster.joining {
        Some(_) => false,
        None if cluster.waits_for_admission(own) => false,
        None => {
            cluster.renewing
                || earlier_to_remove(cluster, own, heads).is_some()
                || !cluster.members.owed(own, heads, |_| Hlc::ZERO).is_empty()
                || !cluster.members.closable(heads).is_empty()
        }
    }
}
