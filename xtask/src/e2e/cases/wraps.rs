//! Claims of others that our volumes wrap: made for them by another class, or there before them.

pub(super) mod holders;

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::cluster::work;
use super::super::kubectl::eventually;
use super::backends::{agent_metrics, sum};
use super::nodes::{Traces, has_fuse};
use super::{Case, Place, Takes};

pub(super) const OTHER_CLASS: Case = Case {
    name: "wraps-class",
    shows: "a class over another provisioner's: its data, our faults; it says why it does not grow; deletion takes the claim behind and the holder away",
    takes: Takes::OwnInterposer,
    check: other_class,
};

pub(super) const OWN_CLASS: Case = Case {
    name: "wraps-own-class",
    shows: "a class over a class of our own: an interposer over a plain directory volume; the claim behind grows with the claim",
    takes: Takes::OwnInterposer,
    check: own_class,
};

pub(super) const CLAIM: Case = Case {
    name: "wraps-claim",
    shows: "an inline volume over a claim, with the attributes and the JSON of the older driver; no FUSE where nothing is asked",
    takes: Takes::OwnInterposer,
    check: claim,
};

pub(super) const REFUSED: Case = Case {
    name: "wraps-refused",
    shows: "a claim that does not exist, or is on another node: the pod has an event that says so",
    takes: Takes::OwnInterposer,
    check: refused,
};

/// Of local-path-provisioner, on each node.
const OTHERS_FOLDER: &str = "var-lib/local-path";
const NODES: [&str; 2] = ["node-1", "node-2"];
/// Twice what claims here ask for at first.
const LARGER: &str = "{\"spec\":{\"resources\":{\"requests\":{\"storage\":\"128Mi\"}}}}";

fn other_class(place: &Place<'_>) -> Result<()> {
    let before = Traces::of_nodes()?;
    let class = place.class("{ source: \"storageClass:local-path\", faults: \"fsync=EIO\" }")?;
    place.claim("orders", &class, "64Mi")?;
    let volume = "persistentVolumeClaim: { claimName: orders }";
    place.pod("first", "sleep infinity", volume, "")?;
    place.ready("first")?;
    let (code, said) = place.shell("first", "dd if=/dev/zero of=/data/log bs=4k count=1 conv=fsync")?;
    ensure!(code != 0 && said.contains("Input/output error"), "dd ends with {code}: {said}");
    place.said("first", "echo kept > /data/file")?;
    let node = place.node_of("first")?;
    let files: Vec<_> = others_folders(place)?.into_iter().map(|folder| folder.join("file")).collect();
    let kept = files.iter().find_map(|file| std::fs::read_to_string(file).ok());
    ensure!(kept.as_deref() == Some("kept\n"), "in the other provisioner's {files:?} is {kept:?}");
    // The kernel side and the server call the volume by its claim.
    eventually(20, "the agent tells of both sides", || {
        let metrics = agent_metrics(place.kubectl(), &node)?;
        let seen = [("namespace", place.namespace.as_str()), ("volume", "orders"), ("op", "fsync")];
        let done = [("namespace", place.namespace.as_str()), ("volume", "orders"), ("kind", "errno"), ("errno", "EIO")];
        let (seen, done) =
            (sum(&metrics, "fsi_operations_total", &seen), sum(&metrics, "fsi_faults_injected_total", &done));
        ensure!((seen, done) == (1.0, 1.0), "{seen} fsyncs seen and {done} failed instead of one each");
        Ok(())
    })?;
    place.run(&["delete", "pod", "first", "--timeout=60s"])?;
    eventually(30, "the holder goes", || no_holder(place))?;
    place.pod("second", "sleep infinity", volume, "")?;
    place.ready("second")?;
    place.said("second", "grep kept /data/file")?;
    place.run(&["patch", "pvc", "orders", "-p", LARGER])?;
    eventually(60, "the claim says that the other class does not allow it", || {
        let events = place.events("PersistentVolumeClaim", "orders")?;
        let why = "the storageclass that provisions the pvc must support resize";
        ensure!(events.iter().any(|event| event.contains("may not grow") && event.contains(why)), "it has {events:?}");
        Ok(())
    })?;
    place.run(&["delete", "pod/second", "pvc/orders", "--timeout=60s"])?;
    nothing_left(place, &before)
}

