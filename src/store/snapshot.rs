//! Reads of one moment: a row, a range of keys; and where the changes above some heads begin.

use std::{ops::Bound, sync::Arc};

use super::{
    Changes, Published, RefusedError, StoreError, codec,
    tables::Space,
    view::{Range, View},
};
use crate::{
    model::{Body, Heads, Hlc, Key, Origin, Row, TableName, Version},
    protocol::{HelloMembership, Joining, MEMBER_TABLES, Membership, Standing},
};

/// The rows of one moment. Holding one keeps the space of what is replaced meanwhile: let it go.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(super) published: Published,
}

/// Which keys a scan visits.
#[derive(Clone, Debug, Default)]
pub struct ScanRange {
    /// The first key, included; `None`: from the beginning.
    pub start: Option<Vec<u8>>,
    /// The end, not included; `None`: to the end.
    pub end: Option<Vec<u8>>,
    /// From the greatest key downwards.
    pub reverse: bool,
}

impl Snapshot {
    pub(super) fn new(published: Published) -> Snapshot {
        Snapshot { published }
    }

    /// What these rows have incorporated.
    #[must_use]
    pub fn heads(&self) -> &Arc<Heads> {
        &self.published.heads
    }

    /// The heads as a client's session names them: of an origin that is closed here, what was spread of
    /// its writes. So elsewhere nobody waits for that to be closed there, too.
    #[must_use]
    pub fn session_heads(&self) -> Arc<Heads> {
        let heads = self.heads();
        if heads.iter().all(|(_, hlc)| !hlc.is_closed()) {
            return Arc::clone(heads);
        }
        let named = |(origin, hlc): (Origin, Hlc)| match hlc.is_closed() {
            true => (origin, self.members().spread_up_to(origin)),
            false => (origin, hlc),
        };
        Arc::new(heads.iter().map(named).collect())
    }

    /// Why the store `own`, which this is, takes no writes of clients, where it is no member, or not yet.
    #[must_use]
    pub fn refuses_writes(&self, own: Origin) -> Option<RefusedError> {
        self.published.cluster.refuses_writes(own, self.heads())
    }

    /// Up to where dead rows may be gone: who has not incorporated all of that cannot be told by a
    /// delta what died.
    #[must_use]
    pub fn floor(&self) -> &Heads {
        &self.published.cluster.floor
    }

    /// The members of the cluster, as far as this store knows.
    #[must_use]
    pub fn members(&self) -> &Membership {
        &self.published.cluster.members
    }

    /// Where this store stands on its way into a sealed cluster; `None`: it is not on its way.
    #[must_use]
    pub fn joining(&self) -> Option<Joining> {
        self.published.cluster.joining
    }

    /// Whether this store takes no writes because it has asked a sealed cluster to be admitted, or is
    /// being admitted.
    #[must_use]
    pub fn is_joining(&self) -> bool {
        !self.published.cluster.may_stamp()
    }

    /// The origin that this store had before it came back as a new member.
    #[must_use]
    pub fn earlier(&self) -> Option<Origin> {
        self.published.cluster.earlier.map(|earlier| earlier.origin)
    }

    /// Whether the store `own`, which this is, may be taken in by a sealed cluster: it never met another
    /// one, or comes back after it was removed.
    #[must_use]
    pub fn may_join(&self, own: Origin) -> bool {
        self.published.cluster.may_join(own, self.heads())
    }

    /// Whether peers may be told what is here. Not before a store that is admitted has pulled all that its
    /// sponsor had, and has written anew what it had from before: rows of others may be superseded here
    /// by such rows, which nobody else takes.
    #[must_use]
    pub fn may_be_told(&self) -> bool {
        self.joining().is_none_or(|joining| joining.pulled) && !self.published.cluster.renewing
    }

    /// Whether this version of a row, which nobody else takes as it is, waits to be written anew.
    pub(super) fn is_to_be_renewed(
        &self,
        table: &TableName,
        key: &Key,
        version: Version,
    ) -> Result<bool, StoreError> {
        if !self.published.cluster.renewing {
            return Ok(false);
        }
        let Some(id) = self.published.tables.id(table) else { return Ok(false) };
        let awaited = self.view().get(Space::Renew, &codec::place(id, key.as_slice()))?;
        Ok(awaited.is_some_and(|awaited| awaited[..] == codec::change_key(version)))
    }

    /// The head that `peer` may claim of the store `own`, which this is: no more than was stamped here.
    /// While it is being admitted it stamps nothing, and others may know of a later admission; who was removed may
    /// know of one that it gave itself, and that nobody ever hears of.
    #[must_use]
    pub fn own_head(&self, own: Origin, peer: Origin) -> Hlc {
        let standing = self.members().standing(peer, self.heads());
        if self.is_joining() || matches!(standing, Standing::Removed | Standing::Closed) {
            return Hlc::from_bits(Hlc::MAX.bits() - 1);
        }
        self.heads().get(own)
    }

