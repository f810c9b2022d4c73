//! Whether this node's rows and a peer's are the same, while both take writes.
//!
//! ```text
//! snapshot here --> Begin --> snapshot there, once it has what ours has
//! ranges, back and forth     --> the positions that differ
//! both bodies of each        --> on its way, or wrong                      (protocol::verdict)
//! newer snapshots of both    --> still wrong?
//! ```
//!
//! A comparison holds both snapshots for minutes at most; what is asked is bounded, and so is what is
//! kept: of many differences the first are shown and the rest counted. Putting them right is
//! `repair.rs`'s.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    Node, PeerReport, PlaceDiffers, RowState, Verified, VerifyError, VerifyOptions, VerifyProgress,
    VerifyStage,
    answering::{BEING_ADMITTED, CATCH_UP_MAX, SNAPSHOT_AGE_MAX},
    calls::{NoLine, PeerLine},
};
use crate::{
    model::{Heads, Hlc, Origin},
    protocol::{
        compare::{Answer, Ask},
        ranges::{Comparer, Comparison, MESSAGE_BYTES_MAX, Position},
        verdict::{Standing, Verdict, View, Wrong, judge},
    },
    store::{Positions, StoreError},
};

/// How many differing places are looked into; the rest is counted.
const PLACES_MAX: usize = 200_000;
/// How many places are looked into at once.
const PLACES_AT_ONCE: usize = 256;
/// How many peers an error names.
const PEERS_NAMED_MAX: usize = 20;
/// How many differences are shown.
const SHOWN_MAX: usize = 1_000;
/// How long the peer may take to take its snapshot, what is left of an earlier comparison included.
const BEGIN_TIME_MAX: Duration = Duration::from_secs(60);
/// How long it may take for one answer: a pass over all its rows.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);

impl Node {
    /// Compares all rows of this node with those of a peer, while both take writes; where
    /// `options.repair`, puts right what differs, and compares again.
    ///
    /// # Errors
    ///
    /// [`VerifyError`]: they were not compared to the end. What was put right stays so.
    pub async fn verify(
        &self,
        options: &VerifyOptions,
        progress: &watch::Sender<VerifyProgress>,
    ) -> Result<Verified, VerifyError> {
        let verifier = Verifier::new(self, options, progress)?;
        super::repair::run(&verifier).await
    }
}

/// One peer's line, for as long as a verification takes.
pub(super) struct Verifier<'v> {
    pub(super) node: &'v Node,
    pub(super) options: &'v VerifyOptions,
    progress: &'v watch::Sender<VerifyProgress>,
    line: PeerLine,
}

/// Two snapshots, one at each side; the peer's is let go when this is dropped.
pub(super) struct Pair<'v> {
    verifier: &'v Verifier<'v>,
    id: u64,
    here: Arc<Positions>,
    there: Arc<Heads>,
    /// Up to where dead rows may be gone there.
    there_floor: Arc<Heads>,
    /// Until then the peer keeps its snapshot.
    until: Instant,
}

/// What one comparison found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) verified: Verified,
    /// Every place that was found to be wrong, also those that are not shown.
    pub(super) places: Vec<Position>,
}

/// A place with what both sides have.
pub(super) struct Judged {
    pub(super) position: Position,
    pub(super) here: Option<Standing>,
    pub(super) there: Option<Standing>,
    pub(super) verdict: Verdict,
}

