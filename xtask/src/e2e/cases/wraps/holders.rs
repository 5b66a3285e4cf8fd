//! What holds wrapped claims, and how long: it goes while its volume is in use, or the claim goes before the volume.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::super::images::BUSYBOX;
use super::super::super::kubectl::eventually;
use super::super::nodes::Traces;
use super::super::{Case, Place, Takes};
use super::{claims_behind, labelled, no_holder, nothing_left, others_folders};

pub(in super::super) const RETAINED: Case = Case {
    name: "wraps-retained",
    shows: "a class with reclaimPolicy Retain over one with Delete: the files outlive the claim, and another claim has them again; with Delete they go",
    takes: Takes::OwnInterposer,
    check: retained,
};

pub(in super::super) const HOLDER_GONE: Case = Case {
    name: "wraps-holder-gone",
    shows: "the holder of a claim is deleted while a pod writes: the pod sees no error, is told, and leaves nothing; a drain of its node needs no force",
    takes: Takes::OwnInterposer,
    check: holder_gone,
};

pub(in super::super) const RIGHTS: Case = Case {
    name: "wraps-rights",
    shows: "the account of the driver on the nodes, which makes holders, may neither make nor delete any other pod or claim",
    takes: Takes::OwnInterposer,
    check: rights,
};

fn retained(place: &Place<'_>) -> Result<()> {
    let before = Traces::of_nodes()?;
    let class = place.class("{ source: \"storageClass:local-path\", faults: \"fsync=EIO\" }")?;
    let volume = "persistentVolumeClaim: { claimName: data }";
    let kept =
        || -> Result<usize> { Ok(others_folders(place)?.iter().filter(|folder| folder.join("file").exists()).count()) };
    place.claim("data", &class, "64Mi")?;
    place.pod("first", "echo kept > /data/file; sleep infinity", volume, "")?;
    place.ready("first")?;
    let name = place.run(&["get", "pvc", "data", "-o", "jsonpath={.spec.volumeName}"])?;
    let policy = |policy: &str| {
        let wish = format!("{{\"spec\":{{\"persistentVolumeReclaimPolicy\":\"{policy}\"}}}}");
        place.kubectl().run(&["patch", "pv", &name, "-p", &wish])
    };
    policy("Retain")?;
    place.run(&["delete", "pod/first", "pvc/data", "--timeout=60s"])?;
    eventually(60, "the holder goes", || no_holder(place))?;
    // Longer than the garbage collector takes.
    std::thread::sleep(Duration::from_secs(10));
    let (behind, files) = (claims_behind(place)?.len(), kept()?);
    ensure!((behind, files) == (1, 1), "{behind} claims behind and {files} files are kept");
    // As an administrator gives it to another claim.
    place.kubectl().run(&["patch", "pv", &name, "-p", "{\"spec\":{\"claimRef\":null}}"])?;
    place.kubectl().apply(&format!(
        "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{ name: again, namespace: {namespace} }}
spec: {{ storageClassName: {class}, volumeName: {name}, accessModes: [ReadWriteOnce], resources: {{ requests: {{ storage: 64Mi }} }} }}
",
        namespace = place.namespace,
    ))?;
    place.pod("second", "sleep infinity", "persistentVolumeClaim: { claimName: again }", "")?;
    place.ready("second")?;
    place.said("second", "grep kept /data/file")?;
    policy("Delete")?;
    place.run(&["delete", "pod/second", "pvc/again", "--timeout=60s"])?;
    nothing_left(place, &before)
}

