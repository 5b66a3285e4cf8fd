//! Events for the users of pods. They are told beside whatever found the reason, until the API takes them or the pod is gone.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::driver::NodeDriver;
use crate::kubernetes::Answer;
use crate::records::Pod;

/// More than the pods of a node.
const MOST: usize = 1024;
/// How long one waits before the next try, at first and at most.
const PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub pod: Pod,
    pub reason: &'static str,
    pub note: String,
}

/// What is not told yet, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Events(Arc<Mutex<VecDeque<Warning>>>);

impl Events {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Warning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The oldest that do not fit any more.
    fn add(&self, warning: Warning) -> Vec<Warning> {
        let mut waiting = self.waiting();
        waiting.push_back(warning);
        let over = waiting.len().saturating_sub(MOST);
        waiting.drain(..over).collect()
    }
}

/// Has it told to all pods that have a volume.
pub fn warn_pods(driver: &NodeDriver, volume: &str, reason: &'static str, note: &str) {
    let records = driver.mounting.records.all().unwrap_or_default();
    let of_volume = records.into_iter().filter(|record| record.volume == *volume);
    // A pod may have the volume at several places.
    let pods: HashMap<_, _> = of_volume.filter_map(|record| record.pod).map(|pod| (pod.uid.clone(), pod)).collect();
    for pod in pods.into_values() {
        for lost in driver.events.add(Warning { pod, reason, note: note.to_owned() }) {
            tracing::error!(pod = lost.pod.name, reason = lost.reason, "too many events wait; it is never told");
            driver.metrics.event_lost("full");
        }
    }
}

/// Tells them until it is dropped.
pub async fn tell(driver: Arc<NodeDriver>) {
    let mut pause = PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = match tell_all(&driver).await {
            Answer::Away | Answer::NotYet => LONGEST_PAUSE.min(pause * 2),
            Answer::Taken | Answer::Refused => PAUSE,
        };
    }
}

/// Tells what there is, as long as somebody listens. One that is not taken yet goes behind the others: it is asked for once a round.
async fn tell_all(driver: &NodeDriver) -> Answer {
    let mut all = Answer::Taken;
    let round = driver.events.waiting().len();
    for _ in 0..round {
        let Some(oldest) = driver.events.waiting().front().cloned() else { break };
        let Ok(records) = driver.mounting.records.all() else { return Answer::Away };
        let pods: HashSet<_> = records.into_iter().filter_map(|record| Some(record.pod?.uid)).collect();
        let answer = match pods.contains(&oldest.pod.uid) {
            true => driver.kubernetes.warn(&oldest.pod, oldest.reason, oldest.note.clone()).await,
            false => {
                driver.metrics.event_lost("pod_gone");
                Answer::Taken
            }
        };
        match answer {
            Answer::Away => return answer,
            Answer::Refused => driver.metrics.event_lost("refused"),
            Answer::NotYet => all = answer,
            Answer::Taken => {}
        }
        // It may have made room for others meanwhile.
        let mut waiting = driver.events.waiting();
        if waiting.front() == Some(&oldest) {
            waiting.pop_front();
            if answer == Answer::NotYet {
                waiting.push_back(oldest);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes() {
        let events = Events::default();
        let pod = Pod { namespace: "n".to_owned(), name: "p".to_owned(), uid: "u".to_owned() };
        let warning = |note: usize| Warning { pod: pod.clone(), reason: "InterposerGone", note: note.to_string() };
        for note in 0..MOST {
            assert_eq!(events.add(warning(note)), []);
        }
        assert_eq!(events.add(warning(MOST)), [warning(0)]);
        assert_eq!(events.waiting().len(), MOST);
    }
}
