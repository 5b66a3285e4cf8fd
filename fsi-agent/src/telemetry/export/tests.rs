//! The exporter against servers: a good one of each protocol, and all kinds of bad ones.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span as ProtoSpan;
use prost::Message as _;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::*;
use crate::telemetry::samples;

mod away;
mod several;

type Received = Arc<Mutex<Vec<ProtoSpan>>>;

fn spans_of(request: ExportTraceServiceRequest) -> impl Iterator<Item = ProtoSpan> {
    request.resource_spans.into_iter().flat_map(|resource| {
        assert!(resource.resource.unwrap().attributes.iter().any(|attribute| attribute.key == "service.name"));
        resource.scope_spans.into_iter().flat_map(|scope| scope.spans)
    })
}

/// A collector that speaks gRPC; it answers `Unavailable` so many times first.
struct GrpcCollector {
    received: Received,
    unavailable: AtomicU64,
}

#[tonic::async_trait]
impl TraceService for GrpcCollector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        if self.unavailable.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
            return Err(Status::unavailable("later"));
        }
        self.received.lock().unwrap().extend(spans_of(request.into_inner()));
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

fn grpc_collector(unavailable: u64) -> (String, Received) {
    let received = Received::default();
    let collector = GrpcCollector { received: Arc::clone(&received), unavailable: unavailable.into() };
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            tell.send(incoming.local_addr().unwrap()).unwrap();
            Server::builder()
                .add_service(TraceServiceServer::new(collector))
                .serve_with_incoming(incoming)
                .await
                .unwrap();
        });
    });
    (format!("grpc://{}", told.recv().unwrap()), received)
}

/// A server that does `answer` with each connection.
fn tcp_server(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().for_each(|stream| answer(stream.unwrap())));
    format!("http://{addr}")
}

/// One request: its head and its body.
fn read_request(stream: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    reader.read_line(&mut head).ok().filter(|read| *read > 0)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        head.push_str(&line);
        let line = line.trim().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Some((head, body))
}

