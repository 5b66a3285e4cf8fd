//! The families of `/metrics` as an OTLP request: the same names, labels and numbers.
//!
//! Counters become cumulative monotonic sums, gauges gauges, histograms explicit-bucket histograms. OTLP wants the count of each
//! bucket for itself and one more for what is above the last bound, Prometheus cumulative counts.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prometheus::proto::{Histogram as Counted, LabelPair, Metric as Sample, MetricFamily, MetricType};

use super::containers::ContainerNames;
use super::defs;
use super::span::resource;

/// One request with all families. `start_unix_ns`: when counters began to count.
#[must_use]
pub fn request(
    families: &[MetricFamily],
    names: &dyn ContainerNames,
    start_unix_ns: u64,
    now_unix_ns: u64,
) -> ExportMetricsServiceRequest {
    let ResourceAttributesWithSchema { attributes, schema_url } = (&resource(names)).into();
    let scope = InstrumentationScope {
        name: "fsi".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let times = Times { start: start_unix_ns, now: now_unix_ns };
    let metrics = families.iter().map(|family| metric(family, times)).collect();
    let resource = Resource { attributes: attributes.0, ..Resource::default() };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() }],
            schema_url: schema_url.unwrap_or_default(),
        }],
    }
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

fn metric(family: &MetricFamily, times: Times) -> Metric {
    let samples = family.get_metric();
    let cumulative = AggregationTemporality::Cumulative.into();
    let data = match family.get_field_type() {
        MetricType::COUNTER => {
            let points =
                samples.iter().map(|sample| number(sample, sample.get_counter().get_value(), times.start, times));
            Data::Sum(Sum { data_points: points.collect(), aggregation_temporality: cumulative, is_monotonic: true })
        }
        MetricType::HISTOGRAM => {
            let points = samples.iter().map(|sample| histogram(sample, times)).collect();
            Data::Histogram(Histogram { data_points: points, aggregation_temporality: cumulative })
        }
        // A gauge has no start.
        MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => {
            let points = samples.iter().map(|sample| number(sample, sample.get_gauge().get_value(), 0, times));
            Data::Gauge(Gauge { data_points: points.collect() })
        }
    };
    let known = defs::METRICS.iter().find(|def| def.name == family.name());
    Metric {
        name: family.name().to_owned(),
        description: family.help().to_owned(),
        unit: known.map_or_else(String::new, |def| unit(def.unit)),
        metadata: Vec::new(),
        data: Some(data),
    }
}

