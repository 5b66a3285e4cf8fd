//! Spans as `fsi observe --spans` and the OpenTelemetry Collector's file exporter write them: OTLP/JSON lines, read back.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use serde_json::Value;

/// A span. Attributes are text whatever their type was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty for a root.
    pub parent: String,
    pub name: String,
    pub start_ns: u64,
    pub end_ns: u64,
    pub attributes: BTreeMap<String, String>,
    /// 2 is an error.
    pub status: u64,
    pub events: Vec<Event>,
}

/// Something at one moment of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub at_ns: u64,
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    /// An attribute, empty where it is not there.
    #[must_use]
    pub fn attribute(&self, key: &str) -> &str {
        self.attributes.get(key).map_or("", String::as_str)
    }

    /// An attribute that is a number; 0 where it is not there.
    #[must_use]
    pub fn number(&self, key: &str) -> u64 {
        self.attribute(key).parse().unwrap_or(0)
    }

    /// `file.path`.
    #[must_use]
    pub fn path(&self) -> &str {
        self.attribute("file.path")
    }

    /// Whether it is an operation rather than a process or an open file.
    #[must_use]
    pub fn is_operation(&self) -> bool {
        self.name != "process" && self.name != "file"
    }
}

/// All spans of a file.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    pub all: Vec<Span>,
}

impl Spans {
    /// Reads a file, in which every line must be whole.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("the spans can be read");
        let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line is one JSON document"));
        Self { all: lines.flat_map(|line| Self::of(&line).all).collect() }
    }

    /// Those of one OTLP/JSON document.
    #[must_use]
    pub fn of(document: &Value) -> Self {
        let mut all = Vec::new();
        for resource in array(&document["resourceSpans"]) {
            for scope in array(&resource["scopeSpans"]) {
                all.extend(array(&scope["spans"]).iter().map(span));
            }
        }
        Self { all }
    }

    /// Spans of one name.
    pub fn named<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a Span> + use<'a, 'n> {
        self.all.iter().filter(move |span| span.name == name)
    }

    /// Operations; neither processes nor files.
    pub fn operations(&self) -> impl Iterator<Item = &Span> {
        self.all.iter().filter(|span| span.is_operation())
    }

    /// Whether one of that name has that path.
    #[must_use]
    pub fn has(&self, name: &str, path: &str) -> bool {
        self.named(name).any(|span| span.path() == path)
    }

    /// Fails unless one of that name has that path; says which paths there were.
    pub fn expect(&self, name: &str, path: &str) -> &Span {
        let found = self.named(name).find(|span| span.path() == path);
        found.unwrap_or_else(|| panic!("no {name} of {path}; there were {:#?}", self.paths(name)))
    }

    /// The paths of the spans of a name, in order, each once in a row, system directories left out.
    #[must_use]
    pub fn paths(&self, name: &str) -> Vec<&str> {
        let is_system = |path: &str| ["/usr/", "/etc/", "/lib", "/proc/"].iter().any(|start| path.starts_with(start));
        let mut paths: Vec<_> = self.named(name).map(Span::path).filter(|path| !is_system(path)).collect();
        paths.dedup();
        paths
    }

    /// By id.
    #[must_use]
    pub fn by_id(&self) -> HashMap<&str, &Span> {
        self.all.iter().map(|span| (span.id.as_str(), span)).collect()
    }
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn span(value: &Value) -> Span {
    let word = |key: &str| value[key].as_str().unwrap_or("").to_owned();
    Span {
        trace: word("traceId"),
        id: word("spanId"),
        parent: word("parentSpanId"),
        name: word("name"),
        start_ns: nanoseconds(&value["startTimeUnixNano"]),
        end_ns: nanoseconds(&value["endTimeUnixNano"]),
        attributes: attributes(value),
        status: value["status"]["code"].as_u64().unwrap_or(0),
        events: array(&value["events"]).iter().map(event).collect(),
    }
}

fn event(value: &Value) -> Event {
    Event { name: text(&value["name"]), at_ns: nanoseconds(&value["timeUnixNano"]), attributes: attributes(value) }
}

fn attributes(value: &Value) -> BTreeMap<String, String> {
    array(&value["attributes"]).iter().map(|pair| (text(&pair["key"]), any_value(&pair["value"]))).collect()
}

fn nanoseconds(value: &Value) -> u64 {
    text(value).parse().expect("a time in nanoseconds")
}

/// `{"intValue": "3"}` and its like.
fn any_value(value: &Value) -> String {
    let inner = value.as_object().and_then(|object| object.values().next());
    inner.map(text).unwrap_or_default()
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
