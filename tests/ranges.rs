//! What it costs to compare two large stores, in the bytes that travel.

use std::{collections::BTreeMap, convert::Infallible};

use lastword::{
    protocol::ranges::{
        Comparer, Comparison, Difference, HashedRow, MESSAGE_BYTES_MAX, Position, RowHash,
        RowSource, Span, answer,
    },
    wire::proto,
};
use prost::Message;
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

const ROWS: usize = 1_000_000;

/// Rows with random keys of 16 bytes, in order.
#[derive(Clone)]
struct Rows(Vec<(Position, RowHash)>);

impl RowSource for Rows {
    type Error = Infallible;

    fn rows(
        &self,
        span: &Span,
    ) -> Result<impl Iterator<Item = Result<HashedRow, Infallible>>, Infallible> {
        let from = self.0.partition_point(|(at, _)| *at < span.start);
        let to = match &span.end {
            None => self.0.len(),
            Some(end) => self.0.partition_point(|(at, _)| at < end),
        };
        Ok(self.0[from..to].iter().cloned().map(Ok))
    }
}

fn random_hash(random: &mut StdRng) -> RowHash {
    let mut hash = [0; 32];
    random.fill_bytes(&mut hash);
    RowHash::from_bytes(hash)
}

fn random_row(random: &mut StdRng) -> (Position, RowHash) {
    let mut key = [0; 16];
    random.fill_bytes(&mut key);
    (Position::of_row(&"sessions".parse().unwrap(), &key), random_hash(random))
}

fn random_rows(random: &mut StdRng) -> Rows {
    let rows: BTreeMap<_, _> = (0..ROWS).map(|_| random_row(random)).collect();
    Rows(rows.into_iter().collect())
}

/// Over the wire and back, as two nodes do it; gives the message as it arrives, and its bytes.
fn sent(message: &Comparison) -> (Comparison, usize) {
    let bytes = proto::Comparison::from(message).encode_to_vec();
    let arrived = proto::Comparison::decode(&bytes[..]).unwrap();
    (arrived.try_into().unwrap(), bytes.len())
}

/// What is found, the rounds and the bytes of both directions.
fn compare(here: &Rows, there: &Rows) -> (Vec<Difference>, usize, usize) {
    let mut comparer = Comparer::new(MESSAGE_BYTES_MAX);
    let (mut found, mut rounds, mut bytes) = (Vec::new(), 0, 0);
    let mut question = Some(comparer.begin(here).unwrap());
    while let Some(asked) = question {
        let (asked, asked_bytes) = sent(&asked);
        let (answered, answered_bytes) = sent(&answer(there, &asked, MESSAGE_BYTES_MAX).unwrap());
        question = comparer.on_answer(here, &answered, |one| found.push(one)).unwrap();
        rounds += 1;
        bytes += asked_bytes + answered_bytes;
    }
    found.sort_by(|a, b| a.position().cmp(b.position()));
    (found, rounds, bytes)
}

#[expect(clippy::print_stdout, reason = "the figures are worth reading")]
#[test]
fn a_million_rows_that_differ_in_a_hundred_cost_little() {
    let mut random = StdRng::seed_from_u64(1);
    let here = random_rows(&mut random);

    let (found, rounds, bytes) = compare(&here, &here);
    println!("equal: {rounds} rounds, {bytes} bytes");
    assert_eq!((found, rounds), (vec![], 1));
    assert!(bytes < 5_000, "{bytes}");

    // 34 changed, 33 lost, 33 of their own.
    let mut there: BTreeMap<_, _> = here.0.iter().cloned().collect();
    let mut expected = BTreeMap::new();
    while expected.len() < 100 {
        let (position, _) = here.0[random.random_range(0..ROWS)].clone();
        if expected.contains_key(&position) {
            continue;
        }
        match expected.len() {
            0..34 => {
                there.insert(position.clone(), random_hash(&mut random));
                expected.insert(position.clone(), Difference::Unequal(position));
            }
            34..67 => {
                there.remove(&position);
                expected.insert(position.clone(), Difference::OnlyHere(position));
            }
            _ => {
                let (position, hash) = random_row(&mut random);
                there.insert(position.clone(), hash);
                expected.insert(position.clone(), Difference::OnlyThere(position));
            }
        }
    }
    let there = Rows(there.into_iter().collect());
    let (found, rounds, bytes) = compare(&here, &there);
    println!("100 of {ROWS} differ: {rounds} rounds, {bytes} bytes");
    assert!(found.into_iter().eq(expected.into_values()));
    assert!(rounds <= 5, "{rounds}");
    assert!(bytes < 200_000, "{bytes}");
}
