//! What the mounts of a node tell its agent: the service on the agent's side, and the messages both sides speak.
//!
//! ```text
//! mount: fuse::agent_link --(agent.sock: a hello, then batches; each is answered once it was taken)--> here --> bounded channel
//! ```
//! Reports of a mount are numbered. What is in no batch is told as lost, so that for each mount: made = received + lost. A channel
//! that is full holds up the mounts' streams and not their applications: a mount that waits drops, and its next batch shows how many.

mod known;
mod listen;
mod service;
pub(crate) mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

use crate::fuse::report::OpReport;
use crate::telemetry::defs;

pub use self::listen::ListenError;
pub(crate) use self::listen::{Claim, bind};

/// Reports in one batch.
pub(crate) const MAX_BATCH: usize = 512;
/// What a mount puts in one batch, by [`wire::weight`].
pub(crate) const MAX_BATCH_BYTES: usize = 1 << 20;
/// The longest message that is taken.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Where mounts look for the agent.
#[must_use]
pub fn agent_socket() -> PathBuf {
    crate::control::target::run_directory().join("agent.sock")
}

/// Whether a user may be at the other end of the agent's socket: root, or who we are.
pub(crate) fn is_trusted(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// What a mount says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountInfo {
    /// `st_dev` of its files as the kernel has it, and its two halves.
    pub dev: u32,
    pub device_major: u32,
    pub device_minor: u32,
    pub target: PathBuf,
    pub source: PathBuf,
    /// Where it has a name.
    pub volume: Option<String>,
    /// Whose the volume is; a server of an earlier version does not say.
    pub namespace: Option<String>,
    pub server_pid: u32,
    pub version: String,
    /// Servers started so far, this one included.
    pub servers: u64,
    /// Reports that no agent took since the mount was made.
    pub dropped: u64,
}

/// What comes from mounts. Of one mount: a hello, then what it tells, in the order in which it was told, and at last that it is gone.
#[derive(Clone, Debug, PartialEq)]
pub enum FromMount {
    /// A mount's server talks from now on.
    Hello(MountInfo),
    /// Never empty.
    Operations { dev: u32, operations: Vec<OpReport> },
    /// So many reports will never come.
    Lost { dev: u32, count: u64, why: Lost },
    /// Nothing more comes of this mount until the next hello.
    Gone { dev: u32, why: Gone },
}

/// Why reports were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The mount's queue was full.
    QueueFull,
    /// They were waiting in a server that was killed, or on their way when the stream broke.
    Unsent,
}

impl Lost {
    /// The `(stage, reason)` of `fsi_lost_total`.
    #[must_use]
    pub const fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::QueueFull => (defs::STAGE_REPORTS, defs::REASON_QUEUE_FULL),
            Self::Unsent => (defs::STAGE_REPORTS, defs::REASON_UNSENT),
        }
    }
}

/// Why nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The mount ended.
    Ended,
    /// Its server did, or what it said was refused; the next one may say hello.
    Broken,
}

/// What became of everything that mounts said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportsCounts {
    /// Mounts that talk now.
    pub mounts: u64,
    pub operations: u64,
    pub lost_queue_full: u64,
    pub lost_unsent: u64,
    /// Streams that ended because of what they said.
    pub invalid: u64,
    /// Connections of users who may not.
    pub refused: u64,
}

#[derive(Debug, Default)]
struct Counters {
    mounts: AtomicU64,
    operations: AtomicU64,
    lost_queue_full: AtomicU64,
    lost_unsent: AtomicU64,
    invalid: AtomicU64,
    refused: AtomicU64,
}

/// Listens to mounts while it lives.
#[derive(Debug)]
pub struct ReportsServer {
    counters: Arc<Counters>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Its lock says that this agent is the one; given up after the thread has ended.
    claim: Claim,
}

impl ReportsServer {
    /// Listens at this path. What mounts say goes to `sender`, whose bound is the bound on memory here; while it is full, mounts wait
    /// and then drop. When its other end is gone, mounts are hung up on.
    ///
    /// # Errors
    /// When another agent listens there, or the socket or the thread cannot be had.
    pub fn listen(path: &Path, sender: Sender<FromMount>) -> Result<Self, ListenError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ListenError::Thread)?;
        let (claim, listener) = bind(path)?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::UnixListener::from_std(listener)
        };
        let listener = listener.map_err(|source| ListenError::Socket { path: path.to_owned(), source })?;
        let counters = Arc::new(Counters::default());
        let service = service::Service::new(sender, Arc::clone(&counters));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("fsi-mounts".into())
            .spawn(move || service::run(runtime, listener, service, stopped))
            .map_err(ListenError::Thread)?;
        Ok(Self { counters, stop: Some(stop), thread: Some(thread), claim })
    }

    /// So far.
    #[must_use]
    pub fn counts(&self) -> ReportsCounts {
        let Counters { mounts, operations, lost_queue_full, lost_unsent, invalid, refused } = &*self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ReportsCounts {
            mounts: read(mounts),
            operations: read(operations),
            lost_queue_full: read(lost_queue_full),
            lost_unsent: read(lost_unsent),
            invalid: read(invalid),
            refused: read(refused),
        }
    }

    /// Hangs up on all mounts and takes the socket away.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        if thread.join().is_err() {
            tracing::error!("the thread that listens to mounts panicked");
        }
        self.claim.give_up();
    }
}

impl Drop for ReportsServer {
    fn drop(&mut self) {
        self.end();
    }
}

/// The messages and the service as generated from `proto/reports.proto`.
#[expect(
    unreachable_pub,
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::clone_on_ref_ptr,
    reason = "generated"
)]
pub(crate) mod generated {
    tonic::include_proto!("fsi.reports.v1");
}

#[cfg(test)]
mod tests;
