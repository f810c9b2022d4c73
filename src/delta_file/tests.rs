//! What was written is read; what is not what was written is refused before anything of it is used.

use super::*;
use crate::wire::{
    delta::DeltaRow,
    proto::{DeltaFileHeader, DeltaFileRows, OriginHead},
};

fn header() -> DeltaFileHeader {
    DeltaFileHeader {
        cluster: "shop".into(),
        site: "fra".into(),
        origin: vec![1; 16].into(),
        since: vec![OriginHead { origin: vec![2; 16].into(), hlc: 7 }],
        snapshot_heads: vec![OriginHead { origin: vec![1; 16].into(), hlc: 9 }],
        floor: Vec::new(),
        created_ms: 1_760_000_000_000,
        sealed: true,
    }
}

fn rows(count: usize, value: &[u8]) -> DeltaFileRows {
    let row = |n: usize| DeltaRow {
        table: "t".into(),
        key: format!("k{n}").into(),
        body: value.to_vec().into(),
    };
    DeltaFileRows { rows: (0..count).map(row).collect() }
}

fn file(blocks: &[DeltaFileRows]) -> (Vec<u8>, Summary) {
    let mut writer = Writer::new(Vec::new(), &header()).unwrap();
    for block in blocks {
        writer.rows(block).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<Block>, FileError> {
    let mut reader = Reader::new(bytes)?;
    assert_eq!(*reader.header(), header());
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block()? {
        blocks.push(block);
    }
    assert_eq!(reader.position(), bytes.len() as u64);
    Ok(blocks)
}

#[test]
fn what_was_written_is_read() {
    for blocks in
        [vec![], vec![rows(1, b"v")], vec![rows(3, b"v"), rows(0, b""), rows(2, &[7; 9_000])]]
    {
        let (bytes, summary) = file(&blocks);
        let total: usize = blocks.iter().map(|block| block.rows.len()).sum();
        assert_eq!(summary, Summary { rows: total as u64, bytes: bytes.len() as u64 });
        assert_eq!(verify(&bytes[..]).unwrap(), (header(), summary));
        let got = read(&bytes).unwrap();
        let lasts: Vec<bool> = got.iter().map(|block| block.last).collect();
        let expected = blocks.len().max(1);
        assert_eq!(lasts, (1..=expected).map(|n| n == expected).collect::<Vec<_>>());
        let got: Vec<_> = got.into_iter().map(|block| block.rows).collect();
        assert_eq!(got, if blocks.is_empty() { vec![rows(0, b"")] } else { blocks });
    }
}

/// Rows that are alike take little room.
#[test]
fn rows_are_compressed() {
    let (bytes, _) = file(&[rows(1_000, &[b'x'; 200])]);
    assert!(bytes.len() < 20_000, "{}", bytes.len());
}

#[test]
fn a_bit_flipped_anywhere_is_found_before_anything_is_used() {
    let (bytes, _) = file(&[rows(2, b"value"), rows(1, b"other")]);
    assert!(verify(&bytes[..]).is_ok());
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut altered = bytes.clone();
            altered[at] ^= 1 << bit;
            let found = verify(&altered[..]);
            assert!(found.is_err(), "bit {bit} of byte {at}");
            // The reader alone gives nothing as complete either.
            let complete = Reader::new(&altered[..]).is_ok_and(|mut reader| {
                loop {
                    match reader.next_block() {
                        Ok(Some(block)) if block.last => return true,
                        Ok(Some(_)) => {}
                        Ok(None) | Err(_) => return false,
                    }
                }
            });
            assert!(!complete, "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn a_file_cut_short_anywhere_or_made_longer_is_found() {
    let (bytes, _) = file(&[rows(2, b"value"), rows(1, b"other")]);
    for length in 0..bytes.len() {
        let error = verify(&bytes[..length]).unwrap_err();
        let expected = if length < 16 { "not a delta file" } else { "cut short" };
        assert!(error.to_string().contains(expected), "{length}: {error}");
    }
    let longer = [&bytes[..], b"\n"].concat();
    assert!(verify(&longer[..]).unwrap_err().to_string().contains("behind its end"));
    // A whole block taken out leaves the rest in order, but not the sum.
    let (one, _) = file(&[rows(2, b"value")]);
    let (two, _) = file(&[rows(2, b"value"), rows(2, b"value")]);
    let without_the_end = one.len() - SUM_BYTES - 9;
    let spliced = [&one[..without_the_end], &two[two.len() - SUM_BYTES - 9..]].concat();
    assert!(verify(&spliced[..]).unwrap_err().to_string().contains("checksum"));
}

#[test]
fn lengths_that_would_take_all_memory_are_refused() {
    let (bytes, _) = file(&[rows(1, b"v")]);
    let mut huge = bytes.clone();
    huge[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(verify(&huge[..]), Err(FileError::Altered("a length"))));
    let block_at = 16 + u32::from_be_bytes(bytes[12..16].try_into().unwrap()) as usize;
    for field in [block_at + 5, block_at + 9] {
        let mut huge = bytes.clone();
        huge[field..field + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(verify(&huge[..]), Err(FileError::Altered(_))));
    }
    let mut newer = bytes;
    newer[8..12].copy_from_slice(&2u32.to_be_bytes());
    assert!(matches!(verify(&newer[..]), Err(FileError::Format { found: 2 })));
}

/// The bytes are a contract with every file out there.
#[test]
fn golden_bytes() {
    let header = DeltaFileHeader { cluster: "c".into(), site: "s".into(), ..<_>::default() };
    let (bytes, _) = Writer::new(Vec::new(), &header).unwrap().finish().unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = "6c7764656c746100000000010000000\
                    60a0163120173\
                    000000000000000000";
    assert_eq!(hex[..expected.len()], *expected);
    assert_eq!(bytes.len(), expected.len() / 2 + SUM_BYTES);
}
