//! Where the agent's spans go: chosen, cut to what may leave the node, put into their traces, handed to every exporter.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use fsi_common::glob::Automaton;
use fsi_common::op::OpKind;

use super::AgentError;
use super::names::Whose;
use crate::attribution::identity::{Identity, Pod};
use crate::config::Config;
use crate::probe::options::GlobList;
use crate::selection::glob::{self, GlobStyle};
use crate::span::{Interposed, OpSpan, Path, Span, SpanBody, SpanSink};
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::export::{EndpointReport, Endpoints, EndpointsHandle, Gather};
use crate::telemetry::grouping::{self, Grouping, regroup};
use crate::telemetry::metrics::exemplars::{Exemplar, Exemplars};
use crate::telemetry::metrics::node::{Names as _, Who};
use crate::telemetry::privacy::PathFilter;
use crate::telemetry::{defs, text};

/// Globs of pods that are kept compiled; beyond, all are compiled anew.
const MAX_COMPILED: usize = 1024;

/// Takes what the pipeline tells.
pub(super) struct Outputs {
    whose: Arc<Whose>,
    collectors: Collectors,
    exemplars: Option<Arc<Exemplars>>,
    choice: Choice,
    /// Spans handed on, and those that the configuration or the pod did not want.
    made: u64,
    unwanted: u64,
}

/// The exporters.
#[derive(Debug)]
pub(super) struct Collectors {
    sink: Endpoints,
    handle: EndpointsHandle,
    are_there: bool,
}

/// Which spans, and how they are told.
pub(super) struct Choice {
    operations: Vec<OpKind>,
    processes: Option<Box<Automaton>>,
    paths: Option<Box<Automaton>>,
    privacy: PathFilter,
    grouping: Grouping,
    window: Duration,
    compiled: HashMap<Vec<String>, Option<Arc<Automaton>>>,
}

impl std::fmt::Debug for Outputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outputs").field("collectors", &self.collectors).finish_non_exhaustive()
    }
}

impl Collectors {
    /// `gather` makes the metrics that are pushed.
    pub(super) fn open(config: &Config, whose: &Arc<Whose>, gather: &Gather) -> Result<Self, AgentError> {
        let names: Arc<dyn ContainerNames> = Arc::<Whose>::clone(whose);
        let (sink, mut handle) = Endpoints::start(&config.otlp, config.spool.as_ref(), &names)?;
        handle.push(gather)?;
        Ok(Self { sink, handle, are_there: !config.otlp.is_empty() })
    }

    /// What became of everything at each.
    pub(super) fn report(&self) -> Vec<EndpointReport> {
        self.handle.report()
    }

    /// Waits for them, so long.
    pub(super) fn close(self, within: Duration) -> Vec<EndpointReport> {
        let Self { sink, handle, are_there: _ } = self;
        drop(sink);
        let reports = handle.flush(within);
        for EndpointReport { endpoint, spans, metrics: _ } in &reports {
            if let Some(error) = spans.as_ref().and_then(|spans| spans.error.as_ref()) {
                tracing::warn!(endpoint, error, "a collector did not take everything");
            }
        }
        reports
    }
}

impl Choice {
    /// `before`: the configuration that held, and what was made of it. A hash of paths goes on as it was, if nothing is said about it.
    pub(super) fn new(config: &Config, before: Option<(&Config, &Self)>) -> Result<Self, AgentError> {
        let privacy = match before {
            Some((was, choice)) if was.privacy == config.privacy => choice.privacy.clone(),
            Some(_) | None => PathFilter::new(&config.privacy)?,
        };
        Ok(Self {
            operations: config.observe.operations.clone(),
            processes: compiled(&config.observe.process, GlobStyle::Name),
            paths: compiled(&config.observe.paths, GlobStyle::Path),
            privacy,
            grouping: config.spans.grouping,
            window: config.spans.window,
            compiled: HashMap::new(),
        })
    }
}

impl Outputs {
    pub(super) fn new(
        collectors: Collectors,
        choice: Choice,
        whose: &Arc<Whose>,
        exemplars: Option<Arc<Exemplars>>,
    ) -> Self {
        Self { whose: Arc::clone(whose), collectors, exemplars, choice, made: 0, unwanted: 0 }
    }

    pub(super) const fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Another configuration holds; the collectors that were there before, if there are others now.
    pub(super) fn change(&mut self, choice: Choice, collectors: Option<Collectors>) -> Option<Collectors> {
        self.choice = choice;
        collectors.map(|collectors| std::mem::replace(&mut self.collectors, collectors))
    }

    /// Operations handed on as spans.
    pub(super) const fn made(&self) -> u64 {
        self.made
    }

    /// Operations that the configuration's or the pod's globs did not want.
    pub(super) const fn unwanted(&self) -> u64 {
        self.unwanted
    }

    /// An operation that crossed for somebody who watches, and for nobody else.
    pub(super) const fn leave_out(&mut self) {
        self.unwanted += 1;
    }

    /// What became of everything at each collector.
    pub(super) fn report(&self) -> Vec<EndpointReport> {
        self.collectors.report()
    }

    /// Waits for the collectors, so long.
    pub(super) fn close(self, within: Duration) {
        self.collectors.close(within);
    }

    /// An operation with a span stands for others that took as long.
    fn exemplar(&self, span: &Span) {
        let (Some(exemplars), SpanBody::Operation(op)) = (&self.exemplars, &span.body) else { return };
        let Who { namespace, pod, container } = self.whose.who(span.actor.cgroup);
        let volume = if op.dev == 0 { None } else { self.whose.volume(op.dev, span.actor.cgroup) };
        let device = if op.dev == 0 { String::new() } else { text::device(op.dev) };
        let labels = [
            (defs::LABEL_NAMESPACE, &*namespace),
            (defs::LABEL_POD, &*pod),
            (defs::LABEL_CONTAINER, &*container),
            (defs::LABEL_VOLUME, volume.as_deref().unwrap_or_default()),
            (defs::LABEL_DEVICE, &*device),
            (defs::LABEL_OP, op.op.name()),
        ];
        let duration = Duration::from_nanos(op.duration_ns);
        let exemplar = Exemplar { trace: span.trace, span: span.id, duration, unix_ns: span.end_unix_ns };
        exemplars.note(&labels, exemplar);
    }
}

impl Choice {
    /// The span as it leaves, in its trace.
    fn told(&self, span: &Arc<Span>, group: &grouping::Identity<'_>) -> Arc<Span> {
        if self.grouping == Grouping::Process && self.privacy.is_full() {
            return Arc::clone(span);
        }
        Arc::new(self.privacy.apply(regroup(Span::clone(span), self.grouping, self.window, group)))
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

pub(super) fn is_on_purpose(op: &OpSpan) -> bool {
    let of = |interposed: &Interposed| {
        !interposed.faults.is_empty() || interposed.injected_ns != 0 || interposed.throttle_ns != 0
    };
    op.interposed.as_deref().is_some_and(of)
}

impl SpanSink for Outputs {
    fn span(&mut self, span: &Arc<Span>) {
        let identity = self.whose.identity(span.actor.cgroup);
        let is_operation = matches!(span.body, SpanBody::Operation(_));
        if !self.choice.wants(span, identity.as_deref()) {
            self.unwanted += u64::from(is_operation);
            return;
        }
        self.made += u64::from(is_operation);
        if !self.collectors.are_there {
            return;
        }
        let told = self.choice.told(span, &self.whose.group(identity.as_deref()));
        self.exemplar(&told);
        self.collectors.sink.span(&told);
    }
}
