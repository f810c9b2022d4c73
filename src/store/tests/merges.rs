//! A peer's rows: who stands, what is claimed, what is recorded.

use super::*;

#[test]
fn the_greater_version_stands_in_whatever_order_they_come() {
    let (older, younger) =
        (peers_row("k", 3, at(1, 0), &[], "older"), peers_row("k", 2, at(2, 0), &[], "younger"));
    for rows in [[older.clone(), younger.clone()], [younger.clone(), older.clone()]] {
        let mut site = Site::new(1);
        for row in rows {
            site.merge(vec![row]);
            site.check();
        }
        assert_eq!(site.changes(&Heads::new()), std::slice::from_ref(&younger));
        let conflicts = site.store().snapshot().conflicts().unwrap();
        assert_eq!(conflicts, [(younger.body.version(), older.clone())]);
    }
}

#[test]
fn a_row_that_is_claimed_and_not_here_is_dropped() {
    let mut site = Site::new(1);
    site.remote(vec![], Some(heads(&[(2, at(5, 0))])), None);
    let report = site.merge(vec![
        peers_row("below", 2, at(4, 0), &[], "x"),
        peers_row("at", 2, at(5, 0), &[], "x"),
        peers_row("above", 2, at(5, 1), &[], "x"),
    ]);
    assert_eq!((report.stored, report.passed_over), (1, 2));
    assert!(site.get("below").is_none() && site.get("at").is_none() && site.get("above").is_some());
    site.check();
    // Of the own origin as well: what is not here any more was superseded.
    let own = site.put("k", "v");
    let echo = peers_row("gone", 1, own.hlc, &[], "echo");
    assert_eq!(site.merge(vec![echo]).passed_over, 1);
}

/// Rows and claim are one commit: what a claim allows to drop is judged before it.
#[test]
fn the_rows_of_a_delta_are_merged_before_its_claim_counts() {
    let mut site = Site::new(1);
    let rows = vec![peers_row("k", 2, at(4, 0), &[], "x"), peers_row("l", 2, at(5, 0), &[], "x")];
    let report = site.remote(rows, Some(heads(&[(2, at(5, 0))])), None);
    assert_eq!(report.stored, 2);
    assert_eq!(site.store().heads().get(origin(2)), at(5, 0));
    site.reopen();
    assert_eq!(site.store().heads().get(origin(2)), at(5, 0));
    assert_eq!(site.changes(&Heads::new()).len(), 2);
}

#[test]
fn the_same_row_again_changes_nothing() {
    let mut site = Site::new(1);
    let row = peers_row("k", 2, at(1, 0), &[], "x");
    site.merge(vec![row.clone(), row.clone()]);
    let report = site.merge(vec![row.clone()]);
    assert_eq!(report, MergeReport { passed_over: 1, ..MergeReport::default() });
    assert_eq!(site.changes(&Heads::new()), [row]);
}

/// In a mesh each row, and each head of an idle origin, comes by every link.
#[test]
fn what_came_by_another_way_costs_no_commit() {
    let mut site = Site::new(1);
    let row = peers_row("k", 2, at(1, 0), &[], "x");
    let claim = heads(&[(2, at(2, 0))]);
    let mut commits = |rows: &[Row], claim: Option<&Heads>, tentative: Option<&Heads>| {
        let batch = RemoteBatch {
            sender: origin(9),
            rows: rows.to_vec(),
            claim: claim.cloned(),
            tentative: tentative.cloned(),
        };
        let applied = site.apply(&[Request::Remote(batch)]);
        site.check();
        applied.committed
    };
    assert!(commits(std::slice::from_ref(&row), None, Some(&claim)));
    assert!(!commits(std::slice::from_ref(&row), None, None));
    assert!(commits(&[], Some(&claim), None), "heads, and no tentative vector any more");
    assert!(!commits(&[row], Some(&claim), None));
    assert!(!commits(&[], None, None));
    assert!(commits(&[], Some(&heads(&[(2, at(3, 0))])), None));
    // A refused batch has nothing to write either; but the next one stamps above all it has met.
    site.now_ms = NOON_MS;
    let far = heads(&[(2, at(20_000, 0))]);
    site.remote(vec![], Some(far), None);
    let refused = Request::Local(site.batch(vec![put("l", "v")]));
    assert!(!site.apply(&[refused]).committed);
    site.now_ms += 15_000;
    assert!(site.put("l", "v").hlc > at(20_000, 0));
    site.check();
}