fn own_class(place: &Place<'_>) -> Result<()> {
    let before = Traces::of_nodes()?;
    let class = place.class("{ source: \"storageClass:fsi-observe-nothing\", faults: \"read=ENODATA\" }")?;
    place.claim("data", &class, "64Mi")?;
    place.pod("reader", "echo kept > /data/file; sleep infinity", "persistentVolumeClaim: { claimName: data }", "")?;
    place.ready("reader")?;
    let (code, said) = place.shell("reader", "cat /data/file")?;
    ensure!(code != 0 && said.contains("No data available"), "cat ends with {code}: {said}");
    let claims = claims_behind(place)?;
    let [behind] = claims.as_slice() else { anyhow::bail!("{} claims behind instead of one", claims.len()) };
    let volume = behind["spec"]["volumeName"].as_str().context("the claim behind is bound")?;
    let handle = ["get", "pv", volume, "-o", "jsonpath={.spec.csi.volumeHandle}"];
    let handle = place.kubectl().run(&handle)?;
    let file = work().join(place.node_of("reader")?).join("var-lib/fsi/pool/volumes").join(handle).join("file");
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    ensure!(kept == "kept\n", "in {} is {kept:?}", file.display());
    let size = |wanted: &str| {
        let said = place.said("reader", "df -k /data")?;
        ensure!(said.contains(wanted), "df says {said}");
        Ok(())
    };
    size("65536")?;
    place.run(&["patch", "pvc", "data", "-p", LARGER])?;
    eventually(90, "the volume is larger", || size("131072"))?;
    let claims = claims_behind(place)?;
    let has = claims.first().and_then(|behind| behind["status"]["capacity"]["storage"].as_str());
    ensure!(matches!(has, Some("128Mi" | "134217728")), "the claim behind has {has:?}");
    // The claim first: it waits for the pod, and what is behind it waits for both.
    place.run(&["delete", "pvc", "data", "--wait=false"])?;
    place.run(&["delete", "pod", "reader", "--timeout=60s"])?;
    nothing_left(place, &before)
}

fn claim(place: &Place<'_>) -> Result<()> {
    let before = Traces::of_nodes()?;
    place.claim("orders", "local-path", "64Mi")?;
    let over = |attributes: &str| {
        format!(
            "csi: {{ driver: interposer.fsi.dev, volumeAttributes: {{ persistentVolumeClaimName: orders, {attributes} }} }}"
        )
    };
    // Nobody has used the claim before: the holder is its first consumer.
    let nothing = "traces: enabled, metrics: enabled, tracesNested: disabled, faultyIO: disabled, throttleIO: disabled, fakeIO: disabled";
    place.pod("plain", "echo kept > /data/file; sleep infinity", &over(nothing), "")?;
    place.ready("plain")?;
    ensure!(!has_fuse(place, "plain")?, "a FUSE mount where nothing is asked for");
    let node = place.node_of("plain")?;
    let here = format!("nodeSelector: {{ kubernetes.io/hostname: {node} }}");
    let json = r#"rules: '{ "faultyIO": { "file_fail_rate": 10, "directory_fail_rate": 0, "use_seednum": true, "seed": 7, "delay_time": 0 } }'"#;
    for (name, attributes) in [
        ("faulty", "faultyIO: enabled, traces: enabled"),
        ("throttled", "throttleIO: enabled"),
        ("fake", "fakeIO: enabled"),
        ("json", json),
    ] {
        place.pod(name, "sleep infinity", &over(attributes), &here)?;
    }
    for name in ["faulty", "throttled", "fake", "json"] {
        place.ready(name)?;
        ensure!(has_fuse(place, name)?, "no FUSE mount for {name}");
    }
    // One in a hundred fails, of a thousand writes.
    let failures = |pod: &str| -> Result<u64> {
        let script = "n=0; i=0; while [ $i -lt 1000 ]; do i=$((i + 1)); echo $i > /data/$HOSTNAME || n=$((n + 1)); done 2> /tmp/said; echo $n";
        place.said(pod, script)?.trim().parse().context("a count")
    };
    let faulty = failures("faulty")?;
    ensure!((1..=100).contains(&faulty), "{faulty} of 1000 writes failed instead of about 10");
    // One in ten of the opens, and one in ten of the writes after them.
    let json = failures("json")?;
    ensure!((100..=300).contains(&json), "{json} of 1000 writes failed by the older rules instead of about 190");
    let now = "$(grep -o '^[0-9]*' /proc/uptime)";
    let script =
        format!("s={now}; dd if=/dev/zero of=/data/slow bs=32k count=4 2> /tmp/said; echo took $(({now} - s))");
    let took = place.said("throttled", &script)?;
    let seconds: u64 = took.trim().trim_start_matches("took ").parse().with_context(|| format!("it says {took}"))?;
    ensure!((2..=8).contains(&seconds), "128 KiB at 32 KiB/s took {seconds} s");
    place.said("fake", "echo lost > /data/lost && test -e /data/lost")?;
    place.said("plain", "grep kept /data/file && ! grep lost /data/lost")?;
    place.run(&["delete", "pod", "--all", "--timeout=60s"])?;
    eventually(30, "the holders go", || no_holder(place))?;
    place.run(&["delete", "pvc", "orders", "--timeout=60s"])?;
    nothing_left(place, &before)
}

