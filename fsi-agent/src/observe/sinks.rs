//! Where finished spans go: every output that was asked for, and the tables of the summary.

use std::sync::Arc;
use std::time::Duration;

use super::outputs::OutputError;
use super::{ObserveConfig, ObserveError, TreeDrawing};
use crate::span::{FileSpan, Span, SpanBody, SpanSink};
use crate::summary::files::FileTable;
use crate::summary::listed::ListedOperations;
use crate::summary::tree::{Tree, TreeBuilder};
use crate::summary::{Export, Loss};
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::export::{OtlpHandle, OtlpOptions, OtlpSink};
use crate::telemetry::jsonl::JsonLinesSink;

/// Whether a file span without a close is a segment of a longer one or all there will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Observing,
    Ticking,
    /// Totals of files are made from operations, since a file may have been open before.
    Attached,
}

/// All takers of spans.
#[derive(Debug)]
pub(super) struct Sinks {
    spans_file: Option<JsonLinesSink>,
    otlp: Option<(OtlpSink, OtlpHandle)>,
    otlp_deadline: Duration,
    tree: Option<TreeBuilder>,
    files: FileTable,
    listed: ListedOperations,
    operation_spans: u64,
    /// What the exporters did before they were closed.
    closed: Vec<(&'static str, u64)>,
    phase: Phase,
}

/// What they hold when everything is over.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) tree: Option<Tree>,
    pub(super) files: FileTable,
    pub(super) listed: ListedOperations,
    pub(super) exports: Vec<Export>,
    pub(super) losses: Vec<Loss>,
}

impl Sinks {
    pub(super) fn open(config: &ObserveConfig, names: &Arc<dyn ContainerNames>) -> Result<Self, ObserveError> {
        let containers = || Arc::clone(names);
        let otlp = match &config.otlp {
            Some(url) => {
                Some(OtlpSink::start(url, OtlpOptions { containers: containers(), ..OtlpOptions::default() })?)
            }
            None => None,
        };
        // Last, because it empties the file.
        let spans_file = match &config.spans {
            Some(path) => Some(JsonLinesSink::create(path, containers()).map_err(OutputError::from)?),
            None => None,
        };
        let tree = match config.tree {
            TreeDrawing::Draw => Some(TreeBuilder::default()),
            TreeDrawing::Omit => None,
        };
        let listed = ListedOperations::default();
        let otlp_deadline = config.otlp_deadline;
        let files = FileTable::default();
        Ok(Self {
            spans_file,
            otlp,
            otlp_deadline,
            tree,
            files,
            listed,
            operation_spans: 0,
            closed: Vec::new(),
            phase: Phase::Observing,
        })
    }

    /// Takes spans and keeps nothing: what stands in the place of the sinks once they are closed.
    pub(super) fn closed(operation_spans: u64, exports: &[Export]) -> Self {
        Self {
            spans_file: None,
            otlp: None,
            otlp_deadline: Duration::ZERO,
            tree: None,
            files: FileTable::default(),
            listed: ListedOperations::default(),
            operation_spans,
            closed: exports.iter().map(|export| (export.outcome, export.spans)).collect(),
            phase: Phase::Observing,
        }
    }

    /// Runs a tick of the pipeline, whose spans of open files are segments.
    pub(super) fn ticking(&mut self, tick: impl FnOnce(&mut Self)) {
        self.phase = Phase::Ticking;
        tick(self);
        self.phase = Phase::Observing;
    }

    /// From here on totals of files come by [`Self::file`] alone.
    pub(super) fn attach(&mut self) {
        self.phase = Phase::Attached;
    }

    /// What was done through one open file.
    pub(super) fn file(&mut self, file: &FileSpan) {
        self.files.add(file);
    }

    /// Operations that became spans.
    pub(super) fn operation_spans(&self) -> u64 {
        self.operation_spans
    }

    /// Spans by outcome, as `fsi_spans_total` names them.
    pub(super) fn outcomes(&self) -> Vec<(&'static str, u64)> {
        let exported = self.otlp.as_ref().map(|(_, handle)| ("exported", handle.report().exported));
        let mut outcomes = vec![("made", self.operation_spans)];
        outcomes.extend(exported);
        outcomes.extend(self.closed.iter().copied());
        outcomes
    }

    /// What is known of losses while it runs.
    pub(super) fn losses(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.otlp.as_ref().map(|(_, handle)| handle.report().losses).unwrap_or_default()
    }

    /// Waits for the collector, writes what is buffered.
    pub(super) fn close(self) -> Collected {
        let Self { spans_file, otlp, otlp_deadline, tree, files, listed, operation_spans: _, closed: _, phase: _ } =
            self;
        let mut exports = Vec::new();
        let mut losses = Vec::new();
        if let Some(file) = spans_file {
            let report = file.finish();
            exports.push(Export { to: "spans_file", outcome: "written", spans: report.written, error: report.error });
            losses.extend(report.losses.into_iter().map(Loss::from));
        }
        if let Some((_sink, handle)) = otlp {
            let report = handle.flush(otlp_deadline);
            exports.push(Export { to: "otlp", outcome: "exported", spans: report.exported, error: report.error });
            losses.extend(report.losses.into_iter().map(Loss::from));
        }
        Collected { tree: tree.map(TreeBuilder::finish), files, listed, exports, losses }
    }
}

impl SpanSink for Sinks {
    fn span(&mut self, span: &Arc<Span>) {
        if let Some(file) = &mut self.spans_file {
            file.span(span);
        }
        if let Some((otlp, _)) = &mut self.otlp {
            otlp.span(span);
        }
        if let Some(tree) = &mut self.tree {
            tree.span(span);
        }
        match &span.body {
            SpanBody::Process(_) => {}
            SpanBody::File(file) => {
                // The totals of a segment are those of the whole life so far: only the last one counts.
                if self.phase == Phase::Observing || self.phase == Phase::Ticking && file.close.is_some() {
                    self.files.add(file);
                }
            }
            SpanBody::Operation(operation) => {
                self.operation_spans += 1;
                self.listed.add(span, operation);
            }
        }
    }
}
