//! A program that can be a server, and what it says of itself.

use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use tokio::time::Instant;

/// Longest time a program may take to say what it can take over. Nobody looks after the server meanwhile.
const LAYOUT_WITHIN: Duration = Duration::from_secs(3);
/// What says more than this is no `fsi`.
const MAX_LAYOUT_BYTES: usize = 4096;

/// A program, held so that it stays the same whatever becomes of its file.
#[derive(Debug)]
pub struct Program(OwnedFd);

impl Program {
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command.arg0("fsi").arg("serve").current_dir("/");
        command
    }

    /// Which mounts it says it can take over: those of servers that say the same. Empty when it says nothing.
    ///
    /// # Errors
    /// When it cannot be run, or says nothing in time.
    pub fn layout(&self) -> io::Result<String> {
        let mut command = self.command();
        command.arg("--layout").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let said = child.stdout.take().map_or_else(|| Ok(Vec::new()), |stdout| all_of(stdout, LAYOUT_WITHIN));
        // It has said what it had to say, or had its time.
        child.kill().and_then(|()| child.wait()).ok();
        Ok(String::from_utf8_lossy(&said?).trim().to_owned())
    }
}

/// What comes out of a pipe until its other end is closed.
fn all_of(mut pipe: ChildStdout, within: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + within;
    let mut said = Vec::new();
    while said.len() < MAX_LAYOUT_BYTES {
        let left = Timespec::try_from(end.saturating_duration_since(Instant::now())).map_err(io::Error::other)?;
        let mut polled = [PollFd::new(&pipe, PollFlags::IN)];
        if poll(&mut polled, Some(&left))? == 0 {
            let sentence = format!("it did not say within {} s what it can take over", within.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, sentence));
        }
        let mut bytes = [0; 256];
        match pipe.read(&mut bytes)? {
            0 => break,
            length => said.extend_from_slice(&bytes[..length]),
        }
    }
    Ok(said)
}
