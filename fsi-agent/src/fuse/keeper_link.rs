//! A server's way to its keeper: descriptors that must outlive the server, and the wish to be replaced.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::keeper::message::{self, ToKeeper, ToServer};
use crate::sys::fd::Wait;

/// What a file system asks of the one who outlives it.
pub trait Keeper: Send + Sync + std::fmt::Debug {
    /// Keeps a descriptor for the servers to come, under the number of its node. It is kept once this returns.
    ///
    /// # Errors
    /// When the keeper is gone.
    fn hold(&self, node: u64, file: BorrowedFd<'_>) -> io::Result<()>;

    /// Lets it go again.
    ///
    /// # Errors
    /// When the keeper is gone.
    fn drop(&self, node: u64) -> io::Result<()>;

    /// What servers before this one gave to hold; given out once.
    fn held(&self) -> Vec<(u64, OwnedFd)>;

    /// Has another binary take over. Returns only when it cannot.
    fn upgrade(&self, binary: &Path) -> io::Error;
}

/// The keeper behind a socket.
#[derive(Debug)]
pub struct KeeperLink {
    socket: OwnedFd,
    held: Mutex<Vec<(u64, OwnedFd)>>,
    upgrading: Mutex<()>,
}

impl KeeperLink {
    #[must_use]
    pub fn new(socket: OwnedFd, held: Vec<(u64, OwnedFd)>) -> Self {
        Self { socket, held: Mutex::new(held), upgrading: Mutex::new(()) }
    }

    /// Says that requests are answered from now on.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn ready(&self) -> io::Result<()> {
        message::send(self.socket.as_fd(), &ToKeeper::Ready, &[])
    }

    /// Says why it ends.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn failed(&self, sentence: &str) -> io::Result<()> {
        message::send(self.socket.as_fd(), &ToKeeper::failed(sentence), &[])
    }
}

impl Keeper for KeeperLink {
    fn hold(&self, node: u64, file: BorrowedFd<'_>) -> io::Result<()> {
        message::send(self.socket.as_fd(), &ToKeeper::Hold { node }, &[file])
    }

    fn drop(&self, node: u64) -> io::Result<()> {
        message::send(self.socket.as_fd(), &ToKeeper::Drop { node }, &[])
    }

    fn held(&self) -> Vec<(u64, OwnedFd)> {
        std::mem::take(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn upgrade(&self, binary: &Path) -> io::Error {
        let _one_at_a_time = self.upgrading.lock().unwrap_or_else(PoisonError::into_inner);
        let wish = ToKeeper::Upgrade { binary: binary.to_owned().into() };
        if let Err(error) = message::send(self.socket.as_fd(), &wish, &[]) {
            return error;
        }
        match message::receive::<ToServer>(self.socket.as_fd(), Wait::Block) {
            Ok(Some((ToServer::UpgradeRefused { sentence }, _))) => io::Error::other(sentence),
            Ok(Some((ToServer::Start { .. } | ToServer::Held { .. }, _))) => io::ErrorKind::InvalidData.into(),
            Ok(None) => io::Error::other("the keeper is gone"),
            Err(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;

    #[test]
    fn what_is_held_is_given_out_once() {
        let (server, keeper) = fd::pair().unwrap();
        let link = KeeperLink::new(server, vec![(9, tempfile::tempfile().unwrap().into())]);
        assert_eq!(link.held().len(), 1);
        assert!(link.held().is_empty());
        drop(keeper);
        assert!(Keeper::drop(&link, 9).is_err());
    }

    #[test]
    fn a_refused_upgrade_says_why() {
        let (server, keeper) = fd::pair().unwrap();
        let link = KeeperLink::new(server, Vec::new());
        let refusal = ToServer::UpgradeRefused { sentence: "too old".to_owned() };
        message::send(keeper.as_fd(), &refusal, &[]).unwrap();
        assert_eq!(link.upgrade(Path::new("/new")).to_string(), "too old");
        let (wish, _) = message::receive::<ToKeeper>(keeper.as_fd(), Wait::Never).unwrap().unwrap();
        assert_eq!(wish, ToKeeper::Upgrade { binary: Path::new("/new").to_owned().into() });
    }
}
