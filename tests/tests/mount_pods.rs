//! Limits of the scope `pod`: all mounts that a container writes to hold it to the same one, whoever of their servers is killed.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use fsi_tests::cgroup::Cgroup;
use fsi_tests::eventually::eventually;
use fsi_tests::mount::{Mount, Mounted, scratch};
use fsi_tests::need::{Need, has};
use tempfile::TempDir;

/// Two mounts of one node, and containers that use them.
struct Node {
    mounts: [Mounted; 2],
    containers: [Cgroup; 2],
    _above: Cgroup,
    _run: TempDir,
}

impl Node {
    fn with(throttle: &str) -> Option<Self> {
        if !has(&[Need::Mounts]) {
            return None;
        }
        let above = Cgroup::told_apart()?;
        // As a runtime names them.
        let containers = ["a", "b"].map(|digit| above.child(&format!("docker-{}.scope", digit.repeat(64))));
        let run = scratch();
        let mount = || Mount::with_rules(&format!("version: 1\nthrottle: [{throttle}]\n"));
        let mounts = [(); 2].map(|()| mount().run_in(run.path().to_owned()).mount());
        Some(Self { mounts, containers, _above: above, _run: run })
    }
}

/// Writes `count` blocks of 64 KiB.
fn dd(target: &Path, count: u32, container: Option<&Cgroup>) -> Child {
    let enter = container.map(|container| format!("echo $$ > {}/cgroup.procs && ", container.path()));
    let write = format!("exec dd if=/dev/zero bs=64k count={count} status=none of={}", target.display());
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(enter.unwrap_or_default() + &write).current_dir("/");
    shell.spawn().expect("sh")
}

fn writes(target: &Path, count: u32, container: Option<&Cgroup>) {
    assert!(dd(target, count, container).wait().expect("it is ours").success());
}

fn waits(mounted: &Mounted) -> bool {
    mounted.ctl(["show"]).contains(", 1 waiting")
}

/// No clock is asked: what is owed takes a minute.
#[test]
fn a_pod_has_its_limit_once_over_all_mounts() {
    let Some(node) = Node::with("{ scope: pod, write: 1KiB/s }") else { return };
    let [first, second] = &node.mounts;
    let [pod, other] = &node.containers;
    writes(&first.target().join("file"), 1, Some(pod));
    let mut waiting = dd(&second.target().join("file"), 1, Some(pod));
    eventually("the pod waits at the other mount", || waits(second));
    for mounted in &node.mounts {
        mounted.kill_server();
    }
    eventually("it waits at the next server", || waits(second));
    writes(&second.target().join("of-another"), 1, Some(other));
    // Who is in no container counts to the mount that he uses.
    writes(&first.target().join("of-nobody"), 1, None);
    writes(&second.target().join("of-nobody"), 1, None);
    assert!(waiting.try_wait().expect("it is ours").is_none(), "it waits on");
    second.ctl(["clear"]);
    assert!(waiting.wait().expect("it ends").success());
}

#[test]
fn two_mounts_share_the_rate_of_a_pod_evenly() {
    let Some(node) = Node::with("{ scope: pod, write: 2MiB/s, burst: 250ms }") else { return };
    let pod = &node.containers[0];
    let started = Instant::now();
    let mut writers = node.mounts.each_ref().map(|mounted| dd(&mounted.target().join("file"), 64, Some(pod)));
    thread::sleep(Duration::from_secs(1));
    node.mounts[0].kill_server();
    let sizes = || {
        node.mounts.each_ref().map(|mounted| fs::metadata(mounted.source().join("file")).map_or(0, |file| file.len()))
    };
    eventually("one has written everything", || {
        writers.iter_mut().any(|writer| writer.try_wait().expect("it is ours").is_some())
    });
    let least = *sizes().iter().min().expect("there are two");
    for mut writer in writers {
        assert!(writer.wait().expect("it ends").success());
    }
    let took = started.elapsed().as_secs_f64();
    assert_eq!(sizes(), [4 << 20; 2]);
    // 8 MiB, of which half a MiB was saved up and one block passes before it is paid.
    assert!((3.7..30.0).contains(&took), "8 MiB at 2 MiB/s took {took} s");
    assert!(least > 1 << 20, "when one had 4 MiB, the other had {least} bytes");
}
