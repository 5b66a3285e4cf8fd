//! The tree of a text to a [`Config`].

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::secret::Secret;
use super::{
    Config, Enabled, Kubernetes, Level, Log, LogFormat, LogLevel, Metrics, Namespace, Observe, PathPrivacy, Policy,
    Privacy, Scope, Spans, Spool, endpoints,
};
use crate::probe::options::GlobList;
use crate::selection::glob::{self, GlobStyle};
use crate::selection::quantity;
use crate::telemetry::grouping::Grouping;
use crate::yaml::{Fields, Node, Reader, Value};

pub(super) const KEYS: &[&str] = &[
    "version",
    "node",
    "cluster",
    "observe",
    "spans",
    "otlp",
    "spool",
    "metrics",
    "kubernetes",
    "mounts",
    "control",
    "privacy",
    "log",
    "drain",
];
pub(super) const OBSERVE_KEYS: &[&str] = &[
    "scope",
    "cgroups",
    "default",
    "namespaces",
    "annotations",
    "process",
    "not_process",
    "paths",
    "not_paths",
    "operations",
    "ring",
];
pub(super) const POLICY_KEYS: &[&str] = &["observe", "slower", "failed", "sample"];
pub(super) const NAMESPACE_KEYS: &[&str] = &["name", "observe", "slower", "failed", "sample"];
pub(super) const SPANS_KEYS: &[&str] = &["grouping", "window", "max_open"];
pub(super) const SPOOL_KEYS: &[&str] = &["directory", "size"];
pub(super) const METRICS_KEYS: &[&str] = &["listen", "max_series", "keep_ended", "exemplars"];
pub(super) const KUBERNETES_KEYS: &[&str] = &["enabled", "kubeconfig", "kubelet_root"];
pub(super) const MOUNTS_KEYS: &[&str] = &["socket"];
pub(super) const CONTROL_KEYS: &[&str] = &["socket"];
pub(super) const PRIVACY_KEYS: &[&str] = &["paths", "components", "key"];
pub(super) const LOG_KEYS: &[&str] = &["level", "format"];

const MOST_NAMESPACES: usize = 256;
/// Two segments, so that one can be written while the other is sent.
const LEAST_SPOOL: u64 = 8 << 20;

/// Puts what a key says in the place of the default; a key without a value says nothing.
pub(super) fn set<'a, T>(fields: &Fields<'a>, name: &str, to: &mut T, read: impl FnOnce(&'a Node) -> Option<T>) {
    let written = fields.get(name).filter(|node| !matches!(node.value, Value::Null));
    if let Some(value) = written.and_then(read) {
        *to = value;
    }
}

pub(super) fn yes_or_no(reader: &mut Reader, node: &Node, what: &str) -> Option<bool> {
    reader.word(node, what, &[("true", true), ("false", false)])
}

pub(super) fn between(
    reader: &mut Reader,
    node: &Node,
    what: &str,
    least: Duration,
    most: Duration,
) -> Option<Duration> {
    let duration = reader.duration(node, what)?;
    if (least..=most).contains(&duration) {
        return Some(duration);
    }
    reader.wrong(node.at, format!("{what} is {duration:?}; write a duration from {least:?} to {most:?}"));
    None
}

pub(super) fn path(reader: &mut Reader, node: &Node, what: &str) -> Option<PathBuf> {
    let text = reader.text(node, what, "a path from the root, for example `/run/fsi`")?;
    if text.starts_with('/') {
        return Some(PathBuf::from(text));
    }
    reader.wrong(node.at, format!("{what} is `{text}`; write a path from the root, for example `/run/fsi`"));
    None
}

fn is_none(node: &Node, word: &str) -> bool {
    matches!(&node.value, Value::Scalar(text) if text == word)
}

