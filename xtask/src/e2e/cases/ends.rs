//! Ends of all kinds: pods that are deleted in any order, processes of the node that are killed while pods read and write.

pub(super) mod restart;
pub(super) mod upgrade;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::super::cluster::work;
use super::super::kubectl::eventually;
use super::backends::{agent_metrics, pod_on, sum};
use super::{Case, Place, Takes};

pub(super) const ANY_ORDER: Case = Case {
    name: "ends-any-order",
    shows: "claims and pods that are deleted in any order: nothing is stuck, no mount stays on a node",
    takes: Takes::OwnInterposer,
    check: any_order,
};

pub(super) const AGENT_KILLED: Case = Case {
    name: "ends-agent-killed",
    shows: "kill -9 of an agent while a pod writes: the pod sees nothing, the next agent counts on",
    takes: Takes::OwnCluster,
    check: agent_killed,
};

pub(super) const DRIVER_KILLED: Case = Case {
    name: "ends-driver-killed",
    shows: "kill -9 of fsi-csi while a pod writes to its volume: the pod sees no error, and new volumes come",
    takes: Takes::OwnInterposer,
    check: driver_killed,
};

pub(super) const SERVER_KILLED: Case = Case {
    name: "ends-server-killed",
    shows: "kill -9 of a volume's server while a pod writes to it: another takes over, and the pod sees no error",
    takes: Takes::OwnInterposer,
    check: server_killed,
};

pub(super) const KEEPER_KILLED: Case = Case {
    name: "ends-keeper-killed",
    shows: "kill -9 of a node's keeper, and then of the driver with all servers, while a pod writes: the pod sees no error",
    takes: Takes::OwnInterposer,
    check: keeper_killed,
};

pub(super) const KUBELET_KILLED: Case = Case {
    name: "ends-kubelet-killed",
    shows: "kill -9 of a kubelet while a pod writes to its volume: the pod sees no error, and is deleted as ever",
    takes: Takes::OwnInterposer,
    check: kubelet_killed,
};

pub(super) const BOTH_KILLED: Case = Case {
    name: "ends-both-killed",
    shows: "kill -9 of keeper, driver and servers of a node at once: the pod has an event that says what to do, and comes back",
    takes: Takes::OwnInterposer,
    check: both_killed,
};

pub(super) const DRIVER_KILLED_OFTEN: Case = Case {
    name: "ends-driver-killed-often",
    shows: "kill -9 of fsi-csi again and again while pods come and go: none sees an error or is stuck, no mount stays on a node",
    takes: Takes::OwnInterposer,
    check: driver_killed_often,
};

/// Of a cluster of ours.
const NODES: [&str; 2] = ["node-1", "node-2"];
const CLAIM: &str = "persistentVolumeClaim: { claimName: data }";
/// Ends at the first write that fails.
const WRITES_ON: &str = "n=0; while :; do n=$((n + 1)); echo $n > /data/beat || exit 1; sleep 0.02; done";

fn any_order(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ faults: \"fsync=EIO\" }")?;
    let names = ["a", "b", "c", "d"];
    for name in names {
        place.claim(name, &class, "16Mi")?;
        place.pod(name, WRITES_ON, &format!("persistentVolumeClaim: {{ claimName: {name} }}"), "")?;
    }
    for name in names {
        place.ready(name)?;
    }
    // The claim first, the pod first, both at once, the pod by force.
    place.run(&["delete", "pvc", "a", "--wait=false"])?;
    place.run(&["delete", "pod", "a", "--timeout=60s"])?;
    place.run(&["delete", "pod", "b", "--timeout=60s"])?;
    place.run(&["delete", "pvc", "b", "--timeout=60s"])?;
    place.run(&["delete", "pod/c", "pvc/c", "--timeout=60s"])?;
    place.run(&["delete", "pod", "d", "--force", "--grace-period=0"])?;
    place.run(&["delete", "pvc", "--all", "--timeout=60s"])?;
    no_mounts()
}

