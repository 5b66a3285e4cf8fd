//! The exporter's thread: takes batches, encodes them, sends or spools them, counts what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant as StdInstant};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use prost::Message as _;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::spool::{Batch, Claimed, Lost, Spool};
use super::target::Target;
use super::transport::{Signal, Transport, Undelivered};
use super::{ExportError, OtlpOptions, Outcome, Shared};
use crate::span::Span;
use crate::telemetry::queue::Taken;
use crate::telemetry::span::{Converter, resource};

/// What is said when the time for the end is over.
const DEADLINE: &str = "not everything could be sent before the deadline; is the collector there?";
const TLS_DEADLINE: &str = "not everything could be sent before the deadline; is the collector there, and its certificate from an authority that this machine trusts?";

/// Between two tries of a collector that is away, while batches go to the spool; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Batches sent from the spool before the queue has its turn.
const AT_ONCE: usize = 64;

/// What the thread needs.
#[derive(Debug)]
pub(super) struct Worker {
    runtime: Runtime,
    transport: Transport,
    batch_deadline: Duration,
    converter: Converter,
    resource: ResourceAttributesWithSchema,
    shared: Arc<Shared>,
    expired: watch::Receiver<Option<Instant>>,
    spool: Option<Claimed>,
    keeps: Keeps,
    /// So many that wait in memory are more pressing than the spool.
    pressing: u64,
}

/// What became of a batch.
enum Sent {
    /// But for so many spans.
    Exported(u64),
    Refused(String),
    Away(String),
    FlushDeadline,
}

/// What becomes of a batch that may be sent later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keeps {
    Nothing,
    InSpool,
}

/// Whether the time for the end is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Time {
    Left,
    Over,
}

/// When a collector that is away is tried again.
struct Pause {
    until: StdInstant,
    next: Duration,
}

impl Pause {
    fn none() -> Self {
        Self { until: StdInstant::now(), next: FIRST_PAUSE }
    }

    fn begin(&mut self) {
        self.until = StdInstant::now() + self.next;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }

    fn is_over(&self) -> bool {
        StdInstant::now() >= self.until
    }
}

impl Worker {
    pub(super) fn new(
        target: &Target,
        options: OtlpOptions,
        shared: Arc<Shared>,
        expired: watch::Receiver<Option<Instant>>,
    ) -> Result<Self, ExportError> {
        // One worker of its own: connections live on while this thread waits for spans or converts them.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("fsi-otlp-io")
            .enable_all()
            .build()
            .map_err(ExportError::Thread)?;
        let transport = {
            let _context = runtime.enter();
            Transport::new(target, &options.headers, &options.tls)?
        };
        let spool = match &options.spool {
            Some(spool) => {
                let failed = |source| ExportError::Spool { directory: spool.directory.clone(), source };
                Some(Claimed::new(&spool.directory, &target.endpoint, spool.max_bytes).map_err(failed)?)
            }
            None => None,
        };
        Ok(Self {
            runtime,
            transport,
            batch_deadline: options.batch_deadline,
            resource: (&resource(&*options.containers)).into(),
            converter: Converter::new(options.containers),
            shared,
            expired,
            keeps: if spool.is_some() { Keeps::InSpool } else { Keeps::Nothing },
            spool,
            pressing: options.max_queued as u64 / 4,
        })
    }

    /// Until the queue is closed and empty, or the flush's deadline has passed.
    pub(super) fn run(mut self) {
        match self.spool.take() {
            Some(claimed) => {
                let (mut spool, lost) = claimed.open();
                self.shared.outcome.recovered.store(spool.spans() + lost.full, Ordering::Relaxed);
                self.note(&spool, lost);
                self.run_with(&mut spool);
                spool.sync();
            }
            None => self.run_without(),
        }
        // A name lookup that hangs must not keep us.
        self.runtime.shutdown_background();
    }

    fn run_without(&self) {
        let outcome = &self.shared.outcome;
        while let Some(spans) = self.shared.queue.take() {
            let batch = self.encode(&spans);
            match self.send(&batch.body) {
                Sent::Exported(rejected) => self.exported(&batch, rejected),
                Sent::Refused(error) => self.refused(&batch, &error),
                Sent::Away(error) => {
                    add(&outcome.timeout, batch.spans);
                    self.complain(&error, "spans are being lost");
                }
                Sent::FlushDeadline => {
                    add(&outcome.flush_deadline, batch.spans + self.shared.queue.abandon());
                    self.complain_of_deadline();
                    break;
                }
            }
        }
    }

    /// Batches go to the spool as long as there is something in it, so that they are sent in their order.
    fn run_with(&self, spool: &mut Spool) {
        let mut pause = Pause::none();
        let mut time = Time::Left;
        loop {
            let patience = (!spool.is_empty()).then_some(pause.until);
            match self.shared.queue.take_until(patience) {
                Taken::Batch(spans) => {
                    let batch = self.encode(&spans);
                    if time == Time::Left && spool.is_empty() {
                        time = self.send_or_spool(spool, &batch, &mut pause);
                    } else {
                        self.keep(spool, &batch);
                    }
                }
                Taken::Nothing => {}
                Taken::End => break,
            }
            if time == Time::Left {
                time = self.drain(spool, &mut pause);
            }
        }
        while time == Time::Left && !spool.is_empty() && pause.is_over() {
            time = self.drain(spool, &mut pause);
        }
    }

