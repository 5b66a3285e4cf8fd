//! Buckets that the servers of a node share: a small file that each of them maps.
//!
//! A bucket is one word: until when its tokens are spent, in monotonic nanoseconds. Who takes moves it on by compare-and-swap, so that a
//! server that is killed between any two instructions either has taken or has not, and nobody waits for it. A bucket of which that time
//! is over is full, as a new one is; so its slot may be given to another key, and nothing has to be cleaned up.
//!
//! ```text
//! | key, spent until | key, spent until | ...      a slot: never used (0, 0), in use, or changing hands (until = CHANGING)
//! ```
//! Slots change hands under a lock on the file, which the kernel takes back from who is killed. A slot that is found changing hands by who
//! has the lock was left so by one that was killed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{FallocateFlags, FlockOperation, MemfdFlags, Mode, OFlags};

use crate::sys::memory::SharedWords;

/// Buckets that are there at once; what is over it finds no slot.
pub const SLOTS: usize = 4096;
/// Slots in which a key may be.
const WINDOW: usize = 64;
const BYTES: u64 = (SLOTS * 2 * size_of::<u64>()) as u64;
/// The slot changes hands.
const CHANGING: u64 = u64::MAX;
/// For how long a bucket is full before its slot is given away: longer than anybody needs between looking at a slot and taking from it.
const UNUSED_NS: u64 = 60_000_000_000;
/// The lock is held for microseconds, unless who holds it is stopped.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_micros(100);
/// How names of files of this layout begin.
const LAYOUT: &str = "1-";

/// The time that one bucket has spent, and what it allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Never 0.
    pub key: u64,
    /// How far ahead of now it may be spent when one more passes.
    pub tolerance_ns: u64,
}

/// What became of one who wanted tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    Yes,
    /// Not before that time.
    NotBefore(u64),
    /// The slot is another's by now.
    Gone,
}

/// Where a bucket was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(usize);

/// All buckets that servers share.
#[derive(Debug)]
pub struct Table {
    words: SharedWords,
    file: OwnedFd,
}

