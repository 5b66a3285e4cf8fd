//! Batches on disk, for a collector that is away: a queue of files, bounded, that outlives the agent.
//!
//! ```text
//! DIRECTORY/ENDPOINT/lock                   held by the agent that uses it
//! DIRECTORY/ENDPOINT/0000000000000007.spool "fsispl01", how far it was sent and the CRC-32 of that, then records:
//!                                           length, spans, CRC-32 of both and of the content; content: an OTLP request
//! ```
//! Numbers are little-endian. Segments are written one after the other and sent in that order. A process that dies leaves at most one
//! torn record, at the end of the last segment; where length or checksum are wrong the rest of the segment is given up and counted.
//! How far a segment was sent is written in place: were that torn, the segment would be sent once more.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustix::fs::{FlockOperation, flock};

const MAGIC: [u8; 8] = *b"fsispl01";
const HEADER: u64 = 24;
const RECORD_HEADER: usize = 12;
/// A segment that is so long gets no more records.
const SEGMENT_BYTES: u64 = 4 << 20;
/// No batch comes near; a length beyond it is garbage.
const MOST_RECORD_BYTES: u64 = 64 << 20;
const ENDING: &str = "spool";

/// What was lost in or by a spool, to be added up by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lost {
    /// Spans that gave way to newer ones.
    pub(super) full: u64,
    /// Spans that the disk did not take, or not give back.
    pub(super) disk: u64,
    /// Segments with an end that is no record: an agent died while it wrote.
    pub(super) torn: u64,
}

/// One batch: how many spans, and the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) spans: u64,
    pub(super) body: Bytes,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: File,
    /// Up to where records are whole.
    end: u64,
    /// Up to where they were sent.
    sent: u64,
    /// Those not sent yet.
    spans: u64,
    records: u64,
}

/// The spool of one endpoint.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    max_bytes: u64,
    /// The oldest first; only the last is written to, and only if this process made it.
    segments: VecDeque<Segment>,
    next: u64,
    writes_last: bool,
    _lock: File,
}

/// The spool's directory, ours alone, not looked into yet.
#[derive(Debug)]
pub(super) struct Claimed {
    directory: PathBuf,
    max_bytes: u64,
    lock: File,
}

impl Claimed {
    /// Makes the directory of an endpoint if need be, and keeps others from using it.
    pub(super) fn new(directory: &Path, endpoint: &str, max_bytes: u64) -> io::Result<Self> {
        let directory = directory.join(name_of(endpoint));
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(directory.join("lock"))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| if error == rustix::io::Errno::WOULDBLOCK { in_use() } else { error.into() })?;
        Ok(Self { directory, max_bytes, lock })
    }

    /// Reads what an earlier agent left; what of it is whole waits to be sent.
    pub(super) fn open(self) -> (Spool, Lost) {
        let Self { directory, max_bytes, lock } = self;
        let mut lost = Lost::default();
        let mut numbers: Vec<u64> =
            fs::read_dir(&directory).into_iter().flatten().filter_map(|entry| number_of(&entry.ok()?.path())).collect();
        numbers.sort_unstable();
        let next = numbers.last().map_or(0, |last| last + 1);
        let mut spool =
            Spool { directory, max_bytes, segments: VecDeque::new(), next, writes_last: false, _lock: lock };
        for number in numbers {
            let path = spool.path(number);
            match Segment::scan(&path) {
                Ok((segment, is_torn)) => {
                    lost.torn += u64::from(is_torn);
                    match segment {
                        Some(segment) if segment.records > 0 => spool.segments.push_back(segment),
                        Some(_) | None => remove(&path),
                    }
                }
                // It may be read another time.
                Err(error) => tracing::warn!(path = %path.display(), %error, "a segment of the spool cannot be read"),
            }
        }
        lost.full += spool.make_room(0);
        (spool, lost)
    }
}

