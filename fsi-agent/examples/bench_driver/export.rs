//! A burst of spans to a collector on the loopback that only counts: through our exporter, and through the SDK's batch
//! processor around the same transport.
//!
//! The collector is a process of its own, so that our CPU time is the exporter's alone.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fsi_agent::span::{Above, Actor, OpSpan, Path, Span, SpanBody, SpanId, SpanSink as _, TraceId};
use fsi_agent::telemetry::containers::NoContainers;
use fsi_agent::telemetry::export::{OtlpOptions, OtlpSink};
use fsi_agent::telemetry::span::Converter;
use fsi_common::op::OpKind;
use fsi_common::record::PathState;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanProcessor as _};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

/// Different spans in the burst; it repeats them, so that memory is not what is measured.
const DIFFERENT: usize = 1000;
const DEADLINE: Duration = Duration::from_secs(60);
/// A span as a person would send it takes well below a kilobyte.
const MESSAGE_BYTES: usize = 64 << 20;

/// Both ways, one after the other.
pub(super) fn burst(spans: usize) -> Result<Value> {
    Ok(json!({ "fsi": ours(spans)?, "sdk": sdk(spans)? }))
}

fn ours(spans: usize) -> Result<Value> {
    let collector = Collector::start()?;
    let prepared: Vec<_> = (0..DIFFERENT).map(|number| Arc::new(span(number))).collect();
    let (mut sink, handle) = OtlpSink::start(&format!("grpc://{}", collector.address), OtlpOptions::default())?;
    let cpu = cpu_time();
    let begin = Instant::now();
    prepared.iter().cycle().take(spans).for_each(|span| sink.span(span));
    let pushed = begin.elapsed();
    let report = handle.flush(DEADLINE);
    let (wall, cpu) = (begin.elapsed(), cpu_time().saturating_sub(cpu));
    let received = collector.stop()?;
    let (exported, lost) = (report.exported, report.lost());
    Ok(result(spans, exported, lost, received, pushed, wall, cpu))
}

/// What one gets without a queue of one's own, with the SDK's defaults.
fn sdk(spans: usize) -> Result<Value> {
    let collector = Collector::start()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let processor = {
        let _context = runtime.enter();
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_endpoint(format!("http://{}", collector.address))
            .build()?;
        BatchSpanProcessor::builder(exporter).build()
    };
    let converter = Converter::new(Arc::new(NoContainers));
    let prepared: Vec<_> = (0..DIFFERENT).map(span).collect();
    let cpu = cpu_time();
    let begin = Instant::now();
    prepared.iter().cycle().take(spans).for_each(|span| processor.on_end(converter.convert(span)));
    let pushed = begin.elapsed();
    processor.force_flush()?;
    let (wall, cpu) = (begin.elapsed(), cpu_time().saturating_sub(cpu));
    let received = collector.stop()?;
    // It tells nobody how many it dropped.
    Ok(result(spans, received, (spans as u64).saturating_sub(received), received, pushed, wall, cpu))
}

fn result(
    pushed: usize,
    exported: u64,
    lost: u64,
    received: u64,
    pushing: Duration,
    wall: Duration,
    cpu: Duration,
) -> Value {
    json!({
        "pushed": pushed,
        "exported": exported,
        "lost": lost,
        "received": received,
        "push_seconds": pushing.as_secs_f64(),
        "wall_seconds": wall.as_secs_f64(),
        "cpu_seconds": cpu.as_secs_f64(),
    })
}

/// Of all threads, those that ended included.
fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

fn span(number: usize) -> Span {
    let number = number as u64;
    let path = format!("/srv/data/project-{}/part-{number:05}.parquet", number % 7);
    let mut comm = [0; 16];
    comm[..7].copy_from_slice(b"python3");
    let mut id = [0; 8];
    id.copy_from_slice(&(number + 1).to_be_bytes());
    Span {
        trace: TraceId([0xab; 16]),
        id: SpanId(id),
        parent: Some(SpanId([2; 8])),
        above: Above::Nothing,
        start_unix_ns: 1_700_000_000_000_000_000 + number * 1000,
        end_unix_ns: 1_700_000_000_000_000_700 + number * 1000,
        actor: Actor { tgid: 4200, tid: 4201, uid: 1000, comm, cgroup: 77 },
        body: SpanBody::Operation(OpSpan {
            op: OpKind::Read,
            duration_ns: 700,
            errno: 0,
            ret: 4096,
            dev: 8 << 20 | 1,
            ino: 900 + number,
            mode: 0o100_644,
            offset: Some(4096),
            asked: Some(4096),
            bytes: Some(4096),
            open_flags: None,
            syscall: 17,
            path: Some(Path { bytes: Arc::from(path.as_bytes()), state: PathState::Resolved }),
            target: None,
            interposed: None,
        }),
    }
}

/// A collector in a process of its own; ended with its standard input.
struct Collector {
    process: Child,
    said: BufReader<std::process::ChildStdout>,
    address: String,
}

impl Collector {
    fn start() -> Result<Self> {
        let ourselves = std::env::current_exe().context("find ourselves")?;
        let mut process = Command::new(ourselves)
            .arg("collector")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the collector")?;
        let mut said = BufReader::new(process.stdout.take().context("the collector's output")?);
        let mut address = String::new();
        said.read_line(&mut address).context("read the collector's address")?;
        Ok(Self { process, said, address: address.trim().to_owned() })
    }

    /// Spans it received.
    fn stop(mut self) -> Result<u64> {
        drop(self.process.stdin.take());
        let mut received = String::new();
        self.said.read_to_string(&mut received).context("read what the collector received")?;
        self.process.wait().context("wait for the collector")?;
        received.trim().parse().context("what the collector received")
    }
}

#[derive(Clone, Default)]
struct Counting(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Counting {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let request = request.into_inner();
        let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse { partial_success: None }))
    }
}

/// Counts spans until its standard input is closed.
pub(super) fn collect(say: impl Fn(String)) -> Result<()> {
    let counting = Counting::default();
    let service = TraceServiceServer::new(counting.clone()).max_decoding_message_size(MESSAGE_BYTES);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?).map_err(|error| anyhow::anyhow!("{error}"))?;
        say(incoming.local_addr()?.to_string());
        let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        tokio::select! {
            served = Server::builder().add_service(service).serve_with_incoming(incoming) => served?,
            _ = closed => {}
        }
        anyhow::Ok(())
    })?;
    say(counting.0.load(Ordering::Relaxed).to_string());
    Ok(())
}
