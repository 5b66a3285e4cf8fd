//! The chart: what it renders is what was looked at, and the API server takes every field of it.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Case, Ours, Place, Takes};

pub(super) const SNAPSHOTS: Case = Case {
    name: "chart",
    shows: "the chart is well-formed, renders what tests/cluster/snapshots say, and the API server knows every field",
    takes: Takes::OwnCluster,
    check: snapshots,
};

/// Set to have the snapshots written.
const UPDATE: &str = "FSI_UPDATE_SNAPSHOTS";

/// (name, values, whether the cluster has all kinds in it)
const RENDERED: [(&str, &[&str], bool); 3] = [
    ("observe-only", &[], true),
    (
        "interposer",
        &["interposer.enabled=true", "agent.otlp.url=grpc://collector:4317", "networkPolicy.enabled=true"],
        true,
    ),
    (
        "monitoring",
        &[
            "monitoring.podMonitor.enabled=true",
            "monitoring.rules.enabled=true",
            "agent.spool.size=1GiB",
            "agent.measureProbes=true",
        ],
        false,
    ),
];

/// What the schema of the values does not let through: what does not exist, and pools that are more than a pool.
const REFUSED: [&str; 7] = [
    "agent.metrics.prot=1",
    "interposer.poolDir=/",
    "interposer.poolDir=/var",
    "interposer.poolDir=/var/lib/fsi",
    "interposer.poolDir=/var/lib/fsi/",
    "interposer.poolDir=/var/lib/fsi/bin",
    "interposer.poolDir=/srv/../var",
];

fn snapshots(place: &Place<'_>) -> Result<()> {
    let ours = place.setting.own()?;
    let snapshots = ours.workspace.path("tests/cluster/snapshots");
    helm(ours, &["lint", "--strict", "--kube-version", "1.34.4"], &[])?;
    let mut others = Vec::new();
    for (name, values, is_complete) in RENDERED {
        let mut text = helm(ours, &["template", "fsi", "--namespace", "fsi", "--kube-version", "1.34.4"], values)?;
        // Helm leaves spaces at the ends of lines, which no editor keeps.
        text = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        if is_complete {
            place.kubectl().validate(&text).with_context(|| format!("the API server on {name}"))?;
        }
        let path = snapshots.join(format!("{name}.yaml"));
        if std::env::var_os(UPDATE).is_some() {
            fs::create_dir_all(&snapshots).and_then(|()| fs::write(&path, &text)).context("write a snapshot")?;
        } else if fs::read_to_string(&path).unwrap_or_default() != text {
            others.push(path.display().to_string());
        }
    }
    ensure!(
        others.is_empty(),
        "not as rendered: {}; look at the difference with {UPDATE}=1 and git",
        others.join(", ")
    );
    for value in REFUSED {
        let refused = helm(ours, &["template", "fsi", "--kube-version", "1.34.4"], &[value]);
        ensure!(refused.is_err(), "{value} was taken");
    }
    Ok(())
}

fn helm(ours: &Ours, arguments: &[&str], values: &[&str]) -> Result<String> {
    let mut command = Command::new(ours.helm());
    command.args(arguments).arg(ours.chart());
    for value in values {
        command.args(["--set", value]);
    }
    let output = command.output().context("start helm")?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => bail!(
            "helm {}: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    }
}
