//! Between fuser's types and ours: attributes, times, flags.
#![expect(clippy::disallowed_types, reason = "fuser speaks of times as SystemTime; no clock is read here")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, FopenFlags, INodeNo, TimeOrNow};
use rustix::fs::{OFlags, Statx, StatxTimestamp, Timespec, UTIME_NOW, UTIME_OMIT};

use crate::fuse::fs::Opened;
use crate::fuse::node::number_of;

fn time(time: StatxTimestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::from(time.tv_nsec));
    match u64::try_from(time.tv_sec) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanoseconds,
        Err(_before_1970) => UNIX_EPOCH - Duration::from_secs(time.tv_sec.unsigned_abs()) + nanoseconds,
    }
}

pub(super) const fn kind(kind: rustix::fs::FileType) -> FileType {
    use rustix::fs::FileType as Backing;
    match kind {
        Backing::Directory => FileType::Directory,
        Backing::Symlink => FileType::Symlink,
        Backing::Fifo => FileType::NamedPipe,
        Backing::Socket => FileType::Socket,
        Backing::CharacterDevice => FileType::CharDevice,
        Backing::BlockDevice => FileType::BlockDevice,
        Backing::RegularFile | Backing::Unknown => FileType::RegularFile,
    }
}

pub(super) fn attributes(stat: &Statx) -> FileAttr {
    let mode = u32::from(stat.stx_mode);
    FileAttr {
        ino: INodeNo(number_of(stat)),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        crtime: time(stat.stx_btime),
        kind: kind(rustix::fs::FileType::from_raw_mode(mode)),
        perm: stat.stx_mode & 0o7777,
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        // The kernel's old encoding of device numbers.
        rdev: stat.stx_rdev_minor & 0xff | (stat.stx_rdev_major & 0xfff) << 8 | (stat.stx_rdev_minor & 0xf_ff00) << 12,
        blksize: stat.stx_blksize,
        flags: 0,
    }
}

pub(super) fn flags_of(opened: &Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if !opened.wants_flush {
        flags |= FopenFlags::FOPEN_NOFLUSH;
    }
    if opened.direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    }
    flags
}

pub(super) fn timestamp(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Timespec {
                tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(since.subsec_nanos()),
            },
            // fuser takes the nanoseconds off the seconds too: of -5 s and 999,999,999 ns it makes 5.999999999 s before 1970.
            Err(before) => {
                let before = before.duration();
                Timespec {
                    tv_sec: 0_i64.saturating_sub_unsigned(before.as_secs()),
                    tv_nsec: i64::from(before.subsec_nanos()),
                }
            }
        },
    }
}

pub(super) fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}

pub(super) const fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As fuser makes a time of what the kernel sent.
    fn of_fuser(seconds: i64, nanoseconds: u32) -> TimeOrNow {
        let apart = Duration::new(seconds.unsigned_abs(), nanoseconds);
        TimeOrNow::SpecificTime(if seconds < 0 { UNIX_EPOCH - apart } else { UNIX_EPOCH + apart })
    }

    #[test]
    fn times_before_1970_are_what_the_kernel_sent() {
        for second in [i64::MIN + 1, -5_000_000_000, -5, -1, 0, 1, 5_000_000_000, i64::MAX] {
            for nanosecond in [0, 1, 500_000_000, 999_999_999] {
                let read = timestamp(Some(of_fuser(second, nanosecond)));
                assert_eq!((read.tv_sec, read.tv_nsec), (second, i64::from(nanosecond)));
            }
        }
        let earliest = timestamp(Some(of_fuser(i64::MIN, 0)));
        assert_eq!((earliest.tv_sec, earliest.tv_nsec), (i64::MIN, 0));
    }
}
