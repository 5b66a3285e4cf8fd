//! Bad input and bad luck: one clear sentence or a counted loss; the command's exit code and its output are never touched.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use fsi_tests::collector::free_port;
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::{binary, fsi, output, text, wrapped};
use fsi_tests::need::{Need, has};
use fsi_tests::observe::Observe;
use fsi_tests::prom::Metrics;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::tempdir;

/// Fails unless it ended with that code and said exactly one sentence; returns the sentence.
fn one_sentence(output: &Output, code: i32) -> String {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.starts_with("fsi: ") && said.trim_end().lines().count() == 1, "one sentence: {said}");
    assert!(output.stdout.is_empty(), "nothing on stdout: {}", text(&output.stdout));
    said
}

/// Runs `fsi observe` with arguments that it must refuse; the command must not have run.
fn refused(arguments: &[&str], code: i32) -> String {
    let directory = tempdir().expect("a directory");
    let mut command = fsi(["observe"]);
    command.args(arguments).current_dir(directory.path());
    let sentence = one_sentence(&output(&mut command), code);
    assert_eq!(fs::read_dir(directory.path()).expect("it is there").count(), 0, "nothing ran, nothing is left");
    sentence
}

#[test]
fn malformed_options() {
    for arguments in [
        &["--path", "a[", "--", "touch", "x"][..],
        &["--not-process", "{a", "--", "touch", "x"],
        &["--ring", "1KiB", "--", "touch", "x"],
        &["--ring", "5000", "--", "touch", "x"],
        &["--ring", "12Q", "--", "touch", "x"],
        &["--slower", "5parsecs", "--", "touch", "x"],
        &["--sample", "2/3", "--tree", "--", "touch", "x"],
        &["--sample", "1/0", "--tree", "--", "touch", "x"],
        &["--op", "read,frobnicate", "--", "touch", "x"],
        &["--for", "-1s", "--", "touch", "x"],
        &["--otlp", "not a url", "--", "touch", "x"],
        &["--pid", "1", "--all"],
        &["--pid", "0"],
        &["--all", "--", "touch", "x"],
        &["--cgroup", "/etc"],
        &["--no-such-option", "--", "touch", "x"],
        &[],
    ] {
        refused(arguments, 2);
    }
}

#[test]
fn a_refusal_names_what_is_allowed() {
    assert!(refused(&["--op", "frobnicate", "--all"], 2).contains("frobnicate"));
    assert!(refused(&["--ring", "1KiB", "--all"], 2).contains("4"));
    assert!(refused(&["--path", "a[", "--all"], 2).contains("--path"));
}

#[test]
fn commands_that_cannot_be_run() {
    if !has(&[Need::Probes]) {
        return;
    }
    assert!(refused(&["--", "no-such-command-here"], 127).contains("no-such-command-here"));
    assert!(refused(&["--", "/no/such/command"], 127).contains("/no/such/command"));
    assert!(refused(&["--", "/etc/passwd"], 126).contains("/etc/passwd"));
    assert!(refused(&["--", "/etc"], 126).contains("/etc"));
}

#[test]
fn a_script_without_its_interpreter() {
    if !has(&[Need::Probes]) {
        return;
    }
    let directory = tempdir().expect("a directory");
    let script = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a script");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("it can be executed");
        path
    };
    let run = |path: &Path| output(fsi(["observe", "--"]).arg(path));
    one_sentence(&run(&script("none", "#!/no/such/interpreter\n")), 127);
    one_sentence(&run(&script("garbage", "\0\0\0\0")), 126);
}

#[test]
fn outputs_that_cannot_be_written() {
    for option in ["--spans", "--metrics"] {
        let sentence = refused(&[option, "/no/such/directory/x", "--", "touch", "x"], 1);
        assert!(sentence.contains("/no/such/directory/x"), "{sentence}");
        refused(&[option, "/", "--", "touch", "x"], 1);
    }
}

#[test]
fn a_process_that_is_gone() {
    let mut child = Command::new("true").spawn().expect("true");
    let pid = child.id().to_string();
    child.wait().expect("it ends");
    assert!(refused(&["--pid", &pid], 1).contains(&pid));
}

