//! `fsi observe` without its command line: a plain configuration in, what was seen out.
//!
//! Nothing is created or started before everything that can be refused has been: the command, the outputs, the probes.

mod attached;
mod command;
mod growth;
pub(crate) mod outputs;
pub(crate) mod pace;
mod processes;
pub(crate) mod scrape;
mod session;
mod signals;
mod sinks;

use std::ffi::OsString;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::Duration;

use crate::attach::Whom;
use crate::attach::client::AttachError;
use crate::probe::options::{ProbeOptions, Selection};
use crate::probe::{Probe, ProbeError};
use crate::summary::Summary;
use crate::summary::tree::Tree;
use crate::telemetry::export::ExportError;

pub use outputs::OutputError;
pub use signals::Signals;

/// Everything `observe` is told.
#[derive(Clone, Debug)]
pub struct ObserveConfig {
    pub probe: ProbeOptions,
    /// Through the agent that listens there, and of whom; the selection of the probe means nothing then.
    pub attach: Option<(PathBuf, Whom)>,
    /// Program and arguments; empty unless the selection is [`Selection::Command`].
    pub command: Vec<OsString>,
    /// How long; without it until the command ends or a signal comes.
    pub duration: Option<Duration>,
    pub tree: TreeDrawing,
    pub listing: Listing,
    pub otlp: Option<String>,
    /// How long the collector is waited for at the end.
    pub otlp_deadline: Duration,
    pub spans: Option<PathBuf>,
    pub metrics: Option<PathBuf>,
    pub metrics_listen: Option<SocketAddr>,
}

/// Whether the span tree is kept for drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeDrawing {
    Draw,
    Omit,
}

/// Whether single operations are listed in the summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    Operations,
    Nothing,
}

/// Why nothing was observed.
#[derive(Debug, thiserror::Error)]
pub enum ObserveError {
    #[error("command `{name}` was not found: {place}")]
    NotFound { name: String, place: &'static str },
    #[error("command `{name}` cannot be executed: {reason}")]
    NotExecutable { name: String, reason: &'static str },
    #[error("{0}")]
    Probe(#[from] ProbeError),
    #[error("command `{name}` could not be started: {source}")]
    Spawn { name: String, source: ProbeError },
    #[error("{0}")]
    Attach(#[from] AttachError),
    #[error("wait for the command: {0}")]
    Wait(#[source] io::Error),
    #[error("listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("{0}")]
    Output(#[from] OutputError),
    #[error("{0}")]
    Otlp(#[from] ExportError),
    #[error("process {pid} does not exist; `ps` lists those that do")]
    Gone { pid: u32 },
}

/// What became of the command.
#[derive(Debug)]
pub enum CommandEnd {
    /// There was none.
    NoCommand,
    Ended(ExitStatus),
    /// The time was over first; its exit code is still to come.
    Running(Child),
    /// A second Ctrl-C ended the wait.
    LeftBehind {
        pid: u32,
    },
}

/// What was seen.
#[derive(Debug)]
pub struct Observation {
    pub summary: Summary,
    pub tree: Option<Tree>,
    pub command: CommandEnd,
}

/// Observes, and returns when the command ended, the time is over or a signal came. To be called on the main thread. `listening` is
/// told where the metrics are served, before the command is started.
///
/// # Errors
/// Something was refused before the command was started, or the kernel side could not be read.
pub fn run(config: &ObserveConfig, listening: impl FnOnce(SocketAddr)) -> Result<Observation, ObserveError> {
    let program = command::resolve(&config.command)?;
    if let Selection::Pid(pid) = config.probe.selection
        && !processes::exists(pid)
    {
        return Err(ObserveError::Gone { pid });
    }
    outputs::check(config)?;
    let signals = Signals::listen().map_err(ObserveError::Signals)?;
    if let Some((socket, whom)) = &config.attach {
        let attached = attached::Attached::new(config, socket, whom, signals)?;
        if let Some(addr) = attached.metrics_addr() {
            listening(addr);
        }
        return Ok(attached.run());
    }
    let probe = Probe::load(&config.probe)?;
    let session = session::Session::new(config, probe, signals)?;
    if let Some(addr) = session.metrics_addr() {
        listening(addr);
    }
    session.run(program)
}