impl<'v> Verifier<'v> {
    fn new(
        node: &'v Node,
        options: &'v VerifyOptions,
        progress: &'v watch::Sender<VerifyProgress>,
    ) -> Result<Verifier<'v>, VerifyError> {
        let origin = origin_of(node, &options.peer)?;
        if !node.snapshot().may_be_told() {
            let (site, reason) = (node.site().to_owned(), BEING_ADMITTED.to_owned());
            return Err(VerifyError::CannotBegin { site, reason });
        }
        let line = node.shared.calls.line(origin).map_err(|no_line| match no_line {
            NoLine::Busy => VerifyError::Busy(options.peer.clone()),
            NoLine::Down => not_connected(node, &options.peer),
        })?;
        progress.send_replace(VerifyProgress::default());
        Ok(Verifier { node, options, progress, line })
    }

    pub(super) fn report(&self, change: impl FnOnce(&mut VerifyProgress)) {
        self.progress.send_modify(change);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.progress.borrow().bytes
    }

    /// Compares all rows once, and looks twice into what differs.
    pub(super) async fn compare(&self) -> Result<Found, VerifyError> {
        self.report(|progress| {
            progress.stage = VerifyStage::Beginning;
            (progress.rows, progress.differing) = (0, 0);
        });
        let pair = self.pair(self.node.snapshot().positions(true)).await?;
        let mut found = Found::default();
        found.verified.through = through(pair.here.heads(), &pair.there);
        let (places, differing) = self.differing_places(&pair, &mut found).await?;
        found.verified.unjudged = differing - places.len() as u64;

        self.report(|progress| progress.stage = VerifyStage::Judging);
        let mut wrong = Vec::new();
        pair.judge(places, |judged| match judged.verdict {
            Verdict::Equal => {}
            Verdict::InFlux => found.verified.in_flux += 1,
            Verdict::Differs(_) => wrong.push(judged.position),
        })
        .await?;
        let there = Arc::clone(&pair.there);
        drop(pair);
        if !wrong.is_empty() {
            // Once more, when both have what the other had.
            let newer = self.node.snapshot_at(&there, CATCH_UP_MAX).await;
            let newer = newer.unwrap_or_else(|_| self.node.snapshot());
            let pair = self.pair(newer.positions(true)).await?;
            pair.judge(wrong, |judged| match judged.verdict {
                Verdict::Equal => {}
                Verdict::InFlux => found.verified.in_flux += 1,
                Verdict::Differs(wrong) => found.add(self, wrong, judged),
            })
            .await?;
        }
        found.verified.differing = found.places.len() as u64;
        Ok(found)
    }

    /// Takes a snapshot there, to go with the one here.
    pub(super) async fn pair(&'v self, here: Positions) -> Result<Pair<'v>, VerifyError> {
        let id: u64 = rand::random();
        let until = Instant::now() + SNAPSHOT_AGE_MAX;
        let begin = Ask::Begin((**here.heads()).clone());
        match self.ask(id, begin, until).await? {
            Answer::Begun { heads, floor } => Ok(Pair {
                verifier: self,
                id,
                here: Arc::new(here),
                there: Arc::new(heads),
                there_floor: Arc::new(floor),
                until,
            }),
            other => Err(self.unexpected(other)),
        }
    }

    /// The places that differ, as many as are looked into, and how many there are.
    async fn differing_places(
        &self,
        pair: &Pair<'_>,
        found: &mut Found,
    ) -> Result<(Vec<Position>, u64), VerifyError> {
        self.report(|progress| progress.stage = VerifyStage::Comparing);
        let mut asking = Asking {
            comparer: Comparer::new(MESSAGE_BYTES_MAX),
            here: Arc::clone(&pair.here),
            places: Vec::new(),
            differing: 0,
        };
        let mut question;
        (asking, question) = asking.step(None).await?;
        found.verified.rows = asking.comparer.rows();
        while let Some(asked) = question {
            self.report(|progress| {
                progress.rows = asking.comparer.rows();
                progress.differing = asking.differing;
            });
            let answer = match self.ask(pair.id, Ask::Ranges(asked), pair.until).await? {
                Answer::Ranges(answer) => answer,
                other => return Err(self.unexpected(other)),
            };
            (asking, question) = asking.step(Some(answer)).await?;
        }
        self.report(|progress| progress.differing = asking.differing);
        Ok((asking.places, asking.differing))
    }

    async fn ask(&self, id: u64, ask: Ask, until: Instant) -> Result<Answer, VerifyError> {
        let site = || self.options.peer.clone();
        let begins = matches!(ask, Ask::Begin(_));
        let patience = if begins { BEGIN_TIME_MAX } else { ANSWER_TIME_MAX };
        let asked = Instant::now();
        let answered = timeout_at(until.min(asked + patience), self.line.ask(id, ask)).await;
        let silent = |_| VerifyError::Silent { site: site(), after: asked.elapsed() };
        let answered = answered.map_err(silent)?.ok_or_else(|| VerifyError::LinkLost(site()))?;
        self.report(|progress| progress.bytes += answered.bytes);
        Ok(answered.answer)
    }

    fn unexpected(&self, answer: Answer) -> VerifyError {
        let reason = match answer {
            Answer::Refused(reason) => reason.chars().take(500).collect(),
            _ => "its answer is of another kind than the question".to_owned(),
        };
        VerifyError::RefusedByPeer { site: self.options.peer.clone(), reason }
    }
}

