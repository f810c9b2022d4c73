//! Both sides together, on rows in memory; and sides that break the rules.

use std::{collections::BTreeMap, convert::Infallible};

use proptest::prelude::*;

use super::*;

/// The rows of one side.
#[derive(Clone, Debug, Default)]
struct Side(BTreeMap<Position, RowHash>);

impl RowSource for Side {
    type Error = Infallible;

    fn rows(
        &self,
        span: &Span,
    ) -> Result<impl Iterator<Item = Result<HashedRow, Infallible>>, Infallible> {
        let rows = self.0.range(span.start.clone()..);
        let rows = rows.take_while(|(position, _)| span.holds(position));
        Ok(rows.map(|(position, hash)| Ok((position.clone(), *hash))))
    }
}

/// A row's position and its hash, which both follow from small numbers.
fn row(key: u64, value: u8) -> (Position, RowHash) {
    let mut bytes = b"t\0".to_vec();
    // Keys of various lengths, some the beginning of others, none in the order of their numbers.
    let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    bytes.extend_from_slice(&mixed[..1 + (key % 8) as usize]);
    bytes.extend(std::iter::repeat_n(b'x', (key % 5) as usize * 40));
    bytes.extend_from_slice(&key.to_be_bytes());
    let hash = RowHasher::new().hash("t", &bytes, &[value]);
    (Position::new(bytes), hash)
}

fn side(rows: impl IntoIterator<Item = (u64, u8)>) -> Side {
    Side(rows.into_iter().map(|(key, value)| row(key, value)).collect())
}

/// What two sides differ in, without any cleverness.
fn naive(here: &Side, there: &Side) -> Vec<Difference> {
    let positions: std::collections::BTreeSet<_> = here.0.keys().chain(there.0.keys()).collect();
    positions
        .into_iter()
        .filter_map(|at| match (here.0.get(at), there.0.get(at)) {
            (Some(a), Some(b)) if a == b => None,
            (Some(_), Some(_)) => Some(Difference::Unequal(at.clone())),
            (Some(_), None) => Some(Difference::OnlyHere(at.clone())),
            (None, _) => Some(Difference::OnlyThere(at.clone())),
        })
        .collect()
}

/// What a comparison found, and what it took.
struct Compared {
    found: Vec<Difference>,
    rounds: usize,
    bytes: usize,
}

fn compare(here: &Side, there: &Side, message_bytes: [usize; 2]) -> Compared {
    let mut comparer = Comparer::new(message_bytes[0]);
    let mut compared = Compared { found: Vec::new(), rounds: 0, bytes: 0 };
    let mut question = Some(comparer.begin(here).unwrap());
    assert_eq!(comparer.rows(), here.0.len() as u64);
    while let Some(asked) = question {
        let answered = answer(there, &asked, message_bytes[1]).unwrap();
        for (message, max) in [(&asked, message_bytes[0]), (&answered, message_bytes[1])] {
            assert!(message.bytes() <= max, "{} of {max} bytes", message.bytes());
            compared.bytes += message.bytes();
        }
        compared.rounds += 1;
        question = comparer
            .on_answer(here, &answered, |difference| compared.found.push(difference))
            .unwrap();
    }
    compared.found.sort_by(|a, b| a.position().cmp(b.position()));
    compared
}

const LARGE: [usize; 2] = [MESSAGE_BYTES_MAX; 2];

#[test]
fn equal_sides_tell_each_other_a_few_kilobytes_once() {
    let rows = side((0..20_000).map(|key| (key, 1)));
    let compared = compare(&rows, &rows, LARGE);
    assert_eq!((compared.found, compared.rounds), (vec![], 1));
    assert!(compared.bytes < 16_000, "{}", compared.bytes);
    let none = compare(&Side::default(), &Side::default(), LARGE);
    assert_eq!((none.found, none.rounds), (vec![], 1));
}

#[test]
fn a_side_with_nothing_is_told_all_and_tells_all() {
    let rows = side((0..3_000).map(|key| (key, 1)));
    let none = Side::default();
    for message_bytes in [LARGE, [MESSAGE_BYTES_MIN; 2]] {
        assert_eq!(compare(&rows, &none, message_bytes).found, naive(&rows, &none));
        assert_eq!(compare(&none, &rows, message_bytes).found, naive(&none, &rows));
    }
    // With room for it all it takes one round, however many rows there are.
    assert_eq!(compare(&none, &rows, LARGE).rounds, 1);
    assert_eq!(compare(&rows, &none, LARGE).rounds, 1);
}

#[test]
fn sides_that_have_nothing_in_common_come_to_an_end() {
    let here = side((0..3_000).map(|key| (key, 1)));
    let there = side((0..3_000).map(|key| (key, 2)));
    for message_bytes in [LARGE, [MESSAGE_BYTES_MIN; 2], [MESSAGE_BYTES_MIN, MESSAGE_BYTES_MAX]] {
        assert_eq!(compare(&here, &there, message_bytes).found, naive(&here, &there));
    }
}

