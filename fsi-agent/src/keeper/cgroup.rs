//! A cgroup of its own for a mount's processes: a runtime ends whatever is left in the cgroup of a container that ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const PROCESSES: &str = "cgroup.procs";

/// Has this process, and all that it starts, leave for the cgroup `path`, which is made if need be. Where controllers have hierarchies
/// of their own (version 1), it is the one of that name in each: `/sys/fs/cgroup/fsi` is `/sys/fs/cgroup/memory/fsi` and so on.
///
/// # Errors
/// There is no hierarchy, or the process may not go there.
pub fn join(path: &Path) -> io::Result<()> {
    let (Some(base), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let hierarchies = hierarchies(base)?;
    if hierarchies.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no cgroup hierarchy is at {}", base.display())));
    }
    for hierarchy in hierarchies {
        let cgroup = hierarchy.join(name);
        fs::create_dir_all(&cgroup)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            inherit(&hierarchy.join(file), &cgroup.join(file))?;
        }
        // Zero is the process that writes.
        fs::write(cgroup.join(PROCESSES), "0")?;
    }
    Ok(())
}

fn hierarchies(base: &Path) -> io::Result<Vec<PathBuf>> {
    if base.join(PROCESSES).exists() {
        return Ok(vec![base.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(base)? {
        let entry = entry?;
        // Hierarchies of two controllers have a link for each.
        if entry.file_type()?.is_dir() && entry.path().join(PROCESSES).exists() {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// A new cpuset of version 1 has nothing, and takes no process.
fn inherit(from: &Path, to: &Path) -> io::Result<()> {
    match fs::read_to_string(to) {
        Ok(text) if text.trim().is_empty() => match fs::read_to_string(from) {
            Ok(above) => fs::write(to, above),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        },
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn with_version_1_every_hierarchy_is_joined() {
        let base = tempfile::tempdir().unwrap();
        for hierarchy in ["cpuset", "memory"] {
            fs::create_dir_all(base.path().join(hierarchy).join("fsi")).unwrap();
            fs::write(base.path().join(hierarchy).join(PROCESSES), "").unwrap();
        }
        fs::create_dir(base.path().join("other")).unwrap();
        fs::write(base.path().join("cpuset/cpuset.cpus"), "0-1\n").unwrap();
        fs::write(base.path().join("cpuset/fsi/cpuset.cpus"), "\n").unwrap();
        join(&base.path().join("fsi")).unwrap();
        for hierarchy in ["cpuset", "memory"] {
            assert_eq!(written(&base.path().join(hierarchy).join("fsi").join(PROCESSES)), "0");
        }
        assert_eq!(written(&base.path().join("cpuset/fsi/cpuset.cpus")), "0-1\n");
        assert!(!base.path().join("other/fsi").exists());
    }

    #[test]
    fn version_2_is_one_hierarchy() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join(PROCESSES), "").unwrap();
        fs::create_dir(base.path().join("system.slice")).unwrap();
        fs::write(base.path().join("system.slice").join(PROCESSES), "").unwrap();
        join(&base.path().join("fsi")).unwrap();
        assert_eq!(written(&base.path().join("fsi").join(PROCESSES)), "0");
        assert!(!base.path().join("system.slice/fsi").exists());
    }

    #[test]
    fn where_there_is_no_hierarchy_one_is_told() {
        let base = tempfile::tempdir().unwrap();
        assert!(join(&base.path().join("fsi")).unwrap_err().to_string().contains("no cgroup hierarchy"));
    }
}