pub(super) fn no_mounts() -> Result<()> {
    eventually(60, "mounts go from the nodes", || {
        for node in NODES {
            let mounts = mounts_of(node)?;
            // A node begins with the machine's other mounts, too; these folders are its own.
            let is_drivers = |line: &&str| {
                [" /var/lib/", " /run/"].iter().any(|own| line.contains(own))
                    && (line.contains(" - fuse ") || line.contains(" - fuse.") || line.contains("/pool/"))
            };
            let of_driver: Vec<_> = mounts.lines().filter(is_drivers).collect();
            ensure!(of_driver.is_empty(), "{node} has {of_driver:?}");
        }
        Ok(())
    })
}

fn agent_killed(place: &Place<'_>) -> Result<()> {
    place.pod("writer", WRITES_ON, "emptyDir: { medium: Memory }", "nodeName: node-1")?;
    place.ready("writer")?;
    let labels = [("namespace", place.namespace.as_str()), ("pod", "writer"), ("op", "write")];
    let counts = || {
        let writes = sum(&agent_metrics(place.kubectl(), "node-1")?, "fsi_operations_total", &labels);
        ensure!(writes > 0.0, "the agent tells no write of the pod");
        Ok(writes)
    };
    eventually(20, "the agent tells of the pod", counts)?;
    let pod = pod_on(place.kubectl(), "agent", "node-1")?;
    let before = restarts(place, &pod)?;
    kill(&pids("node-1", "fsi agent")?)?;
    eventually(60, "there is another agent", || {
        let now = restarts(place, &pod)?;
        ensure!(now > before, "{now} restarts");
        Ok(())
    })?;
    eventually(60, "the next agent tells of the pod", counts)?;
    still_writes(place)
}

fn driver_killed(place: &Place<'_>) -> Result<()> {
    let node = write_to_volume(place)?;
    let pod = pod_on(place.kubectl(), "csi-node", &node)?;
    kill(&pids(&node, "fsi-csi node")?)?;
    still_writes(place)?;
    eventually(60, "the driver is back", || {
        place.kubectl().run(&["-n", "fsi", "wait", "--for=condition=Ready", &format!("pod/{pod}"), "--timeout=5s"])
    })?;
    still_writes(place)?;
    place.claim("next", &place.namespace, "16Mi")?;
    place.pod(
        "next",
        "echo x > /data/x && sleep infinity",
        "persistentVolumeClaim: { claimName: next }",
        &format!("nodeSelector: {{ kubernetes.io/hostname: {node} }}"),
    )?;
    place.ready("next")
}

fn server_killed(place: &Place<'_>) -> Result<()> {
    let node = write_to_volume(place)?;
    for _ in 0..3 {
        kill(&pids(&node, "fsi mount")?)?;
        still_writes(place)?;
    }
    Ok(())
}

fn keeper_killed(place: &Place<'_>) -> Result<()> {
    let node = write_to_volume(place)?;
    let keeper = pod_on(place.kubectl(), "keeper", &node)?;
    let before = restarts(place, &keeper)?;
    kill(&pids(&node, "fsi keeper")?)?;
    still_writes(place)?;
    eventually(60, "there is another keeper", || {
        let now = restarts(place, &keeper)?;
        ensure!(now > before, "{now} restarts");
        place.kubectl().run(&["-n", "fsi", "wait", "--for=condition=Ready", &format!("pod/{keeper}"), "--timeout=5s"])
    })?;
    // It has everything again, or nobody could take over now.
    kill(&pids(&node, "fsi-csi node")?)?;
    still_writes(place)
}

fn kubelet_killed(place: &Place<'_>) -> Result<()> {
    let node = write_to_volume(place)?;
    kill(&pids(&node, "kubelet")?)?;
    eventually(60, "the node is ready", || {
        place.kubectl().run(&["wait", "--for=condition=Ready", &format!("node/{node}"), "--timeout=5s"])
    })?;
    still_writes(place)?;
    place.run(&["delete", "pod", "writer", "--timeout=60s"]).map(drop)
}