fn refused(place: &Place<'_>) -> Result<()> {
    place.claim("elsewhere", "local-path", "64Mi")?;
    let on = |node: &str| format!("nodeSelector: {{ kubernetes.io/hostname: {node} }}");
    place.pod("user", "sleep infinity", "persistentVolumeClaim: { claimName: elsewhere }", &on("node-1"))?;
    let over = |claim: &str| {
        format!(
            "csi: {{ driver: interposer.fsi.dev, volumeAttributes: {{ source: pvc, persistentVolumeClaimName: {claim} }} }}"
        )
    };
    place.pod("missing", "sleep infinity", &over("nowhere"), "")?;
    place.ready("user")?;
    place.pod("away", "sleep infinity", &over("elsewhere"), &on("node-2"))?;
    let says = |pod: &str, parts: &[&str]| {
        eventually(60, &format!("{pod} has an event"), || {
            let events = place.events("Pod", pod)?;
            let has_all = |event: &String| parts.iter().all(|part| event.contains(part));
            ensure!(events.iter().any(has_all), "none has {parts:?}: {events:?}");
            Ok(())
        })
    };
    says("missing", &[&format!("there is no claim `{}/nowhere` to wrap", place.namespace)])?;
    says("away", &["/elsewhere` is not at hand on this node", "affinity"])?;
    // What waits is deleted as ever, and its holder with it.
    place.run(&["delete", "pod", "missing", "away", "--timeout=60s"])?;
    eventually(30, "the holders go", || no_holder(place))
}

/// The folders that the other provisioner made for claims behind ours.
fn others_folders(place: &Place<'_>) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for node in NODES {
        let entries = std::fs::read_dir(work().join(node).join(OTHERS_FOLDER)).into_iter().flatten().flatten();
        let is_of_place = |path: &PathBuf| path.display().to_string().contains(&format!("_{}_", place.namespace));
        found.extend(entries.map(|entry| entry.path()).filter(is_of_place));
    }
    Ok(found)
}

fn labelled(place: &Place<'_>, kind: &str, component: &str) -> Result<Vec<Value>> {
    let label = format!("app.kubernetes.io/component={component}");
    let mut found = place.kubectl().json(&["-n", &place.namespace, "get", kind, "-l", &label])?;
    Ok(found["items"].as_array_mut().map(std::mem::take).unwrap_or_default())
}

fn claims_behind(place: &Place<'_>) -> Result<Vec<Value>> {
    labelled(place, "pvc", "backing")
}

fn no_holder(place: &Place<'_>) -> Result<()> {
    let holders = labelled(place, "pods", "holder")?;
    ensure!(holders.is_empty(), "{} holders are there", holders.len());
    Ok(())
}

/// No claim, holder, volume or folder, and on the nodes what was there before.
fn nothing_left(place: &Place<'_>, before: &Traces) -> Result<()> {
    eventually(60, "everything goes", || {
        no_holder(place)?;
        let behind = claims_behind(place)?;
        ensure!(behind.is_empty(), "{} claims behind are there", behind.len());
        let folders = others_folders(place)?;
        ensure!(folders.is_empty(), "the other provisioner keeps {folders:?}");
        Ok(())
    })?;
    place.volumes_are_gone()?;
    before.are_all()
}
