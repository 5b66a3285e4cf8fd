//! Spans and metrics to OpenTelemetry collectors, over gRPC or HTTP, each behind a bounded queue and a batcher of its own.
//!
//! ```text
//! pipeline --push--> queue --take--> exporter's thread: convert, send, retry --> collector
//!               full: lost            | refused, timeout, flush deadline: lost
//!                                     `-- away --> spool, if there is one --> when it is back
//! ```
//! Every span that was pushed is exported, waiting or counted as lost. A batch whose answer did not come in time counts as lost (or
//! waits in the spool), though the collector may have it.

mod endpoints;
mod push;
mod spool;
mod target;
mod transport;
mod worker;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use self::target::Target;
use super::containers::{ContainerNames, NoContainers};
use super::defs;
use super::queue::{Queue, QueueCounts};
use crate::config::{SecretError, Spool, Tls};
use crate::span::{Span, SpanSink};

pub use self::endpoints::{EndpointReport, Endpoints, EndpointsHandle, families, merged};
pub use self::push::{Gather, PushReport};

/// How much longer than the flush's deadline its answer may take before we go on without.
const GRACE: Duration = Duration::from_millis(500);
/// The same, when what is left is written to the spool.
const SPOOL_GRACE: Duration = Duration::from_secs(5);

/// Bounds of the exporter.
#[derive(Clone, Debug)]
pub struct OtlpOptions {
    /// Spans that may wait; what comes while it is full is lost and counted. A few hundred bytes each.
    pub max_queued: usize,
    /// Spans in one request.
    pub max_batch: usize,
    /// Longest time a span waits for its batch to fill.
    pub interval: Duration,
    /// Longest time for one batch, its retries included.
    pub batch_deadline: Duration,
    /// Sent with every request, over those of `OTEL_EXPORTER_OTLP_HEADERS`.
    pub headers: Vec<(String, String)>,
    pub tls: Tls,
    /// Where batches wait for a collector that is away.
    pub spool: Option<Spool>,
    /// Names for `container.id`.
    pub containers: Arc<dyn ContainerNames>,
}

impl Default for OtlpOptions {
    fn default() -> Self {
        Self {
            // A burst of half a second at a million operations a second.
            max_queued: 524_288,
            max_batch: 2048,
            interval: Duration::from_millis(200),
            batch_deadline: Duration::from_secs(10),
            headers: Vec::new(),
            tls: Tls::default(),
            spool: None,
            containers: Arc::new(NoContainers),
        }
    }
}

/// Why no exporter could be started.
#[derive(Debug, Error)]
pub enum ExportError {
    #[error("otlp url `{url}`: {reason}")]
    Url { url: String, reason: &'static str },
    #[error("otlp exporter for {endpoint}: {reason}")]
    Build { endpoint: String, reason: String },
    #[error("the header `{name}` for {url}: {source}")]
    Header { url: String, name: String, source: SecretError },
    #[error("the spool in {}: {source}", directory.display())]
    Spool { directory: PathBuf, source: std::io::Error },
    #[error("start the exporter's threads: {0}")]
    Thread(#[source] std::io::Error),
}

/// Whether a URL leads somewhere, for spans, and for metrics too if they are wanted.
///
/// # Errors
/// It does not; the sentence says what would be right.
pub fn check_url(url: &str, metrics: bool) -> Result<(), ExportError> {
    let target = Target::parse(url)?;
    if metrics && target.metrics_endpoint().is_none() {
        let reason = "where metrics go does not follow from this path; end it with `/v1/traces`, or write none";
        return Err(ExportError::Url { url: url.to_owned(), reason });
    }
    Ok(())
}

/// What became of the spans so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// Spans the collector took.
    pub exported: u64,
    /// `(stage, reason, spans)`, every reason, those that did not happen included.
    pub losses: Vec<(&'static str, &'static str, u64)>,
    /// Spans in the queue.
    pub waiting: u64,
    pub spool: SpoolReport,
    /// The first thing that went wrong, as a sentence.
    pub error: Option<String>,
}

/// What a spool holds and held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolReport {
    /// Spans put into it.
    pub spooled: u64,
    /// Spans that an earlier agent had left in it.
    pub recovered: u64,
    /// Spans in it.
    pub waiting: u64,
    /// What it takes on disk.
    pub bytes: u64,
}

impl SpoolReport {
    fn add(&mut self, other: Self) {
        let Self { spooled, recovered, waiting, bytes } = other;
        self.spooled += spooled;
        self.recovered += recovered;
        self.waiting += waiting;
        self.bytes += bytes;
    }
}

impl ExportReport {
    /// Adds what another exporter did for the same collector.
    fn add(&mut self, other: Self) {
        let Self { exported, losses, waiting, spool, error } = other;
        self.exported += exported;
        for (stage, reason, count) in losses {
            match self.losses.iter_mut().find(|known| (known.0, known.1) == (stage, reason)) {
                Some(known) => known.2 += count,
                None => self.losses.push((stage, reason, count)),
            }
        }
        self.waiting += waiting;
        self.spool.add(spool);
        self.error = self.error.take().or(error);
    }

    /// Spans lost for whatever reason; how many were in a torn end of the spool nobody knows.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let spans = self.losses.iter().filter(|(_, reason, _)| *reason != defs::REASON_TORN);
        spans.map(|(_, _, count)| count).sum()
    }
}

