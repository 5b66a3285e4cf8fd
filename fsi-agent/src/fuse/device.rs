//! The connection's device, for what is not a reply: numbers of backing files, and the end of the connection.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::sys::backing;

/// A descriptor of /dev/fuse, and the connection's number.
#[derive(Debug)]
pub struct Device {
    file: OwnedFd,
    /// Minor number of the mount's device: the connection's name in fusectl.
    minor: u32,
    passthrough: AtomicBool,
}

impl Device {
    /// `passthrough`: whether the kernel may read and write backing files itself.
    #[must_use]
    pub const fn new(file: OwnedFd, minor: u32, passthrough: bool) -> Self {
        Self { file, minor, passthrough: AtomicBool::new(passthrough) }
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

    /// Ends the connection: every request, now and later, answers ENOTCONN or ECONNABORTED.
    pub fn abort(&self) {
        let path = format!("/sys/fs/fuse/connections/{}/abort", self.minor);
        if let Err(error) = std::fs::write(&path, "1") {
            tracing::error!(%path, %error, "the connection could not be aborted");
        }
    }
}