#[test]
fn a_conflict_is_recorded_once_with_the_losing_row() {
    let mut site = Site::new(1);
    let ours = site.put("k", "ours");
    let theirs = peers_row("k", 2, at(500, 0), &[], "theirs");
    assert_eq!(site.merge(vec![theirs.clone()]).conflicts, 1);
    let loser = peers_row("k", 3, at(400, 0), &[], "loser");
    assert_eq!(site.merge(vec![loser.clone()]).conflicts, 1);
    site.merge(vec![loser.clone()]);
    let conflicts = site.store().snapshot().conflicts().unwrap();
    let kept: Vec<_> = conflicts.iter().map(|(w, l)| (*w, l.body.version())).collect();
    let winner = theirs.body.version();
    assert_eq!(kept, [(winner, ours), (winner, loser.body.version())]);
    assert_eq!(conflicts[0].1.body.value().unwrap(), "ours");
    assert_eq!(site.store().journal_totals().unwrap().recorded, 2);
    assert_eq!(site.store().journal_totals().unwrap().kept, 2);
    site.reopen();
    assert_eq!(site.store().journal_totals().unwrap().recorded, 2);
    site.check();
}

#[test]
fn what_was_seen_or_is_equal_is_no_conflict() {
    let mut site = Site::new(1);
    let ours = site.put("k", "ours");
    let follows = peers_row("k", 2, at(500, 0), &[ours], "theirs");
    let equal = peers_row("k", 3, at(600, 0), &[], "theirs");
    assert_eq!(site.merge(vec![follows, equal]).conflicts, 0);
    // Nor are two sites' entries in the system's own tables.
    let system = |by, value| Row {
        table: TableName::of_any("_members").unwrap(),
        ..peers_row("k", by, at(700, 0), &[], value)
    };
    assert_eq!(site.merge(vec![system(2, "a"), system(3, "b")]).conflicts, 0);
    assert_eq!(site.store().journal_totals().unwrap().kept, 0);
    site.check();
}

#[test]
fn what_is_known_is_kept_only_where_it_is_more_than_the_row_says() {
    let mut site = Site::new(1);
    let first = peers_row("k", 2, at(1, 0), &[], "first");
    site.merge(vec![first.clone()]);
    assert_eq!(site.known("k"), None);
    // A successor says itself what it has seen.
    let second = peers_row("k", 3, at(2, 0), &[first.body.version()], "second");
    site.merge(vec![second.clone()]);
    assert_eq!(site.known("k"), None);
    // A loser is known to this store, and to nobody who gets the winner.
    let loser = peers_row("k", 4, at(1, 5), &[], "loser");
    site.merge(vec![loser.clone()]);
    let known = site.known("k").expect("the loser is known");
    assert_eq!(known.context, heads(&[(2, at(1, 0)), (4, at(1, 5))]));
    site.reopen();
    site.check();
    // The next write here says it to everybody.
    site.put("k", "ours");
    assert_eq!(site.known("k"), None);
    let context = site.get("k").unwrap().context().clone();
    assert_eq!(context, heads(&[(2, at(1, 0)), (3, at(2, 0)), (4, at(1, 5))]));
    site.check();
}

#[test]
fn what_is_known_goes_when_a_winner_knows_it_too() {
    let mut site = Site::new(1);
    let (a, b) = (peers_row("k", 2, at(1, 0), &[], "a"), peers_row("k", 3, at(2, 0), &[], "b"));
    site.merge(vec![b.clone(), a.clone()]);
    assert!(site.known("k").is_some());
    let knows_both = peers_row("k", 4, at(3, 0), &[a.body.version(), b.body.version()], "c");
    assert_eq!(site.merge(vec![knows_both]).conflicts, 0);
    assert_eq!(site.known("k"), None);
    site.check();
}

#[test]
fn a_tentative_vector_is_kept_for_its_sender_until_a_claim() {
    let mut site = Site::new(1);
    let sender = origin(9);
    assert_eq!(site.store().tentative(sender).unwrap(), Heads::new());
    let first = heads(&[(2, at(1, 0))]);
    site.remote(vec![peers_row("k", 2, at(1, 0), &[], "x")], None, Some(first.clone()));
    assert_eq!(site.store().tentative(sender).unwrap(), first);
    assert_eq!(site.store().tentative(origin(8)).unwrap(), Heads::new());
    // It claims nothing.
    assert_eq!(site.store().heads().get(origin(2)), Hlc::ZERO);
    site.reopen();
    assert_eq!(site.store().tentative(sender).unwrap(), first);
    let second = heads(&[(2, at(2, 0)), (3, at(1, 0))]);
    site.remote(vec![], None, Some(second.clone()));
    assert_eq!(site.store().tentative(sender).unwrap(), second);
    site.remote(vec![], None, None);
    assert_eq!(site.store().tentative(sender).unwrap(), second);
    site.remote(vec![], Some(heads(&[(2, at(2, 0))])), None);
    assert_eq!(site.store().tentative(sender).unwrap(), Heads::new());
}

