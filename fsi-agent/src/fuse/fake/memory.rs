//! Bytes kept in bounded memory that outlives the server.
//!
//! ```text
//! | number of pages | for each page: file (0: free), index in the file | page 0 | page 1 | ...
//! ```
//! A page counts once its file's number is written, and that comes after its bytes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, MemfdFlags};

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;
const SLOT: u64 = 16;

/// The pages of all files of a mount. One caller at a time. Files have numbers other than 0.
#[derive(Debug)]
pub struct Memory {
    store: File,
    pages: u64,
    taken: BTreeMap<(u64, u64), u64>,
    free: Vec<u64>,
}

const fn slot_at(slot: u64) -> u64 {
    PAGE + slot * SLOT
}

impl Memory {
    /// Empty memory of at most so many bytes, for the keeper to hold.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn create(limit_bytes: u64) -> io::Result<OwnedFd> {
        let pages = limit_bytes / PAGE;
        let store = File::from(rustix::fs::memfd_create("fsi-memory", MemfdFlags::CLOEXEC)?);
        store.set_len(slot_at(pages).next_multiple_of(PAGE) + pages * PAGE)?;
        store.write_all_at(&pages.to_le_bytes(), 0)?;
        Ok(store.into())
    }

    /// Takes over the memory with what is in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(store: OwnedFd) -> io::Result<Self> {
        let store = File::from(store);
        let pages = read_word(&store, 0)?;
        let mut memory = Self { store, pages, taken: BTreeMap::new(), free: Vec::new() };
        let mut table = vec![0; usize::try_from(pages * SLOT).map_err(io::Error::other)?];
        memory.store.read_exact_at(&mut table, slot_at(0))?;
        for (slot, words) in (0..).zip(table.chunks_exact(16)) {
            let (file, index) = words.split_at(8);
            match u64::from_le_bytes(file.try_into().map_err(io::Error::other)?) {
                0 => memory.free.push(slot),
                file => {
                    let index = u64::from_le_bytes(index.try_into().map_err(io::Error::other)?);
                    memory.taken.insert((file, index), slot);
                }
            }
        }
        // Whoever was here before may have been killed between the bytes of a page and its number.
        for run in memory.free.chunk_by(|slot, next| slot + 1 == *next) {
            memory.punch(memory.page_at(run[0]), run.len() as u64 * PAGE)?;
        }
        memory.free.reverse();
        Ok(memory)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.store, flags, offset, len)?)
    }

    /// Bytes taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.taken.len() as u64 * PAGE
    }

    /// Bytes there are.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.pages * PAGE
    }

    const fn page_at(&self, slot: u64) -> u64 {
        slot_at(self.pages).next_multiple_of(PAGE) + slot * PAGE
    }

    /// Writes, as far as there is memory; how many bytes.
    ///
    /// # Errors
    /// `ENOSPC` when there is none for the first byte.
    pub fn write(&mut self, file: u64, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let within = at % PAGE;
            let len = usize::try_from(PAGE - within).unwrap_or(0).min(bytes.len() - done);
            let key = (file, at / PAGE);
            let known = self.taken.get(&key).copied();
            let Some(slot) = known.or_else(|| self.free.pop()) else { break };
            self.store.write_all_at(&bytes[done..done + len], self.page_at(slot) + within)?;
            if known.is_none() {
                self.store.write_all_at(&key.1.to_le_bytes(), slot_at(slot) + 8)?;
                self.store.write_all_at(&file.to_le_bytes(), slot_at(slot))?;
                self.taken.insert(key, slot);
            }
            done += len;
        }
        if done == 0 && !bytes.is_empty() {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(done)
    }

    /// Reads; what was never written is zeros. The end of the file is the caller's to know.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn read(&self, file: u64, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = at % PAGE;
            let len = usize::try_from(PAGE - within).unwrap_or(0).min(buffer.len() - done);
            let part = &mut buffer[done..done + len];
            match self.taken.get(&(file, at / PAGE)) {
                Some(slot) => self.store.read_exact_at(part, self.page_at(*slot) + within)?,
                None => part.fill(0),
            }
            done += len;
        }
        Ok(())
    }

    /// Zeros from `start` to `end`; whole pages are free again. For truncation (to `u64::MAX`), punched holes, files that are gone.
    ///
    /// # Errors
    /// When the memory cannot be written.
    pub fn clear(&mut self, file: u64, start: u64, end: u64) -> io::Result<()> {
        let touched: Vec<_> = self
            .taken
            .range((file, start / PAGE)..=(file, end.saturating_sub(1) / PAGE))
            .map(|(key, slot)| (*key, *slot))
            .filter(|_| start < end)
            .collect();
        for (key, slot) in touched {
            let first = key.1 * PAGE;
            let from = start.max(first) - first;
            let to = end.min(first.saturating_add(PAGE)) - first;
            // A free page is a clean page, whenever we are killed.
            self.punch(self.page_at(slot) + from, to - from)?;
            if to - from == PAGE {
                self.store.write_all_at(&0_u64.to_le_bytes(), slot_at(slot))?;
                self.taken.remove(&key);
                self.free.push(slot);
            }
        }
        Ok(())
    }
}

fn read_word(store: &File, at: u64) -> io::Result<u64> {
    let mut bytes = [0; 8];
    store.read_exact_at(&mut bytes, at)?;
    Ok(u64::from_le_bytes(bytes))
}
