//! A server's way to its keeper: descriptors that must outlive the server, and the wish to be replaced.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{Shutdown, shutdown};

use crate::keeper::message::{self, Given, ToKeeper, ToServer};
use crate::keeper::node::client::{self, Place};
use crate::keeper::node::protocol::{Answer, Hello};
use crate::sys::fd::Wait;

/// How often a keeper that is away is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a thread that answers requests waits for a keeper that reads nothing.
const HEARS_WITHIN: Duration = Duration::from_secs(1);
/// The same once it did not hear: it is asked again each time, as it may go on, and waited for no more.
const AGAIN_WITHIN: Duration = Duration::from_millis(1);

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
    /// Replaced when the keeper of the node is another one.
    socket: Mutex<Arc<OwnedFd>>,
    held: Mutex<Vec<(u64, OwnedFd)>>,
    upgrading: Mutex<()>,
    /// It did not hear what was said last.
    is_deaf: Mutex<bool>,
    /// What the next keeper of the node gets; nothing when the keeper is this mount's alone, which ends with it.
    kept: Option<Kept>,
}

/// A copy of what the keeper has.
#[derive(Debug)]
struct Kept {
    place: Place,
    deadline: Duration,
    given: Given<OwnedFd>,
    held: Mutex<BTreeMap<u64, OwnedFd>>,
}

impl KeeperLink {
    /// To a keeper of this mount's own.
    ///
    /// # Errors
    /// When this is no socket.
    pub fn new(socket: OwnedFd, held: Vec<(u64, OwnedFd)>) -> io::Result<Self> {
        set_socket_timeout(&socket, Timeout::Send, Some(HEARS_WITHIN))?;
        Ok(Self {
            socket: Mutex::new(Arc::new(socket)),
            held: Mutex::new(held),
            upgrading: Mutex::new(()),
            is_deaf: Mutex::new(false),
            kept: None,
        })
    }

    /// To the keeper of the node. When that one dies, the next gets everything from here.
    ///
    /// # Errors
    /// There is no room for another descriptor, or no thread.
    pub fn of_node(
        socket: OwnedFd,
        held: Vec<(u64, OwnedFd)>,
        given: Given<OwnedFd>,
        place: Place,
        deadline: Duration,
    ) -> io::Result<Arc<Self>> {
        let copies = held.iter().map(|(node, file)| Ok((*node, file.try_clone()?))).collect::<io::Result<_>>()?;
        let kept = Some(Kept { place, deadline, given, held: Mutex::new(copies) });
        let link = Arc::new(Self { kept, ..Self::new(socket, held)? });
        let weak = Arc::downgrade(&link);
        thread::Builder::new().name("fsi-keeper-link".to_owned()).spawn(move || look_after(&weak))?;
        Ok(link)
    }

    fn socket(&self) -> Arc<OwnedFd> {
        Arc::clone(&locked(&self.socket))
    }

    fn say(&self, message: &ToKeeper, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let socket = self.socket();
        let said = message::send(socket.as_fd(), message, descriptors);
        let Some(kept) = &self.kept else {
            self.is_heard(&socket, said.is_ok());
            return said;
        };
        // The next keeper of the node gets what this one did not: one that does not hear counts as gone.
        if let Err(error) = said
            && !matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
        {
            tracing::warn!(volume = kept.place.id, %error, "the node's keeper did not hear");
            // It may have closed its end meanwhile.
            shutdown(&*socket, Shutdown::Both).ok();
        }
        Ok(())
    }

    fn is_heard(&self, socket: &OwnedFd, heard: bool) {
        let mut is_deaf = locked(&self.is_deaf);
        if *is_deaf != heard {
            return;
        }
        *is_deaf = !heard;
        let patience = if heard { HEARS_WITHIN } else { AGAIN_WITHIN };
        if let Err(error) = set_socket_timeout(socket, Timeout::Send, Some(patience)) {
            tracing::warn!(%error, "a keeper that reads nothing holds up requests");
        }
    }

