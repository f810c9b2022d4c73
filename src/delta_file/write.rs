//! Writing a delta file.

use std::io::Write;

use bytes::BufMut;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    BLOCK_BYTES_MAX, FORMAT, FileError, HEADER_BYTES_MAX, KIND_BLOCK, KIND_END, MAGIC, Summary,
};
use crate::wire::proto::{DeltaFileHeader, DeltaFileRows};

/// zstd's own default: further levels cost far more time than they save room.
const COMPRESSION_LEVEL: i32 = 3;

/// Writes a file from its beginning to its end.
pub struct Writer<W> {
    out: W,
    sum: Sha256,
    written: Summary,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    ///
    /// [`FileError`]: nothing of the file can be used.
    pub fn new(out: W, header: &DeltaFileHeader) -> Result<Writer<W>, FileError> {
        let header = header.encode_to_vec();
        if header.len() > HEADER_BYTES_MAX {
            return Err(FileError::TooLarge(header.len()));
        }
        let mut writer = Writer { out, sum: Sha256::new(), written: Summary::default() };
        let mut front = Vec::with_capacity(16);
        front.put_slice(&MAGIC);
        front.put_u32(FORMAT);
        front.put_u32(length(header.len()));
        writer.put(&front)?;
        writer.put(&header)?;
        Ok(writer)
    }

    /// Adds rows.
    ///
    /// # Errors
    ///
    /// [`FileError`]: nothing of the file can be used.
    pub fn rows(&mut self, rows: &DeltaFileRows) -> Result<(), FileError> {
        let block = rows.encode_to_vec();
        let compressed = zstd::bulk::compress(&block, COMPRESSION_LEVEL)?;
        if block.len().max(compressed.len()) > BLOCK_BYTES_MAX {
            return Err(FileError::TooLarge(block.len()));
        }
        let mut front = Vec::with_capacity(13);
        front.put_u8(KIND_BLOCK);
        front.put_u32(length(rows.rows.len()));
        front.put_u32(length(block.len()));
        front.put_u32(length(compressed.len()));
        self.written.rows += rows.rows.len() as u64;
        self.put(&front)?;
        self.put(&compressed)
    }

    /// Ends the file; gives what it was written to, which is to be synced, and what was written.
    ///
    /// # Errors
    ///
    /// [`FileError`]: nothing of the file can be used.
    pub fn finish(mut self) -> Result<(W, Summary), FileError> {
        let mut end = Vec::with_capacity(9);
        end.put_u8(KIND_END);
        end.put_u64(self.written.rows);
        self.put(&end)?;
        let sum = self.sum.finalize();
        self.out.write_all(&sum)?;
        self.out.flush()?;
        self.written.bytes += sum.len() as u64;
        Ok((self.out, self.written))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.sum.update(bytes);
        self.written.bytes += bytes.len() as u64;
        Ok(self.out.write_all(bytes)?)
    }
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("within the bounds of a part, or refused for them")
}