/// A collector that speaks HTTP and answers with these statuses in turn, the last one for ever.
fn http_collector(statuses: &'static [u16]) -> (String, Received) {
    let received = Received::default();
    let spans = Arc::clone(&received);
    let turn = AtomicU64::new(0);
    let url = tcp_server(move |mut stream| {
        while let Some((first, body)) = read_request(&stream) {
            assert!(first.starts_with("POST /v1/traces "), "{first}");
            let turn = usize::try_from(turn.fetch_add(1, Ordering::Relaxed)).unwrap();
            let status = statuses[turn.min(statuses.len() - 1)];
            if status == 200 {
                let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                spans.lock().unwrap().extend(spans_of(request));
            }
            write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    (url, received)
}

fn options() -> OtlpOptions {
    OtlpOptions {
        interval: Duration::from_millis(10),
        batch_deadline: Duration::from_millis(1500),
        ..OtlpOptions::default()
    }
}

fn push(sink: &mut OtlpSink, count: usize) {
    let span = samples::read("/data/f");
    (0..count).for_each(|_| sink.span(&span));
}

/// Losses that happened, by reason.
fn lost(report: &ExportReport) -> BTreeMap<&str, u64> {
    report.losses.iter().filter(|(_, _, count)| *count > 0).map(|(_, reason, count)| (*reason, *count)).collect()
}

fn run(url: &str, options: OtlpOptions, spans: usize, deadline: Duration) -> ExportReport {
    let (mut sink, handle) = OtlpSink::start(url, options).unwrap();
    push(&mut sink, spans);
    let report = handle.flush(deadline);
    assert_eq!(report.exported + report.lost(), spans as u64, "{report:?}");
    report
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn spans_arrive_over_grpc() {
    let (url, received) = grpc_collector(0);
    let report = run(&url, options(), 5000, LONG);
    assert_eq!((report.exported, report.error), (5000, None));
    let received = received.lock().unwrap();
    assert_eq!(received.len(), 5000);
    let span = &received[0];
    assert_eq!(
        (span.name.as_str(), span.span_id.as_slice(), span.parent_span_id.as_slice()),
        ("read", &[3; 8][..], &[2; 8][..])
    );
    assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 1234);
}

#[test]
fn spans_arrive_over_http() {
    let (url, received) = http_collector(&[200]);
    let report = run(&url, options(), 5000, LONG);
    assert_eq!((report.exported, received.lock().unwrap().len(), report.error), (5000, 5000, None));
}

#[test]
fn a_burst_beyond_the_batches_loses_nothing() {
    let (url, received) = grpc_collector(0);
    let report = run(&url, options(), 50_000, LONG);
    assert_eq!((report.exported, received.lock().unwrap().len()), (50_000, 50_000));
}

#[test]
fn spans_go_out_without_a_flush() {
    let (url, received) = grpc_collector(0);
    let (mut sink, handle) = OtlpSink::start(&url, options()).unwrap();
    push(&mut sink, 3);
    let arrived = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        handle.report().exported == 3
    });
    assert!(arrived && received.lock().unwrap().len() == 3);
}

#[test]
fn a_collector_that_is_busy_is_asked_again() {
    let (url, received) = grpc_collector(2);
    assert_eq!(run(&url, options(), 10, LONG).exported, 10);
    assert_eq!(received.lock().unwrap().len(), 10);
    let (url, received) = http_collector(&[503, 502, 200]);
    assert_eq!(run(&url, options(), 10, LONG).exported, 10);
    assert_eq!(received.lock().unwrap().len(), 10);
}

#[test]
fn a_collector_that_says_no_is_not_asked_again() {
    let (url, _) = http_collector(&[400]);
    let report = run(&url, options(), 10, LONG);
    assert_eq!(lost(&report), BTreeMap::from([("refused", 10)]));
    let error = report.error.unwrap();
    assert!(error.starts_with("export spans to http://127.0.0.1:") && error.contains("400"), "{error}");
}

#[test]
fn nobody_there() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{addr}"), format!("grpc://{addr}")] {
        let report = run(&url, options(), 10, LONG);
        assert_eq!(lost(&report), BTreeMap::from([("timeout", 10)]), "{report:?}");
        assert!(report.error.unwrap().contains("export spans to"));
    }
}

#[test]
fn a_collector_that_never_answers() {
    let held = Mutex::new(Vec::new());
    let url = tcp_server(move |stream| held.lock().unwrap().push(stream));
    for url in [url.clone(), url.replace("http:", "grpc:")] {
        let report = run(&url, options(), 10, LONG);
        assert_eq!(lost(&report), BTreeMap::from([("timeout", 10)]), "{report:?}");
        // The flush does not wait for the batch's deadline.
        let patient = OtlpOptions { batch_deadline: LONG, max_batch: 4, ..options() };
        let began = Instant::now();
        let report = run(&url, patient, 10, Duration::from_millis(200));
        assert_eq!(lost(&report), BTreeMap::from([("flush_deadline", 10)]), "{report:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_collector_that_talks_nonsense() {
    let url = tcp_server(|mut stream| drop(stream.write_all(b"\x16\x03\x01 what? \r\n\r\n")));
    for url in [url.clone(), url.replace("http:", "grpc:")] {
        let report = run(&url, options(), 10, LONG);
        assert_eq!(report.lost(), 10, "{report:?}");
    }
}

#[test]
fn a_full_queue_and_a_late_span_are_counted() {
    let held = Mutex::new(Vec::new());
    let url = tcp_server(move |stream| held.lock().unwrap().push(stream));
    let small = OtlpOptions { max_queued: 100, max_batch: 50, ..options() };
    let (mut sink, handle) = OtlpSink::start(&url, small).unwrap();
    push(&mut sink, 10_000);
    let began = Instant::now();
    let report = handle.flush(Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_secs(5));
    let full = lost(&report)["queue_full"];
    assert!((9000..=9900).contains(&full), "{report:?}");
    push(&mut sink, 1);
    assert_eq!(lost(&handle.report())["closed"], 1);
    assert_eq!(handle.report().lost(), 10_001);
}
