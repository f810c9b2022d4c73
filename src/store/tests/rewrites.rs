//! Rows written once more to put right what differs, and rows whose bytes are damaged.

use super::*;

fn rewrite(key: &'static str, standing: Option<Bytes>, value: Option<&'static str>) -> Rewrite {
    Rewrite {
        table: table(),
        key: self::key(key),
        standing,
        value: value.map(Bytes::from),
        expires_at_ms: None,
    }
}

impl Site {
    fn rewrite(&mut self, rows: Vec<Rewrite>) -> Result<RewriteReport, RefusedError> {
        let batch = RewriteBatch { rows, drift_bound_ms: DRIFT_BOUND_MS_DEFAULT };
        match &self.apply(&[Request::Rewrite(batch)]).outcomes[0] {
            Outcome::Rewritten(result) => result.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn bytes_at(&self, key: &'static str) -> Option<Bytes> {
        let place = codec::place(TableId(0), key.as_bytes());
        self.store().published().view.get(Space::Rows, &place).unwrap()
    }

    fn value(&self, key: &'static str) -> Option<Bytes> {
        self.get(key).and_then(|body| body.value())
    }

    /// Makes the row's bytes none that this release reads; which write it was can still be told.
    fn damage(&mut self, key: &'static str) {
        self.move_all();
        let mut bytes = self.bytes_at(key).unwrap().to_vec();
        bytes[0] = 0xee;
        let (store, _) = self.open.as_ref().unwrap();
        let write = store.shared.database.begin_write().unwrap();
        {
            let mut rows = write.open_table(Space::Rows.table()).unwrap();
            let place = codec::place(TableId(0), key.as_bytes());
            rows.insert(&place[..], &bytes[..]).unwrap();
        }
        write.commit().unwrap();
        self.reopen();
        assert!(self.store().snapshot().get(&table(), &self::key(key)).is_err());
    }
}

#[test]
fn a_row_is_written_once_more_only_where_it_still_stands() {
    let mut site = Site::new(1);
    let first = site.put("k", "one");
    let one = site.bytes_at("k");
    let rows =
        vec![rewrite("k", one.clone(), Some("right")), rewrite("l", None, Some("of the peer"))];
    let report = site.rewrite(rows).unwrap();
    assert_eq!(report, RewriteReport { written: 2, changed: 0 });
    assert_eq!(site.value("k").unwrap(), "right");
    assert_eq!(site.value("l").unwrap(), "of the peer");
    // An ordinary write: it is younger than what it replaces, and its writer had seen that.
    let body = site.get("k").unwrap();
    assert!(body.version() > first && body.version().origin == origin(1));
    assert!(site.store().heads().includes(body.version()), "it is claimed, so it spreads");

    // What changed meanwhile is newer: it stays.
    let changed = vec![
        rewrite("k", one, Some("late")),
        rewrite("l", None, Some("late")),
        rewrite("m", Some("gone".into()), Some("late")),
    ];
    assert_eq!(site.rewrite(changed).unwrap(), RewriteReport { written: 0, changed: 3 });
    assert_eq!(site.value("k").unwrap(), "right");
    assert_eq!((site.value("l").unwrap(), site.get("m")), ("of the peer".into(), None));
    let standing = site.bytes_at("k");
    site.rewrite(vec![rewrite("k", standing, None)]).unwrap();
    assert!(site.get("k").unwrap().is_tombstone());
    site.check();
}

#[test]
fn nothing_is_written_once_more_while_the_clock_leads() {
    let mut site = Site::new(1);
    site.put("k", "one");
    site.now_ms -= DRIFT_BOUND_MS_DEFAULT + 10_000;
    let standing = site.bytes_at("k");
    let refused = site.rewrite(vec![rewrite("k", standing, Some("two"))]);
    assert!(matches!(refused, Err(RefusedError::ClockAhead { .. })), "{refused:?}");
    assert_eq!(site.value("k").unwrap(), "one");
}

#[test]
fn a_damaged_row_is_put_right_by_whatever_is_newer() {
    for by in ["a rewrite", "a client", "a peer"] {
        let mut site = Site::new(1);
        let first = site.put("k", "one");
        site.put("other", "v");
        site.damage("k");
        // An older row of a peer is no stand-in for it.
        let older = peers_row("k", 2, Hlc::from_bits(first.hlc.bits() - 1), &[], "old");
        assert_eq!(site.merge(vec![older]).passed_over, 1);
        match by {
            "a rewrite" => {
                let standing = site.bytes_at("k");
                let report = site.rewrite(vec![rewrite("k", standing, Some("two"))]).unwrap();
                assert_eq!(report.written, 1);
            }
            "a client" => drop(site.put("k", "two")),
            _ => drop(site.merge(vec![peers_row("k", 2, at(5, 0), &[], "two")])),
        }
        assert_eq!(site.value("k").unwrap(), "two", "{by}");
        site.move_all();
        site.reopen();
        assert_eq!(site.value("k").unwrap(), "two", "{by}");
        // Rows are still counted, and the index has an entry for each.
        site.check();
    }
}
