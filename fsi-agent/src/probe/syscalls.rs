//! System calls of x86_64 as operations on files: what the kernel side looks up first. One line per call.

use fsi_common::op::OpKind as Op;
use fsi_common::syscall::{CALLS, Call, NO_ARGUMENT};

/// (number, how to read it). Arguments count from 0.
const TABLE: &[(i64, Call)] = &[
    // Opening and closing.
    (libc::SYS_open, Call::open(0, 1)),
    (libc::SYS_openat, Call::open_at(0, 1, 2)),
    (libc::SYS_openat2, Call::open_at(0, 1, 2).open_how()),
    (libc::SYS_creat, Call::open(0, NO_ARGUMENT)),
    (libc::SYS_open_by_handle_at, Call::open(NO_ARGUMENT, 2)),
    (libc::SYS_close, Call::descriptor(Op::Close, 0)),
    (libc::SYS_dup2, Call::replace(1)),
    (libc::SYS_dup3, Call::replace(1)),
    // Moving bytes.
    (libc::SYS_read, Call::descriptor(Op::Read, 0).reads().asked(2).at_position()),
    (libc::SYS_pread64, Call::descriptor(Op::Read, 0).reads().asked(2).offset(3)),
    (libc::SYS_readv, Call::descriptor(Op::Read, 0).reads().asked_iovec(2).at_position()),
    (libc::SYS_preadv, Call::descriptor(Op::Read, 0).reads().asked_iovec(2).offset(3)),
    (libc::SYS_preadv2, Call::descriptor(Op::Read, 0).reads().asked_iovec(2).offset(3).at_position()),
    (libc::SYS_write, Call::descriptor(Op::Write, 0).writes().asked(2).at_position()),
    (libc::SYS_pwrite64, Call::descriptor(Op::Write, 0).writes().asked(2).offset(3)),
    (libc::SYS_writev, Call::descriptor(Op::Write, 0).writes().asked_iovec(2).at_position()),
    (libc::SYS_pwritev, Call::descriptor(Op::Write, 0).writes().asked_iovec(2).offset(3)),
    (libc::SYS_pwritev2, Call::descriptor(Op::Write, 0).writes().asked_iovec(2).offset(3).at_position()),
    (libc::SYS_sendfile, Call::descriptor(Op::Sendfile, 1).to_descriptor(0).asked(3)),
    (libc::SYS_copy_file_range, Call::descriptor(Op::CopyFileRange, 0).to_descriptor(2).asked(4)),
    (libc::SYS_splice, Call::descriptor(Op::Splice, 0).to_descriptor(2).asked(4)),
    (libc::SYS_lseek, Call::descriptor(Op::Lseek, 0).offset(1)),
    // Making it durable, making room.
    (libc::SYS_fsync, Call::descriptor(Op::Fsync, 0)),
    (libc::SYS_fdatasync, Call::descriptor(Op::Fdatasync, 0)),
    (libc::SYS_sync_file_range, Call::descriptor(Op::SyncFileRange, 0).offset(1).asked(2)),
    (libc::SYS_syncfs, Call::descriptor(Op::Syncfs, 0)),
    (libc::SYS_truncate, Call::path(Op::Truncate, 0).offset(1)),
    (libc::SYS_ftruncate, Call::descriptor(Op::Truncate, 0).offset(1)),
    (libc::SYS_fallocate, Call::descriptor(Op::Fallocate, 0).offset(2).asked(3)),
    // Looking.
    (libc::SYS_stat, Call::path(Op::Stat, 0)),
    (libc::SYS_lstat, Call::path(Op::Stat, 0)),
    (libc::SYS_fstat, Call::descriptor(Op::Stat, 0)),
    (libc::SYS_newfstatat, Call::path_at(Op::Stat, 0, 1).at_flags(3)),
    (libc::SYS_statx, Call::path_at(Op::Stat, 0, 1).at_flags(2).null_is_descriptor()),
    (libc::SYS_access, Call::path(Op::Access, 0)),
    (libc::SYS_faccessat, Call::path_at(Op::Access, 0, 1)),
    (libc::SYS_faccessat2, Call::path_at(Op::Access, 0, 1).at_flags(3)),
    (libc::SYS_statfs, Call::path(Op::Statfs, 0)),
    (libc::SYS_fstatfs, Call::descriptor(Op::Statfs, 0)),
    (libc::SYS_readlink, Call::path(Op::Readlink, 0)),
    (libc::SYS_readlinkat, Call::path_at(Op::Readlink, 0, 1)),
    (libc::SYS_getdents, Call::descriptor(Op::Readdir, 0).asked(2)),
    (libc::SYS_getdents64, Call::descriptor(Op::Readdir, 0).asked(2)),
    (libc::SYS_chdir, Call::path(Op::Chdir, 0)),
    (libc::SYS_fchdir, Call::descriptor(Op::Chdir, 0)),
    // Making, moving and removing names.
    (libc::SYS_unlink, Call::path(Op::Unlink, 0)),
    (libc::SYS_unlinkat, Call::path_at(Op::Unlink, 0, 1).at_flags(2).moves_paths()),
    (libc::SYS_rename, Call::path(Op::Rename, 0).and_path(1).moves_paths()),
    (libc::SYS_renameat, Call::path_at(Op::Rename, 0, 1).and_path_at(2, 3).moves_paths()),
    (libc::SYS_renameat2, Call::path_at(Op::Rename, 0, 1).and_path_at(2, 3).moves_paths()),
    (libc::SYS_link, Call::path(Op::Link, 0).and_path(1)),
    (libc::SYS_linkat, Call::path_at(Op::Link, 0, 1).and_path_at(2, 3).at_flags(4)),
    // The path is that of the link; the other is what it says.
    (libc::SYS_symlink, Call::path(Op::Symlink, 1).and_path(0)),
    (libc::SYS_symlinkat, Call::path_at(Op::Symlink, 1, 2).and_path(0)),
    (libc::SYS_mkdir, Call::path(Op::Mkdir, 0)),
    (libc::SYS_mkdirat, Call::path_at(Op::Mkdir, 0, 1)),
    (libc::SYS_rmdir, Call::path(Op::Rmdir, 0).moves_paths()),
    (libc::SYS_mknod, Call::path(Op::Mknod, 0)),
    (libc::SYS_mknodat, Call::path_at(Op::Mknod, 0, 1)),
    // Owners, modes, times, attributes.
    (libc::SYS_chmod, Call::path(Op::Chmod, 0)),
    (libc::SYS_fchmod, Call::descriptor(Op::Chmod, 0)),
    (libc::SYS_fchmodat, Call::path_at(Op::Chmod, 0, 1)),
    (libc::SYS_fchmodat2, Call::path_at(Op::Chmod, 0, 1).at_flags(3)),
    (libc::SYS_chown, Call::path(Op::Chown, 0)),
    (libc::SYS_lchown, Call::path(Op::Chown, 0)),
    (libc::SYS_fchown, Call::descriptor(Op::Chown, 0)),
    (libc::SYS_fchownat, Call::path_at(Op::Chown, 0, 1).at_flags(4)),
    (libc::SYS_utime, Call::path(Op::Utimens, 0)),
    (libc::SYS_utimes, Call::path(Op::Utimens, 0)),
    (libc::SYS_futimesat, Call::path_at(Op::Utimens, 0, 1).null_is_descriptor()),
    (libc::SYS_utimensat, Call::path_at(Op::Utimens, 0, 1).at_flags(3).null_is_descriptor()),
    (libc::SYS_getxattr, Call::path(Op::Getxattr, 0)),
    (libc::SYS_lgetxattr, Call::path(Op::Getxattr, 0)),
    (libc::SYS_fgetxattr, Call::descriptor(Op::Getxattr, 0)),
    (SYS_GETXATTRAT, Call::path_at(Op::Getxattr, 0, 1).at_flags(2)),
    (libc::SYS_setxattr, Call::path(Op::Setxattr, 0)),
    (libc::SYS_lsetxattr, Call::path(Op::Setxattr, 0)),
    (libc::SYS_fsetxattr, Call::descriptor(Op::Setxattr, 0)),
    (SYS_SETXATTRAT, Call::path_at(Op::Setxattr, 0, 1).at_flags(2)),
    (libc::SYS_listxattr, Call::path(Op::Listxattr, 0)),
    (libc::SYS_llistxattr, Call::path(Op::Listxattr, 0)),
    (libc::SYS_flistxattr, Call::descriptor(Op::Listxattr, 0)),
    (SYS_LISTXATTRAT, Call::path_at(Op::Listxattr, 0, 1).at_flags(2)),
    (libc::SYS_removexattr, Call::path(Op::Removexattr, 0)),
    (libc::SYS_lremovexattr, Call::path(Op::Removexattr, 0)),
    (libc::SYS_fremovexattr, Call::descriptor(Op::Removexattr, 0)),
    (SYS_REMOVEXATTRAT, Call::path_at(Op::Removexattr, 0, 1).at_flags(2)),
    // Locks, mappings, the rest.
    (libc::SYS_flock, Call::descriptor(Op::Flock, 0)),
    (libc::SYS_fcntl, Call::descriptor(Op::Lock, 0)),
    (libc::SYS_mmap, Call::descriptor(Op::Mmap, 4).asked(1).offset(5)),
    (libc::SYS_msync, Call::mapping(Op::Msync).asked(1)),
    (libc::SYS_ioctl, Call::descriptor(Op::Ioctl, 0)),
    (libc::SYS_io_submit, Call::count(Op::IoSubmit)),
    (libc::SYS_io_uring_enter, Call::count(Op::IoUringEnter)),
    // No operations, but paths may be others afterwards.
    (libc::SYS_mount, Call::watch()),
    (libc::SYS_umount2, Call::watch()),
    (libc::SYS_move_mount, Call::watch()),
    (libc::SYS_pivot_root, Call::watch()),
];