/// What the exporter's thread counts.
#[derive(Debug, Default)]
struct Outcome {
    exported: AtomicU64,
    refused: AtomicU64,
    timeout: AtomicU64,
    flush_deadline: AtomicU64,
    spooled: AtomicU64,
    recovered: AtomicU64,
    spool_full: AtomicU64,
    spool_disk: AtomicU64,
    spool_torn: AtomicU64,
    /// These two as they are now.
    in_spool: AtomicU64,
    spool_bytes: AtomicU64,
    error: OnceLock<String>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    outcome: Outcome,
    /// Set once: until when the rest may be sent.
    deadline: watch::Sender<Option<Instant>>,
    grace: Duration,
}

/// The pipeline's end: takes spans, never blocks.
#[derive(Debug)]
pub struct OtlpSink {
    shared: Arc<Shared>,
}

/// The other end: to ask what became of the spans, and to end the export.
pub struct OtlpHandle {
    shared: Arc<Shared>,
    /// Disconnected when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl fmt::Debug for OtlpHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpHandle").field("shared", &self.shared).finish_non_exhaustive()
    }
}

impl OtlpSink {
    /// Starts the exporter on threads of its own. No connection is made before the first batch.
    ///
    /// `grpc://`, `grpcs://` (TLS), and `http://` or `https://` with port 4317 and no path mean gRPC; other URLs mean HTTP with
    /// protobuf, to `/v1/traces` unless they have a path. `OTEL_EXPORTER_OTLP_HEADERS` is respected.
    ///
    /// # Errors
    /// When the URL is none, a certificate cannot be read, or the spool cannot be had.
    pub fn start(url: &str, options: OtlpOptions) -> Result<(Self, OtlpHandle), ExportError> {
        let target = Target::parse(url)?;
        let grace = if options.spool.is_some() { SPOOL_GRACE } else { GRACE };
        let (deadline, expired) = watch::channel(None);
        let queue = Queue::new(options.max_queued, options.max_batch, options.interval);
        let shared = Arc::new(Shared { queue, outcome: Outcome::default(), deadline, grace });
        let worker = worker::Worker::new(&target, options, Arc::clone(&shared), expired)?;
        let (alive, ended) = mpsc::sync_channel(0);
        thread::Builder::new()
            .name("fsi-otlp".into())
            .spawn(move || {
                let _disconnects_at_the_end: mpsc::SyncSender<()> = alive;
                worker.run();
            })
            .map_err(ExportError::Thread)?;
        Ok((Self { shared: Arc::clone(&shared) }, OtlpHandle { shared, ended: Mutex::new(ended) }))
    }
}

impl SpanSink for OtlpSink {
    fn span(&mut self, span: &Arc<Span>) {
        self.shared.queue.push(span);
    }
}

impl OtlpHandle {
    /// Blocks until all spans given so far are sent or lost, at most for `deadline`, and ends the exporter: what is left then, and
    /// what comes later, is lost and counted.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> ExportReport {
        self.shared.deadline.send_if_modified(|until| {
            let first = until.is_none();
            if first {
                *until = Some(Instant::now() + deadline);
            }
            first
        });
        self.shared.queue.close();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // Nothing is ever sent: this ends by the thread's end, or by the clock.
        let in_time = ended.recv_timeout(deadline + self.shared.grace) != Err(mpsc::RecvTimeoutError::Timeout);
        drop(ended);
        if !in_time {
            tracing::warn!("the exporter did not end in time");
        }
        let mut report = self.report();
        // The thread did not come back in time: what it holds is as good as lost.
        let unaccounted = self.shared.unaccounted();
        for (stage, reason, count) in &mut report.losses {
            if (*stage, *reason) == (defs::STAGE_EXPORT, defs::REASON_FLUSH_DEADLINE) {
                *count += unaccounted;
            }
        }
        report
    }

    /// What became of the spans so far; does not block.
    #[must_use]
    pub fn report(&self) -> ExportReport {
        let Outcome {
            exported,
            refused,
            timeout,
            flush_deadline,
            spooled,
            recovered,
            spool_full,
            spool_disk,
            spool_torn,
            in_spool,
            spool_bytes,
            error,
        } = &self.shared.outcome;
        let QueueCounts { accepted: _, full, late, waiting } = self.shared.queue.counts();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = [full, late, count(refused), count(timeout), count(flush_deadline)];
        let export = defs::EXPORT_LOSSES.into_iter().zip(counts);
        let spool = defs::SPOOL_LOSSES.into_iter().zip([count(spool_full), count(spool_disk), count(spool_torn)]);
        ExportReport {
            exported: count(exported),
            losses: export.chain(spool).map(|((stage, reason), spans)| (stage, reason, spans)).collect(),
            waiting,
            spool: SpoolReport {
                spooled: count(spooled),
                recovered: count(recovered),
                waiting: count(in_spool),
                bytes: count(spool_bytes),
            },
            error: error.get().cloned(),
        }
    }
}

impl Drop for OtlpHandle {
    /// Without a flush nobody waits: what is queued is still sent, then the exporter ends.
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl Shared {
    /// Spans taken in of which nothing is known yet.
    fn unaccounted(&self) -> u64 {
        let outcome = &self.outcome;
        let known = [
            &outcome.exported,
            &outcome.refused,
            &outcome.timeout,
            &outcome.flush_deadline,
            &outcome.spool_full,
            &outcome.spool_disk,
            &outcome.in_spool,
        ];
        let known: u64 = known.iter().map(|counter| counter.load(Ordering::Relaxed)).sum();
        let taken = self.queue.counts().accepted + outcome.recovered.load(Ordering::Relaxed);
        taken.saturating_sub(known)
    }
}

#[cfg(test)]
mod tests;
