//! One server process as its keeper sees it.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::mounted::Mounted;
use crate::sys::fd;

/// Longest time a program may take to say what it can take over. Nobody looks after the server meanwhile.
const LAYOUT_WITHIN: Duration = Duration::from_secs(3);
/// What says more than this is no `fsi`.
const MAX_LAYOUT_BYTES: usize = 4096;

/// A program, held so that it stays the same whatever becomes of its file.
#[derive(Debug)]
pub(super) struct Program(OwnedFd);

impl Program {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.0.as_raw_fd()));
        command.arg0("fsi").arg("serve").current_dir("/");
        command
    }

    /// What it says it can take over.
    pub(super) fn layout(&self) -> io::Result<String> {
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

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) died: AsyncFd<OwnedFd>,
    pub(super) socket: AsyncFd<OwnedFd>,
    /// Since when it answers requests.
    pub(super) ready_at: Option<Instant>,
    /// Its end of the socket is open.
    pub(super) is_connected: bool,
}

impl Server {
    /// Starts one and hands it the mount. It gets a process group of its own: Ctrl-C is for the keeper.
    pub(super) fn start(program: &Program, mounted: &Mounted, patience: Duration) -> io::Result<Self> {
        let (ours, theirs) = fd::pair()?;
        set_socket_timeout(&ours, Timeout::Send, Some(patience))?;
        let mut command = program.command();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit()).process_group(0);
        let mut child = command.spawn()?;
        // The command keeps their end open; a server that dies must leave none.
        drop(command);
        let watched = watch(&child).and_then(|died| Ok((died, fd::awaited(ours)?)));
        let (died, socket) = match watched {
            Ok(watched) => watched,
            Err(error) => {
                child.kill().and_then(|()| child.wait()).ok();
                return Err(error);
            }
        };
        let mut server = Self { child, died, socket, ready_at: None, is_connected: true };
        // A server that died meanwhile is noticed as any other.
        if let Err(error) = mounted.hand_over(server.socket())
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            server.kill();
        }
        Ok(server)
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn kill(&mut self) {
        // One that is dead already needs none.
        self.child.kill().ok();
    }

    pub(super) fn reap(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

fn watch(child: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    fd::awaited(pidfd_open(pid, PidfdFlags::empty())?)
}
