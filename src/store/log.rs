//! The log: what makes a commit durable, one sequential write and one sync.
//!
//! A file of segments that are written before they are used, so that a sync need not touch the
//! file's metadata, and used again once what they hold has moved into redb.
//!
//! ```text
//! segment: record, record, ... then zeros, or what an earlier use left
//! record:  magic 4, checksum 4, length 4, last 1, part 4, sequence 8, boot 8, then the payload
//! ```
//!
//! All numbers are big-endian. The checksum (CRC-32, started with the store's own salt) covers all
//! that follows it. Commits count up by one; one that is larger than the rest of its segment has
//! several parts, the last of them marked. `boot` counts the store's starts: it tells a commit from
//! an earlier try at the same number that a crash cut short.
//!
//! Each part is synced before the next is written. So at most the newest commit is torn, and nothing
//! sound follows it: it was not acknowledged, and is passed over. A commit that is missing with
//! sound ones behind it was damaged later: then the store refuses to open.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use bytes::{Buf, Bytes};
use memchr::memmem;
use redb::StorageBackend;

const MAGIC: [u8; 4] = *b"lwr1";
/// What goes before a record's payload.
pub(super) const HEADER_BYTES: usize = 33;
const CHECKED_FROM: usize = 8;
/// A segment with less room than this, besides a header, is full.
const PART_BYTES_MIN: usize = 64;
/// The size of a segment of a store in a folder.
pub(super) const SEGMENT_BYTES_DEFAULT: usize = 8 << 20;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something that was acknowledged cannot be read any more.
    #[error(
        "commit {missing} in the log is damaged, though later ones are there: restore the store \
         from a backup, or give the node an empty data folder and let it catch up from its peers"
    )]
    Damaged { missing: u64 },
}

/// Segments whose commits have moved into redb, on their way back to the log.
pub(super) type Returned = Arc<Mutex<Vec<u32>>>;

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct Log {
    device: Box<dyn StorageBackend>,
    segment_bytes: usize,
    salt: u32,
    boot: u64,
    /// The number of the next commit.
    next: u64,
    /// The segment that is written, and how far.
    current: Option<(u32, usize)>,
    /// Segments with commits that have not moved into redb, the current one among them.
    used: Vec<u32>,
    free: Vec<u32>,
    returned: Returned,
    segments: u32,
}

/// How a log is opened.
pub(super) struct LogConfig {
    pub(super) segment_bytes: usize,
    /// The store's own.
    pub(super) salt: u32,
    /// Greater than at every start before.
    pub(super) boot: u64,
    /// The newest commit that is in redb.
    pub(super) flushed: u64,
}

/// A part of a commit, as found.
struct Part {
    last: bool,
    payload: Bytes,
    segment: u32,
    end: usize,
}

/// Commit -> boot -> part.
type Found = BTreeMap<u64, BTreeMap<u64, BTreeMap<u32, Part>>>;

impl Log {
    /// Opens the log; gives the commits that redb does not have, in order.
    pub(super) fn open(
        device: Box<dyn StorageBackend>,
        config: &LogConfig,
    ) -> Result<(Log, Vec<(u64, Bytes)>), LogError> {
        let length = usize::try_from(device.len()?).map_err(io::Error::other)?;
        // A segment whose creation was cut short holds nothing yet.
        let segments = u32::try_from(length / config.segment_bytes).map_err(io::Error::other)?;
        let mut log = Log {
            device,
            segment_bytes: config.segment_bytes,
            salt: config.salt,
            boot: config.boot,
            next: config.flushed + 1,
            current: None,
            used: Vec::new(),
            free: Vec::new(),
            returned: Returned::default(),
            segments,
        };
        let mut found = Found::new();
        for segment in 0..segments {
            log.find_records(segment, config.flushed, &mut found)?;
        }
        let commits = log.take_commits(found)?;
        log.free = (0..segments).filter(|segment| !log.used.contains(segment)).collect();
        Ok((log, commits))
    }

    /// Where segments come back to whose commits have moved into redb.
    pub(super) fn returned(&self) -> &Returned {
        &self.returned
    }

    /// The number that the next commit gets.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Makes a commit durable. `record` begins with [`HEADER_BYTES`] bytes of room; what follows is
    /// the payload.
    pub(super) fn append(&mut self, record: &mut [u8]) -> io::Result<()> {
        let mut part = 0;
        let mut from = HEADER_BYTES;
        loop {
            let (segment, at) = self.room()?;
            let take = (record.len() - from).min(self.segment_bytes - at - HEADER_BYTES);
            let last = from + take == record.len();
            if part == 0 && last {
                self.write_part(record, segment, at, part, last)?;
            } else {
                let mut piece = vec![0; HEADER_BYTES];
                piece.extend_from_slice(&record[from..from + take]);
                self.write_part(&mut piece, segment, at, part, last)?;
            }
            self.current = Some((segment, at + HEADER_BYTES + take));
            from += take;
            part += 1;
            if last {
                self.next += 1;
                return Ok(());
            }
        }
    }

