//! The agent's socket: one agent has it, only its own user may open it, and what a dead agent left is replaced.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// Why mounts cannot be listened to.
#[derive(Debug, Error)]
pub enum ListenError {
    #[error("another agent listens at {}: there is one for each node", .0.display())]
    Running(PathBuf),
    #[error("{} is in the way: it is no socket", .0.display())]
    NoSocket(PathBuf),
    #[error("lock {}: {source}", path.display())]
    Lock { path: PathBuf, source: io::Error },
    #[error("listen at {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("start the thread that listens to mounts: {0}")]
    Thread(#[source] io::Error),
}

/// The right to the socket. It ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Claim {
    socket: PathBuf,
    lock: Option<File>,
}

impl Claim {
    /// Takes the socket away and lets another agent have the place.
    pub(crate) fn give_up(&mut self) {
        if let Some(lock) = self.lock.take() {
            // Whoever took it away before has done what is to be done.
            fs::remove_file(&self.socket).ok();
            drop(lock);
        }
    }
}

/// The name of a file beside the socket.
fn beside(socket: &Path, ending: &str) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

pub(crate) fn bind(socket: &Path) -> Result<(Claim, UnixListener), ListenError> {
    let failed = |source| ListenError::Socket { path: socket.to_owned(), source };
    if let Some(directory) = socket.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    let lock = lock(socket)?;
    match fs::symlink_metadata(socket) {
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NoSocket(socket.to_owned())),
        // Somebody who knows nothing of the lock.
        Ok(_socket) if UnixStream::connect(socket).is_ok() => return Err(ListenError::Running(socket.to_owned())),
        Ok(_stale) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // It gets its name once nobody else may open it.
    let new = beside(socket, ".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(&new).map_err(failed)?;
    fs::set_permissions(&new, Permissions::from_mode(0o600)).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    fs::rename(&new, socket).map_err(failed)?;
    Ok((Claim { socket: socket.to_owned(), lock: Some(lock) }, listener))
}

fn lock(socket: &Path) -> Result<File, ListenError> {
    let path = beside(socket, ".lock");
    let failed = |source| ListenError::Lock { path: path.clone(), source };
    let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(ListenError::Running(socket.to_owned())),
        Err(error) => Err(failed(error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_agent_has_the_socket_and_what_a_dead_one_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/agent.sock");
        let (mut claim, listener) = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(bind(&path), Err(ListenError::Running(_))));
        // It dies: its lock goes, its socket stays.
        claim.lock = None;
        drop((claim, listener));
        assert!(path.exists());
        let (mut claim, _listener) = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        claim.give_up();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agent.sock");
        let stranger = UnixListener::bind(&path).unwrap();
        let error = bind(&path).unwrap_err();
        assert!(error.to_string().contains("another agent listens"), "{error}");
        drop(stranger);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(ListenError::NoSocket(_))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }
}
