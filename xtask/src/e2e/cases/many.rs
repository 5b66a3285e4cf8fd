//! Many volumes at once.

use anyhow::{Result, ensure};

use super::super::images::BUSYBOX;
use super::super::kubectl::eventually;
use super::nodes::Traces;
use super::{Case, Place, Takes};

pub(super) const AT_ONCE: Case = Case {
    name: "many-at-once",
    shows: "50 pods at once, each with an interposed volume of its own; deleted at once, they leave neither mount nor server",
    takes: Takes::OwnInterposer,
    check: at_once,
};

const PODS: usize = 50;

fn at_once(place: &Place<'_>) -> Result<()> {
    let before = Traces::of_nodes()?;
    let class = place.class("{ faults: \"fsync=EIO\" }")?;
    let manifests: Vec<_> = (0..PODS).map(|number| manifest(place, &class, number)).collect();
    place.kubectl().apply(&manifests.join("---"))?;
    // A pod is ready when it has read back what it wrote.
    eventually(300, "all are ready", || {
        let states = place.run(&[
            "get",
            "pods",
            "-l",
            "of=many",
            "-o",
            "jsonpath={range .items[*]}{.status.containerStatuses[0].ready}:{.status.containerStatuses[0].restartCount} {end}",
        ])?;
        let ready = states.split_whitespace().filter(|state| *state == "true:0").count();
        ensure!(ready == PODS, "{ready} of {PODS}: {states}");
        Ok(())
    })?;
    let there = Traces::of_nodes()?;
    ensure!(there.servers() - before.servers() == PODS, "{} servers for {PODS} volumes", there.servers());
    ensure!(there.interposed() - before.interposed() >= PODS, "{} interposed mounts", there.interposed());
    place.run(&["delete", "pods,pvc", "-l", "of=many", "--wait=false"])?;
    eventually(180, "all pods and claims go", || {
        let left = place.run(&["get", "pods,pvc", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "{} are there", left.lines().count());
        Ok(())
    })?;
    place.volumes_are_gone()?;
    before.are_all()
}

/// Every other one has a claim, the others an inline volume.
fn manifest(place: &Place<'_>, class: &str, number: usize) -> String {
    let (namespace, image) = (place.namespace.as_str(), BUSYBOX);
    let name = format!("many-{number}");
    let (claim, volume) = if number.is_multiple_of(2) {
        let claim = format!(
            "
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{ name: {name}, namespace: {namespace}, labels: {{ of: many }} }}
spec: {{ storageClassName: {class}, accessModes: [ReadWriteOnce], resources: {{ requests: {{ storage: 1Mi }} }} }}
---"
        );
        (claim, format!("persistentVolumeClaim: {{ claimName: {name} }}"))
    } else {
        let volume = "csi: { driver: interposer.fsi.dev, volumeAttributes: { faults: \"fsync=EIO\", capacity: 1MiB } }";
        (String::new(), volume.to_owned())
    };
    format!(
        "{claim}
apiVersion: v1
kind: Pod
metadata: {{ name: {name}, namespace: {namespace}, labels: {{ of: many }} }}
spec:
  terminationGracePeriodSeconds: 0
  topologySpreadConstraints:
    - {{ maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {{ matchLabels: {{ of: many }} }} }}
  containers:
    - name: main
      image: {image}
      imagePullPolicy: IfNotPresent
      command: [sh, -c, \"echo $HOSTNAME > /data/me && grep -x $HOSTNAME /data/me && touch /tmp/ready && sleep infinity\"]
      readinessProbe: {{ exec: {{ command: [test, -e, /tmp/ready] }}, periodSeconds: 5 }}
      volumeMounts: [{{ name: data, mountPath: /data }}]
  volumes: [{{ name: data, {volume} }}]
"
    )
}
