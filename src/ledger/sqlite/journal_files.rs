//! Stores the journal, the batches of records since the last fold, in two files.
//!
//! A commit of SQLite writes four pages or more, takes six locks and costs 25 to 45 µs. A batch here is one write into
//! allocated blocks and one fdatasync: 12 to 15 µs.
//!
//! Each batch is a frame that starts at a block boundary, so that no write touches an acknowledged batch. While the
//! batches of one file are folded, new batches are written to the other file. A file is rewritten from its start once
//! all its batches are folded. A start reads every complete frame after the last fold, in the order of the frames'
//! numbers, from both files. An incomplete last frame was being written when the power failed, and was not
//! acknowledged. An incomplete frame before a complete one was damaged.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result as IoResult};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file::{Lock, unusable};
use crate::ledger::store::{Journal, JournalRow, LedgerError, Result};
use crate::policy::limit::take_array;
use crate::types::WallTime;

/// The first bytes of a frame. They identify the version of its records.
const MAGIC: [u8; 8] = *b"TGJRNL02";
/// The first bytes of a frame that a version before 0.2 wrote.
pub(super) const OLD_MAGIC: [u8; 8] = *b"TGJRNL01";
/// Size of a frame's fields before its records: magic, mark, number, time, length, checksum.
const HEAD: usize = 40;
/// Alignment of frames: at least the unit that disks write atomically.
const BLOCK: usize = 4096;
/// Bytes by which a file grows. Writing into blocks that are already allocated changes nothing else of the file.
const GROWTH: usize = 256 * 1024;
/// Length of a file in bytes from which on the other file is written, if all batches of that file are folded.
const SWITCH_AT: u64 = if cfg!(test) { 64 * 1024 } else { 4 * 1024 * 1024 };
/// Largest length that a file keeps when it is rewritten; a longer one is truncated to it.
const KEPT: u64 = 64 * 1024 * 1024;
/// Largest length of a file: several times the batches between two folds. Above it, commits fail.
const MAX: u64 = if cfg!(test) { 1024 * 1024 } else { 256 * 1024 * 1024 };

/// The two files of a ledger's journal. If every batch is folded, dropping the journal removes them.
#[derive(Debug)]
pub(in crate::ledger) struct FileJournal {
    /// The number that identifies the ledger that the journal belongs to.
    mark: i64,
    segments: [Segment; 2],
    /// The index of the segment that is written.
    current: usize,
    /// The frame that is being written, padded to whole blocks.
    frame: Vec<u8>,
    _lock: Option<Arc<Lock>>,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    /// `None` before the first frame.
    file: Option<File>,
    /// Offset of the next frame; `None` until the file is read.
    end: Option<u64>,
    /// The number of the last frame.
    last: u64,
    /// The file's length in bytes. It is not queried at each commit: after a query of a file's times, Linux writes
    /// their next change to the disk with the rest of the inode.
    length: u64,
}

impl FileJournal {
    /// Opens the files `LEDGER.journal-0` and `-1` if they exist, and holds the ledger's lock until it is dropped.
    ///
    /// # Errors
    /// If an existing file cannot be opened.
    pub(in crate::ledger) fn open(ledger: &Path, mark: i64, lock: Option<Arc<Lock>>) -> Result<Self> {
        let segments = [Segment::open(ledger, "0")?, Segment::open(ledger, "1")?];
        Ok(Self { mark, segments, current: 0, frame: Vec::new(), _lock: lock })
    }

