//! `otlp`: collectors, each with a queue of its own.

use std::path::PathBuf;
use std::time::Duration;

use hyper::header::HeaderName;

use super::read::{between, path, set, yes_or_no};
use super::secret::Secret;
use crate::telemetry::export::check_url;
use crate::yaml::{Fields, Node, Reader, Value};

pub(super) const KEYS: &[&str] =
    &["url", "spans", "metrics", "headers", "tls", "queue", "batch", "interval", "deadline"];
pub(super) const TLS_KEYS: &[&str] = &["ca_file", "cert_file", "key_file"];
const MOST_ENDPOINTS: usize = 8;

/// A collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub url: String,
    /// Spans are sent.
    pub spans: bool,
    /// How often metrics are pushed; nothing: they are not.
    pub metrics: Option<Duration>,
    pub headers: Vec<(String, Secret)>,
    pub tls: Tls,
    /// Spans that may wait.
    pub queue: usize,
    /// Spans in one request.
    pub batch: usize,
    /// Longest time a span waits for its batch to fill.
    pub interval: Duration,
    /// Longest time for one batch, its retries included.
    pub deadline: Duration,
}

/// Certificates, as PEM files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities to trust instead of those of the machine.
    pub ca_file: Option<PathBuf>,
    /// What we show: the certificate, then those above it, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Endpoint {
    /// An endpoint of which only the address is said.
    #[must_use]
    pub fn at(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            spans: true,
            metrics: None,
            headers: Vec::new(),
            tls: Tls::default(),
            queue: 16_384,
            batch: 1024,
            interval: Duration::from_millis(200),
            deadline: Duration::from_secs(10),
        }
    }
}

pub(super) fn all(reader: &mut Reader, node: &Node) -> Vec<Endpoint> {
    let items = reader.items(node, "otlp");
    if let Some(first_too_many) = items.get(MOST_ENDPOINTS) {
        let sentence = format!("there are {} endpoints; write at most {MOST_ENDPOINTS}", items.len());
        reader.wrong(first_too_many.at, sentence);
    }
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for item in items {
        let Some(endpoint) = one(reader, item) else { continue };
        if endpoints.iter().any(|other| other.url == endpoint.url) {
            let sentence = format!("an endpoint before this one has the url `{}` too; write each once", endpoint.url);
            reader.wrong(item.at, sentence);
        }
        endpoints.push(endpoint);
    }
    endpoints
}

fn one(reader: &mut Reader, node: &Node) -> Option<Endpoint> {
    let fields = Fields::of(reader, node, "an endpoint", KEYS)?;
    let url_node = fields.need(reader, "this endpoint", "url", "grpc://localhost:4317")?;
    let url = reader.text(url_node, "url", "for example `grpc://localhost:4317`")?;
    let mut endpoint = Endpoint::at(url);
    set(&fields, "spans", &mut endpoint.spans, |node| yes_or_no(reader, node, "spans"));
    set(&fields, "metrics", &mut endpoint.metrics, |node| match &node.value {
        Value::Scalar(text) if text == "off" => Some(None),
        _ => between(reader, node, "metrics", Duration::from_secs(1), Duration::from_secs(3600)).map(Some),
    });
    if let Err(error) = check_url(url, endpoint.metrics.is_some()) {
        reader.wrong(url_node.at, error.to_string());
    }
    set(&fields, "headers", &mut endpoint.headers, |node| headers(reader, node));
    set(&fields, "tls", &mut endpoint.tls, |node| tls(reader, node));
    set(&fields, "queue", &mut endpoint.queue, |node| count(reader, node, "queue", 4_194_304));
    set(&fields, "batch", &mut endpoint.batch, |node| count(reader, node, "batch", 65_536));
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(60));
    set(&fields, "interval", &mut endpoint.interval, |node| between(reader, node, "interval", least, most));
    let (least, most) = (Duration::from_millis(100), Duration::from_secs(600));
    set(&fields, "deadline", &mut endpoint.deadline, |node| between(reader, node, "deadline", least, most));
    Some(endpoint)
}

fn count(reader: &mut Reader, node: &Node, what: &str, most: u64) -> Option<usize> {
    reader.number(node, what, 1..=most).and_then(|number| usize::try_from(number).ok())
}

fn headers(reader: &mut Reader, node: &Node) -> Option<Vec<(String, Secret)>> {
    let Value::Map(map) = &node.value else {
        reader.wrong(node.at, format!("headers is {}; write a map, `name: value`", node.value.kind()));
        return None;
    };
    let mut headers: Vec<(String, Secret)> = Vec::new();
    for (key, value) in map {
        // gRPC has them in lower case; HTTP does not mind.
        let name = key.text.to_ascii_lowercase();
        let is_ours = ["content-type", "content-length", "host", "te"].contains(&name.as_str());
        if HeaderName::from_bytes(name.as_bytes()).is_err() || is_ours || name.ends_with("-bin") {
            let sentence = format!("`{}` cannot be a header; write a name of letters, digits and `-`", key.text);
            reader.wrong(key.at, sentence);
        } else if headers.iter().any(|(other, _)| *other == name) {
            reader.wrong(key.at, format!("`{}` comes twice in headers; write it once", key.text));
        } else if let Some(value) = Secret::read(reader, value, &format!("the header `{}`", key.text)) {
            headers.push((name, value));
        }
    }
    Some(headers)
}

fn tls(reader: &mut Reader, node: &Node) -> Option<Tls> {
    let fields = Fields::of(reader, node, "tls", TLS_KEYS)?;
    let mut file = |name: &str| fields.get(name).and_then(|node| path(reader, node, name));
    let (ca_file, cert, key) = (file("ca_file"), file("cert_file"), file("key_file"));
    if fields.get("cert_file").is_some() != fields.get("key_file").is_some() {
        reader.wrong(node.at, "a certificate takes its key; write both `cert_file` and `key_file`".to_owned());
    }
    Some(Tls { ca_file, identity: cert.zip(key) })
}
