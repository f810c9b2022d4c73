//! The rows of a delta as one compressed field, and back.
//!
//! What is compressed is field 3 of the delta, as it would have gone out, so an older reader's
//! rules hold for it. Each frame is compressed by itself: one that is lost with its stream spoils no
//! other. A peer's word for the size is checked before memory is taken for it.

use std::cell::RefCell;

use bytes::{Buf, Bytes, BytesMut};
use prost::{
    Message,
    encoding::{WireType, decode_key},
};
use zstd::{bulk, zstd_safe};

use super::{
    delta::{Delta, DeltaRow, ROWS},
    exchange::{FRAME_BYTES_MAX, FrameError},
};

/// Less is not worth the header.
const COMPRESS_BYTES_MIN: usize = 1_024;
/// The fastest of zstd's ordinary levels: a link sends rows within milliseconds of their commit.
const LEVEL: i32 = 1;

thread_local! {
    /// zstd's tables, which are used again for each frame: up to about a MiB for each thread of the runtime.
    static COMPRESSOR: RefCell<bulk::Compressor<'static>> =
        RefCell::new(bulk::Compressor::new(LEVEL).expect("zstd has this level"));
    static DECOMPRESSOR: RefCell<bulk::Decompressor<'static>> =
        RefCell::new(bulk::Decompressor::new().expect("memory for zstd"));
}

/// Puts compressed rows in the place of those that go out, where that makes the frame smaller.
pub fn compress(delta: &mut Delta) {
    let bytes: usize = delta.encoded.iter().map(Bytes::len).sum();
    if bytes < COMPRESS_BYTES_MIN {
        return;
    }
    let rows = match &delta.encoded[..] {
        [rows] => rows.clone(),
        parts => {
            let mut rows = BytesMut::with_capacity(bytes);
            parts.iter().for_each(|part| rows.extend_from_slice(part));
            rows.freeze()
        }
    };
    // It fails where memory is short: the rows go out as they are.
    if let Ok(compressed) = COMPRESSOR.with_borrow_mut(|zstd| zstd.compress(&rows))
        && compressed.len() < bytes
    {
        delta.encoded.clear();
        delta.rest.rows_zstd = compressed.into();
        delta.row_bytes = field_bytes(&delta.rest.rows_zstd);
    }
}

/// What bytes take as a field of a delta.
fn field_bytes(bytes: &Bytes) -> usize {
    1 + prost::length_delimiter_len(bytes.len()) + bytes.len()
}

/// The rows of a delta that came in compressed.
///
/// # Errors
///
/// [`FrameError`]: not zstd, or more than a frame may hold.
pub(super) fn decompressed(compressed: &[u8]) -> Result<Vec<DeltaRow>, FrameError> {
    let mut rows = plain(compressed)?;
    let mut decoded = Vec::new();
    while rows.has_remaining() {
        match decode_key(&mut rows) {
            Ok((ROWS, WireType::LengthDelimited)) => {}
            _ => return Err(FrameError::Compressed("it holds something else than rows".into())),
        }
        let row = DeltaRow::decode_length_delimited(&mut rows)
            .map_err(|error| FrameError::Compressed(error.to_string()))?;
        if row.body.is_empty() {
            // Millions of these would fit a frame and, decoded, take many times its size.
            return Err(FrameError::Compressed("it holds a row without a body".into()));
        }
        decoded.push(row);
    }
    Ok(decoded)
}

