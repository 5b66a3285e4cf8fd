//! Several collectors, headers, metrics, and answers that say more than yes or no.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

use super::*;
use crate::config::{Endpoint, Secret};
use crate::telemetry::defs::{OPEN_FILES, OPERATIONS};
use crate::telemetry::metrics;

type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// An HTTP collector that keeps requests and answers with this.
fn keeps(answer: Vec<u8>) -> (String, Requests) {
    let requests = Requests::default();
    let kept = Arc::clone(&requests);
    let url = tcp_server(move |mut stream| {
        while let Some(request) = read_request(&stream) {
            kept.lock().unwrap().push(request);
            stream.write_all(&answer).unwrap();
        }
    });
    (url, requests)
}

fn run_into_spool(url: &str, options: OtlpOptions) -> ExportReport {
    let (mut sink, handle) = OtlpSink::start(url, options).unwrap();
    push(&mut sink, 10);
    handle.flush(Duration::from_millis(300))
}

fn ok() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec()
}

fn endpoint(url: &str) -> Endpoint {
    Endpoint { interval: Duration::from_millis(10), deadline: Duration::from_millis(500), ..Endpoint::at(url) }
}

fn start(endpoints: &[Endpoint]) -> (Endpoints, EndpointsHandle) {
    let containers: Arc<dyn ContainerNames> = Arc::new(NoContainers);
    Endpoints::start(endpoints, None, &containers).unwrap()
}

#[test]
fn one_that_is_away_does_not_hold_up_the_others() {
    let held = Mutex::new(Vec::new());
    let hangs = tcp_server(move |stream| held.lock().unwrap().push(stream));
    let ((first, to_first), (second, to_second)) = (http_collector(&[200]), grpc_collector(0));
    let small = Endpoint { queue: 10, deadline: LONG, ..endpoint(&hangs) };
    let (mut sink, handle) = start(&[small, endpoint(&first), endpoint(&second)]);
    let span = samples::read("/data/f");
    (0..1000).for_each(|_| sink.span(&span));
    let began = Instant::now();
    let reports = handle.flush(Duration::from_secs(5));
    assert!(began.elapsed() < Duration::from_secs(15), "they end at the same time");
    let counts: Vec<_> = reports.iter().map(|report| report.spans.as_ref().unwrap()).collect();
    assert_eq!((counts[0].exported, counts[0].lost()), (0, 1000));
    assert_eq!((counts[1].exported, counts[2].exported), (1000, 1000));
    assert_eq!((to_first.lock().unwrap().len(), to_second.lock().unwrap().len()), (1000, 1000));
    let text = metrics::text(&families(&reports)).unwrap();
    let line = format!("fsi_otlp_spans_total{{endpoint=\"{}\",outcome=\"exported\"}} 1000\n", first);
    assert!(text.contains(&line), "{text}");
}