fn both_killed(place: &Place<'_>) -> Result<()> {
    let class = place.class("{ faults: \"fsync=EIO\" }")?;
    place.claim("data", &class, "16Mi")?;
    let pod = |script| place.pod("victim", script, CLAIM, "").and_then(|()| place.ready("victim"));
    pod("echo kept > /data/file; sleep infinity")?;
    let node = place.node_of("victim")?;
    let all = ["fsi keeper", "fsi-csi node", "fsi mount"].map(|name| pids(&node, name));
    kill(&all.into_iter().collect::<Result<Vec<_>>>()?.concat())?;
    eventually(90, "the pod is told", || {
        let events = place.events("Pod", "victim")?;
        let says = |event: &String| event.contains("InterposerGone") && event.contains("delete the pod");
        ensure!(events.iter().any(says), "its events: {events:?}");
        let driver = pod_on(place.kubectl(), "csi-node", &node)?;
        let metrics = place.kubectl().raw(&format!("/api/v1/namespaces/fsi/pods/{driver}:9809/proxy/metrics"))?;
        let aborted = sum(&metrics, "fsi_csi_server_deaths_total", &[("outcome", "aborted")]);
        ensure!(aborted > 0.0, "it is not counted");
        Ok(())
    })?;
    let (code, said) = place.shell("victim", "cat /data/file")?;
    ensure!(code != 0, "the bare folder shows: {said}");
    place.run(&["delete", "pod", "victim", "--timeout=60s"])?;
    pod("grep kept /data/file && sleep infinity")
}

fn driver_killed_often(place: &Place<'_>) -> Result<()> {
    // One pod stays, and sees no error.
    write_to_volume(place)?;
    let class = &place.namespace;
    let inline = "csi: { driver: interposer.fsi.dev, volumeAttributes: { faults: \"fsync=EIO\" } }";
    let killer = Killer::new();
    std::thread::scope(|scope| {
        let kills = scope.spawn(|| killer.kill_drivers(place));
        let mut wave = 0;
        while !killer.is_done() {
            wave += 1;
            let (claimed, inlined) = (format!("claimed-{wave}"), format!("inline-{wave}"));
            place.claim(&claimed, class, "16Mi")?;
            let claim = format!("persistentVolumeClaim: {{ claimName: {claimed} }}");
            place.pod(&claimed, "sleep infinity", &claim, "")?;
            place.pod(&inlined, "sleep infinity", inline, "")?;
            // Some of them are ready by then, some are not.
            std::thread::sleep(Duration::from_millis(1500 * (wave % 4)));
            place.run(&["delete", "pod", &claimed, &inlined, "--wait=false"])?;
            place.run(&["delete", "pvc", &claimed, "--wait=false"])?;
        }
        kills.join().map_err(|_panic| anyhow!("a thread panicked"))?
    })?;
    still_writes(place)?;
    place.run(&["delete", "pod", "writer", "--timeout=60s"])?;
    place.run(&["delete", "pvc", "data", "--wait=false"])?;
    eventually(90, "pods and claims go", || {
        let left = place.run(&["get", "pods,pvc", "-o", "name"])?;
        ensure!(left.trim().is_empty(), "{}", left.replace('\n', " "));
        Ok(())
    })?;
    no_mounts()
}

/// SIGKILL to the drivers of both nodes, some time apart, until it has been enough.
struct Killer {
    kills: AtomicUsize,
    begun: Instant,
}

impl Killer {
    const FOR_AT_LEAST: Duration = Duration::from_secs(25);
    /// A slow machine gets time for as many.
    const KILLS: usize = 6;
    const WITHIN: Duration = Duration::from_secs(180);

    fn new() -> Self {
        Self { kills: AtomicUsize::new(0), begun: Instant::now() }
    }

    fn is_done(&self) -> bool {
        let is_enough = self.kills.load(Ordering::Relaxed) >= Self::KILLS;
        self.begun.elapsed() >= if is_enough { Self::FOR_AT_LEAST } else { Self::WITHIN }
    }

