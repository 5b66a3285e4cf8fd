//! A collector that is away, and comes back: what the spool makes of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::span::SpanId;

/// An HTTP collector that can be switched off, on one port.
#[derive(Clone)]
struct Switched {
    url: String,
    on: Arc<AtomicBool>,
    received: Received,
}

impl Switched {
    fn new() -> Self {
        let (on, received) = (Arc::new(AtomicBool::new(false)), Received::default());
        let (is_on, spans) = (Arc::clone(&on), Arc::clone(&received));
        let url = tcp_server(move |mut stream| {
            if let Some((_, body)) = is_on.load(Ordering::Relaxed).then(|| read_request(&stream)).flatten() {
                let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                spans.lock().unwrap().extend(spans_of(request));
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            }
        });
        Self { url, on, received }
    }

    fn turn(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }

    /// Ids of what arrived; none may have come twice.
    fn ids(&self) -> BTreeSet<u64> {
        let received = self.received.lock().unwrap();
        let id = |span: &ProtoSpan| u64::from_be_bytes(span.span_id.clone().try_into().unwrap());
        let ids: BTreeSet<u64> = received.iter().map(id).collect();
        assert_eq!(ids.len(), received.len(), "every span once");
        ids
    }
}

fn spooling(directory: &Path, max_bytes: u64) -> OtlpOptions {
    let spool = Some(Spool { directory: directory.to_owned(), max_bytes });
    // What is answered later has arrived, and is sent again.
    OtlpOptions { spool, batch_deadline: Duration::from_secs(2), max_batch: 50, ..options() }
}

/// One that follows another on a spool, which may still write to the disk.
fn start_after(url: &str, options: &OtlpOptions) -> (OtlpSink, OtlpHandle) {
    let mut started = None;
    until("the one before has let go of the spool", || match OtlpSink::start(url, options.clone()) {
        Ok(both) => {
            started = Some(both);
            true
        }
        Err(error) => {
            assert!(error.to_string().ends_with("another agent uses it"), "{error}");
            false
        }
    });
    started.unwrap()
}

/// Spans with these ids.
fn push_ids(sink: &mut OtlpSink, ids: std::ops::Range<u64>) {
    for id in ids {
        let span = Span { id: SpanId(id.to_be_bytes()), ..Span::clone(&samples::read("/data/f")) };
        sink.span(&Arc::new(span));
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let held = (0..6000).any(|_| {
        thread::sleep(Duration::from_millis(10));
        holds()
    });
    assert!(held, "{what}");
}

#[test]
fn what_came_while_it_was_away_arrives_once_when_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let collector = Switched::new();
    let (mut sink, handle) = OtlpSink::start(&collector.url, spooling(directory.path(), 1 << 30)).unwrap();
    push_ids(&mut sink, 1..1001);
    until("all is in the spool", || handle.report().spool.waiting == 1000);
    assert!(handle.report().spool.bytes > 0 && handle.report().error.is_some());
    collector.turn(true);
    push_ids(&mut sink, 1001..2001);
    until("all has arrived", || handle.report().exported == 2000);
    assert_eq!(collector.ids(), (1..2001).collect());
    let report = handle.flush(LONG);
    assert_eq!((report.lost(), report.spool.waiting, report.spool.bytes), (0, 0, 0), "{report:?}");
    assert!((1000..=2000).contains(&report.spool.spooled));
}

#[test]
fn a_successor_sends_what_was_left() {
    let directory = tempfile::tempdir().unwrap();
    let collector = Switched::new();
    let (mut sink, handle) = OtlpSink::start(&collector.url, spooling(directory.path(), 1 << 30)).unwrap();
    push_ids(&mut sink, 1..1001);
    let report = handle.flush(Duration::from_millis(100));
    assert_eq!((report.lost(), report.exported, report.spool.waiting), (0, 0, 1000), "{report:?}");
    collector.turn(true);
    let (mut sink, handle) = start_after(&collector.url, &spooling(directory.path(), 1 << 30));
    push_ids(&mut sink, 1001..1501);
    until("all has arrived", || handle.report().exported == 1500);
    let report = handle.flush(LONG);
    assert_eq!((report.spool.recovered, report.lost()), (1000, 0), "{report:?}");
    assert_eq!(collector.ids(), (1..1501).collect());
}

#[test]
fn a_spool_that_is_full_drops_the_oldest_and_counts_them() {
    let directory = tempfile::tempdir().unwrap();
    let collector = Switched::new();
    let bound = 10 << 20;
    let (mut sink, handle) = OtlpSink::start(&collector.url, spooling(directory.path(), bound)).unwrap();
    push_ids(&mut sink, 1..100_001);
    let report = handle.flush(Duration::from_millis(100));
    assert_eq!(report.lost() + report.spool.waiting, 100_000, "{report:?}");
    assert!(lost(&report)["full"] > 0 && report.spool.bytes <= bound, "{report:?}");
    collector.turn(true);
    let (_sink, handle) = start_after(&collector.url, &spooling(directory.path(), bound));
    until("what is left has arrived", || handle.report().exported == report.spool.waiting);
    assert_eq!(collector.ids(), (100_001 - report.spool.waiting..100_001).collect(), "the newest are kept");
}

#[test]
fn a_collector_that_hangs_or_says_it_is_busy_is_away_and_one_that_refuses_is_not() {
    let held = Mutex::new(Vec::new());
    let hangs = tcp_server(move |stream| held.lock().unwrap().push(stream));
    for url in [hangs.clone(), hangs.replace("http:", "grpc:"), http_collector(&[503]).0] {
        let directory = tempfile::tempdir().unwrap();
        let options = OtlpOptions { batch_deadline: Duration::from_millis(300), ..spooling(directory.path(), 1 << 30) };
        let (mut sink, handle) = OtlpSink::start(&url, options).unwrap();
        push_ids(&mut sink, 1..11);
        until("all is in the spool", || handle.report().spool.waiting == 10);
    }
    let directory = tempfile::tempdir().unwrap();
    let report = run(&http_collector(&[400]).0, spooling(directory.path(), 1 << 30), 10, LONG);
    assert_eq!((lost(&report), report.spool.spooled), (BTreeMap::from([("refused", 10)]), 0));
    // Refused only once it comes out of the spool: it does not keep the others from going.
    let (url, received) = http_collector(&[503, 503, 503, 503, 400, 200]);
    let (mut sink, handle) = OtlpSink::start(&url, spooling(directory.path(), 1 << 30)).unwrap();
    push_ids(&mut sink, 1..501);
    until("all is told", || handle.report().exported + lost(&handle.report()).get("refused").unwrap_or(&0) == 500);
    assert_eq!(received.lock().unwrap().len(), 450);
}

#[test]
fn a_spool_that_another_agent_uses_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let collector = Switched::new();
    let _first = OtlpSink::start(&collector.url, spooling(directory.path(), 1 << 30)).unwrap();
    let error = OtlpSink::start(&collector.url, spooling(directory.path(), 1 << 30)).unwrap_err().to_string();
    assert!(error.starts_with("the spool in /") && error.ends_with("another agent uses it"), "{error}");
}
