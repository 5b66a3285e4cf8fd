//! The cgroups of this machine by the ids that the kernel side reports: their paths, and the containers and pods they belong to.
//!
//! An id is the inode number of a directory in the hierarchy that is observed. The hierarchy is walked when an unknown id turns up,
//! never more than a twentieth of the time; what was found is remembered, also after the cgroup is gone. An id that a walk made
//! after its first sight did not find is gone and not looked for again for a while. A walk takes milliseconds: [`Cgroups::known`] never
//! makes one, and never waits for one that another thread makes.

use std::collections::HashMap;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lru::LruCache;

use super::counters::{Counter, Counters};
use super::place;
use crate::clock::{Clock, monotonic_ns};
use crate::probe::options::Selection;
use crate::selection::container;
use crate::telemetry::containers::ContainerNames;

/// Cgroups that are remembered, and as many that are known to be gone.
const MAX_CGROUPS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Cgroups are not nested deeper; it bounds the walk.
pub(super) const MAX_DEPTH: usize = 64;
/// The least time between two walks.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a walk is so many times as long as the walk.
const PAUSE_PER_WALK: u32 = 20;
/// What was not found is not looked for again for so long.
const GONE_FOR: Duration = Duration::from_secs(30);

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    /// Below the root of the hierarchy: `/system.slice/ssh.service`.
    pub path: Arc<str>,
    /// The id of the innermost container that it belongs to.
    pub container: Option<Arc<str>>,
    /// Its place in a pod.
    pub pod: Option<PodPlace>,
}

/// Whose pod a cgroup is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPlace {
    /// As the API has it; of a static pod, what the kubelet calls it.
    pub uid: Arc<str>,
    /// The id of the pod's container that it belongs to, which may hold others.
    pub container: Option<Arc<str>>,
}

impl Cgroup {
    /// That of the hierarchy itself.
    #[must_use]
    pub fn root() -> Self {
        Self { path: Arc::from("/"), container: None, pod: None }
    }

    /// Its directory, where the hierarchy is mounted.
    pub(super) fn directory(&self, hierarchy: &Path) -> PathBuf {
        hierarchy.join(self.path.trim_start_matches('/'))
    }

    /// That of a directory in this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let own: Option<Arc<str>> = container::id_in(name).map(Arc::from);
        let path = format!("{}/{name}", self.path.trim_end_matches('/')).into();
        if let Some(uid) = place::pod_uid_in(name) {
            return Self { path, container: own.clone(), pod: Some(PodPlace { uid: uid.into(), container: own }) };
        }
        let inside = |pod: &PodPlace| PodPlace {
            uid: Arc::clone(&pod.uid),
            container: pod.container.clone().or_else(|| own.clone()),
        };
        let pod = self.pod.as_ref().map(inside);
        Self { path, container: own.or_else(|| self.container.clone()), pod }
    }
}

/// Those of one hierarchy.
#[derive(Debug)]
pub struct Cgroups {
    root: Option<PathBuf>,
    memory: Mutex<Memory>,
    /// When the next walk may begin; held during a walk.
    next_walk_ns: Mutex<u64>,
    counters: Arc<Counters>,
    /// Counts what was learnt.
    changes: AtomicU64,
}

/// A cgroup that is there, or was.
#[derive(Debug)]
struct Known {
    cgroup: Cgroup,
    /// Nobody has said that it is gone.
    is_there: bool,
}

