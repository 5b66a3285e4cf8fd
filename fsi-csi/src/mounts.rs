//! What is mounted where, and the few changes we make to it. Looked up in `/proc/self/mountinfo`: a mount that does not answer is never
//! asked, save by [`health`], which does not wait for long.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fsi_agent::keeper::check;
use fsi_agent::sys::mount::{self, Device, FSTYPE, Mount, Unmount};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount_bind, mount_remount};

use crate::access::Flags;
use crate::bounded::Probes;
use crate::error::CallError;

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// The time that a mount gets to say that it is alive.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// More mounts over each other than any sequence of crashes leaves.
const MOST_LAYERS: usize = 64;

/// A place of a file system: what a bind mount shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub device: Device,
    /// From the root of the file system.
    pub root: PathBuf,
}

impl Shown {
    #[must_use]
    pub fn by(mount: &Mount) -> Self {
        Self { device: mount.device, root: mount.root.clone() }
    }

    /// Whether a mount shows it or something in it.
    #[must_use]
    pub fn has(&self, mount: &Mount) -> bool {
        mount.device == self.device && mount.root.starts_with(&self.root)
    }
}

/// What was mounted when it was read.
#[derive(Debug)]
pub struct Table(Vec<Mount>);

impl Table {
    /// # Errors
    /// `/proc` cannot be read.
    pub fn read() -> Result<Self, CallError> {
        mount::mounts().map(Self).map_err(CallError::io("read", Path::new(MOUNTINFO)))
    }

    /// The uppermost mount at a place.
    #[must_use]
    pub fn at(&self, place: &Path) -> Option<&Mount> {
        mount::at(&self.0, place)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.0.iter()
    }

    /// What a bind mount of a directory would show.
    #[must_use]
    pub fn shown(&self, directory: &Path) -> Option<Shown> {
        let depth = |mount: &&Mount| mount.point.components().count();
        // Of several at one place the last one counts, which is the one that `max_by_key` takes.
        let mount = self.0.iter().filter(|mount| directory.starts_with(&mount.point)).max_by_key(depth)?;
        let below = directory.strip_prefix(&mount.point).ok()?;
        Some(Shown { device: mount.device, root: mount.root.join(below) })
    }
}

/// The path by which the mount table knows a place, of which the last component is not looked at.
///
/// # Errors
/// There is no directory that it could be in.
pub fn place(path: &str, what: &'static str) -> Result<PathBuf, CallError> {
    if path.is_empty() {
        return Err(CallError::Missing(what));
    }
    let path = Path::new(path);
    check::absolute(path).map_err(CallError::io("find the directory of", path))
}

/// The same of a place that is to be empty, and of which the directory may be gone as well.
///
/// # Errors
/// The directory cannot be looked at.
pub fn place_to_empty(path: &str) -> Result<PathBuf, CallError> {
    let path = Path::new(path);
    match check::absolute(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(path.to_owned()),
        place => place.map_err(CallError::io("find the directory of", path)),
    }
}

/// Whether a mount is an interposer's.
#[must_use]
pub fn is_interposed(mount: &Mount) -> bool {
    mount.fstype == FSTYPE
}

/// Whether a mount shows a directory, as it is or through an interposer.
#[must_use]
pub fn shows(table: &Table, mount: &Mount, directory: &Path) -> bool {
    shows_served(mount, directory) || shows_bound(table, mount, directory)
}

/// Whether a mount shows a directory through an interposer of its own.
#[must_use]
pub fn shows_served(mount: &Mount, directory: &Path) -> bool {
    is_interposed(mount) && Path::new(&mount.source) == directory
}

/// Whether a mount shows a directory as it is. What it is may be an interposer's: of a claim of ours.
#[must_use]
pub fn shows_bound(table: &Table, mount: &Mount, directory: &Path) -> bool {
    table.shown(directory).is_some_and(|shown| shown.has(mount))
}

