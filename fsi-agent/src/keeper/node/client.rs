//! A server's side of the talk with the keeper of its node, up to where it serves.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;

use super::super::mounted::{self, Mounted};
use super::super::{KeeperError, message};
use super::protocol::{Answer, Hello, Kept};
use crate::fuse::config::MountConfig;
use crate::sys::fd::Wait;
use crate::sys::mount::Unmount;

/// Longest time the keeper may take to hear, and then to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a node's keeper listens, and what a mount is called there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub socket: PathBuf,
    pub id: String,
}

/// Why a mount is not served.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("the node's keeper at {}: {source}", path.display())]
    Keeper { path: PathBuf, source: io::Error },
    #[error("the node's keeper says: {0}")]
    Refused(String),
    #[error("{0}")]
    Mount(#[from] KeeperError),
}

/// # Errors
/// When nobody listens, or so many wait before us that we are not heard in time.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    connect_within(path, PATIENCE)
}

/// The bound holds for what is sent on the socket, too.
fn connect_within(path: &Path, patience: Duration) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(socket),
        Err(Errno::AGAIN) => Err(io::Error::new(io::ErrorKind::TimedOut, "it hears nobody")),
        Err(error) => Err(error.into()),
    }
}

/// Says hello; what is answered.
pub(crate) fn greet(socket: BorrowedFd<'_>, hello: &Hello, descriptors: &[BorrowedFd<'_>]) -> io::Result<Answer> {
    set_socket_timeout(socket, Timeout::Recv, Some(PATIENCE))?;
    message::send(socket, hello, descriptors)?;
    let answer = message::receive(socket, Wait::Block)?;
    set_socket_timeout(socket, Timeout::Recv, None)?;
    answer.map(|(answer, _)| answer).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// What a keeper keeps.
///
/// # Errors
/// When it does not answer.
pub fn list(path: &Path) -> Result<Answer, ClientError> {
    said(path, None)
}

/// What a keeper says of one mount; nothing when it has none of that name.
///
/// # Errors
/// When it does not answer.
pub fn ask(path: &Path, id: &str) -> Result<Option<Kept>, ClientError> {
    match said(path, Some(id.to_owned()))? {
        Answer::Volumes { volumes, more: _ } => Ok(volumes.into_iter().next()),
        Answer::Granted | Answer::Unknown | Answer::Refused { .. } => {
            Err(ClientError::Keeper { path: path.to_owned(), source: io::ErrorKind::InvalidData.into() })
        }
    }
}

fn said(path: &Path, id: Option<String>) -> Result<Answer, ClientError> {
    let failed = |source| ClientError::Keeper { path: path.to_owned(), source };
    let socket = connect(path).map_err(failed)?;
    greet(socket.as_fd(), &Hello::List { id }, &[]).map_err(failed)
}

/// A mount that is kept and has no server: the socket on which it comes. Nothing when there is no such mount.
///
/// # Errors
/// When the keeper is away, or says no.
pub fn take(place: &Place) -> Result<Option<OwnedFd>, ClientError> {
    let failed = |source| ClientError::Keeper { path: place.socket.clone(), source };
    let socket = connect(&place.socket).map_err(failed)?;
    let hello = Hello::Take { id: place.id.clone(), layout: message::layout() };
    match greet(socket.as_fd(), &hello, &[]).map_err(failed)? {
        Answer::Granted => Ok(Some(socket)),
        Answer::Unknown => Ok(None),
        Answer::Refused { sentence } => Err(ClientError::Refused(sentence)),
        Answer::Volumes { .. } => Err(failed(io::ErrorKind::InvalidData.into())),
    }
}

/// Mounts, and gives the mount to the keeper: the socket on which it comes back to be served. What fails leaves nothing mounted.
///
/// # Errors
/// When it cannot be mounted or kept.
pub fn mount(place: &Place, mut config: MountConfig) -> Result<OwnedFd, ClientError> {
    let failed = |source| ClientError::Keeper { path: place.socket.clone(), source };
    let socket = connect(&place.socket).map_err(failed)?;
    let deadline = config.deadline;
    let peer = rustix::net::sockopt::socket_peercred(&socket).map_err(|error| failed(error.into()))?;
    config.keeper_pid = u32::try_from(peer.pid.as_raw_nonzero().get()).unwrap_or_default();
    let mounted = Mounted::new(config)?;
    let hello = Hello::New { id: place.id.clone(), layout: message::layout(), deadline };
    let answer = greet(socket.as_fd(), &hello, &mounted.given().lent()).map_err(failed);
    if let Ok(Answer::Granted) = answer {
        return Ok(socket);
    }
    // Nobody was told of it yet, so the bare directory may show.
    mounted::unmount(mounted.device(), Unmount::Detach).ok();
    mounted.close();
    match answer? {
        Answer::Refused { sentence } => Err(ClientError::Refused(sentence)),
        Answer::Granted | Answer::Unknown | Answer::Volumes { .. } => Err(failed(io::ErrorKind::InvalidData.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_hears_nobody_is_waited_for_no_longer_than_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let keeper = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        rustix::net::bind(&keeper, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&keeper, 1).unwrap();
        let mut waiting = Vec::new();
        let refused = loop {
            match connect_within(&path, Duration::from_millis(10)) {
                Ok(socket) => waiting.push(socket),
                Err(error) => break error,
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        assert!(!waiting.is_empty());
    }
}
