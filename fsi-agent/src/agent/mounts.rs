//! The mounts of the node as the agent knows them: what they are called, and what they did so far.

use std::collections::BTreeMap;
use std::sync::Arc;

use prometheus::proto::MetricFamily;

use crate::fuse::report::OpReport;
use crate::reports::MountInfo;
use crate::telemetry::metrics::OTHER;
use crate::telemetry::metrics::mount::{self, MountCounts};

/// Volumes that are told apart; what is over goes to `other`.
const MAX_VOLUMES: usize = 1024;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    /// By their devices, with what they are called.
    known: BTreeMap<u32, (MountInfo, Arc<str>)>,
    /// Those of mounts that ended stay: a counter never goes down.
    counts: BTreeMap<Arc<str>, MountCounts>,
}

impl Mounts {
    /// A mount's server talks; what the mount is called.
    pub(super) fn hello(&mut self, info: &MountInfo) -> Arc<str> {
        let called = info.volume.clone().unwrap_or_else(|| info.target.to_string_lossy().into_owned());
        let mut name: Arc<str> = called.into();
        if self.counts.len() >= MAX_VOLUMES && !self.counts.contains_key(&name) {
            name = OTHER.into();
        }
        self.known.insert(info.dev, (info.clone(), Arc::clone(&name)));
        self.counts.entry(Arc::clone(&name)).or_default();
        name
    }

    pub(super) fn gone(&mut self, dev: u32) {
        self.known.remove(&dev);
    }

    /// Those that have not ended, with what they are called.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&MountInfo, &str)> {
        self.known.values().map(|(info, name)| (info, &**name))
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
        mount::families(self.counts.iter().map(|(name, counts)| (&**name, counts)))
    }
}
