//! What the agent shows besides operations: mounts, losses, and what it costs itself.

use std::collections::BTreeMap;
use std::time::Duration;

use fsi_common::loss::Counter;
use prometheus::proto::{Gauge, LabelPair, Metric, MetricFamily};

use super::node::NodeFamilies;
use super::{counter, family, gauge, label, seconds, signed};
use crate::telemetry::defs;

/// Everything else that a scrape of the agent shows.
#[derive(Debug)]
pub struct AgentSnapshot {
    pub node: NodeFamilies,
    /// By [`super::mount::families`].
    pub mounts: Vec<MetricFamily>,
    /// The kernel's counters, summed over CPUs, by [`Counter`].
    pub counters: [u64; Counter::COUNT as usize],
    /// `(stage, reason, count)` of the agent; the same pair may come more than once.
    pub losses: Vec<(&'static str, &'static str, u64)>,
    /// `(outcome, count)` of spans.
    pub spans: Vec<(&'static str, u64)>,
    /// `(outcome, count)` of reports.
    pub reports: Vec<(&'static str, u64)>,
    /// `(outcome, count)` of reloads.
    pub reloads: Vec<(&'static str, u64)>,
    /// `(event, count)` of attribution.
    pub attribution: Vec<(&'static str, u64)>,
    /// By [`crate::telemetry::export::families`].
    pub collectors: Vec<MetricFamily>,
    pub kubernetes_up: Option<bool>,
    pub open_files: Option<u64>,
    pub mounts_now: u64,
    pub ring_records: u64,
    pub probe_cpus: Option<f64>,
    pub cpu_time: Duration,
    pub memory_bytes: Option<u64>,
    pub tier: &'static str,
}

impl AgentSnapshot {
    /// All families, those without a sample left out.
    #[must_use]
    pub fn families(self) -> Vec<MetricFamily> {
        let losses = self.losses();
        let owners = [("operation", Counter::RequestsOfOperations), ("none", Counter::RequestsOfNone)];
        let owners = owners.map(|(owner, of)| (owner, self.counters[of as usize]));
        let one = |value: Option<u64>| value.map(|value| gauge(Vec::new(), signed(value)));
        let mut families = self.node.families;
        families.extend(self.mounts);
        families.extend(self.collectors);
        families.extend([
            family(&defs::OPEN_FILES, one(self.open_files)),
            family(&defs::REPORTS, named(defs::LABEL_OUTCOME, &self.reports)),
            family(&defs::FUSE_REQUESTS, named(defs::LABEL_OWNER, &owners)),
            family(&defs::MOUNTS, one(Some(self.mounts_now))),
            family(&defs::RING_RECORDS, [counter(Vec::new(), self.ring_records)]),
            family(&defs::PROBE_CPU, self.probe_cpus.map(ratio)),
            family(&defs::AGENT_CPU, [seconds(Vec::new(), nanoseconds(self.cpu_time))]),
            family(&defs::AGENT_MEMORY, one(self.memory_bytes)),
            family(&defs::KUBERNETES_UP, one(self.kubernetes_up.map(u64::from))),
            family(&defs::ATTRIBUTION, named(defs::LABEL_EVENT, &self.attribution)),
            family(&defs::RELOADS, named(defs::LABEL_OUTCOME, &self.reloads)),
            family(&defs::LOST, losses),
            family(&defs::SPANS, named(defs::LABEL_OUTCOME, &self.spans)),
            family(&defs::PROBE_INFO, [gauge(vec![label(defs::LABEL_TIER, self.tier)], 1)]),
            family(&defs::BUILD_INFO, [gauge(vec![label(defs::LABEL_VERSION, env!("CARGO_PKG_VERSION"))], 1)]),
        ]);
        families.retain(|family| !family.get_metric().is_empty());
        families
    }

    /// All pairs of the catalogue are there from the start, so that an alert on an increase sees the first one.
    fn losses(&self) -> Vec<Metric> {
        let mut counts: BTreeMap<_, u64> = defs::losses().map(|pair| (pair, 0)).collect();
        let mut add = |pair, count| *counts.entry(pair).or_default() += count;
        for kernel in Counter::ALL {
            if let Some(pair) = kernel.loss() {
                add(pair, self.counters[kernel as usize]);
            }
        }
        for (stage, reason, count) in &self.losses {
            add((*stage, *reason), *count);
        }
        add((defs::STAGE_METRICS, defs::REASON_SERIES), self.node.to_other);
        add((defs::STAGE_METRICS, defs::REASON_UNKNOWN_OPERATION), self.node.unknown);
        let pairs = |(stage, reason)| vec![label(defs::LABEL_STAGE, stage), label(defs::LABEL_REASON, reason)];
        counts.into_iter().map(|(pair, count)| counter(pairs(pair), count)).collect()
    }
}

fn named(key: &str, counts: &[(&'static str, u64)]) -> Vec<Metric> {
    let labels = |value: &str| -> Vec<LabelPair> { vec![label(key, value)] };
    counts.iter().map(|(name, count)| counter(labels(name), *count)).collect()
}

fn ratio(value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::default();
    metric.set_gauge(gauge);
    metric
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
