//! What keeper and server say to each other: one JSON document a packet, descriptors beside it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fuse::config::FilePath;
use crate::fuse::state::LAYOUT;
use crate::sys::fd::{self, MAX_CARRIED, Wait};

/// Counts changes of these messages, of the configuration and of what a request's record holds.
const PROTOCOL: u32 = 4;

/// Longest sentence in a message; with its quotes it stays below what a packet holds.
const MAX_SENTENCE: usize = 4096;

/// Descriptors that come with [`ToServer::Start`].
pub const DESCRIPTORS: usize = 8;

/// A mount, as a keeper and its servers have it: what comes with [`ToServer::Start`], in this order.
#[derive(Debug)]
pub struct Given<T> {
    /// /dev/fuse.
    pub connection: T,
    pub source: T,
    pub state: T,
    pub undo: T,
    /// What fakes remember.
    pub memory: T,
    /// The last faults.
    pub faults: T,
    /// Where the control socket is listened to.
    pub control: T,
    pub config: T,
}

impl<T> Given<T> {
    /// `None` when there are more or fewer.
    #[must_use]
    pub fn from_all(all: Vec<T>) -> Option<Self> {
        let [connection, source, state, undo, memory, faults, control, config] = all.try_into().ok()?;
        Some(Self { connection, source, state, undo, memory, faults, control, config })
    }

    #[must_use]
    pub const fn all(&self) -> [&T; DESCRIPTORS] {
        let Self { connection, source, state, undo, memory, faults, control, config } = self;
        [connection, source, state, undo, memory, faults, control, config]
    }
}

impl Given<OwnedFd> {
    /// The same files under other numbers.
    ///
    /// # Errors
    /// When there is no room for another descriptor.
    pub fn try_clone(&self) -> io::Result<Self> {
        let copies: Vec<_> = self.all().into_iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Self::from_all(copies).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    #[must_use]
    pub fn lent(&self) -> [BorrowedFd<'_>; DESCRIPTORS] {
        self.all().map(|descriptor| descriptor.as_fd())
    }
}

/// From the keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToServer {
    /// The first message, with what is [`Given`]. `held` descriptors follow.
    Start { held: usize },
    /// Descriptors that a server before this one gave to hold, in the order of their nodes.
    Held { nodes: Vec<u64> },
    /// The new binary cannot take over.
    UpgradeRefused { sentence: String },
}

/// From the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToKeeper {
    /// Requests are answered from now on.
    Ready,
    /// It cannot serve; it ends.
    Failed {
        sentence: String,
    },
    /// With the descriptor.
    Hold {
        node: u64,
    },
    Drop {
        node: u64,
    },
    Upgrade {
        binary: FilePath,
    },
}

impl ToKeeper {
    #[must_use]
    pub fn failed(sentence: &str) -> Self {
        Self::Failed { sentence: sentence.chars().take(MAX_SENTENCE).collect() }
    }
}

/// What `fsi serve --layout` says: servers that say the same can follow one another.
#[must_use]
pub fn layout() -> String {
    format!("fsi.serve state={LAYOUT:#x} protocol={PROTOCOL}")
}

/// # Errors
/// When the other end is gone.
pub fn send(socket: BorrowedFd<'_>, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    fd::send(socket, &serde_json::to_vec(message)?, descriptors)
}

/// Gives a mount to a server: what is [`Given`], and what servers before it gave to hold.
///
/// # Errors
/// When the server is gone.
pub(super) fn hand_over(
    socket: BorrowedFd<'_>,
    descriptors: &[BorrowedFd<'_>; DESCRIPTORS],
    held: &BTreeMap<u64, OwnedFd>,
) -> io::Result<()> {
    send(socket, &ToServer::Start { held: held.len() }, descriptors)?;
    let held: Vec<_> = held.iter().collect();
    for chunk in held.chunks(MAX_CARRIED) {
        let nodes = chunk.iter().map(|(node, _)| **node).collect();
        let files: Vec<_> = chunk.iter().map(|(_, file)| file.as_fd()).collect();
        send(socket, &ToServer::Held { nodes }, &files)?;
    }
    Ok(())
}

/// `None` when the other end is gone.
///
/// # Errors
/// When there is none (and `wait` says not to wait), or it is not understood.
pub fn receive<M: DeserializeOwned>(socket: BorrowedFd<'_>, wait: Wait) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let Some(packet) = fd::receive(socket, wait)? else { return Ok(None) };
    Ok(Some((serde_json::from_slice(&packet.bytes)?, packet.descriptors)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_arrives() {
        let (server, keeper) = fd::pair().unwrap();
        let hold = ToKeeper::Hold { node: u64::MAX };
        send(server.as_fd(), &ToKeeper::Ready, &[]).unwrap();
        send(server.as_fd(), &hold, &[server.as_fd()]).unwrap();
        drop(server);
        let (message, descriptors) = receive::<ToKeeper>(keeper.as_fd(), Wait::Never).unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (ToKeeper::Ready, 0));
        let (message, descriptors) = receive::<ToKeeper>(keeper.as_fd(), Wait::Never).unwrap().unwrap();
        assert_eq!((message, descriptors.len()), (hold, 1));
        drop(descriptors);
        assert!(receive::<ToKeeper>(keeper.as_fd(), Wait::Never).unwrap().is_none());
    }

    #[test]
    fn the_largest_messages_fit_a_packet() {
        let (server, keeper) = fd::pair().unwrap();
        send(server.as_fd(), &ToKeeper::failed(&"\u{1}".repeat(100_000)), &[]).unwrap();
        send(server.as_fd(), &ToServer::Held { nodes: vec![u64::MAX; MAX_CARRIED] }, &[]).unwrap();
        assert!(receive::<ToKeeper>(keeper.as_fd(), Wait::Never).unwrap().is_some());
    }

    #[test]
    fn nonsense_is_refused() {
        let (server, keeper) = fd::pair().unwrap();
        fd::send(server.as_fd(), b"{\"Hold\":{}}", &[]).unwrap();
        assert!(receive::<ToKeeper>(keeper.as_fd(), Wait::Never).is_err());
    }
}
