//! What to observe and what to be told: plain data, made by the command line, used by the loader.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use fsi_common::op::OpKind;

/// Whose operations are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// What [`super::Probe::spawn`] starts, and its descendants.
    Command,
    /// A running process, its threads, its descendants from now on and those it has.
    Pid(u32),
    /// Everything in these cgroup directories and below.
    Cgroups(Vec<PathBuf>),
    /// Everything but ourselves.
    All,
    /// What is in cgroups that [`super::Probe::set_cgroups`] names, or below: by the policy of the nearest.
    Policies,
}

/// Which operations become events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventPolicy {
    pub every: bool,
    pub slower: Option<Duration>,
    pub failed: bool,
    pub sample: Option<NonZeroU32>,
}

impl EventPolicy {
    /// Whether any operation can become one.
    #[must_use]
    pub fn is_off(&self) -> bool {
        let Self { every, slower, failed, sample } = *self;
        !every && slower.is_none() && !failed && sample.is_none()
    }
}

/// Globs that select and globs that refuse; refusing wins, no selecting glob selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GlobList {
    pub include: Vec<String>,
    pub exclude: Vec<String>,
}

/// Everything the kernel side is told.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    pub selection: Selection,
    pub events: EventPolicy,
    /// Open files are followed: file records, close records with totals.
    pub follow_files: bool,
    /// Process records are sent.
    pub follow_processes: bool,
    /// Requests to mounts of ours ([`super::Probe::add_mount`]) are told with the operations that sent them.
    pub interposed: bool,
    pub paths: GlobList,
    /// On command names.
    pub processes: GlobList,
    /// Empty: all.
    pub operations: Vec<OpKind>,
    /// A power of two, at least a page.
    pub ring_bytes: u32,
    /// Kernel-side debug log through aya-log.
    pub debug: bool,
}
