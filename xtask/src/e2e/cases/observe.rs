//! Observe-only: what plain pods do, told by node, pod, container and claim; the pods do not know.

use anyhow::{Result, ensure};

use super::super::kubectl::eventually;
use super::backends::{NAMESPACE, agent_metrics, jaeger, pod_on, prometheus, sum, tag};
use super::{Case, Place, Takes};

pub(super) const POD: Case = Case {
    name: "observe-pod",
    shows: "a plain pod's operations, exactly, with its claim, in the agent's metrics and in Prometheus",
    takes: Takes::OwnCluster,
    check: pod,
};

pub(super) const SPANS: Case = Case {
    name: "observe-spans",
    shows: "what a namespace asked for by annotation as spans in Jaeger, with the names of Kubernetes",
    takes: Takes::Agent,
    check: spans,
};

pub(super) const EACH_NODE: Case = Case {
    name: "observe-each-node",
    shows: "each node's agent tells of the pods of its node, and of no others",
    takes: Takes::OwnCluster,
    check: each_node,
};

pub(super) const DRIVER: Case = Case {
    name: "observe-driver",
    shows: "every pod of the chart is ready, and what the driver of each node counts is in Prometheus",
    takes: Takes::OwnInterposer,
    check: driver,
};

/// Twenty writes and five fsyncs.
const WRITES: &str = "for i in 1 2 3 4 5; do dd if=/dev/zero of=/data/file-$i bs=4k count=4 conv=fsync; done; touch /tmp/done; sleep infinity";

fn pod(place: &Place<'_>) -> Result<()> {
    let namespace = place.namespace.as_str();
    // A disk that is one volume: only then is a device a claim's.
    place.kubectl().apply(&format!(
        "
apiVersion: v1
kind: PersistentVolume
metadata: {{ name: {namespace} }}
spec:
  capacity: {{ storage: 100Mi }}
  accessModes: [ReadWriteOnce]
  storageClassName: {namespace}
  local: {{ path: /run/disk }}
  nodeAffinity: {{ required: {{ nodeSelectorTerms: [{{ matchExpressions: [{{ key: kubernetes.io/hostname, operator: In, values: [node-1] }}] }}] }} }}
"
    ))?;
    let held = told_of(place);
    place.kubectl().run(&["delete", "persistentvolume", namespace, "--wait=false"])?;
    held
}

