//! Where spans begin and end: mapped files, files that stay open, files and processes that were there before; and where the metrics
//! are served meanwhile.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]
#![expect(clippy::disallowed_types, reason = "the wall clock is what the times of spans are compared with")]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use fsi_tests::fsi::fsi;
use fsi_tests::need::{Need, has};
use fsi_tests::observe::Observe;
use fsi_tests::spans::Span;
use serde_json::Value;
use tempfile::tempdir;

fn encloses(outer: &Span, inner: &Span) -> bool {
    outer.start_ns <= inner.start_ns && inner.end_ns <= outer.end_ns
}

#[test]
fn mapped_files_are_within_their_process() {
    if !has(&[Need::Probes]) {
        return;
    }
    let observation = Observe::with(["--tree"]).run(["sh", "-c", "cat /dev/null; true"]);
    let spans = observation.spans.by_id();
    let mut unseen = 0;
    for file in observation.spans.named("file") {
        let process = spans.get(file.parent.as_str()).expect("a file has a process");
        assert_eq!(process.name, "process");
        assert!(encloses(process, file), "{process:#?}\n{file:#?}");
        unseen += usize::from(file.attribute("fsi.file.close") == "unseen");
    }
    assert!(unseen > 0, "shared libraries stay mapped");
    let drawn = String::from_utf8_lossy(&observation.output.stderr).into_owned();
    assert!(drawn.starts_with("process sh "), "{drawn}");
    assert!(!drawn.lines().any(|line| line.starts_with("file /")), "files are under their processes:\n{drawn}");
}

#[test]
fn a_file_that_stays_open_has_its_totals() {
    if !has(&[Need::Probes]) {
        return;
    }
    let directory = tempdir().expect("a directory");
    let path = directory.path().canonicalize().expect("it is there").join("f");
    let script = "exec 3>\"$0\"; echo one >&3; echo two >&3; sleep 6";
    let observation = Observe::with(["--failed", "--for", "3s", "--json"]).run([
        "sh".as_ref(),
        "-c".as_ref(),
        script.as_ref(),
        path.as_os_str(),
    ]);
    let path = path.to_str().expect("a plain path");
    let file = observation.spans.expect("file", path);
    assert_eq!((file.attribute("fsi.file.close"), file.number("fsi.file.bytes_written")), ("open", 8));
    let summary = observation.summary();
    let row = summary["files"].as_array().and_then(|rows| rows.iter().find(|row| row["path"] == path));
    let row = row.expect("the file is in the table");
    assert_eq!((&row["written_bytes"], &row["still_open"]), (&Value::from(8), &Value::from(1)));
    assert!(observation.metrics.total("fsi_open_files") > 0);
    let [_, spans, sampled_out, _] = observation.balances();
    assert!(spans > 0 && sampled_out > 0);
}

#[test]
fn without_spans_every_operation_was_not_asked_for() {
    if !has(&[Need::Probes]) {
        return;
    }
    let output = fsi(["observe", "--json", "--", "cat", "/dev/null"]).output().expect("fsi runs");
    let summary: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let events = &summary["events"];
    assert_eq!((&events["spans"], &events["seen"]), (&Value::from(0), &events["not_asked_for"]));
    assert_ne!(events["seen"], 0);
}

#[test]
fn what_was_there_before_begins_at_first_sight() {
    if !has(&[Need::Probes]) {
        return;
    }
    let directory = tempdir().expect("a directory");
    let path = directory.path().canonicalize().expect("it is there").join("f");
    fs::write(&path, "x").expect("a file");
    let mut file = File::open(&path).expect("it is there");
    let before = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    let running = Observe::with(["--pid", &std::process::id().to_string()]).start();
    file.rewind().expect("a file can seek");
    file.read_exact(&mut [0]).expect("it holds a byte");
    let observation = running.stop();
    let before = u64::try_from(before).expect("not so late");
    let span = observation.spans.expect("file", path.to_str().expect("a plain path"));
    assert_eq!(span.attribute("fsi.file.open_before"), "true");
    for span in &observation.spans.all {
        assert!(span.start_ns >= before, "{span:#?}");
    }
}

#[test]
fn a_child_that_outlives_its_parent_is_drawn_under_it() {
    if !has(&[Need::Probes]) {
        return;
    }
    let mut command = fsi(["observe", "--tree", "--"]);
    // The inner shell ends at once; its child goes on reading while the outer one waits.
    command.args(["sh", "-c", "sh -c 'sleep 0.3 & exit 0'; sleep 0.6"]);
    let drawn = Command::output(&mut command).expect("fsi runs");
    let drawn = String::from_utf8_lossy(&drawn.stderr).into_owned();
    let indent = |needle: &str| drawn.lines().find_map(|line| line.find(needle)).unwrap_or_else(|| panic!("{drawn}"));
    assert_eq!(drawn.lines().filter(|line| line.starts_with("process")).count(), 1, "{drawn}");
    assert!(indent("process sleep") > indent("process sh"), "{drawn}");
}

#[test]
fn a_free_port_for_the_metrics_is_told() {
    if !has(&[Need::Probes]) {
        return;
    }
    let output = fsi(["observe", "--metrics-listen", "127.0.0.1:0", "--", "true"]).output().expect("fsi runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let port = said.strip_prefix("fsi: metrics at http://127.0.0.1:").and_then(|rest| rest.split_once("/metrics"));
    assert!(port.is_some_and(|(port, _)| port.parse::<u16>().is_ok_and(|port| port != 0)), "{said}");
}
