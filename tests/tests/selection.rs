//! Who and what is observed: a command with all that it starts, a process, a cgroup, everything; by operation, path and name.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fsi_tests::cgroup::Cgroup;
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{load, succeed};
use fsi_tests::need::{self, Need, has};
use fsi_tests::observe::{Observation, Observe};
use fsi_tests::served::Served;
use fsi_tests::spans::Span;
use tempfile::{TempDir, tempdir};

/// A directory with a file of one byte.
fn file() -> (TempDir, PathBuf) {
    let directory = tempdir().expect("a directory");
    let file = directory.path().canonicalize().expect("it is there").join("f");
    fs::write(&file, "x").expect("a file");
    (directory, file)
}

/// Reads of a file.
fn reads<'a>(observation: &'a Observation, file: &Path) -> Vec<&'a Span> {
    let path = file.to_str().expect("a plain path").to_owned();
    observation.spans.named("read").filter(|span| span.path() == path).collect()
}

fn shell(script: &str) {
    succeed(Command::new("sh").args(["-ec", script]).env_remove("LD_LIBRARY_PATH"));
}

#[test]
fn a_process_with_its_threads_and_children() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (_directory, file) = file();
    let (mut chosen, mut other) = (Served::start(&file), Served::start(&file));
    chosen.turn();
    let running = Observe::with(["--pid", &chosen.pid()]).start();
    for _ in 0..3 {
        chosen.turn();
        other.turn();
    }
    let observation = running.stop();
    observation.balances();
    let reads = reads(&observation, &file);
    let by = |name: &str| reads.iter().filter(|span| span.attribute("process.executable.name") == name).count();
    // A thread that was there, a new one; cat reads until the end of the file.
    let counts = (by("fsi-test-load"), by("cat"));
    assert_eq!(counts, (6, 6), "lost: {:?}; {:#?}", observation.metrics.losses(), observation.spans.all);
    let strangers = reads.iter().filter(|span| span.attribute("process.pid") == other.pid());
    assert_eq!(strangers.count(), 0, "the other process was not chosen");
}

#[test]
fn the_observation_of_a_process_ends_with_it() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (_directory, file) = file();
    let mut chosen = Served::start(&file);
    let running = Observe::with(["--pid", &chosen.pid()]).start();
    chosen.turn();
    drop(chosen);
    assert_eq!(reads(&running.end(), &file).len(), 4);
}

/// Observes a cgroup while one process in it, one below it and one elsewhere read.
fn observe_cgroup(hierarchy: &str) {
    let (_directory, file) = file();
    let Some(cgroup) = Cgroup::below(Path::new(hierarchy)) else {
        need::skip(&format!("no cgroup can be made below {hierarchy}"));
        return;
    };
    let below = cgroup.child("below");
    let running = Observe::with(["--cgroup", cgroup.path()]).start();
    let read = |into: &str| shell(&format!("{into} exec head -c 1 {}", file.display()));
    read(&format!("echo $$ >{}/cgroup.procs;", cgroup.path()));
    read(&format!("echo $$ >{}/cgroup.procs;", below.path()));
    read("");
    let observation = running.stop();
    observation.balances();
    assert_eq!(reads(&observation, &file).len(), 2);
}

#[test]
fn a_cgroup_of_version_1() {
    if has(&[Need::Probes]) {
        observe_cgroup("/sys/fs/cgroup/pids");
    }
}

#[test]
fn another_controller_of_version_1() {
    if has(&[Need::Probes]) {
        observe_cgroup("/sys/fs/cgroup/freezer");
    }
}

#[test]
fn a_cgroup_of_version_2() {
    if !has(&[Need::Probes]) {
        return;
    }
    let unified = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let is_unified = |path: &&&str| Path::new(path).join("cgroup.controllers").exists();
    observe_cgroup(unified.iter().find(is_unified).unwrap_or(&unified[0]));
}

#[test]
fn everything_but_the_agent() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (_directory, file) = file();
    let running = Observe::with(["--all"]).start();
    shell(&format!("cat {}", file.display()));
    let agent = running.pid().as_raw_nonzero().to_string();
    let observation = running.stop();
    assert_eq!(reads(&observation, &file).len(), 2);
    assert!(observation.spans.all.iter().all(|span| span.attribute("process.pid") != agent), "the agent saw itself");
}

#[test]
fn chosen_operations() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (_directory, file) = file();
    let observation = Observe::with(["--op", "read,rmdir"]).run([
        "sh",
        "-ec",
        &format!("cat {0}; mkdir {0}.d; rmdir {0}.d", file.display()),
    ]);
    observation.balances();
    assert_eq!(observation.metrics.counts().operations.keys().collect::<Vec<_>>(), ["read", "rmdir"]);
    assert_eq!(reads(&observation, &file).len(), 2);
}

#[test]
fn chosen_and_refused_paths() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (_directory, file) = file();
    let directory = file.parent().expect("it is in a directory").display();
    let script =
        format!("cd {directory}; mkdir in out; echo a >in/a; echo b >in/b; echo c >out/c; rm in/a in/b; mv out/c in/d");
    let observation = Observe::with(["--path", "in/**", "--not-path", "**/b"]).run(["sh", "-ec", &script]);
    observation.balances();
    let mut paths: Vec<_> = observation.spans.operations().map(|span| span.path().to_owned()).collect();
    paths.sort_unstable();
    paths.dedup();
    // The rename counts by its second name.
    assert_eq!(paths, ["in/a", "out/c"].map(|name| format!("{directory}/{name}")), "{:#?}", observation.spans.all);
}

#[test]
fn chosen_and_refused_command_names() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (_directory, file) = file();
    let script = format!("cat {0} && head -c1 {0} && tail -c1 {0}", file.display());
    let observation = Observe::with(["--process", "?a*", "--not-process", "tail"]).run(["sh", "-ec", &script]);
    observation.balances();
    let names: Vec<_> =
        reads(&observation, &file).iter().map(|span| span.attribute("process.executable.name").to_owned()).collect();
    assert_eq!(names, ["cat", "cat"]);
}

#[test]
fn a_thousand_descendants_from_their_first_call() {
    if !has(&[Need::Probes]) {
        return;
    }
    let program = load();
    let observation = Observe::with(["--op", "open"]).run([program.as_os_str(), "forks".as_ref(), "1000".as_ref()]);
    observation.balances();
    let opens = observation.spans.named("open");
    let caches =
        opens.filter(|span| span.path() == "/etc/ld.so.cache" && span.attribute("process.executable.name") == "true");
    assert_eq!(caches.count(), 1000, "the first file that each opens");
}

#[test]
fn a_child_that_outlives_its_parent() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (directory, file) = file();
    let go = directory.path().join("go");
    // The parent ends at once; the grandchild waits for a file that only appears afterwards.
    let script = "(until [ -e go ]; do :; done; cat f >done) >/dev/null 2>&1 & exit 3";
    let observation = Observe::with(["--op", "mkdir"]).within(directory.path()).run_to_any_end(["sh", "-c", script]);
    assert_eq!(observation.output.status.code(), Some(3));
    fs::write(&go, "").expect("the sign to go on");
    eventually("the grandchild ends", || fs::read(directory.path().join("done")).is_ok_and(|read| read == b"x"));
    assert!(file.exists());
}
