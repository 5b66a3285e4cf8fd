//! `fsi top` without its command line: who is busy with files right now, by file, process, container or operation.
//!
//! By operation and by container the kernel's own aggregates are read and subtracted; by file and by process every operation
//! crosses as an event and is summed up here, in bounded memory.

mod gather;
pub(crate) mod meter;
mod screen;
mod source;
mod table;

use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use crate::attach::Whom;
use crate::attach::client::AttachError;
use crate::clock::{Clock, monotonic_ns};
use crate::observe::Signals;
use crate::probe::ProbeError;
use crate::probe::options::{EventPolicy, ProbeOptions};
use gather::Gatherer;
pub use table::SortBy;

/// What a row stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    File,
    Process,
    Container,
    Operation,
}

impl By {
    /// The head of the first column.
    fn head(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Process => "process",
            Self::Container => "container",
            Self::Operation => "operation",
        }
    }

    /// Which events this view needs.
    #[must_use]
    pub fn events(self) -> EventPolicy {
        let every = match self {
            Self::File | Self::Process => true,
            Self::Container | Self::Operation => false,
        };
        EventPolicy { every, ..EventPolicy::default() }
    }
}

/// Everything `top` is told.
#[derive(Clone, Debug)]
pub struct TopConfig {
    pub probe: ProbeOptions,
    /// Through the agent that listens there, and of whom; the selection of the probe means nothing then.
    pub attach: Option<(PathBuf, Whom)>,
    pub by: By,
    pub sort: SortBy,
    pub interval: Duration,
    /// How long; without it until `q` or a signal.
    pub duration: Option<Duration>,
}

/// Why there is no table.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    #[error("{0}")]
    Probe(#[from] ProbeError),
    #[error("{0}")]
    Attach(#[from] AttachError),
    #[error("listen for signals: {0}")]
    Signals(#[source] io::Error),
    #[error("draw on the terminal: {0}")]
    Terminal(#[source] io::Error),
}

/// How often the ring is looked at.
const DRAIN: Duration = Duration::from_millis(4);

/// One table as text, over the whole duration (or one interval).
///
/// # Errors
/// The kernel side cannot be loaded or read.
pub fn once(config: &TopConfig) -> Result<String, TopError> {
    let signals = Signals::listen().map_err(TopError::Signals)?;
    let mut gatherer = Gatherer::new(config)?;
    let duration = config.duration.unwrap_or(config.interval);
    let start_ns = monotonic_ns();
    while Clock::since(start_ns) < duration && !signals.any() {
        gatherer.drain()?;
        thread::sleep(DRAIN);
    }
    let table = gatherer.table(config.sort)?;
    Ok(table.text().join("\n"))
}

/// The live table, until `q`, Ctrl-C, a signal or the end of the duration. The terminal is as before at return.
///
/// # Errors
/// The kernel side cannot be loaded or read, or the terminal cannot be drawn on.
pub fn live(config: &TopConfig) -> Result<(), TopError> {
    let signals = Signals::listen().map_err(TopError::Signals)?;
    let gatherer = Gatherer::new(config)?;
    screen::run(config, gatherer, &signals)
}
