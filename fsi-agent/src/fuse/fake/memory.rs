//! Bytes kept in bounded memory that outlives the server, over what lies below.
//!
//! ```text
//! | for each page: file (0: free), index in the file | page 0 | page 1 | ...
//! ```
//! A page counts once its file's number is written, and that comes after its bytes. Bytes of a page that were never written are
//! those of the backing file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, MemfdFlags, SeekFrom};

use crate::fuse::extent::seek;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;
const SLOT: u64 = 16;
/// As many pages as there can be, whatever the bound: 16 GiB.
const MAX_PAGES: u64 = 1 << 22;
const PAGES_AT: u64 = MAX_PAGES * SLOT;

/// Fills a buffer with the backing file's bytes from an offset on, and with zeros where it has none.
pub(crate) type Below<'a> = dyn Fn(u64, &mut [u8]) -> io::Result<()> + 'a;

/// The pages of all files of a mount. One caller at a time. Files have numbers other than 0.
#[derive(Debug)]
pub struct Memory {
    store: File,
    limit_pages: u64,
    taken: BTreeMap<(u64, u64), u64>,
    free: Vec<u64>,
    next_slot: u64,
}

const fn slot_at(slot: u64) -> u64 {
    slot * SLOT
}

const fn page_at(slot: u64) -> u64 {
    PAGES_AT + slot * PAGE
}

impl Memory {
    /// Empty memory, for the keeper to hold.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn create() -> io::Result<OwnedFd> {
        let store = rustix::fs::memfd_create("fsi-memory", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&store, page_at(MAX_PAGES))?;
        Ok(store)
    }

    /// Takes over the memory with what is in it; at most so many bytes are taken from now on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(store: OwnedFd, limit_bytes: u64) -> io::Result<Self> {
        let store = File::from(store);
        let limit_pages = (limit_bytes / PAGE).min(MAX_PAGES);
        let mut memory = Self { store, limit_pages, taken: BTreeMap::new(), free: Vec::new(), next_slot: 0 };
        memory.load()?;
        Ok(memory)
    }

    fn load(&mut self) -> io::Result<()> {
        let mut at = 0;
        // Slots are taken from the lowest on, so the rest of the table is a hole.
        while let Some(data) = seek(&self.store, SeekFrom::Data(at))?.filter(|data| *data < PAGES_AT) {
            let end = seek(&self.store, SeekFrom::Hole(data))?.unwrap_or(PAGES_AT).min(PAGES_AT);
            let mut table = vec![0; usize::try_from(end - data).map_err(io::Error::other)?];
            self.store.read_exact_at(&mut table, data)?;
            for (slot, words) in (data / SLOT..).zip(table.chunks_exact(16)) {
                let (file, index) = words.split_at(8);
                let file = u64::from_le_bytes(file.try_into().map_err(io::Error::other)?);
                let index = u64::from_le_bytes(index.try_into().map_err(io::Error::other)?);
                if file != 0 {
                    self.taken.insert((file, index), slot);
                    self.next_slot = slot + 1;
                }
            }
            at = end;
        }
        let taken: std::collections::HashSet<u64> = self.taken.values().copied().collect();
        self.free = (0..self.next_slot).filter(|slot| !taken.contains(slot)).collect();
        Ok(())
    }

    /// Changes the bound; what is taken stays.
    pub fn set_limit(&mut self, limit_bytes: u64) {
        self.limit_pages = (limit_bytes / PAGE).min(MAX_PAGES);
    }

    /// Gives everything back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(store: &OwnedFd) -> io::Result<()> {
        rustix::fs::ftruncate(store, 0)?;
        Ok(rustix::fs::ftruncate(store, page_at(MAX_PAGES))?)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(rustix::fs::fallocate(&self.store, flags, offset, len)?)
    }

    fn slot(&mut self) -> Option<u64> {
        if self.taken.len() as u64 >= self.limit_pages {
            return None;
        }
        let slot = self.free.pop().unwrap_or(self.next_slot);
        self.next_slot = self.next_slot.max(slot + 1);
        Some(slot)
    }

    /// Bytes taken.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.taken.len() as u64 * PAGE
    }

    /// Bytes there are.
    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit_pages * PAGE
    }

    /// Writes, as far as there is memory; how many bytes.
    ///
    /// # Errors
    /// `ENOSPC` when there is none for the first byte.
    pub fn write(&mut self, file: u64, offset: u64, bytes: &[u8], below: &Below<'_>) -> io::Result<usize> {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (index, within) = (at / PAGE, usize::try_from(at % PAGE).unwrap_or(0));
            let part = &bytes[done..bytes.len().min(done + PAGE_BYTES - within)];
            if let Some(slot) = self.taken.get(&(file, index)) {
                self.store.write_all_at(part, page_at(*slot) + within as u64)?;
            } else if let Some(slot) = self.slot() {
                let mut page = [0; PAGE_BYTES];
                if part.len() < PAGE_BYTES {
                    below(index * PAGE, &mut page)?;
                }
                page[within..within + part.len()].copy_from_slice(part);
                self.store.write_all_at(&page, page_at(slot))?;
                self.store.write_all_at(&index.to_le_bytes(), slot_at(slot) + 8)?;
                self.store.write_all_at(&file.to_le_bytes(), slot_at(slot))?;
                self.taken.insert((file, index), slot);
            } else {
                break;
            }
            done += part.len();
        }
        if done == 0 && !bytes.is_empty() {
            return Err(rustix::io::Errno::NOSPC.into());
        }
        Ok(done)
    }

    /// Reads. The end of the file is the caller's to know.
    ///
    /// # Errors
    /// When the memory or what lies below cannot be read.
    pub fn read(&self, file: u64, offset: u64, buffer: &mut [u8], below: &Below<'_>) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let within = at % PAGE;
            let len = usize::try_from(PAGE - within).unwrap_or(0).min(buffer.len() - done);
            let part = &mut buffer[done..done + len];
            match self.taken.get(&(file, at / PAGE)) {
                Some(slot) => self.store.read_exact_at(part, page_at(*slot) + within)?,
                None => below(at, part)?,
            }
            done += len;
        }
        Ok(())
    }

    /// Zeros from `start` to `end`; whole pages are free again, and the caller sees to what lies below. For truncation (to
    /// `u64::MAX`), punched holes, files that are gone.
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
            if to - from == PAGE {
                self.store.write_all_at(&0_u64.to_le_bytes(), slot_at(slot))?;
                self.taken.remove(&key);
                self.free.push(slot);
            }
            self.punch(page_at(slot) + from, to - from)?;
        }
        Ok(())
    }
}
