//! `lastword.v1.Delta`, written by hand: its rows go out as bytes that were encoded once for all
//! peers, and are copied here, not made.
//!
//! ```text
//! field  1 2          3 3 3 3           4 5 6 7 8 9
//!        Beginning    rows, encoded     Rest
//! ```
//!
//! What is on the wire is what the proto file says, in the order of the fields. A row that comes in
//! is three slices of its frame.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, message},
};

use super::proto::OriginHead;
use crate::{
    model::Row,
    node::{Part, Rows},
};

/// The message.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// The fields before the rows.
    pub beginning: Beginning,
    /// Field 3 as it goes out: the bytes of many rows each, their keys included.
    pub encoded: Vec<Bytes>,
    /// Field 3 as it came in.
    pub rows: Vec<DeltaRow>,
    /// The fields behind them.
    pub rest: Rest,
    /// What the rows take in the frame, compressed or not; no field.
    pub row_bytes: usize,
}

/// Fields 1 and 2.
#[derive(Clone, PartialEq, Message)]
pub struct Beginning {
    /// Whether a delta begins here.
    #[prost(bool, tag = "1")]
    pub first: bool,
    /// The heads of its snapshot.
    #[prost(message, repeated, tag = "2")]
    pub snapshot_heads: Vec<OriginHead>,
}

/// `lastword.v1.DeltaRow`, as it comes in. The table is a name once it was checked.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaRow {
    /// The table's name.
    #[prost(bytes = "bytes", tag = "1")]
    pub table: Bytes,
    /// The key.
    #[prost(bytes = "bytes", tag = "2")]
    pub key: Bytes,
    /// The encoded row.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
}

/// Fields 4 and above.
#[derive(Clone, PartialEq, Message)]
pub struct Rest {
    /// Whether the delta ends here.
    #[prost(bool, tag = "4")]
    pub last: bool,
    /// Rows left.
    #[prost(uint64, tag = "5")]
    pub remaining_rows: u64,
    /// An estimate of their bytes.
    #[prost(uint64, tag = "6")]
    pub remaining_bytes: u64,
    /// The newest Want that the sender has followed.
    #[prost(uint64, tag = "7")]
    pub want_number: u64,
    /// In the first frame of a reconciliation: up to where dead rows may be gone in the snapshot.
    #[prost(message, repeated, tag = "8")]
    pub floor: Vec<OriginHead>,
    /// Rows as [`compress`](super::compress) leaves them.
    #[prost(bytes = "bytes", tag = "9")]
    pub rows_zstd: Bytes,
}

/// The field of the rows, and that of compressed ones.
pub(super) const ROWS: u32 = 3;
const ROWS_ZSTD: u32 = 9;

/// Rows as they go out. What recent commits hold is encoded once, and shared.
#[must_use]
pub fn encoded(rows: &Rows) -> Vec<Bytes> {
    let encoded = |part: &Part| match part {
        Part::Shared(run) => run.encoded(encode_row),
        Part::Own(rows) => encode_rows(rows),
    };
    rows.parts().iter().map(encoded).collect()
}

fn encode_rows(rows: &[Row]) -> Bytes {
    let size_bytes: usize = rows.iter().map(|row| row.size_bytes() + ROW_OVERHEAD_BYTES).sum();
    let mut bytes = Vec::with_capacity(size_bytes);
    for row in rows {
        encode_row(row, &mut bytes);
    }
    bytes.into()
}

/// The keys and lengths of a row's fields and its own, at most.
const ROW_OVERHEAD_BYTES: usize = 20;

/// Appends a row as a field of a delta. None of its parts is ever empty, as a field left out would be.
fn encode_row(row: &Row, out: &mut Vec<u8>) {
    let fields = [row.table.as_str().as_bytes(), row.key.as_slice(), &row.body.bytes()[..]];
    let field_bytes = |bytes: &&[u8]| 1 + prost::length_delimiter_len(bytes.len()) + bytes.len();
    let row_bytes: usize = fields.iter().map(field_bytes).sum();
    put_length(ROWS as u8, row_bytes, out);
    for (number, bytes) in (1..).zip(fields) {
        put_length(number, bytes.len(), out);
        out.extend_from_slice(bytes);
    }
}

