//! The parts that we read of what the Kubernetes API tells. Pure.

use std::sync::Arc;

use kube::core::{ApiResource, NotUsed, Object, ObjectMeta};
use serde::{Deserialize, Serialize};

use super::identity::{Container, Pod, PodVolume, Workload};
use super::policy::{Annotations, PREFIX, Policy};

/// The label by which a Deployment tells its ReplicaSets apart: their names are its own and this.
const TEMPLATE_HASH: &str = "pod-template-hash";
/// A pod of a CronJob's Job may be its last try, this long after the time of the schedule.
const LATE_MINUTES: i64 = 7 * 24 * 60;
/// What the kubelet calls a static pod of which the API has a mirror.
const STATIC_UID: &str = "kubernetes.io/config.mirror";

pub(super) type PodObject = Object<PodSpec, PodStatus>;
pub(super) type PersistentVolumeObject = Object<PersistentVolumeSpec, NotUsed>;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    node_name: Option<String>,
    containers: Vec<ContainerSpec>,
    init_containers: Vec<ContainerSpec>,
    ephemeral_containers: Vec<ContainerSpec>,
    volumes: Vec<VolumeSpec>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ContainerSpec {
    name: String,
    #[serde(default)]
    image: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VolumeSpec {
    name: String,
    persistent_volume_claim: Option<ClaimSource>,
    /// Makes a claim of the pod's and the volume's name; what it asks for does not matter here.
    ephemeral: Option<serde_json::Value>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClaimSource {
    claim_name: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: Option<String>,
    last_state: State,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct State {
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Terminated {
    #[serde(rename = "containerID")]
    container_id: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PersistentVolumeSpec {
    storage_class_name: Option<String>,
    claim_ref: Option<ClaimRef>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct ClaimRef {
    namespace: String,
    name: String,
}

/// What a persistent volume's object says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PersistentVolume {
    pub(super) claim: Option<super::identity::Claim>,
    pub(super) storage_class: Option<Arc<str>>,
}

/// Where the API has an object of that kind.
pub(super) fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// None if it has no uid, name or namespace, which the API never leaves out.
pub(super) fn pod(object: PodObject) -> Option<Pod> {
    let Object { types: _, metadata, spec, status } = object;
    let status = status.unwrap_or_default();
    let workload = workload(&metadata);
    let (uid, name, namespace) = (metadata.uid?, metadata.name?, metadata.namespace?);
    let annotations = metadata.annotations.unwrap_or_default();
    let static_uid = annotations.get(STATIC_UID).map(|uid| Arc::from(uid.as_str()));
    let statuses = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    let statuses: Vec<_> = statuses.into_iter().flatten().collect();
    let specs = [spec.containers, spec.init_containers, spec.ephemeral_containers].into_iter().flatten();
    let containers = specs.map(|spec| Arc::new(container(spec, &statuses))).collect();
    let volumes = spec.volumes.into_iter().map(|volume| pod_volume(volume, &name)).collect();
    Some(Pod {
        uid: uid.into(),
        name: name.into(),
        namespace: namespace.into(),
        node: spec.node_name.unwrap_or_default().into(),
        workload,
        containers,
        volumes,
        policy: Policy::default(),
        static_uid,
        annotations: ours(annotations),
    })
}

/// Those annotations that concern us.
pub(super) fn ours(annotations: Annotations) -> Annotations {
    annotations.into_iter().filter(|(key, _)| key.starts_with(PREFIX)).collect()
}

pub(super) fn persistent_volume(object: PersistentVolumeObject) -> PersistentVolume {
    let PersistentVolumeSpec { storage_class_name, claim_ref } = object.spec;
    let claim =
        |ClaimRef { namespace, name }| super::identity::Claim { namespace: namespace.into(), name: name.into() };
    let storage_class = storage_class_name.filter(|name| !name.is_empty()).map(Arc::from);
    PersistentVolume { claim: claim_ref.map(claim), storage_class }
}

fn container(spec: ContainerSpec, statuses: &[&ContainerStatus]) -> Container {
    let status = statuses.iter().find(|status| status.name == spec.name);
    let earlier = status.and_then(|status| status.last_state.terminated.as_ref()?.container_id.as_deref());
    let present = status.and_then(|status| status.container_id.as_deref());
    // `containerd://ID`
    let id = |url: &str| Arc::from(url.rsplit_once('/').map_or(url, |(_, id)| id));
    let ids = [earlier, present].into_iter().flatten().filter(|url| !url.is_empty()).map(id).collect();
    Container { name: spec.name.into(), image: spec.image.into(), ids }
}

fn pod_volume(volume: VolumeSpec, pod: &str) -> PodVolume {
    let VolumeSpec { name, persistent_volume_claim, ephemeral } = volume;
    let own = ephemeral.map(|_| format!("{pod}-{name}"));
    let claim = persistent_volume_claim.map(|source| source.claim_name).or(own);
    PodVolume { name: name.into(), claim: claim.map(Arc::from) }
}

/// By the owner that controls the pod. A mirror pod's is its node, which is no workload.
fn workload(metadata: &ObjectMeta) -> Option<Workload> {
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let owner = owners.iter().find(|owner| owner.controller == Some(true))?;
    let hash = metadata.labels.as_ref().and_then(|labels| labels.get(TEMPLATE_HASH));
    let without_hash = |hash: &String| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-');
    let made = metadata.creation_timestamp.as_ref().map(|time| time.0.as_second());
    let (kind, name) = match owner.kind.as_str() {
        "Node" => return None,
        "ReplicaSet" => {
            hash.and_then(without_hash).map_or(("ReplicaSet", owner.name.as_str()), |name| ("Deployment", name))
        }
        "Job" => cron_job(&owner.name, made).map_or(("Job", owner.name.as_str()), |name| ("CronJob", name)),
        kind => (kind, owner.name.as_str()),
    };
    Some(Workload { kind: kind.into(), name: name.into() })
}

/// A CronJob names its Jobs by itself and the minute of their schedule, counted from 1970. So a Job is a CronJob's if its name ends
/// with a minute not long before its pod was made; no other Job is named so by chance.
fn cron_job(job: &str, pod_made_seconds: Option<i64>) -> Option<&str> {
    let (name, minute) = job.rsplit_once('-')?;
    let late_minutes = pod_made_seconds? / 60 - minute.parse::<i64>().ok()?;
    // The clocks of the machines may differ a little.
    (-1..=LATE_MINUTES).contains(&late_minutes).then_some(name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(json: serde_json::Value) -> Option<Pod> {
        pod(serde_json::from_value(json).unwrap())
    }

    fn owned(kind: &str, name: &str, hash: Option<&str>) -> Option<(String, String)> {
        let labels = hash.map_or_else(|| json!({}), |hash| json!({ TEMPLATE_HASH: hash }));
        let owner = json!([
            { "apiVersion": "v1", "kind": "Other", "name": "not the controller", "uid": "o0" },
            { "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "o1", "controller": true },
        ]);
        let metadata = json!({
            "name": "p", "namespace": "n", "uid": "u", "labels": labels, "ownerReferences": owner,
            "creationTimestamp": "2026-11-26T00:00:10Z",
        });
        let pod = parsed(json!({ "metadata": metadata, "spec": { "containers": [] } })).unwrap();
        pod.workload.map(|workload| (workload.kind.to_string(), workload.name.to_string()))
    }

    #[test]
    fn the_workload_is_what_a_person_made() {
        let is = |kind: &str, name: &str| Some((kind.to_owned(), name.to_owned()));
        assert_eq!(owned("ReplicaSet", "web-7d4b9", Some("7d4b9")), is("Deployment", "web"));
        assert_eq!(owned("ReplicaSet", "web", None), is("ReplicaSet", "web"), "made by hand");
        assert_eq!(owned("ReplicaSet", "web", Some("7d4b9")), is("ReplicaSet", "web"));
        assert_eq!(owned("StatefulSet", "db", None), is("StatefulSet", "db"));
        assert_eq!(owned("DaemonSet", "agent", None), is("DaemonSet", "agent"));
        assert_eq!(owned("Job", "backup", None), is("Job", "backup"));
        // The midnight before the pod was made, an hour later, and years before.
        assert_eq!(owned("Job", "night-backup-29927520", None), is("CronJob", "night-backup"));
        assert_eq!(owned("Job", "night-backup-29927580", None), is("Job", "night-backup-29927580"));
        assert_eq!(owned("Job", "import-20261126", None), is("Job", "import-20261126"));
        assert_eq!(owned("Node", "node-1", None), None);
    }

    #[test]
    fn a_pod_with_all_that_is_read() {
        let pod = parsed(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "db-0", "namespace": "shop", "uid": "u1",
                "annotations": { "fsi.dev/observe": "spans", "other": "1", STATIC_UID: "hash" },
            },
            "spec": {
                "nodeName": "n1",
                "containers": [{ "name": "pg", "image": "postgres:16", "ports": [{ "containerPort": 5432 }] }],
                "initContainers": [{ "name": "init", "image": "busybox" }],
                "ephemeralContainers": [{ "name": "debug", "image": "busybox" }],
                "volumes": [
                    { "name": "data", "persistentVolumeClaim": { "claimName": "data-db-0" } },
                    { "name": "scratch", "ephemeral": { "volumeClaimTemplate": { "spec": {} } } },
                    { "name": "tmp", "emptyDir": {} },
                ],
            },
            "status": {
                "containerStatuses": [{
                    "name": "pg", "containerID": "containerd://c2",
                    "lastState": { "terminated": { "containerID": "containerd://c1", "exitCode": 1 } },
                }],
                "initContainerStatuses": [{ "name": "init", "containerID": "cri-o://i1", "lastState": {} }],
                "ephemeralContainerStatuses": [{ "name": "debug", "containerID": "" }],
            },
        }))
        .unwrap();
        assert_eq!((&*pod.uid, &*pod.name, &*pod.namespace, &*pod.node), ("u1", "db-0", "shop", "n1"));
        let ids = |at: usize| pod.containers[at].ids.iter().map(|id| &**id).collect::<Vec<_>>();
        assert_eq!((ids(0), ids(1), ids(2)), (vec!["c1", "c2"], vec!["i1"], vec![]));
        assert_eq!(&*pod.containers[0].image, "postgres:16");
        let claims: Vec<_> = pod.volumes.iter().map(|volume| volume.claim.as_deref()).collect();
        assert_eq!(claims, [Some("data-db-0"), Some("db-0-scratch"), None]);
        assert_eq!(pod.static_uid.as_deref(), Some("hash"));
        assert_eq!(pod.annotations.len(), 1);
    }

    #[test]
    fn a_pod_without_a_uid_is_none() {
        assert_eq!(parsed(json!({ "metadata": { "name": "p" }, "spec": {} })), None);
    }

    #[test]
    fn a_volume_says_its_claim_and_class() {
        let spec =
            json!({ "storageClassName": "fast", "claimRef": { "namespace": "shop", "name": "data", "uid": "x" } });
        let object = serde_json::from_value(json!({ "metadata": { "name": "pv" }, "spec": spec })).unwrap();
        let volume = persistent_volume(object);
        assert_eq!(volume.storage_class.as_deref(), Some("fast"));
        assert_eq!(&*volume.claim.unwrap().name, "data");
    }
}
