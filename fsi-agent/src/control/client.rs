//! The client's side of a mount's control socket: one connection, one deadline for each call, and errors that say what to do.

use std::future::{Ready, ready};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status as Answer};

use super::convert::{self, ConvertError};
use super::generated as wire;
use super::generated::mount_client::MountClient;
use super::{MAX_HEADER_BYTES, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, MAX_RULES_BYTES};
use crate::fuse::control::{FaultPage, PowerCut, SetOutcome, Status};

/// Why a mount was not reached, or what it answered.
#[derive(Debug, Error)]
pub enum ClientError {
    #[error("there is no control socket {}: the mount was started with another FSI_RUN_DIR, or its keeper is gone", .0.display())]
    NoSocket(PathBuf),
    #[error("{}: only the user who mounted it and root may control it", .0.display())]
    Forbidden(PathBuf),
    #[error("nobody answers at {}: no server and no keeper of this mount run", .0.display())]
    NobodyListens(PathBuf),
    #[error("nobody answers at {} within {}", path.display(), humane(*.deadline))]
    Deadline { path: PathBuf, deadline: Duration },
    #[error("connect to {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    /// The server ended in the middle; its successor may answer.
    #[error("the server of the mount went away while it was asked ({0})")]
    WentAway(String),
    /// What was asked is wrong; the sentence is the server's.
    #[error("{0}")]
    Refused(String),
    /// It went wrong; the sentence is the server's.
    #[error("{0}")]
    Failed(String),
    #[error("the server of the mount does not know this request; it is of an older version ({0})")]
    Unknown(String),
    #[error("the rules have {0} bytes, at most {MAX_RULES_BYTES} are taken")]
    TooLarge(usize),
    #[error("the answer has {0}; use the fsi of the mount's version")]
    Strange(#[from] ConvertError),
    #[error("start the client: {0}")]
    Runtime(#[source] io::Error),
}

fn humane(deadline: Duration) -> String {
    format!("{deadline:?}")
}

/// A connection to a mount. Not for use on a thread of an async runtime: calls block.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    deadline: Duration,
    runtime: Runtime,
    mount: MountClient<Channel>,
}

impl Client {
    /// Connects; this and each call may take as long as the deadline.
    ///
    /// # Errors
    /// When nobody answers there.
    pub fn connect(path: &Path, deadline: Duration) -> Result<Self, ClientError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ClientError::Runtime)?;
        let mount = runtime.block_on(async {
            tokio::time::timeout(deadline, open(path))
                .await
                .map_err(|_elapsed| ClientError::Deadline { path: path.to_owned(), deadline })?
        })?;
        Ok(Self { path: path.to_owned(), deadline, runtime, mount })
    }

    /// Changes how long each call may take.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.deadline = deadline;
    }

    /// How the mount is doing.
    ///
    /// # Errors
    /// As [`ClientError`] says; so do all calls.
    pub fn show(&mut self) -> Result<Status, ClientError> {
        self.call(async |mount| mount.show(wire::ShowRequest {}).await).map(convert::status_from_wire)
    }

    /// Puts rules in force.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the mistakes; the rules before stay in force.
    pub fn set(&mut self, rules_text: String) -> Result<SetOutcome, ClientError> {
        if rules_text.len() > MAX_RULES_BYTES {
            return Err(ClientError::TooLarge(rules_text.len()));
        }
        let reply = self.call(async |mount| mount.set(wire::SetRequest { rules_text }).await)?;
        let wire::SetReply { rules, out_of_reach } = reply;
        Ok(SetOutcome { rules, out_of_reach })
    }

    /// No rule fires until `resume`.
    ///
    /// # Errors
    /// When the mount is not reached.
    pub fn pause(&mut self) -> Result<(), ClientError> {
        self.call(async |mount| mount.pause(wire::PauseRequest {}).await).map(|wire::PauseReply {}| ())
    }

    /// Rules fire again.
    ///
    /// # Errors
    /// When the mount is not reached.
    pub fn resume(&mut self) -> Result<(), ClientError> {
        self.call(async |mount| mount.resume(wire::ResumeRequest {}).await).map(|wire::ResumeReply {}| ())
    }

    /// Takes all rules away.
    ///
    /// # Errors
    /// When the mount is not reached, or cannot.
    pub fn clear(&mut self) -> Result<(), ClientError> {
        self.call(async |mount| mount.clear(wire::ClearRequest {}).await).map(|wire::ClearReply {}| ())
    }

    /// The fault log after a sequence number; as many as fit in an answer, at most `limit` (0: no limit).
    ///
    /// # Errors
    /// When the mount is not reached.
    pub fn faults(&mut self, after: u64, limit: u64) -> Result<FaultPage, ClientError> {
        let reply = self.call(async |mount| mount.faults(wire::FaultsRequest { after, limit }).await)?;
        let wire::FaultsReply { entries, forgotten } = reply;
        let entries = entries.into_iter().map(convert::fault_from_wire).collect::<Result<_, _>>()?;
        Ok(FaultPage { entries, forgotten })
    }

    /// Loses what was not synced.
    ///
    /// # Errors
    /// When the mount is not reached, or cannot.
    pub fn power_cut(&mut self) -> Result<PowerCut, ClientError> {
        let reply = self.call(async |mount| mount.power_cut(wire::PowerCutRequest {}).await)?;
        let wire::PowerCutReply { files, bytes, handles } = reply;
        Ok(PowerCut { files, bytes, handles })
    }

    /// Has another server take over, from this binary or from the one the mount was started with.
    ///
    /// # Errors
    /// When the mount is not reached, or the binary cannot take over.
    pub fn upgrade(&mut self, binary: Option<&Path>) -> Result<(), ClientError> {
        let binary = binary.map(convert::path_to_bytes).unwrap_or_default();
        self.call(async |mount| mount.upgrade(wire::UpgradeRequest { binary }).await).map(|wire::UpgradeReply {}| ())
    }

    fn call<T>(
        &mut self,
        request: impl AsyncFnOnce(&mut MountClient<Channel>) -> Result<Response<T>, Answer>,
    ) -> Result<T, ClientError> {
        let Self { path, deadline, runtime, mount } = self;
        let answer = runtime.block_on(async { tokio::time::timeout(*deadline, request(mount)).await });
        match answer {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(answer)) => Err(answered(&answer)),
            Err(_elapsed) => Err(ClientError::Deadline { path: path.clone(), deadline: *deadline }),
        }
    }
}

