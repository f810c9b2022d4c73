//! The operations of a workload: which key, which value, in which order.

use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use rand_distr::{Distribution, Zipf};

use super::profile::Profile;

/// Values are cut out of so many random bytes, which no compression shrinks.
const NOISE_BYTES: usize = 1 << 16;

/// What to do next.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operation {
    Get(Bytes),
    Put(Bytes, Bytes),
    Delete(Bytes),
}

/// An endless row of operations; the same seed gives the same row.
#[derive(Debug)]
pub(super) struct Source {
    profile: Profile,
    zipf: Zipf<f64>,
    keys: u64,
    noise: Bytes,
    random: SmallRng,
    written: u64,
    worker: u64,
}

impl Source {
    /// For worker number `worker`, over `keys` keys, at least one.
    pub(super) fn new(profile: Profile, keys: u64, worker: u64, seed: u64) -> Source {
        let mut random = SmallRng::seed_from_u64(seed ^ worker.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut noise = vec![0; NOISE_BYTES + profile.value_bytes];
        random.fill_bytes(&mut noise);
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^53 keys")]
        let zipf = Zipf::new(keys as f64, profile.zipf_exponent)
            .expect("at least one key, and an exponent above zero");
        Source { profile, zipf, keys, noise: noise.into(), random, written: 0, worker }
    }

    /// The next write, whatever share of the operations are writes.
    pub(super) fn next_put(&mut self) -> (Bytes, Bytes) {
        (self.key(), self.value())
    }

    pub(super) fn next(&mut self) -> Operation {
        let key = self.key();
        let choice: f64 = self.random.random();
        if choice < self.profile.get_share {
            Operation::Get(key)
        } else if choice < self.profile.get_share + self.profile.delete_share {
            Operation::Delete(key)
        } else {
            Operation::Put(key, self.value())
        }
    }

    /// The number of the key in front, so that hot keys do not lie side by side; padded.
    fn key(&mut self) -> Bytes {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "1 to the number of keys"
        )]
        let rank = self.zipf.sample(&mut self.random) as u64;
        // A step that has no factor in common with the number of keys visits each of them.
        let scattered = rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (rank % self.keys);
        let width = self.profile.key_bytes;
        let mut key = format!("{scattered:016x}:{rank}:").into_bytes();
        key.resize(width.max(key.len()), b'k');
        key.into()
    }

    /// Which write this is, then noise; never the same twice.
    fn value(&mut self) -> Bytes {
        self.written += 1;
        let mark = format!("{}.{};", self.worker, self.written);
        let length = self.profile.value_bytes.max(mark.len());
        let at = self.random.random_range(0..NOISE_BYTES);
        let mut value = Vec::with_capacity(length);
        value.extend_from_slice(mark.as_bytes());
        value.extend_from_slice(&self.noise[at..at + length - mark.len()]);
        value.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_those_of_the_profile() {
        let profile: Profile = "cluster12".parse().unwrap();
        let mut source = Source::new(profile, 10_000, 1, 42);
        let (mut gets, mut puts) = (0, 0);
        for _ in 0..10_000 {
            match source.next() {
                Operation::Get(key) => {
                    assert_eq!(key.len(), 44);
                    gets += 1;
                }
                Operation::Put(key, value) => {
                    assert_eq!((key.len(), value.len()), (44, 1_030));
                    puts += 1;
                }
                Operation::Delete(_) => panic!("this workload has no deletes"),
            }
        }
        assert!((1_800..2_200).contains(&gets) && puts == 10_000 - gets, "{gets} gets");
    }

    #[test]
    fn the_same_seed_gives_the_same_operations_and_workers_differ() {
        let profile: Profile = "cluster19".parse().unwrap();
        let take = |worker, seed| {
            let mut source = Source::new(profile, 100, worker, seed);
            (0..50).map(|_| source.next()).collect::<Vec<_>>()
        };
        assert_eq!(take(1, 7), take(1, 7));
        assert_ne!(take(1, 7), take(2, 7));
        assert_ne!(take(1, 7), take(1, 8));
    }
}