/// By exclusive or, a pair of equal hashes counts for nothing, whichever it is.
#[test]
fn two_equal_hashes_do_not_cancel() {
    let hash = |byte: u8| RowHash::from_bytes([byte; 32]);
    let at = |byte: u8| Position::new(vec![b't', 0, byte]);
    let here = Side((0..100).map(|byte| (at(byte), hash(0x5a))).collect());
    let mut there = here.clone();
    let pair = [40, 41].map(at);
    for position in &pair {
        there.0.insert(position.clone(), hash(0x77));
    }
    assert_eq!(compare(&here, &there, LARGE).found, pair.map(Difference::Unequal));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_found_is_the_difference(
        count in prop_oneof![0u64..20, 0u64..3_000],
        changes in proptest::collection::vec((0u64..4_000, 0u8..4), 0..200),
        small in any::<[bool; 2]>(),
    ) {
        let here = side((0..count).map(|key| (key, 1)));
        let mut there = here.clone();
        for (key, change) in changes {
            let (position, hash) = row(key, change);
            match change {
                0 => drop(there.0.remove(&position)),
                _ => drop(there.0.insert(position, hash)),
            }
        }
        let message_bytes =
            small.map(|small| if small { MESSAGE_BYTES_MIN } else { MESSAGE_BYTES_MAX });
        prop_assert_eq!(compare(&here, &there, message_bytes).found, naive(&here, &there));
        prop_assert_eq!(compare(&there, &here, message_bytes).found, naive(&there, &here));
    }

    /// Whatever a peer says, this side ends or refuses; it neither panics nor goes on for ever.
    #[test]
    fn any_answer_is_taken_or_refused(
        answers in proptest::collection::vec(messages(), 1..8),
        count in 0u64..500,
    ) {
        let here = side((0..count).map(|key| (key, 1)));
        let mut comparer = Comparer::new(MESSAGE_BYTES_MIN);
        comparer.begin(&here).unwrap();
        for said in &answers {
            match comparer.on_answer(&here, said, |_| ()) {
                Ok(Some(_)) => {}
                Ok(None) | Err(CompareError::Message(_)) => break,
            }
        }
        for asked in &answers {
            let _ = answer(&here, asked, MESSAGE_BYTES_MIN);
        }
    }
}

/// Sound messages that fit nothing in particular.
fn messages() -> impl Strategy<Value = Comparison> {
    let ends = proptest::collection::btree_set(proptest::collection::vec(any::<u8>(), 1..4), 0..6);
    (ends, any::<bool>(), proptest::collection::vec(0u8..4, 7)).prop_map(|(ends, whole, kinds)| {
        let mut message = Comparison::new();
        let ends = ends.into_iter().map(|end| Some(Position::new([b"t\0", &end[..]].concat())));
        for (end, kind) in ends.chain(whole.then_some(None)).zip(kinds) {
            let says = match kind {
                0 => Says::Skip,
                1 => Says::Rows(Vec::new()),
                _ => Says::Fingerprint(Fingerprint([kind; 16])),
            };
            message.push(end, says).unwrap();
        }
        message
    })
}

fn position(text: &str) -> Position {
    Position::new(text.as_bytes().to_vec())
}

fn listed(text: &str) -> ListedRow {
    ListedRow { position: position(text), hash: [0; 16] }
}

#[test]
fn unsound_messages_are_refused() {
    let mut message = Comparison::new();
    let end = || Some(position("t\0m"));
    assert_eq!(message.push(Some(Position::START), Says::Skip), Err(ComparisonError::OutOfOrder));
    message.push(end(), Says::Skip).unwrap();
    for disorder in [end(), Some(position("t\0a")), Some(Position::START)] {
        assert_eq!(message.push(disorder, Says::Skip), Err(ComparisonError::OutOfOrder));
    }
    let long = Position::new(vec![b'z'; POSITION_BYTES_MAX + 1]);
    assert_eq!(
        message.push(Some(long), Says::Skip),
        Err(ComparisonError::TooLong(POSITION_BYTES_MAX + 1))
    );
    let mut rows = |rows: &[&str]| {
        message.push(Some(position("t\0x")), Says::Rows(rows.iter().map(|r| listed(r)).collect()))
    };
    for outside in [&["t\0a"][..], &["t\0x"], &["t\0n", "t\0n"], &["t\0o", "t\0n"]] {
        assert_eq!(rows(outside), Err(ComparisonError::RowsOutOfOrder), "{outside:?}");
    }
    assert_eq!(rows(&["tm"]), Err(ComparisonError::NoRow));
    assert_eq!(rows(&["t\0m", "t\0n"]), Ok(()));
    message.push(None, Says::Skip).unwrap();
    assert_eq!(message.push(None, Says::Skip), Err(ComparisonError::OutOfOrder));
    assert_eq!(message.push(end(), Says::Skip), Err(ComparisonError::OutOfOrder));
}

