//! The thread that takes reports: counts them, makes spans of them, and writes the metrics now and then.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::spans::SpanMaker;
use super::{ExportsConfig, ExportsError, ExportsSummary, Message, MountLosses, Refused};
use crate::clock;
use crate::observe::OutputError;
use crate::observe::outputs;
use crate::span::{MountedVolume, Span, SpanSink as _};
use crate::telemetry::containers::NoContainers;
use crate::telemetry::defs;
use crate::telemetry::export::{OtlpHandle, OtlpOptions, OtlpSink};
use crate::telemetry::jsonl::JsonLinesSink;
use crate::telemetry::metrics::mount::{MountCounts, MountSnapshot};

/// How often files are looked after.
const TICK: Duration = Duration::from_secs(1);
/// How many ticks from one text of metrics to the next.
const METRICS_TICKS: u64 = 5;

pub(super) struct Worker {
    refused: Arc<Refused>,
    counts: MountCounts,
    maker: SpanMaker,
    sinks: Sinks,
    metrics: Option<PathBuf>,
    metrics_error: Option<String>,
}

/// Who takes spans.
struct Sinks {
    otlp: Option<(OtlpSink, OtlpHandle)>,
    otlp_deadline: Duration,
    file: Option<JsonLinesSink>,
    made: u64,
}

impl Sinks {
    fn take(&mut self, span: Span) {
        let span = Arc::new(span);
        self.made += 1;
        if let Some((otlp, _handle)) = &mut self.otlp {
            otlp.span(&span);
        }
        if let Some(file) = &mut self.file {
            file.span(&span);
        }
    }

    fn wanted(&self) -> bool {
        self.otlp.is_some() || self.file.is_some()
    }
}

impl Worker {
    pub(super) fn open(config: ExportsConfig, refused: Arc<Refused>) -> Result<Self, ExportsError> {
        let ExportsConfig { target, volume, namespace, otlp, otlp_deadline, spans, metrics } = config;
        let volume = MountedVolume { name: volume.map(Arc::from), namespace: namespace.map(Arc::from) };
        if let Some(path) = &metrics {
            let unwritable = |source| OutputError::Unwritable { option: "--metrics", path: path.clone(), source };
            outputs::writable(path).map_err(unwritable)?;
        }
        let otlp = otlp.map(|url| OtlpSink::start(&url, OtlpOptions::default())).transpose()?;
        // Last, because it empties the file.
        let file = spans.map(|path| JsonLinesSink::create(&path, Arc::new(NoContainers))).transpose();
        let file = file.map_err(OutputError::from)?;
        Ok(Self {
            refused,
            counts: MountCounts::default(),
            maker: SpanMaker::new(&target, volume),
            sinks: Sinks { otlp, otlp_deadline, file, made: 0 },
            metrics,
            metrics_error: None,
        })
    }