    /// Says that requests are answered from now on.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn ready(&self) -> io::Result<()> {
        self.say(&ToKeeper::Ready, &[])
    }

    /// Says why it ends.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn failed(&self, sentence: &str) -> io::Result<()> {
        self.say(&ToKeeper::failed(sentence), &[])
    }

    /// Gives everything to the keeper of the node that follows the one before.
    fn go_back(&self, kept: &Kept) -> io::Result<()> {
        let socket = client::connect(&kept.place.socket)?;
        let hello = Hello::Back { id: kept.place.id.clone(), layout: message::layout(), deadline: kept.deadline };
        match client::greet(socket.as_fd(), &hello, &kept.given.lent())? {
            Answer::Granted => {}
            Answer::Refused { sentence } => return Err(io::Error::other(sentence)),
            Answer::Unknown | Answer::Volumes { .. } => return Err(io::ErrorKind::InvalidData.into()),
        }
        set_socket_timeout(&socket, Timeout::Send, Some(HEARS_WITHIN))?;
        // Whoever holds or drops meanwhile waits, and then speaks to the new one.
        let held = locked(&kept.held);
        for (node, file) in held.iter() {
            message::send(socket.as_fd(), &ToKeeper::Hold { node: *node }, &[file.as_fd()])?;
        }
        message::send(socket.as_fd(), &ToKeeper::Ready, &[])?;
        *locked(&self.socket) = Arc::new(socket);
        drop(held);
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end of the node's keeper, and then for the next one.
fn look_after(link: &Weak<KeeperLink>) {
    while let Some(socket) = link.upgrade().map(|link| link.socket()) {
        // An end is told whatever is asked for.
        let mut polled = [PollFd::new(&*socket, PollFlags::empty())];
        if poll(&mut polled, None).is_err() || !polled[0].revents().contains(PollFlags::HUP) {
            thread::sleep(LOOK_EVERY);
            continue;
        }
        let Some(link) = link.upgrade() else { return };
        let Some(kept) = &link.kept else { return };
        tracing::warn!(
            volume = kept.place.id,
            "the node's keeper is gone; without one, nobody takes over from this server"
        );
        let mut said = None;
        while let Err(error) = link.go_back(kept) {
            if said.as_ref() != Some(&error.kind()) {
                tracing::warn!(volume = kept.place.id, %error, "there is no keeper of the node yet");
                said = Some(error.kind());
            }
            thread::sleep(LOOK_EVERY);
        }
        tracing::info!(volume = kept.place.id, "another keeper of the node has this mount");
    }
}

impl Keeper for KeeperLink {
    fn hold(&self, node: u64, file: BorrowedFd<'_>) -> io::Result<()> {
        let Some(kept) = &self.kept else { return self.say(&ToKeeper::Hold { node }, &[file]) };
        let mut held = locked(&kept.held);
        held.insert(node, file.try_clone_to_owned()?);
        self.say(&ToKeeper::Hold { node }, &[file])
    }

    fn drop(&self, node: u64) -> io::Result<()> {
        let Some(kept) = &self.kept else { return self.say(&ToKeeper::Drop { node }, &[]) };
        let mut held = locked(&kept.held);
        held.remove(&node);
        self.say(&ToKeeper::Drop { node }, &[])
    }

    fn held(&self) -> Vec<(u64, OwnedFd)> {
        std::mem::take(&mut *locked(&self.held))
    }

    fn upgrade(&self, binary: &Path) -> io::Error {
        if self.kept.is_some() {
            let sentence = "the node's keeper starts no servers: whoever started this one starts the next (kill it, and start it anew)";
            return io::Error::other(sentence);
        }
        let _one_at_a_time = locked(&self.upgrading);
        let socket = self.socket();
        let wish = ToKeeper::Upgrade { binary: binary.to_owned().into() };
        if let Err(error) = message::send(socket.as_fd(), &wish, &[]) {
            return error;
        }
        match message::receive::<ToServer>(socket.as_fd(), Wait::Block) {
            Ok(Some((ToServer::UpgradeRefused { sentence }, _))) => io::Error::other(sentence),
            Ok(Some((ToServer::Start { .. } | ToServer::Held { .. }, _))) => io::ErrorKind::InvalidData.into(),
            Ok(None) => io::Error::other("the keeper is gone"),
            Err(error) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

    use super::*;
    use crate::sys::fd;

    #[test]
    fn what_is_held_is_given_out_once() {
        let (server, keeper) = fd::pair().unwrap();
        let link = KeeperLink::new(server, vec![(9, tempfile::tempfile().unwrap().into())]).unwrap();
        assert_eq!(link.held().len(), 1);
        assert!(link.held().is_empty());
        drop(keeper);
        assert!(Keeper::drop(&link, 9).is_err());
    }

    #[test]
    fn a_refused_upgrade_says_why() {
        let (server, keeper) = fd::pair().unwrap();
        let link = KeeperLink::new(server, Vec::new()).unwrap();
        let refusal = ToServer::UpgradeRefused { sentence: "too old".to_owned() };
        message::send(keeper.as_fd(), &refusal, &[]).unwrap();
        assert_eq!(link.upgrade(Path::new("/new")).to_string(), "too old");
        let (wish, _) = message::receive::<ToKeeper>(keeper.as_fd(), Wait::Never).unwrap().unwrap();
        assert_eq!(wish, ToKeeper::Upgrade { binary: Path::new("/new").to_owned().into() });
    }

    /// Says so much that a keeper which reads nothing has no room for it; how much that was.
    fn say_too_much(link: &Arc<KeeperLink>) -> u64 {
        const MUCH: u64 = 10_000;
        let (tell, told) = mpsc::channel();
        let link = Arc::clone(link);
        thread::spawn(move || {
            let unheard = (0..MUCH).find(|node| Keeper::drop(&*link, *node).is_err()).unwrap_or(MUCH);
            tell.send(unheard).ok();
        });
        told.recv_timeout(Duration::from_secs(60)).expect("requests are not held up")
    }

    #[test]
    fn a_keeper_that_reads_nothing_holds_nobody_up() {
        let (server, keeper) = fd::pair().unwrap();
        let link = Arc::new(KeeperLink::new(server, Vec::new()).unwrap());
        assert!(say_too_much(&link) < 10_000);
        assert!(Keeper::drop(&*link, 1).is_err(), "it is still full");
        // It goes on.
        while message::receive::<ToKeeper>(keeper.as_fd(), Wait::Never).is_ok() {}
        Keeper::drop(&*link, 2).unwrap();
        assert!(!*locked(&link.is_deaf));
    }

    #[test]
    fn a_keeper_of_the_node_that_reads_nothing_counts_as_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let next = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        rustix::net::bind(&next, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&next, 8).unwrap();
        let (server, _keeper) = fd::pair().unwrap();
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let given = Given::from_all((0..message::DESCRIPTORS).map(|_| file()).collect()).unwrap();
        let place = Place { socket: path, id: "volume".to_owned() };
        let link = KeeperLink::of_node(server, vec![(70_000, file())], given, place, Duration::ZERO).unwrap();
        say_too_much(&link);
        let socket = rustix::net::accept(&next).unwrap();
        let (hello, _) = message::receive::<Hello>(socket.as_fd(), Wait::Block).unwrap().unwrap();
        assert!(matches!(hello, Hello::Back { .. }), "{hello:?}");
        message::send(socket.as_fd(), &Answer::Granted, &[]).unwrap();
        let (held, _) = message::receive::<ToKeeper>(socket.as_fd(), Wait::Block).unwrap().unwrap();
        assert_eq!(held, ToKeeper::Hold { node: 70_000 });
    }
}