fn holder_gone(place: &Place<'_>) -> Result<()> {
    let before = Traces::of_nodes()?;
    place.claim("data", "local-path", "64Mi")?;
    // Ends at the first write that fails; one with an interposer, one without.
    let writes = "n=0; while :; do n=$((n + 1)); echo $n > /data/$HOSTNAME || exit 1; sleep 0.02; done";
    let over = |attributes: &str| {
        format!(
            "csi: {{ driver: interposer.fsi.dev, volumeAttributes: {{ persistentVolumeClaimName: data, {attributes} }} }}"
        )
    };
    place.pod("faulty", writes, &over("faults: \"fsync=EIO\""), "")?;
    place.ready("faulty")?;
    let node = place.node_of("faulty")?;
    place.pod("plain", writes, &over("source: pvc"), &format!("nodeSelector: {{ kubernetes.io/hostname: {node} }}"))?;
    place.ready("plain")?;
    let holders = || -> Result<Vec<String>> {
        let names = labelled(place, "pods", "holder")?.into_iter().map(|pod| pod["metadata"]["name"].clone());
        Ok(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
    };
    for name in holders()? {
        place.run(&["delete", "pod", &name, "--grace-period=2", "--wait=false"])?;
    }
    let beats = |pod: &str| place.said(pod, "cat /data/$HOSTNAME");
    for pod in ["faulty", "plain"] {
        eventually(60, "it is told of the next holder", || {
            let events = place.events("Pod", pod)?;
            ensure!(events.iter().any(|event| event.starts_with("HolderReplaced: ")), "it has {events:?}");
            Ok(())
        })?;
    }
    // The kubelet takes away what it can of those that went.
    std::thread::sleep(Duration::from_secs(10));
    for pod in ["faulty", "plain"] {
        let earlier = beats(pod)?;
        eventually(10, "it writes on", || {
            ensure!(beats(pod)? != earlier, "{pod} still says {earlier}");
            Ok(())
        })?;
        let restarts = place.run(&["get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])?;
        ensure!(restarts == "0", "{pod} saw an error: {restarts} restarts");
    }
    place.run(&["delete", "pod", "faulty", "plain", "--timeout=60s"])?;
    eventually(60, "the holders go", || no_holder(place))?;
    drained(place, &over("faults: \"fsync=EIO\""), &node)?;
    place.run(&["delete", "pvc", "data", "--timeout=60s"])?;
    nothing_left(place, &before)
}

fn rights(place: &Place<'_>) -> Result<()> {
    place.claim("data", "local-path", "64Mi")?;
    place.pod("user", "sleep infinity", "persistentVolumeClaim: { claimName: data }", "")?;
    place.ready("user")?;
    let account = "--as=system:serviceaccount:fsi:fsi-csi-node";
    let image = format!("--image={BUSYBOX}");
    let holder = "--labels=app.kubernetes.io/name=fsi,app.kubernetes.io/component=holder";
    for (arguments, why) in [
        (&["run", "other", image.as_str()][..], "touches only what it labels as its own: component holder"),
        (&["run", "other", image.as_str(), holder], "makes pods for its own node alone"),
        (&["delete", "pod", "user"], "touches only what it labels as its own: component holder"),
        (&["delete", "pvc", "data"], "touches only what it labels as its own: component backing"),
    ] {
        let refused = match place.run(&[&[account], arguments].concat()) {
            Ok(said) => anyhow::bail!("{arguments:?} was done: {said}"),
            Err(error) => error.to_string(),
        };
        ensure!(refused.contains(why), "{arguments:?} was refused, but so: {refused}");
    }
    Ok(())
}

/// A node is drained without force while a pod of a Deployment has a volume over a claim, of which the files are there.
fn drained(place: &Place<'_>, volume: &str, node: &str) -> Result<()> {
    place.kubectl().apply(&format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{ name: app, namespace: {namespace} }}
spec:
  selector: {{ matchLabels: {{ app: app }} }}
  template:
    metadata: {{ labels: {{ app: app, app.kubernetes.io/component: drained }} }}
    spec:
      nodeSelector: {{ kubernetes.io/hostname: {node} }}
      terminationGracePeriodSeconds: 0
      containers:
        - name: main
          image: {image}
          imagePullPolicy: IfNotPresent
          command: [sleep, infinity]
          volumeMounts: [{{ name: data, mountPath: /data }}]
      volumes: [{{ name: data, {volume} }}]
",
        namespace = place.namespace,
        image = BUSYBOX,
    ))?;
    place.run(&["rollout", "status", "deployment/app", "--timeout=180s"])?;
    // Of what is on the node only these: the collectors stay.
    let selector = "--pod-selector=app.kubernetes.io/component in (holder, drained)";
    let options = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s", selector];
    let drained = place.kubectl().run(&[&["drain", node], &options[..]].concat());
    place.kubectl().run(&["uncordon", node])?;
    drained?;
    place.run(&["delete", "deployment", "app", "--timeout=60s"])?;
    place.run(&["wait", "--for=delete", "pod", "-l", "app=app", "--timeout=60s"])?;
    eventually(60, "the holder goes", || no_holder(place))
}