fn in_use() -> io::Error {
    io::Error::new(io::ErrorKind::ResourceBusy, "another agent uses it")
}

/// Readable, and different for different endpoints.
fn name_of(endpoint: &str) -> String {
    let plain: String = endpoint.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    format!("{}-{:08x}", &plain[..plain.len().min(64)], crc32fast::hash(endpoint.as_bytes()))
}

fn number_of(path: &Path) -> Option<u64> {
    let is_ours = path.extension().is_some_and(|ending| ending == ENDING);
    is_ours.then(|| u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()).flatten()
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a segment of the spool cannot be removed");
    }
}

impl Spool {
    fn path(&self, number: u64) -> PathBuf {
        self.directory.join(format!("{number:016x}.{ENDING}"))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Spans that wait.
    pub(super) fn spans(&self) -> u64 {
        self.segments.iter().map(|segment| segment.spans).sum()
    }

    /// What it takes on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// Puts a batch at the end. The oldest segments give way to it.
    pub(super) fn push(&mut self, batch: &Batch) -> Lost {
        let Batch { spans, body } = batch;
        let needed = HEADER + (RECORD_HEADER + body.len()) as u64;
        if needed > self.max_bytes {
            return Lost { full: *spans, ..Lost::default() };
        }
        let full = self.make_room(needed);
        match self.append(batch) {
            Ok(()) => Lost { full, ..Lost::default() },
            Err(error) => {
                tracing::warn!(directory = %self.directory.display(), %error, "the spool cannot be written");
                Lost { full, disk: *spans, torn: 0 }
            }
        }
    }

    /// Drops the oldest until so much fits; the spans that are lost.
    fn make_room(&mut self, needed: u64) -> u64 {
        let mut lost = 0;
        while self.bytes() + needed > self.max_bytes
            && let Some(oldest) = self.segments.pop_front()
        {
            lost += oldest.spans;
            remove(&oldest.path);
        }
        lost
    }

    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let goes_on = self.writes_last && self.segments.back().is_some_and(|last| last.end < SEGMENT_BYTES);
        if !goes_on {
            if self.writes_last
                && let Some(last) = self.segments.back()
            {
                last.file.sync_data()?;
            }
            let path = self.path(self.next);
            let segment = Segment::create(&path).inspect_err(|_| drop(fs::remove_file(&path)))?;
            self.next += 1;
            self.segments.push_back(segment);
            self.writes_last = true;
        }
        let Some(last) = self.segments.back_mut() else { return Ok(()) };
        let appended = last.append(batch);
        if appended.is_err() && last.records == 0 {
            remove(&last.path);
            self.segments.pop_back();
            self.writes_last = false;
        }
        appended
    }

    /// The oldest batch, which stays until [`Spool::pop`].
    pub(super) fn oldest(&mut self) -> (Option<Batch>, Lost) {
        let mut lost = Lost::default();
        while let Some(first) = self.segments.front_mut() {
            match first.read(first.sent) {
                Ok(batch) => return (Some(batch), lost),
                Err(error) => {
                    tracing::warn!(path = %first.path.display(), %error, "a segment of the spool is given up");
                    lost.disk += first.spans;
                    self.drop_first();
                }
            }
        }
        (None, lost)
    }

    /// The oldest batch was sent, or is never to be.
    pub(super) fn pop(&mut self, batch: &Batch) {
        let Some(first) = self.segments.front_mut() else { return };
        first.sent += (RECORD_HEADER + batch.body.len()) as u64;
        first.spans -= batch.spans.min(first.spans);
        first.records = first.records.saturating_sub(1);
        if first.records == 0 {
            self.drop_first();
        } else if let Err(error) = first.note_sent() {
            tracing::warn!(path = %first.path.display(), %error, "how far the spool was sent cannot be noted");
        }
    }

    fn drop_first(&mut self) {
        if let Some(first) = self.segments.pop_front() {
            remove(&first.path);
        }
        if self.segments.is_empty() {
            self.writes_last = false;
        }
    }

