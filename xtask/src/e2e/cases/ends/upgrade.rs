//! The end of a version: `helm upgrade` to an image whose servers have another layout, and `helm rollback`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::super::super::cluster::{entrance, work};
use super::super::super::kubectl::eventually;
use super::super::backends::pod_on;
use super::super::{Case, Place, Takes};
use super::{CLAIM, restarts_in, still_writes};

pub(in super::super) const UPGRADED: Case = Case {
    name: "ends-upgraded",
    shows: "helm upgrade to a version with another layout while a pod writes and syncs, and helm rollback: a pause, no error, new volumes",
    takes: Takes::OwnInterposer,
    check: upgraded,
};

/// Ends at the first write or sync that fails. In /tmp/pause is the longest time between two, in hundredths of a second.
const SYNCS_ON: &str = "n=0; longest=0; last=; while :; do
  n=$((n + 1)); echo $n | dd of=/data/beat conv=fsync 2> /dev/null || exit 1
  read now rest < /proc/uptime; now=${now%.*}${now#*.}
  if [ $((now - ${last:-$now})) -gt $longest ]; then longest=$((now - last)); echo $longest > /tmp/pause; fi
  last=$now; sleep 0.02
done";

fn upgraded(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ faults: \"write=1ms, fsync=1ms\" }")?;
    place.claim("data", &class, "16Mi")?;
    place.pod("writer", SYNCS_ON, CLAIM, "")?;
    place.ready("writer")?;
    let node = place.node_of("writer")?;
    let before = layouts(place, &node, 1)?;
    let chart = place.setting.own()?.chart().display().to_string();
    helm(place, &["upgrade", "fsi", &chart, "--reset-then-reuse-values", "--set", "image.tag=other"])?;
    still_writes(place)?;
    println!("  upgraded: a pause of {} ms", pause(place)?);
    place.claim("next", &class, "16Mi")?;
    let on_node = format!("nodeSelector: {{ kubernetes.io/hostname: {node} }}");
    place.pod("next", SYNCS_ON, "persistentVolumeClaim: { claimName: next }", &on_node)?;
    place.ready("next")?;
    let both = layouts(place, &node, 2)?;
    ensure!(both.is_superset(&before), "{both:?} after {before:?}");
    helm(place, &["rollback", "fsi"])?;
    still_writes(place)?;
    println!("  rolled back: a pause of {} ms", pause(place)?);
    ensure!(layouts(place, &node, 2)? == both, "each volume goes on with its own layout");
    ensure!(restarts_in(place, &place.namespace, "next")? == 0, "the pod of the newer version saw an error");
    place.run(&["delete", "pod/next", "pvc/next", "--timeout=60s"])?;
    eventually(30, "the program that no volume needs is removed", || {
        let programs = programs(&node)?;
        ensure!(programs == 1, "{programs} programs");
        Ok(())
    })?;
    still_writes(place)
}

/// Runs Helm on the release, and waits until its pods are ready.
fn helm(place: &Place<'_>, arguments: &[&str]) -> Result<()> {
    let ours = place.setting.own()?;
    let mut command = Command::new(entrance());
    command.arg(ours.helm()).args(arguments).args(["--namespace", "fsi", "--wait", "--timeout", "120s"]);
    let output = command.output().context("start Helm")?;
    ensure!(
        output.status.success(),
        "helm {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Those of the volumes of a node, of which there must be so many, each with a server.
fn layouts(place: &Place<'_>, node: &str, volumes: usize) -> Result<BTreeSet<String>> {
    let keeper = pod_on(place.kubectl(), "keeper", node)?;
    let list = ["/usr/bin/fsi", "keeper", "--list", "--socket=/run/fsi/keeper/keeper.sock"];
    eventually(30, "every volume has a server", || {
        let kept = place.kubectl().run(&[&["-n", "fsi", "exec", &keeper, "--"], list.as_slice()].concat())?;
        let served = kept.lines().filter(|line| line.contains("\tserved\t"));
        let layouts: Vec<_> = served.filter_map(|line| Some(line.rsplit_once('\t')?.1.to_owned())).collect();
        ensure!(layouts.len() == volumes && kept.lines().count() == volumes, "{kept}");
        Ok(layouts.into_iter().collect())
    })
}

fn pause(place: &Place<'_>) -> Result<u32> {
    let hundredths: u32 = place.said("writer", "cat /tmp/pause")?.trim().parse().context("a number")?;
    Ok(hundredths * 10)
}

/// How many programs of servers a node has.
fn programs(node: &str) -> Result<usize> {
    let folder = work().join(node).join("var-lib/fsi/bin");
    Ok(fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?.count())
}
