//! Several watch through one agent: each sees everything it asked for, there is one set of probes, and what was looked at more closely for
//! them is not any more when they are gone.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::process::{Command, Stdio};

use fsi_tests::agent::Agent;
use fsi_tests::cgroup::Cgroup;
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{fsi, output, succeed, text};
use fsi_tests::loaded;
use fsi_tests::need::{Need, has};
use fsi_tests::observe::{Observation, Observe, Running};
use rustix::process::{Pid, Signal, kill_process};

/// `cat` of one file, so often.
const READS: u64 = 40;

/// An agent that only counts unless somebody watches.
fn agent() -> Agent {
    Agent::start("observe: { scope: node, default: { observe: metrics } }\nkubernetes: { enabled: false }\n")
}

fn is_raised(agent: &Agent) -> bool {
    agent.shown()["policies"].as_array().expect("a list").iter().any(|policy| policy["raised"] == true)
}

fn watchers(agent: &Agent) -> usize {
    agent.shown()["watchers"].as_array().expect("a list").len()
}

fn watch(agent: &Agent, cgroup: &Cgroup) -> Running {
    let socket = agent.socket();
    let socket = socket.to_str().expect("a plain path");
    Observe::with(["--attach", socket, "--cgroup", cgroup.path()]).start()
}

/// Reads a file in a cgroup, again and again.
fn work(cgroup: &Cgroup, file: &str) {
    let script =
        format!("echo $$ > {}/cgroup.procs; for i in $(seq {READS}); do cat {file} > /dev/null; done", cgroup.path());
    succeed(Command::new("sh").args(["-ec", &script]));
}

/// Everything was told: of each `cat` the file, its read and its end.
fn saw_all(observation: &Observation, file: &str) {
    let [seen, made, sampled_out, lost] = observation.balances();
    // The write that moves the shell into the cgroup begins outside and is counted inside.
    let moves =
        observation.spans.operations().filter(|span| span.path().ends_with("/cgroup.procs") && span.name == "write");
    assert_eq!((sampled_out + moves.count() as u64, lost), (1, 0), "{seen} seen, {made} told");
    let of =
        |op: &str| observation.spans.operations().filter(|span| span.path() == file && span.name == op).count() as u64;
    assert_eq!((of("open"), of("close")), (READS, READS));
    assert!(of("read") >= 2 * READS, "{} reads", of("read"));
    let summary = observation.summary();
    let row = summary["files"].as_array().expect("a list").iter().find(|row| row["path"] == file);
    let row = row.expect("the file has a row");
    assert_eq!((row["opens"].as_u64(), row["read_bytes"].as_u64()), (Some(READS), Some(5 * READS)), "{row:#}");
    assert!(summary["subject"].as_str().expect("text").ends_with("through the agent"), "{summary:#}");
}

#[test]
fn two_watch_with_one_set_of_probes() {
    if !has(&[Need::Probes]) {
        return;
    }
    let Some(cgroup) = Cgroup::told_apart() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("watched");
    std::fs::write(&file, "hello").expect("a file");
    let file = file.to_str().expect("a plain path");
    let agent = agent();
    let probes = loaded::ours();
    let (one, other) = (watch(&agent, &cgroup), watch(&agent, &cgroup));
    let new: Vec<_> = loaded::ours().difference(&probes).copied().collect();
    assert_eq!(new, Vec::<u32>::new(), "who attaches loads no probes");
    assert_eq!((watchers(&agent), is_raised(&agent)), (2, true));
    work(&cgroup, file);
    let mut top = fsi(["top", "--once", "--for", "1m", "--by", "file", "--cgroup", cgroup.path(), "--attach"]);
    let top = top.arg(agent.socket()).stdout(Stdio::piped()).spawn().expect("fsi starts");
    eventually("a third watches", || watchers(&agent) == 3);
    let (first, second) = (one.stop(), other.stop());
    saw_all(&first, file);
    saw_all(&second, file);
    work(&cgroup, file);
    kill_process(Pid::from_child(&top), Signal::INT).expect("it runs");
    let table = text(&top.wait_with_output().expect("top ends").stdout);
    assert!(table.lines().any(|line| line.starts_with(file)), "{table}");
    eventually("nobody watches", || watchers(&agent) == 0 && !is_raised(&agent));
    assert_eq!(
        agent.metrics().sum("fsi_spans_total", "outcome", "made"),
        0,
        "collectors are told what they were told before"
    );
    let counted = output(fsi(["top", "--once", "--by", "op", "--attach"]).arg(agent.socket()));
    assert!(counted.status.success(), "{}", text(&counted.stderr));
}

#[test]
fn a_watcher_that_is_killed_is_forgotten() {
    if !has(&[Need::Probes]) {
        return;
    }
    let Some(cgroup) = Cgroup::told_apart() else { return };
    let agent = agent();
    let running = watch(&agent, &cgroup);
    assert_eq!((watchers(&agent), is_raised(&agent)), (1, true));
    running.kill();
    eventually("it is forgotten", || watchers(&agent) == 0 && !is_raised(&agent));
    let before = agent.metrics();
    assert_eq!(before.lost("watch", "queue_full"), 0);
    work(&cgroup, "/dev/null");
    let after = agent.metrics();
    let counted = after.total("fsi_operations_total") - before.total("fsi_operations_total");
    assert!(counted > READS, "{counted} counted as before");
    assert_eq!(after.sum("fsi_spans_total", "outcome", "made"), 0);
}

#[test]
fn without_an_agent_one_sentence_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    for command in [&["top", "--once", "--attach"][..], &["observe", "--all", "--attach"]] {
        let refused = output(fsi(command).env("FSI_RUN_DIR", directory.path()));
        let sentence = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1), "{sentence}");
        assert!(sentence.contains("no agent runs here") && sentence.contains("leave out --attach"), "{sentence}");
        assert_eq!(sentence.lines().count(), 1, "{sentence}");
    }
    let refused = output(fsi(["ctl", "agent", "show"]).env("FSI_RUN_DIR", directory.path()));
    assert!(text(&refused.stderr).contains("no agent runs here"), "{}", text(&refused.stderr));
    let combined = output(&mut fsi(["observe", "--attach", "--", "true"]));
    assert_eq!(combined.status.code(), Some(2));
    assert!(text(&combined.stderr).contains("with probes of its own"), "{}", text(&combined.stderr));
}
