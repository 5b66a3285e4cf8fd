//! Who uses a mount: processes with their directory, an open file or a mapping on it. Asks the mount nothing, as it may be one
//! that does not answer.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use crate::sys::mount::Device;

/// How a process uses a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    Directory,
    Root,
    Program,
    OpenFile(u32),
    Mapping,
}

impl std::fmt::Display for Use {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory => f.write_str("working directory"),
            Self::Root => f.write_str("root directory"),
            Self::Program => f.write_str("program"),
            Self::OpenFile(number) => write!(f, "open file {number}"),
            Self::Mapping => f.write_str("mapped file"),
        }
    }
}

/// A process that uses a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub pid: u32,
    pub name: String,
    pub uses: Vec<Use>,
}

impl std::fmt::Display for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 3;
        write!(f, "{} (pid {}): ", self.name, self.pid)?;
        let shown: Vec<_> = self.uses.iter().take(SHOWN).map(Use::to_string).collect();
        f.write_str(&shown.join(", "))?;
        match self.uses.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// All users of a device that may be seen from here, but for this process.
#[must_use]
pub fn of(device: Device) -> Vec<User> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let own = std::process::id();
    let pids =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok()).filter(|pid| *pid != own);
    let mut users: Vec<_> = pids.filter_map(|pid| user(pid, device)).collect();
    users.sort_by_key(|user| user.pid);
    users
}

/// A process that ends while it is looked at uses nothing.
fn user(pid: u32, device: Device) -> Option<User> {
    let process = Path::new("/proc").join(pid.to_string());
    let links = [("cwd", Use::Directory), ("root", Use::Root), ("exe", Use::Program)];
    let mut uses: Vec<_> =
        links.into_iter().filter(|(link, _)| is_on(&process.join(link), device)).map(|(_, how)| how).collect();
    if let Ok(files) = fs::read_dir(process.join("fd")) {
        let numbers = files.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let on = numbers.filter(|number| is_on(&process.join("fd").join(number.to_string()), device));
        uses.extend(on.map(Use::OpenFile));
    }
    if fs::read_to_string(process.join("maps"))
        .is_ok_and(|maps| maps.lines().any(|line| maps_device(line) == Some(device)))
    {
        uses.push(Use::Mapping);
    }
    uses.sort();
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default().trim_end().to_owned();
    (!uses.is_empty()).then_some(User { pid, name, uses })
}

fn is_on(link: &Path, device: Device) -> bool {
    // Without asking the file system: what the kernel remembers has the device.
    statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::empty())
        .is_ok_and(|found| (found.stx_dev_major, found.stx_dev_minor) == (device.major, device.minor))
}

/// `start-end perms offset major:minor inode path`, the numbers of the device in hexadecimal.
fn maps_device(line: &str) -> Option<Device> {
    let (major, minor) = line.split_ascii_whitespace().nth(3)?.split_once(':')?;
    Some(Device { major: u32::from_str_radix(major, 16).ok()?, minor: u32::from_str_radix(minor, 16).ok()? })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    fn device(path: &Path) -> Device {
        let number = fs::metadata(path).unwrap().dev();
        Device { major: rustix::fs::major(number), minor: rustix::fs::minor(number) }
    }

    #[test]
    fn finds_our_own_files() {
        let file = tempfile::tempfile().unwrap();
        let on = device(&std::env::temp_dir());
        let own = user(std::process::id(), on).unwrap();
        let number = u32::try_from(std::os::fd::AsRawFd::as_raw_fd(&file)).unwrap();
        assert!(own.uses.contains(&Use::OpenFile(number)), "{own:?}");
        drop(file);
        assert!(user(std::process::id(), Device { major: 4095, minor: 1 }).is_none());
    }

    #[test]
    fn mappings_name_their_device() {
        let line = "7f0-7f1 r--s 00000000 00:2f 131 /mnt/file with space";
        assert_eq!(maps_device(line), Some(Device { major: 0, minor: 47 }));
        assert_eq!(maps_device("nonsense"), None);
    }

    #[test]
    fn many_uses_are_cut_short() {
        let user = User {
            pid: 7,
            name: "sh".into(),
            uses: vec![Use::Directory, Use::OpenFile(1), Use::OpenFile(2), Use::Mapping],
        };
        assert_eq!(user.to_string(), "sh (pid 7): working directory, open file 1, open file 2 and 1 more");
    }
}