impl Table {
    /// The table of the servers that use this directory; of this boot, since its times mean nothing after the next.
    ///
    /// # Errors
    /// When it cannot be made or mapped.
    pub fn open(directory: &Path, boot: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let name = format!("{LAYOUT}{boot}");
        let file = rustix::fs::open(
            directory.join(&name),
            OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::RUSR | Mode::WUSR,
        )?;
        if rustix::fs::fstat(&file)?.st_uid != rustix::process::geteuid().as_raw() {
            // Whoever made it could cut it short under the mapping.
            return Err(io::Error::other("it belongs to another user"));
        }
        // All of it, so that no write to the mapping finds the disk full.
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BYTES)?;
        for entry in fs::read_dir(directory)?.flatten() {
            let other = entry.file_name();
            if other.to_str().is_some_and(|other| other.starts_with(LAYOUT) && other != name) {
                // Somebody else may be as fast.
                fs::remove_file(entry.path()).ok();
            }
        }
        Self::map(file)
    }

    /// One that nobody shares.
    ///
    /// # Errors
    /// When the kernel has no memory for it.
    pub fn private() -> io::Result<Self> {
        let file = rustix::fs::memfd_create("fsi-pods", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, BYTES)?;
        Self::map(file)
    }

    fn map(file: OwnedFd) -> io::Result<Self> {
        Ok(Self { words: SharedWords::map(file.as_fd(), SLOTS * 2)?, file })
    }

    fn slot(&self, Slot(slot): Slot) -> (&AtomicU64, &AtomicU64) {
        let words = self.words.words();
        (&words[2 * slot], &words[2 * slot + 1])
    }

    fn window(key: u64) -> impl Iterator<Item = Slot> {
        let slots = SLOTS as u64;
        (0..WINDOW as u64).filter_map(move |step| usize::try_from((key % slots + step) % slots).ok().map(Slot))
    }

    /// The bucket of that key, a full one if there is none; nothing where all slots are in use, or the lock is not to be had.
    #[must_use]
    pub fn find(&self, key: u64, now_ns: u64) -> Option<Slot> {
        let is_it = |slot: &Slot| {
            let (owner, until) = self.slot(*slot);
            owner.load(Ordering::Acquire) == key && until.load(Ordering::Acquire) != CHANGING
        };
        if let Some(slot) = Self::window(key).find(is_it) {
            return Some(slot);
        }
        let _lock = Lock::take(&self.file)?;
        let mut free = None;
        for slot in Self::window(key) {
            let (owner, until) = self.slot(slot);
            let (owner, until) = (owner.load(Ordering::Acquire), until.load(Ordering::Acquire));
            if owner == key && until != CHANGING {
                return Some(slot);
            }
            if owner == 0 || until == CHANGING || until.saturating_add(UNUSED_NS) <= now_ns {
                free = free.or(Some((slot, until)));
            }
        }
        let (slot, seen) = free?;
        let (owner, until) = self.slot(slot);
        // Whoever was about to take from it for the old key sees that it changed: the new time is later than the one he saw.
        until.compare_exchange(seen, CHANGING, Ordering::AcqRel, Ordering::Acquire).ok()?;
        owner.store(key, Ordering::Release);
        until.store(now_ns, Ordering::Release);
        Some(slot)
    }

    /// When one more may pass: `now_ns` or later. Nothing when the slot is another's by now.
    #[must_use]
    pub fn ready_at(&self, slot: Slot, terms: Terms, now_ns: u64) -> Option<u64> {
        let (owner, until) = self.slot(slot);
        let until = until.load(Ordering::Acquire);
        (owner.load(Ordering::Acquire) == terms.key && until != CHANGING)
            .then(|| until.saturating_sub(terms.tolerance_ns).max(now_ns))
    }

    /// Takes what costs so much time, if one may pass now.
    #[must_use]
    pub fn take(&self, slot: Slot, terms: Terms, cost_ns: u64, now_ns: u64) -> Taken {
        let (owner, until) = self.slot(slot);
        loop {
            let seen = until.load(Ordering::Acquire);
            if owner.load(Ordering::Acquire) != terms.key || seen == CHANGING {
                return Taken::Gone;
            }
            let ready = seen.saturating_sub(terms.tolerance_ns);
            if ready > now_ns {
                return Taken::NotBefore(ready);
            }
            let next = seen.max(now_ns).saturating_add(cost_ns).min(CHANGING - 1);
            if until.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Taken::Yes;
            }
        }
    }

    /// Gives time back that was taken and not used.
    pub fn give_back(&self, slot: Slot, key: u64, cost_ns: u64, now_ns: u64) {
        let (owner, until) = self.slot(slot);
        loop {
            let seen = until.load(Ordering::Acquire);
            // Never below now: a time that was seen once does not come again for another key.
            if owner.load(Ordering::Acquire) != key || seen == CHANGING || seen <= now_ns {
                return;
            }
            let next = seen.saturating_sub(cost_ns).max(now_ns);
            if until.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }
}

/// The right to change whose slots are; the kernel takes it back from who is killed.
struct Lock<'a>(&'a OwnedFd);

impl<'a> Lock<'a> {
    fn take(file: &'a OwnedFd) -> Option<Self> {
        for attempt in 0..LOCK_TRIES {
            if attempt > 0 {
                thread::sleep(LOCK_PAUSE);
            }
            if rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return Some(Self(file));
            }
        }
        None
    }
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        // It was ours, so it can be given back.
        rustix::fs::flock(self.0, FlockOperation::Unlock).ok();
    }
}

/// Which boot this is, as the kernel names it.
///
/// # Errors
/// When `/proc` does not say.
pub fn boot() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned())
}

#[cfg(test)]
mod tests;
