//! The gRPC service of the agent, on a thread of its own: checks what is asked, has the busy thread answer, and passes on what it tells.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use crossbeam_channel::Sender;
use fsi_common::op::OpKind;
use fsi_common::probe_config::{EVENTS_EVERY, EVENTS_FAILED, EVENTS_SAMPLED, EVENTS_SLOW, Policy};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::generated as wire;
use super::generated::agent_server::{Agent, AgentServer};
use super::generated::watch_message::What;
use super::queue::{self, Inlet, Item, Outlet, QUEUE};
use super::target::{Target, Wish};
use super::{MAX_MESSAGE_BYTES, Whom};
use crate::attribution::Attribution;
use crate::control::incoming::Incoming;
use crate::probe::options::GlobList;
use crate::reports::{Claim, ListenError, bind, is_trusted};
use crate::selection::glob::{self, GlobStyle};

/// Spans in one message.
const BATCH: usize = 256;

/// What the busy thread is asked. An answer that is dropped says that it could not be had.
#[derive(Debug)]
pub(crate) enum Ask {
    Show(oneshot::Sender<wire::ShowReply>),
    Numbers {
        target: Target,
        /// The stream to mark; 0: none.
        watch: u64,
        answer: oneshot::Sender<wire::NumbersReply>,
    },
    Watch {
        wish: Wish,
        inlet: Inlet,
        /// Whether there was room for one more.
        answer: oneshot::Sender<bool>,
    },
}

/// Listens while it lives.
#[derive(Debug)]
pub(crate) struct AttachServer {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    claim: Claim,
}

struct Service {
    asks: Sender<Ask>,
    attribution: Arc<Attribution>,
}

impl AttachServer {
    /// Listens at this path; what is asked goes to `asks`.
    pub(crate) fn listen(path: &Path, asks: Sender<Ask>, attribution: Arc<Attribution>) -> Result<Self, ListenError> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(ListenError::Thread)?;
        let (claim, listener) = bind(path)?;
        let listener = {
            let _entered = runtime.enter();
            UnixListener::from_std(listener)
        };
        let listener = listener.map_err(|source| ListenError::Socket { path: path.to_owned(), source })?;
        let (stop, stopped) = oneshot::channel();
        let service = Service { asks, attribution };
        let thread = thread::Builder::new()
            .name("fsi-attach".into())
            .spawn(move || run(runtime, listener, service, stopped))
            .map_err(ListenError::Thread)?;
        Ok(Self { stop: Some(stop), thread: Some(thread), claim })
    }
}

impl Drop for AttachServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that answers those who watch panicked");
        }
        self.claim.give_up();
    }
}

fn run(runtime: Runtime, listener: UnixListener, service: Service, stopped: oneshot::Receiver<()>) {
    let service = AgentServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let served = runtime.block_on(async {
        tokio::select! {
            served = Server::builder().add_service(service).serve_with_incoming(Incoming::new(listener, admits)) => served,
            // Also when the sender is gone.
            _stop = stopped => Ok(()),
        }
    });
    if let Err(error) = served {
        tracing::error!(%error, "nobody can attach any more");
    }
    runtime.shutdown_background();
}

