//! The agent's one busy thread: drains the ring and the mounts' reports, keeps the policies right, answers scrapes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;

use super::AgentError;
use super::attached::Attached;
use super::before::Before;
use super::chores::Chores;
use super::cost::{self, Cost};
use super::mounts::Mounts;
use super::names::Whose;
use super::outputs::{Choice, Collectors};
use super::pages::Families;
use super::policies::Wanted;
use super::taps::Taps;
use super::{pages, start};
use crate::attribution::Attribution;
use crate::clock::{Clock, monotonic_ns};
use crate::config::Config;
use crate::observe::Signals;
use crate::observe::pace::pause;
use crate::observe::scrape::ScrapeDesk;
use crate::pipeline::{JoinedMount, Pipeline};
use crate::probe::features::TIER;
use crate::probe::{DRAIN_RECORDS, Probe, ProbeError};
use crate::reports::{FromMount, Gone, Lost, ReportsServer};
use crate::span::MountedVolume;
use crate::telemetry::defs;
use crate::telemetry::export::{self, EndpointReport};
use crate::telemetry::metrics::agent::AgentSnapshot;
use crate::telemetry::metrics::exemplars::Exemplars;
use crate::telemetry::metrics::node::NodeCounts;
use crate::telemetry::serve::{Condition, MetricsServer};

/// Messages of mounts that are taken between two drains of the ring.
const MESSAGES: usize = 64;
/// A ring of the usual size holds no more records than so many times what is drained at once.
const MOST_DRAINS: usize = 8;
/// Longest time for what is in the ring at the end.
const LAST_DRAIN: Duration = Duration::from_secs(5);

/// Everything of a running agent.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) path: PathBuf,
    pub(super) config: Config,
    pub(super) probe: Probe,
    pub(super) pipeline: Pipeline,
    pub(super) taps: Taps,
    pub(super) attached: Attached,
    pub(super) whose: Arc<Whose>,
    pub(super) attribution: Arc<Attribution>,
    pub(super) from_mounts: Receiver<FromMount>,
    pub(super) reports: ReportsServer,
    pub(super) mounts: Mounts,
    pub(super) numbers: NodeCounts,
    pub(super) signals: Signals,
    pub(super) desk: ScrapeDesk<Families>,
    pub(super) exemplars: Option<Arc<Exemplars>>,
    pub(super) condition: Arc<Mutex<Condition>>,
    pub(super) server: Option<MetricsServer>,
    pub(super) cost: Cost,
    pub(super) chores: Chores,
    pub(super) wanted: Wanted,
    /// Of cgroups and of what is known of them, when the policies were made.
    pub(super) seen: Option<(u64, u64)>,
    /// The kernel side looks its verdicts up anew at the next turn.
    pub(super) forget_again: bool,
    pub(super) hangups: u32,
    pub(super) reloads: [u64; 2],
    pub(super) ring_records: u64,
    /// What went wrong the last time.
    pub(super) complaints: BTreeSet<&'static str>,
    /// Collectors that a reload replaced.
    pub(super) before: Before,
}

