//! The ways in which a pod may ask for volumes of the driver, and what Kubernetes promises for each.

use anyhow::{Result, ensure};

use super::super::images::BUSYBOX;
use super::super::kubectl::eventually;
use super::{Case, Place, Takes};

pub(super) const WAYS: Case = Case {
    name: "volume-ways",
    shows: "one pod with a claim for it alone, a part of that claim, a generic ephemeral, an inline and a read-only volume, as another user with a group; and a clone",
    takes: Takes::Interposer,
    check: ways,
};

const GROUP: u32 = 2000;

fn ways(place: &Place<'_>) -> Result<()> {
    let class = class(place)?;
    for (claim, access) in [("own", "ReadWriteOncePod"), ("read", "ReadWriteOnce")] {
        place.kubectl().apply(&claim_of(place, claim, &class, access, ""))?;
    }
    place.pod(
        "first",
        "echo from-before > /data/file",
        "persistentVolumeClaim: { claimName: read }",
        "restartPolicy: Never",
    )?;
    place.run(&["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/first", "--timeout=180s"])?;
    let node = place.node_of("first")?;
    place.kubectl().apply(&pod(place, &class, &node))?;
    place.ready("all")?;
    own(place)?;
    ephemeral(place)?;
    place.said("all", "grep from-before /read/file && touch /read/new 2>&1 | grep 'Read-only'")?;
    alone(place, &node)?;
    cloned(place, &class, &node)
}

/// With a mount option: what the pod sees of it is its runtime's own mount.
fn class(place: &Place<'_>) -> Result<String> {
    let name = place.namespace.clone();
    place.kubectl().apply(&format!(
        "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{ name: {name} }}
provisioner: interposer.fsi.dev
parameters: {{ faults: \"fsync=EIO\" }}
mountOptions: [noatime]
volumeBindingMode: WaitForFirstConsumer
"
    ))?;
    Ok(name)
}

fn claim_of(place: &Place<'_>, name: &str, class: &str, access: &str, more: &str) -> String {
    format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{ name: {name}, namespace: {namespace} }}
spec: {{ storageClassName: {class}, accessModes: [{access}], resources: {{ requests: {{ storage: 16Mi }} }} {more} }}
",
        namespace = place.namespace,
    )
}

fn pod(place: &Place<'_>, class: &str, node: &str) -> String {
    format!(
        "
apiVersion: v1
kind: Pod
metadata: {{ name: all, namespace: {namespace} }}
spec:
  nodeSelector: {{ kubernetes.io/hostname: {node} }}
  securityContext: {{ runAsUser: 1000, runAsGroup: 1000, fsGroup: {GROUP} }}
  terminationGracePeriodSeconds: 0
  containers:
    - name: main
      image: {BUSYBOX}
      imagePullPolicy: IfNotPresent
      command: [sleep, infinity]
      volumeMounts:
        - {{ name: own, mountPath: /own }}
        - {{ name: own, mountPath: /part, subPath: deep/part }}
        - {{ name: generic, mountPath: /generic }}
        - {{ name: inline, mountPath: /inline }}
        - {{ name: read, mountPath: /read }}
  volumes:
    - {{ name: own, persistentVolumeClaim: {{ claimName: own }} }}
    - {{ name: read, persistentVolumeClaim: {{ claimName: read, readOnly: true }} }}
    - {{ name: inline, csi: {{ driver: interposer.fsi.dev, volumeAttributes: {{ faults: \"fsync=EIO\", capacity: 1MiB }} }} }}
    - name: generic
      ephemeral:
        volumeClaimTemplate:
          spec: {{ storageClassName: {class}, accessModes: [ReadWriteOnce], resources: {{ requests: {{ storage: 16Mi }} }} }}
",
        namespace = place.namespace,
    )
}

/// A script that succeeds when an fsync in that folder fails as the class says.
fn fsync_fails(folder: &str) -> String {
    format!("dd if=/dev/zero of={folder}/synced bs=1k count=1 conv=fsync 2>&1 | grep 'Input/output error'")
}

fn own(place: &Place<'_>) -> Result<()> {
    place.said("all", "echo whole > /own/file && echo part > /part/file && grep part /own/deep/part/file")?;
    for folder in ["/own", "/part"] {
        place.said("all", &fsync_fails(folder))?;
        let mount = place.said("all", &format!("grep ' {folder} ' /proc/mounts"))?;
        ensure!(mount.contains("fuse.fsi"), "{mount}");
    }
    let group = place.said("all", "stat -c %g /own /own/file")?;
    ensure!(group.split_whitespace().all(|group| group == GROUP.to_string()), "the groups are {group}");
    Ok(())
}

fn ephemeral(place: &Place<'_>) -> Result<()> {
    for folder in ["/generic", "/inline"] {
        place.said("all", &format!("echo x > {folder}/file"))?;
        place.said("all", &fsync_fails(folder))?;
    }
    Ok(())
}

/// Nobody else gets a claim that is for one pod alone.
fn alone(place: &Place<'_>, node: &str) -> Result<()> {
    let there = format!("nodeSelector: {{ kubernetes.io/hostname: {node} }}");
    place.pod("other", "sleep infinity", "persistentVolumeClaim: { claimName: own }", &there)?;
    eventually(60, "the scheduler says why the other waits", || {
        let events = place.events("Pod", "other")?;
        ensure!(events.iter().any(|event| event.contains("ReadWriteOncePod")), "its events: {events:?}");
        Ok(())
    })?;
    place.run(&["delete", "pod", "other", "--timeout=60s"]).map(drop)
}

fn cloned(place: &Place<'_>, class: &str, node: &str) -> Result<()> {
    let source = ", dataSource: { kind: PersistentVolumeClaim, name: own }";
    place.kubectl().apply(&claim_of(place, "copy", class, "ReadWriteOnce", source))?;
    let there = format!("nodeSelector: {{ kubernetes.io/hostname: {node} }}");
    place.pod("copied", "sleep infinity", "persistentVolumeClaim: { claimName: copy }", &there)?;
    place.ready("copied")?;
    place.said("copied", "grep whole /data/file && grep part /data/deep/part/file && echo changed > /data/file")?;
    place.said("all", "grep whole /own/file")?;
    place.run(&["delete", "pod", "all", "--timeout=180s"])?;
    eventually(60, "the claim of the generic ephemeral volume goes with its pod", || {
        let claims = place.run(&["get", "pvc", "-o", "name"])?;
        ensure!(!claims.contains("all-generic"), "{}", claims.replace('\n', " "));
        Ok(())
    })
}