/// As UCUM has it: units of its own, and what is counted in braces.
fn unit(unit: &str) -> String {
    match unit {
        "seconds" => "s".to_owned(),
        "bytes" => "By".to_owned(),
        "1" => "1".to_owned(),
        counted => format!("{{{counted}}}"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "only whole numbers below 2^53 are cast")]
fn number(sample: &Sample, value: f64, start: u64, times: Times) -> NumberDataPoint {
    let is_whole = value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0;
    NumberDataPoint {
        attributes: attributes(sample.get_label()),
        start_time_unix_nano: start,
        time_unix_nano: times.now,
        value: Some(if is_whole { Number::AsInt(value as i64) } else { Number::AsDouble(value) }),
        ..NumberDataPoint::default()
    }
}

fn histogram(sample: &Sample, times: Times) -> HistogramDataPoint {
    let counted: &Counted = sample.get_histogram();
    let (mut bounds, mut counts, mut below) = (Vec::new(), Vec::new(), 0);
    for bucket in counted.get_bucket().iter().filter(|bucket| bucket.upper_bound().is_finite()) {
        bounds.push(bucket.upper_bound());
        counts.push(bucket.cumulative_count().saturating_sub(below));
        below = bucket.cumulative_count();
    }
    counts.push(counted.get_sample_count().saturating_sub(below));
    HistogramDataPoint {
        attributes: attributes(sample.get_label()),
        start_time_unix_nano: times.start,
        time_unix_nano: times.now,
        count: counted.get_sample_count(),
        sum: Some(counted.get_sample_sum()),
        bucket_counts: counts,
        explicit_bounds: bounds,
        ..HistogramDataPoint::default()
    }
}

fn attributes(labels: &[LabelPair]) -> Vec<KeyValue> {
    let attribute = |label: &LabelPair| KeyValue {
        key: label.name().to_owned(),
        value: Some(AnyValue { value: Some(Value::StringValue(label.value().to_owned())) }),
        ..KeyValue::default()
    };
    labels.iter().map(attribute).collect()
}

#[cfg(test)]
mod tests {
    use prometheus::proto::{Bucket, Counter};

    use super::*;

    fn sample(set: impl FnOnce(&mut Sample)) -> Sample {
        let mut label = LabelPair::default();
        label.set_name("op".to_owned());
        label.set_value("read".to_owned());
        let mut sample = Sample::from_label(vec![label]);
        set(&mut sample);
        sample
    }

    fn family(name: &str, kind: MetricType, sample: Sample) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help("Help.".to_owned());
        family.set_field_type(kind);
        family.set_metric(vec![sample]);
        family
    }

    fn converted(family: MetricFamily) -> Metric {
        let mut request = request(&[family], &crate::telemetry::containers::NoContainers, 5, 9);
        let resource = request.resource_metrics.remove(0);
        assert!(resource.resource.unwrap().attributes.iter().any(|attribute| attribute.key == "service.name"));
        resource.scope_metrics.into_iter().next().unwrap().metrics.remove(0)
    }

    #[test]
    fn a_counter_is_a_cumulative_sum_since_the_start() {
        let metric = converted(family(
            "fsi_bytes_total",
            MetricType::COUNTER,
            sample(|sample| {
                let mut counter = Counter::default();
                counter.set_value(7.0);
                sample.set_counter(counter);
            }),
        ));
        assert_eq!((metric.unit.as_str(), metric.description.as_str()), ("By", "Help."));
        let Some(Data::Sum(sum)) = metric.data else { panic!("{metric:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
        let point = &sum.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano, point.value), (5, 9, Some(Number::AsInt(7))));
        assert_eq!(point.attributes[0].key, "op");
    }

    #[test]
    fn fractions_stay_fractions_and_gauges_have_no_start() {
        let metric = converted(family(
            "fsi_open_files",
            MetricType::GAUGE,
            sample(|sample| {
                let mut gauge = prometheus::proto::Gauge::default();
                gauge.set_value(-1.5);
                sample.set_gauge(gauge);
            }),
        ));
        let Some(Data::Gauge(gauge)) = metric.data else { panic!("{metric:?}") };
        let point = &gauge.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.value), (0, Some(Number::AsDouble(-1.5))));
    }

    #[test]
    fn a_histogram_has_one_more_bucket_than_bounds() {
        let metric = converted(family(
            "fsi_operation_duration_seconds",
            MetricType::HISTOGRAM,
            sample(|sample| {
                let mut counted = Counted::default();
                counted.set_sample_count(10);
                counted.set_sample_sum(2.5);
                let bucket = |bound, below| {
                    let mut bucket = Bucket::default();
                    bucket.set_upper_bound(bound);
                    bucket.set_cumulative_count(below);
                    bucket
                };
                counted.set_bucket(vec![bucket(0.1, 3), bucket(1.0, 3), bucket(2.0, 8)]);
                sample.set_histogram(counted);
            }),
        ));
        assert_eq!(metric.unit, "s");
        let Some(Data::Histogram(histogram)) = metric.data else { panic!("{metric:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, point.start_time_unix_nano), (10, Some(2.5), 5));
        assert_eq!(
            (point.explicit_bounds.as_slice(), point.bucket_counts.as_slice()),
            (&[0.1, 1.0, 2.0][..], &[3, 0, 5, 2][..])
        );
    }
}
