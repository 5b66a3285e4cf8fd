//! The documentation and the catalogue name the same things.

use std::collections::BTreeSet;

use super::*;

const METRICS_MD: &str = include_str!("../../../../docs/METRICS.md");
const SPANS_MD: &str = include_str!("../../../../docs/SPANS.md");

/// What stands in backquotes in the first column of the tables of a section.
fn documented(text: &'static str, section: &str) -> BTreeSet<&'static str> {
    let (_, rest) = text.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let body = rest.split("\n## ").next().unwrap();
    let first_cells = body.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    names.into_iter().collect()
}

#[test]
fn every_metric_is_documented_with_its_labels_and_help() {
    assert_eq!(documented(METRICS_MD, "Metrics"), set(METRICS.iter().map(|metric| metric.name)));
    for MetricDef { name, kind, unit, help, labels } in METRICS {
        let row = METRICS_MD.lines().find(|line| line.starts_with(&format!("| `{name}` |"))).unwrap();
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let labels = if labels.is_empty() { "none".to_owned() } else { labels.join(", ") };
        let kind = format!("{kind:?}").to_lowercase();
        assert_eq!(row, format!("| `{name}` | {kind} | {unit} | {labels} | {help} |"));
    }
}

#[test]
fn every_label_outcome_and_loss_is_documented() {
    let labels = set(METRICS.iter().flat_map(|metric| metric.labels).copied());
    assert_eq!(documented(METRICS_MD, "Labels"), labels);
    let outcomes =
        [&SPAN_OUTCOMES[..], &OTLP_OUTCOMES, &THROTTLE_OUTCOMES, &REPORT_OUTCOMES, &RELOAD_OUTCOMES].concat();
    assert_eq!(documented(METRICS_MD, "Outcomes"), set(outcomes));
    let losses: BTreeSet<_> = losses().map(|(stage, reason)| format!("{stage}/{reason}")).collect();
    assert_eq!(documented(METRICS_MD, "Losses"), losses.iter().map(String::as_str).collect());
}

#[test]
fn every_span_and_attribute_is_documented() {
    assert_eq!(documented(SPANS_MD, "Names"), set(span_names()));
    let mut attributes = documented(SPANS_MD, "Attributes");
    attributes.extend(documented(SPANS_MD, "Resource"));
    attributes.extend(documented(SPANS_MD, "Events"));
    assert!(SPANS_MD.contains(&format!("event `{EVENT_FAULT}`")));
    assert_eq!(attributes, set(attribute::ALL.iter().copied()));
}

#[test]
fn no_name_comes_twice() {
    assert_eq!(losses().count(), losses().collect::<BTreeSet<_>>().len());
    assert_eq!(attribute::ALL.len(), set(attribute::ALL.iter().copied()).len());
    assert_eq!(span_names().count(), set(span_names()).len());
}
