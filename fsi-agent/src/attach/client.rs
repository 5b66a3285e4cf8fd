//! The watcher's end of an attachment: questions with a deadline, and a stream of spans that is read on a thread of its own.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use fsi_common::aggregate::{AggregateKey, AggregateValue};
use fsi_common::op::OpKind;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::generated as wire;
use super::generated::agent_client::AgentClient;
use super::generated::watch_message::What;
use super::wire::WireError;
use super::{MAX_MESSAGE_BYTES, Whom};
use crate::control::client::{Once, innermost};
use crate::probe::options::{EventPolicy, GlobList};
use crate::span::Span;

pub use super::generated::{Cgroup, Loss, ShowReply};

/// Longest time for an answer; the agent looks every few milliseconds.
const DEADLINE: Duration = Duration::from_secs(10);
/// Messages that wait between the thread that reads and whoever takes them.
const WAITING: usize = 16;

/// Why there is nothing to be had of an agent.
#[derive(Debug, Error)]
pub enum AttachError {
    #[error("no agent runs here: nobody listens at {}; `fsi agent` starts one", .0.display())]
    NoAgent(PathBuf),
    #[error("{}: only the agent's user and root may ask it", .0.display())]
    Forbidden(PathBuf),
    #[error("connect to the agent at {}: {source}", path.display())]
    Connect { path: PathBuf, source: io::Error },
    #[error("the agent at {} does not answer within {DEADLINE:?}", .0.display())]
    Deadline(PathBuf),
    #[error("the agent went away ({0})")]
    WentAway(String),
    /// The sentence is the agent's.
    #[error("{0}")]
    Refused(String),
    #[error("the agent's answer has {0}; use the fsi of the agent's version")]
    Strange(#[from] WireError),
    #[error("start the client: {0}")]
    Runtime(#[source] io::Error),
}

/// What is to be told one by one.
#[derive(Clone, Debug)]
pub struct Watching {
    pub whom: Whom,
    pub paths: GlobList,
    pub processes: GlobList,
    /// Empty: all.
    pub operations: Vec<OpKind>,
    pub events: EventPolicy,
}

/// What was counted so far.
#[derive(Debug)]
pub struct Numbers {
    pub aggregates: Vec<(AggregateKey, AggregateValue)>,
    pub cgroups: Vec<Cgroup>,
    pub losses: Vec<Loss>,
    pub mark: u64,
}

/// What comes from a stream.
#[derive(Debug)]
pub enum Told {
    Spans(Vec<Arc<Span>>),
    /// Everything in the numbers with this mark has been told.
    Mark(u64),
}

/// A connection for questions. Not for use on a thread of an async runtime: calls block.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    runtime: Runtime,
    agent: AgentClient<Channel>,
}

/// A stream of what happens. It ends when this is dropped.
#[derive(Debug)]
pub struct Stream {
    pub watch: u64,
    /// Cgroups that it was about when it began.
    pub cgroups: u64,
    messages: Receiver<Result<wire::WatchMessage, AttachError>>,
    dropped: u64,
}

impl Client {
    /// # Errors
    /// When nobody answers there.
    pub fn connect(path: &Path) -> Result<Self, AttachError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(AttachError::Runtime)?;
        let agent = runtime.block_on(within(path, open(path)))?;
        Ok(Self { path: path.to_owned(), runtime, agent })
    }

    /// How the agent is doing.
    ///
    /// # Errors
    /// As [`AttachError`] says; so do all calls.
    pub fn show(&mut self) -> Result<ShowReply, AttachError> {
        let Self { path, runtime, agent } = self;
        let asked = async { agent.show(wire::ShowRequest {}).await.map_err(|status| answered(&status)) };
        runtime.block_on(within(path, asked)).map(tonic::Response::into_inner)
    }

    /// What was counted so far; the stream with that number (0: none) is marked.
    ///
    /// # Errors
    /// When the agent is not reached, or cannot.
    pub fn numbers(&mut self, whom: &Whom, watch: u64) -> Result<Numbers, AttachError> {
        let Self { path, runtime, agent } = self;
        let request = wire::NumbersRequest { whom: Some(super::wire::whom_to_wire(whom)), watch };
        let asked = async { agent.numbers(request).await.map_err(|status| answered(&status)) };
        let reply = runtime.block_on(within(path, asked))?.into_inner();
        let wire::NumbersReply { aggregates, cgroups, losses, mark } = reply;
        let aggregates = aggregates.iter().map(super::wire::aggregate_from_wire).collect::<Result<_, _>>()?;
        Ok(Numbers { aggregates, cgroups, losses, mark })
    }
}

