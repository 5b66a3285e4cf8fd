//! The dashboard and the alerts show what the agent and the driver tell: every name and label in them is of the catalogue, and nothing of it is left out.
#![forbid(unsafe_code)]
#![expect(clippy::tests_outside_test_module, clippy::panic, reason = "this whole file is tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fsi_agent::telemetry::defs;
use fsi_tests::fsi::succeed;
use fsi_tests::need::{Need, has};
use fsi_tests::promql::{Query, catalogue};
use serde_json::Value;

/// What Grafana puts into expressions, and something that it could be.
const GRAFANA: [(&str, &str); 2] = [("$__rate_interval", "5m"), ("$__range", "1h")];

fn path(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../helm/fsi")).join(file)
}

fn text(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn string<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("no {key} in {value:#}"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key} in {value:#}"))
}

fn dashboard() -> Value {
    serde_json::from_str(&text("dashboards/fsi.json")).expect("JSON")
}

/// Those that show something, rows left out.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(dashboard, "panels").iter().filter(|panel| panel["type"] != "row")
}

fn rules() -> Vec<Value> {
    let all: Value = serde_saphyr::from_str(&text("alerts/fsi.yaml")).expect("YAML");
    list(&all, "groups").iter().flat_map(|group| list(group, "rules").to_vec()).collect()
}

fn query(expression: &str) -> Query {
    let expression =
        GRAFANA.iter().fold(expression.to_owned(), |text, (variable, value)| text.replace(variable, value));
    Query::read(&expression).unwrap_or_else(|wrong| panic!("{expression}: {wrong}"))
}

/// What stands between `before` and `after`, each time.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| rest.split(after).next()).map(str::trim)
}

/// `label_values(SELECTOR, LABEL)`.
fn label_values(variable: &Value) -> (Query, String) {
    let definition = string(variable, "definition");
    let inner = definition.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
    let (selector, label) = inner.and_then(|inner| inner.rsplit_once(", ")).expect("label_values of two");
    (query(selector), label.to_owned())
}

fn every_query() -> Vec<Query> {
    let dashboard = dashboard();
    let shown = panels(&dashboard).flat_map(|panel| list(panel, "targets")).map(|target| query(string(target, "expr")));
    shown.chain(rules().iter().map(|rule| query(string(rule, "expr")))).collect()
}

#[test]
fn every_panel_says_what_it_shows_and_its_queries_are_of_the_catalogue() {
    let dashboard = dashboard();
    let ids: BTreeSet<_> =
        list(&dashboard, "panels").iter().map(|panel| panel["id"].as_u64().expect("an id")).collect();
    assert_eq!(ids.len(), list(&dashboard, "panels").len(), "each has its own id");
    for panel in panels(&dashboard) {
        let title = string(panel, "title");
        assert!(string(panel, "description").ends_with('.'), "{title}: a sentence");
        string(&panel["fieldConfig"]["defaults"], "unit");
        assert_eq!(string(&panel["datasource"], "uid"), "${datasource}", "{title}");
        for target in list(panel, "targets") {
            let query = query(string(target, "expr"));
            for label in between(string(target, "legendFormat"), "{{", "}}") {
                assert!(query.labels().contains(label), "{title}: the legend's {label} is not in the result");
            }
        }
    }
    let variables: Vec<_> =
        list(&dashboard["templating"], "list").iter().map(|variable| string(variable, "name")).collect();
    assert_eq!(variables, ["datasource", "namespace", "pod", "volume"]);
    for variable in &list(&dashboard["templating"], "list")[1..] {
        let (query, label) = label_values(variable);
        assert_eq!(label, string(variable, "name"));
        assert!(query.labels().contains(label.as_str()));
    }
}

#[test]
fn every_alert_says_what_is_wrong_and_what_to_do_from_what_its_query_gives() {
    let rules = rules();
    let names: BTreeSet<_> = rules.iter().map(|rule| string(rule, "alert")).collect();
    assert_eq!(names.len(), rules.len(), "each has its own name");
    for rule in &rules {
        let name = string(rule, "alert");
        let query = query(string(rule, "expr"));
        string(rule, "for");
        assert!(["critical", "warning", "info"].contains(&string(&rule["labels"], "severity")), "{name}");
        for part in ["summary", "description"] {
            let sentence = string(&rule["annotations"], part);
            for label in between(sentence, "$labels.", " ") {
                assert!(query.labels().contains(label), "{name}: {part} has {label}, which the result has not");
            }
        }
        assert!(string(&rule["annotations"], "description").contains('`'), "{name}: what to run, or what to set");
    }
}

#[test]
fn every_metric_and_every_label_is_shown() {
    let queries = every_query();
    let shown: BTreeSet<_> = queries.iter().flat_map(Query::metrics).collect();
    let all: BTreeSet<_> = catalogue().map(|metric| metric.name).collect();
    assert_eq!(all.difference(&shown).collect::<Vec<_>>(), Vec::<&&str>::new(), "metrics that nobody sees");
    let used: BTreeSet<_> = queries.iter().flat_map(Query::named_labels).collect();
    let labels: BTreeSet<_> = catalogue().flat_map(|metric| metric.labels).copied().collect();
    let left_out = labels.iter().filter(|label| !used.contains(**label)).collect::<Vec<_>>();
    assert_eq!(left_out, Vec::<&&str>::new(), "labels that nobody sees");
}

#[test]
fn every_loss_raises_one_alert() {
    let rules = rules();
    for (stage, reason) in defs::losses() {
        let labels = [(defs::LABEL_STAGE, stage), (defs::LABEL_REASON, reason)];
        let raised = rules.iter().filter(|rule| query(string(rule, "expr")).selects(defs::LOST.name, &labels));
        let names: Vec<_> = raised.map(|rule| string(rule, "alert")).collect();
        assert_eq!(names.len(), 1, "{stage}/{reason}: {names:?}");
    }
}

#[test]
fn prometheus_takes_the_alerts_and_raises_them_when_it_should() {
    if !has(&[Need::Program("promtool")]) {
        return;
    }
    succeed(Command::new("promtool").args(["check", "rules"]).arg(path("alerts/fsi.yaml")));
    succeed(Command::new("promtool").args(["test", "rules"]).arg(path("alerts/fsi.test.yaml")));
}
