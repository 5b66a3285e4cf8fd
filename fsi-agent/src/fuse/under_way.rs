//! Requests that are being done: written down before, crossed out after the answer.
//!
//! A server that is killed leaves its requests written down; the kernel sends them again, marked, to the successor, which finds
//! here whether the first server had begun, how many lookups it had counted and what the rules had said.
//!
//! | word | holds |
//! |---|---|
//! | 0 | the request's number (0: free) |
//! | 1 | node whose lookup was counted, or 0 |
//! | 2 | ordinal the rules gave |
//! | 3 | 1 + which rules fired; 0: not decided |
//! | 4 | when it began, Unix nanoseconds |
//! | 5 | inode number the name stood for before |
//! | 6 | inode number the other name stood for before |
//! | 7 | 1 + the handle of a file that was opened for it |

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use super::state::{Slot, State, Word};
use crate::clock::{self, Clock};

/// Marks a request that the kernel sends again (`FUSE_UNIQUE_RESEND`).
const RESENT: u64 = 1 << 63;

/// In the place of a number while a request is being written down. No request has it: its highest bit marks those that come again.
const CLAIMED: u64 = u64::MAX;

/// What an earlier server left about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// A lookup of this node was counted for an answer that was never given.
    pub(super) counted: u64,
    /// `(ordinal, fired)`
    pub(super) decision: Option<(u64, u64)>,
    pub(super) began_unix_ns: u64,
    pub(super) before: u64,
    pub(super) before_target: u64,
    /// A file was opened for an answer that was never given.
    pub(super) opened: Option<u64>,
}

/// The requests under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    state: Arc<State>,
    /// What the server before us left, by the request's number.
    left: Mutex<HashMap<u64, (Slot, Past)>>,
}

/// A request that is written down; crossed out when this goes.
#[derive(Debug)]
pub(super) struct Guard {
    state: Arc<State>,
    slot: Option<Slot>,
    past: Option<Past>,
}

impl UnderWay {
    pub(super) fn new(state: Arc<State>) -> Self {
        let mut left = HashMap::new();
        for (slot, words) in state.requests().used(u64::MAX) {
            let word = |index: usize| words[index].load(Ordering::Acquire);
            if word(0) == CLAIMED {
                // Nothing was done for it yet.
                state.requests().release(slot);
                continue;
            }
            let decision = word(3).checked_sub(1).map(|fired| (word(2), fired));
            let past = Past {
                counted: word(1),
                decision,
                began_unix_ns: word(4),
                before: word(5),
                before_target: word(6),
                opened: word(7).checked_sub(1),
            };
            left.insert(word(0) & !RESENT, (slot, past));
        }
        Self { state, left: Mutex::new(left) }
    }

    /// What was answered and not crossed out any more does not come again: by now it would have.
    pub(super) fn forget_left(&self) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        for (slot, _past) in left.into_values() {
            self.state.requests().release(slot);
        }
    }

    /// Writes a request down.
    pub(super) fn begin(&self, unique: u64, clock: Clock) -> Guard {
        let plain = unique & !RESENT;
        if unique & RESENT != 0 {
            let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&plain);
            if let Some((slot, past)) = left {
                return Guard { state: Arc::clone(&self.state), slot: Some(slot), past: Some(past) };
            }
        }
        let table = self.state.requests();
        // Numbers count up by two, so neighbours in time are neighbours in the table.
        let from = u32::try_from(plain / 2 % table.len() as u64).unwrap_or(0);
        let slot = table.claim(from, CLAIMED);
        if let Some(slot) = slot {
            let words = table.slot(slot);
            for word in &words[1..8] {
                word.store(0, Ordering::Relaxed);
            }
            words[4].store(clock.unix_ns(clock::monotonic_ns()), Ordering::Relaxed);
            table.publish(slot, plain);
        }
        Guard { state: Arc::clone(&self.state), slot, past: None }
    }
}

impl Guard {
    /// What an earlier server left about it.
    pub(super) fn past(&self) -> Option<Past> {
        self.past
    }

    fn set(&self, word: usize, value: u64) {
        if let Some(slot) = self.slot {
            self.state.requests().slot(slot)[word].store(value, Ordering::Release);
        }
    }

    /// A lookup of `node` is about to be counted for this request's answer.
    pub(super) fn counts(&self, node: u64) {
        self.set(1, node);
    }

    pub(super) fn decided(&self, ordinal: u64, fired: u64) {
        self.set(2, ordinal);
        self.set(3, fired.saturating_add(1));
    }

    /// A file was opened for this request's answer.
    pub(super) fn opens(&self, handle: u64) {
        self.set(7, handle.saturating_add(1));
    }

    /// What the names stood for before anything was done.
    pub(super) fn before(&self, name: u64, target: u64) {
        if self.past.is_none() {
            self.set(5, name);
            self.set(6, target);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.state.word(Word::Progress).fetch_add(1, Ordering::Relaxed);
        if let Some(slot) = self.slot {
            self.state.requests().release(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn what_a_server_leaves_is_found_once_and_forgotten_after() {
        let file = State::create().unwrap();
        let first = UnderWay::new(State::open(file.as_fd()).unwrap());
        let clock = Clock::measure();
        let guard = first.begin(10, clock);
        guard.counts(7);
        guard.opens(0);
        guard.decided(3, 0b101);
        // As a server that is killed: nothing is crossed out.
        std::mem::forget(guard);
        std::mem::forget(first.begin(12, clock));
        assert!(first.state.requests().claim(0, CLAIMED).is_some());

        let next = UnderWay::new(State::open(file.as_fd()).unwrap());
        assert_eq!(next.begin(10, clock).past(), None, "a number of its own");
        let guard = next.begin(10 | RESENT, clock);
        let past = guard.past().unwrap();
        assert_eq!((past.counted, past.opened, past.decision), (7, Some(0), Some((3, 0b101))));
        drop(guard);
        assert_eq!(next.begin(10 | RESENT, clock).past(), None, "once");
        assert_eq!(next.state.requests().used(u64::MAX).count(), 1);
        next.forget_left();
        assert_eq!(next.state.requests().used(u64::MAX).count(), 0);
    }
}