pub(super) fn config(reader: &mut Reader, node: &Node) -> Option<Config> {
    let fields = Fields::of(reader, node, "the configuration", KEYS)?;
    fields.version(reader)?;
    let mut config = Config::default();
    set(&fields, "node", &mut config.node, |node| name(reader, node, "node").map(Some));
    set(&fields, "cluster", &mut config.cluster, |node| name(reader, node, "cluster").map(Some));
    set(&fields, "observe", &mut config.observe, |node| observe(reader, node));
    set(&fields, "spans", &mut config.spans, |node| spans(reader, node));
    set(&fields, "otlp", &mut config.otlp, |node| Some(endpoints::all(reader, node)));
    set(&fields, "spool", &mut config.spool, |node| spool(reader, node));
    set(&fields, "metrics", &mut config.metrics, |node| metrics(reader, node));
    set(&fields, "kubernetes", &mut config.kubernetes, |node| kubernetes(reader, node));
    set(&fields, "mounts", &mut config.mounts.socket, |node| {
        socket(reader, node, "mounts", MOUNTS_KEYS, "/run/fsi/agent.sock")
    });
    set(&fields, "control", &mut config.control.socket, |node| {
        socket(reader, node, "control", CONTROL_KEYS, "/run/fsi/agent-control.sock")
    });
    set(&fields, "privacy", &mut config.privacy, |node| privacy(reader, node));
    set(&fields, "log", &mut config.log, |node| log(reader, node));
    set(&fields, "drain", &mut config.drain, |node| {
        between(reader, node, "drain", Duration::ZERO, Duration::from_secs(300))
    });
    Some(config)
}

/// A section whose only key is a socket.
fn socket(reader: &mut Reader, node: &Node, section: &str, keys: &[&str], example: &str) -> Option<PathBuf> {
    let fields = Fields::of(reader, node, section, keys)?;
    let socket = fields.need(reader, section, "socket", example)?;
    path(reader, socket, "socket")
}

fn name(reader: &mut Reader, node: &Node, what: &str) -> Option<String> {
    const RIGHT: &str = "1 to 253 characters without spaces";
    let text = reader.text(node, what, RIGHT)?;
    if text.is_empty() || text.len() > 253 || text.contains(char::is_whitespace) {
        reader.wrong(node.at, format!("{what} is `{text}`; write {RIGHT}"));
        return None;
    }
    Some(text.to_owned())
}

fn observe(reader: &mut Reader, node: &Node) -> Option<Observe> {
    let fields = Fields::of(reader, node, "observe", OBSERVE_KEYS)?;
    let mut observe = Observe::default();
    let scopes = [("containers", Scope::Containers), ("node", Scope::Node)];
    set(&fields, "scope", &mut observe.scope, |node| reader.word(node, "scope", &scopes));
    set(&fields, "cgroups", &mut observe.cgroups, |node| {
        let items = reader.one_or_more(node, "cgroups");
        Some(items.iter().filter_map(|item| path(reader, item, "a cgroup")).collect())
    });
    set(&fields, "default", &mut observe.default, |node| {
        let fields = Fields::of(reader, node, "default", POLICY_KEYS)?;
        Some(policy(reader, &fields, Policy::default()))
    });
    set(&fields, "namespaces", &mut observe.namespaces, |node| Some(namespaces(reader, node, observe.default)));
    set(&fields, "annotations", &mut observe.annotations, |node| yes_or_no(reader, node, "annotations"));
    observe.process = globs(reader, &fields, "process", "not_process", GlobStyle::Name);
    observe.paths = globs(reader, &fields, "paths", "not_paths", GlobStyle::Path);
    set(&fields, "operations", &mut observe.operations, |node| {
        let items = reader.one_or_more(node, "operations");
        let mut operations = Vec::new();
        for item in items {
            let text = reader.text(item, "operations", "operations, for example `[read, write]`")?;
            operations.extend(reader.quantity(item.at, "operations", quantity::operations(text))?);
        }
        Some(operations)
    });
    set(&fields, "ring", &mut observe.ring_bytes, |node| {
        let text = reader.text(node, "ring", "a size, for example `8MiB`")?;
        reader.quantity(node.at, "ring", quantity::ring(text))
    });
    Some(observe)
}

