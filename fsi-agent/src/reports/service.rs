//! The gRPC service that mounts talk to: checks what they say, hands it on in order, and holds them up while nobody takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

use super::generated::report_message::What;
use super::generated::reports_server::{Reports, ReportsServer};
use super::generated::{Batch, Hello, ReportMessage, Taken};
use super::known::{Hearing, Known, Refusal};
use super::wire::{self, WireError};
use super::{Counters, FromMount, Gone, Lost, MAX_BATCH, MAX_MESSAGE_BYTES};
use crate::control::incoming::Incoming;

/// Between two looks at a channel that is full.
const FULL_PAUSE: Duration = Duration::from_millis(2);
/// How long a server waits for the one before it to be heard to its end.
const BUSY: Duration = Duration::from_millis(500);
const BUSY_PAUSE: Duration = Duration::from_millis(5);

#[derive(Clone, Debug)]
pub(super) struct Service {
    sender: Sender<FromMount>,
    counters: Arc<Counters>,
    known: Arc<Known>,
}

pub(super) fn run(runtime: Runtime, listener: UnixListener, service: Service, stopped: oneshot::Receiver<()>) {
    let counters = Arc::clone(&service.counters);
    let incoming = Incoming::new(listener, move |peer| admits(peer, &counters));
    let service = ReportsServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let served = runtime.block_on(async {
        tokio::select! {
            served = Server::builder().add_service(service).serve_with_incoming(incoming) => served,
            // Also when the sender is gone.
            _stop = stopped => Ok(()),
        }
    });
    if let Err(error) = served {
        tracing::error!(%error, "mounts are not listened to any more");
    }
    runtime.shutdown_background();
}

/// Root and the agent's own user may talk.
fn admits(peer: &UnixStream, counters: &Counters) -> bool {
    match peer.peer_cred() {
        Ok(who) if super::is_trusted(who.uid()) => return true,
        Ok(who) => {
            tracing::warn!(uid = who.uid(), pid = who.pid(), "a user who may not talk as a mount was hung up on")
        }
        Err(error) => tracing::warn!(%error, "a connection of nobody known was hung up on"),
    }
    counters.refused.fetch_add(1, Ordering::Relaxed);
    false
}

#[tonic::async_trait]
impl Reports for Service {
    type ReportStream = ReceiverStream<Result<Taken, Status>>;

    async fn report(&self, request: Request<Streaming<ReportMessage>>) -> Result<Response<Self::ReportStream>, Status> {
        let (answers, taken) = mpsc::channel(1);
        let (service, mut messages) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            if let Err(status) = service.follow(&mut messages, &answers).await {
                if status.code() == Code::InvalidArgument {
                    service.counters.invalid.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(reason = status.message(), "a mount said what cannot be understood");
                }
                // A mount that is gone needs no answer.
                answers.send(Err(status)).await.ok();
            }
        });
        Ok(Response::new(ReceiverStream::new(taken)))
    }
}

/// Counts a mount that talks.
struct Talking<'a>(&'a AtomicU64);

impl<'a> Talking<'a> {
    fn begin(mounts: &'a AtomicU64) -> Self {
        mounts.fetch_add(1, Ordering::Relaxed);
        Self(mounts)
    }
}

impl Drop for Talking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Service {
    pub(super) fn new(sender: Sender<FromMount>, counters: Arc<Counters>) -> Self {
        Self { sender, counters, known: Arc::new(Known::default()) }
    }

    /// One stream from hello to its end.
    async fn follow(
        &self,
        messages: &mut Streaming<ReportMessage>,
        answers: &mpsc::Sender<Result<Taken, Status>>,
    ) -> Result<(), Status> {
        let Some(What::Hello(hello)) = next(messages).await? else {
            return Err(Status::invalid_argument("a mount says hello first"));
        };
        let first = hello.first_sequence;
        let hearing = self.hello(hello).await?;
        let talking = Talking::begin(&self.counters.mounts);
        let ended = self.batches(&hearing, first, messages, answers).await;
        let dev = hearing.dev();
        let why = if ended.is_ok() { Gone::Ended } else { Gone::Broken };
        // Before another server of this mount is heard.
        self.hand_on(FromMount::Gone { dev, why }).await.ok();
        match why {
            Gone::Ended => hearing.forget(),
            Gone::Broken => drop(hearing),
        }
        drop(talking);
        ended
    }

