//! From a container's id to its cgroup directories, looked for in every cgroup hierarchy that is mounted.
//!
//! Runtimes name the directory by the id, alone or with a prefix and a suffix (`docker-ID.scope`, `cri-containerd-ID.scope`,
//! `pod:cri-containerd:ID`). The id may be cut short as long as it fits one container only.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::probe::cgroup::CONTROLLERS;

/// Why no container was found.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("read /proc/self/mountinfo: {0}")]
    Mounts(#[source] std::io::Error),
    #[error("no cgroup hierarchy is mounted, so containers cannot be found; mount one at /sys/fs/cgroup")]
    NoHierarchy,
    #[error("container `{id}`: no cgroup directory below {} is named after it; give the id that the runtime prints", list(.roots))]
    NotFound { id: String, roots: Vec<PathBuf> },
    #[error("container `{id}`: {} containers begin so (for example {}); write more of the id", .ids.len(), .ids.iter().take(2).cloned().collect::<Vec<_>>().join(" and "))]
    Ambiguous { id: String, ids: Vec<String> },
}

fn list(roots: &[PathBuf]) -> String {
    roots.iter().map(|root| root.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// A cut id is believed only for names this long: 32 hexadecimal digits are what the shortest runtime ids have.
const LEAST_ID_LEN: usize = 32;
/// Containers are not nested deeper; it bounds the walk.
const MAX_DEPTH: usize = 24;

/// The cgroup directories of a container, all in the first hierarchy that has any: the kernel side looks at one hierarchy.
///
/// # Errors
/// None is found, several fit, or there is no hierarchy.
pub fn find(id: &str) -> Result<Vec<PathBuf>, ContainerError> {
    let roots = hierarchies()?;
    if roots.is_empty() {
        return Err(ContainerError::NoHierarchy);
    }
    find_below(&roots, id)
}

/// What container runtimes give: 64 hexadecimal digits.
const ID_LEN: usize = 64;

/// The container whose cgroup a directory of that name is.
#[must_use]
pub fn id_in(name: &str) -> Option<&str> {
    candidates(name).find(|part| part.len() == ID_LEN && is_hex(part))
}

/// Where cgroup hierarchies are mounted, the preferred first: version 1 by controller, then version 2. One without a
/// controller is left out, because the kernel side cannot tell its groups apart.
///
/// # Errors
/// The mount table cannot be read.
pub fn hierarchies() -> Result<Vec<PathBuf>, ContainerError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(ContainerError::Mounts)?;
    let mut mounts: Vec<_> = table.lines().filter_map(cgroup_mount).collect();
    mounts.sort();
    Ok(mounts.into_iter().map(|(_, _, point)| point).collect())
}

/// Rank, whether only a part of it is mounted, and the mount point, when the line is a cgroup hierarchy of use.
fn cgroup_mount(line: &str) -> Option<(usize, bool, PathBuf)> {
    let (mount, source) = line.split_once(" - ")?;
    let mut source = source.split(' ');
    let rank = match source.next()? {
        "cgroup2" => CONTROLLERS.len(),
        "cgroup" => {
            let options = source.nth(1)?;
            CONTROLLERS.iter().position(|controller| options.split(',').any(|option| option == *controller))?
        }
        _ => return None,
    };
    let mut mount = mount.split(' ');
    let (root, point) = (mount.nth(3)?, mount.next()?);
    Some((rank, root != "/", PathBuf::from(point.replace("\\040", " "))))
}

fn find_below(roots: &[PathBuf], id: &str) -> Result<Vec<PathBuf>, ContainerError> {
    let mut found: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for root in roots {
        let mut here = BTreeMap::new();
        walk(root, id, 0, &mut here);
        for (full, directories) in here {
            found.entry(full).or_insert(directories);
        }
    }
    if let Some(exact) = found.remove(id) {
        return Ok(exact);
    }
    if found.len() > 1 {
        return Err(ContainerError::Ambiguous { id: id.to_owned(), ids: found.into_keys().collect() });
    }
    let only = found.into_values().next();
    only.ok_or_else(|| ContainerError::NotFound { id: id.to_owned(), roots: roots.to_vec() })
}

/// A directory that vanishes on the way belongs to nobody any more, so errors end a branch and nothing else.
fn walk(directory: &Path, id: &str, depth: usize, found: &mut BTreeMap<String, Vec<PathBuf>>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        match entry.file_name().to_str().and_then(|name| container_id(name, id)) {
            Some(full) => found.entry(full.to_owned()).or_default().push(entry.path()),
            None if depth < MAX_DEPTH => walk(&entry.path(), id, depth + 1, found),
            None => {}
        }
    }
}

