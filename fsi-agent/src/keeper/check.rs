//! What a mount needs, looked at before anything is mounted: each refusal is one sentence.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::thread::{CapabilitySet, capabilities};
use thiserror::Error;

use crate::sys::mount::{self, FSTYPE};

/// Whether a directory with something in it may be covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Covering {
    EmptyOnly,
    Anything,
}

/// Why it cannot be mounted.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error("mounting needs root")]
    NotRoot,
    #[error("mounting needs CAP_SYS_ADMIN, and this process does not have it, although it is root's")]
    NotPrivileged,
    #[error("/dev/fuse: {0}; is the kernel's module `fuse` loaded?")]
    NoFuse(#[source] io::Error),
    #[error("{what} {}: {error}", path.display())]
    Unusable { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{what} {} is no directory", path.display())]
    NoDirectory { what: &'static str, path: PathBuf },
    #[error("TARGET {} is not empty; --nonempty covers what is in it", .0.display())]
    NotEmpty(PathBuf),
    #[error("TARGET {} is below SOURCE {}", target.display(), source_path.display())]
    TargetBelow { source_path: PathBuf, target: PathBuf },
    #[error("SOURCE {} is below TARGET {}", source_path.display(), target.display())]
    SourceBelow { source_path: PathBuf, target: PathBuf },
    #[error("TARGET {} is an fsi mount already; `fsi umount` ends it", .0.display())]
    Mounted(PathBuf),
    #[error("read /proc/self/mountinfo: {0}")]
    Mounts(#[source] io::Error),
}

/// SOURCE and TARGET, absolute and without links, if they can be used.
///
/// # Errors
/// When they cannot.
pub fn places(source: &Path, target: &Path, covering: Covering) -> Result<(PathBuf, PathBuf), Refusal> {
    if !rustix::process::geteuid().is_root() {
        return Err(Refusal::NotRoot);
    }
    if capabilities(None).is_ok_and(|held| !held.effective.contains(CapabilitySet::SYS_ADMIN)) {
        return Err(Refusal::NotPrivileged);
    }
    let device = fs::File::options().read(true).write(true).open("/dev/fuse");
    device.map_err(Refusal::NoFuse)?;
    // Before anything asks TARGET: a mount whose server is gone does not answer.
    let lexical = absolute(target).map_err(|error| unusable("TARGET", target, error))?;
    refuse_mounted(&lexical)?;
    let source_path = directory("SOURCE", source)?;
    let target = directory("TARGET", target)?;
    refuse_mounted(&target)?;
    if target != source_path && target.starts_with(&source_path) {
        return Err(Refusal::TargetBelow { source_path, target });
    }
    if target != source_path && source_path.starts_with(&target) {
        return Err(Refusal::SourceBelow { source_path, target });
    }
    let mut entries = fs::read_dir(&target).map_err(|error| unusable("TARGET", &target, error))?;
    if covering == Covering::EmptyOnly && entries.next().is_some() {
        return Err(Refusal::NotEmpty(target));
    }
    Ok((source_path, target))
}

fn refuse_mounted(target: &Path) -> Result<(), Refusal> {
    let mounts = mount::mounts().map_err(Refusal::Mounts)?;
    match mount::at(&mounts, target) {
        Some(mount) if mount.fstype == FSTYPE => Err(Refusal::Mounted(target.to_owned())),
        Some(_) | None => Ok(()),
    }
}

fn directory(what: &'static str, path: &Path) -> Result<PathBuf, Refusal> {
    let canonical = fs::canonicalize(path).map_err(|error| unusable(what, path, error))?;
    let metadata = fs::metadata(&canonical).map_err(|error| unusable(what, path, error))?;
    if metadata.is_dir() { Ok(canonical) } else { Err(Refusal::NoDirectory { what, path: path.to_owned() }) }
}

fn unusable(what: &'static str, path: &Path, error: io::Error) -> Refusal {
    Refusal::Unusable { what, path: path.to_owned(), error }
}

/// A path without links in all but its last component, which may be a mount that does not answer.
///
/// # Errors
/// When its directory cannot be found.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.components().next_back()) {
        (Some(parent), Some(Component::Normal(name))) => Ok(fs::canonicalize(parent)?.join(name)),
        (None, _) | (_, Some(_) | None) => fs::canonicalize(&path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_component_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        fs::create_dir(real.join("d")).unwrap();
        std::os::unix::fs::symlink("d", real.join("link")).unwrap();
        assert_eq!(absolute(&real.join("link/gone")).unwrap(), real.join("d/gone"));
        assert_eq!(absolute(&real.join("link")).unwrap(), real.join("link"));
        assert!(absolute(&real.join("no/where")).is_err());
    }

    #[test]
    fn directories_are_told_from_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(matches!(directory("SOURCE", file.path()), Err(Refusal::NoDirectory { .. })));
        let sentence = directory("SOURCE", Path::new("/no/such")).unwrap_err().to_string();
        assert!(sentence.starts_with("SOURCE /no/such: No such file"), "{sentence}");
    }
}
