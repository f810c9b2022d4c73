//! How two sites talk over a link: hello, meeting, deltas both ways, reconciliation.
//!
//! After `replication::{exchange, session}` and `node::follow`, with the real halves of the exchange.

use lastword::{
    model::{Heads, Hlc, Origin, Role, Row, Version},
    protocol::{
        Capabilities, Delta, Frame, Hello, PROTOCOL_VERSION, Receiver, Refusal, Sender,
        ViolationError, Want, check_hello, ranges,
    },
    store::{
        Meeting, Met, Outcome, Reconciled, Reconciliation, RemoteBatch, Request, Step as Reconcile,
    },
};

use super::{
    BOUND_MS, Rule, Violation,
    cluster::{Cluster, Step},
    link::{End, Greeting, Link, Outgoing, Talk},
    site::as_they_stand,
};

/// Little goes into a message, so that a comparison takes several.
const COMPARISON_BYTES: usize = ranges::MESSAGE_BYTES_MIN;

impl Cluster {
    pub(super) fn connect(&mut self, a: usize, b: usize) {
        let [ours, theirs] = [self.hello(a), self.hello(b)];
        for hello in [&ours, &theirs] {
            self.oracle.says(hello.origin, hello.heads.get(hello.origin));
        }
        self.links_made += 1;
        let end = |site, hello| End { site, hello, greeting: Greeting::Hello, talk: None };
        self.links.push(Link {
            id: self.links_made,
            wires: [[Frame::Hello(theirs.clone())].into(), [Frame::Hello(ours.clone())].into()],
            ends: [end(a, ours), end(b, theirs)],
        });
    }

    /// What `site` says first.
    fn hello(&self, site: usize) -> Hello {
        let (this, store) = (&self.sites[site], self.sites[site].store());
        Hello {
            protocol_version: PROTOCOL_VERSION,
            cluster: "simulated".into(),
            site: this.name(),
            origin: this.origin(),
            boot: store.boot(),
            nonce: site as u64,
            heads: this.heads(),
            sequence: None,
            wall_ms: this.now_ms(self.now_ms),
            capabilities: Capabilities::default(),
            membership: this.snapshot().hello_membership(this.origin()).unwrap(),
        }
    }

    /// The stream ends; what is under way is lost.
    pub(super) fn cut(&mut self, link: usize) {
        self.tally.cuts += 1;
        self.end_link(link);
    }

    pub(super) fn cut_where(&mut self, of: impl Fn(&Link) -> bool) {
        while let Some(link) = self.links.iter().position(&of) {
            self.end_link(link);
        }
    }

    fn end_link(&mut self, link: usize) {
        let ended = self.links.swap_remove(link);
        for end in &ended.ends {
            let site = &mut self.sites[end.site];
            site.reconciling = site.reconciling.filter(|by| *by != ended.id);
        }
    }

    /// Hands the oldest frame under way to an end; `false`: it has to wait there.
    pub(super) fn deliver(&mut self, link: usize, end: usize) -> Result<bool, Violation> {
        self.take_turn(link, end);
        let site = self.links[link].ends[end].site;
        let (id, reconciling) = (self.links[link].id, self.sites[site].reconciling);
        let is_blocked = |frame: &Frame| {
            matches!(frame, Frame::Delta(_) | Frame::Hello(_))
                && reconciling.is_some_and(|by| by != id)
                && self.rule != Rule::ReconcileBesideOthers
        };
        if self.links[link].wires[end].front().is_none_or(is_blocked) {
            return Ok(false);
        }
        let frame = self.links[link].wires[end].pop_front().expect("looked at just now");
        if self.links[link].ends[end].talk.is_none() {
            self.greet(link, end, frame)?;
            return Ok(true);
        }
        match frame {
            Frame::Delta(delta) => self.receive(link, end, delta)?,
            Frame::Ack(heads) => {
                let talk = self.talk(link, end);
                talk.sender.on_peer_heads(&heads);
                let peer = talk.peer;
                self.sites[site].known.learn(peer, &heads);
            }
            Frame::Want(want) => {
                let floor = self.sites[site].snapshot().floor().clone();
                let talk = self.talk(link, end);
                talk.floor_when_asked = floor;
                talk.reconcile_asked = want.reconcile;
                talk.sender.on_want(want.heads, want.number);
                talk.reconciled_with = None;
                talk.delta = None;
                talk.followed = None;
            }
            Frame::Known(known) => {
                let own = self.sites[site].origin();
                for (member, heads) in known.into_iter().filter(|(member, _)| *member != own) {
                    self.sites[site].known.learn(member, &heads);
                }
            }
            Frame::BelowFloor => {
                self.talk(link, end).needs_turn = true;
                self.take_turn(link, end);
            }
            Frame::ReconcileQuestion(question) => {
                if let Some(snapshot) = self.talk_ref(link, end).reconciled_with.clone() {
                    let rows = snapshot.positions(false);
                    let answer = ranges::answer(&rows, &question, COMPARISON_BYTES).unwrap();
                    self.send_frame(link, end, Frame::ReconcileAnswer(answer));
                }
            }
            Frame::ReconcileAnswer(answer) => self.on_answer(link, end, &answer)?,
            _ => {}
        }
        Ok(true)
    }