impl Watcher {
    pub(super) fn run(mut self) -> Result<(), AgentError> {
        self.set_policies()?;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            metrics = self.server.as_ref().map(|server| server.addr().to_string()),
            joins = self.probe.joins(),
            "the agent runs"
        );
        if self.wanted.cgroups.is_empty() {
            tracing::warn!(
                "there is no container here yet: nothing is looked at before one starts (`observe.scope: node` looks at everything)"
            );
        }
        loop {
            let (records, messages) = (self.drain(), self.hear());
            self.do_chores();
            self.hear_asks();
            if self.signals.count() > self.signals.hangups() {
                break;
            }
            if messages == 0 {
                thread::sleep(pause(records));
            }
        }
        self.finish();
        Ok(())
    }

    pub(super) fn drain(&mut self) -> usize {
        let Self { probe, pipeline, taps, .. } = self;
        let records = probe.drain(&mut |record| pipeline.record(record, taps));
        self.ring_records += records as u64;
        records
    }

    /// Reads all that is in the ring now: of each cgroup that has numbers, its making is told in it.
    fn catch_up(&mut self) {
        for _ in 0..MOST_DRAINS {
            if self.drain() < DRAIN_RECORDS {
                return;
            }
        }
    }

    /// Takes what mounts say.
    fn hear(&mut self) -> usize {
        for messages in 0..MESSAGES {
            let Ok(message) = self.from_mounts.try_recv() else { return messages };
            self.message(message);
        }
        MESSAGES
    }

    fn message(&mut self, message: FromMount) {
        let now_ns = monotonic_ns();
        match message {
            FromMount::Hello(info) => {
                let name = self.mounts.hello(&info);
                self.whose.set_mount(info.dev, name.name);
                let [name, namespace] = [&info.volume, &info.namespace].map(|told| told.as_deref().map(Arc::from));
                let volume = MountedVolume { name, namespace };
                let mount = JoinedMount { dev: info.dev, target: info.target.clone(), volume };
                self.pipeline.add_mount(mount);
                if let Err(error) = self.probe.add_mount(info.dev) {
                    tracing::error!(%error, target = %info.target.display(), "what this mount does is told apart from operations");
                }
                tracing::info!(target = %info.target.display(), servers = info.servers, "a mount reports");
            }
            FromMount::Operations { dev: _, operations } => {
                for report in operations {
                    self.mounts.count(&report);
                    self.pipeline.report(report, now_ns, &mut self.taps);
                }
            }
            FromMount::Lost { dev, count, why } => {
                let reason = match why {
                    Lost::QueueFull => "its queue was full",
                    Lost::Unsent => "its server was killed, or the connection broke",
                };
                tracing::warn!(dev, count, reason, "reports of a mount are lost");
            }
            // Its next server says hello; until then the kernel goes on telling of requests, so that what it did without being heard is
            // counted as missing.
            FromMount::Gone { dev: _, why: Gone::Broken } => {}
            FromMount::Gone { dev, why: Gone::Ended } => {
                self.mounts.gone(dev);
                self.whose.forget_mount(dev);
                self.pipeline.remove_mount(dev);
                if let Err(error) = self.probe.remove_mount(dev) {
                    tracing::error!(%error, dev, "the kernel side goes on looking at a mount that is gone");
                }
            }
        }
    }

    fn do_chores(&mut self) {
        let now_ns = monotonic_ns();
        if self.chores.condition.is_due(now_ns) {
            let condition = self.readiness();
            *self.condition.lock().unwrap_or_else(PoisonError::into_inner) = condition;
        }
        if self.chores.policies.is_due(now_ns) {
            let set = self.set_policies();
            self.complain("say whom to look at", set);
        }
        if self.chores.tick.is_due(now_ns) {
            self.pipeline.tick(now_ns, &mut self.taps);
            self.numbers.tick(now_ns);
            self.cost.tick(&self.probe, now_ns);
        }
        if self.chores.sweep.is_due(now_ns) {
            let swept = self.probe.sweep();
            self.complain("look for files that were closed unseen", swept);
        }
        if self.chores.clock.is_due(now_ns) {
            self.pipeline.set_clock(Clock::measure());
        }
        if self.chores.ended.is_due(now_ns) {
            let taken = self.take_ended(now_ns);
            self.complain("take the numbers of containers that have ended", taken);
        }
        if self.signals.hangups() != self.hangups {
            self.hangups = self.signals.hangups();
            self.reload();
        }
        if self.desk.is_asked() {
            let families = self.families();
            self.desk.answer(families);
        }
    }

    /// What goes wrong is tried again; said once, until it is right again.
    pub(super) fn complain(&mut self, what: &'static str, result: Result<(), ProbeError>) {
        match result {
            Ok(()) => drop(self.complaints.remove(what)),
            Err(error) => {
                if self.complaints.insert(what) {
                    tracing::error!(%error, "{what}");
                }
            }
        }
    }

    /// Whether it does its work.
    fn readiness(&self) -> Condition {
        match self.attribution.status() {
            Some(status) if !status.pods.listed => {
                let why = status.pods.last_error.unwrap_or_else(|| "it has not answered yet".to_owned());
                Condition::Unwell(format!("the Kubernetes API has not told of this node's pods: {why}"))
            }
            Some(_) | None => Condition::Well("the probes are attached".to_owned()),
        }
    }

    /// Takes the numbers of cgroups that are gone out of the kernel, where there is only so much room.
    fn take_ended(&mut self, now_ns: u64) -> Result<(), ProbeError> {
        let cgroups = self.probe.counted_cgroups()?;
        self.catch_up();
        let gone: BTreeSet<u64> = cgroups.into_iter().filter(|id| self.attribution.is_gone(*id)).collect();
        if gone.is_empty() {
            return Ok(());
        }
        let taken = self.probe.take_aggregates(&gone)?;
        self.attached.ended(&taken, now_ns);
        let keep = u64::try_from(self.config.metrics.keep_ended.as_nanos()).unwrap_or(u64::MAX);
        self.numbers.ended(&taken, &*self.whose, now_ns.saturating_add(keep));
        Ok(())
    }

    /// A configuration that is wrong changes nothing.
    fn reload(&mut self) {
        match self.read_again() {
            Ok(()) => {
                self.reloads[0] += 1;
                tracing::info!("the configuration was read again and holds");
            }
            Err(error) => {
                self.reloads[1] += 1;
                tracing::error!(%error, "the configuration is not read again: what held before holds");
            }
        }
    }

    fn read_again(&mut self) -> Result<(), AgentError> {
        let mut config = Config::read(&self.path)?;
        let choice = Choice::new(&config, Some((&self.config, self.taps.outputs.choice())))?;
        let collectors = if start::has_other_collectors(&self.config, &config) {
            Some(Collectors::open(&config, &self.whose, &pages::gather(&self.desk))?)
        } else {
            None
        };
        // From here on nothing is refused.
        start::warn_of_cgroups(&config.observe.cgroups);
        for what in start::needs_restart(&self.config, &config) {
            tracing::warn!(what, "this holds after the next start of the agent");
        }
        start::keep_spooled(&self.config, &mut config);
        if let Some(left) = self.taps.outputs.change(choice, collectors) {
            self.before.leave(left, self.config.drain);
        }
        self.numbers.set_max_series(config.metrics.max_series);
        self.config = config;
        self.seen = None;
        Ok(())
    }

    fn families(&mut self) -> Families {
        match self.snapshot() {
            Ok(snapshot) => {
                let families = snapshot.families();
                if let Some(exemplars) = &self.exemplars {
                    exemplars.keep_shown(&families);
                }
                Arc::new(families)
            }
            Err(error) => {
                tracing::error!(%error, "the numbers of the kernel side could not be read");
                Families::default()
            }
        }
    }

    fn snapshot(&mut self) -> Result<AgentSnapshot, ProbeError> {
        let aggregates: Vec<(AggregateKey, AggregateValue)> = self.probe.aggregates()?;
        self.catch_up();
        let counters = self.probe.counters()?;
        let node = self.numbers.families(&aggregates, &*self.whose);
        let joins = self.pipeline.join_counts();
        let collectors = self.collectors();
        let losses = self.losses(&collectors);
        let exported = collectors.iter().filter_map(|report| report.spans.as_ref());
        let exported: u64 = exported.map(|report| report.exported).sum();
        let sampled_out = counters[Counter::SampledOut as usize] + joins.sampled_out + self.taps.outputs.unwanted();
        Ok(AgentSnapshot {
            node,
            mounts: self.mounts.families(),
            collectors: export::families(&collectors),
            counters,
            losses,
            spans: vec![
                (defs::OUTCOME_MADE, self.taps.outputs.made()),
                (defs::OUTCOME_SAMPLED_OUT, sampled_out),
                (defs::OUTCOME_EXPORTED, exported),
            ],
            reports: vec![(defs::OUTCOME_JOINED, joins.joined), (defs::OUTCOME_ALONE, joins.alone)],
            reloads: vec![(defs::OUTCOME_APPLIED, self.reloads[0]), (defs::OUTCOME_REFUSED, self.reloads[1])],
            attribution: self.attribution.counts(),
            kubernetes_up: self.attribution.status().map(|status| status.is_connected()),
            open_files: u64::try_from(self.probe.open_files()?.len()).ok(),
            mounts_now: self.reports.counts().mounts,
            ring_records: self.ring_records,
            probe_cpus: self.cost.probe_cpus(),
            cpu_time: cost::cpu_time(),
            memory_bytes: cost::memory(),
            tier: TIER,
        })
    }

    /// One report for each collector, over each time that it was configured.
    pub(super) fn collectors(&mut self) -> Vec<EndpointReport> {
        let before = self.before.reports();
        export::merged(before.into_iter().chain(self.taps.outputs.report()))
    }

    /// What was lost on this side of the kernel; the same pair may come more than once.
    pub(super) fn losses(&self, collectors: &[EndpointReport]) -> Vec<(&'static str, &'static str, u64)> {
        let mut losses: Vec<_> = self.pipeline.losses().iter().collect();
        let exported = collectors.iter().filter_map(|report| report.spans.as_ref());
        losses.extend(exported.flat_map(|report| report.losses.iter().copied()));
        let reports = self.reports.counts();
        for (why, count) in [(Lost::QueueFull, reports.lost_queue_full), (Lost::Unsent, reports.lost_unsent)] {
            let (stage, reason) = why.labels();
            losses.push((stage, reason, count));
        }
        losses.push((defs::STAGE_METRICS, defs::REASON_SERIES, self.mounts.to_other()));
        losses.push((defs::STAGE_WATCH, defs::REASON_QUEUE_FULL, self.taps.dropped()));
        losses
    }

    /// Nothing is counted or told any more; what was is brought home.
    fn finish(mut self) {
        tracing::info!("the agent ends");
        let begun_ns = monotonic_ns();
        if let Err(error) = self.probe.stop() {
            tracing::error!(%error, "detach from the system calls");
        }
        while Clock::since(begun_ns) < LAST_DRAIN.min(self.config.drain) {
            if let (0, 0) = (self.drain(), self.hear()) {
                break;
            }
        }
        self.pipeline.finish(monotonic_ns(), &mut self.taps);
        // A scrape or a question from here on would wait for an answer that does not come; the last push has this one.
        let families = self.families();
        self.desk.close(families);
        self.server = None;
        drop(self.attached);
        let left = self.config.drain.saturating_sub(Clock::since(begun_ns));
        self.taps.outputs.close(left);
    }
}
