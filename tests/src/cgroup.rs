//! A cgroup for one test, removed when it is over.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use fsi_agent::selection::container::hierarchies;

use crate::eventually::eventually;
use crate::need::skip;

/// A cgroup directory of our own.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Below a hierarchy; nothing where there is none that can be written.
    #[must_use]
    pub fn below(hierarchy: &Path) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = hierarchy.join(format!("fsi-tests-{}-{number}", std::process::id()));
        let is_one = hierarchy.join("cgroup.procs").exists();
        (is_one && fs::create_dir(&path).is_ok()).then(|| Self { path })
    }

    /// In the hierarchy whose cgroups the agent tells apart; where that cannot be written, the test that calls is skipped.
    #[must_use]
    pub fn told_apart() -> Option<Self> {
        let cgroup = hierarchies().ok()?.first().and_then(|root| Self::below(root));
        if cgroup.is_none() {
            skip("no hierarchy of cgroups that can be written");
        }
        cgroup
    }

    /// A cgroup in this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let path = self.path.join(name);
        fs::create_dir(&path).expect("a cgroup can hold others");
        Self { path }
    }

    /// Sets one of its knobs.
    pub fn set(&self, knob: &str, value: &str) {
        fs::write(self.path.join(knob), value).unwrap_or_else(|error| panic!("{knob}: {error}"));
    }

    /// As an argument.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.to_str().expect("a plain path")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that has just been waited for may still be counted in it.
        eventually("the cgroup is empty", || fs::remove_dir(&self.path).is_ok());
    }
}
