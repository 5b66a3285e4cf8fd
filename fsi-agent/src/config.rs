//! The configuration of the node's agent: plain data, read from YAML, refused as a whole when anything in it is wrong.
//!
//! docs/CONFIGURATION.md names every key; a test compares it with what is read here.

mod endpoints;
mod read;
mod secret;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use fsi_common::op::OpKind;
use thiserror::Error;

use crate::probe::options::{EventPolicy, GlobList};
use crate::selection::glob::{self, GlobStyle};
use crate::telemetry::grouping::Grouping;
use crate::yaml;

pub use self::endpoints::{Endpoint, Tls};
pub use self::secret::{Secret, SecretError};
pub use crate::yaml::{Position, Problem, Problems};

/// Everything that a file may say; what it does not say has its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name; see [`Config::node_name`].
    pub node: Option<String>,
    pub cluster: Option<String>,
    pub observe: Observe,
    pub spans: Spans,
    pub otlp: Vec<Endpoint>,
    pub spool: Option<Spool>,
    pub metrics: Metrics,
    pub kubernetes: Kubernetes,
    pub mounts: Mounts,
    pub privacy: Privacy,
    pub log: Log,
    /// Longest time after SIGTERM for what is not sent yet.
    pub drain: Duration,
}

/// Whom to observe, and what of it to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    pub scope: Scope,
    /// Further cgroup directories, whatever the scope.
    pub cgroups: Vec<PathBuf>,
    /// What holds where nothing else is said.
    pub default: Policy,
    /// The first one whose name matches holds.
    pub namespaces: Vec<Namespace>,
    /// Pods may choose by annotations.
    pub annotations: bool,
    /// On command names, for spans.
    pub process: GlobList,
    /// On paths, for spans.
    pub paths: GlobList,
    /// For spans; empty: all.
    pub operations: Vec<OpKind>,
    /// A power of two.
    pub ring_bytes: u32,
}

/// Which processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those in containers.
    Containers,
    /// All but the agent.
    Node,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Metrics, and spans of the operations that the policy names.
    Spans,
    Metrics,
    Off,
}

/// What is told of somebody's operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub level: Level,
    /// Operations that take longer become spans.
    pub slower: Option<Duration>,
    /// Those that fail do.
    pub failed: bool,
    /// And one in so many of the others.
    pub sample: Option<NonZeroU32>,
}

/// A policy for the namespaces that a glob names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    pub name: String,
    pub policy: Policy,
}

/// How spans are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    pub grouping: Grouping,
    /// How long a trace of a pod or a workload goes on.
    pub window: Duration,
    /// Length of the segments of a file that stays open.
    pub max_open: Duration,
}

/// Where batches wait on disk for a collector that is away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spool {
    pub directory: PathBuf,
    /// For each endpoint.
    pub max_bytes: u64,
}

/// How metrics are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Nothing: they are not served.
    pub listen: Option<SocketAddr>,
    pub max_series: usize,
    /// How long the series of a container that has ended are still shown.
    pub keep_ended: Duration,
    pub exemplars: bool,
}

/// Whether to ask Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enabled {
    /// When the agent runs in a cluster, or a kubeconfig is named.
    Auto,
    Yes,
    No,
}

/// How to ask Kubernetes about pods and volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubernetes {
    pub enabled: Enabled,
    /// Nothing: that of the pod the agent runs in.
    pub kubeconfig: Option<PathBuf>,
    pub kubelet_root: PathBuf,
}

/// How mounts reach the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounts {
    pub socket: PathBuf,
}

/// What of paths leaves the node in spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privacy {
    pub paths: PathPrivacy,
    /// The key of the hash; nothing: a new one at each start.
    pub key: Option<Secret>,
}

/// What a path becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathPrivacy {
    Full,
    /// Each component is a keyed hash of itself.
    Hash,
    /// So many components from the root are left.
    Cut {
        components: usize,
    },
}

/// The agent's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}", problems.0.iter().map(|problem| format!("{}: {problem}", path.display())).collect::<Vec<_>>().join("\n"))]
    Wrong { path: PathBuf, problems: Problems },
}

impl Config {
    /// Reads a text.
    ///
    /// # Errors
    /// Something is wrong; each mistake has line, column and what would be right.
    pub fn parse(text: &str) -> Result<Self, Problems> {
        yaml::read(text, read::config)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, or something in it is wrong.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).map_err(|problems| ConfigError::Wrong { path: path.to_owned(), problems })
    }

    /// The node's name: as written, else `$NODE_NAME`, else the host's name.
    #[must_use]
    pub fn node_name(&self) -> String {
        let from_environment = || env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        self.node.clone().or_else(from_environment).unwrap_or_else(host)
    }
}

impl Observe {
    /// What holds for a namespace.
    #[must_use]
    pub fn policy(&self, namespace: &str) -> Policy {
        let holds = |candidate: &&Namespace| {
            let list = GlobList { include: vec![candidate.name.clone()], exclude: Vec::new() };
            // A name has no `/`: as a path it is one component. What does not compile was refused when it was read.
            glob::compile(&list, GlobStyle::Path).is_ok_and(|glob| glob::matches(&glob, namespace.as_bytes()))
        };
        self.namespaces.iter().find(holds).map_or(self.default, |found| found.policy)
    }
}

impl Policy {
    /// Which operations become events; none unless spans are told.
    #[must_use]
    pub fn events(&self) -> EventPolicy {
        let Self { level, slower, failed, sample } = *self;
        match level {
            Level::Spans => EventPolicy { every: false, slower, failed, sample },
            Level::Metrics | Level::Off => EventPolicy::default(),
        }
    }
}

impl LogLevel {
    /// As a filter of `tracing` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: None,
            cluster: None,
            observe: Observe::default(),
            spans: Spans::default(),
            otlp: Vec::new(),
            spool: None,
            metrics: Metrics::default(),
            kubernetes: Kubernetes {
                enabled: Enabled::Auto,
                kubeconfig: None,
                kubelet_root: PathBuf::from("/var/lib/kubelet"),
            },
            mounts: Mounts { socket: crate::reports::agent_socket() },
            privacy: Privacy { paths: PathPrivacy::Full, key: None },
            log: Log { level: LogLevel::Info, format: LogFormat::Text },
            drain: Duration::from_secs(10),
        }
    }
}

impl Default for Observe {
    fn default() -> Self {
        Self {
            scope: Scope::Containers,
            cgroups: Vec::new(),
            default: Policy::default(),
            namespaces: Vec::new(),
            annotations: true,
            process: GlobList::default(),
            paths: GlobList::default(),
            operations: Vec::new(),
            ring_bytes: 8 << 20,
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self { level: Level::Spans, slower: Some(Duration::from_millis(10)), failed: true, sample: None }
    }
}

impl Default for Spans {
    fn default() -> Self {
        let (window, max_open) = (Duration::from_secs(600), Duration::from_secs(60));
        Self { grouping: Grouping::Process, window, max_open }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9464))),
            max_series: 2000,
            keep_ended: Duration::from_secs(300),
            exemplars: false,
        }
    }
}

#[cfg(test)]
mod tests;
