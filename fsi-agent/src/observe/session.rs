//! One observation from start to end: drain, tick, sweep, look for the end, and bring everything home.
//!
//! Once the command runs nothing here fails any more: what goes wrong becomes a note in the summary, because the command's
//! exit code is the one that counts.

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;
use rustix::process::{Pid, Signal, kill_process};

use super::command;
use super::outputs::{self, OutputError};
use super::pace::{Chores, pause};
use super::processes::{self, Processes};
use super::scrape::ScrapeDesk;
use super::signals::Signals;
use super::sinks::{Collected, Sinks};
use super::{CommandEnd, Observation, ObserveConfig, ObserveError};
use crate::attribution::cgroups::Cgroups;
use crate::clock::{Clock, monotonic_ns};
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::probe::Probe;
use crate::probe::features::TIER;
use crate::probe::options::Selection;
use crate::summary::{Loss, Summary, SummaryInput};
use crate::telemetry::containers::ContainerNames;
use crate::telemetry::metrics::{MetricsSnapshot, render};
use crate::telemetry::serve::{MetricsServer, serve};

/// Longest time for what is in the ring when the observation is over: the largest ring takes a few seconds.
const LAST_DRAIN: Duration = Duration::from_secs(10);

/// A running observation.
pub(super) struct Session<'a> {
    config: &'a ObserveConfig,
    probe: Probe,
    pipeline: Pipeline,
    sinks: Sinks,
    processes: Processes,
    cgroups: Arc<Cgroups>,
    signals: Signals,
    forwarded: u32,
    desk: ScrapeDesk,
    server: Option<MetricsServer>,
    chores: Chores,
    notes: Vec<String>,
    clock: Clock,
    start_ns: u64,
}

impl<'a> Session<'a> {
    /// Opens the outputs.
    pub(super) fn new(config: &'a ObserveConfig, probe: Probe, signals: Signals) -> Result<Self, ObserveError> {
        let desk = ScrapeDesk::default();
        let asking = desk.clone();
        let server = match config.metrics_listen {
            Some(addr) => Some(serve(addr, move || asking.ask()).map_err(OutputError::from)?),
            None => None,
        };
        let clock = Clock::measure();
        let cgroups = Arc::new(Cgroups::observed(&config.probe.selection));
        let names: Arc<dyn ContainerNames> = Arc::<Cgroups>::clone(&cgroups);
        Ok(Self {
            config,
            probe,
            pipeline: Pipeline::new(PipelineOptions::default(), clock),
            sinks: Sinks::open(config, &names)?,
            processes: Processes::default(),
            cgroups,
            signals,
            forwarded: 0,
            desk,
            server,
            chores: Chores::new(),
            notes: Vec::new(),
            clock,
            start_ns: monotonic_ns(),
        })
    }

    /// Where the metrics are served, if they are.
    pub(super) fn metrics_addr(&self) -> Option<SocketAddr> {
        self.server.as_ref().map(MetricsServer::addr)
    }

    pub(super) fn run(mut self, program: Option<Command>) -> Result<Observation, ObserveError> {
        self.start_ns = monotonic_ns();
        let mut child = match program {
            Some(mut program) => Some(
                self.probe.spawn(&mut program).map_err(|error| command::not_started(&self.config.command, error))?,
            ),
            None => None,
        };
        let stop = loop {
            let records = self.drain();
            let now_ns = monotonic_ns();
            self.chores(now_ns);
            if let Some(stop) = self.stop(now_ns, child.as_mut())? {
                break stop;
            }
            thread::sleep(pause(records));
        };
        let end = match (stop, child) {
            (_, None) => CommandEnd::NoCommand,
            (Stop::Ended(status), Some(_)) => CommandEnd::Ended(status),
            (Stop::Over, Some(child)) => CommandEnd::Running(child),
            (Stop::Impatient, Some(child)) => CommandEnd::LeftBehind { pid: child.id() },
        };
        Ok(self.finish(end))
    }

    fn drain(&mut self) -> usize {
        let Self { probe, pipeline, sinks, processes, .. } = self;
        probe.drain(&mut |record| {
            processes.record(record);
            pipeline.record(record, sinks);
        })
    }

    fn chores(&mut self, now_ns: u64) {
        if self.chores.tick.is_due(now_ns) {
            let pipeline = &mut self.pipeline;
            self.sinks.ticking(|sinks| pipeline.tick(now_ns, sinks));
            self.meet_cgroups();
        }
        if self.chores.sweep.is_due(now_ns) && self.processes.take_changed() {
            self.sweep();
        }
        if self.desk.is_asked() {
            let text = self.metrics_text(self.sinks.losses());
            self.desk.answer(text);
        }
        if self.chores.metrics.is_due(now_ns) {
            self.write_metrics(self.sinks.losses());
        }
    }

    /// A container may be gone when the metrics ask for its name: look while it is there.
    fn meet_cgroups(&mut self) {
        for cgroup in self.processes.take_new_cgroups() {
            drop(self.cgroups.get(cgroup));
        }
    }

    fn sweep(&mut self) {
        if let Err(error) = self.probe.sweep() {
            self.note(format!("look for files that were closed unseen: {error}"));
        }
    }

    /// Every sentence once.
    fn note(&mut self, sentence: String) {
        if !self.notes.contains(&sentence) {
            self.notes.push(sentence);
        }
    }