    fn send_frame(&mut self, link: usize, end: usize, frame: Frame) {
        self.links[link].wires[1 - end].push_back(frame);
    }

    /// What comes before two stores know each other.
    fn greet(&mut self, link: usize, end: usize, frame: Frame) -> Step {
        let site = self.links[link].ends[end].site;
        let greeting = std::mem::replace(&mut self.links[link].ends[end].greeting, Greeting::Hello);
        match (greeting, frame) {
            (Greeting::Hello, Frame::Hello(theirs)) => return self.meet(link, end, theirs),
            (Greeting::Welcome(theirs), Frame::Welcome(rows)) => {
                let sponsor = theirs.origin;
                let request = Request::Join { sponsor, rows, drift_bound_ms: BOUND_MS };
                let joined = self.try_apply(site, &[request])?;
                if matches!(joined[..], [Outcome::Joined(Ok(()))]) {
                    self.tally.joined += 1;
                    return self.begin_talk(link, end, &theirs);
                }
                self.end_link(link);
            }
            (Greeting::Join(theirs), Frame::Join) => {
                let (newcomer, head) = (theirs.origin, theirs.heads.get(theirs.origin));
                let site_name = theirs.site.clone();
                let request = Request::Admit {
                    role: Role::Site,
                    newcomer,
                    site: site_name,
                    earlier: theirs.membership.earlier,
                    head,
                    wall_ms: theirs.wall_ms,
                    drift_bound_ms: BOUND_MS,
                };
                let admitted = self.try_apply(site, &[request])?;
                if let [Outcome::Admitted(Ok(rows))] = &admitted[..] {
                    self.tally.admitted += 1;
                    self.send_frame(link, end, Frame::Welcome(rows.clone()));
                    return self.begin_talk(link, end, &theirs);
                }
                self.end_link(link);
            }
            // Meanwhile it was taken in by way of another link: that one is begun anew.
            (Greeting::Join(_), Frame::Want(_)) => self.end_link(link),
            (greeting, _) => self.links[link].ends[end].greeting = greeting,
        }
        Ok(())
    }

    fn meet(&mut self, link: usize, end: usize, theirs: Hello) -> Step {
        let End { site, hello, .. } = &self.links[link].ends[end];
        let (site, mut ours) = (*site, hello.clone());
        if self.rule != Rule::StaleOwnHead {
            ours.heads = self.sites[site].heads();
        }
        let snapshot = self.sites[site].snapshot();
        ours.membership = snapshot.hello_membership(ours.origin).unwrap();
        let standing = snapshot.members().standing(theirs.origin, snapshot.heads());
        if let Err(refusal) = check_hello(&ours, &theirs, standing) {
            // Who was removed may hear of an admission that it knows nothing of.
            if refusal == Refusal::Removed || self.sites[site].removed {
                self.end_link(link);
                return Ok(());
            }
            let peer = &theirs.site;
            let all = self.describe();
            return Err(Violation(format!("site {site} refuses {peer}: {refusal}\n{all}")));
        }
        let meeting = Meeting {
            peer: theirs.origin,
            address: None,
            membership: theirs.membership.clone(),
            heads: theirs.heads.clone(),
            drift_bound_ms: BOUND_MS,
        };
        let outcomes = self.try_apply(site, &[Request::Meet(Box::new(meeting))])?;
        match outcomes[..] {
            [Outcome::Met(Ok(Met::Known))] => return self.begin_talk(link, end, &theirs),
            [Outcome::Met(Ok(Met::Stranger))] => {
                self.links[link].ends[end].greeting = Greeting::Welcome(theirs);
                self.send_frame(link, end, Frame::Join);
            }
            [Outcome::Met(Ok(Met::Newcomer))] => {
                self.links[link].ends[end].greeting = Greeting::Join(theirs);
            }
            _ => {
                self.tally.turned_away += 1;
                self.end_link(link);
            }
        }
        Ok(())
    }

