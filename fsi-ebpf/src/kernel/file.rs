//! A `struct file`, its inode and its super block.
#![expect(unsafe_code, reason = "what is read in one piece stands in the scratch, reached by pointer")]

use fsi_common::probe_config::NEAR_BYTES;

use super::config::offset;
use super::tree::Place;
use super::{load, read, read_bytes, read_u64};
use crate::maps::SCRATCH;
use crate::state::{NEAR_WORDS, Object};

/// The first fields of a structure in one read: a read costs the same for many bytes as for few. They stand in the scratch until
/// the next such read. The agent refuses a kernel where a field that is read this way lies further back.
#[derive(Clone, Copy)]
struct Fields(*const [u64; NEAR_WORDS]);

impl Fields {
    #[inline(always)]
    fn read(address: u64, bytes: usize) -> Option<Self> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: scratch of this CPU, as long as what is read.
        unsafe {
            let fields = &raw mut (*scratch).fields;
            read_bytes(fields.cast(), (bytes as u32).min(NEAR_BYTES), address).then_some(Self(fields))
        }
    }

    #[inline(always)]
    fn u64(self, offset: usize) -> u64 {
        // SAFETY: the mask keeps the index inside the array.
        unsafe { (*self.0)[offset / 8 & (NEAR_WORDS - 1)] }
    }

    #[inline(always)]
    fn u32(self, offset: usize) -> u32 {
        (self.u64(offset) >> (offset % 8 * 8)) as u32
    }

    /// Of a super block: whether its files have no name (pipes, sockets, eventfd, memfd, ...).
    #[inline(always)]
    fn is_of_memory_files(self) -> bool {
        let magic = self.u64(offset!(sb_magic));
        if matches!(magic, PIPEFS | SOCKFS | ANON_INODE_FS | PID_FS | NSFS | SECRETMEM) {
            return true;
        }
        // The kernel's own mounts of these hold memory files, and nothing that has a name.
        matches!(magic, TMPFS | HUGETLBFS) && self.u64(offset!(sb_flags)) & SB_KERNMOUNT != 0
    }
}

/// What a `struct file` says of itself.
#[derive(Clone, Copy)]
pub(crate) struct FileAddress(pub u64);

const S_IFMT: u32 = 0o170_000;
const S_IFREG: u32 = 0o100_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFBLK: u32 = 0o060_000;
const SB_KERNMOUNT: u64 = 1 << 22;
const PIPEFS: u64 = 0x5049_5045;
const SOCKFS: u64 = 0x534f_434b;
const ANON_INODE_FS: u64 = 0x0904_1934;
const TMPFS: u64 = 0x0102_1994;
const HUGETLBFS: u64 = 0x9584_58f6;
const SECRETMEM: u64 = 0x5345_434d;
const PID_FS: u64 = 0x5049_4446;
const NSFS: u64 = 0x6e73_6673;
const FMODE_CREATED: u32 = 1 << 20;

impl FileAddress {
    #[inline(always)]
    pub(crate) fn inode(self) -> u64 {
        read_u64(self.0, offset!(file_inode))
    }

    /// The file as an object of a file system: a regular file, a directory, a symbolic link or a block device. Pipes, sockets,
    /// character devices, anonymous files (eventfd, memfd, ...) are none.
    #[inline(always)]
    pub(crate) fn object(self) -> Option<Object> {
        if self.0 == 0 {
            return None;
        }
        let inode = self.inode();
        let fields = Fields::read(inode, offset!(inode_bytes))?;
        let mode = fields.u32(offset!(inode_mode)) & 0xffff;
        if !matches!(mode & S_IFMT, S_IFREG | S_IFDIR | S_IFLNK | S_IFBLK) {
            return None;
        }
        let (ino, sb) = (fields.u64(offset!(inode_ino)), fields.u64(offset!(inode_sb)));
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: scratch of this CPU. Super blocks of memory files live from boot on, so that one that was ordinary once stays so
        // at its address, whoever is mounted there.
        let dev = if unsafe { (*scratch).ordinary_sb } == sb {
            read::<u32>(sb, offset!(sb_dev))?
        } else {
            let fields = Fields::read(sb, offset!(sb_bytes))?;
            if fields.is_of_memory_files() {
                return None;
            }
            // SAFETY: as above.
            unsafe { (*scratch).ordinary_sb = sb };
            fields.u32(offset!(sb_dev))
        };
        Some(Object { file: self.0, inode, ino, dev, mode })
    }

    /// Its dentry alone.
    #[inline(always)]
    pub(crate) fn dentry(self) -> u64 {
        read_u64(self.0, offset!(file_path) + offset!(path_dentry))
    }

    /// Where it is in the tree of mounts.
    #[inline(always)]
    pub(crate) fn place(self) -> Place {
        Place {
            dentry: read_u64(self.0, offset!(file_path) + offset!(path_dentry)),
            mnt: read_u64(self.0, offset!(file_path) + offset!(path_mnt)),
        }
    }

    /// Its position.
    #[inline(always)]
    pub(crate) fn position(self) -> i64 {
        read::<i64>(self.0, offset!(file_pos)).unwrap_or(0)
    }

    /// The flags it is open with.
    #[inline(always)]
    pub(crate) fn flags(self) -> u32 {
        read::<u32>(self.0, offset!(file_flags)).unwrap_or(0)
    }

    /// Whether its open made the file.
    #[inline(always)]
    pub(crate) fn was_created(self) -> bool {
        read::<u32>(self.0, offset!(file_mode)).unwrap_or(0) & FMODE_CREATED != 0
    }

    /// Whether the last reference is gone. `f_ref` counts from 0 and goes negative; `f_count` counts from 1 to 0.
    #[inline(always)]
    pub(crate) fn is_dead(self) -> bool {
        let references = read::<i64>(self.0, offset!(file_ref)).unwrap_or(1);
        if offset!(file_ref_is_biased) != 0 { references < 0 } else { references == 0 }
    }

    /// Whether one reference is left.
    #[inline(always)]
    pub(crate) fn has_one_reference(self) -> bool {
        let references = read::<i64>(self.0, offset!(file_ref)).unwrap_or(0);
        references == if offset!(file_ref_is_biased) != 0 { 0 } else { 1 }
    }
}

/// `vm_file` of a mapping.
#[inline(always)]
pub(crate) fn mapped_file(vma: *const u8) -> u64 {
    load(vma, offset!(vma_file))
}
