//! Which container a cgroup belongs to: the seam between telemetry and whoever knows (runtime, kubelet, /proc).

use std::fmt::Debug;
use std::sync::Arc;

/// Knows containers by the cgroup ids the kernel reports. Asked on the exporters' threads and at a scrape, often: it answers from memory
/// but for ids that are new.
pub trait ContainerNames: Debug + Send + Sync {
    /// The container's id, or nothing when the cgroup is not a container's (or not known to be).
    fn container(&self, cgroup: u64) -> Option<Arc<str>>;

    /// Gives attributes of whoever sends: the node, the cluster.
    fn place(&self, add: &mut dyn FnMut(&'static str, Arc<str>)) {
        let _nothing_more = add;
    }

    /// Gives further attributes of what a cgroup does on a device (0: on none that is known): the pod, the volume.
    fn describe(&self, cgroup: u64, dev: u32, add: &mut dyn FnMut(&'static str, Arc<str>)) {
        let _nothing_more = (cgroup, dev, add);
    }
}

/// Knows no container.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoContainers;

impl ContainerNames for NoContainers {
    fn container(&self, _cgroup: u64) -> Option<Arc<str>> {
        None
    }
}
