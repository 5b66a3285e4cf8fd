//! Whether the driver does its work, for the probes of its pod: it calls itself over its own socket, as the kubelet does.
//!
//! The pages share nothing with what serves CSI but what came of the last call, so that they can tell of a driver that hangs.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fsi_agent::clock::monotonic_ns;
use fsi_agent::telemetry::serve::{Condition, Format, Pages};
use tonic::transport::Endpoint;

use crate::metrics::Metrics;
use crate::proto::csi::ProbeRequest;
use crate::proto::csi::identity_client::IdentityClient;

/// How often it calls.
const PERIOD: Duration = Duration::from_secs(2);
/// The time that one call gets.
const LIMIT: Duration = Duration::from_secs(10);
/// An answer that is older says nothing about now.
const FRESH: Duration = Duration::from_secs(30);
/// Who says nothing for so long hangs. A restart is a pause for all volumes of the node: one that is merely slow must not get here.
const SILENT: Duration = Duration::from_secs(120);

/// What the driver knows of itself.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Mutex<Seen>>);

#[derive(Clone, Debug)]
struct Seen {
    /// When there was an answer last, or it was begun to call.
    heard: Duration,
    /// Why it does not do its work.
    lacks: Option<String>,
}

/// How a call ended.
enum Answer {
    Ready,
    /// It answered that it is not.
    Unready(String),
    /// Nobody answered.
    None(String),
}

impl Pulse {
    /// Of a driver that has yet to start.
    #[must_use]
    pub fn new() -> Self {
        let lacks = Some("it is starting".to_owned());
        Self(Arc::new(Mutex::new(Seen { heard: now(), lacks })))
    }

    /// Calls the socket until it is dropped. `lacks` says what is missing at the start; once nothing is, it is not asked again.
    pub async fn beat(&self, socket: &Path, lacks: impl Fn() -> Option<String> + Send + Sync) -> Infallible {
        let mut has_started = false;
        loop {
            let answer = call(socket).await;
            let missing = || if has_started { None } else { lacks() };
            let (is_heard, lacks) = match answer {
                Answer::Ready => (true, missing()),
                Answer::Unready(why) => (true, Some(why)),
                Answer::None(why) => (false, Some(why)),
            };
            has_started |= lacks.is_none();
            {
                let mut seen = self.seen();
                seen.lacks = lacks;
                if is_heard {
                    seen.heard = now();
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Pulse {
    fn default() -> Self {
        Self::new()
    }
}

impl Seen {
    fn health(&self, now: Duration) -> Condition {
        match now.saturating_sub(self.heard) {
            silent if silent > SILENT => Condition::Unwell(format!("CSI has not answered for {} s", silent.as_secs())),
            _ => Condition::Well("ok".to_owned()),
        }
    }

    fn readiness(&self, now: Duration) -> Condition {
        match (now.saturating_sub(self.heard), &self.lacks) {
            (_, Some(why)) => Condition::Unwell(why.clone()),
            (silent, None) if silent > FRESH => {
                Condition::Unwell(format!("CSI has not answered for {} s", silent.as_secs()))
            }
            (_, None) => Condition::Well("ok".to_owned()),
        }
    }
}

fn now() -> Duration {
    Duration::from_nanos(monotonic_ns())
}

/// A new connection each time: the listener is to answer, too.
async fn call(socket: &Path) -> Answer {
    let asked = async {
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()));
        let channel = endpoint.map_err(|error| error.to_string())?.connect().await;
        let mut client = IdentityClient::new(channel.map_err(|_error| "nobody listens at the socket".to_owned())?);
        Ok::<_, String>(client.probe(ProbeRequest {}).await)
    };
    match tokio::time::timeout(LIMIT, asked).await {
        Err(_elapsed) => Answer::None(format!("CSI did not answer within {} s", LIMIT.as_secs())),
        Ok(Err(why)) => Answer::None(why),
        Ok(Ok(Ok(_ready))) => Answer::Ready,
        // Any status is an answer: no restart brings a pool back.
        Ok(Ok(Err(status))) => Answer::Unready(status.message().to_owned()),
    }
}

/// The pages of a driver.
#[derive(Debug)]
pub struct DriverPages {
    pub metrics: Arc<Metrics>,
    pub pulse: Pulse,
}

impl Pages for DriverPages {
    fn metrics(&self, _format: Format) -> String {
        self.metrics.text()
    }

    fn health(&self) -> Condition {
        self.pulse.seen().health(now())
    }

    fn readiness(&self) -> Condition {
        self.pulse.seen().readiness(now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: Duration = Duration::from_secs(1000);

    fn is_well(condition: Condition) -> bool {
        matches!(condition, Condition::Well(_))
    }

    #[test]
    fn one_that_is_slow_is_not_ready_long_before_it_is_started_again() {
        let seen = Seen { heard: THEN, lacks: None };
        let after = |seconds| THEN + Duration::from_secs(seconds);
        assert!(is_well(seen.readiness(after(29))) && is_well(seen.health(after(29))));
        assert!(!is_well(seen.readiness(after(31))) && is_well(seen.health(after(31))));
        assert!(is_well(seen.health(after(119))) && !is_well(seen.health(after(121))));
    }

    #[test]
    fn one_that_lacks_something_is_alive() {
        let seen = Seen { heard: THEN, lacks: Some("the pool /p is gone".to_owned()) };
        assert!(is_well(seen.health(THEN)));
        assert_eq!(seen.readiness(THEN), Condition::Unwell("the pool /p is gone".to_owned()));
    }

    #[tokio::test]
    async fn where_nobody_listens_nobody_is_heard() {
        let folder = tempfile::tempdir().expect("a folder");
        let answer = call(&folder.path().join("csi.sock")).await;
        assert!(matches!(answer, Answer::None(_)));
    }
}
