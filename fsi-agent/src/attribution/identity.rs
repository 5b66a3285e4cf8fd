//! Who an operation belongs to, and which volume: what is told about a cgroup and a device.

use std::sync::Arc;

use super::policy::{Annotations, Policy};

/// Whose a cgroup is. Without Kubernetes, and until its API has told about the pod, `pod` is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Below the root of the hierarchy.
    pub cgroup: Arc<str>,
    /// The innermost container.
    pub container_id: Option<Arc<str>>,
    /// As the cgroup's path has it.
    pub pod_uid: Option<Arc<str>>,
    pub pod: Option<Arc<Pod>>,
    /// The pod's container; none for what belongs to the pod as a whole (its sandbox), or is not known of the API yet.
    pub container: Option<Arc<Container>>,
}

/// A pod, as far as somebody asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    pub uid: Arc<str>,
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    pub node: Arc<str>,
    /// What made the pod, if anything did.
    pub workload: Option<Workload>,
    pub containers: Vec<Arc<Container>>,
    pub volumes: Vec<PodVolume>,
    /// By the annotations of the pod and its namespace.
    pub policy: Policy,
    /// The kubelet's own name of a static pod, by which its cgroup goes.
    pub(super) static_uid: Option<Arc<str>>,
    pub(super) annotations: Annotations,
}

/// A container of a pod, by its name there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    pub name: Arc<str>,
    pub image: Arc<str>,
    /// Of its runs, the latest last.
    pub(super) ids: Vec<Arc<str>>,
}

/// What a person made: a Deployment rather than its ReplicaSet, a CronJob rather than its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// As the API has it: `Deployment`, `StatefulSet`, `DaemonSet`, `Job`, `CronJob`, or what else makes pods.
    pub kind: Arc<str>,
    pub name: Arc<str>,
}

/// A volume by its name in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodVolume {
    pub name: Arc<str>,
    /// The claim that it is, in the pod's namespace.
    pub claim: Option<Arc<str>>,
}

/// A claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// The volume behind a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Of a persistent volume its own, else that in the pod.
    pub name: Arc<str>,
    /// As the kubelet has it, without the vendor: `csi`, `nfs`, `local-volume`, `empty-dir`, `configmap`.
    pub kind: Arc<str>,
    /// The CSI driver.
    pub driver: Option<Arc<str>>,
    pub claim: Option<Claim>,
    pub storage_class: Option<Arc<str>>,
}

#[cfg(test)]
impl Pod {
    /// A pod of which only the namespace and what it asks for matter.
    pub(crate) fn sample(namespace: &str, policy: Policy) -> Self {
        let name: Arc<str> = Arc::from("pod");
        Self {
            uid: Arc::clone(&name),
            name: Arc::clone(&name),
            namespace: namespace.into(),
            node: name,
            workload: None,
            containers: Vec::new(),
            volumes: Vec::new(),
            policy,
            static_uid: None,
            annotations: Annotations::new(),
        }
    }
}
