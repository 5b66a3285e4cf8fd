//! Families as OpenMetrics text 1.0, for scrapers that ask for it: the same numbers, and exemplars.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, MetricFamily, MetricType};

use super::exemplars::{Exemplar, Exemplars};
use crate::telemetry::defs;

/// What the format is called in HTTP.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Families as text.
#[must_use]
pub fn text(families: &[MetricFamily], exemplars: Option<&Exemplars>) -> String {
    let mut text = String::new();
    for family in families {
        self::family(&mut text, family, exemplars.filter(|_| family.name() == defs::DURATION.name));
    }
    text.push_str("# EOF\n");
    text
}

fn family(text: &mut String, family: &MetricFamily, exemplars: Option<&Exemplars>) {
    let name = family.name();
    let (base, kind) = match family.get_field_type() {
        // The family of a counter is named without what its samples end with.
        MetricType::COUNTER => (name.strip_suffix("_total").unwrap_or(name), "counter"),
        MetricType::HISTOGRAM => (name, "histogram"),
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => (name, "gauge"),
    };
    line(text, format_args!("# TYPE {base} {kind}\n# HELP {base} {}", escaped(family.help())));
    for sample in family.get_metric() {
        let labels = sample.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => {
                line(text, format_args!("{base}_total{} {}", set(labels, None), sample.get_counter().get_value()));
            }
            MetricType::HISTOGRAM => histogram(text, base, sample, exemplars),
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
                line(text, format_args!("{base}{} {}", set(labels, None), sample.get_gauge().get_value()));
            }
        }
    }
}

fn histogram(text: &mut String, base: &str, sample: &prometheus::proto::Metric, exemplars: Option<&Exemplars>) {
    let labels = sample.get_label();
    let counted = sample.get_histogram();
    let bounds = counted.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite());
    let buckets = bounds.map(|bucket| (bucket.upper_bound().to_string(), bucket.cumulative_count()));
    let last = ("+Inf".to_owned(), counted.get_sample_count());
    for (index, (bound, count)) in buckets.chain([last]).enumerate() {
        let pairs = || labels.iter().map(|label| (label.name(), label.value()));
        let exemplar = exemplars.and_then(|exemplars| exemplars.of(pairs(), index)).map(told).unwrap_or_default();
        line(text, format_args!("{base}_bucket{} {count}{exemplar}", set(labels, Some(&bound))));
    }
    line(text, format_args!("{base}_count{} {}", set(labels, None), counted.get_sample_count()));
    line(text, format_args!("{base}_sum{} {}", set(labels, None), counted.get_sample_sum()));
}

fn told(exemplar: Exemplar) -> String {
    let Exemplar { trace, span, duration, unix_ns } = exemplar;
    let (trace, span) = (u128::from_be_bytes(trace.0), u64::from_be_bytes(span.0));
    let (seconds, millis) = (unix_ns / 1_000_000_000, unix_ns / 1_000_000 % 1000);
    format!(" # {{trace_id=\"{trace:032x}\",span_id=\"{span:016x}\"}} {} {seconds}.{millis:03}", duration.as_secs_f64())
}

fn set(labels: &[LabelPair], bound: Option<&str>) -> String {
    let pairs = labels.iter().map(|label| format!("{}=\"{}\"", label.name(), escaped(label.value())));
    let all: Vec<String> = pairs.chain(bound.map(|bound| format!("le=\"{bound}\""))).collect();
    if all.is_empty() { String::new() } else { format!("{{{}}}", all.join(",")) }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"")
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    writeln!(text, "{line}").ok();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::proto::{Bucket, Histogram, Metric};

    use super::super::{counter, family, gauge, label};
    use super::*;
    use crate::span::{SpanId, TraceId};

    #[test]
    fn every_kind_and_an_exemplar() {
        let mut histogram = Histogram::default();
        histogram.set_sample_count(3);
        histogram.set_sample_sum(0.5);
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(0.000_000_512);
        bucket.set_cumulative_count(1);
        histogram.set_bucket(vec![bucket]);
        let mut timed = Metric::from_label(vec![label("op", "read")]);
        timed.set_histogram(histogram);
        let families = [
            family(&defs::OPERATIONS, [counter(vec![label("op", "a\"b\\c\nd")], 7)]),
            family(&defs::OPEN_FILES, [gauge(Vec::new(), -2)]),
            family(&defs::DURATION, [timed]),
        ];
        let exemplars = Exemplars::new(10);
        let exemplar = Exemplar {
            trace: TraceId([0xab; 16]),
            span: SpanId([1; 8]),
            duration: Duration::from_nanos(600),
            unix_ns: 1_700_000_000_007_000_000,
        };
        exemplars.note(&[("op", "read")], exemplar);
        let expected = r##"# TYPE fsi_operations counter
# HELP fsi_operations File operations that ended, failed ones included.
fsi_operations_total{op="a\"b\\c\nd"} 7
# TYPE fsi_open_files gauge
# HELP fsi_open_files Open files that are followed now.
fsi_open_files -2
# TYPE fsi_operation_duration_seconds histogram
# HELP fsi_operation_duration_seconds Time from entry to exit of the system call, in seconds.
fsi_operation_duration_seconds_bucket{op="read",le="0.000000512"} 1
fsi_operation_duration_seconds_bucket{op="read",le="+Inf"} 3 # {trace_id="abababababababababababababababab",span_id="0101010101010101"} 0.0000006 1700000000.007
fsi_operation_duration_seconds_count{op="read"} 3
fsi_operation_duration_seconds_sum{op="read"} 0.5
# EOF
"##;
        assert_eq!(text(&families, Some(&exemplars)), expected);
        assert!(!text(&families, None).contains("trace_id"));
    }
}