#[test]
fn a_message_has_a_bound() {
    let mut message = Comparison::new();
    let all: Vec<_> = (0..MESSAGE_BYTES_MAX as u64 / 64)
        .map(|n| ListedRow {
            position: Position::of_row(&"t".parse().unwrap(), &n.to_be_bytes()),
            hash: [0; 16],
        })
        .collect();
    let twice = all.iter().cloned().chain(all.iter().map(|row| ListedRow {
        position: Position::new([b"u", &row.position.as_slice()[1..]].concat()),
        hash: [0; 16],
    }));
    assert_eq!(message.push(None, Says::Rows(twice.collect())), Err(ComparisonError::TooLarge));
    let mut pushed = 0u32;
    while message.push(Some(Position::new(pushed.to_be_bytes().to_vec())), Says::Skip).is_ok() {
        pushed += 1;
    }
    assert!(message.bytes() <= MESSAGE_BYTES_MAX && pushed < 40_000, "{pushed}");
}

#[test]
fn a_question_that_lists_rows_is_refused() {
    let mut question = Comparison::new();
    question.push(None, Says::Rows(vec![listed("t\0k")])).unwrap();
    assert_eq!(
        answer(&Side::default(), &question, MESSAGE_BYTES_MAX),
        Err(CompareError::Message(ComparisonError::RowsAsked))
    );
}

/// A question about 1,000 rows, and the ends of its ranges.
fn asked() -> (Side, Comparer, Vec<Option<Position>>) {
    let here = side((0..1_000).map(|key| (key, 1)));
    let mut comparer = Comparer::new(MESSAGE_BYTES_MAX);
    let question = comparer.begin(&here).unwrap();
    let ends = question.ranges().iter().map(|(end, _)| end.clone()).collect();
    (here, comparer, ends)
}

#[test]
fn answers_that_do_not_fit_the_question_are_refused() {
    let other = || Says::Fingerprint(Fingerprint([7; 16]));
    let refused = |answer: &[(Option<Position>, Says)]| {
        let (here, mut comparer, _) = asked();
        let mut message = Comparison::new();
        for (end, says) in answer {
            message.push(end.clone(), says.clone()).unwrap();
        }
        match comparer.on_answer(&here, &message, |_| ()) {
            Err(CompareError::Message(error)) => error,
            Ok(next) => panic!("{answer:?} is taken: {next:?}"),
        }
    };
    let (_, _, ends) = asked();
    let within = Some(Position::new(vec![b't', 0, 1]));
    assert!(within < ends[0]);
    // Says nothing; says again what was asked; skips half a range, at its start and at its end; spans
    // two ranges; speaks of a range of which the first half was skipped.
    assert_eq!(refused(&[]), ComparisonError::NoProgress);
    assert_eq!(refused(&[(ends[0].clone(), other())]), ComparisonError::NoProgress);
    assert_eq!(refused(&[(within.clone(), Says::Skip)]), ComparisonError::NotAsked);
    assert_eq!(
        refused(&[(within.clone(), other()), (ends[0].clone(), Says::Skip)]),
        ComparisonError::NotAsked
    );
    assert_eq!(refused(&[(ends[1].clone(), other())]), ComparisonError::NotAsked);
    assert_eq!(refused(&[(None, Says::Rows(vec![]))]), ComparisonError::NotAsked);
}

#[test]
fn what_is_done_is_not_spoken_of_again() {
    let (here, mut comparer, ends) = asked();
    let mut equal = Comparison::new();
    equal.push(ends[3].clone(), Says::Skip).unwrap();
    // Cut short: the rest is asked for again.
    let next = comparer.on_answer(&here, &equal, |_| ()).unwrap().unwrap();
    assert_eq!(next.ranges()[0], (ends[3].clone(), Says::Skip));
    assert_eq!(next.ranges().len(), ends.len() - 3);
    let mut again = Comparison::new();
    again.push(ends[2].clone(), Says::Rows(vec![])).unwrap();
    assert_eq!(
        comparer.on_answer(&here, &again, |_| ()),
        Err(CompareError::Message(ComparisonError::NotAsked))
    );
}

#[test]
fn a_peer_that_splits_for_ever_is_refused() {
    let here = side([(1, 1)]);
    let mut comparer = Comparer::new(MESSAGE_BYTES_MAX);
    let mut question = comparer.begin(&here).unwrap();
    for round in 0.. {
        // What lies last is halved, and differs.
        let (span, _) = question.spans().last().unwrap();
        let middle = Position::new([span.start.as_slice(), &[0]].concat());
        let differs = || Says::Fingerprint(Fingerprint([9; 16]));
        let mut split = Comparison::new();
        if span.start != Position::START {
            split.push(Some(span.start), Says::Skip).unwrap();
        }
        split.push(Some(middle), differs()).unwrap();
        split.push(span.end, differs()).unwrap();
        match comparer.on_answer(&here, &split, |_| ()) {
            Ok(next) => question = next.unwrap(),
            Err(error) => {
                assert_eq!(error, CompareError::Message(ComparisonError::NoProgress));
                break;
            }
        }
        assert!(round < 100);
    }
}