/// Root and the agent's own user may ask.
fn admits(peer: &UnixStream) -> bool {
    peer.peer_cred().is_ok_and(|who| is_trusted(who.uid()))
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

impl Service {
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask + Send) -> Result<T, Status> {
        let (answer, answered) = oneshot::channel();
        if self.asks.try_send(ask(answer)).is_err() {
            return Err(Status::unavailable("the agent is busy with other questions, or ends"));
        }
        answered.await.map_err(|_dropped| Status::internal("the agent could not answer; its log says why"))
    }

    fn target(&self, whom: &Whom) -> Result<Target, Status> {
        let target = Target::of(whom, self.attribution.hierarchy()).map_err(invalid)?;
        if let Whom::Cgroups { containers, .. } = whom {
            let cgroups = self.attribution.cgroups();
            let is_there = |id: &&String| {
                let has = |(_, identity): &(u64, Arc<crate::attribution::identity::Identity>)| {
                    identity.container_id.as_ref().is_some_and(|found| found.starts_with(id.as_str()))
                };
                cgroups.iter().any(has)
            };
            if let Some(id) = containers.iter().find(|id| !is_there(id)) {
                return Err(Status::not_found(format!("the agent knows no container whose id begins with `{id}`")));
            }
        }
        Ok(target)
    }

    fn wish(&self, request: wire::WatchRequest) -> Result<Wish, Status> {
        let wire::WatchRequest {
            whom,
            paths,
            not_paths,
            processes,
            not_processes,
            operations,
            every,
            slower_ns,
            failed,
            sample,
        } = request;
        let whom = super::wire::whom_from_wire(whom).map_err(invalid)?;
        let globs = |include: Vec<String>, exclude: Vec<String>, style| {
            let list = GlobList { include, exclude };
            let is_any = list.include.is_empty() && list.exclude.is_empty();
            if is_any { Ok(None) } else { glob::compile(&list, style).map(Some).map_err(invalid) }
        };
        let operation =
            |name: &String| OpKind::from_name(name).ok_or_else(|| invalid(format!("no operation `{name}`")));
        let flag = |condition: bool, bit: u32| if condition { bit } else { 0 };
        Ok(Wish {
            target: self.target(&whom)?,
            whom: whom.words(),
            policy: Policy {
                events: flag(every, EVENTS_EVERY)
                    | flag(slower_ns.is_some(), EVENTS_SLOW)
                    | flag(failed, EVENTS_FAILED)
                    | flag(sample.is_some(), EVENTS_SAMPLED),
                sample_every: sample.unwrap_or(0),
                slower_ns: slower_ns.unwrap_or(u64::MAX),
            },
            paths: globs(paths, not_paths, GlobStyle::Path)?,
            processes: globs(processes, not_processes, GlobStyle::Name)?,
            operations: operations.iter().map(operation).collect::<Result<_, _>>()?,
        })
    }
}

#[tonic::async_trait]
impl Agent for Service {
    type WatchStream = BoxStream<'static, Result<wire::WatchMessage, Status>>;

    async fn show(&self, _request: Request<wire::ShowRequest>) -> Result<Response<wire::ShowReply>, Status> {
        self.ask(Ask::Show).await.map(Response::new)
    }

    async fn numbers(&self, request: Request<wire::NumbersRequest>) -> Result<Response<wire::NumbersReply>, Status> {
        let wire::NumbersRequest { whom, watch } = request.into_inner();
        let target = self.target(&super::wire::whom_from_wire(whom).map_err(invalid)?)?;
        self.ask(|answer| Ask::Numbers { target, watch, answer }).await.map(Response::new)
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let wish = self.wish(request.into_inner())?;
        let (inlet, outlet) = queue::queue(QUEUE);
        if !self.ask(|answer| Ask::Watch { wish, inlet, answer }).await? {
            return Err(Status::resource_exhausted(format!("{} watch already", super::MAX_WATCHERS)));
        }
        Ok(Response::new(messages(outlet).boxed()))
    }
}

/// What is in the queue, many spans to a message; as fast as the watcher takes them.
fn messages(outlet: Outlet) -> impl stream::Stream<Item = Result<wire::WatchMessage, Status>> {
    let state = (outlet, Vec::<Item>::new());
    stream::unfold(state, |(mut outlet, mut items)| async move {
        if items.is_empty() && outlet.items.recv_many(&mut items, BATCH).await == 0 {
            return None;
        }
        let what = message(&mut items);
        let dropped = outlet.dropped.load(Ordering::Relaxed);
        Some((Ok(wire::WatchMessage { what: Some(what), dropped }), (outlet, items)))
    })
}

/// The spans at the front, or the one other item there.
fn message(items: &mut Vec<Item>) -> What {
    let is_span = |item: &Item| matches!(item, Item::Span(_));
    let spans = items.iter().take_while(|item| is_span(item)).count();
    let mut front = items.drain(..spans.max(1));
    match front.next() {
        Some(Item::Started { watch, cgroups }) => What::Started(wire::Started { watch, cgroups }),
        Some(Item::Mark(mark)) => What::Mark(mark),
        Some(Item::Span(first)) => {
            let rest = front.filter_map(|item| if let Item::Span(span) = item { Some(span) } else { None });
            let spans = [first].into_iter().chain(rest).map(|span| super::wire::span_to_wire(&span)).collect();
            What::Spans(wire::Spans { spans })
        }
        None => What::Spans(wire::Spans::default()),
    }
}
