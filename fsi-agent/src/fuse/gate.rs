//! Throttles in force: who has to wait for tokens, and who is let go when.
//!
//! ```text
//! pass --(tokens there)--> the caller answers at once
//!   `-----(none)---------> held, until `advance` on the thread of held answers finds tokens, or the caller is killed
//! ```
//! The operation itself is done before its answer waits; so it is the answers, and with them the application, that keep the rate.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::hold::{Held, Hold, Then, UNTIL_TAKEN, Waited};
use super::pods;
use super::state::State;
use crate::clock;
use crate::throttle::pods::Pods;
use crate::throttle::{Admission, Direction, Lane, Scope, Throttle, ThrottleSpec};

/// One that wants to pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passing {
    pub(super) direction: Direction,
    pub(super) file: u64,
    /// Whose it is, where [`Gate::asks_for_pods`].
    pub(super) pod: u64,
    /// Who shares fairly with others: the thread.
    pub(super) tid: u32,
    pub(super) bytes: u64,
}

impl Passing {
    fn lane(self) -> Lane {
        let Self { direction, file, pod, tid, bytes: _ } = self;
        Lane { flow: u64::from(tid), file, pod, direction }
    }
}

/// The throttles of one set of rules.
#[derive(Clone)]
pub(super) struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    /// Reads, writes.
    limited: [bool; 2],
    asks_for_pods: bool,
    state: Arc<State>,
    hold: Hold,
    queue: Mutex<Queue>,
}

struct Queue {
    throttle: Throttle,
    waiting: HashMap<u64, Held>,
    next_ticket: u64,
    /// When `advance` is called next; `u64::MAX`: not at all.
    wakes_at: u64,
    /// Requests that passed because too many answers waited.
    overflowed: u64,
}

/// How one passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    AtOnce,
    Waited,
    /// Not at all: the caller was killed.
    Killed,
}

/// Whether the rules were there before this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// They are new: buckets are full.
    Now,
    /// A server before this one held them: buckets are as it left them.
    Before,
}

impl Gate {
    pub(super) fn new(specs: &[ThrottleSpec], since: Since, state: Arc<State>, hold: Hold) -> io::Result<Self> {
        let now = clock::monotonic_ns();
        let pods = match specs.iter().any(|spec| spec.scope == Scope::Pod) {
            true => Pods::of(specs, &pods::table()?),
            false => None,
        };
        let throttle = match since {
            Since::Now => Throttle::new(specs, pods, now),
            Since::Before => Throttle::resume(specs, pods, now, &state.levels()),
        };
        state.set_levels(throttle.levels());
        let limited = [Direction::Read, Direction::Write].map(|direction| throttle.limits(direction));
        let asks_for_pods = throttle.knows_pods();
        let queue = Queue { throttle, waiting: HashMap::new(), next_ticket: 0, wakes_at: u64::MAX, overflowed: 0 };
        Ok(Self { shared: Arc::new(Shared { limited, asks_for_pods, state, hold, queue: Mutex::new(queue) }) })
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A queue is whole after every call into it.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything in that direction is limited.
    pub(super) fn limits(&self, direction: Direction) -> bool {
        let [reads, writes] = self.shared.limited;
        match direction {
            Direction::Read => reads,
            Direction::Write => writes,
        }
    }

    /// Whether it matters whose a request is.
    pub(super) fn asks_for_pods(&self) -> bool {
        self.shared.asks_for_pods
    }

    /// For who would rather fail than wait: whether there were tokens, which are taken. `None`: he waits like others, as no limit
    /// of his says `eagain`.
    pub(super) fn try_pass(&self, passing: Passing) -> Option<bool> {
        let mut queue = self.queue();
        if !queue.throttle.may_refuse(passing.direction) {
            return None;
        }
        let ticket = queue.ticket();
        let admission = queue.throttle.submit(clock::monotonic_ns(), ticket, passing.lane(), passing.bytes, true);
        self.shared.state.set_levels(queue.throttle.levels());
        Some(admission == Admission::Now)
    }

    /// Less was done than was paid for.
    pub(super) fn give_back(&self, passing: Passing) {
        let mut queue = self.queue();
        queue.throttle.give_back(passing.lane(), passing.bytes, clock::monotonic_ns());
        self.shared.state.set_levels(queue.throttle.levels());
    }

    /// Takes tokens, and does `then` once there are some; at once where there are.
    pub(super) fn pass(&self, passing: Passing, then: Box<dyn FnOnce(Passed) + Send>) {
        let mut queue = self.queue();
        let ticket = queue.ticket();
        let admission = queue.throttle.submit(clock::monotonic_ns(), ticket, passing.lane(), passing.bytes, false);
        if admission == Admission::Now {
            self.shared.state.set_levels(queue.throttle.levels());
            drop(queue);
            then(Passed::AtOnce);
            return;
        }
        let gate = self.clone();
        let then: Then = Box::new(move |waited| match waited {
            Waited::Through => then(Passed::Waited),
            Waited::Killed => {
                gate.queue().leave(ticket);
                then(Passed::Killed);
            }
        });
        match self.shared.hold.until(UNTIL_TAKEN, passing.tid, then) {
            Ok(held) => {
                queue.waiting.insert(ticket, held);
                drop(queue);
                self.advance();
            }
            Err(then) => {
                // As many wait as can.
                queue.leave(ticket);
                queue.overflowed += 1;
                drop(queue);
                then(Waited::Through);
            }
        }
    }

    /// Lets go whoever may go, and sees to it that this is called again when the next one may.
    fn advance(&self) {
        let now = clock::monotonic_ns();
        let mut queue = self.queue();
        let mut released = Vec::new();
        let next = queue.throttle.advance(now, &mut released).unwrap_or(u64::MAX);
        if !released.is_empty() {
            self.shared.state.set_levels(queue.throttle.levels());
        }
        let held = queue.taken(&released);
        if queue.wakes_at <= now {
            queue.wakes_at = u64::MAX;
        }
        if next < queue.wakes_at {
            queue.wakes_at = next;
            let gate = self.clone();
            self.shared.hold.wake_at(next, move || gate.advance());
        }
        drop(queue);
        self.end(held);
    }

    /// The limits are no longer in force: nobody waits for them any more.
    pub(super) fn open(&self) {
        let mut queue = self.queue();
        let mut released = Vec::new();
        queue.throttle.release_all(&mut released);
        let held = queue.taken(&released);
        drop(queue);
        self.end(held);
    }

    fn end(&self, held: Vec<Held>) {
        for then in held.into_iter().filter_map(|held| self.shared.hold.take(held)) {
            then(Waited::Through);
        }
    }

    /// Requests that passed without tokens: too many waited, or too many files or pods were in use.
    pub(super) fn overflowed(&self) -> u64 {
        let queue = self.queue();
        queue.throttle.overflowed() + queue.overflowed
    }
}

impl Queue {
    const fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn leave(&mut self, ticket: u64) {
        self.throttle.cancel(ticket);
        self.waiting.remove(&ticket);
    }

    fn taken(&mut self, released: &[u64]) -> Vec<Held> {
        released.iter().filter_map(|ticket| self.waiting.remove(ticket)).collect()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}
