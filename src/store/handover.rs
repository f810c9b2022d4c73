//! What a store remembers of the writes that it took over from a database: who may be told that they are
//! done with, and which of its own stamps they have.
//!
//! An application's write in MySQL becomes this store's write by a *hand-over*: rows and a receipt in one
//! commit. Hand-overs are numbered, so that one which was asked for twice is made once, and after a
//! crash the receipt says what need not be asked for again.
//!
//! **Spans.** Whether the database had seen a row of the store is read off the heads it had. But a row
//! that came from there it knows before its heads say so: therefore the stamps of such rows are kept, as
//! the spans in which each hand-over was stamped, until the heads have passed them.

use bytes::{Buf, BufMut, Bytes};

use super::{
    Snapshot, StoreError,
    tables::{self, Space},
};
use crate::model::{Hlc, Origin, Version};

/// How many spans are kept. Beyond, the oldest go: at worst a conflict is recorded that was none.
const SPANS_MAX: usize = 4_096;

/// The newest hand-over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Its number; 0: there was none yet.
    pub number: u64,
    /// What was handed over, in the words of whoever did it.
    pub entries: Bytes,
}

impl Receipt {
    /// 8 bytes of number, then the entries.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.entries.len());
        bytes.put_u64(self.number);
        bytes.put_slice(&self.entries);
        bytes
    }

    pub(super) fn from_bytes(mut bytes: Bytes) -> Result<Receipt, StoreError> {
        let number =
            bytes.try_get_u64().map_err(|_| StoreError::Damaged("the receipt of a hand-over"))?;
        Ok(Receipt { number, entries: bytes })
    }
}

/// Stamps of this store's own writes that came from its database; the first and the last of each span,
/// in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spans(Vec<(Hlc, Hlc)>);

impl Spans {
    pub(super) fn includes(&self, hlc: Hlc) -> bool {
        let at = self.0.partition_point(|&(_, last)| last < hlc);
        self.0.get(at).is_some_and(|&(first, _)| first <= hlc)
    }

    /// Adds a span above all others, and lets those go which lie at or below `passed`.
    pub(super) fn add(&mut self, first: Hlc, last: Hlc, passed: Hlc) {
        self.0.retain(|&(_, last)| last > passed);
        self.0.push((first, last));
        let too_many = self.0.len().saturating_sub(SPANS_MAX);
        self.0.drain(..too_many);
    }

    /// 16 bytes for each.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.0.len() * 16);
        for (first, last) in &self.0 {
            bytes.put_u64(first.bits());
            bytes.put_u64(last.bits());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Spans, StoreError> {
        let (spans, []) = bytes.as_chunks::<16>() else {
            return Err(StoreError::Damaged("the stamps of hand-overs"));
        };
        let span =
            |mut span: &[u8]| (Hlc::from_bits(span.get_u64()), Hlc::from_bits(span.get_u64()));
        Ok(Spans(spans.iter().map(|bytes| span(bytes)).collect()))
    }
}

impl Snapshot {
    /// The newest hand-over from this node's database.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn receipt(&self) -> Result<Receipt, StoreError> {
        let bytes = self.published.view.get(Space::State, tables::STATE_RECEIPT)?;
        bytes.map_or(Ok(Receipt::default()), Receipt::from_bytes)
    }

    /// Whether the store `own`, which this is, took this write over from its database, which therefore
    /// has it; certain until the database's heads, as handed over, have passed it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read.
    pub fn is_handed_over(&self, own: Origin, version: Version) -> Result<bool, StoreError> {
        if version.origin != own {
            return Ok(false);
        }
        let bytes = self.published.view.get(Space::State, tables::STATE_SPANS)?;
        let spans = bytes.map_or(Ok(Spans::default()), |bytes| Spans::from_bytes(&bytes))?;
        Ok(spans.includes(version.hlc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hlc(bits: u64) -> Hlc {
        Hlc::from_bits(bits)
    }

    #[test]
    fn spans_hold_what_lies_within_until_it_is_passed() {
        let mut spans = Spans::default();
        spans.add(hlc(5), hlc(7), Hlc::ZERO);
        spans.add(hlc(10), hlc(10), Hlc::ZERO);
        let held: Vec<_> = (0..12).filter(|&bits| spans.includes(hlc(bits))).collect();
        assert_eq!(held, [5, 6, 7, 10]);
        assert_eq!(Spans::from_bytes(&spans.to_bytes()).unwrap(), spans);
        spans.add(hlc(20), hlc(21), hlc(9));
        assert!(!spans.includes(hlc(6)) && spans.includes(hlc(10)) && spans.includes(hlc(20)));
        assert!(Spans::from_bytes(&[0; 15]).is_err());
    }

    #[test]
    fn the_oldest_spans_go_that_are_too_many() {
        let mut spans = Spans::default();
        for n in 1..=u64::try_from(SPANS_MAX).unwrap() + 3 {
            spans.add(hlc(n * 2), hlc(n * 2), Hlc::ZERO);
        }
        assert_eq!(spans.0.len(), SPANS_MAX);
        assert!(!spans.includes(hlc(6)) && spans.includes(hlc(8)));
    }

    #[test]
    fn a_receipt_is_read_back() {
        let receipt = Receipt { number: 7, entries: Bytes::from_static(b"xyz") };
        assert_eq!(Receipt::from_bytes(receipt.to_bytes().into()).unwrap(), receipt);
        assert!(Receipt::from_bytes(Bytes::from_static(b"short")).is_err());
    }
}