#[test]
fn what_a_file_says_of_its_sender_is_kept_and_never_taken_back() {
    let mut site = Site::new(1);
    let note = |site: &mut Site, by: u8, heads: &Heads| {
        let request = Request::Carried { origin: origin(by), heads: heads.clone() };
        let committed = site.apply(&[request]).committed;
        site.check();
        committed
    };
    let (early, late) = (heads(&[(2, at(1, 0)), (3, at(9, 0))]), heads(&[(2, at(2, 0))]));
    assert!(note(&mut site, 2, &late) && note(&mut site, 0xff, &early));
    assert!(note(&mut site, 2, &early));
    assert!(!note(&mut site, 2, &late), "nothing new costs no commit");
    let both = heads(&[(2, at(2, 0)), (3, at(9, 0))]);
    for _ in 0..2 {
        let carried = [(origin(2), both.clone()), (origin(0xff), early.clone())];
        assert_eq!(site.store().carried().unwrap(), carried);
        // It claims nothing.
        assert_eq!(site.store().heads().get(origin(2)), Hlc::ZERO);
        site.move_all();
        site.reopen();
    }
}

/// A claim counts, not rows; and it counts for ever.
#[test]
fn a_store_that_expects_peers_awaits_its_first_delta() {
    let mut alone = Site::new(1);
    assert!(!alone.store().awaits_first_delta());
    // Founded alone: it has all there is, whoever comes later.
    alone.config.peers = vec!["http://peer".into()];
    alone.reopen();
    assert!(!alone.store().awaits_first_delta());

    let config = StoreConfig { peers: vec!["http://peer".into()], ..small(1) };
    let (memory, log) = (Memory::default(), Memory::default());
    let mut site = Site { config, memory, log, open: None, ..alone };
    site.reopen();
    assert!(site.store().awaits_first_delta());
    site.put("k", "ours");
    site.merge(vec![peers_row("l", 2, at(1, 0), &[], "x")]);
    site.reopen();
    assert!(site.store().awaits_first_delta());
    // What it claims may be nothing new.
    site.remote(vec![], Some(Heads::new()), None);
    assert!(!site.store().awaits_first_delta());
    site.reopen();
    assert!(!site.store().awaits_first_delta());
    site.move_all();
    site.reopen();
    assert!(!site.store().awaits_first_delta());
    site.check();
}

#[test]
fn a_peers_rows_create_their_tables() {
    let mut site = Site::new(1);
    let row = Row {
        table: TableName::of_any("elsewhere").unwrap(),
        ..peers_row("k", 2, at(1, 0), &[], "x")
    };
    site.merge(vec![row.clone()]);
    site.reopen();
    site.check();
    let snapshot = site.store().snapshot();
    assert_eq!(snapshot.get(&row.table, &row.key).unwrap(), Some(row.body));
}

/// What a commit changed is kept in memory for a while, by its size; its frame may be much larger.
#[test]
fn the_rows_of_a_commit_do_not_keep_the_frame_that_brought_them() {
    let mut site = Site::new(1);
    let body = peers_row("k", 2, at(1, 0), &[], "x").body;
    let mut frame = b"ours-theirs-".to_vec();
    frame.extend_from_slice(body.bytes());
    let frame = Bytes::from(frame);
    let theirs = Row {
        table: table(),
        key: Key::new(frame.slice(5..11)).unwrap(),
        body: Body::decode(frame.slice(12..)).unwrap(),
    };
    let ours = Operation::Put {
        key: Key::new(frame.slice(..4)).unwrap(),
        value: frame.slice(12..),
        expires_at_ms: None,
    };
    let local = site.batch(vec![LocalWrite { table: table(), operation: ours }]);
    let remote =
        RemoteBatch { sender: origin(9), rows: vec![theirs], claim: None, tentative: None };
    let rows = site.apply(&[Request::Local(local), Request::Remote(remote)]).rows;
    assert_eq!(rows.len(), 2);
    assert!(frame.is_unique(), "only the test holds the frame");
}