impl Stream {
    /// Begins to watch, on a connection of its own; when this returns everything is seen.
    ///
    /// # Errors
    /// When the agent is not reached, or refuses.
    pub fn begin(path: &Path, watching: &Watching) -> Result<Self, AttachError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(AttachError::Runtime)?;
        let (sender, messages) = bounded(WAITING);
        let (path, request) = (path.to_owned(), request(watching));
        let reading = path.clone();
        thread::Builder::new()
            .name("fsi-attached".into())
            .spawn(move || {
                if let Err(error) = runtime.block_on(read(&reading, request, &sender)) {
                    // Whoever watched may be gone.
                    drop(sender.send(Err(error)));
                }
            })
            .map_err(AttachError::Runtime)?;
        match messages.recv_timeout(DEADLINE) {
            Ok(Ok(wire::WatchMessage { what: Some(What::Started(wire::Started { watch, cgroups })), .. })) => {
                Ok(Self { watch, cgroups, messages, dropped: 0 })
            }
            Ok(Ok(_other)) => Err(WireError::Unknown("a beginning").into()),
            Ok(Err(error)) => Err(error),
            Err(_late) => Err(AttachError::Deadline(path)),
        }
    }

    /// What has come; nothing if nothing comes within that time.
    ///
    /// # Errors
    /// The agent went away, or says what cannot be understood.
    pub fn next(&mut self, patience: Duration) -> Result<Option<Told>, AttachError> {
        let Ok(message) = self.messages.recv_timeout(patience) else {
            return Ok(None);
        };
        let wire::WatchMessage { what, dropped } = message?;
        self.dropped = self.dropped.max(dropped);
        match what {
            Some(What::Spans(wire::Spans { spans })) => {
                let spans = spans.into_iter().map(|span| super::wire::span_from_wire(span).map(Arc::new));
                Ok(Some(Told::Spans(spans.collect::<Result<_, _>>()?)))
            }
            Some(What::Mark(mark)) => Ok(Some(Told::Mark(mark))),
            Some(What::Started(_)) | None => Err(WireError::Unknown("a message").into()),
        }
    }

    /// Spans that were not told because we were too slow.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn request(watching: &Watching) -> wire::WatchRequest {
    let Watching { whom, paths, processes, operations, events } = watching;
    let EventPolicy { every, slower, failed, sample } = *events;
    wire::WatchRequest {
        whom: Some(super::wire::whom_to_wire(whom)),
        paths: paths.include.clone(),
        not_paths: paths.exclude.clone(),
        processes: processes.include.clone(),
        not_processes: processes.exclude.clone(),
        operations: operations.iter().map(|op| op.name().to_owned()).collect(),
        every,
        slower_ns: slower.map(|slower| u64::try_from(slower.as_nanos()).unwrap_or(u64::MAX)),
        failed,
        sample: sample.map(std::num::NonZeroU32::get),
    }
}

/// Hands on what comes until nobody takes it. While that waits, nothing is read, and the agent's queue fills.
async fn read(
    path: &Path,
    request: wire::WatchRequest,
    sender: &Sender<Result<wire::WatchMessage, AttachError>>,
) -> Result<(), AttachError> {
    let mut agent = within(path, open(path)).await?;
    let asked = async { agent.watch(request).await.map_err(|status| answered(&status)) };
    let mut stream = within(path, asked).await?.into_inner();
    loop {
        let message = stream.message().await.map_err(|status| answered(&status))?;
        let message = message.ok_or_else(|| AttachError::WentAway("it ends".to_owned()))?;
        if sender.send(Ok(message)).is_err() {
            return Ok(());
        }
    }
}

async fn within<T>(path: &Path, work: impl Future<Output = Result<T, AttachError>>) -> Result<T, AttachError> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_elapsed| Err(AttachError::Deadline(path.to_owned())))
}

async fn open(path: &Path) -> Result<AgentClient<Channel>, AttachError> {
    let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => AttachError::NoAgent(path.to_owned()),
        ErrorKind::PermissionDenied => AttachError::Forbidden(path.to_owned()),
        _ => AttachError::Connect { path: path.to_owned(), source },
    })?;
    // The name is not used: the connection is there already.
    let channel = Endpoint::from_static("http://agent.fsi")
        .connect_with_connector(Once(Some(stream)))
        .await
        .map_err(|error| AttachError::WentAway(innermost(&error)))?;
    Ok(AgentClient::new(channel)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
        .max_decoding_message_size(MAX_MESSAGE_BYTES))
}

fn answered(status: &Status) -> AttachError {
    // A connection that breaks is told as one of several codes, with its cause; what the agent says has none.
    if std::error::Error::source(status).is_some() {
        return AttachError::WentAway(innermost(status));
    }
    let sentence = status.message().to_owned();
    if matches!(status.code(), Code::Cancelled | Code::Unknown) {
        return AttachError::WentAway(sentence);
    }
    AttachError::Refused(sentence)
}