    /// Reads the batches after `folded` whose frames start with `magic`, in order. New batches are then written after
    /// them.
    ///
    /// # Errors
    /// If a file cannot be read, belongs to another ledger or is damaged, or if the batch after `folded` is missing.
    pub(super) fn read_version(&mut self, magic: [u8; 8], folded: u64) -> Result<Vec<JournalRow>> {
        let mut rows = BTreeMap::<u64, JournalRow>::new();
        for segment in &mut self.segments {
            let (mut last, mut next) = (0, 0);
            for Frame { row, end } in segment.frames(magic, self.mark, folded)? {
                (last, next) = (last.max(row.0), next.max(end));
                // Of two frames with the same number the longer is valid: a batch whose write failed is contained in
                // its next attempt.
                if rows.get(&row.0).is_none_or(|before| before.2.len() <= row.2.len()) {
                    rows.insert(row.0, row);
                }
            }
            (segment.last, segment.end) = (last, Some(next));
        }
        self.current = usize::from(self.segments[1].last > self.segments[0].last);
        for (expected, found) in (folded + 1..).zip(rows.keys()) {
            if *found != expected {
                return Err(self.segments[self.current].unusable(format!(
                    "batch {expected} is missing before batch {found}; restore a backup of the ledger, and move \
                     its journals away"
                )));
            }
        }
        Ok(rows.into_values().collect())
    }

    /// True if every batch is folded.
    pub(in crate::ledger) fn is_folded(&self) -> bool {
        self.segments.iter().all(|segment| segment.end == Some(0))
    }

    /// Removes both files, whose batches are all folded.
    pub(super) fn remove_files(mut self) {
        for segment in &mut self.segments {
            segment.end = Some(0);
        }
    }
}

impl Journal for FileJournal {
    fn read(&mut self, folded: u64) -> Result<Vec<JournalRow>> {
        self.read_version(MAGIC, folded)
    }

    fn append(&mut self, seq: u64, at: WallTime, records: &[u8]) -> Result<()> {
        let too_long = |_| LedgerError::Failed("a batch is too long".to_owned());
        let length = u32::try_from(records.len()).map_err(too_long)?;
        self.frame.clear();
        self.frame.extend_from_slice(&MAGIC);
        self.frame.extend_from_slice(&self.mark.to_le_bytes());
        self.frame.extend_from_slice(&seq.to_le_bytes());
        self.frame.extend_from_slice(&at.0.to_le_bytes());
        self.frame.extend_from_slice(&length.to_le_bytes());
        let checksum = checksum(&self.frame, records);
        self.frame.extend_from_slice(&checksum.to_le_bytes());
        self.frame.extend_from_slice(records);
        self.frame.resize(self.frame.len().next_multiple_of(BLOCK), 0);
        let is_long = self.segments[self.current].end.is_some_and(|end| end >= SWITCH_AT);
        if is_long && self.segments[1 - self.current].end == Some(0) {
            self.current = 1 - self.current;
        }
        let segment = &mut self.segments[self.current];
        let unread = || LedgerError::Failed("the journal was not read yet".to_owned());
        let start = segment.end.ok_or_else(unread)?;
        let next = start + self.frame.len() as u64;
        if next > MAX {
            let message = format!("{} is full, because its batches cannot be folded", segment.path.display());
            return Err(LedgerError::Failed(message));
        }
        let written = segment.write(&self.frame, start, next);
        written.map_err(|error| LedgerError::Failed(format!("{}: {error}", segment.path.display())))?;
        (segment.end, segment.last) = (Some(next), seq);
        Ok(())
    }

    /// Lets each file whose batches are all folded be rewritten from its start.
    fn reset(&mut self, upto: u64) {
        for segment in &mut self.segments {
            if segment.last <= upto && segment.end.is_some_and(|end| end > 0) {
                segment.end = Some(0);
                segment.shrink();
            }
        }
    }
}

impl Drop for FileJournal {
    /// Removes the files if every batch is folded, so that a closed ledger is one file.
    fn drop(&mut self) {
        if self.is_folded() {
            for segment in self.segments.iter().filter(|segment| segment.file.is_some()) {
                let _ = std::fs::remove_file(&segment.path); // a file that remains contains only folded batches
            }
        }
    }
}

/// A complete frame that was found: its batch, and the offset after the frame.
struct Frame {
    row: JournalRow,
    end: u64,
}