#[test]
fn headers_are_sent_and_one_that_is_not_to_be_had_is_refused() {
    let (url, requests) = keeps(ok());
    let headers = vec![("x-tenant".to_owned(), Secret::Text("blue".to_owned()))];
    let (mut sink, handle) = start(&[Endpoint { headers, ..endpoint(&url) }]);
    sink.span(&samples::read("/f"));
    assert_eq!(handle.flush(LONG)[0].spans.as_ref().unwrap().exported, 1);
    let requests = requests.lock().unwrap();
    let head = requests[0].0.to_ascii_lowercase();
    assert!(head.contains("x-tenant: blue\r\n") && head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    assert!(head.contains("user-agent: fsi/"), "{head}");
    let missing = vec![("x-tenant".to_owned(), Secret::Env("FSI_NO_SUCH_VARIABLE".to_owned()))];
    let containers: Arc<dyn ContainerNames> = Arc::new(NoContainers);
    let error = Endpoints::start(&[Endpoint { headers: missing, ..endpoint(&url) }], None, &containers).unwrap_err();
    assert!(error.to_string().contains("`x-tenant`") && error.to_string().contains("FSI_NO_SUCH_VARIABLE"), "{error}");
}

#[test]
fn a_certificate_that_cannot_be_read_is_refused() {
    for url in ["https://h:1", "grpcs://h:1"] {
        let tls = Tls { ca_file: Some("/no/such/ca.pem".into()), identity: None };
        let error = OtlpSink::start(url, OtlpOptions { tls, ..options() }).unwrap_err().to_string();
        assert!(error.contains("read /no/such/ca.pem: "), "{error}");
    }
}

#[test]
fn metrics_are_pushed_with_their_numbers_and_once_more_at_the_end() {
    let (url, requests) = keeps(ok());
    let only_metrics = Endpoint { spans: false, metrics: Some(Duration::from_millis(50)), ..endpoint(&url) };
    let (_sink, mut handle) = start(&[only_metrics]);
    let scrapes = AtomicU64::new(0);
    let gather: Gather = Arc::new(move || {
        let count = scrapes.fetch_add(1, Ordering::Relaxed) + 1;
        let operations = metrics::counter(vec![metrics::label("op", "read")], count);
        vec![metrics::family(&OPERATIONS, [operations]), metrics::family(&OPEN_FILES, [metrics::gauge(Vec::new(), 3)])]
    });
    handle.push(&gather).unwrap();
    let pushed = (0..500).any(|_| {
        thread::sleep(Duration::from_millis(10));
        handle.report()[0].metrics.unwrap().exported >= 2
    });
    assert!(pushed);
    let report = handle.flush(LONG)[0].metrics.unwrap();
    let requests = requests.lock().unwrap();
    assert_eq!((report.exported, report.lost), (requests.len() as u64, 0));
    let mut starts = Vec::new();
    for (count, (head, body)) in (1..).zip(requests.iter()) {
        assert!(head.starts_with("POST /v1/metrics "), "{head}");
        let request = ExportMetricsServiceRequest::decode(body.as_slice()).unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<_> = metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["fsi_operations_total", "fsi_open_files"]);
        let debug = format!("{:?}", metrics[0]);
        assert!(debug.contains(&format!("AsInt({count})")), "{debug}");
        let (_, start) = debug.split_once("start_time_unix_nano: ").unwrap();
        starts.push(start.split(',').next().unwrap().parse::<u64>().unwrap());
    }
    assert!(starts[0] > 1_600_000_000_000_000_000 && starts.iter().all(|start| *start == starts[0]), "{starts:?}");
}

#[test]
fn metrics_that_are_not_taken_are_counted() {
    let (url, _) = keeps(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec());
    let only_metrics = Endpoint { spans: false, metrics: Some(LONG), ..endpoint(&url) };
    let (_sink, mut handle) = start(&[only_metrics]);
    handle.push(&(Arc::new(Vec::new) as Gather)).unwrap();
    assert_eq!(handle.flush(LONG)[0].metrics, Some(PushReport { exported: 0, lost: 1 }));
}

#[test]
fn spans_that_a_collector_takes_and_rejects_are_counted() {
    let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "too old".to_owned() };
    let body = ExportTraceServiceResponse { partial_success: Some(partial) }.encode_to_vec();
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend(body);
    let report = run(&keeps(answer).0, options(), 10, LONG);
    assert_eq!((report.exported, lost(&report)), (7, BTreeMap::from([("refused", 3)])));
    // A yes with a body of something else is a yes.
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".to_vec();
    assert_eq!(run(&keeps(answer).0, options(), 10, LONG).exported, 10);
}

#[test]
fn a_pause_that_is_asked_for_is_kept_if_there_is_time() {
    let turn = AtomicU64::new(0);
    let url = tcp_server(move |mut stream| {
        while read_request(&stream).is_some() {
            let after = if turn.fetch_add(1, Ordering::Relaxed) == 0 { "503 x\r\nRetry-After: 1" } else { "200 x" };
            write!(stream, "HTTP/1.1 {after}\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let began = Instant::now();
    let patient = OtlpOptions { batch_deadline: LONG, ..options() };
    assert_eq!(run(&url, patient, 10, LONG).exported, 10);
    assert!(began.elapsed() >= Duration::from_secs(1));
    let (url, _) = keeps(b"HTTP/1.1 503 x\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n".to_vec());
    let began = Instant::now();
    let report = run(&url, options(), 10, LONG);
    assert_eq!(lost(&report), BTreeMap::from([("refused", 10)]));
    assert!(report.error.unwrap().contains("pause of 600s") && began.elapsed() < Duration::from_secs(60));
    let directory = tempfile::tempdir().unwrap();
    let spool = Some(Spool { directory: directory.path().to_owned(), max_bytes: 1 << 30 });
    let report = run_into_spool(&url, OtlpOptions { spool, ..options() });
    assert_eq!((report.lost(), report.spool.waiting), (0, 10));
}

#[test]
fn a_redirect_is_a_no() {
    let (url, _) = keeps(b"HTTP/1.1 302 x\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n".to_vec());
    assert_eq!(lost(&run(&url, options(), 10, LONG)), BTreeMap::from([("refused", 10)]));
}
