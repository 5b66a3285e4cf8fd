//! Sockets that others find by their path. One whose file vanishes is made anew, for nobody would ever come to it again.

use std::fs;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::TryStreamExt as _;
use thiserror::Error;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::Router;

use crate::authority;

/// How often it is looked whether the file is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Why there is no socket.
#[derive(Debug, Error)]
pub enum SocketError {
    #[error("endpoint `{0}` is no unix socket; write unix:///PATH")]
    Endpoint(String),
    #[error("listen at {}: {error}", path.display())]
    Listen { path: PathBuf, error: io::Error },
    #[error("{} is in the way: it is no socket", .0.display())]
    InTheWay(PathBuf),
    #[error("serve {}: {error}", path.display())]
    Serve { path: PathBuf, error: tonic::transport::Error },
}

/// The path of an endpoint as CSI writes it.
///
/// # Errors
/// When it is something else than a socket.
pub fn path(endpoint: &str) -> Result<PathBuf, SocketError> {
    let path = endpoint.strip_prefix("unix://").or_else(|| endpoint.strip_prefix("unix:")).unwrap_or(endpoint);
    if path.starts_with('/') { Ok(path.into()) } else { Err(SocketError::Endpoint(endpoint.to_owned())) }
}

/// Answers at a path until `over`; then calls under way are finished and the file goes.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(
    path: &Path,
    service: impl Fn() -> Router + Send + Sync,
    over: impl Future<Output = ()> + Clone + Send + Sync,
) -> Result<(), SocketError> {
    loop {
        let listener = listen(path)?;
        let inode = inode(path);
        let vanished = async {
            while self::inode(path) == inode {
                tokio::time::sleep(LOOK).await;
            }
        };
        let end = async {
            tokio::select! {
                () = vanished => tracing::warn!(path = %path.display(), "the socket was removed and is made anew"),
                () = over.clone() => {}
            }
        };
        let connections = UnixListenerStream::new(listener).map_ok(authority::tolerant);
        let served = service().serve_with_incoming_shutdown(connections, end).await;
        served.map_err(|error| SocketError::Serve { path: path.to_owned(), error })?;
        if self::inode(path) == inode {
            fs::remove_file(path).ok();
            return Ok(());
        }
    }
}

fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    use std::os::unix::fs::FileTypeExt as _;
    let failed = |error| SocketError::Listen { path: path.to_owned(), error };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::InTheWay(path.to_owned())),
        // Of one that was killed.
        Ok(_stale) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    UnixListener::bind(path).map_err(failed)
}

fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|metadata| metadata.ino())
}