/// The asking side of the ranges, which is moved to where blocking is allowed and back.
struct Asking {
    comparer: Comparer,
    here: Arc<Positions>,
    places: Vec<Position>,
    differing: u64,
}

impl Asking {
    /// Takes an answer, `None` at the beginning, and gives the next question.
    async fn step(
        mut self,
        answer: Option<Comparison>,
    ) -> Result<(Asking, Option<Comparison>), VerifyError> {
        let step = tokio::task::spawn_blocking(move || {
            let Some(answer) = answer else {
                let question = self.comparer.begin(&*self.here)?;
                return Ok((self, Some(question)));
            };
            let question = self.comparer.on_answer(&*self.here, &answer, |difference| {
                self.differing += 1;
                if self.places.len() < PLACES_MAX {
                    self.places.push(difference.position().clone());
                }
            })?;
            Ok((self, question))
        });
        step.await.expect("comparing does not panic")
    }
}

impl Pair<'_> {
    /// Looks into places, some at a time; `each` gets what both sides have.
    pub(super) async fn judge(
        &self,
        places: Vec<Position>,
        mut each: impl FnMut(Judged),
    ) -> Result<(), VerifyError> {
        let mut rest = &places[..];
        while !rest.is_empty() {
            let judged = self.judge_some(rest).await?;
            rest = &rest[judged.len()..];
            judged.into_iter().for_each(&mut each);
        }
        Ok(())
    }

    /// Looks into the first places, at least one.
    pub(super) async fn judge_some(&self, places: &[Position]) -> Result<Vec<Judged>, VerifyError> {
        let places: Vec<_> = places.iter().take(PLACES_AT_ONCE).cloned().collect();
        let ask = Ask::Rows(places.clone());
        let bodies = match self.verifier.ask(self.id, ask, self.until).await? {
            Answer::Bodies(bodies) if (1..=places.len()).contains(&bodies.len()) => bodies,
            other => return Err(self.verifier.unexpected(other)),
        };
        let (here, there) = (Arc::clone(&self.here), Arc::clone(&self.there));
        let there_floor = Arc::clone(&self.there_floor);
        // A peer whose clock is ahead may have purged what has expired by what our own head says, too.
        let node = self.verifier.node;
        let own_head = here.heads().get(node.origin());
        let head_ms = if own_head.is_closed() { 0 } else { own_head.ms() };
        let now_ms = node.now_ms().max(head_ms);
        let judging = tokio::task::spawn_blocking(move || {
            let judged = |(position, body): (Position, Option<bytes::Bytes>)| {
                let ours = here.body_at(&position)?.map(Standing::of);
                let theirs = body.map(Standing::of);
                let verdict = judge(
                    View { standing: ours.as_ref(), heads: here.heads(), floor: here.floor() },
                    View { standing: theirs.as_ref(), heads: &there, floor: &there_floor },
                    now_ms,
                );
                Ok(Judged { position, here: ours, there: theirs, verdict })
            };
            places.into_iter().zip(bodies).map(judged).collect::<Result<Vec<_>, StoreError>>()
        });
        Ok(judging.await.expect("judging does not panic")?)
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        self.verifier.line.tell(self.id, Ask::End);
    }
}

