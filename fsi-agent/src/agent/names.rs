//! What operations are labelled with: whose they are, and on which volume.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::{Arc, PoisonError, RwLock};

use fsi_common::record::CgroupRecord;

use crate::attribution::Attribution;
use crate::attribution::identity::Identity;
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::defs::attribute;
use crate::telemetry::grouping;
use crate::telemetry::metrics::node::{Names, Who};

/// Mounts that have a name of their own in labels; what is over has none.
const MAX_MOUNTS: usize = 4096;

/// Asked by exporters' threads too.
#[derive(Debug)]
pub(super) struct Whose {
    attribution: Arc<Attribution>,
    node: Arc<str>,
    cluster: String,
    /// What mounts are called, by their device.
    mounts: RwLock<HashMap<u32, Arc<str>>>,
}

impl Whose {
    pub(super) fn new(attribution: Arc<Attribution>, node: &str, cluster: String) -> Self {
        Self { attribution, node: node.into(), cluster, mounts: RwLock::default() }
    }

    pub(super) fn set_mount(&self, dev: u32, name: Arc<str>) {
        let mut mounts = self.mounts.write().unwrap_or_else(PoisonError::into_inner);
        if mounts.len() < MAX_MOUNTS || mounts.contains_key(&dev) {
            mounts.insert(dev, name);
        }
    }

    pub(super) fn forget_mount(&self, dev: u32) {
        self.mounts.write().unwrap_or_else(PoisonError::into_inner).remove(&dev);
    }

    /// A cgroup was made.
    pub(super) fn made(&self, cgroup: &CgroupRecord) {
        let name = CStr::from_bytes_until_nul(&cgroup.name).unwrap_or_default();
        self.attribution.made(cgroup.id, cgroup.parent, &name.to_string_lossy());
    }

    pub(super) fn identity(&self, cgroup: u64) -> Option<Arc<Identity>> {
        self.attribution.of_cgroup(cgroup)
    }

    /// For the grouping of traces.
    pub(super) fn group<'a>(&'a self, identity: Option<&'a Identity>) -> grouping::Identity<'a> {
        let pod = identity.and_then(|identity| identity.pod.as_deref());
        let uid = identity.and_then(|identity| identity.pod_uid.as_deref()).unwrap_or_default();
        let workload = pod.and_then(|pod| pod.workload.as_ref());
        grouping::Identity {
            cluster: &self.cluster,
            namespace: pod.map_or("", |pod| &pod.namespace),
            pod_uid: uid,
            workload_kind: workload.map_or("", |workload| &workload.kind),
            workload: workload.map_or("", |workload| &workload.name),
        }
    }

    fn mount(&self, dev: u32) -> Option<Arc<str>> {
        self.mounts.read().unwrap_or_else(PoisonError::into_inner).get(&dev).cloned()
    }
}

impl Names for Whose {
    fn who(&self, cgroup: u64) -> Who {
        let empty = || Arc::from("");
        let Some(identity) = self.identity(cgroup) else {
            return Who { namespace: empty(), pod: empty(), container: empty() };
        };
        let Identity { container_id, pod_uid, pod, container, cgroup: _ } = &*identity;
        // A pod that the API has not told of yet goes by its uid.
        let pod_name = pod.as_ref().map(|pod| Arc::clone(&pod.name)).or_else(|| pod_uid.clone());
        let container = container.as_ref().map(|container| Arc::clone(&container.name));
        Who {
            namespace: pod.as_ref().map_or_else(empty, |pod| Arc::clone(&pod.namespace)),
            pod: pod_name.unwrap_or_else(empty),
            container: container.or_else(|| container_id.clone()).unwrap_or_else(empty),
        }
    }

    fn volume(&self, dev: u32, cgroup: u64) -> Option<Arc<str>> {
        let pod = self.identity(cgroup).and_then(|identity| identity.pod_uid.clone());
        let volume = self.attribution.volume_of(dev, pod.as_ref());
        let name = volume.map(|volume| {
            volume.claim.as_ref().map_or_else(|| Arc::clone(&volume.name), |claim| Arc::clone(&claim.name))
        });
        name.or_else(|| self.mount(dev))
    }
}

impl ContainerNames for Whose {
    fn container(&self, cgroup: u64) -> Option<Arc<str>> {
        self.identity(cgroup)?.container_id.clone()
    }

    fn place(&self, add: &mut dyn FnMut(&'static str, Arc<str>)) {
        add(attribute::K8S_NODE_NAME, Arc::clone(&self.node));
        if !self.cluster.is_empty() {
            add(attribute::K8S_CLUSTER_NAME, self.cluster.as_str().into());
        }
    }

    fn describe(&self, cgroup: u64, dev: u32, add: &mut dyn FnMut(&'static str, Arc<str>)) {
        let identity = self.identity(cgroup);
        let pod_uid = identity.as_ref().and_then(|identity| identity.pod_uid.clone());
        if let Some(uid) = &pod_uid {
            add(attribute::K8S_POD_UID, Arc::clone(uid));
        }
        if let Some(container) = identity.as_ref().and_then(|identity| identity.container.as_ref()) {
            add(attribute::K8S_CONTAINER_NAME, Arc::clone(&container.name));
            add(attribute::CONTAINER_IMAGE_NAME, Arc::clone(&container.image));
        }
        if let Some(pod) = identity.as_ref().and_then(|identity| identity.pod.as_ref()) {
            add(attribute::K8S_NAMESPACE_NAME, Arc::clone(&pod.namespace));
            add(attribute::K8S_POD_NAME, Arc::clone(&pod.name));
            if let Some(workload) = &pod.workload
                && let Some(key) = workload_key(&workload.kind)
            {
                add(key, Arc::clone(&workload.name));
            }
        }
        if dev == 0 {
            return;
        }
        let Some(volume) = self.attribution.volume_of(dev, pod_uid.as_ref()) else { return };
        add(attribute::K8S_VOLUME_NAME, Arc::clone(&volume.name));
        if let Some(claim) = &volume.claim {
            add(attribute::K8S_PVC_NAME, Arc::clone(&claim.name));
        }
        if let Some(class) = &volume.storage_class {
            add(attribute::K8S_STORAGECLASS_NAME, Arc::clone(class));
        }
    }
}

/// Semantic conventions have a key for each kind that Kubernetes brings along.
fn workload_key(kind: &str) -> Option<&'static str> {
    match kind {
        "Deployment" => Some(attribute::K8S_DEPLOYMENT_NAME),
        "StatefulSet" => Some(attribute::K8S_STATEFULSET_NAME),
        "DaemonSet" => Some(attribute::K8S_DAEMONSET_NAME),
        "Job" => Some(attribute::K8S_JOB_NAME),
        _ => None,
    }
}
