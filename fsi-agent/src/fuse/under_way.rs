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
//! | 4 | 1: what was before is written down, so that the work may have begun |
//! | 5 | inode number the name stood for before |
//! | 6 | inode number the other name stood for before |
//! | 7 | 1 + the handle of a file that was opened for it |
//! | 8 | 1 + bytes that come free with the object's last name; 0: none, or they were given back |
//! | 9 | number of the first fault that was logged for it, or 0 |
//! | 10 | how many were |
//! | 11 | thread that waits for the answer |
//! | 12 | the request's number again: word 11 is of this request (servers of earlier versions leave both as they are) |
//! | 13 | the request's number until its answer is about to be given, then 0 |

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::hold;
use super::state::{Slot, State, Word};

/// Marks a request that the kernel sends again (`FUSE_UNIQUE_RESEND`).
pub(super) const RESENT: u64 = 1 << 63;

/// In the place of a number while a request is being written down. No request has it: its highest bit marks those that come again.
const CLAIMED: u64 = u64::MAX;

/// The word that says that no answer was given.
const UNANSWERED: usize = 13;

/// What an earlier server left about a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// A lookup of this node was counted for an answer that was never given.
    pub(super) counted: u64,
    /// `(ordinal, fired)`
    pub(super) decision: Option<(u64, u64)>,
    /// `(name, other name)`; none while nothing can have been done.
    before: Option<(u64, u64)>,
    /// A file was opened for an answer that was never given.
    pub(super) opened: Option<u64>,
    pub(super) logged: Option<Logged>,
}

/// Faults that have their numbers in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Logged {
    pub(super) first: u64,
    pub(super) count: u64,
}

/// What the names of a request stood for before anything was done; 0 is nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) name: u64,
    pub(super) target: u64,
    /// An earlier server wrote it down, and may have done the work.
    pub(super) begun: bool,
}

/// The requests under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    state: Arc<State>,
    /// What the server before us left, by the request's number.
    left: Mutex<HashMap<u64, (Slot, Past)>>,
    /// It left something, and no request has come yet that is not one of those.
    awaits_new: AtomicBool,
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
                before: (word(4) != 0).then(|| (word(5), word(6))),
                opened: word(7).checked_sub(1),
                logged: (word(9) != 0).then(|| Logged { first: word(9), count: word(10) }),
            };
            left.insert(word(0) & !RESENT, (slot, past));
        }
        let awaits_new = AtomicBool::new(!left.is_empty());
        Self { state, left: Mutex::new(left), awaits_new }
    }

    /// Whether this is the first request since something was left that does not come again: the kernel gives those that do before all
    /// others. True once.
    pub(super) fn is_first_new(&self, unique: u64) -> bool {
        self.awaits_new.load(Ordering::Relaxed)
            && unique & RESENT == 0
            && self.awaits_new.swap(false, Ordering::Relaxed)
    }

    /// What was left and does not come again: by now it would have. It was answered and not crossed out, or its caller was killed and let
    /// go; `unanswered` gets those that no server answered.
    pub(super) fn forget_left(&self, mut unanswered: impl FnMut(Past)) {
        let left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        for (unique, (slot, past)) in left {
            if self.state.requests().slot(slot)[UNANSWERED].load(Ordering::Acquire) == unique {
                unanswered(past);
            }
            self.state.requests().release(slot);
        }
    }

    /// Writes a request down, for which that thread waits.
    pub(super) fn begin(&self, unique: u64, tid: u32) -> Guard {
        let plain = unique & !RESENT;
        if unique & RESENT != 0 {
            let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).remove(&plain);
            if let Some((slot, past)) = left {
                // A server that was about to answer it did not.
                self.state.requests().slot(slot)[UNANSWERED].store(plain, Ordering::Release);
                return Guard { state: Arc::clone(&self.state), slot: Some(slot), past: Some(past) };
            }
        }
        let table = self.state.requests();
        // Numbers count up by two, so neighbours in time are neighbours in the table.
        let from = u32::try_from(plain / 2 % table.len() as u64).unwrap_or(0);
        let slot = table.claim(from, CLAIMED);
        if let Some(slot) = slot {
            let words = table.slot(slot);
            for word in &words[1..11] {
                word.store(0, Ordering::Relaxed);
            }
            words[11].store(tid.into(), Ordering::Relaxed);
            words[12].store(plain, Ordering::Relaxed);
            words[UNANSWERED].store(plain, Ordering::Relaxed);
            table.publish(slot, plain);
        }
        Guard { state: Arc::clone(&self.state), slot, past: None }
    }
}

/// Requests in a state that no server has, of callers that were killed.
pub(super) fn of_killed(state: BorrowedFd<'_>) -> io::Result<Vec<u64>> {
    let mut killed = Vec::new();
    State::read_requests(state, |words| {
        let (unique, tid) = (words[0], u32::try_from(words[11]));
        if unique != 0 && words[12] == unique && tid.is_ok_and(hold::is_killed) {
            killed.push(unique);
        }
    })?;
    Ok(killed)
}

