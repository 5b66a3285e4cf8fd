//! One observation through the agent: its spans as they come, and the change of its numbers from the beginning to the end.
//!
//! The agent counts by container and operation. Where paths or processes are chosen, the counts are those of the operations that were told.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;
use fsi_common::record::FileTotals;
use lru::LruCache;

use super::growth::{Aggregates, Growth, TheirNames, counted, grow};
use super::outputs::{self, OutputError};
use super::pace::Every;
use super::processes;
use super::scrape::ScrapeDesk;
use super::sinks::{Collected, Sinks};
use super::{CommandEnd, Observation, ObserveConfig, ObserveError, Signals};
use crate::attach::Whom;
use crate::attach::client::{AttachError, Client, Loss as TheirLoss, Numbers, Stream, Told, Watching};
use crate::clock::{Clock, monotonic_ns};
use crate::probe::features::TIER;
use crate::probe::options::GlobList;
use crate::span::{Above, FileSpan, OpSpan, Span, SpanBody, SpanId, SpanSink as _};
use crate::summary::{Loss, Summary, SummaryInput};
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::defs;
use crate::telemetry::metrics::{MetricsSnapshot, render};
use crate::telemetry::serve::{MetricsServer, serve};
use crate::top::meter::{Moves, moves};

/// Longest time without a look at signals and the clock.
const PATIENCE: Duration = Duration::from_millis(20);
/// The numbers of a cgroup that has ended are to be had for a minute.
const NUMBERS: Duration = Duration::from_secs(5);
/// Longest time for what is on its way at the end.
const LAST: Duration = Duration::from_secs(10);
/// Open files whose operations are added up at once.
const MAX_FILES: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Different processes that are counted.
const MAX_PROCESSES: usize = 1 << 20;
/// What the agent loses there may be missing here.
const STAGES: [&str; 5] = ["ring", "probe", "decode", "attribute", "correlate"];

/// A running observation.
pub(super) struct Attached<'a> {
    config: &'a ObserveConfig,
    whom: &'a Whom,
    signals: Signals,
    client: Client,
    stream: Stream,
    growth: Growth,
    /// Of operations that were told, where the agent's counts are of more than was asked for.
    told: Option<Aggregates>,
    losses_before: Vec<TheirLoss>,
    losses_now: Vec<TheirLoss>,
    dropped_before: u64,
    names: Arc<TheirNames>,
    sinks: Sinks,
    files: LruCache<SpanId, FileSpan>,
    processes: HashSet<u32>,
    desk: ScrapeDesk,
    server: Option<MetricsServer>,
    notes: Vec<String>,
    clock: Clock,
    start_ns: u64,
}

impl<'a> Attached<'a> {
    /// When it returns, everything is seen.
    pub(super) fn new(
        config: &'a ObserveConfig,
        socket: &Path,
        whom: &'a Whom,
        signals: Signals,
    ) -> Result<Self, ObserveError> {
        let options = &config.probe;
        let watching = Watching {
            whom: whom.clone(),
            paths: options.paths.clone(),
            processes: options.processes.clone(),
            operations: options.operations.clone(),
            events: options.events,
        };
        let mut client = Client::connect(socket)?;
        let desk = ScrapeDesk::default();
        let asking = desk.clone();
        let server = match config.metrics_listen {
            Some(addr) => Some(serve(addr, move || asking.ask()).map_err(OutputError::from)?),
            None => None,
        };
        let mut stream = Stream::begin(socket, &watching)?;
        let numbers = client.numbers(whom, stream.watch)?;
        // What was told before the numbers were read is in them.
        loop {
            match stream.next(LAST)? {
                Some(Told::Mark(mark)) if mark >= numbers.mark => break,
                Some(Told::Mark(_) | Told::Spans(_)) => {}
                None => return Err(AttachError::WentAway("it tells nothing".to_owned()).into()),
            }
        }
        let names = Arc::new(TheirNames::default());
        names.learn(numbers.cgroups);
        let dyn_names: Arc<dyn ContainerNames> = Arc::<TheirNames>::clone(&names);
        let mut sinks = Sinks::open(config, &dyn_names)?;
        sinks.attach();
        let mut notes = Vec::new();
        if stream.cgroups == 0 {
            notes.push("the agent knew nobody of that kind when the observation began".to_owned());
        }
        let is_filtered = [&options.paths, &options.processes].iter().any(|list| **list != GlobList::default());
        if is_filtered {
            notes.push(
                "counts are of the operations told one by one: the agent counts by container, not by path or process"
                    .to_owned(),
            );
        }
        let events = options.events;
        if !events.every {
            notes.push("files, processes and their sums are of the operations told one by one".to_owned());
        }
        notes.push("what was done to files before the observation began is not in their sums".to_owned());
        Ok(Self {
            config,
            whom,
            signals,
            client,
            dropped_before: stream.dropped(),
            stream,
            growth: Growth::since(numbers.aggregates),
            told: is_filtered.then(Aggregates::new),
            losses_before: numbers.losses.clone(),
            losses_now: numbers.losses,
            names,
            sinks,
            files: LruCache::new(MAX_FILES),
            processes: HashSet::new(),
            desk,
            server,
            notes,
            clock: Clock::measure(),
            start_ns: monotonic_ns(),
        })
    }

