//! Rows as another store compares them.

use super::*;
use crate::protocol::ranges::{
    Comparer, Difference, MESSAGE_BYTES_MAX, Position, RowHash, RowSource, Span, answer,
};

fn row_in(table: &str, key: &[u8], hlc: Hlc, value: Option<&[u8]>) -> Row {
    let body = Body::new(&BodyParts {
        version: Version { hlc, origin: origin(7) },
        seen: Hlc::ZERO,
        context: &Context::new(),
        expires_at_ms: Some(1),
        value,
    });
    let table = TableName::of_any(table).unwrap();
    Row { table, key: Key::new(key.to_vec()).unwrap(), body }
}

/// Rows in five tables, in the order given; the key of each counts up from `\0`.
fn site_with(origin_byte: u8, tables: &[&str]) -> Site {
    let mut site = Site::new(origin_byte);
    for table in tables {
        let rows = (0..20u8).map(|n| {
            let key = [&[n % 3][..], &[n, 0xff, 0]].concat();
            // Every fifth is a tombstone; all others have expired.
            row_in(table, &key, at(1, u64::from(n) + 1), (n % 5 != 0).then_some(b"v"))
        });
        site.merge(rows.collect());
    }
    site
}

const TABLES: [&str; 5] = ["b", "a", "_members", "a_b", "ab"];

fn rows(site: &Site, with_system: bool, span: &Span) -> Vec<(Position, RowHash)> {
    let positions = site.store().snapshot().positions(with_system);
    positions.rows(span).unwrap().map(Result::unwrap).collect()
}

#[test]
fn rows_come_in_one_order_whatever_the_numbers_of_their_tables() {
    let here = site_with(1, &TABLES);
    let there = site_with(2, &["ab", "a_b", "_members", "b", "a"]);
    let all = rows(&here, true, &Span::whole());
    // The system's own tables, tombstones left out, expired rows kept.
    assert_eq!(all.len(), 5 * 16);
    assert!(all.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(all, rows(&there, true, &Span::whole()));
    let clients: Vec<_> =
        all.iter().filter(|(at, _)| !at.as_slice().starts_with(b"_")).cloned().collect();
    assert_eq!(rows(&here, false, &Span::whole()), clients);
}

#[test]
fn a_span_holds_what_lies_in_it() {
    let mut site = site_with(1, &TABLES);
    let all = rows(&site, true, &Span::whole());
    let mut bounds: Vec<Position> = all.iter().step_by(7).map(|(at, _)| at.clone()).collect();
    for text in ["", "\0", "_", "_members", "_members\0", "a", "a\0", "a\0\u{1}", "a\u{1}", "a_b"] {
        bounds.push(Position::new(text.as_bytes().to_vec()));
    }
    for text in ["a_b\0\u{7f}", "aa", "ab\0", "b", "b\0\u{2}", "b\u{7f}", "c"] {
        bounds.push(Position::new(text.as_bytes().to_vec()));
    }
    for _ in 0..2 {
        for start in &bounds {
            for end in bounds.iter().cloned().map(Some).chain([None]) {
                let span = Span { start: start.clone(), end };
                let within = |at: &Position| {
                    span.start <= *at && span.end.as_ref().is_none_or(|end| at < end)
                };
                let expected: Vec<_> = all.iter().filter(|(at, _)| within(at)).cloned().collect();
                assert_eq!(rows(&site, true, &span), expected, "{span:?}");
            }
        }
        // And once more from redb.
        site.move_all();
    }
}

#[test]
fn two_stores_find_the_rows_in_which_they_differ() {
    let mut here = site_with(1, &TABLES);
    let mut there = site_with(2, &TABLES);
    let later = |table, key, value| row_in(table, key, at(2, 0), value);
    here.merge(vec![later("b", b"here", Some(b"v"))]);
    there.merge(vec![later("ab", b"there", Some(b"v"))]);
    // A tombstone of a row that the other has; and two of rows that nobody else has.
    there.merge(vec![later("a", &[1, 1, 0xff, 0], None), later("c", b"none", None)]);
    here.merge(vec![later("b", b"none", None), later("_members", &[2, 2, 0xff, 0], Some(b"w"))]);

    let (ours, theirs) =
        (here.store().snapshot().positions(true), there.store().snapshot().positions(true));
    let mut comparer = Comparer::new(MESSAGE_BYTES_MAX);
    let mut question = Some(comparer.begin(&ours).unwrap());
    let mut found = Vec::new();
    while let Some(asked) = question {
        let answered = answer(&theirs, &asked, MESSAGE_BYTES_MAX).unwrap();
        question = comparer.on_answer(&ours, &answered, |one| found.push(one)).unwrap();
    }
    found.sort_by(|a, b| a.position().cmp(b.position()));
    let at = |table: &str, key: &[u8]| Position::of_row(&TableName::of_any(table).unwrap(), key);
    assert_eq!(
        found,
        [
            Difference::Unequal(at("_members", &[2, 2, 0xff, 0])),
            Difference::OnlyHere(at("a", &[1, 1, 0xff, 0])),
            Difference::OnlyThere(at("ab", b"there")),
            Difference::OnlyHere(at("b", b"here")),
        ]
    );
}
