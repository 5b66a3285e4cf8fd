//! The agent of a node: watches the selected containers, takes what every mount of ours on the node reports, joins the two, and tells it as
//! metrics and spans, for months.
//!
//! ```text
//! probes (ring, numbers) --.
//! mounts (agent.sock) -----+--> watch: one thread, the pipeline --> outputs: one thread per collector
//! attribution (cgroups, ---'                                    |-> /metrics, /healthz, /readyz
//!   mounts, Kubernetes)                                           `-> those who attach: one thread for all
//! ```
//! Everything that can be refused is refused before a probe is loaded. A crash leaves nothing loaded: the kernel frees what it held.

mod attached;
mod before;
mod chores;
mod cost;
mod mounts;
mod names;
mod outputs;
mod pages;
mod policies;
mod raise;
mod start;
mod taps;
mod watch;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::attribution::StartError;
use crate::config::{Config, ConfigError};
use crate::probe::ProbeError;
use crate::reports::ListenError;
use crate::telemetry::export::ExportError;
use crate::telemetry::privacy::PrivacyError;
use crate::telemetry::serve::ServeError;

/// Why the agent does not run.
#[derive(Debug, Error)]
pub enum AgentError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{}: kubernetes.enabled is true, and {reason}", path.display())]
    Kubernetes { path: PathBuf, reason: String },
    #[error("{0}")]
    Privacy(#[from] PrivacyError),
    #[error("listen for mounts: {0}")]
    Mounts(#[from] ListenError),
    #[error("listen for those who attach: {0}")]
    Control(#[source] ListenError),
    #[error("metrics.listen: {0}")]
    Serve(#[from] ServeError),
    #[error("otlp: {0}")]
    Export(#[from] ExportError),
    #[error("attribution: {0}")]
    Attribution(#[from] StartError),
    #[error("{0}")]
    Probe(#[from] ProbeError),
    #[error("listen for signals: {0}")]
    Signals(#[source] io::Error),
}

/// Runs until SIGTERM or SIGINT, and tells what is still on its way. SIGHUP reads the configuration again.
///
/// # Errors
/// Something was refused before the first probe was loaded, or the kernel side failed.
pub fn run(path: &Path) -> Result<(), AgentError> {
    let config = Config::read(path)?;
    start::log(config.log);
    let watcher = start::watcher(path, config)?;
    watcher.run()
}