fn policy(reader: &mut Reader, fields: &Fields<'_>, above: Policy) -> Policy {
    let mut policy = above;
    let levels = [("spans", Level::Spans), ("metrics", Level::Metrics), ("off", Level::Off)];
    set(fields, "observe", &mut policy.level, |node| reader.word(node, "observe", &levels));
    set(fields, "slower", &mut policy.slower, |node| {
        if is_none(node, "none") { Some(None) } else { reader.duration(node, "slower").map(Some) }
    });
    set(fields, "failed", &mut policy.failed, |node| yes_or_no(reader, node, "failed"));
    set(
        fields,
        "sample",
        &mut policy.sample,
        |node| if is_none(node, "none") { Some(None) } else { sample(reader, node) },
    );
    policy
}

fn sample(reader: &mut Reader, node: &Node) -> Option<Option<NonZeroU32>> {
    let text = reader.text(node, "sample", "`1/N`, for example `1/100`, or `none`")?;
    reader.quantity(node.at, "sample", quantity::sample(text)).map(Some)
}

fn namespaces(reader: &mut Reader, node: &Node, default: Policy) -> Vec<Namespace> {
    let items = reader.items(node, "namespaces");
    if let Some(first_too_many) = items.get(MOST_NAMESPACES) {
        let sentence = format!("there are {} namespaces; write at most {MOST_NAMESPACES}", items.len());
        reader.wrong(first_too_many.at, sentence);
    }
    let mut namespaces = Vec::new();
    for item in items {
        let Some(fields) = Fields::of(reader, item, "a namespace", NAMESPACE_KEYS) else { continue };
        let policy = policy(reader, &fields, default);
        let Some(name_node) = fields.need(reader, "this namespace", "name", "\"team-*\"") else { continue };
        let Some(name) = reader.text(name_node, "name", "a glob, for example `team-*`") else { continue };
        let list = GlobList { include: vec![name.to_owned()], exclude: Vec::new() };
        if let Err(error) = glob::compile(&list, GlobStyle::Path) {
            reader.wrong(name_node.at, error.to_string());
        }
        namespaces.push(Namespace { name: name.to_owned(), policy });
    }
    namespaces
}

fn globs(reader: &mut Reader, fields: &Fields<'_>, include: &str, exclude: &str, style: GlobStyle) -> GlobList {
    let mut read = |what: &str, list: &mut Vec<String>| {
        let mut at = None;
        set(fields, what, list, |node| {
            at = Some(node.at);
            let items = reader.one_or_more(node, what);
            Some(items.iter().filter_map(|item| reader.text(item, what, "a glob")).map(str::to_owned).collect())
        });
        at
    };
    let mut list = GlobList::default();
    let included = read(include, &mut list.include);
    let at = read(exclude, &mut list.exclude).or(included);
    if let (Some(at), Err(error)) = (at, glob::compile(&list, style)) {
        reader.wrong(at, error.to_string());
    }
    list
}

fn spans(reader: &mut Reader, node: &Node) -> Option<Spans> {
    let fields = Fields::of(reader, node, "spans", SPANS_KEYS)?;
    let mut spans = Spans::default();
    let groupings = Grouping::ALL.map(|grouping| (grouping.name(), grouping));
    set(&fields, "grouping", &mut spans.grouping, |node| reader.word(node, "grouping", &groupings));
    let (least, most) = (Duration::from_secs(60), Duration::from_secs(86_400));
    set(&fields, "window", &mut spans.window, |node| between(reader, node, "window", least, most));
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(3600));
    set(&fields, "max_open", &mut spans.max_open, |node| between(reader, node, "max_open", least, most));
    Some(spans)
}