/// The full id that a directory's name holds, when it is the one asked for.
fn container_id<'a>(name: &'a str, id: &str) -> Option<&'a str> {
    if id.is_empty() {
        return None;
    }
    candidates(name).find(|part| *part == id || (part.len() >= LEAST_ID_LEN && is_hex(part) && part.starts_with(id)))
}

/// The parts of a directory's name that may be an id: from its start or a separator to its end.
fn candidates(name: &str) -> impl Iterator<Item = &str> {
    // The monitor of CRI-O and podman has a cgroup of its own that carries the id; it is not the container.
    let stem = if name.contains("conmon") { "" } else { name.strip_suffix(".scope").unwrap_or(name) };
    let boundaries = stem.match_indices(['-', ':']).map(|(at, _)| at + 1);
    std::iter::once(0).chain(boundaries).map(|start| &stem[start..])
}

fn is_hex(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaa1111222233334444555566667777";
    const B: &str = "aaaa2222222233334444555566667777";

    fn tree(directories: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in directories {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        root
    }

    #[test]
    fn finds_in_the_first_hierarchy_that_has_it_by_whole_or_cut_id() {
        let root = tree(&[
            &format!("v1/docker/{A}"),
            &format!("v2/system.slice/docker-{A}.scope"),
            &format!("v2/kubepods.slice/pod1/cri-containerd-{B}.scope"),
            &format!("v2/kubepods.slice/pod1/crio-conmon-{B}.scope"),
        ]);
        let roots = [root.path().join("v1"), root.path().join("v2")];
        assert_eq!(find_below(&roots, A).unwrap(), [roots[0].join("docker").join(A)]);
        assert_eq!(find_below(&roots, "aaaa1").unwrap().len(), 1);
        let second = find_below(&roots, "aaaa2").unwrap();
        assert!(second.len() == 1 && second[0].starts_with(&roots[1]), "{second:?}");
        let ambiguous = find_below(&roots, "aaaa").unwrap_err().to_string();
        assert!(ambiguous.contains("2 containers begin so"), "{ambiguous}");
        let missing = find_below(&roots, "bbbb").unwrap_err().to_string();
        assert!(missing.contains("named after it"), "{missing}");
    }

    #[test]
    fn a_plain_name_must_fit_whole() {
        let root = tree(&["box", "boxes"]);
        assert_eq!(find_below(&[root.path().to_owned()], "box").unwrap(), [root.path().join("box")]);
        assert!(find_below(&[root.path().to_owned()], "bo").is_err());
    }

    #[test]
    fn mounts_of_other_kinds_are_passed_over() {
        let v2 = "35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw";
        assert_eq!(cgroup_mount(v2), Some((8, false, PathBuf::from("/sys/fs/cgroup"))));
        let v1 = "36 24 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids";
        assert_eq!(cgroup_mount(v1), Some((1, false, PathBuf::from("/sys/fs/cgroup/pids"))));
        assert_eq!(cgroup_mount("37 24 0:32 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd"), None);
        assert_eq!(cgroup_mount("24 1 8:1 / / rw - ext4 /dev/sda1 rw"), None);
    }
}
