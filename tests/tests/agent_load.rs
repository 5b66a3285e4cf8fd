//! The agent when there is too much of everything: a hundred busy containers, collectors that are away or spoil what they get. What it
//! counts stays exact, what is lost has a name, and its memory has a bound.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command};

use fsi_tests::agent::Agent;
use fsi_tests::bad_collector::{self, Habit};
use fsi_tests::cgroup::Cgroup;
use fsi_tests::collector::{Collector, free_port, program};
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::load;
use fsi_tests::need::{Need, has, skip};
use fsi_tests::prom::Metrics;

const CONTAINERS: u64 = 100;
/// Of each container, all at once. More than a million a second on a machine that has the CPUs.
const READS: u64 = 100_000;
/// 64 MiB.
const MEMORY_KIB: u64 = 65_536;

fn id(number: u64) -> String {
    format!("{number:064x}")
}

/// A container that reads one file, so often.
fn start(container: &Cgroup, file: &Path, reads: u64) -> Child {
    let mut command = Command::new("sh");
    command.args(["-ec", "echo $$ > \"$0\"/cgroup.procs; exec \"$@\"", container.path()]);
    command.arg(load()).arg("reads").arg(file).arg(reads.to_string());
    command.spawn().expect("it starts")
}

fn reads_of(metrics: &Metrics, number: u64) -> u64 {
    metrics.sum_of("fsi_operations_total", &[("container", id(number).as_str()), ("op", "read")])
}

#[test]
fn a_hundred_busy_containers_are_counted_exactly_in_little_memory() {
    if !has(&[Need::Probes]) {
        return;
    }
    let Some(parent) = Cgroup::told_apart() else { return };
    let docker = parent.child("docker");
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    // Every operation is to be a span, and the collector is away: more of everything cannot be.
    let agent = Agent::start(&format!(
        "observe: {{ scope: containers, default: {{ observe: spans, sample: 1/1 }} }}\nkubernetes: {{ enabled: false }}\n\
         otlp: [ {{ url: 'http://127.0.0.1:{}', deadline: 100ms }} ]\n",
        free_port()
    ));
    let containers: Vec<_> = (0..=CONTAINERS).map(|number| docker.child(&id(number))).collect();
    let load: Vec<_> = containers.iter().skip(1).map(|container| start(container, &file, READS)).collect();
    // What a program reads before it begins, read by one that then reads nothing.
    let mut idle = start(&containers[0], &file, 0);
    assert!(idle.wait().expect("it ends").success());
    for mut child in load {
        assert!(child.wait().expect("it ends").success());
    }
    let are_read = |metrics: &Metrics| (1..=CONTAINERS).all(|number| reads_of(metrics, number) >= READS);
    eventually("the kernel's counts are read", || are_read(&agent.metrics()));
    let metrics = agent.metrics();
    let before = reads_of(&metrics, 0);
    for number in 1..=CONTAINERS {
        assert_eq!(reads_of(&metrics, number), before + READS, "container {number}");
    }
    assert_eq!(metrics.lost("probe", "aggregate_full"), 0);
    let told = |metrics: &Metrics| {
        ["made", "sampled_out"].iter().map(|outcome| metrics.sum("fsi_spans_total", "outcome", outcome)).sum::<u64>()
            + metrics.lost("ring", "operation")
    };
    let seen = metrics.total("fsi_operations_total");
    eventually("every operation is a span or a loss with a name", || told(&agent.metrics()) == seen);
    let peak = agent.peak_kib();
    assert!(peak < MEMORY_KIB, "{peak} KiB");
    agent.end();
}

#[test]
fn collectors_that_misbehave_hold_up_nothing_and_each_loss_is_counted() {
    if !has(&[Need::Probes]) {
        return;
    }
    let Some(program) = program() else {
        return skip("there is no OpenTelemetry Collector (`cargo xtask setup` builds it, with Go)");
    };
    let Some(parent) = Cgroup::told_apart() else { return };
    let docker = parent.child("docker");
    let container = docker.child(&id(1));
    let collector = Collector::start(&program);
    let habits = [Habit::Stalls, Habit::Slow, Habit::Refuses, Habit::Garbage];
    let mut ports: Vec<_> =
        habits.into_iter().map(|habit| (format!("{habit:?}"), bad_collector::start(habit))).collect();
    ports.push(("away".to_owned(), free_port()));
    let endpoint = |scheme: &str, port: u16| format!("{{ url: '{scheme}://127.0.0.1:{port}', deadline: 200ms }}");
    let good = format!("grpc://127.0.0.1:{}", collector.grpc);
    let mut endpoints = vec![
        // With room for all that comes in one moment.
        format!("{{ url: '{good}', queue: 65536 }}"),
        endpoint("grpc", bad_collector::start(Habit::Garbage)),
    ];
    endpoints.extend(ports.iter().map(|(_, port)| endpoint("http", *port)));
    let agent = Agent::start(&format!(
        "observe: {{ scope: containers, default: {{ observe: spans, sample: 1/1 }} }}\nkubernetes: {{ enabled: false }}\notlp: [ {} ]\n",
        endpoints.join(", ")
    ));
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    // One after the other: what fills a ring is another test.
    for _ in 0..20 {
        assert!(start(&container, &file, 1000).wait().expect("it ends").success());
    }
    let of = |metrics: &Metrics, url: &str, outcome: &str| {
        metrics.sum_of("fsi_otlp_spans_total", &[("endpoint", url), ("outcome", outcome)])
    };
    let bad = |metrics: &Metrics| -> BTreeSet<String> {
        let all = metrics.of_name("fsi_otlp_spans_total").map(|sample| sample.label("endpoint").to_owned());
        all.filter(|url| *url != good).collect()
    };
    let decided = |metrics: &Metrics, url: &str| of(metrics, url, "exported") + of(metrics, url, "lost");
    eventually("it is decided what becomes of each span", || {
        let metrics = agent.metrics();
        let good = decided(&metrics, &good);
        good >= 20_000 && bad(&metrics).iter().all(|url| decided(&metrics, url) == good)
    });
    let metrics = agent.metrics();
    let exported = of(&metrics, &good, "exported");
    assert_eq!(of(&metrics, &good, "lost"), 0, "the others hold it up");
    assert_eq!(bad(&metrics).len(), 6, "{metrics:?}");
    for url in bad(&metrics) {
        let taken = of(&metrics, &url, "exported");
        let is_slow = ports.iter().any(|(name, port)| name == "Slow" && url.ends_with(&format!(":{port}")));
        assert_eq!(taken > 0, is_slow, "{url}: {taken} taken");
    }
    assert_eq!(metrics.lost("ring", "operation"), 0);
    assert_eq!(metrics.sum("fsi_spans_total", "outcome", "made"), metrics.total("fsi_operations_total"));
    // Seven collectors each have a request in their hands.
    let peak = agent.peak_kib();
    assert!(peak < 2 * MEMORY_KIB, "{peak} KiB");
    agent.end();
    let (received, _) = collector.received();
    assert!(received.all.len() as u64 >= exported, "{} of {exported}", received.all.len());
}