/// The key of a field of so many bytes, and their number.
fn put_length(field: u8, bytes: usize, out: &mut Vec<u8>) {
    out.push((field << 3) | WireType::LengthDelimited as u8);
    let mut rest = bytes;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

impl Message for Delta {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.beginning.encode_raw(buf);
        for rows in &self.encoded {
            buf.put_slice(rows);
        }
        message::encode_repeated(ROWS, &self.rows, buf);
        self.rest.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let before = buf.remaining();
        match tag {
            ..ROWS => self.beginning.merge_field(tag, wire_type, buf, ctx),
            ROWS => message::merge_repeated(wire_type, &mut self.rows, buf, ctx),
            _ => self.rest.merge_field(tag, wire_type, buf, ctx),
        }?;
        if matches!(tag, ROWS | ROWS_ZSTD) {
            // The key was read before.
            self.row_bytes += before - buf.remaining() + 1;
        }
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.beginning.encoded_len()
            + self.encoded.iter().map(Bytes::len).sum::<usize>()
            + message::encoded_len_repeated(ROWS, &self.rows)
            + self.rest.encoded_len()
    }

    fn clear(&mut self) {
        *self = Delta::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost_types::FileDescriptorSet;

    use super::*;
    use crate::{
        model::{Body, BodyParts, Context, Hlc, Key, Origin, TableName, Version},
        wire::proto,
    };

    /// The message as it is made from the proto file.
    #[derive(Clone, PartialEq, Message)]
    struct Generated {
        #[prost(bool, tag = "1")]
        first: bool,
        #[prost(message, repeated, tag = "2")]
        snapshot_heads: Vec<OriginHead>,
        #[prost(message, repeated, tag = "3")]
        rows: Vec<GeneratedRow>,
        #[prost(bool, tag = "4")]
        last: bool,
        #[prost(uint64, tag = "5")]
        remaining_rows: u64,
        #[prost(uint64, tag = "6")]
        remaining_bytes: u64,
        #[prost(uint64, tag = "7")]
        want_number: u64,
        #[prost(message, repeated, tag = "8")]
        floor: Vec<OriginHead>,
    }

    #[derive(Clone, PartialEq, Message)]
    struct GeneratedRow {
        #[prost(string, tag = "1")]
        table: String,
        #[prost(bytes = "bytes", tag = "2")]
        key: Bytes,
        #[prost(bytes = "bytes", tag = "3")]
        body: Bytes,
    }

    fn row(table: &str, key: Vec<u8>, value: &[u8]) -> Row {
        Row {
            table: TableName::of_any(table).unwrap(),
            key: Key::new(key).unwrap(),
            body: Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(9), origin: Origin::from_bytes([1; 16]) },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(value),
            }),
        }
    }

    fn generated(row: &Row) -> GeneratedRow {
        let (table, key) = (row.table.as_str().to_owned(), row.key.bytes().clone());
        GeneratedRow { table, key, body: row.body.bytes().clone() }
    }

    fn came(row: GeneratedRow) -> DeltaRow {
        DeltaRow { table: row.table.into(), key: row.key, body: row.body }
    }

    /// A field in the proto file and not here would be lost.
    #[test]
    fn every_field_of_the_proto_file_is_here() {
        let files = FileDescriptorSet::decode(proto::FILE_DESCRIPTOR_SET).unwrap();
        let fields = |name: &str| {
            let mut messages = files.file.iter().flat_map(|file| &file.message_type);
            let message = messages.find(|message| message.name() == name).unwrap();
            let fields = message.field.iter().map(|f| format!("{} {}", f.name(), f.number()));
            fields.collect::<Vec<_>>().join(", ")
        };
        assert_eq!(
            fields("Delta"),
            "first 1, snapshot_heads 2, rows 3, last 4, remaining_rows 5, remaining_bytes 6, \
             want_number 7, floor 8, rows_zstd 9"
        );
        assert_eq!(fields("DeltaRow"), "table 1, key 2, body 3");
    }

    /// A contract with every node out there.
    #[test]
    fn golden_bytes() {
        let delta = Delta {
            beginning: Beginning { first: true, snapshot_heads: Vec::new() },
            encoded: encoded(&vec![row("t", b"k".to_vec(), b"v")].into()),
            rows: Vec::new(),
            rest: Rest { last: true, remaining_rows: 300, ..Rest::default() },
            row_bytes: 47,
        };
        let hex: String = delta.encode_to_vec().iter().map(|b| format!("{b:02x}")).collect();
        let body = "010000240000000000000009010101010101010101010101010101010000000000000000";
        assert_eq!(hex, format!("08011a2d0a017412016b1a25{body}76200128ac02"));
    }

    proptest! {
        /// Lengths of one, two and three bytes, for the row and within it.
        #[test]
        fn the_bytes_are_those_of_the_generated_message(
            sizes in prop::collection::vec((1usize..64, 1usize..513, 0usize..40_000), 0..8),
            first: bool, last: bool, remaining_rows: u64, remaining_bytes: u64, want_number: u64,
            floors in 0usize..3,
        ) {
            let rows: Vec<Row> = sizes
                .iter()
                .map(|&(table, key, value)| {
                    row(&"t".repeat(table), vec![7; key], &vec![b'v'; value])
                })
                .collect();
            let heads = vec![OriginHead { origin: Bytes::from_static(&[1; 16]), hlc: 5 }];
            let floor = vec![OriginHead { origin: Bytes::from_static(&[2; 16]), hlc: 6 }; floors];
            let generated = Generated {
                first,
                snapshot_heads: heads.clone(),
                rows: rows.iter().map(generated).collect(),
                last,
                remaining_rows,
                remaining_bytes,
                want_number,
                floor: floor.clone(),
            };
            let beginning = Beginning { first, snapshot_heads: heads };
            let rest = Rest {
                last,
                remaining_rows,
                remaining_bytes,
                want_number,
                floor,
                rows_zstd: Bytes::new(),
            };
            let encoded = encoded(&rows.clone().into());
            let row_bytes = encoded.iter().map(Bytes::len).sum();
            let sent = Delta {
                beginning: beginning.clone(),
                encoded,
                row_bytes,
                rows: Vec::new(),
                rest: rest.clone(),
            };
            let bytes = sent.encode_to_vec();
            prop_assert_eq!(&bytes, &generated.encode_to_vec());
            prop_assert_eq!(bytes.len(), sent.encoded_len());
            let rows = generated.rows.into_iter().map(came).collect();
            let came = Delta { beginning, encoded: Vec::new(), rows, rest, row_bytes };
            prop_assert_eq!(Delta::decode(&bytes[..]).unwrap(), came.clone());
            prop_assert_eq!(came.encode_to_vec(), bytes);
        }
    }
}