    fn begin_talk(&mut self, link: usize, end: usize, theirs: &Hello) -> Step {
        let site = self.links[link].ends[end].site;
        let own = self.sites[site].origin();
        let heads = self.sites[site].heads();
        let want = self.want(site, theirs.origin, &heads);
        let mut receiver = Receiver::new(own, want.clone(), BOUND_MS);
        let number = receiver.want_again(want.clone());
        self.tally.resumes += u64::from(want != heads);
        self.sites[site].known.learn(theirs.origin, &theirs.heads);
        let talk = Talk {
            peer: theirs.origin,
            receiver,
            sender: Sender::new(theirs.heads.clone(), theirs.heads.clone()),
            followed: None,
            delta: None,
            ask_at_ms: None,
            refused: None,
            floor_when_asked: Heads::new(),
            reconciled_with: None,
            reconcile_asked: false,
            needs_turn: self.must_reconcile(site),
            comparing: None,
        };
        let wants = !talk.needs_turn;
        self.links[link].ends[end].talk = Some(talk);
        if wants {
            self.send_frame(link, end, Frame::Want(Want { heads: want, number, reconcile: false }));
        } else {
            self.take_turn(link, end);
        }
        Ok(())
    }

    /// As `replication::session` has it.
    fn must_reconcile(&self, site: usize) -> bool {
        self.sites[site].snapshot().joining().is_some_and(|joining| !joining.pulled)
    }

    /// An end that stands below the peer's floor begins to reconcile, once its site does not already.
    pub(super) fn take_turn(&mut self, link: usize, end: usize) {
        let (id, site) = (self.links[link].id, self.links[link].ends[end].site);
        let needs_turn =
            self.links[link].ends[end].talk.as_ref().is_some_and(|talk| talk.needs_turn);
        let is_free =
            self.sites[site].reconciling.is_none() || self.rule == Rule::ReconcileBesideOthers;
        if !needs_turn || !is_free {
            return;
        }
        self.sites[site].reconciling = Some(id);
        self.tally.reconciliations_begun += 1;
        let heads = self.sites[site].heads();
        let talk = self.talk(link, end);
        talk.needs_turn = false;
        let number = talk.receiver.want_reconciliation(heads.clone());
        self.send_frame(link, end, Frame::Want(Want { heads, number, reconcile: true }));
    }

    fn on_answer(&mut self, link: usize, end: usize, answer: &ranges::Comparison) -> Step {
        let site = self.links[link].ends[end].site;
        let Some(mut comparing) = self.talk(link, end).comparing.take() else { return Ok(()) };
        match comparing.on_answer(answer).unwrap() {
            Reconcile::Ask(question) => {
                self.talk(link, end).comparing = Some(comparing);
                self.send_frame(link, end, Frame::ReconcileQuestion(question));
                Ok(())
            }
            Reconcile::End(end_of_it) => {
                if self.rule == Rule::ReconcileDeletesFirst {
                    let (claim, floor) = (Heads::new(), Heads::new());
                    let deletes = Reconciled { claim, floor, ..end_of_it.clone() };
                    self.apply(site, &[Request::Reconcile(Box::new(deletes))])?;
                    if self.tally.reconciliations_begun.is_multiple_of(2) {
                        self.end_link(link);
                        return Ok(());
                    }
                }
                self.tally.died_elsewhere += end_of_it.dead.len() as u64;
                self.tally.reconciliations += 1;
                let outcomes = self.try_apply(site, &[Request::Reconcile(Box::new(end_of_it))])?;
                self.sites[site].reconciling = None;
                if matches!(outcomes[..], [Outcome::Reconciled(None)]) {
                    self.end_link(link);
                    return Ok(());
                }
                let heads = self.sites[site].heads();
                let number = self.talk(link, end).receiver.want_again(heads.clone());
                let want = Want { heads: heads.clone(), number, reconcile: false };
                self.send_frame(link, end, Frame::Want(want));
                self.send_frame(link, end, Frame::Ack(heads));
                Ok(())
            }
        }
    }

