//! The entries of a hand-over as the store keeps them: which outbox, which entries. Pure.

use std::collections::BTreeMap;

use bytes::Bytes;

/// For each outbox, by its name, the entries that were handed over, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Entries(BTreeMap<String, Vec<u64>>);

impl Entries {
    pub(super) fn add(&mut self, outbox: &str, mut entries: Vec<u64>) {
        if !entries.is_empty() {
            entries.sort_unstable();
            self.0.insert(outbox.to_owned(), entries);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &[u64])> {
        self.0.iter().map(|(outbox, entries)| (outbox.as_str(), entries.as_slice()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// JSON: `{"_lastword_capture_film":[7,1,1]}`, the first and then the distance of each.
    pub(super) fn to_bytes(&self) -> Bytes {
        let mut distances = BTreeMap::new();
        for (outbox, entries) in &self.0 {
            let mut before = 0;
            let all: Vec<u64> = entries
                .iter()
                .map(|&entry| entry - std::mem::replace(&mut before, entry))
                .collect();
            distances.insert(outbox, all);
        }
        serde_json::to_vec(&distances).expect("numbers and texts").into()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Entries> {
        if bytes.is_empty() {
            return Some(Entries::default());
        }
        let distances: BTreeMap<String, Vec<u64>> = serde_json::from_slice(bytes).ok()?;
        let mut entries = Entries::default();
        for (outbox, all) in distances {
            let mut at = 0_u64;
            let sums: Option<Vec<u64>> = all
                .into_iter()
                .map(|distance| {
                    at = at.checked_add(distance)?;
                    Some(at)
                })
                .collect();
            entries.0.insert(outbox, sums?);
        }
        Some(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_back() {
        let mut entries = Entries::default();
        entries.add("_lastword_capture_film", vec![9, 7, 8, 1 << 40]);
        entries.add("_lastword_capture_none", vec![]);
        let bytes = entries.to_bytes();
        assert!(bytes.starts_with(b"{\"_lastword_capture_film\":[7,1,1,"), "{bytes:?}");
        assert_eq!(Entries::from_bytes(&bytes).unwrap(), entries);
        assert_eq!(Entries::from_bytes(b"").unwrap(), Entries::default());
        assert_eq!(Entries::from_bytes(b"[1]"), None);
    }
}
