//! What a power cut takes back: the old bytes and the old size of files, since they were last made durable.
//!
//! ```text
//! | entries of 64 bytes: in use, node, offset, length, old size, where the bytes are, order | old bytes ... |
//! ```
//! Kept in a memfd that outlives the server: an entry counts once its first word is set, and that comes last. A range is kept once
//! until the next sync, so that rewriting a hot block costs nothing. Holes are kept as holes.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom};

use super::extent::seek;

/// Ranges that may be kept at once.
const MAX_ENTRIES: u64 = 1 << 20;
const ENTRY: u64 = 64;
const BYTES_AT: u64 = MAX_ENTRIES * ENTRY;
/// Old bytes are copied this many at a time.
const CHUNK: usize = 256 * 1024;

const DATA: u64 = 1;
const HOLE: u64 = 2;

/// Whether a change can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Yes,
    /// It alone is more than may be kept: it is durable at once.
    TooLarge,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u64,
    kind: u64,
    offset: u64,
    len: u64,
    at: u64,
}

#[derive(Debug)]
struct Node {
    old_size: u64,
    /// Order of the first change since the last sync.
    since: u64,
    entries: Vec<Entry>,
    /// Ranges kept: start, end.
    kept: BTreeMap<u64, u64>,
    /// Where the furthest change since the last sync ends; of changes before this server, only those within the old size count.
    reaches: u64,
}

/// The log of one mount. One caller at a time.
#[derive(Debug)]
pub struct Undo {
    log: File,
    limit: u64,
    nodes: HashMap<u64, Node>,
    bytes: u64,
    free: Vec<u64>,
    next_slot: u64,
    next_at: u64,
    order: u64,
    made_durable: u64,
}

