//! Memory that several processes share: a memfd, mapped as words that are only ever touched atomically.
//! And what the allocator keeps for later is given back to the kernel.
#![expect(unsafe_code, reason = "mmap(2) returns an address, and the allocator is C")]

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// Gives memory that was freed back to the kernel: after work that took much of it and is not done again.
pub fn give_back() {
    // SAFETY: it touches only what is free; allocations of other threads wait meanwhile.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// A mapped file; its words stay readable as long as this lives.
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to no thread, and its words are atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above; all access goes through `&AtomicU64`.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `words` words of a file, which must be at least that long and never be cut shorter.
    ///
    /// # Errors
    /// When the kernel refuses, or the file is too short.
    pub fn map(file: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        let bytes = words.checked_mul(size_of::<AtomicU64>()).ok_or(io::ErrorKind::InvalidInput)?;
        let length = rustix::fs::fstat(file)?.st_size;
        if usize::try_from(length).map_err(io::Error::other)? < bytes {
            return Err(io::Error::other(format!("{length} bytes, wanted {bytes}")));
        }
        // SAFETY: a new shared mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_NORESERVE,
                file.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { start, words })
    }

    /// The words. Every bit pattern is a valid word, whoever wrote it.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `map` made a mapping of that many words, page aligned, which `drop` alone takes away; other processes write to it
        // only as atomics do.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no reference into it outlives `self`.
        let result = unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<AtomicU64>()) };
        debug_assert_eq!(result, 0, "the mapping is what map(2) gave");
    }
}

impl fmt::Debug for SharedWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWords").field("words", &self.words).finish_non_exhaustive()
    }
}
