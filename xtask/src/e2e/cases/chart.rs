//! The chart: what it renders is what was looked at, and Kubernetes knows every field of it.

mod schemas;

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use self::schemas::Schemas;
use super::super::kubectl::eventually;
use super::{Case, Ours, Place, Takes};
use crate::setup::HELMFILE;
use crate::setup::schemas::operator;

pub(super) const SNAPSHOTS: Case = Case {
    name: "chart",
    shows: "the chart is well-formed, renders what tests/cluster/snapshots say, alone and by helmfile, and schemas know every field",
    takes: Takes::Tools,
    check: snapshots,
};

pub(super) const SERVER: Case = Case {
    name: "manifests-taken",
    shows: "an API server takes every field of what the chart renders, with the kinds of the Prometheus Operator",
    takes: Takes::OwnCluster,
    check: server,
};

/// Set to have the snapshots written.
const UPDATE: &str = "FSI_UPDATE_SNAPSHOTS";
const KUBERNETES: [&str; 2] = ["--kube-version", "1.34.4"];

/// (name, arguments)
const RENDERED: [(&str, &[&str]); 4] = [
    ("observe-only", &[]),
    (
        "interposer",
        &["--set", "interposer.enabled=true,agent.otlp.url=grpc://collector:4317,networkPolicy.enabled=true"],
    ),
    (
        "monitoring",
        &[
            "--set",
            "monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true,agent.spool.size=1GiB,agent.measureProbes=true",
        ],
    ),
    ("everything", &["--values", "tests/cluster/values/everything.yaml"]),
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
    helm(ours, &["lint", "--strict"], &[])?;
    let schemas = Schemas::read(&ours.workspace)?;
    let mut others = Vec::new();
    for (name, arguments) in RENDERED {
        let text = template(ours, arguments)?;
        schemas.check(&text).with_context(|| format!("the schemas on {name}"))?;
        let text = without_dashboards(&text);
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
    let all = helmfile(ours)?;
    schemas.check(&all).context("the schemas on what helmfile installs")?;
    for part in
        ["image: registry.example:5000/fsi:7", "pod-security.kubernetes.io/enforce: privileged", "kind: PodMonitor"]
    {
        ensure!(all.contains(part), "helmfile installs no `{part}`");
    }
    let wrong = template(ours, &[])?.replace("readinessProbe:", "readynessProbe:");
    ensure!(schemas.check(&wrong).is_err(), "the schemas take a field that does not exist");
    for value in REFUSED {
        ensure!(template(ours, &["--set", value]).is_err(), "{value} was taken");
    }
    Ok(())
}

fn server(place: &Place<'_>) -> Result<()> {
    let ours = place.setting.own()?;
    let kubectl = place.kubectl();
    for file in operator() {
        kubectl.apply(&fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?)?;
    }
    let held = RENDERED.into_iter().try_for_each(|(name, arguments)| {
        let text = template(ours, arguments)?;
        // New kinds are known a moment later.
        eventually(20, "the API server takes it", || kubectl.validate(&text)).with_context(|| name.to_owned())
    });
    for file in operator() {
        kubectl.run(&["delete", "-f", &file.display().to_string()])?;
    }
    held
}

/// The manifests; Helm leaves spaces at the ends of lines, which no editor keeps.
fn template(ours: &Ours, arguments: &[&str]) -> Result<String> {
    let text = helm(ours, &["template", "fsi", "--namespace", "fsi"], arguments)?;
    Ok(text.lines().map(|line| format!("{}\n", line.trim_end())).collect())
}

/// The dashboards are files of their own, which have their own tests.
fn without_dashboards(text: &str) -> String {
    let mut is_dashboard = false;
    let mut kept = String::new();
    for line in text.lines() {
        if is_dashboard && line.starts_with("    ") {
            continue;
        }
        is_dashboard = line.starts_with("  ") && line.ends_with(".json: |");
        kept.extend([line, "\n"]);
    }
    kept
}

/// What users get of this repository; charts of others are not at hand, only what is said of them is read.
fn helmfile(ours: &Ours) -> Result<String> {
    let run = |arguments: &[&str]| {
        let mut helmfile = Command::new(HELMFILE.program(&ours.workspace));
        helmfile
            .arg("--helm-binary")
            .arg(ours.helm())
            .arg("--file")
            .arg(ours.workspace.path("helm/helmfile.yaml.gotmpl"));
        helmfile.args(["--state-values-set", "interposer=true,image=registry.example:5000/fsi:7"]).args(arguments);
        said(helmfile)
    };
    run(&["build"])?;
    let ours = ["--selector", "name=fsi", "--selector", "name=fsi-namespace"];
    run(&[&ours[..], &["template", "--skip-deps", "--skip-needs"], &KUBERNETES].concat())
}

fn helm(ours: &Ours, command: &[&str], arguments: &[&str]) -> Result<String> {
    let mut helm = Command::new(ours.helm());
    helm.args(command).arg(ours.chart()).args(KUBERNETES).args(arguments).current_dir(ours.workspace.root());
    said(helm)
}

fn said(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => bail!("{command:?}: {}{}", text(&output.stdout), text(&output.stderr)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_dashboard_its_name_is_kept() {
        let text = "data:\n  fsi.json: |\n    {\n      \"a\": 1\n    }\n---\nkind: B\n";
        assert_eq!(without_dashboards(text), "data:\n  fsi.json: |\n---\nkind: B\n");
    }
}
