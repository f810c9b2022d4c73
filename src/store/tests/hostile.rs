//! Whatever a peer may send: merging is total.

use proptest::prelude::*;

use super::*;

/// A body's bytes, sound or not, as a peer may send them.
#[derive(Clone, Debug)]
struct Sent {
    key: usize,
    by: u8,
    hlc: u64,
    seen: u64,
    context: Vec<(u8, u64)>,
    expiry: Option<u64>,
    value: Option<u8>,
    odd_flags: u8,
}

fn sent() -> impl Strategy<Value = Sent> {
    // The store's own origin is 1; stamps are few, so that they meet.
    let stamp = || prop_oneof![0u64..12, Just(u64::MAX), Just(u64::MAX - 1)];
    let context = proptest::collection::vec((0u8..6, stamp()), 0..5);
    let parts = (0usize..3, 0u8..6, stamp(), stamp(), context);
    let rest = (any::<Option<u64>>(), any::<Option<u8>>(), prop_oneof![Just(0u8), any::<u8>()]);
    (parts, rest).prop_map(|((key, by, hlc, seen, context), (expiry, value, odd_flags))| Sent {
        key,
        by,
        hlc,
        seen,
        context,
        expiry,
        value,
        odd_flags,
    })
}

impl Sent {
    fn row(&self) -> Option<Row> {
        let expiry = self.expiry.map(u64::to_be_bytes);
        let mut header = Vec::new();
        header.extend_from_slice(&self.hlc.to_be_bytes());
        header.extend_from_slice(origin(self.by).as_bytes());
        header.extend_from_slice(&self.seen.to_be_bytes());
        header.extend(expiry.iter().flatten());
        if !self.context.is_empty() {
            header.extend_from_slice(&u16::try_from(self.context.len()).unwrap().to_be_bytes());
            for (by, hlc) in &self.context {
                header.extend_from_slice(origin(*by).as_bytes());
                header.extend_from_slice(&hlc.to_be_bytes());
            }
        }
        let flags = u8::from(self.value.is_none())
            | (u8::from(expiry.is_some()) << 1)
            | (u8::from(!self.context.is_empty()) << 2)
            | (self.odd_flags & 0xf8);
        let mut bytes = vec![1, flags];
        bytes.extend_from_slice(&u16::try_from(header.len() + 4).unwrap().to_be_bytes());
        bytes.extend(header);
        bytes.extend(self.value);
        let body = Body::decode(Bytes::from(bytes)).ok()?;
        Some(Row { table: table(), key: key(["a", "b", "c"][self.key]), body })
    }
}

proptest! {
    /// Merging is total: whatever decodes is merged, and to the same rows in any order.
    #[test]
    fn whatever_decodes_is_merged_alike_everywhere(
        sent in proptest::collection::vec(sent(), 1..24),
        claims in proptest::collection::vec((0u8..6, any::<u64>()), 0..3),
    ) {
        let mut rows: Vec<Row> = Vec::new();
        for row in sent.iter().filter_map(Sent::row) {
            // One write, one version: two with the same are a forged store, not a hostile row.
            if rows.iter().all(|other| other.body.version() != row.body.version()) {
                rows.push(row);
            }
        }
        let mut sites = [Site::new(1), Site::new(2)];
        sites[0].merge(rows.clone());
        rows.reverse();
        for row in rows {
            sites[1].merge(vec![row]);
        }
        let [one, other] = &mut sites;
        for site in [&*one, &*other] {
            site.check();
        }
        prop_assert_eq!(one.changes(&Heads::new()), other.changes(&Heads::new()));

        // Nor do claims of any kind hurt, or a client's writes over all that: at worst the clock leads
        // by so much that they are refused.
        let write = |site: &mut Site| {
            let written = site.try_write(vec![put("a", "x"), delete("b"), put("c", "y")]);
            let refused = matches!(written, Err(RefusedError::ClockAhead { .. }));
            assert!(written.is_ok() || refused, "{written:?}");
        };
        write(one);
        let claims: Heads =
            claims.into_iter().map(|(by, hlc)| (origin(by), Hlc::from_bits(hlc))).collect();
        one.remote(vec![], Some(claims.clone()), Some(claims));
        write(one);
        one.reopen();
        one.check();
    }
}
