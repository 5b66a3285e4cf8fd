//! What a successor needs: everything about a mount that must outlive its server, in memory the keeper holds.
//!
//! ```text
//! | header | rules, two areas | requests under way | open files | ordinals | nodes ... |
//! ```
//! One sparse memfd, mapped by whichever server lives. A server that is killed leaves each word either as it was or as it should
//! be; what takes several words is written so that a torn one is recognised (a slot is in use only once its first word says so).
//!
//! Not here: descriptors (the keeper holds those of files without a name) and bytes of files.

mod free;
mod nodes;
pub mod rules_text;
mod table;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::MemfdFlags;
use thiserror::Error;

use crate::rules::decision::Counters;
use crate::sys::memory::SharedWords;
use crate::throttle::bucket::Level;

pub use self::free::FreeSlots;
pub use self::nodes::{MAX_HANDLE_BYTES, NodeRecord};
pub use self::table::{Slot, Table};

/// Says that the words are ours, and in which layout: another layout cannot take over.
pub const LAYOUT: u64 = 0x4653_4953_0000_0002;

const HEADER: usize = 4096;
/// How many levels of buckets there are, then tokens and time of each.
const LEVELS: usize = 64;
/// Levels that are kept; buckets past them begin empty with each server.
const MAX_LEVELS: usize = 200;
const INIT: usize = 512;
const INIT_REPLY: usize = 1024;
const BLOB: usize = 512;
/// A change of a node's place that is being made: slot + 1 (0: none), directory, name.
const PLACE: usize = 1536;
/// Words of one area for the text of the rules.
const RULES: usize = 131_072;
/// Requests that may be under way at once.
pub const MAX_REQUESTS: usize = 16_384;
const REQUEST: usize = 16;
/// Files that may be open at once.
pub const MAX_OPEN: usize = 1_048_576;
const OPEN: usize = 8;
/// Pairs of file and operation that rules count.
pub const MAX_ORDINALS: usize = 1_048_576;
const ORDINAL: usize = 4;
/// Files and directories the kernel may know at once.
pub const MAX_NODES: usize = 4_194_304;
const NODE: usize = 56;

const AT_RULES: usize = HEADER;
const AT_REQUESTS: usize = AT_RULES + 2 * RULES;
const AT_OPEN: usize = AT_REQUESTS + MAX_REQUESTS * REQUEST;
const AT_ORDINALS: usize = AT_OPEN + MAX_OPEN * OPEN;
const AT_NODES: usize = AT_ORDINALS + MAX_ORDINALS * ORDINAL;
const WORDS: usize = AT_NODES + MAX_NODES * NODE;

/// Single words of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Word {
    Layout = 0,
    /// Requests answered by any server.
    Progress = 1,
    /// Servers started.
    Servers = 2,
    /// Faults in the log so far.
    Faults = 3,
    /// Bytes in use, where there is a capacity.
    Used = 4,
    /// 1: the usage was counted.
    UsedCounted = 5,
    /// 1: no rule fires.
    Paused = 6,
    /// When the rules were armed, `CLOCK_MONOTONIC` nanoseconds.
    ArmedAt = 7,
    /// Which area holds the rules: 0 none, 1, 2; the upper half counts changes.
    RulesArea = 8,
    /// Counts power cuts: an open file of an earlier one answers EIO.
    Era = 9,
    /// Ordinals that could not be kept: the table was full.
    OrdinalsFull = 10,
    /// No slot of a node was ever used from here on.
    NodesEnd = 11,
    /// No slot of an open file was ever used from here on.
    OpenEnd = 12,
    /// Reports made for the agent. Away from the words that every request touches.
    Reported = 16,
    /// Reports that an agent took.
    ReportsTaken = 17,
}