    /// From where on `site` wants the delta of `peer`.
    fn want(&self, site: usize, peer: Origin, heads: &Heads) -> Heads {
        let store = self.sites[site].store();
        let mut want = heads.clone();
        want.join(&store.tentative(peer).unwrap());
        if self.rule == Rule::TentativeOfAnyone {
            for other in &self.sites {
                want.join(&store.tentative(other.origin()).unwrap());
            }
        }
        want
    }

    fn receive(&mut self, link: usize, end: usize, delta: Delta) -> Step {
        let rule = self.rule;
        let site = self.links[link].ends[end].site;
        let from = self.links[link].ends[1 - end].site;
        for row in &delta.rows {
            let version = row.body.version();
            self.tally.rows_sent_again += u64::from(!self.arrived.insert((from, site, version)));
        }
        let now_ms = self.sites[site].now_ms(self.now_ms);
        let own = self.sites[site].origin();
        let peer = self.talk(link, end).peer;
        let own_head = match rule {
            Rule::StaleOwnHead => self.links[link].ends[end].hello.heads.get(own),
            _ => self.sites[site].snapshot().own_head(own, peer),
        };
        let (snapshot_heads, last) = (delta.snapshot_heads.clone(), delta.last);
        let reached: Heads = delta
            .rows
            .iter()
            .map(|row| {
                let Version { hlc, origin } = row.body.version();
                (origin, hlc)
            })
            .collect();
        let talk = self.talk(link, end);
        if let Some(heads) = &snapshot_heads {
            // What the peer's snapshot holds need not be sent back.
            talk.sender.on_peer_heads(heads);
        }
        let mut received = match talk.receiver.on_delta(delta, own_head, now_ms) {
            Ok(received) => received,
            Err(ViolationError::Refused(Refusal::Removed)) => {
                self.end_link(link);
                return Ok(());
            }
            Err(error) => {
                let all = self.describe();
                let what = format!("site {site} ends a stream of {peer}: {error}\n{all}");
                return Err(Violation(what));
            }
        };
        let talk = self.talk(link, end);
        if received.held_rows > 0 {
            talk.ask_at_ms = Some(now_ms + received.held_ahead_ms);
        }
        if rule == Rule::TaintForgotten && last && talk.receiver.is_tainted() {
            talk.receiver = Receiver::new(own, Heads::new(), BOUND_MS);
        }
        if rule == Rule::HeadsRowByRow {
            let mut claim = received.claim.take().unwrap_or_default();
            claim.join(&reached);
            received.claim = Some(claim);
        }
        let compare = received.compare.take();
        let held = received.held_rows > 0;
        self.tally.rows_held += received.held_rows;
        if let Some(heads) = &snapshot_heads {
            self.sites[site].known.learn(peer, heads);
        }
        let (id, reconciling) = (self.links[link].id, self.sites[site].reconciling);
        if held && reconciling == Some(id) {
            // It is asked for anew once the rows may come in.
            self.sites[site].reconciling = None;
        }

        let acks = received.claim.is_some();
        let batch = RemoteBatch {
            sender: peer,
            rows: received.rows,
            claim: received.claim,
            tentative: received.tentative,
        };
        if batch.rows.is_empty() && !acks && batch.tentative.is_none() && compare.is_none() {
            return Ok(());
        }
        if self.trouble && self.dice.chance(2) && !self.refuses(site) {
            return self.crash_in_commit(site, Request::Remote(batch));
        }
        let mut requests = vec![Request::Remote(batch)];
        if self.trouble && self.dice.chance(10) {
            // A client's batch in the same commit, before or after.
            let writes = vec![self.some_write()];
            let at = self.dice.below(2);
            requests.insert(at, self.local(site, writes));
        }
        let outcomes = self.try_apply(site, &requests)?;
        let refuses =
            |outcome: &Outcome| matches!(outcome, Outcome::Remote(report) if report.refused);
        if outcomes.iter().any(refuses) {
            self.end_link(link);
            return Ok(());
        }
        if acks {
            self.send_frame(link, end, Frame::Ack(self.sites[site].heads()));
        }
        if let Some(with) = compare {
            let snapshot = self.sites[site].snapshot();
            let begun = Reconciliation::begin(own, peer, with, snapshot, COMPARISON_BYTES);
            let (comparing, question) = begun.unwrap();
            self.talk(link, end).comparing = Some(comparing);
            self.send_frame(link, end, Frame::ReconcileQuestion(question));
        }
        Ok(())
    }

