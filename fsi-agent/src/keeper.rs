//! The process that outlives a mount's servers: it holds `/dev/fuse`, the kernel's INIT and the state, and starts a server
//! whenever there is none. It serves nothing itself and keeps still, so that there is little in it that could fail.
//!
//! When it gives up, it aborts the connection: users of the mount get ENOTCONN, and the mount stays in its place, so that the
//! bare directory never shows.

pub mod check;
pub mod message;
mod mounted;
pub mod node;
pub mod program;
mod server;
pub mod users;
mod watch;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use self::mounted::Mounted;
use self::program::Program;
use self::watch::Watch;
use crate::control::target;
use crate::fuse::config::{FilePath, MountConfig};
use crate::fuse::state::StateError;
use crate::sys::mount::Device;

/// What is said on stdout once a mount answers; anything else is the sentence of a failure.
pub const READY: &str = "ready";

/// A server that served for this long belongs to no crash loop and has served somebody, whatever it died of.
const LONG_LIFE: Duration = Duration::from_secs(1);

/// Why there is no mount, or no longer one.
#[derive(Debug, Error)]
pub enum KeeperError {
    #[error("SOURCE {}: {}", .0.display(), .1)]
    Source(FilePath, #[source] io::Error),
    #[error("open /dev/fuse: {0}")]
    NoFuse(#[source] io::Error),
    #[error("mount on {}: {}", .0.display(), .1)]
    Mount(FilePath, #[source] io::Error),
    #[error("memory for the mount's state: {0}")]
    Memory(#[source] io::Error),
    #[error("{0}")]
    State(#[from] StateError),
    #[error("read the kernel's INIT: {0}")]
    Init(#[source] io::Error),
    #[error("find the mount in /proc/self/mountinfo: {0}")]
    Mounts(#[source] io::Error),
    #[error("control socket {}: {}", .0.display(), .1)]
    Control(PathBuf, #[source] io::Error),
    #[error("run a server: {0}")]
    Server(#[source] io::Error),
    #[error("the server did not start: {0}")]
    FirstServer(String),
    #[error("the mount does not answer: {0}")]
    Answer(#[source] io::Error),
    #[error("no server was ready for {} s; the mount was aborted", .0.as_secs_f64())]
    Late(Duration),
    #[error("every server dies at once, the last one because {0}; the mount was aborted")]
    CrashLoop(String),
    #[error("the mount was still in use when its time was over; it was aborted")]
    Drained,
    #[error("unmount: {0}")]
    Unmount(#[source] io::Error),
}

/// What is worth a line in a log.
#[derive(Debug)]
pub enum Note {
    /// The mount answers.
    Ready {
        config: Box<MountConfig>,
    },
    Died {
        pid: u32,
        reason: String,
    },
    NotStarted {
        error: String,
    },
    UpgradeFailed {
        reason: String,
    },
    Busy {
        error: io::Error,
    },
    AbortFailed {
        error: io::Error,
    },
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ready { config } => {
                write!(f, "{} is mounted on {}", config.source.display(), config.target.display())
            }
            Self::Died { pid, reason } => write!(f, "server {pid} ended: {reason}; another takes over"),
            Self::NotStarted { error } => {
                write!(f, "a server cannot be started: {error}; it is tried until the deadline")
            }
            Self::UpgradeFailed { reason } => {
                write!(f, "the new binary did not take over: {reason}; the old one serves on")
            }
            Self::Busy { error } => {
                write!(f, "unmount: {error}; the mount left its place and is served until nobody uses it")
            }
            Self::AbortFailed { error } => write!(f, "abort the connection: {error}"),
        }
    }
}

/// Mounts, and keeps the mount served until it is unmounted.
///
/// # Errors
/// When it cannot be mounted, or was aborted.
pub fn run(config: MountConfig, notes: &mut (dyn FnMut(Note) + Send)) -> Result<(), KeeperError> {
    crate::fuse::serve::raise_limits();
    let program = Program::open(Path::new("/proc/self/exe")).map_err(KeeperError::Server)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(KeeperError::Server)?;
    let ended = runtime.block_on(async { Watch::new(Mounted::new(config)?, program, notes)?.run().await });
    // A call that waits for a server waits no longer: the connection ended.
    runtime.shutdown_background();
    ended
}

/// Where the control socket of a mount is.
#[must_use]
pub fn socket_path(device: Device) -> PathBuf {
    target::socket_in(&target::run_directory(), device)
}
