//! Numbered reports between the threads that answer requests and the one that tells.
//!
//! Numbers are given and places taken under one lock, so that the queue is in the order of its numbers. The lock is held for moving one
//! report in, or for exchanging the queue for an empty one: nobody waits for the agent.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::LinkCounts;
use crate::fuse::report::OpReport;
use crate::fuse::state::{State, Word};
use crate::reports::wire;
use crate::reports::{MAX_BATCH, MAX_BATCH_BYTES};

/// Reports that may wait, those on their way included.
pub(super) const MAX_QUEUED: usize = 32_768;
/// How long the first of a batch waits for others.
const INTERVAL: Duration = Duration::from_millis(20);
/// Room that an empty queue keeps.
const KEPT: usize = 4096;

#[derive(Debug)]
struct Numbered {
    sequence: u64,
    report: OpReport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody takes reports.
    Away,
    Heard,
    /// The mount ends: nothing more comes in.
    Ended,
}

#[derive(Debug)]
struct Inner {
    waiting: VecDeque<Numbered>,
    phase: Phase,
    /// The number after the last that this server gave.
    next_sequence: u64,
    made: u64,
    taken: u64,
    full: u64,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Arc<State>,
    inner: Mutex<Inner>,
    /// Reports in a [`Stretch`]: taken from the queue, and no agent has them yet.
    on_their_way: AtomicUsize,
    is_wanted: AtomicBool,
    /// There is a first report, a full batch, or an end.
    ready: Notify,
    ended: Notify,
}

/// What is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Batch,
    End,
}

/// What was taken from the queue and is not told yet: everything from one number to before another.
#[derive(Debug)]
pub(super) struct Stretch {
    waiting: VecDeque<Numbered>,
    next_sequence: u64,
    end_sequence: u64,
}

/// What one message tells.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) first_sequence: u64,
    pub(super) next_sequence: u64,
    pub(super) reports: Vec<OpReport>,
}

impl Queue {
    pub(super) fn new(state: Arc<State>) -> Self {
        let inner =
            Inner { waiting: VecDeque::new(), phase: Phase::Away, next_sequence: 0, made: 0, taken: 0, full: 0 };
        Self {
            state,
            inner: Mutex::new(inner),
            on_their_way: AtomicUsize::new(0),
            is_wanted: AtomicBool::new(false),
            ready: Notify::new(),
            ended: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics under the lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Relaxed)
    }

    pub(super) fn push(&self, report: OpReport) {
        let mut inner = self.lock();
        let sequence = self.state.word(Word::Reported).fetch_add(1, Ordering::Relaxed) + 1;
        inner.made += 1;
        inner.next_sequence = sequence + 1;
        if inner.phase != Phase::Heard {
            return;
        }
        if inner.waiting.len() + self.on_their_way.load(Ordering::Relaxed) >= MAX_QUEUED {
            inner.full += 1;
            return;
        }
        inner.waiting.push_back(Numbered { sequence, report });
        let waiting = inner.waiting.len();
        drop(inner);
        // The first one starts the other side's interval, a full batch ends it.
        if waiting == 1 || waiting == MAX_BATCH {
            self.ready.notify_one();
        }
    }

    /// A stream begins: from which number on it tells, and how many reports no agent took before.
    pub(super) fn begin(&self) -> (Stretch, u64) {
        let mut inner = self.lock();
        let made = self.state.word(Word::Reported).load(Ordering::Relaxed);
        let taken = self.state.word(Word::ReportsTaken).load(Ordering::Relaxed);
        inner.next_sequence = made + 1;
        let stretch = Stretch { waiting: VecDeque::new(), next_sequence: made + 1, end_sequence: made + 1 };
        (stretch, made.saturating_sub(taken))
    }

    /// An agent listens.
    pub(super) fn heard(&self) {
        let mut inner = self.lock();
        if inner.phase == Phase::Away {
            inner.phase = Phase::Heard;
            self.is_wanted.store(true, Ordering::Relaxed);
        }
    }

