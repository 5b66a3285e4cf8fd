//! Work that may hang, with a bound on how long anybody waits for it.
//!
//! A call into a mount that does not answer cannot be taken back; what can be is the waiting. The thread stays until the kernel lets it
//! go, and keeps what it was given: a volume's guard, or its place in [`Probes`].

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use crate::error::CallError;

/// Does blocking work on a thread of its own; after `limit` nobody waits any more, and the work goes on and keeps what it holds.
///
/// # Errors
/// Those of the work, or that it is late.
pub async fn work<T: Send + 'static>(
    what: &'static str,
    limit: Duration,
    held: impl Send + 'static,
    work: impl FnOnce() -> Result<T, CallError> + Send + 'static,
) -> Result<T, CallError> {
    let task = tokio::task::spawn_blocking(move || {
        let _until_done = held;
        work()
    });
    match tokio::time::timeout(limit, task).await {
        Ok(Ok(done)) => done,
        Ok(Err(_panicked)) => Err(CallError::Bug(what)),
        Err(_elapsed) => Err(CallError::Late { what, limit }),
    }
}

/// Questions to places that may not answer: at most one waits at each, so that a mount that hangs costs one thread.
#[derive(Clone, Debug, Default)]
pub struct Probes(Arc<Mutex<HashSet<PathBuf>>>);

impl Probes {
    /// Asks a place; none when it does not answer in time, or an earlier question still waits for its answer.
    pub fn ask<T: Send + 'static>(
        &self,
        place: &Path,
        limit: Duration,
        question: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Option<T> {
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place.to_owned()) {
            return None;
        }
        let (answer, answered) = mpsc::sync_channel(1);
        let (waiting, asked) = (self.clone(), place.to_owned());
        let thread = thread::Builder::new().name("fsi-csi-probe".to_owned()).spawn(move || {
            let said = question(&asked);
            waiting.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&asked);
            // Nobody may wait any more.
            answer.send(said).ok();
        });
        if thread.is_err() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(place);
            return None;
        }
        answered.recv_timeout(limit).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locks::Locks;

    #[tokio::test]
    async fn late_work_keeps_its_volume() {
        let locks = Locks::default();
        let (let_go, wait) = mpsc::channel::<()>();
        let guard = locks.hold("v").unwrap();
        let late = work("waiting", Duration::from_millis(20), guard, move || Ok(wait.recv().ok())).await;
        assert!(matches!(late, Err(CallError::Late { what: "waiting", .. })));
        assert!(locks.hold("v").is_err(), "it is still at work");
        drop(let_go);
        for _ in 0..500 {
            if locks.hold("v").is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the volume was never let go");
    }

    #[test]
    fn a_place_that_hangs_is_asked_once() {
        let probes = Probes::default();
        let (let_go, wait) = mpsc::channel::<()>();
        let place = Path::new("/somewhere");
        assert!(probes.ask(place, Duration::from_millis(10), move |_| wait.recv().ok()).is_none());
        assert!(probes.ask(place, Duration::from_secs(5), |_| ()).is_none(), "the first still waits");
        drop(let_go);
        while probes.ask(place, Duration::from_secs(5), |_| 7) != Some(7) {
            thread::sleep(Duration::from_millis(5));
        }
    }
}
