//! A real OpenTelemetry Collector gets metrics over OTLP, and spans that waited on disk while it was away. No kernel side is needed.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fsi_agent::config::{Config, Endpoint};
use fsi_agent::span::{Above, Actor, ProcessSpan, Span, SpanBody, SpanId, SpanSink as _, TraceId};
use fsi_agent::telemetry::containers::{ContainerNames, NoContainers};
use fsi_agent::telemetry::export::{EndpointReport, Endpoints, EndpointsHandle, Gather, families};
use fsi_tests::collector::{Collector, free_port, program};
use fsi_tests::eventually::eventually;
use fsi_tests::fsi::succeed;
use fsi_tests::need::{self, Need, has};
use fsi_tests::spans::Spans;
use tempfile::tempdir;

const PATIENCE: Duration = Duration::from_secs(20);

fn collector() -> Option<PathBuf> {
    let program = program();
    if program.is_none() {
        need::skip("there is no OpenTelemetry Collector (`cargo xtask setup` builds it, with Go)");
    }
    program
}

/// The exporters of a configuration.
fn start(config: &str) -> (Endpoints, EndpointsHandle) {
    let config = Config::parse(config).expect("the configuration is right");
    let containers: Arc<dyn ContainerNames> = Arc::new(NoContainers);
    Endpoints::start(&config.otlp, config.spool.as_ref(), &containers).expect("the exporters start")
}

/// Spans with these ids.
fn send(sink: &mut Endpoints, ids: std::ops::Range<u64>) {
    for id in ids {
        sink.span(&Arc::new(Span {
            trace: TraceId([7; 16]),
            id: SpanId(id.to_be_bytes()),
            parent: None,
            above: Above::Nothing,
            start_unix_ns: 1_700_000_000_000_000_000,
            end_unix_ns: 1_700_000_000_000_001_000,
            actor: Actor { tgid: 1, tid: 1, uid: 0, comm: [0; 16], cgroup: 0 },
            body: SpanBody::Process(ProcessSpan { parent_tgid: 0, exit_code: None }),
        }));
    }
}

fn exported(reports: &[EndpointReport]) -> u64 {
    reports.iter().filter_map(|report| report.spans.as_ref()).map(|spans| spans.exported).sum()
}

/// Ids of what collectors received; none may have come twice.
fn ids(received: &[Spans]) -> BTreeSet<u64> {
    let all: Vec<_> = received.iter().flat_map(|spans| &spans.all).collect();
    let ids: BTreeSet<_> =
        all.iter().map(|span| u64::from_str_radix(&span.id, 16).expect("an id is hexadecimal")).collect();
    assert_eq!(ids.len(), all.len(), "every span once");
    ids
}

/// The collector is not there, comes, goes, and comes again, while the agent is replaced.
fn every_span_arrives_once(program: &Path, url: impl Fn(u16, u16) -> String) {
    let directory = tempdir().expect("a directory");
    let (grpc, http) = (free_port(), free_port());
    let config = format!(
        "version: 1
otlp: [{{ url: '{}', interval: 10ms, deadline: 4s }}]
spool: {{ directory: {}, size: 64MiB }}
",
        url(grpc, http),
        directory.path().display()
    );
    let (mut sink, handle) = start(&config);
    send(&mut sink, 1..1001);
    let reports = handle.flush(Duration::from_millis(300));
    let spans = reports[0].spans.as_ref().expect("it gets spans");
    assert_eq!((spans.exported, spans.lost(), spans.spool.waiting), (0, 0, 1000), "{spans:?}");

    let first = Collector::start_at(program, grpc, http);
    let (mut sink, handle) = start(&config);
    send(&mut sink, 1001..2001);
    eventually("what waited and what is new arrives", || exported(&handle.report()) == 2000);
    let (first, _) = first.received();
    send(&mut sink, 2001..3001);
    eventually("it is away again", || {
        handle.report()[0].spans.as_ref().is_some_and(|spans| spans.spool.waiting == 1000)
    });
    let second = Collector::start_at(program, grpc, http);
    eventually("the rest arrives", || exported(&handle.report()) == 3000);
    let reports = handle.flush(PATIENCE);
    let spans = reports[0].spans.as_ref().expect("it gets spans");
    assert_eq!((spans.lost(), spans.spool.recovered, spans.spool.bytes), (0, 1000, 0), "{spans:?}");
    let (second, _) = second.received();
    assert_eq!(ids(&[first, second]), (1..3001).collect());
}

#[test]
fn spans_wait_on_disk_for_a_collector_over_grpc() {
    let Some(program) = collector() else { return };
    every_span_arrives_once(&program, |grpc, _| format!("grpc://127.0.0.1:{grpc}"));
}