    fn send_or_spool(&self, spool: &mut Spool, batch: &Batch, pause: &mut Pause) -> Time {
        match self.send(&batch.body) {
            Sent::Exported(rejected) => {
                *pause = Pause::none();
                self.exported(batch, rejected);
            }
            Sent::Refused(error) => self.refused(batch, &error),
            Sent::Away(error) => {
                pause.begin();
                self.keep(spool, batch);
                self.complain(&error, "the collector is away; spans wait in the spool");
            }
            Sent::FlushDeadline => {
                self.keep(spool, batch);
                return Time::Over;
            }
        }
        Time::Left
    }

    /// Sends from the spool while the collector takes it and nothing in memory is more pressing.
    fn drain(&self, spool: &mut Spool, pause: &mut Pause) -> Time {
        for _ in 0..AT_ONCE {
            if spool.is_empty() || !pause.is_over() || self.shared.queue.counts().waiting > self.pressing {
                break;
            }
            let (oldest, lost) = spool.oldest();
            self.note(spool, lost);
            let Some(batch) = oldest else { break };
            match self.send(&batch.body) {
                Sent::Exported(rejected) => {
                    *pause = Pause::none();
                    spool.pop(&batch);
                    self.exported(&batch, rejected);
                }
                Sent::Refused(error) => {
                    spool.pop(&batch);
                    self.refused(&batch, &error);
                }
                Sent::Away(error) => {
                    pause.begin();
                    self.complain(&error, "the collector is away; spans wait in the spool");
                }
                Sent::FlushDeadline => return Time::Over,
            }
            self.note(spool, Lost::default());
        }
        Time::Left
    }

    fn keep(&self, spool: &mut Spool, batch: &Batch) {
        add(&self.shared.outcome.spooled, batch.spans);
        let lost = spool.push(batch);
        if lost != Lost::default() {
            self.complain("the spool is full, or its disk is", "spans are being lost");
        }
        self.note(spool, lost);
    }

    fn note(&self, spool: &Spool, lost: Lost) {
        let Outcome { spool_full, spool_disk, spool_torn, in_spool, spool_bytes, .. } = &self.shared.outcome;
        let Lost { full, disk, torn } = lost;
        add(spool_full, full);
        add(spool_disk, disk);
        add(spool_torn, torn);
        in_spool.store(spool.spans(), Ordering::Relaxed);
        spool_bytes.store(spool.bytes(), Ordering::Relaxed);
    }

    fn exported(&self, batch: &Batch, rejected: u64) {
        let rejected = rejected.min(batch.spans);
        add(&self.shared.outcome.exported, batch.spans - rejected);
        if rejected > 0 {
            add(&self.shared.outcome.refused, rejected);
            self.complain("the collector took a batch but rejected some of its spans", "spans are being lost");
        }
    }

    fn refused(&self, batch: &Batch, error: &str) {
        add(&self.shared.outcome.refused, batch.spans);
        self.complain(error, "spans are being lost");
    }

    /// Keeps the first complaint; the counts tell how often.
    fn complain(&self, error: &str, so: &str) {
        let endpoint = &self.transport.endpoint;
        if self.shared.outcome.error.set(format!("export spans to {endpoint}: {error}")).is_ok() {
            tracing::warn!(endpoint, error, "{so}");
        }
    }

    fn complain_of_deadline(&self) {
        let sentence = if self.transport.endpoint.starts_with("https:") { TLS_DEADLINE } else { DEADLINE };
        let reason = self.transport.last_failure().map(|reason| format!(" ({reason})"));
        self.complain(&format!("{sentence}{}", reason.unwrap_or_default()), "spans are being lost");
    }

    fn encode(&self, spans: &[Arc<Span>]) -> Batch {
        let data = spans.iter().map(|span| self.converter.convert(span)).collect();
        let request =
            ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(data, &self.resource) };
        Batch { spans: spans.len() as u64, body: request.encode_to_vec().into() }
    }

    fn send(&self, body: &Bytes) -> Sent {
        self.runtime.block_on(async {
            let mut expired = self.expired.clone();
            let flush_deadline = async {
                // The sender lives in what we share: it cannot go away.
                let until = expired.wait_for(Option::is_some).await.ok().and_then(|until| *until);
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // An answer that is there counts, even at the deadline.
                biased;
                answer = self.transport.deliver(Signal::Spans, body, self.batch_deadline) => match answer {
                    Ok(rejected) => Sent::Exported(rejected),
                    Err(Undelivered::Refused(reason)) => Sent::Refused(reason),
                    Err(Undelivered::Later(reason)) if self.keeps == Keeps::Nothing => Sent::Refused(reason),
                    Err(Undelivered::Later(reason)) => Sent::Away(reason),
                    Err(Undelivered::Away(reason)) => Sent::Away(reason),
                },
                () = flush_deadline => Sent::FlushDeadline,
            }
        })
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}
