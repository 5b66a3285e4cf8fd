//! The agent joins what the kernel saw with what mounts did: each injected fault is one event, of the span of the operation that failed.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;

use fsi_tests::agent::Agent;
use fsi_tests::cgroup::Cgroup;
use fsi_tests::collector::{Collector, program};
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::wrapped;
use fsi_tests::mount::{Mount, Mounted};
use fsi_tests::need::{Need, has, skip};
use fsi_tests::spans::{Span, Spans};
use rustix::thread::gettid;
use serde_json::Value;

const RULES: &str = "version: 1
seed: 7
rules:
  - { name: flaky, match: { ops: [write, read], path: 'bad-*' }, when: { probability: 0.2 }, do: { errno: EIO } }
  - { name: slow, match: { ops: [fsync], path: 'bad-*' }, do: { delay: 5ms } }
  - { name: no-names, match: { ops: [unlink, rename, mkdir], path: 'bad-*' }, when: { every: 2 }, do: { errno: EROFS } }
";
/// What the mount is called.
const VOLUME: &str = "scratch space";
const THREADS: usize = 4;
const ROUNDS: u64 = 200;

/// The agent asks for nothing but what was done on purpose.
fn quiet(rest: &str) -> Agent {
    Agent::start(&format!(
        "observe: {{ scope: node, default: {{ observe: spans, slower: 1h, failed: false }} }}\nkubernetes: {{ enabled: false }}\n{rest}"
    ))
}

fn reports_to(agent: &Agent, rules: &str) -> Mounted {
    reports_with(agent, rules, &[])
}

fn reports_with(agent: &Agent, rules: &str, options: &[&str]) -> Mounted {
    let before = agent.metrics().total("fsi_mounts");
    let mount = Mount::with_rules(rules).option("--volume").option(VOLUME).logged().run_in(agent.run_directory());
    let mounted = options.iter().fold(mount, |mount, option| mount.option(option)).mount();
    eventually("the mount reports to the agent", || agent.metrics().total("fsi_mounts") == before + 1);
    mounted
}

/// What one thread did, as it saw it: by operation, how many failed.
#[derive(Debug, Default)]
struct Diary {
    tid: u64,
    failed: BTreeMap<&'static str, u64>,
}

impl Diary {
    fn note<T>(&mut self, operation: &'static str, result: &std::io::Result<T>) {
        if result.is_err() {
            *self.failed.entry(operation).or_default() += 1;
        }
    }
}

fn work(directory: &Path, number: usize) -> Diary {
    let mut diary =
        Diary { tid: u64::try_from(gettid().as_raw_nonzero().get()).expect("positive"), ..Diary::default() };
    let path = directory.join(format!("bad-{number}"));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).expect("it opens");
    let mut bytes = [0; 512];
    for round in 0..ROUNDS {
        diary.note("write", &file.write_at(&bytes, round * 512));
        diary.note("read", &file.read_at(&mut bytes, round * 512));
        if round % 50 == 0 {
            diary.note("fsync", &file.sync_all());
        }
    }
    for round in 0..6 {
        let name = directory.join(format!("bad-{number}-{round}"));
        diary.note("mkdir", &fs::create_dir(&name));
        fs::write(directory.join(format!("good-{number}-{round}")), "x").expect("a neighbour");
    }
    diary
}

