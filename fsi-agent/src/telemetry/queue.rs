//! The bounded queue between the pipeline and an exporter's thread.
//!
//! Guarantees: a push never waits for the exporter (the lock is held for moving pointers only) and wakes it at most twice a batch.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::span::{Path, Span, SpanBody};

/// About what a span takes in a request, without its paths.
const SPAN_BYTES: usize = 700;
/// What a receiver takes in one message is 4 MiB by default: stay well below.
const BATCH_BYTES: usize = 2 << 20;

#[derive(Debug)]
struct State {
    spans: VecDeque<Arc<Span>>,
    open: Open,
    accepted: u64,
    full: u64,
    late: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Yes,
    /// Nothing more comes in; what is in may come out.
    Closed,
}

/// Counts of what came in, and did not.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueCounts {
    pub(super) accepted: u64,
    /// Lost: the queue was full.
    pub(super) full: u64,
    /// Lost: it was closed.
    pub(super) late: u64,
    /// In it now.
    pub(super) waiting: u64,
}

/// What came of waiting for a batch.
#[derive(Debug)]
pub(super) enum Taken {
    Batch(Vec<Arc<Span>>),
    /// Patience was over.
    Nothing,
    /// Nothing more comes.
    End,
}

/// Spans on their way.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
    max_queued: usize,
    max_batch: usize,
    interval: Duration,
}

impl Queue {
    pub(super) fn new(max_queued: usize, max_batch: usize, interval: Duration) -> Self {
        let state = State { spans: VecDeque::new(), open: Open::Yes, accepted: 0, full: 0, late: 0 };
        Self { state: Mutex::new(state), ready: Condvar::new(), max_queued, max_batch: max_batch.max(1), interval }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics under the lock; were it so, the counts would still be sound.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, span: &Arc<Span>) {
        let mut state = self.lock();
        if state.open == Open::Closed {
            state.late += 1;
            return;
        }
        if state.spans.len() >= self.max_queued {
            state.full += 1;
            return;
        }
        state.spans.push_back(Arc::clone(span));
        state.accepted += 1;
        let waiting = state.spans.len();
        drop(state);
        // The first one starts the other side's interval, a full batch ends it.
        if waiting == 1 || waiting == self.max_batch {
            self.ready.notify_one();
        }
    }

    /// Waits for a full batch, or for what came within the interval; nothing when closed and empty.
    pub(super) fn take(&self) -> Option<Vec<Arc<Span>>> {
        loop {
            match self.take_until(None) {
                Taken::Batch(spans) => return Some(spans),
                Taken::Nothing => {}
                Taken::End => return None,
            }
        }
    }

    /// The same, and not longer than until `patience` for the first span.
    pub(super) fn take_until(&self, patience: Option<Instant>) -> Taken {
        let mut state = self.lock();
        while state.spans.is_empty() {
            if state.open == Open::Closed {
                return Taken::End;
            }
            let Some(patience) = patience else {
                state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = patience.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Taken::Nothing;
            }
            state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let until = Instant::now() + self.interval;
        while state.spans.len() < self.max_batch && state.open == Open::Yes {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let count = batch_of(&state.spans, self.max_batch);
        Taken::Batch(state.spans.drain(..count).collect())
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.lock().open = Open::Closed;
        self.ready.notify_all();
    }

    /// Closes, and forgets what is in it; says how many.
    pub(super) fn abandon(&self) -> u64 {
        let mut state = self.lock();
        state.open = Open::Closed;
        let forgotten = std::mem::take(&mut state.spans);
        drop(state);
        forgotten.len() as u64
    }

    pub(super) fn counts(&self) -> QueueCounts {
        let state = self.lock();
        QueueCounts { accepted: state.accepted, full: state.full, late: state.late, waiting: state.spans.len() as u64 }
    }
}

/// How many spans from the front make a batch: at most so many, and at most so many bytes, but one at least.
fn batch_of(spans: &VecDeque<Arc<Span>>, max_batch: usize) -> usize {
    let mut bytes = 0;
    for (count, span) in spans.iter().take(max_batch).enumerate() {
        bytes += SPAN_BYTES + path_bytes(span);
        if bytes > BATCH_BYTES && count > 0 {
            return count;
        }
    }
    spans.len().min(max_batch)
}

fn path_bytes(span: &Span) -> usize {
    // A byte that is no text takes three as text and four more escaped.
    let of = |path: &Option<Path>| path.as_ref().map_or(0, |path| 7 * path.bytes.len());
    match &span.body {
        SpanBody::Process(_) => 0,
        SpanBody::File(file) => of(&file.path),
        SpanBody::Operation(op) => of(&op.path) + of(&op.target),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::samples;

    #[test]
    fn what_does_not_fit_or_comes_late_is_counted() {
        let queue = Queue::new(3, 2, Duration::ZERO);
        (0..5).for_each(|_| queue.push(&samples::read("/f")));
        assert_eq!(queue.take().unwrap().len(), 2);
        queue.close();
        queue.push(&samples::read("/f"));
        assert_eq!(queue.take().unwrap().len(), 1);
        assert!(queue.take().is_none());
        let QueueCounts { accepted, full, late, waiting } = queue.counts();
        assert_eq!((accepted, full, late, waiting), (3, 2, 1, 0));
    }

    #[test]
    fn batches_of_long_paths_stay_below_what_receivers_take() {
        let queue = Queue::new(10_000, 5000, Duration::ZERO);
        let path = format!("/{}", "x".repeat(4095));
        (0..1000).for_each(|_| queue.push(&samples::read(&path)));
        assert!(queue.take().unwrap().len() * 8 * 4096 < BATCH_BYTES * 2);
        assert_eq!(batch_of(&VecDeque::from(vec![samples::read(&"y".repeat(1 << 20))]), 10), 1);
    }
}
