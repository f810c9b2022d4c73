//! Reading a delta file.

use std::io::{ErrorKind, Read};

use bytes::{Buf, Bytes};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    BLOCK_BYTES_MAX, FORMAT, FileError, HEADER_BYTES_MAX, KIND_BLOCK, KIND_END, MAGIC, SUM_BYTES,
    Summary,
};
use crate::wire::proto::{DeltaFileHeader, DeltaFileRows};

/// Some rows of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Block {
    /// The rows.
    pub rows: DeltaFileRows,
    /// No rows come after these; the file up to its end is as it was written.
    pub last: bool,
}

/// Reads all of a file, and says what it holds where it is whole and unaltered.
///
/// # Errors
///
/// [`FileError`]: use nothing of it.
pub fn verify(input: impl Read) -> Result<(DeltaFileHeader, Summary), FileError> {
    let mut reader = Reader::new(input)?;
    while reader.pass_block()? {}
    Ok((reader.header, reader.read))
}

/// Reads a file that [`verify`] found sound.
pub struct Reader<R> {
    input: R,
    sum: Sha256,
    header: DeltaFileHeader,
    read: Summary,
    /// A block that was read, while what follows it was not looked at.
    next: Option<Compressed>,
    ended: bool,
}

/// A block as it stands in the file.
struct Compressed {
    rows: usize,
    length: usize,
    bytes: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning of a file.
    ///
    /// # Errors
    ///
    /// [`FileError`]: use nothing of it.
    pub fn new(input: R) -> Result<Reader<R>, FileError> {
        let mut reader = Reader {
            input,
            sum: Sha256::new(),
            header: DeltaFileHeader::default(),
            read: Summary::default(),
            next: None,
            ended: false,
        };
        // A file of something else may be shorter than this.
        let mut front = match reader.take::<16>() {
            Err(FileError::CutShort) => return Err(FileError::NotOne),
            front => Bytes::copy_from_slice(&front?),
        };
        if front.split_to(MAGIC.len()) != MAGIC[..] {
            return Err(FileError::NotOne);
        }
        let found = front.get_u32();
        if found != FORMAT {
            return Err(FileError::Format { found });
        }
        let header = reader.take_bytes(front.get_u32() as usize, HEADER_BYTES_MAX)?;
        reader.header =
            DeltaFileHeader::decode(&header[..]).map_err(|_| FileError::Altered("its header"))?;
        Ok(reader)
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &DeltaFileHeader {
        &self.header
    }

    /// How many bytes of the file were read.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.read.bytes
    }

    /// The next rows. A file without rows has one empty last block; after the last there is `None`.
    ///
    /// # Errors
    ///
    /// [`FileError`]: the rest cannot be used.
    pub fn next_block(&mut self) -> Result<Option<Block>, FileError> {
        if self.ended {
            return Ok(None);
        }
        let block = match self.next.take() {
            Some(block) => Some(block),
            None => self.take_block()?,
        };
        if let Some(block) = block {
            self.next = self.take_block()?;
            self.ended = self.next.is_none();
            return Ok(Some(Block { rows: block.decode()?, last: self.ended }));
        }
        self.ended = true;
        Ok(Some(Block { rows: DeltaFileRows::default(), last: true }))
    }

    /// Reads a block and leaves it; `false`: the end was there instead, and is sound.
    fn pass_block(&mut self) -> Result<bool, FileError> {
        Ok(self.take_block()?.is_some())
    }

    fn take_block(&mut self) -> Result<Option<Compressed>, FileError> {
        match self.take::<1>()? {
            [KIND_BLOCK] => {}
            [KIND_END] => return self.take_end().map(|()| None),
            _ => return Err(FileError::Altered("a block's beginning")),
        }
        let mut front = Bytes::copy_from_slice(&self.take::<12>()?);
        let (rows, length) = (front.get_u32() as usize, front.get_u32() as usize);
        if length > BLOCK_BYTES_MAX {
            return Err(FileError::Altered("a block's length"));
        }
        let bytes = self.take_bytes(front.get_u32() as usize, BLOCK_BYTES_MAX)?;
        self.read.rows += rows as u64;
        Ok(Some(Compressed { rows, length, bytes }))
    }

    fn take_end(&mut self) -> Result<(), FileError> {
        let rows = u64::from_be_bytes(self.take::<8>()?);
        let expected = self.sum.clone().finalize();
        let sum = self.take::<SUM_BYTES>()?;
        if sum[..] != expected[..] || rows != self.read.rows {
            return Err(FileError::Altered("its checksum does not fit"));
        }
        if self.input.read(&mut [0])? > 0 {
            return Err(FileError::Altered("something stands behind its end"));
        }
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], FileError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn take_bytes(&mut self, length: usize, max: usize) -> Result<Vec<u8>, FileError> {
        if length > max {
            return Err(FileError::Altered("a length"));
        }
        let mut bytes = vec![0; length];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), FileError> {
        self.input.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => FileError::CutShort,
            _ => FileError::Io(error),
        })?;
        self.sum.update(&*bytes);
        self.read.bytes += bytes.len() as u64;
        Ok(())
    }
}

impl Compressed {
    fn decode(&self) -> Result<DeltaFileRows, FileError> {
        const ALTERED: FileError = FileError::Altered("a block's content");
        let block = zstd::bulk::decompress(&self.bytes, self.length).map_err(|_| ALTERED)?;
        let rows = DeltaFileRows::decode(Bytes::from(block)).map_err(|_| ALTERED)?;
        if rows.rows.len() != self.rows {
            return Err(ALTERED);
        }
        Ok(rows)
    }
}