    /// Nobody listens any more: what is waiting is lost.
    pub(super) fn away(&self) {
        let mut inner = self.lock();
        self.is_wanted.store(false, Ordering::Relaxed);
        if inner.phase == Phase::Heard {
            inner.phase = Phase::Away;
        }
        let lost = mem::take(&mut inner.waiting);
        self.on_their_way.store(0, Ordering::Relaxed);
        drop(inner);
        drop(lost);
    }

    /// The mount ends.
    pub(super) fn end(&self) {
        let mut inner = self.lock();
        inner.phase = Phase::Ended;
        self.is_wanted.store(false, Ordering::Relaxed);
        drop(inner);
        self.ready.notify_one();
        self.ended.notify_one();
    }

    /// When the mount ends; for one who waits.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().phase == Phase::Ended
    }

    /// When the queue has something to look at again.
    pub(super) async fn changed(&self) {
        self.ready.notified().await;
    }

    /// Waits until there is a batch worth telling: a full one, one whose first report waited long enough, or the last.
    pub(super) async fn next(&self, told: &Stretch) -> Next {
        let begun = loop {
            match self.look(told) {
                (true, Phase::Ended) => return Next::Batch,
                (false, Phase::Ended) => return Next::End,
                (true, Phase::Heard | Phase::Away) => break tokio::time::Instant::now(),
                (false, Phase::Heard | Phase::Away) => self.changed().await,
            }
        };
        let interval = tokio::time::sleep_until(begun + INTERVAL);
        tokio::pin!(interval);
        while !self.is_full_or_ended() {
            tokio::select! {
                () = self.changed() => {}
                () = &mut interval => break,
            }
        }
        Next::Batch
    }

    /// Whether there is anything that was not told, be it that reports were dropped.
    fn look(&self, told: &Stretch) -> (bool, Phase) {
        let inner = self.lock();
        (!inner.waiting.is_empty() || inner.next_sequence > told.next_sequence, inner.phase)
    }

    fn is_full_or_ended(&self) -> bool {
        let inner = self.lock();
        inner.waiting.len() >= MAX_BATCH || inner.phase == Phase::Ended
    }

    /// Takes all that waits.
    pub(super) fn take(&self, stretch: &mut Stretch) {
        let Stretch { waiting, end_sequence, next_sequence: _ } = stretch;
        waiting.shrink_to(KEPT);
        let mut inner = self.lock();
        mem::swap(waiting, &mut inner.waiting);
        *end_sequence = inner.next_sequence;
        self.on_their_way.store(waiting.len(), Ordering::Relaxed);
    }

    /// An agent took the batch.
    pub(super) fn taken(&self, reports: usize) {
        let count = reports as u64;
        let mut inner = self.lock();
        inner.taken += count;
        self.state.word(Word::ReportsTaken).fetch_add(count, Ordering::Relaxed);
        self.on_their_way.fetch_sub(reports, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> LinkCounts {
        let inner = self.lock();
        let Inner { made, taken, full, waiting, phase: _, next_sequence: _ } = &*inner;
        let waiting = (waiting.len() + self.on_their_way.load(Ordering::Relaxed)) as u64;
        LinkCounts { made: *made, taken: *taken, full: *full, waiting }
    }
}

impl Stretch {
    pub(super) fn is_told(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) const fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// The next message: at most so many reports and so many bytes, but one at least where there is one.
    pub(super) fn batch(&mut self) -> Batch {
        let first_sequence = self.next_sequence;
        let mut reports = Vec::with_capacity(self.waiting.len().min(MAX_BATCH));
        let mut bytes = 0;
        while let Some(Numbered { report, .. }) = self.waiting.front() {
            let weight = wire::weight(report);
            if weight > MAX_BATCH_BYTES {
                // No agent would take it.
                self.waiting.pop_front();
                continue;
            }
            bytes += weight;
            if reports.len() == MAX_BATCH || (bytes > MAX_BATCH_BYTES && !reports.is_empty()) {
                break;
            }
            reports.extend(self.waiting.pop_front().map(|numbered| numbered.report));
        }
        self.next_sequence = self.waiting.front().map_or(self.end_sequence, |numbered| numbered.sequence);
        Batch { first_sequence, next_sequence: self.next_sequence, reports }
    }
}
