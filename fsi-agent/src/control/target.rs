//! From the path of a mount to its control socket, by `/proc/self/mountinfo` alone: a stat of a mount whose server hangs would hang too.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::{env, fs, io};

use thiserror::Error;

use crate::sys::mount::{Device, FSTYPE};

/// Where the sockets are, unless `FSI_RUN_DIR` says otherwise.
pub const RUN_DIRECTORY: &str = "/run/fsi";
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// Why a path is not a mount to control.
#[derive(Debug, Error)]
pub enum TargetError {
    #[error("{} is no mount of fsi{}", target.display(), listed(.ours))]
    NoMount { target: PathBuf, ours: Vec<PathBuf> },
    #[error("{} is a mount of type {file_system}, not of fsi{}", target.display(), listed(.ours))]
    Other { target: PathBuf, file_system: String, ours: Vec<PathBuf> },
    #[error("read {MOUNTINFO}: {0}")]
    Mountinfo(#[source] io::Error),
    #[error("find {}: {source}", target.display())]
    Path { target: PathBuf, source: io::Error },
}

fn listed(ours: &[PathBuf]) -> String {
    if ours.is_empty() {
        return "; there is none here".to_owned();
    }
    let names: Vec<_> = ours.iter().map(|path| path.display().to_string()).collect();
    format!("; those are: {}", names.join(", "))
}

/// A mount of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountOfOurs {
    pub target: PathBuf,
    pub major: u32,
    pub minor: u32,
}

impl MountOfOurs {
    /// Where it is controlled.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        socket_in(&run_directory(), Device { major: self.major, minor: self.minor })
    }
}

/// Where a mount with those numbers is controlled, when its run directory is this one.
#[must_use]
pub fn socket_in(run_directory: &Path, device: Device) -> PathBuf {
    run_directory.join("mounts").join(format!("{}-{}.sock", device.major, device.minor))
}

/// `FSI_RUN_DIR`, or [`RUN_DIRECTORY`].
#[must_use]
pub fn run_directory() -> PathBuf {
    env::var_os("FSI_RUN_DIR")
        .filter(|path| !path.is_empty())
        .map_or_else(|| PathBuf::from(RUN_DIRECTORY), PathBuf::from)
}

/// Finds the mount at this path.
///
/// # Errors
/// When there is none, or it is not ours.
pub fn find(target: &Path) -> Result<MountOfOurs, TargetError> {
    let table = fs::read(MOUNTINFO).map_err(TargetError::Mountinfo)?;
    let unfound = |source| TargetError::Path { target: target.to_owned(), source };
    let absolute = std::path::absolute(target).map_err(unfound)?;
    match find_in(&table, &absolute) {
        Err(TargetError::NoMount { .. }) => {}
        found => return found,
    }
    // A symlink or `..` on the way. The parent is outside of the mount: to look at it does not ask the server.
    let resolved = resolve(&absolute).map_err(unfound)?;
    match find_in(&table, &resolved) {
        Err(TargetError::NoMount { target: _, ours }) => Err(TargetError::NoMount { target: target.to_owned(), ours }),
        found => found,
    }
}

/// The same path with its symlinks followed; the last name is only read as a link.
fn resolve(absolute: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(Component::Normal(name))) = (absolute.parent(), absolute.components().next_back()) else {
        return fs::canonicalize(absolute);
    };
    let Ok(parent) = fs::canonicalize(parent) else { return Ok(absolute.to_owned()) };
    let path = parent.join(name);
    match fs::read_link(&path) {
        Ok(_link) => fs::canonicalize(&path),
        Err(_no_link) => Ok(path),
    }
}

struct Entry {
    major: u32,
    minor: u32,
    point: PathBuf,
    file_system: String,
}

fn find_in(table: &[u8], target: &Path) -> Result<MountOfOurs, TargetError> {
    let entries: Vec<Entry> = table.split(|byte| *byte == b'\n').filter_map(entry).collect();
    let ours = || entries.iter().filter(|entry| entry.file_system == FSTYPE).map(|entry| entry.point.clone());
    // The last one at a path lies over those before.
    match entries.iter().rev().find(|entry| entry.point == target) {
        Some(Entry { major, minor, point, file_system }) if file_system == FSTYPE => {
            Ok(MountOfOurs { target: point.clone(), major: *major, minor: *minor })
        }
        Some(Entry { major: _, minor: _, point, file_system }) => {
            Err(TargetError::Other { target: point.clone(), file_system: file_system.clone(), ours: ours().collect() })
        }
        None => Err(TargetError::NoMount { target: target.to_owned(), ours: ours().collect() }),
    }
}

/// `36 35 98:0 /root /point options [optional ...] - type source superoptions`, with octal escapes.
fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let file_system = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Entry {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        point,
        file_system: OsString::from_vec(unescape(file_system)).as_bytes().escape_ascii().to_string(),
    })
}

/// `\040` and its like become the byte they stand for.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let value = octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
        40 22 0:50 / /mnt/a\\040b rw,nosuid shared:9 master:2 - fuse.fsi /data rw,user_id=0\n\
        41 22 0:51 / /mnt/c rw - fuse.fsi /data2 rw\n\
        42 22 0:52 / /mnt/c rw - tmpfs tmpfs rw\n\
        43 22 0:53 / /mnt/d rw - tmpfs tmpfs rw\n\
        44 22 0:54 / /mnt/d rw - fuse.fsi /x rw\n";

    #[test]
    fn finds_what_lies_on_top() {
        let found = find_in(TABLE, Path::new("/mnt/a b")).unwrap();
        assert_eq!(found, MountOfOurs { target: "/mnt/a b".into(), major: 0, minor: 50 });
        assert!(found.socket().ends_with("mounts/0-50.sock"));
        assert_eq!(find_in(TABLE, Path::new("/mnt/d")).unwrap().minor, 54);
    }

    #[test]
    fn says_what_it_is_instead_and_what_there_is() {
        let covered = find_in(TABLE, Path::new("/mnt/c")).unwrap_err().to_string();
        assert_eq!(covered, "/mnt/c is a mount of type tmpfs, not of fsi; those are: /mnt/a b, /mnt/c, /mnt/d");
        let none = find_in(b"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n", Path::new("/mnt")).unwrap_err().to_string();
        assert_eq!(none, "/mnt is no mount of fsi; there is none here");
    }

    #[test]
    fn follows_links_to_a_mount() {
        let directory = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(directory.path()).unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link/x")).unwrap(), real.join("x"));
        assert_eq!(resolve(&real.join("link")).unwrap(), real);
        assert_eq!(resolve(Path::new("/no/such/thing")).unwrap(), Path::new("/no/such/thing"));
    }
}
