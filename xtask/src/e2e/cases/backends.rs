//! What the agents, Prometheus and Jaeger say, through the API server's proxies.

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use super::super::kubectl::Kubectl;

/// Where the chart is installed.
pub(super) const NAMESPACE: &str = "fsi";

/// The name of a part's pod on a node.
pub(super) fn pod_on(kubectl: &Kubectl, component: &str, node: &str) -> Result<String> {
    let (label, field) =
        (format!("app.kubernetes.io/component={component}"), format!("spec.nodeName={node},status.phase=Running"));
    let pods = kubectl.json(&["-n", NAMESPACE, "get", "pods", "-l", &label, "--field-selector", &field])?;
    let is_staying = |pod: &&Value| pod["metadata"]["deletionTimestamp"].is_null();
    let pod = pods["items"].as_array().into_iter().flatten().find(is_staying);
    let name = pod.and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned).ok_or_else(|| anyhow!("no {component} runs on {node}"))
}

/// /metrics of a node's agent.
pub(super) fn agent_metrics(kubectl: &Kubectl, node: &str) -> Result<String> {
    let pod = pod_on(kubectl, "agent", node)?;
    kubectl.raw(&format!("/api/v1/namespaces/{NAMESPACE}/pods/{pod}:9464/proxy/metrics"))
}

/// The sum of the series of a metric that have these labels.
pub(super) fn sum(metrics: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let has = |line: &str| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\"")));
    let is_of = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && has(line);
    let value = |line: &str| line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
    metrics.lines().filter(is_of).filter_map(value).sum()
}

/// What Prometheus answers to a query that has one value.
pub(super) fn prometheus(kubectl: &Kubectl, query: &str) -> Result<f64> {
    let path = "/api/v1/namespaces/observability/services/prometheus-operated:9090/proxy/api/v1/query?query=";
    let answer: Value =
        serde_json::from_str(&kubectl.raw(&format!("{path}{}", escaped(query)))?).context("read Prometheus' JSON")?;
    let value = answer["data"]["result"][0]["value"][1].as_str();
    value.and_then(|value| value.parse().ok()).ok_or_else(|| anyhow!("Prometheus has nothing for {query}: {answer}"))
}

/// The traces that Jaeger finds by a tag.
pub(super) fn jaeger(kubectl: &Kubectl, operation: &str, tags: &[(&str, &str)]) -> Result<Vec<Value>> {
    let tags: serde_json::Map<String, Value> =
        tags.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
    let tags = Value::Object(tags).to_string();
    let path = format!(
        "/api/v1/namespaces/observability/services/jaeger:16686/proxy/api/traces?service=fsi&limit=20&operation={operation}&tags={}",
        escaped(&tags)
    );
    let mut answer: Value = serde_json::from_str(&kubectl.raw(&path)?).context("read Jaeger's JSON")?;
    match answer["data"].take() {
        Value::Array(traces) if !traces.is_empty() => Ok(traces),
        _ => bail!("Jaeger has no {operation} with {tags}: {answer}"),
    }
}

/// A tag of a span in Jaeger's JSON, as text.
pub(super) fn tag(span: &Value, key: &str) -> Option<String> {
    let tags = span["tags"].as_array()?;
    let value = &tags.iter().find(|tag| tag["key"] == key)?["value"];
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_series_with_all_labels_are_added() {
        let metrics = "a{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab{x=\"1\"} 5\na 6\n";
        assert!((sum(metrics, "a", &[("x", "1")]) - 7.0).abs() < f64::EPSILON);
        assert!((sum(metrics, "a", &[("x", "1"), ("y", "3")]) - 4.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_a_query_is_made_of_is_escaped() {
        assert_eq!(escaped("a{b=\"c\"}"), "a%7Bb%3D%22c%22%7D");
    }
}
