//! What is in a container says so, whichever hierarchy tells: a cgroup named as runtimes name theirs is all it takes.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::path::Path;

use fsi_tests::cgroup::Cgroup;
use fsi_tests::fsi::{fsi, succeed, text};
use fsi_tests::need::{self, Need, has};
use fsi_tests::observe::{Observation, Observe};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Enters a cgroup and reads a file there; the options say how it is observed.
fn read_within(container: &Cgroup, options: &[&str]) -> Observation {
    let script = format!("echo $$ > {}/cgroup.procs; exec cat /dev/null", container.path());
    Observe::with(options).run(["sh", "-ec", script.as_str()])
}

fn is_labelled(observation: &Observation) {
    let cat = |span: &&fsi_tests::spans::Span| span.attribute("process.executable.name") == "cat";
    let spans: Vec<_> = observation.spans.operations().filter(cat).collect();
    assert!(!spans.is_empty(), "cat opens files");
    for span in spans {
        assert_eq!(span.attribute("container.id"), ID, "{span:#?}");
    }
    let labelled = observation.metrics.sum("fsi_operations_total", "container", ID);
    assert!(labelled > 0 && labelled < observation.metrics.total("fsi_operations_total"), "{labelled} labelled");
}

#[test]
fn of_a_version_1_hierarchy() {
    if !has(&[Need::Probes]) {
        return;
    }
    let Some(parent) = Cgroup::below(Path::new("/sys/fs/cgroup/memory")) else {
        return need::skip("no version 1 hierarchy with memory");
    };
    let container = parent.child(ID);
    is_labelled(&read_within(&container, &[]));
}

#[test]
fn of_the_version_2_hierarchy() {
    if !has(&[Need::Probes]) {
        return;
    }
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
    let Some(parent) = unified.into_iter().find_map(Cgroup::below) else {
        return need::skip("no version 2 hierarchy that can be written");
    };
    let container = parent.child(&format!("docker-{ID}.scope"));
    let running = Observe::with(["--cgroup", parent.path()]).start();
    let script = format!("echo $$ > {}/cgroup.procs; exec cat /dev/null", container.path());
    let outside = format!("echo $$ > {}/cgroup.procs; exec cat /dev/null", parent.path());
    for script in [script, outside] {
        succeed(std::process::Command::new("sh").args(["-ec", &script]));
    }
    let observation = running.stop();
    let ids: Vec<_> = observation.spans.operations().map(|span| span.attribute("container.id")).collect();
    assert!(ids.contains(&ID) && ids.contains(&"") && ids.iter().all(|id| [ID, ""].contains(id)), "{ids:?}");
    assert!(observation.metrics.sum("fsi_operations_total", "container", ID) > 0);
}

#[test]
fn in_the_live_table() {
    if !has(&[Need::Probes]) {
        return;
    }
    let Some(parent) = Cgroup::below(Path::new("/sys/fs/cgroup/memory")) else {
        return need::skip("no version 1 hierarchy with memory");
    };
    let container = parent.child(ID);
    let script = format!("echo $$ > {}/cgroup.procs; while :; do : < /dev/null; cat /dev/null; done", container.path());
    let mut busy = std::process::Command::new("sh").args(["-ec", &script]).spawn().expect("sh starts");
    let output = succeed(&mut fsi(["top", "--once", "--for", "500ms", "--by", "container"]));
    busy.kill().expect("it runs");
    busy.wait().expect("it ends");
    let table = text(&output.stdout);
    assert!(table.lines().any(|line| line.starts_with(&format!("{} ", &ID[..12]))), "{table}");
}
