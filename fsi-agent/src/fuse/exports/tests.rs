//! Hand-made reports, through the real outputs.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::spans::SpanMaker;
use super::*;
use crate::fuse::report::Throttled;
use crate::rules::decision::{Effect, Fault, FaultEntry, FaultKind};
use crate::rules::op::Op;
use crate::span::{MountedVolume, Span, SpanBody};
use crate::telemetry::defs;

const DEVICE: u32 = 52;
const MS: u64 = 1_000_000;

fn opened(open_file: u64, at_ns: u64) -> FileReport {
    FileReport::Opened {
        open_file,
        dev: DEVICE,
        ino: 99,
        mode: 0o100_644,
        path: Arc::from(&b"a/f"[..]),
        tid: 43,
        uid: 1000,
        flags: 2,
        at_ns,
        passthrough: false,
    }
}

fn report(op: Op, open_file: u64, started_ns: u64) -> OpReport {
    OpReport {
        unique: 7,
        dev: DEVICE,
        op,
        ino: 99,
        mode: 0o100_644,
        path: Arc::from(&b"a/f"[..]),
        target: None,
        tid: 43,
        uid: 1000,
        open_file,
        open_flags: None,
        offset: Some(4096),
        asked: Some(100),
        done: Some(60),
        errno: 0,
        started_ns,
        answered_ns: started_ns + 10 * MS,
        backing_ns: 2 * MS,
        delay_ns: 5 * MS,
        throttle_ns: MS,
        throttle: Throttled::No,
        faults: Vec::new(),
    }
}

fn fault(rule: &str, kind: FaultKind, errno: Option<i32>) -> FaultEntry {
    FaultEntry {
        sequence: 3,
        unix_ns: 1_700_000_000_000_000_000,
        fault: Fault { rule: rule.into(), kind, errno, delay: Duration::from_millis(5) },
        op: Op::Write,
        path: Arc::from(&b"a/f"[..]),
        ordinal: 9,
        ino: 99,
        pid: 43,
        uid: 1000,
        offset: 4096,
        asked: 100,
        done: 60,
        effect: Effect::Done,
    }
}

fn config(directory: &Path) -> ExportsConfig {
    ExportsConfig {
        target: "/mnt/x/".into(),
        volume: Some("vol".to_owned()),
        namespace: Some("shop".to_owned()),
        otlp: None,
        otlp_deadline: Duration::ZERO,
        spans: Some(directory.join("spans")),
        metrics: Some(directory.join("metrics")),
    }
}

