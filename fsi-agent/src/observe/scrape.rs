//! Lets the threads that serve and push metrics ask the one that holds the probes for fresh ones.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The observing thread looks every few milliseconds; this is for when it is stuck.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where the question and the answer lie.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScrapeDesk<T = String> {
    shared: Arc<(Mutex<Desk<T>>, Condvar)>,
}

#[derive(Debug, Default)]
struct Desk<T> {
    asked: u64,
    answered: u64,
    answer: T,
    /// Nobody will answer any more.
    is_closed: bool,
}

impl<T: Clone> ScrapeDesk<T> {
    /// Asks and waits; an old answer is better than none.
    pub(crate) fn ask(&self) -> T {
        let (desk, answered) = &*self.shared;
        let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
        desk.asked += 1;
        let mine = desk.asked;
        let waited = answered.wait_timeout_while(desk, PATIENCE, |desk| desk.answered < mine && !desk.is_closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.answer.clone()
    }

    /// Whether somebody waits.
    pub(crate) fn is_asked(&self) -> bool {
        let desk = self.shared.0.lock().unwrap_or_else(PoisonError::into_inner);
        desk.answered < desk.asked
    }

    /// Answers all who wait.
    pub(crate) fn answer(&self, answer: T) {
        let (desk, answered) = &*self.shared;
        let mut desk = desk.lock().unwrap_or_else(PoisonError::into_inner);
        desk.answer = answer;
        desk.answered = desk.asked;
        answered.notify_all();
    }

    /// The last answer, for whoever asks from here on.
    pub(crate) fn close(&self, answer: T) {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner).is_closed = true;
        self.answer(answer);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_reaches_who_asked() {
        let desk = ScrapeDesk::default();
        let asking = desk.clone();
        let asker = thread::spawn(move || asking.ask());
        while !desk.is_asked() {
            thread::yield_now();
        }
        desk.answer("fresh".to_owned());
        assert_eq!(asker.join().unwrap(), "fresh");
        assert!(!desk.is_asked());
        desk.close("last".to_owned());
        assert_eq!(desk.ask(), "last", "and nobody waits");
    }
}