    fn kill_drivers(&self, place: &Place<'_>) -> Result<()> {
        let mut round = 0_u64;
        while !self.is_done() {
            for node in NODES {
                // One that is between two lives cannot be killed.
                let Ok(drivers) = pids(node, "fsi-csi node") else { continue };
                let pod = pod_on(place.kubectl(), "csi-node", node);
                self.kills.fetch_add(usize::from(kill(&drivers).is_ok()), Ordering::Relaxed);
                if let Ok(pod) = pod {
                    // The kubelet would wait longer and longer before it starts the same one again.
                    let delete =
                        ["-n", "fsi", "delete", "pod", &pod, "--force", "--grace-period=0", "--ignore-not-found"];
                    place.kubectl().run(&delete)?;
                }
            }
            std::thread::sleep(Duration::from_millis(700 + round * 1_370 % 1_900));
            round += 1;
        }
        let kills = self.kills.load(Ordering::Relaxed);
        ensure!(kills >= Self::KILLS, "only {kills} kills");
        Ok(())
    }
}

/// A pod that writes to an interposed volume, and its node.
fn write_to_volume(place: &Place<'_>) -> Result<String> {
    let class = place.class("{ faults: \"fsync=EIO\" }")?;
    place.claim("data", &class, "16Mi")?;
    place.pod("writer", WRITES_ON, CLAIM, "")?;
    place.ready("writer")?;
    place.node_of("writer")
}

/// It goes on, and never saw an error.
fn still_writes(place: &Place<'_>) -> Result<()> {
    let beat = || -> Result<u64> { Ok(place.said("writer", "cat /data/beat")?.trim().parse().unwrap_or(0)) };
    // A kubelet that has just been killed answers again in a moment.
    let before = eventually(30, "the pod answers", beat)?;
    eventually(20, "the pod writes on", || {
        let now = beat()?;
        ensure!(now > before, "{now} after {before}");
        Ok(())
    })?;
    let restarts = restarts_in(place, &place.namespace, "writer")?;
    ensure!(restarts == 0, "the pod saw an error and was started again");
    Ok(())
}

fn restarts(place: &Place<'_>, pod: &str) -> Result<u32> {
    restarts_in(place, "fsi", pod)
}

fn restarts_in(place: &Place<'_>, namespace: &str, pod: &str) -> Result<u32> {
    let text = place.kubectl().run(&[
        "-n",
        namespace,
        "get",
        "pod",
        pod,
        "-o",
        "jsonpath={.status.containerStatuses[*].restartCount}",
    ])?;
    Ok(text.split_whitespace().filter_map(|count| count.parse::<u32>().ok()).sum())
}

/// The mounts that a node sees.
pub(super) fn mounts_of(node: &str) -> Result<String> {
    let pid = fs::read_to_string(work().join(node).join("pid")).context("read a node's pid")?;
    fs::read_to_string(format!("/proc/{}/mountinfo", pid.trim())).context("read a node's mounts")
}

/// Processes of a node by how their command lines begin.
pub(super) fn pids(node: &str, name: &str) -> Result<Vec<String>> {
    let is_of_node = |pid: &str| {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        cgroups.contains(&format!("/fsi-e2e/{node}/"))
    };
    let is_called = |pid: &str| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split_terminator('\0').collect();
        let program = words.first().and_then(|program| program.rsplit('/').next()).unwrap_or_default();
        let command = format!("{program} {}", words.get(1).unwrap_or(&""));
        command == name || program == name
    };
    let entries = fs::read_dir("/proc").context("read /proc")?;
    let pids = entries.flatten().map(|entry| entry.file_name().display().to_string());
    let pids: Vec<_> = pids.filter(|pid| is_called(pid) && is_of_node(pid)).collect();
    match pids.is_empty() {
        true => Err(anyhow!("no {name} runs on {node}")),
        false => Ok(pids),
    }
}

fn kill(pids: &[String]) -> Result<()> {
    let status = Command::new("kill").arg("-KILL").args(pids).status().context("start kill")?;
    ensure!(status.success(), "kill: {status}");
    Ok(())
}