#[test]
fn spans_wait_on_disk_for_a_collector_over_http() {
    let Some(program) = collector() else { return };
    every_span_arrives_once(&program, |_, http| format!("http://127.0.0.1:{http}"));
}

#[test]
fn metrics_arrive_with_their_numbers() {
    let Some(program) = collector() else { return };
    let collector = Collector::start(&program);
    let urls = [format!("grpc://127.0.0.1:{}", collector.grpc), format!("http://127.0.0.1:{}", collector.http)];
    let endpoints = urls.map(|url| Endpoint { metrics: Some(Duration::from_secs(1)), ..Endpoint::at(&url) });
    let containers: Arc<dyn ContainerNames> = Arc::new(NoContainers);
    let (mut sink, mut handle) = Endpoints::start(&endpoints, None, &containers).expect("the exporters start");
    send(&mut sink, 1..6);
    eventually("spans arrive", || exported(&handle.report()) == 10);
    // The exporters' own numbers: there is nothing to observe here.
    let of_spans = handle.report();
    let pushes = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&pushes);
    let gather: Gather = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        families(&of_spans)
    });
    handle.push(&gather).expect("the pushers start");
    eventually("metrics are pushed", || {
        handle.report().iter().all(|report| report.metrics.is_some_and(|metrics| metrics.exported > 0))
    });
    let pushed: u64 = handle.flush(PATIENCE).iter().filter_map(|report| report.metrics).map(|push| push.exported).sum();
    assert_eq!(pushed, pushes.load(Ordering::Relaxed), "none was lost");
    let text = collector.metrics();
    assert_eq!(text.lines().count() as u64, pushed);
    for expected in [
        r#""name":"fsi_otlp_spans_total""#,
        r#""unit":"{spans}""#,
        r#""aggregationTemporality":2,"isMonotonic":true"#,
        r#""asInt":"5""#,
        r#"{"key":"outcome","value":{"stringValue":"exported"}}"#,
        r#"{"key":"service.name","value":{"stringValue":"fsi"}}"#,
        r#""startTimeUnixNano":"#,
    ] {
        assert!(text.contains(expected), "no {expected} in {}", &text[..text.len().min(3000)]);
    }
}

/// An authority; a server's and a client's certificate from it; and an authority that vouches for neither.
const CERTIFICATES: &str = "
for name in authority stranger; do
  openssl req -x509 -newkey rsa:2048 -nodes -keyout $name.key -out $name.pem -days 2 -subj /CN=$name
done
printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' > extensions
for name in server client; do
  openssl req -newkey rsa:2048 -nodes -keyout $name.key -out request -subj /CN=$name
  openssl x509 -req -in request -CA authority.pem -CAkey authority.key -CAcreateserial -days 2 -extfile extensions -out $name.pem
done
";

#[test]
fn certificates_are_checked_and_shown() {
    let Some(program) = collector() else { return };
    if !has(&[Need::Program("openssl")]) {
        return;
    }
    let directory = tempdir().expect("a directory");
    succeed(Command::new("sh").args(["-ec", CERTIFICATES]).current_dir(directory.path()));
    let file = |name: &str| directory.path().join(name).display().to_string();
    let (certificate, key, authority) = (file("server.pem"), file("server.key"), file("authority.pem"));
    let tls = format!(", tls: {{ cert_file: {certificate}, key_file: {key}, client_ca_file: {authority} }}");
    let (grpc, http) = (free_port(), free_port());
    let collector = Collector::start_with(&program, grpc, http, &tls);
    let identity = format!("cert_file: {}, key_file: {}", file("client.pem"), file("client.key"));
    let send_with = |url: &str, tls: &str, deadline: &str| {
        let (mut sink, handle) =
            start(&format!("version: 1\notlp: [{{ url: '{url}', deadline: {deadline}, tls: {{ {tls} }} }}]"));
        send(&mut sink, 1..11);
        let spans = handle.flush(PATIENCE).remove(0).spans.expect("it gets spans");
        assert_eq!(spans.exported + spans.lost(), 10);
        spans.exported
    };
    for url in [format!("grpcs://localhost:{grpc}"), format!("https://localhost:{http}")] {
        let (ours, stranger) = (format!("ca_file: {authority}"), format!("ca_file: {}", file("stranger.pem")));
        assert_eq!(send_with(&url, &format!("{ours}, {identity}"), "20s"), 10, "{url}");
        assert_eq!(send_with(&url, &ours, "2s"), 0, "{url} without a certificate of ours");
        assert_eq!(
            send_with(&url, &format!("{stranger}, {identity}"), "2s"),
            0,
            "{url} with an authority that is another"
        );
        assert_eq!(send_with(&url, &identity, "2s"), 0, "{url} with the authorities of the machine");
    }
    assert_eq!(collector.received().0.all.len(), 20);
}
