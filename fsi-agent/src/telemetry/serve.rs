//! Metrics over HTTP. The routes:
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the metrics, as Prometheus reads them |
//! | `/healthz` | `ok` |
//! | anything else | 404 |

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;
use std::{io, thread};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{LocalSet, spawn_local};

use super::metrics::content_type;

/// Connections served at once; more wait.
const MAX_CONNECTIONS: usize = 32;
/// A client that does not send its request for so long is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the server could not be started.
#[derive(Debug, Error)]
pub enum ServeError {
    #[error("listen on {addr}: {source}")]
    Bind { addr: SocketAddr, source: io::Error },
    #[error("start the metrics server's thread: {0}")]
    Thread(#[source] io::Error),
}

/// A running server; it ends when this is dropped.
#[derive(Debug)]
pub struct MetricsServer {
    addr: SocketAddr,
    _ends_when_dropped: oneshot::Sender<Infallible>,
}

impl MetricsServer {
    /// Where it listens (with the port that the system chose, if it was asked to).
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

/// Serves `/metrics` with what `render` returns, and `/healthz`, on a thread of its own. `render` is called on that thread.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(addr: SocketAddr, render: impl Fn() -> String + Send + 'static) -> Result<MetricsServer, ServeError> {
    let bound = |source| ServeError::Bind { addr, source };
    let listener = StdListener::bind(addr).map_err(bound)?;
    listener.set_nonblocking(true).map_err(bound)?;
    let addr = listener.local_addr().map_err(bound)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Thread)?;
    let (alive, ended) = oneshot::channel();
    thread::Builder::new()
        .name("fsi-metrics".into())
        .spawn(move || {
            let connections = async {
                tokio::select! {
                    () = accept(listener, Rc::new(render)) => {}
                    _dropped = ended => {}
                }
            };
            LocalSet::new().block_on(&runtime, connections);
        })
        .map_err(ServeError::Thread)?;
    Ok(MetricsServer { addr, _ends_when_dropped: alive })
}

#[expect(clippy::future_not_send, reason = "one thread serves all: what renders need not be shared")]
async fn accept(listener: StdListener, render: Rc<impl Fn() -> String + 'static>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "metrics are not served");
            return;
        }
    };
    let slots = Rc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Never closed: it is ours.
        let slot = slots.acquire().await.ok();
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: give the others time to go.
                tracing::warn!(%error, "a metrics connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if let Some(slot) = slot {
            slot.forget();
        }
        let (slots, render) = (Rc::clone(&slots), Rc::clone(&render));
        spawn_local(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &*render);
                async move { Ok::<_, Infallible>(response) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "a metrics connection ended badly");
            }
            slots.add_permits(1);
        });
    }
}

fn answer(request: &Request<Incoming>, render: impl Fn() -> String) -> Response<Full<Bytes>> {
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, content_type(), render()),
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, plain(), "ok\n".to_owned()),
        (_, "/metrics" | "/healthz") => (StatusCode::METHOD_NOT_ALLOWED, plain(), "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, plain(), "try /metrics or /healthz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(&kind) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

fn plain() -> String {
    "text/plain; charset=utf-8".to_owned()
}

#[cfg(test)]
mod tests;