impl Undo {
    /// An empty log, for the keeper to hold.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn create() -> io::Result<OwnedFd> {
        let log = rustix::fs::memfd_create("fsi-undo", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&log, BYTES_AT)?;
        Ok(log)
    }

    /// Takes over a log, with whatever a server before left in it. At most `limit` old bytes are kept.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(log: OwnedFd, limit: u64) -> io::Result<Self> {
        let mut undo = Self {
            log: File::from(log),
            limit,
            nodes: HashMap::new(),
            bytes: 0,
            free: Vec::new(),
            next_slot: 0,
            next_at: BYTES_AT,
            order: 1,
            made_durable: 0,
        };
        undo.load()?;
        Ok(undo)
    }

    fn load(&mut self) -> io::Result<()> {
        let mut found = Vec::new();
        let mut at = 0;
        // Entries were taken from the lowest slot on: the rest of the table is a hole.
        while at < BYTES_AT {
            let Some(data) = seek(&self.log, SeekFrom::Data(at))?.filter(|data| *data < BYTES_AT) else { break };
            at = data / ENTRY * ENTRY;
            let end = seek(&self.log, SeekFrom::Hole(at))?.unwrap_or(BYTES_AT).min(BYTES_AT);
            while at < end {
                let words = read_entry(&self.log, at / ENTRY)?;
                if words[0] != 0 {
                    found.push((at / ENTRY, words));
                }
                at += ENTRY;
            }
        }
        self.next_slot = found.iter().map(|(slot, _)| slot + 1).max().unwrap_or(0);
        let mut used: Vec<bool> = vec![false; usize::try_from(self.next_slot).unwrap_or(0)];
        found.sort_unstable_by_key(|(_, words)| words[6]);
        for (slot, [kind, node, offset, len, old_size, at, order, _]) in found {
            if let Some(used) = usize::try_from(slot).ok().and_then(|slot| used.get_mut(slot)) {
                *used = true;
            }
            let node = self.nodes.entry(node).or_insert_with(|| Node::new(old_size, order));
            node.add(Entry { slot, kind, offset, len, at });
            if kind == DATA {
                self.bytes += len;
                self.next_at = self.next_at.max(at + len);
            }
            self.order = self.order.max(order + 1);
        }
        self.free = (0..self.next_slot).zip(used).filter(|(_, used)| !used).map(|(slot, _)| slot).collect();
        Ok(())
    }

    /// Bytes that changed or were added since the last sync of their file.
    #[must_use]
    pub fn unsynced_bytes(&self) -> u64 {
        self.nodes.values().map(Node::unsynced_bytes).sum()
    }

    /// Files that became durable because too much was kept.
    #[must_use]
    pub const fn made_durable(&self) -> u64 {
        self.made_durable
    }

    /// Files a power cut would change.
    #[must_use]
    pub fn nodes(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// To be called before `len` bytes at `offset` change, or the size does: for a truncation, from the new size on, with a length
    /// of `u64::MAX`. `file` must be readable. Where too much is kept, `sync` makes the file unsynced for longest durable.
    ///
    /// # Errors
    /// When old bytes cannot be read or kept, or `sync` fails; nothing may be changed then.
    pub fn keep(
        &mut self,
        node: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
        mut sync: impl FnMut(u64) -> io::Result<()>,
    ) -> io::Result<Kept> {
        loop {
            let size = u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0);
            let old_size = self.nodes.get(&node).map_or(size, |node| node.old_size);
            // What is past the old size goes by itself when the old size comes back.
            let end = offset.saturating_add(len).min(old_size);
            let gaps = self.nodes.get(&node).map_or_else(
                || if offset < end { vec![(offset, end)] } else { Vec::new() },
                |node| node.gaps(offset, end),
            );
            let segments = segments(file, &gaps)?;
            let bytes: u64 = segments.iter().filter(|one| one.0 == DATA).map(|one| one.2 - one.1).sum();
            let slots = segments.len() as u64 + 1;
            if self.bytes + bytes <= self.limit && self.next_slot + slots <= MAX_ENTRIES + self.free.len() as u64 {
                if !self.nodes.contains_key(&node) {
                    self.put(node, HOLE, 0, 0, size, file)?;
                }
                for (kind, start, end) in segments {
                    self.put(node, kind, start, end - start, old_size, file)?;
                }
                if let Some(node) = self.nodes.get_mut(&node) {
                    node.reaches = match len {
                        u64::MAX => node.reaches.min(offset),
                        len => node.reaches.max(offset.saturating_add(len)),
                    };
                }
                return Ok(Kept::Yes);
            }
            let oldest = self.nodes.iter().min_by_key(|(_, node)| node.since).map(|(number, _)| *number);
            let Some(oldest) = oldest else { return Ok(Kept::TooLarge) };
            sync(oldest)?;
            self.synced(oldest)?;
            self.made_durable += 1;
        }
    }

    fn put(
        &mut self,
        node: u64,
        kind: u64,
        offset: u64,
        len: u64,
        old_size: u64,
        file: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let at = self.next_at;
        if kind == DATA {
            let mut buffer = vec![0; CHUNK.min(usize::try_from(len).unwrap_or(CHUNK))];
            let mut done = 0;
            while done < len {
                let want = buffer.len().min(usize::try_from(len - done).unwrap_or(CHUNK));
                let got = rustix::io::pread(file, &mut buffer[..want], offset + done)?;
                if got == 0 {
                    // The file became shorter meanwhile: what is not there reads as zeros, as it will when it is longer again.
                    break;
                }
                self.log.write_all_at(&buffer[..got], at + done)?;
                done += got as u64;
            }
            rustix::fs::ftruncate(&self.log, BYTES_AT.max(at + len))?;
        }
        let slot = self.free.pop().unwrap_or(self.next_slot);
        self.next_slot = self.next_slot.max(slot + 1);
        let words = [0, node, offset, len, old_size, at, self.order, 0];
        write_words(&self.log, slot * ENTRY, &words)?;
        write_words(&self.log, slot * ENTRY, &[kind])?;
        let order = self.order;
        self.order += 1;
        if kind == DATA {
            self.bytes += len;
            self.next_at += len;
        }
        self.nodes.entry(node).or_insert_with(|| Node::new(old_size, order)).add(Entry { slot, kind, offset, len, at });
        Ok(())
    }

    /// The file is durable as it is.
    ///
    /// # Errors
    /// When the log cannot be written.
    pub fn synced(&mut self, node: u64) -> io::Result<()> {
        let Some(node) = self.nodes.remove(&node) else { return Ok(()) };
        for entry in node.entries {
            write_words(&self.log, entry.slot * ENTRY, &[0])?;
            self.free.push(entry.slot);
            if entry.kind == DATA {
                self.bytes -= entry.len;
                punch(&self.log, entry.at, entry.len)?;
            }
        }
        if self.nodes.is_empty() {
            rustix::fs::ftruncate(&self.log, 0)?;
            rustix::fs::ftruncate(&self.log, BYTES_AT)?;
            (self.next_at, self.next_slot) = (BYTES_AT, 0);
            self.free.clear();
        }
        Ok(())
    }

    /// The file becomes what it was when it was last durable. `file` must be writable.
    ///
    /// # Errors
    /// When the file cannot be written; it can be tried again.
    pub fn revert(&mut self, node: u64, file: BorrowedFd<'_>) -> io::Result<()> {
        let Some(state) = self.nodes.get(&node) else { return Ok(()) };
        // First as long as it was: what is punched out must not make it longer.
        rustix::fs::ftruncate(file, state.old_size)?;
        let mut buffer = vec![0; CHUNK];
        for entry in &state.entries {
            match entry.kind {
                DATA => {
                    let mut done = 0;
                    while done < entry.len {
                        let want = CHUNK.min(usize::try_from(entry.len - done).unwrap_or(CHUNK));
                        self.log.read_exact_at(&mut buffer[..want], entry.at + done)?;
                        write_all(file, &buffer[..want], entry.offset + done)?;
                        done += want as u64;
                    }
                }
                _hole if entry.len > 0 => clear(file, entry.offset, entry.len, &mut buffer)?,
                _size_only => {}
            }
        }
        self.synced(node)
    }

    /// Every file becomes what it was; one that `open` has no file for any more is forgotten.
    ///
    /// # Errors
    /// The first one; the other files are tried all the same.
    pub fn revert_all(&mut self, open: impl Fn(u64) -> Option<File>) -> io::Result<()> {
        let mut outcome = Ok(());
        for node in self.nodes() {
            let reverted = match open(node) {
                Some(file) => self.revert(node, file.as_fd()),
                None => self.synced(node),
            };
            outcome = outcome.and(reverted);
        }
        outcome
    }
}

