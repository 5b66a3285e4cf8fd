//! The connection's device, for what is not a reply: numbers of backing files, and the end of the connection.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fuser::{INodeNo, Notifier};

use crate::sys::{backing, mount};

/// A descriptor of /dev/fuse, and the connection's number.
#[derive(Debug)]
pub struct Device {
    file: OwnedFd,
    /// Minor number of the mount's device: the connection's name in fusectl.
    minor: u32,
    passthrough: AtomicBool,
    /// The way to tell the kernel things; there once the session has begun.
    notifier: OnceLock<Notifier>,
}

impl Device {
    /// `passthrough`: whether the kernel may read and write backing files itself.
    #[must_use]
    pub const fn new(file: OwnedFd, minor: u32, passthrough: bool) -> Self {
        Self { file, minor, passthrough: AtomicBool::new(passthrough), notifier: OnceLock::new() }
    }

    /// The device number files of the mount have (`st_dev`); its major number is 0.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.minor
    }

    /// Whether files may be opened in passthrough.
    #[must_use]
    pub fn passthrough(&self) -> bool {
        self.passthrough.load(Ordering::Relaxed)
    }

    /// The kernel knows no passthrough (before 6.9): everything goes through the server.
    pub fn no_passthrough(&self) {
        self.passthrough.store(false, Ordering::Relaxed);
    }

    /// Registers a file for passthrough.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn register(&self, file: BorrowedFd<'_>) -> io::Result<u32> {
        backing::register(self.file.as_fd(), file)
    }

    /// Takes a number back; nobody uses it any more.
    pub fn unregister(&self, id: u32) {
        if let Err(error) = backing::unregister(self.file.as_fd(), id) {
            tracing::warn!(id, %error, "a backing file stays registered until the mount ends");
        }
    }

    /// The session has begun.
    pub fn speaks_by(&self, notifier: Notifier) {
        // There is one session.
        drop(self.notifier.set(notifier));
    }

    /// Files changed without the kernel: it forgets what it knows of them, on a thread of its own, since it may wait for requests
    /// that the calling thread has to answer.
    pub(super) fn forget_cached(&self, nodes: Vec<u64>) {
        let Some(notifier) = self.notifier.get().cloned().filter(|_| !nodes.is_empty()) else { return };
        let tell = move || {
            for node in nodes {
                if let Err(error) = notifier.inval_inode(INodeNo(node), 0, 0) {
                    tracing::debug!(node, %error, "the kernel has nothing to forget");
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("fsi-forget".into()).spawn(tell) {
            tracing::warn!(%error, "the kernel may show old content of mapped files");
        }
    }

    /// Ends the connection: every request, now and later, answers ENOTCONN or ECONNABORTED.
    pub fn abort(&self) {
        if let Err(error) = mount::abort(mount::Device { major: 0, minor: self.minor }) {
            tracing::error!(%error, "the connection could not be aborted");
        }
    }
}