impl Found {
    fn add(&mut self, verifier: &Verifier<'_>, wrong: Wrong, judged: Judged) {
        let Judged { position, here, there, .. } = judged;
        // Positions with a difference are those of rows.
        if let Some((table, key)) = position.row().filter(|_| self.places.len() < SHOWN_MAX) {
            let undecided = super::repair::undecided(verifier, &table, wrong, &here, &there);
            let (here, there) =
                (here.as_ref().map(RowState::from), there.as_ref().map(RowState::from));
            let place = PlaceDiffers { table, key, wrong, here, there, undecided };
            self.verified.differences.push(place);
        }
        self.places.push(position);
    }
}

/// Up to where both have every write of every origin; of one that both have closed there are no more.
fn through(here: &Heads, there: &Heads) -> Hlc {
    let origins = here.iter().chain(there.iter()).map(|(origin, _)| origin);
    let both = origins.map(|origin| here.get(origin).min(there.get(origin)));
    both.filter(|hlc| !hlc.is_closed()).min().unwrap_or_default()
}

fn origin_of(node: &Node, site: &str) -> Result<Origin, VerifyError> {
    if site == node.site() {
        return Err(VerifyError::Itself(site.to_owned()));
    }
    let peers = node.reports().peers();
    let named: Vec<_> = peers.iter().filter(|peer| peer.site == site).collect();
    // Of several stores that a site had, the one whose link is up.
    let met = named.iter().find(|peer| peer.direction.is_some()).or(named.first());
    match met {
        Some(peer) => peer.origin.ok_or_else(|| not_connected(node, site)),
        None => {
            let names = |peer: &PeerReport| match peer.site.as_str() {
                "" => format!("{} (not met yet)", peer.address),
                site => site.to_owned(),
            };
            let known: Vec<_> = peers.iter().take(PEERS_NAMED_MAX).map(names).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(VerifyError::UnknownPeer { site: site.chars().take(80).collect(), known })
        }
    }
}

fn not_connected(node: &Node, site: &str) -> VerifyError {
    let peers = node.reports().peers();
    let reason = peers
        .iter()
        .filter(|peer| peer.site == site)
        .find_map(|peer| peer.last_error.as_ref().map(|error| error.message.clone()));
    VerifyError::NotConnected { site: site.to_owned(), reason: reason.unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_have_what_the_one_has_that_is_further_behind() {
        let heads = |entries: &[(u8, u64)]| -> Heads {
            let entry = |&(o, hlc)| (Origin::from_bytes([o; 16]), Hlc::from_bits(hlc));
            entries.iter().map(entry).collect()
        };
        let both = |here, there| through(&heads(here), &heads(there)).bits();
        assert_eq!(both(&[(1, 9), (2, 7)], &[(1, 8), (2, 20)]), 7);
        assert_eq!(both(&[(1, 9), (2, 7)], &[(1, 5), (2, 20)]), 5);
        // An origin of which one side has heard nothing.
        assert_eq!(both(&[(1, 9)], &[(1, 9), (2, 7)]), 0);
        // One that was removed: complete at both, at one of them, and nothing else there.
        assert_eq!(both(&[(1, 9), (2, u64::MAX)], &[(1, 8), (2, u64::MAX)]), 8);
        assert_eq!(both(&[(1, 9), (2, u64::MAX)], &[(1, 8), (2, 5)]), 5);
        assert_eq!(both(&[(2, u64::MAX)], &[(2, u64::MAX)]), 0);
    }
}
