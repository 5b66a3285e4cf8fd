//! Connections to a unix socket as they come, for a gRPC server.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tonic::codegen::tokio_stream::Stream;

/// After a failed accept (no descriptor left), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An accept that fails is tried again a little later: the service goes on. Who is not admitted is hung up on.
pub(crate) struct Incoming<A> {
    listener: UnixListener,
    admits: A,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<A: Fn(&UnixStream) -> bool> Incoming<A> {
    pub(crate) fn new(listener: UnixListener, admits: A) -> Self {
        Self { listener, admits, pause: None }
    }
}

impl<A> fmt::Debug for Incoming<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl<A: Fn(&UnixStream) -> bool + Unpin> Stream for Incoming<A> {
    type Item = io::Result<UnixStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match std::task::ready!(self.listener.poll_accept(context)) {
                Ok((stream, _address)) if (self.admits)(&stream) => return Poll::Ready(Some(Ok(stream))),
                Ok(_refused) => {}
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}
