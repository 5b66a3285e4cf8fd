//! Spans to an OpenTelemetry collector, over gRPC or HTTP, behind a bounded queue and a batcher of our own.
//!
//! ```text
//! pipeline --push--> queue --take--> exporter's thread: convert, send, retry --> collector
//!               full: lost       refused, timeout, flush deadline: lost
//! ```
//! Every span that was pushed is exported, waiting or counted as lost. A batch whose answer did not come in time counts as lost, though
//! the collector may have it.

mod target;
mod worker;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use opentelemetry_otlp::ExporterBuildError;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use self::target::Target;
use super::containers::{ContainerNames, NoContainers};
use super::defs;
use super::queue::{Queue, QueueCounts};
use crate::span::{Span, SpanSink};

/// How much longer than the flush's deadline its answer may take before we go on without.
const GRACE: Duration = Duration::from_millis(500);

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
            containers: Arc::new(NoContainers),
        }
    }
}

/// Why no exporter could be started.
#[derive(Debug, Error)]
pub enum ExportError {
    #[error("otlp url `{url}`: {reason}")]
    Url { url: String, reason: &'static str },
    #[error("otlp exporter for {endpoint}: {source}")]
    Build { endpoint: String, source: ExporterBuildError },
    #[error("start the exporter's threads: {0}")]
    Thread(#[source] std::io::Error),
    #[error("the exporter's thread ended while starting")]
    Died,
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
    /// The first thing that went wrong, as a sentence.
    pub error: Option<String>,
}

impl ExportReport {
    /// Spans lost for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.losses.iter().map(|(_, _, count)| count).sum()
    }
}

/// What the exporter's thread counts.
#[derive(Debug, Default)]
struct Outcome {
    exported: AtomicU64,
    refused: AtomicU64,
    timeout: AtomicU64,
    flush_deadline: AtomicU64,
    error: OnceLock<String>,
}

#[derive(Debug)]
struct Shared {
    queue: Queue,
    outcome: Outcome,
    /// Set once: until when the rest may be sent.
    deadline: watch::Sender<Option<Instant>>,
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
    /// When the URL is none, or the exporter cannot be built from it.
    pub fn start(url: &str, options: OtlpOptions) -> Result<(Self, OtlpHandle), ExportError> {
        let target = Target::parse(url)?;
        let OtlpOptions { max_queued, max_batch, interval, batch_deadline, containers } = options;
        let (deadline, expired) = watch::channel(None);
        let queue = Queue::new(max_queued, max_batch, interval);
        let shared = Arc::new(Shared { queue, outcome: Outcome::default(), deadline });
        let worker = worker::Worker::new(&target, batch_deadline, containers, Arc::clone(&shared), expired)?;
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
        let in_time = ended.recv_timeout(deadline + GRACE) != Err(mpsc::RecvTimeoutError::Timeout);
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
        let Outcome { exported, refused, timeout, flush_deadline, error } = &self.shared.outcome;
        let QueueCounts { accepted: _, full, late } = self.shared.queue.counts();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let reasons = [
            (defs::REASON_QUEUE_FULL, full),
            (defs::REASON_CLOSED, late),
            (defs::REASON_REFUSED, count(refused)),
            (defs::REASON_TIMEOUT, count(timeout)),
            (defs::REASON_FLUSH_DEADLINE, count(flush_deadline)),
        ];
        ExportReport {
            exported: count(exported),
            losses: reasons.map(|(reason, spans)| (defs::STAGE_EXPORT, reason, spans)).to_vec(),
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
        let Outcome { exported, refused, timeout, flush_deadline, error: _ } = &self.outcome;
        let known: u64 =
            [exported, refused, timeout, flush_deadline].iter().map(|counter| counter.load(Ordering::Relaxed)).sum();
        self.queue.counts().accepted.saturating_sub(known)
    }
}

#[cfg(test)]
mod tests;
