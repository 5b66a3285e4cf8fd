//! Metrics as Prometheus text, from what the kernel aggregated. Nothing is kept between scrapes.

pub mod agent;
pub mod exemplars;
mod fold;
pub mod mount;
pub mod node;
pub mod open_metrics;
mod quantile;

use std::collections::BTreeMap;
use std::sync::Arc;

use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::loss::Counter;
use prometheus::proto::{
    Bucket, Counter as CounterValue, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Encoder as _, TextEncoder};
use thiserror::Error;

use self::fold::{Folded, Group, LE_BITS, Series};
use super::containers::ContainerNames;
use super::defs::{self, MetricDef, MetricKind};
use super::errno;

pub use self::quantile::quantile;

/// Sets of (container, device, operation) that are shown apart; what is over goes to `other`.
pub const MAX_SERIES: usize = 2000;
/// The label value of what is over.
pub const OTHER: &str = "other";

/// Everything a scrape shows.
#[derive(Debug)]
pub struct MetricsSnapshot<'a> {
    /// The kernel's aggregates, summed over CPUs.
    pub aggregates: Vec<(AggregateKey, AggregateValue)>,
    /// The kernel's counters, summed over CPUs, by [`Counter`].
    pub counters: [u64; Counter::COUNT as usize],
    /// `(stage, reason, count)` of the agent: pipeline and exporters. The same pair may come more than once; those of the kernel's
    /// counters must not be among them.
    pub losses: Vec<(&'static str, &'static str, u64)>,
    /// `(outcome, count)` of spans, by [`defs::SPAN_OUTCOMES`]; `sampled_out` comes from the counters.
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
    #[error("render metrics: {0}")]
    Encode(#[from] prometheus::Error),
}

/// The text of `/metrics`.
///
/// # Errors
/// When the encoder refuses a family.
pub fn render(snapshot: &MetricsSnapshot<'_>) -> Result<String, MetricsError> {
    text(&families(snapshot, MAX_SERIES))
}

/// Families as text.
///
/// # Errors
/// When the encoder refuses one.
pub fn text(families: &[MetricFamily]) -> Result<String, MetricsError> {
    let mut text = String::new();
    TextEncoder::new().encode_utf8(families, &mut text)?;
    Ok(text)
}

/// What a scrape shows, before it is text; families without a sample are left out.
#[must_use]
pub fn families(snapshot: &MetricsSnapshot<'_>, max_series: usize) -> Vec<MetricFamily> {
    let folded = fold::fold(&snapshot.aggregates, snapshot.containers, max_series);
    let mut families = vec![
        family(
            &defs::OPERATIONS,
            folded.groups.iter().map(|(series, group)| counter(labels(&folded, series), group.count)),
        ),
        family(&defs::ERRORS, errors(&folded)),
        family(&defs::BYTES, bytes(&folded)),
        family(&defs::DURATION, folded.groups.iter().map(|(series, group)| histogram(labels(&folded, series), group))),
        family(&defs::DIRECTORIES_NET, net(&folded, |net| net.directories)),
        family(&defs::FILES_NET, net(&folded, |net| net.files)),
        family(&defs::OPEN_FILES, snapshot.open_files.map(|count| gauge(Vec::new(), signed(count)))),
        family(&defs::LOST, losses(snapshot, &folded)),
        family(&defs::SPANS, spans(snapshot)),
        family(&defs::PROBE_INFO, [gauge(vec![label(defs::LABEL_TIER, snapshot.tier)], 1)]),
        family(&defs::BUILD_INFO, [gauge(vec![label(defs::LABEL_VERSION, env!("CARGO_PKG_VERSION"))], 1)]),
    ];
    // The encoder refuses families without a sample.
    families.retain(|family| !family.get_metric().is_empty());
    families
}

/// What the text format is called in HTTP.
#[must_use]
pub fn content_type() -> String {
    format!("{}; charset=utf-8", TextEncoder::new().format_type())
}

pub(super) fn family(def: &MetricDef, metrics: impl IntoIterator<Item = Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(def.name.to_owned());
    family.set_help(def.help.to_owned());
    family.set_field_type(match def.kind {
        MetricKind::Counter => MetricType::COUNTER,
        MetricKind::Gauge => MetricType::GAUGE,
        MetricKind::Histogram => MetricType::HISTOGRAM,
    });
    family.set_metric(metrics.into_iter().collect());
    family
}

pub(super) fn label(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}

/// Prometheus numbers are floating point: exact up to 2^53, which at a million a second is 285 years.
#[expect(clippy::cast_precision_loss, reason = "the format has no integers")]
fn float(value: u64) -> f64 {
    value as f64
}

