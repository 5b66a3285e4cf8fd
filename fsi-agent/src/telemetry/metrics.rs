//! Metrics as Prometheus text, from what the kernel aggregated.

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;
use thiserror::Error;

use super::containers::ContainerNames;

/// Everything a scrape shows.
#[derive(Debug)]
pub struct MetricsSnapshot<'a> {
    /// The kernel's aggregates, summed over CPUs.
    pub aggregates: Vec<(AggregateKey, AggregateValue)>,
    /// The kernel's counters, summed over CPUs, by [`Counter`].
    pub counters: [u64; Counter::COUNT as usize],
    /// `(stage, reason, count)` of the agent: pipeline and exporters.
    pub losses: Vec<(&'static str, &'static str, u64)>,
    /// `(outcome, count)` of spans; outcomes are those of the catalogue.
    pub spans: Vec<(&'static str, u64)>,
    /// The probe's tier.
    pub tier: &'static str,
    /// Open files now; `None` when they are not followed.
    pub open_files: Option<u64>,
    /// Names for the label `container`.
    pub containers: &'a dyn ContainerNames,
}

/// Why no text could be made.
#[derive(Debug, Error)]
pub enum MetricsError {
    /// The encoder refused.
    #[error("render metrics: {0}")]
    Encode(#[from] prometheus::Error),
}

/// The text of `/metrics`.
///
/// # Errors
/// When the encoder refuses a family.
pub fn render(_snapshot: &MetricsSnapshot<'_>) -> Result<String, MetricsError> {
    Ok(String::new())
}

/// The duration in nanoseconds below which the share `q` (0 to 1) of all operations lies, from `(bucket, count)` in any order.
#[must_use]
pub fn quantile(_buckets: &[(u16, u64)], _q: f64) -> u64 {
    0
}
