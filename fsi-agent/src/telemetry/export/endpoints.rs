//! Several collectors at once, each on its own: spans to all that want them, metrics to all that want those.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use prometheus::proto::MetricFamily;

use super::push::{Gather, PushReport, Pusher};
use super::target::Target;
use super::{ExportError, ExportReport, OtlpHandle, OtlpOptions, OtlpSink};
use crate::config::{Endpoint, Spool};
use crate::span::{Span, SpanSink};
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::{defs, metrics};

/// The pipeline's end: takes spans for every collector, never blocks.
#[derive(Debug)]
pub struct Endpoints {
    sinks: Vec<OtlpSink>,
}

/// The other end: to push metrics, to ask what became of everything, and to end the export.
#[derive(Debug)]
pub struct EndpointsHandle {
    endpoints: Vec<One>,
}

#[derive(Debug)]
struct One {
    name: String,
    target: Target,
    options: OtlpOptions,
    spans: Option<OtlpHandle>,
    metrics: Option<Duration>,
    pusher: Option<Pusher>,
}

/// What became of what was for one collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointReport {
    /// Its URL, without user and password.
    pub endpoint: String,
    /// Nothing: it gets no spans.
    pub spans: Option<ExportReport>,
    /// Nothing: it gets no metrics.
    pub metrics: Option<PushReport>,
}

impl EndpointReport {
    /// The exporter has ended: nothing waits in it any more, and what is in its spool is another's.
    pub fn end(&mut self) {
        if let Some(spans) = &mut self.spans {
            spans.waiting = 0;
            (spans.spool.waiting, spans.spool.bytes) = (0, 0);
        }
    }
}

impl Endpoints {
    /// Starts the exporters of spans. No connection is made before the first batch. Metrics wait for [`EndpointsHandle::push`].
    ///
    /// # Errors
    /// When a URL is none, a header or a certificate cannot be had, or the spool cannot.
    pub fn start(
        endpoints: &[Endpoint],
        spool: Option<&Spool>,
        containers: &Arc<dyn ContainerNames>,
    ) -> Result<(Self, EndpointsHandle), ExportError> {
        let (mut sinks, mut handles) = (Vec::new(), Vec::new());
        for endpoint in endpoints {
            let target = Target::parse(&endpoint.url)?;
            let options = options(endpoint, spool, Arc::clone(containers))?;
            let mut one = One {
                name: target.name.clone(),
                target,
                options,
                spans: None,
                metrics: endpoint.metrics,
                pusher: None,
            };
            if endpoint.spans {
                let (sink, handle) = OtlpSink::start(&endpoint.url, one.options.clone())?;
                sinks.push(sink);
                one.spans = Some(handle);
            }
            handles.push(one);
        }
        Ok((Self { sinks }, EndpointsHandle { endpoints: handles }))
    }
}

fn options(
    endpoint: &Endpoint,
    spool: Option<&Spool>,
    containers: Arc<dyn ContainerNames>,
) -> Result<OtlpOptions, ExportError> {
    let Endpoint { url, spans: _, metrics: _, headers, tls, queue, batch, interval, deadline } = endpoint;
    let mut had = Vec::with_capacity(headers.len());
    for (name, value) in headers {
        let failed = |source| ExportError::Header { url: url.clone(), name: name.clone(), source };
        had.push((name.clone(), value.get().map_err(failed)?));
    }
    Ok(OtlpOptions {
        max_queued: *queue,
        max_batch: *batch,
        interval: *interval,
        batch_deadline: *deadline,
        headers: had,
        tls: tls.clone(),
        spool: spool.cloned(),
        containers,
    })
}

impl SpanSink for Endpoints {
    fn span(&mut self, span: &Arc<Span>) {
        for sink in &mut self.sinks {
            sink.span(span);
        }
    }
}

impl EndpointsHandle {
    /// Starts pushing what `gather` makes to those that want metrics. Counters count from now.
    ///
    /// # Errors
    /// When a certificate cannot be had, or no thread.
    pub fn push(&mut self, gather: &Gather) -> Result<(), ExportError> {
        for one in &mut self.endpoints {
            if let Some(interval) = one.metrics {
                one.pusher = Some(Pusher::start(&one.target, &one.options, interval, Arc::clone(gather))?);
            }
        }
        Ok(())
    }

