//! What the driver counts.

use std::time::Duration;

use fsi_agent::telemetry::metrics as text;
use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use tonic::Code;

/// From a bind mount to a server that is slow to start.
const BUCKETS: [f64; 9] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.3, 1.0, 5.0, 30.0];

/// Names of all metrics, for the docs.
pub const NAMES: [&str; 9] = [
    "fsi_csi_calls_total",
    "fsi_csi_call_duration_seconds",
    "fsi_csi_interposers",
    "fsi_csi_unserved",
    "fsi_csi_programs",
    "fsi_csi_server_deaths_total",
    "fsi_csi_orphans_removed_total",
    "fsi_csi_unreadable_records",
    "fsi_csi_events_lost_total",
];

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
        let [calls, durations, interposers, unserved, programs, deaths, orphans, unreadable, events_lost] = NAMES;
        let metrics = Self {
            registry: Registry::new(),
            calls: IntCounterVec::new(
                Opts::new(calls, "Calls of CSI, by call and code of the answer."),
                &["call", "code"],
            )?,
            durations: HistogramVec::new(
                HistogramOpts::new(durations, "How long calls of CSI took.").buckets(BUCKETS.to_vec()),
                &["call"],
            )?,
            interposers: IntGauge::new(interposers, "Interposers that answered when they were last looked at.")?,
            unserved: IntGauge::new(unserved, "Interposers that wait because no server could be started for them.")?,
            programs: IntGauge::new(programs, "Programs of servers that are kept on the node, one for each layout.")?,
            deaths: IntCounterVec::new(
                Opts::new(deaths, "Servers of interposed volumes that ended while their volume was in use."),
                &["outcome"],
            )?,
            orphans: IntCounter::new(
                orphans,
                "Mounts that were taken away because nobody had asked for them any more.",
            )?,
            unreadable: IntGauge::new(unreadable, "Notes of mounts that cannot be read; their mounts are left alone.")?,
            events_lost: IntCounterVec::new(
                Opts::new(events_lost, "Events for pods that the API never took, by why."),
                &["reason"],
            )?,
        };
        for outcome in ["replaced", "aborted"] {
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