fn fault_log(mounted: &Mounted) -> Vec<Value> {
    mounted.fault_log().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The spans that have faults, each with its events.
fn faulty(spans: &Spans) -> Vec<&Span> {
    spans.all.iter().filter(|span| span.events.iter().any(|event| event.name == "fsi.fault")).collect()
}

fn nests(spans: &Spans, span: &Span) {
    for event in &span.events {
        assert!(span.start_ns <= event.at_ns && event.at_ns <= span.end_ns, "{span:#?}");
    }
    let parts: u64 = ["fsi.kernel_ns", "fsi.overhead_ns", "fsi.injected_ns", "fsi.throttle_ns", "fsi.backing_ns"]
        .iter()
        .map(|part| span.number(part))
        .sum();
    let whole = span.end_ns - span.start_ns;
    assert!(parts.abs_diff(whole) <= whole / 100 + 2_000, "{parts} of {whole}: {span:#?}");
    let by_id = spans.by_id();
    if let Some(parent) = by_id.get(span.parent.as_str()) {
        assert_eq!(parent.trace, span.trace);
        assert!(parent.start_ns <= span.start_ns && span.end_ns <= parent.end_ns, "{parent:#?} {span:#?}");
    }
}

#[test]
fn each_fault_is_one_event_of_the_operation_that_it_struck() {
    if !has(&[Need::Probes, Need::Mounts]) {
        return;
    }
    let Some(collector) = program() else { return skip("no collector; `cargo xtask setup` builds one") };
    let collector = Collector::start(&collector);
    let agent = quiet(&format!("otlp: [ {{ url: 'grpc://127.0.0.1:{}' }} ]\n", collector.grpc));
    let mounted = reports_to(&agent, RULES);
    let directory = mounted.target();
    let diaries: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn({
                    let directory = &directory;
                    move || work(directory, number)
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("it does not panic")).collect()
    });
    let log = fault_log(&mounted);
    assert!(log.len() > 200, "{} faults", log.len());
    eventually("every fault is told", || {
        agent.metrics().sum("fsi_faults_injected_total", "errno", "EIO")
            + agent.metrics().sum("fsi_faults_injected_total", "errno", "EROFS")
            + agent.metrics().sum("fsi_faults_injected_total", "kind", "delay")
            == log.len() as u64
    });
    assert_eq!(agent.metrics().sum("fsi_faults_injected_total", "volume", VOLUME), log.len() as u64);
    drop(mounted);
    let metrics = agent.metrics();
    agent.end();
    let (spans, text) = collector.received();
    assert!(text.contains("\"k8s.node.name\""), "the node says which it is");

    let with_faults = faulty(&spans);
    let mut told: Vec<u64> = Vec::new();
    for span in &with_faults {
        nests(&spans, span);
        assert_eq!(span.events.len(), 1, "{span:#?}");
        let event = &span.events[0];
        let sequence: u64 = event.attributes["fsi.fault.sequence"].parse().expect("a number");
        told.push(sequence);
        let entry = log.iter().find(|entry| entry["sequence"].as_u64() == Some(sequence));
        let entry = entry.expect("it is in the mount's log");
        assert_eq!(entry["op"].as_str().expect("text"), span.name, "{entry} {span:#?}");
        assert_eq!(span.attribute("fsi.volume"), VOLUME);
        assert_eq!(span.attribute("thread.id"), entry["pid"].to_string());
        assert!(span.path().ends_with(entry["path"].as_str().expect("text")), "{entry} {span:#?}");
        let errno = event.attributes.get("fsi.fault.errno").map_or("", String::as_str);
        assert_eq!(span.attribute("error.type"), errno, "what the application saw: {span:#?}");
        assert!(span.attributes.contains_key("fsi.syscall"), "the kernel saw it: {span:#?}");
    }
    told.sort_unstable();
    let mut logged: Vec<u64> = log.iter().map(|entry| entry["sequence"].as_u64().expect("a number")).collect();
    logged.sort_unstable();
    assert_eq!(told, logged, "each once");

    for diary in diaries {
        for (operation, failed) in &diary.failed {
            let of_it = with_faults
                .iter()
                .filter(|span| span.name == *operation && span.number("thread.id") == diary.tid && span.status == 2);
            assert_eq!(of_it.count() as u64, *failed, "{operation} {diary:?}");
        }
    }
    let lost: Vec<_> = metrics.of_name("fsi_lost_total").filter(|sample| sample.value > 0.0).collect();
    let ours = lost.iter().filter(|sample| ["join", "reports", "ring"].contains(&sample.label("stage")));
    assert_eq!(ours.count(), 0, "{lost:#?}");
    assert_eq!(metrics.sum("fsi_reports_total", "outcome", "alone"), 0, "each report found its operation");
}

