//! Which cgroup hierarchy tells containers apart on this machine, and the ids of chosen cgroups.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use fsi_common::probe_config::CGROUP_V2;

use super::btf::KernelTypes;

const CGROUP_MAGIC: u64 = 0x0027_e0eb;
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Version 1 controllers, in the order in which their hierarchies are preferred: those that runtimes always use come first.
pub(crate) const CONTROLLERS: [&str; 8] = ["memory", "pids", "cpu", "cpuacct", "blkio", "devices", "freezer", "cpuset"];

/// A cgroup that cannot be chosen.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    #[error("cgroup {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} is no cgroup directory (those are below /sys/fs/cgroup)")]
    NotACgroup(PathBuf),
    #[error(
        "{0} lies in a cgroup hierarchy without a controller, whose ids a program in the kernel cannot read; give its path in another hierarchy"
    )]
    NoController(PathBuf),
    #[error("{first} and {second} lie in different cgroup hierarchies; give paths in one")]
    Mixed { first: PathBuf, second: PathBuf },
}

/// A hierarchy, as the kernel side wants it: the index of a v1 controller, or [`CGROUP_V2`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hierarchy(pub u32);

/// A mounted v1 controller: its mount point and name.
fn mounted_controllers() -> Vec<(PathBuf, &'static str)> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let mut right = right.split(' ');
        let (Some("cgroup"), Some(options), Some(mount_point)) = (right.next(), right.nth(1), left.split(' ').nth(4))
        else {
            continue;
        };
        for controller in CONTROLLERS {
            if options.split(',').any(|option| option == controller) {
                found.push((PathBuf::from(mount_point), controller));
            }
        }
    }
    found
}

fn controller_index(types: &KernelTypes, controller: &str) -> Option<u32> {
    types.enumerator("cgroup_subsys_id", &format!("{controller}_cgrp_id"))
}

/// The hierarchy whose ids label what is seen: v1 controllers where they are mounted, for runtimes then use those; else v2.
#[must_use]
pub fn default_hierarchy(types: &KernelTypes) -> Hierarchy {
    let mounted = mounted_controllers();
    for controller in CONTROLLERS {
        if mounted.iter().any(|(_, name)| *name == controller)
            && let Some(index) = controller_index(types, controller)
        {
            return Hierarchy(index);
        }
    }
    Hierarchy(CGROUP_V2)
}

fn hierarchy_of(types: &KernelTypes, path: &Path) -> Result<Hierarchy, CgroupError> {
    let failed = |source| CgroupError::Read { path: path.to_owned(), source };
    let path = path.canonicalize().map_err(failed)?;
    let magic = rustix::fs::statfs(&path).map_err(|errno| failed(errno.into()))?.f_type;
    match u64::try_from(magic).unwrap_or(0) {
        CGROUP2_MAGIC => Ok(Hierarchy(CGROUP_V2)),
        CGROUP_MAGIC => mounted_controllers()
            .iter()
            .filter(|(mount_point, _)| path.starts_with(mount_point))
            .find_map(|(_, controller)| controller_index(types, controller))
            .map(Hierarchy)
            .ok_or_else(|| CgroupError::NoController(path.clone())),
        _ => Err(CgroupError::NotACgroup(path)),
    }
}

/// The common hierarchy and the ids of cgroup directories. An id is the inode number of the directory.
pub fn ids_of(types: &KernelTypes, paths: &[PathBuf]) -> Result<(Hierarchy, Vec<u64>), CgroupError> {
    let mut common: Option<(Hierarchy, &PathBuf)> = None;
    let mut ids = Vec::new();
    for path in paths {
        let hierarchy = hierarchy_of(types, path)?;
        match common {
            Some((first, first_path)) if first != hierarchy => {
                return Err(CgroupError::Mixed { first: first_path.clone(), second: path.clone() });
            }
            Some(_) => {}
            None => common = Some((hierarchy, path)),
        }
        let metadata = std::fs::metadata(path).map_err(|source| CgroupError::Read { path: path.clone(), source })?;
        if !metadata.is_dir() {
            return Err(CgroupError::NotACgroup(path.clone()));
        }
        ids.push(metadata.ino());
    }
    Ok((common.map_or(Hierarchy(CGROUP_V2), |(hierarchy, _)| hierarchy), ids))
}
