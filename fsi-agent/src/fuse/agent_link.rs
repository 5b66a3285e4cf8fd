//! A mount's way to the agent of its node: takes reports on the threads that answer requests, tells them on a thread of its own.
//!
//! Without an agent nobody wants operations and I/O pays nothing. With one, each report gets the mount's next number and a place in a
//! bounded queue; one that finds no place is dropped, and the agent sees that its number is missing.

mod queue;
mod talk;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::runtime::Builder;

use self::queue::Queue;
use super::report::{FileReport, OpReport, Reports};
use super::state::State;
use crate::reports::MountInfo;

/// Who is told, and by whom.
#[derive(Clone, Debug)]
pub struct AgentLinkConfig {
    /// Where the agent listens, when there is one.
    pub socket: PathBuf,
    /// What the mount says of itself; `dropped` is filled in.
    pub mount: MountInfo,
}

/// What became of the reports of this server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounts {
    pub made: u64,
    /// An agent has them.
    pub taken: u64,
    /// Dropped: the queue was full.
    pub full: u64,
    /// In the queue, or on their way.
    pub waiting: u64,
}

impl LinkCounts {
    /// Lost on the way, or made when the agent had just gone.
    #[must_use]
    pub const fn unsent(&self) -> u64 {
        self.made - self.taken - self.full - self.waiting
    }
}

/// Takes a mount's reports.
#[derive(Debug)]
pub struct AgentLink {
    queue: Arc<Queue>,
    worker: Mutex<Option<JoinHandle<()>>>,
}

impl AgentLink {
    /// Starts to look for the agent.
    ///
    /// # Errors
    /// When no thread can be had.
    pub fn start(config: AgentLinkConfig, state: Arc<State>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let queue = Arc::new(Queue::new(state));
        let worker = talk::Talker::new(config, Arc::clone(&queue));
        let worker = thread::Builder::new().name("fsi-agent-link".into()).spawn(move || {
            runtime.block_on(worker.run());
            runtime.shutdown_background();
        })?;
        Ok(Self { queue, worker: Mutex::new(Some(worker)) })
    }

    /// So far.
    #[must_use]
    pub fn counts(&self) -> LinkCounts {
        self.queue.counts()
    }

    /// Tells what is still in the queue, for at most a second, and that the mount ended. What comes later is counted as lost.
    pub fn finish(&self) -> LinkCounts {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(worker) = worker {
            self.queue.end();
            if worker.join().is_err() {
                tracing::error!("the thread that talks to the agent panicked");
            }
        }
        self.counts()
    }
}

impl Reports for AgentLink {
    fn wants_operations(&self) -> bool {
        self.queue.is_wanted()
    }

    /// The kernel tells the agent of open files, also of those whose use the mount does not see.
    fn wants_files(&self) -> bool {
        false
    }

    fn operation(&self, report: OpReport) {
        self.queue.push(report);
    }

    fn file(&self, _report: FileReport) {}
}

impl Drop for AgentLink {
    fn drop(&mut self) {
        self.finish();
    }
}

#[cfg(test)]
mod tests;
