//! Exemplars: for each bucket of a histogram the trace of one operation that is in it, the latest that was told.
//!
//! Bounded: so many series, one exemplar for each bucket of theirs. What is over is left out, and nothing is lost by it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::proto::{Metric, MetricFamily};

use super::fold::LE_BITS;
use crate::span::{SpanId, TraceId};
use crate::telemetry::defs;

/// The buckets with a bound, and the one above.
const BUCKETS: usize = 26;

/// An operation that stands for its bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    pub trace: TraceId,
    pub span: SpanId,
    pub duration: Duration,
    /// When it ended.
    pub unix_ns: u64,
}

/// The exemplars of `fsi_operation_duration_seconds`, by the labels of the series.
#[derive(Debug)]
pub struct Exemplars {
    max_series: usize,
    series: Mutex<HashMap<String, Box<[Option<Exemplar>; BUCKETS]>>>,
}

impl Exemplars {
    #[must_use]
    pub fn new(max_series: usize) -> Self {
        Self { max_series, series: Mutex::new(HashMap::new()) }
    }

    /// An operation with a span: the labels are those its series has, in any order.
    pub fn note(&self, labels: &[(&str, &str)], exemplar: Exemplar) {
        let key = key(labels.iter().copied());
        let bucket = bucket(exemplar.duration);
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(buckets) = series.get_mut(&key) {
            buckets[bucket] = Some(exemplar);
        } else if series.len() < self.max_series {
            let mut buckets = Box::new([None; BUCKETS]);
            buckets[bucket] = Some(exemplar);
            series.insert(key, buckets);
        }
    }

    /// Forgets the series that a scrape does not show any more.
    pub fn keep_shown(&self, families: &[MetricFamily]) {
        let durations = families.iter().filter(|family| family.name() == defs::DURATION.name);
        let labels = |sample: &Metric| key(sample.get_label().iter().map(|label| (label.name(), label.value())));
        let shown: HashSet<String> = durations.flat_map(|family| family.get_metric()).map(labels).collect();
        self.series.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| shown.contains(key));
    }

    /// That of a bucket, counted from the lowest.
    pub(super) fn of<'a>(&self, labels: impl Iterator<Item = (&'a str, &'a str)>, bucket: usize) -> Option<Exemplar> {
        let series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.get(&key(labels)).and_then(|buckets| *buckets.get(bucket)?)
    }
}

/// Labels in one order, each part after its length: no two sets are one text.
fn key<'a>(labels: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut labels: Vec<_> = labels.collect();
    labels.sort_unstable();
    labels.iter().map(|(name, value)| format!("{}:{name}{}:{value}", name.len(), value.len())).collect()
}

/// As the kernel counts: exactly 2^n ns is above the bound 2^n ns.
fn bucket(duration: Duration) -> usize {
    let bits = (duration.as_nanos() | 1).ilog2();
    let above = (bits + 1).saturating_sub(*LE_BITS.start());
    usize::try_from(above).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::super::{family, gauge, label};
    use super::*;

    fn exemplar(duration_ns: u64) -> Exemplar {
        let duration = Duration::from_nanos(duration_ns);
        Exemplar { trace: TraceId([1; 16]), span: SpanId([2; 8]), duration, unix_ns: 5 }
    }

    #[test]
    fn buckets_are_those_of_the_histogram() {
        assert_eq!(LE_BITS.count() + 1, BUCKETS);
        for (duration_ns, expected) in
            [(0, 0), (511, 0), (512, 1), (1023, 1), (1024, 2), ((1 << 33) - 1, 24), (1 << 33, 25), (u64::MAX, 25)]
        {
            assert_eq!(bucket(Duration::from_nanos(duration_ns)), expected, "{duration_ns}");
        }
    }

    #[test]
    fn the_latest_stands_for_its_bucket_and_series_are_bounded() {
        let exemplars = Exemplars::new(2);
        let read = [("op", "read"), ("device", "8:1")];
        exemplars.note(&read, exemplar(600));
        exemplars.note(&[("device", "8:1"), ("op", "read")], exemplar(700));
        exemplars.note(&[("op", "write")], exemplar(600));
        exemplars.note(&[("op", "fsync")], exemplar(600));
        assert_eq!(exemplars.of(read.into_iter(), 1), Some(exemplar(700)));
        assert_eq!(exemplars.of(read.into_iter(), 2), None);
        assert_eq!(exemplars.of([("op", "fsync")].into_iter(), 1), None);
        let labels = read.map(|(name, value)| label(name, value)).to_vec();
        exemplars.keep_shown(&[family(&defs::DURATION, [gauge(labels, 0)])]);
        exemplars.note(&[("op", "fsync")], exemplar(600));
        assert_eq!(exemplars.of([("op", "fsync")].into_iter(), 1), Some(exemplar(600)));
        assert_eq!(exemplars.of([("op", "write")].into_iter(), 1), None);
    }
}