/// Where a directory is shown.
#[must_use]
pub fn places<'a>(table: &'a Table, directory: &Path) -> Vec<&'a Mount> {
    table.iter().filter(|mount| shows(table, mount, directory)).collect()
}

/// Shows a directory at a place.
///
/// # Errors
/// When the kernel refuses.
pub fn bind(directory: &Path, place: &Path) -> Result<(), CallError> {
    mount_bind(directory, place).map_err(CallError::io("bind-mount on", place))
}

/// Has a mount keep to the options.
///
/// # Errors
/// When it cannot, or there is none.
pub fn set_flags(place: &Path, flags: Flags) -> Result<(), CallError> {
    let table = Table::read()?;
    let Some(mount) = table.at(place) else {
        return Err(CallError::io("find the mount at", place)(io::Error::from(Errno::NOENT)));
    };
    let all = flags.and_of(mount).bits();
    if flags.hold_for(mount) {
        return Ok(());
    }
    mount_remount(place, MountFlags::BIND | all, "").map_err(CallError::io("set the mount options of", place))
}

/// Takes all mounts at a place away, if all are ours; what they were.
///
/// # Errors
/// When one is not ours, or the kernel refuses.
pub fn clear(place: &Path, is_ours: impl Fn(&Mount) -> bool) -> Result<Vec<Mount>, CallError> {
    let mut gone = Vec::new();
    while gone.len() < MOST_LAYERS {
        let table = Table::read()?;
        let Some(mount) = table.at(place) else { break };
        if !is_ours(mount) {
            return Err(CallError::Foreign(place.to_owned()));
        }
        // A process that outlived its pod keeps what it has; the place is free all the same.
        match mount::unmount(place, Unmount::Detach) {
            Ok(()) => gone.push(mount.clone()),
            // Somebody else was faster.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::INVAL | Errno::NOENT)) => {
                if Table::read()?.at(place).is_some_and(|left| left.id == mount.id) {
                    return Err(CallError::io("unmount", place)(error));
                }
            }
            Err(error) => return Err(CallError::io("unmount", place)(error)),
        }
    }
    Ok(gone)
}

/// How a mount is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Well,
    /// Nobody serves it, and nobody will.
    Dead,
    /// It does not answer.
    Silent,
}

/// Asks a mount whether it lives. Whatever it answers, an error that its rules make included, it does.
#[must_use]
pub fn health(probes: &Probes, place: &Path) -> Health {
    match probes.ask(place, ANSWERS_WITHIN, |place| rustix::fs::statfs(place).map(|_| ())) {
        None => Health::Silent,
        Some(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Health::Dead,
        Some(Ok(()) | Err(_)) => Health::Well,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(point: &str, root: &str, minor: u32) -> Mount {
        Mount {
            id: u64::from(minor),
            parent: 1,
            device: Device { major: 8, minor },
            root: root.into(),
            point: point.into(),
            options: "rw,nosuid,relatime".into(),
            fstype: "ext4".into(),
            source: "/dev/x".into(),
        }
    }

    #[test]
    fn a_directory_is_shown_from_the_mount_that_holds_it() {
        let table = Table(vec![mounted("/", "/", 1), mounted("/var", "/sub", 2), mounted("/var", "/", 3)]);
        let shown = table.shown(Path::new("/var/lib/x")).unwrap();
        assert_eq!((shown.device.minor, shown.root.as_path()), (3, Path::new("/lib/x")));
        assert_eq!(table.shown(Path::new("/etc")).unwrap().root, Path::new("/etc"));
        assert!(shown.has(&mounted("/a", "/lib/x/y", 3)));
        assert!(!shown.has(&mounted("/a", "/lib/xy", 3)));
    }

    #[test]
    fn options_are_added_to_those_of_the_mount() {
        let read_only = Flags::default().read_only();
        let mount = mounted("/a", "/", 1);
        assert!(!read_only.hold_for(&mount));
        assert_eq!(read_only.and_of(&mount).bits(), MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::RELATIME);
        assert!(Flags::default().hold_for(&mount));
    }
}
