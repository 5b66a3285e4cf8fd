//! A copy of a tree of files: owners, modes, times, extended attributes (ACLs are some), links and holes are kept; data is shared where the
//! file system can (reflink).

use std::collections::HashMap;
use std::fs::{self, File, Metadata, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, SeekFrom, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::error::CallError;

/// The longest that the kernel lets a value and a list of names be.
const XATTR_BYTES: usize = 64 << 10;
/// What is copied at once.
const CHUNK: usize = 1 << 26;

/// Names of files that have several, by device and inode.
type Links = HashMap<(u64, u64), PathBuf>;

/// Copies `from` to `to`, which is not there yet.
///
/// # Errors
/// When something of it cannot be copied.
pub(super) fn tree(from: &Path, to: &Path) -> Result<(), CallError> {
    let metadata = fs::symlink_metadata(from).map_err(CallError::io("look at", from))?;
    entry(from, to, &metadata, &mut Links::new())
}

fn entry(from: &Path, to: &Path, metadata: &Metadata, links: &mut Links) -> Result<(), CallError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        fs::create_dir(to).map_err(CallError::io("make", to))?;
        for entry in fs::read_dir(from).map_err(CallError::io("read", from))? {
            let entry = entry.map_err(CallError::io("read", from))?;
            let child = fs::symlink_metadata(entry.path()).map_err(CallError::io("look at", &entry.path()))?;
            self::entry(&entry.path(), &to.join(entry.file_name()), &child, links)?;
        }
        return like(from, to, metadata);
    }
    let identity = (metadata.dev(), metadata.ino());
    if let Some(first) = links.get(&identity) {
        return fs::hard_link(first, to).map_err(CallError::io("link", to));
    }
    if kind.is_file() {
        data(from, to, metadata.len())?;
    } else if kind.is_symlink() {
        let target = fs::read_link(from).map_err(CallError::io("read the link", from))?;
        symlink(target, to).map_err(CallError::io("link", to))?;
    } else {
        let special = [
            (kind.is_fifo(), FileType::Fifo),
            (kind.is_socket(), FileType::Socket),
            (kind.is_block_device(), FileType::BlockDevice),
        ];
        let special = special.iter().find(|(is, _)| *is).map_or(FileType::CharacterDevice, |(_, kind)| *kind);
        rustix::fs::mknodat(CWD, to, special, Mode::empty(), metadata.rdev()).map_err(CallError::io("make", to))?;
    }
    if metadata.nlink() > 1 {
        links.insert(identity, to.to_owned());
    }
    like(from, to, metadata)
}

/// Owner, mode, attributes and times; the owner first, as its change takes setuid away, and times last.
fn like(from: &Path, to: &Path, metadata: &Metadata) -> Result<(), CallError> {
    lchown(to, Some(metadata.uid()), Some(metadata.gid())).map_err(CallError::io("give to its owner", to))?;
    if !metadata.is_symlink() {
        let mode = Permissions::from_mode(metadata.mode() & 0o7777);
        fs::set_permissions(to, mode).map_err(CallError::io("set the mode of", to))?;
    }
    attributes(from, to)?;
    let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time(metadata.atime(), metadata.atime_nsec()),
        last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(CallError::io("set the times of", to))
}

fn attributes(from: &Path, to: &Path) -> Result<(), CallError> {
    let mut names = vec![0; XATTR_BYTES];
    let length = match rustix::fs::llistxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length.map_err(CallError::io("list the attributes of", from))?,
    };
    let mut value = vec![0; XATTR_BYTES];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length =
            rustix::fs::lgetxattr(from, name, &mut value).map_err(CallError::io("read an attribute of", from))?;
        let set = rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty());
        set.map_err(CallError::io("set an attribute of", to))?;
    }
    Ok(())
}

fn data(from: &Path, to: &Path, length: u64) -> Result<(), CallError> {
    let source = File::open(from).map_err(CallError::io("open", from))?;
    let copy = File::create_new(to).map_err(CallError::io("make", to))?;
    // Not every file system can, and none across two.
    if rustix::fs::ioctl_ficlone(&copy, &source).is_ok() {
        return Ok(());
    }
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
            // Nothing but a hole to the end.
            Err(Errno::NXIO) => break,
            start => start.map_err(CallError::io("find the data of", from))?,
        };
        let end = rustix::fs::seek(&source, SeekFrom::Hole(start)).map_err(CallError::io("find the holes of", from))?;
        at = range(&source, &copy, start, end).map_err(CallError::io("copy", from))?;
        if at < end {
            // It has become shorter meanwhile.
            break;
        }
    }
    copy.set_len(length).map_err(CallError::io("set the length of", to))
}

/// Copies a run of data; where it came to.
fn range(source: &File, copy: &File, start: u64, end: u64) -> Result<u64, Errno> {
    let (mut from, mut to) = (start, start);
    while from < end {
        let most = usize::try_from(end - from).unwrap_or(CHUNK).min(CHUNK);
        if rustix::fs::copy_file_range(source, Some(&mut from), copy, Some(&mut to), most)? == 0 {
            break;
        }
    }
    Ok(from)
}
