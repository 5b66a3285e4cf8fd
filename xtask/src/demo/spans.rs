//! Spans in OTLP/JSON lines as a tree for the eye: files, and those of their operations that a fault was injected into.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

/// Operations of one file that are drawn.
const MOST: usize = 6;

/// One line for each file and operation; paths are those below `root`.
pub(super) fn with_faults(text: &str, root: &Path) -> Vec<String> {
    let mut parents: BTreeMap<String, Value> = BTreeMap::new();
    let mut struck: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for span in text.lines().flat_map(spans) {
        let is_struck = span.pointer("/events/0").is_some();
        let word = |name: &str| span.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (own, parent) = (word("spanId"), word("parentSpanId"));
        if is_struck {
            struck.entry(if parent.is_empty() { own } else { parent }).or_default().push(span);
        } else if parent.is_empty() {
            parents.insert(own, span);
        }
    }
    let mut lines = Vec::new();
    for (parent, mut operations) in struck {
        operations.sort_by_key(|span| span.get("startTimeUnixNano").and_then(Value::as_str).map(str::to_owned));
        if let Some(file) = parents.get(&parent) {
            let count = |key: &str| attribute(file, key).unwrap_or_else(|| "0".to_owned());
            lines.push(format!(
                "{} {}  {}, {} operations came to the mount, {} failed",
                name(file),
                path(file, root),
                milliseconds(file),
                count("fsi.file.operations"),
                count("fsi.file.errors"),
            ));
        }
        let left_out = operations.len().saturating_sub(MOST);
        let last = operations.len() - left_out - 1;
        for (at, span) in operations.iter().take(MOST).enumerate() {
            let branch = if at == last && left_out == 0 { "`-" } else { "|-" };
            lines.push(format!("{branch} {}  {}  {}", name(span), milliseconds(span), faults(span)));
        }
        if left_out > 0 {
            lines.push(format!("`- ... {left_out} more"));
        }
    }
    lines
}

fn spans(line: &str) -> Vec<Value> {
    let Ok(request) = serde_json::from_str::<Value>(line) else { return Vec::new() };
    let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    let scopes = list(&request, "resourceSpans").into_iter().flat_map(|resource| list(&resource, "scopeSpans"));
    scopes.flat_map(|scope| list(&scope, "spans")).collect()
}

/// What was injected: `EIO` or `delay`, by which rule.
fn faults(span: &Value) -> String {
    let events = span.get("events").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let words = |event: &Value| {
        let of = |key: &str| attribute(event, key);
        let what = of("error.type").or_else(|| of("fsi.fault.errno")).or_else(|| of("fsi.fault.kind"))?;
        Some(format!("<- {what}, rule {}", of("fsi.fault.rule")?))
    };
    events.iter().filter_map(words).collect::<Vec<_>>().join(", ")
}

fn name(span: &Value) -> &str {
    span.get("name").and_then(Value::as_str).unwrap_or("?")
}

fn path(span: &Value, root: &Path) -> String {
    let path = attribute(span, "file.path").unwrap_or_default();
    Path::new(&path).strip_prefix(root).map_or_else(|_| path.clone(), |below| below.display().to_string())
}

fn attribute(of: &Value, key: &str) -> Option<String> {
    let attributes = of.get("attributes")?.as_array()?;
    let value = attributes.iter().find(|attribute| attribute.get("key").and_then(Value::as_str) == Some(key))?;
    value.get("value")?.as_object()?.values().next()?.as_str().map(str::to_owned)
}

fn milliseconds(span: &Value) -> String {
    let time = |name: &str| span.get(name)?.as_str()?.parse::<u64>().ok();
    let (begin, end) = (time("startTimeUnixNano").unwrap_or(0), time("endTimeUnixNano").unwrap_or(0));
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a demo")]
    let ms = end.saturating_sub(begin) as f64 / 1e6;
    format!("{ms:.2} ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(own: &str, parent: &str, name: &str, rest: &str) -> String {
        format!(
            r#"{{"spanId":"{own}","parentSpanId":"{parent}","name":"{name}","startTimeUnixNano":"1000000","endTimeUnixNano":"3500000",{rest}}}"#
        )
    }

    #[test]
    fn files_stand_above_what_was_done_to_them() {
        let fault = r#""attributes":[],"events":[{"name":"fsi.fault","attributes":[{"key":"fsi.fault.rule","value":{"stringValue":"bad"}},{"key":"fsi.fault.kind","value":{"stringValue":"delay"}}]}]"#;
        let file = r#""attributes":[{"key":"file.path","value":{"stringValue":"/m/a"}},{"key":"fsi.file.operations","value":{"intValue":"2"}}],"events":[]"#;
        let all =
            [span("b", "a", "read", fault), span("c", "a", "read", r#""events":[]"#), span("a", "", "file", file)];
        let line = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}]}}]}}]}}"#, all.join(","));
        let expected =
            ["file a  2.50 ms, 2 operations came to the mount, 0 failed", "`- read  2.50 ms  <- delay, rule bad"];
        assert_eq!(with_faults(&line, Path::new("/m")), expected);
        assert!(with_faults("nonsense", Path::new("/m")).is_empty());
    }
}
