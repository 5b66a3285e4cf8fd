//! What the driver counts.

use std::time::Duration;

use fsi_agent::telemetry::defs::{MetricDef, MetricKind};
use fsi_agent::telemetry::metrics as text;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tonic::Code;

/// From a bind mount to a server that is slow to start.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0, 30.0];

/// What servers come to that end in use.
pub const DEATHS_OUTCOMES: [&str; 2] = ["replaced", "aborted"];

const CALLS: MetricDef = MetricDef {
    name: "fsi_csi_calls_total",
    kind: MetricKind::Counter,
    unit: "{call}",
    help: "Calls of CSI, by call and code of the answer.",
    labels: &["call", "code"],
};
const DURATIONS: MetricDef = MetricDef {
    name: "fsi_csi_call_duration_seconds",
    kind: MetricKind::Histogram,
    unit: "s",
    help: "How long calls of CSI took.",
    labels: &["call"],
};
const INTERPOSERS: MetricDef = MetricDef {
    name: "fsi_csi_interposers",
    kind: MetricKind::Gauge,
    unit: "{mount}",
    help: "Interposers that answered when they were last looked at.",
    labels: &[],
};
const UNSERVED: MetricDef = MetricDef {
    name: "fsi_csi_unserved",
    kind: MetricKind::Gauge,
    unit: "{mount}",
    help: "Interposers that wait because no server could be started for them.",
    labels: &[],
};
const PROGRAMS: MetricDef = MetricDef {
    name: "fsi_csi_programs",
    kind: MetricKind::Gauge,
    unit: "{program}",
    help: "Programs of servers that are kept on the node, one for each layout.",
    labels: &[],
};
const DEATHS: MetricDef = MetricDef {
    name: "fsi_csi_server_deaths_total",
    kind: MetricKind::Counter,
    unit: "{server}",
    help: "Servers of interposed volumes that ended while their volume was in use.",
    labels: &["outcome"],
};
const ORPHANS: MetricDef = MetricDef {
    name: "fsi_csi_orphans_removed_total",
    kind: MetricKind::Counter,
    unit: "{mount}",
    help: "Mounts that were taken away because nobody had asked for them any more.",
    labels: &[],
};
const UNREADABLE: MetricDef = MetricDef {
    name: "fsi_csi_unreadable_records",
    kind: MetricKind::Gauge,
    unit: "{record}",
    help: "Notes of mounts that cannot be read; their mounts are left alone.",
    labels: &[],
};
const EVENTS_LOST: MetricDef = MetricDef {
    name: "fsi_csi_events_lost_total",
    kind: MetricKind::Counter,
    unit: "{event}",
    help: "Events for pods that the API never took, by why.",
    labels: &["reason"],
};

/// All metrics, for the docs, the alerts and the dashboard.
pub const METRICS: [MetricDef; 9] =
    [CALLS, DURATIONS, INTERPOSERS, UNSERVED, PROGRAMS, DEATHS, ORPHANS, UNREADABLE, EVENTS_LOST];

/// All counters.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    calls: IntCounterVec,
    durations: HistogramVec,
    interposers: IntGauge,
    unserved: IntGauge,
    programs: IntGauge,
    deaths: IntCounterVec,
    orphans: IntCounter,
    unreadable: IntGauge,
    events_lost: IntCounterVec,
}

impl Metrics {
    /// # Errors
    /// Two have one name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            calls: IntCounterVec::new(Opts::new(CALLS.name, CALLS.help), CALLS.labels)?,
            durations: HistogramVec::new(
                HistogramOpts::new(DURATIONS.name, DURATIONS.help).buckets(BUCKETS.to_vec()),
                DURATIONS.labels,
            )?,
            unreadable: IntGauge::new(UNREADABLE.name, UNREADABLE.help)?,
            events_lost: IntCounterVec::new(Opts::new(EVENTS_LOST.name, EVENTS_LOST.help), EVENTS_LOST.labels)?,
            interposers: IntGauge::new(INTERPOSERS.name, INTERPOSERS.help)?,
            unserved: IntGauge::new(UNSERVED.name, UNSERVED.help)?,
            programs: IntGauge::new(PROGRAMS.name, PROGRAMS.help)?,
            deaths: IntCounterVec::new(Opts::new(DEATHS.name, DEATHS.help), DEATHS.labels)?,
            orphans: IntCounter::new(ORPHANS.name, ORPHANS.help)?,
        };
        for outcome in DEATHS_OUTCOMES {
            metrics.deaths.with_label_values(&[outcome]);
        }
        for reason in ["full", "pod_gone", "refused"] {
            metrics.events_lost.with_label_values(&[reason]);
        }
        metrics.registry.register(Box::new(metrics.calls.clone()))?;
        metrics.registry.register(Box::new(metrics.durations.clone()))?;
        metrics.registry.register(Box::new(metrics.interposers.clone()))?;
        metrics.registry.register(Box::new(metrics.unserved.clone()))?;
        metrics.registry.register(Box::new(metrics.programs.clone()))?;
        metrics.registry.register(Box::new(metrics.deaths.clone()))?;
        metrics.registry.register(Box::new(metrics.orphans.clone()))?;
        metrics.registry.register(Box::new(metrics.unreadable.clone()))?;
        metrics.registry.register(Box::new(metrics.events_lost.clone()))?;
        Ok(metrics)
    }

    pub(crate) fn call(&self, call: &str, code: Code, took: Duration) {
        self.calls.with_label_values(&[call, &format!("{code:?}")]).inc();
        self.durations.with_label_values(&[call]).observe(took.as_secs_f64());
    }

    pub(crate) fn interposers(&self, count: usize) {
        set(&self.interposers, count);
    }

    pub(crate) fn unserved(&self, count: usize) {
        set(&self.unserved, count);
    }

    pub(crate) fn programs(&self, count: usize) {
        set(&self.programs, count);
    }

    pub(crate) fn deaths(&self, outcome: &str, count: u64) {
        self.deaths.with_label_values(&[outcome]).inc_by(count);
    }

    pub(crate) fn orphan(&self) {
        self.orphans.inc();
    }

    pub(crate) fn unreadable(&self, count: usize) {
        set(&self.unreadable, count);
    }

    pub(crate) fn event_lost(&self, reason: &str) {
        self.events_lost.with_label_values(&[reason]).inc();
    }

    /// As Prometheus reads them.
    #[must_use]
    pub fn text(&self) -> String {
        text::text(&self.registry.gather()).unwrap_or_else(|error| {
            tracing::error!(%error, "the metrics could not be written");
            String::new()
        })
    }
}

fn set(gauge: &IntGauge, count: usize) {
    gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
}