    /// Asks again for what was held back, once it may be merged.
    pub(super) fn ask_again(&mut self, link: usize, end: usize) -> bool {
        let site = self.links[link].ends[end].site;
        let now_ms = self.sites[site].now_ms(self.now_ms);
        let heads = self.sites[site].heads();
        let must_reconcile = self.must_reconcile(site);
        let Some(talk) = &mut self.links[link].ends[end].talk else { return false };
        if talk.ask_at_ms.is_none_or(|at_ms| now_ms < at_ms) || !talk.receiver.is_tainted() {
            return false;
        }
        talk.ask_at_ms = None;
        if must_reconcile {
            talk.needs_turn = true;
            self.take_turn(link, end);
            return true;
        }
        let number = talk.receiver.want_again(heads.clone());
        self.tally.wants += 1;
        self.send_frame(link, end, Frame::Want(Want { heads, number, reconcile: false }));
        true
    }

    /// Leaves a delta off; the next one begins behind what went out.
    pub(super) fn leave_off(&mut self, link: usize, end: usize) {
        let Some(talk) = &mut self.links[link].ends[end].talk else { return };
        if let Some(delta) = talk.delta.take_if(|delta| delta.floor.is_none()) {
            talk.sender.on_broken_off(&delta.passed);
            talk.followed = None;
        }
    }

    /// Begins a delta at an end, where none is on its way and there is news; says whether one is.
    pub(super) fn begin(&mut self, link: usize, end: usize) -> Result<bool, Violation> {
        let talk = self.links[link].ends[end].talk.as_ref();
        if talk.is_none_or(|talk| talk.sender.want_number() == 0) {
            return Ok(false);
        }
        if self.talk(link, end).delta.is_none() {
            let delta = self.delta_of_now(link, end)?;
            self.talk(link, end).delta = delta;
        }
        Ok(self.talk(link, end).delta.is_some())
    }

    /// The delta of this moment; `None`: the peer lacks nothing.
    fn delta_of_now(&mut self, link: usize, end: usize) -> Result<Option<Outgoing>, Violation> {
        let site = self.links[link].ends[end].site;
        let mut heads = self.sites[site].heads();
        let sequence = self.sites[site].sequence();
        let talk = self.talk_ref(link, end);
        let (followed, asked) = (talk.followed, talk.reconcile_asked);
        if asked && talk.reconciled_with.is_some() {
            return Ok(None);
        }
        let snapshot = self.sites[site].snapshot();
        if !snapshot.may_be_told() && self.rule != Rule::TellsBeforeRenewal {
            return Ok(None);
        }
        if asked {
            let mut rows = self.rows_above(site, self.talk_ref(link, end).sender.cursor());
            match self.rule {
                Rule::NoFirstHalf => rows.clear(),
                Rule::FirstHalfWithoutTombstones => rows.retain(|row| !row.body.is_tombstone()),
                _ => {}
            }
            let floor = Some(snapshot.floor().clone());
            self.talk(link, end).reconciled_with = Some(snapshot);
            return Ok(Some(Outgoing { floor, ..Outgoing::new(heads, sequence, rows) }));
        }
        let is_below = match self.rule {
            Rule::NoFloor => false,
            Rule::FloorWhenAsked => !talk.sender.cursor().covers(&talk.floor_when_asked),
            _ => !talk.sender.cursor().covers(snapshot.floor()),
        };
        if is_below {
            let number = talk.sender.want_number();
            if talk.refused != Some(number) {
                self.talk(link, end).refused = Some(number);
                self.send_frame(link, end, Frame::BelowFloor);
            }
            return Ok(None);
        }
        if followed == Some(sequence) && self.talk(link, end).sender.cursor().covers(&heads) {
            return Ok(None);
        }
        if self.rule == Rule::UndurableHead {
            let now_ms = self.sites[site].now_ms(self.now_ms);
            heads.raise(self.sites[site].origin(), Hlc::at_ms(now_ms));
        }
        let recent = followed.and_then(|sequence| self.sites[site].rows_after(sequence));
        let mut rows = if let Some(rows) = recent {
            self.tally.deltas_from_memory += 1;
            let rule = self.rule;
            let sender = &self.talk(link, end).sender;
            let rows = if rule == Rule::CommitOrder { rows } else { as_they_stand(rows) };
            rows.into_iter().filter(|row| sender.lacks(row)).collect()
        } else {
            self.tally.deltas_from_index += 1;
            if self.trouble && self.dice.chance(10) {
                // The snapshot is taken after the heads were read: it may hold more.
                self.write(site)?;
            }
            self.rows_above(site, self.talk_ref(link, end).sender.cursor())
        };
        if self.rule == Rule::OnlyClaimedRows {
            rows.retain(|row| heads.includes(row.body.version()));
        }
        let talk = self.talk(link, end);
        // The first delta of a stream goes out in any case: what a broken one brought is claimed
        // with it.
        if followed.is_some() && rows.is_empty() && talk.sender.cursor().covers(&heads) {
            talk.followed = Some(sequence);
            return Ok(None);
        }
        Ok(Some(Outgoing::new(heads, sequence, rows)))
    }

