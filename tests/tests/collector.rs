//! A real OpenTelemetry Collector gets the spans, over gRPC and over HTTP, whole and nested; promtool accepts the metrics.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use fsi_tests::collector::{Collector, free_port, program};
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::text;
use fsi_tests::http;
use fsi_tests::need::{self, Need, has};
use fsi_tests::observe::{Observation, Observe};
use fsi_tests::spans::{Span, Spans};
use tempfile::tempdir;

/// Two processes, files, a failed open, names made and removed.
const WORK: &str = "mkdir d; echo hello >d/a; cat d/a; cat d/none 2>/dev/null || mv d/a d/b; rm -r d";

fn observe(otlp: &str) -> Observation {
    let directory = tempdir().expect("a directory");
    Observe::with(["--otlp", otlp]).within(directory.path()).run(["sh", "-c", WORK])
}

/// Sends over one protocol and compares what arrived with what was made.
fn delivers(url: impl FnOnce(&Collector) -> String) {
    if !has(&[Need::Probes]) {
        return;
    }
    let Some(program) = program() else {
        return need::skip("there is no OpenTelemetry Collector (`cargo xtask setup` builds it, with Go)");
    };
    let collector = Collector::start(&program);
    let observation = observe(&url(&collector));
    observation.balances();
    let (received, raw) = collector.received();
    assert!(raw.contains(r#"{"key":"service.name","value":{"stringValue":"fsi"}}"#), "{}", &raw[..raw.len().min(2000)]);
    assert_eq!(observation.metrics.losses(), Vec::<String>::new());
    assert_eq!(observation.metrics.sum("fsi_spans_total", "outcome", "exported"), received.all.len() as u64);
    let ids = |spans: &Spans| -> BTreeSet<_> { spans.all.iter().map(|span| span.id.clone()).collect() };
    assert_eq!(ids(&received), ids(&observation.spans), "every span once");
    assert_eq!(ids(&received).len(), received.all.len(), "ids are unique");
    is_nested(&received);
    says_what_happened(&received);
}

/// Operations are in their file, files in their process, processes in their parent.
fn is_nested(spans: &Spans) {
    let by_id = spans.by_id();
    let traces: BTreeSet<_> = spans.all.iter().map(|span| &span.trace).collect();
    assert_eq!(traces.len(), 1, "one command is one trace");
    let roots: Vec<_> = spans.all.iter().filter(|span| !by_id.contains_key(span.parent.as_str())).collect();
    assert!(roots.len() == 1 && roots[0].name == "process", "the command is the root: {roots:#?}");
    for span in &spans.all {
        assert!(span.start_ns <= span.end_ns, "{span:#?}");
        let Some(parent) = by_id.get(span.parent.as_str()) else { continue };
        let is_kind = match span.name.as_str() {
            "process" | "file" => parent.name == "process",
            _ => parent.name == "file" || parent.name == "process",
        };
        assert!(is_kind, "{} under {}", span.name, parent.name);
        assert!(parent.start_ns <= span.start_ns, "{span:#?} begins before {parent:#?}");
        // A library stays open as long as it is mapped: that it ended with its process is found a moment later.
        let is_found_later = span.attribute("fsi.file.close") == "unseen";
        assert!(is_found_later || span.end_ns <= parent.end_ns, "{span:#?} ends after {parent:#?}");
    }
}

/// One cat read the whole file: the file's span, the operations under it, their attributes.
fn says_what_happened(spans: &Spans) {
    let cat = |span: &&Span| span.attribute("process.executable.name") == "cat" && span.path().ends_with("/d/a");
    let file = spans.named("file").find(cat).expect("the file that cat opened");
    assert_eq!((file.number("fsi.file.bytes_read"), file.attribute("fsi.file.type")), (6, "regular"));
    let under: Vec<_> = spans.all.iter().filter(|span| span.parent == file.id).collect();
    let names: BTreeSet<_> = under.iter().map(|span| span.name.as_str()).collect();
    assert!(["open", "stat", "close"].iter().all(|name| names.contains(name)), "{names:?}");
    assert_eq!(under.len() as u64, file.number("fsi.file.operations"));
    let miss = spans.named("open").find(|span| span.path().ends_with("/d/none")).expect("the failed open");
    assert_eq!((miss.attribute("error.type"), miss.status), ("ENOENT", 0), "an expected miss is no error");
    let moved = spans.named("rename").next().expect("the rename");
    assert!(moved.path().ends_with("/d/a") && moved.attribute("fsi.target.path").ends_with("/d/b"), "{moved:#?}");
    assert!(spans.all.iter().all(|span| !span.attribute("process.pid").is_empty()), "everything is somebody's");
}

#[test]
fn over_grpc() {
    delivers(|collector| format!("grpc://127.0.0.1:{}", collector.grpc));
}

#[test]
fn over_http() {
    delivers(|collector| format!("http://127.0.0.1:{}/v1/traces", collector.http));
}

/// What promtool says of a text; nothing when it accepts it.
fn promtool(metrics: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), metrics).expect("the text in it");
    let input = Stdio::from(file.reopen().expect("it is there"));
    let output = Command::new("promtool").args(["check", "metrics"]).stdin(input).output().expect("promtool runs");
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn promtool_accepts_the_metrics() {
    if !has(&[Need::Probes, Need::Program("promtool")]) {
        return;
    }
    let directory = tempdir().expect("a directory");
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let running = Observe::with(["--all", "--metrics-listen", &listen]).within(directory.path()).start();
    eventually("somebody did something", || http::get(port, "/metrics").contains("fsi_operations_total{"));
    let served = http::get(port, "/metrics");
    running.stop();
    assert_eq!(promtool(&served), "");
    let metrics = directory.path().join("m");
    fsi_tests::fsi::succeed(fsi_tests::fsi::fsi(["observe", "--metrics"]).arg(&metrics).args([
        "--",
        "sh",
        "-c",
        "cat /etc/passwd /none; :",
    ]));
    assert_eq!(promtool(&fs::read_to_string(&metrics).expect("the metrics")), "");
}
