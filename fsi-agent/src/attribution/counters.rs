//! What attribution counts: everything that a bound or an error made it not know.

use std::sync::atomic::{AtomicU64, Ordering};

/// Something that is counted. None of it is an error of an operation: that one is only told without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Counter {
    /// Times that the hierarchy of cgroups was walked because of an unknown id.
    Walks,
    /// Cgroups of which a walk found nothing any more.
    CgroupsGone,
    /// Cgroups that were forgotten for want of room.
    CgroupsForgotten,
    /// Directories of cgroups that are not watched: over the bound, or the kernel's limit of watches is reached.
    CgroupsUnwatched,
    /// Times that the kernel dropped news of cgroups, because they came faster than they were read.
    CgroupNewsLost,
    /// Unknown cgroup ids that were not looked for, as too many others were.
    CgroupsNotSought,
    /// Pods of this node that were not kept: over the bound.
    PodsOver,
    /// Pods that had ended and were forgotten for want of room.
    PodsForgotten,
    /// Namespaces whose annotations were not kept: over the bound.
    NamespacesOver,
    /// Requests and watches that the Kubernetes API refused or did not answer.
    ApiErrors,
    /// Objects of the Kubernetes API that could not be read (a pod without a uid).
    ApiMalformed,
    /// Persistent volumes that were not asked for, as too many others were.
    VolumesNotAsked,
    /// Volumes on this node that were not kept: over the bound.
    VolumesOver,
    /// Times that the table of mounts could not be read.
    MountTableErrors,
}

impl Counter {
    /// Each once.
    pub const ALL: [Self; 14] = [
        Self::Walks,
        Self::CgroupsGone,
        Self::CgroupsForgotten,
        Self::CgroupsUnwatched,
        Self::CgroupNewsLost,
        Self::CgroupsNotSought,
        Self::PodsOver,
        Self::PodsForgotten,
        Self::NamespacesOver,
        Self::ApiErrors,
        Self::ApiMalformed,
        Self::VolumesNotAsked,
        Self::VolumesOver,
        Self::MountTableErrors,
    ];

    /// As a label has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Walks => "walks",
            Self::CgroupsGone => "cgroups_gone",
            Self::CgroupsForgotten => "cgroups_forgotten",
            Self::CgroupsUnwatched => "cgroups_unwatched",
            Self::CgroupNewsLost => "cgroup_news_lost",
            Self::CgroupsNotSought => "cgroups_not_sought",
            Self::PodsOver => "pods_over",
            Self::PodsForgotten => "pods_forgotten",
            Self::NamespacesOver => "namespaces_over",
            Self::ApiErrors => "api_errors",
            Self::ApiMalformed => "api_malformed",
            Self::VolumesNotAsked => "volumes_not_asked",
            Self::VolumesOver => "volumes_over",
            Self::MountTableErrors => "mount_table_errors",
        }
    }
}

/// One number for each [`Counter`].
#[derive(Debug, Default)]
pub struct Counters([AtomicU64; Counter::ALL.len()]);

impl Counters {
    pub(super) fn add(&self, counter: Counter, count: usize) {
        self.0[counter as usize].fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Since the start.
    #[must_use]
    pub fn get(&self, counter: Counter) -> u64 {
        self.0[counter as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_number_and_name() {
        let counters = Counters::default();
        for (count, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, count);
            counters.add(counter, count);
        }
        let mut names: Vec<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        names.dedup();
        assert_eq!(names.len(), Counter::ALL.len());
        for (count, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counters.get(counter), count as u64);
        }
    }
}
