//! A holder as an object of Kubernetes: what it is to be, and how it is.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod as PodObject};
use serde_json::json;

use crate::records::Pod;
use crate::volume_id::{self, VolumeId};

/// The one container of a holder.
pub(super) const CONTAINER: &str = "hold";
/// Nobody.
const USER: i64 = 65534;

/// How a holder is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum State {
    Runs { uid: String },
    Waits(String),
    Ended,
}

/// The name of a volume's holder.
#[must_use]
pub fn name(id: &VolumeId) -> String {
    format!("fsi-holder-{}", &volume_id::hex(id.as_str().as_bytes())[..24])
}

/// Where the kubelet binds the `subPath` of the holder's only mount.
pub(super) fn directory(kubelet: &Path, uid: &str, volume: &str) -> PathBuf {
    kubelet.join("pods").join(uid).join("volume-subpaths").join(volume).join(CONTAINER).join("0")
}

/// The holder of a claim, on that node, as unprivileged as the strictest namespace asks for. The scheduler places it, so that a claim that
/// waits for its first consumer is bound.
pub(super) fn pod(
    node: &str,
    id: &VolumeId,
    owner: &Pod,
    claim: &str,
    like: &Container,
) -> Result<PodObject, serde_json::Error> {
    let on_node = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [node] }] });
    let container = json!({
        "name": CONTAINER,
        "image": like.image,
        "imagePullPolicy": like.image_pull_policy,
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
            "name": name(id),
            "namespace": owner.namespace,
            "labels": { "app.kubernetes.io/name": "fsi", "app.kubernetes.io/component": "holder" },
            "annotations": {
                "fsi.dev/observe": "off",
                "fsi.dev/volume": id.as_str(),
                "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
            },
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": owner.name, "uid": owner.uid }],
        },
        "spec": {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": [on_node] },
                },
            },
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 1,
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
pub(super) fn state(pod: &PodObject) -> State {
    if pod.metadata.deletion_timestamp.is_some() {
        return State::Waits("is on its way out".to_owned());
    }
    let status = pod.status.clone().unwrap_or_default();
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
        state(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_holder_is_unprivileged_and_belongs_to_its_pod() {
        let owner = Pod { namespace: "team".to_owned(), name: "app".to_owned(), uid: "u".to_owned() };
        let like = Container { image: Some("fsi:1".to_owned()), ..Container::default() };
        let pod = pod("node-1", &VolumeId::parse("csi-1").unwrap(), &owner, "data", &like).unwrap();
        let spec = pod.spec.unwrap();
        let security = spec.containers[0].security_context.clone().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.privileged, None);
        assert_eq!(spec.automount_service_account_token, Some(false));
        assert_eq!(spec.containers[0].volume_mounts.as_ref().unwrap()[0].sub_path.as_deref(), Some("."));
        assert_eq!(pod.metadata.owner_references.unwrap()[0].uid, "u");
        assert!(pod.metadata.name.unwrap().len() <= 63);
    }

    #[test]
    fn what_a_holder_waits_for_is_told() {
        assert_eq!(told(json!({ "phase": "Running" })), State::Runs { uid: "1-2".to_owned() });
        assert_eq!(told(json!({ "phase": "Failed" })), State::Ended);
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