    /// Ends the use of the present segments: gives them up, to come back when what they hold has
    /// moved into redb. The next commit begins a segment of its own.
    pub(super) fn rotate(&mut self) -> Vec<u32> {
        self.current = None;
        std::mem::take(&mut self.used)
    }

    fn write_part(
        &self,
        piece: &mut [u8],
        segment: u32,
        at: usize,
        part: u32,
        last: bool,
    ) -> io::Result<()> {
        let length = u32::try_from(piece.len() - HEADER_BYTES).map_err(io::Error::other)?;
        piece[..4].copy_from_slice(&MAGIC);
        piece[8..12].copy_from_slice(&length.to_be_bytes());
        piece[12] = u8::from(last);
        piece[13..17].copy_from_slice(&part.to_be_bytes());
        piece[17..25].copy_from_slice(&self.next.to_be_bytes());
        piece[25..33].copy_from_slice(&self.boot.to_be_bytes());
        let checksum = self.checksum(&piece[CHECKED_FROM..]);
        piece[4..8].copy_from_slice(&checksum.to_be_bytes());
        self.device.write(self.offset(segment, at), piece)?;
        self.device.sync_data()
    }

    /// Where the next part goes.
    fn room(&mut self) -> io::Result<(u32, usize)> {
        if let Some((segment, at)) = self.current
            && at + HEADER_BYTES + PART_BYTES_MIN <= self.segment_bytes
        {
            return Ok((segment, at));
        }
        let mut returned = self.returned.lock().expect("no holder of this lock panics");
        self.free.append(&mut returned);
        drop(returned);
        let segment = match self.free.pop() {
            Some(segment) => segment,
            None => self.extend()?,
        };
        self.used.push(segment);
        self.current = Some((segment, 0));
        Ok((segment, 0))
    }

    /// Adds a segment, written once, so that later syncs need not find room for it.
    fn extend(&mut self) -> io::Result<u32> {
        let segment = self.segments;
        let end = self.offset(segment + 1, 0);
        if self.device.len()? < end {
            self.device.set_len(end)?;
        }
        self.device.write(self.offset(segment, 0), &vec![0; self.segment_bytes])?;
        self.device.sync_data()?;
        self.segments += 1;
        Ok(segment)
    }

    /// Every sound record of a segment that is newer than `flushed`.
    fn find_records(&self, segment: u32, flushed: u64, found: &mut Found) -> io::Result<()> {
        let mut bytes = vec![0; self.segment_bytes];
        self.device.read(self.offset(segment, 0), &mut bytes)?;
        let bytes = Bytes::from(bytes);
        let finder = memmem::Finder::new(&MAGIC);
        let mut at = 0;
        while let Some(offset) = finder.find(&bytes[at..]) {
            at += offset;
            let Some((sequence, boot, part, mut record)) = self.record_at(&bytes, at) else {
                at += 1;
                continue;
            };
            at += HEADER_BYTES + record.payload.len();
            (record.segment, record.end) = (segment, at);
            if sequence > flushed {
                let boots = found.entry(sequence).or_default();
                boots.entry(boot).or_default().insert(part, record);
            }
        }
        Ok(())
    }

    /// The record at `at`, where a sound one stands.
    fn record_at(&self, bytes: &Bytes, at: usize) -> Option<(u64, u64, u32, Part)> {
        let mut header = bytes.get(at + MAGIC.len()..at + HEADER_BYTES)?;
        let checksum = header.get_u32();
        let length = usize::try_from(header.get_u32()).ok()?;
        let last = header.get_u8() == 1;
        let part = header.get_u32();
        let sequence = header.get_u64();
        let boot = header.get_u64();
        let end = at.checked_add(HEADER_BYTES)?.checked_add(length)?;
        let checked = bytes.get(at + CHECKED_FROM..end)?;
        let payload = bytes.slice(at + HEADER_BYTES..end);
        (self.checksum(checked) == checksum).then_some((
            sequence,
            boot,
            part,
            Part { last, payload, segment: 0, end: 0 },
        ))
    }

    /// The whole commits among the records, from the one after the flushed on.
    fn take_commits(&mut self, found: Found) -> Result<Vec<(u64, Bytes)>, LogError> {
        let newest = found.last_key_value().map_or(0, |(sequence, _)| *sequence);
        let mut commits = Vec::new();
        for (sequence, boots) in found {
            if sequence != self.next {
                return Err(LogError::Damaged { missing: self.next });
            }
            // The newest try counts: an earlier one at the same number was cut short.
            let whole = boots.into_values().rev().find(is_whole);
            let Some(parts) = whole else {
                if sequence < newest {
                    return Err(LogError::Damaged { missing: sequence });
                }
                break;
            };
            let mut payloads = Vec::new();
            for (_, Part { last, payload, segment, end }) in parts {
                if !self.used.contains(&segment) {
                    self.used.push(segment);
                }
                self.current = Some((segment, end));
                payloads.push(payload);
                if last {
                    break;
                }
            }
            let payload = match payloads.len() {
                1 => payloads.remove(0),
                _ => payloads.concat().into(),
            };
            commits.push((sequence, payload));
            self.next += 1;
        }
        Ok(commits)
    }