impl Segment {
    fn open(ledger: &Path, name: &str) -> Result<Self> {
        let mut path = ledger.as_os_str().to_owned();
        path.push(".journal-");
        path.push(name);
        let path = PathBuf::from(path);
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(unusable(&path, error)),
        };
        if file.is_some() {
            sync_folder(&path).map_err(|error| unusable(&path, error))?; // in case a process was killed before its sync
        }
        let length = file.as_ref().map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()));
        let length = length.map_err(|error| unusable(&path, error))?;
        Ok(Self { path, file, end: None, last: 0, length })
    }

    /// Reads all complete frames with numbers above `folded`, at any offset.
    fn frames(&self, magic: [u8; 8], mark: i64, folded: u64) -> Result<Vec<Frame>> {
        let Some(file) = &self.file else { return Ok(Vec::new()) };
        let broken = |error| self.unusable(error);
        let (mut frames, mut at) = (Vec::new(), 0);
        while at < self.length {
            let Some((head, records)) = frame(file, magic, at, self.length).map_err(broken)? else {
                at += BLOCK as u64;
                continue;
            };
            if head.mark != mark {
                return Err(self.unusable("it belongs to another ledger; move it to another folder"));
            }
            at += head.size();
            if head.seq > folded {
                frames.push(Frame { row: (head.seq, head.at, records), end: at });
            }
        }
        Ok(frames)
    }

    fn write(&mut self, frame: &[u8], start: u64, next: u64) -> IoResult<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(create(&self.path)?),
        };
        file.write_all_at(frame, start)?;
        if next > self.length {
            file.write_all_at(&[0; GROWTH], next)?; // the space after the frame has no data
            self.length = next + GROWTH as u64;
        }
        file.sync_data() // includes the new length if the file grew
    }

    fn shrink(&mut self) {
        if let Some(file) = self.file.as_ref().filter(|_| self.length > KEPT)
            && file.set_len(KEPT).is_ok()
        {
            self.length = KEPT;
        }
    }

    fn unusable(&self, what: impl std::fmt::Display) -> LedgerError {
        unusable(&self.path, what)
    }
}

/// The fields of a frame before its records, without the magic.
struct FrameHead {
    mark: i64,
    seq: u64,
    at: WallTime,
    length: u32,
    checksum: u32,
}

impl FrameHead {
    fn read(bytes: &[u8; HEAD], magic: [u8; 8]) -> Option<Self> {
        let rest = &mut bytes.strip_prefix(&magic)?;
        Some(Self {
            mark: i64::from_le_bytes(take_array(rest)?),
            seq: u64::from_le_bytes(take_array(rest)?),
            at: WallTime(i64::from_le_bytes(take_array(rest)?)),
            length: u32::from_le_bytes(take_array(rest)?),
            checksum: u32::from_le_bytes(take_array(rest)?),
        })
    }

    /// Size of the frame in bytes, in whole blocks.
    fn size(&self) -> u64 {
        (HEAD as u64 + u64::from(self.length)).next_multiple_of(BLOCK as u64)
    }
}

fn checksum(head: &[u8], records: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(records);
    hasher.finalize()
}

/// Reads the frame at an offset; `None` if there is no complete one.
fn frame(file: &File, magic: [u8; 8], at: u64, length: u64) -> IoResult<Option<(FrameHead, Vec<u8>)>> {
    let mut bytes = [0; HEAD];
    if at + HEAD as u64 > length {
        return Ok(None);
    }
    file.read_exact_at(&mut bytes, at)?;
    let Some(head) = FrameHead::read(&bytes, magic).filter(|head| at + head.size() <= length) else {
        return Ok(None);
    };
    let mut records = vec![0; head.length as usize];
    file.read_exact_at(&mut records, at + HEAD as u64)?;
    let whole = checksum(&bytes[..HEAD - 4], &records) == head.checksum;
    Ok(whole.then_some((head, records)))
}

/// Creates an empty file with mode 0600, and syncs its folder, so that the file survives a power cut.
fn create(path: &Path) -> IoResult<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    sync_folder(path)?;
    Ok(file)
}

fn sync_folder(path: &Path) -> IoResult<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests;
