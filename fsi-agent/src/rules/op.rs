//! The operations that rules can name: what an application asks of a mount, as far as a FUSE server sees it.

use fsi_common::op::OpKind;

/// One list makes the operations, their public names and the set's bits.
macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident, $name:literal, $kind:expr;)*) => {
        /// An operation on the mount. The names are those of `match.ops`, of the fault log and of `fsi ctl`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Op { $($(#[$doc])* $variant,)* }

        impl Op {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The public name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What the application called, where one call makes one such operation.
            #[must_use]
            pub const fn kind(self) -> Option<OpKind> {
                match self { $(Self::$variant => $kind,)* }
            }
        }
    };
}

operations! {
    /// A name is looked up in a directory; stat and open of a path begin with it.
    Lookup, "lookup", None;
    /// Attributes are read (stat, where the kernel has no fresh copy).
    Getattr, "getattr", Some(OpKind::Stat);
    Chmod, "chmod", Some(OpKind::Chmod);
    Chown, "chown", Some(OpKind::Chown);
    Truncate, "truncate", Some(OpKind::Truncate);
    Utimens, "utimens", Some(OpKind::Utimens);
    Readlink, "readlink", Some(OpKind::Readlink);
    Mknod, "mknod", Some(OpKind::Mknod);
    Mkdir, "mkdir", Some(OpKind::Mkdir);
    Symlink, "symlink", Some(OpKind::Symlink);
    Link, "link", Some(OpKind::Link);
    Unlink, "unlink", Some(OpKind::Unlink);
    Rmdir, "rmdir", Some(OpKind::Rmdir);
    Rename, "rename", Some(OpKind::Rename);
    /// A file that exists is opened. A rule on `open` also matches `create`.
    Open, "open", Some(OpKind::Open);
    /// A file is made and opened.
    Create, "create", Some(OpKind::Open);
    Read, "read", Some(OpKind::Read);
    Write, "write", Some(OpKind::Write);
    /// A descriptor is closed; its error is the one close(2) gives.
    Flush, "flush", Some(OpKind::Close);
    /// fsync(2), msync(2). A rule on `fsync` also matches `fdatasync`.
    Fsync, "fsync", Some(OpKind::Fsync);
    Fdatasync, "fdatasync", Some(OpKind::Fdatasync);
    Opendir, "opendir", Some(OpKind::Open);
    Readdir, "readdir", Some(OpKind::Readdir);
    Fsyncdir, "fsyncdir", Some(OpKind::Fsync);
    Statfs, "statfs", Some(OpKind::Statfs);
    Setxattr, "setxattr", Some(OpKind::Setxattr);
    Getxattr, "getxattr", Some(OpKind::Getxattr);
    Listxattr, "listxattr", Some(OpKind::Listxattr);
    Removexattr, "removexattr", Some(OpKind::Removexattr);
    Fallocate, "fallocate", Some(OpKind::Fallocate);
    /// Only `SEEK_DATA` and `SEEK_HOLE` reach a file system.
    Lseek, "lseek", Some(OpKind::Lseek);
    CopyFileRange, "copy_file_range", Some(OpKind::CopyFileRange);
    Ioctl, "ioctl", Some(OpKind::Ioctl);
}

impl Op {
    /// The operation of that public name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|op| op.name() == name)
    }

    /// Whether a rule that names `self` matches an operation `other`.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        matches!((self, other), (Self::Open, Self::Create) | (Self::Fsync, Self::Fdatasync))
            || self as u8 == other as u8
    }
}

/// A set of operations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpSet(u64);

impl OpSet {
    /// No operation.
    pub const EMPTY: Self = Self(0);

    /// What changes the data of a file.
    pub const CHANGES_DATA: Self =
        Self::EMPTY.with(Op::Write).with(Op::Truncate).with(Op::Fallocate).with(Op::CopyFileRange);

    /// What has an offset and a length.
    pub const WITH_DATA: Self = Self::EMPTY.with(Op::Read).with(Op::Write).with(Op::Fallocate).with(Op::CopyFileRange);

    /// Every operation.
    #[must_use]
    pub fn all() -> Self {
        Op::ALL.iter().copied().collect()
    }

    #[must_use]
    pub const fn with(self, op: Op) -> Self {
        Self(self.0 | 1 << op as u8)
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn contains(self, op: Op) -> bool {
        self.0 & 1 << op as u8 != 0
    }

    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The operations in it.
    pub fn iter(self) -> impl Iterator<Item = Op> {
        Op::ALL.iter().copied().filter(move |op| self.contains(*op))
    }
}

impl FromIterator<Op> for OpSet {
    fn from_iter<I: IntoIterator<Item = Op>>(ops: I) -> Self {
        ops.into_iter().fold(Self::EMPTY, Self::with)
    }
}

const _: () = assert!(Op::ALL.len() <= 64, "an OpSet has 64 bits");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back() {
        for op in Op::ALL {
            assert_eq!(Op::from_name(op.name()), Some(*op));
            assert!(OpSet::EMPTY.with(*op).contains(*op));
        }
        assert_eq!(OpSet::all().iter().count(), Op::ALL.len());
    }
}
