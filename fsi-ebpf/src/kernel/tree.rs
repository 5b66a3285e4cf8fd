//! The tree of names and mounts.

use super::config::offset;
use super::{read, read_u64};

/// A place in the tree of mounts.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) dentry: u64,
    pub(crate) mnt: u64,
}

/// A name in its directory.
#[derive(Clone, Copy)]
pub(crate) struct Dentry {
    pub(crate) parent: u64,
    pub(crate) hash_len: u64,
    pub(crate) name: u64,
}

impl Dentry {
    #[inline(always)]
    pub(crate) fn read(address: u64) -> Option<Self> {
        // The three stand side by side in every kernel so far; should that change, three reads do.
        if offset!(dentry_name) == offset!(dentry_parent) + 8 && offset!(qstr_name) == 8 {
            let [parent, hash_len, name] = read::<[u64; 3]>(address, offset!(dentry_parent))?;
            return Some(Self { parent, hash_len, name });
        }
        Some(Self {
            parent: read(address, offset!(dentry_parent))?,
            hash_len: read(address, offset!(dentry_name))?,
            name: read(address, offset!(dentry_name) + offset!(qstr_name))?,
        })
    }

    /// Inode number behind a dentry; 0: none.
    #[inline(always)]
    pub(crate) fn ino(address: u64) -> u64 {
        let inode = read_u64(address, offset!(dentry_inode));
        if inode == 0 { 0 } else { read_u64(inode, offset!(inode_ino)) }
    }
}

/// Steps between mounts.
#[derive(Clone, Copy)]
pub(crate) struct Mount;

impl Mount {
    /// Root dentry of a `vfsmount`.
    #[inline(always)]
    pub(crate) fn root(mnt: u64) -> u64 {
        read_u64(mnt, offset!(vfsmount_root))
    }

    /// Where a `vfsmount` is mounted; nothing for the topmost one.
    #[inline(always)]
    pub(crate) fn mounted_at(mnt: u64) -> Option<Place> {
        let mount = mnt.wrapping_sub(offset!(mount_mnt) as u64);
        let parent = read_u64(mount, offset!(mount_parent));
        if parent == mount || parent == 0 {
            return None;
        }
        let dentry = read_u64(mount, offset!(mount_mountpoint));
        Some(Place { dentry, mnt: parent.wrapping_add(offset!(mount_mnt) as u64) })
    }
}