impl Node {
    const fn new(old_size: u64, since: u64) -> Self {
        Self { old_size, since, entries: Vec::new(), kept: BTreeMap::new(), reaches: 0 }
    }

    fn unsynced_bytes(&self) -> u64 {
        let within: u64 = self.kept.iter().map(|(start, end)| end - start).sum();
        within + self.reaches.saturating_sub(self.old_size)
    }

    fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
        if entry.len == 0 {
            return;
        }
        let (mut start, mut end) = (entry.offset, entry.offset + entry.len);
        if let Some((&before, &until)) = self.kept.range(..=start).next_back()
            && until >= start
        {
            start = before;
            end = end.max(until);
        }
        while let Some((&next, &until)) = self.kept.range(start..=end).next() {
            end = end.max(until);
            self.kept.remove(&next);
        }
        self.kept.insert(start, end);
    }

    /// What of a range is not kept yet.
    fn gaps(&self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut at = start;
        if let Some((_, &until)) = self.kept.range(..=start).next_back() {
            at = at.max(until);
        }
        for (&next, &until) in self.kept.range(start..end.max(start)) {
            if next > at {
                gaps.push((at, next));
            }
            at = at.max(until);
        }
        if at < end {
            gaps.push((at, end));
        }
        gaps
    }
}

/// The ranges, cut into data and holes.
fn segments(file: BorrowedFd<'_>, ranges: &[(u64, u64)]) -> io::Result<Vec<(u64, u64, u64)>> {
    let mut found = Vec::new();
    for &(start, end) in ranges {
        let mut at = start;
        while at < end {
            let data = seek(file, SeekFrom::Data(at))?.unwrap_or(u64::MAX).clamp(at, end);
            if data > at {
                found.push((HOLE, at, data));
            }
            if data < end {
                let hole = seek(file, SeekFrom::Hole(data))?.unwrap_or(end).clamp(data + 1, end);
                found.push((DATA, data, hole));
                at = hole;
            } else {
                at = end;
            }
        }
    }
    Ok(found)
}

fn read_entry(log: &File, slot: u64) -> io::Result<[u64; 8]> {
    let mut bytes = [0; 64];
    log.read_exact_at(&mut bytes, slot * ENTRY)?;
    let mut words = [0; 8];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(chunk.try_into().map_err(io::Error::other)?);
    }
    Ok(words)
}

fn write_words(log: &File, at: u64, words: &[u64]) -> io::Result<()> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    log.write_all_at(&bytes, at)
}

fn write_all(file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let done = rustix::io::pwrite(file, bytes, offset)?;
        offset += done as u64;
        bytes = &bytes[done..];
    }
    Ok(())
}

fn punch(file: impl std::os::fd::AsFd, offset: u64, len: u64) -> io::Result<()> {
    Ok(rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)?)
}

/// A hole again, or zeros where the file system has no holes.
fn clear(file: BorrowedFd<'_>, offset: u64, len: u64, buffer: &mut [u8]) -> io::Result<()> {
    if punch(file, offset, len).is_ok() {
        return Ok(());
    }
    buffer.fill(0);
    let mut done = 0;
    while done < len {
        let want = buffer.len().min(usize::try_from(len - done).unwrap_or(buffer.len()));
        write_all(file, &buffer[..want], offset + done)?;
        done += want as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
