//! The cgroups of this machine by the ids that the kernel side reports: their paths, and the containers they belong to.
//!
//! An id is the inode number of a directory in the hierarchy that is observed. The hierarchy is walked when an unknown id turns up,
//! never more than a twentieth of the time; what was found is remembered, also after the cgroup is gone. An id that a walk made
//! after its first sight did not find is gone for good. Not for the path of every operation: a walk takes milliseconds.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, monotonic_ns};
use crate::probe::options::Selection;
use crate::selection::container;
use crate::telemetry::containers::ContainerNames;

/// Cgroups that are remembered.
const MAX_CGROUPS: usize = 65_536;
/// Cgroups are not nested deeper; it bounds the walk.
const MAX_DEPTH: usize = 64;
/// The least time between two walks.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a walk is so many times as long as the walk.
const PAUSE_PER_WALK: u32 = 20;

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Below the root of the hierarchy: `/system.slice/ssh.service`.
    pub path: Arc<str>,
    /// The id of the innermost container that it belongs to.
    pub container: Option<Arc<str>>,
}

/// Those of one hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    root: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<u64, Cgroup>,
    gone: HashSet<u64>,
    next_walk_ns: u64,
}

impl Cgroups {
    /// Of the hierarchy whose ids the kernel side reports: that of the chosen cgroups, else the preferred one.
    #[must_use]
    pub fn observed(selection: &Selection) -> Self {
        let hierarchies = container::hierarchies().unwrap_or_default();
        let chosen = match selection {
            Selection::Cgroups(paths) => paths.first().and_then(|path| path.canonicalize().ok()),
            Selection::Command | Selection::Pid(_) | Selection::All | Selection::Policies => None,
        };
        let holding = |path: PathBuf| hierarchies.iter().find(|root| path.starts_with(root)).cloned();
        let root = chosen.map_or_else(|| hierarchies.first().cloned(), holding);
        Self::below(root)
    }

    fn below(root: Option<PathBuf>) -> Self {
        Self { root, state: Mutex::default() }
    }

    /// The cgroup with that id. May walk the hierarchy.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Cgroup> {
        let root = self.root.as_deref()?;
        // Nothing panics under the lock; were it so, what is known would still be true.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { known, gone, next_walk_ns } = &mut *state;
        if let Some(cgroup) = known.get(&id) {
            return Some(cgroup.clone());
        }
        let begin_ns = monotonic_ns();
        if begin_ns < *next_walk_ns || gone.contains(&id) {
            return None;
        }
        remember(known, walk(root));
        let pause = LEAST_PAUSE.max(Clock::since(begin_ns) * PAUSE_PER_WALK);
        *next_walk_ns = monotonic_ns().saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX));
        let found = known.get(&id).cloned();
        if found.is_none() {
            if gone.len() >= MAX_CGROUPS {
                gone.clear();
            }
            gone.insert(id);
        }
        found
    }
}

impl ContainerNames for Cgroups {
    fn container(&self, cgroup: u64) -> Option<Arc<str>> {
        self.get(cgroup)?.container
    }
}

/// What is there now, and of what was there before as much as there is room for.
fn remember(known: &mut HashMap<u64, Cgroup>, now: HashMap<u64, Cgroup>) {
    let before = std::mem::replace(known, now);
    for (id, cgroup) in before {
        if known.len() >= MAX_CGROUPS {
            break;
        }
        known.entry(id).or_insert(cgroup);
    }
}

fn walk(root: &Path) -> HashMap<u64, Cgroup> {
    let mut found = HashMap::new();
    let Ok(metadata) = fs::metadata(root) else { return found };
    let cgroup = Cgroup { path: Arc::from("/"), container: None };
    descend(root, &cgroup, 0, &mut found);
    found.insert(metadata.ino(), cgroup);
    found
}

