//! The exporter's thread: takes batches, converts them, sends them, counts what became of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::ClientTlsConfig;

use super::target::{Protocol, Target};
use super::{ExportError, Shared};
use crate::span::Span;
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::span::{Converter, resource};

/// The first pause before a batch is tried again; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What is said when the time for the end is over: the SDK tries again and keeps the reason to itself.
const DEADLINE: &str = "not everything could be sent before the deadline; is the collector there?";
const TLS_DEADLINE: &str = "not everything could be sent before the deadline; is the collector there, and its certificate from an authority that this machine trusts?";

/// What the thread needs.
#[derive(Debug)]
pub(super) struct Worker {
    runtime: Runtime,
    exporter: SpanExporter,
    endpoint: String,
    batch_deadline: Duration,
    converter: Converter,
    shared: Arc<Shared>,
    expired: watch::Receiver<Option<Instant>>,
}

/// What became of a batch.
enum Sent {
    Exported,
    Refused(String),
    TimedOut(String),
    FlushDeadline,
}

impl Worker {
    pub(super) fn new(
        target: &Target,
        batch_deadline: Duration,
        containers: Arc<dyn ContainerNames>,
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
        let endpoint = target.endpoint.clone();
        let exporter = {
            let _context = runtime.enter();
            build(target, batch_deadline).map_err(|source| ExportError::Build { endpoint: endpoint.clone(), source })?
        };
        let converter = Converter::new(containers);
        Ok(Self { runtime, exporter, endpoint, batch_deadline, converter, shared, expired })
    }

    /// Until the queue is closed and empty, or the flush's deadline has passed.
    pub(super) fn run(self) {
        while let Some(spans) = self.shared.queue.take() {
            let outcome = &self.shared.outcome;
            let add = |counter: &AtomicU64| counter.fetch_add(spans.len() as u64, Ordering::Relaxed);
            match self.runtime.block_on(self.send(&spans)) {
                Sent::Exported => {
                    add(&outcome.exported);
                }
                Sent::Refused(error) => {
                    add(&outcome.refused);
                    self.complain(&error);
                }
                Sent::TimedOut(error) => {
                    add(&outcome.timeout);
                    self.complain(&error);
                }
                Sent::FlushDeadline => {
                    add(&outcome.flush_deadline);
                    outcome.flush_deadline.fetch_add(self.shared.queue.abandon(), Ordering::Relaxed);
                    self.complain(if self.endpoint.starts_with("https:") { TLS_DEADLINE } else { DEADLINE });
                    break;
                }
            }
        }
        // A name lookup that hangs must not keep us.
        self.runtime.shutdown_background();
    }

    /// Keeps the first complaint; the counts tell how often.
    fn complain(&self, error: &str) {
        if self.shared.outcome.error.set(format!("export spans to {}: {error}", self.endpoint)).is_ok() {
            tracing::warn!(endpoint = self.endpoint, error, "spans are being lost");
        }
    }

    async fn send(&self, spans: &[Arc<Span>]) -> Sent {
        let mut expired = self.expired.clone();
        let flush_deadline = async {
            // The sender lives in what we share: it cannot go away.
            let until = expired.wait_for(Option::is_some).await.ok().and_then(|until| *until);
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let batch = spans.iter().map(|span| self.converter.convert(span)).collect();
        let began = Instant::now();
        tokio::select! {
            // An answer that is there counts, even at the deadline.
            biased;
            answer = timeout(self.batch_deadline, self.exporter.export(batch)) => {
                self.judge(answer.unwrap_or(Err(OTelSdkError::Timeout(self.batch_deadline))), began.elapsed())
            }
            () = flush_deadline => Sent::FlushDeadline,
        }
    }

    /// The SDK tries again whatever may be tried again, until the next pause would exceed the deadline: a failure before that is a no.
    fn judge(&self, answer: OTelSdkResult, took: Duration) -> Sent {
        match answer {
            Ok(()) => Sent::Exported,
            Err(OTelSdkError::Timeout(_)) => Sent::TimedOut("no answer in time".to_owned()),
            Err(OTelSdkError::InternalFailure(reason))
                if took + longest_pause(self.batch_deadline) >= self.batch_deadline =>
            {
                Sent::TimedOut(reason)
            }
            Err(OTelSdkError::InternalFailure(reason)) => Sent::Refused(reason),
            Err(error @ OTelSdkError::AlreadyShutdown) => Sent::Refused(error.to_string()),
        }
    }
}

fn longest_pause(deadline: Duration) -> Duration {
    LONGEST_PAUSE.min(deadline / 4)
}

fn build(target: &Target, deadline: Duration) -> Result<SpanExporter, opentelemetry_otlp::ExporterBuildError> {
    let retries = RetryPolicy::recommended()
        .with_max_retries(usize::MAX)
        .with_initial_delay(FIRST_PAUSE)
        .with_max_delay(longest_pause(deadline));
    let mut exporter = match target.protocol {
        Protocol::Grpc => {
            let builder = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(&target.endpoint)
                .with_timeout(deadline)
                .with_retry_policy(retries);
            if target.endpoint.starts_with("https:") {
                builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()).build()?
            } else {
                builder.build()?
            }
        }
        Protocol::Http => {
            // The client takes what the process has chosen; it cannot be built without. The first choice stays.
            rustls::crypto::ring::default_provider().install_default().ok();
            SpanExporter::builder()
                .with_http()
                .with_endpoint(&target.endpoint)
                .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
                .with_timeout(deadline)
                .with_retry_policy(retries)
                .build()?
        }
    };
    exporter.set_resource(&resource());
    Ok(exporter)
}