/// Why a state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    #[error("map the mount's state: {0}")]
    Map(#[from] io::Error),
    #[error("the mount's state has layout {found:#x}, this binary knows {LAYOUT:#x}")]
    Layout { found: u64 },
    #[error("{what} has {bytes} bytes, at most {most} fit")]
    TooLong { what: &'static str, bytes: usize, most: usize },
}

/// The mount's state, mapped.
#[derive(Debug)]
pub struct State {
    memory: SharedWords,
}

impl State {
    /// A new, empty state, for the keeper to hold.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn create() -> io::Result<OwnedFd> {
        let file = rustix::fs::memfd_create("fsi-state", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, (WORDS * 8) as u64)?;
        let memory = SharedWords::map(file.as_fd(), WORDS)?;
        memory.words()[Word::Layout as usize].store(LAYOUT, Ordering::Release);
        Ok(file)
    }

    /// Maps a state.
    ///
    /// # Errors
    /// When it cannot be mapped, or is of another layout.
    pub fn open(file: BorrowedFd<'_>) -> Result<Arc<Self>, StateError> {
        let state = Self { memory: SharedWords::map(file, WORDS)? };
        match state.word(Word::Layout).load(Ordering::Acquire) {
            LAYOUT => Ok(Arc::new(state)),
            found => Err(StateError::Layout { found }),
        }
    }

    /// A word of the header.
    #[must_use]
    pub fn word(&self, word: Word) -> &AtomicU64 {
        &self.memory.words()[word as usize]
    }

    /// The kernel's INIT request, as it was read.
    #[must_use]
    pub fn init(&self) -> Vec<u8> {
        self.blob(INIT)
    }

    /// # Errors
    /// When it is too long.
    pub fn set_init(&self, bytes: &[u8]) -> Result<(), StateError> {
        self.set_blob(INIT, "the INIT request", bytes)
    }

    /// The answer the first server gave to it; empty before.
    #[must_use]
    pub fn init_reply(&self) -> Vec<u8> {
        self.blob(INIT_REPLY)
    }

    /// # Errors
    /// When it is too long.
    pub fn set_init_reply(&self, bytes: &[u8]) -> Result<(), StateError> {
        self.set_blob(INIT_REPLY, "the answer to INIT", bytes)
    }

    /// What the buckets of throttles hold, for a successor.
    pub fn set_levels(&self, levels: impl Iterator<Item = Level>) {
        let (count, words) = self.level_words();
        let mut kept = 0;
        for (pair, (tokens, at_ns)) in words.chunks_exact(2).zip(levels) {
            pair[0].store(tokens.cast_unsigned(), Ordering::Relaxed);
            pair[1].store(at_ns, Ordering::Relaxed);
            kept += 1;
        }
        count.store(kept, Ordering::Release);
    }

    /// What the server before left in them.
    #[must_use]
    pub fn levels(&self) -> Vec<Level> {
        let (count, words) = self.level_words();
        let kept = usize::try_from(count.load(Ordering::Acquire)).unwrap_or(0);
        let level =
            |pair: &[AtomicU64]| (pair[0].load(Ordering::Relaxed).cast_signed(), pair[1].load(Ordering::Relaxed));
        words.chunks_exact(2).take(kept).map(level).collect()
    }

    fn level_words(&self) -> (&AtomicU64, &[AtomicU64]) {
        let words = self.memory.words();
        (&words[LEVELS], &words[LEVELS + 1..=LEVELS + 2 * MAX_LEVELS])
    }

    fn blob(&self, at: usize) -> Vec<u8> {
        table::read_bytes(&self.memory.words()[at..at + BLOB])
    }

    fn set_blob(&self, at: usize, what: &'static str, bytes: &[u8]) -> Result<(), StateError> {
        let most = (BLOB - 1) * 8;
        if bytes.len() > most {
            return Err(StateError::TooLong { what, bytes: bytes.len(), most });
        }
        table::write_bytes(&self.memory.words()[at..at + BLOB], bytes);
        Ok(())
    }

    fn place(&self) -> &[AtomicU64] {
        &self.memory.words()[PLACE..PLACE + 2 + nodes::NAME_WORDS]
    }

    /// Requests that were begun and not yet answered.
    #[must_use]
    pub fn requests(&self) -> Table<'_, REQUEST> {
        Table::new(&self.memory.words()[AT_REQUESTS..AT_OPEN])
    }

    /// The same of a state that is not mapped: to look at a slot that was never used costs no memory then.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_requests(file: BorrowedFd<'_>, mut each: impl FnMut(&[u64; REQUEST])) -> io::Result<()> {
        const SLOT_BYTES: usize = REQUEST * 8;
        let mut bytes = vec![0; 512 * SLOT_BYTES];
        let (mut at, end) = (AT_REQUESTS * 8, AT_OPEN * 8);
        while at < end {
            let most = bytes.len().min(end - at);
            let read = rustix::io::pread(file, &mut bytes[..most], at as u64)?;
            let (slots, _torn) = bytes[..read].as_chunks::<SLOT_BYTES>();
            if slots.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            for slot in slots {
                let (words, _none) = slot.as_chunks::<8>();
                let mut record = [0; REQUEST];
                for (word, bytes) in record.iter_mut().zip(words) {
                    *word = u64::from_ne_bytes(*bytes);
                }
                each(&record);
            }
            at += slots.len() * SLOT_BYTES;
        }
        Ok(())
    }

    /// Open files, by the number of their slot.
    #[must_use]
    pub fn open_files(&self) -> Table<'_, OPEN> {
        Table::new(&self.memory.words()[AT_OPEN..AT_ORDINALS])
    }

    /// Everything the kernel knows by number.
    #[must_use]
    pub fn nodes(&self) -> Table<'_, NODE> {
        Table::new(&self.memory.words()[AT_NODES..WORDS])
    }

    fn ordinals(&self) -> &[AtomicU64] {
        &self.memory.words()[AT_ORDINALS..AT_NODES]
    }

    /// The counter of a key: open addressing, two words of key, then the count. `None`: the table is full.
    #[expect(clippy::cast_possible_truncation, reason = "the two halves of a key")]
    fn ordinal(&self, key: u128) -> Option<&AtomicU64> {
        // The low bit marks a slot in use, so that an all-zero key is none.
        let low = (key as u64) | 1;
        let high = (key >> 64) as u64;
        let slots = self.ordinals();
        let first = usize::try_from(high).ok()? % MAX_ORDINALS;
        for step in 0..MAX_PROBES {
            let at = (first + step) % MAX_ORDINALS * ORDINAL;
            match slots[at].compare_exchange(0, low, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_free) => slots[at + 1].store(high, Ordering::Release),
                Err(taken) if taken != low => continue,
                Err(_same) => {
                    // The one who took it may not have written the other half yet; 0 is then filled with the same value.
                    let seen = slots[at + 1].load(Ordering::Acquire);
                    if seen != high
                        && slots[at + 1].compare_exchange(0, high, Ordering::AcqRel, Ordering::Acquire).is_err()
                    {
                        continue;
                    }
                }
            }
            return Some(&slots[at + 2]);
        }
        self.word(Word::OrdinalsFull).fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// Slots looked at before a table of ordinals counts as full.
const MAX_PROBES: usize = 256;

impl Counters for State {
    fn next(&self, key: u128) -> u64 {
        self.ordinal(key).map_or(0, |count| count.fetch_add(1, Ordering::AcqRel))
    }

    fn below(&self, key: u128, limit: u64) -> bool {
        self.ordinal(key).is_some_and(|count| {
            count
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |so_far| (so_far < limit).then_some(so_far + 1))
                .is_ok()
        })
    }
}

#[cfg(test)]
mod tests;
