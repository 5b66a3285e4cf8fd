//! A volume of a fixed size: writes past it fail as on a full disk, and `statfs` agrees.
//!
//! ```text
//! begin(file, range) --(room)--> Grant --the write--> settle: what the file really took
//! ```
//! Counted are the blocks of regular files, each file once however many names it has. A grant books the whole range before the
//! write; settling books what the file grew by instead. Only when the volume is nearly full are the holes looked at that tell how much
//! a write really needs, so that overwriting works to the last block. The count lives in a word that outlives the server.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat};
use thiserror::Error;

use super::extent::seek;
use crate::clock::{self, Clock};

/// What an application gets when nothing is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// `ENOSPC`: no space left on device.
    #[default]
    NoSpace,
    /// `EDQUOT`: disk quota exceeded.
    Quota,
}

/// Why nothing is granted.
#[derive(Debug, Error)]
pub enum CapacityError {
    #[error("no space is left on the volume")]
    Full { errno: i32 },
    #[error("look at the file: {0}")]
    Io(#[from] io::Error),
}

/// Leave to take space. To be settled, whether the write succeeded or not.
#[derive(Debug)]
#[must_use = "what is not settled stays booked"]
pub struct Grant {
    /// How much of the range may be written, from its beginning.
    pub bytes: u64,
    booked: u64,
    key: (u64, u64),
}

#[derive(Clone, Copy, Debug)]
struct Tracked {
    /// Bytes the file is counted with.
    counted: u64,
    under_way: usize,
}

/// The limit of one volume.
#[derive(Debug)]
pub struct Capacity {
    limit: u64,
    when_full: WhenFull,
    /// Files that change now: two writers of one file must not both count its growth.
    files: Mutex<HashMap<(u64, u64), Tracked>>,
}

impl Capacity {
    #[must_use]
    pub fn new(limit_bytes: u64, when_full: WhenFull) -> Self {
        Self { limit: limit_bytes, when_full, files: Mutex::default() }
    }

    #[must_use]
    pub const fn limit(&self) -> u64 {
        self.limit
    }

    /// The errno of a full volume.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self.when_full {
            WhenFull::NoSpace => libc::ENOSPC,
            WhenFull::Quota => libc::EDQUOT,
        }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<(u64, u64), Tracked>> {
        // Counts are whole after every statement, so that a panic elsewhere leaves nothing half done.
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before `len` bytes at `offset` are written or allocated. Grants less than asked where only that much fits.
    ///
    /// # Errors
    /// When not even a byte fits, or the file cannot be looked at.
    pub fn reserve(
        &self,
        used: &AtomicU64,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<Grant, CapacityError> {
        let stat = rustix::fs::fstat(file).map_err(io::Error::from)?;
        let block = u64::try_from(stat.st_blksize).unwrap_or(4096).clamp(512, 4096);
        let end = offset.saturating_add(len);
        let most = (end.div_ceil(block) - offset / block).saturating_mul(block);
        let (bytes, booked) = if len == 0 {
            (0, 0)
        } else if self.book(used, most, most).is_some() {
            (len, most)
        } else {
            self.squeeze(used, file, &stat, (offset, end), block)?
        };
        Ok(self.begin(used, file, bytes, booked)?)
    }

    /// Before a change that takes no space: truncation, a punched hole.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn change(&self, file: BorrowedFd<'_>) -> io::Result<Grant> {
        self.begin(&AtomicU64::new(0), file, 0, 0)
    }

    fn begin(&self, used: &AtomicU64, file: BorrowedFd<'_>, bytes: u64, booked: u64) -> io::Result<Grant> {
        let mut files = self.files();
        let stat = rustix::fs::fstat(file).inspect_err(|_| give_back(used, booked))?;
        let key = (stat.st_dev, stat.st_ino);
        files.entry(key).or_insert_with(|| Tracked { counted: allocated(&stat), under_way: 0 }).under_way += 1;
        Ok(Grant { bytes, booked, key })
    }

    /// After the change: books what the file really grew or shrank by.
    ///
    /// # Errors
    /// When the file cannot be looked at; what was booked is given back.
    pub fn settle(&self, used: &AtomicU64, grant: Grant, file: BorrowedFd<'_>) -> io::Result<()> {
        let mut files = self.files();
        let stat = rustix::fs::fstat(file);
        if let Some(tracked) = files.get_mut(&grant.key) {
            if let Ok(stat) = &stat {
                let now = allocated(stat);
                // First what was added, so that the count is never below what is there.
                used.fetch_add(now.saturating_sub(tracked.counted), Ordering::AcqRel);
                give_back(used, tracked.counted.saturating_sub(now));
                tracked.counted = now;
            }
            tracked.under_way -= 1;
            if tracked.under_way == 0 {
                files.remove(&grant.key);
            }
        }
        give_back(used, grant.booked);
        stat.map(drop).map_err(Into::into)
    }

    /// A file without a name and without an open descriptor is gone: the bytes it took are free again.
    pub fn removed(&self, used: &AtomicU64, bytes: u64) {
        give_back(used, bytes);
    }

    /// Books `want`, or less down to one byte; never past the limit. `at_least`: nothing rather than less than that.
    fn book(&self, used: &AtomicU64, want: u64, at_least: u64) -> Option<u64> {
        let mut booked = 0;
        used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| {
            booked = want.min(self.limit.saturating_sub(now));
            (booked >= at_least).then_some(now + booked)
        })
        .ok()
        .map(|_| booked)
    }