#[expect(clippy::cast_precision_loss, reason = "the format has no integers")]
pub(super) fn gauge(labels: Vec<LabelPair>, value: i64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(super) fn counter(labels: Vec<LabelPair>, value: u64) -> Metric {
    let mut counter = CounterValue::default();
    counter.set_value(float(value));
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

fn seconds(labels: Vec<LabelPair>, ns: u64) -> Metric {
    let mut value = CounterValue::default();
    value.set_value(float(ns) / 1e9);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(value);
    metric
}

fn histogram(labels: Vec<LabelPair>, group: &Group) -> Metric {
    let mut histogram = Histogram::default();
    histogram.set_sample_count(group.count);
    histogram.set_sample_sum(float(group.duration_ns) / 1e9);
    let mut below = 0;
    let buckets = LE_BITS.zip(group.below).map(|(bit, count)| {
        below += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(float(1 << bit) / 1e9);
        bucket.set_cumulative_count(below);
        bucket
    });
    histogram.set_bucket(buckets.collect());
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}

fn labels(folded: &Folded, series: &Series) -> Vec<LabelPair> {
    let (container, device): (&Arc<str>, &str) = match series {
        Series::Of { container, device, op: _ } => (&folded.containers[*container], device),
        Series::Other { op: _ } => {
            return vec![
                label(defs::LABEL_CONTAINER, OTHER),
                label(defs::LABEL_DEVICE, OTHER),
                label(defs::LABEL_OP, series.op().name()),
            ];
        }
    };
    vec![
        label(defs::LABEL_CONTAINER, container),
        label(defs::LABEL_DEVICE, device),
        label(defs::LABEL_OP, series.op().name()),
    ]
}

fn errors(folded: &Folded) -> Vec<Metric> {
    folded.groups.iter().flat_map(|(series, group)| errors_of(&labels(folded, series), group)).collect()
}

/// The errors of a group that has these labels.
fn errors_of(labels: &[LabelPair], group: &Group) -> Vec<Metric> {
    let of = |code: &u16| [labels, &[label(defs::LABEL_ERRNO, &errno::name(*code))]].concat();
    group.errors.iter().map(|(code, count)| counter(of(code), *count)).collect()
}

fn bytes(folded: &Folded) -> Vec<Metric> {
    folded.groups.iter().flat_map(|(series, group)| bytes_of(&labels(folded, series), group)).collect()
}

/// The bytes of a group that has these labels.
fn bytes_of(labels: &[LabelPair], group: &Group) -> Vec<Metric> {
    let of = |direction| [labels, &[label(defs::LABEL_DIRECTION, direction)]].concat();
    let moved = [("read", group.read), ("write", group.written)];
    moved.into_iter().filter_map(|(direction, bytes)| Some(counter(of(direction), bytes?))).collect()
}

fn net(folded: &Folded, of: impl Fn(&fold::Net) -> i64) -> Vec<Metric> {
    folded.net.iter().map(|(container, net)| gauge(vec![label(defs::LABEL_CONTAINER, container)], of(net))).collect()
}

/// All pairs of the catalogue are there from the start, so that an alert on an increase sees the first one.
fn losses(snapshot: &MetricsSnapshot<'_>, folded: &Folded) -> Vec<Metric> {
    let mut counts: BTreeMap<_, u64> = defs::losses().map(|pair| (pair, 0)).collect();
    let mut add = |pair, count| *counts.entry(pair).or_default() += count;
    for kernel in Counter::ALL {
        if let Some(pair) = kernel.loss() {
            add(pair, snapshot.counters[kernel as usize]);
        }
    }
    for (stage, reason, count) in &snapshot.losses {
        add((*stage, *reason), *count);
    }
    add((defs::STAGE_METRICS, defs::REASON_SERIES), folded.to_other);
    add((defs::STAGE_METRICS, defs::REASON_UNKNOWN_OPERATION), folded.unknown);
    let pairs = |(stage, reason)| vec![label(defs::LABEL_STAGE, stage), label(defs::LABEL_REASON, reason)];
    counts.into_iter().map(|(pair, count)| counter(pairs(pair), count)).collect()
}

fn spans(snapshot: &MetricsSnapshot<'_>) -> Vec<Metric> {
    let mut counts: BTreeMap<_, u64> = defs::SPAN_OUTCOMES.iter().map(|outcome| (*outcome, 0)).collect();
    for (outcome, count) in &snapshot.spans {
        *counts.entry(*outcome).or_default() += count;
    }
    counts.insert(defs::OUTCOME_SAMPLED_OUT, snapshot.counters[Counter::SampledOut as usize]);
    counts.into_iter().map(|(outcome, count)| counter(vec![label(defs::LABEL_OUTCOME, outcome)], count)).collect()
}

#[cfg(test)]
mod tests;
