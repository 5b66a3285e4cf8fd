//! The mounts of the node as the agent knows them: what they are called, and what they did so far.

use std::collections::BTreeMap;

use prometheus::proto::MetricFamily;

use crate::fuse::report::OpReport;
use crate::reports::MountInfo;
use crate::telemetry::metrics::OTHER;
use crate::telemetry::metrics::mount::{self, MountCounts, VolumeName};

/// Volumes that are told apart; what is over goes to `other`.
const MAX_VOLUMES: usize = 1024;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// By their devices, with what they are called.
    known: BTreeMap<u32, (MountInfo, VolumeName)>,
    /// Those of mounts that ended stay: a counter never goes down.
    counts: BTreeMap<VolumeName, MountCounts>,
}

impl Mounts {
    /// A mount's server talks; what the mount is called.
    pub(super) fn hello(&mut self, info: &MountInfo) -> VolumeName {
        let called = info.volume.clone().unwrap_or_else(|| info.target.to_string_lossy().into_owned());
        let namespace = info.namespace.as_deref().unwrap_or_default();
        let mut name = VolumeName { namespace: namespace.into(), name: called.into() };
        if self.counts.len() >= MAX_VOLUMES && !self.counts.contains_key(&name) {
            name = VolumeName { namespace: OTHER.into(), name: OTHER.into() };
        }
        self.known.insert(info.dev, (info.clone(), name.clone()));
        self.counts.entry(name.clone()).or_default();
        name
    }

    pub(super) fn gone(&mut self, dev: u32) {
        self.known.remove(&dev);
    }

    /// Those that have not ended, with what they are called.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&MountInfo, &str)> {
        self.known.values().map(|(info, name)| (info, &*name.name))
    }

    pub(super) fn count(&mut self, report: &OpReport) {
        if let Some((_info, name)) = self.known.get(&report.dev)
            && let Some(counts) = self.counts.get_mut(name)
        {
            counts.add_injected(report);
        }
    }

    /// Faults that are not shown apart.
    pub(super) fn to_other(&self) -> u64 {
        self.counts.values().map(MountCounts::to_other).sum()
    }

    pub(super) fn families(&self) -> Vec<MetricFamily> {
        mount::families(&self.counts)
    }
}
