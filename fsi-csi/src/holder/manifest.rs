//! A holder as an object of Kubernetes: what it is to be, and how it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod as PodObject;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

use super::Owner;
use crate::volume_id::{self, VolumeId};

/// The one container of a holder.
pub(super) const CONTAINER: &str = "hold";
const PREFIX: &str = "fsi-holder-";
/// Nobody.
const USER: i64 = 65534;

/// The time that a holder has to end. A kubelet that waits for longer does not hear that it need not any more.
const GRACE: Duration = Duration::from_secs(1);

/// How a holder is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Runs {
        uid: String,
    },
    Waits(String),
    /// It is deleted, and ends after that time at the latest.
    Leaves(Duration),
    Ended,
}

/// The name of a volume's first holder on a node.
#[must_use]
pub fn name(node: &str, id: &VolumeId) -> String {
    format!("{PREFIX}{}", digits(&format!("{node}/{id}"), 24))
}

/// The name of the holder that takes over from another one while that one is still there.
pub(super) fn next_name(name: &str) -> String {
    let first = name.get(..PREFIX.len() + 24).unwrap_or(name);
    format!("{first}-{}", digits(name, 6))
}

fn digits(text: &str, count: usize) -> String {
    volume_id::hex(text.as_bytes()).chars().take(count).collect()
}

/// Where the kubelet binds the `subPath` of the holder's only mount.
pub(super) fn directory(kubelet: &Path, uid: &str, volume: &str) -> PathBuf {
    kubelet.join("pods").join(uid).join("volume-subpaths").join(volume).join(CONTAINER).join("0")
}

/// What a holder is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish<'a> {
    pub(super) name: &'a str,
    pub(super) node: &'a str,
    pub(super) volume: &'a VolumeId,
    pub(super) owner: &'a Owner,
    pub(super) claim: &'a str,
    pub(super) image: &'a str,
    pub(super) priority_class: Option<&'a str>,
}

/// The holder of a claim, on that node, as unprivileged as the strictest namespace asks for. The scheduler places it, so that a claim that
/// waits for its first consumer is bound. It has a controller, without which `kubectl drain` refuses to evict it.
pub(super) fn pod(wish: &Wish<'_>) -> Result<PodObject, serde_json::Error> {
    let Wish { name, node, volume, owner, claim, image, priority_class } = *wish;
    let on_node = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] });
    let container = json!({
        "name": CONTAINER,
        "image": image,
        // It is on the node, as the driver runs it; what a registry asks for is not in this namespace.
        "imagePullPolicy": "IfNotPresent",
        "command": ["/usr/bin/fsi-csi", "hold"],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "resources": { "requests": { "cpu": "1m", "memory": "8Mi" }, "limits": { "memory": "32Mi" } },
        "volumeMounts": [{ "name": "claim", "mountPath": "/claim", "subPath": "." }],
    });
    serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": owner.namespace,
            "labels": { "app.kubernetes.io/name": "fsi", "app.kubernetes.io/component": "holder" },
            "annotations": {
                "fsi.dev/observe": "off",
                "fsi.dev/volume": volume.as_str(),
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": owner.kind, "name": owner.name, "uid": owner.uid, "controller": true,
            }],
        },
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [on_node] },
                },
            },
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "priorityClassName": priority_class,
            "terminationGracePeriodSeconds": GRACE.as_secs(),
            "tolerations": [{ "operator": "Exists" }],
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "seccompProfile": { "type": "RuntimeDefault" },
            },
            "containers": [container],
            "volumes": [{ "name": "claim", "persistentVolumeClaim": { "claimName": claim } }],
        },
    }))
}