/// All spans of a file of lines.
fn spans_in(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.flat_map(|line| line["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()).collect()
}

fn attributes(of: &Value) -> HashMap<String, String> {
    let pair = |attribute: &Value| {
        let value = attribute["value"].as_object().unwrap().values().next().unwrap();
        (attribute["key"].as_str().unwrap().to_owned(), value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    };
    of["attributes"].as_array().unwrap().iter().map(pair).collect()
}

#[track_caller]
fn check(of: &Value, expected: &[(&str, &str)]) {
    let attributes = attributes(of);
    for (key, value) in expected {
        assert_eq!(attributes.get(*key).map(String::as_str), Some(*value), "{key}");
    }
}

#[test]
fn a_file_its_operations_and_its_faults_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let exports = Exports::start(config(directory.path())).unwrap();
    let mut write = report(Op::Write, 5, 2_000 * MS);
    write.errno = libc::EIO;
    write.faults = vec![fault("flaky", FaultKind::Errno, Some(libc::EIO)), fault("slow", FaultKind::Delay, None)];
    let mut lookup = report(Op::Lookup, 0, 500 * MS);
    lookup.errno = libc::ENOENT;
    exports.operation(lookup);
    exports.file(opened(5, 1_000 * MS));
    exports.operation(write);
    exports.operation(report(Op::Read, 5, 3_000 * MS));
    exports.file(FileReport::Released { open_file: 5, at_ns: 4_000 * MS });
    let summary = exports.finish().unwrap();
    assert_eq!((summary.spans, summary.written, &*summary.errors), (4, 4, &[][..]));
    assert!(summary.losses.iter().all(|(_, _, count)| *count == 0), "{summary:?}");
    // It came too late: counted, not told.
    exports.operation(report(Op::Read, 0, 0));
    assert_eq!(exports.refused.closed.load(Ordering::Relaxed), 1);
    assert!(exports.finish().is_none());

    let spans = spans_in(&directory.path().join("spans"));
    let named = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let (file, write, read, lookup) = (named("file"), named("write"), named("read"), named("lookup"));
    let totals = [
        ("file.path", "/mnt/x/a/f"),
        ("fsi.file.operations", "2"),
        ("fsi.file.bytes_read", "60"),
        ("fsi.file.errors", "1"),
        ("fsi.file.close", "closed"),
        ("fsi.file.open_before", "false"),
    ];
    check(file, &totals);
    for child in [write, read] {
        assert_eq!((&child["parentSpanId"], &child["traceId"]), (&file["spanId"], &file["traceId"]));
    }
    assert_ne!(lookup["traceId"], file["traceId"]);
    // What is not there is an answer, also here.
    assert_eq!(lookup["status"]["code"].as_i64().unwrap_or(0), 0, "{lookup}");
    let parts = [
        ("fsi.overhead_ns", "2000000"),
        ("fsi.injected_ns", "5000000"),
        ("fsi.throttle_ns", "1000000"),
        ("fsi.backing_ns", "2000000"),
        ("fsi.volume", "vol"),
        ("k8s.namespace.name", "shop"),
        ("thread.id", "43"),
        ("fsi.device", "0:52"),
        ("error.type", "EIO"),
    ];
    check(write, &parts);
    for missing in ["process.pid", "fsi.cgroup", "fsi.syscall"] {
        assert!(!attributes(write).contains_key(missing), "{missing}");
    }
    let events = write["events"].as_array().unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!((&events[0]["name"], &events[0]["timeUnixNano"]), (&"fsi.fault".into(), &"1700000000000000000".into()));
    let expected = [
        ("fsi.fault.rule", "flaky"),
        ("fsi.fault.kind", "errno"),
        ("fsi.fault.errno", "EIO"),
        ("fsi.fault.delay_ns", "5000000"),
        ("fsi.fault.asked", "100"),
        ("fsi.fault.done", "60"),
        ("fsi.fault.ordinal", "9"),
        ("fsi.fault.sequence", "3"),
    ];
    check(&events[0], &expected);
    assert!(!attributes(&events[1]).contains_key("fsi.fault.errno"));
    for of in spans.iter().chain(events) {
        for key in attributes(of).into_keys() {
            assert!(defs::attribute::ALL.contains(&key.as_str()), "{key}");
        }
    }
}

#[test]
fn operations_are_counted_by_what_happened_to_them() {
    let directory = tempfile::tempdir().unwrap();
    let exports = Exports::start(config(directory.path())).unwrap();
    for (throttle, errno) in [(Throttled::No, 0), (Throttled::Waited, libc::EIO), (Throttled::Again, libc::EAGAIN)] {
        exports.operation(OpReport { throttle, errno, ..report(Op::Write, 0, 0) });
    }
    let mut read = report(Op::Read, 0, 0);
    read.faults = (0..70).map(|n| fault(&format!("rule{n:02}"), FaultKind::Delay, None)).collect();
    read.faults.push(fault("rule00", FaultKind::Errno, Some(libc::EIO)));
    exports.operation(read);
    exports.file(opened(5, 0));
    exports.finish().unwrap();
    let text = fs::read_to_string(directory.path().join("metrics")).unwrap();
    let series = "container=\"\",device=\"0:52\",op=";
    for line in [
        &format!("fsi_operations_total{{{series}\"write\"}} 3"),
        &format!("fsi_errors_total{{{series}\"write\",errno=\"EIO\"}} 1"),
        &format!("fsi_bytes_total{{{series}\"write\",direction=\"write\"}} 180"),
        &format!("fsi_bytes_total{{{series}\"read\",direction=\"read\"}} 60"),
        // 10 ms are below 2^24 ns and not below 2^23 ns.
        &format!("fsi_operation_duration_seconds_bucket{{{series}\"write\",le=\"0.008388608\"}} 0"),
        &format!("fsi_operation_duration_seconds_bucket{{{series}\"write\",le=\"0.016777216\"}} 3"),
        &format!("fsi_operation_duration_seconds_sum{{{series}\"write\"}} 0.03"),
        "fsi_interposer_overhead_seconds_count{op=\"read\"} 1",
        "fsi_interposer_overhead_seconds_sum{op=\"read\"} 0.002",
        "fsi_throttled_operations_total{outcome=\"waited\"} 1",
        "fsi_throttled_operations_total{outcome=\"again\"} 1",
        "fsi_throttle_wait_seconds_total 0.004",
        "fsi_faults_injected_total{rule=\"rule00\",kind=\"delay\",errno=\"\"} 1",
        "fsi_faults_injected_total{rule=\"rule00\",kind=\"errno\",errno=\"EIO\"} 1",
        "fsi_faults_injected_total{rule=\"other\",kind=\"delay\",errno=\"\"} 6",
        "fsi_lost_total{stage=\"metrics\",reason=\"series\"} 6",
        "fsi_lost_total{stage=\"reports\",reason=\"queue_full\"} 0",
        "fsi_spans_total{outcome=\"written\"} 5",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("rule64"));
}

#[test]
fn what_does_not_fit_is_counted() {
    let refused = Arc::new(Refused::default());
    let (queue, reports) = crossbeam_channel::bounded(2);
    let ended = AtomicBool::new(false);
    let exports = Exports { queue, refused: Arc::clone(&refused), ended, worker: Mutex::new(None) };
    (0..5).for_each(|_| exports.operation(report(Op::Read, 0, 0)));
    assert_eq!(refused.full.load(Ordering::Relaxed), 3);
    drop(reports);
    exports.file(opened(1, 0));
    assert_eq!(refused.closed.load(Ordering::Relaxed), 1);
}

#[test]
fn an_output_that_cannot_be_had_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let bad = ExportsConfig { metrics: Some("/no/such/file".into()), ..config(directory.path()) };
    let sentence = Exports::start(bad).unwrap_err().to_string();
    assert!(sentence.starts_with("--metrics /no/such/file: cannot be written"), "{sentence}");
    assert!(!directory.path().join("spans").exists(), "nothing is left behind");
    let bad = ExportsConfig { otlp: Some("nonsense".to_owned()), ..config(directory.path()) };
    assert!(Exports::start(bad).unwrap_err().to_string().starts_with("--otlp: otlp url `nonsense`"));
}

fn told(act: impl FnOnce(&mut dyn FnMut(Span))) -> Vec<Span> {
    let mut spans = Vec::new();
    act(&mut |span| spans.push(span));
    spans
}

#[test]
fn a_released_file_waits_for_its_last_operations() {
    let mut maker = SpanMaker::new(Path::new("/"), MountedVolume::default());
    let create = maker.operation(report(Op::Create, 5, 900 * MS));
    maker.file(opened(5, 1_000 * MS));
    maker.file(FileReport::Released { open_file: 5, at_ns: 2_000 * MS });
    assert_eq!(maker.open_files(), 0);
    assert!(told(|told| maker.tick(2_500 * MS, told)).is_empty());
    let late = maker.operation(report(Op::Write, 5, 1_995 * MS));
    let spans = told(|told| maker.tick(3_000 * MS, told));
    let [file] = &*spans else { panic!("{spans:?}") };
    let SpanBody::File(body) = &file.body else { panic!("{file:?}") };
    assert_eq!((body.totals.operations, body.open_before, body.segment), (2, false, 0));
    assert_eq!(&*body.path.as_ref().unwrap().bytes, b"/a/f");
    assert_eq!([create.parent, late.parent], [Some(file.id); 2]);
    // From the beginning of its open to the end of its last operation.
    assert_eq!((file.start_unix_ns, file.end_unix_ns), (create.start_unix_ns, late.end_unix_ns));
    assert!(told(|told| maker.finish(9_000 * MS, told)).is_empty());
}

#[test]
fn a_file_from_before_is_told_in_segments() {
    let mut maker = SpanMaker::new(Path::new("/mnt"), MountedVolume::default());
    let first = maker.operation(report(Op::Read, 8, 1_000 * MS));
    assert!(told(|told| maker.tick(60_999 * MS, told)).is_empty());
    let segments = told(|told| maker.tick(61_000 * MS, told));
    assert!(told(|told| maker.tick(200_000 * MS, told)).is_empty(), "nothing was done in it");
    let second = maker.operation(report(Op::Read, 8, 210_000 * MS));
    let rest = told(|told| maker.finish(220_000 * MS, told));
    let facts = |span: &Span| match &span.body {
        SpanBody::File(file) => (file.segment, file.totals.operations, file.open_before, file.close),
        SpanBody::Process(_) | SpanBody::Operation(_) => panic!("{span:?}"),
    };
    assert_eq!(segments.iter().map(facts).collect::<Vec<_>>(), [(0, 1, true, None)]);
    assert_eq!(rest.iter().map(facts).collect::<Vec<_>>(), [(1, 2, true, None)]);
    assert_eq!((first.parent, second.parent), (Some(segments[0].id), Some(rest[0].id)));
    assert_eq!(segments[0].trace, rest[0].trace);
}

#[test]
fn operations_without_an_open_file_stand_alone() {
    let mut maker = SpanMaker::new(Path::new("/mnt"), MountedVolume::default());
    let mut rename = report(Op::Rename, 0, MS);
    rename.target = Some(Arc::from(&b"b"[..]));
    rename.path = Arc::from(&b""[..]);
    let (one, two) = (maker.operation(rename), maker.operation(report(Op::Unlink, 0, MS)));
    assert_eq!((one.parent, two.parent), (None, None));
    assert_ne!(one.trace, two.trace);
    let SpanBody::Operation(op) = &one.body else { panic!("{one:?}") };
    let paths = [&op.path, &op.target].map(|path| path.as_ref().unwrap().bytes.to_vec());
    assert_eq!(paths, [b"/mnt".to_vec(), b"/mnt/b".to_vec()]);
}