    pub(super) fn run(mut self, reports: &Receiver<Message>) -> ExportsSummary {
        let tick_ns = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
        let mut next_ns = clock::monotonic_ns() + tick_ns;
        let mut ticks = 0;
        loop {
            let left = next_ns.saturating_sub(clock::monotonic_ns());
            match reports.recv_timeout(Duration::from_nanos(left)) {
                Ok(Message::End) | Err(RecvTimeoutError::Disconnected) => break,
                Ok(message) => self.take(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now_ns = clock::monotonic_ns();
            if now_ns >= next_ns {
                next_ns = now_ns + tick_ns;
                ticks += 1;
                self.tick(now_ns, ticks);
            }
        }
        // Threads that were in the middle of a report when the end was announced.
        reports.try_iter().for_each(|message| self.take(message));
        self.finish()
    }

    fn take(&mut self, message: Message) {
        let Self { counts, maker, sinks, .. } = self;
        match message {
            Message::Operation(report) => {
                counts.add(&report);
                let span = maker.operation(report);
                if sinks.wanted() {
                    sinks.take(span);
                }
            }
            Message::File(report) => maker.file(report),
            Message::End => {}
        }
    }

    fn tick(&mut self, now_ns: u64, ticks: u64) {
        let Self { maker, sinks, .. } = self;
        let wanted = sinks.wanted();
        maker.tick(now_ns, &mut |span| {
            if wanted {
                sinks.take(span);
            }
        });
        if ticks.is_multiple_of(METRICS_TICKS) {
            let (losses, spans) = (self.losses_so_far(), self.spans_so_far());
            self.write_metrics(losses, spans);
        }
    }

    fn finish(mut self) -> ExportsSummary {
        let Self { maker, sinks, .. } = &mut self;
        let wanted = sinks.wanted();
        maker.finish(clock::monotonic_ns(), &mut |span| {
            if wanted {
                sinks.take(span);
            }
        });
        let mut losses = self.own_losses();
        let mut summary = ExportsSummary { spans: self.sinks.made, ..ExportsSummary::default() };
        let mut spans = vec![(defs::OUTCOME_MADE, self.sinks.made)];
        if let Some(file) = self.sinks.file.take() {
            let report = file.finish();
            summary.written = report.written;
            spans.push((defs::OUTCOME_WRITTEN, report.written));
            losses.extend(report.losses);
            summary.errors.extend(report.error);
        }
        if let Some((_sink, handle)) = self.sinks.otlp.take() {
            let report = handle.flush(self.sinks.otlp_deadline);
            summary.exported = report.exported;
            spans.push((defs::OUTCOME_EXPORTED, report.exported));
            losses.extend(report.losses);
            summary.errors.extend(report.error);
        }
        self.write_metrics(losses.clone(), spans);
        summary.errors.extend(self.metrics_error);
        summary.losses = losses;
        summary
    }

    fn own_losses(&self) -> Vec<(&'static str, &'static str, u64)> {
        let Refused { full, closed, mount } = &*self.refused;
        let MountLosses { undelayed, unlogged } = mount.get().map_or_else(MountLosses::default, |count| count());
        vec![
            (defs::STAGE_REPORTS, defs::REASON_QUEUE_FULL, full.load(Ordering::Relaxed)),
            (defs::STAGE_REPORTS, defs::REASON_CLOSED, closed.load(Ordering::Relaxed)),
            (defs::STAGE_REPORTS, defs::REASON_FILES_FULL, self.maker.files_full()),
            (defs::STAGE_HOLD, defs::REASON_QUEUE_FULL, undelayed),
            (defs::STAGE_FAULT_LOG, defs::REASON_WRITE, unlogged),
        ]
    }

    fn losses_so_far(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut losses = self.own_losses();
        losses.extend(self.sinks.otlp.iter().flat_map(|(_sink, handle)| handle.report().losses));
        losses.extend(self.sinks.file.iter().flat_map(|file| file.report().losses));
        losses
    }

    fn spans_so_far(&self) -> Vec<(&'static str, u64)> {
        let mut spans = vec![(defs::OUTCOME_MADE, self.sinks.made)];
        spans.extend(self.sinks.file.iter().map(|file| (defs::OUTCOME_WRITTEN, file.report().written)));
        spans.extend(self.sinks.otlp.iter().map(|(_, handle)| (defs::OUTCOME_EXPORTED, handle.report().exported)));
        spans
    }

    /// A text that cannot be written is tried again at the next turn; the first error is told.
    fn write_metrics(&mut self, losses: Vec<(&'static str, &'static str, u64)>, spans: Vec<(&'static str, u64)>) {
        let Some(path) = &self.metrics else { return };
        let snapshot = MountSnapshot { losses, spans, open_files: self.maker.open_files() };
        let text = self.counts.render(&snapshot).map_err(OutputError::from);
        if let Err(error) = text.and_then(|text| outputs::replace(path, &text))
            && self.metrics_error.is_none()
        {
            tracing::warn!(%error, "metrics are not written");
            self.metrics_error = Some(error.to_string());
        }
    }
}
