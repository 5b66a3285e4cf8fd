//! The gRPC service of a mount, on a thread of its own.
//!
//! Calls to the mount may block as long as a file system call does: each runs on a thread where that holds up nobody else.

use std::fmt;
use std::io;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prost::Message as _;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::generated as wire;
use super::generated::mount_server::{Mount, MountServer};
use super::incoming::Incoming;
use super::{FAULTS_PAGE_BYTES, MAX_REPLY_BYTES, MAX_REQUEST_BYTES, MAX_RULES_BYTES, MAX_SENTENCE_BYTES, convert};
use crate::fuse::control::{ControlError, Controlled, FaultPage, PowerCut, SetOutcome};

/// Calls that may be in the mount at once; more wait.
const MAX_CALLS: usize = 16;
/// Entries of the fault log in one answer, where they fit.
const MAX_FAULTS: u64 = 4096;
/// How long calls that are under way may take when the service ends.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Why the service could not start.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("listen for control: {0}")]
    Listen(#[source] io::Error),
    #[error("start the control thread: {0}")]
    Thread(#[source] io::Error),
}

/// The service while it runs; ends with this.
#[derive(Debug)]
pub struct ControlServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Answers calls that come to this listener.
///
/// # Errors
/// When the listener cannot be used, or no thread can be started.
pub fn serve(listener: UnixListener, mount: Arc<dyn Controlled>) -> Result<ControlServer, ServeError> {
    listener.set_nonblocking(true).map_err(ServeError::Listen)?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_CALLS)
        .build()
        .map_err(ServeError::Thread)?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::UnixListener::from_std(listener).map_err(ServeError::Listen)?
    };
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new()
        .name("fsi-control".into())
        .spawn(move || run(runtime, Incoming::new(listener, |_anyone| true), mount, stopped))
        .map_err(ServeError::Thread)?;
    Ok(ControlServer { stop: Some(stop), thread: Some(thread) })
}

fn run(
    runtime: Runtime,
    incoming: Incoming<impl Fn(&UnixStream) -> bool + Send + Unpin + 'static>,
    mount: Arc<dyn Controlled>,
    stopped: oneshot::Receiver<()>,
) {
    let service = MountServer::new(Service { mount })
        .max_decoding_message_size(MAX_REQUEST_BYTES)
        .max_encoding_message_size(MAX_REPLY_BYTES);
    let served = runtime.block_on(async {
        let server = Server::builder().add_service(service).serve_with_incoming(incoming);
        tokio::select! {
            served = server => served,
            // Also when the sender is gone.
            _stop = stopped => Ok(()),
        }
    });
    if let Err(error) = served {
        tracing::error!(%error, "the control service ended");
    }
    runtime.shutdown_timeout(LAST_CALLS);
}

impl ControlServer {
    /// Ends the service; the listener is closed, its socket's name stays.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the control thread panicked");
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.end();
    }
}

struct Service {
    mount: Arc<dyn Controlled>,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Asks the mount, where blocking is allowed.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Controlled) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let mount = Arc::clone(&self.mount);
        tokio::task::spawn_blocking(move || question(&*mount))
            .await
            .map_err(|error| Status::internal(format!("the server of the mount failed on this call: {error}")))
    }

    async fn try_ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Controlled) -> Result<T, ControlError> + Send + 'static,
    ) -> Result<T, Status> {
        self.ask(question).await?.map_err(|error| status(&error))
    }
}

#[tonic::async_trait]
impl Mount for Service {
    async fn show(&self, _request: Request<wire::ShowRequest>) -> Result<Response<wire::ShowReply>, Status> {
        let status = self.ask(|mount| mount.status()).await?;
        Ok(Response::new(convert::status_to_wire(status)))
    }

    async fn set(&self, request: Request<wire::SetRequest>) -> Result<Response<wire::SetReply>, Status> {
        let wire::SetRequest { rules_text } = request.into_inner();
        if rules_text.len() > MAX_RULES_BYTES {
            let sentence = format!("the rules have {} bytes, at most {MAX_RULES_BYTES} are taken", rules_text.len());
            return Err(Status::invalid_argument(sentence));
        }
        let SetOutcome { rules, out_of_reach } = self.try_ask(move |mount| mount.set(&rules_text)).await?;
        Ok(Response::new(wire::SetReply { rules, out_of_reach }))
    }

    async fn pause(&self, _request: Request<wire::PauseRequest>) -> Result<Response<wire::PauseReply>, Status> {
        self.ask(|mount| mount.pause()).await?;
        Ok(Response::new(wire::PauseReply {}))
    }

    async fn resume(&self, _request: Request<wire::ResumeRequest>) -> Result<Response<wire::ResumeReply>, Status> {
        self.ask(|mount| mount.resume()).await?;
        Ok(Response::new(wire::ResumeReply {}))
    }

    async fn clear(&self, _request: Request<wire::ClearRequest>) -> Result<Response<wire::ClearReply>, Status> {
        self.try_ask(|mount| mount.clear()).await?;
        Ok(Response::new(wire::ClearReply {}))
    }

    async fn faults(&self, request: Request<wire::FaultsRequest>) -> Result<Response<wire::FaultsReply>, Status> {
        let wire::FaultsRequest { after, limit } = request.into_inner();
        let wanted = if limit == 0 { MAX_FAULTS } else { limit.min(MAX_FAULTS) };
        let wanted = usize::try_from(wanted).unwrap_or(usize::MAX);
        let page = self.ask(move |mount| mount.faults(after, wanted)).await?;
        Ok(Response::new(faults_reply(page)))
    }

    async fn power_cut(
        &self,
        _request: Request<wire::PowerCutRequest>,
    ) -> Result<Response<wire::PowerCutReply>, Status> {
        let PowerCut { files, bytes, handles } = self.try_ask(|mount| mount.power_cut()).await?;
        Ok(Response::new(wire::PowerCutReply { files, bytes, handles }))
    }

    async fn upgrade(&self, request: Request<wire::UpgradeRequest>) -> Result<Response<wire::UpgradeReply>, Status> {
        let wire::UpgradeRequest { binary } = request.into_inner();
        let binary = (!binary.is_empty()).then(|| convert::path_from_bytes(binary));
        self.try_ask(move |mount| mount.upgrade(binary)).await?;
        Ok(Response::new(wire::UpgradeReply {}))
    }
}

/// As many entries as fit in a message, one at least.
fn faults_reply(page: FaultPage) -> wire::FaultsReply {
    let FaultPage { entries, forgotten } = page;
    let mut reply = wire::FaultsReply { entries: Vec::new(), forgotten };
    let mut bytes = 0;
    for entry in entries {
        let entry = convert::fault_to_wire(entry);
        bytes += entry.encoded_len() + 8;
        if bytes > FAULTS_PAGE_BYTES && !reply.entries.is_empty() {
            break;
        }
        reply.entries.push(entry);
    }
    reply
}

fn status(error: &ControlError) -> Status {
    match error {
        ControlError::Invalid(sentence) => Status::invalid_argument(fitting(sentence)),
        ControlError::Unavailable(sentence) => Status::failed_precondition(fitting(sentence)),
        ControlError::Failed(sentence) => Status::internal(fitting(sentence)),
    }
}

/// The beginning of a sentence that is too long for a header.
fn fitting(sentence: &str) -> String {
    if sentence.len() <= MAX_SENTENCE_BYTES {
        return sentence.to_owned();
    }
    let end = (0..=MAX_SENTENCE_BYTES).rev().find(|end| sentence.is_char_boundary(*end)).unwrap_or(0);
    format!("{}\n(and more)", &sentence[..end])
}
