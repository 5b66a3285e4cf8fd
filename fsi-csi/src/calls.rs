//! Around each call: how long it took and how it ended, in the log and in the metrics.

use std::future::Future;

use fsi_agent::clock::{Clock, monotonic_ns};
use tonic::{Code, Response, Status};

use crate::error::CallError;
use crate::metrics::Metrics;

/// Answers a call by what comes of it.
pub(crate) async fn answer<T>(
    metrics: &Metrics,
    call: &'static str,
    volume: &str,
    work: impl Future<Output = Result<T, CallError>>,
) -> Result<Response<T>, Status> {
    let started = monotonic_ns();
    let done = work.await;
    let took = Clock::since(started);
    let code = done.as_ref().map_or_else(CallError::code, |_| Code::Ok);
    metrics.call(call, code, took);
    match done {
        Ok(reply) => {
            tracing::debug!(call, volume, ?took, "done");
            Ok(Response::new(reply))
        }
        Err(error) => {
            tracing::warn!(call, volume, ?took, ?code, %error, "not done");
            Err(error.into())
        }
    }
}
