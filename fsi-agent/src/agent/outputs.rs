//! Where the agent's spans go: chosen, cut to what may leave the node, put into their traces, handed to every exporter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fsi_common::glob::Automaton;
use fsi_common::op::OpKind;

use super::AgentError;
use super::names::Whose;
use crate::attribution::identity::{Identity, Pod};
use crate::clock::{Clock, monotonic_ns};
use crate::config::Config;
use crate::probe::options::GlobList;
use crate::selection::glob::{self, GlobStyle};
use crate::span::{Interposed, OpSpan, Path, Span, SpanBody, SpanSink};
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::export::{OtlpHandle, OtlpOptions, OtlpSink};
use crate::telemetry::grouping::{Grouping, regroup};
use crate::telemetry::privacy::PathFilter;

/// Globs of pods that are kept compiled; beyond, all are compiled anew.
const MAX_COMPILED: usize = 1024;

/// Takes what the pipeline tells.
pub(super) struct Outputs {
    whose: Arc<Whose>,
    exporters: Vec<(OtlpSink, OtlpHandle)>,
    operations: Vec<OpKind>,
    processes: Option<Box<Automaton>>,
    paths: Option<Box<Automaton>>,
    privacy: PathFilter,
    grouping: Grouping,
    window: Duration,
    compiled: HashMap<Vec<String>, Option<Arc<Automaton>>>,
    /// Spans handed on, and those that the configuration or the pod did not want.
    made: u64,
    unwanted: u64,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").field("exporters", &self.exporters).finish_non_exhaustive()
    }
}

/// What exporters did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Exported {
    /// Spans that collectors took.
    pub(super) spans: u64,
    pub(super) losses: Vec<(&'static str, &'static str, u64)>,
}

impl Exported {
    pub(super) fn add(&mut self, other: &Self) {
        self.spans += other.spans;
        self.losses.extend(&other.losses);
    }
}

impl Outputs {
    pub(super) fn open(config: &Config, whose: &Arc<Whose>) -> Result<Self, AgentError> {
        let names: Arc<dyn ContainerNames> = Arc::<Whose>::clone(whose);
        let mut exporters = Vec::new();
        for endpoint in &config.otlp {
            let options = OtlpOptions { containers: Arc::clone(&names), ..OtlpOptions::default() };
            exporters.push(OtlpSink::start(&endpoint.url, options)?);
        }
        Ok(Self {
            whose: Arc::clone(whose),
            exporters,
            operations: config.observe.operations.clone(),
            processes: compiled(&config.observe.process, GlobStyle::Name),
            paths: compiled(&config.observe.paths, GlobStyle::Path),
            privacy: PathFilter::new(&config.privacy)?,
            grouping: config.spans.grouping,
            window: config.spans.window,
            compiled: HashMap::new(),
            made: 0,
            unwanted: 0,
        })
    }

    /// Operations handed on as spans.
    pub(super) const fn made(&self) -> u64 {
        self.made
    }

    /// Operations that the configuration's or the pod's globs did not want.
    pub(super) const fn unwanted(&self) -> u64 {
        self.unwanted
    }

    pub(super) fn exported(&self) -> Exported {
        let mut all = Exported::default();
        for (_sink, handle) in &self.exporters {
            let report = handle.report();
            all.add(&Exported { spans: report.exported, losses: report.losses });
        }
        all
    }

    /// Waits for the collectors, all of them together for so long.
    pub(super) fn close(self, within: Duration) -> Exported {
        let mut all = Exported::default();
        let begun_ns = monotonic_ns();
        for (sink, handle) in self.exporters {
            drop(sink);
            let report = handle.flush(within.saturating_sub(Clock::since(begun_ns)));
            if let Some(error) = report.error {
                tracing::warn!(%error, "a collector did not take everything");
            }
            all.add(&Exported { spans: report.exported, losses: report.losses });
        }
        all
    }

    /// What was done on purpose is told whatever the globs say.
    fn wants(&mut self, span: &Span, identity: Option<&Identity>) -> bool {
        let (path, op) = match &span.body {
            SpanBody::Process(_) => return true,
            SpanBody::File(file) => (file.path.as_ref(), None),
            SpanBody::Operation(op) if is_on_purpose(op) => return true,
            SpanBody::Operation(op) => (op.path.as_ref(), Some(op.op)),
        };
        if op.is_some_and(|op| !self.operations.is_empty() && !self.operations.contains(&op)) {
            return false;
        }
        let comm = &span.actor.comm;
        let name = &comm[..comm.iter().position(|byte| *byte == 0).unwrap_or(comm.len())];
        if self.processes.as_ref().is_some_and(|globs| !glob::matches(globs, name)) {
            return false;
        }
        let asked = identity.and_then(|identity| identity.pod.as_deref()).and_then(|pod| self.asked(pod));
        selects(self.paths.as_deref(), path) && selects(asked.as_deref(), path)
    }

    /// The globs that a pod asks for.
    fn asked(&mut self, pod: &Pod) -> Option<Arc<Automaton>> {
        let include = pod.policy.paths.as_ref()?;
        if let Some(known) = self.compiled.get(include) {
            return known.clone();
        }
        let list = GlobList { include: include.clone(), exclude: Vec::new() };
        let globs = compiled(&list, GlobStyle::Path).map(Arc::from);
        if self.compiled.len() < MAX_COMPILED {
            self.compiled.insert(list.include, globs.clone());
        }
        globs
    }
}

/// What does not compile was refused when it was read; nothing stands for "all".
fn compiled(list: &GlobList, style: GlobStyle) -> Option<Box<Automaton>> {
    if list.include.is_empty() && list.exclude.is_empty() {
        return None;
    }
    glob::compile(list, style).ok()
}

fn selects(globs: Option<&Automaton>, path: Option<&Path>) -> bool {
    globs.is_none_or(|globs| path.is_some_and(|path| glob::matches(globs, &path.bytes)))
}

fn is_on_purpose(op: &OpSpan) -> bool {
    let of = |interposed: &Interposed| {
        !interposed.faults.is_empty() || interposed.injected_ns != 0 || interposed.throttle_ns != 0
    };
    op.interposed.as_deref().is_some_and(of)
}

impl SpanSink for Outputs {
    fn span(&mut self, span: &Arc<Span>) {
        let identity = self.whose.identity(span.actor.cgroup);
        let is_operation = matches!(span.body, SpanBody::Operation(_));
        if !self.wants(span, identity.as_deref()) {
            self.unwanted += u64::from(is_operation);
            return;
        }
        self.made += u64::from(is_operation);
        if self.exporters.is_empty() {
            return;
        }
        let group = self.whose.group(identity.as_deref());
        let span = regroup(Span::clone(span), self.grouping, self.window, &group);
        let span = Arc::new(self.privacy.apply(span));
        for (exporter, _handle) in &mut self.exporters {
            exporter.span(&span);
        }
    }
}
