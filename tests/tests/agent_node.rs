//! The agent of a node: every container's operations are its own, a reload changes what it says and nothing else, collectors may be away.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::path::{Path, PathBuf};
use std::process::Command;

use fsi_tests::agent::Agent;
use fsi_tests::cgroup::Cgroup;
use fsi_tests::collector::free_port;
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::succeed;
use fsi_tests::need::{Need, has};

const CONTAINERS: u64 = 500;

fn id(number: u64) -> String {
    format!("{number:064x}")
}

/// How many directories a container makes.
fn directories(number: u64) -> u64 {
    number % 3 + 1
}

/// A container that makes some directories and is gone.
fn run(docker: &Cgroup, number: u64, place: &Path) {
    let container = docker.child(&id(number));
    let names: Vec<PathBuf> = (0..directories(number)).map(|name| place.join(format!("{number}-{name}"))).collect();
    let mut command = Command::new("sh");
    command.args(["-ec", "echo $$ > \"$0\"/cgroup.procs; exec mkdir \"$@\"", container.path()]).args(names);
    succeed(&mut command);
}

#[test]
fn what_each_of_many_containers_does_is_its_own() {
    if !has(&[Need::Probes]) {
        return;
    }
    let Some(parent) = Cgroup::told_apart() else { return };
    // A parent of containers, as Docker has one.
    let docker = parent.child("docker");
    let place = tempfile::tempdir().expect("a directory");
    let agent =
        Agent::start("observe: { scope: containers, default: { observe: metrics } }\nkubernetes: { enabled: false }\n");
    for number in 0..CONTAINERS {
        run(&docker, number, place.path());
    }
    let metrics = agent.metrics();
    for number in 0..CONTAINERS {
        let id = id(number);
        let made = metrics.sum_of("fsi_operations_total", &[("container", id.as_str()), ("op", "mkdir")]);
        assert_eq!(made, directories(number), "container {number}");
    }
    let all: u64 = (0..CONTAINERS).map(directories).sum();
    assert_eq!(metrics.sum("fsi_operations_total", "op", "mkdir"), all, "and nobody else's");
    // The kernel has room for so many only because what is gone is taken out of it; nothing is lost by that.
    std::thread::sleep(std::time::Duration::from_secs(7));
    assert_eq!(agent.metrics().sum("fsi_operations_total", "op", "mkdir"), all);
    assert_eq!(agent.metrics().total("fsi_directories_net"), all);
    let metrics = agent.metrics();
    let spans = |outcome| metrics.sum("fsi_spans_total", "outcome", outcome);
    let lost = metrics.lost("ring", "operation") + metrics.lost("probe", "aggregate_full");
    assert_eq!(
        metrics.total("fsi_operations_total"),
        spans("made") + spans("sampled_out") + lost,
        "nothing is missing"
    );
    agent.end();
}

#[test]
fn a_reload_changes_what_it_says_and_a_wrong_one_nothing() {
    if !has(&[Need::Probes]) {
        return;
    }
    let rest = |observe: &str| {
        format!(
            "observe: {{ scope: node, default: {{ observe: {observe}, failed: true }} }}\nkubernetes: {{ enabled: false }}\n"
        )
    };
    let agent = Agent::start(&rest("spans"));
    let miss = || assert!(std::fs::metadata("/no/such/file").is_err());
    let made = || agent.metrics().sum("fsi_spans_total", "outcome", "made");
    eventually("a failed operation is told", || {
        miss();
        made() > 0
    });
    agent.reload(&rest("spannning"));
    assert_eq!(agent.metrics().sum("fsi_config_reloads_total", "outcome", "refused"), 1);
    assert!(agent.log().contains("observe"), "{}", agent.log());
    let before = made();
    eventually("what held before holds", || {
        miss();
        made() > before
    });
    agent.reload(&rest("off"));
    assert_eq!(agent.metrics().sum("fsi_config_reloads_total", "outcome", "applied"), 1);
    let operations = || agent.metrics().total("fsi_operations_total");
    eventually("nothing is looked at any more", || {
        let before = operations();
        miss();
        operations() == before
    });
    agent.end();
}

#[test]
fn a_collector_that_is_away_holds_up_nothing_and_every_span_is_accounted_for() {
    if !has(&[Need::Probes]) {
        return;
    }
    let agent = Agent::start(&format!(
        "observe: {{ scope: node, default: {{ observe: spans, failed: true, slower: 1h }} }}\nkubernetes: {{ enabled: false }}\n\
         otlp: [ {{ url: 'http://127.0.0.1:{}', queue: 1000, batch: 100, deadline: 1s }} ]\n",
        free_port()
    ));
    for _ in 0..20_000 {
        assert!(std::fs::metadata("/no/such/file").is_err());
    }
    let accounted = || {
        let metrics = agent.metrics();
        let lost: u64 = ["queue_full", "refused", "timeout"].iter().map(|why| metrics.lost("export", why)).sum();
        (metrics.sum("fsi_spans_total", "outcome", "made"), lost)
    };
    eventually("all are told or lost", || {
        let (made, lost) = accounted();
        made >= 20_000 && lost >= 18_000
    });
    let metrics = agent.metrics();
    assert_eq!(metrics.sum("fsi_spans_total", "outcome", "exported"), 0);
    assert!(metrics.sum("fsi_operations_total", "op", "stat") >= 20_000, "the metrics are exact without it");
    assert_eq!(metrics.lost("ring", "operation"), 0);
    agent.end();
}

#[test]
fn with_a_spool_all_but_the_collectors_changes_at_a_reload() {
    if !has(&[Need::Probes]) {
        return;
    }
    let spool = tempfile::tempdir().expect("a directory");
    let rest = |observe: &str, port: u16| {
        format!(
            "observe: {{ scope: node, default: {{ observe: {observe} }} }}\nkubernetes: {{ enabled: false }}\n\
             otlp: [ {{ url: 'http://127.0.0.1:{port}' }} ]\nspool: {{ directory: '{}', size: 16MiB }}\n",
            spool.path().display()
        )
    };
    let agent = Agent::start(&rest("spans", 4317));
    let applied = || agent.metrics().sum("fsi_config_reloads_total", "outcome", "applied");
    agent.reload(&rest("metrics", 4317));
    assert_eq!(applied(), 1, "{}", agent.log());
    assert!(!agent.log().contains("otlp and spool"), "{}", agent.log());
    agent.reload(&rest("metrics", 4318));
    assert_eq!(applied(), 2, "{}", agent.log());
    assert!(agent.log().contains("otlp and spool"), "{}", agent.log());
    let endpoints: Vec<_> =
        agent.metrics().of_name("fsi_otlp_spool_bytes").map(|sample| sample.label("endpoint").to_owned()).collect();
    assert_eq!(endpoints, ["http://127.0.0.1:4317"]);
    agent.end();
}
