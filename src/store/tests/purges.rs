//! Dead rows, and when they may go.

use super::*;
use crate::protocol::{HelloMembership, SystemRow, member_row, seal_row};

fn system(row: SystemRow) -> LocalWrite {
    let SystemRow { table, key, value } = row;
    let operation = Operation::Put { key, value: value.into(), expires_at_ms: None };
    LocalWrite { table, operation }
}

/// A store that is a sealed cluster by itself.
fn sealed() -> Site {
    let mut site = Site::new(1);
    site.try_write(vec![system(member_row(origin(1), "fra", Role::Site)), system(seal_row())])
        .unwrap();
    site.apply(&[Request::Advance]);
    assert!(site.store().snapshot().horizon() > Hlc::ZERO);
    site
}

/// A peer's system row, stamped `hlc` by the store `by`.
fn peers_system_row(row: SystemRow, by: u8, hlc: Hlc) -> Row {
    let body = Body::new(&BodyParts {
        version: Version { hlc, origin: origin(by) },
        seen: Hlc::ZERO,
        context: &Context::new(),
        expires_at_ms: None,
        value: Some(&row.value),
    });
    Row { table: row.table, key: row.key, body }
}

fn purge(site: &mut Site, stable: Heads) -> Purged {
    match site.apply(&[Request::Purge { stable, drift_bound_ms: 20 }]).outcomes[..] {
        [Outcome::Purged(purged)] => purged,
        ref other => panic!("{other:?}"),
    }
}

fn everything(site: &Site) -> Heads {
    (*site.store().heads()).clone()
}

fn expiring(key: &'static str, after_ms: u64) -> LocalWrite {
    let expires_at_ms = Some(NOON_MS + after_ms);
    let key = self::key(key);
    let operation = Operation::Put { key, value: "short".into(), expires_at_ms };
    LocalWrite { table: table(), operation }
}

#[test]
fn a_tombstone_goes_once_the_horizon_has_passed_it_and_every_member_has_it() {
    let mut site = sealed();
    site.put("a", "v");
    site.put("b", "v");
    let deleted = site.try_write(vec![delete("a")]).unwrap()[0].version;
    assert_eq!(purge(&mut site, Heads::new()).rows, 0, "nobody is known to have it");
    assert!(site.store().snapshot().floor().is_empty());
    site.now_ms += 1;
    let stable = everything(&site);
    assert_eq!(purge(&mut site, stable).rows, 1);
    site.check();
    assert_eq!(site.get("a"), None);
    assert!(site.get("b").is_some());
    let floor = site.store().snapshot().floor().clone();
    assert_eq!(floor, heads(&[(1, deleted.hlc)]));
    site.move_all();
    site.reopen();
    site.check();
    assert_eq!((site.get("a"), site.store().snapshot().floor()), (None, &floor));
    assert_eq!(site.store().snapshot().rows_purged().unwrap(), 1);
    // What was known of it is dropped where it comes again.
    let old = peers_row("a", 1, deleted.hlc, &[], "back");
    assert_eq!(site.merge(vec![old]).stored, 0);
}

#[test]
fn an_expired_row_goes_once_the_horizon_has_passed_its_expiry() {
    let mut site = sealed();
    site.try_write(vec![expiring("a", 100)]).unwrap();
    let purge_all = |site: &mut Site| {
        site.apply(&[Request::Advance]);
        let stable = everything(site);
        purge(site, stable).rows
    };
    for (ms, rows) in [(50, 0), (101, 0), (120, 0), (121, 1)] {
        site.now_ms = NOON_MS + ms;
        assert_eq!(purge_all(&mut site), rows, "after {ms} ms");
        site.check();
    }
    // Replaced before it expired: the row that stands is another one.
    site.try_write(vec![expiring("b", 200)]).unwrap();
    site.put("b", "kept");
    site.now_ms = NOON_MS + 500;
    assert_eq!(purge_all(&mut site), 0);
    site.check();
    assert!(site.get("b").is_some());
}

