//! A row's hash, and the sum of many.
//!
//! Hashes are added modulo 2^256, so that the sum of a range does not depend on who cut it where, and
//! every row counts: by exclusive or, two equal ones would cancel. The sum guards against accident,
//! not against a peer that chooses its rows to collide; such a peer could simply claim to be equal.

use std::fmt;

/// Sets these hashes apart from all others of the same bytes.
const CONTEXT: &str = "lastword 2026-01-01 hash of a row in a comparison of ranges";

/// The hash of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowHash([u8; 32]);

/// What a list shows of a row's hash.
pub type ListedHash = [u8; 16];

impl RowHash {
    /// A hash of these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> RowHash {
        RowHash(bytes)
    }

    /// Its first half.
    #[must_use]
    pub fn listed(&self) -> ListedHash {
        *self.0.first_chunk().expect("16 of 32 bytes")
    }
}

/// Hashes rows, one after the other.
#[derive(Clone)]
pub struct RowHasher(blake3::Hasher);

impl RowHasher {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> RowHasher {
        RowHasher(blake3::Hasher::new_derive_key(CONTEXT))
    }

    /// The hash of a row: of its table's name, its key and the bytes of its body.
    #[must_use]
    pub fn hash(&mut self, table: &str, key: &[u8], body: &[u8]) -> RowHash {
        // A reset keeps what was derived from the context.
        self.0.reset();
        for part in [table.as_bytes(), key, body] {
            self.0.update(&(part.len() as u64).to_be_bytes());
            self.0.update(part);
        }
        RowHash(*self.0.finalize().as_bytes())
    }
}

impl Default for RowHasher {
    fn default() -> RowHasher {
        RowHasher::new()
    }
}

impl fmt::Debug for RowHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RowHasher")
    }
}

/// The sum of some rows' hashes, and how many they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Least significant first.
    limbs: [u64; 4],
    count: u64,
}

impl Sum {
    /// How many rows.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Adds a row.
    pub fn add(&mut self, hash: &RowHash) {
        let (chunks, _) = hash.0.as_chunks::<8>();
        let mut limbs = [0; 4];
        for (limb, chunk) in limbs.iter_mut().zip(chunks) {
            *limb = u64::from_le_bytes(*chunk);
        }
        self.join(&Sum { limbs, count: 1 });
    }

    /// Adds the rows of another sum.
    pub fn join(&mut self, other: &Sum) {
        let mut carry = false;
        for (limb, more) in self.limbs.iter_mut().zip(other.limbs) {
            (*limb, carry) = limb.carrying_add(more, carry);
        }
        self.count = self.count.wrapping_add(other.count);
    }

    /// What stands for the rows in a message.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let mut bytes = [0; 40];
        for (chunk, number) in
            bytes.chunks_exact_mut(8).zip(self.limbs.into_iter().chain([self.count]))
        {
            chunk.copy_from_slice(&number.to_le_bytes());
        }
        Fingerprint(*blake3::hash(&bytes).as_bytes().first_chunk().expect("16 of 32 bytes"))
    }
}

/// What stands for a range of rows in a message: equal for equal rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 16]);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(hashes: &[[u8; 32]]) -> Sum {
        let mut sum = Sum::default();
        for hash in hashes {
            sum.add(&RowHash(*hash));
        }
        sum
    }

    #[test]
    fn equal_hashes_do_not_cancel() {
        let (once, thrice) = (sum(&[[7; 32]]), sum(&[[7; 32]; 3]));
        assert_ne!(once.limbs, thrice.limbs);
        assert_ne!(once.fingerprint(), thrice.fingerprint());
        // Nor where the sum is the same: zeros count.
        assert_ne!(sum(&[[0; 32]]).fingerprint(), Sum::default().fingerprint());
    }

    #[test]
    fn carries_go_through_all_limbs_and_off_the_end() {
        let mut one = [0; 32];
        one[0] = 1;
        assert_eq!(sum(&[[0xff; 32], one]).limbs, [0; 4]);
        let mut low = [0; 32];
        low[..8].fill(0xff);
        assert_eq!(sum(&[low, one]).limbs, [0, 1, 0, 0]);
    }

    #[test]
    fn where_a_part_ends_counts() {
        let mut hasher = RowHasher::new();
        let hashes = [("t", "ab", "c"), ("t", "a", "bc"), ("ta", "b", "c"), ("t", "ab", "c")]
            .map(|(table, key, body)| hasher.hash(table, key.as_bytes(), body.as_bytes()));
        assert_eq!(hashes[0], hashes[3]);
        assert!(hashes[0] != hashes[1] && hashes[0] != hashes[2] && hashes[1] != hashes[2]);
    }

    /// Two releases that disagree here would find all rows different.
    #[test]
    fn golden_bytes() {
        let hash = RowHasher::new().hash("sessions", b"abc", b"body");
        let mut sum = Sum::default();
        sum.add(&hash);
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(hex(&hash.listed()), "098ea7d5fae3ad00017373fbe77fb70f");
        assert_eq!(hex(&sum.fingerprint().0), "5b1f1298632a4ac50ef517c2d79a989d");
    }

    proptest! {
        #[test]
        fn a_sum_is_that_of_its_parts(hashes: Vec<[u8; 32]>, at: prop::sample::Index) {
            let (left, right) = hashes.split_at(at.index(hashes.len() + 1));
            let mut parts = sum(right);
            parts.join(&sum(left));
            prop_assert_eq!(parts, sum(&hashes));
            prop_assert_eq!(parts.count(), hashes.len() as u64);
        }
    }
}