// Since Linux 6.13, not in libc yet.
const SYS_SETXATTRAT: i64 = 463;
const SYS_GETXATTRAT: i64 = 464;
const SYS_LISTXATTRAT: i64 = 465;
const SYS_REMOVEXATTRAT: i64 = 466;

/// A bit per operation code; none chosen means all.
#[must_use]
pub fn mask(chosen: &[Op]) -> u64 {
    if chosen.is_empty() {
        return u64::MAX;
    }
    chosen.iter().fold(0, |mask, op| mask | 1 << op.code())
}

/// The table for the chosen operations; none chosen means all. Where open files are followed, what opens and closes them stays in
/// the table and only the mask keeps it from being told; so do calls that move paths.
#[must_use]
pub fn table(chosen: &[Op], follows_files: bool) -> [u64; CALLS] {
    let mut table = [0; CALLS];
    for (number, call) in TABLE {
        let Some(entry) = usize::try_from(*number).ok().and_then(|number| table.get_mut(number)) else { continue };
        *entry = match Op::try_from(call.op()) {
            Ok(op) if is_needed(op, chosen, follows_files) => call.0,
            Ok(_) if call.does_move_paths() => Call::watch().0,
            Ok(_) => 0,
            Err(_) => call.0,
        };
    }
    table
}

fn is_needed(op: Op, chosen: &[Op], follows_files: bool) -> bool {
    chosen.is_empty()
        || chosen.contains(&op)
        || (op == Op::Unlink && chosen.contains(&Op::Rmdir))
        || (follows_files && matches!(op, Op::Open | Op::Close))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_operation_has_a_call_and_every_call_stands_once() {
        let numbers: HashSet<i64> = TABLE.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers.len(), TABLE.len());
        let ops: HashSet<u16> = TABLE.iter().map(|(_, call)| call.op()).collect();
        for op in Op::ALL {
            assert!(ops.contains(&op.code()) || *op == Op::Rmdir, "{} has no call", op.name());
        }
        assert!(TABLE.iter().all(|(number, _)| usize::try_from(*number).is_ok_and(|number| number < CALLS)));
    }

    #[test]
    fn a_choice_leaves_the_rest_out() {
        let only_reads = table(&[Op::Read], false);
        let left: Vec<_> = only_reads.iter().filter(|word| **word != 0 && Call(**word).op() != 0).collect();
        assert_eq!(left.len(), 5);
    }
}