    /// Where the metrics are served, if they are.
    pub(super) fn metrics_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(MetricsServer::addr)
    }

    pub(super) fn run(mut self) -> Observation {
        let mut numbers = Every::new(NUMBERS);
        while !self.signals.any() && self.config.duration.is_none_or(|limit| Clock::since(self.start_ns) < limit) {
            match self.stream.next(PATIENCE) {
                Ok(Some(Told::Spans(spans))) => spans.iter().for_each(|span| self.take(span)),
                Ok(Some(Told::Mark(_)) | None) => {}
                Err(error) => {
                    self.note(format!("{error}: what came after is not here"));
                    return self.finish(None);
                }
            }
            if self.desk.is_asked() {
                self.count(0);
                let text = self.metrics_text(self.sinks.losses());
                self.desk.answer(text);
            }
            if numbers.is_due(monotonic_ns()) {
                self.count(0);
                self.write_metrics(self.sinks.losses());
            }
        }
        let mark = self.count(self.stream.watch);
        self.finish(mark)
    }

    /// Every sentence once.
    fn note(&mut self, sentence: String) {
        if !self.notes.contains(&sentence) {
            self.notes.push(sentence);
        }
    }

    /// Reads the agent's numbers; the mark after which everything in them has been told.
    fn count(&mut self, watch: u64) -> Option<u64> {
        let Numbers { mut aggregates, cgroups, losses, mark } = match self.client.numbers(self.whom, watch) {
            Ok(numbers) => numbers,
            Err(error) => {
                self.note(format!("the agent's numbers could not be read: {error}"));
                return None;
            }
        };
        let operations = &self.config.probe.operations;
        aggregates.retain(|(key, _)| operations.is_empty() || operations.iter().any(|op| op.code() == key.op));
        self.growth.add(aggregates);
        self.names.learn(cgroups);
        self.losses_now = losses;
        Some(mark)
    }

    fn take(&mut self, span: &Arc<Span>) {
        match &span.body {
            SpanBody::Operation(op) => {
                if self.processes.len() < MAX_PROCESSES {
                    self.processes.insert(span.actor.tgid);
                }
                if let Some(told) = &mut self.told {
                    let (key, value) = counted(span, op);
                    grow(told, key, value);
                }
                self.add_to_file(span, op);
            }
            SpanBody::File(file) => {
                if let Some(sum) = self.files.pop(&span.id) {
                    let FileSpan { path, close, .. } = file;
                    self.sinks.file(&FileSpan { path: path.clone(), close: *close, ..sum });
                }
            }
            SpanBody::Process(_) => {}
        }
        self.sinks.span(span);
    }

    fn add_to_file(&mut self, span: &Span, op: &OpSpan) {
        let (Some(parent), Above::File { .. }) = (span.parent, span.above) else { return };
        if !self.files.contains(&parent) {
            let fresh = FileSpan {
                path: op.path.clone(),
                dev: op.dev,
                ino: op.ino,
                mode: op.mode,
                open_flags: op.open_flags.unwrap_or(0),
                open_before: op.open_flags.is_none(),
                close: None,
                totals: FileTotals::default(),
                segment: 0,
            };
            if let Some((_oldest, file)) = self.files.push(parent, fresh) {
                self.sinks.file(&file);
            }
        }
        let Some(file) = self.files.get_mut(&parent) else { return };
        let Moves { reads, writes } = moves(op.op);
        let (bytes, totals) = (op.bytes.unwrap_or(0), &mut file.totals);
        totals.operations += 1;
        totals.reads += u64::from(reads);
        totals.writes += u64::from(writes);
        totals.bytes_read += if reads { bytes } else { 0 };
        totals.bytes_written += if writes { bytes } else { 0 };
        totals.errors += u64::from(op.errno != 0);
        totals.duration_ns += op.duration_ns;
        totals.max_ns = totals.max_ns.max(op.duration_ns);
    }

    /// Takes what was told before the mark.
    fn take_the_rest(&mut self, mark: u64) {
        let begun_ns = monotonic_ns();
        let asked = self.signals.count();
        while Clock::since(begun_ns) < LAST && self.signals.count() == asked {
            match self.stream.next(PATIENCE) {
                Ok(Some(Told::Spans(spans))) => spans.iter().for_each(|span| self.take(span)),
                Ok(Some(Told::Mark(reached))) if reached >= mark => return,
                Ok(Some(Told::Mark(_)) | None) => {}
                Err(error) => return self.note(error.to_string()),
            }
        }
        self.note("the last of what the agent told was not taken: spans and files are incomplete".to_owned());
    }

    fn finish(mut self, mark: Option<u64>) -> Observation {
        let end_ns = monotonic_ns();
        if let Some(mark) = mark {
            self.take_the_rest(mark);
        }
        self.server = None;
        while let Some((_id, file)) = self.files.pop_lru() {
            self.sinks.file(&file);
        }
        let spans = self.sinks.operation_spans();
        // The metrics say what the exporters lost, so these are ended first.
        let sinks = std::mem::replace(&mut self.sinks, Sinks::closed(spans, &[]));
        let Collected { tree, files, listed, exports, losses } = sinks.close();
        self.sinks = Sinks::closed(spans, &exports);
        self.write_metrics(losses.iter().map(|loss| (loss.stage, loss.reason, loss.count)).collect());
        let mut lost = self.their_losses();
        if lost.iter().any(|loss| loss.stage != defs::STAGE_WATCH) {
            self.note("what the agent lost is of all that it looks at".to_owned());
        }
        lost.extend(losses);
        let processes_running = self.processes.iter().filter(|pid| processes::exists(**pid)).map(|_| 1).sum();
        let (aggregates, counters) = self.counts();
        let command = CommandEnd::NoCommand;
        let summary = Summary::build(SummaryInput {
            config: self.config,
            command: &command,
            start_unix_ns: self.clock.unix_ns(self.start_ns),
            duration: Duration::from_nanos(end_ns.saturating_sub(self.start_ns)),
            processes: self.processes.len() as u64,
            processes_running,
            aggregates,
            counters,
            spans,
            files,
            listed,
            exports,
            lost,
            notes: self.notes,
        });
        Observation { summary, tree, command }
    }

    fn dropped(&self) -> u64 {
        self.stream.dropped().saturating_sub(self.dropped_before)
    }

    /// What was counted, and what became of it.
    fn counts(&self) -> (Vec<(AggregateKey, AggregateValue)>, [u64; Counter::COUNT as usize]) {
        let counted = self.told.as_ref().unwrap_or(&self.growth.sum);
        let aggregates: Vec<_> = counted.iter().map(|(key, value)| (*key, *value)).collect();
        let seen: u64 = aggregates.iter().map(|(_key, value)| value.count).sum();
        let spans = self.sinks.operation_spans();
        let mut counters = [0; Counter::COUNT as usize];
        counters[Counter::Seen as usize] = seen;
        counters[Counter::Sent as usize] = spans;
        counters[Counter::SampledOut as usize] = seen.saturating_sub(spans).saturating_sub(self.dropped());
        (aggregates, counters)
    }

    /// What this watcher lost, and what the agent did meanwhile.
    fn their_losses(&self) -> Vec<Loss> {
        let before = |loss: &TheirLoss| {
            let mut same = self.losses_before.iter().filter(|old| old.stage == loss.stage && old.reason == loss.reason);
            same.next().map_or(0, |old| old.count)
        };
        // The names are those of the catalogue.
        let named = |loss: &TheirLoss| {
            let (stage, reason) =
                defs::losses().find(|(stage, reason)| *stage == loss.stage && *reason == loss.reason)?;
            STAGES.contains(&stage).then(|| Loss { stage, reason, count: loss.count.saturating_sub(before(loss)) })
        };
        let own = Loss { stage: defs::STAGE_WATCH, reason: defs::REASON_QUEUE_FULL, count: self.dropped() };
        let theirs = self.losses_now.iter().filter_map(named);
        [own].into_iter().chain(theirs).filter(|loss| loss.count > 0).collect()
    }

    fn metrics_text(&mut self, exporter_losses: Vec<(&'static str, &'static str, u64)>) -> String {
        let (aggregates, counters) = self.counts();
        let mut losses = exporter_losses;
        losses.extend(self.their_losses().iter().map(|loss| (loss.stage, loss.reason, loss.count)));
        let snapshot = MetricsSnapshot {
            aggregates,
            counters,
            losses,
            spans: self.sinks.outcomes(),
            tier: TIER,
            open_files: None,
            containers: &*self.names,
        };
        render(&snapshot).unwrap_or_else(|error| {
            self.note(error.to_string());
            String::new()
        })
    }

    fn write_metrics(&mut self, exporter_losses: Vec<(&'static str, &'static str, u64)>) {
        let Some(path) = &self.config.metrics else { return };
        let text = self.metrics_text(exporter_losses);
        if let Err(error) = outputs::replace(path, &text) {
            self.note(error.to_string());
        }
    }
}
