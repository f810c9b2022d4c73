//! Delta files: a delta for a site to which there is no line, as bytes. docs/format.md is the page for
//! people.
//!
//! ```text
//! magic 8, format 4, header length 4, header     lastword.v1.DeltaFileHeader
//! 1, rows 4, length 4, compressed length 4, lastword.v1.DeltaFileRows in zstd     again and again
//! 0, rows of the whole file 8, SHA-256 of all that comes before 32
//! ```
//!
//! Bytes in, bytes out; whoever opens the file, and syncs it, is elsewhere. One block at a time is in
//! memory. A file that was cut short or altered is found by [`verify`], which is to be run over the whole
//! file before anything of it is used; [`Reader`] looks again, and gives the last rows only once it has
//! seen that the bytes before them are the same.

mod read;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Block, Reader, verify};
pub use write::Writer;

/// What a file begins with.
pub const MAGIC: [u8; 8] = *b"lwdelta\0";
/// The format that this release writes and reads.
pub const FORMAT: u32 = 1;

/// The longest header, in bytes: heads of thousands of origins.
const HEADER_BYTES_MAX: usize = 2 << 20;
/// The largest block, in bytes, compressed or not: a row of the largest value that travels, and more.
const BLOCK_BYTES_MAX: usize = 17 << 20;
/// The checksum at the end.
const SUM_BYTES: usize = 32;
/// Before a block, and before the end.
const KIND_BLOCK: u8 = 1;
const KIND_END: u8 = 0;

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Its rows.
    pub rows: u64,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// Why a file cannot be used, or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// From the disk.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Something else.
    #[error("it is not a delta file of lastword")]
    NotOne,
    /// Of a later release.
    #[error(
        "its format {found} is newer than this release reads ({FORMAT}): upgrade lastword here"
    )]
    Format {
        /// As the file says.
        found: u32,
    },
    /// The end is missing.
    #[error("it is cut short: copy it again")]
    CutShort,
    /// Not the bytes that were written.
    #[error("it was altered on its way ({0}): copy it again")]
    Altered(&'static str),
    /// Larger than any sound part.
    #[error("{0} bytes in one part, more than {BLOCK_BYTES_MAX}")]
    TooLarge(usize),
}