    /// Makes what was written outlive the machine, too.
    pub(super) fn sync(&self) {
        if let Some(last) = self.segments.back()
            && let Err(error) = last.file.sync_data()
        {
            tracing::warn!(path = %last.path.display(), %error, "the spool cannot be synced");
        }
    }
}

impl Segment {
    fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let segment = Self { path: path.to_owned(), file, end: HEADER, sent: HEADER, spans: 0, records: 0 };
        segment.file.write_all_at(&MAGIC, 0)?;
        segment.note_sent()?;
        Ok(segment)
    }

    fn note_sent(&self) -> io::Result<()> {
        let sent = self.sent.to_le_bytes();
        let mut note = [0; 16];
        note[..8].copy_from_slice(&sent);
        note[8..12].copy_from_slice(&crc32fast::hash(&sent).to_le_bytes());
        self.file.write_all_at(&note, MAGIC.len() as u64)
    }

    fn append(&mut self, batch: &Batch) -> io::Result<()> {
        let wrong = |_too_large| io::Error::from(io::ErrorKind::FileTooLarge);
        let length = u32::try_from(batch.body.len()).map_err(wrong)?;
        let spans = u32::try_from(batch.spans).map_err(wrong)?;
        let mut record = Vec::with_capacity(RECORD_HEADER + batch.body.len());
        record.extend(length.to_le_bytes());
        record.extend(spans.to_le_bytes());
        record.extend(checksum(&record[..8], &batch.body).to_le_bytes());
        record.extend(&batch.body);
        if let Err(error) = self.file.write_all_at(&record, self.end) {
            // A full disk may have taken half of it.
            self.file.set_len(self.end).ok();
            return Err(error);
        }
        self.end += record.len() as u64;
        self.spans += batch.spans;
        self.records += 1;
        Ok(())
    }

    fn read(&self, at: u64) -> io::Result<Batch> {
        let wrong = || io::Error::from(io::ErrorKind::InvalidData);
        let mut header = [0; RECORD_HEADER];
        self.file.read_exact_at(&mut header, at)?;
        let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (length, spans, expected) = (number(0), number(4), number(8));
        if u64::from(length) > MOST_RECORD_BYTES {
            return Err(wrong());
        }
        let mut body = vec![0; usize::try_from(length).map_err(|_too_large| wrong())?];
        self.file.read_exact_at(&mut body, at + RECORD_HEADER as u64)?;
        if checksum(&header[..8], &body) != expected {
            return Err(wrong());
        }
        Ok(Batch { spans: spans.into(), body: body.into() })
    }

    /// What an earlier process wrote, and whether it has an end that is no record. Nothing: it has not even a beginning.
    fn scan(path: &Path) -> io::Result<(Option<Self>, bool)> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let length = file.metadata()?.len();
        let mut header = [0; 24];
        if length < HEADER {
            return Ok((None, true));
        }
        file.read_exact_at(&mut header, 0)?;
        if header[..8] != MAGIC {
            return Ok((None, true));
        }
        let sent: [u8; 8] = [8, 9, 10, 11, 12, 13, 14, 15].map(|at: usize| header[at]);
        let is_whole = header[16..20] == crc32fast::hash(&sent).to_le_bytes();
        let sent = if is_whole { u64::from_le_bytes(sent).max(HEADER) } else { HEADER };
        let mut segment = Self { path: path.to_owned(), file, end: sent, sent, spans: 0, records: 0 };
        while segment.end < length {
            match segment.read(segment.end) {
                Ok(batch) => {
                    segment.end += (RECORD_HEADER + batch.body.len()) as u64;
                    segment.spans += batch.spans;
                    segment.records += 1;
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                    return Ok((Some(segment), true));
                }
                Err(error) => return Err(error),
            }
        }
        Ok((Some(segment), false))
    }
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests;