#[test]
fn another_member_holds_the_horizon_until_its_word_is_here() {
    let mut site = sealed();
    site.try_write(vec![delete("a")]).unwrap();
    // A founder whom nobody knew of when the seal was acknowledged.
    let member = peers_system_row(member_row(origin(2), "nyc", Role::Site), 2, at(0, 1));
    site.merge(vec![member]);
    site.now_ms += 10;
    site.apply(&[Request::Advance]);
    let stable = everything(&site);
    assert_eq!((site.store().snapshot().horizon(), purge(&mut site, stable).rows), (Hlc::ZERO, 0));
}

#[test]
fn a_configured_peer_that_was_never_met_holds_the_horizon() {
    let mut site = sealed();
    site.config.peers = vec!["http://nyc:7400".into()];
    site.reopen();
    assert_eq!(site.store().snapshot().horizon(), Hlc::ZERO);
    let met = Meeting {
        peer: origin(1),
        address: Some("http://nyc:7400".into()),
        membership: HelloMembership::default(),
        heads: Heads::new(),
        drift_bound_ms: DRIFT_BOUND_MS_DEFAULT,
    };
    let applied = site.apply(&[Request::Meet(Box::new(met))]);
    assert!(matches!(applied.outcomes[..], [Outcome::Met(Ok(Met::Known))]));
    site.apply(&[Request::Advance]);
    assert!(site.store().snapshot().horizon() > Hlc::ZERO);
    site.reopen();
    assert_eq!(site.store().snapshot().unmet().count(), 0, "it is remembered");
}

#[test]
fn many_dead_rows_go_in_several_steps() {
    let mut site = sealed();
    let keys = || (0..5_000).map(|n| Key::new(format!("{n}")).unwrap());
    let delete = |key| LocalWrite { table: table(), operation: Operation::Delete { key } };
    site.try_write(keys().map(delete).collect()).unwrap();
    site.now_ms += 1;
    let stable = everything(&site);
    let first = purge(&mut site, stable.clone());
    assert!(first.more && first.rows < 5_000, "{first:?}");
    let second = purge(&mut site, stable);
    assert!(!second.more);
    assert_eq!(first.rows + second.rows, 5_000);
    site.check();
}

#[test]
fn what_died_elsewhere_goes_with_the_claim_unless_it_was_written_anew() {
    let mut site = sealed();
    site.merge(vec![
        peers_row("a", 2, at(0, 7), &[], "dead there"),
        peers_row("b", 2, at(0, 8), &[], "dead there"),
    ]);
    site.put("b", "written meanwhile");
    let version = |count| Version { hlc: at(0, count), origin: origin(2) };
    let end = Reconciled {
        sender: origin(2),
        dead: vec![
            (table(), key("a"), version(7)),
            (table(), key("b"), version(8)),
            (table(), key("never here"), version(9)),
        ],
        doubtful: Vec::new(),
        renew: Vec::new(),
        claim: heads(&[(2, at(0, 90))]),
        floor: heads(&[(2, at(0, 30))]),
    };
    let applied = site.apply(&[Request::Reconcile(Box::new(end))]);
    assert!(matches!(applied.outcomes[..], [Outcome::Reconciled(Some(1))]));
    assert_eq!(applied.rows_removed, 1);
    site.check();
    assert!(site.get("a").is_none() && site.get("b").is_some());
    assert_eq!(site.store().heads().get(origin(2)), at(0, 90));
    site.reopen();
    assert_eq!(site.store().snapshot().floor(), &heads(&[(2, at(0, 30))]));
}

#[test]
fn writes_carry_the_horizon_as_seen_and_name_nothing_below() {
    let mut site = sealed();
    site.merge(vec![peers_row("a", 2, at(0, 7), &[], "theirs")]);
    site.put("a", "ours");
    let ours = site.get("a").unwrap();
    assert!(ours.seen() > Hlc::ZERO);
    assert_eq!(ours.context().get(origin(2)), at(0, 7), "above the horizon: named");
    site.now_ms += 1_000;
    site.apply(&[Request::Advance]);
    site.put("a", "again");
    let again = site.get("a").unwrap();
    assert!(again.seen() >= Hlc::at_ms(NOON_MS + 1_000) && again.context().is_empty());
}