fn plain(compressed: &[u8]) -> Result<Bytes, FrameError> {
    let size = match zstd_safe::get_frame_content_size(compressed) {
        Ok(Some(size)) => size,
        Ok(None) => return Err(FrameError::Compressed("it does not tell its size".into())),
        Err(_) => return Err(FrameError::Compressed("it is not zstd".into())),
    };
    if size > FRAME_BYTES_MAX as u64 {
        return Err(FrameError::TooLarge(size));
    }
    // Where it holds more than it says, zstd finds no room and gives up.
    let mut rows = Vec::with_capacity(size as usize);
    DECOMPRESSOR
        .with_borrow_mut(|zstd| zstd.decompress_to_buffer(compressed, &mut rows))
        .map_err(|error| FrameError::Compressed(error.to_string()))?;
    Ok(rows.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{Body, BodyParts, Context, Hlc, Key, Origin, Row, TableName, Version},
        wire::delta,
    };

    fn rows(count: u64, value: &[u8]) -> Vec<Row> {
        let row = |n: u64| Row {
            table: TableName::of_any("t").unwrap(),
            key: Key::new(format!("key{n}")).unwrap(),
            body: Body::new(&BodyParts {
                version: Version { hlc: Hlc::from_bits(n), origin: Origin::from_bytes([1; 16]) },
                seen: Hlc::ZERO,
                context: &Context::new(),
                expires_at_ms: None,
                value: Some(value),
            }),
        };
        (1..=count).map(row).collect()
    }

    fn sent(rows: &[Row]) -> Delta {
        let halves = rows.split_at(rows.len() / 2);
        let mut encoded = delta::encoded(&halves.0.to_vec().into());
        encoded.extend(delta::encoded(&halves.1.to_vec().into()));
        let row_bytes = encoded.iter().map(Bytes::len).sum();
        Delta { encoded, row_bytes, ..Delta::default() }
    }

    fn compressed(rows: &[Row]) -> Bytes {
        let mut delta = sent(rows);
        compress(&mut delta);
        assert!(delta.encoded.is_empty() && !delta.rest.rows_zstd.is_empty());
        delta.rest.rows_zstd
    }

    #[test]
    fn rows_come_out_as_they_went_in_and_take_less() {
        let rows = rows(100, &b"{\"name\": \"a value\"}".repeat(3));
        let before = sent(&rows);
        let mut delta = before.clone();
        compress(&mut delta);
        let bytes = delta.encode_to_vec();
        assert!(bytes.len() * 4 < before.encoded_len(), "{} bytes", bytes.len());
        let came = Delta::decode(&bytes[..]).unwrap();
        assert_eq!(came.row_bytes, delta.row_bytes);
        let plain = Delta::decode(&before.encode_to_vec()[..]).unwrap();
        assert_eq!(decompressed(&came.rest.rows_zstd).unwrap(), plain.rows);
        assert_eq!((plain.rows.len(), plain.row_bytes), (100, before.row_bytes));
    }

    #[test]
    fn what_is_small_or_noise_goes_out_as_it_is() {
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(4_000)
        .collect();
        for rows in [rows(0, b""), rows(1, &[b'v'; 900]), rows(1, &noise)] {
            let mut delta = sent(&rows);
            let before = delta.clone();
            compress(&mut delta);
            assert_eq!(delta, before);
        }
        compressed(&rows(1, &[b'v'; 1_000]));
    }

    fn refusal(bytes: &[u8]) -> String {
        decompressed(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_bomb_is_refused_before_it_takes_memory() {
        let bomb = bulk::compress(&vec![0; FRAME_BYTES_MAX + 1], LEVEL).unwrap();
        assert!(bomb.len() < 10_000);
        assert_eq!(
            refusal(&bomb),
            "peer: rows_zstd: 16777217 bytes when decompressed, more than the 16777216 of a frame: \
             run the same release of lastword on both sides"
        );
        // Two frames, of which the first tells a small size.
        let mut two = compressed(&rows(20, &[b'v'; 100])).to_vec();
        two.extend_from_slice(&bomb);
        assert!(refusal(&two).contains("too small"), "{}", refusal(&two));
        // A size that is not told would have to be found out by decompressing.
        let mut untold = Vec::new();
        zstd::stream::copy_encode(&[0; 2_000][..], &mut untold, LEVEL).unwrap();
        assert!(refusal(&untold).contains("does not tell its size"), "{}", refusal(&untold));
    }

    #[test]
    fn what_is_not_rows_is_refused() {
        let bulk = |bytes: &[u8]| refusal(&bulk::compress(bytes, LEVEL).unwrap());
        assert!(refusal(b"no zstd").contains("it is not zstd"));
        assert!(refusal(&[]).contains("it is not zstd"));
        let mut cut = compressed(&rows(100, b"value")).to_vec();
        cut.truncate(cut.len() - 5);
        assert!(refusal(&cut).starts_with("peer: rows_zstd: "), "{}", refusal(&cut));
        // Another field; a row that is longer than what holds it; a million rows of nothing.
        assert!(bulk(&[0x20, 1]).contains("something else than rows"));
        bulk(&[0x1a, 100, 1]);
        assert!(bulk(&[0x1a, 0].repeat(1_000_000)).contains("without a body"));
    }
}