    fn checksum(&self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.salt);
        hasher.update(bytes);
        hasher.finalize()
    }

    fn offset(&self, segment: u32, at: usize) -> u64 {
        u64::from(segment) * self.segment_bytes as u64 + at as u64
    }
}

/// Whether the parts count up from 0 to one that is the last.
fn is_whole(parts: &BTreeMap<u32, Part>) -> bool {
    for (expected, (part, record)) in (0..).zip(parts) {
        if *part != expected {
            return false;
        }
        if record.last {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    const SEGMENT_BYTES: usize = 1_024;

    /// Memory that outlives the log on it.
    #[derive(Clone, Debug)]
    struct Kept(Arc<InMemoryBackend>);

    impl StorageBackend for Kept {
        fn len(&self) -> io::Result<u64> {
            self.0.len()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.0.read(offset, out)
        }
        fn set_len(&self, len: u64) -> io::Result<()> {
            self.0.set_len(len)
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write(offset, data)
        }
    }

    fn kept() -> Kept {
        Kept(Arc::new(InMemoryBackend::new()))
    }

    fn open(device: &Kept, boot: u64, flushed: u64) -> Result<(Log, Vec<(u64, Bytes)>), LogError> {
        let config = LogConfig { segment_bytes: SEGMENT_BYTES, salt: 7, boot, flushed };
        Log::open(Box::new(device.clone()), &config)
    }

    fn append(log: &mut Log, payload: &[u8]) {
        let mut record = vec![0; HEADER_BYTES];
        record.extend_from_slice(payload);
        log.append(&mut record).unwrap();
    }

    fn payload(n: u64) -> Vec<u8> {
        // Some larger than a segment, some empty.
        vec![n as u8; (n as usize * 397) % 2_600]
    }

    #[test]
    fn what_was_appended_is_found_again_over_restarts() {
        let device = kept();
        let mut written = Vec::new();
        for boot in 1..=20 {
            let (mut log, commits) = open(&device, boot, 0).unwrap();
            assert_eq!(commits, written, "boot {boot}");
            for n in 0..3 {
                let bytes = payload(boot * 3 + n);
                written.push((log.next(), Bytes::from(bytes.clone())));
                append(&mut log, &bytes);
            }
        }
    }

    #[test]
    fn segments_are_used_again_once_they_are_returned() {
        let device = kept();
        let (mut log, _) = open(&device, 1, 0).unwrap();
        for _ in 0..50 {
            for n in 0..4 {
                append(&mut log, &vec![n; 300]);
            }
            let segments = log.rotate();
            log.returned().lock().unwrap().extend(segments);
        }
        assert!(device.len().unwrap() <= 4 * SEGMENT_BYTES as u64, "{}", device.len().unwrap());
        let flushed = log.next() - 1;
        append(&mut log, b"newest");
        let (log, commits) = open(&device, 2, flushed).unwrap();
        assert_eq!(commits, [(flushed + 1, Bytes::from_static(b"newest"))]);
        assert_eq!(log.next(), flushed + 2);
    }

    /// Flips each byte in turn: the newest commit is passed over, an older one refuses to open.
    #[test]
    fn damage_is_told_from_a_torn_tail() {
        let device = kept();
        let (mut log, _) = open(&device, 1, 0).unwrap();
        append(&mut log, b"first");
        let (_, first_end) = log.current.unwrap();
        append(&mut log, b"second");
        let (_, second_end) = log.current.unwrap();
        for at in 0..second_end {
            let mut byte = [0];
            device.read(at as u64, &mut byte).unwrap();
            device.write(at as u64, &[byte[0] ^ 0x40]).unwrap();
            let opened = open(&device, 2, 0);
            if at < first_end {
                assert!(matches!(opened, Err(LogError::Damaged { missing: 1 })), "byte {at}");
            } else {
                let (log, commits) = opened.unwrap();
                assert_eq!(commits, [(1, Bytes::from_static(b"first"))], "byte {at}");
                assert_eq!((log.next(), log.current), (2, Some((0, first_end))));
            }
            device.write(at as u64, &byte).unwrap();
        }
    }

    #[test]
    fn a_commit_in_parts_that_was_cut_short_never_counts_again() {
        let device = kept();
        let (mut log, _) = open(&device, 1, 0).unwrap();
        append(&mut log, b"first");
        append(&mut log, &[1; 3 * SEGMENT_BYTES]);
        // Its last part is lost: the commit was not acknowledged.
        let (segment, _) = log.current.unwrap();
        device.write(u64::from(segment) * SEGMENT_BYTES as u64, &[0; 40]).unwrap();
        let (mut log, commits) = open(&device, 2, 0).unwrap();
        assert_eq!(commits.len(), 1);
        // The next try has the same number, and other parts that the old ones must not complete.
        append(&mut log, &[2; 2 * SEGMENT_BYTES]);
        append(&mut log, b"third");
        let (_, commits) = open(&device, 3, 0).unwrap();
        assert_eq!(commits.len(), 3);
        assert_eq!(commits[1].1, vec![2; 2 * SEGMENT_BYTES]);
        assert_eq!(commits[2], (3, Bytes::from_static(b"third")));
    }
}
