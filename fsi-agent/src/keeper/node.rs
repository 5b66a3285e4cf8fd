//! The keeper of a node: holds what the servers of many mounts leave behind, for as long as it takes another server to come for it. It
//! mounts nothing, starts nothing and needs no privilege, so that there is little in it that could fail, and nothing that an upgrade of
//! those who mount would have to touch.
//!
//! ```text
//! new: a server brings a mount it made -> served -> its end closes: waits -> take: another server gets it
//!                                           ^         |-- unmounted meanwhile: forgotten
//!                                           |         `-- nobody came by the deadline, or none that lived: let go (ENOTCONN)
//! back: this keeper is a new one, and a server that lives brings what the one before had
//! ```

pub mod client;
pub mod protocol;
mod volume;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use thiserror::Error;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use self::protocol::{Answer, Hello, Kept, MAX_ID};
use self::volume::{End, Volume};
use super::message::{self, ToKeeper};
use crate::sys::fd::{self, Wait};

/// Mounts that are kept at a time.
const MAX_VOLUMES: usize = 4096;
/// A caller says what it wants within this.
const PATIENCE: Duration = Duration::from_secs(10);
/// And takes what it gets within this: everybody else waits for it. What it gets fits into the buffer of its socket.
const TAKES_WITHIN: Duration = Duration::from_secs(1);
/// How often a mount without a server is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often, in such looks, it is asked who waits for an answer: that reads megabytes.
const LOOKS_FOR_CALLERS: usize = 5;

/// Why there is no keeper.
#[derive(Debug, Error)]
pub enum NodeError {
    #[error("{}: another keeper listens there", .0.display())]
    Another(PathBuf),
    #[error("listen on {}: {source}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("the keeper cannot run: {0}")]
    Runtime(#[source] io::Error),
}

type Volumes = Arc<Mutex<HashMap<String, Volume>>>;

/// Keeps until SIGTERM or SIGINT. Mounts outlive that as long as their servers live.
///
/// # Errors
/// When it cannot listen.
pub fn run(path: &Path) -> Result<(), NodeError> {
    crate::fuse::serve::raise_limits();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(NodeError::Runtime)?;
    runtime.block_on(async {
        let listener = listen(path)?;
        let mut ends = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
        let [Ok(terminate), Ok(interrupt)] = &mut ends else {
            return Err(NodeError::Runtime(io::Error::other("signals cannot be listened to")));
        };
        tracing::info!(socket = %path.display(), "the keeper keeps");
        let volumes = Volumes::default();
        loop {
            tokio::select! {
                socket = accept(&listener) => match socket {
                    Ok(socket) => drop(tokio::spawn(attend(socket, Arc::clone(&volumes)))),
                    Err(error) => {
                        tracing::warn!(%error, "a server could not be heard");
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                },
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            }
        }
        tracing::info!(mounts = locked(&volumes).len(), "the keeper ends");
        Ok(())
    })
}

fn locked(volumes: &Mutex<HashMap<String, Volume>>) -> MutexGuard<'_, HashMap<String, Volume>> {
    volumes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For root alone. What a keeper that is gone left there is replaced.
fn listen(path: &Path) -> Result<AsyncFd<OwnedFd>, NodeError> {
    let failed = |source: io::Error| NodeError::Listen { path: path.to_owned(), source };
    if client::connect(path).is_ok() {
        return Err(NodeError::Another(path.to_owned()));
    }
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let bound = || -> io::Result<AsyncFd<OwnedFd>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, 128)?;
        fd::awaited(socket)
    };
    bound().map_err(failed)
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<AsyncFd<OwnedFd>> {
    let accept = |listener: &OwnedFd| Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC)?);
    let socket = listener.async_io(Interest::READABLE, accept).await?;
    set_socket_timeout(&socket, Timeout::Send, Some(TAKES_WITHIN))?;
    fd::awaited(socket)
}

async fn receive<M: serde::de::DeserializeOwned>(socket: &AsyncFd<OwnedFd>) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    socket.async_io(Interest::READABLE, |socket| message::receive(socket.as_fd(), Wait::Never)).await
}

/// One caller, to its end.
async fn attend(socket: AsyncFd<OwnedFd>, volumes: Volumes) {
    let (hello, descriptors) = match tokio::time::timeout(PATIENCE, receive::<Hello>(&socket)).await {
        Ok(Ok(Some(hello))) => hello,
        // Somebody looked whether there is a keeper.
        Ok(Ok(None)) => return,
        // Also where there is no room for the descriptors of a mount.
        Ok(Err(error)) => return tracing::warn!(%error, "a server could not be heard"),
        Err(_late) => return tracing::warn!("a server said nothing"),
    };
    let granted = match hello {
        Hello::List { id } => return answer(&socket, &list(&volumes, id.as_deref())),
        Hello::New { id, layout, deadline } => {
            enter(&volumes, &id, Volume::new(layout, deadline, descriptors), false).map(|()| id)
        }
        Hello::Back { id, layout, deadline } => {
            enter(&volumes, &id, Volume::new(layout, deadline, descriptors), true).map(|()| id)
        }
        Hello::Take { id, layout } => take(&volumes, &id, &layout).map(|()| id),
    };
    let id = match granted {
        Ok(id) => id,
        Err(refusal) => return answer(&socket, &refusal),
    };
    let serial = locked(&volumes).get(&id).map_or(0, Volume::serial);
    answer(&socket, &Answer::Granted);
    let handed = match locked(&volumes).get(&id) {
        Some(volume) if !volume.came_back() => volume.hand_over(socket.get_ref().as_fd()),
        Some(_) | None => Ok(()),
    };
    if let Err(error) = handed {
        tracing::warn!(volume = id, %error, "a server died before it had everything");
    }
    serve(&socket, &volumes, &id).await;
    drop(socket);
    wait(&volumes, &id, serial).await;
}

