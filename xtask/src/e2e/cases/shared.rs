//! One workload on several nodes with one claim: each node interposes its own mount, and what they tell belongs together.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::super::cluster::work;
use super::super::images::BUSYBOX;
use super::super::kubectl::eventually;
use super::backends::{agent_metrics, jaeger, sum, tag};
use super::{Case, Place, Takes};

pub(super) const ONE_TRACE: Case = Case {
    name: "shared-one-trace",
    shows: "a StatefulSet on both nodes with one ReadWriteMany claim: one volume name on either side, and one trace for both pods",
    takes: Takes::OwnInterposer,
    check: one_trace,
};

const PODS: [&str; 2] = ["app-0", "app-1"];
/// What the pods call their volume.
const VOLUME: &str = "ledger";

fn one_trace(place: &Place<'_>) -> Result<()> {
    let namespace = place.namespace.as_str();
    // Both nodes have this folder of the machine, as they would have a network file system.
    let folder = work().join("shared");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    place.kubectl().apply(&format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{ name: {namespace} }}
spec:
  capacity: {{ storage: 100Mi }}
  accessModes: [ReadWriteMany]
  storageClassName: {namespace}
  hostPath: {{ path: {folder}, type: Directory }}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{ name: shared, namespace: {namespace} }}
spec: {{ storageClassName: {namespace}, accessModes: [ReadWriteMany], resources: {{ requests: {{ storage: 50Mi }} }} }}
",
        folder = folder.display(),
    ))?;
    let held = seen_as_one(place);
    place.kubectl().run(&["delete", "persistentvolume", namespace, "--wait=false"])?;
    held
}

fn seen_as_one(place: &Place<'_>) -> Result<()> {
    place.kubectl().apply(&format!(
        "
apiVersion: apps/v1
kind: StatefulSet
metadata: {{ name: app, namespace: {namespace} }}
spec:
  replicas: 2
  podManagementPolicy: Parallel
  selector: {{ matchLabels: {{ app: app }} }}
  template:
    metadata: {{ labels: {{ app: app }} }}
    spec:
      terminationGracePeriodSeconds: 0
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            - {{ topologyKey: kubernetes.io/hostname, labelSelector: {{ matchLabels: {{ app: app }} }} }}
      containers:
        - name: main
          image: {image}
          imagePullPolicy: IfNotPresent
          command: [sh, -c, \"while :; do echo here > /data/$HOSTNAME || exit 1; sleep 0.5; done\"]
          volumeMounts: [{{ name: {VOLUME}, mountPath: /data }}]
      volumes:
        - name: {VOLUME}
          csi: {{ driver: interposer.fsi.dev, volumeAttributes: {{ persistentVolumeClaimName: shared, faults: \"write=2ms\" }} }}
",
        namespace = place.namespace,
        image = BUSYBOX,
    ))?;
    for (pod, other) in [("app-0", "app-1"), ("app-1", "app-0")] {
        eventually(20, "the pod is made", || place.run(&["get", "pod", pod]))?;
        place.ready(pod)?;
        eventually(20, "it has the other's file", || place.said(pod, &format!("grep here /data/{other}")))?;
    }
    let nodes: BTreeSet<_> = PODS.iter().map(|pod| place.node_of(pod)).collect::<Result<_>>()?;
    ensure!(nodes.len() == 2, "both run on {nodes:?}");
    for pod in PODS {
        same_name(place, pod)?;
    }
    let tags = [
        ("k8s.statefulset.name", "app"),
        ("k8s.namespace.name", place.namespace.as_str()),
        ("k8s.volume.name", VOLUME),
        ("fsi.volume", VOLUME),
    ];
    // A window may end meanwhile, and the next one is another trace: then it is the next one that has both.
    eventually(60, "both pods are in one trace", || {
        let traces = jaeger(place.kubectl(), "write", &tags)?;
        let pods: Vec<_> = traces.iter().map(pods_of).collect();
        match pods.iter().any(|pods| PODS.iter().all(|pod| pods.contains(*pod))) {
            true => Ok(()),
            false => bail!("the traces have these pods: {pods:?}"),
        }
    })
}

/// What the kernel saw and what the server did have the same name for the volume.
fn same_name(place: &Place<'_>, pod: &str) -> Result<()> {
    let node = place.node_of(pod)?;
    eventually(20, "the agent tells of both sides", || {
        let metrics = agent_metrics(place.kubectl(), &node)?;
        let seen = [("namespace", place.namespace.as_str()), ("pod", pod), ("volume", VOLUME), ("op", "write")];
        let seen = sum(&metrics, "fsi_operations_total", &seen);
        let done = sum(&metrics, "fsi_faults_injected_total", &[("volume", VOLUME), ("kind", "delay")]);
        ensure!(seen > 0.0 && done > 0.0, "{seen} writes seen and {done} delayed on {node}");
        Ok(())
    })
}

/// Whose writes a trace has.
fn pods_of(trace: &Value) -> BTreeSet<String> {
    let spans = trace["spans"].as_array().into_iter().flatten();
    let writes = spans.filter(|span| span["operationName"] == "write" && tag(span, "fsi.volume").is_some());
    writes.filter_map(|span| tag(span, "k8s.pod.name")).collect()
}