/// How a holder is, from what the API tells.
pub(super) fn state(pod: &PodObject, now: Timestamp) -> State {
    let status = pod.status.clone().unwrap_or_default();
    if let Some(ends) = &pod.metadata.deletion_timestamp {
        return State::Leaves(ends.0.duration_since(now).try_into().unwrap_or_default());
    }
    match status.phase.as_deref() {
        Some("Running") => State::Runs { uid: pod.metadata.uid.clone().unwrap_or_default() },
        Some("Succeeded" | "Failed") => State::Ended,
        phase => {
            let unscheduled = status.conditions.iter().flatten().find(|condition| condition.status == "False");
            let waiting = status.container_statuses.iter().flatten().find_map(|container| {
                let waiting = container.state.clone()?.waiting?;
                Some(format!("{}: {}", waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default()))
            });
            let condition = unscheduled.and_then(|condition| condition.message.clone());
            let why = condition.or(waiting).unwrap_or_else(|| format!("is {}", phase.unwrap_or("not looked at yet")));
            State::Waits(format!("waits: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: serde_json::Value) -> State {
        let metadata = json!({ "name": "h", "uid": "1-2" });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "status": status });
        state(&serde_json::from_value(pod).unwrap(), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_holder_is_unprivileged_and_belongs_to_its_pod() {
        let owner = Owner { kind: "Pod", namespace: "team".to_owned(), name: "app".to_owned(), uid: "u".to_owned() };
        let volume = VolumeId::parse("csi-1").unwrap();
        let wish = Wish {
            name: &name("node-1", &volume),
            node: "node-1",
            volume: &volume,
            owner: &owner,
            claim: "data",
            image: "fsi:1",
            priority_class: None,
        };
        let pod = pod(&wish).unwrap();
        let spec = pod.spec.unwrap();
        let security = spec.containers[0].security_context.clone().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.privileged, None);
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert_eq!(spec.containers[0].volume_mounts.as_ref().unwrap()[0].sub_path.as_deref(), Some("."));
        let owners = pod.metadata.owner_references.unwrap();
        assert_eq!((owners[0].uid.as_str(), owners[0].controller), ("u", Some(true)));
    }

    #[test]
    fn every_holder_has_a_name_of_its_own() {
        let volume = VolumeId::parse("pvc-1").unwrap();
        let mut names = vec![name("node-1", &volume), name("node-2", &volume)];
        for _ in 0..3 {
            names.push(next_name(&names[names.len() - 1]));
        }
        // As a version gave it that knew one node alone.
        names.push(next_name("fsi-holder-0123456789abcdef01234567"));
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= 63 && name.starts_with(PREFIX), "{name}");
            assert!(!names[..at].contains(name), "{name}");
        }
    }

    #[test]
    fn what_a_holder_waits_for_is_told() {
        assert_eq!(told(json!({ "phase": "Running" })), State::Runs { uid: "1-2".to_owned() });
        assert_eq!(told(json!({ "phase": "Failed" })), State::Ended);
        let leaves = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "h", "deletionTimestamp": "1970-01-01T00:10:00Z" },
            "status": { "phase": "Running" },
        });
        let at = |seconds| state(&serde_json::from_value(leaves.clone()).unwrap(), Timestamp::new(seconds, 0).unwrap());
        assert_eq!(at(0), State::Leaves(Duration::from_secs(600)));
        assert_eq!(at(700), State::Leaves(Duration::ZERO));
        assert_eq!(told(json!({})), State::Waits("waits: is not looked at yet".to_owned()));
        let scheduled = json!({ "type": "PodScheduled", "status": "False", "message": "0/2 nodes are available" });
        let waits = told(json!({ "phase": "Pending", "conditions": [scheduled] }));
        assert_eq!(waits, State::Waits("waits: 0/2 nodes are available".to_owned()));
        let container = json!({
            "name": "hold", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": { "waiting": { "reason": "ErrImageNeverPull", "message": "no such image" } },
        });
        let waits = told(json!({ "phase": "Pending", "containerStatuses": [container] }));
        assert_eq!(waits, State::Waits("waits: ErrImageNeverPull: no such image".to_owned()));
    }

    #[test]
    fn files_are_where_the_kubelet_binds_the_sub_path() {
        let directory = directory(Path::new("/var/lib/kubelet"), "uid", "pvc-1");
        assert_eq!(directory, Path::new("/var/lib/kubelet/pods/uid/volume-subpaths/pvc-1/hold/0"));
    }
}
