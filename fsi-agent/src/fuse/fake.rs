//! Files whose bytes are not kept: nothing, a pattern, or memory.
//!
//! | kind | a write | a read |
//! |---|---|---|
//! | null | is forgotten | gives zeros |
//! | pattern | is forgotten | gives bytes that depend on the file's number and the offset alone |
//! | memory | is kept in bounded memory | gives what was written |
//!
//! Sizes are kept by the backing file, which stays sparse, so that `stat`, truncation and appending work as ever.

mod memory;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

pub use self::memory::Memory;

/// Fills a buffer with the pattern of that file from that offset on.
///
/// The word at `8 * k` is, in little-endian order, the number `ino * 0x9E3779B97F4A7C15 + k` (wrapping) put through the finalizer
/// of SplitMix64: `z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9; z = (z ^ z >> 27) * 0x94D049BB133111EB; z ^ z >> 31`.
pub fn fill(ino: u64, offset: u64, buffer: &mut [u8]) {
    let mut at = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let word = word(ino, at / 8).to_le_bytes();
        let skip = usize::try_from(at % 8).unwrap_or(0);
        let (now, later) = rest.split_at_mut((8 - skip).min(rest.len()));
        now.copy_from_slice(&word[skip..skip + now.len()]);
        at += now.len() as u64;
        rest = later;
    }
}

const fn word(ino: u64, index: u64) -> u64 {
    let mut mixed = ino.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(index);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// Keeps the sizes of files whose bytes are not kept.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Two writers at once must not make a file shorter.
    growing: Mutex<()>,
}

impl Sizes {
    /// The file ends at `end` or later. `file` must be writable.
    ///
    /// # Errors
    /// When the backing file cannot be resized.
    pub fn grow(&self, file: BorrowedFd<'_>, end: u64) -> io::Result<()> {
        let _held = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        if end > size(file)? { Ok(rustix::fs::ftruncate(file, end)?) } else { Ok(()) }
    }

    /// Sets the size; for a truncation.
    ///
    /// # Errors
    /// When the backing file cannot be resized.
    pub fn set(&self, file: BorrowedFd<'_>, size: u64) -> io::Result<()> {
        let _held = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rustix::fs::ftruncate(file, size)?)
    }

    /// How many bytes a read of `len` at `offset` gets.
    ///
    /// # Errors
    /// When the backing file cannot be looked at.
    pub fn readable(&self, file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<u64> {
        Ok(size(file)?.saturating_sub(offset).min(len))
    }
}

fn size(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(rustix::fs::fstat(file)?.st_size).unwrap_or(0))
}

#[cfg(test)]
mod tests;