    /// What became of everything so far; does not block.
    #[must_use]
    pub fn report(&self) -> Vec<EndpointReport> {
        let report = |one: &One| EndpointReport {
            endpoint: one.name.clone(),
            spans: one.spans.as_ref().map(OtlpHandle::report),
            metrics: one.pusher.as_ref().map(Pusher::report),
        };
        self.endpoints.iter().map(report).collect()
    }

    /// Sends what is left to all at once, for at most `deadline`, and ends the export.
    #[must_use]
    pub fn flush(&self, deadline: Duration) -> Vec<EndpointReport> {
        thread::scope(|scope| {
            let end = |one: &One| EndpointReport {
                endpoint: one.name.clone(),
                spans: one.spans.as_ref().map(|handle| handle.flush(deadline)),
                metrics: one.pusher.as_ref().map(|pusher| pusher.flush(deadline)),
            };
            let flushing: Vec<_> = self.endpoints.iter().map(|one| scope.spawn(move || end(one))).collect();
            flushing.into_iter().filter_map(|one| one.join().ok()).collect()
        })
    }
}

/// One report for each collector, of several exporters one after the other.
#[must_use]
pub fn merged(reports: impl IntoIterator<Item = EndpointReport>) -> Vec<EndpointReport> {
    let mut all: Vec<EndpointReport> = Vec::new();
    for report in reports {
        let Some(known) = all.iter_mut().find(|known| known.endpoint == report.endpoint) else {
            all.push(report);
            continue;
        };
        let EndpointReport { endpoint: _, spans, metrics } = report;
        match (&mut known.spans, spans) {
            (Some(known), Some(more)) => known.add(more),
            (known, more) => *known = known.take().or(more),
        }
        match (&mut known.metrics, metrics) {
            (Some(known), Some(more)) => {
                known.exported += more.exported;
                known.lost += more.lost;
            }
            (known, more) => *known = known.take().or(more),
        }
    }
    all
}

/// The metrics of these reports, to stand beside the others.
#[must_use]
pub fn families(reports: &[EndpointReport]) -> Vec<MetricFamily> {
    let (mut spans, mut waiting, mut spool, mut pushes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for EndpointReport { endpoint, spans: of_spans, metrics: of_metrics } in reports {
        let labels =
            |name: &str, value: &str| vec![metrics::label(defs::LABEL_ENDPOINT, endpoint), metrics::label(name, value)];
        let outcome = |outcome: &str, count| metrics::counter(labels(defs::LABEL_OUTCOME, outcome), count);
        if let Some(report) = of_spans {
            let held = report.spool;
            spans.push(outcome(defs::OUTCOME_EXPORTED, report.exported));
            spans.push(outcome(defs::OUTCOME_LOST, report.lost()));
            spans.push(outcome(defs::OUTCOME_SPOOLED, held.spooled));
            spans.push(outcome(defs::OUTCOME_RECOVERED, held.recovered));
            let place = |place: &str, count| metrics::gauge(labels(defs::LABEL_PLACE, place), metrics::signed(count));
            waiting.extend([place("queue", report.waiting), place("spool", held.waiting)]);
            let endpoint = vec![metrics::label(defs::LABEL_ENDPOINT, endpoint)];
            spool.push(metrics::gauge(endpoint, metrics::signed(held.bytes)));
        }
        if let Some(PushReport { exported, lost }) = of_metrics {
            pushes.push(outcome(defs::OUTCOME_EXPORTED, *exported));
            pushes.push(outcome(defs::OUTCOME_LOST, *lost));
        }
    }
    let families = [
        (defs::OTLP_SPANS, spans),
        (defs::OTLP_WAITING, waiting),
        (defs::OTLP_SPOOL, spool),
        (defs::OTLP_PUSHES, pushes),
    ];
    families.into_iter().filter(|(_, metrics)| !metrics.is_empty()).map(|(def, of)| metrics::family(&def, of)).collect()
}