#[test]
fn who_wants_no_spans_gets_none_of_a_fault_either() {
    if !has(&[Need::Probes, Need::Mounts]) {
        return;
    }
    let Some(program) = program() else { return skip("no collector; `cargo xtask setup` builds one") };
    let Some(cgroup) = Cgroup::told_apart() else { return };
    for level in ["metrics", "off"] {
        let collector = Collector::start(&program);
        let agent = Agent::start(&format!(
            "observe: {{ cgroups: ['{}'], default: {{ observe: {level} }} }}\nkubernetes: {{ enabled: false }}\notlp: [ {{ url: 'grpc://127.0.0.1:{}' }} ]\n",
            cgroup.path(),
            collector.grpc
        ));
        let mounted = reports_to(
            &agent,
            "version: 1\nrules:\n  - { name: no, match: { ops: [mkdir], path: 'bad-*' }, do: { errno: EIO } }\n",
        );
        let target = mounted.target();
        let inside = format!("echo $$ >{}/cgroup.procs; mkdir bad-1; mkdir bad-2; ! mkdir bad-3", cgroup.path());
        let mut shell = wrapped("sh");
        assert!(shell.args(["-c", &inside]).current_dir(&target).status().expect("sh runs").success());
        // Whom no policy concerns: told by the mount alone, and after what came before.
        assert!(fs::create_dir(target.join("bad-outside")).is_err());
        eventually("every fault is counted", || agent.metrics().total("fsi_faults_injected_total") == 4);
        drop(mounted);
        agent.end();
        let (spans, _text) = collector.received();
        let told: Vec<_> = faulty(&spans).into_iter().map(Span::path).collect();
        assert_eq!(told, [target.join("bad-outside").to_str().expect("a plain path")], "{level}");
    }
}

#[test]
fn volumes_of_one_name_in_two_namespaces_are_told_apart() {
    if !has(&[Need::Probes, Need::Mounts]) {
        return;
    }
    let Some(program) = program() else { return skip("no collector; `cargo xtask setup` builds one") };
    let collector = Collector::start(&program);
    let agent = quiet(&format!("otlp: [ {{ url: 'grpc://127.0.0.1:{}' }} ]\n", collector.grpc));
    let rules = "version: 1\nrules:\n  - { name: no, match: { ops: [mkdir] }, do: { errno: EIO } }\n";
    let faults = |namespace: &str| {
        let labels = [("volume", VOLUME), ("namespace", namespace)];
        agent.metrics().sum_of("fsi_faults_injected_total", &labels)
    };
    let mut told = Vec::new();
    for (namespace, options, count) in
        [("shop", &["--namespace", "shop"][..], 1), ("test", &["--namespace", "test"], 2), ("", &[], 3)]
    {
        let mounted = reports_with(&agent, rules, options);
        for number in 0..count {
            assert!(fs::create_dir(mounted.target().join(number.to_string())).is_err());
        }
        eventually("every fault is counted", || faults(namespace) == count);
        told.extend((0..count).map(|number| (mounted.target().join(number.to_string()), namespace)));
        drop(mounted);
        eventually("it is gone", || agent.metrics().total("fsi_mounts") == 0);
    }
    assert_eq!(["shop", "test", ""].map(faults), [1, 2, 3], "those of mounts that ended stay");
    agent.end();
    let (spans, _text) = collector.received();
    let told_of = |path: &Path| {
        let of_path: Vec<_> = faulty(&spans).into_iter().filter(|span| Path::new(span.path()) == path).collect();
        assert_eq!(of_path.len(), 1, "{}", path.display());
        of_path[0].attribute("k8s.namespace.name").to_owned()
    };
    for (path, namespace) in told {
        assert_eq!(told_of(&path), namespace);
    }
}