#[test]
fn not_root() {
    if !has(&[Need::Probes, Need::Program("setpriv")]) {
        return;
    }
    // A copy, for others may not go where the build is.
    let directory = tempdir().expect("a directory");
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("it is open to all");
    let copy = directory.path().join("fsi");
    fs::copy(binary(), &copy).expect("a copy");
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["observe", "--", "echo", "ran"]);
    let sentence = one_sentence(&output(&mut command), 1);
    assert!(sentence.contains("root"), "{sentence}");
}

#[test]
fn a_kernel_without_btf() {
    if !has(&[Need::Probes, Need::Program("unshare")]) {
        return;
    }
    let script = r#"mount -t tmpfs none /sys/kernel/btf; exec "$0" observe -- echo ran"#;
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]).arg(binary());
    let sentence = one_sentence(&output(&mut command), 1);
    assert!(sentence.contains("BTF"), "{sentence}");
}

#[test]
fn exit_codes_are_passed_on() {
    if !has(&[Need::Probes]) {
        return;
    }
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
    {
        let output = output(fsi(["observe", "--", "sh", "-c", script]).stderr(Stdio::null()));
        assert_eq!(output.status.code(), Some(code), "{script}");
    }
}

#[test]
fn inputs_and_outputs_are_untouched() {
    if !has(&[Need::Probes]) {
        return;
    }
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut command = fsi(["observe", "--", "sh", "-c", "printf 'on stderr\\n' >&2; exec cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("fsi starts");
    let mut input = child.stdin.take().expect("it is piped");
    let writer = std::thread::spawn({
        let bytes = bytes.clone();
        move || input.write_all(&bytes)
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the writer ends").expect("all is read");
    assert!(output.stdout == bytes, "stdout is the command's, to the byte");
    assert!(output.stderr.starts_with(b"on stderr\n"), "{}", text(&output.stderr));
}

#[test]
fn the_smallest_ring_counts_what_it_loses() {
    if !has(&[Need::Probes]) {
        return;
    }
    let observation =
        Observe::with(["--ring", "4KiB"]).run(["sh", "-c", "for i in 1 2 3 4 5; do ls -l /usr/bin >/dev/null; done"]);
    let [.., lost] = observation.balances();
    assert!(lost > 0, "a page is too small for a thousand stats");
    assert!(
        text(&observation.output.stderr).contains("ring"),
        "the summary says so: {}",
        text(&observation.output.stderr)
    );
}

/// Starts `sleep` under observation, as a job of its own like a shell's; sends a signal when it sleeps.
fn interrupted(send: impl FnOnce(Pid)) -> (Output, Metrics) {
    let directory = tempdir().expect("a directory");
    let metrics = directory.path().join("metrics");
    let mut command = fsi(["observe", "--metrics"]);
    command.arg(&metrics).args(["--", "sh", "-c", ": >begun; exec sleep 100"]).current_dir(directory.path());
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("fsi starts");
    eventually("the command runs", || directory.path().join("begun").exists());
    send(Pid::from_child(&child));
    let output = child.wait_with_output().expect("fsi ends");
    (output, Metrics::read(&metrics))
}

#[test]
fn control_c_in_the_middle() {
    if !has(&[Need::Probes]) {
        return;
    }
    // The terminal sends it to the whole job.
    let (output, metrics) = interrupted(|fsi| kill_process_group(fsi, Signal::INT).expect("the job runs"));
    assert_eq!(output.status.code(), Some(130), "the command's: killed by SIGINT");
    assert!(text(&output.stderr).contains("operations"), "the summary is there: {}", text(&output.stderr));
    assert!(metrics.total("fsi_operations_total") > 0);
}

#[test]
fn a_termination_is_passed_on() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (output, metrics) = interrupted(|fsi| kill_process(fsi, Signal::TERM).expect("fsi runs"));
    assert_eq!(output.status.code(), Some(143), "the command's: killed by SIGTERM");
    assert!(metrics.total("fsi_operations_total") > 0);
}

#[test]
fn an_observation_for_some_time() {
    if !has(&[Need::Probes]) {
        return;
    }
    let output = output(&mut fsi(["observe", "--all", "--for", "200ms", "--json"]));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).expect("the summary is JSON");
    assert!(summary["duration_ns"].as_u64().is_some_and(|ns| ns >= 200_000_000), "{summary}");
}

/// Observes a command that ends with 7 while its spans go to a collector that does not take them: all are counted as lost.
fn bad_collector(url: &str) {
    let observation = Observe::with(["--otlp", url, "--otlp-deadline", "500ms"]).run_to_any_end([
        "sh",
        "-c",
        "cat /etc/passwd; exit 7",
    ]);
    assert_eq!(observation.output.status.code(), Some(7), "{}", text(&observation.output.stderr));
    assert!(
        observation.output.stdout.starts_with(&fs::read("/etc/passwd").expect("it is there")),
        "its output is whole"
    );
    observation.balances();
    let lost = observation.metrics.sum("fsi_lost_total", "stage", "export");
    let exported = observation.metrics.sum("fsi_spans_total", "outcome", "exported");
    assert_eq!((exported, lost), (0, observation.spans.all.len() as u64), "{:?}", observation.metrics.losses());
}

#[test]
fn a_collector_that_refuses() {
    if !has(&[Need::Probes]) {
        return;
    }
    let port = free_port();
    bad_collector(&format!("grpc://127.0.0.1:{port}"));
    bad_collector(&format!("http://127.0.0.1:{port}"));
}

#[test]
fn a_collector_that_stalls() {
    if !has(&[Need::Probes]) {
        return;
    }
    // Connections are taken, and nobody answers.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    bad_collector(&format!("grpc://127.0.0.1:{port}"));
    bad_collector(&format!("http://127.0.0.1:{port}"));
}

#[test]
fn a_collector_that_dies() {
    if !has(&[Need::Probes]) {
        return;
    }
    // Every connection ends as soon as it is made.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    bad_collector(&format!("grpc://127.0.0.1:{port}"));
    bad_collector(&format!("http://127.0.0.1:{port}"));
}

#[test]
fn the_doctor_answers() {
    let output = output(&mut fsi(["doctor", "--json"]));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert!(document.is_object(), "{document}");
    assert!(!text(&fsi_tests::fsi::output(&mut fsi(["doctor"])).stdout).is_empty(), "words for a person");
}

/// What the doctor says of a capability, and whether it says that observing is possible, when run with those privileges alone.
fn examined(privileges: &str, capability: &str) -> (Value, bool) {
    let output = output(with_only(privileges).args(["doctor", "--json"]));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one JSON document");
    let all = document["capabilities"].as_array().expect("capabilities");
    let of_it = all.iter().find(|entry| entry["name"] == capability).expect("it is told of");
    (of_it.clone(), document["observing"]["possible"] == true)
}

fn with_only(privileges: &str) -> Command {
    let mut command = wrapped("setpriv");
    command.args(["--no-new-privs", "--bounding-set", &format!("-all,{privileges}")]).arg(binary());
    command
}

#[test]
fn two_privileges_are_enough_and_the_doctor_says_the_same() {
    if !has(&[Need::Probes, Need::Program("setpriv")]) {
        return;
    }
    let mut other = Command::new("sleep").arg("60").uid(65_534).spawn().expect("sleep starts");
    let pid = other.id().to_string();
    let another_users = output(with_only("+bpf,+perfmon").args(["observe", "--pid", &pid, "--for", "100ms"]));
    other.kill().and_then(|()| other.wait()).expect("it ends");
    assert_eq!(another_users.status.code(), Some(0), "{}", text(&another_users.stderr));
    let (capability, possible) = examined("+bpf,+perfmon", "privileges");
    assert_eq!((capability["state"].as_str(), possible), (Some("ok"), true), "{capability}");
    for too_few in ["+bpf", "+perfmon"] {
        let said = one_sentence(&output(with_only(too_few).args(["observe", "--", "true"])), 1);
        let (capability, possible) = examined(too_few, "privileges");
        assert_eq!((capability["state"].as_str(), possible), (Some("missing"), false), "{capability}");
        let remedy = capability["remedy"].as_str().expect("what to do");
        assert!(remedy.ends_with("give the process CAP_BPF and CAP_PERFMON") && said.contains(remedy), "{said}");
        assert_eq!(examined(too_few, "join").0["state"], "unknown");
    }
}

#[test]
fn the_doctor_says_whether_requests_to_mounts_can_be_told() {
    if !has(&[Need::Probes]) {
        return;
    }
    let (capability, possible) = examined("+bpf,+perfmon", "join");
    assert!(possible);
    let has_hook =
        fs::read_to_string("/proc/kallsyms").is_ok_and(|names| names.contains(" __traceiter_fuse_request_send"));
    assert_eq!(capability["state"], if has_hook { "ok" } else { "missing" }, "{capability}");
    assert_eq!(capability["remedy"].is_null(), has_hook, "{capability}");
}
