//! The thread that tells: looks for the agent, says hello, tells one batch after the other, and begins again when the agent went away.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use super::AgentLinkConfig;
use super::queue::{Batch, Next, Queue, Stretch};
use crate::control::client::{Once, innermost};
use crate::reports::generated::report_message::What;
use crate::reports::generated::reports_client::ReportsClient;
use crate::reports::generated::{self as messages, ReportMessage, Taken};
use crate::reports::{self, MountInfo, wire};

/// From one look for the agent to the next.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long an agent may take to answer a hello.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of the mount waits for the agent.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why a stream ended before the mount.
#[derive(Debug, Error)]
enum Gone {
    #[error("connect: {0}")]
    Connect(#[source] io::Error),
    #[error("user {0}, who is not trusted, listens for mounts")]
    Stranger(u32),
    #[error("{0}")]
    Channel(String),
    #[error("{}", .0.message())]
    Status(#[source] Box<Status>),
    #[error("it does not answer")]
    Silent,
    #[error("it hung up")]
    HungUp,
    #[error("it answered out of turn")]
    Strange,
}

impl From<Status> for Gone {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

pub(super) struct Talker {
    config: AgentLinkConfig,
    queue: Arc<Queue>,
}

/// Both directions of a stream.
struct Line {
    out: mpsc::Sender<ReportMessage>,
    answers: Streaming<Taken>,
}

impl Talker {
    pub(super) fn new(config: AgentLinkConfig, queue: Arc<Queue>) -> Self {
        Self { config, queue }
    }

    pub(super) async fn run(self) {
        let last_words = async {
            self.queue.ended().await;
            sleep(LAST_WORDS).await;
        };
        tokio::select! {
            () = self.talk() => {}
            () = last_words => {}
        }
        self.queue.away();
    }

    async fn talk(&self) {
        loop {
            match self.stream().await {
                Ok(()) => return,
                // No agent runs.
                Err(Gone::Connect(error)) if is_absence(&error) => {}
                Err(error) => {
                    let counts = self.queue.counts();
                    tracing::info!(%error, ?counts, "the agent is not told of this mount");
                }
            }
            let again = sleep(LOOK_AGAIN);
            tokio::pin!(again);
            loop {
                if self.queue.has_ended() {
                    return;
                }
                tokio::select! {
                    () = &mut again => break,
                    () = self.queue.changed() => {}
                }
            }
        }
    }

    /// Tells until the mount ends.
    async fn stream(&self) -> Result<(), Gone> {
        let peer = UnixStream::connect(&self.config.socket).await.map_err(Gone::Connect)?;
        let listener = peer.peer_cred().map_err(Gone::Connect)?.uid();
        if !reports::is_trusted(listener) {
            return Err(Gone::Stranger(listener));
        }
        let (mut stretch, dropped) = self.queue.begin();
        let mount = MountInfo { dropped, ..self.config.mount.clone() };
        let hello = wire::hello_to_wire(mount, stretch.next_sequence());
        let mut line = timeout(PATIENCE, Line::open(peer, hello)).await.map_err(|_elapsed| Gone::Silent)??;
        tracing::info!(socket = %self.config.socket.display(), "the agent is told of this mount");
        self.queue.heard();
        let told = self.tell(&mut line, &mut stretch).await;
        self.queue.away();
        told?;
        // The agent ends the stream when it took everything.
        drop(line.out);
        while line.answers.message().await?.is_some() {}
        Ok(())
    }

    async fn tell(&self, line: &mut Line, stretch: &mut Stretch) -> Result<(), Gone> {
        loop {
            if stretch.is_told() {
                let next = tokio::select! {
                    next = self.queue.next(stretch) => next,
                    answer = line.answers.message() => return Err(out_of_turn(answer)),
                };
                if next == Next::End {
                    return Ok(());
                }
                self.queue.take(stretch);
            }
            let batch = stretch.batch();
            let reports = batch.reports.len();
            line.tell(batch).await?;
            self.queue.taken(reports);
        }
    }
}

impl Line {
    async fn open(peer: UnixStream, hello: messages::Hello) -> Result<Self, Gone> {
        let first = hello.first_sequence;
        // The name is not used: the connection is there already.
        let channel = Endpoint::from_static("http://agent.fsi").connect_with_connector(Once(Some(peer))).await;
        let channel = channel.map_err(|error| Gone::Channel(innermost(&error)))?;
        let (out, told) = mpsc::channel(1);
        let hello = ReportMessage { what: Some(What::Hello(hello)) };
        out.send(hello).await.map_err(|_closed| Gone::HungUp)?;
        let answers = ReportsClient::new(channel).report(ReceiverStream::new(told)).await?.into_inner();
        let mut line = Self { out, answers };
        line.taken(first).await?;
        Ok(line)
    }

    async fn tell(&mut self, batch: Batch) -> Result<(), Gone> {
        let Batch { first_sequence, next_sequence, reports } = batch;
        let reports = reports.into_iter().map(wire::report_to_wire).collect();
        let batch = messages::Batch { first_sequence, next_sequence, reports };
        // When this fails, the answer says why.
        self.out.send(ReportMessage { what: Some(What::Batch(batch)) }).await.ok();
        self.taken(next_sequence).await
    }

    async fn taken(&mut self, expected: u64) -> Result<(), Gone> {
        match self.answers.message().await? {
            Some(Taken { next_sequence }) if next_sequence == expected => Ok(()),
            Some(_other) => Err(Gone::Strange),
            None => Err(Gone::HungUp),
        }
    }
}

fn out_of_turn(answer: Result<Option<Taken>, Status>) -> Gone {
    match answer {
        Ok(Some(_unasked)) => Gone::Strange,
        Ok(None) => Gone::HungUp,
        Err(status) => status.into(),
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused)
}