/// A directory that vanishes on the way belongs to nobody any more, so errors end a branch and nothing else.
fn descend(directory: &Path, parent: &Cgroup, depth: usize, found: &mut HashMap<u64, Cgroup>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if found.len() >= MAX_CGROUPS || depth >= MAX_DEPTH {
            return;
        }
        let (Ok(metadata), name) = (entry.metadata(), entry.file_name()) else { continue };
        let name = name.to_string_lossy();
        let own = container::id_in(&name).map(Arc::from);
        let cgroup = Cgroup {
            path: format!("{}/{name}", parent.path.trim_end_matches('/')).into(),
            container: own.or_else(|| parent.container.clone()),
        };
        descend(&entry.path(), &cgroup, depth + 1, found);
        found.insert(metadata.ino(), cgroup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaa111122223333444455556666777788889999aaaabbbbccccddddeeeeffff";
    const B: &str = "bbbb111122223333444455556666777788889999aaaabbbbccccddddeeeeffff";

    /// Makes a directory; its id.
    fn make(root: &Path, path: &str) -> u64 {
        fs::create_dir_all(root.join(path)).unwrap();
        fs::metadata(root.join(path)).unwrap().ino()
    }

    #[test]
    fn containers_of_every_runtime_and_what_is_inside_them() {
        let root = tempfile::tempdir().unwrap();
        let cases = [
            (format!("docker/{A}"), Some(A)),
            (format!("docker/{A}/init.scope"), Some(A)),
            (format!("system.slice/docker-{B}.scope"), Some(B)),
            (format!("kubepods.slice/kubepods-pod1.slice/cri-containerd-{A}.scope"), Some(A)),
            (format!("kubepods.slice/kubepods-pod1.slice/crio-{A}.scope/container"), Some(A)),
            (format!("kubepods/besteffort/pod6b9f2c3e-0000-1111-2222-333344445555/{B}"), Some(B)),
            (format!("system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{A}"), Some(A)),
            (format!("machine.slice/libpod-{A}.scope"), Some(A)),
            // A container inside a container.
            (format!("docker/{A}/docker/{B}"), Some(B)),
            (format!("machine.slice/libpod-conmon-{A}.scope"), None),
            ("system.slice/ssh.service".to_owned(), None),
            (format!("other/{}", &A[1..]), None),
        ];
        let ids: Vec<_> = cases.iter().map(|(path, _)| make(root.path(), path)).collect();
        let cgroups = Cgroups::below(Some(root.path().to_owned()));
        for ((path, container), id) in cases.iter().zip(ids) {
            let cgroup = cgroups.get(id).unwrap();
            assert_eq!((&*cgroup.path, cgroup.container.as_deref()), (format!("/{path}").as_str(), *container));
        }
        let id = fs::metadata(root.path()).unwrap().ino();
        assert_eq!(cgroups.get(id).unwrap(), Cgroup { path: Arc::from("/"), container: None });
    }

    #[test]
    fn what_was_known_is_remembered_and_what_is_gone_is_not_looked_for() {
        let root = tempfile::tempdir().unwrap();
        let first = make(root.path(), A);
        let cgroups = Cgroups::below(Some(root.path().to_owned()));
        assert_eq!(cgroups.container(first).as_deref(), Some(A));
        let second = make(root.path(), B);
        assert_eq!(cgroups.get(second), None, "not walked again at once");
        fs::remove_dir(root.path().join(A)).unwrap();
        cgroups.state.lock().unwrap().next_walk_ns = 0;
        assert_eq!(cgroups.container(second).as_deref(), Some(B));
        assert_eq!(cgroups.container(first).as_deref(), Some(A), "it was there");
        cgroups.state.lock().unwrap().next_walk_ns = 0;
        assert_eq!(cgroups.get(u64::MAX), None);
        cgroups.state.lock().unwrap().next_walk_ns = 0;
        assert_eq!(cgroups.get(u64::MAX), None);
        assert_eq!(cgroups.state.lock().unwrap().next_walk_ns, 0, "no second walk for it");
        assert_eq!(Cgroups::below(None).get(first), None);
    }
}
