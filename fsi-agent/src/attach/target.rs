//! Whom and what a watcher wants, ready to be compared with what the agent sees.

use std::path::Path;

use fsi_common::glob::Automaton;
use fsi_common::op::OpKind;
use fsi_common::probe_config::Policy;

use super::Whom;
use crate::attribution::identity::Identity;
use crate::probe::options::GlobList;
use crate::selection::container;
use crate::selection::glob::{self, GlobError, GlobStyle};
use crate::span::{OpSpan, Span};

/// Whose operations.
#[derive(Debug)]
pub(crate) enum Target {
    /// All that the configuration has looked at.
    All,
    Cgroups {
        /// Below the root of the hierarchy: `/system.slice`.
        paths: Vec<String>,
        containers: Vec<String>,
    },
    Pods {
        pod: Option<Box<Automaton>>,
        namespace: Option<Box<Automaton>>,
    },
}

/// Why it cannot be watched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{0}")]
    Glob(#[from] GlobError),
    #[error("{0}: the agent tells cgroups apart by another hierarchy, which is at {1}")]
    Elsewhere(String, String),
    #[error("this machine has no hierarchy of cgroups that the agent could tell apart")]
    NoHierarchy,
}

impl Target {
    /// `hierarchy` is where the cgroups that the agent knows are mounted.
    pub(crate) fn of(whom: &Whom, hierarchy: Option<&Path>) -> Result<Self, TargetError> {
        match whom {
            Whom::All => Ok(Self::All),
            Whom::Cgroups { directories, containers } => {
                let root = hierarchy.ok_or(TargetError::NoHierarchy)?;
                let below = |directory: &std::path::PathBuf| {
                    let below = directory.strip_prefix(root).map_err(|_elsewhere| {
                        TargetError::Elsewhere(directory.display().to_string(), root.display().to_string())
                    });
                    below.map(|path| format!("/{}", path.display()))
                };
                let paths = directories.iter().map(below).collect::<Result<_, _>>()?;
                Ok(Self::Cgroups { paths, containers: containers.clone() })
            }
            Whom::Pods { pod, namespace } => {
                let compiled = |glob: &Option<String>| {
                    let list = |glob: &String| GlobList { include: vec![glob.clone()], exclude: Vec::new() };
                    // A name has no `/`: as a path it is one component.
                    glob.as_ref().map(|glob| glob::compile(&list(glob), GlobStyle::Path)).transpose()
                };
                Ok(Self::Pods { pod: compiled(pod)?, namespace: compiled(namespace)? })
            }
        }
    }

    /// Whether it is about what is in this cgroup.
    pub(crate) fn takes(&self, identity: &Identity) -> bool {
        match self {
            Self::All => true,
            Self::Cgroups { paths, containers } => {
                let cgroup = &*identity.cgroup;
                let mut ids = cgroup.split('/').filter_map(container::id_in);
                paths.iter().any(|path| is_in(cgroup, path))
                    || ids.any(|id| containers.iter().any(|prefix| id.starts_with(prefix.as_str())))
            }
            Self::Pods { pod: wanted, namespace } => {
                let Some(pod) = &identity.pod else { return false };
                let fits = |glob: &Option<Box<Automaton>>, name: &str| {
                    glob.as_ref().is_none_or(|glob| glob::matches(glob, name.as_bytes()))
                };
                fits(wanted, &pod.name) && fits(namespace, &pod.namespace)
            }
        }
    }

    /// Whether what the configuration leaves alone is looked at for this.
    pub(crate) const fn is_chosen(&self) -> bool {
        !matches!(self, Self::All)
    }
}

fn is_in(cgroup: &str, above: &str) -> bool {
    above == "/" || cgroup.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a watcher asks for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) whom: String,
    pub(crate) target: Target,
    /// Which operations are told one by one.
    pub(crate) policy: Policy,
    pub(crate) paths: Option<Box<Automaton>>,
    pub(crate) processes: Option<Box<Automaton>>,
    /// Empty: all.
    pub(crate) operations: Vec<OpKind>,
}

impl Wish {
    /// Whether an operation of somebody it is about fits.
    pub(crate) fn selects(&self, span: &Span, op: &OpSpan) -> bool {
        let comm = &span.actor.comm;
        let name = &comm[..comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len())];
        let is_on = |globs: &Automaton| {
            let mut paths = [&op.path, &op.target].into_iter().flatten();
            paths.any(|path| glob::matches(globs, &path.bytes))
        };
        (self.operations.is_empty() || self.operations.contains(&op.op))
            && self.processes.as_ref().is_none_or(|globs| glob::matches(globs, name))
            && self.paths.as_ref().is_none_or(|globs| is_on(globs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(path: &str) -> Identity {
        Identity { cgroup: path.into(), container_id: None, pod_uid: None, pod: None, container: None }
    }

    #[test]
    fn a_cgroup_is_itself_and_all_below_and_no_neighbour() {
        let whom =
            Whom::Cgroups { directories: vec!["/sys/fs/cgroup/a/b".into()], containers: vec!["abcd".to_owned()] };
        let target = Target::of(&whom, Some(Path::new("/sys/fs/cgroup"))).unwrap();
        let id = "abcd111122223333444455556666777788889999aaaabbbbccccddddeeeeffff";
        for (path, expected) in [
            ("/a/b", true),
            ("/a/b/c", true),
            ("/a/bc", false),
            ("/a", false),
            (&format!("/system.slice/docker-{id}.scope"), true),
            (&format!("/docker/{id}/inner"), true),
            ("/docker/abcd", false),
        ] {
            assert_eq!(target.takes(&identity(path)), expected, "{path}");
        }
        let elsewhere = Target::of(&whom, Some(Path::new("/sys/fs/cgroup/memory"))).unwrap_err().to_string();
        assert!(elsewhere.contains("another hierarchy, which is at /sys/fs/cgroup/memory"), "{elsewhere}");
    }
}
