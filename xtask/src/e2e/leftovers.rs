//! What a cluster could leave on the machine, counted before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::cluster::{CGROUP, hierarchies, work};

/// Places that nodes have of their own, and must not touch outside.
const PLACES: [&str; 7] = [
    "/var/lib/kubelet",
    "/var/lib/fsi",
    "/var/lib/cni",
    "/var/log/pods",
    "/var/log/containers",
    "/run/fsi",
    "/etc/cni/net.d",
];

#[derive(Debug)]
pub(super) struct Machine {
    things: BTreeSet<String>,
}

impl Machine {
    pub(super) fn look() -> Result<Self> {
        let mut things = BTreeSet::new();
        for process in processes()? {
            let cgroups = fs::read_to_string(process.join("cgroup")).unwrap_or_default();
            let mounts = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
            let is_ours = cgroups.lines().any(|line| line.contains(&format!(":/{CGROUP}/")));
            let name = || fs::read_to_string(process.join("comm")).unwrap_or_default().trim().to_owned();
            // One that has ended and whose end nobody has asked for yet keeps its name alone; whose child it is asks for it.
            let has_ended = fs::read_link(process.join("exe")).is_err() && mounts.is_empty();
            if is_ours && !has_ended {
                things.insert(format!("process {} {}", process.display(), name()));
            }
            if mounts.contains(&work().display().to_string()) {
                things.insert(format!("mounts of {} {}", process.display(), name()));
            }
        }
        for link in fs::read_dir("/sys/class/net").context("read the network links")? {
            things.insert(format!("network link {}", link?.file_name().display()));
        }
        for hierarchy in hierarchies()? {
            let path = hierarchy.join(CGROUP);
            if path.exists() {
                things.insert(format!("cgroup {}", path.display()));
            }
        }
        for place in PLACES.iter().map(Path::new).chain([work().as_path()]) {
            if place.exists() {
                things.insert(format!("{}", place.display()));
            }
        }
        Ok(Self { things })
    }

    /// What is there after and was not before.
    pub(super) fn compare(&self, after: &Self) -> Vec<String> {
        after.things.difference(&self.things).cloned().collect()
    }
}

fn processes() -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir("/proc").context("read /proc")?;
    let is_process =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit));
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_process).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_left_behind() {
        let machine = |things: &[&str]| Machine { things: things.iter().map(|&thing| thing.to_owned()).collect() };
        let (before, after) = (machine(&["network link lo", "/run/fsi"]), machine(&["network link lo", "cgroup x"]));
        assert_eq!(before.compare(&after), ["cgroup x"]);
    }
}
