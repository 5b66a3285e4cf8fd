//! A copy of a tree of files: owners, modes, times, extended attributes (ACLs are some), links and holes are kept; data is shared where the
//! file system can (reflink).

use std::ffi::CStr;
use std::fs::{self, File, Metadata, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, SeekFrom, Timespec, Timestamps, Uid, XattrFlags, chownat, linkat,
    mkdirat, mknodat, openat, readlinkat, renameat, symlinkat,
};
use rustix::io::Errno;

use super::walk::{Found, Node, Way, by_descriptor};
use crate::error::CallError;

/// The longest that the kernel lets a value and a list of names be.
const XATTR_BYTES: usize = 64 << 10;
/// What is copied at once.
const CHUNK: usize = 1 << 26;

/// Owner, mode and times of something.
#[derive(Clone, Debug)]
struct Like {
    uid: u32,
    gid: u32,
    /// None of a symbolic link.
    mode: Option<u32>,
    times: Timestamps,
}

/// Copies `from` to `to`. Both `to` and `links`, which is for the time of the copy, are not there yet, and nobody else's to change.
///
/// # Errors
/// When something of it cannot be copied.
pub(super) fn tree(from: &Path, to: &Path, links: &Path) -> Result<(), CallError> {
    let mut source = Way::into(from).map_err(CallError::io("open", from))?;
    for folder in [to, links] {
        fs::create_dir(folder).map_err(CallError::io("make", folder))?;
    }
    let mut copy = Way::into(to).map_err(CallError::io("open", to))?;
    let links = File::open(links).map_err(CallError::io("open", links))?;
    let metadata = source.here().metadata().map_err(CallError::io("look at", from))?;
    let mut likes = vec![Like::of(&metadata)];
    loop {
        while let Some(name) = source.next()? {
            // A mount is none of the volume's files.
            let Found::Node(node) = source.look(&name)? else { continue };
            if node.metadata.is_dir() {
                mkdirat(copy.here(), &name, Mode::RWXU).map_err(copy.failed("make", &name))?;
                let made = made(&copy, &name)?;
                likes.push(Like::of(&node.metadata));
                source.down(name.clone(), &node)?;
                copy.down(name, &made)?;
            } else {
                entry(&node, &copy, &name, &links)?;
            }
        }
        // The times of a directory come after all that is done in it.
        if let Some(like) = likes.pop() {
            like.set(source.here(), copy.here()).map_err(copy.failed("copy what is said of", c""))?;
        }
        if source.up()?.is_none() {
            return Ok(());
        }
        copy.up()?;
    }
}

/// What was made there just now.
fn made(copy: &Way, name: &CStr) -> Result<Node, CallError> {
    match copy.look(name)? {
        Found::Node(node) => Ok(node),
        Found::Gone | Found::Mounted => Err(copy.failed("find", name)(Errno::NOENT)),
    }
}

/// Copies what is no directory. Of a file that has several names the first copy is also put beside the tree, to be found by its inode.
fn entry(node: &Node, copy: &Way, name: &CStr, links: &File) -> Result<(), CallError> {
    if node.metadata.nlink() < 2 {
        return alone(node, copy, name);
    }
    let inode = format!("{:x}-{:x}", node.metadata.dev(), node.metadata.ino());
    match linkat(links, &inode, copy.here(), name, AtFlags::empty()) {
        Err(Errno::NOENT) => {
            alone(node, copy, name)?;
            linkat(copy.here(), name, links, &inode, AtFlags::empty())
        }
        // It has as many names as a file can have, and one of them is beside the tree.
        Err(Errno::MLINK) => renameat(links, &inode, copy.here(), name),
        linked => linked,
    }
    .map_err(copy.failed("link", name))
}

fn alone(node: &Node, copy: &Way, name: &CStr) -> Result<(), CallError> {
    let kind = node.metadata.file_type();
    let like = Like::of(&node.metadata);
    if kind.is_file() {
        let file = data(node, copy, name).map_err(copy.failed("copy", name))?;
        return like.set(&node.file, &file).map_err(copy.failed("copy what is said of", name));
    }
    if kind.is_symlink() {
        let target = readlinkat(&node.file, c"", Vec::new()).map_err(copy.failed("read the link", name))?;
        symlinkat(target, copy.here(), name).map_err(copy.failed("link", name))?;
    } else {
        let special = [
            (kind.is_fifo(), FileType::Fifo),
            (kind.is_socket(), FileType::Socket),
            (kind.is_block_device(), FileType::BlockDevice),
        ];
        let special = special.iter().find(|(is, _)| *is).map_or(FileType::CharacterDevice, |(_, kind)| *kind);
        mknodat(copy.here(), name, special, Mode::empty(), node.metadata.rdev()).map_err(copy.failed("make", name))?;
    }
    like.set(&node.file, &made(copy, name)?.file).map_err(copy.failed("copy what is said of", name))
}

impl Like {
    fn of(metadata: &Metadata) -> Self {
        let time = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
        Self {
            uid: metadata.uid(),
            gid: metadata.gid(),
            mode: (!metadata.is_symlink()).then(|| metadata.mode() & 0o7777),
            times: Timestamps {
                last_access: time(metadata.atime(), metadata.atime_nsec()),
                last_modification: time(metadata.mtime(), metadata.mtime_nsec()),
            },
        }
    }

    /// And attributes; the owner first, as its change takes setuid away, and times last.
    fn set(&self, from: &File, to: &File) -> std::io::Result<()> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        chownat(to, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        let path = by_descriptor(to);
        if let Some(mode) = self.mode {
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        attributes(&by_descriptor(from), &path)?;
        Ok(rustix::fs::utimensat(CWD, &path, &self.times, AtFlags::empty())?)
    }
}

fn attributes(from: &str, to: &str) -> Result<(), Errno> {
    let mut names = vec![0; XATTR_BYTES];
    let length = match rustix::fs::listxattr(from, &mut names) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        length => length?,
    };
    let mut value = vec![0; XATTR_BYTES];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let length = match rustix::fs::getxattr(from, name, &mut value) {
            // It was removed meanwhile.
            Err(Errno::NODATA) => continue,
            length => length?,
        };
        rustix::fs::setxattr(to, name, &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}

fn data(node: &Node, copy: &Way, name: &CStr) -> std::io::Result<File> {
    let source = File::open(by_descriptor(&node.file))?;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let copy = File::from(openat(copy.here(), name, new, Mode::RUSR | Mode::WUSR)?);
    // Not every file system can, and none across two.
    if rustix::fs::ioctl_ficlone(&copy, &source).is_ok() {
        return Ok(copy);
    }
    let length = node.metadata.len();
    let mut at = 0;
    while at < length {
        let start = match rustix::fs::seek(&source, SeekFrom::Data(at)) {
            // Nothing but a hole to the end.
            Err(Errno::NXIO) => break,
            start => start?,
        };
        let end = rustix::fs::seek(&source, SeekFrom::Hole(start))?;
        at = range(&source, &copy, start, end)?;
        if at < end {
            // It has become shorter meanwhile.
            break;
        }
    }
    copy.set_len(length)?;
    Ok(copy)
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
