//! Stamps and heads across restarts, and clocks that are set back or run ahead.

use super::*;

/// A restarted store may go on so far ahead of the wall clock.
const RESTART_AHEAD_MS_MAX: u64 = 3_000;

fn own_head(site: &Site) -> Hlc {
    site.store().heads().get(site.store().origin())
}

#[test]
fn stamps_rise_across_restarts_and_clocks_that_are_set_back() {
    let mut site = Site::new(1);
    let mut last = Version::default();
    for now_ms in [NOON_MS, NOON_MS + 50, NOON_MS - 60_000, 0, NOON_MS + 100] {
        site.now_ms = now_ms;
        // A clock that is set back is no reason to refuse: the drift bound is.
        let batch = LocalBatch { drift_bound_ms: u64::MAX, ..site.batch(vec![put("k", "v")]) };
        let version = local(&site.apply(&[Request::Local(batch.clone())]).outcomes[0]).unwrap();
        assert!(version[0].version > last);
        site.reopen();
        let again = local(&site.apply(&[Request::Local(batch)]).outcomes[0]).unwrap();
        assert!(again[0].version > version[0].version);
        last = again[0].version;
        site.check();
    }
}

#[test]
fn the_own_head_is_never_lower_than_it_was_shown() {
    let mut site = Site::new(1);
    let mut shown = own_head(&site);
    for (step, now_ms) in [0, 1, 900, 2_900, 3_100, 50, 9_000, 9_001].into_iter().enumerate() {
        site.now_ms = NOON_MS + now_ms;
        site.apply(&[Request::Advance]);
        assert!(own_head(&site) >= shown);
        shown = own_head(&site);
        if step % 2 == 1 {
            site.reopen();
            assert!(own_head(&site) >= shown, "step {step}");
            // And the writes of the new start lie above all that was shown.
            shown = own_head(&site);
            let version = site.put("k", "v");
            assert!(version.hlc > shown);
        }
    }
}

#[test]
fn an_idle_store_commits_only_when_the_reserve_is_used_up() {
    let mut site = Site::new(1);
    let mut commits = 0;
    for tick in 0..100 {
        site.now_ms = NOON_MS + tick * 100;
        commits += u32::from(site.apply(&[Request::Advance, Request::Advance]).committed);
        assert_eq!(own_head(&site), Hlc::at_ms(site.now_ms));
    }
    assert!(commits <= 5, "{commits} commits in ten idle seconds");
}

/// A process that is killed again and again, each time after a write.
#[test]
fn quick_restarts_do_not_drive_the_clock_ahead() {
    let mut site = Site::new(1);
    for restart in 0..50 {
        site.now_ms = NOON_MS + restart * 10;
        site.reopen();
        let ahead_ms = site.put("k", "v").hlc.ms().saturating_sub(site.now_ms);
        assert!(ahead_ms <= RESTART_AHEAD_MS_MAX, "restart {restart}: {ahead_ms} ms ahead");
        site.check();
    }
}

/// Two idle peers would answer each other's checkpoints for ever.
#[test]
fn peers_rows_alone_do_not_move_the_own_head() {
    let mut site = Site::new(1);
    site.put("k", "v");
    let before = own_head(&site);
    site.now_ms += 500;
    site.remote(
        vec![peers_row("l", 2, at(400, 0), &[], "x")],
        Some(heads(&[(2, at(450, 0))])),
        None,
    );
    assert_eq!(own_head(&site), before);
    // But what is written next is above what was merged, and above what was claimed.
    site.now_ms = NOON_MS;
    assert!(site.put("m", "v").hlc > at(450, 0));
    assert!(own_head(&site) > at(450, 0));
}

#[test]
fn a_stamp_exceeds_that_of_the_row_it_replaces() {
    let mut site = Site::new(1);
    let ahead = peers_row("k", 2, at(9_000, 7), &[], "theirs");
    site.merge(vec![ahead.clone()]);
    site.reopen();
    let version = site.put("k", "ours");
    assert!(version > ahead.body.version());
    assert_eq!(site.get("k").unwrap().value().unwrap(), "ours");
    site.check();
}

#[test]
fn a_store_whose_stamps_lead_its_wall_clock_refuses_clients_but_merges() {
    let mut site = Site::new(1);
    let bound_ms = DRIFT_BOUND_MS_DEFAULT;
    site.merge(vec![peers_row("k", 2, at(bound_ms, 0), &[], "x")]);
    site.put("just", "within");
    site.now_ms -= 1;
    let refused = site.try_write(vec![put("k", "v")]);
    assert_eq!(refused, Err(RefusedError::ClockAhead { ahead_ms: bound_ms + 1, bound_ms }));
    assert_eq!(site.merge(vec![peers_row("l", 2, at(5, 0), &[], "x")]).stored, 1);
    assert!(site.get("k").unwrap().value().unwrap() == "x");
    site.now_ms += 1;
    site.put("k", "v");
    site.check();
}
