//! Several watch through one agent: each sees everything it asked for, there is one set of probes, and what was looked at more closely for
//! them is not any more when they are gone.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use fsi_agent::selection::container::hierarchies;
use fsi_tests::cgroup::Cgroup;
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{fsi, output, succeed, text};
use fsi_tests::need::{self, Need, has};
use fsi_tests::observe::{Observation, Observe, Running};
use fsi_tests::prom::Metrics;
use fsi_tests::{http, loaded};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// `cat` of one file, so often.
const READS: u64 = 40;

/// An agent that only counts unless somebody watches.
struct Agent {
    child: Child,
    port: u16,
    directory: TempDir,
}

impl Agent {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a free port").port();
        let run = directory.path().display();
        let config = format!(
            "version: 1\nobserve: {{ scope: node, default: {{ observe: metrics }} }}\nmetrics: {{ listen: \"127.0.0.1:{port}\" }}\n\
             kubernetes: {{ enabled: false }}\nmounts: {{ socket: {run}/agent.sock }}\ncontrol: {{ socket: {run}/agent-control.sock }}\n"
        );
        let file = directory.path().join("agent.yaml");
        std::fs::write(&file, config).expect("a file");
        let mut command = fsi(["agent", "--config"]);
        command.arg(file).env("FSI_RUN_DIR", directory.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Self { child: command.spawn().expect("fsi starts"), port, directory };
        eventually("the agent answers", || agent.ask().status.success());
        agent
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("agent-control.sock")
    }

    fn ask(&self) -> std::process::Output {
        output(fsi(["ctl", "agent", "show", "--json"]).env("FSI_RUN_DIR", self.directory.path()))
    }

    fn shown(&self) -> Value {
        serde_json::from_slice(&self.ask().stdout).expect("it is JSON")
    }

    fn is_raised(&self) -> bool {
        self.shown()["policies"].as_array().expect("a list").iter().any(|policy| policy["raised"] == true)
    }

    fn watchers(&self) -> usize {
        self.shown()["watchers"].as_array().expect("a list").len()
    }

    fn metrics(&self) -> Metrics {
        Metrics::of(&http::get(self.port, "/metrics"))
    }

    fn watch(&self, cgroup: &Cgroup) -> Running {
        let socket = self.socket();
        let socket = socket.to_str().expect("a plain path");
        Observe::with(["--attach", socket, "--cgroup", cgroup.path()]).start()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already where a test fails.
        kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
        self.child.wait().expect("it is ours to wait for");
    }
}

/// A cgroup in the hierarchy that the agent tells apart.
fn cgroup() -> Option<Cgroup> {
    let cgroup = hierarchies().ok()?.first().and_then(|root| Cgroup::below(root));
    if cgroup.is_none() {
        need::skip("no hierarchy of cgroups that can be written");
    }
    cgroup
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
    let Some(cgroup) = cgroup() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("watched");
    std::fs::write(&file, "hello").expect("a file");
    let file = file.to_str().expect("a plain path");
    let agent = Agent::start();
    let probes = loaded::ours();
    let (one, other) = (agent.watch(&cgroup), agent.watch(&cgroup));
    let new: Vec<_> = loaded::ours().difference(&probes).copied().collect();
    assert_eq!(new, Vec::<u32>::new(), "who attaches loads no probes");
    assert_eq!((agent.watchers(), agent.is_raised()), (2, true));
    work(&cgroup, file);
    let mut top = fsi(["top", "--once", "--for", "700ms", "--by", "file", "--cgroup", cgroup.path(), "--attach"]);
    let top = top.arg(agent.socket()).stdout(Stdio::piped()).spawn().expect("fsi starts");
    eventually("a third watches", || agent.watchers() == 3);
    let (first, second) = (one.stop(), other.stop());
    saw_all(&first, file);
    saw_all(&second, file);
    work(&cgroup, file);
    let table = text(&top.wait_with_output().expect("top ends").stdout);
    assert!(table.lines().any(|line| line.starts_with(file)), "{table}");
    eventually("nobody watches", || agent.watchers() == 0 && !agent.is_raised());
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
    let Some(cgroup) = cgroup() else { return };
    let agent = Agent::start();
    let running = agent.watch(&cgroup);
    assert_eq!((agent.watchers(), agent.is_raised()), (1, true));
    running.kill();
    eventually("it is forgotten", || agent.watchers() == 0 && !agent.is_raised());
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