    /// How the store `own` stands to the cluster, for its hello.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn hello_membership(&self, own: Origin) -> Result<HelloMembership, StoreError> {
        let key = Key::new(own.as_bytes().to_vec()).expect("16 bytes");
        let mut rows = Vec::new();
        for table in [&MEMBER_TABLES.members, &MEMBER_TABLES.admissions] {
            if let Some(body) = self.get(table, &key)? {
                rows.push(Row { table: table.clone(), key: key.clone(), body });
            }
        }
        let members = self.members();
        let admitted = |origin| members.get(origin).is_some_and(|m| m.admission.is_some());
        Ok(HelloMembership {
            has_acknowledged: members.has_acknowledged(own),
            may_join: self.may_join(own),
            waits_for_admission: self.published.cluster.waits_for_admission(own),
            earlier: self.earlier(),
            joining: self.joining(),
            rows,
            members: members.remaining().map(|origin| (origin, admitted(origin))).collect(),
        })
    }

    /// Configured peers that were never met.
    pub fn unmet(&self) -> impl Iterator<Item = &str> {
        self.published.cluster.unmet.iter().map(String::as_str)
    }

    /// Up to where every write of every member is here; zero while that cannot be told.
    #[must_use]
    pub fn horizon(&self) -> Hlc {
        self.published.cluster.horizon(&self.published.heads)
    }

    /// Up to where whoever writes here has seen everything.
    pub(super) fn seen(&self) -> Hlc {
        self.published.cluster.seen(&self.published.heads)
    }

    /// How many rows are dead at `now_ms` and not purged yet, counting to `max` at most.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn count_dead(&self, now_ms: u64, max: u64) -> Result<u64, StoreError> {
        let end = Hlc::at_ms(now_ms.saturating_add(1)).bits().to_be_bytes();
        let end = Bound::Excluded(&end[..]);
        let mut dead = self.view().range(Space::Dead, Bound::Unbounded, end)?;
        let mut count = 0;
        while count < max && dead.next()?.is_some() {
            count += 1;
        }
        Ok(count)
    }

    /// How many rows were ever purged here.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn rows_purged(&self) -> Result<u64, StoreError> {
        self.view().number(super::tables::STATE_PURGED)
    }

    /// The tables that are known here, the system's own included.
    #[must_use]
    pub fn table_names(&self) -> Vec<TableName> {
        self.published.tables.names.clone()
    }

    /// Whether the table is known here.
    #[must_use]
    pub fn has_table(&self, table: &TableName) -> bool {
        self.published.tables.id(table).is_some()
    }

    /// The row, a tombstone or an expired one included.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn get(&self, table: &TableName, key: &Key) -> Result<Option<Body>, StoreError> {
        let Some(id) = self.published.tables.id(table) else { return Ok(None) };
        let found = self.view().get(Space::Rows, &codec::place(id, key.as_slice()))?;
        found.map(codec::body).transpose()
    }

    /// The rows of a range of keys, dead ones included, in key order.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn scan(&self, table: &TableName, range: &ScanRange) -> Result<Scan, StoreError> {
        let Some(id) = self.published.tables.id(table) else {
            return Ok(Scan { rows: None, table: table.clone(), reverse: range.reverse });
        };
        let start = codec::place(id, range.start.as_deref().unwrap_or_default());
        let end = match &range.end {
            Some(end) => codec::place(id, end),
            None => codec::place(codec::TableId(id.0 + 1), &[]),
        };
        let (from, to) = (Bound::Included(&start[..]), Bound::Excluded(&end[..]));
        let rows = self.view().range(Space::Rows, from, to)?;
        Ok(Scan { rows: Some(rows), table: table.clone(), reverse: range.reverse })
    }

    /// All rows above `above`, dead ones included: origin by origin, in the order of their stamps.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn changes(&self, above: &Heads) -> Result<Changes, StoreError> {
        Ok(Changes::new(self.published.clone(), above.clone()))
    }

    /// The rows of one origin that are stamped above `above` and up to `up_to`, dead ones included, in
    /// that order.
    pub(super) fn changes_of(
        &self,
        origin: Origin,
        above: Hlc,
        up_to: Hlc,
    ) -> Result<impl Iterator<Item = Result<Row, StoreError>>, StoreError> {
        Changes::of_origin(self.published.clone(), origin, above, up_to)
    }

    /// How many rows lie above `above`, counting to `max` at most.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn count_changes(&self, above: &Heads, max: u64) -> Result<u64, StoreError> {
        self.changes(above)?.count_up_to(max)
    }

    /// The oldest stamp above `above`; `None`: nothing lies there. Costs a look-up an origin, and one
    /// for each row that lay there and was replaced since memory last moved into redb.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn oldest_change(&self, above: &Heads) -> Result<Option<Hlc>, StoreError> {
        let mut changes = self.changes(above)?;
        let mut oldest: Option<Hlc> = None;
        while let Some(hlc) = changes.next_stamp()? {
            oldest = Some(oldest.map_or(hlc, |least| least.min(hlc)));
            changes.skip_origin();
        }
        Ok(oldest)
    }

    /// How many rows there are, dead ones included.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the file cannot be read.
    pub fn rows(&self) -> Result<u64, StoreError> {
        self.view().number(super::tables::STATE_ROWS)
    }

    pub(super) fn view(&self) -> &View {
        &self.published.view
    }
}

/// The rows of a range, in key order.
pub struct Scan {
    rows: Option<Range>,
    table: TableName,
    reverse: bool,
}

impl Iterator for Scan {
    type Item = Result<Row, StoreError>;

    fn next(&mut self) -> Option<Result<Row, StoreError>> {
        let rows = self.rows.as_mut()?;
        let entry = if self.reverse { rows.next_back() } else { rows.next() }.transpose()?;
        let table = self.table.clone();
        Some(entry.and_then(|(place, body)| codec::row(table, &place, body)))
    }
}
