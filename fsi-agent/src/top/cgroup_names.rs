//! Cgroup ids as the kernel reports them to paths: an id is the inode number of the directory.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::{Clock, monotonic_ns};
use crate::selection::container;

/// Directories that are remembered.
const MAX_NAMES: usize = 65_536;
/// The hierarchy is not walked more often than this for an id that it does not have.
const LEAST_INTERVAL: Duration = Duration::from_secs(2);

/// Names of cgroups, read when an unknown one turns up.
#[derive(Debug, Default)]
pub(super) struct CgroupNames {
    root: Option<PathBuf>,
    names: HashMap<u64, String>,
    walked_ns: Option<u64>,
}

impl CgroupNames {
    /// Those of the hierarchy that the kernel side reports by default.
    pub(super) fn new() -> Self {
        let root = container::hierarchies().unwrap_or_default().into_iter().next();
        Self { root, ..Self::default() }
    }

    /// The path below the hierarchy's root, or the number.
    pub(super) fn name(&mut self, cgroup: u64) -> String {
        if !self.names.contains_key(&cgroup) && self.walked_ns.is_none_or(|then| Clock::since(then) >= LEAST_INTERVAL) {
            self.walked_ns = Some(monotonic_ns());
            self.names.clear();
            if let Some(root) = self.root.clone() {
                self.walk(&root, "/");
            }
        }
        self.names.get(&cgroup).cloned().unwrap_or_else(|| format!("cgroup {cgroup}"))
    }

    fn walk(&mut self, directory: &Path, name: &str) {
        let Ok(metadata) = fs::metadata(directory) else { return };
        if self.names.len() >= MAX_NAMES {
            return;
        }
        self.names.insert(metadata.ino(), name.to_owned());
        let Ok(entries) = fs::read_dir(directory) else { return };
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            let child = format!("{}/{}", name.trim_end_matches('/'), entry.file_name().to_string_lossy());
            self.walk(&entry.path(), &child);
        }
    }
}
