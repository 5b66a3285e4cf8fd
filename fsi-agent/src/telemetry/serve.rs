//! Metrics over HTTP. The routes:
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | the metrics, as Prometheus reads them, or as OpenMetrics when the scraper asks for it and there is any |
//! | `/healthz` | 200 or 503 and one sentence: is it alive, or is a restart in order |
//! | `/readyz` | 200 or 503 and one sentence: does it do its work |
//! | anything else | 404 |

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::time::Duration;
use std::{io, thread};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{LocalSet, spawn_local};

use super::metrics::{content_type, open_metrics};

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

/// Which text `/metrics` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Prometheus,
    OpenMetrics,
}

/// How somebody is, with a sentence that says why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Well(String),
    Unwell(String),
}

/// What the pages say; all are asked on the server's thread.
pub trait Pages {
    /// The text of `/metrics`.
    fn metrics(&self, format: Format) -> String;

    /// Whether [`Format::OpenMetrics`] may be asked for.
    fn has_open_metrics(&self) -> bool {
        false
    }

    /// Whether it is alive. Unwell: a restart is in order.
    fn health(&self) -> Condition {
        Condition::Well("ok".to_owned())
    }

    /// Whether it does its work.
    fn readiness(&self) -> Condition {
        Condition::Well("ok".to_owned())
    }
}

impl<F: Fn() -> String> Pages for F {
    fn metrics(&self, _format: Format) -> String {
        self()
    }
}

/// Serves the pages on a thread of its own. A function that returns the text of `/metrics` is pages enough.
///
/// # Errors
/// When the address cannot be listened on.
pub fn serve(addr: SocketAddr, pages: impl Pages + Send + 'static) -> Result<MetricsServer, ServeError> {
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
                    () = accept(listener, Rc::new(pages)) => {}
                    _dropped = ended => {}
                }
            };
            LocalSet::new().block_on(&runtime, connections);
        })
        .map_err(ServeError::Thread)?;
    Ok(MetricsServer { addr, _ends_when_dropped: alive })
}

#[expect(clippy::future_not_send, reason = "one thread serves all: what renders need not be shared")]
async fn accept(listener: StdListener, pages: Rc<impl Pages + 'static>) {
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
        let (slots, pages) = (Rc::clone(&slots), Rc::clone(&pages));
        spawn_local(async move {
            let service = service_fn(|request| {
                let response = answer(&request, &*pages);
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

fn answer(request: &Request<Incoming>, pages: &impl Pages) -> Response<Full<Bytes>> {
    let is_get = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, body) = match request.uri().path() {
        "/metrics" | "/healthz" | "/readyz" if !is_get => {
            (StatusCode::METHOD_NOT_ALLOWED, plain(), "only GET\n".to_owned())
        }
        "/metrics" if pages.has_open_metrics() && asks_for_open_metrics(request) => {
            (StatusCode::OK, open_metrics::CONTENT_TYPE.to_owned(), pages.metrics(Format::OpenMetrics))
        }
        "/metrics" => (StatusCode::OK, content_type(), pages.metrics(Format::Prometheus)),
        "/healthz" => condition(pages.health()),
        "/readyz" => condition(pages.readiness()),
        _ => (StatusCode::NOT_FOUND, plain(), "try /metrics, /healthz or /readyz\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    if let Ok(kind) = HeaderValue::from_str(&kind) {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    response
}

fn condition(condition: Condition) -> (StatusCode, String, String) {
    match condition {
        Condition::Well(sentence) => (StatusCode::OK, plain(), format!("{sentence}\n")),
        Condition::Unwell(sentence) => (StatusCode::SERVICE_UNAVAILABLE, plain(), format!("{sentence}\n")),
    }
}

/// Prometheus names it first when it wants it, whatever weight others have.
fn asks_for_open_metrics(request: &Request<Incoming>) -> bool {
    let accepted = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| {
        let mut parts = kind.split(';').map(str::trim);
        parts.next() == Some("application/openmetrics-text") && !parts.any(|part| part == "q=0")
    })
}

fn plain() -> String {
    "text/plain; charset=utf-8".to_owned()
}

#[cfg(test)]
mod tests;