#[derive(Debug)]
struct Memory {
    known: LruCache<u64, Known>,
    /// Until when each is not looked for.
    gone: LruCache<u64, u64>,
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
        Self::below(root, Arc::default())
    }

    /// Of the hierarchy that is mounted there.
    pub(super) fn below(root: Option<PathBuf>, counters: Arc<Counters>) -> Self {
        let memory = Memory { known: LruCache::new(MAX_CGROUPS), gone: LruCache::new(MAX_CGROUPS) };
        Self { root, memory: Mutex::new(memory), next_walk_ns: Mutex::default(), counters, changes: AtomicU64::new(0) }
    }

    pub(super) fn hierarchy(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The cgroup with that id. May walk the hierarchy.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<Cgroup> {
        let root = self.root.as_deref()?;
        match self.recall(id) {
            Recalled::Known(cgroup) => return Some(cgroup),
            Recalled::Gone => return None,
            Recalled::Unknown => {}
        }
        let mut next_walk_ns = self.next_walk_ns.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have walked while this one waited.
        if let Some(cgroup) = self.known(id) {
            return Some(cgroup);
        }
        let begin_ns = monotonic_ns();
        if begin_ns < *next_walk_ns {
            return None;
        }
        self.counters.add(Counter::Walks, 1);
        self.learn(walk(root));
        let pause = LEAST_PAUSE.max(Clock::since(begin_ns) * PAUSE_PER_WALK);
        *next_walk_ns = after(pause);
        let found = self.known(id);
        if found.is_none() {
            self.counters.add(Counter::CgroupsGone, 1);
            self.remembered(|memory| memory.gone.put(id, after(GONE_FOR)));
        }
        found
    }

    /// The cgroup with that id, from memory.
    #[must_use]
    pub fn known(&self, id: u64) -> Option<Cgroup> {
        self.remembered(|memory| memory.known.get(&id).map(|known| known.cgroup.clone()))
    }

    /// What memory says about an id.
    pub(super) fn recall(&self, id: u64) -> Recalled {
        self.remembered(|memory| {
            if let Some(known) = memory.known.get(&id) {
                return Recalled::Known(known.cgroup.clone());
            }
            let gone = memory.gone.get(&id).is_some_and(|until_ns| monotonic_ns() < *until_ns);
            if gone { Recalled::Gone } else { Recalled::Unknown }
        })
    }

    /// Takes in what somebody found; the oldest make room.
    pub(super) fn learn(&self, found: impl IntoIterator<Item = (u64, Cgroup)>) {
        let forgotten = self.remembered(|memory| {
            let known = |cgroup| Known { cgroup, is_there: true };
            let other = |(id, cgroup)| memory.known.push(id, known(cgroup)).is_some_and(|(old, _)| old != id);
            found.into_iter().map(other).filter(|forgotten| *forgotten).count()
        });
        self.counters.add(Counter::CgroupsForgotten, forgotten);
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// One was made, as somebody says who need not look for it. What was made in one that nobody knows is left to a walk.
    pub(super) fn made(&self, id: u64, parent: u64, name: &str) {
        let Some(root) = &self.root else { return };
        let Some(cgroup) = self.known(parent).map(|parent| parent.child(name)) else { return };
        let path = cgroup.directory(root);
        self.learn([(id, cgroup)]);
        // Who removes it from here on is seen by others.
        if fs::metadata(path).map_or(true, |metadata| metadata.ino() != id) {
            self.has_gone(id);
        }
    }

    /// Somebody saw that nothing is at a path (any more).
    pub(super) fn nothing_is_at(&self, path: &str) {
        let ids: Vec<u64> = self.remembered(|memory| {
            let here = memory.known.iter().filter(|(_, known)| known.is_there && &*known.cgroup.path == path);
            here.map(|(id, _)| *id).collect()
        });
        for id in ids {
            // It may be another one of the same path by now.
            let _is_marked = self.is_gone(id);
        }
    }

    /// Somebody saw that it is gone. What it was is remembered.
    pub(super) fn has_gone(&self, id: u64) {
        let was_there = self.remembered(|memory| {
            memory.known.peek_mut(&id).is_some_and(|known| std::mem::replace(&mut known.is_there, false))
        });
        if was_there {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }

    /// Grows when a cgroup is learnt of, and when one is seen to be gone.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Those that are there, as far as anybody has seen, by their ids.
    pub(super) fn there(&self) -> Vec<(u64, Cgroup)> {
        let mut there: Vec<_> = self.remembered(|memory| {
            let known = memory.known.iter().filter(|(_id, known)| known.is_there);
            known.map(|(id, known)| (*id, known.cgroup.clone())).collect()
        });
        there.sort_unstable_by_key(|(id, _cgroup)| *id);
        there
    }

    /// Whether nothing can happen in it any more: its directory is not there, or another one is. Asks the file system, unless it was
    /// seen to be gone.
    pub(super) fn is_gone(&self, id: u64) -> bool {
        let known =
            self.remembered(|memory| memory.known.peek(&id).map(|known| (known.cgroup.clone(), known.is_there)));
        match (known, self.root.as_deref()) {
            (Some((_cgroup, false)), _) => true,
            (Some((cgroup, true)), Some(root)) => {
                let is_gone = fs::metadata(cgroup.directory(root)).map_or(true, |metadata| metadata.ino() != id);
                if is_gone {
                    self.has_gone(id);
                }
                is_gone
            }
            (Some(_), None) => false,
            (None, _) => self.recall(id) == Recalled::Gone,
        }
    }

    /// Nothing panics under the lock; were it so, what is known would still be true.
    fn remembered<T>(&self, ask: impl FnOnce(&mut Memory) -> T) -> T {
        ask(&mut self.memory.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What memory says about an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Recalled {
    Known(Cgroup),
    /// A walk did not find it.
    Gone,
    Unknown,
}

impl ContainerNames for Cgroups {
    fn container(&self, cgroup: u64) -> Option<Arc<str>> {
        self.get(cgroup)?.container
    }
}

/// The monotonic time so long from now.
fn after(pause: Duration) -> u64 {
    monotonic_ns().saturating_add(u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX))
}

fn walk(root: &Path) -> HashMap<u64, Cgroup> {
    let mut found = HashMap::new();
    let Ok(metadata) = fs::metadata(root) else { return found };
    let cgroup = Cgroup::root();
    descend(root, &cgroup, 0, &mut found);
    found.insert(metadata.ino(), cgroup);
    found
}

/// A directory that vanishes on the way belongs to nobody any more, so errors end a branch and nothing else.
fn descend(directory: &Path, parent: &Cgroup, depth: usize, found: &mut HashMap<u64, Cgroup>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if found.len() >= MAX_CGROUPS.get() || depth >= MAX_DEPTH {
            return;
        }
        let Ok(metadata) = entry.metadata() else { continue };
        let cgroup = parent.child(&entry.file_name().to_string_lossy());
        descend(&entry.path(), &cgroup, depth + 1, found);
        found.insert(metadata.ino(), cgroup);
    }
}

#[cfg(test)]
mod tests;
