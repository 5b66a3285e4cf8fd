//! One server process as its keeper sees it.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use super::mounted::Mounted;
use super::program::Program;
use crate::sys::fd;

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