    async fn hello(&self, hello: Hello) -> Result<Hearing, Status> {
        let first = hello.first_sequence;
        let info = wire::hello_from_wire(hello).map_err(|error| invalid(&error))?;
        let until = Instant::now() + BUSY;
        let hearing = loop {
            match self.known.hear(&info, first) {
                Ok(hearing) => break hearing,
                Err(Refusal::Busy) if Instant::now() < until => tokio::time::sleep(BUSY_PAUSE).await,
                Err(Refusal::Busy) => return Err(Status::aborted("another server of this mount is being listened to")),
                Err(Refusal::TooMany) => return Err(Status::resource_exhausted("too many mounts talk")),
            }
        };
        let dev = info.dev;
        self.hand_on(FromMount::Hello(info)).await?;
        self.lost(dev, hearing.missed, Lost::Unsent).await?;
        Ok(hearing)
    }

    async fn batches(
        &self,
        hearing: &Hearing,
        first: u64,
        messages: &mut Streaming<ReportMessage>,
        answers: &mpsc::Sender<Result<Taken, Status>>,
    ) -> Result<(), Status> {
        let mut expected = first;
        loop {
            // The answer to the hello, then to each batch.
            if answers.send(Ok(Taken { next_sequence: expected })).await.is_err() {
                return Err(Status::cancelled("the mount went away"));
            }
            match next(messages).await? {
                Some(What::Batch(batch)) => expected = self.batch(hearing.dev(), expected, batch).await?,
                Some(What::Hello(_)) => return Err(Status::invalid_argument("a mount says hello once")),
                None => return Ok(()),
            }
            hearing.heard(expected);
        }
    }

    /// Hands a batch on, all or nothing; says which number comes next.
    async fn batch(&self, dev: u32, expected: u64, batch: Batch) -> Result<u64, Status> {
        let Batch { first_sequence, next_sequence, reports } = batch;
        let received = reports.len() as u64;
        let lost = next_sequence.checked_sub(first_sequence).and_then(|numbers| numbers.checked_sub(received));
        let Some(lost) = lost.filter(|_lost| first_sequence == expected && reports.len() <= MAX_BATCH) else {
            let sentence = format!(
                "a batch of {received} reports from {first_sequence} to before {next_sequence}, expected from {expected} and at most {MAX_BATCH}"
            );
            return Err(Status::invalid_argument(sentence));
        };
        let operations = reports.into_iter().map(|report| wire::report_from_wire(dev, report));
        let operations = operations.collect::<Result<Vec<_>, _>>().map_err(|error| invalid(&error))?;
        if !operations.is_empty() {
            self.hand_on(FromMount::Operations { dev, operations }).await?;
        }
        self.lost(dev, lost, Lost::QueueFull).await?;
        Ok(next_sequence)
    }

    async fn lost(&self, dev: u32, count: u64, why: Lost) -> Result<(), Status> {
        if count == 0 {
            return Ok(());
        }
        self.hand_on(FromMount::Lost { dev, count, why }).await
    }

    /// Waits for room. Nobody else waits for that.
    async fn hand_on(&self, mut message: FromMount) -> Result<(), Status> {
        self.count(&message);
        loop {
            match self.sender.try_send(message) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Full(back)) => message = back,
                Err(TrySendError::Disconnected(_lost)) => return Err(Status::unavailable("the agent ends")),
            }
            tokio::time::sleep(FULL_PAUSE).await;
        }
    }

    fn count(&self, message: &FromMount) {
        let (counter, count) = match message {
            FromMount::Operations { operations, .. } => (&self.counters.operations, operations.len() as u64),
            FromMount::Lost { count, why: Lost::QueueFull, .. } => (&self.counters.lost_queue_full, *count),
            FromMount::Lost { count, why: Lost::Unsent, .. } => (&self.counters.lost_unsent, *count),
            FromMount::Hello(_) | FromMount::Gone { .. } => return,
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

fn invalid(error: &WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The next message. What breaks the stream is told apart from what cannot be understood: only the former has a cause of its own.
async fn next(messages: &mut Streaming<ReportMessage>) -> Result<Option<What>, Status> {
    match messages.message().await {
        Ok(None) => Ok(None),
        Ok(Some(ReportMessage { what: Some(what) })) => Ok(Some(what)),
        Ok(Some(ReportMessage { what: None })) => Err(Status::invalid_argument("a message that says nothing")),
        Err(status) => {
            let is_undecodable = matches!(status.code(), Code::Internal | Code::OutOfRange)
                && std::error::Error::source(&status).is_none();
            Err(if is_undecodable { Status::invalid_argument(status.message()) } else { status })
        }
    }
}