    /// Little is left: what does the range really need, and how far does what is left go?
    fn squeeze(
        &self,
        used: &AtomicU64,
        file: BorrowedFd<'_>,
        stat: &Stat,
        (offset, end): (u64, u64),
        block: u64,
    ) -> Result<(u64, u64), CapacityError> {
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if allocated(stat) >= size.max(end).div_ceil(block) * block {
            // Allocated throughout, perhaps ahead of its data: such blocks look like holes and are none.
            return Ok((end - offset, 0));
        }
        let holes = holes(file, offset / block * block, end.div_ceil(block) * block)?;
        let need: u64 = holes.iter().map(|(start, end)| end - start).sum();
        if need == 0 {
            return Ok((end - offset, 0));
        }
        let booked = self.book(used, need, 0).unwrap_or(0);
        // Whole blocks only: the rest of the last one is given back.
        let mut left = booked / block * block;
        give_back(used, booked - left);
        let booked = left;
        let mut reaches = end;
        for (start, until) in holes {
            if until - start > left {
                reaches = start + left;
                break;
            }
            left -= until - start;
        }
        if reaches <= offset {
            give_back(used, booked);
            return Err(CapacityError::Full { errno: self.errno() });
        }
        Ok((reaches.min(end) - offset, booked))
    }
}

/// Never below nothing: files may change behind our back.
fn give_back(used: &AtomicU64, bytes: u64) {
    let given = used.fetch_update(Ordering::AcqRel, Ordering::Acquire, |now| Some(now.saturating_sub(bytes)));
    debug_assert!(given.is_ok(), "the update always has a value");
}

fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

/// The holes of a range; everything past the end of the file is one.
fn holes(file: BorrowedFd<'_>, start: u64, end: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = start;
    while at < end {
        let data = seek(file, SeekFrom::Data(at))?.map_or(end, |data| data.clamp(at, end));
        if data > at {
            found.push((at, data));
        }
        at = if data < end { seek(file, SeekFrom::Hole(data))?.unwrap_or(end).clamp(data + 1, end) } else { end };
    }
    Ok(found)
}

/// Bytes that the regular files under a directory take, on its own file system. A file with several names counts once. `None`
/// when that takes longer than `patience`.
///
/// # Errors
/// When something cannot be looked at.
pub fn count(root: BorrowedFd<'_>, patience: Duration) -> io::Result<Option<u64>> {
    let started = clock::monotonic_ns();
    let device = rustix::fs::fstat(root)?.st_dev;
    let mut seen = HashSet::new();
    let mut sum = 0;
    // The root may be a descriptor that only leads there.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut open = vec![Dir::new(rustix::fs::openat(root, ".", flags, Mode::empty())?)?];
    while let Some(directory) = open.last_mut() {
        let Some(entry) = directory.read() else {
            open.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = match rustix::fs::statat(directory.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(rustix::io::Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        if stat.st_dev != device {
            continue;
        }
        if FileType::from_raw_mode(stat.st_mode).is_dir() {
            let inner = rustix::fs::openat(directory.fd()?, name, flags | OFlags::NOFOLLOW, Mode::empty())?;
            open.push(Dir::new(inner)?);
            if Clock::since(started) > patience {
                return Ok(None);
            }
        } else if FileType::from_raw_mode(stat.st_mode).is_file() && (stat.st_nlink == 1 || seen.insert(stat.st_ino)) {
            sum += allocated(&stat);
        }
    }
    Ok(Some(sum))
}

#[cfg(test)]
mod tests;
