//! What an application can ask of a file: the operations, their codes on the wire and their public names.

/// A number that no operation has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownOp(pub u16);

/// One list makes the codes, the names and the way back, so that none can be forgotten.
macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)*) => {
        /// A file operation. The names are those of metrics (`op`), spans and `--op`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum OpKind { $($(#[$doc])* $variant = $code,)* }

        impl OpKind {
            /// Every operation, in the order of the codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The public name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl TryFrom<u16> for OpKind {
            type Error = UnknownOp;
            fn try_from(code: u16) -> Result<Self, UnknownOp> {
                match code { $($code => Ok(Self::$variant),)* other => Err(UnknownOp(other)) }
            }
        }
    };
}

operations! {
    /// open, openat, openat2, creat, `open_by_handle_at`
    Open = 1, "open";
    /// close of one descriptor of a file
    Close = 2, "close";
    /// read, pread64, readv, preadv, preadv2
    Read = 3, "read";
    /// write, pwrite64, writev, pwritev, pwritev2
    Write = 4, "write";
    /// sendfile from a file
    Sendfile = 5, "sendfile";
    /// `copy_file_range`
    CopyFileRange = 6, "copy_file_range";
    /// splice to or from a file
    Splice = 7, "splice";
    /// lseek
    Lseek = 8, "lseek";
    /// fsync
    Fsync = 9, "fsync";
    /// fdatasync
    Fdatasync = 10, "fdatasync";
    /// `sync_file_range`
    SyncFileRange = 11, "sync_file_range";
    /// syncfs
    Syncfs = 12, "syncfs";
    /// stat, lstat, fstat, newfstatat, statx
    Stat = 13, "stat";
    /// access, faccessat, faccessat2
    Access = 14, "access";
    /// truncate, ftruncate
    Truncate = 15, "truncate";
    /// fallocate
    Fallocate = 16, "fallocate";
    /// unlink, unlinkat
    Unlink = 17, "unlink";
    /// rename, renameat, renameat2
    Rename = 18, "rename";
    /// link, linkat
    Link = 19, "link";
    /// symlink, symlinkat
    Symlink = 20, "symlink";
    /// readlink, readlinkat
    Readlink = 21, "readlink";
    /// mkdir, mkdirat
    Mkdir = 22, "mkdir";
    /// rmdir, unlinkat with `AT_REMOVEDIR`
    Rmdir = 23, "rmdir";
    /// mknod, mknodat
    Mknod = 24, "mknod";
    /// getdents, getdents64
    Readdir = 25, "readdir";
    /// chmod, fchmod, fchmodat, fchmodat2
    Chmod = 26, "chmod";
    /// chown, lchown, fchown, fchownat
    Chown = 27, "chown";
    /// utime, utimes, futimesat, utimensat
    Utimens = 28, "utimens";
    /// getxattr, lgetxattr, fgetxattr, getxattrat
    Getxattr = 29, "getxattr";
    /// setxattr, lsetxattr, fsetxattr, setxattrat
    Setxattr = 30, "setxattr";
    /// listxattr, llistxattr, flistxattr, listxattrat
    Listxattr = 31, "listxattr";
    /// removexattr, lremovexattr, fremovexattr, removexattrat
    Removexattr = 32, "removexattr";
    /// statfs, fstatfs
    Statfs = 33, "statfs";
    /// flock
    Flock = 34, "flock";
    /// fcntl with a record-lock command (POSIX and open-file-description locks)
    Lock = 35, "lock";
    /// mmap of a file
    Mmap = 36, "mmap";
    /// msync of a mapped file
    Msync = 37, "msync";
    /// ioctl on a file (FICLONE and friends)
    Ioctl = 38, "ioctl";
    /// chdir, fchdir
    Chdir = 39, "chdir";
    /// `io_submit`: what it submits is not seen one by one
    IoSubmit = 40, "io_submit";
    /// `io_uring_enter`: what it submits is not seen one by one
    IoUringEnter = 41, "io_uring_enter";
}

impl OpKind {
    /// The operation of that public name; `getdents` is accepted for `readdir`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let name = if name == "getdents" { "readdir" } else { name };
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u16 {
        self as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_lead_back() {
        for op in OpKind::ALL {
            assert_eq!(OpKind::try_from(op.code()), Ok(*op));
            assert_eq!(OpKind::from_name(op.name()), Some(*op));
        }
        assert_eq!(OpKind::try_from(0), Err(UnknownOp(0)));
        assert_eq!(OpKind::from_name("getdents"), Some(OpKind::Readdir));
    }
}
