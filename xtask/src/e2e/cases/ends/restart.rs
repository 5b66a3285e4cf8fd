//! The end of a node: it loses its power while pods have interposed volumes, and comes back.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::super::super::cluster::work;
use super::super::super::images;
use super::super::super::kubectl::eventually;
use super::super::{Case, Place, Takes};
use super::{CLAIM, restarts_in};

pub(in super::super) const NODE_RESTARTED: Case = Case {
    name: "ends-node-restarted",
    shows: "a node loses all processes, mounts and its /run, and starts again: its pod runs again with its data and its faults",
    takes: Takes::OwnInterposer,
    check: node_restarted,
};

/// Counts its starts in its volume: one that did not see its data would begin anew.
const COUNTS_STARTS: &str =
    "n=$(cat /data/starts || echo 0); echo $((n + 1)) > /data/starts; sync /data/starts; sleep infinity";

fn node_restarted(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ faults: \"fsync=EIO\" }")?;
    place.claim("data", &class, "16Mi")?;
    place.pod("counter", COUNTS_STARTS, CLAIM, "")?;
    place.ready("counter")?;
    is_interposed(place, 1)?;
    let node = place.node_of("counter")?;
    restart(place, &node)?;
    eventually(120, "the pod runs again", || {
        let starts = restarts_in(place, &place.namespace, "counter")?;
        ensure!(starts > 0, "it was not started anew");
        place.run(&["wait", "--for=condition=Ready", "pod/counter", "--timeout=5s"])
    })?;
    eventually(30, "the pod answers", || is_interposed(place, 2))?;
    for component in ["agent", "csi-node", "keeper"] {
        let of = ["-l", &format!("app.kubernetes.io/component={component}"), "--timeout=60s"];
        place.kubectl().run(&[["-n", "fsi", "wait", "--for=condition=Ready", "pod"].as_slice(), &of].concat())?;
    }
    place.claim("next", &class, "16Mi")?;
    let on_node = format!("nodeSelector: {{ kubernetes.io/hostname: {node} }}");
    place.pod("next", COUNTS_STARTS, "persistentVolumeClaim: { claimName: next }", &on_node)?;
    place.ready("next")
}

/// It has what it wrote at all of its starts, and the fault that its class says.
fn is_interposed(place: &Place<'_>, starts: u32) -> Result<()> {
    let counted = place.said("counter", "cat /data/starts")?;
    ensure!(counted.trim() == starts.to_string(), "it counts {} starts, not {starts}", counted.trim());
    let (code, said) = place.shell("counter", "echo x | dd of=/data/x conv=fsync")?;
    ensure!(code != 0 && said.contains("Input/output error"), "fsync ends with {code}: {said}");
    Ok(())
}

fn restart(place: &Place<'_>, node: &str) -> Result<()> {
    let ours = place.setting.own()?;
    let pid = fs::read_to_string(work().join("pid")).context("read the cluster's pid")?;
    let number = node.strip_prefix("node-").context("a node of ours")?;
    let mut command = Command::new("nsenter");
    command
        .args(["--net", "--mount", "--target", pid.trim(), "--"])
        .arg(ours.workspace.path("tests/cluster/restart.sh"));
    command
        .env("WORK", work())
        .env("BIN", work().join("bin"))
        .env("IMAGES", images::folder(&ours.workspace))
        .env("N", number);
    // Of the nodes, of which each has routes to the others.
    command.env("NODES", super::super::super::cluster::NODES);
    let output = command.output().context("start nsenter")?;
    ensure!(output.status.success(), "restart of {node}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}