fn answer(socket: &AsyncFd<OwnedFd>, answer: &Answer) {
    // One that is gone needs none.
    message::send(socket.get_ref().as_fd(), answer, &[]).ok();
}

fn list(volumes: &Volumes, only: Option<&str>) -> Answer {
    let volumes = locked(volumes);
    let is_asked_for = |id: &str| only.is_none_or(|only| only == id);
    let mut all: Vec<_> = volumes
        .iter()
        .filter(|(id, volume)| is_asked_for(id) && !volume.ended())
        .map(|(id, volume)| Kept {
            id: id.clone(),
            layout: volume.layout().to_owned(),
            waits: volume.waits(),
            held: volume.held(),
        })
        .collect();
    all.sort_by(|one, other| one.id.cmp(&other.id));
    let more = all.len().saturating_sub(protocol::MAX_LISTED);
    all.truncate(protocol::MAX_LISTED);
    Answer::Volumes { volumes: all, more }
}

fn enter(volumes: &Volumes, id: &str, volume: Result<Volume, String>, comes_back: bool) -> Result<(), Answer> {
    let refused = |sentence: String| Answer::Refused { sentence };
    let mut volume = volume.map_err(refused)?;
    let mut volumes = locked(volumes);
    if id.is_empty() || id.len() > MAX_ID {
        return Err(refused(format!("an id has 1 to {MAX_ID} bytes")));
    }
    if !volumes.contains_key(id) && volumes.len() >= MAX_VOLUMES {
        return Err(refused(format!("this keeper keeps {MAX_VOLUMES} mounts already")));
    }
    if volumes.get(id).is_some_and(|known| known.is_served() || !comes_back && !known.ended()) {
        return Err(refused(format!("`{id}` is kept already")));
    }
    volume.serve(comes_back);
    tracing::info!(volume = id, comes_back, "a mount is kept");
    volumes.insert(id.to_owned(), volume);
    Ok(())
}

fn take(volumes: &Volumes, id: &str, layout: &str) -> Result<(), Answer> {
    let mut volumes = locked(volumes);
    let Some(volume) = volumes.get_mut(id) else { return Err(Answer::Unknown) };
    if volume.ended() {
        volumes.remove(id);
        return Err(Answer::Unknown);
    }
    if volume.is_served() {
        return Err(Answer::Refused { sentence: format!("`{id}` has a server") });
    }
    if volume.layout() != layout {
        let sentence = format!("`{id}` has the layout `{}`, this server `{layout}`", volume.layout());
        return Err(Answer::Refused { sentence });
    }
    volume.serve(false);
    Ok(())
}

/// Takes what a server gives to hold, until it is gone.
async fn serve(socket: &AsyncFd<OwnedFd>, volumes: &Volumes, id: &str) {
    loop {
        match receive::<ToKeeper>(socket).await {
            Ok(Some((message, descriptors))) => {
                let mut volumes = locked(volumes);
                let Some(volume) = volumes.get_mut(id) else { return };
                match message {
                    ToKeeper::Ready => volume.ready(),
                    ToKeeper::Failed { sentence } => tracing::error!(volume = id, "a server cannot serve: {sentence}"),
                    ToKeeper::Hold { node } => {
                        let is_held = descriptors.into_iter().next().is_some_and(|file| volume.hold(node, file));
                        if !is_held {
                            tracing::error!(
                                volume = id,
                                node,
                                "a file without a name is not held: the next server will not have it"
                            );
                        }
                    }
                    ToKeeper::Drop { node } => volume.drop(node),
                    // A server knows that this keeper starts none.
                    ToKeeper::Upgrade { binary: _ } => {}
                }
            }
            Ok(None) => return,
            Err(error) => {
                tracing::error!(volume = id, %error, "a server speaks another language; another may not");
                return;
            }
        }
    }
}

/// Until another server has it, or nobody wants it any more.
async fn wait(volumes: &Volumes, id: &str, serial: u64) {
    match locked(volumes).get_mut(id) {
        Some(volume) if volume.serial() == serial => {
            volume.left();
            if volume.is_news_that_not_understood() {
                tracing::warn!(
                    volume = id,
                    layout = volume.layout(),
                    "callers that are killed wait for the next server: this keeper is of another layout and cannot let them go"
                );
            }
        }
        Some(_) | None => return,
    }
    for look in 0_usize.. {
        {
            let mut volumes = locked(volumes);
            let Some(volume) = volumes.get(id).filter(|volume| volume.serial() == serial) else { return };
            if let Some(end) = volume.end() {
                match end {
                    End::Unmounted => tracing::info!(volume = id, "a mount is over"),
                    End::Late => tracing::error!(
                        volume = id,
                        "no server came for a mount in time; it is let go, and answers ENOTCONN"
                    ),
                }
                volumes.remove(id);
                return;
            }
            if look.is_multiple_of(LOOKS_FOR_CALLERS) {
                match volume.let_go_killed() {
                    Ok(0) => {}
                    Ok(callers) => tracing::info!(volume = id, callers, "callers that were killed are let go"),
                    Err(error) => tracing::warn!(volume = id, %error, "callers that were killed are not let go"),
                }
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
