//! What a mount's server did, as spans and metrics, when no agent runs: the taker of its reports.
//!
//! Reports go through a bounded queue to a thread of its own. A report that does not fit is counted, and nothing waits.

mod spans;
mod worker;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use thiserror::Error;

use super::report::{FileReport, OpReport, Reports};
use crate::observe::OutputError;
use crate::telemetry::export::ExportError;

pub(crate) use self::spans::SpanMaker;

/// Reports that may wait.
const MAX_QUEUED: usize = 32_768;

/// Where a mount's telemetry goes.
#[derive(Clone, Debug)]
pub struct ExportsConfig {
    /// Paths are told as below it.
    pub target: PathBuf,
    /// The volume, where it has a name.
    pub volume: Option<String>,
    /// The namespace that it is in, where there are some.
    pub namespace: Option<String>,
    /// Collector.
    pub otlp: Option<String>,
    /// How long the end may wait for the collector.
    pub otlp_deadline: Duration,
    /// OTLP/JSON lines.
    pub spans: Option<PathBuf>,
    /// Prometheus text.
    pub metrics: Option<PathBuf>,
}

/// Why nothing can be exported.
#[derive(Debug, Error)]
pub enum ExportsError {
    #[error("--otlp: {0}")]
    Otlp(#[from] ExportError),
    #[error("{0}")]
    Output(#[from] OutputError),
    #[error("start the thread of reports: {0}")]
    Thread(#[source] io::Error),
}

/// What became of everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExportsSummary {
    /// Spans made.
    pub spans: u64,
    /// Spans a collector took.
    pub exported: u64,
    /// Spans in the file.
    pub written: u64,
    /// `(stage, reason, count)`, those that did not happen included.
    pub losses: Vec<(&'static str, &'static str, u64)>,
    /// The first thing that went wrong with each output, as sentences.
    pub errors: Vec<String>,
}

/// Reports that did not get in.
#[derive(Default)]
struct Refused {
    full: AtomicU64,
    closed: AtomicU64,
    /// What the file system counts.
    mount: OnceLock<Box<dyn Fn() -> MountLosses + Send + Sync>>,
}

/// What a file system did not do as it should have.
#[derive(Clone, Copy, Debug, Default)]
pub struct MountLosses {
    /// Operations that were to wait and did not.
    pub undelayed: u64,
    /// Faults that could not be written to the log file.
    pub unlogged: u64,
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("full", &self.full).field("closed", &self.closed).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Message {
    Operation(OpReport),
    File(FileReport),
    End,
}

/// Takes a mount's reports.
#[derive(Debug)]
pub struct Exports {
    queue: Sender<Message>,
    refused: Arc<Refused>,
    /// Set once: nothing more is taken.
    ended: AtomicBool,
    worker: Mutex<Option<JoinHandle<ExportsSummary>>>,
}

impl Exports {
    /// Opens the outputs and starts the thread.
    ///
    /// # Errors
    /// When an output cannot be had.
    pub fn start(config: ExportsConfig) -> Result<Self, ExportsError> {
        let refused = Arc::new(Refused::default());
        let (queue, reports) = crossbeam_channel::bounded(MAX_QUEUED);
        let worker = worker::Worker::open(config, Arc::clone(&refused))?;
        let worker = thread::Builder::new()
            .name("fsi-reports".into())
            .spawn(move || worker.run(&reports))
            .map_err(ExportsError::Thread)?;
        Ok(Self { queue, refused, ended: AtomicBool::new(false), worker: Mutex::new(Some(worker)) })
    }

    /// Where to ask what the file system lost.
    pub fn asks_for_losses(&self, count: impl Fn() -> MountLosses + Send + Sync + 'static) {
        // There is one file system.
        drop(self.refused.mount.set(Box::new(count)));
    }

    /// Tells what is still in the queue, closes what is open and writes the metrics a last time. Blocks up to the collector's deadline.
    /// What comes later is counted as lost. Nothing the second time.
    pub fn finish(&self) -> Option<ExportsSummary> {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        self.ended.store(true, Ordering::Release);
        // Waits for room: the thread empties the queue. It fails only when the thread is gone.
        self.queue.send(Message::End).ok();
        match worker.join() {
            Ok(summary) => Some(summary),
            Err(_panic) => {
                tracing::error!("the thread of reports panicked");
                None
            }
        }
    }

    fn push(&self, message: Message) {
        if self.ended.load(Ordering::Acquire) {
            self.refused.closed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let counter = match self.queue.try_send(message) {
            Ok(()) => return,
            Err(TrySendError::Full(_lost)) => &self.refused.full,
            Err(TrySendError::Disconnected(_lost)) => &self.refused.closed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Reports for Exports {
    fn wants_operations(&self) -> bool {
        true
    }

    fn wants_files(&self) -> bool {
        true
    }

    fn operation(&self, report: OpReport) {
        self.push(Message::Operation(report));
    }

    fn file(&self, report: FileReport) {
        self.push(Message::File(report));
    }
}

impl Drop for Exports {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests;