async fn open(path: &Path) -> Result<MountClient<Channel>, ClientError> {
    let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        ErrorKind::NotFound => ClientError::NoSocket(path.to_owned()),
        ErrorKind::PermissionDenied => ClientError::Forbidden(path.to_owned()),
        ErrorKind::ConnectionRefused => ClientError::NobodyListens(path.to_owned()),
        _ => ClientError::Connect { path: path.to_owned(), source },
    })?;
    // The name is not used: the connection is there already.
    let channel = Endpoint::from_static("http://mount.fsi")
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .connect_with_connector(Once(Some(stream)))
        .await
        .map_err(|error| ClientError::WentAway(innermost(&error)))?;
    Ok(MountClient::new(channel)
        .max_encoding_message_size(MAX_REQUEST_BYTES)
        .max_decoding_message_size(MAX_REPLY_BYTES + MAX_REQUEST_BYTES))
}

/// Gives the connection that is there, once: whether to connect again is for the caller to say.
pub(crate) struct Once(pub(crate) Option<UnixStream>);

impl Service<Uri> for Once {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        ready(self.0.take().map(TokioIo::new).ok_or_else(|| io::Error::from(ErrorKind::ConnectionReset)))
    }
}

/// The last cause: the layers above it say only that something failed.
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn answered(answer: &Answer) -> ClientError {
    let sentence = answer.message().to_owned();
    // A connection that breaks is told as one of several codes, with its cause; what a server says has none.
    if std::error::Error::source(answer).is_some() {
        return ClientError::WentAway(innermost(answer));
    }
    match answer.code() {
        Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition => ClientError::Refused(sentence),
        Code::Unimplemented => ClientError::Unknown(sentence),
        Code::Unavailable | Code::Cancelled => ClientError::WentAway(sentence),
        Code::Ok
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss
        | Code::Unauthenticated => ClientError::Failed(sentence),
    }
}