    fn stop(&mut self, now_ns: u64, child: Option<&mut Child>) -> Result<Option<Stop>, ObserveError> {
        let over = self.config.duration.is_some_and(|limit| Clock::since(self.start_ns) >= limit);
        let Some(child) = child else {
            let over = over || self.signals.any() || self.target_is_gone(now_ns);
            return Ok(over.then_some(Stop::Over));
        };
        if let Some(status) = child.try_wait().map_err(ObserveError::Wait)? {
            return Ok(Some(Stop::Ended(status)));
        }
        self.forward(child);
        if self.signals.count() > 1 {
            return Ok(Some(Stop::Impatient));
        }
        Ok(over.then_some(Stop::Over))
    }

    /// The terminal sends Ctrl-C to the command as well; what is sent to us alone is passed on.
    fn forward(&mut self, child: &Child) {
        if self.forwarded == self.signals.terminations() {
            return;
        }
        self.forwarded = self.signals.terminations();
        // It cannot be gone: its exit status has not been taken.
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw)
            && let Err(error) = kill_process(pid, Signal::TERM)
        {
            self.note(format!("pass SIGTERM on to the command: {error}"));
        }
    }

    /// With --pid: nobody is left to observe.
    fn target_is_gone(&mut self, now_ns: u64) -> bool {
        match self.config.probe.selection {
            Selection::Pid(pid) => {
                self.chores.liveness.is_due(now_ns) && !processes::exists(pid) && self.processes.running() == 0
            }
            Selection::Command | Selection::Cgroups(_) | Selection::All | Selection::Policies => false,
        }
    }

    /// Everything that is still on its way, unless it takes too long or somebody asks to stop.
    fn drain_the_rest(&mut self) {
        let begin_ns = monotonic_ns();
        let asked = self.signals.count();
        while self.drain() > 0 {
            if Clock::since(begin_ns) >= LAST_DRAIN || self.signals.count() > asked {
                self.note("the last of what the kernel told was not read: spans and files are incomplete".to_owned());
                break;
            }
        }
    }

    /// Nothing is counted or told any more, so that the numbers add up; what was is brought home.
    fn stop_probe(&mut self) {
        if let Err(error) = self.probe.stop() {
            self.note(format!("detach from the system calls: {error}; the numbers may not add up"));
        }
        self.drain_the_rest();
        self.sweep();
        self.drain_the_rest();
        match self.probe.open_files() {
            Ok(files) => {
                for (file_id, totals) in files {
                    self.pipeline.update_totals(file_id, totals);
                }
            }
            Err(error) => self.note(format!("what was done through files still open could not be read: {error}")),
        }
    }

    fn finish(mut self, command: CommandEnd) -> Observation {
        let end_ns = monotonic_ns();
        self.stop_probe();
        self.meet_cgroups();
        let processes_running = self.processes.running();
        self.pipeline.finish(monotonic_ns(), &mut self.sinks);
        let (aggregates, counters) = self.kernel_side();
        let spans = self.sinks.operation_spans();
        // A scrape from here on would wait for an answer that does not come.
        self.server = None;

        // The metrics say what the exporters lost, so these are ended first.
        let sinks = std::mem::replace(&mut self.sinks, Sinks::closed(spans, &[]));
        let Collected { tree, files, listed, exports, losses } = sinks.close();
        self.sinks = Sinks::closed(spans, &exports);
        let exporter_losses = losses.iter().map(|loss| (loss.stage, loss.reason, loss.count)).collect();
        self.write_metrics(exporter_losses);

        let mut lost: Vec<Loss> = Counter::ALL.iter().zip(counters).filter_map(Loss::of_counter).collect();
        lost.extend(self.pipeline.losses().iter().map(Loss::from));
        lost.extend(losses);
        let summary = Summary::build(SummaryInput {
            config: self.config,
            command: &command,
            start_unix_ns: self.clock.unix_ns(self.start_ns),
            duration: Duration::from_nanos(end_ns.saturating_sub(self.start_ns)),
            processes: self.processes.seen(),
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

    fn kernel_side(&mut self) -> (Vec<(AggregateKey, AggregateValue)>, [u64; Counter::COUNT as usize]) {
        let mut counters = self.probe.counters().unwrap_or_else(|error| {
            self.note(format!("the kernel's counters could not be read: {error}"));
            [0; Counter::COUNT as usize]
        });
        if self.config.probe.events.is_off() {
            // The kernel side does not even ask: nobody wanted any.
            counters[Counter::SampledOut as usize] = counters[Counter::Seen as usize];
        }
        let aggregates = self.probe.aggregates().unwrap_or_else(|error| {
            self.note(format!("the kernel's metrics could not be read: {error}"));
            Vec::new()
        });
        (aggregates, counters)
    }

    fn metrics_text(&mut self, exporter_losses: Vec<(&'static str, &'static str, u64)>) -> String {
        let (aggregates, counters) = self.kernel_side();
        let open_files = match self.probe.open_files() {
            Ok(files) => u64::try_from(files.len()).ok(),
            Err(error) => {
                self.note(format!("the open files could not be counted: {error}"));
                None
            }
        };
        let mut losses = exporter_losses;
        losses.extend(self.pipeline.losses().iter());
        let snapshot = MetricsSnapshot {
            aggregates,
            counters,
            losses,
            spans: self.sinks.outcomes(),
            tier: TIER,
            open_files,
            containers: &*self.cgroups,
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

/// Why an observation ends.
enum Stop {
    Ended(std::process::ExitStatus),
    /// The time, or (without a command) a signal, or nobody left.
    Over,
    /// Asked twice.
    Impatient,
}
