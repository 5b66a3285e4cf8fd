//! Mounts: a private view of a directory, a FUSE mount over another, what is mounted where, and the end of a connection.

use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags, fsconfig_create, fsmount,
    fsopen, open_tree,
};

/// The type under which our mounts show up.
pub const FSTYPE: &str = "fuse.fsi";

/// What the mount itself forbids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forbids {
    pub write: bool,
    pub setuid: bool,
    pub devices: bool,
}

/// When a mount goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nobody uses it.
    Idle,
    /// From its place at once; those who use it keep it.
    Detach,
}

/// The numbers of a mounted file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    pub parent: u64,
    pub device: Device,
    /// What of the file system is mounted there: `/` is all of it.
    pub root: PathBuf,
    pub point: PathBuf,
    /// What this mount of it forbids and how it keeps times: `rw,nosuid,relatime`.
    pub options: OsString,
    pub fstype: OsString,
    pub source: OsString,
}

/// A private copy of the mount at a directory, of which nobody else knows: what happens at that place later does not concern it.
/// Mounts below the directory are not in it.
///
/// # Errors
/// When the kernel refuses.
pub fn private_tree(directory: &Path) -> io::Result<OwnedFd> {
    Ok(open_tree(CWD, directory, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// Mounts the connection behind an open `/dev/fuse`.
///
/// # Errors
/// When the kernel refuses.
pub fn fuse(connection: BorrowedFd<'_>, source: &Path, target: &Path, forbids: Forbids) -> io::Result<()> {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, forbids.write);
    flags.set(MountFlags::NOSUID, forbids.setuid);
    flags.set(MountFlags::NODEV, forbids.devices);
    let number = connection.as_raw_fd();
    let options =
        CString::new(format!("fd={number},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"))?;
    Ok(rustix::mount::mount(source, target, FSTYPE, flags, options.as_c_str())?)
}

/// Takes the uppermost mount at a place away.
///
/// # Errors
/// `EBUSY` when somebody uses it and `how` is [`Unmount::Idle`].
pub fn unmount(target: &Path, how: Unmount) -> io::Result<()> {
    let flags = match how {
        Unmount::Idle => UnmountFlags::NOFOLLOW,
        Unmount::Detach => UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    };
    Ok(rustix::mount::unmount(target, flags)?)
}

/// Ends a FUSE connection: whoever waits for an answer gets an error, and so does everybody later. The control file system is
/// reached without a mount point, as few systems have it mounted.
///
/// # Errors
/// When the connection is gone already, or the control file system is not to be had.
pub fn abort(device: Device) -> io::Result<()> {
    let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    // The number is that of the device as the kernel has it inside: 20 bits of minor below the major.
    let number = (device.major << 20) | device.minor;
    let file = rustix::fs::openat(&root, format!("{number}/abort"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    fs::File::from(file).write_all(b"1")
}

/// Everything that is mounted, in the order in which it was.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn mounts() -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read("/proc/self/mountinfo")?))
}

/// Everything that is mounted where an open `mountinfo` is from, in the order in which it was.
///
/// # Errors
/// When it cannot be read.
pub fn mounts_of(mut table: &fs::File) -> io::Result<Vec<Mount>> {
    let mut text = Vec::new();
    table.rewind()?;
    table.read_to_end(&mut text)?;
    Ok(parse(&text))
}

/// The uppermost mount at exactly this place.
#[must_use]
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /point options [optional ...] - fstype source options`
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = Device { major: major.parse().ok()?, minor: minor.parse().ok()? };
    let root = unescape(fields.next()?).into();
    let point = unescape(fields.next()?).into();
    let options = unescape(fields.next()?);
    let mut rest = fields.skip_while(|field| *field != b"-").skip(1);
    let fstype = unescape(rest.next()?);
    let source = unescape(rest.next()?);
    Some(Mount { id, parent, device, root, point, options, fstype, source })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// The kernel writes space, tab, line end and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let code = (*first == b'\\').then(|| after.get(..3)).flatten().and_then(octal);
        if let Some(byte) = code {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    OsString::from_vec(bytes)
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    const TEXT: &[u8] = b"24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        90 24 0:47 / /mnt/a\\040b\\134c rw,nosuid shared:3 master:1 - fuse.fsi /data/\\011x rw,user_id=0\n\
        91 24 0:48 / /mnt/a\\040b\\134c rw - tmpfs none rw\n\
        not a line\n\
        92 24 0:49 / /mnt/\xff rw - fuse.fsi \\04 rw\n";

    #[test]
    fn mountinfo_is_understood() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 4);
        assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].device), (24, 1, Device { major: 254, minor: 0 }));
        assert_eq!(mounts[1].point, Path::new("/mnt/a b\\c"));
        assert_eq!(
            (mounts[1].fstype.as_os_str(), mounts[1].source.as_os_str()),
            (FSTYPE.as_ref(), "/data/\tx".as_ref())
        );
        assert_eq!(mounts[3].point.as_os_str(), OsStr::from_bytes(b"/mnt/\xff"));
        assert_eq!(mounts[3].source, "\\04", "no escape");
        assert_eq!((mounts[0].root.as_path(), mounts[0].options.as_os_str()), (Path::new("/"), "rw,relatime".as_ref()));
    }

    #[test]
    fn the_uppermost_mount_counts() {
        let mounts = parse(TEXT);
        assert_eq!(at(&mounts, Path::new("/mnt/a b\\c")).unwrap().id, 91);
        assert!(at(&mounts, Path::new("/mnt")).is_none());
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(at(&mounts().unwrap(), Path::new("/")).is_some());
    }
}