fn told_of(place: &Place<'_>) -> Result<()> {
    place.claim("orders", &place.namespace, "50Mi")?;
    place.pod("writer", WRITES, "persistentVolumeClaim: { claimName: orders }", "")?;
    place.ready("writer")?;
    eventually(20, "the pod has written", || place.said("writer", "test -e /tmp/done"))?;
    let labels =
        [("namespace", place.namespace.as_str()), ("pod", "writer"), ("container", "main"), ("volume", "orders")];
    let of = |op: &'static str| [&labels[..], &[("op", op)]].concat();
    eventually(20, "the agent tells of the writes", || {
        let metrics = agent_metrics(place.kubectl(), "node-1")?;
        let (writes, fsyncs) =
            (sum(&metrics, "fsi_operations_total", &of("write")), sum(&metrics, "fsi_operations_total", &of("fsync")));
        ensure!((writes, fsyncs) == (20.0, 5.0), "{writes} writes and {fsyncs} fsyncs instead of 20 and 5");
        let bytes = sum(&metrics, "fsi_bytes_total", &of("write"));
        ensure!(bytes == 81920.0, "{bytes} bytes instead of 81920");
        Ok(())
    })?;
    eventually(30, "Prometheus has it", || {
        let query = format!(
            "sum(fsi_operations_total{{namespace=\"{}\",pod=\"writer\",volume=\"orders\",op=\"write\"}})",
            place.namespace
        );
        let writes = prometheus(place.kubectl(), &query)?;
        ensure!(writes == 20.0, "{writes} writes instead of 20");
        Ok(())
    })?;
    // Nothing stands in the path of its files, and nothing was put into it.
    let mounts = place.said("writer", "cat /proc/mounts")?;
    ensure!(!mounts.contains("fuse"), "a FUSE mount in a pod that is only observed: {mounts}");
    let containers = place.run(&[
        "get",
        "pod",
        "writer",
        "-o",
        "jsonpath={.spec.containers[*].name}{.spec.initContainers[*].name}",
    ])?;
    ensure!(containers == "main", "containers {containers} instead of its own alone");
    let restarts =
        place.run(&["get", "pod", "writer", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"])?;
    ensure!(restarts == "0", "it was started again");
    Ok(())
}

fn spans(place: &Place<'_>) -> Result<()> {
    place.run(&["annotate", "namespace", &place.namespace, "fsi.dev/sample=1/1", "fsi.dev/paths=/data/**"])?;
    // What the pod did before the agent knew of the annotation is not asked for again.
    let script = "sleep 2; while :; do echo hello > /data/greeting; sleep 1; done";
    place.pod("greeter", script, "emptyDir: { medium: Memory }", "")?;
    place.ready("greeter")?;
    let tags = [("k8s.pod.name", "greeter"), ("k8s.namespace.name", place.namespace.as_str())];
    let traces = eventually(60, "Jaeger has the writes", || jaeger(place.kubectl(), "write", &tags))?;
    let all: Vec<_> = traces.iter().flat_map(|trace| trace["spans"].as_array().into_iter().flatten()).collect();
    let writes: Vec<_> = all
        .iter()
        .filter(|span| span["operationName"] == "write" && tag(span, "k8s.pod.name").as_deref() == Some("greeter"))
        .collect();
    ensure!(!writes.is_empty(), "no span is a write of the pod");
    for write in &writes {
        ensure!(tag(write, "fsi.bytes").as_deref() == Some("6"), "a write of other than 6 bytes: {write}");
        ensure!(tag(write, "k8s.container.name").as_deref() == Some("main"), "of another container: {write}");
        ensure!(tag(write, "k8s.volume.name").as_deref() == Some("data"), "on another volume: {write}");
        // Its parent is the open file, which has the path.
        let parent = &write["references"][0]["spanID"];
        let file = all.iter().find(|span| span["spanID"] == *parent);
        let path = file.and_then(|file| tag(file, "file.path"));
        ensure!(path.as_deref().is_some_and(|path| path.ends_with("/data/greeting")), "its file is {path:?}");
    }
    Ok(())
}

fn driver(place: &Place<'_>) -> Result<()> {
    let kubectl = place.kubectl();
    kubectl.run(&["-n", NAMESPACE, "wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s"])?;
    let page =
        |pod: &str, page: &str| kubectl.raw(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9809/proxy/{page}"));
    for node in ["node-1", "node-2"] {
        let driver = pod_on(kubectl, "csi-node", node)?;
        let (ready, healthy) = (page(&driver, "readyz")?, page(&driver, "healthz")?);
        ensure!((ready.trim(), healthy.trim()) == ("ok", "ok"), "{node}: {ready}, {healthy}");
    }
    let label = "app.kubernetes.io/component=csi-controller";
    let controller =
        kubectl.run(&["-n", NAMESPACE, "get", "pods", "-l", label, "-o", "jsonpath={.items[0].metadata.name}"])?;
    let told = page(&controller, "metrics")?;
    ensure!(told.contains("fsi_csi_server_deaths_total"), "the controller tells {told}");
    eventually(30, "Prometheus has both drivers", || {
        let drivers = prometheus(kubectl, "count(fsi_csi_interposers and on (job, instance) up == 1)")?;
        ensure!(drivers == 2.0, "{drivers} drivers instead of 2");
        Ok(())
    })
}

fn each_node(place: &Place<'_>) -> Result<()> {
    for node in ["node-1", "node-2"] {
        place.pod(&format!("on-{node}"), WRITES, "emptyDir: { medium: Memory }", &format!("nodeName: {node}"))?;
    }
    for (node, other) in [("node-1", "on-node-2"), ("node-2", "on-node-1")] {
        let own = format!("on-{node}");
        place.ready(&own)?;
        eventually(30, "the agent tells of its pod", || {
            let metrics = agent_metrics(place.kubectl(), node)?;
            let labels = [("namespace", place.namespace.as_str()), ("pod", &own), ("volume", "data"), ("op", "write")];
            let writes = sum(&metrics, "fsi_operations_total", &labels);
            ensure!(writes == 20.0, "{writes} writes on {node} instead of 20");
            ensure!(!metrics.contains(&format!("pod=\"{other}\"")), "the agent of {node} tells of {other}");
            Ok(())
        })?;
    }
    Ok(())
}