/// What came free was counted together with everything else.
pub(super) fn forget_freed(state: &State) {
    for (_slot, words) in state.requests().used(u64::MAX) {
        words[8].store(0, Ordering::Release);
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

    /// Its answer is about to be given. Only then may the kernel know what was opened and counted for it.
    pub(super) fn answers(&self) {
        self.set(UNANSWERED, 0);
    }

    /// These faults are about to be logged.
    pub(super) fn logs(&self, logged: Logged) {
        self.set(10, logged.count);
        self.set(9, logged.first);
    }

    /// What the names stood for before any server did anything; `look` finds out what they stand for now. Nothing may be done
    /// before this.
    pub(super) fn before(&self, look: impl FnOnce() -> (u64, u64)) -> Before {
        if let Some((name, target)) = self.past.and_then(|past| past.before) {
            return Before { name, target, begun: true };
        }
        let (name, target) = look();
        self.set(5, name);
        self.set(6, target);
        self.set(4, 1);
        Before { name, target, begun: false }
    }

    /// An object is about to lose its last name, and these bytes come free with it.
    pub(super) fn frees(&self, bytes: u64) {
        self.set(8, bytes.saturating_add(1));
    }

    /// The bytes that came free, by this server or one before, and were not given back. Given out once.
    pub(super) fn freed(&self) -> u64 {
        let word = self.slot.map(|slot| self.state.requests().slot(slot)[8].swap(0, Ordering::AcqRel));
        word.unwrap_or(0).saturating_sub(1)
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
        let guard = first.begin(10, 1);
        guard.counts(7);
        guard.opens(0);
        guard.decided(3, 0b101);
        assert_eq!(guard.before(|| (5, 0)), Before { name: 5, target: 0, begun: false });
        guard.frees(4096);
        // As a server that is killed: nothing is crossed out.
        std::mem::forget(guard);
        std::mem::forget(first.begin(12, 1));
        assert!(first.state.requests().claim(0, CLAIMED).is_some());

        let next = UnderWay::new(State::open(file.as_fd()).unwrap());
        assert_eq!(next.begin(10, 1).past(), None, "a number of its own");
        let guard = next.begin(10 | RESENT, 1);
        let past = guard.past().unwrap();
        assert_eq!((past.counted, past.opened, past.decision), (7, Some(0), Some((3, 0b101))));
        assert_eq!(guard.before(|| (6, 6)), Before { name: 5, target: 0, begun: true });
        assert_eq!((guard.freed(), guard.freed()), (4096, 0));
        drop(guard);
        assert_eq!(next.begin(10 | RESENT, 1).past(), None, "once");
        assert_eq!(next.state.requests().used(u64::MAX).count(), 1);
        next.forget_left(|_past| {});
        assert_eq!(next.state.requests().used(u64::MAX).count(), 0);
    }

    #[test]
    fn what_was_answered_is_told_from_what_was_not() {
        let file = State::create().unwrap();
        let first = UnderWay::new(State::open(file.as_fd()).unwrap());
        for (unique, is_answered) in [(10, false), (12, true), (14, true)] {
            let guard = first.begin(unique, 1);
            guard.opens(unique);
            if is_answered {
                guard.answers();
            }
            std::mem::forget(guard);
        }
        // The kernel has no answer to 14 after all.
        let second = UnderWay::new(State::open(file.as_fd()).unwrap());
        std::mem::forget(second.begin(14 | RESENT, 1));
        let third = UnderWay::new(State::open(file.as_fd()).unwrap());
        let mut unanswered = Vec::new();
        third.forget_left(|past| unanswered.extend(past.opened));
        unanswered.sort_unstable();
        assert_eq!(unanswered, [10, 14]);
    }

    #[test]
    fn the_first_request_that_does_not_come_again_is_told() {
        let file = State::create().unwrap();
        let first = UnderWay::new(State::open(file.as_fd()).unwrap());
        assert!(!first.is_first_new(8), "nothing was left");
        std::mem::forget(first.begin(10, 1));
        let next = UnderWay::new(State::open(file.as_fd()).unwrap());
        assert_eq!([10 | RESENT, 12, 14].map(|unique| next.is_first_new(unique)), [false, true, false]);
    }

    #[test]
    fn callers_that_live_are_left_alone() {
        let file = State::create().unwrap();
        let first = UnderWay::new(State::open(file.as_fd()).unwrap());
        std::mem::forget(first.begin(10, rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()));
        let mut written = Vec::new();
        State::read_requests(file.as_fd(), |words| written.extend((words[0] != 0).then_some((words[0], words[12]))))
            .unwrap();
        assert_eq!(written, [(10, 10)]);
        assert!(of_killed(file.as_fd()).unwrap().is_empty());
    }
}