    fn rows_above(&self, site: usize, above: &Heads) -> Vec<Row> {
        let snapshot = self.sites[site].store().snapshot();
        snapshot.changes(above).unwrap().map(Result::unwrap).collect()
    }

    /// Sends the next rows of the delta on its way; what ends it may come with them, or alone.
    pub(super) fn send_part(&mut self, link: usize, end: usize, rows_max: usize, ends_alone: bool) {
        let rule = self.rule;
        let site = self.links[link].ends[end].site;
        let to = self.links[link].ends[1 - end].site;
        let now = self.sites[site].heads();
        let live = (rule == Rule::LiveDelta)
            .then(|| self.rows_above(site, self.talk_ref(link, end).sender.cursor()));

        let talk = self.talk(link, end);
        let mut delta = talk.delta.take().expect("a delta on its way out");
        if rule == Rule::CheckpointOfNow && !delta.begun {
            delta.heads = now;
        }
        if let Some(live) = live {
            let order = |row: &Row| {
                let Version { hlc, origin } = row.body.version();
                (origin, hlc)
            };
            let behind = delta.last.as_ref().map(order);
            let rest: Vec<Row> = live.into_iter().filter(|row| Some(order(row)) > behind).collect();
            delta.rows = rest.into_iter();
        }
        let rows: Vec<Row> = delta.rows.by_ref().take(rows_max).collect();
        let last = delta.rows.len() == 0 && (rows.is_empty() || !ends_alone);
        delta.note_passed(&rows);
        let frame = Frame::Delta(Delta {
            snapshot_heads: (!delta.begun).then(|| delta.heads.clone()),
            floor: delta.floor.clone().unwrap_or_default(),
            rows: rows.clone(),
            last,
            remaining_rows: delta.rows.len() as u64,
            remaining_bytes: 0,
            want_number: talk.sender.want_number(),
        });
        delta.begun = true;
        if rule == Rule::CursorAtHighestRow {
            for row in &rows {
                let Version { hlc, origin } = row.body.version();
                talk.sender.on_broken_off(&[(origin, hlc)].into_iter().collect());
            }
        }
        if last && delta.floor.is_some() {
            // Nothing more before the next Want.
        } else if last {
            talk.sender.on_sent(&delta.heads);
            talk.followed = Some(delta.sequence);
        } else {
            talk.delta = Some(delta);
        }
        for row in &rows {
            let version = row.body.version();
            self.tally.rows_sent += 1;
            self.tally.rows_sent_back += u64::from(self.arrived.contains(&(to, site, version)));
        }
        self.links[link].wires[1 - end].push_back(frame);
    }

    fn talk(&mut self, link: usize, end: usize) -> &mut Talk {
        self.links[link].ends[end].talk.as_mut().expect("after the hello")
    }

    pub(super) fn talk_ref(&self, link: usize, end: usize) -> &Talk {
        self.links[link].ends[end].talk.as_ref().expect("after the hello")
    }
}