fn spool(reader: &mut Reader, node: &Node) -> Option<Option<Spool>> {
    if is_none(node, "off") {
        return Some(None);
    }
    let fields = Fields::of(reader, node, "spool", SPOOL_KEYS)?;
    let directory = fields.need(reader, "spool", "directory", "/var/lib/fsi/spool");
    let directory = directory.and_then(|node| path(reader, node, "directory"));
    let mut max_bytes = 1 << 30;
    set(&fields, "size", &mut max_bytes, |node| {
        let bytes = reader.size(node, "size")?;
        if bytes < LEAST_SPOOL {
            reader.wrong(node.at, "size is too small for a spool; write at least `8MiB`".to_owned());
            return None;
        }
        Some(bytes)
    });
    Some(Some(Spool { directory: directory?, max_bytes }))
}

fn metrics(reader: &mut Reader, node: &Node) -> Option<Metrics> {
    let fields = Fields::of(reader, node, "metrics", METRICS_KEYS)?;
    let mut metrics = Metrics::default();
    set(
        &fields,
        "listen",
        &mut metrics.listen,
        |node| if is_none(node, "off") { Some(None) } else { address(reader, node) },
    );
    set(&fields, "max_series", &mut metrics.max_series, |node| {
        reader.number(node, "max_series", 1..=1_000_000).and_then(|number| usize::try_from(number).ok())
    });
    let most = Duration::from_secs(86_400);
    set(&fields, "keep_ended", &mut metrics.keep_ended, |node| {
        between(reader, node, "keep_ended", Duration::ZERO, most)
    });
    set(&fields, "exemplars", &mut metrics.exemplars, |node| yes_or_no(reader, node, "exemplars"));
    Some(metrics)
}

fn address(reader: &mut Reader, node: &Node) -> Option<Option<SocketAddr>> {
    const RIGHT: &str = "an address and a port, for example `0.0.0.0:9464`, or `off`";
    let text = reader.text(node, "listen", RIGHT)?;
    let address = text.parse().ok();
    if address.is_none() {
        reader.wrong(node.at, format!("listen is `{text}`; write {RIGHT}"));
    }
    address.map(Some)
}

fn kubernetes(reader: &mut Reader, node: &Node) -> Option<Kubernetes> {
    let fields = Fields::of(reader, node, "kubernetes", KUBERNETES_KEYS)?;
    let mut kubernetes = Config::default().kubernetes;
    let words = [("auto", Enabled::Auto), ("true", Enabled::Yes), ("false", Enabled::No)];
    set(&fields, "enabled", &mut kubernetes.enabled, |node| reader.word(node, "enabled", &words));
    set(&fields, "kubeconfig", &mut kubernetes.kubeconfig, |node| path(reader, node, "kubeconfig").map(Some));
    set(&fields, "kubelet_root", &mut kubernetes.kubelet_root, |node| path(reader, node, "kubelet_root"));
    Some(kubernetes)
}

fn privacy(reader: &mut Reader, node: &Node) -> Option<Privacy> {
    let fields = Fields::of(reader, node, "privacy", PRIVACY_KEYS)?;
    let mut privacy = Config::default().privacy;
    let mut components = 2;
    set(&fields, "components", &mut components, |node| {
        reader.number(node, "components", 0..=64).and_then(|number| usize::try_from(number).ok())
    });
    let words = [("full", PathPrivacy::Full), ("hash", PathPrivacy::Hash), ("cut", PathPrivacy::Cut { components })];
    set(&fields, "paths", &mut privacy.paths, |node| reader.word(node, "paths", &words));
    set(&fields, "key", &mut privacy.key, |node| Secret::read(reader, node, "key").map(Some));
    Some(privacy)
}

fn log(reader: &mut Reader, node: &Node) -> Option<Log> {
    let fields = Fields::of(reader, node, "log", LOG_KEYS)?;
    let mut log = Config::default().log;
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    let levels = levels.map(|level| (level.name(), level));
    set(&fields, "level", &mut log.level, |node| reader.word(node, "level", &levels));
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    set(&fields, "format", &mut log.format, |node| reader.word(node, "format", &formats));
    Some(log)
}
