//! Writes of applications that are handed over: once each, and concurrent with what was not seen.

use super::*;
use crate::model::{Relation, relation};

fn handed(key: &'static str, value: Option<&'static str>) -> HandedRow {
    HandedRow {
        table: table(),
        key: self::key(key),
        value: value.map(Bytes::from),
        missed: Vec::new(),
    }
}

impl Site {
    fn try_hand_over(
        &mut self,
        number: u64,
        seen: &Heads,
        rows: Vec<HandedRow>,
    ) -> Result<HandOverReport, HandOverError> {
        let batch = HandOver {
            number,
            rows,
            seen: seen.clone(),
            entries: Bytes::from(format!("entries of {number}")),
            drift_bound_ms: DRIFT_BOUND_MS_DEFAULT,
        };
        match &self.apply(&[Request::HandOver(batch)]).outcomes[0] {
            Outcome::HandedOver(result) => result.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn receipt(&self) -> Receipt {
        self.store().snapshot().receipt().unwrap()
    }

    fn hand_over(&mut self, seen: &Heads, rows: Vec<HandedRow>) -> HandOverReport {
        let number = self.receipt().number + 1;
        let report = self.try_hand_over(number, seen, rows).unwrap();
        self.check();
        report
    }

    fn losers(&self) -> Vec<Version> {
        self.entries(Space::Conflicts)
            .keys()
            .map(|key| codec::split_conflict_key(key).unwrap())
            .collect()
    }

    fn version(&self, key: &'static str) -> Version {
        self.get(key).unwrap().version()
    }
}

fn report(written: u64, unchanged: u64, conflicts: u64) -> HandOverReport {
    HandOverReport { written, unchanged, conflicts }
}

#[test]
fn rows_and_receipt_are_one_commit_and_found_again() {
    let mut site = Site::new(1);
    assert_eq!(site.receipt(), Receipt::default());
    let rows = vec![handed("a", Some("1")), handed("b", Some("2"))];
    assert_eq!(site.hand_over(&Heads::new(), rows.clone()), report(2, 0, 0));
    let receipt = Receipt { number: 1, entries: "entries of 1".into() };
    assert_eq!(site.receipt(), receipt);
    for _ in 0..2 {
        site.reopen();
        assert_eq!(site.receipt(), receipt);
        // Asked for again, after a crash perhaps: not made again.
        let again = site.try_hand_over(1, &Heads::new(), rows.clone());
        assert_eq!(again, Err(HandOverError::OutOfTurn { number: 1, newest: 1 }));
        site.move_all();
    }
    let skipped = site.try_hand_over(3, &Heads::new(), rows);
    assert_eq!(skipped, Err(HandOverError::OutOfTurn { number: 3, newest: 1 }));
    assert_eq!(site.get("b").unwrap().value().unwrap(), "2");
}

#[test]
fn what_stands_like_that_already_is_no_write() {
    let mut site = Site::new(1);
    site.hand_over(&Heads::new(), vec![handed("a", Some("1"))]);
    let version = site.version("a");
    // Nor is a row that was never here and is not there.
    let rows = vec![handed("a", Some("1")), handed("gone", None)];
    assert_eq!(site.hand_over(&Heads::new(), rows), report(0, 2, 0));
    assert_eq!((site.version("a"), site.receipt().number), (version, 1));
    assert_eq!(site.hand_over(&Heads::new(), vec![handed("a", None)]), report(1, 0, 0));
    assert_eq!(site.hand_over(&Heads::new(), vec![handed("a", None)]), report(0, 1, 0));
    assert!(site.get("a").unwrap().is_tombstone());
    assert!(site.losers().is_empty());
}

#[test]
fn an_expired_row_of_the_same_value_is_written() {
    let mut site = Site::new(1);
    let operation =
        Operation::Put { key: key("k"), value: "v".into(), expires_at_ms: Some(NOON_MS + 5) };
    site.try_write(vec![LocalWrite { table: table(), operation }]).unwrap();
    site.now_ms = NOON_MS + 10;
    let seen = (*site.store().heads()).clone();
    assert_eq!(site.hand_over(&seen, vec![handed("k", None)]), report(0, 1, 0));
    assert_eq!(site.hand_over(&seen, vec![handed("k", Some("v"))]), report(1, 0, 0));
    assert_eq!(site.get("k").unwrap().expires_at_ms(), None);
}

#[test]
fn what_the_database_had_is_followed() {
    let mut site = Site::new(1);
    let theirs = peers_row("k", 2, at(1, 0), &[], "theirs");
    site.remote(vec![theirs.clone()], Some(heads(&[(2, at(1, 0))])), None);
    let seen = (*site.store().heads()).clone();
    assert_eq!(site.hand_over(&seen, vec![handed("k", Some("app"))]), report(1, 0, 0));
    assert_eq!(relation(&theirs.body, &site.get("k").unwrap()), Relation::IncomingFollows);
}

#[test]
fn what_had_not_come_to_the_database_is_lost_and_recorded() {
    let mut site = Site::new(1);
    let first = peers_row("k", 2, at(1, 0), &[], "first");
    site.remote(vec![first.clone()], Some(heads(&[(2, at(1, 0))])), None);
    let seen = (*site.store().heads()).clone();
    let second = peers_row("k", 2, at(2, 0), &[first.body.version()], "second");
    site.remote(vec![second.clone()], Some(heads(&[(2, at(2, 0))])), None);

    assert_eq!(site.hand_over(&seen, vec![handed("k", Some("app"))]), report(1, 0, 1));
    let written = site.get("k").unwrap();
    assert_eq!(written.value().unwrap(), "app");
    assert_eq!(site.losers(), [second.body.version()]);
    assert_eq!(relation(&second.body, &written), Relation::Concurrent);
    assert_eq!(relation(&first.body, &written), Relation::IncomingFollows);
    // This site has met both: its next write follows both.
    let next = site.put("k", "next");
    let next = site.get("k").filter(|body| body.version() == next).unwrap();
    assert_eq!(relation(&second.body, &next), Relation::IncomingFollows);
    site.check();

    // The peer sees it alike.
    let mut peer = Site::new(2);
    peer.remote(vec![first, second.clone()], None, None);
    peer.merge(vec![Row { table: table(), key: key("k"), body: written }]);
    assert_eq!(peer.losers(), [second.body.version()]);
    assert_eq!(peer.get("k").unwrap().value().unwrap(), "app");
}

#[test]
fn what_the_database_was_told_of_and_did_not_take_was_not_seen() {
    let mut site = Site::new(1);
    let theirs = peers_row("k", 2, at(1, 0), &[], "theirs");
    site.remote(vec![theirs.clone()], Some(heads(&[(2, at(1, 0))])), None);
    let seen = (*site.store().heads()).clone();
    let missed = HandedRow { missed: vec![theirs.body.version()], ..handed("k", Some("app")) };
    assert_eq!(site.hand_over(&seen, vec![missed]), report(1, 0, 1));
    assert_eq!(relation(&theirs.body, &site.get("k").unwrap()), Relation::Concurrent);
    assert_eq!(site.losers(), [theirs.body.version()]);
}

#[test]
fn a_clients_write_at_this_site_that_had_not_come_is_recorded_too() {
    let mut site = Site::new(1);
    let seen = (*site.store().heads()).clone();
    let lost = site.put("k", "by a client");
    assert_eq!(site.hand_over(&seen, vec![handed("k", Some("app"))]), report(1, 0, 1));
    assert_eq!(site.losers(), [lost]);
}

#[test]
fn what_came_from_the_database_it_knows_before_its_heads_say_so() {
    let mut site = Site::new(1);
    let seen = (*site.store().heads()).clone();
    for value in ["one", "two", "three"] {
        assert_eq!(site.hand_over(&seen, vec![handed("k", Some(value))]), report(1, 0, 0));
        site.put("l", "between");
        site.reopen();
    }
    let own = site.store().origin();
    let snapshot = site.store().snapshot();
    assert!(snapshot.is_handed_over(own, site.version("k")).unwrap());
    assert!(!snapshot.is_handed_over(own, site.version("l")).unwrap());
    assert!(!snapshot.is_handed_over(origin(2), site.version("k")).unwrap());
    // A client's write between two hand-overs is not taken for one.
    assert_eq!(site.hand_over(&seen, vec![handed("l", Some("app"))]), report(1, 0, 1));
    // Nor is it said to have been missed where the mirror passed it over.
    let missed = vec![site.version("k")];
    let row = HandedRow { missed, ..handed("k", Some("four")) };
    assert_eq!(site.hand_over(&seen, vec![row]), report(1, 0, 0));
    // Once the heads say it, the spans need not.
    let seen = (*site.store().heads()).clone();
    site.hand_over(&seen, vec![handed("m", Some("x"))]);
    assert_eq!(site.entries(Space::State)[tables::STATE_SPANS].len(), 16);
}

#[test]
fn a_hand_over_is_refused_as_a_whole_and_stays_the_next() {
    let mut site = Site::new(1);
    let ahead = Hlc::at_ms(NOON_MS + 10 * DRIFT_BOUND_MS_DEFAULT);
    site.merge(vec![peers_row("x", 2, ahead, &[], "far")]);
    let refused = site.try_hand_over(1, &Heads::new(), vec![handed("k", Some("v"))]);
    assert!(matches!(refused, Err(HandOverError::Refused(RefusedError::ClockAhead { .. }))));
    site.now_ms += 11 * DRIFT_BOUND_MS_DEFAULT;
    assert_eq!(site.hand_over(&Heads::new(), vec![handed("k", Some("v"))]), report(1, 0, 0));
}
